/*
 * events.h - what the Kubernetes API says of pods and namespaces, read as it comes: of each object only what is used is
 * kept, whatever its size is.
 *
 * A *watch* is one {"type":…,"object":{…}} after the other, a *list* {"metadata":{…},"items":[{…},…]}, an *object* stands by
 * itself (the answer to a GET, or a Status that says what is wrong). Bytes may come in any pieces.
 *
 * Owns:    yajl's handle and the memory of the object in work. What a callback gets lives until it returns.
 * Threads: one.
 * Limits:  one string of EVENT_STRING_MAX, depth EVENT_DEPTH_MAX: beyond, -EBADMSG. Names, labels and annotations of one
 *          object: EVENT_KEPT_MAX bytes, EVENT_PAIRS_MAX each; what is beyond is not kept.
 */
#ifndef TAILRACE_KUBE_EVENTS_H
#define TAILRACE_KUBE_EVENTS_H

#include "agent/base/record.h"

#define EVENT_STRING_MAX (4 * MIB)
#define EVENT_DEPTH_MAX 64
#define EVENT_KEPT_MAX (128 * KIB)
#define EVENT_PAIRS_MAX 128
#define EVENT_VALUE_MAX (4 * KIB) /* a longer label or annotation is not kept */

enum event_form { EVENTS_WATCH, EVENTS_LIST, EVENTS_OBJECT };
enum event_kind { EVENT_PUT /* added, modified, an item, the object */, EVENT_DELETED, EVENT_BOOKMARK, EVENT_STATUS };

struct kube_object {
    struct slice namespace_, name, uid, version;
    struct slice node, phase;
    struct slice owner_kind, owner_name; /* the controller, else the first owner */
    struct pairs labels, annotations;    /* those that `keeps` wants */
    struct pairs images;                 /* by container's name, init and ephemeral ones too */
    bool is_initial_end;                 /* of a bookmark: the first state is complete */
    int64_t code;                        /* of a Status */
    struct slice reason, message;
};

struct events_conf {
    enum event_form form;
    void *ctx;
    /* Is this label, or annotation, of use? */
    bool (*keeps)(void *ctx, bool is_annotation, struct slice name);
    /* 0, or an error that ends the reading and is handed back. */
    int (*on_event)(void *ctx, enum event_kind kind, const struct kube_object *obj);
};

struct events;

NODISCARD int events_new(const struct events_conf *conf, struct events **ret_events);
void events_free(struct events *e); /* NULL is fine */
/* 0, -EBADMSG (not JSON, or beyond a limit), -ENOMEM, or what on_event said. After an error nothing more is taken. */
NODISCARD int events_feed(struct events *e, struct slice bytes);
/* The answer is at its end: -EBADMSG when it stops in the middle of something. */
NODISCARD int events_end(struct events *e);
/* Of a list: its own resourceVersion, and where the next page goes on (empty: nowhere). */
struct slice events_list_version(const struct events *e);
struct slice events_list_continue(const struct events *e);

#endif
