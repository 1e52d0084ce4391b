/*
 * Carries a plan out.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/stats.h"
#include "agent/base/tenants.h"
#include "agent/queue/core.h"
#include "agent/registry.h"
#include "tests/sim/sim.h"

#define EPOCH_NS (INT64_C(1767225600) * NS_PER_SEC)
/* Turns in one plan before it is taken for a runaway. */
#define TURNS_MAX 400000
#define START_RETRY_NS (5 * NS_PER_SEC)

struct sim sim;

void sim_fail(const char *fmt, ...)
{
    if (sim.has_failed)
        return;
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(sim.failure, sizeof(sim.failure), fmt, ap);
    va_end(ap);
    sim.has_failed = true;
    sim_say("FAILED: %s", sim.failure);
}

void sim_say(const char *fmt, ...)
{
    if (!sim.is_traced)
        return;
    va_list ap;
    printf("%11.3f  ", (double)sim.mono_ns / (double)NS_PER_SEC);
    va_start(ap, fmt);
    (void)vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    (void)fflush(stdout);
}

/* ---- time ---- */

static int64_t model_mono(void)
{
    return sim.mono_ns;
}

static int64_t model_wall(void)
{
    return EPOCH_NS + sim.mono_ns + sim.wall_off_ns;
}

static void pass(int64_t ns)
{
    sim.mono_ns += ns;
}

static void on_slow(void *ctx, int64_t ns)
{
    (void)ctx;
    pass(ns);
}

static void on_call(void *ctx, const char *what, int64_t result)
{
    (void)ctx;
    sim_say("    %s = %lld", what, (long long)result);
}

/* ---- what the world does while the agent looks ---- */

static void say_action(size_t i, const char *how)
{
    char text[200];
    if (!sim.is_traced)
        return;
    action_words(sim.plan, &sim.plan->acts[i], text, sizeof(text));
    sim_say("%2zu. %s%s", i, how, text);
}

/* An action that has begun comes to its end, between two turns. */
static void end_act(void)
{
    while (sim.is_acting)
        sim.is_acting = world_step(0);
}

static uint32_t rotates(const struct action *a)
{
    return a->kind == ACT_ROTATE || a->kind == ACT_COPYTRUNCATE ? 1u << a->a : 0;
}

/* The next action that may come now has begun, or goes on. A log is rotated once in a turn at most: twice, each few of the
 * agent's calls, is what no logrotate does, whatever the machine is busy with. */
static bool has_act(void)
{
    const struct action *acts = sim.plan->acts;
    while (!sim.is_acting && sim.acts_done < sim.acts_armed && acts[sim.acts_done].is_out)
        sim.acts_done++;
    if (sim.is_acting)
        return true;
    return sim.acts_done < sim.acts_armed && (rotates(&acts[sim.acts_done]) & sim.rotated) == 0;
}

static void act_a_step(void)
{
    if (!sim.is_acting) {
        say_action(sim.acts_done, "(meanwhile) ");
        sim.rotated |= rotates(&sim.plan->acts[sim.acts_done]);
        world_act(&sim.plan->acts[sim.acts_done++]);
    }
    const uint32_t late = chance(&sim.look_rng, 40) ? 1 + rnd(&sim.look_rng, 6) : 0;
    sim.is_acting = world_step(late);
    sim.looks_left = chance(&sim.look_rng, 50) ? 0 : 1 + rnd(&sim.look_rng, sim.is_acting ? 4 : 16);
}

/* The agent has looked, and does not have its answer yet. */
static void on_look(void *ctx, enum disk_op op, const char *name)
{
    (void)ctx;
    const bool is_listed = op == DISK_LIST && chance(&sim.look_rng, 50); /* the longest look: what is listed is yet to be looked at */
    if (!has_act() || (sim.looks_left > 0 && --sim.looks_left > 0 && !is_listed))
        return;
    sim_say("    (the agent has made a %s of %s)", disk_op_word(op), name != NULL ? name : "what it has open");
    do
        act_a_step();
    while (sim.looks_left == 0 && has_act());
}

