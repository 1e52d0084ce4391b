/*
 * metrics.c - Prometheus text 0.0.4 (docs/METRICS.md lists every name). Families are contiguous; all counters of the
 * configured inputs and outputs exist from the start.
 */
#include <assert.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "agent/admin/admin.h"
#include "agent/base/array.h"
#include "agent/base/clock.h"
#include "agent/base/series.h"
#include "agent/base/stats.h"
#include "agent/base/tenants.h"

struct writer_ctx {
    struct buf *out;
    const struct conf *conf;
    int r; /* the first error; later calls do nothing */
};

static void keep(struct writer_ctx *w, int r)
{
    if (w->r == 0 && r < 0)
        w->r = r;
}

static void family(struct writer_ctx *w, const char *name, const char *type, const char *help)
{
    keep(w, buf_printf(w->out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type));
}

/* Label values: \ " and newline are escaped; what is not UTF-8 is replaced. */
static void label_value(struct writer_ctx *w, struct slice v)
{
    for (size_t i = 0; i < v.len && w->r == 0; i++) {
        char c = v.ptr[i];
        if (c == '\\' || c == '"') {
            keep(w, buf_append_byte(w->out, '\\'));
            keep(w, buf_append_byte(w->out, c));
        } else if (c == '\n') {
            keep(w, buf_append_lit(w->out, "\\n"));
        } else if ((unsigned char)c >= 0x80 && slice_utf8_valid(v) < v.len) {
            keep(w, buf_append_byte(w->out, '?'));
        } else {
            keep(w, buf_append_byte(w->out, c));
        }
    }
}

struct label {
    const char *name;
    struct slice value;
};

static void sample_head(struct writer_ctx *w, const char *name, const struct label *labels, size_t n)
{
    keep(w, buf_append_cstr(w->out, name));
    for (size_t i = 0; i < n; i++) {
        keep(w, buf_printf(w->out, "%s%s=\"", i == 0 ? "{" : ",", labels[i].name));
        label_value(w, labels[i].value);
        keep(w, buf_append_byte(w->out, '"'));
    }
    if (n > 0)
        keep(w, buf_append_byte(w->out, '}'));
    keep(w, buf_append_byte(w->out, ' '));
}

static void sample(struct writer_ctx *w, const char *name, const struct label *labels, size_t n, int64_t value)
{
    sample_head(w, name, labels, n);
    keep(w, buf_append_i64(w->out, value));
    keep(w, buf_append_byte(w->out, '\n'));
}

static void sample_real(struct writer_ctx *w, const char *name, const struct label *labels, size_t n, double value)
{
    sample_head(w, name, labels, n);
    keep(w, buf_printf(w->out, "%.13g\n", value));
}

static struct slice input_name(const struct writer_ctx *w, uint32_t i)
{
    return i < w->conf->n_inputs ? w->conf->inputs[i].name : SLICE("_removed");
}

static struct slice output_name(const struct writer_ctx *w, uint32_t i)
{
    return i < w->conf->n_outputs ? w->conf->outputs[i].name : SLICE("_removed");
}

/* ---- rows by tenant: at most metrics.max_tenants names, the rest summed as _other ---- */

struct row_list {
    const void **rows;
    size_t n, cap;
};

static void add_row(struct row_list *l, const void *row)
{
    const void **more = array_room(l->rows, l->n, &l->cap, sizeof(*more));
    if (more == NULL)
        return; /* a shorter page is better than none */
    l->rows = more;
    l->rows[l->n++] = row;
}

static void add_input_row(void *ctx, const struct input_row *row)
{
    add_row(ctx, row);
}

static void add_output_row(void *ctx, const struct output_row *row)
{
    add_row(ctx, row);
}

/* One family over rows: value_at(row, k) for k < n_kinds; kind_label NULL when there is one kind. */
struct row_family {
    const char *name, *type, *help;
    const char *owner_label; /* "input" or "output" */
    const char *kind_label;
    int n_kinds;
    const char *(*kind_name)(int kind);
    int64_t (*value_at)(const void *row, int kind);
};

static uint32_t owner_of(const void *row, bool is_input)
{
    return is_input ? ((const struct input_row *)row)->input : ((const struct output_row *)row)->output;
}

