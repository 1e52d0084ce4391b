#include "agent/kube/stream.h"

#include <errno.h>
#include <stdio.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/deliver/backoff.h"
#include "agent/kube/annotations.h"

#define PAGE_OBJECTS 500
/* Watches end by themselves, each after another time: agents that began together do not come back together. */
#define WATCH_MIN_S 240
#define WATCH_SPREAD_S 240
/* A watch that lasted so long was no failure, however it ended. */
#define LASTED_NS (5 * NS_PER_SEC)
#define PATH_BYTES_MAX (16 * KIB)

void stream_init(struct stream *s, const struct stream_conf *conf)
{
    *s = (struct stream){ .conf = *conf };
    buf_init(&s->version, 256);
    buf_init(&s->page, 8 * KIB);
}

static void end_call(struct stream *s)
{
    api_free(s->conf.api, s->call);
    events_free(s->events);
    s->call = NULL;
    s->events = NULL;
    s->state = STREAM_IDLE;
}

void stream_deinit(struct stream *s)
{
    end_call(s);
    buf_deinit(&s->version);
    buf_deinit(&s->page);
}

int stream_resume(struct stream *s, struct slice version)
{
    int r = buf_append_slice(&s->version, version);
    s->has_state = r == 0 && version.len > 0;
    return r;
}

bool stream_is_synced(const struct stream *s)
{
    struct api_result res;
    return s->has_state && s->state == STREAM_WATCHING && !api_is_done(s->call, &res) && api_status(s->call) == 200;
}

/* ---- what comes ---- */

int stream_put(struct podtable *t, const struct kube_object *obj, bool is_namespaces, bool *ret_is_new)
{
    struct kube_object o = *obj;
    *ret_is_new = false;
    if (is_namespaces) {
        o.namespace_ = obj->name;
        o.name = SLICE("");
        o.annotations = o.images = (struct pairs){ 0 };
    }
    if (o.namespace_.len == 0 || o.uid.len == 0 || (!is_namespaces && o.name.len == 0))
        return 0; /* nothing that a path could name */
    struct pod *p = pod_new(&o), *before = NULL;
    if (p == NULL)
        return -ENOMEM;
    if (!is_namespaces)
        before = podtable_find(t, p->namespace_, p->name, p->path_uid);
    struct pod *held = pod_ref(p);
    int r = podtable_put(t, p, ret_is_new);
    if (r == 0 && *ret_is_new && !is_namespaces)
        annotations_report(held, before);
    pod_unref(held);
    pod_unref(before);
    return r == -ENOSPC ? 0 : r; /* said by the table's size; what is known stays right */
}

static int set_version(struct stream *s, struct slice version)
{
    if (version.len == 0 || version.len > s->version.max || slice_eq(buf_slice(&s->version), version))
        return 0;
    buf_reset(&s->version);
    s->is_changed = true;
    return buf_append_slice(&s->version, version);
}

static int on_status(struct stream *s, const struct kube_object *obj)
{
    s->status_code = obj->code == 0 ? 500 : (int)obj->code;
    if (s->form_status == 200 && s->status_code != 410)
        log_warn("kube", "kube.failing", "the API server ended a watch", LOG_SLICE("reason", obj->reason),
                 LOG_SLICE("error", obj->message), LOG_NUM("code", s->status_code));
    else if (s->form_status != 200 && !s->is_told)
        log_warn("kube", "kube.refused", "the API server refuses", LOG_SLICE("reason", obj->reason),
                 LOG_SLICE("error", obj->message), LOG_NUM("code", s->status_code));
    return 0;
}

static int on_event(void *ctx, enum event_kind kind, const struct kube_object *obj)
{
    struct stream *s = ctx;
    bool is_new;
    int r = 0;
    counter_add(&stats.kube.events, 1);
    switch (kind) {
    case EVENT_STATUS:
        return on_status(s, obj);
    case EVENT_PUT:
        if (s->form_status != 200)
            return 0;
        r = stream_put(s->conf.table, obj, s->conf.is_namespaces, &is_new);
        s->is_changed |= is_new;
        break;
    case EVENT_DELETED:
        podtable_delete(s->conf.table, s->conf.is_namespaces ? obj->name : obj->namespace_,
                        s->conf.is_namespaces ? SLICE("") : obj->name, obj->uid, clock_mono_ns());
        s->is_changed = true;
        break;
    case EVENT_BOOKMARK:
        if (s->state == STREAM_FIRST && obj->is_initial_end) {
            podtable_list_end(s->conf.table, s->conf.is_namespaces, clock_mono_ns());
            s->has_state = s->is_changed = true;
            s->state = STREAM_WATCHING;
        }
        break;
    }
    /* The versions of a first state's objects are no place to go on from: what is missing would never come. */
    if (r == 0 && s->state == STREAM_WATCHING)
        r = set_version(s, obj->version);
    return r;
}

