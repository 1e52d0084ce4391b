#include "agent/deliver/http.h"

#include <assert.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/io.h"
#include "agent/base/log.h"
#include "agent/deliver/auth.h"
#include "agent/deliver/backoff.h"
#include "agent/deliver/pem.h"

#define HEADERS_BYTES_MAX (256 * KIB)
#define CONNECT_TIMEOUT_MS 5000L
#define LOW_SPEED_BYTES 1024L
#define LOW_SPEED_S 30L
#define EASY_IDLE_MAX 8 /* handles kept for the next request; connections live in the multi handle */
#define CONNECTIONS_MAX 64L
#define CERT_BYTES_MAX (256 * KIB)
#define EVENTS_MAX 64

/* What epoll was told of a descriptor; others are not curl's. WATCH_KEPT: a connection, which may stay in it unused; what
 * else curl has (its resolver's pipes) comes and goes without a word. */
enum { WATCH_NONE = 0, WATCH_IN = CURL_POLL_IN, WATCH_OUT = CURL_POLL_OUT, WATCH_KEPT = 8 };

/*
 * curl is driven socket by socket: curl_multi_perform would ask the kernel about every connection at every turn. A
 * connection between two requests stays in epoll, so that the next one costs no call; when it says something then, it is
 * taken out.
 */
struct http {
    CURLM *multi;
    int epoll_fd;
    int extra_fd;          /* the caller's, in epoll too; -1 = none */
    int64_t timer_mono_ns; /* when curl wants a turn without an event; INT64_MAX = never */
    uint8_t *watched;      /* by descriptor: WATCH_ bits */
    uint8_t *wanted;       /* by descriptor: WATCH_ bits that curl wants now */
    size_t n_watched;
    CURL *idle[EASY_IDLE_MAX];
    size_t n_idle;
    struct http_call *done_first, *done_last;
    size_t n_calls;
};

struct http_target {
    const struct http_conf *conf;
    uint8_t account; /* of replies */
    struct auth auth;
    char *ca_file, *cert_file, *key_file, *server_name, *proxy; /* NULL = not said */
    long tls_version;
    struct file_stamp cert_stamp;
    int64_t cert_looked_mono_ns;
    int64_t server_expiry_s, client_expiry_s;
};

struct http_call {
    CURL *easy;
    struct http_target *target;
    void *owner;
    struct curl_slist *headers, *connect_to;
    struct buf reply_body;
    size_t header_bytes;
    bool is_done, is_cut;
    struct http_reply reply;
    struct http_call *next_done;
    char words[CURL_ERROR_SIZE];
};

/* --- engine --- */

static void global_init(void)
{
    (void)curl_global_init(CURL_GLOBAL_DEFAULT); /* a failure shows as NULL handles below */
}

static int reserve_watch(struct http *h, size_t fd)
{
    if (fd < h->n_watched)
        return 0;
    const size_t n = MAX(2 * h->n_watched, fd + 64);
    uint8_t *both = calloc(2, n);
    if (both == NULL)
        return -ENOMEM;
    if (h->n_watched > 0) {
        memcpy(both, h->watched, h->n_watched);
        memcpy(both + n, h->wanted, h->n_watched);
    }
    free(h->watched);
    h->watched = both;
    h->wanted = both + n;
    h->n_watched = n;
    return 0;
}

/* Brings epoll to `bits`. */
static void watch(struct http *h, int fd, uint8_t bits)
{
    struct epoll_event ev = { .events = (bits & WATCH_IN ? EPOLLIN : 0U) | (bits & WATCH_OUT ? EPOLLOUT : 0U),
                              .data.fd = fd };
    const uint8_t kept = h->watched[fd] & WATCH_KEPT, before = h->watched[fd] & CURL_POLL_INOUT;
    if (bits == before)
        return;
    const int op = bits == WATCH_NONE ? EPOLL_CTL_DEL : before == WATCH_NONE ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    const int r = epoll_ctl(h->epoll_fd, op, fd, &ev);
    h->watched[fd] = kept | (r < 0 ? WATCH_NONE : bits); /* out of watches: the timeouts of the call end it */
}