static uint32_t tenant_of(const void *row, bool is_input)
{
    return is_input ? ((const struct input_row *)row)->tenant : ((const struct output_row *)row)->tenant;
}

static void row_sample(struct writer_ctx *w, const struct row_family *f, struct slice owner, struct slice tenant,
                       int kind, int64_t value)
{
    struct label labels[3] = { { f->owner_label, owner }, { "tenant", tenant } };
    size_t n = 2;
    if (f->kind_label != NULL)
        labels[n++] = (struct label){ f->kind_label, slice_cstr(f->kind_name(kind)) };
    sample(w, f->name, labels, n, value);
}

static void row_family(struct writer_ctx *w, const struct row_family *f, const struct row_list *l, bool is_input)
{
    uint32_t n_owners = (uint32_t)(is_input ? w->conf->n_inputs : w->conf->n_outputs);
    family(w, f->name, f->type, f->help);
    for (uint32_t owner = 0; owner < n_owners; owner++) {
        struct slice name = is_input ? input_name(w, owner) : output_name(w, owner);
        for (int k = 0; k < f->n_kinds; k++) {
            int64_t other = 0;
            bool has_other = false;
            uint32_t shown = 0;
            for (size_t i = l->n; i-- > 0;) { /* oldest first: the names shown do not change */
                const void *row = l->rows[i];
                if (owner_of(row, is_input) != owner)
                    continue;
                if (shown < w->conf->metrics_max_tenants) {
                    row_sample(w, f, name, tenant_name(tenant_of(row, is_input)), k, f->value_at(row, k));
                    shown++;
                } else {
                    other += f->value_at(row, k);
                    has_other = true;
                }
            }
            if (has_other || shown == 0)
                row_sample(w, f, name, has_other ? SLICE("_other") : w->conf->tenants_other, k, other);
        }
    }
}

static int64_t in_read_lines(const void *row, int k)
{
    (void)k;
    return (int64_t)counter_get(&((const struct input_row *)row)->read_lines);
}
static int64_t in_read_bytes(const void *row, int k)
{
    (void)k;
    return (int64_t)counter_get(&((const struct input_row *)row)->read_bytes);
}
static int64_t in_filtered(const void *row, int k)
{
    return (int64_t)counter_get(&((const struct input_row *)row)->filtered[k]);
}
static int64_t out_accepted(const void *row, int k)
{
    (void)k;
    return (int64_t)counter_get(&((const struct output_row *)row)->accepted_lines);
}
static int64_t out_delivered(const void *row, int k)
{
    (void)k;
    return (int64_t)counter_get(&((const struct output_row *)row)->delivered_lines);
}
static int64_t out_reread(const void *row, int k)
{
    (void)k;
    return (int64_t)counter_get(&((const struct output_row *)row)->lost_lines[LOST_REREAD]);
}
/* What is read again moves from damage, and a counter must not fall. */
static int64_t out_lost_lines(const void *row, int k)
{
    return (int64_t)counter_get(&((const struct output_row *)row)->lost_lines[k]) +
           (k == LOST_DAMAGE ? out_reread(row, k) : 0);
}
static int64_t out_lost_bytes(const void *row, int k)
{
    return (int64_t)counter_get(&((const struct output_row *)row)->lost_bytes[k]);
}
static const char *filter_kind(int k)
{
    return filter_reason_name((enum filter_reason)k);
}
static const char *lost_kind(int k)
{
    return lost_reason_name((enum lost_reason)k);
}

/* Tenant and reason: beyond max_tenants summed as _other, by reason too. */
static void dead_letters(struct writer_ctx *w, const struct row_list *l)
{
    static const char name[] = "tailrace_dead_letter_lines_total";
    family(w, name, "counter", "Lines set aside as dead letters, by the reason of their refusal.");
    for (uint32_t owner = 0; owner < w->conf->n_outputs; owner++) {
        uint32_t shown = 0;
        int64_t other = 0;
        for (size_t i = l->n; i-- > 0;) {
            const struct output_row *row = l->rows[i];
            if (row->output != owner)
                continue;
            if (shown++ >= w->conf->metrics_max_tenants) {
                other += (int64_t)counter_get(&row->dead_lines);
                continue;
            }
            for (int k = 0; k < DEAD_REASONS; k++) {
                const char *reason =
                    atomic_load_explicit((_Atomic(const char *) *)&row->dead_reasons[k].code, memory_order_acquire);
                if (reason != NULL || k == 0)
                    sample(w, name,
                           (struct label[]){ { "output", output_name(w, owner) },
                                             { "tenant", tenant_name(row->tenant) },
                                             { "reason", slice_cstr(reason != NULL ? reason : "none") } },
                           3, (int64_t)counter_get(&row->dead_reasons[k].n));
            }
        }
        if (shown > w->conf->metrics_max_tenants)
            sample(w, name,
                   (struct label[]){ { "output", output_name(w, owner) },
                                     { "tenant", SLICE("_other") },
                                     { "reason", SLICE("_other") } },
                   3, other);
        else if (shown == 0)
            sample(w, name,
                   (struct label[]){ { "output", output_name(w, owner) },
                                     { "tenant", w->conf->tenants_other },
                                     { "reason", SLICE("none") } },
                   3, 0);
    }
}

