#include "tests/sim/pieces.h"

#include <stdlib.h>
#include <string.h>

#include "agent/base/macros.h"
#include "tests/sim/sim.h"

struct piece {
    uint32_t uid;
    uint16_t file;
    bool is_first, is_final;
    size_t at, len; /* of the texts */
};

/* A stream of one log. */
struct chain {
    struct piece *p;
    size_t n, cap;
};

static struct {
    struct chain chains[SIM_LOGS * 2];
    uint8_t gone[PIECES_FILES_MAX]; /* masks of outputs */
    uint8_t any_gone;
    char *texts;
    size_t len, cap;
} s;

void pieces_begin(void)
{
    for (size_t i = 0; i < ARRAY_LEN(s.chains); i++)
        s.chains[i].n = 0;
    memset(s.gone, 0, sizeof(s.gone));
    s.any_gone = 0;
    s.len = 0;
}

void pieces_free(void)
{
    for (size_t i = 0; i < ARRAY_LEN(s.chains); i++)
        free(s.chains[i].p);
    free(s.texts);
    memset(&s, 0, sizeof(s));
}

static void *grown(void *ptr, size_t *cap, size_t need, size_t size)
{
    if (need <= *cap)
        return ptr;
    *cap = MAX(*cap * 2, MAX(need, (size_t)256));
    ptr = realloc(ptr, *cap * size);
    if (ptr == NULL)
        abort();
    return ptr;
}

void pieces_add(unsigned log, unsigned stream, unsigned file, uint32_t uid, struct slice text, bool is_final)
{
    struct chain *c = &s.chains[log * 2 + stream];
    c->p = grown(c->p, &c->cap, c->n + 1, sizeof(*c->p));
    s.texts = grown(s.texts, &s.cap, s.len + text.len, 1);
    const bool is_first = c->n == 0 || c->p[c->n - 1].is_final;
    c->p[c->n++] = (struct piece){ uid, (uint16_t)file, is_first, is_final, s.len, text.len };
    memcpy(s.texts + s.len, text.ptr, text.len);
    s.len += text.len;
}

void pieces_may_go(unsigned file, uint8_t outputs)
{
    s.gone[file] |= outputs;
    s.any_gone |= outputs;
}

/* ---- explaining what arrived ---- */

/* What is left to explain, and how it is written. */
struct text {
    struct slice rest;
    bool is_quoted; /* the message of a document */
};

struct search {
    const struct chain *chain;
    uint8_t bit;
    size_t used[64]; /* pieces, in their order */
    size_t n_used;
};

/* Only quotes are escaped; there are no other letters to escape. */
static bool eat(struct text *t, const struct piece *p)
{
    const char *from = s.texts + p->at;
    size_t at = 0;
    for (size_t i = 0; i < p->len; i++) {
        if (t->is_quoted && from[i] == '"' && (at >= t->rest.len || t->rest.ptr[at++] != '\\'))
            return false;
        if (at >= t->rest.len || t->rest.ptr[at++] != from[i])
            return false;
    }
    t->rest = slice_from(t->rest, at);
    return true;
}

static bool is_at_end(const struct text *t)
{
    return t->rest.len == 0 || (t->is_quoted && t->rest.ptr[0] == '"');
}

static bool is_gone(const struct search *q, size_t i)
{
    return (s.gone[q->chain->p[i].file] & q->bit) != 0;
}

/* The pieces of this file that end with piece i may have gone on from a half in another file, past what is gone. */
static bool has_half_before(const struct search *q, size_t i)
{
    const struct piece *p = q->chain->p;
    size_t k = i;
    while (k > 0 && p[k - 1].file == p[i].file && !p[k - 1].is_final)
        k--;
    for (; k > 0; k--) {
        if (!p[k - 1].is_final && p[k - 1].file != p[i].file)
            return true;
        if (!is_gone(q, k - 1))
            return false;
    }
    return false;
}

/* Between this piece and the next. */
static bool is_loose(const struct search *q, size_t i)
{
    const struct piece *p = q->chain->p;
    if (is_gone(q, i) || i + 1 == q->chain->n)
        return is_gone(q, i);
    return is_gone(q, i + 1) || (p[i].file != p[i + 1].file && has_half_before(q, i));
}