/* The actions behind this one come in its time, while the agent looks. */
static void arm_acts(size_t i)
{
    const struct plan *p = sim.plan;
    sim.acts_armed = i + 1;
    while (sim.acts_armed < p->n && (p->acts[sim.acts_armed].is_out || p->acts[sim.acts_armed].is_within))
        sim.acts_armed++;
    sim.looks_left = 1 + rnd(&sim.look_rng, chance(&sim.look_rng, 50) ? 4 : 24);
}

static void agent_begins(void)
{
    sim.turn_calls = disk_calls(sim.disk);
    sim.rotated = 0;
}

static void agent_ends(void)
{
    sim.turn_calls = UINT64_MAX;
    disk_events_arrive(sim.disk);
}

/* ---- configurations ---- */

static void put_output(struct buf *y, unsigned i)
{
    const struct shape *s = &sim.plan->shape;
    if (s->servers[i] == SERVER_LOKI)
        (void)!buf_printf(y, "  o%u:\n    type: loki\n    url: \"http://o%u\"\n    tenant: \"{tenant}\"\n"
                             "    labels: { input: \"{input}\", host: \"{host}\" }\n    proxy: none\n", i, i);
    else
        (void)!buf_printf(y, "  o%u:\n    type: elasticsearch\n    urls: [\"http://o%u\"]\n    index: \"x-{tenant}\"\n"
                             "    template: %s\n    proxy: none\n", i, i, sim.plan->seed % 4 == 0 ? "auto" : "off");
}

static void put_routes(struct buf *y, uint32_t outputs)
{
    static const char *const levels[] = { "debug", "info", "warn", "error" };
    const struct shape *s = &sim.plan->shape;
    (void)!buf_append_lit(y, "routes:\n");
    for (unsigned i = 0; i < s->n_outputs; i++) {
        if (!(outputs >> i & 1))
            continue;
        (void)!buf_append_lit(y, "  - { ");
        if (s->tenant_of_output[i] != UINT32_MAX)
            (void)!buf_printf(y, "match: { tenant: t%u }, ", s->tenant_of_output[i]);
        (void)!buf_printf(y, "to: [o%u], levels: \"%s\", continue: true }\n", i, levels[s->levels[i]]);
    }
}

static void put_yaml(struct buf *y, uint32_t outputs)
{
    static const char *const formats[] = { [LOG_JSON] = "auto", [LOG_TEXT] = "auto", [LOG_CRI] = "cri" };
    const struct shape *s = &sim.plan->shape;
    (void)!buf_append_lit(y, "state_dir: /state\nadmin: { listen: off }\nfields: { host: sim }\ninputs:\n");
    for (unsigned i = 0; i < s->n_logs; i++)
        (void)!buf_printf(y, "  l%u:\n    type: file\n    include: [\"/logs/%u/app.log\"]\n    format: %s\n"
                             "    timezone: UTC\n    multiline: off\n    tenant: \"{record.tenant|'default'}\"\n",
                          i, i, formats[s->kinds[i]]);
    (void)!buf_append_lit(y, "outputs:\n");
    for (unsigned i = 0; i < s->n_outputs; i++)
        if (outputs >> i & 1)
            put_output(y, i);
    put_routes(y, outputs);
}

static void shrink_sizes(struct conf *c)
{
    const struct shape *s = &sim.plan->shape;
    c->min_free = (struct conf_size_or_percent){ 0 };
    for (size_t i = 0; i < c->n_outputs; i++) {
        struct queue_conf *q = &c->outputs[i].queue;
        q->sync = (enum queue_sync)s->sync;
        q->sync_interval_ns = s->sync_ns;
        q->batch_wait_ns = s->batch_wait_ns;
        if (s->is_real_size)
            continue;
        q->max_bytes = s->max_bytes;
        q->batch_bytes = s->batch_bytes;
        q->group_bytes = s->group_bytes;
    }
}

static struct conf *conf_for(uint32_t outputs)
{
    if (sim.confs[outputs] != NULL)
        return sim.confs[outputs];
    struct buf yaml, errors;
    buf_init(&yaml, 64 * KIB);
    buf_init(&errors, 64 * KIB);
    put_yaml(&yaml, outputs);
    if (conf_load_text("sim.yaml", buf_slice(&yaml), registry_types(), &sim.confs[outputs], &errors) < 0) {
        fprintf(stderr, "sim: %.*s\n%.*s\n", SLICE_ARGS(buf_slice(&errors)), SLICE_ARGS(buf_slice(&yaml)));
        abort();
    }
    shrink_sizes(sim.confs[outputs]);
    buf_deinit(&yaml);
    buf_deinit(&errors);
    return sim.confs[outputs];
}

