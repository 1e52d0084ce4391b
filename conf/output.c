/* The outputs of a configuration: what all have, what HTTP ones have, and the type's own table. */
#include <errno.h>
#include <stdlib.h>

#include "agent/base/suggest.h"
#include "conf/apply.h"
#include "conf/size.h"

static const char *const on_full_choices[] = { "block", "drop_oldest", NULL };

#define Q(field) offsetof(struct queue_raw, field)
const struct setting queue_settings[] = {
    { .key = "max_bytes",
      .type = SETTING_SIZE,
      .offset = Q(queue.max_bytes),
      .def = "1GiB",
      .min = 64 << 20,
      .help = "Size of the queue on disk; then on_full decides." },
    { .key = "batch_bytes",
      .type = SETTING_SIZE,
      .offset = Q(queue.batch_bytes),
      .def = "1MiB",
      .min = 1 << 10,
      .max = 4 << 20,
      .help = "Uncompressed size at which a request is full." },
    { .key = "batch_wait",
      .type = SETTING_DURATION,
      .offset = Q(queue.batch_wait_ns),
      .def = "1s",
      .min = 10 * NS_PER_MS,
      .max = 60 * NS_PER_SEC,
      .help = "Time after which a request is closed although not full." },
    { .key = "sync",
      .type = SETTING_STRING,
      .offset = Q(sync),
      .def = "200ms",
      .help = "How often the queue is synced to disk, or half of batch_wait when shorter; each: every group; never: left to the system." },
    { .key = "on_full",
      .type = SETTING_ENUM,
      .offset = Q(queue.on_full),
      .def = "block",
      .choices = on_full_choices,
      .help = "block: files wait, nothing is lost; drop_oldest: the oldest lines go, counted." },
    { .key = "key_share",
      .type = SETTING_STRING,
      .offset = Q(key_share),
      .def = "25%",
      .help = "Share of the queue that one tenant or index may hold while the server refuses it." },
    { .key = "dead_max_bytes",
      .type = SETTING_SIZE,
      .offset = Q(queue.dead_max_bytes),
      .def = "256MiB",
      .min = 1 << 20,
      .help = "Size of the folder of lines that the server refused for good." },
    SETTING_END,
};

#define H(field) offsetof(struct http_conf, field)
static const struct setting basic_settings[] = {
    { .key = "username", .type = SETTING_STRING, .offset = H(username), .help = "User." },
    { .key = "password",
      .type = SETTING_STRING,
      .offset = H(password),
      .is_secret = true,
      .help = "Password." },
    { .key = "password_file",
      .type = SETTING_STRING,
      .offset = H(password_file),
      .help = "File with the password." },
    SETTING_END,
};

static const struct setting auth_settings[] = {
    { .key = "basic",
      .type = SETTING_SECTION,
      .section = basic_settings,
      .help = "HTTP basic authentication." },
    { .key = "bearer",
      .type = SETTING_STRING,
      .offset = H(bearer),
      .is_secret = true,
      .help = "Bearer token." },
    { .key = "bearer_file",
      .type = SETTING_STRING,
      .offset = H(bearer_file),
      .help = "File with a bearer token." },
    { .key = "api_key",
      .type = SETTING_STRING,
      .offset = H(api_key),
      .is_secret = true,
      .help = "Elasticsearch API key, as encoded by the server." },
    { .key = "api_key_file",
      .type = SETTING_STRING,
      .offset = H(api_key_file),
      .help = "File with an API key." },
    SETTING_END,
};

static const struct setting tls_settings[] = {
    { .key = "ca_file", .type = SETTING_STRING, .offset = H(ca_file), .help = "Certificates to trust, PEM." },
    { .key = "cert_file", .type = SETTING_STRING, .offset = H(cert_file), .help = "Our certificate, PEM." },
    { .key = "key_file", .type = SETTING_STRING, .offset = H(key_file), .help = "Its key, PEM." },
    { .key = "server_name",
      .type = SETTING_STRING,
      .offset = H(server_name),
      .help = "Name to expect in the server's certificate instead of the address's." },
    { .key = "min_version",
      .type = SETTING_STRING,
      .offset = H(min_version),
      .def = "\"1.2\"",
      .help = "1.2 or 1.3." },
    { .key = "insecure_skip_verify",
      .type = SETTING_BOOL,
      .offset = H(insecure_skip_verify),
      .def = "false",
      .help = "Talk to a server whoever it is. For tests." },
    SETTING_END,
};

