/*
 * stats.h - every counter and gauge, and the ledger: "read = kept + filtered + unrouted" per input and tenant,
 * "accepted = delivered + queued + parked + dead + lost" per output and tenant (metrics.md has the names).
 *
 * Threads: each cell is written by one thread at a time (see the comment at each) or with atomic adds; the admin
 * thread reads all of them. Rows are made on first use and never freed, so pointers may be kept.
 */
#ifndef TAILRACE_BASE_STATS_H
#define TAILRACE_BASE_STATS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/base/limits.h"
#include "agent/base/slice.h"

typedef _Atomic uint64_t counter;
typedef _Atomic int64_t gauge;

static inline void counter_add(counter *c, uint64_t n)
{
    atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}
/* The same for a cell that only one thread writes: no locked instruction. */
static inline void counter_bump(counter *c, uint64_t n)
{
    atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}
static inline uint64_t counter_get(const counter *c)
{
    return atomic_load_explicit((counter *)c, memory_order_relaxed);
}
static inline void gauge_set(gauge *g, int64_t v)
{
    atomic_store_explicit(g, v, memory_order_relaxed);
}
static inline void gauge_add(gauge *g, int64_t v)
{
    atomic_fetch_add_explicit(g, v, memory_order_relaxed);
}
static inline int64_t gauge_get(const gauge *g)
{
    return atomic_load_explicit((gauge *)g, memory_order_relaxed);
}

enum filter_reason { FILTER_LEVEL, FILTER_RULE, FILTER_TOO_OLD, FILTER_UNROUTED, FILTER_REASONS };
enum alter_reason { ALTER_CUT, ALTER_BAD_JSON, ALTER_BAD_TIME, ALTER_FUTURE, ALTER_LATE, ALTER_KEY_CONFLICT,
                    ALTER_REFUSED_MAPPING, ALTER_SPLIT, ALTER_REASONS };
enum lost_reason { LOST_HELD_LIMIT, LOST_KEY_QUOTA, LOST_DEAD_FULL, LOST_DAMAGE, LOST_DROPPED, LOST_TRUNCATED,
                   LOST_REREAD, /* not lost: damage took their frames, and they are in others now */
                   LOST_REASONS };
enum file_state { FILES_OPEN, FILES_HELD, FILES_UNREADABLE, FILES_SKIPPED, FILES_STALLED, FILES_STATES };
enum blocked_reason { BLOCKED_FULL, BLOCKED_DISK_FULL, BLOCKED_WRITE_ERROR, BLOCKED_REASONS };
/* What an output with frames waits for; nothing: it could send. */
enum output_waits { WAITS_NOTHING, WAITS_REPLY, WAITS_SERVER, WAITS_KEYS, WAITS_DISK, WAITS_SETUP, OUTPUT_WAITS };
const char *output_waits_name(enum output_waits w);
const char *filter_reason_name(enum filter_reason r);
const char *alter_reason_name(enum alter_reason r);
const char *lost_reason_name(enum lost_reason r);
const char *file_state_name(enum file_state s);
const char *blocked_reason_name(enum blocked_reason r);

/* One (input, tenant): the reader's. Lines are counted once, however often an output has to read them again. */
struct input_row {
    uint32_t input, tenant;
    counter read_lines, read_bytes, kept_lines, filtered[FILTER_REASONS];
};

#define CODES_MAX 64 /* distinct codes of requests and reasons per output */
#define DEAD_REASONS 8 /* distinct reasons of dead letters per row; further ones count as the last */
struct code_count {
    _Atomic(const char *) code; /* "204", "timeout" … interned, never freed; NULL = free */
    counter n;
};

/* One (output, tenant). FILTER_TOO_OLD of an output is counted here as accepted nowhere: filtered_too_old. */
struct output_row {
    uint32_t output, tenant;
    struct code_count dead_reasons[DEAD_REASONS]; /* sender; a counter beside dead_lines */
    counter accepted_lines;  /* writer: in a frame that is written */
    counter delivered_lines; /* sender: the server has it, durably noted */
    counter dead_lines;      /* sender */
    counter lost_lines[LOST_REASONS], lost_bytes[LOST_REASONS];
    gauge queued_lines;      /* in frames above the cursor: writer adds, sender subtracts */
    gauge parked_lines;      /* in parked frames */
    counter filtered_too_old;
};

struct input_stats {
    gauge files[FILES_STATES];
    gauge unread_bytes, held_bytes;
    counter altered[ALTER_REASONS];
    counter tenant_overflow;
    counter stalls; /* files that had unread bytes and no turn, for no known reason */
};

