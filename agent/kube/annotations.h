/*
 * annotations.h - what a pod's annotations choose for its lines: tailrace.io/exclude, levels, tenant, format, service, each
 * for all containers or, as tailrace.io/levels.CONTAINER, for one.
 */
#ifndef TAILRACE_KUBE_ANNOTATIONS_H
#define TAILRACE_KUBE_ANNOTATIONS_H

#include "agent/kube/podtable.h"
#include "conf/conf.h"

#define ANNOTATION_PREFIX "tailrace.io/"

struct choices {
    bool is_excluded;
    bool is_text;                         /* format: text. json and auto are what is done anyway */
    struct slice levels, tenant, service; /* empty: not chosen; borrowed from the pod */
};

/* Those that are allowed (bits by enum annotation) and valid; the container's own wins. */
struct choices annotations_choose(const struct pod *pod, struct slice container, uint32_t allowed);

/* "tailrace.io/levels.app" -> levels, "app"; without a container the empty slice. False: none of ours. */
bool annotation_parse(struct slice name, enum annotation *ret_which, struct slice *ret_container);
/* Is the value good? Else a sentence in err. */
bool annotation_is_valid(enum annotation which, struct slice value, struct err *err);
/* Counts and logs each bad value of a pod that is new or changed; `before`, or NULL: what was said of it is not repeated. */
void annotations_report(const struct pod *pod, const struct pod *before);

#endif
