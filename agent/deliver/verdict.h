/*
 * verdict.h - what verdict.c, halves.c and sorting.c share.
 */
#ifndef TAILRACE_DELIVER_VERDICT_H
#define TAILRACE_DELIVER_VERDICT_H

#include "agent/deliver/shipment.h"

/* A frame read and decoded, for what is to be done line by line. */
struct decoded {
    struct loaded ld;
    struct items items;
    uint8_t *row_of;  /* of each item */
    uint32_t *idx;    /* room for as many indexes as items */
};
/* -EBADMSG: damaged, and the frame is marked so. -EPROTO: sound bytes that the output does not understand. */
NODISCARD int frame_decode(struct frame *f, struct decoded **ret);
void decoded_free(struct decoded *dec); /* NULL is fine */

/* --- verdict.c --- */
struct part *shipment_take_part(struct shipment *sh);
/* The server took lines of this request, of this frame. */
void verdict_accepted(struct shipment *sh, int64_t now);
void verdict_frame_accepted(struct frame *f);

/* --- halves.c: each takes p --- */
/* p could not be taken apart (r of frame_decode): gone when damaged, else back to its lane. */
void verdict_undecodable(struct shipment *sh, struct part *p, int r, int64_t now);
/* Too large: halves; a single line is dead. */
void verdict_split(struct shipment *sh, struct part *p, const struct judgement *j, int32_t status, int64_t now);
/* Refused for something in it. */
void verdict_bisect(struct shipment *sh, struct part *p, const struct judgement *j, const struct http_reply *reply,
                    int64_t now);

/* --- sorting.c --- */
/* All parts of a request by the verdicts of their lines; items: those of the request. The parts are taken. */
void verdict_sort(struct shipment *sh, const struct http_reply *reply, const struct judgement *j,
                  const struct items *items, int64_t now);

#endif
