/*
 * internal.h - struct kube, and the turns of its thread; for the files of this folder alone.
 *
 * kube.c starts, stops and drives the thread; wanted.c knows who is looked for and asks for single pods; kubelet.c asks the second
 * source; house.c tells the state, writes the cache and forgets the deleted.
 */
#ifndef TAILRACE_KUBE_INTERNAL_H
#define TAILRACE_KUBE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "agent/kube/api.h"
#include "agent/kube/kube.h"
#include "agent/kube/stream.h"

/* The watch that left a pod out for so long, though there is one, begins again. */
#define SILENT_NS (10 * NS_PER_SEC)
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

/* ---- kube.c ---- */

/* What of labels and annotations is kept; ctx is the struct kube. */
bool kube_keeps(void *ctx, bool is_annotation, struct slice name);
/* One request of requests_per_minute; false: none is left now. */
NODISCARD bool kube_spend(struct kube *k);

/* ---- turns; each returns when it wants the next one (monotonic) ---- */

int64_t wanted_turn(struct kube *k, int64_t now);
/* The kubelet is asked while the API server does not answer. It has no watch, so it is asked again and again. */
int64_t kubelet_turn(struct kube *k, int64_t now);
int64_t house_keep(struct kube *k, int64_t now);

/* Any thread: the pod is looked for from now on; sets answer and since_ns. */
void wanted_look(struct kube *k, const struct pod_path *path, struct pod_look *ret);
/* A failing watch is tried again soon while lines wait. */
void wanted_hurry(struct kube *k, int64_t now);
void house_save(struct kube *k);

/* Before api_close. */
void wanted_free(struct kube *k);
void kubelet_free(struct kube *k);

#endif
