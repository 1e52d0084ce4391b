#include "agent/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "agent/base/budget.h"
#include "agent/base/bug.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/stats.h"
#include "agent/base/tenants.h"
#include "agent/deliver/sender.h"
#include "agent/kube/kube.h"
#include "agent/reader.h"
#include "agent/registry.h"
#include "agent/writer.h"

/* How long a reload waits for requests in flight and for the disk. */
#define RELOAD_GRACE_NS (3 * NS_PER_SEC)

/* ---- opening ---- */

static void restore_output_rows(uint32_t output, const struct queue_recovery *rec)
{
    for (size_t i = 0; i < rec->n_rows; i++) {
        const struct recovered_row *from = &rec->rows[i];
        struct output_row *row = stats_output_row(output, tenant_intern(from->tenant));
        uint64_t rest = from->queued + from->parked + from->dead;
        atomic_store(&row->accepted_lines, from->accepted);
        for (int k = 0; k < LOST_REASONS; k++) {
            atomic_store(&row->lost_lines[k], from->lost[k]);
            atomic_store(&row->lost_bytes[k], from->lost_bytes[k]);
            rest += from->lost[k];
        }
        atomic_store(&row->dead_lines, from->dead);
        if (from->dead > 0)
            stats_count_dead_reason(row, "earlier", (int64_t)from->dead); /* the reasons are in dead/ */
        gauge_set(&row->queued_lines, (int64_t)from->queued);
        gauge_set(&row->parked_lines, (int64_t)from->parked);
        atomic_store(&row->delivered_lines, from->accepted > rest ? from->accepted - rest : 0);
    }
}

static void say_recovered(const struct output_conf *oc, const struct queue_recovery *rec)
{
    if (!rec->is_new)
        log_info("queue", "queue.opened", "the queue was opened", LOG_SLICE("output", oc->name),
                 LOG_NUM("frames", rec->queued_frames), LOG_NUM("lines", rec->queued_lines),
                 LOG_NUM("files", rec->n_files), LOG_NUM("torn_bytes", rec->torn_bytes));
    if (rec->damaged_bytes > 0)
        log_error("queue", "queue.damaged", "damaged bytes of the queue were set aside",
                  LOG_SLICE("output", oc->name), LOG_NUM("bytes", rec->damaged_bytes),
                  LOG_NUM("frames", rec->damaged_frames));
}

static int open_output(struct engine *e, size_t i, struct err *err)
{
    struct output_conf *oc = &e->conf->outputs[i];
    const struct output_ops *ops = registry_ops(oc->type);
    if (ops == NULL)
        return err_say(err, -EINVAL, "outputs.%.*s: there is no output of type %s", SLICE_ARGS(oc->name), oc->type->name);
    struct queue_open_conf qc = { .output = oc,
                                  .wire_form = ops->wire_form,
                                  .min_free_bytes = e->conf->min_free.bytes,
                                  .min_free_percent = e->conf->min_free.percent };
    int r = queue_open(&qc, &e->queues[i], &e->recovery[i], err);
    if (r == 0)
        r = ops->open(oc, &e->outputs[i], err);
    if (r < 0)
        return err_prefix(err, "outputs.%.*s", SLICE_ARGS(oc->name));
    e->outputs[i]->resumed_ns = e->recovery[i].newest_ns;
    e->outputs[i]->life = e->recovery[i].next_seq;
    say_recovered(oc, &e->recovery[i]);
    return 0;
}

static void on_ready(void *ctx)
{
    (void)ctx;
    gauge_set(&stats.ready_scan, 1);
}

static void on_space(void *ctx, uint32_t output)
{
    struct engine *e = ctx;
    (void)output; /* the writer looks at every channel */
    writer_wake(e->writer);
}

static void on_frames(void *ctx)
{
    struct engine *e = ctx;
    sender_wake(e->sender);
}

