/*
 * pattern.h - the globs of include and exclude: path parts with `*`, `?`, `[a-z]`, `[!x]`, `\x`; `**` for any
 * folders;
 * `<name>` for one part or a piece of it, never empty, kept as {path.name}.
 *
 * Wildcards never cross a '/'. Where a text can be split in more than one way, earlier ones take as much as
 * they can:
 * "<container>-<id>.log" splits at the last '-'.
 */
#ifndef TAILRACE_TAIL_PATTERN_H
#define TAILRACE_TAIL_PATTERN_H

#include <stdbool.h>
#include <stddef.h>

#include "agent/base/err.h"
#include "agent/base/record.h"

#define PATTERN_PARTS_MAX 64
#define PATTERN_CAPTURES_MAX 16

struct pattern;

/* glob is copied. A relative one ("*.gz") matches below any folder. -EINVAL with a sentence, -ENOMEM. */
NODISCARD int pattern_parse(struct slice glob, struct pattern **ret_pattern, struct err *err);
void pattern_free(struct pattern *p);
struct slice pattern_text(const struct pattern *p);

size_t pattern_n_parts(const struct pattern *p);
bool pattern_part_is_any_depth(const struct pattern *p, size_t part);
bool pattern_part_is_constant(const struct pattern *p, size_t part);
struct slice pattern_part_text(const struct pattern *p, size_t part); /* of a constant one: the name itself */
bool pattern_part_matches(const struct pattern *p, size_t part, struct slice name);

/* Does the whole path match? caps: PATTERN_CAPTURES_MAX pairs that borrow from p and path, or NULL. */
bool pattern_match(const struct pattern *p, struct slice path, struct pair *caps, size_t *ret_n_caps);
/* Does the path or one of the folders it lies in match? For excludes. */
bool pattern_covers(const struct pattern *p, struct slice path);

#endif
