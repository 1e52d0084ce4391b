/*
 * kube.h - metadata of this node's pods: a thread that keeps a table by one watch (two, when labels of namespaces are used),
 * the cache on disk, and single questions about pods whose lines are here before the watch spoke of them.
 *
 * The reader looks a pod up by its path (kube_look) whenever kube_version changed. What is not known is asked for by itself
 * after ASK_AFTER_NS; the answer is the pod, or that there is none of that uid.
 *
 * Owns:    its thread, the table, the requests. conf is borrowed until kube_stop.
 * Threads: kube_start and kube_stop from main, the rest any.
 * Limits:  requests_per_minute; WANTED_MAX pods asked for at a time.
 */
#ifndef TAILRACE_KUBE_KUBE_H
#define TAILRACE_KUBE_KUBE_H

#include "agent/kube/podtable.h"
#include "agent/kube/pods.h"
#include "conf/conf.h"

#define WANTED_MAX 1024

struct kube;

/* *ret_kube NULL: there is no kubernetes input, or no server to ask; paths are all there is. */
NODISCARD int kube_start(const struct conf *conf, struct kube **ret_kube, struct err *err);
void kube_stop(struct kube *k); /* writes the cache; NULL is fine */

enum pod_answer {
    POD_KNOWN,
    POD_UNKNOWN, /* so far */
    POD_ABSENT   /* there is none, or none any more: it will never be known */
};

struct pod_look {
    enum pod_answer answer;
    struct pod *pod, *namespace_; /* held for the caller; NULL = not known (namespace_: or not used) */
    int64_t since_ns;             /* POD_UNKNOWN: monotonic, of the first look */
    bool is_answering;            /* the API server is there: what is unknown will soon be known */
};
void kube_look(struct kube *k, const struct pod_path *path, struct pod_look *ret);
/* Raised when a look may find something else. */
uint64_t kube_version(const struct kube *k);

/* Do tenant, or routes, of this input depend on what only the API says? */
bool kube_decides(const struct conf *conf, const struct conf_input *input);

#endif
