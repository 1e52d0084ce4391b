#include "agent/tail/table.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define SLOTS_FIRST 64

int table_init(struct table *t)
{
    *t = (struct table){ .slots = calloc(SLOTS_FIRST, sizeof(*t->slots)), .n_slots = SLOTS_FIRST };
    return t->slots == NULL ? -ENOMEM : 0;
}

void table_deinit(struct table *t)
{
    free(t->slots);
    *t = (struct table){ 0 };
}

static void grow(struct table *t)
{
    size_t n = t->n_slots * 2;
    struct link **slots = calloc(n, sizeof(*slots));
    if (slots == NULL)
        return; /* longer chains are slower, not wrong */
    for (size_t i = 0; i < t->n_slots; i++) {
        for (struct link *l = t->slots[i], *next; l != NULL; l = next) {
            next = l->next;
            l->next = slots[l->hash & (n - 1)];
            slots[l->hash & (n - 1)] = l;
        }
    }
    free(t->slots);
    t->slots = slots;
    t->n_slots = n;
}

void table_add(struct table *t, struct link *l, uint64_t hash)
{
    assert(!l->is_in);
    if (t->n >= t->n_slots)
        grow(t);
    struct link **slot = &t->slots[hash & (t->n_slots - 1)];
    *l = (struct link){ .next = *slot, .hash = (uint32_t)hash, .is_in = true };
    *slot = l;
    t->n++;
}

void table_del(struct table *t, struct link *l)
{
    if (!l->is_in)
        return;
    struct link **p = &t->slots[l->hash & (t->n_slots - 1)];
    while (*p != l) {
        assert(*p != NULL);
        p = &(*p)->next;
    }
    *p = l->next;
    l->next = NULL;
    l->is_in = false;
    t->n--;
}

struct link *table_first(const struct table *t, uint64_t hash)
{
    struct link *l = t->slots[hash & (t->n_slots - 1)];
    while (l != NULL && l->hash != (uint32_t)hash)
        l = l->next;
    return l;
}

struct link *table_next(const struct link *l)
{
    uint32_t hash = l->hash;
    struct link *next = l->next;
    while (next != NULL && next->hash != hash)
        next = next->next;
    return next;
}