/* ---- counters of log lines ---- */

static void log_family(void *ctx, struct slice name, struct slice help)
{
    struct writer_ctx *w = ctx;
    keep(w, buf_printf(w->out, "# HELP %.*s ", SLICE_ARGS(name)));
    for (size_t i = 0; i < help.len; i++)
        keep(w, help.ptr[i] == '\n' ? buf_append_lit(w->out, "\\n") : help.ptr[i] == '\\' ? buf_append_lit(w->out, "\\\\")
                                                                                       : buf_append_byte(w->out, help.ptr[i]));
    keep(w, buf_printf(w->out, "\n# TYPE %.*s counter\n", SLICE_ARGS(name)));
}

static void log_series(void *ctx, struct slice name, const struct slice *labels, const struct slice *values, size_t n,
                       uint64_t value)
{
    struct writer_ctx *w = ctx;
    keep(w, buf_append_slice(w->out, name));
    for (size_t i = 0; i < n; i++) {
        keep(w, buf_printf(w->out, "%c%.*s=\"", i == 0 ? '{' : ',', SLICE_ARGS(labels[i])));
        label_value(w, values[i]);
        keep(w, buf_append_byte(w->out, '"'));
    }
    keep(w, buf_printf(w->out, "%s %llu\n", n > 0 ? "}" : "", (unsigned long long)value));
}

static void log_counters(struct writer_ctx *w)
{
    series_each(&(struct series_seen){ .family = log_family, .series = log_series, .ctx = w });
}

static void rows(struct writer_ctx *w)
{
    static const struct row_family inputs[] = {
        { "tailrace_read_lines_total", "counter", "Lines read, once each.", "input", NULL, 1, NULL, in_read_lines },
        { "tailrace_read_bytes_total", "counter", "Bytes of those lines.", "input", NULL, 1, NULL, in_read_bytes },
        { "tailrace_filtered_lines_total", "counter", "Lines that go to no output, by reason.", "input", "reason",
          FILTER_REASONS, filter_kind, in_filtered },
    };
    static const struct row_family outputs[] = {
        { "tailrace_accepted_lines_total", "counter", "Lines taken into the output's queue.", "output", NULL, 1, NULL,
          out_accepted },
        { "tailrace_delivered_lines_total", "counter", "Lines that the server has.", "output", NULL, 1, NULL,
          out_delivered },
        { "tailrace_lost_lines_total", "counter", "Lines that were lost, by reason; of damage some may be read again.",
          "output", "reason", LOST_REREAD, lost_kind, out_lost_lines },
        { "tailrace_lost_bytes_total", "counter", "Bytes that were given up before they were lines, by reason.",
          "output", "reason", LOST_REREAD, lost_kind, out_lost_bytes },
        { "tailrace_reread_lines_total", "counter", "Lines lost to damage that were read again from their files.",
          "output", NULL, 1, NULL, out_reread },
    };
    struct row_list in = { 0 }, out = { 0 };
    stats_each_input_row(add_input_row, &in);
    stats_each_output_row(add_output_row, &out);
    for (size_t i = 0; i < ARRAY_LEN(inputs); i++)
        row_family(w, &inputs[i], &in, true);
    for (size_t i = 0; i < ARRAY_LEN(outputs); i++)
        row_family(w, &outputs[i], &out, false);
    dead_letters(w, &out);
    free(in.rows);
    free(out.rows);
}

