/*
 * api.h - requests to the Kubernetes API server or a kubelet, whose answers are read as they come. The only file that knows
 * curl is api.c.
 *
 * Who is asked and by what right (in the cluster: the pod's own service account; a kubeconfig; an address) is settled for
 * each request anew: token, authority and kubeconfig are files that change while we run, and requests are few.
 *
 * Owns:    curl multi and the requests in flight. Threads: one, but api_wake.
 * Limits:  connect 10 s; an answer as long as was asked for.
 */
#ifndef TAILRACE_KUBE_API_H
#define TAILRACE_KUBE_API_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/err.h"
#include "conf/conf.h"

struct api;
struct api_call;

/* -ENOENT: the configuration names none, and this is no pod. conf is borrowed. */
NODISCARD int api_open(const struct conf *conf, struct api **ret_api, struct err *err);
void api_close(struct api *a); /* no call may be left; NULL is fine */
/* Where it asks, for people. */
struct slice api_server(const struct api *a);

struct api_request {
    bool is_kubelet;
    const char *path;  /* "/api/v1/pods?…" */
    int64_t watch_s;   /* > 0: the answer may take so long, and WATCH_GRACE_MS */
    int64_t answer_ms; /* else: so long; 0 = 60 s */
    /* Each piece of the body; status is known by then. A negative return ends the call with it. */
    int (*on_bytes)(void *ctx, int status, struct slice bytes);
    void *ctx;
};

/* -ENOENT, -EACCES …: the credentials cannot be read, said in err. */
NODISCARD int api_start(struct api *a, const struct api_request *req, struct api_call **ret_call, struct err *err);

struct api_result {
    int status;           /* 0: there was no answer */
    int error;            /* negative: what on_bytes said, or -EIO */
    int64_t retry_after_ns;
    const char *code;     /* "200", "refused", "timeout", "tls", "reset", "dns": for the metric */
    const char *text;     /* a sentence; until the call is freed */
};
/* Did it end? */
bool api_is_done(const struct api_call *c, struct api_result *ret);
int api_status(const struct api_call *c); /* of the answer's head, as soon as it is here; 0 = not yet */
void api_free(struct api *a, struct api_call *c); /* aborts it; NULL is fine */

/* Waits for sockets, api_wake, or until then (monotonic). */
void api_wait(struct api *a, int64_t until_ns);
void api_wake(struct api *a); /* any thread */

#endif