int sim_conf_index(unsigned slot)
{
    int at = 0;
    if (!(sim.outputs >> slot & 1))
        return -1;
    for (unsigned i = 0; i < slot; i++)
        at += (int)(sim.outputs >> i & 1);
    return at;
}

/* ---- turns ---- */

static bool is_dead(void)
{
    return disk_is_dead(sim.disk);
}

static void turn(enum engine_part part)
{
    sim.turns++;
    pass(rnd_ns(&sim.rng, 1000, 100000));
    agent_begins();
    sim.wake.part[part] = engine_step(sim.engine, part, part == ENGINE_READER && peek_has_events(sim.disk));
    agent_ends();
    if (part == ENGINE_WRITER)
        oracle_each_turn();
}

static bool wants_turn(enum engine_part part)
{
    if (engine_is_called(sim.engine, part) || sim.wake.part[part] <= sim.mono_ns)
        return true;
    if (part == ENGINE_READER)
        return peek_has_events(sim.disk) && sim.wake.part[part] > sim.mono_ns + 20 * NS_PER_MS;
    return part == ENGINE_SENDER && net_next_ns() <= sim.mono_ns;
}

static int64_t next_news(void)
{
    int64_t at = net_next_ns();
    for (int i = 0; i < ENGINE_PARTS; i++)
        at = MIN(at, sim.wake.part[i]);
    return at;
}

/* Until then (monotonic), or the agent's death. */
static void run_until(int64_t until)
{
    while (sim.mono_ns < until && sim.engine != NULL && !is_dead() && !sim.has_failed) {
        bool any = false;
        for (unsigned i = 0, first = rnd(&sim.rng, ENGINE_PARTS); i < ENGINE_PARTS && !is_dead(); i++) {
            const enum engine_part part = (enum engine_part)((first + i) % ENGINE_PARTS);
            if (!wants_turn(part) || (any && chance(&sim.rng, 30)))
                continue;
            turn(part);
            any = true;
        }
        if (!any)
            sim.mono_ns = MAX(sim.mono_ns, MIN(until, next_news()));
        if (sim.turns > TURNS_MAX)
            sim_fail("a runaway: %d turns", TURNS_MAX);
    }
    sim.mono_ns = MAX(sim.mono_ns, until);
}

/* A part waits in the middle of its work, at a stop. */
static void wait_for_others(void *ctx, int64_t until)
{
    (void)ctx;
    if (++sim.turns > 2 * TURNS_MAX) {
        fprintf(stderr, "sim: seed %llu never stops\n", (unsigned long long)sim.plan->seed);
        abort();
    }
    pass(rnd_ns(&sim.rng, 1000, 100000));
    struct engine *e = sim.engine;
    if (e == NULL || e->sender == NULL) { /* the writer itself: only time helps */
        sim.mono_ns = MAX(sim.mono_ns, until);
        return;
    }
    const int64_t at = writer_step(e->writer);
    if (!engine_is_called(e, ENGINE_WRITER) && at > sim.mono_ns)
        sim.mono_ns = MAX(sim.mono_ns, MIN(until, MIN(at, net_next_ns())));
}

/* ---- starts and ends ---- */

static void forget_process(void)
{
    stats_forget_rows();
    for (uint32_t i = 0; i < OUTPUTS_MAX; i++)
        stats_forget_output(i);
    for (uint32_t i = 0; i < INPUTS_MAX; i++)
        stats_forget_input(i);
    memset(&stats, 0, sizeof(stats));
}

static void after_death(bool is_power, enum disk_loss loss)
{
    if (is_power)
        disk_crash(sim.disk, loss, rnd64(&sim.rng));
    else
        disk_kill(sim.disk);
    if (is_power && sim.is_renumbered) {
        disk_renumber(sim.disk);
        sim.is_renumbered = false;
    }
    forget_process();
    world_agent_died();
}

/* The agent is gone at this moment: what it holds is freed, and nothing it does reaches anything. */
static void bury(bool is_power, enum disk_loss loss)
{
    if (!is_dead())
        disk_die(sim.disk);
    if (sim.engine != NULL) {
        tail_close(engine_stop(sim.engine, 0));
        engine_free(sim.engine);
        sim.engine = NULL;
    }
    after_death(is_power, loss);
}

