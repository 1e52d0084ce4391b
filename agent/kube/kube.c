#include "agent/kube/kube.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/deliver/backoff.h"
#include "agent/kube/api.h"
#include "agent/kube/cache.h"
#include "agent/kube/stream.h"

/* The watch has this long to speak of a pod whose lines are here, before it is asked for by itself. */
#define ASK_AFTER_NS NS_PER_SEC
#define ASK_ANSWER_MS 5000
/* The server is tried again soon for lines that wait for no longer than this: not for held ones, hour after hour. */
#define HURRY_NS (10 * NS_PER_SEC)
/* Without a watch, which would know more, pods are asked for after so many failures. */
#define FAILURES_MANY 6
/* The watch that left a pod out for so long, though there is one, begins again. */
#define SILENT_NS (10 * NS_PER_SEC)
#define WANTED_IDLE_NS (600 * NS_PER_SEC)
#define SAVE_NS (5 * NS_PER_SEC)
#define EXPIRE_NS (30 * NS_PER_SEC)
#define DELETED_MIN_NS (60 * NS_PER_SEC)
/* Files that no folder's name tells of (/var/log/containers) are gone by then. */
#define DELETED_BLIND_NS (3600 * NS_PER_SEC)
#define KUBELET_NS (10 * NS_PER_SEC)
#define KUBELET_AFTER_NS (5 * NS_PER_SEC)
#define BURST 20
/* Of namespace and name; Kubernetes allows 63 and 253. */
#define ASK_NAMES_MAX 600

/* A pod that a path names and nobody told us of yet. */
struct wanted {
    struct wanted *next;
    struct slice namespace_, name, uid; /* behind the struct */
    int64_t since_ns, looked_ns, ask_ns;
    unsigned failures;
    bool is_absent;
};

struct kube {
    const struct conf *conf;
    struct api *api;
    struct podtable *table;
    struct stream pods, namespaces;
    bool wants_namespaces;
    char dir[4128];           /* of the cache */
    uint64_t key;
    int64_t save_ns, expire_ns, count_ns;
    char selector[1024];
    uint64_t rng;
    int64_t budget, budget_ns; /* requests in millionths; as of */

    pthread_t thread;
    bool is_started;
    _Atomic bool is_stopping, is_answering;

    pthread_mutex_t lock; /* the wanted */
    struct wanted *wanted;
    size_t n_wanted;

    /* One question at a time, and the kubelet's answer. */
    struct api_call *ask_call, *kubelet_call;
    struct events *ask_events, *kubelet_events;
    struct wanted asked; /* a copy without texts: which one */
    const struct wanted *asked_id;
    char asked_text[2 * ASK_NAMES_MAX];
    struct slice asked_uid;
    bool is_asked_found;
    bool is_silent; /* the last question had no answer at all */
    int64_t kubelet_ns;
};

uint64_t kube_version(const struct kube *k)
{
    return k == NULL ? 0 : podtable_version(k->table);
}

/* ---- looking ---- */

static struct wanted *find_wanted(struct kube *k, const struct pod_path *p)
{
    struct wanted *w = k->wanted;
    while (w != NULL && !(slice_eq(w->name, p->pod) && slice_eq(w->namespace_, p->namespace_) && slice_eq(w->uid, p->uid)))
        w = w->next;
    return w;
}

static struct slice move(char **at, struct slice s)
{
    struct slice copy = { *at, s.len };
    if (s.len > 0)
        memcpy(*at, s.ptr, s.len);
    *at += s.len;
    return copy;
}

static struct wanted *add_wanted(struct kube *k, const struct pod_path *p, int64_t now)
{
    struct wanted *w = k->n_wanted == WANTED_MAX
                           ? NULL
                           : malloc(sizeof(*w) + p->namespace_.len + p->pod.len + p->uid.len);
    if (w == NULL)
        return NULL;
    char *at = (char *)(w + 1);
    *w = (struct wanted){ .next = k->wanted, .since_ns = now, .ask_ns = now + ASK_AFTER_NS };
    w->namespace_ = move(&at, p->namespace_);
    w->name = move(&at, p->pod);
    w->uid = move(&at, p->uid);
    k->wanted = w;
    k->n_wanted++;
    return w;
}

