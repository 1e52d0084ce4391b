/*
 * backoff.h - how long to wait after the n-th refusal in a row.
 *
 * Full jitter between a floor and a ceiling that doubles: agents that failed together do not come back together, and
 * none comes back at once. Monotonic time only, so a jump of the wall clock neither hurries nor delays anything.
 */
#ifndef TAILRACE_DELIVER_BACKOFF_H
#define TAILRACE_DELIVER_BACKOFF_H

#include <stdint.h>

/* Every waiting time of the sender. Tests shorten them before sender_start; nothing else writes here. */
struct deliver_timing {
    int64_t backoff_min_ns;     /* 0.5 s */
    int64_t backoff_max_ns;     /* 60 s */
    int64_t hold_ns;            /* 60 s: the next attempt when the configuration is wrong */
    int64_t park_after_ns;      /* 30 s: a key refused for so long, others accepted: its frames are parked */
    int64_t cursor_ns;          /* 1 s: cursor synced, checkpoint of outputs on this machine */
    int64_t cursor_blocked_ns;  /* 100 ms: the same while the queue is full and waits for an unlink */
    int64_t job_retry_ns;       /* 5 s: a durable job that failed (disk full, EIO) is tried again */
    int64_t lane_idle_ns;       /* 60 s: an accepted lane without frames is forgotten */
};
extern struct deliver_timing deliver_timing;

/* A server may ask for at most this; more is taken for a mistake. */
#define RETRY_AFTER_MAX_NS (INT64_C(3600) * 1000000000)

/* attempt: failures in a row, from 1. rng: any state but 0, kept by the caller. */
int64_t backoff_delay_ns(unsigned attempt, uint64_t *rng);

/* The next number of a small generator (xorshift64*); never for secrets. */
uint64_t backoff_random(uint64_t *rng);
/* A state to start from, different in each process. */
uint64_t backoff_seed(void);

#endif
