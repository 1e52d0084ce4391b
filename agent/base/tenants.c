#include "agent/base/tenants.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "agent/base/must.h"

/* Two-level table so that names never move: readers need no lock. 4,096 x 256 = a million names, far above any
 * tenants.max; ids beyond are refused. */
#define PAGE_NAMES 256
#define PAGES 4096

static struct slice *_Atomic pages[PAGES];
static _Atomic uint32_t n_names;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t *table; /* open addressing, ids; 0 = free */
static size_t n_table;

static struct slice name_at(uint32_t id)
{
    struct slice *page = atomic_load_explicit(&pages[(id - 1) / PAGE_NAMES], memory_order_acquire);
    return page[(id - 1) % PAGE_NAMES];
}

static size_t slot_of(struct slice name)
{
    size_t i = slice_hash(name) & (n_table - 1);
    while (table[i] != 0 && !slice_eq(name_at(table[i]), name))
        i = (i + 1) & (n_table - 1);
    return i;
}

static bool table_grow(uint32_t used)
{
    size_t n_old = n_table;
    if (n_table != 0 && (size_t)used * 2 < n_table)
        return true;
    size_t n_new = n_old == 0 ? 64 : n_old * 2;
    uint32_t *bigger = calloc(n_new, sizeof(*bigger));
    if (bigger == NULL)
        return false;
    free(table);
    table = bigger;
    n_table = n_new;
    for (uint32_t id = 1; id <= used; id++)
        table[slot_of(name_at(id))] = id;
    return true;
}

static uint32_t add(struct slice name, uint32_t used)
{
    uint32_t page_index = used / PAGE_NAMES;
    if (page_index >= PAGES)
        return 0;
    struct slice *page = atomic_load(&pages[page_index]);
    if (page == NULL) {
        page = calloc(PAGE_NAMES, sizeof(*page));
        if (page == NULL)
            return 0;
        atomic_store_explicit(&pages[page_index], page, memory_order_release);
    }
    char *copy = slice_dup(name);
    if (copy == NULL)
        return 0;
    page[used % PAGE_NAMES] = slice_of(copy, name.len);
    return used + 1;
}

static uint32_t try_intern(struct slice name)
{
    pthread_mutex_lock(&lock);
    uint32_t used = atomic_load(&n_names), id = 0;
    if (table_grow(used)) {
        size_t slot = slot_of(name);
        id = table[slot];
        if (id == 0 && (id = add(name, used)) != 0) {
            table[slot] = id;
            atomic_store_explicit(&n_names, id, memory_order_release);
        }
    }
    pthread_mutex_unlock(&lock);
    return id;
}

uint32_t tenant_intern(struct slice name)
{
    struct must must = { 0 };
    uint32_t id;
    while ((id = try_intern(name)) == 0 && tenant_count() < PAGES * PAGE_NAMES)
        must_wait(&must); /* without an id a line would be another tenant's */
    return id;
}

struct slice tenant_name(uint32_t id)
{
    if (id == 0 || id > atomic_load_explicit(&n_names, memory_order_acquire))
        return SLICE("");
    return name_at(id);
}

uint32_t tenant_count(void)
{
    return atomic_load_explicit(&n_names, memory_order_acquire);
}
