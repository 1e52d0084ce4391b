/*
 * table.h - an intrusive hash table: links live inside the things that are found.
 *
 * Owns: its slots only. Growing may fail and then the chains get longer; adding never fails.
 */
#ifndef TAILRACE_TAIL_TABLE_H
#define TAILRACE_TAIL_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/macros.h"

struct link {
    struct link *next;
    uint32_t hash; /* its lower half: enough to pass over most of those that are not meant */
    bool is_in;    /* in a table right now */
    bool is_other; /* the owner's, for a table of two kinds: to be set after table_add() */
};

struct table {
    struct link **slots;
    size_t n_slots; /* a power of two */
    size_t n;
};

NODISCARD int table_init(struct table *t);
void table_deinit(struct table *t); /* zeroed is fine; the links are the owners' */
void table_add(struct table *t, struct link *l, uint64_t hash);
void table_del(struct table *t, struct link *l); /* not being in is fine */
/* All links of this hash, newest first, perhaps with others between: the caller compares keys. */
struct link *table_first(const struct table *t, uint64_t hash);
struct link *table_next(const struct link *l);

#endif
