/*
 * status.c - GET /status: one JSON object with inputs, files, queues, outputs and the ledger of both promises.
 */
#include <errno.h>

#include "agent/admin/admin.h"
#include "agent/base/clock.h"
#include "agent/base/stats.h"
#include "agent/base/tenants.h"

/* How long the other threads may take to answer, together: they do between two turns. A stop waits for this page. */
#define ANSWER_NS NS_PER_SEC

struct rows {
    struct buf *out;
    const struct conf *conf;
    bool is_first;
    int r;
};

static int append_name(struct buf *out, const char *key, struct slice value)
{
    int r = buf_printf(out, "\"%s\":", key);
    return r == 0 ? buf_append_json_string(out, value) : r;
}

static void begin_row(struct rows *w, const char *owner_key, struct slice owner, uint32_t tenant)
{
    if (w->r == 0)
        w->r = buf_append_cstr(w->out, w->is_first ? "{" : ",{");
    w->is_first = false;
    if (w->r == 0)
        w->r = append_name(w->out, owner_key, owner);
    if (w->r == 0)
        w->r = buf_append_byte(w->out, ',');
    if (w->r == 0)
        w->r = append_name(w->out, "tenant", tenant_name(tenant));
}

static void add_number(struct rows *w, const char *key, int64_t v)
{
    if (w->r == 0)
        w->r = buf_printf(w->out, ",\"%s\":%lld", key, (long long)v);
}

static void input_row(void *ctx, const struct input_row *row)
{
    struct rows *w = ctx;
    if (row->input >= w->conf->n_inputs)
        return;
    begin_row(w, "input", w->conf->inputs[row->input].name, row->tenant);
    add_number(w, "read_lines", (int64_t)counter_get(&row->read_lines));
    add_number(w, "read_bytes", (int64_t)counter_get(&row->read_bytes));
    add_number(w, "kept_lines", (int64_t)counter_get(&row->kept_lines));
    for (int i = 0; i < FILTER_REASONS && w->r == 0; i++)
        w->r = buf_printf(w->out, ",\"filtered_%s\":%lld", filter_reason_name((enum filter_reason)i),
                          (long long)counter_get(&row->filtered[i]));
    add_number(w, "imbalance", ledger_input_off(row));
    if (w->r == 0)
        w->r = buf_append_byte(w->out, '}');
}

static void output_row(void *ctx, const struct output_row *row)
{
    struct rows *w = ctx;
    if (row->output >= w->conf->n_outputs)
        return;
    begin_row(w, "output", w->conf->outputs[row->output].name, row->tenant);
    add_number(w, "accepted_lines", (int64_t)counter_get(&row->accepted_lines));
    add_number(w, "delivered_lines", (int64_t)counter_get(&row->delivered_lines));
    add_number(w, "queued_lines", gauge_get(&row->queued_lines));
    add_number(w, "parked_lines", gauge_get(&row->parked_lines));
    add_number(w, "dead_lines", (int64_t)counter_get(&row->dead_lines));
    for (int i = 0; i < LOST_REREAD; i++) {
        int64_t n = (int64_t)counter_get(&row->lost_lines[i]), bytes = (int64_t)counter_get(&row->lost_bytes[i]);
        if (w->r == 0 && (n != 0 || bytes != 0))
            w->r = buf_printf(w->out, ",\"lost_%s_lines\":%lld,\"lost_%s_bytes\":%lld",
                              lost_reason_name((enum lost_reason)i), (long long)n,
                              lost_reason_name((enum lost_reason)i), (long long)bytes);
    }
    if (counter_get(&row->lost_lines[LOST_REREAD]) > 0)
        add_number(w, "reread_lines", (int64_t)counter_get(&row->lost_lines[LOST_REREAD]));
    add_number(w, "filtered_too_old", (int64_t)counter_get(&row->filtered_too_old));
    add_number(w, "imbalance", ledger_output_off(row));
    if (w->r == 0)
        w->r = buf_append_byte(w->out, '}');
}

static int write_ledger(const struct conf *conf, struct buf *out)
{
    struct rows w = { .out = out, .conf = conf, .is_first = true };
    w.r = buf_append_lit(out, "\"ledger\":{\"inputs\":[");
    stats_each_input_row(input_row, &w);
    if (w.r == 0)
        w.r = buf_append_lit(out, "],\"outputs\":[");
    w.is_first = true;
    stats_each_output_row(output_row, &w);
    return w.r == 0 ? buf_append_lit(out, "]}") : w.r;
}

