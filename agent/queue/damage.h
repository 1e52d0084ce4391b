/*
 * damage.h - inside the queue: what a damaged segment has lost, and what of it can be read again from its sources.
 */
#ifndef TAILRACE_QUEUE_DAMAGE_H
#define TAILRACE_QUEUE_DAMAGE_H

#include "agent/queue/core.h"

struct damage {
    struct gaps gaps;
    struct totals rows;  /* of frames whose meta is good and whose body is not */
    struct spans bodies; /* these frames */
    uint64_t bytes;
    struct spans holes;  /* frames of which not even the meta is good */
    uint64_t hole_lines; /* of these, by the headers that are good */
};

/* Frames first..last of seg are lost. Walks the segment once, bodies too: all else that is damaged and not counted yet is found
 * with it, so that each group's ranges are found once. A passing error (fs.h), -ENOMEM. */
NODISCARD int damage_find(struct queue *q, const struct segment *seg, uint64_t first, uint64_t last, struct damage *ret);
/* No file has the frames between these two segments. */
NODISCARD int damage_between(struct queue *q, const struct segment *before, const struct segment *after,
                             struct damage *ret);
void damage_deinit(struct damage *d);

#endif
