/*
 * feeder.h - the reader's end of one output: appends records to its open bodies, closes them as commit groups, hands
 * them to the writer, and stands still when the writer takes no more.
 *
 * Threads: reader.
 */
#ifndef TAILRACE_AGENT_FEEDER_H
#define TAILRACE_AGENT_FEEDER_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/tail/tail.h"
#include "agent/tally.h"
#include "agent/writer.h"
#include "outputs/output.h"

struct feeder {
    struct output *output;
    uint32_t index;
    struct writer *writer;
    struct tallies *tallies;
    struct group *pending;    /* could not be pushed yet */
    bool is_blocked;          /* takes no lines: pending, or out of memory until retry_at_ns */
    int64_t retry_at_ns;
    bool is_in_group;         /* a body of the open group is with the writer (MORE) */
    size_t pushed_bytes;      /* raw, of such bodies */
    struct lost_range *lost;  /* given up since the last group */
    size_t n_lost, cap_lost;
    int64_t opened_ns;        /* monotonic: the open group's first line; 0 = empty */
    int64_t hurry_ns;         /* monotonic: the open group is to be closed by then, new names are in it; 0 = no hurry */
    int64_t last_end_ns;      /* monotonic: the last group that was closed */
    uint64_t collected;       /* groups, for tail_durable */
    uint32_t epoch;           /* fences seen */
    uint64_t reread_lines;    /* in that group so far */
    bool is_rereading;        /* its open group is of ranges that are read again: other lines wait */
};

void feeder_init(struct feeder *f, struct output *output, struct writer *writer, struct tallies *tallies,
                 int64_t mono_ns);
void feeder_deinit(struct feeder *f);

/* 0 and *ret; -ENOMEM: the record is in no body, and the feeder is blocked for a moment. After 0 the feeder may have
 * become blocked: this record is in, no more are taken. */
NODISCARD int feeder_append(struct feeder *f, const struct record *rec, int64_t mono_ns, struct append_result *ret);

/* Closes the group when it is time (or now, with is_forced): all open bodies and the positions. */
void feeder_close_if_due(struct feeder *f, struct tail *t, int64_t mono_ns, bool is_forced);
/* The tail has new names: they become durable before long, whatever batch_wait is. */
void feeder_hurry(struct feeder *f, int64_t mono_ns);
/* When feeder_close_if_due has something to do; INT64_MAX: not before a line comes. */
int64_t feeder_due_at(const struct feeder *f);

/* Bytes of a file are given up for this output: the next group tells its queue. */
void feeder_lost(struct feeder *f, const struct lost_range *lost);

/* The writer has room: true when lines are taken again (the caller then tells the tail). */
bool feeder_on_space(struct feeder *f, int64_t mono_ns);
/* Between these two only lines that are read again are appended; is_held is asked for each. The group before is closed. */
void feeder_begin_reread(struct feeder *f, bool (*is_held)(void *ctx, struct slice route, const struct record *rec), void *ctx);
/* The group is handed over, under this name. -ENOMEM: call again. */
NODISCARD int feeder_end_reread(struct feeder *f, struct letter_id id, int64_t mono_ns);
/* Open bodies go to the writer when they take the output's share; the group stays open. */
void feeder_relieve(struct feeder *f, int64_t mono_ns);
/* A sync failed: what is open or pending is void. */
void feeder_on_fence(struct feeder *f, uint32_t epoch);

#endif
