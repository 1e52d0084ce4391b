/*
 * timestamp.h - the times that loggers write -> UTC nanoseconds.
 *
 *   2026-01-02T15:04:05.678901234Z   also +01:00 +0100 +01, a space for T, a comma fraction, / in the date (nginx, Go)
 *   2026-01-02 15:04:05.678 CET      a zone's name behind a space (PostgreSQL); without any offset: the input's timezone
 *   Jan  2 15:04:05                  RFC 3164; the year is the one that brings it nearest to now. Also Jan  2 2026 …
 *   02/Jan/2026:15:04:05 +0000       nginx and Apache; php-fpm's 02-Jan-2026 15:04:05
 *   Fri Jan 02 15:04:05.678901 2026 · Fri, 02 Jan 2026 15:04:05 GMT · 02 Jan 2026 15:04:05.678
 *   1767323045 · …678 · …678901 · …678901234 · 1767323045.678901 · 1.7673e9    epochs, by magnitude
 *
 * Fractions of any length; digits behind the ninth are dropped. A second 60 is the next minute's 0. Years 1678 to 2261.
 */
#ifndef TAILRACE_PARSERS_TIMESTAMP_H
#define TAILRACE_PARSERS_TIMESTAMP_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/slice.h"
#include "parsers/zone.h"

struct timestamp_env {
    const struct zone *zone; /* for times without an offset */
    int64_t now_ns;          /* for times without a year */
};

/* Bytes of the time that s begins with, 0 when it begins with none. Never an epoch: text may begin with any number. */
size_t timestamp_scan(const struct timestamp_env *env, struct slice s, int64_t *ret_ns);

/* The whole of s, blanks around it allowed, is a time of any form above. */
bool timestamp_parse(const struct timestamp_env *env, struct slice s, int64_t *ret_ns);

/* A decimal number, JSON's grammar: below 1e11 seconds, 1e14 milli-, 1e17 micro-, else nanoseconds. What would be a
 * time before 1973 is a number that happens to be called time (a duration): false. */
bool timestamp_from_number(struct slice s, int64_t *ret_ns);

/* RFC 3339 with its offset, nothing else (CRI, Docker). Bytes, 0 = not one. */
size_t timestamp_rfc3339(struct slice s, int64_t *ret_ns);

/* klog's and glog's 0102 15:04:05.678901. */
size_t timestamp_scan_klog(const struct timestamp_env *env, struct slice s, int64_t *ret_ns);

#endif
