/*
 * A seed becomes a configuration and a list of actions.
 */
#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/output_conf.h"
#include "tests/sim/sim.h"

static const char *const level_words[] = { "debug", "info", "warn", "error" };

static void make_outputs(struct shape *s, uint64_t *rng)
{
    s->n_outputs = 2 + (chance(rng, 12) ? 1 : 0);
    for (unsigned i = 0; i < s->n_outputs; i++) {
        s->servers[i] = i == 0 ? SERVER_LOKI : i == 1 ? SERVER_ES : (enum server_kind)rnd(rng, 2);
        s->levels[i] = chance(rng, 25) ? rnd(rng, 4) : 0;
        s->tenant_of_output[i] = chance(rng, 12) ? rnd(rng, s->n_tenants) : UINT32_MAX;
    }
    s->first_outputs = (1u << s->n_outputs) - 1;
    if (chance(rng, 15))
        s->first_outputs &= ~(1u << rnd(rng, s->n_outputs));
}

static void make_logs(struct shape *s, uint64_t *rng)
{
    s->n_logs = 1 + rnd(rng, 3);
    for (unsigned i = 0; i < s->n_logs; i++) {
        const uint32_t k = rnd(rng, 10);
        s->kinds[i] = k < 5 ? LOG_JSON : k < 7 ? LOG_TEXT : LOG_CRI;
        s->copytruncates[i] = s->is_calm && s->kinds[i] != LOG_CRI && chance(rng, 40);
    }
}

/* What came to be simulated later has chance of its own, so that the other seeds keep their stories. */
static void make_copies(struct shape *s, uint64_t seed)
{
    uint64_t rng = seed * UINT64_C(0xd1b54a32d192ed03) ^ UINT64_C(0x636f70696573);
    s->compresses = s->is_calm || chance(&rng, 60);
    for (unsigned i = 0; i < s->n_logs; i++)
        s->copytruncates[i] |= s->kinds[i] != LOG_CRI && chance(&rng, 30);
}

static void make_rot(struct shape *s, uint64_t seed)
{
    uint64_t rng = seed * UINT64_C(0x9fb21c651e98df25) ^ UINT64_C(0x726f74);
    s->rots = s->rotates && !s->is_calm && chance(&rng, 20);
}

static void make_sizes(struct shape *s, uint64_t *rng)
{
    s->is_real_size = rnd(rng, 500) == 0;
    s->segment_bytes = (uint64_t)(8 + rnd(rng, 56)) * KIB;
    s->group_bytes = MAX(s->segment_bytes / (4 + rnd(rng, 4)), (uint64_t)1024);
    s->batch_bytes = 256 + rnd(rng, 4096);
    s->max_bytes = s->segment_bytes * (chance(rng, 15) ? 3 + rnd(rng, 4) : 64);
    s->batch_wait_ns = rnd_ns(rng, 20 * NS_PER_MS, 2 * NS_PER_SEC);
    s->sync_ns = rnd_ns(rng, 10 * NS_PER_MS, NS_PER_SEC);
    s->sync = chance(rng, 25) ? QUEUE_SYNC_EACH : QUEUE_SYNC_INTERVAL;
    s->line_bytes = chance(rng, 80) ? 60 : 1000;
    if (s->is_real_size)
        s->line_bytes = 100 * KIB;
}

static void make_disk(struct shape *s, uint64_t *rng)
{
    s->disk = (struct disk_conf){ .names = chance(rng, 60) ? NAMES_JOURNAL : NAMES_LOOSE,
                                  .reuses_inodes = chance(rng, 50),
                                  .has_birth = chance(rng, 70),
                                  .shows_stale = chance(rng, 50),
                                  .has_no_reserve = chance(rng, 20),
                                  .has_no_inotify = chance(rng, 5),
                                  .shuffles_lists = chance(rng, 30),
                                  .time_grain_ns = chance(rng, 50) ? 0 : 4 * NS_PER_MS };
}

/* What passes after an action: mostly a little, sometimes nothing, rarely long. */
static int64_t pause(uint64_t *rng)
{
    switch (rnd(rng, 12)) {
    case 0:
        return 0;
    case 1:
    case 2:
    case 3:
        return rnd_ns(rng, 0, 30 * NS_PER_MS);
    case 4:
        return rnd_ns(rng, NS_PER_SEC, 15 * NS_PER_SEC);
    default:
        return rnd_ns(rng, 0, 2 * NS_PER_SEC);
    }
}

