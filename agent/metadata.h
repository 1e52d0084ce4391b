/*
 * metadata.h - what a source's pod is known to be, beyond its path; what that chooses for its lines; and how long they wait
 * for it.
 *
 * Threads: reader. Owns: the pods that the source holds, and its own level directives.
 */
#ifndef TAILRACE_AGENT_METADATA_H
#define TAILRACE_AGENT_METADATA_H

#include "agent/base/buf.h"
#include "agent/kube/annotations.h"
#include "agent/kube/kube.h"

struct source;

struct metadata {
    struct kube *kube;        /* NULL: the path is all there is */
    struct pod *pod, *namespace_; /* held; NULL = not known */
    enum pod_answer answer;
    int64_t since_ns;         /* POD_UNKNOWN: monotonic */
    bool is_answering, is_given_up, is_held, is_told;
    bool decides;             /* tenant or routes depend on it */
    uint64_t kube_version, temporary_version;
    struct choices choices;   /* borrowed from pod */
    struct levels *levels;    /* chosen by an annotation or for a time; NULL = neither */
};

/* Looks the pod up; called once, before the origin is made. */
void metadata_init(struct metadata *m, const struct conf *conf, uint32_t input, struct kube *k, struct slice path);
void metadata_deinit(struct metadata *m);

/* May a look find something else? Each turn asks this: a comparison or two. */
bool metadata_is_stale(const struct metadata *m);
/* Looks again. True: what the source is made of is another now. */
bool metadata_look(struct metadata *m, struct slice path);
/* What it was before is to be looked at again; takes both. */
void metadata_restore(struct metadata *m, struct pod *pod_take, struct pod *namespace_take);
/* How many level directives were freed so far: what is remembered by their address is void when it changes. */
uint64_t metadata_levels_freed(void);
/* Reads what the annotations and the temporary directives say of this origin. */
void metadata_choose(struct metadata *m, const struct conf_input *input, const struct origin *o);

/* How long the lines are to wait before it is asked again; 0: they go. */
int64_t metadata_holds(struct metadata *m, const struct conf_input *input, struct slice path, int64_t now_ns);
/* There never was such a pod, or it went unseen: what its tenant is cannot be known any more. */
bool metadata_is_unassigned(const struct metadata *m, const struct conf_input *input);

#endif