static struct slice input_name(void *ctx, uint32_t input)
{
    const struct conf *c = ctx;
    return c->inputs[input].name;
}

static int start_threads(struct engine *e, struct err *err)
{
    struct writer_output writing[OUTPUTS_MAX];
    struct sender_output sending[OUTPUTS_MAX];
    for (size_t i = 0; i < e->n; i++) {
        writing[i] = (struct writer_output){ e->outputs[i], e->queues[i] };
        sending[i] = (struct sender_output){ e->outputs[i], e->queues[i] };
    }
    struct writer_conf wc = { .outputs = writing, .n_outputs = e->n, .events = reader_events(e->reader),
                              .input_name = input_name, .input_ctx = e->conf, .stepper = e->world->stepper };
    int r = writer_start(&wc, &e->writer, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < e->conf->n_inputs; i++)
        e->inputs[i] = e->conf->inputs[i].name;
    struct sender_conf sc = { .outputs = sending, .n_outputs = e->n, .writer = e->writer, .inputs = e->inputs,
                              .n_inputs = e->conf->n_inputs, .on_space = on_space, .ctx = e,
                              .stepper = e->world->stepper };
    r = sender_start(&sc, &e->sender, err);
    if (r < 0)
        return r;
    writer_set_listener(e->writer, on_frames, e);
    return reader_start(e->reader, e->writer, err);
}

/* In the order of a line's way backwards: who takes lines stops after who brings them. */
struct tail *engine_stop(struct engine *e, int64_t grace_ns)
{
    int64_t each_ns = grace_ns / 3; /* the worst case: a dead server and a full queue */
    reader_stop(e->reader, each_ns);
    if (e->writer != NULL)
        writer_set_listener(e->writer, NULL, NULL);
    sender_stop(e->sender, each_ns);
    e->sender = NULL;
    writer_stop(e->writer, each_ns);
    return e->reader != NULL ? reader_take_tail(e->reader) : NULL;
}

void engine_free(struct engine *e)
{
    if (e == NULL)
        return;
    writer_free(e->writer);
    reader_free(e->reader);
    kube_stop(e->kube);
    for (size_t i = 0; i < OUTPUTS_MAX; i++) {
        if (e->outputs[i] != NULL)
            e->outputs[i]->ops->close(e->outputs[i]);
        queue_close(e->queues[i]);
    }
    free(e);
}

int engine_start(const struct engine_world *world, struct conf *conf, struct tail *adopt, struct engine **ret_engine,
                 struct err *err)
{
    struct engine *e = calloc(1, sizeof(*e));
    const struct queue_recovery *recovered[OUTPUTS_MAX] = { 0 };
    int r = e == NULL ? err_set(err, -ENOMEM, "cannot start") : 0;
    if (r == 0) {
        e->world = world;
        e->conf = conf;
        e->n = conf->n_outputs;
        budget_configure(conf->memory_bytes, e->n);
        gauge_set(&stats.memory_limit_bytes, (int64_t)conf->memory_bytes);
    }
    for (size_t i = 0; r == 0 && i < e->n; i++) {
        r = open_output(e, i, err);
        recovered[i] = &e->recovery[i];
    }
    if (r == 0 && world->stepper == NULL) /* before the reader: what was kept of pods is known to its first line */
        r = kube_start(conf, &e->kube, err);
    if (r == 0) {
        for (size_t i = 0; i < e->n; i++)
            restore_output_rows((uint32_t)i, &e->recovery[i]);
        struct reader_conf rc = { .conf = conf, .outputs = e->outputs, .recovered = recovered,
                                  .machine_salt = world->machine_salt, .kube = e->kube, .adopt = adopt, .on_ready = on_ready,
                                  .stepper = world->stepper };
        r = reader_new(&rc, &e->reader, err);
    }
    for (size_t i = 0; r == 0 && i < e->n; i++)
        queue_recovered_free(e->queues[i]);
    if (r == 0)
        r = start_threads(e, err);
    if (r < 0) {
        if (e != NULL) {
            tail_close(engine_stop(e, NS_PER_SEC));
            engine_free(e);
        }
        return r;
    }
    *ret_engine = e;
    return 0;
}

