/*
 * match.h - { tenant: [acme, "g*"], level: error, not: { namespace: "test-*" } }: all keys must hold, any of a list
 * suffices, values are globs over the whole value; a key under `not` must not match, each for itself. A value that is
 * missing matches only "": so "*" asks for the key to be there. Keys: tenant namespace pod container service input level module
 * message record.KEY.
 */
#ifndef TAILRACE_BASE_MATCH_H
#define TAILRACE_BASE_MATCH_H

#include <stdbool.h>

#include "agent/base/template.h"

struct match; /* compiled; read-only */

struct match *match_new(void);
/* One key with its globs (copied). -EINVAL for a name that cannot be matched. */
NODISCARD int match_add(struct match *m, struct slice name, const struct slice *globs, size_t n_globs, bool is_not,
                        struct wanted_keys *w, struct err *err);
void match_free(struct match *m);
/* The i-th condition as it was added, for printing; false beyond the last. Slices live as long as the match. */
bool match_condition(const struct match *m, size_t i, struct slice *ret_name, const struct slice **ret_globs,
                     size_t *ret_n_globs, bool *ret_is_not);
bool match_is_static(const struct match *m); /* decided by the origin alone */
bool match_eval(const struct match *m, const struct record *rec); /* NULL matches all */

#endif