static void set_up(void)
{
    for (int i = 0; i < ENGINE_PARTS; i++)
        sim.wake.part[i] = 0;
    sim.started_ns = sim.mono_ns;
}

static void start(void)
{
    struct err err = { 0 };
    sim.conf = conf_for(sim.outputs);
    sim.starts++;
    agent_begins();
    const int r = engine_start(&sim.world, sim.conf, NULL, &sim.engine, &err);
    agent_ends();
    if (r < 0) {
        sim.engine = NULL;
        sim_say("the agent does not start: %s", err.text);
        after_death(false, LOSS_NOTHING);
        return;
    }
    set_up();
    oracle_each_action();
}

static void stop_clean(void)
{
    if (sim.engine == NULL)
        return;
    agent_begins();
    tail_close(engine_stop(sim.engine, 5 * NS_PER_SEC));
    agent_ends();
    engine_free(sim.engine);
    sim.engine = NULL;
    after_death(false, LOSS_NOTHING);
}

/* Frames that wait, of the first segment that has any. */
struct waiting {
    char path[128];
    uint64_t offs[64], seqs[64]; /* offs: of a byte of each */
    size_t n;
};

static uint64_t acked_in(const char *name)
{
    uint8_t bytes[CURSOR_SLOT_BYTES];
    char path[128];
    struct cursor_slot slot;
    uint64_t acked = 0;
    (void)snprintf(path, sizeof(path), "/state/queue/%s/cursor", name);
    for (unsigned i = 0; i < 2; i++)
        if (disk_read(sim.disk, path, bytes, CURSOR_SLOT_BYTES, (uint64_t)i * CURSOR_SLOT_OFF) == CURSOR_SLOT_BYTES &&
            cursor_decode(bytes, &slot) == 0)
            acked = MAX(acked, cursor_top(&slot));
    return acked;
}

static void note_last(void *ctx, const char *name)
{
    uint64_t *last = ctx;
    char *end;
    const uint64_t id = strtoull(name, &end, 16);
    if (strcmp(end, ".seg") == 0)
        *last = MAX(*last, id);
}

static uint64_t last_segment(const char *name)
{
    char path[128];
    uint64_t last = 0;
    (void)snprintf(path, sizeof(path), "/state/queue/%s", name);
    (void)disk_each(sim.disk, path, note_last, &last);
    return last;
}

/* Frames that Loki has a part of are left out: lines without a time of their own get another one, and it would not know them
 * again. */
static void find_waiting(unsigned slot, const char *name, uint64_t *rng, struct waiting *ret)
{
    static uint8_t bytes[256 * KIB];
    const uint64_t acked = acked_in(name), last = last_segment(name);
    ret->n = 0;
    for (uint64_t id = 1; id <= last && ret->n == 0; id++) {
        (void)snprintf(ret->path, sizeof(ret->path), "/state/queue/%s/%016llx.seg", name, (unsigned long long)id);
        ssize_t len = disk_read(sim.disk, ret->path, bytes, sizeof(bytes), 0);
        struct frame_hdr h;
        for (uint64_t off = SEGMENT_HEAD_BYTES; len > 0 && off + FRAME_HEAD_BYTES <= (uint64_t)len; off += frame_bytes(&h)) {
            if (frame_hdr_decode(bytes + off, &h) < 0)
                break;
            if (h.type != FRAME_DATA || (h.flags & FRAME_FLAG_GAP) || h.seq <= acked || ret->n == ARRAY_LEN(ret->offs))
                continue;
            const struct slice body = slice_of(bytes + off + FRAME_HEAD_BYTES + h.meta_len, h.body_len);
            if (off + frame_bytes(&h) > (uint64_t)len || server_has_some_of(slot, body))
                continue;
            ret->seqs[ret->n] = h.seq;
            ret->offs[ret->n++] = off + rnd(rng, FRAME_HEAD_BYTES + h.meta_len + h.body_len);
        }
    }
}

