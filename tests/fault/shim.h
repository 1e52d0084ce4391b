/*
 * shim.h - the page that the driver and the preloaded shim share. The driver makes the file, fills it and may change it
 * at any time (a fault is lifted by `armed` = 0, a clock jumps by `clock_offset_ns`); the shim counts in it. It is a
 * mapped file, so what was counted is there after SIGKILL. fault.py packs and reads it by these offsets.
 */
#ifndef TAILRACE_TESTS_FAULT_SHIM_H
#define TAILRACE_TESTS_FAULT_SHIM_H

#include <stdatomic.h>
#include <stdint.h>

enum { SHIM_KINDS = 50 };

struct shim_count {
    char name[24]; /* of the call, "pwritev" */
    _Atomic uint64_t n;
};

struct shim_page {
    _Atomic uint32_t armed; /* 0: calls pass, and are counted by kind only */
    _Atomic uint32_t hits;  /* faults played */
    uint64_t nth;           /* the first matching call that is hit, from 1 on */
    _Atomic uint64_t matched;
    uint64_t times; /* how many calls from nth on are hit; 0: all */
    _Atomic int64_t clock_offset_ns;
    _Atomic int64_t clock_frozen_ns; /* not 0: what the wall clock always says */
    char action[16];                 /* "entry", "exit" (SIGKILL there), "errno", "short", "delay" */
    int32_t err;
    uint32_t delay_ms;
    uint64_t pad0;
    char calls[400];   /* 80: names with commas, or "*" */
    char where[24];    /* 480: of "state", "logs", "archive", "other", "net", "mem" */
    char roots[3][128]; /* 504: state_dir, logs, archive: paths, without a slash at the end */
    char hit_call[24];  /* 888: of the first hit */
    char hit_thread[16];
    char hit_path[224];
    uint64_t pad1[95];
    struct shim_count counts[SHIM_KINDS]; /* 1912 */
};

_Static_assert(sizeof(struct shim_page) <= 4096, "one page");

#endif