/* Connections begin and end here, so that what epoll knows of them is always known: it forgets a closed one by itself. */
static int on_open(void *ctx, curl_socket_t fd, curlsocktype purpose)
{
    struct http *h = ctx;
    (void)purpose;
    if (reserve_watch(h, (size_t)fd) < 0)
        return CURL_SOCKOPT_ERROR;
    h->watched[fd] = WATCH_KEPT;
    return CURL_SOCKOPT_OK;
}

static int on_close(void *ctx, curl_socket_t fd)
{
    struct http *h = ctx;
    if ((size_t)fd < h->n_watched)
        h->watched[fd] = WATCH_NONE;
    return close(fd);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *unused)
{
    struct http *h = ctx;
    (void)easy;
    (void)unused;
    if (fd < 0 || reserve_watch(h, (size_t)fd) < 0)
        return -1;
    h->wanted[fd] = what == CURL_POLL_REMOVE ? WATCH_NONE : (uint8_t)(what & CURL_POLL_INOUT);
    if (h->wanted[fd] != WATCH_NONE)
        watch(h, fd, h->wanted[fd]);
    else if (h->watched[fd] != (WATCH_KEPT | WATCH_IN))
        watch(h, fd, WATCH_NONE);
    return 0;
}

static int on_timer(CURLM *multi, long timeout_ms, void *ctx)
{
    struct http *h = ctx;
    (void)multi;
    h->timer_mono_ns = timeout_ms < 0 ? INT64_MAX : clock_mono_ns() + (int64_t)timeout_ms * NS_PER_MS;
    return 0;
}

int http_open(struct http **ret_http, struct err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, global_init);
    struct http *h = calloc(1, sizeof(*h));
    if (h == NULL)
        return err_set(err, -ENOMEM, "cannot start HTTP");
    h->extra_fd = -1;
    h->timer_mono_ns = INT64_MAX;
    h->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (h->epoll_fd < 0) {
        const int r = -errno;
        free(h);
        return err_set(err, r, "cannot start HTTP");
    }
    h->multi = curl_multi_init();
    if (h->multi == NULL) {
        fd_close(&h->epoll_fd);
        free(h);
        return err_set(err, -ENOMEM, "cannot start libcurl");
    }
    (void)curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, CONNECTIONS_MAX);
    (void)curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    (void)curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
    (void)curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    (void)curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
    *ret_http = h;
    return 0;
}

void http_close(struct http *h)
{
    if (h == NULL)
        return;
    assert(h->n_calls == 0);
    for (size_t i = 0; i < h->n_idle; i++)
        curl_easy_cleanup(h->idle[i]);
    (void)curl_multi_cleanup(h->multi);
    fd_close(&h->epoll_fd);
    free(h->watched);
    free(h);
}

/* --- target --- */

static int dup_setting(struct slice s, char **ret)
{
    if (s.len == 0)
        return 0;
    *ret = slice_dup(s);
    return *ret == NULL ? -ENOMEM : 0;
}

static long tls_version_of(struct slice s)
{
    if (slice_ends(s, SLICE("1.3")))
        return CURL_SSLVERSION_TLSv1_3;
    return slice_ends(s, SLICE("1.1")) ? CURL_SSLVERSION_TLSv1_1
           : slice_ends(s, SLICE("1.0")) ? CURL_SSLVERSION_TLSv1_0 : CURL_SSLVERSION_TLSv1_2;
}

int http_target_open(const struct http_conf *conf, uint8_t account, struct http_target **ret_target, struct err *err)
{
    struct http_target *t = calloc(1, sizeof(*t));
    if (t == NULL)
        return err_set(err, -ENOMEM, "cannot prepare HTTP");
    t->conf = conf;
    t->account = account;
    t->tls_version = tls_version_of(conf->min_version);
    int r = auth_init(&t->auth, conf);
    if (r == 0)
        r = dup_setting(conf->ca_file, &t->ca_file);
    if (r == 0)
        r = dup_setting(conf->cert_file, &t->cert_file);
    if (r == 0)
        r = dup_setting(conf->key_file, &t->key_file);
    if (r == 0)
        r = dup_setting(conf->server_name, &t->server_name);
    if (r == 0 && !slice_eq(conf->proxy, SLICE("env")) && conf->proxy.len > 0)
        r = dup_setting(slice_eq(conf->proxy, SLICE("none")) ? slice_of("\0", 1) : conf->proxy, &t->proxy);
    if (r < 0) {
        http_target_close(t);
        return err_set(err, r, "cannot prepare HTTP");
    }
    *ret_target = t;
    return 0;
}