static void look_wanted(struct kube *k, const struct pod_path *path, struct pod_look *ret)
{
    int64_t now = clock_mono_ns();
    bool is_new = false;
    pthread_mutex_lock(&k->lock);
    struct wanted *w = find_wanted(k, path);
    if (w == NULL) {
        w = add_wanted(k, path, now);
        is_new = w != NULL;
    }
    if (w != NULL)
        w->looked_ns = now;
    ret->answer = w != NULL && w->is_absent ? POD_ABSENT : POD_UNKNOWN;
    ret->since_ns = w == NULL ? 0 : w->since_ns; /* no room to wait in: as if it had waited */
    pthread_mutex_unlock(&k->lock);
    if (is_new)
        api_wake(k->api);
}

void kube_look(struct kube *k, const struct pod_path *path, struct pod_look *ret)
{
    *ret = (struct pod_look){ .answer = POD_KNOWN, .is_answering = atomic_load(&k->is_answering) };
    ret->pod = podtable_find(k->table, path->namespace_, path->pod, path->uid);
    if (k->wants_namespaces)
        ret->namespace_ = podtable_find(k->table, path->namespace_, SLICE(""), SLICE(""));
    if (ret->pod == NULL || (k->wants_namespaces && ret->namespace_ == NULL))
        look_wanted(k, path, ret);
}

/* ---- what is of use ---- */

static bool keeps(void *ctx, bool is_annotation, struct slice name)
{
    const struct kube *k = ctx;
    static const struct slice labels[] = { SLICE_INIT("app"), SLICE_INIT("app.kubernetes.io/name"),
                                           SLICE_INIT("pod-template-hash") };
    if (is_annotation)
        return slice_starts(name, SLICE("tailrace.io/")) || slice_eq(name, SLICE("kubernetes.io/config.hash")) ||
               conf_reads(k->conf, VAR_ANNOTATION, name);
    for (size_t i = 0; i < ARRAY_LEN(labels); i++)
        if (slice_eq(name, labels[i]))
            return true;
    return conf_reads(k->conf, VAR_LABEL, name);
}

static bool keeps_of_namespace(void *ctx, bool is_annotation, struct slice name)
{
    const struct kube *k = ctx;
    return !is_annotation && conf_reads(k->conf, VAR_NAMESPACE_LABEL, name);
}

/* ---- the budget ---- */

static void refill(struct kube *k, int64_t now)
{
    int64_t per_minute = k->conf->kubernetes.requests_per_minute, most = MIN(per_minute, (int64_t)BURST) * 1000000;
    int64_t elapsed_us = (now - k->budget_ns) / 1000;
    k->budget_ns = now;
    k->budget = MIN(most, k->budget + MIN(elapsed_us, INT64_C(3600000000)) / 60 * per_minute);
    gauge_set(&stats.kube.budget_left, k->budget / 1000000);
}

static bool spend(struct kube *k)
{
    if (k->budget < 1000000)
        return false;
    k->budget -= 1000000;
    gauge_set(&stats.kube.budget_left, k->budget / 1000000);
    return true;
}

/* ---- one pod ---- */

static int on_asked(void *ctx, enum event_kind kind, const struct kube_object *obj)
{
    struct kube *k = ctx;
    bool is_new;
    struct slice hash = pairs_get(obj->annotations, SLICE("kubernetes.io/config.hash"));
    if (kind != EVENT_PUT || k->asked.is_absent)
        return 0;
    if (k->asked_uid.len > 0 && !slice_eq(k->asked_uid, obj->uid) && !slice_eq(k->asked_uid, hash))
        return 0; /* another pod has the name now */
    k->is_asked_found = true;
    if (obj->node.len > 0 && !slice_eq(obj->node, k->conf->node))
        log_warn("kube", "kube.node", "a pod whose log is here is of another node by name: set NODE_NAME, or each pod is asked for by itself",
                 LOG_SLICE("node", k->conf->node), LOG_SLICE("pods_node", obj->node), LOG_SLICE("pod", obj->name));
    int r = stream_put(k->table, obj, false, &is_new);
    k->pods.is_changed |= is_new;
    if (is_new && clock_mono_ns() - k->pods.heard_ns > SILENT_NS)
        stream_renew(&k->pods);
    return r;
}