static int write_queue(const struct admin_view *v, size_t i, struct buf *out)
{
    const struct output_conf *oc = &v->conf->outputs[i];
    const struct queue *q = v->queues[i];
    enum blocked_reason reason = BLOCKED_FULL;
    bool is_blocked = queue_is_blocked(q, &reason);
    int r = buf_append_json_string(out, oc->name);
    if (r == 0)
        r = buf_printf(out,
                       ":{\"type\":\"%s\",\"bytes\":%llu,\"limit_bytes\":%llu,\"durable_seq\":%llu,"
                       "\"acked_seq\":%llu,\"reread_pending_bytes\":%lld,\"blocked\":%s%s%s}",
                       oc->type->name, (unsigned long long)queue_bytes(q), (unsigned long long)oc->queue.max_bytes,
                       (unsigned long long)queue_durable_seq(q), (unsigned long long)queue_acked_seq(q),
                       (long long)gauge_get(&stats.outputs[i].reread_pending_bytes), is_blocked ? "\"" : "", is_blocked ? blocked_reason_name(reason) : "null",
                       is_blocked ? "\"" : "");
    return r;
}

static int write_inputs(const struct conf *conf, struct buf *out)
{
    int r = buf_append_lit(out, "\"inputs\":{");
    for (size_t i = 0; r == 0 && i < conf->n_inputs; i++) {
        const struct input_stats *s = &stats.inputs[i];
        r = buf_append_cstr(out, i == 0 ? "" : ",");
        if (r == 0)
            r = buf_append_json_string(out, conf->inputs[i].name);
        if (r == 0)
            r = buf_printf(out, ":{\"unread_bytes\":%lld,\"held_bytes\":%lld,\"files\":{",
                           (long long)gauge_get(&s->unread_bytes), (long long)gauge_get(&s->held_bytes));
        for (int k = 0; r == 0 && k < FILES_STATES; k++)
            r = buf_printf(out, "%s\"%s\":%lld", k == 0 ? "" : ",", file_state_name((enum file_state)k),
                           (long long)gauge_get(&s->files[k]));
        if (r == 0)
            r = buf_append_lit(out, "}}");
    }
    return r == 0 ? buf_append_byte(out, '}') : r;
}

/* What a thread says, or null and why it does not. */
static int write_asked(const char *key, int (*ask)(void *, struct buf *, int64_t), void *ctx, int64_t until_mono_ns,
                       struct buf *out)
{
    int r = buf_printf(out, ",\"%s\":", key);
    if (r < 0)
        return r;
    size_t before = out->len;
    r = ask(ctx, out, MAX(until_mono_ns - clock_mono_ns(), 0));
    if (r == -ENOBUFS || r == -ENOMEM)
        return r;
    if (r < 0) {
        out->len = before;
        r = buf_append_lit(out, "null");
    }
    return r;
}

int admin_write_status(const struct admin_view *view, struct buf *out)
{
    struct health h;
    int64_t now = clock_wall_ns(), until = clock_mono_ns() + ANSWER_NS;
    health_judge(view->conf, now, &h);
    int r = buf_printf(out, "{\"version\":\"%s\",\"health\":\"%s\",\"uptime_seconds\":%lld,", TAILRACE_VERSION,
                       health_level_name(h.level),
                       (long long)((now - gauge_get(&stats.started_wall_ns)) / NS_PER_SEC));
    if (r == 0)
        r = append_name(out, "config", view->conf->path);
    if (r == 0)
        r = buf_append_byte(out, ',');
    if (r == 0)
        r = write_inputs(view->conf, out);
    if (r == 0)
        r = buf_append_lit(out, ",\"queues\":{");
    for (size_t i = 0; r == 0 && i < view->n_queues; i++) {
        r = i == 0 ? 0 : buf_append_byte(out, ',');
        if (r == 0)
            r = write_queue(view, i, out);
    }
    if (r == 0)
        r = buf_append_byte(out, '}');
    if (r == 0)
        r = write_asked("outputs", view->senders, view->ctx, until, out);
    if (r == 0)
        r = write_asked("files", view->files, view->ctx, until, out);
    if (r == 0)
        r = buf_append_byte(out, ',');
    if (r == 0)
        r = write_ledger(view->conf, out);
    return r == 0 ? buf_append_lit(out, "}\n") : r;
}
