/*
 * clock.h - the only door to time. Monotonic for waiting, wall clock inside records and for people.
 */
#ifndef TAILRACE_BASE_CLOCK_H
#define TAILRACE_BASE_CLOCK_H

#include <stdint.h>

#include "agent/base/buf.h"

int64_t clock_mono_ns(void);
int64_t clock_wall_ns(void);
int64_t clock_cpu_ns(void); /* processor time that this process has taken, all threads */

/* A clock under test: both in ns. NULL brings the real one back. Single-threaded use only. */
void clock_set_source(int64_t (*mono_ns)(void), int64_t (*wall_ns)(void));

/* Days since 1970-01-01 of a civil date (proleptic Gregorian), and back. */
int64_t clock_days_from_civil(int64_t year, unsigned month, unsigned day);
void clock_civil_from_days(int64_t days, int64_t *ret_year, unsigned *ret_month, unsigned *ret_day);

/* Appends "2026-01-02T03:04:05.678901234Z"; digits 0..9 of the fraction. */
NODISCARD int clock_append_rfc3339(struct buf *b, int64_t wall_ns, unsigned digits);

#endif
