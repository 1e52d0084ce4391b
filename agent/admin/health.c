/*
 * health.c - four levels and their reasons. Thresholds: docs/METRICS.md, "Health". Live and ready are for probes and
 * never look at servers.
 */
#include <stdarg.h>
#include <stdio.h>

#include "agent/admin/admin.h"
#include "agent/base/budget.h"
#include "agent/base/clock.h"
#include "agent/base/stats.h"

#define MINUTE_NS (60 * NS_PER_SEC)
#define DAY_S 86400
#define CERTIFICATE_DAYS 14
#define LIVE_NS (30 * NS_PER_SEC)
#define LIVE_IN_SYNC_NS (120 * NS_PER_SEC)

const char *health_level_name(enum health_level l)
{
    static const char *const names[] = { "Optimal", "Healthy", "Degraded", "Unhealthy" };
    return names[l];
}

static void say(struct health *h, enum health_level level, struct slice about, const char *check, const char *fmt, ...)
    PRINTF_LIKE(5, 6);

static void say(struct health *h, enum health_level level, struct slice about, const char *check, const char *fmt, ...)
{
    va_list args;
    h->level = MAX(h->level, level);
    if (h->n_reasons == HEALTH_REASONS_MAX)
        return; /* the level still counts */
    (void)snprintf(h->reasons[h->n_reasons].check, sizeof(h->reasons[0].check), "%s%s%.*s", check,
                   about.len > 0 ? " " : "", SLICE_ARGS(about));
    va_start(args, fmt);
    (void)vsnprintf(h->reasons[h->n_reasons].text, sizeof(h->reasons[0].text), fmt, args);
    va_end(args);
    h->reasons[h->n_reasons++].level = level;
}

static void judge_age(struct health *h, struct slice name, const struct output_stats *s, int64_t now)
{
    int64_t oldest = gauge_get(&s->oldest_unsent_wall_ns);
    int64_t age_s = oldest == 0 || oldest > now ? 0 : (now - oldest) / NS_PER_SEC;
    if (age_s >= 300)
        say(h, HEALTH_DEGRADED, name, "output", "the oldest unsent line waits for %lld s; look at the output's errors",
            (long long)age_s);
    else if (age_s >= 10)
        say(h, HEALTH_HEALTHY, name, "output", "the oldest unsent line waits for %lld s", (long long)age_s);
    int64_t success = gauge_get(&s->last_success_wall_ns), started = gauge_get(&stats.started_wall_ns);
    if (oldest != 0 && now - MAX(success, started) >= 15 * MINUTE_NS && now - oldest >= 15 * MINUTE_NS)
        say(h, HEALTH_UNHEALTHY, name, "output",
            "nothing was accepted for %lld min with lines waiting; is the server up and the address right?",
            (long long)((now - MAX(success, started)) / MINUTE_NS));
    if (gauge_get(&s->stalled) != 0)
        say(h, HEALTH_DEGRADED, name, "output",
            "frames wait and nothing is tried (output.stalled in the log); please report this");
    int64_t failing = gauge_get(&s->failing_since_wall_ns);
    if (failing != 0 && now - failing > MINUTE_NS)
        say(h, HEALTH_DEGRADED, name, "output", "requests fail for %lld s; `tailrace status` shows the last error",
            (long long)((now - failing) / NS_PER_SEC));
}

static void judge_fill(struct health *h, struct slice name, const struct output_stats *s)
{
    int64_t used = gauge_get(&s->queue_bytes), limit = gauge_get(&s->queue_limit_bytes);
    int64_t percent = limit <= 0 ? 0 : used * 100 / limit;
    if (percent >= 50)
        say(h, HEALTH_DEGRADED, name, "queue", "%lld %% full; at 100 %% reading waits", (long long)percent);
    else if (percent >= 10)
        say(h, HEALTH_HEALTHY, name, "queue", "%lld %% full", (long long)percent);
    for (int k = 0; k < BLOCKED_REASONS; k++)
        if (gauge_get(&s->blocked[k]) != 0)
            say(h, HEALTH_UNHEALTHY, name, "queue", "reading for this output waits: %s",
                k == BLOCKED_FULL ? "the queue is full; the server must take lines, or queue.max_bytes must grow"
                : k == BLOCKED_DISK_FULL ? "the disk is full (limits.min_free); free some space"
                                         : "writing fails; look at the disk and the agent's log");
}