const struct setting http_settings[] = {
    { .key = "auth", .type = SETTING_SECTION, .section = auth_settings, .help = "Who we are." },
    { .key = "tls", .type = SETTING_SECTION, .section = tls_settings, .help = "Whom we trust." },
    { .key = "headers",
      .type = SETTING_STRING_MAP,
      .offset = H(headers),
      .help = "Headers of every request." },
    { .key = "proxy",
      .type = SETTING_STRING,
      .offset = H(proxy),
      .def = "env",
      .help = "env: http_proxy and its kin; none; or the proxy's URL." },
    { .key = "timeout",
      .type = SETTING_DURATION,
      .offset = H(timeout_ns),
      .def = "60s",
      .min = NS_PER_SEC,
      .max = 3600 * NS_PER_SEC,
      .help = "Of one request." },
    { .key = "concurrency",
      .type = SETTING_INT,
      .offset = H(concurrency),
      .def = "16",
      .min = 1,
      .max = 256,
      .help = "Requests in flight at a time." },
    SETTING_END,
};

/* ---- queue
 * ----------------------------------------------------------------------------------------------------------
 */

#define SEGMENT_BYTES_MIN (UINT64_C(4) << 20)
#define SEGMENT_BYTES_MAX (UINT64_C(64) << 20)
#define GROUP_BYTES_MAX (UINT64_C(4) << 20)

/* Open bodies close together when they reach this: a group never spans two segments (queue.md). */
static uint64_t group_bytes(uint64_t max_bytes)
{
    uint64_t segment = MAX(SEGMENT_BYTES_MIN, MIN(max_bytes / 16, SEGMENT_BYTES_MAX));
    return MIN(segment / 4, GROUP_BYTES_MAX);
}

static struct mark mark_in(const struct node *map, struct slice key)
{
    const struct node *n = map == NULL || map->kind != NODE_MAP ? NULL : node_get(map, key);
    return n != NULL ? n->mark : map != NULL ? map->mark : (struct mark){ 0 };
}

static void set_sync(struct loader *ld, const struct node *map, struct slice text, struct queue_conf *q)
{
    if (slice_eq(text, SLICE("each")))
        q->sync = QUEUE_SYNC_EACH;
    else if (slice_eq(text, SLICE("never")))
        q->sync = QUEUE_SYNC_NEVER;
    else if (duration_parse(text, &q->sync_interval_ns) && q->sync_interval_ns >= NS_PER_MS &&
             q->sync_interval_ns <= 60 * NS_PER_SEC)
        q->sync = QUEUE_SYNC_INTERVAL;
    else
        report_error_at(&ld->rep, mark_in(map, SLICE("sync")), "sync",
                        "\"%.*s\" is none of each, never, an interval from 1ms to "
                        "60s",
                        QUOTED(text));
}

static void apply_queue(struct loader *ld, const struct node *map, struct queue_raw *raw)
{
    struct queue_conf *q = &raw->queue;
    size_t errors = report_count(&ld->rep);
    size_t at = report_enter(&ld->rep, SLICE("queue"));
    if (!apply_is_map(ld, map))
        map = NULL;
    if (map != NULL)
        apply_check_keys(ld, map, &(struct keyset){ .tables = { queue_settings } });
    apply_table(ld, queue_settings, map, raw);
    if (raw->sync.ptr != NULL)
        set_sync(ld, map, raw->sync, q);
    if (raw->key_share.ptr != NULL &&
        (!percent_parse(raw->key_share, &q->key_share_percent) || q->key_share_percent == 0))
        report_error_at(&ld->rep, mark_in(map, SLICE("key_share")), "key_share",
                        "\"%.*s\" is not a percentage from 1%% to 100%%", QUOTED(raw->key_share));
    q->group_bytes = group_bytes(q->max_bytes);
    if (report_count(&ld->rep) == errors && ld->failed == 0 && q->batch_bytes > q->group_bytes)
        report_error_at(&ld->rep, mark_in(map, SLICE("batch_bytes")), "batch_bytes",
                        "too large for a queue of this size; expected "
                        "at most 1/64 of max_bytes, here %llu bytes",
                        (unsigned long long)q->group_bytes);
    report_leave(&ld->rep, at);
}

/* ---- HTTP
 * -----------------------------------------------------------------------------------------------------------
 */

static bool has_blank(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] <= ' ' || s.ptr[i] == 0x7f)
            return true;
    return false;
}

/* The part between :// and the path. */
static struct slice authority_of(struct slice url)
{
    struct slice rest = slice_from(url, (size_t)(slice_find(url, SLICE("://")) + 3));
    size_t n = 0;
    while (n < rest.len && strchr("/?#", rest.ptr[n]) == NULL)
        n++;
    return slice_first(rest, n);
}