/* A byte of a frame that waits, in each queue: what it took is read again from the files. */
static void rot_one(unsigned slot, const char *name, uint64_t *rng)
{
    static struct waiting w;
    find_waiting(slot, name, rng, &w);
    if (w.n == 0)
        return;
    const size_t k = rnd(rng, (uint32_t)w.n);
    uint8_t byte;
    (void)disk_read(sim.disk, w.path, &byte, 1, w.offs[k]);
    byte ^= 0x10;
    (void)disk_poke(sim.disk, w.path, w.offs[k], &byte, 1);
    sim.n_rots++;
    sim_say("  %s: byte %llu, of frame %llu", w.path, (unsigned long long)w.offs[k], (unsigned long long)w.seqs[k]);
}

static void rot(const struct action *a)
{
    uint64_t rng = a->rng;
    for (unsigned i = 0; i < sim.conf->n_outputs; i++) {
        char name[64];
        (void)snprintf(name, sizeof(name), "%.*s", SLICE_ARGS(sim.conf->outputs[i].name));
        rot_one((unsigned)(name[1] - '0'), name, &rng);
    }
}

static void begin_outputs_again(uint32_t outputs)
{
    if (sim.starts == 0)
        sim.seen = sim.plan->shape.first_outputs;
    for (unsigned i = 0; i < SIM_OUTPUTS; i++) {
        if (!(outputs >> i & 1) || (sim.seen >> i & 1))
            continue;
        for (size_t k = 0; k < sim.n_lines; k++) /* a new one begins where the furthest other stands */
            sim.lines[k].may_miss |= (uint8_t)(1u << i);
        if (sim.starts > 0) {
            world_output_begins();
            sim.fresh |= 1u << i;
            sim.fresh_ns = sim.mono_ns;
        }
    }
    sim.seen |= outputs;
}

static void end_output(unsigned slot)
{
    world_output_gone(slot);
    if (!(sim.fresh >> slot & 1) || world_is_begin_noted())
        return;
    sim.seen &= ~(1u << slot); /* its queue knows nothing: should it come back it is new again */
    sim.fresh &= ~(1u << slot);
}

static void reload(uint32_t outputs)
{
    if (sim.engine == NULL) {
        sim.outputs = outputs;
        begin_outputs_again(outputs);
        return;
    }
    struct err err = { 0 };
    if (sim.fault_until_ns != 0 || sim.space_until_ns != 0)
        world_unsettled();
    struct conf *conf = conf_for(outputs);
    const uint32_t before = sim.outputs;
    agent_begins();
    const int r = engine_reload(&sim.engine, conf, &err);
    agent_ends();
    if (r < 0)
        sim_say("the reload fails: %s", err.text);
    if (sim.engine == NULL) {
        after_death(false, LOSS_NOTHING);
        return;
    }
    if (r == 0) {
        sim.outputs = outputs;
        sim.conf = conf;
        begin_outputs_again(outputs);
    }
    for (unsigned i = 0; i < SIM_OUTPUTS; i++)
        if ((before & ~sim.outputs) >> i & 1)
            end_output(i);
    set_up();
}

/* ---- actions ---- */

static void do_reload(const struct action *a)
{
    uint32_t outputs = sim.outputs;
    if (sim.engine == NULL)
        return;
    if (a->a < SIM_OUTPUTS)
        outputs ^= 1u << a->a;
    if (outputs == 0)
        outputs = sim.outputs;
    reload(outputs);
}

static void do_fault(const struct action *a)
{
    static const struct {
        enum disk_fault_kind kind;
        uint32_t ops;
        int error;
    } rows[FAULT_KINDS] = {
        [FAULT_SYNC] = { DISK_FAIL, DISK_OP(DISK_SYNC), EIO },
        [FAULT_SHORT] = { DISK_SHORT, DISK_OP(DISK_WRITE), 0 },
        [FAULT_ENOSPC] = { DISK_FAIL, DISK_OP(DISK_WRITE), ENOSPC },
        [FAULT_EIO_WRITE] = { DISK_FAIL, DISK_OP(DISK_WRITE), EIO },
        [FAULT_EIO_READ] = { DISK_FAIL, DISK_OP(DISK_READ), EIO },
        [FAULT_LATE] = { DISK_FAIL_LATE, DISK_OP(DISK_WRITE), EIO },
        [FAULT_SYNC_DIR] = { DISK_FAIL, DISK_OP(DISK_SYNC_DIR), EIO },
        [FAULT_UNLINK] = { DISK_FAIL, DISK_OP(DISK_UNLINK), EIO },
        [FAULT_CREATE] = { DISK_FAIL, DISK_OP(DISK_CREATE), ENOSPC },
    };
    const struct disk_fault f = { .kind = rows[a->b].kind, .ops = rows[a->b].ops, .error = rows[a->b].error,
                                  .zones = DISK_STATE, .skip = a->n, .times = a->ns == 0 ? 1 : 0 };
    disk_fault_add(sim.disk, &f);
    if (a->ns > 0)
        sim.fault_until_ns = sim.mono_ns + a->ns;
}

