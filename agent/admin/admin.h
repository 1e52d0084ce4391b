/*
 * admin.h - the admin endpoint: GET /metrics, /health, /health/live, /health/ready, /status on limits.listen
 * (libmicrohttpd). It reads counters and asks the other threads for text; it changes nothing. On state_dir/admin.sock (mode 0600)
 * the same, and /levels: temporary.h.
 *
 * Threads: admin_start, admin_set_view, admin_stop from main.
 */
#ifndef TAILRACE_ADMIN_ADMIN_H
#define TAILRACE_ADMIN_ADMIN_H

#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/stats.h"
#include "agent/queue/queue.h"
#include "conf/conf.h"

struct admin;

/* The running configuration's insides. While a reload swaps them there is no view: /metrics and /health say what was so
 * when it was taken away, /status waits a moment and then says so. */
struct admin_view {
    const struct conf *conf;
    struct queue *const *queues;   /* by output index */
    size_t n_queues;
    /* JSON: an array of files; an object by output. Appended to out; -ETIMEDOUT when the thread does not answer. */
    int (*files)(void *ctx, struct buf *out, int64_t timeout_ns);
    int (*senders)(void *ctx, struct buf *out, int64_t timeout_ns);
    void *ctx;
};

/* listen: "127.0.0.1:9746", ":9746", "[::1]:0". The address that was bound is written to state_dir/admin.addr; when it
 * cannot be written, as on a full disk, that is logged and the endpoint answers all the same. */
NODISCARD int admin_start(struct slice listen, struct slice state_dir, struct admin **ret_admin, struct err *err);
/* NULL takes the view away, and returns once no request uses it. The struct is copied. */
void admin_set_view(struct admin *a, const struct admin_view *view);
void admin_stop(struct admin *a); /* NULL is fine */

/* Open descriptors, and how many there may be. */
int64_t process_descriptors(int64_t *ret_limit);

/* ---- what the endpoints answer; also used by tests ---- */
NODISCARD int metrics_write(const struct admin_view *view, struct buf *out); /* Prometheus text 0.0.4 */
NODISCARD int admin_write_status(const struct admin_view *view, struct buf *out); /* JSON with the ledger */

/* Lines that a row cannot account for: 0. */
int64_t ledger_input_off(const struct input_row *row);
int64_t ledger_output_off(const struct output_row *row);
struct ledger_off {
    int64_t inputs, outputs; /* sums of the rows' absolute values */
};
struct ledger_off ledger_sum(void);

enum health_level { HEALTH_OPTIMAL, HEALTH_HEALTHY, HEALTH_DEGRADED, HEALTH_UNHEALTHY };
const char *health_level_name(enum health_level l); /* "Optimal" … */

#define HEALTH_REASONS_MAX 32
struct health {
    enum health_level level;
    struct {
        enum health_level level;
        char check[48];  /* "output loki", "disk" … */
        char text[200];  /* what is so, since when, what to do */
    } reasons[HEALTH_REASONS_MAX];
    size_t n_reasons;
    const struct conf *conf; /* of whose outputs more is told, as of then */
    int64_t wall_ns;
};
/* The worst that applies (metrics.md has the thresholds); wall_ns, mono_ns: now. */
void health_judge(const struct conf *conf, int64_t wall_ns, struct health *ret);
bool health_is_live(int64_t mono_ns, const char **ret_why);
bool health_is_ready(const char **ret_why);
/* {"level", "overall_status", "version", "checks": [{level, check, text}], "outputs": [{output, up, last_success_seconds,
 * latency_mean_ms, latency_p99_ms, certificate_days, client_certificate_days}], "room": {…}}; what is not known is null. */
NODISCARD int health_write_json(const struct health *h, struct buf *out);
NODISCARD int health_write_text(const struct health *h, struct buf *out);

#endif
