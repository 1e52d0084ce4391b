/*
 * http.c - libmicrohttpd behind admin.h: one internal thread, GET and HEAD only, every answer built in a bounded buffer.
 */
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/admin/admin.h"
#include "agent/base/clock.h"
#include "agent/base/io.h"
#include "agent/base/log.h"

#define ANSWER_BYTES_MAX (64 * MIB)
#define CONNECTIONS_MAX 32
/* How long /status waits for a reload to end: most take milliseconds. Below the second that probes wait for an answer.
 * Numbers do not wait: during a reload they are those of its beginning, for counters are given to the new queues in between
 * and must not be seen falling. */
#define VIEW_WAIT_NS (800 * NS_PER_MS)

struct admin {
    struct MHD_Daemon *daemon;
    pthread_mutex_t lock; /* the rest; held while an answer is built, so that a reload waits for it */
    pthread_cond_t changed;
    struct admin_view view;
    bool has_view, is_stopping;
    struct buf last_metrics, last_health; /* of when the view was taken away; empty before the first */
    unsigned last_health_status;
    char *address_file;
};

struct answer {
    unsigned status;
    const char *type;
};

typedef int page_fn(struct admin *a, struct buf *out, struct answer *ans);

static int page_live(struct admin *a, struct buf *out, struct answer *ans)
{
    const char *why = NULL;
    (void)a;
    if (health_is_live(clock_mono_ns(), &why))
        return buf_append_lit(out, "ok\n");
    ans->status = MHD_HTTP_SERVICE_UNAVAILABLE;
    return buf_printf(out, "%s\n", why);
}

static int page_ready(struct admin *a, struct buf *out, struct answer *ans)
{
    const char *why = NULL;
    (void)a;
    if (health_is_ready(&why))
        return buf_append_lit(out, "ok\n");
    ans->status = MHD_HTTP_SERVICE_UNAVAILABLE;
    return buf_printf(out, "%s\n", why);
}

/* Called with the lock; it is given up while waiting. */
static bool wait_view(struct admin *a)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += VIEW_WAIT_NS % NS_PER_SEC;
    until.tv_sec += VIEW_WAIT_NS / NS_PER_SEC + until.tv_nsec / NS_PER_SEC;
    until.tv_nsec %= NS_PER_SEC;
    while (!a->has_view && !a->is_stopping)
        if (pthread_cond_timedwait(&a->changed, &a->lock, &until) != 0)
            break;
    return a->has_view;
}

static int no_view(struct buf *out, struct answer *ans)
{
    ans->status = MHD_HTTP_SERVICE_UNAVAILABLE;
    ans->type = "text/plain; charset=utf-8";
    return buf_append_lit(out, "the configuration is being loaded\n");
}

static int write_health(const struct admin *a, struct buf *out, unsigned *ret_status)
{
    struct health h;
    health_judge(a->view.conf, clock_wall_ns(), &h);
    *ret_status = h.level == HEALTH_UNHEALTHY ? MHD_HTTP_SERVICE_UNAVAILABLE : MHD_HTTP_OK;
    return health_write_json(&h, out);
}

static int page_health(struct admin *a, struct buf *out, struct answer *ans)
{
    if (!a->has_view && a->last_health.len == 0 && !wait_view(a))
        return no_view(out, ans);
    ans->type = "application/json";
    if (a->has_view)
        return write_health(a, out, &ans->status);
    ans->status = a->last_health_status;
    return buf_append_slice(out, buf_slice(&a->last_health));
}

static int page_metrics(struct admin *a, struct buf *out, struct answer *ans)
{
    if (!a->has_view && a->last_metrics.len == 0 && !wait_view(a))
        return no_view(out, ans);
    ans->type = "text/plain; version=0.0.4; charset=utf-8";
    return a->has_view ? metrics_write(&a->view, out) : buf_append_slice(out, buf_slice(&a->last_metrics));
}

static int page_status(struct admin *a, struct buf *out, struct answer *ans)
{
    if (!wait_view(a))
        return no_view(out, ans);
    ans->type = "application/json";
    return admin_write_status(&a->view, out);
}

static int page_index(struct admin *a, struct buf *out, struct answer *ans)
{
    (void)a;
    (void)ans;
    return buf_append_lit(out, "tailrace " TAILRACE_VERSION "\n/metrics\n/status\n/health\n/health/live\n/health/ready\n");
}

