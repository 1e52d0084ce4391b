#include "agent/kube/internal.h"

#include "agent/base/log.h"

#define KUBELET_NS (10 * NS_PER_SEC)
#define KUBELET_AFTER_NS (5 * NS_PER_SEC)

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
    const struct events_conf conf = { .form = EVENTS_LIST, .ctx = k, .keeps = kube_keeps, .on_event = on_kubelet_event };
    int r = k->kubelet_events != NULL ? 0 : events_new(&conf, &k->kubelet_events);
    return r < 0 ? r : events_feed(k->kubelet_events, bytes);
}

int64_t kubelet_turn(struct kube *k, int64_t now)
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

void kubelet_free(struct kube *k)
{
    api_free(k->api, k->kubelet_call);
    events_free(k->kubelet_events);
}
