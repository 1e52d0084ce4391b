#include "agent/kube/api.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/clock.h"
#include "agent/base/io.h"
#include "agent/base/log.h"
#include "agent/kube/access.h"

#define CONNECT_MS 10000L
#define ANSWER_MS 60000L
#define WATCH_GRACE_MS 30000L
#define RETRY_AFTER_MAX_S 600

struct api {
    const struct conf *conf;
    CURLM *multi;
    struct access access;
};

struct api_call {
    CURL *easy;
    struct curl_slist *headers;
    struct api_request req;
    struct access access; /* what this request was made with */
    bool is_done;
    int error;
    CURLcode code;
    long status;
    char status_text[16], error_text[CURL_ERROR_SIZE];
};

static void init_curl(void)
{
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
}

int api_open(const struct conf *conf, struct api **ret_api, struct err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, init_curl);
    if (!access_is_wanted(&conf->kubernetes))
        return -ENOENT;
    struct api *a = calloc(1, sizeof(*a));
    if (a == NULL)
        return err_set(err, -ENOMEM, "cannot start asking Kubernetes");
    a->conf = conf;
    access_init(&a->access);
    a->multi = curl_multi_init();
    if (a->multi == NULL) {
        api_close(a);
        return err_set(err, -ENOMEM, "cannot start asking Kubernetes");
    }
    struct err why = { 0 };
    if (access_load(&a->access, &conf->kubernetes, false, &why) < 0) /* this one is for the server's name only */
        log_warn("kube", "kube.failing", "what Kubernetes is to be asked with cannot be read; it is tried again",
                 LOG_CSTR("error", why.text));
    *ret_api = a;
    return 0;
}

void api_close(struct api *a)
{
    if (a == NULL)
        return;
    if (a->multi != NULL)
        (void)curl_multi_cleanup(a->multi);
    access_deinit(&a->access);
    free(a);
}

struct slice api_server(const struct api *a)
{
    return buf_slice(&a->access.server);
}

/* ---- one request ---- */

static size_t on_body(char *ptr, size_t size, size_t n, void *ctx)
{
    struct api_call *c = ctx;
    if (c->status == 0)
        (void)curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &c->status);
    c->error = c->req.on_bytes(c->req.ctx, (int)c->status, slice_of(ptr, size * n));
    return c->error < 0 ? CURL_WRITEFUNC_ERROR : n;
}

static void set_blob(CURL *h, CURLoption option, const struct buf *b)
{
    struct curl_blob blob = { .data = b->ptr, .len = b->len, .flags = CURL_BLOB_COPY };
    if (b->len > 0)
        (void)curl_easy_setopt(h, option, &blob);
}

/* The authority is given as bytes: curl would remember a file's certificates for a day. */
static void set_tls(CURL *h, const struct access *a)
{
    set_blob(h, CURLOPT_CAINFO_BLOB, &a->ca);
    set_blob(h, CURLOPT_SSLCERT_BLOB, &a->cert);
    set_blob(h, CURLOPT_SSLKEY_BLOB, &a->key);
    (void)curl_easy_setopt(h, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (a->is_insecure) {
        (void)curl_easy_setopt(h, CURLOPT_SSL_VERIFYPEER, 0L);
        (void)curl_easy_setopt(h, CURLOPT_SSL_VERIFYHOST, 0L);
    }
}

static int set_url(struct api_call *c)
{
    CLEANUP(buf_deinit) struct buf url;
    struct slice server = c->req.is_kubelet ? buf_slice(&c->access.kubelet) : buf_slice(&c->access.server);
    buf_init(&url, 64 * KIB);
    int r = buf_append_slice(&url, server);
    r = r < 0 ? r : buf_append_cstr(&url, c->req.path);
    r = r < 0 ? r : buf_terminate(&url);
    return r < 0 ? r : curl_easy_setopt(c->easy, CURLOPT_URL, url.ptr) == CURLE_OK ? 0 : -ENOMEM;
}

static int set_headers(struct api_call *c)
{
    CLEANUP(buf_deinit) struct buf line;
    buf_init(&line, 64 * KIB);
    if (c->access.token.len > 0) {
        int r = buf_append_lit(&line, "Authorization: Bearer ");
        r = r < 0 ? r : buf_append_slice(&line, buf_slice(&c->access.token));
        r = r < 0 ? r : buf_terminate(&line);
        struct curl_slist *more = r < 0 ? NULL : curl_slist_append(NULL, line.ptr);
        if (line.ptr != NULL)
            explicit_bzero(line.ptr, line.cap);
        if (more == NULL)
            return -ENOMEM;
        c->headers = more;
    }
    struct curl_slist *more = curl_slist_append(c->headers, "Accept: application/json");
    if (more == NULL)
        return -ENOMEM;
    c->headers = more;
    (void)curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, c->headers);
    return 0;
}