/* ---- the ledger's check ---- */

static void ledger(struct writer_ctx *w)
{
    struct ledger_off b = ledger_sum();
    family(w, "tailrace_ledger_imbalance_lines", "gauge", "Lines that the ledger cannot account for: 0, always.");
    sample(w, "tailrace_ledger_imbalance_lines", (struct label[]){ { "scope", SLICE("inputs") } }, 1, b.inputs);
    sample(w, "tailrace_ledger_imbalance_lines", (struct label[]){ { "scope", SLICE("outputs") } }, 1, b.outputs);
}

/* ---- by input ---- */

static void inputs(struct writer_ctx *w)
{
    family(w, "tailrace_altered_lines_total", "counter", "Lines that were shipped changed or marked, by reason.");
    for (uint32_t i = 0; i < w->conf->n_inputs; i++)
        for (int k = 0; k < ALTER_REASONS; k++)
            sample(w, "tailrace_altered_lines_total",
                   (struct label[]){ { "input", input_name(w, i) },
                                     { "reason", slice_cstr(alter_reason_name((enum alter_reason)k)) } },
                   2, (int64_t)counter_get(&stats.inputs[i].altered[k]));
    family(w, "tailrace_files", "gauge", "Files by state.");
    for (uint32_t i = 0; i < w->conf->n_inputs; i++)
        for (int k = 0; k < FILES_STATES; k++)
            sample(w, "tailrace_files",
                   (struct label[]){ { "input", input_name(w, i) },
                                     { "state", slice_cstr(file_state_name((enum file_state)k)) } },
                   2, gauge_get(&stats.inputs[i].files[k]));
    static const struct {
        const char *name, *type, *help;
        size_t offset;
    } plain[] = {
        { "tailrace_unread_bytes", "gauge", "Bytes in followed files that are not read yet.",
          offsetof(struct input_stats, unread_bytes) },
        { "tailrace_held_bytes", "gauge", "Unread bytes of files that were deleted or rotated away.",
          offsetof(struct input_stats, held_bytes) },
        { "tailrace_file_stalls_total", "counter", "Times a file had unread bytes, no turn and no reason for it.",
          offsetof(struct input_stats, stalls) },
        { "tailrace_tenant_overflow_lines_total", "counter", "Lines whose tenant is not allowed or beyond the limit.",
          offsetof(struct input_stats, tenant_overflow) },
    };
    for (size_t k = 0; k < ARRAY_LEN(plain); k++) {
        family(w, plain[k].name, plain[k].type, plain[k].help);
        for (uint32_t i = 0; i < w->conf->n_inputs; i++)
            sample(w, plain[k].name, (struct label[]){ { "input", input_name(w, i) } }, 1,
                   gauge_get((const gauge *)(const void *)((const char *)&stats.inputs[i] + plain[k].offset)));
    }
}

/* ---- by output ---- */

static void histogram(struct writer_ctx *w, const char *name, const char *help, size_t offset)
{
    char bucket[96], sum[96], count_name[96];
    (void)snprintf(bucket, sizeof(bucket), "%s_bucket", name);
    (void)snprintf(sum, sizeof(sum), "%s_sum", name);
    (void)snprintf(count_name, sizeof(count_name), "%s_count", name);
    family(w, name, "histogram", help);
    for (uint32_t i = 0; i < w->conf->n_outputs; i++) {
        const struct histogram *h = (const void *)((const char *)&stats.outputs[i] + offset);
        struct label labels[2] = { { "output", output_name(w, i) }, { "le", SLICE("+Inf") } };
        uint64_t total = 0;
        for (int k = 0; k <= HISTOGRAM_BUCKETS; k++) {
            char le[32];
            total += counter_get(&h->buckets[k]);
            if (k < HISTOGRAM_BUCKETS) {
                (void)snprintf(le, sizeof(le), "%g", histogram_bounds[k]);
                labels[1].value = slice_cstr(le);
            } else {
                labels[1].value = SLICE("+Inf");
            }
            sample(w, bucket, labels, 2, (int64_t)total);
        }
        sample_real(w, sum, labels, 1, (double)counter_get(&h->sum_us) / 1e6);
        sample(w, count_name, labels, 1, (int64_t)total);
    }
}

