/*
 * docker.h - what Docker wrote beside a container's log, /var/lib/docker/containers/<id>/config.v2.json: name, image, labels.
 * No socket is asked.
 */
#ifndef TAILRACE_KUBE_DOCKER_H
#define TAILRACE_KUBE_DOCKER_H

#include "agent/kube/podtable.h"

#define DOCKER_CONFIG_MAX (1 * MIB)

/* name: the container's, uid: its id, namespace_ and workload: project and service of compose, when it is of one; images:
 * one, of that name. NULL: there is no such file, it is no JSON, or memory is out; then the path is all there is. */
struct pod *docker_container(struct slice log_path);
/* From the file's bytes. */
struct pod *docker_parse(struct slice config);

#endif