/* What follows piece i of the search. */
static bool goes_on(struct search *q, struct text t, size_t i)
{
    const struct piece *p = q->chain->p;
    if (is_at_end(&t))
        return p[i].is_final || is_loose(q, i);
    if (p[i].is_final || q->n_used == ARRAY_LEN(q->used))
        return false;
    for (size_t k = i + 1; k < q->chain->n; k++) {
        struct text after = t;
        if (eat(&after, &p[k])) {
            q->used[q->n_used++] = k;
            if (goes_on(q, after, k))
                return true;
            q->n_used--;
        }
        if (!is_gone(q, k) && (!is_gone(q, i) || p[k].file == p[i].file))
            return false;
    }
    return false;
}

/* As every record: from its first piece to its last, none left out. */
static bool is_whole(const struct search *q)
{
    const struct piece *p = q->chain->p;
    return p[q->used[0]].is_first && p[q->used[q->n_used - 1]].is_final && q->used[q->n_used - 1] - q->used[0] + 1 == q->n_used;
}

/* A record as it was written: two lines of one second may begin with the same half. */
static bool is_as_written(const struct chain *c, struct text t)
{
    for (size_t i = 0; i < c->n; i++) {
        struct text after = t;
        bool is_same = c->p[i].is_first && !c->p[i].is_final;
        for (size_t k = i; is_same && k < c->n; k++) {
            is_same = eat(&after, &c->p[k]);
            if (is_same && c->p[k].is_final && is_at_end(&after))
                return true;
            is_same = is_same && !c->p[k].is_final;
        }
    }
    return false;
}

static bool is_record_of(struct search *q, struct text t)
{
    const struct piece *p = q->chain->p;
    for (size_t i = 0; i < q->chain->n; i++) {
        struct text after = t;
        if ((p[i].is_first && p[i].is_final) || (!p[i].is_first && !is_loose(q, i - 1)) || !eat(&after, &p[i]))
            continue;
        q->used[0] = i;
        q->n_used = 1;
        if (goes_on(q, after, i) && !is_whole(q))
            return true;
    }
    return false;
}

static void may_miss(const struct search *q)
{
    for (size_t i = 0; i < q->n_used; i++) {
        struct line *l = &sim.lines[q->chain->p[q->used[i]].uid];
        l->may_miss |= (uint8_t)(q->bit & ~l->got);
    }
}

bool pieces_explain(unsigned slot, struct slice got)
{
    const struct slice key = SLICE("\"message\":\"");
    const ptrdiff_t at = (s.any_gone >> slot & 1) ? slice_find(got, key) : -1;
    struct text t = { at < 0 ? got : slice_from(got, (size_t)at + key.len), at >= 0 };
    for (size_t i = 0; (s.any_gone >> slot & 1) && i < ARRAY_LEN(s.chains); i++) {
        struct search q = { .chain = &s.chains[i], .bit = (uint8_t)(1u << slot) };
        if (is_as_written(q.chain, t))
            return false;
        if (is_record_of(&q, t)) {
            may_miss(&q);
            return true;
        }
    }
    return false;
}

/* ---- what nobody sees ---- */

/* A record's piece i is not its last: whose next pieces, and of what outputs, may it have taken? */
static void settle(const struct chain *c, size_t i, uint8_t outputs)
{
    for (size_t k = i + 1; k < c->n && outputs != 0; k++) {
        struct line *l = &sim.lines[c->p[k].uid];
        if (l != &sim.lines[c->p[i].uid])
            l->may_miss |= (uint8_t)(outputs & ~l->got);
        outputs &= s.gone[c->p[k].file] | s.gone[c->p[i].file];
    }
}

void pieces_settle(uint8_t choosy)
{
    for (size_t n = 0; (s.any_gone & choosy) != 0 && n < ARRAY_LEN(s.chains); n++)
        for (size_t i = 0; i < s.chains[n].n; i++)
            if (!s.chains[n].p[i].is_final)
                settle(&s.chains[n], i, choosy);
}