static const char *url_mistake(struct slice url)
{
    bool is_http = slice_starts(url, SLICE("http://")) || slice_starts(url, SLICE("https://"));
    if (!is_http)
        return "expected http:// or https://";
    struct slice authority = authority_of(url);
    if (authority.len == 0 || authority.ptr[0] == ':')
        return "a host is missing behind ://";
    if (has_blank(url))
        return "an address holds no blanks";
    if (slice_find_byte(authority, '@') >= 0)
        return "a password does not belong in an address, which is logged; put it under auth.basic";
    if (slice_find_byte(url, '#') >= 0)
        return "an address for requests has no # part";
    return NULL;
}

static void check_urls(struct loader *ld, const struct node *n, struct slices urls)
{
    for (size_t i = 0; i < urls.n; i++) {
        const char *mistake = url_mistake(urls.items[i]);
        const struct node *item = n->kind == NODE_LIST ? n->items[i] : n;
        if (mistake != NULL && strstr(mistake, "password") != NULL)
            report_error(&ld->rep, item->mark, "%s", mistake);
        else if (mistake != NULL)
            report_error(&ld->rep, item->mark, "\"%.*s\": %s", QUOTED(urls.items[i]), mistake);
    }
}

static void apply_urls(struct loader *ld, const struct node *map, struct http_conf *http)
{
    const struct node *url = node_get(map, SLICE("url")), *urls = node_get(map, SLICE("urls"));
    const struct node *n = url != NULL ? url : urls;
    if (url != NULL && urls != NULL) {
        report_error(&ld->rep, urls->mark, "url and urls both stand here; expected one of them");
    } else if (n == NULL) {
        report_error(&ld->rep, map->mark, "url is missing; expected url: http://… or urls: [http://…, …]");
    } else {
        size_t at = report_enter(&ld->rep, url != NULL ? SLICE("url") : SLICE("urls"));
        if (url != NULL && url->kind == NODE_LIST)
            report_error(&ld->rep, url->mark, "expected one address, found a list; write urls");
        else if (n->kind == NODE_LIST && n->n == 0)
            report_error(&ld->rep, n->mark, "the list is empty; expected at least one address");
        else if (apply_strings(ld, n, &http->urls))
            check_urls(ld, n, http->urls);
        report_leave(&ld->rep, at);
    }
}

static void one_of(struct loader *ld, struct mark mark, struct slice literal, struct slice file,
                   const char *name)
{
    if (literal.len > 0 && file.len > 0)
        report_error_at(&ld->rep, mark, "auth", "%s and %s_file both stand here; expected one of them", name,
                        name);
}

static void check_auth(struct loader *ld, const struct node *map, const struct http_conf *h)
{
    struct mark mark = mark_in(map, SLICE("auth"));
    one_of(ld, mark, h->password, h->password_file, "basic.password");
    one_of(ld, mark, h->bearer, h->bearer_file, "bearer");
    one_of(ld, mark, h->api_key, h->api_key_file, "api_key");
    bool has_password = h->password.len > 0 || h->password_file.len > 0;
    if (h->username.len > 0 && !has_password)
        report_error_at(&ld->rep, mark, "auth.basic",
                        "a password is missing; expected password_file or password");
    if (h->username.len == 0 && has_password)
        report_error_at(&ld->rep, mark, "auth.basic", "username is missing");
    int kinds = (h->username.len > 0 || has_password) + (h->bearer.len > 0 || h->bearer_file.len > 0) +
                (h->api_key.len > 0 || h->api_key_file.len > 0);
    if (kinds > 1)
        report_error_at(&ld->rep, mark, "auth", "expected one of basic, bearer and api_key, found %d", kinds);
    bool is_plain = false;
    for (size_t i = 0; i < h->urls.n; i++)
        is_plain |= slice_starts(h->urls.items[i], SLICE("http://"));
    if (kinds > 0 && is_plain)
        report_warning_at(&ld->rep, mark, "auth", "the secret travels unencrypted over http://");
}

static void check_tls(struct loader *ld, const struct node *map, const struct http_conf *h)
{
    struct mark mark = mark_in(map, SLICE("tls"));
    if (h->min_version.ptr != NULL && !slice_eq(h->min_version, SLICE("1.2")) &&
        !slice_eq(h->min_version, SLICE("1.3")))
        report_error_at(&ld->rep, mark, "tls.min_version", "\"%.*s\" is none of 1.2, 1.3",
                        QUOTED(h->min_version));
    if ((h->cert_file.len > 0) != (h->key_file.len > 0))
        report_error_at(&ld->rep, mark, "tls", "cert_file and key_file go together; %s is missing",
                        h->cert_file.len > 0 ? "key_file" : "cert_file");
    if (h->insecure_skip_verify)
        report_warning_at(&ld->rep, mark, "tls.insecure_skip_verify",
                          "anyone may answer as this server and read the logs");
}

