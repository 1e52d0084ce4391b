/*
 * replay.h - reads segments from their SNAP on and rebuilds positions and totals; says how far the newest one counts.
 */
#ifndef TAILRACE_QUEUE_REPLAY_H
#define TAILRACE_QUEUE_REPLAY_H

#include "agent/queue/core.h"

struct replay {
    struct queue *q;         /* its positions and totals are filled */
    uint64_t synced_seq;     /* the highest seq that is known to have been durable */
    uint64_t top_seq;        /* the highest that was seen */
    int64_t newest_ns;       /* when the newest was built */
    uint64_t good_end, good_seq; /* of the last segment: its last whole group */
    uint64_t damaged_bytes, damaged_frames;
    size_t letters_len;      /* of q->replayed, in whole groups */
    bool has_letter;         /* in the group at hand */
    struct buf meta;
};

void replay_init(struct replay *rp, struct queue *q, uint64_t acked_seq); /* forgets positions and totals */
void replay_deinit(struct replay *rp);
/* Up to last_seq. is_newest: what was never known durable and is not whole is cut. -ENOMEM, -EPROTO. */
NODISCARD int replay_segment(struct replay *rp, const struct segment *seg, uint64_t last_seq, bool is_newest);

#endif
