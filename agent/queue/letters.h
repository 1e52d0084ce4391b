/*
 * letters.h - what a person decides about lines that were not delivered: dead letters are sent again or given up, a
 * frame is passed over. For the command line: the queue is open, and no writer or sender runs.
 *
 * Each step is durable before the next, and what a crash cuts short is finished by the next open: a letter is in the
 * queue again once, or it is still a letter.
 */
#ifndef TAILRACE_QUEUE_LETTERS_H
#define TAILRACE_QUEUE_LETTERS_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/err.h"
#include "agent/queue/queue.h"

enum letter_fate { LETTER_OPEN, LETTER_RESENT, LETTER_DROPPED };
const char *letter_fate_name(enum letter_fate f);

struct letter {
    struct letter_id id;
    struct frame_orig orig;
    struct slice route;
    uint32_t lines;
};

struct letters_result {
    uint64_t letters, lines; /* settled */
    uint64_t unsettled;      /* left: the frame they are from is still in the queue and comes again by itself */
    uint64_t foreign;        /* left: bodies for another type of output */
    uint64_t damaged;        /* left: cannot be read */
};

/* All open letters that wants() says yes to, in the order they were written. RESENT: frames at the queue's end; DROPPED:
 * they stay counted as dead and are no longer listed. Whole files of settled letters are removed. -ENOSPC: no room for
 * more; *ret tells how far it came, also on failure. */
NODISCARD int queue_letters_settle(struct queue *q, enum letter_fate fate, bool (*wants)(void *ctx, const struct letter *l),
                                   void *ctx, struct letters_result *ret);

/* Gives up one frame that waits or is parked, by its seq: its lines are counted lost{dropped}, a copy goes to quarantine/,
 * then the cursor passes it. -ENOENT: there is none that waits; -ERANGE: it is too far beyond the cursor. */
NODISCARD int queue_skip(struct queue *q, uint64_t seq, uint32_t *ret_lines);

#endif