static const struct weight {
    enum action_kind kind;
    uint32_t weight;
} weights[] = {
    { ACT_APPEND, 60 },       { ACT_HALF, 8 },   { ACT_ROTATE, 12 },  { ACT_COPYTRUNCATE, 6 }, { ACT_DELETE, 4 },
    { ACT_GZIP, 4 },          { ACT_WAIT, 6 },   { ACT_SERVER, 16 },  { ACT_FAULT, 8 },        { ACT_SPACE, 3 },
    { ACT_CRASH, 10 },        { ACT_STOP, 3 },   { ACT_RELOAD, 5 },   { ACT_CLOCK, 2 },        { ACT_EVENTS, 3 },
    { ACT_CACHES, 2 },        { ACT_RENUMBER, 1 },
};

static enum action_kind pick_kind(uint64_t *rng)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < ARRAY_LEN(weights); i++)
        sum += weights[i].weight;
    uint32_t at = rnd(rng, sum);
    for (size_t i = 0;; i++) {
        if (at < weights[i].weight)
            return weights[i].kind;
        at -= weights[i].weight;
    }
}

static bool is_disk_fault(enum action_kind k)
{
    return k == ACT_FAULT || k == ACT_SPACE;
}

static bool is_ending(enum action_kind k)
{
    return k == ACT_CRASH || k == ACT_STOP || k == ACT_RELOAD || is_disk_fault(k);
}

static void fill_action(struct action *a, const struct shape *s, uint64_t *rng)
{
    a->a = (uint8_t)rnd(rng, s->n_logs);
    a->b = (uint8_t)rnd(rng, 4);
    if (s->is_calm && is_ending((enum action_kind)a->kind))
        a->kind = ACT_APPEND;
    if (!s->rotates && is_disk_fault((enum action_kind)a->kind))
        a->kind = ACT_APPEND;
    if (s->rots && (a->kind == ACT_CRASH || is_disk_fault((enum action_kind)a->kind))) /* with no SEAL damage looks torn */
        a->kind = ACT_STOP;
    switch ((enum action_kind)a->kind) {
    case ACT_APPEND:
        a->n = chance(rng, 10) ? 1 + rnd(rng, 80) : 1 + rnd(rng, 12);
        break;
    case ACT_ROTATE:
    case ACT_COPYTRUNCATE:
        a->kind = !s->rotates ? ACT_RELOAD : s->copytruncates[a->a] ? ACT_COPYTRUNCATE : ACT_ROTATE;
        if (a->kind == ACT_RELOAD)
            a->a = (uint8_t)rnd(rng, s->n_outputs);
        break;
    case ACT_DELETE:
    case ACT_GZIP:
        a->b = !s->copytruncates[a->a] && chance(rng, 25);
        if (!s->rotates || (a->kind == ACT_GZIP && !s->compresses)) {
            a->kind = ACT_APPEND;
            a->n = 3;
        }
        break;
    case ACT_WAIT:
        a->ns = rnd_ns(rng, NS_PER_SEC, 60 * NS_PER_SEC);
        break;
    case ACT_SERVER:
        a->a = (uint8_t)rnd(rng, s->n_outputs);
        a->b = (uint8_t)(1 + rnd(rng, MODES - 1));
        if (s->rots && a->b != MODE_429) /* not one that stores and does not say so: Loki would have read again lines twice */
            a->b = a->b % 2 == 0 ? MODE_503 : MODE_REFUSED;
        a->ns = chance(rng, 20) ? rnd_ns(rng, NS_PER_SEC, 300 * NS_PER_SEC) : rnd_ns(rng, NS_PER_SEC, 20 * NS_PER_SEC);
        break;
    case ACT_FAULT:
        a->b = (uint8_t)rnd(rng, FAULT_EIO_READ); /* reads that fail: see docs/SIMULATOR.md */
        a->n = rnd(rng, 6);
        a->ns = chance(rng, 60) ? 0 : rnd_ns(rng, NS_PER_SEC, 20 * NS_PER_SEC); /* 0: once */
        break;
    case ACT_SPACE:
        a->n = rnd(rng, 64 * KIB);
        a->ns = rnd_ns(rng, NS_PER_SEC, 30 * NS_PER_SEC);
        break;
    case ACT_CRASH:
        a->b = chance(rng, 35) ? CRASH_KILL : (uint8_t)rnd(rng, LOSS_N);
        a->n = chance(rng, 30) ? 0 : 1 + rnd(rng, 60);
        a->ns = chance(rng, 70) ? 0 : rnd_ns(rng, 0, 30 * NS_PER_SEC); /* down so long */
        break;
    case ACT_STOP:
        a->ns = chance(rng, 50) ? 0 : rnd_ns(rng, 0, 30 * NS_PER_SEC);
        break;
    case ACT_RELOAD:
        a->a = (uint8_t)(chance(rng, 50) ? SIM_OUTPUTS : rnd(rng, s->n_outputs));
        break;
    case ACT_CLOCK:
        a->ns = rnd_ns(rng, -4 * 3600 * NS_PER_SEC, 1800 * NS_PER_SEC); /* see docs/SIMULATOR.md */
        break;
    case ACT_EVENTS:
    case ACT_CACHES:
        a->b = (uint8_t)rnd(rng, 3);
        break;
    case ACT_HALF:
    case ACT_RENUMBER:
    case ACT_KINDS:
        break;
    }
}

