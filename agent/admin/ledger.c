/*
 * ledger.c - do the rows add up? Their counters are read one after the other while other threads count, so a row that
 * is out is looked at again: what is only on its way from one counter to the next shows up balanced soon.
 */
#include "agent/admin/admin.h"

#define LOOKS 64

static int64_t input_off_now(const struct input_row *row)
{
    int64_t off = (int64_t)counter_get(&row->read_lines) - (int64_t)counter_get(&row->kept_lines);
    for (int i = 0; i < FILTER_REASONS; i++)
        off -= (int64_t)counter_get(&row->filtered[i]);
    return off;
}

static int64_t output_off_now(const struct output_row *row)
{
    int64_t off = (int64_t)counter_get(&row->accepted_lines) - (int64_t)counter_get(&row->delivered_lines) -
                  gauge_get(&row->queued_lines) - gauge_get(&row->parked_lines) - (int64_t)counter_get(&row->dead_lines);
    for (int i = 0; i < LOST_REASONS; i++)
        off -= (int64_t)counter_get(&row->lost_lines[i]);
    return off;
}

int64_t ledger_input_off(const struct input_row *row)
{
    int64_t off = input_off_now(row);
    for (int i = 1; off != 0 && i < LOOKS; i++)
        off = input_off_now(row);
    return off;
}

int64_t ledger_output_off(const struct output_row *row)
{
    int64_t off = output_off_now(row);
    for (int i = 1; off != 0 && i < LOOKS; i++)
        off = output_off_now(row);
    return off;
}

static void add_input(void *ctx, const struct input_row *row)
{
    int64_t off = ledger_input_off(row);
    ((struct ledger_off *)ctx)->inputs += off < 0 ? -off : off;
}

static void add_output(void *ctx, const struct output_row *row)
{
    int64_t off = ledger_output_off(row);
    ((struct ledger_off *)ctx)->outputs += off < 0 ? -off : off;
}

struct ledger_off ledger_sum(void)
{
    struct ledger_off sum = { 0 };
    stats_each_input_row(add_input, &sum);
    stats_each_output_row(add_output, &sum);
    return sum;
}
