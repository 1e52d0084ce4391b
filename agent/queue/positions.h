/*
 * positions.h - every live file of one queue and where it stands: as written, and as of the last durable group, to
 * which a failed sync goes back (queue.md §3.4).
 *
 * A file whose first position is not durable yet stands, as durable, where that position began.
 * About 170 bytes a file and its path. Owned by the writer thread.
 */
#ifndef TAILRACE_QUEUE_POSITIONS_H
#define TAILRACE_QUEUE_POSITIONS_H

#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/queue/queue.h"

#define MARKS_MAX (UINT32_C(1) << 17) /* 3 MiB for as long as a start takes */

struct position_entry;
struct name;

struct positions {
    struct position_entry **entries;
    size_t n, cap;
    uint32_t *heads;   /* hash table: entry number + 1 */
    size_t n_heads;
    struct position_entry *dirty;
    struct name *names; /* of inputs; never fewer until positions_deinit() */
    struct recovered_file *exported;
    struct recovered_mark *marks; /* of what was taken; until positions_forget_marks() */
    size_t n_marks, cap_marks;
};

void positions_deinit(struct positions *p); /* zeroed is fine */

/* Makes room for all that end names, so that positions_apply() cannot fail: -ENOMEM. Idents count at once, they are
 * true whatever becomes of the group. */
NODISCARD int positions_prepare(struct positions *p, const struct group_end *end);
/* The group is written. */
void positions_apply(struct positions *p, const struct group_end *end);
void positions_commit(struct positions *p);   /* what is written is durable */
void positions_rollback(struct positions *p); /* what is not durable never was */
void positions_clear(struct positions *p);

/* FILE, POS and PART items of every live file, as written; only_news: of those that moved since positions_noted(). */
NODISCARD int positions_put(const struct positions *p, bool only_news, struct buf *meta);
void positions_noted(struct positions *p); /* all that is written stands in a SNAP now */
/* An item of a meta: FILE, POS, PART, GONE; others pass. */
NODISCARD int positions_take(struct positions *p, uint8_t tag, struct slice bytes);

/* Every live file as of the last durable group. Valid until the next change of the table. */
NODISCARD int positions_export(struct positions *p, const struct recovered_file **ret_files, size_t *ret_n);
void positions_export_free(struct positions *p);
/* Where the files stood, beyond what is durable not: p->marks. At most MARKS_MAX, the older half goes for the newer ones. */
void positions_trim_marks(struct positions *p);
void positions_forget_marks(struct positions *p);

#endif