/* A log is deleted with lines that only the agent's descriptor has, and a reload has to keep that: seldom in a row by itself. */
static void make_reload(struct plan *p, uint64_t seed)
{
    uint64_t rng = seed * UINT64_C(0xe7037ed1a0b428db) ^ UINT64_C(0x72656c6f6164);
    const struct shape *s = &p->shape;
    const uint8_t log = (uint8_t)rnd(&rng, s->n_logs);
    if (!chance(&rng, 10) || !s->rotates || s->is_calm || s->copytruncates[log])
        return;
    struct action *a = &p->acts[3 + rnd(&rng, (uint32_t)p->n - 5)];
    a[0] = (struct action){ .kind = ACT_APPEND, .a = log, .n = 1 + rnd(&rng, 6), .rng = rnd64(&rng) };
    a[1] = (struct action){ .kind = ACT_DELETE, .a = log, .b = 1, .rng = rnd64(&rng) };
    a[2] = (struct action){ .kind = ACT_RELOAD, .a = SIM_OUTPUTS, .rng = rnd64(&rng), .run_ns = pause(&rng) };
}

static bool is_of_world(enum action_kind k)
{
    return k == ACT_APPEND || k == ACT_HALF || k == ACT_ROTATE || k == ACT_COPYTRUNCATE || k == ACT_DELETE || k == ACT_GZIP;
}

/* A log of which much happens at once, while the agent looks at the first of it. */
static void insert_burst(struct plan *p, uint64_t *rng)
{
    static const enum action_kind kinds[] = { ACT_ROTATE, ACT_ROTATE, ACT_ROTATE, ACT_APPEND, ACT_APPEND, ACT_GZIP, ACT_DELETE,
                                              ACT_HALF };
    const struct shape *s = &p->shape;
    const size_t n = 3 + rnd(rng, 10), at = 1 + rnd(rng, (uint32_t)p->n - 1);
    const uint8_t log = (uint8_t)rnd(rng, s->n_logs);
    struct action *a = &p->acts[at];
    if (p->n + n > SIM_ACTIONS_MAX)
        return;
    memmove(a + n, a, (p->n - at) * sizeof(*a));
    p->n += n;
    for (size_t i = 0; i < n; i++, a++) {
        *a = (struct action){ .kind = (uint8_t)kinds[i == 0 ? 0 : rnd(rng, ARRAY_LEN(kinds))], .rng = rnd64(rng) };
        fill_action(a, s, rng);
        if (is_of_world((enum action_kind)a->kind))
            a->a = log;
        if (a->kind == ACT_ROTATE || a->kind == ACT_COPYTRUNCATE)
            a->kind = s->copytruncates[log] ? ACT_COPYTRUNCATE : ACT_ROTATE;
        if (a->kind == ACT_DELETE || a->kind == ACT_GZIP)
            a->b = a->b && !s->copytruncates[log];
        a->is_within = i > 0 && is_of_world((enum action_kind)a->kind);
        a->run_ns = i == 0 ? rnd_ns(rng, NS_PER_MS, 3 * NS_PER_SEC) : pause(rng);
    }
}

