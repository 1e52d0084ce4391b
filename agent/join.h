/*
 * join.h - records of more than one raw line: partial lines (CRI P, Docker without newline) joined per stream, and
 * multi-line text (tracebacks, panics) joined per stream after that.
 *
 * One struct join a pass (tail_pass.state), made when a line first needs it. Its content is never the only copy: the
 * bytes are still in the file, and a position beside them says where to read again (POSITION parts).
 *
 * A container runtime that reopens its log in the middle of a line ends the old file with a part and goes on in the new
 * one. The new file's join then borrows that part: its text is copied, and the old file keeps its position part until the
 * record is placed.
 * Threads: reader.
 */
#ifndef TAILRACE_AGENT_JOIN_H
#define TAILRACE_AGENT_JOIN_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/position.h"
#include "agent/base/record.h"
#include "agent/tail/tail.h"
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
    struct join *lender;   /* whose part is at the start of ours */
    struct join *borrower; /* who has copied our part */
};

struct join {
    struct join_stream streams[STREAMS_MAX];
    struct tail_pass *pass;
    struct tail_file *file;
    struct join **list;    /* of the file's joins: where its head is */
    struct join *next;
};

/* Enters *list. NULL when out of memory. */
struct join *join_new(struct tail_file *file, struct tail_pass *pass, struct join **list);
void join_free(struct join *j);

/* The join among these that has an unfinished part of this stream, and nothing else of it, for all these outputs; NULL:
 * none. (A position says where a stream is read again from: not that the group before a part is wanted and the part not.)
 * What is borrowed itself is not lent on: a line goes through two files at most, in a third it begins anew. */
struct join *join_find_part(struct join *list, enum record_stream stream, uint32_t outputs);
/* This output leaves the lender's pass, which stands still, and reads what is unfinished there again, once it is not blocked. */
void join_leave(struct join *lender, uint32_t output);
/* Copies the lender's part to the start of j's. -ENOMEM. */
NODISCARD int join_borrow(struct join *j, struct join *lender, enum record_stream stream, uint64_t start);
/* An output is stopped in j's pass: it needs the parts that j has borrowed again, so it leaves their lenders as well. Not
 * one whose record is being placed, unless it is stopped before that record. NULL is fine. */
void join_release(struct join *j, uint32_t output, bool is_before);
/* The record of a borrowed part is placed for all outputs that are left: the lender has nothing unfinished there any more. */
void join_settle(struct join *j, enum record_stream stream);

/* Begins or continues; at LINE_BYTES_MAX the rest is left out and is_cut set. -ENOMEM, also when all joins together take
 * their part of limits.memory (budget.h); nothing has changed then. */
NODISCARD int pending_add(struct pending *p, struct slice text, uint64_t start, uint64_t end);
void pending_end(struct pending *p); /* forgets the content, keeps a little memory */

bool join_is_idle(const struct join *j); /* nothing is unfinished */
bool join_is_bound(const struct join *j); /* something of it is borrowed or lent */
/* Where each unfinished stream begins; NULL is an empty join. except: a stream to leave out, or -1. */
uint8_t join_parts(const struct join *j, int except, struct position_part *parts);
/* The earliest flush_at_ns of an active group, INT64_MAX when there is none. */
int64_t join_flush_at(const struct join *j);

#endif
