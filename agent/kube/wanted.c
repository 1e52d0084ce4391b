#include "agent/kube/internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/deliver/backoff.h"

/* The watch has this long to speak of a pod whose lines are here, before it is asked for by itself. */
#define ASK_AFTER_NS NS_PER_SEC
#define ASK_ANSWER_MS 5000
/* The server is tried again soon for lines that wait for no longer than this: not for held ones, hour after hour. */
#define HURRY_NS (10 * NS_PER_SEC)
/* Without a watch, which would know more, pods are asked for after so many failures. */
#define FAILURES_MANY 6
#define WANTED_IDLE_NS (600 * NS_PER_SEC)

/* ---- who is looked for ---- */

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

void wanted_look(struct kube *k, const struct pod_path *path, struct pod_look *ret)
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
    const struct events_conf conf = { .form = EVENTS_OBJECT, .ctx = k, .keeps = kube_keeps, .on_event = on_asked };
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

void wanted_hurry(struct kube *k, int64_t now)
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

int64_t wanted_turn(struct kube *k, int64_t now)
{
    int64_t next_ns = INT64_MAX;
    end_ask(k, now);
    if (k->ask_call != NULL)
        return INT64_MAX;
    drop_wanted(k, now);
    pthread_mutex_lock(&k->lock);
    struct wanted *w = due(k, now, &next_ns);
    bool asks = w != NULL && may_ask(k, now) && kube_spend(k);
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

void wanted_free(struct kube *k)
{
    api_free(k->api, k->ask_call);
    events_free(k->ask_events);
    while (k->wanted != NULL) {
        struct wanted *w = k->wanted;
        k->wanted = w->next;
        free(w);
    }
}