static void codes(struct writer_ctx *w, const char *name, const char *type, const char *help, const char *label_name,
                  size_t offset)
{
    family(w, name, type, help);
    for (uint32_t i = 0; i < w->conf->n_outputs; i++) {
        const struct code_count *table = (const void *)((const char *)&stats.outputs[i] + offset);
        for (int k = 0; k < CODES_MAX; k++) {
            const char *code = atomic_load_explicit((_Atomic(const char *) *)&table[k].code, memory_order_acquire);
            if (code == NULL)
                break;
            sample(w, name,
                   (struct label[]){ { "output", output_name(w, i) }, { label_name, slice_cstr(code) } }, 2,
                   (int64_t)counter_get(&table[k].n));
        }
    }
}

static void outputs_plain(struct writer_ctx *w)
{
    static const struct {
        const char *name, *help;
        size_t offset;
    } plain[] = {
        { "tailrace_queue_bytes", "Bytes of the queue on disk.", offsetof(struct output_stats, queue_bytes) },
        { "tailrace_queue_limit_bytes", "Its configured limit.", offsetof(struct output_stats, queue_limit_bytes) },
        { "tailrace_output_up", "1 when the last request was answered well.", offsetof(struct output_stats, up) },
        { "tailrace_dead_letter_bytes", "Bytes of dead letters on disk.", offsetof(struct output_stats, dead_bytes) },
        { "tailrace_reread_pending_bytes", "Bytes of files that are to be read again, for damage took their lines.",
          offsetof(struct output_stats, reread_pending_bytes) },
        { "tailrace_output_stalled", "1 while frames wait, nothing is tried, and nothing explains it.",
          offsetof(struct output_stats, stalled) },
        { "tailrace_requests_in_flight", "Requests being sent or waited for.", offsetof(struct output_stats, inflight) },
    };
    for (size_t k = 0; k < ARRAY_LEN(plain); k++) {
        family(w, plain[k].name, "gauge", plain[k].help);
        for (uint32_t i = 0; i < w->conf->n_outputs; i++)
            sample(w, plain[k].name, (struct label[]){ { "output", output_name(w, i) } }, 1,
                   gauge_get((const gauge *)(const void *)((const char *)&stats.outputs[i] + plain[k].offset)));
    }
}

static void outputs_times(struct writer_ctx *w)
{
    int64_t now = clock_wall_ns();
    family(w, "tailrace_reread_lost_bytes_total", "counter", "Bytes of such ranges that are not in the files any more.");
    for (uint32_t i = 0; i < w->conf->n_outputs; i++)
        sample(w, "tailrace_reread_lost_bytes_total", (struct label[]){ { "output", output_name(w, i) } }, 1,
               (int64_t)counter_get(&stats.outputs[i].reread_lost_bytes));
    family(w, "tailrace_queue_oldest_age_seconds", "gauge", "Age of the oldest unsent frame; 0 when empty.");
    for (uint32_t i = 0; i < w->conf->n_outputs; i++) {
        int64_t oldest = gauge_get(&stats.outputs[i].oldest_unsent_wall_ns);
        sample_real(w, "tailrace_queue_oldest_age_seconds", (struct label[]){ { "output", output_name(w, i) } }, 1,
                    oldest == 0 || oldest > now ? 0 : (double)(now - oldest) / 1e9);
    }
    family(w, "tailrace_output_last_success_timestamp_seconds", "gauge", "Unix time of the last accepted request.");
    for (uint32_t i = 0; i < w->conf->n_outputs; i++)
        sample_real(w, "tailrace_output_last_success_timestamp_seconds",
                    (struct label[]){ { "output", output_name(w, i) } }, 1,
                    (double)(gauge_get(&stats.outputs[i].last_success_wall_ns) / NS_PER_MS) / 1e3);
    family(w, "tailrace_certificate_expiry_timestamp_seconds", "gauge", "Unix time at which a certificate ends.");
    for (uint32_t i = 0; i < w->conf->n_outputs; i++)
        for (int k = 0; k < 2; k++) {
            int64_t at = gauge_get(&stats.outputs[i].certificate_expiry_s[k]);
            if (at != 0)
                sample(w, "tailrace_certificate_expiry_timestamp_seconds",
                       (struct label[]){ { "output", output_name(w, i) },
                                         { "kind", k == 0 ? SLICE("server") : SLICE("client") } },
                       2, at);
        }
}

