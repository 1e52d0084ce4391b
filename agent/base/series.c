#include "agent/base/series.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/budget.h"
#include "agent/base/must.h"

#define SLOTS 1024

struct node {
    struct series series; /* first */
    const struct series_family *family;
    struct node *in_slot, *next;
    struct slice values[SERIES_LABELS_MAX];
};

struct series_family {
    struct slice name, help, labels[SERIES_LABELS_MAX];
    size_t n_labels, n_series;
    unsigned n_users; /* 0: not shown */
    struct node *newest, *other;
    struct series_family *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct series_family *first_family;
static struct node *slots[SLOTS];

static struct slice copy(struct slice s)
{
    char *to = must_alloc(s.len);
    if (s.len > 0)
        memcpy(to, s.ptr, s.len);
    return slice_of(to, s.len);
}

static bool is_family(const struct series_family *f, struct slice name, const struct slice *labels, size_t n)
{
    bool is_it = slice_eq(f->name, name) && f->n_labels == n;
    for (size_t i = 0; i < n && is_it; i++)
        is_it = slice_eq(f->labels[i], labels[i]);
    return is_it;
}

static struct series_family *family_new(struct slice name, struct slice help, const struct slice *labels, size_t n)
{
    struct series_family *f = must_alloc(sizeof(*f));
    f->name = copy(name);
    f->help = copy(help);
    f->n_labels = n;
    for (size_t i = 0; i < n; i++)
        f->labels[i] = copy(labels[i]);
    return f;
}

struct series_family *series_family(struct slice name, struct slice help, const struct slice *labels, size_t n_labels)
{
    struct series_family **end = &first_family;
    size_t n = 0;
    pthread_mutex_lock(&lock);
    for (; *end != NULL && !is_family(*end, name, labels, n_labels); end = &(*end)->next)
        n++;
    if (*end == NULL && n < SERIES_FAMILIES_MAX)
        *end = family_new(name, help, labels, n_labels);
    struct series_family *f = *end;
    if (f != NULL)
        f->n_users++;
    pthread_mutex_unlock(&lock);
    return f;
}

void series_hide(struct series_family *f)
{
    pthread_mutex_lock(&lock);
    f->n_users--;
    pthread_mutex_unlock(&lock);
}

static struct slice value_of(struct slice v)
{
    return slice_first(v, MIN(v.len, (size_t)SERIES_VALUE_MAX));
}

static size_t slot_of(const struct series_family *f, const struct slice *values)
{
    uint64_t h = (uintptr_t)f >> 4;
    for (size_t i = 0; i < f->n_labels; i++)
        h = h * 31 + slice_hash(value_of(values[i]));
    return h % SLOTS;
}

static struct node *find(const struct series_family *f, const struct slice *values, size_t slot)
{
    for (struct node *n = slots[slot]; n != NULL; n = n->in_slot) {
        bool is_it = n->family == f;
        for (size_t i = 0; i < f->n_labels && is_it; i++)
            is_it = slice_eq(n->values[i], value_of(values[i]));
        if (is_it)
            return n;
    }
    return NULL;
}

static struct node *node_new(struct series_family *f, const struct slice *values)
{
    struct node *n = must_alloc(sizeof(*n));
    n->family = f;
    for (size_t i = 0; i < f->n_labels; i++) {
        n->values[i] = copy(value_of(values[i]));
        budget_took(ACCOUNT_OF(MEMORY_STREAMS), (void *)(uintptr_t)n->values[i].ptr);
    }
    n->next = f->newest;
    f->newest = n;
    budget_took(ACCOUNT_OF(MEMORY_STREAMS), n);
    return n;
}

/* Beyond the bound; in no slot, for no line has such values. */
static struct node *other_of(struct series_family *f)
{
    struct slice values[SERIES_LABELS_MAX];
    for (size_t i = 0; i < f->n_labels; i++)
        values[i] = SLICE("_other");
    if (f->other == NULL)
        f->other = node_new(f, values);
    return f->other;
}

struct series *series_get(struct series_family *f, const struct slice *values, size_t max)
{
    const size_t slot = slot_of(f, values);
    pthread_mutex_lock(&lock);
    struct node *n = find(f, values, slot);
    if (n == NULL && f->n_series >= max) {
        n = other_of(f);
    } else if (n == NULL) {
        n = node_new(f, values);
        n->in_slot = slots[slot];
        slots[slot] = n;
        f->n_series++;
    }
    pthread_mutex_unlock(&lock);
    return &n->series;
}

void series_each(const struct series_seen *to)
{
    pthread_mutex_lock(&lock);
    for (struct series_family *f = first_family; f != NULL; f = f->next) {
        if (f->n_users == 0)
            continue;
        to->family(to->ctx, f->name, f->help);
        for (const struct node *n = f->newest; n != NULL; n = n->next)
            to->series(to->ctx, f->name, f->labels, n->values, f->n_labels, counter_get(&n->series.value));
    }
    pthread_mutex_unlock(&lock);
}