static void judge_losses(struct health *h, struct slice name, const struct output_stats *s, int64_t now)
{
    const struct {
        int64_t at;
        const char *what;
    } events[] = { { gauge_get(&s->last_dead_wall_ns), "lines became dead letters; see `tailrace queue ls`" },
                   { gauge_get(&s->last_lost_wall_ns), "lines were lost; the log says which and why (lines.lost)" } };
    for (size_t i = 0; i < ARRAY_LEN(events); i++) {
        if (events[i].at == 0 || now - events[i].at >= 60 * MINUTE_NS)
            continue;
        bool is_recent = now - events[i].at < 15 * MINUTE_NS;
        say(h, is_recent ? HEALTH_DEGRADED : HEALTH_HEALTHY, name, "output", "%lld min ago %s",
            (long long)((now - events[i].at) / MINUTE_NS), events[i].what);
    }
}

static void judge_keys(struct health *h, struct slice name, const struct output_stats *s)
{
    for (int k = 0; k < CODES_MAX; k++) {
        const char *code = atomic_load_explicit((_Atomic(const char *) *)&s->keys_held[k].code, memory_order_acquire);
        int64_t n = (int64_t)counter_get(&s->keys_held[k].n);
        if (code != NULL && n > 0)
            say(h, HEALTH_DEGRADED, name, "output", "%lld route keys (tenants or indexes) are held: %s; `tailrace status` shows which, and what the server says",
                (long long)n, code);
    }
}

static void judge_certificates(struct health *h, struct slice name, const struct output_stats *s, int64_t now)
{
    static const char *const whose[] = { "server's", "client" };
    for (size_t i = 0; i < ARRAY_LEN(whose); i++) {
        int64_t at = gauge_get(&s->certificate_expiry_s[i]), left = at - now / NS_PER_SEC;
        if (at != 0 && left <= 0)
            say(h, HEALTH_DEGRADED, name, "output", "the %s certificate ended %lld days ago; renew it", whose[i],
                (long long)(-left / DAY_S));
        else if (at != 0 && left < CERTIFICATE_DAYS * DAY_S)
            say(h, HEALTH_DEGRADED, name, "output", "the %s certificate ends in %lld days; renew it", whose[i],
                (long long)(left / DAY_S));
    }
}

static void judge_room(struct health *h)
{
    int64_t free_bytes = gauge_get(&stats.state_free_bytes), least = gauge_get(&stats.state_min_free_bytes), limit;
    if (least > 0 && free_bytes < 2 * least)
        say(h, free_bytes < least ? HEALTH_DEGRADED : HEALTH_HEALTHY, SLICE(""), "disk",
            "%lld MiB are free where the queues are, below %lld MiB (limits.min_free) reading waits; free some space",
            (long long)(free_bytes / (int64_t)MIB), (long long)(least / (int64_t)MIB));
    int64_t n = process_descriptors(&limit);
    if (n >= limit / 4 * 3)
        say(h, n >= limit / 10 * 9 ? HEALTH_DEGRADED : HEALTH_HEALTHY, SLICE(""), "descriptors",
            "%lld of %lld are open; raise the limit (LimitNOFILE), or follow fewer files", (long long)n, (long long)limit);
}

static void judge_inputs(struct health *h, const struct conf *conf)
{
    for (size_t i = 0; i < conf->n_inputs; i++) {
        const struct input_stats *s = &stats.inputs[i];
        int64_t unreadable = gauge_get(&s->files[FILES_UNREADABLE]), stalled = gauge_get(&s->files[FILES_STALLED]);
        if (unreadable > 0)
            say(h, HEALTH_DEGRADED, conf->inputs[i].name, "input",
                "%lld files cannot be read; does the agent have the permission (CAP_DAC_READ_SEARCH)?",
                (long long)unreadable);
        if (stalled > 0)
            say(h, HEALTH_DEGRADED, conf->inputs[i].name, "input", "%lld files have unread bytes and no progress; the log says which and why (file.stalled)", (long long)stalled);
    }
}

