/*
 * engine.h - one configuration at work: its queues, outputs, reader, writer and sender, from open to close.
 *
 * Without a stepper the three are threads; with one (a simulation) they are turns, given by engine_step().
 *
 * Threads: main.
 */
#ifndef TAILRACE_AGENT_ENGINE_H
#define TAILRACE_AGENT_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/err.h"
#include "agent/base/limits.h"
#include "agent/base/stepper.h"
#include "agent/deliver/sender.h"
#include "agent/queue/queue.h"
#include "agent/reader.h"
#include "agent/stall.h"
#include "agent/tail/tail.h"
#include "agent/writer.h"
#include "conf/conf.h"

/* What does not change over a reload. */
struct engine_world {
    uint64_t machine_salt;
    const struct stepper *stepper; /* NULL: threads */
};

/* Fields are for reading. */
struct engine {
    const struct engine_world *world;
    struct conf *conf; /* borrowed */
    size_t n;          /* outputs */
    struct output *outputs[OUTPUTS_MAX];
    struct queue *queues[OUTPUTS_MAX];
    struct queue_recovery recovery[OUTPUTS_MAX];
    struct slice inputs[INPUTS_MAX]; /* names by index */
    struct stall stalls[OUTPUTS_MAX];
    struct kube *kube; /* NULL: no metadata but what paths say */
    struct reader *reader;
    struct writer *writer;
    struct sender *sender;
};

/* adopt: the tail of the engine before, or NULL; descriptors of live files are taken over from it. world and conf outlive
 * the engine. */
NODISCARD int engine_start(const struct engine_world *world, struct conf *conf, struct tail *adopt,
                           struct engine **ret_engine, struct err *err);
/* Commits what was read within about grace_ns and ends the threads. The tail is the caller's: for the next engine to adopt,
 * then to close, before conf goes. */
struct tail *engine_stop(struct engine *e, int64_t grace_ns);
void engine_free(struct engine *e); /* stopped; NULL is fine */

/* Another configuration on the same queues: *e is replaced. On failure the old configuration is at work again, in a new
 * engine; *e is NULL when that could not be started either. conf and the old one stay the caller's. */
NODISCARD int engine_reload(struct engine **e, struct conf *conf, struct err *err);

/* Each second or so: a queue whose frames nobody tries to send is said to be stalled, and the sender is kicked. */
void engine_watch(struct engine *e);

/* ---- with a stepper ---- */
enum engine_part { ENGINE_READER, ENGINE_WRITER, ENGINE_SENDER, ENGINE_PARTS };
/* One turn of one part. has_news: of the reader, that the tail's descriptor would be readable. Returns when the part wants
 * its next turn (monotonic; in the past: at once), if it is not called before. */
int64_t engine_step(struct engine *e, enum engine_part part, bool has_news);
bool engine_is_called(const struct engine *e, enum engine_part part);

#endif
