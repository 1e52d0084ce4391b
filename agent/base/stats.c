#include "agent/base/stats.h"

#include <assert.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>

#include "agent/base/clock.h"
#include "agent/base/must.h"

struct agent_stats stats;

const double histogram_bounds[HISTOGRAM_BUCKETS] = { 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                                     1,     2,    5,     10,   30,  60,   300 };

static const char *const filter_names[FILTER_REASONS] = { "level", "rule", "too_old", "unrouted" };
static const char *const alter_names[ALTER_REASONS] = { "cut",  "bad_json",     "bad_time",        "future",
                                                        "late", "key_conflict", "refused_mapping", "split" };
static const char *const lost_names[LOST_REASONS] = { "held_limit", "key_quota", "dead_full",
                                                      "damage",     "dropped",   "truncated", "reread" };
static const char *const file_state_names[FILES_STATES] = { "open", "held", "unreadable", "skipped", "stalled" };
static const char *const blocked_names[BLOCKED_REASONS] = { "full", "disk_full", "write_error" };

const char *output_waits_name(enum output_waits w)
{
    static const char *const names[OUTPUT_WAITS] = { "nothing", "reply", "server", "keys", "disk", "setup" };
    return names[w];
}

const char *kube_verb_name(enum kube_verb v)
{
    static const char *const names[KUBE_VERBS] = { "list", "watch", "get", "kubelet" };
    return names[v];
}

const char *kube_wait_name(enum kube_wait w)
{
    static const char *const names[KUBE_WAITS] = { "found", "timeout", "absent" };
    return names[w];
}

const char *filter_reason_name(enum filter_reason r)
{
    return filter_names[r];
}

const char *alter_reason_name(enum alter_reason r)
{
    return alter_names[r];
}

const char *lost_reason_name(enum lost_reason r)
{
    return lost_names[r];
}

const char *file_state_name(enum file_state s)
{
    return file_state_names[s];
}

const char *blocked_reason_name(enum blocked_reason r)
{
    return blocked_names[r];
}

void histogram_observe(struct histogram *h, int64_t ns)
{
    double s = (double)ns / (double)NS_PER_SEC;
    size_t i = 0;
    while (i < HISTOGRAM_BUCKETS && s > histogram_bounds[i])
        i++;
    counter_add(&h->buckets[i], 1);
    counter_add(&h->sum_us, ns > 0 ? (uint64_t)ns / 1000 : 0);
}

/* Rows: found by a hash of (index, tenant) under a lock; callers cache the pointer, so this is off the line's path. */
#define ROW_SLOTS 1024
struct node {
    struct node *in_slot, *older;
    union {
        struct input_row input;
        struct output_row output;
    } row;
};
static pthread_mutex_t rows_lock = PTHREAD_MUTEX_INITIALIZER;
static struct node *input_slots[ROW_SLOTS], *output_slots[ROW_SLOTS];
static struct node *_Atomic newest_input, *_Atomic newest_output;

static size_t slot_of(uint32_t index, uint32_t tenant)
{
    return (index * 31u + tenant * 0x9e3779b1u) % ROW_SLOTS;
}

struct input_row *stats_input_row(uint32_t input, uint32_t tenant)
{
    struct node **slot = &input_slots[slot_of(input, tenant)], *n;
    pthread_mutex_lock(&rows_lock);
    for (n = *slot; n != NULL; n = n->in_slot)
        if (n->row.input.input == input && n->row.input.tenant == tenant)
            break;
    if (n == NULL) {
        n = must_alloc(sizeof(*n));
        n->row.input.input = input;
        n->row.input.tenant = tenant;
        n->in_slot = *slot;
        *slot = n;
        n->older = atomic_load(&newest_input);
        atomic_store_explicit(&newest_input, n, memory_order_release);
    }
    pthread_mutex_unlock(&rows_lock);
    return &n->row.input;
}