static void judge_agent(struct health *h)
{
    if (gauge_get(&stats.state_writable) == 0)
        say(h, HEALTH_UNHEALTHY, SLICE(""), "state", "the state folder is not writable; is its disk mounted read-only, or the folder another user's?");
    if (gauge_get(&stats.reload_successful) == 0)
        say(h, HEALTH_DEGRADED, SLICE(""), "config", "the last configuration was rejected; `tailrace check` says why");
    if (budget_is_exceeded())
        say(h, HEALTH_DEGRADED, SLICE(""), "memory",
            "limits.memory (%zu MiB) is too small for what is followed: batches are kept small; tables take %zu MiB",
            budget_limit() / MIB, (budget_total() - budget_used(MEMORY_BATCHES) - budget_used(MEMORY_SENDING)) / MIB);
    struct ledger_off off = ledger_sum();
    if (off.inputs + off.outputs > 0)
        say(h, HEALTH_UNHEALTHY, SLICE(""), "ledger", "%lld lines are not accounted for; please report this",
            (long long)(off.inputs + off.outputs));
}

static void judge_kube(struct health *h, int64_t now)
{
    const struct kube_stats *k = &stats.kube;
    int64_t since = gauge_get(&k->unsynced_since_wall_ns), held = gauge_get(&k->files_held);
    if (gauge_get(&k->is_wanted) != 0 && since != 0 && now - since > MINUTE_NS)
        say(h, HEALTH_DEGRADED, SLICE(""), "kubernetes",
            "the API server is not watched for %lld s: new pods lack labels; the log says why (kube.failing)",
            (long long)((now - since) / NS_PER_SEC));
    if (held > 0)
        say(h, now - since > MINUTE_NS && since != 0 ? HEALTH_DEGRADED : HEALTH_HEALTHY, SLICE(""), "kubernetes",
            "lines of %lld files wait for what their pod is (file.held); metadata_missing: fallback would let them go",
            (long long)held);
}

void health_judge(const struct conf *conf, int64_t wall_ns, struct health *ret)
{
    *ret = (struct health){ .level = HEALTH_OPTIMAL, .conf = conf, .wall_ns = wall_ns };
    judge_agent(ret);
    judge_room(ret);
    for (size_t i = 0; i < conf->n_outputs; i++) {
        const struct output_stats *s = &stats.outputs[i];
        judge_age(ret, conf->outputs[i].name, s, wall_ns);
        judge_fill(ret, conf->outputs[i].name, s);
        judge_losses(ret, conf->outputs[i].name, s, wall_ns);
        judge_keys(ret, conf->outputs[i].name, s);
        judge_certificates(ret, conf->outputs[i].name, s, wall_ns);
    }
    judge_inputs(ret, conf);
    judge_kube(ret, wall_ns);
}

bool health_is_live(int64_t mono_ns, const char **ret_why)
{
    static const char *const why[] = { "the main thread has not turned for 30 s",
                                       "the reader has not turned for 30 s",
                                       "the writer has not turned for 30 s (120 s inside a sync)",
                                       "the sender has not turned for 30 s" };
    for (int t = 0; t < 4; t++) {
        int64_t turn = gauge_get(&stats.thread_turn_mono_ns[t]);
        int64_t limit = t == THREAD_WRITER && gauge_get(&stats.writer_in_sync) != 0 ? LIVE_IN_SYNC_NS : LIVE_NS;
        if (turn != 0 && mono_ns - turn > limit) {
            *ret_why = why[t];
            return false;
        }
    }
    return true;
}

bool health_is_ready(const char **ret_why)
{
    *ret_why = gauge_get(&stats.ready_config) == 0   ? "the configuration is not loaded"
               : gauge_get(&stats.ready_queues) == 0 ? "the queues are being recovered"
               : gauge_get(&stats.ready_scan) == 0   ? "the first scan for files is not done"
                                                     : NULL;
    return *ret_why == NULL;
}

/* ---- what is told beside the checks ---- */

static int put_number(struct buf *out, const char *key, bool is_known, double value)
{
    return is_known ? buf_printf(out, ",\"%s\":%.6g", key, value) : buf_printf(out, ",\"%s\":null", key);
}

