/*
 * zone_rule.h - a POSIX TZ rule: "CET-1CEST,M3.5.0,M10.5.0/3", "<+03>-3". The last line of a TZif file holds one, for the
 * years behind its table.
 */
#ifndef TAILRACE_PARSERS_ZONE_RULE_H
#define TAILRACE_PARSERS_ZONE_RULE_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/slice.h"

enum zone_day { ZONE_DAY_MONTH, ZONE_DAY_JULIAN, ZONE_DAY_ZERO }; /* Mm.w.d, Jn (no leap day), n */

struct zone_change {
    enum zone_day kind;
    unsigned month, week, day; /* day: of the week for M, of the year otherwise */
    int32_t time_s;            /* local; -167 h .. 167 h */
};

struct zone_rule {
    struct slice std_name, dst_name; /* borrowed from the text */
    int32_t std_offset, dst_offset;  /* seconds east */
    bool has_dst;
    struct zone_change start, end;
};

bool zone_rule_parse(struct slice text, struct zone_rule *ret_rule);

/* Local seconds since the epoch, by the clock before the change. */
int64_t zone_rule_at(const struct zone_change *change, int64_t year);

#endif