static void outputs(struct writer_ctx *w)
{
    outputs_plain(w);
    outputs_times(w);
    family(w, "tailrace_queue_blocked", "gauge", "1 while reading for this output waits, by reason.");
    for (uint32_t i = 0; i < w->conf->n_outputs; i++)
        for (int k = 0; k < BLOCKED_REASONS; k++)
            sample(w, "tailrace_queue_blocked",
                   (struct label[]){ { "output", output_name(w, i) },
                                     { "reason", slice_cstr(blocked_reason_name((enum blocked_reason)k)) } },
                   2, gauge_get(&stats.outputs[i].blocked[k]));
    codes(w, "tailrace_requests_total", "counter", "Requests by status or failure.", "code",
          offsetof(struct output_stats, requests));
    codes(w, "tailrace_route_keys_held", "gauge", "Route keys that are held, by reason.", "reason",
          offsetof(struct output_stats, keys_held));
    histogram(w, "tailrace_request_duration_seconds", "Time of one request.",
              offsetof(struct output_stats, request_duration));
    histogram(w, "tailrace_delivery_delay_seconds", "From the read of a batch's first line to its acceptance.",
              offsetof(struct output_stats, delivery_delay));
}

/* ---- the agent and its process ---- */

int64_t process_descriptors(int64_t *ret_limit)
{
    struct rlimit l;
    DIR *d = opendir("/proc/self/fd");
    int64_t n = 0;
    *ret_limit = getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < INT64_MAX ? (int64_t)l.rlim_cur : INT64_MAX;
    while (d != NULL && readdir(d) != NULL)
        n++;
    if (d == NULL)
        return 0;
    (void)closedir(d);
    return n - 3; /* . and .. and this one */
}

static void single(struct writer_ctx *w, const char *name, const char *type, const char *help, int64_t value)
{
    family(w, name, type, help);
    sample(w, name, NULL, 0, value);
}

static void single_real(struct writer_ctx *w, const char *name, const char *type, const char *help, double value)
{
    family(w, name, type, help);
    sample_real(w, name, NULL, 0, value);
}

