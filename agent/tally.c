#include "agent/tally.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/base/tenants.h"

#define SLOTS 256

struct tallies {
    const struct conf *conf;
    size_t n_outputs, n;
    struct tally *slots[SLOTS];
    struct tally *all;
    struct ledger_row *rows; /* of the last collect */
    size_t cap_rows;
};

struct tallies *tallies_new(const struct conf *conf)
{
    struct tallies *ts = calloc(1, sizeof(*ts));
    if (ts == NULL)
        return NULL;
    ts->conf = conf;
    ts->n_outputs = conf->n_outputs;
    return ts;
}

void tallies_free(struct tallies *ts)
{
    if (ts == NULL)
        return;
    while (ts->all != NULL) {
        struct tally *t = ts->all;
        ts->all = t->next;
        free(t);
    }
    free(ts->rows);
    free(ts);
}

struct tally *tallies_get(struct tallies *ts, uint32_t input, uint32_t tenant)
{
    struct tally **slot = &ts->slots[(input * 31u + tenant) % SLOTS], *t;
    for (t = *slot; t != NULL; t = t->next_in_slot)
        if (t->input == input && t->tenant == tenant)
            return t;
    t = calloc(1, sizeof(*t) + ts->n_outputs * sizeof(t->cells[0]));
    if (t == NULL)
        return NULL;
    t->input = input;
    t->tenant = tenant;
    t->row = stats_input_row(input, tenant);
    t->next_in_slot = *slot;
    *slot = t;
    t->next = ts->all;
    ts->all = t;
    ts->n++;
    return t;
}

void tally_count(struct tally *t, uint32_t outputs, bool is_first, uint64_t bytes, int outcome)
{
    t->dirty |= outputs;
    for (uint32_t rest = outputs; rest != 0; rest &= rest - 1) {
        struct tally_cell *c = &t->cells[__builtin_ctz(rest)];
        c->read_lines++;
        c->read_bytes += bytes;
        if (outcome == TALLY_KEPT)
            c->kept_lines++;
        else
            c->filtered[outcome]++;
    }
    if (!is_first)
        return;
    counter_bump(&t->row->read_lines, 1);
    counter_bump(&t->row->read_bytes, bytes);
    counter_bump(outcome == TALLY_KEPT ? &t->row->kept_lines : &t->row->filtered[outcome], 1);
}

void tally_skip(struct tally *t, uint32_t outputs, uint64_t bytes, uint64_t first_bytes)
{
    t->dirty |= outputs;
    for (uint32_t rest = outputs; rest != 0; rest &= rest - 1)
        t->cells[__builtin_ctz(rest)].read_bytes += bytes;
    counter_bump(&t->row->read_bytes, first_bytes);
}

static int find_input(const struct conf *conf, struct slice name)
{
    for (size_t i = 0; i < conf->n_inputs; i++)
        if (slice_eq(conf->inputs[i].name, name))
            return (int)i;
    return -1; /* an input that is configured no more: its row stays in the queue only */
}

static void restore_agent_row(struct input_row *row, const struct ledger_row *from)
{
    atomic_store(&row->read_lines, from->read_lines);
    atomic_store(&row->read_bytes, from->read_bytes);
    atomic_store(&row->kept_lines, from->kept_lines);
    for (int i = 0; i < FILTER_REASONS; i++)
        atomic_store(&row->filtered[i], from->filtered[i]);
}

int tallies_restore(struct tallies *ts, uint32_t output, const struct ledger_row *rows, size_t n, bool is_reference)
{
    for (size_t i = 0; i < n; i++) {
        int input = find_input(ts->conf, rows[i].input);
        if (input < 0)
            continue;
        struct tally *t = tallies_get(ts, (uint32_t)input, tenant_intern(rows[i].tenant));
        if (t == NULL)
            return -ENOMEM;
        struct tally_cell *c = &t->cells[output];
        c->read_lines = rows[i].read_lines;
        c->read_bytes = rows[i].read_bytes;
        c->kept_lines = rows[i].kept_lines;
        memcpy(c->filtered, rows[i].filtered, sizeof(c->filtered));
        if (is_reference)
            restore_agent_row(t->row, &rows[i]);
    }
    return 0;
}

int tallies_fence(struct tallies *ts, uint32_t output, const struct ledger_row *rows, size_t n)
{
    for (struct tally *t = ts->all; t != NULL; t = t->next) {
        t->cells[output] = (struct tally_cell){ 0 };
        t->dirty &= ~(1u << output);
    }
    return tallies_restore(ts, output, rows, n, false);
}

int tallies_collect(struct tallies *ts, uint32_t output, const struct ledger_row **ret_rows, size_t *ret_n)
{
    size_t n = 0;
    if (ts->cap_rows < ts->n) {
        struct ledger_row *more = realloc(ts->rows, ts->n * sizeof(*more));
        if (more == NULL)
            return -ENOMEM;
        ts->rows = more;
        ts->cap_rows = ts->n;
    }
    for (struct tally *t = ts->all; t != NULL; t = t->next) {
        if ((t->dirty & (1u << output)) == 0)
            continue;
        t->dirty &= ~(1u << output);
        const struct tally_cell *c = &t->cells[output];
        ts->rows[n] = (struct ledger_row){ .input = ts->conf->inputs[t->input].name,
                                           .tenant = tenant_name(t->tenant),
                                           .read_lines = c->read_lines,
                                           .read_bytes = c->read_bytes,
                                           .kept_lines = c->kept_lines };
        memcpy(ts->rows[n].filtered, c->filtered, sizeof(c->filtered));
        n++;
    }
    *ret_rows = ts->rows;
    *ret_n = n;
    return 0;
}
