/*
 * apply.h - a map of the configuration into a struct, by a table of settings (agent/base/setting.h).
 */
#ifndef TAILRACE_CONF_APPLY_H
#define TAILRACE_CONF_APPLY_H

#include "conf/loader.h"

/* Which keys a map may hold: those of some tables, and some more. */
struct keyset {
    const struct setting *tables[4]; /* NULL ends */
    const struct slice *more;
    size_t n_more;
};

/* Fills target by the table; map NULL stands for an empty one. Unknown keys are not its business. */
void apply_table(struct loader *ld, const struct setting *table, const struct node *map, void *target);
/* Reports keys that are not in the set, with "did you mean". x-* is allowed. */
void apply_check_keys(struct loader *ld, const struct node *map, const struct keyset *keys);

/* A map, where nothing (a key without a value) counts as an empty one; false: reported. NULL is an empty map
 * too. */
bool apply_is_map(struct loader *ld, const struct node *n);

/* Single values; false: reported. Paths must be entered already. */
bool apply_text(struct loader *ld, const struct node *n, struct slice *ret_text);
bool apply_bool(struct loader *ld, const struct node *n, bool *ret_value);
bool apply_strings(struct loader *ld, const struct node *n, struct slices *ret_strings);

#endif
