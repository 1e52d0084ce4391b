/*
 * stall.h - queues with frames that nobody tries to send, watched from another thread: whatever keeps the sender from
 * moving (a wake-up that was lost, a place it forgot), it is said within 5 s, and the sender is told to look anew.
 * Files that should be read are watched by the tail itself (tail/stall.c).
 *
 * What explains the wait is no stall: a server that fails, a key that is held, a request on its way.
 *
 * Threads: main.
 */
#ifndef TAILRACE_AGENT_STALL_H
#define TAILRACE_AGENT_STALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/stats.h"

/* Two looks apart at least: with a look each second the third second tells. */
#define QUEUE_STALL_NS (3 * NS_PER_SEC)

struct stall {
    int64_t since_ns; /* monotonic: frames wait and nothing has moved since; 0 = no */
    uint64_t acked, attempts;
    bool is_told;
};

struct stall_facts {
    uint64_t durable, acked;  /* of the queue: frames wait when they differ */
    uint64_t attempts;        /* requests begun, ever */
    enum output_waits waits;  /* what the sender waits for, as it said last */
};

enum stall_news { STALL_NOTHING, STALL_BEGINS, STALL_GOES_ON, STALL_ENDS };

/* STALL_BEGINS and then, each QUEUE_STALL_NS, STALL_GOES_ON: time to kick. STALL_ENDS once after these. */
enum stall_news stall_look(struct stall *s, const struct stall_facts *facts, int64_t mono_ns);

#endif
