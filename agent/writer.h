/*
 * writer.h - the writer thread: the only one that waits for the disk. Compresses and writes the bodies that the reader
 * closed, syncs the queues every 200 ms or 8 MiB, and does the sender's durable jobs (cursor, parked, dead, unlink).
 *
 * Owns:    the writing end of every queue between writer_start and writer_stop.
 * Threads: each call says whose it is.
 * Limits:  while an output's batches, open ones and those on the way, take more than its share of memory (budget.h),
 *          writer_push says -EAGAIN and the reader marks that output blocked. With nothing on the way it takes any group.
 */
#ifndef TAILRACE_AGENT_WRITER_H
#define TAILRACE_AGENT_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/err.h"
#include "agent/base/inbox.h"
#include "agent/base/ring.h"
#include "agent/base/stepper.h"
#include "agent/queue/queue.h"
#include "outputs/output.h"

struct writer;

/* A job of another thread: run() on the writer thread, then done() there too (it posts to its owner's inbox). */
struct writer_job {
    struct inbox_link link;                 /* first */
    void (*run)(struct writer_job *job);    /* sets result */
    void (*done)(struct writer_job *job);
    int result;
};

/* What the reader hands over: bodies, and with is_end the positions that close the group. The writer frees it. */
struct group {
    struct body *bodies;      /* list by next; NULL: positions alone */
    size_t raw_bytes;
    bool is_gap;              /* of ranges that are read again */
    bool is_end;
    struct group_end end;     /* valid with is_end; points into storage */
    void *storage;            /* one malloc'd block */
    uint64_t number;          /* n-th collected of this output, for tail_durable */
    uint32_t epoch;           /* how many fences the reader had seen: older groups are void */
};

struct writer_output {
    struct output *output;
    struct queue *queue;
};

/* A sync failed: everything after these positions is void, and so is the ledger beyond these rows. Groups pushed with an
 * older epoch are dropped. The arrays are valid during the call. */
struct writer_fence {
    uint32_t epoch;
    const struct recovered_file *files;
    size_t n_files;
    const struct ledger_row *ledger;
    size_t n_ledger;
};

/* Called on the writer thread; each posts to the owner's inbox. */
struct writer_events {
    void *ctx;
    void (*on_space)(void *ctx, uint32_t output);                   /* writer_push will succeed again */
    void (*on_durable)(void *ctx, uint32_t output, uint64_t number);/* groups up to this number are synced */
    void (*on_fence)(void *ctx, uint32_t output, const struct writer_fence *fence);
    /* Valid during the call. After a fence all that are not done come again. */
    void (*on_reread)(void *ctx, uint32_t output, const struct reread *rr);
};

struct writer_conf {
    const struct writer_output *outputs;
    size_t n_outputs;
    struct writer_events events;
    struct slice (*input_name)(void *ctx, uint32_t input);
    void *input_ctx;
    const struct stepper *stepper; /* NULL: a thread; else writer_start makes none */
};

NODISCARD int writer_start(const struct writer_conf *conf, struct writer **ret_writer, struct err *err);
/* With a stepper: one turn, without waiting. Returns when it wants the next one (monotonic; 0 = at once), if it is not
 * called before. */
int64_t writer_step(struct writer *w);
bool writer_is_called(const struct writer *w); /* something was pushed or posted */
/* Writes and syncs all that was pushed, for grace_ns at most, and ends the thread. A queue that is blocked is not waited
 * for: its lines are still in their files. NULL is fine. Jobs posted later are run by the caller's thread. */
void writer_stop(struct writer *w, int64_t grace_ns);
void writer_free(struct writer *w);

/* Reader. Takes g on success; -EAGAIN: not now, on_space follows. */
NODISCARD int writer_push(struct writer *w, uint32_t output, struct group *g);
/* Lines of this output are on the way: writer_push may say no. */
bool writer_is_writing(const struct writer *w, uint32_t output);
void group_free(struct group *g, const struct output *out);

/* Any thread. After writer_stop began, jobs still run; nothing is lost. */
void writer_post(struct writer *w, struct writer_job *job);
/* Any thread: the queue got smaller, a blocked append may go through. */
void writer_wake(struct writer *w);
/* Whom to tell that frames became durable; NULL: nobody. When it returns the one before is not called any more. */
void writer_set_listener(struct writer *w, void (*on_frames)(void *ctx), void *ctx);

#endif