void http_target_close(struct http_target *t)
{
    if (t == NULL)
        return;
    auth_deinit(&t->auth);
    free(t->ca_file);
    free(t->cert_file);
    free(t->key_file);
    free(t->server_name);
    free(t->proxy);
    free(t);
}

int64_t http_target_server_expiry(const struct http_target *t)
{
    return t->server_expiry_s;
}

int64_t http_target_client_expiry(const struct http_target *t)
{
    return t->client_expiry_s;
}

void http_target_distrust(struct http_target *t)
{
    auth_distrust(&t->auth);
}

static void look_at_client_certificate(struct http_target *t)
{
    const int64_t now = clock_mono_ns();
    if (t->cert_file == NULL || (t->cert_looked_mono_ns != 0 && now - t->cert_looked_mono_ns < 10 * NS_PER_SEC))
        return;
    t->cert_looked_mono_ns = MAX(now, 1);
    if (!file_stamp_changed(&t->cert_stamp, t->cert_file))
        return;
    struct buf pem;
    buf_init(&pem, CERT_BYTES_MAX);
    int64_t expiry_s = 0;
    /* What is wrong with the file is said by the handshake, in better words. */
    if (io_read_file(AT_FDCWD, t->cert_file, &pem, NULL) == 0 && pem_not_after(buf_slice(&pem), &expiry_s) == 0)
        t->client_expiry_s = expiry_s;
    buf_deinit(&pem);
}

/* --- one call: options --- */

static size_t on_body(char *ptr, size_t size, size_t n, void *ctx)
{
    struct http_call *call = ctx;
    const size_t len = size * n;
    const size_t room = HTTP_REPLY_MAX - call->reply_body.len;
    const size_t take = MIN(room, len);
    if (buf_append(&call->reply_body, ptr, take) < 0)
        return 0;
    if (take == len)
        return len;
    call->is_cut = true; /* more than we are ready to read ends the call; what is there is judged */
    return 0;
}

/* libcurl of Debian 12 bounds one header line, not their sum. */
static size_t on_header(char *ptr, size_t size, size_t n, void *ctx)
{
    struct http_call *call = ctx;
    (void)ptr;
    call->header_bytes += size * n;
    return call->header_bytes <= HEADERS_BYTES_MAX ? size * n : 0;
}

static int add_header(struct http_call *call, struct slice line)
{
    char *copy = slice_dup(line);
    struct curl_slist *list = copy == NULL ? NULL : curl_slist_append(call->headers, copy);
    free(copy);
    if (list == NULL)
        return -ENOMEM;
    call->headers = list;
    return 0;
}

static int add_conf_headers(struct http_call *call, struct pairs headers)
{
    int r = 0;
    struct buf line;
    buf_init(&line, 64 * KIB);
    for (size_t i = 0; r == 0 && i < headers.n; i++) {
        const struct pair *p = &headers.items[i];
        buf_reset(&line);
        r = buf_append_slice(&line, p->name);
        if (r == 0) /* curl wants "Name;" for a header without a value */
            r = p->value.len > 0 ? buf_append_lit(&line, ": ") : buf_append_lit(&line, ";");
        if (r == 0)
            r = buf_append_slice(&line, p->value);
        if (r == 0 && slice_find_byte(buf_slice(&line), '\n') < 0 && slice_find_byte(buf_slice(&line), '\r') < 0)
            r = add_header(call, buf_slice(&line));
    }
    buf_deinit(&line);
    return r;
}