static int on_asked_bytes(void *ctx, int status, struct slice bytes)
{
    struct kube *k = ctx;
    if (status != 200)
        return 0;
    const struct events_conf conf = { .form = EVENTS_OBJECT, .ctx = k, .keeps = keeps, .on_event = on_asked };
    int r = k->ask_events != NULL ? 0 : events_new(&conf, &k->ask_events);
    return r < 0 ? r : events_feed(k->ask_events, bytes);
}

static struct wanted *due(struct kube *k, int64_t now, int64_t *next_ns)
{
    struct wanted *best = NULL;
    for (struct wanted *w = k->wanted; w != NULL; w = w->next) {
        if (w->is_absent)
            continue;
        *next_ns = MIN(*next_ns, w->ask_ns);
        if (w->ask_ns <= now && (best == NULL || w->ask_ns < best->ask_ns))
            best = w;
    }
    return best;
}

/* Copies who is to be asked for; names of paths that are no pods' must not become queries. */
static void choose(struct kube *k, const struct wanted *w)
{
    char *at = k->asked_text;
    bool is_long = w->namespace_.len + w->name.len > ASK_NAMES_MAX || w->uid.len > ASK_NAMES_MAX;
    k->asked = (struct wanted){ .is_absent = is_long };
    k->asked_uid = SLICE("");
    k->is_asked_found = false;
    k->asked_id = w;
    if (is_long)
        return;
    k->asked.namespace_ = move(&at, w->namespace_);
    k->asked.name = move(&at, w->name);
    k->asked_uid = move(&at, w->uid);
    for (size_t i = 0; i < w->namespace_.len + w->name.len; i++) {
        char c = k->asked_text[i];
        k->asked.is_absent |= !((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.');
    }
}

static void ask(struct kube *k)
{
    char path[ASK_NAMES_MAX + 64];
    struct err err = { 0 };
    (void)snprintf(path, sizeof(path), "/api/v1/namespaces/%.*s/pods/%.*s", SLICE_ARGS(k->asked.namespace_),
                   SLICE_ARGS(k->asked.name));
    const struct api_request req = { .path = path, .answer_ms = ASK_ANSWER_MS, .on_bytes = on_asked_bytes, .ctx = k };
    if (api_start(k->api, &req, &k->ask_call, &err) < 0)
        k->ask_call = NULL; /* it is asked again; why is said by the watch */
}

/* is_known: the answer was the pod, or that there is none. */
static void note_answer(struct kube *k, bool is_known, int64_t now)
{
    bool is_absent = false;
    pthread_mutex_lock(&k->lock);
    struct wanted *w = k->wanted;
    while (w != NULL && w != k->asked_id) /* only this thread takes one out, and none while it asks */
        w = w->next;
    if (w != NULL && is_known && !k->is_asked_found)
        is_absent = w->is_absent = true;
    else if (w != NULL && is_known)
        w->ask_ns = INT64_MAX; /* the namespace's labels are what is missing */
    else if (w != NULL)
        w->ask_ns = now + backoff_delay_ns(++w->failures, &k->rng);
    pthread_mutex_unlock(&k->lock);
    if (is_absent)
        podtable_raise(k->table);
}

static void end_ask(struct kube *k, int64_t now)
{
    struct api_result res;
    if (k->ask_call == NULL || !api_is_done(k->ask_call, &res))
        return;
    bool is_whole = res.status == 200 && res.error == 0 && k->ask_events != NULL && events_end(k->ask_events) == 0;
    stream_count(KUBE_GET, &res);
    note_answer(k, is_whole || res.status == 404, now);
    k->is_silent = res.status == 0; /* the watch may be as dead and not know it */
    api_free(k->api, k->ask_call);
    events_free(k->ask_events);
    k->ask_call = NULL;
    k->ask_events = NULL;
}

/* Those that are known by now, and those that nobody looks for any more. */
static void drop_wanted(struct kube *k, int64_t now)
{
    pthread_mutex_lock(&k->lock);
    for (struct wanted **at = &k->wanted; *at != NULL;) {
        struct wanted *w = *at;
        struct pod *p = w->is_absent ? NULL : podtable_find(k->table, w->namespace_, w->name, w->uid);
        struct pod *ns = p == NULL || !k->wants_namespaces ? NULL : podtable_find(k->table, w->namespace_, SLICE(""), SLICE(""));
        if ((p != NULL && (ns != NULL || !k->wants_namespaces)) || now - w->looked_ns > WANTED_IDLE_NS) {
            *at = w->next;
            k->n_wanted--;
            free(w);
        } else {
            if (p != NULL)
                w->ask_ns = INT64_MAX;
            at = &w->next;
        }
        pod_unref(p);
        pod_unref(ns);
    }
    pthread_mutex_unlock(&k->lock);
}

/* A watch that has just begun may bring what it missed, deleted pods too, of which an answer would say that there are none. */
static bool may_ask(const struct kube *k, int64_t now)
{
    if (k->pods.failures >= FAILURES_MANY)
        return true;
    return stream_is_synced(&k->pods) && now - k->pods.began_ns >= ASK_AFTER_NS;
}

static void hurry(struct kube *k, int64_t now)
{
    bool is_awaited = false;
    pthread_mutex_lock(&k->lock);
    for (const struct wanted *w = k->wanted; w != NULL && !is_awaited; w = w->next)
        is_awaited = !w->is_absent && now - w->since_ns < HURRY_NS;
    pthread_mutex_unlock(&k->lock);
    if (is_awaited) {
        stream_hurry(&k->pods);
        stream_hurry(&k->namespaces);
    }
}

static int64_t turn_ask(struct kube *k, int64_t now)
{
    int64_t next_ns = INT64_MAX;
    end_ask(k, now);
    if (k->ask_call != NULL)
        return INT64_MAX;
    drop_wanted(k, now);
    pthread_mutex_lock(&k->lock);
    struct wanted *w = due(k, now, &next_ns);
    bool asks = w != NULL && may_ask(k, now) && spend(k);
    if (asks) {
        w->ask_ns = now + NS_PER_MS * ASK_ANSWER_MS;
        choose(k, w);
    }
    pthread_mutex_unlock(&k->lock);
    if (asks && k->asked.is_absent)
        note_answer(k, true, now);
    else if (asks)
        ask(k);
    return w != NULL ? now + 200 * NS_PER_MS : next_ns;
}

/* ---- the kubelet ---- */

static int on_kubelet_event(void *ctx, enum event_kind kind, const struct kube_object *obj)
{
    struct kube *k = ctx;
    bool is_new;
    int r = kind == EVENT_PUT ? stream_put(k->table, obj, false, &is_new) : 0;
    return r;
}

static int on_kubelet_bytes(void *ctx, int status, struct slice bytes)
{
    struct kube *k = ctx;
    if (status != 200)
        return 0;
    const struct events_conf conf = { .form = EVENTS_LIST, .ctx = k, .keeps = keeps, .on_event = on_kubelet_event };
    int r = k->kubelet_events != NULL ? 0 : events_new(&conf, &k->kubelet_events);
    return r < 0 ? r : events_feed(k->kubelet_events, bytes);
}

/* Asked while the API server does not answer. It has no watch, so it is asked again and again. */
static int64_t turn_kubelet(struct kube *k, int64_t now)
{
    struct api_result res;
    struct err err = { 0 };
    if (k->conf->kubernetes.kubelet.len == 0)
        return INT64_MAX;
    if (k->kubelet_call != NULL) {
        if (!api_is_done(k->kubelet_call, &res))
            return INT64_MAX;
        stream_count(KUBE_KUBELET, &res);
        if (res.status != 200)
            log_warn("kube", "kube.kubelet", "the kubelet does not say its pods", LOG_CSTR("code", res.code),
                     LOG_CSTR("error", res.status == 0 ? res.text : ""));
        api_free(k->api, k->kubelet_call);
        events_free(k->kubelet_events);
        k->kubelet_call = NULL;
        k->kubelet_events = NULL;
        k->kubelet_ns = now + KUBELET_NS;
    }
    if (stream_is_synced(&k->pods) || k->pods.failures == 0)
        return now + KUBELET_AFTER_NS;
    if (now >= k->kubelet_ns) {
        const struct api_request req = { .is_kubelet = true, .path = "/pods", .on_bytes = on_kubelet_bytes, .ctx = k };
        k->kubelet_ns = now + KUBELET_NS;
        if (api_start(k->api, &req, &k->kubelet_call, &err) < 0)
            log_warn("kube", "kube.kubelet", "the kubelet cannot be asked", LOG_CSTR("error", err.text));
    }
    return k->kubelet_ns;
}

/* ---- housekeeping ---- */

/* The folder that holds the pods' folders: the pattern up to the first part with a wildcard. False: not of that shape. */
static bool log_root(struct slice include, struct slice *ret_root)
{
    size_t i = 0;
    while (i < include.len && memchr("*?[<", include.ptr[i], 4) == NULL)
        i++;
    ptrdiff_t slash = slice_rfind_byte(slice_first(include, i), '/');
    *ret_root = slice_first(include, slash < 0 ? 0 : (size_t)slash);
    return slash > 0 && !slice_ends(*ret_root, SLICE("/containers"));
}

static bool is_gone(void *ctx, const struct pod *p)
{
    const struct kube *k = ctx;
    for (size_t i = 0; i < k->conf->n_inputs; i++) {
        const struct conf_input *in = &k->conf->inputs[i];
        for (size_t n = 0; in->type == INPUT_KUBERNETES && n < in->include.n; n++) {
            char path[4096];
            struct slice root;
            if (!log_root(in->include.items[n], &root))
                continue;
            int len = snprintf(path, sizeof(path), "%.*s/%.*s_%.*s_%.*s", SLICE_ARGS(root), SLICE_ARGS(p->namespace_),
                               SLICE_ARGS(p->name), SLICE_ARGS(p->path_uid));
            if (len > 0 && len < (int)sizeof(path) && access(path, F_OK) == 0)
                return false;
        }
    }
    return true;
}

static bool knows_folders(const struct conf *conf)
{
    struct slice root;
    for (size_t i = 0; i < conf->n_inputs; i++)
        for (size_t n = 0; conf->inputs[i].type == INPUT_KUBERNETES && n < conf->inputs[i].include.n; n++)
            if (!log_root(conf->inputs[i].include.items[n], &root))
                return false;
    return true;
}

static void save(struct kube *k)
{
    const struct cache_head head = { .key = k->key,
                                     .pods = k->pods.has_state ? buf_slice(&k->pods.version) : SLICE(""),
                                     .namespaces = k->namespaces.has_state ? buf_slice(&k->namespaces.version) : SLICE("") };
    struct err err = { 0 };
    k->pods.is_changed = k->namespaces.is_changed = false;
    if (cache_save(k->dir, &head, k->table, &err) < 0)
        log_warn("kube", "kube.cache", "what is known of pods cannot be kept on disk", LOG_CSTR("path", k->dir),
                 LOG_CSTR("error", err.text));
}

/* What is unknown will soon be known: the state is watched, or is being read. */
static bool is_answering(const struct kube *k, bool is_synced, int64_t now)
{
    const struct stream *s = &k->pods;
    bool is_coming = s->call != NULL && s->events != NULL && s->form_status == 200 && now - s->heard_ns < SILENT_NS;
    return (is_synced && !k->is_silent) || is_coming;
}

static void say_size(struct kube *k, int64_t now)
{
    size_t bytes;
    if (now < k->count_ns) /* all entries are looked at */
        return;
    k->count_ns = now + NS_PER_SEC;
    gauge_set(&stats.kube.pods, (int64_t)podtable_count(k->table, &bytes));
    gauge_set(&stats.kube.table_bytes, (int64_t)bytes);
}

static void say_state(struct kube *k, int64_t now)
{
    bool is_synced = stream_is_synced(&k->pods) && (!k->wants_namespaces || stream_is_synced(&k->namespaces));
    atomic_store(&k->is_answering, is_answering(k, is_synced, now));
    if (is_synced == (gauge_get(&stats.kube.synced) != 0))
        return;
    gauge_set(&stats.kube.synced, is_synced);
    gauge_set(&stats.kube.unsynced_since_wall_ns, is_synced ? 0 : clock_wall_ns());
}

static int64_t keep_house(struct kube *k, int64_t now)
{
    bool is_changed = k->pods.is_changed || k->namespaces.is_changed;
    say_state(k, now);
    say_size(k, now);
    if (is_changed && now >= k->save_ns) {
        save(k);
        k->save_ns = now + SAVE_NS;
        is_changed = false;
    }
    if (now >= k->expire_ns) {
        podtable_expire(k->table, now - (knows_folders(k->conf) ? DELETED_MIN_NS : DELETED_BLIND_NS), is_gone, k);
        k->expire_ns = now + EXPIRE_NS;
    }
    return is_changed ? MIN(MIN(k->save_ns, k->expire_ns), k->count_ns) : k->expire_ns;
}

/* ---- the thread ---- */

static int64_t turn_stream(struct kube *k, struct stream *s, int64_t now)
{
    int64_t next_ns = stream_turn(s, now);
    if (next_ns > now)
        return next_ns;
    if (!spend(k))
        return now + NS_PER_SEC;
    stream_ask(s, now);
    return s->call != NULL ? INT64_MAX : s->next_ns;
}

static void *kube_main(void *arg)
{
    struct kube *k = arg;
    (void)pthread_setname_np(pthread_self(), "kube");
    while (!atomic_load(&k->is_stopping)) {
        int64_t now = clock_mono_ns(), next_ns = now + 5 * NS_PER_SEC;
        refill(k, now);
        hurry(k, now);
        next_ns = MIN(next_ns, turn_stream(k, &k->pods, now));
        if (k->wants_namespaces)
            next_ns = MIN(next_ns, turn_stream(k, &k->namespaces, now));
        next_ns = MIN(next_ns, turn_ask(k, now));
        next_ns = MIN(next_ns, turn_kubelet(k, now));
        next_ns = MIN(next_ns, keep_house(k, now));
        api_wait(k->api, next_ns);
    }
    if (k->pods.is_changed || k->namespaces.is_changed)
        save(k);
    return NULL;
}

/* ---- life ---- */

static uint64_t fnv(uint64_t h, struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        h = (h ^ (unsigned char)s.ptr[i]) * UINT64_C(0x100000001b3);
    return (h ^ 0xff) * UINT64_C(0x100000001b3);
}

static void load(struct kube *k)
{
    CLEANUP(buf_deinit) struct buf text;
    struct cache_head head;
    buf_init(&text, CACHE_BYTES_MAX);
    int r = cache_load(k->dir, k->key, k->table, &head, &text);
    if (r == 0)
        r = stream_resume(&k->pods, head.pods);
    if (r == 0 && k->wants_namespaces)
        r = stream_resume(&k->namespaces, head.namespaces);
    if (r == -EBADMSG)
        log_warn("kube", "kube.cache", "what was kept of pods is damaged: they are read anew", LOG_CSTR("path", k->dir));
}

static bool has_input(const struct conf *conf)
{
    for (size_t i = 0; i < conf->n_inputs; i++)
        if (conf->inputs[i].type == INPUT_KUBERNETES)
            return true;
    return false;
}

static void set_selector(struct kube *k)
{
    size_t n = (size_t)snprintf(k->selector, sizeof(k->selector), "fieldSelector=spec.nodeName%%3D");
    for (size_t i = 0; i < k->conf->node.len && n + 8 < sizeof(k->selector); i++)
        n += (size_t)snprintf(k->selector + n, 4, "%%%02X", (unsigned char)k->conf->node.ptr[i]);
    (void)snprintf(k->selector + n, sizeof(k->selector) - n, "&");
}

static void open_streams(struct kube *k)
{
    struct stream_conf sc = { .api = k->api, .table = k->table, .selector = k->selector, .keeps = keeps, .ctx = k,
                              .rng = &k->rng };
    k->rng = backoff_seed();
    set_selector(k);
    stream_init(&k->pods, &sc);
    sc.is_namespaces = true;
    sc.selector = "";
    sc.keeps = keeps_of_namespace;
    stream_init(&k->namespaces, &sc);
    k->wants_namespaces = conf_reads(k->conf, VAR_NAMESPACE_LABEL, (struct slice){ 0 });
    (void)snprintf(k->dir, sizeof(k->dir), "%.*s/kube", SLICE_ARGS(k->conf->state_dir));
    k->key = fnv(fnv(conf_reads_hash(k->conf), k->conf->node), api_server(k->api));
}

static void forget_stats(void)
{
    gauge_set(&stats.kube.is_wanted, 0);
    gauge_set(&stats.kube.synced, 0);
    gauge_set(&stats.kube.unsynced_since_wall_ns, 0);
    gauge_set(&stats.kube.failing_since_wall_ns, 0);
    gauge_set(&stats.kube.pods, 0);
    gauge_set(&stats.kube.table_bytes, 0);
}

int kube_start(const struct conf *conf, struct kube **ret_kube, struct err *err)
{
    *ret_kube = NULL;
    forget_stats();
    struct api *api = NULL;
    int r = has_input(conf) ? api_open(conf, &api, err) : -ENOENT;
    if (r == -ENOENT)
        return 0;
    struct kube *k = r < 0 ? NULL : calloc(1, sizeof(*k));
    struct podtable *table = k == NULL ? NULL : podtable_new();
    if (table == NULL) {
        api_close(api);
        free(k);
        return r < 0 ? r : err_set(err, -ENOMEM, "cannot start asking Kubernetes");
    }
    k->conf = conf;
    k->api = api;
    k->table = table;
    pthread_mutex_init(&k->lock, NULL);
    open_streams(k);
    load(k);
    k->budget_ns = clock_mono_ns();
    k->budget = INT64_C(1000000) * BURST;
    gauge_set(&stats.kube.is_wanted, 1);
    gauge_set(&stats.kube.unsynced_since_wall_ns, clock_wall_ns());
    r = -pthread_create(&k->thread, NULL, kube_main, k);
    k->is_started = r == 0;
    if (r < 0) {
        kube_stop(k);
        return err_set(err, r, "cannot start asking Kubernetes");
    }
    *ret_kube = k;
    return 0;
}

void kube_stop(struct kube *k)
{
    if (k == NULL)
        return;
    if (k->is_started) {
        atomic_store(&k->is_stopping, true);
        api_wake(k->api);
        (void)pthread_join(k->thread, NULL);
    }
    api_free(k->api, k->ask_call);
    api_free(k->api, k->kubelet_call);
    events_free(k->ask_events);
    events_free(k->kubelet_events);
    stream_deinit(&k->pods);
    stream_deinit(&k->namespaces);
    while (k->wanted != NULL) {
        struct wanted *w = k->wanted;
        k->wanted = w->next;
        free(w);
    }
    api_close(k->api);
    podtable_free(k->table);
    pthread_mutex_destroy(&k->lock);
    forget_stats();
    free(k);
}