#define HISTOGRAM_BUCKETS 14
struct histogram {
    counter buckets[HISTOGRAM_BUCKETS + 1]; /* not cumulative; the last is +Inf */
    counter sum_us;
};
extern const double histogram_bounds[HISTOGRAM_BUCKETS]; /* seconds: 0.005 … 60 */
void histogram_observe(struct histogram *h, int64_t ns);

struct output_stats {
    gauge queue_bytes, queue_limit_bytes;
    gauge oldest_unsent_wall_ns;          /* built time of the oldest unsent frame; 0 = none */
    gauge blocked[BLOCKED_REASONS];       /* 0 or 1 */
    struct code_count requests[CODES_MAX], keys_held[CODES_MAX], dead[CODES_MAX]; /* keys_held is a gauge */
    struct histogram request_duration, delivery_delay;
    gauge up;                             /* last attempt succeeded */
    gauge last_success_wall_ns, failing_since_wall_ns; /* 0 = not failing */
    gauge dead_bytes, parked_bytes;
    gauge certificate_expiry_s[2];        /* unix s; [0] server's, [1] our client's; 0 = none */
    gauge last_dead_wall_ns, last_lost_wall_ns;
    gauge inflight;
    counter attempts;                     /* requests begun, frames given to an output on this machine */
    gauge waits;                          /* enum output_waits */
    gauge stalled;                        /* 1 while frames wait, nothing is tried, and nothing explains it */
    counter stalls;
    counter reread_lost_bytes;            /* reader: of ranges that damage took, gone from the files too */
    gauge reread_pending_bytes;
};

/* Metadata of pods. */
enum kube_verb { KUBE_LIST, KUBE_WATCH, KUBE_GET, KUBE_KUBELET, KUBE_VERBS };
enum kube_wait { KUBE_WAIT_FOUND, KUBE_WAIT_TIMEOUT, KUBE_WAIT_ABSENT, KUBE_WAITS };
#define KUBE_ANNOTATIONS 5 /* conf.h: enum annotation */
const char *kube_verb_name(enum kube_verb v);
const char *kube_wait_name(enum kube_wait w);

struct kube_stats {
    gauge is_wanted;                /* a server is configured */
    gauge synced;                   /* the first state is complete and the watch is open */
    gauge unsynced_since_wall_ns;   /* 0 = synced */
    gauge failing_since_wall_ns;    /* the last request failed; 0 = not */
    gauge pods, table_bytes, budget_left;
    gauge files_held;               /* reader: files whose lines wait for their pod's metadata */
    counter events, relists;
    counter waits[KUBE_WAITS];      /* reader: how waiting ended, by file */
    counter annotation_errors[KUBE_ANNOTATIONS];
    struct code_count requests[KUBE_VERBS][CODES_MAX];
};

struct agent_stats {
    counter inotify_overflows;
    gauge held_disk_bytes;                /* sizes of files that have no name left and are held open */
    gauge state_free_bytes, state_min_free_bytes, memory_bytes, memory_limit_bytes, state_writable;
    gauge reload_successful, reload_wall_ns;
    gauge thread_turn_mono_ns[4];         /* main reader writer sender: last turn, for /health/live */
    gauge writer_in_sync;                 /* 1 while inside a sync */
    gauge ready_config, ready_queues, ready_scan;
    gauge started_wall_ns;
    struct kube_stats kube;
    struct input_stats inputs[INPUTS_MAX];
    struct output_stats outputs[OUTPUTS_MAX];
};

extern struct agent_stats stats;

/* Made on first use, waiting for memory if need be (must.h): the ledger has no holes. Callers cache the pointer. */
struct input_row *stats_input_row(uint32_t input, uint32_t tenant);
struct output_row *stats_output_row(uint32_t output, uint32_t tenant);
/* All rows, newest first; the lists only grow. */
void stats_each_input_row(void (*each)(void *ctx, const struct input_row *row), void *ctx);
void stats_each_output_row(void (*each)(void *ctx, const struct output_row *row), void *ctx);
/* For a reload, while no other thread counts: all rows back to zero (pointers stay good), and what belongs to one input
 * or output, which then may be another's. */
void stats_forget_rows(void);
void stats_forget_input(uint32_t input);
void stats_forget_output(uint32_t output);
void stats_count_code(struct code_count table[CODES_MAX], const char *code, int64_t n);
void stats_count_dead_reason(struct output_row *row, const char *reason, int64_t n);

enum stats_thread { THREAD_MAIN, THREAD_READER, THREAD_WRITER, THREAD_SENDER };
void stats_turn(enum stats_thread t); /* "I am alive", with the monotonic time */

#endif