static const struct {
    const char *path;
    page_fn *page;
} pages[] = { { "/metrics", page_metrics },        { "/status", page_status },
              { "/health", page_health },          { "/health/live", page_live },
              { "/health/ready", page_ready },     { "/", page_index } };

static enum MHD_Result reply(struct MHD_Connection *c, const struct answer *ans, struct buf *body)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(body->len, body->ptr, MHD_RESPMEM_MUST_FREE);
    if (r == NULL)
        return MHD_NO;
    budget_add(body->account, -(int64_t)body->cap); /* the server's now: it frees it when it is sent */
    *body = (struct buf){ .max = body->max };
    (void)MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, ans->type);
    (void)MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    enum MHD_Result sent = MHD_queue_response(c, ans->status, r);
    MHD_destroy_response(r);
    return sent;
}

static int build(struct admin *a, const char *url, const char *method, struct buf *out, struct answer *ans)
{
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
        ans->status = MHD_HTTP_METHOD_NOT_ALLOWED;
        return buf_append_lit(out, "only GET\n");
    }
    for (size_t i = 0; i < ARRAY_LEN(pages); i++) {
        if (strcmp(pages[i].path, url) != 0)
            continue;
        pthread_mutex_lock(&a->lock);
        int r = pages[i].page(a, out, ans);
        pthread_mutex_unlock(&a->lock);
        return r;
    }
    ans->status = MHD_HTTP_NOT_FOUND;
    return buf_append_lit(out, "not found; see /\n");
}

static enum MHD_Result on_request(void *ctx, struct MHD_Connection *c, const char *url, const char *method,
                                  const char *version, const char *data, size_t *data_size, void **req_ctx)
{
    static const char begun;
    (void)version;
    (void)data;
    if (*req_ctx == NULL) { /* headers only; the body, if any, comes with the next calls */
        *req_ctx = (void *)(uintptr_t)&begun;
        return MHD_YES;
    }
    if (*data_size != 0) {
        *data_size = 0; /* read and forgotten */
        return MHD_YES;
    }
    struct answer ans = { .status = MHD_HTTP_OK, .type = "text/plain; charset=utf-8" };
    struct buf out;
    buf_init_in(&out, ANSWER_BYTES_MAX, ACCOUNT_OF(MEMORY_ANSWERS));
    int r = build(ctx, url, method, &out, &ans);
    if (r < 0) {
        ans.status = MHD_HTTP_INTERNAL_SERVER_ERROR;
        ans.type = "text/plain; charset=utf-8";
        buf_reset(&out);
    }
    enum MHD_Result sent = reply(c, &ans, &out);
    buf_deinit(&out);
    return sent;
}

/* ---- listening ---- */

/* "127.0.0.1:9746", ":9746", "[::1]:0" -> host (empty: all addresses) and port. */
static int split_listen(struct slice listen, char *host, size_t host_size, char *port, size_t port_size)
{
    ptrdiff_t colon = slice_rfind_byte(listen, ':');
    uint64_t number;
    if (colon < 0)
        return -EINVAL;
    struct slice h = slice_first(listen, (size_t)colon), p = slice_from(listen, (size_t)colon + 1);
    if (h.len >= 2 && h.ptr[0] == '[' && h.ptr[h.len - 1] == ']')
        h = slice_of(h.ptr + 1, h.len - 2);
    if (h.len >= host_size || p.len >= port_size || !slice_to_u64(p, &number) || number > 65535)
        return -EINVAL;
    memcpy(host, h.ptr, h.len);
    host[h.len] = '\0';
    memcpy(port, p.ptr, p.len);
    port[p.len] = '\0';
    return 0;
}

static int bind_first(const struct addrinfo *list, int *ret_fd)
{
    int r = -EADDRNOTAVAIL;
    for (const struct addrinfo *ai = list; ai != NULL; ai = ai->ai_next) {
        int one = 1, zero = 0;
        CLEANUP(fd_closep) int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0) {
            r = -errno;
            continue;
        }
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        if (ai->ai_family == AF_INET6) /* "[::]" takes IPv4 too */
            (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
        if (bind(fd, ai->ai_addr, ai->ai_addrlen) == 0 && listen(fd, 64) == 0) {
            *ret_fd = fd;
            fd = -1;
            return 0;
        }
        r = -errno;
    }
    return r;
}

