/*
 * shipment.h - one request: which parts of which frames are in it, and what became of them.
 */
#ifndef TAILRACE_DELIVER_SHIPMENT_H
#define TAILRACE_DELIVER_SHIPMENT_H

#include "agent/deliver/deliver.h"

/* Refusals of parts of one frame, none accepted, after which it is taken for the configuration. */
#define VERDICT_REFUSALS_MAX 64u

struct shipment {
    struct shipment *next, *prev; /* in flight */
    struct delivery *d;
    struct lane *lane;            /* NULL: a setup request */
    struct part *parts;           /* list; their order is that of the lines in the wire */
    size_t n_parts;
    struct buf wire;
    size_t url;
    bool is_probe;                /* of a URL that has failed */
    int64_t started_ns;
    int64_t others_ns;            /* the delivery's passed_ns when this one began */
    struct http_call *call;
};

/* Takes the next part of the lane (and joins small ones behind it) and begins a request. 0, or -errno: the lane is as
 * before but for damaged frames, which are gone. -EAGAIN: no room in memory now. */
NODISCARD int shipment_begin(struct lane *l, size_t url, int64_t now);
/* The next setup request; false when there are no more. */
bool shipment_begin_setup(struct delivery *d, size_t url, int64_t now);
/* A reply came, or the call failed. Frees the shipment. */
void shipment_end(struct shipment *sh);
/* The sender ends: the call is aborted, the parts go back. */
void shipment_abort(struct shipment *sh);

/* A wire body of the part's lines. ld: the frame, loaded; its body may be taken. */
NODISCARD int shipment_build(struct part *p, struct loaded *ld, struct buf *wire);

/* --- verdict.c --- */
/* Settles the parts of a shipment by the server's reply. The parts are taken. */
void verdict_apply(struct shipment *sh, const struct http_reply *reply);
/* All other parts of f are settled, or the server took some of it: what becomes of the lines refused one by one. */
void verdict_deferred(struct frame *f);
void verdict_setup(struct shipment *sh, const struct http_reply *reply);

#endif
