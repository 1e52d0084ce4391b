/*
 * http.c - libmicrohttpd behind admin.h: an internal thread for the address, GET and HEAD only, and one for the socket file,
 * which may change levels; every answer built in a bounded buffer.
 */
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/admin/admin.h"
#include "agent/base/clock.h"
#include "agent/base/io.h"
#include "agent/base/log.h"
#include "agent/temporary.h"

#define ANSWER_BYTES_MAX (64 * MIB)
#define CONNECTIONS_MAX 32
/* How long /status waits for a reload to end: most take milliseconds. Below the second that probes wait for an answer.
 * Numbers do not wait: during a reload they are those of its beginning, for counters are given to the new queues in between
 * and must not be seen falling. */
#define VIEW_WAIT_NS (800 * NS_PER_MS)

/* Where requests come in: what changes something only by the socket file, which is root's or the agent's user's. */
struct door {
    struct admin *admin;
    bool is_local;
};

struct admin {
    struct MHD_Daemon *daemon, *local;
    struct door doors[2];
    pthread_mutex_t lock; /* the rest; held while an answer is built, so that a reload waits for it */
    pthread_cond_t changed;
    struct admin_view view;
    bool has_view, is_stopping;
    struct buf last_metrics, last_health; /* of when the view was taken away; empty before the first */
    unsigned last_health_status;
    char *address_file, *socket_file;
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

/* ---- what changes something ---- */

static struct slice argument(struct MHD_Connection *c, const char *name)
{
    return slice_cstr(MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, name));
}

/* GET, POST ?target=…&levels=…&seconds=…, DELETE ?target=… */
static int page_levels(struct MHD_Connection *c, const char *method, struct buf *out, struct answer *ans)
{
    struct err err = { 0 };
    uint64_t seconds = 0;
    int r = 0;
    if (strcmp(method, MHD_HTTP_METHOD_POST) == 0) {
        if (!slice_to_u64(argument(c, "seconds"), &seconds))
            seconds = 0;
        r = temporary_set(argument(c, "target"), argument(c, "levels"),
                          (int64_t)MIN(seconds, (uint64_t)INT32_MAX) * NS_PER_SEC, &err);
    } else if (strcmp(method, MHD_HTTP_METHOD_DELETE) == 0) {
        r = temporary_clear(argument(c, "target"));
        if (r < 0)
            (void)err_say(&err, r, "none are set for that target");
    }
    if (r == 0) {
        ans->type = "application/json";
        return temporary_write_json(out, clock_mono_ns());
    }
    ans->status = r == -ENOENT ? MHD_HTTP_NOT_FOUND : MHD_HTTP_BAD_REQUEST;
    return buf_printf(out, "%s\n", err.text);
}

static bool is_read(const char *method)
{
    return strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
}

static int build(const struct door *door, struct MHD_Connection *c, const char *url, const char *method, struct buf *out,
                 struct answer *ans)
{
    struct admin *a = door->admin;
    if (door->is_local && strcmp(url, "/levels") == 0)
        return page_levels(c, method, out, ans);
    if (!is_read(method)) {
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
    int r = build(ctx, c, url, method, &out, &ans);
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

/* For those who asked for port 0, and for `tailrace health` on this machine. On a full disk it is done without: only by
 * shipping what is in the queue does that disk get room again. */
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
    struct err e = { 0 };
    if (io_replace_file(dir_fd, "admin.addr", slice_cstr(text), 0644, &e) < 0) {
        (void)unlinkat(dir_fd, "admin.addr", 0); /* of an agent that was killed: it may name another port */
        log_warn("admin", "admin.address", "commands ask at admin.listen", LOG_CSTR("error", e.text));
    }
    return 0;
}

/* state_dir/admin.sock, by way of the folder's descriptor: a socket's path may have 107 bytes only. */
static int open_local(struct admin *a, struct slice state_dir, int *ret_fd, struct err *err)
{
    char dir[4096];
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    (void)snprintf(dir, sizeof(dir), "%.*s", SLICE_ARGS(state_dir));
    CLEANUP(fd_closep) int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP(fd_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (dir_fd < 0 || fd < 0)
        return err_set(err, -errno, "cannot make %s/admin.sock", dir);
    (void)unlinkat(dir_fd, "admin.sock", 0); /* of an agent that was killed: the folder is ours */
    (void)snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d/admin.sock", dir_fd);
    mode_t mask = umask(0177);
    int r = bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 16) < 0 ? -errno : 0;
    (void)umask(mask);
    if (r < 0)
        return err_set(err, r, "cannot make %s/admin.sock", dir);
    if (asprintf(&a->socket_file, "%s/admin.sock", dir) < 0)
        a->socket_file = NULL; /* it stays behind, and is replaced */
    *ret_fd = fd;
    fd = -1;
    return 0;
}

static struct MHD_Daemon *start_daemon(struct door *door, int fd)
{
    return MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, on_request, door, MHD_OPTION_LISTEN_SOCKET, fd,
                            MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, 10u,
                            MHD_OPTION_END);
}

/* Without it only what it changes is missing: said, and no reason not to ship lines. */
static void start_local(struct admin *a, struct slice state_dir)
{
    struct err err = { 0 };
    int fd = -1;
    int r = open_local(a, state_dir, &fd, &err);
    if (r == 0 && (a->local = start_daemon(&a->doors[1], fd)) == NULL)
        r = err_say(&err, -EIO, "cannot serve admin.sock");
    if (r < 0) {
        fd_close(&fd);
        log_warn("admin", "admin.socket", "`tailrace levels` will not work", LOG_CSTR("error", err.text));
    }
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
    a->doors[0] = (struct door){ a, false };
    a->doors[1] = (struct door){ a, true };
    int r = open_socket(listen_at, &fd, err);
    if (r == 0)
        r = leave_address(a, fd, state_dir, err);
    if (r == 0) {
        a->daemon = start_daemon(&a->doors[0], fd);
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
    start_local(a, state_dir);
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
    if (a->local != NULL)
        MHD_stop_daemon(a->local);
    if (a->socket_file != NULL)
        (void)unlink(a->socket_file);
    free(a->socket_file);
    if (a->address_file != NULL)
        (void)unlink(a->address_file); /* a stale one is found to be refused */
    free(a->address_file);
    buf_deinit(&a->last_metrics);
    buf_deinit(&a->last_health);
    pthread_cond_destroy(&a->changed);
    pthread_mutex_destroy(&a->lock);
    free(a);
}