static bool keeps(void *ctx, bool is_annotation, struct slice name)
{
    const struct stream *s = ctx;
    return s->conf.keeps(s->conf.ctx, is_annotation, name);
}

static int on_bytes(void *ctx, int status, struct slice bytes)
{
    struct stream *s = ctx;
    int r = 0;
    s->heard_ns = clock_mono_ns();
    if (s->events == NULL) {
        const struct events_conf conf = { .form = status != 200                ? EVENTS_OBJECT
                                                  : s->state == STREAM_LISTING ? EVENTS_LIST
                                                                               : EVENTS_WATCH,
                                          .ctx = s,
                                          .keeps = keeps,
                                          .on_event = on_event };
        r = events_new(&conf, &s->events);
        s->form_status = status;
    }
    return r < 0 ? r : events_feed(s->events, bytes);
}

/* ---- asking ---- */

static int append_query(struct buf *path, struct slice s)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        bool is_plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
        r = is_plain ? buf_append_byte(path, (char)c) : buf_printf(path, "%%%02X", c);
    }
    return r;
}

static int make_path(struct stream *s, struct buf *path, int64_t watch_s)
{
    int r = buf_printf(path, "/api/v1/%s?%s", s->conf.is_namespaces ? "namespaces" : "pods", s->conf.selector);
    if (r == 0 && s->state == STREAM_LISTING)
        r = buf_printf(path, "limit=%d", PAGE_OBJECTS);
    else if (r == 0)
        r = buf_printf(path, "watch=1&allowWatchBookmarks=true&timeoutSeconds=%lld%s", (long long)watch_s,
                       s->state == STREAM_FIRST ? "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan" : "");
    if (r == 0 && s->state == STREAM_LISTING && s->page.len > 0) {
        r = buf_append_lit(path, "&continue=");
        r = r < 0 ? r : append_query(path, buf_slice(&s->page));
    }
    if (r == 0 && s->state == STREAM_WATCHING) {
        r = buf_append_lit(path, "&resourceVersion=");
        r = r < 0 ? r : append_query(path, buf_slice(&s->version));
    }
    return r < 0 ? r : buf_terminate(path);
}

static void fail(struct stream *s, int64_t now_ns, int64_t least_ns, const char *code, const char *text)
{
    s->failures++;
    s->ended_ns = now_ns;
    s->least_ns = now_ns + least_ns;
    s->next_ns = MAX(s->least_ns, now_ns + backoff_delay_ns(s->failures, s->conf.rng));
    if (gauge_get(&stats.kube.failing_since_wall_ns) == 0)
        gauge_set(&stats.kube.failing_since_wall_ns, clock_wall_ns());
    if (!s->is_told)
        log_warn("kube", "kube.failing", "Kubernetes does not answer as it should: new pods may lack their labels",
                 LOG_SLICE("server", api_server(s->conf.api)), LOG_CSTR("what", s->conf.is_namespaces ? "namespaces" : "pods"),
                 LOG_CSTR("code", code), LOG_CSTR("error", text));
    s->is_told = true;
}

static void succeed(struct stream *s)
{
    s->failures = 0;
    gauge_set(&stats.kube.failing_since_wall_ns, 0);
    if (s->is_told)
        log_info("kube", "kube.recovered", "Kubernetes answers again", LOG_SLICE("server", api_server(s->conf.api)),
                 LOG_CSTR("what", s->conf.is_namespaces ? "namespaces" : "pods"));
    s->is_told = false;
}

void stream_ask(struct stream *s, int64_t now_ns)
{
    CLEANUP(buf_deinit) struct buf path;
    struct err err = { 0 };
    buf_init(&path, PATH_BYTES_MAX);
    s->state = s->has_state && s->version.len > 0 ? STREAM_WATCHING : s->cannot_first ? STREAM_LISTING : STREAM_FIRST;
    bool is_list = s->state == STREAM_LISTING;
    int64_t watch_s = is_list ? 0 : WATCH_MIN_S + (int64_t)(backoff_random(s->conf.rng) % WATCH_SPREAD_S);
    s->form_status = s->status_code = 0;
    s->began_ns = s->heard_ns = now_ns;
    if (s->state == STREAM_FIRST || (is_list && s->page.len == 0)) {
        podtable_list_begin(s->conf.table, s->conf.is_namespaces);
        counter_add(&stats.kube.relists, 1);
    }
    int r = make_path(s, &path, watch_s);
    const struct api_request req = { .path = path.ptr, .watch_s = watch_s, .on_bytes = on_bytes, .ctx = s };
    r = r < 0 ? err_set(&err, r, "cannot ask") : api_start(s->conf.api, &req, &s->call, &err);
    if (r < 0) {
        s->state = STREAM_IDLE;
        fail(s, now_ns, 0, "credentials", err.text);
    }
}