/* Faults that were to last are over. */
static void end_faults(void)
{
    if (sim.fault_until_ns != 0 && sim.mono_ns >= sim.fault_until_ns) {
        disk_faults_clear(sim.disk);
        sim.fault_until_ns = 0;
        sim_say("(the disk is well again)");
    }
    if (sim.space_until_ns != 0 && sim.mono_ns >= sim.space_until_ns) {
        disk_set_space(sim.disk, 0);
        sim.space_until_ns = 0;
        sim_say("(the disk has room again)");
    }
}

static bool is_power(const struct action *a)
{
    return a->b != CRASH_KILL;
}

static void run_for(int64_t ns);

static void do_crash(const struct action *a)
{
    if (sim.engine != NULL && a->n > 0) {
        const struct disk_fault f = { .kind = (enum disk_fault_kind)(DISK_DIE_BEFORE + a->rng % 3), .ops = DISK_ALL_OPS,
                                      .zones = DISK_STATE, .skip = a->n - 1, .times = 1 };
        disk_fault_add(sim.disk, &f);
        run_until(sim.mono_ns + 2 * NS_PER_SEC);
    }
    bury(is_power(a), (enum disk_loss)a->b);
    disk_faults_clear(sim.disk);
    sim.fault_until_ns = 0;
    pass(a->ns);
}

static void do_events(const struct action *a)
{
    if (a->b == 0)
        disk_events_overflow(sim.disk);
    else
        disk_events_hold(sim.disk, a->b == 1);
}

static void do_caches(const struct action *a)
{
    if (a->b == 0)
        disk_drop_caches(sim.disk);
    else
        disk_write_back(sim.disk, a->b == 2);
}

static void act(const struct action *a)
{
    switch ((enum action_kind)a->kind) {
    case ACT_APPEND:
    case ACT_HALF:
    case ACT_ROTATE:
    case ACT_COPYTRUNCATE:
    case ACT_DELETE:
    case ACT_GZIP:
        world_act(a);
        while (world_step(0))
            continue;
        return;
    case ACT_WAIT:
        run_for(a->ns);
        return;
    case ACT_SERVER:
        net_set_mode(a->a, (enum server_mode)a->b, sim.mono_ns + a->ns, a->rng);
        return;
    case ACT_FAULT:
        do_fault(a);
        return;
    case ACT_SPACE:
        disk_set_space(sim.disk, MAX(a->n, 1u));
        sim.space_until_ns = sim.mono_ns + a->ns;
        return;
    case ACT_CRASH:
        do_crash(a);
        return;
    case ACT_STOP:
        stop_clean();
        if (sim.plan->shape.rots && sim.conf != NULL)
            rot(a);
        pass(a->ns);
        return;
    case ACT_RELOAD:
        do_reload(a);
        return;
    case ACT_CLOCK:
        sim.wall_off_ns += a->ns;
        return;
    case ACT_EVENTS:
        do_events(a);
        return;
    case ACT_CACHES:
        do_caches(a);
        return;
    case ACT_RENUMBER:
        sim.is_renumbered = true;
        return;
    case ACT_KINDS:
        return;
    }
}

/* A supervisor starts the agent again when it is gone. */
static void run_for(int64_t ns)
{
    const int64_t until = sim.mono_ns + ns;
    do {
        end_faults();
        if (is_dead()) {
            sim_say("(the agent dies)");
            bury(false, LOSS_NOTHING);
        }
        if (sim.engine == NULL)
            start();
        if (sim.engine == NULL)
            pass(START_RETRY_NS);
        int64_t stop = until;
        if (sim.fault_until_ns != 0)
            stop = MIN(stop, sim.fault_until_ns);
        if (sim.space_until_ns != 0)
            stop = MIN(stop, sim.space_until_ns);
        run_until(stop);
    } while (sim.mono_ns < until && !sim.has_failed);
    end_faults();
}

