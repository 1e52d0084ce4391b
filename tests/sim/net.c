/*
 * agent/deliver/http.h without a network. A call is decided when it begins: when it arrives, whether it is carried out,
 * when and with what it ends. Time is the simulation's.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/deliver/http.h"
#include "tests/sim/sim.h"

struct http_target {
    unsigned slot;
};

struct http_call {
    struct http_call *next;
    void *owner;
    unsigned slot;
    char url[512], tenant[200];
    struct buf wire, reply_body;
    enum server_mode mode;
    int64_t arrives_ns, ends_ns;
    bool has_arrived, is_carried_out, is_done;
    struct http_reply reply;
    const char *failure; /* instead of the server's answer */
    uint64_t rng;
};

struct http {
    struct http_call *calls, *done_first, *done_last;
    unsigned n_calls;
};

static struct {
    struct http *engine;
    struct {
        enum server_mode mode;
        int64_t until_ns;
        uint64_t rng;
    } servers[SIM_OUTPUTS];
    struct http_call *free_calls;
} net;

const char *mode_words(enum server_mode m)
{
    static const char *const words[MODES] = {
        [MODE_OK] = "is well",
        [MODE_REFUSED] = "refuses connections",
        [MODE_RESET] = "resets connections, before or after it has done its work",
        [MODE_LOST_REPLY] = "does its work and its replies are lost",
        [MODE_TIMEOUT] = "hangs",
        [MODE_SLOW] = "is slow",
        [MODE_503] = "says 503",
        [MODE_429] = "says 429",
        [MODE_401] = "says 401",
        [MODE_404] = "says 404",
        [MODE_PROXY] = "is hidden by a proxy's page",
        [MODE_CUT_REPLY] = "does its work and its replies are cut",
        [MODE_413] = "takes only small requests (413)",
        [MODE_TENANT_429] = "says 429 to one tenant",
        [MODE_TENANT_401] = "says 401 to one tenant",
        [MODE_ITEMS_429] = "says 429 to some items",
        [MODE_ITEMS_503] = "says 503 to some items",
        [MODE_POISON] = "is well",
        [MODE_REDIRECT] = "redirects",
        [MODE_260] = "says 2xx and stores nothing",
    };
    return words[m];
}

void net_begin(void)
{
    memset(net.servers, 0, sizeof(net.servers));
}

void net_set_mode(unsigned slot, enum server_mode m, int64_t until_ns, uint64_t rng)
{
    net.servers[slot].mode = m;
    net.servers[slot].until_ns = until_ns;
    net.servers[slot].rng = rng;
}

void net_heal(void)
{
    for (unsigned i = 0; i < SIM_OUTPUTS; i++)
        net.servers[i].mode = MODE_OK;
}

unsigned net_slot_of_url(struct slice url)
{
    const ptrdiff_t at = slice_find(url, SLICE("://o"));
    assert(at >= 0);
    return (unsigned)(url.ptr[at + 4] - '0');
}

/* ---- life ---- */

int http_open(struct http **ret_http, struct err *err)
{
    struct http *h = calloc(1, sizeof(*h));
    if (h == NULL)
        return err_set(err, -ENOMEM, "model network");
    net.engine = h;
    *ret_http = h;
    return 0;
}

void http_close(struct http *h)
{
    if (h == NULL)
        return;
    assert(h->n_calls == 0);
    net.engine = NULL;
    free(h);
}

int http_target_open(const struct http_conf *conf, uint8_t account, struct http_target **ret_target, struct err *err)
{
    (void)account;
    struct http_target *t = calloc(1, sizeof(*t));
    if (t == NULL)
        return err_set(err, -ENOMEM, "model network");
    t->slot = net_slot_of_url(conf->urls.items[0]);
    *ret_target = t;
    return 0;
}

void http_target_close(struct http_target *t)
{
    free(t);
}

int64_t http_target_server_expiry(const struct http_target *t)
{
    (void)t;
    return 0;
}

int64_t http_target_client_expiry(const struct http_target *t)
{
    (void)t;
    return 0;
}

void http_target_distrust(struct http_target *t)
{
    (void)t;
}

/* ---- one call ---- */

static void copy_text(char *to, size_t cap, struct slice s)
{
    const size_t n = MIN(s.len, cap - 1);
    if (n > 0)
        memcpy(to, s.ptr, n);
    to[n] = '\0';
}

static struct slice header(struct slice headers, struct slice name)
{
    while (headers.len > 0) {
        const ptrdiff_t nl = slice_find_byte(headers, '\n');
        const struct slice line = nl < 0 ? headers : slice_first(headers, (size_t)nl);
        headers = slice_from(headers, nl < 0 ? headers.len : (size_t)nl + 1);
        if (slice_starts(line, name))
            return slice_trim(slice_from(line, name.len));
    }
    return SLICE("");
}

/* What will become of it. */
static void decide(struct http_call *c, int64_t now)
{
    uint64_t *rng = &c->rng;
    int64_t there = rnd_ns(rng, 100000, 30 * NS_PER_MS), back = rnd_ns(rng, 100000, 30 * NS_PER_MS);
    c->is_carried_out = true;
    switch (c->mode) {
    case MODE_REFUSED:
        c->is_carried_out = false;
        c->failure = "refused";
        break;
    case MODE_RESET:
        c->is_carried_out = chance(rng, 50);
        c->failure = "reset";
        break;
    case MODE_LOST_REPLY:
        if (chance(rng, 70)) {
            c->failure = chance(rng, 50) ? "timeout" : "reset";
            back += rnd_ns(rng, 0, 60 * NS_PER_SEC);
        }
        break;
    case MODE_TIMEOUT:
        c->is_carried_out = chance(rng, 10);
        c->failure = "timeout";
        back = 60 * NS_PER_SEC;
        break;
    case MODE_SLOW:
        there = rnd_ns(rng, NS_PER_SEC, 20 * NS_PER_SEC);
        back = rnd_ns(rng, NS_PER_SEC, 20 * NS_PER_SEC);
        break;
    default:
        break;
    }
    c->arrives_ns = now + there;
    c->ends_ns = c->arrives_ns + back;
}

