/*
 * probe.c - one empty request to each URL of an output, and what its answer means, in words.
 *
 * An empty body stores nothing: Loki answers 422 or 204, Elasticsearch 400. What matters is how far we came: name, TLS,
 * password, tenant.
 */
#include <errno.h>

#include "agent/base/clock.h"
#include "agent/deliver/http.h"
#include "agent/deliver/sender.h"

#define PROBE_ROUTE SLICE("tailrace-check")
#define WORDS_MAX 200

static int say_certificate(struct buf *text, const char *whose, int64_t expiry_s)
{
    if (expiry_s == 0)
        return 0;
    const int64_t days = (expiry_s - clock_wall_ns() / NS_PER_SEC) / 86400;
    return buf_printf(text, "  %s certificate: %lld days left\n", whose, (long long)days);
}

/* The first line of what the server said, as far as it is printable. */
static int say_words(struct buf *text, struct slice body)
{
    const struct slice s = slice_first(slice_trim(body), WORDS_MAX);
    int r = buf_append_lit(text, ": ");
    for (size_t i = 0; r == 0 && i < s.len; i++)
        r = buf_append_byte(text, (unsigned char)s.ptr[i] < 0x20 || s.ptr[i] == 0x7f ? ' ' : s.ptr[i]);
    return r == 0 ? buf_append_byte(text, '\n') : r;
}

struct meaning {
    long first, last;
    bool is_fine;
    const char *words;
};

static const struct meaning meanings[] = {
    { 200, 204, true, "accepted" },
    { 300, 399, false, "redirected; redirects are not followed, give the final address" },
    { 400, 400, true, "reached and let in (an empty request is refused, as it should be)" },
    { 401, 401, false, "not let in: user, password, token, key or tenant is missing or wrong" },
    { 403, 403, false, "let in, but not allowed to write" },
    { 404, 404, false, "there is no such address; is the path right?" },
    { 405, 406, false, "this address does not take log lines" },
    { 407, 407, false, "the proxy wants a password" },
    { 408, 408, true, "slow" },
    { 411, 429, true, "reached and let in" },
    { 500, 599, false, "the server is in trouble" },
};

static int say_status(const struct http_reply *reply, struct buf *text)
{
    const struct meaning *m = NULL;
    for (size_t i = 0; i < ARRAY_LEN(meanings) && m == NULL; i++)
        if (reply->status >= meanings[i].first && reply->status <= meanings[i].last)
            m = &meanings[i];
    int r = buf_printf(text, "  HTTP %ld, %s", reply->status, m != NULL ? m->words : "an answer that we do not know");
    if (r == 0)
        r = say_words(text, reply->body);
    return r < 0 ? r : m != NULL && m->is_fine ? 0 : -ECONNABORTED;
}

static int say_failure(const struct http_reply *reply, struct buf *text)
{
    static const struct {
        const char *failure, *words;
    } table[] = {
        { "dns", "the name cannot be resolved" },       { "refused", "nobody listens there, or a firewall says no" },
        { "timeout", "no answer in time" },             { "tls", "TLS failed" },
        { "reset", "the connection was cut" },          { "proxy", "the proxy failed" },
        { "garbage", "what answers does not speak HTTP" },
    };
    const char *words = "failed";
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if (slice_eq(slice_cstr(table[i].failure), slice_cstr(reply->failure)))
            words = table[i].words;
    int r = buf_printf(text, "  %s", words);
    if (r == 0)
        r = say_words(text, reply->failure_text);
    return r < 0 ? r : -ECONNREFUSED;
}

static int probe_url(struct http *h, struct http_target *t, struct output *out, size_t url, struct buf *text)
{
    struct http_request req = { .method = "POST" };
    struct http_call *call = NULL;
    buf_init(&req.url, 16 * KIB);
    buf_init(&req.headers, 64 * KIB);
    int r = out->ops->request(out, PROBE_ROUTE, url, &req);
    if (r == 0)
        r = buf_printf(text, "%.*s\n", SLICE_ARGS(buf_slice(&req.url)));
    if (r == 0)
        r = http_start(h, t, &req, SLICE(""), NULL, &call);
    if (r == 0) {
        http_finish(h, call);
        const struct http_reply *reply = http_call_reply(call);
        const struct slice peer = http_call_peer(call);
        if (peer.len > 0)
            r = buf_printf(text, "  connected to %.*s\n", SLICE_ARGS(peer));
        if (r == 0)
            r = say_certificate(text, "server", http_target_server_expiry(t));
        if (r == 0)
            r = say_certificate(text, "client", http_target_client_expiry(t));
        if (r == 0)
            r = reply->status == 0 ? say_failure(reply, text) : say_status(reply, text);
        http_call_free(h, call);
    }
    buf_deinit(&req.url);
    buf_deinit(&req.headers);
    return r;
}

int sender_probe(struct output *output, struct buf *text)
{
    if (output->ops->is_local)
        return buf_append_lit(text, "  on this machine: nothing to connect to\n");
    struct http *h = NULL;
    struct http_target *t = NULL;
    struct err err = { 0 };
    int r = http_open(&h, &err);
    if (r == 0)
        r = http_target_open(&output->conf->http, 0, &t, &err);
    const size_t n = MAX(output->conf->http.urls.n, (size_t)1);
    if (r < 0) {
        const int said = buf_printf(text, "  %s\n", err.text);
        r = said < 0 ? said : r;
        goto out;
    }
    /* One that takes lines is enough: that is what several addresses are for. */
    int best = -ECONNREFUSED;
    for (size_t i = 0; i < n; i++) {
        r = probe_url(h, t, output, i, text);
        best = r == 0 ? 0 : best;
    }
    r = best == 0 ? 0 : r;
out:
    http_target_close(t);
    http_close(h);
    return r;
}
