#include "agent/base/suggest.h"

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

size_t suggest_distance(struct slice a, struct slice b)
{
    if (a.len > SUGGEST_WORD_MAX || b.len > SUGGEST_WORD_MAX)
        return SIZE_MAX;

    /* Three rows of the usual table: a swap looks two rows back. */
    size_t rows[3][SUGGEST_WORD_MAX + 1];
    for (size_t j = 0; j <= b.len; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= a.len; i++) {
        size_t *row = rows[i % 3];
        const size_t *above = rows[(i - 1) % 3];
        const size_t *above2 = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= b.len; j++) {
            char ca = lower(a.ptr[i - 1]), cb = lower(b.ptr[j - 1]);
            row[j] = MIN(MIN(above[j], row[j - 1]) + 1, above[j - 1] + (ca != cb));
            if (i > 1 && j > 1 && ca == lower(b.ptr[j - 2]) && lower(a.ptr[i - 2]) == cb)
                row[j] = MIN(row[j], above2[j - 2] + 1);
        }
    }
    return rows[a.len % 3][b.len];
}

/* One edit in a short word, two in a medium one, three in a long one: more would suggest unrelated words. */
static size_t tolerance(size_t len)
{
    return len <= 3 ? 1 : len <= 7 ? 2 : 3;
}

void suggest_offer(struct suggestion *s, struct slice candidate)
{
    size_t d = suggest_distance(s->word, candidate);
    if (d > tolerance(MIN(s->word.len, candidate.len)) || d >= candidate.len)
        return;
    if (s->best.len == 0 || d < s->distance) {
        s->best = candidate;
        s->distance = d;
    }
}
