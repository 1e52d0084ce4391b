/*
 * stream.h - one collection of the API (this node's pods; the namespaces) kept up to date in a table, by one watch.
 *
 *      version known              ┌────── 410, or its ERROR event ──────┐
 *   START ───────────▶ WATCHING ──┤                                     ▼
 *     └─ no version ─▶ FIRST: a watch that begins with the whole state, where the server can
 *                        └─ refused ─▶ LISTING: pages of 500, then WATCHING
 *
 * A watch that ends goes on from the last version it heard of; bookmarks keep that one fresh. What fails is tried again
 * after backoff.h's delay, or when the server says (Retry-After).
 *
 * Owns:    its call, its reader, its version. Threads: the kube thread.
 */
#ifndef TAILRACE_KUBE_STREAM_H
#define TAILRACE_KUBE_STREAM_H

#include "agent/base/stats.h"
#include "agent/kube/api.h"
#include "agent/kube/podtable.h"

struct stream_conf {
    struct api *api;
    struct podtable *table;
    bool is_namespaces;
    const char *selector; /* "fieldSelector=spec.nodeName%3Dn&", or "" */
    bool (*keeps)(void *ctx, bool is_annotation, struct slice name);
    void *ctx;
    uint64_t *rng;
};

enum stream_state { STREAM_IDLE, STREAM_FIRST, STREAM_LISTING, STREAM_WATCHING };

struct stream {
    struct stream_conf conf;
    enum stream_state state;
    struct buf version, page; /* page: where the list goes on */
    struct api_call *call;
    struct events *events;
    int form_status;          /* the status that `events` was made for; 0 = not yet */
    int64_t next_ns;          /* nothing is asked before */
    int64_t least_ns, ended_ns; /* what the server said by Retry-After; when the last request failed */
    int64_t began_ns, heard_ns;
    unsigned failures;        /* in a row */
    bool has_state;           /* the table is complete as of `version` */
    bool cannot_first;        /* the server does not know sendInitialEvents */
    bool is_told;             /* of the failure, in the log */
    int status_code;          /* of a Status that was sent, 0 = none */
    bool is_changed;          /* version or table: for who writes it down */
};

void stream_init(struct stream *s, const struct stream_conf *conf);
void stream_deinit(struct stream *s);
/* From the cache: the table is filled as of version. */
NODISCARD int stream_resume(struct stream *s, struct slice version);

/* Takes what has come to its end. Returns when it wants to ask next (INT64_MAX: it is asking). */
int64_t stream_turn(struct stream *s, int64_t now_ns);
/* Asks: now_ns is not before what stream_turn said. */
void stream_ask(struct stream *s, int64_t now_ns);
/* Somebody waits for news: what failed is tried again a second after it did, if the server does not forbid it. */
void stream_hurry(struct stream *s);
/* Something was missed: the watch begins again where it was. */
void stream_renew(struct stream *s);

/* The state is complete, and the watch is open. */
bool stream_is_synced(const struct stream *s);

/* One object into a table; also for what was asked by itself. *ret_is_new as podtable_put. */
NODISCARD int stream_put(struct podtable *t, const struct kube_object *obj, bool is_namespaces, bool *ret_is_new);
/* The status or failure of a request, for the metric. */
void stream_count(enum kube_verb verb, const struct api_result *res);

#endif