/* The bound below which 99 of 100 requests stayed; of those above the last bound nothing is known. */
static bool percentile_99(const struct histogram *hist, uint64_t n, double *ret_seconds)
{
    uint64_t below = 0;
    for (size_t i = 0; n > 0 && i < HISTOGRAM_BUCKETS; i++) {
        below += counter_get(&hist->buckets[i]);
        *ret_seconds = histogram_bounds[i];
        if (below * 100 >= n * 99)
            return true;
    }
    return false;
}

static int write_output(struct buf *out, const struct health *h, size_t i)
{
    const struct output_stats *s = &stats.outputs[i];
    int64_t success = gauge_get(&s->last_success_wall_ns);
    double p99 = 0;
    uint64_t n = 0;
    for (size_t k = 0; k <= HISTOGRAM_BUCKETS; k++)
        n += counter_get(&s->request_duration.buckets[k]);
    bool has_p99 = percentile_99(&s->request_duration, n, &p99);
    int r = buf_append_cstr(out, i == 0 ? "{\"output\":" : ",{\"output\":");
    r = r < 0 ? r : buf_append_json_string(out, h->conf->outputs[i].name);
    r = r < 0 ? r : buf_printf(out, ",\"up\":%s", gauge_get(&s->up) != 0 ? "true" : "false");
    r = r < 0 ? r : put_number(out, "last_success_seconds", success != 0, (double)(h->wall_ns - success) / 1e9);
    r = r < 0 ? r : put_number(out, "latency_mean_ms", n > 0, n == 0 ? 0 : (double)counter_get(&s->request_duration.sum_us) / 1e3 / (double)n);
    r = r < 0 ? r : put_number(out, "latency_p99_ms", has_p99, p99 * 1e3);
    for (int k = 0; r == 0 && k < 2; k++) {
        int64_t at = gauge_get(&s->certificate_expiry_s[k]);
        r = put_number(out, k == 0 ? "certificate_days" : "client_certificate_days", at != 0,
                       (double)((at - h->wall_ns / NS_PER_SEC) / DAY_S));
    }
    return r < 0 ? r : buf_append_byte(out, '}');
}

static int write_more(struct buf *out, const struct health *h)
{
    int64_t limit, n = process_descriptors(&limit);
    int r = buf_append_lit(out, "],\"outputs\":[");
    for (size_t i = 0; r == 0 && h->conf != NULL && i < h->conf->n_outputs; i++)
        r = write_output(out, h, i);
    return r < 0 ? r : buf_printf(out, "],\"room\":{\"state_free_bytes\":%lld,\"state_min_free_bytes\":%lld,\"descriptors\":%lld,"
                                       "\"descriptors_limit\":%lld}}\n",
                                  (long long)gauge_get(&stats.state_free_bytes), (long long)gauge_get(&stats.state_min_free_bytes),
                                  (long long)n, (long long)limit);
}

int health_write_json(const struct health *h, struct buf *out)
{
    static const char *const words[] = { "optimal", "healthy", "degraded", "unhealthy" };
    int r = buf_printf(out, "{\"level\":\"%s\",\"overall_status\":\"%s\",\"version\":\"%s\",\"checks\":[",
                       health_level_name(h->level), words[h->level], TAILRACE_VERSION);
    for (size_t i = 0; r == 0 && i < h->n_reasons; i++) {
        r = buf_printf(out, "%s{\"level\":\"%s\",\"check\":", i == 0 ? "" : ",", health_level_name(h->reasons[i].level));
        if (r == 0)
            r = buf_append_json_string(out, slice_cstr(h->reasons[i].check));
        if (r == 0)
            r = buf_append_lit(out, ",\"text\":");
        if (r == 0)
            r = buf_append_json_string(out, slice_cstr(h->reasons[i].text));
        if (r == 0)
            r = buf_append_byte(out, '}');
    }
    return r == 0 ? write_more(out, h) : r;
}

int health_write_text(const struct health *h, struct buf *out)
{
    int r = buf_printf(out, "%s\n", health_level_name(h->level));
    for (size_t i = 0; r == 0 && i < h->n_reasons; i++)
        r = buf_printf(out, "  %-9s %s: %s\n", health_level_name(h->reasons[i].level), h->reasons[i].check,
                       h->reasons[i].text);
    return r;
}
