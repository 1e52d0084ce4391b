#include "agent/base/shared.h"

#include <assert.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "agent/base/budget.h"

#define SLOTS_FIRST 64

struct text {
    struct text *next;
    uint32_t hash, n_users, len;
    char ptr[];
};

static struct {
    pthread_mutex_t lock;
    struct text **slots;
    size_t n_slots, n;
} all = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* It may fail, and then the chains get longer; only without any slots nothing can be kept. */
static void grow(void)
{
    size_t n = all.n_slots == 0 ? SLOTS_FIRST : all.n_slots * 2;
    struct text **slots = calloc(n, sizeof(struct text *));
    if (slots == NULL)
        return;
    for (size_t i = 0; i < all.n_slots; i++)
        for (struct text *t = all.slots[i], *next; t != NULL; t = next) {
            next = t->next;
            t->next = slots[t->hash & (n - 1)];
            slots[t->hash & (n - 1)] = t;
        }
    free(all.slots);
    all.slots = slots;
    all.n_slots = n;
}

static struct text *find(struct slice s, uint32_t hash)
{
    struct text *t = all.n_slots == 0 ? NULL : all.slots[hash & (all.n_slots - 1)];
    while (t != NULL && (t->hash != hash || !slice_eq(slice_of(t->ptr, t->len), s)))
        t = t->next;
    return t;
}

static struct text *add(struct slice s, uint32_t hash)
{
    if (all.n >= all.n_slots)
        grow();
    struct text *t = all.n_slots == 0 ? NULL : malloc(MAX(sizeof(*t), offsetof(struct text, ptr) + s.len + 1));
    if (t == NULL)
        return NULL;
    *t = (struct text){ .next = all.slots[hash & (all.n_slots - 1)], .hash = hash, .len = (uint32_t)s.len };
    if (s.len > 0)
        memcpy(t->ptr, s.ptr, s.len);
    t->ptr[s.len] = '\0';
    all.slots[hash & (all.n_slots - 1)] = t;
    all.n++;
    budget_took(ACCOUNT_OF(MEMORY_FILES), t);
    return t;
}

const char *shared_text(struct slice s)
{
    if (s.len >= UINT32_MAX)
        return NULL;
    const uint32_t hash = (uint32_t)slice_hash(s);
    pthread_mutex_lock(&all.lock);
    struct text *t = find(s, hash);
    if (t == NULL)
        t = add(s, hash);
    if (t != NULL)
        t->n_users++;
    pthread_mutex_unlock(&all.lock);
    return t == NULL ? NULL : t->ptr;
}

static void forget(struct text *t)
{
    struct text **link = &all.slots[t->hash & (all.n_slots - 1)];
    while (*link != t)
        link = &(*link)->next;
    *link = t->next;
    budget_free(ACCOUNT_OF(MEMORY_FILES), t);
    if (--all.n > 0)
        return;
    free(all.slots);
    all.slots = NULL;
    all.n_slots = 0;
}

void shared_drop(const char *text)
{
    if (text == NULL)
        return;
    struct text *t = CONTAINER_OF((uintptr_t)text, struct text, ptr);
    pthread_mutex_lock(&all.lock);
    assert(t->n_users > 0);
    if (--t->n_users == 0)
        forget(t);
    pthread_mutex_unlock(&all.lock);
}
