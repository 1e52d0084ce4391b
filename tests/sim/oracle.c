/*
 * What must hold.
 */
#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/stats.h"
#include "tests/sim/sim.h"

struct ledger { /* of one output, all tenants */
    int64_t accepted, delivered, queued, parked, dead, lost, over_quota, reread;
    uint32_t output;
};

static void add_output_row(void *ctx, const struct output_row *row)
{
    struct ledger *l = ctx;
    if (row->output != l->output)
        return;
    l->accepted += (int64_t)counter_get(&row->accepted_lines);
    l->delivered += (int64_t)counter_get(&row->delivered_lines);
    l->dead += (int64_t)counter_get(&row->dead_lines);
    l->queued += gauge_get(&row->queued_lines);
    l->parked += gauge_get(&row->parked_lines);
    for (int i = 0; i < LOST_REASONS; i++)
        l->lost += (int64_t)counter_get(&row->lost_lines[i]);
    l->reread += (int64_t)counter_get(&row->lost_lines[LOST_REREAD]);
    l->over_quota += (int64_t)counter_get(&row->lost_lines[LOST_KEY_QUOTA]); /* a choice: counted, and said */
}

static struct ledger ledger_of(unsigned conf_index)
{
    struct ledger l = { .output = conf_index };
    stats_each_output_row(add_output_row, &l);
    return l;
}

struct read_sums {
    int64_t read, kept, filtered;
};

static void add_input_row(void *ctx, const struct input_row *row)
{
    struct read_sums *s = ctx;
    s->read += (int64_t)counter_get(&row->read_lines);
    s->kept += (int64_t)counter_get(&row->kept_lines);
    for (int i = 0; i < FILTER_REASONS; i++)
        s->filtered += (int64_t)counter_get(&row->filtered[i]);
}

static void check_rows(unsigned slot, const struct ledger *l)
{
    if (l->accepted != l->delivered + l->queued + l->parked + l->dead + l->lost || l->queued < 0 || l->parked < 0 ||
        l->delivered < 0)
        sim_fail("output %u: the ledger does not balance: accepted %lld, delivered %lld, queued %lld, parked %lld, dead "
                 "%lld, lost %lld",
                 slot, (long long)l->accepted, (long long)l->delivered, (long long)l->queued, (long long)l->parked,
                 (long long)l->dead, (long long)l->lost);
}

void oracle_each_turn(void)
{
    for (unsigned i = 0; sim.engine != NULL && i < sim.plan->shape.n_outputs; i++) {
        const int index = sim_conf_index(i);
        char path[64];
        if (index < 0 || gauge_get(&stats.outputs[index].parked_bytes) == 0)
            continue;
        (void)snprintf(path, sizeof(path), "/state/queue/o%u/parked", i);
        sim.parked_peak[i] = MAX(sim.parked_peak[i], peek_folder_bytes(sim.disk, path));
    }
}

void oracle_each_action(void)
{
    if (sim.engine == NULL)
        return;
    for (unsigned i = 0; i < sim.plan->shape.n_outputs; i++) {
        const int index = sim_conf_index(i);
        if (index < 0)
            continue;
        const struct ledger l = ledger_of((unsigned)index);
        check_rows(i, &l);
    }
    struct read_sums s = { 0 };
    stats_each_input_row(add_input_row, &s);
    if (s.read != s.kept + s.filtered)
        sim_fail("the ledger of the inputs does not balance: read %lld, kept %lld, filtered %lld", (long long)s.read,
                 (long long)s.kept, (long long)s.filtered);
}

/* Reads that failed, bytes that changed: then lines may be lost, if they are counted. */
static bool may_lose(void)
{
    for (size_t i = 0; i < sim.plan->n; i++) {
        const struct action *a = &sim.plan->acts[i];
        if (!a->is_out && a->kind == ACT_FAULT && a->b == FAULT_EIO_READ)
            return true;
    }
    return sim.n_rots > 0; /* what a damaged queue held may not be in the files any more */
}

