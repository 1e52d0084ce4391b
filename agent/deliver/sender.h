/*
 * sender.h - the sender thread: frames from every queue to every server, replies to verdicts, the cursor.
 *
 * Per output and route key ("lane"): up to 4 requests in flight while it is accepted, one after a refusal, concurrency
 * an output; back-off, hold, splitting and parking are the lane's own (queue.md §4). Outputs on this machine
 * (ops->is_local) are delivered by the same thread, in order. One dead output or lane never delays another.
 *
 * Owns:    curl multi, the reading end of every queue, lanes, retries. Durable work goes to the writer as jobs.
 * Threads: sender_start/sender_stop from main; the rest says where.
 */
#ifndef TAILRACE_DELIVER_SENDER_H
#define TAILRACE_DELIVER_SENDER_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/stepper.h"
#include "agent/queue/queue.h"
#include "agent/writer.h"
#include "outputs/output.h"

struct sender;

struct sender_output {
    struct output *output;   /* conf inside */
    struct queue *queue;
};

struct sender_conf {
    const struct sender_output *outputs;
    size_t n_outputs;
    struct writer *writer;
    const struct slice *inputs;  /* names by index, for altered{refused_mapping}; borrowed, may be NULL */
    size_t n_inputs;
    void (*on_space)(void *ctx, uint32_t output); /* sender thread: the queue got smaller, reading may go on */
    void *ctx;
    const struct stepper *stepper; /* NULL: a thread; else sender_start makes none */
};

NODISCARD int sender_start(const struct sender_conf *conf, struct sender **ret_sender, struct err *err);
/* With a stepper: one turn, without waiting. Returns when it wants the next one (monotonic), if it is not called before. */
int64_t sender_step(struct sender *s);
bool sender_is_called(const struct sender *s); /* a job is done, or sender_wake(); replies do not show here */
/* Waits up to grace_ns for requests in flight, aborts the rest (they are sent again later), writes and syncs cursors
 * through the writer, ends the thread. NULL is fine. */
void sender_stop(struct sender *s, int64_t grace_ns);

/* Any thread: something became durable. */
void sender_wake(struct sender *s);
/* Any thread: frames of this output wait and nothing is tried; look at its queue anew. */
void sender_kick(struct sender *s, size_t output);
/* Any thread; waits at most timeout_ns for the sender thread to write a JSON object {output: {...}} with lanes held, in
 * flight, last errors. -ETIMEDOUT when it did not. */
NODISCARD int sender_status(struct sender *s, struct buf *out, int64_t timeout_ns);

/* One request outside the loop, for `check --connect` and `health`: DNS, TLS, certificate days, auth, tenant. Writes lines
 * for people into text; 0 when the output would accept. Caller's thread. */
NODISCARD int sender_probe(struct output *output, struct buf *text);

#endif
