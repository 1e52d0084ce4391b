/*
 * lane.h - one route key of one output: is it accepted, when may it be tried, what waits for it.
 *
 *                 refused (429, 5xx)              refused (401, 403, 404 …)
 *   ACCEPTED ────────────────────────▶ BACKOFF ──────────────────────────▶ HELD
 *      ▲  up to 4 in flight             │  one in flight, 0.5 s … 60 s      │  one in flight, each 60 s
 *      └────────────────────────────────┴──────────── accepted ────────────┘
 *
 * Threads: the sender's.
 */
#ifndef TAILRACE_DELIVER_LANE_H
#define TAILRACE_DELIVER_LANE_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/slice.h"
#include "agent/queue/queue.h"

#define LANE_IN_FLIGHT 4
#define LANE_BUCKETS 256

struct delivery;
struct frame;
struct part;

enum lane_state { LANE_ACCEPTED, LANE_BACKOFF, LANE_HELD };

/* Parked frames of a lane, oldest first. */
struct parked {
    struct frame_head *heads; /* ring in a growing array: [first, first + n) */
    size_t first, n, cap;
    uint64_t bytes;
};

struct lane {
    struct lane *next_in_bucket;
    struct lane *next, *prev;     /* all lanes of the output, a ring */
    struct delivery *d;
    char *key;
    size_t key_len;
    uint64_t id;                  /* never reused */

    enum lane_state state;
    unsigned in_flight;
    bool is_alone_in_flight;      /* a frame that may not have company is in flight */
    int64_t flight_built_ns;      /* of a frame in flight */
    unsigned attempt;             /* refusals in a row */
    int64_t next_ns;              /* not before, when refused */
    int64_t refused_ns;           /* since */
    int64_t accepted_ns;          /* last time */
    bool is_told;                 /* key.held was logged and counted under reason */
    int32_t status;
    char reason[64], text[320];   /* of the last refusal */
    char told_reason[64];

    struct part *first, *last;    /* waiting, by seq */
    size_t n_waiting;
    uint32_t n_frames;            /* frames in the window whose route this is */

    struct parked parked;         /* not yet taken up again */
    unsigned n_unparked;          /* parked frames that are frames again: waiting, in flight, being unlinked */
    unsigned n_parking;           /* jobs that park frames */
    int64_t park_not_before_ns;   /* a parking job failed */
};

static inline struct slice lane_key(const struct lane *l)
{
    return slice_of(l->key, l->key_len);
}

/* Found, or made; NULL = out of memory. */
struct lane *lane_get(struct delivery *d, struct slice key);
struct lane *lane_find(const struct delivery *d, struct slice key);
void lane_free(struct lane *l); /* takes it out of its output; it must be idle, or the sender is ending */
/* Nothing waits, flies or is parked, and it is accepted for a while: it can be made again. */
bool lane_is_forgettable(const struct lane *l, int64_t now);

/* Keeps the order by frame and first line; parked frames are before those of the queue. */
void lane_add(struct lane *l, struct part *p);
void lane_remove(struct lane *l, struct part *p);

/* A request was answered with yes. Logs key.released when it was held. */
void lane_accept(struct lane *l, int64_t now);
/* A request was refused: wait. retry_after_ns < 0: none. Returns the delay from now. */
int64_t lane_refuse(struct lane *l, bool is_hold, int32_t status, const char *reason, const char *text,
                    int64_t retry_after_ns, int64_t now);
/* One request at a time from now on, without a delay: the refusal was about some of the lines. Why is told when it lasts. */
void lane_narrow(struct lane *l, int32_t status, const char *reason, const char *text, int64_t now);
/* May one more request of this lane begin, as far as the lane is concerned? */
bool lane_may_send(const struct lane *l, int64_t now);
/* May f go out beside what of this lane is in flight? */
bool lane_takes_company(const struct lane *l, const struct frame *f);
void lane_in_flight(struct lane *l, const struct frame *f); /* it goes out */
/* Says key.held, once per refusal period: at once when held, after park_after_ns when backing off. */
void lane_tell(struct lane *l, int64_t now);

NODISCARD int parked_push(struct parked *p, const struct frame_head *head);
bool parked_pop(struct parked *p, struct frame_head *ret_head);
static inline bool lane_has_parked(const struct lane *l)
{
    return l->parked.n > 0 || l->n_unparked > 0 || l->n_parking > 0;
}

#endif