/* ---- ends ---- */

/* History is gone: all of it anew. */
static void start_over(struct stream *s)
{
    buf_reset(&s->version);
    buf_reset(&s->page);
    s->has_state = false;
    s->is_changed = true;
}

static void end_list(struct stream *s, int64_t now_ns)
{
    struct slice next = events_list_continue(s->events), version = events_list_version(s->events);
    buf_reset(&s->page);
    if (next.len > 0 ? buf_append_slice(&s->page, next) < 0 : version.len == 0 || set_version(s, version) < 0) {
        buf_reset(&s->page);
        fail(s, now_ns, 0, "broken", "the list says neither its version nor where it goes on");
        return;
    }
    s->next_ns = now_ns;
    if (next.len > 0)
        return;
    podtable_list_end(s->conf.table, s->conf.is_namespaces, now_ns);
    s->has_state = true;
    succeed(s);
}

/* Answered with 200, and over. */
static void end_well(struct stream *s, const struct api_result *res, enum stream_state was, int64_t now_ns)
{
    int r = s->events == NULL ? (was == STREAM_LISTING ? -EBADMSG : 0) : res->error < 0 ? res->error : events_end(s->events);
    if (s->status_code == 410) {
        start_over(s);
        s->next_ns = now_ns + backoff_delay_ns(s->failures++, s->conf.rng);
        log_info("kube", "kube.relist", "the API server has forgotten where the watch was: pods are read anew",
                 LOG_CSTR("what", s->conf.is_namespaces ? "namespaces" : "pods"));
    } else if (s->status_code != 0 && was == STREAM_FIRST) {
        s->cannot_first = true; /* old servers answer so to sendInitialEvents */
        s->next_ns = now_ns;
    } else if (s->status_code != 0) {
        fail(s, now_ns, 0, "error event", "the watch ended with an error");
    } else if (was == STREAM_LISTING && r == 0) {
        end_list(s, now_ns);
    } else if (was == STREAM_LISTING) {
        buf_reset(&s->page);
        fail(s, now_ns, 0, "broken", "the list is not whole");
    } else if (was == STREAM_WATCHING && now_ns - s->began_ns >= LASTED_NS) {
        succeed(s); /* half an event at its end comes again */
        s->next_ns = now_ns;
    } else {
        fail(s, now_ns, 0, r < 0 ? "broken" : "short", r < 0 ? "the watch broke off" : "the watch ended at once");
    }
}

static void end_badly(struct stream *s, const struct api_result *res, enum stream_state was, int64_t now_ns)
{
    if (res->status == 410 || s->status_code == 410) {
        start_over(s);
        s->next_ns = now_ns + backoff_delay_ns(s->failures++, s->conf.rng);
    } else if (was == STREAM_FIRST && (res->status == 400 || res->status == 422 || res->status == 500)) {
        s->cannot_first = true;
        s->next_ns = now_ns;
    } else if (res->status == 504 && was == STREAM_WATCHING) { /* a version from the future: another cluster's */
        start_over(s);
        fail(s, now_ns, 0, res->code, "its history is another");
    } else {
        fail(s, now_ns, res->retry_after_ns, res->code, res->status == 0 ? res->text : "see kube.refused");
    }
}

int64_t stream_turn(struct stream *s, int64_t now_ns)
{
    struct api_result res;
    if (s->call == NULL)
        return s->next_ns;
    if (!api_is_done(s->call, &res)) {
        if (s->failures > 0 && stream_is_synced(s) && now_ns - s->began_ns >= LASTED_NS)
            succeed(s);
        return INT64_MAX;
    }
    enum stream_state was = s->state;
    stream_count(was == STREAM_LISTING ? KUBE_LIST : KUBE_WATCH, &res);
    if (res.status == 200)
        end_well(s, &res, was, now_ns);
    else
        end_badly(s, &res, was, now_ns);
    end_call(s);
    return s->next_ns;
}

void stream_hurry(struct stream *s)
{
    if (s->call == NULL && s->failures > 0)
        s->next_ns = MIN(s->next_ns, MAX(s->least_ns, s->ended_ns + NS_PER_SEC));
}

void stream_renew(struct stream *s)
{
    if (s->state != STREAM_WATCHING)
        return;
    end_call(s);
    s->next_ns = 0;
}

void stream_count(enum kube_verb verb, const struct api_result *res)
{
    stats_count_code(stats.kube.requests[verb], res->code, 1);
}