static int open_socket(struct slice listen_at, int *ret_fd, struct err *err)
{
    char host[256], port[8];
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    struct addrinfo *list = NULL;
    int r = split_listen(listen_at, host, sizeof(host), port, sizeof(port));
    if (r < 0)
        return err_say(err, r, "admin.listen: '%.*s' is not HOST:PORT", SLICE_ARGS(listen_at));
    int g = getaddrinfo(host[0] == '\0' ? NULL : host, port, &hints, &list);
    if (g != 0)
        return err_say(err, -EADDRNOTAVAIL, "admin.listen: %.*s: %s", SLICE_ARGS(listen_at), gai_strerror(g));
    r = bind_first(list, ret_fd);
    freeaddrinfo(list);
    return r < 0 ? err_set(err, r, "admin.listen: cannot listen on %.*s", SLICE_ARGS(listen_at)) : 0;
}

/* For those who asked for port 0, and for `tailrace health` on this machine. */
static int leave_address(struct admin *a, int fd, struct slice state_dir, struct err *err)
{
    struct sockaddr_storage sa;
    socklen_t len = sizeof(sa);
    char host[256], port[8], text[300], dir[4096];
    if (getsockname(fd, (struct sockaddr *)&sa, &len) < 0 ||
        getnameinfo((struct sockaddr *)&sa, len, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return err_say(err, -EINVAL, "admin.listen: the bound address cannot be read");
    bool is_v6 = sa.ss_family == AF_INET6;
    (void)snprintf(text, sizeof(text), "%s%s%s:%s\n", is_v6 ? "[" : "", host, is_v6 ? "]" : "", port);
    (void)snprintf(dir, sizeof(dir), "%.*s", SLICE_ARGS(state_dir));
    CLEANUP(fd_closep) int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return err_set(err, -errno, "cannot open the state folder %s", dir);
    if (asprintf(&a->address_file, "%s/admin.addr", dir) < 0) {
        a->address_file = NULL;
        return err_set(err, -ENOMEM, "cannot start the admin endpoint");
    }
    return io_replace_file(dir_fd, "admin.addr", slice_cstr(text), 0644, err);
}

int admin_start(struct slice listen_at, struct slice state_dir, struct admin **ret_admin, struct err *err)
{
    int fd = -1;
    struct admin *a = calloc(1, sizeof(*a));
    if (a == NULL)
        return err_set(err, -ENOMEM, "cannot start the admin endpoint");
    pthread_condattr_t clock;
    buf_init(&a->last_metrics, ANSWER_BYTES_MAX);
    buf_init(&a->last_health, ANSWER_BYTES_MAX);
    pthread_mutex_init(&a->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&a->changed, &clock);
    pthread_condattr_destroy(&clock);
    int r = open_socket(listen_at, &fd, err);
    if (r == 0)
        r = leave_address(a, fd, state_dir, err);
    if (r == 0) {
        a->daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, on_request, a,
                                     MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX,
                                     MHD_OPTION_CONNECTION_TIMEOUT, 10u, MHD_OPTION_END);
        if (a->daemon == NULL)
            r = err_say(err, -EIO, "cannot start the admin endpoint");
        else
            fd = -1; /* the daemon closes it */
    }
    if (r < 0) {
        fd_close(&fd);
        admin_stop(a);
        return r;
    }
    *ret_admin = a;
    return 0;
}

static void forget_last(struct admin *a)
{
    buf_deinit(&a->last_metrics);
    buf_deinit(&a->last_health);
}

/* What the pages say until the next view. Without memory for it they wait for that. */
static void keep_last(struct admin *a)
{
    if (metrics_write(&a->view, &a->last_metrics) < 0)
        buf_reset(&a->last_metrics);
    if (write_health(a, &a->last_health, &a->last_health_status) < 0)
        buf_reset(&a->last_health);
}

void admin_set_view(struct admin *a, const struct admin_view *view)
{
    pthread_mutex_lock(&a->lock);
    if (view != NULL) {
        forget_last(a);
        a->view = *view;
    } else if (a->has_view) {
        keep_last(a);
    }
    a->has_view = view != NULL;
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
}

void admin_stop(struct admin *a)
{
    if (a == NULL)
        return;
    pthread_mutex_lock(&a->lock);
    a->is_stopping = true;
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
    if (a->daemon != NULL)
        MHD_stop_daemon(a->daemon);
    if (a->address_file != NULL)
        (void)unlink(a->address_file); /* a stale one is found to be refused */
    free(a->address_file);
    buf_deinit(&a->last_metrics);
    buf_deinit(&a->last_health);
    pthread_cond_destroy(&a->changed);
    pthread_mutex_destroy(&a->lock);
    free(a);
}
