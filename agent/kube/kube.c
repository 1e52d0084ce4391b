#include "agent/kube/kube.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/deliver/backoff.h"
#include "agent/kube/cache.h"
#include "agent/kube/internal.h"

#define BURST 20

uint64_t kube_version(const struct kube *k)
{
    return k == NULL ? 0 : podtable_version(k->table);
}

void kube_look(struct kube *k, const struct pod_path *path, struct pod_look *ret)
{
    *ret = (struct pod_look){ .answer = POD_KNOWN, .is_answering = atomic_load(&k->is_answering) };
    ret->pod = podtable_find(k->table, path->namespace_, path->pod, path->uid);
    if (k->wants_namespaces)
        ret->namespace_ = podtable_find(k->table, path->namespace_, SLICE(""), SLICE(""));
    if (ret->pod == NULL || (k->wants_namespaces && ret->namespace_ == NULL))
        wanted_look(k, path, ret);
}

/* ---- what is of use ---- */

bool kube_keeps(void *ctx, bool is_annotation, struct slice name)
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

bool kube_spend(struct kube *k)
{
    if (k->budget < 1000000)
        return false;
    k->budget -= 1000000;
    gauge_set(&stats.kube.budget_left, k->budget / 1000000);
    return true;
}

/* ---- the thread ---- */

static int64_t turn_stream(struct kube *k, struct stream *s, int64_t now)
{
    int64_t next_ns = stream_turn(s, now);
    if (next_ns > now)
        return next_ns;
    if (!kube_spend(k))
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
        wanted_hurry(k, now);
        next_ns = MIN(next_ns, turn_stream(k, &k->pods, now));
        if (k->wants_namespaces)
            next_ns = MIN(next_ns, turn_stream(k, &k->namespaces, now));
        next_ns = MIN(next_ns, wanted_turn(k, now));
        next_ns = MIN(next_ns, kubelet_turn(k, now));
        next_ns = MIN(next_ns, house_keep(k, now));
        api_wait(k->api, next_ns);
    }
    if (k->pods.is_changed || k->namespaces.is_changed)
        house_save(k);
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
    struct stream_conf sc = { .api = k->api, .table = k->table, .selector = k->selector, .keeps = kube_keeps, .ctx = k,
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
    wanted_free(k);
    kubelet_free(k);
    stream_deinit(&k->pods);
    stream_deinit(&k->namespaces);
    api_close(k->api);
    podtable_free(k->table);
    pthread_mutex_destroy(&k->lock);
    forget_stats();
    free(k);
}
