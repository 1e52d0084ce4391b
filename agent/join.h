/*
 * join.h - records of more than one raw line: partial lines (CRI P, Docker without newline) joined per stream, and
 * multi-line text (tracebacks, panics) joined per stream after that.
 *
 * One struct join a pass (tail_pass.state), made when a line first needs it. Its content is never the only copy: the
 * bytes are still in the file, and a position beside them says where to read again (POSITION parts).
 * Threads: reader.
 */
#ifndef TAILRACE_AGENT_JOIN_H
#define TAILRACE_AGENT_JOIN_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/position.h"
#include "agent/base/record.h"
#include "parsers/multiline.h"

/* A record that is not finished. */
struct pending {
    bool is_active;
    bool is_cut;        /* content reached LINE_BYTES_MAX; the rest was left out */
    bool has_time;
    uint64_t start;     /* of its first raw line */
    uint64_t end;       /* behind its last raw line */
    uint64_t raw_bytes;
    int64_t time_ns;    /* the first part's */
    struct buf text;
};

struct join_stream {
    struct pending part;   /* pieces of one line */
    struct pending group;  /* lines of one record */
    struct multiline_state state;
    int64_t flush_at_ns;   /* monotonic: the group waits no longer */
};

struct join {
    struct join_stream streams[STREAMS_MAX];
};

struct join *join_new(void);
void join_free(struct join *j);

/* Begins or continues; at LINE_BYTES_MAX the rest is left out and is_cut set. -ENOMEM. */
NODISCARD int pending_add(struct pending *p, struct slice text, uint64_t start, uint64_t end);
void pending_end(struct pending *p); /* forgets the content, keeps a little memory */

/* Where each unfinished stream begins; NULL is an empty join. except: a stream to leave out, or -1. */
uint8_t join_parts(const struct join *j, int except, struct position_part *parts);
/* The earliest flush_at_ns of an active group, INT64_MAX when there is none. */
int64_t join_flush_at(const struct join *j);

#endif