static int add_headers(struct http_call *call, const struct http_request *req)
{
    struct http_target *t = call->target;
    int r = add_header(call, SLICE("Expect:")); /* no 100-continue: it costs a round trip, and some never answer it */
    for (struct slice rest = buf_slice(&req->headers); r == 0 && rest.len > 0;) {
        const ptrdiff_t end = slice_find_byte(rest, '\n');
        const struct slice line = end < 0 ? rest : slice_first(rest, (size_t)end);
        rest = slice_from(rest, line.len + 1);
        if (line.len > 0)
            r = add_header(call, line);
    }
    if (r == 0)
        r = add_conf_headers(call, t->conf->headers);
    if (r < 0)
        return r;

    struct err err = { 0 };
    if (auth_refresh(&t->auth, &err) < 0)
        log_warn("deliver", "output.failing", "a secret cannot be read; the last one stays in force",
                 LOG_CSTR("error", err.text));
    return t->auth.header.len == 0 ? 0 : add_header(call, buf_slice(&t->auth.header));
}

/* tls.server_name: the name goes into the URL, for SNI and the certificate, and the connection to where the URL pointed. */
static int set_server_name(struct http_call *call, const char *url)
{
    CURLU *u = curl_url();
    char *host = NULL, *port = NULL, *whole = NULL;
    struct buf text;
    buf_init(&text, 8 * KIB);
    int r = -EINVAL;
    if (u == NULL || curl_url_set(u, CURLUPART_URL, url, 0) != CURLUE_OK ||
        curl_url_get(u, CURLUPART_HOST, &host, 0) != CURLUE_OK ||
        curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) != CURLUE_OK)
        goto out;
    r = buf_printf(&text, "Host: %s:%s", host, port);
    if (r == 0)
        r = add_header(call, buf_slice(&text));
    buf_reset(&text);
    if (r == 0)
        r = buf_printf(&text, "%s:%s:%s:%s", call->target->server_name, port, host, port);
    if (r == 0)
        r = buf_terminate(&text);
    if (r == 0 && (call->connect_to = curl_slist_append(NULL, text.ptr)) == NULL)
        r = -ENOMEM;
    if (r == 0 && (curl_url_set(u, CURLUPART_HOST, call->target->server_name, 0) != CURLUE_OK ||
                   curl_url_get(u, CURLUPART_URL, &whole, 0) != CURLUE_OK))
        r = -EINVAL;
    if (r == 0)
        (void)curl_easy_setopt(call->easy, CURLOPT_URL, whole);
    if (r == 0)
        (void)curl_easy_setopt(call->easy, CURLOPT_CONNECT_TO, call->connect_to);
out:
    curl_free(host);
    curl_free(port);
    curl_free(whole);
    curl_url_cleanup(u);
    buf_deinit(&text);
    return r;
}

static int set_url(struct http_call *call, const struct http_request *req)
{
    char *url = slice_dup(buf_slice(&req->url));
    if (url == NULL)
        return -ENOMEM;
    int r = 0;
    if (curl_easy_setopt(call->easy, CURLOPT_URL, url) != CURLE_OK)
        r = -ENOMEM;
    if (r == 0 && call->target->server_name != NULL && strncasecmp(url, "https:", 6) == 0)
        r = set_server_name(call, url);
    free(url);
    return r;
}

static void set_method(CURL *e, const struct http_request *req, struct slice body)
{
    const char *method = req->method != NULL ? req->method : "POST";
    if (strcmp(method, "GET") == 0 && body.len == 0) {
        (void)curl_easy_setopt(e, CURLOPT_HTTPGET, 1L);
        return;
    }
    (void)curl_easy_setopt(e, CURLOPT_POST, 1L);
    (void)curl_easy_setopt(e, CURLOPT_POSTFIELDS, body.len > 0 ? body.ptr : "");
    (void)curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.len);
    if (strcmp(method, "POST") != 0)
        (void)curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, method);
}

