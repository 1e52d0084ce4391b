/*
 * reader.h - the reader thread: inotify, files, parsers, open bodies. One turn: messages, events, one file's bytes,
 * groups that are due, sleep.
 *
 * Owns: tail, pipeline, feeders, tallies between reader_start and reader_free.
 */
#ifndef TAILRACE_AGENT_READER_H
#define TAILRACE_AGENT_READER_H

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/stepper.h"
#include "agent/queue/queue.h"
#include "agent/tail/tail.h"
#include "agent/writer.h"
#include "conf/conf.h"

struct reader;

struct reader_conf {
    const struct conf *conf;
    struct output *const *outputs;                  /* by index */
    const struct queue_recovery *const *recovered;  /* by index; borrowed during reader_new only */
    uint64_t machine_salt;
    struct kube *kube;                              /* metadata of pods; NULL: there is none */
    struct tail *adopt;                             /* of the configuration before, or NULL; taken by reader_start */
    void (*on_ready)(void *ctx);                    /* reader thread: the first scan is done */
    void *ctx;
    const struct stepper *stepper;                  /* NULL: a thread; else reader_start makes none */
};

NODISCARD int reader_new(const struct reader_conf *conf, struct reader **ret_reader, struct err *err);
NODISCARD int reader_start(struct reader *r, struct writer *writer, struct err *err);
/* With a stepper: one turn, without waiting. has_events: tail_fd() would be readable. Returns when it wants the next one
 * (monotonic; 0 = at once), if it is not called before. */
int64_t reader_step(struct reader *r, bool has_events);
bool reader_is_called(const struct reader *r); /* there is a message */
/* Closes and hands over every open group, ends the thread. Groups that the writer does not take within grace_ns are
 * given up: their lines are still in their files. */
void reader_stop(struct reader *r, int64_t grace_ns);
/* The tail, for the next configuration to adopt from; the caller closes it. After reader_stop, before reader_free. */
struct tail *reader_take_tail(struct reader *r);
void reader_free(struct reader *r);

/* What the writer and the sender tell: see writer.h. */
struct writer_events reader_events(struct reader *r);

/* Any thread: JSON of the files, for /status; -ETIMEDOUT when the reader does not answer. */
NODISCARD int reader_status(struct reader *r, struct buf *out, int64_t timeout_ns);

#endif