static void process(struct writer_ctx *w)
{
    struct rusage u;
    int64_t limit, n = process_descriptors(&limit);
    if (getrusage(RUSAGE_SELF, &u) == 0)
        single_real(w, "process_cpu_seconds_total", "counter", "User and system CPU time.",
                    (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                        (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
    single(w, "process_resident_memory_bytes", "gauge", "Resident memory.", gauge_get(&stats.memory_bytes));
    single(w, "process_open_fds", "gauge", "Open descriptors.", n);
    single(w, "process_max_fds", "gauge", "Their limit.", limit);
    single_real(w, "process_start_time_seconds", "gauge", "Unix time of the start.",
                (double)(gauge_get(&stats.started_wall_ns) / NS_PER_MS) / 1e3);
}

static void agent(struct writer_ctx *w)
{
    struct health h;
    health_judge(w->conf, clock_wall_ns(), &h);
    single(w, "tailrace_health", "gauge", "0 Optimal, 1 Healthy, 2 Degraded, 3 Unhealthy.", h.level);
    single(w, "tailrace_inotify_overflows_total", "counter", "Times the kernel's event queue overflowed.",
           (int64_t)counter_get(&stats.inotify_overflows));
    single(w, "tailrace_state_free_bytes", "gauge", "Free bytes where the queues are.",
           gauge_get(&stats.state_free_bytes));
    single(w, "tailrace_state_min_free_bytes", "gauge", "limits.min_free: with less than this free, reading waits.",
           gauge_get(&stats.state_min_free_bytes));
    single(w, "tailrace_held_disk_bytes", "gauge", "Disk space of files that have no name any more and are held open.",
           gauge_get(&stats.held_disk_bytes));
    single(w, "tailrace_held_limit_bytes", "gauge", "limits.held: with more than this, the oldest of them is let go.",
           (int64_t)w->conf->held_max_bytes);
    single_real(w, "tailrace_time_seconds", "gauge", "The agent's wall clock, as Unix time.",
                (double)(clock_wall_ns() / NS_PER_MS) / 1e3);
    single(w, "tailrace_memory_bytes", "gauge", "Resident memory.", gauge_get(&stats.memory_bytes));
    single(w, "tailrace_memory_limit_bytes", "gauge", "limits.memory.", gauge_get(&stats.memory_limit_bytes));
    family(w, "tailrace_memory_accounted_bytes", "gauge", "Memory of what grows with input, by what holds it.");
    for (int k = 0; k < MEMORY_KINDS; k++)
        sample(w, "tailrace_memory_accounted_bytes",
               (struct label[]){ { "kind", slice_cstr(memory_kind_name((enum memory_kind)k)) } }, 1,
               (int64_t)budget_used((enum memory_kind)k));
    single(w, "tailrace_config_reload_successful", "gauge", "1 when the last load of the configuration was taken.",
           gauge_get(&stats.reload_successful));
    single_real(w, "tailrace_config_reload_timestamp_seconds", "gauge", "Unix time of the configuration in effect.",
                (double)(gauge_get(&stats.reload_wall_ns) / NS_PER_MS) / 1e3);
    family(w, "tailrace_build_info", "gauge", "Constant 1; the version is a label.");
    sample(w, "tailrace_build_info", (struct label[]){ { "version", SLICE(TAILRACE_VERSION) } }, 1, 1);
}

/* ---- metadata of pods ---- */

static void kube_requests(struct writer_ctx *w)
{
    family(w, "tailrace_kube_requests_total", "counter", "Requests to the Kubernetes API by status or failure.");
    for (int v = 0; v < KUBE_VERBS; v++)
        for (int k = 0; k < CODES_MAX; k++) {
            const struct code_count *c = &stats.kube.requests[v][k];
            const char *code = atomic_load_explicit((_Atomic(const char *) *)&c->code, memory_order_acquire);
            if (code != NULL)
                sample(w, "tailrace_kube_requests_total",
                       (struct label[]){ { "verb", slice_cstr(kube_verb_name((enum kube_verb)v)) },
                                         { "code", slice_cstr(code) } },
                       2, (int64_t)counter_get(&c->n));
        }
}

static void kube(struct writer_ctx *w)
{
    single(w, "tailrace_kube_synced", "gauge", "1 while pods are known and watched, 0 while not, or not wanted.",
           gauge_get(&stats.kube.synced));
    single(w, "tailrace_kube_pods", "gauge", "Pods of this node that are known.", gauge_get(&stats.kube.pods));
    single(w, "tailrace_kube_table_bytes", "gauge", "Memory of what is known of pods.", gauge_get(&stats.kube.table_bytes));
    single(w, "tailrace_kube_request_budget", "gauge", "Requests that may be made at once now (kubernetes.requests_per_minute).",
           gauge_get(&stats.kube.budget_left));
    single(w, "tailrace_kube_events_total", "counter", "Objects read from watches and lists.",
           (int64_t)counter_get(&stats.kube.events));
    single(w, "tailrace_kube_relists_total", "counter", "Times the whole state was read.",
           (int64_t)counter_get(&stats.kube.relists));
    single(w, "tailrace_kube_files_held", "gauge", "Files whose lines wait for what their pod is.",
           gauge_get(&stats.kube.files_held));
    family(w, "tailrace_kube_waits_total", "counter", "Files that waited for what their pod is, by how it ended.");
    for (int k = 0; k < KUBE_WAITS; k++)
        sample(w, "tailrace_kube_waits_total",
               (struct label[]){ { "result", slice_cstr(kube_wait_name((enum kube_wait)k)) } }, 1,
               (int64_t)counter_get(&stats.kube.waits[k]));
    family(w, "tailrace_annotation_errors_total", "counter", "Annotations of pods that are not understood.");
    for (int k = 0; k < ANNOTATIONS; k++)
        sample(w, "tailrace_annotation_errors_total", (struct label[]){ { "annotation", slice_cstr(annotation_names[k]) } }, 1,
               (int64_t)counter_get(&stats.kube.annotation_errors[k]));
    kube_requests(w);
}

int metrics_write(const struct admin_view *view, struct buf *out)
{
    static_assert(KUBE_ANNOTATIONS == ANNOTATIONS, "a counter each");
    struct writer_ctx w = { .out = out, .conf = view->conf };
    rows(&w);
    log_counters(&w);
    ledger(&w);
    inputs(&w);
    outputs(&w);
    agent(&w);
    kube(&w);
    process(&w);
    return w.r;
}