static void set_tls(CURL *e, const struct http_target *t)
{
    (void)curl_easy_setopt(e, CURLOPT_SSLVERSION, t->tls_version);
    (void)curl_easy_setopt(e, CURLOPT_CA_CACHE_TIMEOUT, 300L); /* a CA file that is replaced counts soon */
    if (t->ca_file != NULL)
        (void)curl_easy_setopt(e, CURLOPT_CAINFO, t->ca_file);
    if (t->cert_file != NULL)
        (void)curl_easy_setopt(e, CURLOPT_SSLCERT, t->cert_file);
    if (t->key_file != NULL)
        (void)curl_easy_setopt(e, CURLOPT_SSLKEY, t->key_file);
    if (t->conf->insecure_skip_verify) {
        (void)curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 0L);
        (void)curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    (void)curl_easy_setopt(e, CURLOPT_CERTINFO, 1L);
}

static void set_bounds(CURL *e, const struct http_conf *conf)
{
    const int64_t timeout_ns = conf->timeout_ns > 0 ? conf->timeout_ns : 60 * NS_PER_SEC;
    (void)curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)MAX(timeout_ns / NS_PER_MS, 1));
    (void)curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
    (void)curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, LOW_SPEED_BYTES);
    (void)curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, LOW_SPEED_S);
    (void)curl_easy_setopt(e, CURLOPT_MAXLIFETIME_CONN, 600L); /* addresses and client certificates change */
    (void)curl_easy_setopt(e, CURLOPT_DNS_CACHE_TIMEOUT, 5L);  /* a server that moved is found; asked at new connections only */
    (void)curl_easy_setopt(e, CURLOPT_BUFFERSIZE, 131072L);
    (void)curl_easy_setopt(e, CURLOPT_UPLOAD_BUFFERSIZE, 262144L);
}

static int set_options(struct http *h, struct http_call *call, const struct http_request *req, struct slice body)
{
    CURL *e = call->easy;
    const struct http_target *t = call->target;
    (void)curl_easy_setopt(e, CURLOPT_SOCKOPTFUNCTION, on_open);
    (void)curl_easy_setopt(e, CURLOPT_SOCKOPTDATA, h);
    (void)curl_easy_setopt(e, CURLOPT_CLOSESOCKETFUNCTION, on_close);
    (void)curl_easy_setopt(e, CURLOPT_CLOSESOCKETDATA, h);
    (void)curl_easy_setopt(e, CURLOPT_PRIVATE, call);
    (void)curl_easy_setopt(e, CURLOPT_ERRORBUFFER, call->words);
    (void)curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L); /* else a hanging resolver would block this thread */
    (void)curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
    (void)curl_easy_setopt(e, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
    (void)curl_easy_setopt(e, CURLOPT_HTTP_CONTENT_DECODING, 0L); /* no bombs: a compressed reply is judged as it is */
    (void)curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
    (void)curl_easy_setopt(e, CURLOPT_USERAGENT, "tailrace");
    (void)curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(e, CURLOPT_WRITEDATA, call);
    (void)curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    (void)curl_easy_setopt(e, CURLOPT_HEADERDATA, call);
    if (t->proxy != NULL)
        (void)curl_easy_setopt(e, CURLOPT_PROXY, t->proxy);
    set_bounds(e, t->conf);
    set_tls(e, t);
    set_method(e, req, body);
    int r = add_headers(call, req);
    if (r == 0)
        r = set_url(call, req);
    if (r == 0)
        (void)curl_easy_setopt(e, CURLOPT_HTTPHEADER, call->headers);
    return r;
}

/* --- one call: life --- */

int http_start(struct http *h, struct http_target *t, const struct http_request *req, struct slice body, void *owner,
               struct http_call **ret_call)
{
    struct http_call *call = calloc(1, sizeof(*call));
    if (call == NULL)
        return -ENOMEM;
    h->n_calls++;
    call->target = t;
    call->owner = owner;
    call->reply.retry_after_ns = -1;
    buf_init_in(&call->reply_body, HTTP_REPLY_MAX, t->account);
    call->easy = h->n_idle > 0 ? h->idle[--h->n_idle] : curl_easy_init();
    look_at_client_certificate(t);
    int r = call->easy == NULL ? -ENOMEM : set_options(h, call, req, body);
    if (r == 0 && curl_multi_add_handle(h->multi, call->easy) != CURLM_OK)
        r = -ENOMEM;
    if (r < 0) {
        call->is_done = true; /* not in the multi handle */
        http_call_free(h, call);
        return r;
    }
    *ret_call = call;
    return 0;
}

