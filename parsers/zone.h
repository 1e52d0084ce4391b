/*
 * zone.h - a timezone as a table: for times that were written without an offset.
 *
 * Names: "UTC", "local" (TZ, else /etc/localtime, else UTC), fixed offsets "+02:00" "-0330" "+2", IANA names from
 * /usr/share/zoneinfo (or $TZDIR). Files are read once, by zone_load; the rule behind a file's last transition is
 * worked out up to the year 2200. glibc's own tables are not used: they are one per process, ours one per input.
 */
#ifndef TAILRACE_PARSERS_ZONE_H
#define TAILRACE_PARSERS_ZONE_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/err.h"
#include "agent/base/slice.h"

struct zone;

/* -EINVAL for a name that is none, -ENOENT for one that is not installed, -EBADMSG for a damaged file, -ENOMEM. */
NODISCARD int zone_load(struct slice name, struct zone **ret_zone, struct err *err);
/* From the bytes of a TZif file. */
NODISCARD int zone_from_tzif(struct slice tzif, struct zone **ret_zone);
void zone_free(struct zone *z);

/* Seconds east of Greenwich at this moment. */
int32_t zone_offset(const struct zone *z, int64_t utc_s);

/* Local wall-clock seconds (days * 86400 + time of day) -> UTC seconds. An hour that comes twice counts as its first
 * coming; one that is skipped counts by the offset before it. */
int64_t zone_to_utc(const struct zone *z, int64_t local_s);

/* The offset that an abbreviation (CET, EST) stands for in this zone. */
bool zone_abbreviation(const struct zone *z, struct slice abbreviation, int32_t *ret_offset);

#endif
