/*
 * suggest.h - "did you mean": the known word nearest to a misspelt one.
 */
#ifndef TAILRACE_BASE_SUGGEST_H
#define TAILRACE_BASE_SUGGEST_H

#include "agent/base/slice.h"

/* Candidates are offered one by one; the nearest so far is kept. Words longer than SUGGEST_WORD_MAX are not
 * compared. */
#define SUGGEST_WORD_MAX 64

struct suggestion {
    struct slice word; /* the misspelt one */
    struct slice best; /* borrowed from the candidates; empty = nothing is near enough */
    size_t distance;
};

static inline void suggest_init(struct suggestion *s, struct slice word)
{
    *s = (struct suggestion){ .word = word };
}
void suggest_offer(struct suggestion *s, struct slice candidate);

/* Edits (insert, delete, replace, swap of neighbours) between two words, ASCII case ignored; SIZE_MAX when
 * one is too long to compare. */
size_t suggest_distance(struct slice a, struct slice b);

#endif