static struct http_call *call_new(void)
{
    struct http_call *c = net.free_calls;
    if (c == NULL) {
        c = calloc(1, sizeof(*c));
        if (c == NULL)
            return NULL;
        buf_init(&c->wire, 64 * MIB);
        buf_init(&c->reply_body, HTTP_REPLY_MAX);
        return c;
    }
    net.free_calls = c->next;
    const struct buf wire = c->wire, body = c->reply_body;
    memset(c, 0, sizeof(*c));
    c->wire = wire;
    c->reply_body = body;
    buf_reset(&c->wire);
    buf_reset(&c->reply_body);
    return c;
}

int http_start(struct http *h, struct http_target *t, const struct http_request *req, struct slice body, void *owner,
               struct http_call **ret_call)
{
    struct http_call *c = disk_is_dead(sim.disk) ? NULL : call_new();
    if (c == NULL)
        return -ENOMEM;
    const int64_t now = clock_mono_ns();
    if (buf_append_slice(&c->wire, body) < 0)
        abort();
    c->owner = owner;
    c->slot = t->slot;
    copy_text(c->url, sizeof(c->url), buf_slice(&req->url));
    copy_text(c->tenant, sizeof(c->tenant), header(buf_slice(&req->headers), SLICE("X-Scope-OrgID:")));
    if (now >= net.servers[c->slot].until_ns)
        net.servers[c->slot].mode = MODE_OK;
    c->mode = net.servers[c->slot].mode;
    c->rng = rnd64(&net.servers[c->slot].rng);
    decide(c, now);
    c->next = h->calls;
    h->calls = c;
    h->n_calls++;
    *ret_call = c;
    return 0;
}

static void arrive(struct http_call *c)
{
    struct reply_out out = { .retry_after_ns = -1, .body = &c->reply_body };
    c->has_arrived = true;
    if (c->is_carried_out)
        server_push(c->slot, slice_cstr(c->url), slice_cstr(c->tenant), buf_slice(&c->wire), c->mode, &c->rng, &out);
    c->reply = (struct http_reply){ .status = out.status, .retry_after_ns = out.retry_after_ns,
                                    .content_type = slice_cstr(out.type == NULL ? "" : out.type) };
    if (c->failure != NULL)
        c->reply = (struct http_reply){ .failure = c->failure, .failure_text = slice_cstr("model"), .retry_after_ns = -1 };
}

static void end(struct http *h, struct http_call **link)
{
    struct http_call *c = *link;
    *link = c->next;
    c->next = NULL;
    c->is_done = true;
    if (c->failure == NULL)
        c->reply.body = buf_slice(&c->reply_body);
    if (h->done_last == NULL)
        h->done_first = c;
    else
        h->done_last->next = c;
    h->done_last = c;
}

/* The next thing that happens in the network, if it is time for it. */
static bool advance(struct http *h, int64_t now)
{
    struct http_call **best = NULL;
    int64_t when = now + 1;
    for (struct http_call **at = &h->calls; *at != NULL; at = &(*at)->next) {
        const int64_t t = (*at)->has_arrived ? (*at)->ends_ns : (*at)->arrives_ns;
        if (t < when) {
            when = t;
            best = at;
        }
    }
    if (best == NULL)
        return false;
    if ((*best)->has_arrived)
        end(h, best);
    else
        arrive(*best);
    return true;
}

int64_t net_next_ns(void)
{
    int64_t when = INT64_MAX;
    for (const struct http_call *c = net.engine == NULL ? NULL : net.engine->calls; c != NULL; c = c->next)
        when = MIN(when, c->has_arrived ? c->ends_ns : c->arrives_ns);
    return when;
}

void http_wait(struct http *h, int fd, int64_t timeout_ns)
{
    (void)fd;
    (void)timeout_ns;
    const int64_t now = clock_mono_ns();
    while (!disk_is_dead(sim.disk) && advance(h, now))
        ;
}

struct http_call *http_next_done(struct http *h)
{
    struct http_call *c = h->done_first;
    if (c == NULL)
        return NULL;
    h->done_first = c->next;
    if (h->done_first == NULL)
        h->done_last = NULL;
    c->next = NULL;
    return c;
}

void http_finish(struct http *h, struct http_call *call)
{
    (void)h;
    (void)call;
    abort(); /* probes are not simulated */
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
    (void)call;
    return SLICE("");
}

/* Whoever gives up a call that is under way does not know whether it was carried out. */
void http_call_free(struct http *h, struct http_call *call)
{
    if (call == NULL)
        return;
    for (struct http_call **at = &h->calls; *at != NULL; at = &(*at)->next)
        if (*at == call) {
            *at = call->next;
            if (!call->has_arrived && call->is_carried_out && chance(&call->rng, 50))
                arrive(call);
            break;
        }
    h->n_calls--;
    call->next = net.free_calls;
    net.free_calls = call;
}
