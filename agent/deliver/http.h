/*
 * http.h - requests by libcurl: many at once on one thread, with bounded replies. The only file that knows curl is http.c.
 *
 * Owns:    curl multi, pooled easy handles, an output's TLS, proxy and secrets (target). Body and owner are borrowed
 *          until the call is freed.
 * Threads: one engine, one thread. Targets belong to the engine's thread too.
 * Limits:  reply HTTP_REPLY_MAX, then cut; headers 256 KiB; connect 5 s; slower than 1 KiB/s for 30 s is a timeout;
 *          the whole request conf.timeout. Redirects are not followed, compressed replies not asked for.
 */
#ifndef TAILRACE_DELIVER_HTTP_H
#define TAILRACE_DELIVER_HTTP_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/err.h"
#include "agent/base/output_conf.h"
#include "outputs/output.h"

struct http;
struct http_target;
struct http_call;

NODISCARD int http_open(struct http **ret_http, struct err *err);
void http_close(struct http *h); /* no call may be left; NULL is fine */

/* What is common to an output's requests; account: that replies are counted in. conf is borrowed. NULL is fine for close. */
NODISCARD int http_target_open(const struct http_conf *conf, uint8_t account, struct http_target **ret_target, struct err *err);
void http_target_close(struct http_target *t);
/* Unix seconds; 0 = not known. The server's is seen at the first TLS connection. */
int64_t http_target_server_expiry(const struct http_target *t);
int64_t http_target_client_expiry(const struct http_target *t);
/* Reads secrets again before the next request, whatever their files' times say: after a 401. */
void http_target_distrust(struct http_target *t);

NODISCARD int http_start(struct http *h, struct http_target *t, const struct http_request *req, struct slice body,
                         void *owner, struct http_call **ret_call);
/* Waits until a socket, fd (-1: none) or the timeout asks for a turn, and makes it. */
void http_wait(struct http *h, int fd, int64_t timeout_ns);
/* The next call that came to an end; NULL = none now. */
struct http_call *http_next_done(struct http *h);
/* The same for one call alone, waiting for it: probes. */
void http_finish(struct http *h, struct http_call *call);

const struct http_reply *http_call_reply(const struct http_call *call); /* of a call that is done */
void *http_call_owner(const struct http_call *call);
/* Where it went: "10.0.0.1:3100", or empty. Valid until the call is freed. */
struct slice http_call_peer(struct http_call *call);
/* Aborts it when it is not done. */
void http_call_free(struct http *h, struct http_call *call);

#endif