/* A quarter of the seeds; the others keep their stories. */
static void make_within(struct plan *p, uint64_t seed)
{
    uint64_t rng = seed * UINT64_C(0xa0761d6478bd642f) ^ UINT64_C(0x6c6f6f6b313830);
    p->shape.acts_within = chance(&rng, 25);
    if (!p->shape.acts_within)
        return;
    for (size_t i = 1; i < p->n; i++)
        p->acts[i].is_within = is_of_world((enum action_kind)p->acts[i].kind) && chance(&rng, 60);
    for (uint32_t n = p->shape.rotates ? 1 + rnd(&rng, 4) : 0; n > 0; n--)
        insert_burst(p, &rng);
}

void plan_make(uint64_t seed, struct plan *ret)
{
    uint64_t rng = seed * UINT64_C(0x9e3779b97f4a7c15) ^ UINT64_C(0x7461696c72616365);
    *ret = (struct plan){ .seed = seed };
    struct shape *s = &ret->shape;
    s->rotates = chance(&rng, 75);
    s->is_calm = chance(&rng, 20);
    s->n_tenants = 1 + rnd(&rng, SIM_TENANTS);
    make_outputs(s, &rng);
    if (s->is_calm) {
        s->rotates = true;
        s->first_outputs = (1u << s->n_outputs) - 1;
    }
    make_logs(s, &rng);
    make_copies(s, seed);
    make_rot(s, seed);
    make_sizes(s, &rng);
    if (s->is_calm)
        s->max_bytes = s->segment_bytes * 64;
    make_disk(s, &rng);
    s->disk.has_no_inotify &= !s->is_calm;
    ret->n = 8 + rnd(&rng, 40);
    if (s->is_real_size)
        ret->n = MIN(ret->n, (size_t)24);
    for (size_t i = 0; i < ret->n; i++) {
        struct action *a = &ret->acts[i];
        a->kind = (uint8_t)pick_kind(&rng);
        a->rng = rnd64(&rng);
        a->run_ns = pause(&rng);
        fill_action(a, s, &rng);
    }
    make_reload(ret, seed);
    make_within(ret, seed);
}

/* ---- in words ---- */

static const char *log_word(enum log_kind k)
{
    return k == LOG_JSON ? "JSON" : k == LOG_TEXT ? "text" : "CRI";
}

void plan_print_shape(const struct plan *p)
{
    const struct shape *s = &p->shape;
    printf("seed %llu:", (unsigned long long)p->seed);
    for (unsigned i = 0; i < s->n_logs; i++)
        printf(" log %u %s (%s);", i, log_word(s->kinds[i]), s->copytruncates[i] ? "copytruncate" : "rename");
    for (unsigned i = 0; i < s->n_outputs; i++) {
        printf(" output %u %s%s levels>=%s", i, s->servers[i] == SERVER_LOKI ? "Loki" : "Elasticsearch",
               s->first_outputs >> i & 1 ? "" : " (not at first)", level_words[s->levels[i]]);
        if (s->tenant_of_output[i] != UINT32_MAX)
            printf(" tenant t%u only", s->tenant_of_output[i]);
        printf(";");
    }
    if (s->is_real_size)
        printf(" production sizes;");
    else
        printf(" segment %llu, group %llu, batch %llu, queue %llu bytes;", (unsigned long long)s->segment_bytes,
               (unsigned long long)s->group_bytes, (unsigned long long)s->batch_bytes, (unsigned long long)s->max_bytes);
    if (s->acts_within)
        printf(" the world acts in the middle of looks;");
    printf(" batch_wait %lld ms, sync %s %lld ms; names %s%s%s%s%s\n", (long long)(s->batch_wait_ns / NS_PER_MS),
           s->sync == QUEUE_SYNC_EACH ? "each" : "every", (long long)(s->sync_ns / NS_PER_MS),
           s->disk.names == NAMES_LOOSE ? "loose" : "in order", s->disk.reuses_inodes ? ", inodes reused" : "",
           s->disk.has_birth ? "" : ", no birth times", s->disk.has_no_inotify ? ", no inotify" : "",
           s->disk.has_no_reserve ? ", no fallocate" : "");
}

