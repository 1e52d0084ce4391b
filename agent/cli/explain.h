/*
 * explain.h - what the files of `tailrace explain` share. Nobody else includes it.
 */
#ifndef TAILRACE_CLI_EXPLAIN_H
#define TAILRACE_CLI_EXPLAIN_H

#include "agent/source.h"
#include "conf/conf.h"

/* One step, made tame for a terminal. */
void explain_show(const char *step, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* ---- explain_pod.c: what a file's pod is taken to be ---- */

/* What the operator says of it: over what the agent's cache on disk knows. */
struct explain_said {
    struct pair labels[EVENT_PAIRS_MAX], annotations[EVENT_PAIRS_MAX];
    size_t n_labels, n_annotations;
};

/* "NAME=VALUE,NAME=VALUE". False: not of that form, or too many. */
bool explain_say_labels(struct explain_said *said, struct slice text);
/* "NAME=VALUE"; a value may hold commas. */
bool explain_say_annotation(struct explain_said *said, struct slice text);

/* Gives the source its pod: of the cache in state_dir, which is only read, with what was said over it. Nothing, when its path
 * is no pod's. EXIT_FINE, or another status with a word on stderr. */
int explain_pod_set(const struct conf *conf, struct source *s, const struct explain_said *said);
/* What is known of it and what it chooses; nothing for a file of no pod. */
void explain_pod_show(const struct conf *conf, const struct source *s);

#endif
