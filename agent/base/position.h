/*
 * position.h - which file, and how far: what a commit group carries beside its lines (queue.md §1, §2).
 */
#ifndef TAILRACE_BASE_POSITION_H
#define TAILRACE_BASE_POSITION_H

#include <stdint.h>

#include "agent/base/limits.h"
#include "agent/base/slice.h"

/* A file in one of its lives: a truncation or a reused inode starts a new incarnation (random, the key everywhere). */
struct file_ident {
    uint64_t incarnation;
    uint64_t dev, ino, generation; /* generation 0 = the filesystem has none */
    int64_t btime_ns;              /* 0 = unknown */
    uint32_t fp_len;               /* fingerprint: CRC-32 of the first fp_len bytes, ≤ FINGERPRINT_BYTES */
    uint32_t fp_crc;
    int64_t first_seen_ns;         /* wall clock, see ident_seen_now() */
    struct slice path;             /* last known */
    struct slice input;            /* name of the input */
};

enum position_flag {
    POSITION_SKIP_TO_NEWLINE = 1 << 0, /* end lies inside a line that was cut: the rest up to LF is not a line */
    POSITION_FINISHED = 1 << 1,        /* read to its end and closed; kept so that a rotated copy is known */
    POSITION_PASSED = 1 << 2,          /* finished durably for every output: one that knows it no more is done with it */
    POSITION_HEAD_UNKNOWN = 1 << 3     /* began at the file's end, or lines were given up: head_crc says nothing */
};

/* A record unfinished below `end`: only this stream is read again from start. */
struct position_part {
    uint8_t stream; /* enum record_stream */
    uint64_t start;
};

struct file_position {
    uint64_t incarnation;
    uint32_t flags;
    uint64_t start, end; /* this group covers [start, end) */
    uint32_t head_crc;   /* CRC-32 of bytes [0, end): for adopting a moved or compressed copy */
    uint32_t tail_crc;   /* CRC-32 of the last tail_len bytes before end */
    uint16_t tail_len;   /* ≤ TAIL_CRC_BYTES */
    uint8_t n_parts;
    struct position_part parts[STREAMS_MAX];
};

#endif