static const char *failure_name(CURL *e, CURLcode code)
{
    long os_errno = 0;
    (void)curl_easy_getinfo(e, CURLINFO_OS_ERRNO, &os_errno);
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
        return "dns";
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_PROXY:
        return "proxy";
    case CURLE_COULDNT_CONNECT:
        return "refused";
    case CURLE_OPERATION_TIMEDOUT:
        return "timeout";
    case CURLE_SSL_CONNECT_ERROR:
        /* A server that is going down resets handshakes; a wrong certificate does not. */
        return os_errno == ECONNRESET || os_errno == EPIPE ? "reset" : "tls";
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CRL_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_CLIENTCERT:
    case CURLE_USE_SSL_FAILED:
    case CURLE_SSL_ENGINE_NOTFOUND:
    case CURLE_SSL_ENGINE_SETFAILED:
        return "tls";
    case CURLE_WRITE_ERROR:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_WEIRD_SERVER_REPLY:
        return "garbage";
    default:
        return "reset"; /* send, receive, nothing, cut short: the answer is not known */
    }
}

static void note_server_certificate(struct http_call *call)
{
    long n_connects = 0;
    struct curl_certinfo *info = NULL;
    if (curl_easy_getinfo(call->easy, CURLINFO_NUM_CONNECTS, &n_connects) != CURLE_OK || n_connects == 0 ||
        curl_easy_getinfo(call->easy, CURLINFO_CERTINFO, &info) != CURLE_OK || info == NULL || info->num_of_certs < 1)
        return;
    for (const struct curl_slist *l = info->certinfo[0]; l != NULL; l = l->next) {
        const struct slice line = slice_cstr(l->data), key = SLICE("Expire date:");
        if (!slice_starts(line, key))
            continue;
        const time_t when = curl_getdate(l->data + key.len, NULL);
        if (when > 0)
            call->target->server_expiry_s = (int64_t)when;
    }
}

static void fill_reply(struct http_call *call, CURLcode code)
{
    struct http_reply *rep = &call->reply;
    char *type = NULL;
    curl_off_t retry_after_s = 0;
    long status = 0;
    (void)curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
    note_server_certificate(call);
    rep->body = buf_slice(&call->reply_body);
    rep->is_cut = call->is_cut;
    if (code == CURLE_OK || (call->is_cut && status >= 200)) {
        rep->status = status;
        if (curl_easy_getinfo(call->easy, CURLINFO_CONTENT_TYPE, &type) == CURLE_OK && type != NULL)
            rep->content_type = slice_cstr(type);
        if (curl_easy_getinfo(call->easy, CURLINFO_RETRY_AFTER, &retry_after_s) == CURLE_OK && retry_after_s > 0)
            rep->retry_after_ns = MIN((int64_t)MIN(retry_after_s, (curl_off_t)86400) * NS_PER_SEC, RETRY_AFTER_MAX_NS);
        if (status == 401)
            http_target_distrust(call->target);
        if (status != 0)
            return;
    }
    rep->status = 0;
    rep->failure = status == 0 && code == CURLE_OK ? "garbage" : failure_name(call->easy, code);
    rep->failure_text = slice_cstr(call->words[0] != '\0' ? call->words : curl_easy_strerror(code));
}

static void call_done(struct http *h, struct http_call *call, CURLcode code)
{
    fill_reply(call, code);
    (void)curl_multi_remove_handle(h->multi, call->easy);
    call->is_done = true;
    if (h->done_last == NULL)
        h->done_first = call;
    else
        h->done_last->next_done = call;
    h->done_last = call;
}

static void collect_done(struct http *h)
{
    int left = 0;
    for (CURLMsg *msg; (msg = curl_multi_info_read(h->multi, &left)) != NULL;) {
        if (msg->msg != CURLMSG_DONE)
            continue;
        char *call = NULL;
        const CURLcode code = msg->data.result;
        (void)curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &call);
        call_done(h, (struct http_call *)(void *)call, code);
    }
}

