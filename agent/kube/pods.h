/*
 * pods.h - what a path says of a pod, without any API (protocols.md §3.1):
 *     /var/log/pods/<namespace>_<pod>_<uid>/<container>/<N>.log
 *     /var/log/containers/<pod>_<namespace>_<container>-<64 hex>.log
 */
#ifndef TAILRACE_KUBE_PODS_H
#define TAILRACE_KUBE_PODS_H

#include <stdbool.h>

#include "agent/base/slice.h"

struct pod_path {
    struct slice namespace_, pod, uid, container; /* borrowed from the path; uid may be empty */
};

bool pod_path_parse(struct slice path, struct pod_path *ret);

/* The owner's name as far as the pod's name shows it: "api-7d9c5b7f6d-x2x4z" -> "api", "db-0" -> "db"; else the name. */
struct slice pod_workload(struct slice pod);

#endif
