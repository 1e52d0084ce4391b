/*
 * size.h - sizes, durations and points in time as people write them, and back.
 */
#ifndef TAILRACE_CONF_SIZE_H
#define TAILRACE_CONF_SIZE_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/slice.h"

/* 4096, 4096B, 1MiB, 512Ki, 10MB, 1.5GiB: KiB MiB GiB TiB (or Ki Mi Gi Ti) count in 1024, kB MB GB TB in
 * 1000. */
NODISCARD bool size_parse(struct slice text, uint64_t *ret_bytes);
/* 200ms 1s 1.5h 1h30m 7d 2w, 0; ns us ms s m h d w. */
NODISCARD bool duration_parse(struct slice text, int64_t *ret_ns);
/* 2026-01-02, 2026-01-02T03:04:05.678Z, 2026-01-02 03:04+02:00: RFC 3339; a date alone is its midnight in
 * UTC. */
NODISCARD bool wall_time_parse(struct slice text, int64_t *ret_wall_ns);
/* 25% or 25, in 0..100. */
NODISCARD bool percent_parse(struct slice text, unsigned *ret_percent);

/* The largest unit that is exact: 1GiB, 1500000; 200ms, 90s, 0s. What is parsed again is equal. */
NODISCARD int size_append(struct buf *b, uint64_t bytes);
NODISCARD int duration_append(struct buf *b, int64_t ns);

#endif