static void check_proxy(struct loader *ld, const struct node *map, struct slice proxy)
{
    static const struct slice schemes[] = { SLICE_INIT("http://"),   SLICE_INIT("https://"),
                                            SLICE_INIT("socks4://"), SLICE_INIT("socks4a://"),
                                            SLICE_INIT("socks5://"), SLICE_INIT("socks5h://") };
    if (proxy.ptr == NULL || slice_eq(proxy, SLICE("env")) || slice_eq(proxy, SLICE("none")))
        return;
    for (size_t i = 0; i < ARRAY_LEN(schemes); i++)
        if (slice_starts(proxy, schemes[i]) && proxy.len > schemes[i].len && !has_blank(proxy))
            return;
    report_error_at(&ld->rep, mark_in(map, SLICE("proxy")), "proxy",
                    "expected env, none or an address such as http://proxy:3128");
}

static bool is_token(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c <= ' ' || c >= 0x7f || strchr("()<>@,;:\\\"/[]?={}", c) != NULL)
            return false;
    }
    return s.len > 0;
}

static void check_headers(struct loader *ld, const struct node *map, struct pairs headers)
{
    static const struct slice ours[] = { SLICE_INIT("Content-Type"), SLICE_INIT("Content-Encoding"),
                                         SLICE_INIT("Content-Length"), SLICE_INIT("Transfer-Encoding") };
    const struct node *n = node_get(map, SLICE("headers"));
    size_t at = report_enter(&ld->rep, SLICE("headers"));
    for (size_t i = 0; i < headers.n; i++) {
        struct slice name = headers.items[i].name, value = headers.items[i].value;
        bool is_ours = false;
        for (size_t k = 0; k < ARRAY_LEN(ours); k++)
            is_ours |= slice_ieq(name, ours[k]);
        if (!is_token(name))
            report_error(&ld->rep, n->mark, "\"%.*s\" is not the name of a header", QUOTED(name));
        else if (is_ours)
            report_error(&ld->rep, n->mark, "%.*s is set by the output itself", QUOTED(name));
        else if (slice_find_byte(value, '\r') >= 0 || slice_find_byte(value, '\n') >= 0)
            report_error(&ld->rep, n->mark, "%.*s: a header is one line", QUOTED(name));
    }
    report_leave(&ld->rep, at);
}

static void apply_http(struct loader *ld, const struct node *map, struct http_conf *h)
{
    apply_table(ld, http_settings, map, h);
    if (ld->failed != 0)
        return;
    apply_urls(ld, map, h);
    check_auth(ld, map, h);
    check_tls(ld, map, h);
    check_proxy(ld, map, h->proxy);
    check_headers(ld, map, h->headers);
    const struct slice files[] = { h->password_file, h->bearer_file, h->api_key_file,
                                   h->ca_file,       h->cert_file,   h->key_file };
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        if (files[i].len > 0)
            loader_watch_secret(ld, files[i], mark_in(map, i < 3 ? SLICE("auth") : SLICE("tls")));
}

/* ---- outputs
 * -------------------------------------------------------------------------------------------------------- */

static const struct output_type *find_type(struct loader *ld, const struct node *n, struct slice text)
{
    CLEANUP(buf_deinit) struct buf all;
    buf_init(&all, 1 * KIB);
    struct suggestion s;
    suggest_init(&s, text);
    int r = 0;
    for (const struct output_type *t = ld->types; t->name != NULL; t++) {
        if (slice_eq(text, slice_cstr(t->name)))
            return t;
        suggest_offer(&s, slice_cstr(t->name));
        if (r == 0)
            r = buf_printf(&all, "%s%s", t == ld->types ? "" : ", ", t->name);
    }
    struct slice known = buf_slice(&all);
    if (s.best.len > 0)
        report_error(&ld->rep, n->mark, "\"%.*s\" is no type of output; did you mean \"%.*s\"?", QUOTED(text),
                     QUOTED(s.best));
    else
        report_error(&ld->rep, n->mark, "\"%.*s\" is no type of output; expected one of %.*s", QUOTED(text),
                     QUOTED(known));
    return NULL;
}

static const struct output_type *apply_type(struct loader *ld, const struct node *map)
{
    const struct node *n = node_get(map, SLICE("type"));
    const struct output_type *type = NULL;
    struct slice text;
    if (n == NULL) {
        report_error(&ld->rep, map->mark, "type is missing; expected the kind of server, such as type: loki");
        return NULL;
    }
    size_t at = report_enter(&ld->rep, SLICE("type"));
    if (apply_text(ld, n, &text))
        type = find_type(ld, n, text);
    report_leave(&ld->rep, at);
    return type;
}

