/*
 * rereads.h - inside the queue: ranges of files whose lines damage took, until they were read again.
 *
 * A LOST frame of dead/ that counts a loss carries them, and its number names the re-reading. The reader reads the ranges
 * and closes a group of their own (flag GAP) that carries that name in a LETTER; once it is durable, dead/ says so too. What
 * lies between two such steps is found again by the next open, as it is with dead letters.
 */
#ifndef TAILRACE_QUEUE_REREADS_H
#define TAILRACE_QUEUE_REREADS_H

#include "agent/queue/frame.h"
#include "agent/queue/marks.h"
#include "agent/queue/totals.h"

/* Found in one flush of losses; more are only said. */
#define GAPS_MAX 256
#define HELD_BYTES_MAX (4 * MIB)

/* What was found and is not in dead/ yet. */
struct gaps {
    struct reread_range *list;
    size_t n, cap;
    struct buf held; /* HELD items */
};

void gaps_deinit(struct gaps *g); /* zeroed is fine */
NODISCARD int gaps_put(struct gaps *g, const struct reread_range *range); /* once; beyond GAPS_MAX it is left out */
/* LOST and POS items of the ranges, and the HELD ones. */
NODISCARD int gaps_write(const struct gaps *g, struct buf *meta);

/* What a good frame with this meta holds, as a HELD item. */
NODISCARD int held_put(struct buf *held, struct slice frame_meta);

/* Does this LOST frame say so? Without it, its ranges are the note of an older version, that nobody is to act upon. */
bool reread_is_meant(struct slice meta);

struct rereads {
    struct reread *list;
    size_t n, cap;
    struct marks written; /* their groups are closed and not durable yet */
    struct marks done;    /* durable; dead/ does not say so yet */
    struct totals open, closed; /* lines by tenant: of the open group, of those in written */
    struct totals found;  /* of those in done: they are lost no more */
};

void rereads_deinit(struct rereads *rr);
/* From items of a LOST frame, or of a SNAP where a LETTER that is open names each. */
NODISCARD int rereads_take(struct rereads *rr, struct letter_id id, struct slice meta);
bool rereads_have(const struct rereads *rr, struct letter_id id);
void rereads_remove(struct rereads *rr, struct letter_id id);
void rereads_clear(struct rereads *rr);
/* A frame of the open group brings these again. Without memory they stay counted as lost. */
void rereads_bring(struct rereads *rr, const struct frame_row *rows, size_t n);
void rereads_close(struct rereads *rr, struct letter_id id); /* the open group; there is room in written */
void rereads_abandon(struct rereads *rr);  /* the open group is void */
void rereads_commit(struct rereads *rr);   /* what is written is durable */
void rereads_rollback(struct rereads *rr); /* what is not durable is to be done anew */
/* For a SNAP of dead/: those that are not done. */
NODISCARD int rereads_put(const struct rereads *rr, struct buf *meta);

#endif