static const char *loss_words(uint8_t b)
{
    static const char *const words[LOSS_N] = { "anything may be lost", "nothing is lost", "all unsynced is lost",
                                               "unsynced data is lost", "unsynced bytes are zeros",
                                               "unsynced bytes are old", "unsynced names are lost",
                                               "writes are torn", "sectors are lost" };
    return b == CRASH_KILL ? "killed" : b < LOSS_N ? words[b] : "?";
}

static const char *fault_words(uint8_t b)
{
    static const char *const words[FAULT_KINDS] = {
        [FAULT_SYNC] = "a sync fails",          [FAULT_SHORT] = "a write is short",
        [FAULT_ENOSPC] = "a write finds no room", [FAULT_EIO_WRITE] = "a write fails",
        [FAULT_EIO_READ] = "a read fails",      [FAULT_LATE] = "a write fails after it was done in part",
        [FAULT_SYNC_DIR] = "a sync of a folder fails", [FAULT_UNLINK] = "an unlink fails",
        [FAULT_CREATE] = "a create fails",
    };
    return words[b];
}

void action_words(const struct plan *p, const struct action *a, char *to, size_t cap)
{
    const double s = (double)a->ns / (double)NS_PER_SEC;
    switch ((enum action_kind)a->kind) {
    case ACT_APPEND:
        (void)snprintf(to, cap, "log %u: %u lines", a->a, a->n);
        return;
    case ACT_HALF:
        (void)snprintf(to, cap, "log %u: half a line", a->a);
        return;
    case ACT_ROTATE:
        (void)snprintf(to, cap, "log %u: renamed%s%s", a->a, a->b & 1 ? ", still written" : "",
                       a->b & 2 ? ", the new one made" : "");
        return;
    case ACT_COPYTRUNCATE:
        (void)snprintf(to, cap, "log %u: copied and truncated%s%s", a->a, a->b & 1 ? ", lines between" : "",
                       a->b & 2 ? ", written at once" : "");
        return;
    case ACT_DELETE:
        (void)snprintf(to, cap, "log %u: %s deleted", a->a, a->b ? "the live file is" : "the oldest rotated file is");
        return;
    case ACT_GZIP:
        (void)snprintf(to, cap, "log %u: the newest rotated file is %s", a->a, a->b ? "half compressed" : "compressed");
        return;
    case ACT_WAIT:
        (void)snprintf(to, cap, "%.1f s pass", s);
        return;
    case ACT_SERVER:
        (void)snprintf(to, cap, "server %u %s, for %.1f s", a->a, mode_words(a->b), s);
        return;
    case ACT_FAULT:
        if (a->ns == 0)
            (void)snprintf(to, cap, "disk: %s, after %u calls", fault_words(a->b), a->n);
        else
            (void)snprintf(to, cap, "disk: %s, each time, for %.1f s", fault_words(a->b), s);
        return;
    case ACT_SPACE:
        (void)snprintf(to, cap, "disk: %u bytes are free, for %.1f s", a->n, s);
        return;
    case ACT_CRASH:
        (void)snprintf(to, cap, "crash: %s, %u disk calls from now, down for %.1f s", loss_words(a->b), a->n, s);
        return;
    case ACT_STOP:
        (void)snprintf(to, cap, "clean stop%s, down for %.1f s", p->shape.rots ? ", a byte of each queue changes" : "", s);
        return;
    case ACT_RELOAD:
        (void)snprintf(to, cap, a->a >= SIM_OUTPUTS ? "reload" : "reload: output %u comes or goes", a->a);
        return;
    case ACT_CLOCK:
        (void)snprintf(to, cap, "the clock jumps by %.1f s", s);
        return;
    case ACT_EVENTS:
        (void)snprintf(to, cap, "inotify: %s", a->b == 0 ? "overflow" : a->b == 1 ? "nothing comes" : "goes on");
        return;
    case ACT_CACHES:
        (void)snprintf(to, cap, "disk: %s", a->b == 0 ? "caches are dropped" : a->b == 1 ? "written back"
                                                                                        : "writing back fails");
        return;
    case ACT_RENUMBER:
        (void)snprintf(to, cap, "disk: another device number, from the next start of the machine");
        return;
    case ACT_KINDS:
        break;
    }
    (void)snprintf(to, cap, "?");
}