static void set_options(struct api_call *c)
{
    CURL *h = c->easy;
    (void)curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "https,http");
    (void)curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(h, CURLOPT_PRIVATE, c);
    (void)curl_easy_setopt(h, CURLOPT_ERRORBUFFER, c->error_text);
    (void)curl_easy_setopt(h, CURLOPT_USERAGENT, "tailrace/" TAILRACE_VERSION);
    (void)curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
    (void)curl_easy_setopt(h, CURLOPT_TIMEOUT_MS,
                           c->req.watch_s > 0     ? (long)c->req.watch_s * 1000 + WATCH_GRACE_MS
                           : c->req.answer_ms > 0 ? (long)c->req.answer_ms
                                                  : ANSWER_MS);
    (void)curl_easy_setopt(h, CURLOPT_TCP_KEEPALIVE, 1L); /* a server that vanished is noticed */
    (void)curl_easy_setopt(h, CURLOPT_TCP_KEEPIDLE, 30L);
    (void)curl_easy_setopt(h, CURLOPT_TCP_KEEPINTVL, 10L);
    (void)curl_easy_setopt(h, CURLOPT_BUFFERSIZE, 16L * 1024);
    (void)curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(h, CURLOPT_WRITEDATA, c);
    set_tls(h, &c->access);
}

int api_start(struct api *a, const struct api_request *req, struct api_call **ret_call, struct err *err)
{
    struct api_call *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return err_set(err, -ENOMEM, "cannot ask Kubernetes");
    c->req = *req;
    access_init(&c->access);
    int r = access_load(&c->access, &a->conf->kubernetes, req->is_kubelet, err);
    if (r == 0) {
        c->easy = curl_easy_init();
        r = c->easy == NULL ? -ENOMEM : set_url(c);
        r = r < 0 ? r : set_headers(c);
        if (r == 0) {
            set_options(c);
            r = curl_multi_add_handle(a->multi, c->easy) == CURLM_OK ? 0 : -ENOMEM;
        }
        if (r < 0)
            (void)err_set(err, r, "cannot ask Kubernetes");
    }
    if (r < 0) {
        api_free(NULL, c);
        return r;
    }
    *ret_call = c;
    return 0;
}

void api_free(struct api *a, struct api_call *c)
{
    if (c == NULL)
        return;
    if (a != NULL && c->easy != NULL)
        (void)curl_multi_remove_handle(a->multi, c->easy);
    if (c->easy != NULL)
        curl_easy_cleanup(c->easy);
    curl_slist_free_all(c->headers);
    access_deinit(&c->access);
    free(c);
}

/* ---- ends ---- */

static const char *code_name(CURLcode code)
{
    switch ((int)code) {
    case CURLE_COULDNT_RESOLVE_HOST:
        return "dns";
    case CURLE_COULDNT_CONNECT:
        return "refused";
    case CURLE_OPERATION_TIMEDOUT:
        return "timeout";
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
        return "tls";
    default:
        return "reset";
    }
}

bool api_is_done(const struct api_call *c, struct api_result *ret)
{
    if (!c->is_done)
        return false;
    curl_off_t after = 0;
    (void)curl_easy_getinfo(c->easy, CURLINFO_RETRY_AFTER, &after);
    bool is_ended = c->code == CURLE_OK || c->error < 0;
    *ret = (struct api_result){ .status = (int)c->status,
                                .error = c->error < 0 ? c->error : c->code == CURLE_OK ? 0 : -EIO,
                                .retry_after_ns = (int64_t)MIN(after, (curl_off_t)RETRY_AFTER_MAX_S) * NS_PER_SEC,
                                .code = is_ended && c->status != 0 ? c->status_text : code_name(c->code),
                                .text = c->error_text[0] != '\0' ? c->error_text : curl_easy_strerror(c->code) };
    return true;
}

int api_status(const struct api_call *c)
{
    long status = 0;
    (void)curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
    return (int)status;
}

static void take_ends(struct api *a)
{
    CURLMsg *m;
    int left;
    while ((m = curl_multi_info_read(a->multi, &left)) != NULL) {
        struct api_call *c = NULL;
        if (m->msg != CURLMSG_DONE)
            continue;
        (void)curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&c);
        c->code = m->data.result;
        c->is_done = true;
        (void)curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &c->status);
        (void)snprintf(c->status_text, sizeof(c->status_text), "%ld", c->status);
    }
}

void api_wait(struct api *a, int64_t until_ns)
{
    int running;
    (void)curl_multi_perform(a->multi, &running);
    take_ends(a);
    int64_t left = (until_ns - clock_mono_ns()) / NS_PER_MS + 1;
    if (left <= 1)
        return;
    (void)curl_multi_poll(a->multi, NULL, 0, (int)MIN(left, (int64_t)10000), NULL);
    (void)curl_multi_perform(a->multi, &running);
    take_ends(a);
}

void api_wake(struct api *a)
{
    (void)curl_multi_wakeup(a->multi);
}
