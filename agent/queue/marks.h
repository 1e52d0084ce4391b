/*
 * marks.h - inside the queue: which dead letters have met their fate.
 */
#ifndef TAILRACE_QUEUE_MARKS_H
#define TAILRACE_QUEUE_MARKS_H

#include "agent/queue/letters.h"

struct mark {
    struct letter_id id;
    enum letter_fate fate;
};

struct marks {
    struct mark *list;
    size_t n, cap;
    bool is_sorted;
};

void marks_deinit(struct marks *m); /* zeroed is fine */
NODISCARD int marks_add(struct marks *m, struct letter_id id, enum letter_fate fate);
NODISCARD int marks_reserve(struct marks *m); /* room for one more */
/* The LETTER items of a meta. */
NODISCARD int marks_take(struct marks *m, struct slice meta);
enum letter_fate marks_find(struct marks *m, struct letter_id id);
/* LETTER: file (8), seq (8), fate (4), zero (4). */
NODISCARD int marks_put(struct buf *meta, struct letter_id id, enum letter_fate fate);
NODISCARD int marks_get(struct slice item, struct mark *ret);

#endif