/* ---- reload ---- */

/* Counters are kept by index: what has another name now begins anew. Rows by tenant come back from the queues. */
static void forget_stats(const struct conf *old, const struct conf *conf)
{
    stats_forget_rows();
    for (uint32_t i = 0; i < old->n_inputs; i++)
        if (i >= conf->n_inputs || !slice_eq(old->inputs[i].name, conf->inputs[i].name))
            stats_forget_input(i);
    for (uint32_t i = 0; i < old->n_outputs; i++)
        if (i >= conf->n_outputs || !slice_eq(old->outputs[i].name, conf->outputs[i].name))
            stats_forget_output(i);
}

int engine_reload(struct engine **e, struct conf *conf, struct err *err)
{
    const struct engine_world *world = (*e)->world;
    struct conf *old = (*e)->conf;
    struct tail *tail = engine_stop(*e, RELOAD_GRACE_NS);
    engine_free(*e);
    *e = NULL;
    forget_stats(old, conf);
    int r = engine_start(world, conf, BUG(30) ? NULL : tail, e, err);
    if (r < 0) {
        struct err again = { 0 };
        forget_stats(conf, old);
        if (engine_start(world, old, tail, e, &again) < 0)
            log_error("main", "config.rejected", "neither the new nor the old configuration starts: stopping",
                      LOG_CSTR("new", err->text), LOG_CSTR("old", again.text));
    }
    tail_close(tail); /* before the configuration that its files were made with */
    return r;
}

/* ---- watching ---- */

static void watch_output(struct engine *e, size_t i, int64_t now)
{
    struct output_stats *st = &stats.outputs[i];
    const struct stall_facts f = { .durable = queue_durable_seq(e->queues[i]),
                                   .acked = queue_acked_seq(e->queues[i]),
                                   .attempts = counter_get(&st->attempts),
                                   .waits = (enum output_waits)gauge_get(&st->waits) };
    const enum stall_news news = stall_look(&e->stalls[i], &f, now);
    gauge_set(&st->stalled, e->stalls[i].is_told);
    if (news == STALL_BEGINS || news == STALL_GOES_ON) {
        counter_add(&st->stalls, 1);
        log_error("main", "output.stalled", "frames wait, nothing is tried, and nothing explains it: the sender looks anew",
                  LOG_SLICE("output", e->conf->outputs[i].name), LOG_NUM("durable_seq", f.durable),
                  LOG_NUM("acked_seq", f.acked), LOG_NUM("attempts", f.attempts));
        sender_kick(e->sender, i);
    } else if (news == STALL_ENDS) {
        log_info("main", "output.stalled", "frames move again", LOG_SLICE("output", e->conf->outputs[i].name));
    }
}

void engine_watch(struct engine *e)
{
    const int64_t now = clock_mono_ns();
    for (size_t i = 0; i < e->n; i++)
        watch_output(e, i, now);
}

/* ---- turns ---- */

int64_t engine_step(struct engine *e, enum engine_part part, bool has_news)
{
    switch (part) {
    case ENGINE_READER:
        return reader_step(e->reader, has_news);
    case ENGINE_WRITER:
        return writer_step(e->writer);
    case ENGINE_SENDER:
        return sender_step(e->sender);
    case ENGINE_PARTS:
        break;
    }
    return INT64_MAX;
}

bool engine_is_called(const struct engine *e, enum engine_part part)
{
    switch (part) {
    case ENGINE_READER:
        return reader_is_called(e->reader);
    case ENGINE_WRITER:
        return writer_is_called(e->writer);
    case ENGINE_SENDER:
        return sender_is_called(e->sender);
    case ENGINE_PARTS:
        break;
    }
    return false;
}