static void turn(struct http *h, const struct epoll_event *events, int n)
{
    int running = 0;
    for (int i = 0; i < n; i++) {
        const int fd = events[i].data.fd;
        const uint32_t e = events[i].events;
        if (fd == h->extra_fd)
            continue;
        if (h->wanted[fd] == WATCH_NONE) {
            watch(h, fd, WATCH_NONE); /* the other side closed it between two requests; curl finds out by itself */
            continue;
        }
        const int mask = (e & (EPOLLIN | EPOLLHUP) ? CURL_CSELECT_IN : 0) | (e & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                         (e & EPOLLERR ? CURL_CSELECT_ERR : 0);
        (void)curl_multi_socket_action(h->multi, fd, mask, &running);
    }
    if (h->timer_mono_ns <= clock_mono_ns()) {
        h->timer_mono_ns = INT64_MAX; /* told again by on_timer */
        (void)curl_multi_socket_action(h->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    }
    collect_done(h);
}

static void set_extra(struct http *h, int fd)
{
    if (fd == h->extra_fd)
        return;
    if (h->extra_fd >= 0)
        (void)epoll_ctl(h->epoll_fd, EPOLL_CTL_DEL, h->extra_fd, NULL); /* closed already: as good */
    h->extra_fd = fd;
    struct epoll_event ev = { .events = EPOLLIN, .data.fd = fd };
    if (fd >= 0 && epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
        h->extra_fd = -1; /* tried again by the next wait */
}

void http_wait(struct http *h, int fd, int64_t timeout_ns)
{
    struct epoll_event events[EVENTS_MAX];
    set_extra(h, fd);
    if (h->timer_mono_ns != INT64_MAX)
        timeout_ns = MIN(timeout_ns, h->timer_mono_ns - clock_mono_ns());
    const int64_t ms = timeout_ns <= 0 ? 0 : MIN((timeout_ns + NS_PER_MS - 1) / NS_PER_MS, (int64_t)60000);
    const int n = h->done_first != NULL ? 0 : epoll_wait(h->epoll_fd, events, EVENTS_MAX, (int)ms);
    turn(h, events, n);
}

struct http_call *http_next_done(struct http *h)
{
    struct http_call *call = h->done_first;
    if (call == NULL)
        return NULL;
    h->done_first = call->next_done;
    if (h->done_first == NULL)
        h->done_last = NULL;
    call->next_done = NULL;
    return call;
}

void http_finish(struct http *h, struct http_call *call)
{
    turn(h, NULL, 0);
    while (!call->is_done)
        http_wait(h, -1, NS_PER_SEC);
}

const struct http_reply *http_call_reply(const struct http_call *call)
{
    assert(call->is_done);
    return &call->reply;
}

void *http_call_owner(const struct http_call *call)
{
    return call->owner;
}

struct slice http_call_peer(struct http_call *call)
{
    char *ip = NULL;
    (void)curl_easy_getinfo(call->easy, CURLINFO_PRIMARY_IP, &ip);
    return slice_cstr(ip);
}

static void forget_done(struct http *h, struct http_call *call)
{
    struct http_call *last = NULL;
    for (struct http_call **at = &h->done_first; *at != NULL;) {
        if (*at == call) {
            *at = call->next_done;
            continue;
        }
        last = *at;
        at = &(*at)->next_done;
    }
    h->done_last = last;
}

void http_call_free(struct http *h, struct http_call *call)
{
    if (call == NULL)
        return;
    if (!call->is_done)
        (void)curl_multi_remove_handle(h->multi, call->easy);
    forget_done(h, call);
    if (call->easy != NULL && h->n_idle < EASY_IDLE_MAX) {
        curl_easy_reset(call->easy);
        h->idle[h->n_idle++] = call->easy;
    } else {
        curl_easy_cleanup(call->easy);
    }
    curl_slist_free_all(call->headers);
    curl_slist_free_all(call->connect_to);
    buf_deinit(&call->reply_body);
    free(call);
    assert(h->n_calls > 0);
    h->n_calls--;
}
