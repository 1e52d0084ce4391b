/*
 * deliver.h - what the files of this folder share: the sender, and what it keeps for each output (a delivery).
 *
 * Not for use outside agent/deliver. Everything here belongs to the sender thread but for the fields marked.
 */
#ifndef TAILRACE_DELIVER_DELIVER_H
#define TAILRACE_DELIVER_DELIVER_H

#include <pthread.h>
#include <stdatomic.h>

#include "agent/base/inbox.h"
#include "agent/deliver/backoff.h"
#include "agent/deliver/pending.h"
#include "agent/deliver/http.h"
#include "agent/deliver/lane.h"
#include "agent/deliver/sender.h"

/* Frames of one output in our hands: enough to look past a key that is refused, little enough to remember. */
#define WINDOW_FRAMES 1024
/* Frames loaded ahead of their turn in lanes that are accepted: enough to join small ones. */
#define LOOKAHEAD_FRAMES 32
#define URLS_MAX 16
/* Frames in one joined request. */
#define JOIN_FRAMES_MAX 32
/* Parking jobs of one output at a time. */
#define PARKING_MAX 4
/* Frames read per output and turn: the others wait meanwhile. */
#define PULLS_PER_TURN 64

/* One URL of an output. With failures in a row it is tried by one request at a time. */
struct endpoint {
    unsigned attempt;
    int64_t not_before_ns;
    bool is_probing;
};

struct local; /* local.c */
struct job;

struct delivery {
    struct sender *s;
    struct output *out;
    struct queue *q;
    const struct output_conf *conf;
    struct output_stats *st;
    struct http_target *target;      /* NULL for outputs on this machine */
    struct endpoint urls[URLS_MAX];
    size_t n_urls;
    uint8_t account;                 /* of bodies, requests and replies in memory */
    unsigned in_flight;
    struct shipment *shipments;      /* in flight */

    unsigned setup_step, setup_tries;
    bool is_setup_done, is_setup_sent;
    char setup_error[400];           /* why the last step was refused */

    uint64_t parked_iter;            /* where we are in the queue's list of parked frames */
    struct frame_head fresh[2 * PARKING_MAX]; /* parked just now, their jobs not looked at yet */
    size_t n_fresh;
    bool is_parked_known;

    struct lane *buckets[LANE_BUCKETS];
    struct lane *lanes;              /* ring; where the next round begins */
    size_t n_lanes;
    uint64_t next_lane_id;
    struct frame *first, *last;      /* the window */
    size_t n_frames;
    size_t n_ahead;                  /* parts waiting in lanes that are accepted */
    struct frame_head next;          /* taken from the queue, not in the window yet */
    bool has_next;
    int64_t pull_not_before_ns;      /* a read failed */
    atomic_bool is_kicked;           /* any thread */
    int64_t begun_ns;                /* the last request */
    int64_t swept_ns;                /* lanes looked through for idle ones */
    unsigned n_parking;
    unsigned n_undropped;            /* parked frames that are to be given up and could not be yet */
    struct local *local;

    /* The last two different lanes that were accepted: "others are accepted" without asking all. */
    uint64_t accept_lane[2];
    int64_t accept_ns[2];
    int64_t passed_ns;               /* when that request began, of those accepted, which began last */
    bool is_failing;                 /* output.failing was said */
    char error[400];                 /* the last failure, for status */
    int64_t error_wall_ns;

    bool is_cursor_job;
    int64_t cursor_ns;               /* last one posted */
};

struct sender {
    struct delivery *deliveries;
    size_t n;
    struct writer *writer;
    void (*on_space)(void *ctx, uint32_t output);
    void *ctx;
    const struct slice *inputs;
    size_t n_inputs;
    struct http *http;
    const struct stepper *stepper;   /* NULL: a thread */
    struct inbox inbox;              /* jobs that are done; any thread wakes */
    pthread_t thread;
    uint64_t rng;
    unsigned n_jobs;                 /* at the writer */
    struct job *failed_jobs;         /* to be posted again */
    atomic_bool is_stopping;         /* any thread */
    _Atomic int64_t stop_by_mono_ns;

    pthread_mutex_t status_lock;     /* the four below: any thread */
    pthread_cond_t status_cond;
    uint64_t status_wanted, status_written;
    struct buf status;
    bool is_ended;
};

/* --- delivery.c --- */
NODISCARD int delivery_init(struct delivery *d, struct sender *s, const struct sender_output *so, struct err *err);
void delivery_deinit(struct delivery *d);
/* Does what can be done now; returns when it wants the next turn (monotonic). */
int64_t delivery_turn(struct delivery *d, int64_t now);
/* Bodies in memory: is there room for one more of len bytes? Each output has its share (budget.h), and may always hold
 * one frame. */
bool delivery_has_room(const struct delivery *d, size_t len);
/* A request was answered with yes, by this URL, for this lane. */
void delivery_accepted(struct delivery *d, struct lane *l, size_t url, int64_t now);
/* A request failed or was refused. is_whole: the server, not one key. */
void delivery_refused(struct delivery *d, const struct lane *l, bool is_whole, unsigned attempt, int64_t delay_ns,
                      bool is_hold, const char *text);
/* Has any lane but this one been accepted at or after since? NULL: any at all. */
bool delivery_others_accepted(const struct delivery *d, const struct lane *l, int64_t since);
/* The URL to use now, or -1 with the time when one may be tried. */
int delivery_pick_url(const struct delivery *d, int64_t now, int64_t *ret_when);
void delivery_url_failed(struct delivery *d, size_t url, bool is_hold, int64_t retry_after_ns, int64_t now);
bool delivery_is_up(const struct delivery *d);
/* Posts the cursor job if there is news and it is time (or is_last). */
void delivery_cursor(struct delivery *d, int64_t now, bool is_last);

/* --- park.c --- */
/* Takes up what was parked before the start; true when all is known. */
bool park_recover(struct delivery *d);
/* Parks what waits in lanes that are refused while others are accepted. Returns the next time to look. */
int64_t park_turn(struct delivery *d, int64_t now);
/* Is p, the first that waits in its lane, older than all that is parked? It is when it was under way as later ones were. */
bool park_is_oldest(const struct lane *l, const struct part *p);
/* Makes a frame of the oldest parked one of a lane, when it is its turn. */
void park_take_up(struct lane *l, int64_t now);

/* --- status.c --- */
void status_write(struct sender *s, struct buf *out);

#endif