static void check_keys(struct loader *ld, const struct node *map, const struct output_type *type)
{
    static const struct slice more[] = { SLICE_INIT("type"), SLICE_INIT("queue"), SLICE_INIT("url"),
                                         SLICE_INIT("urls") };
    struct keyset keys = { .more = more, .n_more = type->is_http ? 4 : 2 };
    size_t n = 0;
    if (type->settings != NULL)
        keys.tables[n++] = type->settings;
    if (type->is_http)
        keys.tables[n++] = http_settings;
    apply_check_keys(ld, map, &keys);
}

struct warn_ctx {
    struct loader *ld;
    struct mark mark;
};

static void warn(void *ctx, const char *text)
{
    struct warn_ctx *w = ctx;
    report_warning(&w->ld->rep, w->mark, "%s", text);
}

/* Some value was refused when the file was read, long before this section was looked at. */
static bool has_bad(const struct node *n)
{
    bool bad = n->is_bad;
    for (size_t i = 0; i < n->n && !bad; i++)
        bad = has_bad(n->kind == NODE_MAP ? n->members[i].value : n->items[i]);
    return bad;
}

static void validate(struct loader *ld, const struct member *m, struct output_conf *out)
{
    struct err err = { 0 };
    struct warn_ctx w = { ld, m->mark };
    if (out->type->validate != NULL && out->type->validate(out, warn, &w, &err) < 0)
        report_error(&ld->rep, m->mark, "%s", err.text);
}

static void apply_output(struct loader *ld, const struct member *m, struct output_conf *out,
                         struct queue_raw *queue)
{
    const struct node *map = m->value;
    size_t errors = report_count(&ld->rep);
    if (map->kind != NODE_MAP) {
        if (!map->is_bad)
            report_error(&ld->rep, map->mark, "expected a map with type, found %s", node_what(map));
        return;
    }
    apply_queue(ld, node_get(map, SLICE("queue")), queue);
    out->queue = queue->queue;
    out->type = apply_type(ld, map);
    if (out->type == NULL)
        return;
    check_keys(ld, map, out->type);
    if (out->type->is_http)
        apply_http(ld, map, &out->http);
    out->settings = loader_alloc(ld, MAX(out->type->settings_size, 1));
    if (out->settings != NULL && out->type->settings != NULL)
        apply_table(ld, out->type->settings, map, out->settings);
    if (ld->failed == 0 && report_count(&ld->rep) == errors && !has_bad(map))
        validate(ld, m, out);
}

static void add_output(struct loader *ld, const struct member *m)
{
    struct conf *c = ld->conf;
    if (c->n_outputs == OUTPUTS_MAX) {
        report_error(&ld->rep, m->mark, "one output too many: at most %d", OUTPUTS_MAX);
        return;
    }
    if (!loader_check_name(ld, m->key, m->mark))
        return;
    struct output_conf *out = &c->outputs[c->n_outputs];
    out->name = m->key;
    out->index = (uint32_t)c->n_outputs;
    out->host = c->host;
    out->state_dir = c->state_dir;
    out->file_line = m->mark.line;
    c->n_outputs++;
    apply_output(ld, m, out, &ld->own->queues[out->index]);
}

void outputs_apply(struct loader *ld, const struct node *root)
{
    const struct node *outputs = node_get(root, SLICE("outputs"));
    struct conf *c = ld->conf;
    size_t errors = report_count(&ld->rep);
    size_t at = report_enter(&ld->rep, SLICE("outputs"));
    c->outputs = loader_alloc(ld, OUTPUTS_MAX * sizeof(*c->outputs));
    ld->own->queues = loader_alloc(ld, OUTPUTS_MAX * sizeof(*ld->own->queues));
    if (outputs != NULL && apply_is_map(ld, outputs) && outputs->kind == NODE_MAP) {
        for (size_t i = 0; i < outputs->n && ld->failed == 0; i++) {
            const struct member *m = &outputs->members[i];
            if (slice_starts(m->key, SLICE("x-")))
                continue;
            size_t in = report_enter(&ld->rep, m->key);
            add_output(ld, m);
            report_leave(&ld->rep, in);
        }
    }
    if (c->n_outputs == 0 && report_count(&ld->rep) == errors)
        report_error(&ld->rep, outputs != NULL ? outputs->mark : root->mark,
                     "none; expected at least one output");
    report_leave(&ld->rep, at);
}