bool oracle_is_settled(void)
{
    for (unsigned i = 0; i < sim.plan->shape.n_outputs; i++) {
        const int index = sim_conf_index(i);
        if (index < 0)
            continue;
        const struct ledger l = ledger_of((unsigned)index);
        if (l.queued != 0 || l.parked != 0)
            return false;
    }
    world_settle();
    for (size_t k = 0; k < sim.n_lines; k++) {
        const struct line *l = &sim.lines[k];
        if (l->homes > 0 && !may_lose() && (l->expects & sim.outputs & ~(l->got | l->may_miss | l->refused)) != 0)
            return false;
    }
    return net_next_ns() == INT64_MAX;
}

static const char *log_name(uint8_t log, char to[16])
{
    (void)snprintf(to, 16, "log %u", log);
    return to;
}

/* A key loses lines when the next frame would not fit its share beside what is parked of it. One frame is a batch and what tells of
 * it at most. */
static bool was_share_full(unsigned slot, const struct queue_conf *q)
{
    const uint64_t share = (uint64_t)((double)q->max_bytes * q->key_share_percent / 100);
    return sim.parked_peak[slot] + 2 * q->batch_bytes + 4 * KIB > share;
}

static void check_lines(unsigned slot, const struct ledger *ledger, int64_t *ret_got, int64_t *ret_refused)
{
    const uint8_t bit = (uint8_t)(1u << slot);
    char name[16];
    unsigned missing = 0, first = 0, last = 0;
    *ret_got = *ret_refused = 0;
    for (size_t k = 0; k < sim.n_lines; k++) {
        const struct line *l = &sim.lines[k];
        if (!(l->expects & bit))
            continue;
        *ret_got += (l->got & bit) != 0;
        *ret_refused += (l->got & bit) == 0 && (l->refused & bit) != 0;
        if ((l->got | l->may_miss | l->refused) & bit)
            continue;
        first = missing++ == 0 ? (unsigned)k : first;
        last = (unsigned)k;
    }
    if (ledger->over_quota > 0 && !was_share_full(slot, &sim.conf->outputs[ledger->output].queue))
        sim_fail("output %u: %lld lines are lost to the share of their key, and no more than %llu bytes were ever parked", slot,
                 (long long)ledger->over_quota, (unsigned long long)sim.parked_peak[slot]);
    if (ledger->lost - ledger->reread > ledger->over_quota && !may_lose())
        sim_fail("output %u: the ledger says that %lld lines are lost, and nothing went wrong that could explain it", slot,
                 (long long)ledger->lost);
    if (missing > (unsigned)MAX(ledger->lost - ledger->reread, (int64_t)0))
        sim_fail("output %u lacks %u lines: %u (%s) … %u", slot, missing, first, log_name(sim.lines[first].log, name), last);
}

void oracle_end(void)
{
    oracle_each_action();
    world_settle();
    for (unsigned i = 0; i < sim.plan->shape.n_outputs; i++) {
        const int index = sim_conf_index(i);
        if (index < 0)
            continue;
        int64_t got, refused;
        const struct ledger l = ledger_of((unsigned)index);
        check_lines(i, &l, &got, &refused);
        if (l.queued != 0 || l.parked != 0)
            sim_fail("output %u: %lld lines are still queued and %lld parked, although all is well", i,
                     (long long)l.queued, (long long)l.parked);
        /* What was given up may be there after all: a reply was lost, or the server has changed its mind. */
        const int64_t there = got + (int64_t)sim.garbage[i];
        if (l.delivered > there + (int64_t)sim.unheard[i] || l.delivered + l.dead + l.lost < there)
            sim_fail("output %u: %lld lines are at the server, and the ledger says: accepted %lld, delivered %lld, dead %lld, "
                     "lost %lld",
                     i, (long long)got, (long long)l.accepted, (long long)l.delivered, (long long)l.dead, (long long)l.lost);
        if (l.dead + l.lost < refused)
            sim_fail("output %u: %lld lines were refused for good, and the ledger knows of %lld dead and %lld lost", i,
                     (long long)refused, (long long)l.dead, (long long)l.lost);
    }
}