struct output_row *stats_output_row(uint32_t output, uint32_t tenant)
{
    struct node **slot = &output_slots[slot_of(output, tenant)], *n;
    pthread_mutex_lock(&rows_lock);
    for (n = *slot; n != NULL; n = n->in_slot)
        if (n->row.output.output == output && n->row.output.tenant == tenant)
            break;
    if (n == NULL) {
        n = must_alloc(sizeof(*n));
        n->row.output.output = output;
        n->row.output.tenant = tenant;
        n->in_slot = *slot;
        *slot = n;
        n->older = atomic_load(&newest_output);
        atomic_store_explicit(&newest_output, n, memory_order_release);
    }
    pthread_mutex_unlock(&rows_lock);
    return &n->row.output;
}

void stats_each_input_row(void (*each)(void *ctx, const struct input_row *row), void *ctx)
{
    for (struct node *n = atomic_load_explicit(&newest_input, memory_order_acquire); n != NULL; n = n->older)
        each(ctx, &n->row.input);
}

void stats_each_output_row(void (*each)(void *ctx, const struct output_row *row), void *ctx)
{
    for (struct node *n = atomic_load_explicit(&newest_output, memory_order_acquire); n != NULL; n = n->older)
        each(ctx, &n->row.output);
}

static void forget_codes(struct code_count *table, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free((void *)(uintptr_t)atomic_load(&table[i].code));
}

static void forget(void *row, size_t ids_bytes, size_t size)
{
    memset((char *)row + ids_bytes, 0, size - ids_bytes);
}

void stats_forget_rows(void)
{
    static_assert(offsetof(struct input_row, tenant) == 4 && offsetof(struct output_row, tenant) == 4, "ids first");
    for (struct node *n = atomic_load(&newest_input); n != NULL; n = n->older)
        forget(&n->row.input, 8, sizeof(n->row.input));
    for (struct node *n = atomic_load(&newest_output); n != NULL; n = n->older) {
        forget_codes(n->row.output.dead_reasons, DEAD_REASONS);
        forget(&n->row.output, 8, sizeof(n->row.output));
    }
}

void stats_forget_input(uint32_t input)
{
    memset(&stats.inputs[input], 0, sizeof(stats.inputs[input]));
}

void stats_forget_output(uint32_t output)
{
    struct output_stats *o = &stats.outputs[output];
    forget_codes(o->requests, CODES_MAX);
    forget_codes(o->keys_held, CODES_MAX);
    forget_codes(o->dead, CODES_MAX);
    memset(o, 0, sizeof(*o));
}

/* The code's row in a table of n_max; a full table gives its last row. */
static struct code_count *code_row(struct code_count *table, size_t n_max, const char *code)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    for (size_t i = 0; i < n_max; i++) {
        const char *have = atomic_load_explicit(&table[i].code, memory_order_acquire);
        if (have == NULL)
            break;
        if (strcmp(have, code) == 0)
            return &table[i];
    }
    struct code_count *row = &table[n_max - 1];
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < n_max; i++) {
        const char *have = atomic_load(&table[i].code);
        char *copy = have == NULL ? strdup(code) : NULL; /* at most n_max a table, for the life of the process */
        if (copy != NULL)
            atomic_store_explicit(&table[i].code, copy, memory_order_release);
        if (copy != NULL || (have != NULL && strcmp(have, code) == 0)) {
            row = &table[i];
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    return row;
}

void stats_count_code(struct code_count table[CODES_MAX], const char *code, int64_t n)
{
    counter_add(&code_row(table, CODES_MAX, code)->n, (uint64_t)n);
}

void stats_count_dead_reason(struct output_row *row, const char *reason, int64_t n)
{
    counter_add(&code_row(row->dead_reasons, DEAD_REASONS, reason)->n, (uint64_t)n);
}

void stats_turn(enum stats_thread t)
{
    gauge_set(&stats.thread_turn_mono_ns[t], clock_mono_ns());
}