/* ---- the whole ---- */

static void begin(const struct plan *plan, bool is_traced)
{
    struct line *lines = sim.lines;
    const size_t cap = sim.cap_lines;
    const bool shows_calls = sim.shows_calls;
    struct disk *disk = sim.disk == NULL ? disk_new() : sim.disk;
    sim = (struct sim){ .plan = plan, .is_traced = is_traced, .shows_calls = shows_calls, .disk = disk, .lines = lines, .cap_lines = cap,
                        .mono_ns = 1000 * NS_PER_SEC, .rng = plan->seed ^ UINT64_C(0x73696d),
                        .look_rng = plan->seed ^ UINT64_C(0x6c6f6f6b), .turn_calls = UINT64_MAX,
                        .outputs = plan->shape.first_outputs };
    sim.stepper = (struct stepper){ .wait = wait_for_others };
    sim.world = (struct engine_world){ .machine_salt = 1, .stepper = &sim.stepper };
    clock_set_source(model_mono, model_wall);
    disk_reset(sim.disk, &plan->shape.disk, plan->seed);
    disk_use(sim.disk);
    disk_on_slow(sim.disk, on_slow, NULL);
    disk_on_look(sim.disk, plan->shape.acts_within ? on_look : NULL, NULL);
    disk_on_call(sim.disk, is_traced && shows_calls ? on_call : NULL, NULL);
    queue_tuning = (struct queue_tuning){ .segment_bytes = plan->shape.is_real_size ? 0 : plan->shape.segment_bytes };
    forget_process();
    servers_begin();
    net_begin();
    world_begin();
    begin_outputs_again(sim.outputs);
}

/* All is well from now on: what was promised must arrive. */
static void heal(void)
{
    sim_say("all is well from here on");
    disk_faults_clear(sim.disk);
    disk_set_space(sim.disk, 0);
    disk_events_hold(sim.disk, false);
    sim.fault_until_ns = sim.space_until_ns = 0;
    net_heal();
    servers_cure();
    world_heal();
    if (is_dead())
        bury(false, LOSS_NOTHING);
}

static void run_to_the_end(void)
{
    const uint32_t all = (1u << sim.plan->shape.n_outputs) - 1;
    heal();
    run_for(2 * NS_PER_SEC);
    if (sim.outputs != all && !sim.has_failed) { /* what the disk held up is committed first */
        run_for(20 * NS_PER_SEC);
        reload(all);
        run_for(2 * NS_PER_SEC);
    }
    for (int i = 0; i < 60 && !oracle_is_settled() && !sim.has_failed; i++)
        run_for(20 * NS_PER_SEC);
    if (!sim.has_failed)
        run_for(31 * NS_PER_SEC);
    if (!sim.has_failed)
        oracle_end();
}

bool sim_run(const struct plan *plan, bool is_traced)
{
    begin(plan, is_traced);
    run_for(plan->seed % 3 == 0 ? 0 : NS_PER_SEC);
    for (size_t i = 0; i < plan->n && !sim.has_failed; i++) {
        const struct action *a = &plan->acts[i];
        if (a->is_out)
            continue;
        sim.rng ^= a->rng;
        end_act();
        if (i >= sim.acts_done) {
            say_action(i, "");
            sim.acts_done = i + 1;
            act(a);
        }
        arm_acts(i);
        if (a->run_ns > 0)
            run_for(a->run_ns);
        if (!is_dead())
            oracle_each_action();
    }
    if (!sim.has_failed)
        run_to_the_end();
    bury(false, LOSS_NOTHING);
    if (!sim.has_failed && disk_open_fds(sim.disk) != 0)
        sim_fail("%u descriptors are left", disk_open_fds(sim.disk));
    for (size_t i = 0; i < ARRAY_LEN(sim.confs); i++) {
        conf_free(sim.confs[i]);
        sim.confs[i] = NULL;
    }
    return !sim.has_failed;
}

void sim_free(void)
{
    disk_use(NULL);
    disk_free(sim.disk);
    world_free();
    servers_free();
    free(sim.lines);
}
