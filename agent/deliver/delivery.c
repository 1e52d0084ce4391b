/*
 * delivery.c - one output's turn: take frames from its queue, send what may be sent, move the cursor.
 */
#include "agent/deliver/deliver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/deliver/jobs.h"
#include "agent/deliver/local.h"
#include "agent/deliver/shipment.h"

/* Nothing was begun for so long although frames wait in accepted lanes: look further for other lanes. */
#define STALL_NS (250 * NS_PER_MS)
/* A queue that could not be read is asked again after this. */
#define READ_RETRY_NS NS_PER_SEC
/* The same output failing: others of it were accepted within this time, so it is a key, not the server. */
#define OTHERS_RECENT_NS (10 * NS_PER_SEC)
#define SETUP_TRIES_MAX 3
/* In the window while no URL works: more than one, lest a frame that makes the server close is the only one to try. */
#define DOWN_FRAMES 8

int delivery_init(struct delivery *d, struct sender *s, const struct sender_output *so, struct err *err)
{
    const struct output_conf *conf = so->output->conf;
    d->s = s;
    d->out = so->output;
    d->q = so->queue;
    d->conf = conf;
    d->st = &stats.outputs[conf->index];
    d->n_urls = MIN(MAX(conf->http.urls.n, (size_t)1), (size_t)URLS_MAX);
    d->account = ACCOUNT_SENDING(conf->index);
    d->cursor_ns = clock_mono_ns();
    d->is_setup_done = so->output->ops->setup_request == NULL;
    if (so->output->ops->is_local)
        return local_init(d);
    int r = http_target_open(&conf->http, d->account, &d->target, err);
    return r < 0 ? err_prefix(err, "output %.*s", SLICE_ARGS(conf->name)) : 0;
}

static void drop_parts(struct lane *l)
{
    for (struct part *p; (p = l->first) != NULL;) {
        struct frame *f = p->frame;
        lane_remove(l, p);
        part_free(p);
        frame_let_go(f);
    }
}

void delivery_deinit(struct delivery *d)
{
    local_deinit(d);
    for (size_t i = 0; i < d->n_lanes; i++, d->lanes = d->lanes->next) /* a ring */
        drop_parts(d->lanes);
    while (d->lanes != NULL) /* now: a frame's parts may stand in other lanes than its own */
        lane_free(d->lanes);
    http_target_close(d->target);
    if (d->st != NULL) /* NULL: it never came so far */
        gauge_set(&d->st->inflight, 0);
}

bool delivery_has_room(const struct delivery *d, size_t len)
{
    /* One request may always go out; what failed jobs hold on to is bounded as well. */
    if (d->in_flight == 0 && d->n_parking == 0)
        return budget_of(d->account) <= 2 * budget_sending_share();
    return budget_of(d->account) + len <= budget_sending_share();
}

/* --- what the server says of itself --- */

bool delivery_is_up(const struct delivery *d)
{
    for (size_t i = 0; i < d->n_urls; i++)
        if (d->urls[i].attempt == 0)
            return true;
    return false;
}

/* The first that works, in the order of the configuration; one that failed gets one request when its time has come. */
int delivery_pick_url(const struct delivery *d, int64_t now, int64_t *ret_when)
{
    int64_t when = INT64_MAX;
    for (size_t i = 0; i < d->n_urls; i++) {
        const struct endpoint *u = &d->urls[i];
        if (u->attempt == 0 || (!u->is_probing && now >= u->not_before_ns))
            return (int)i;
        if (!u->is_probing)
            when = MIN(when, u->not_before_ns);
    }
    *ret_when = when;
    return -1;
}

void delivery_url_failed(struct delivery *d, size_t url, bool is_hold, int64_t retry_after_ns, int64_t now)
{
    struct endpoint *u = &d->urls[url];
    if (u->attempt > 0 && now < u->not_before_ns)
        return; /* an echo of requests that were sent before the first failure was known */
    u->attempt++;
    u->not_before_ns = now + (is_hold ? deliver_timing.hold_ns : backoff_delay_ns(u->attempt, &d->s->rng));
    if (retry_after_ns > 0)
        u->not_before_ns = MAX(u->not_before_ns, now + MIN(retry_after_ns, RETRY_AFTER_MAX_NS));
}

static void note_accepted(struct delivery *d, const struct lane *l, int64_t now)
{
    if (d->accept_lane[0] != l->id) {
        d->accept_lane[1] = d->accept_lane[0];
        d->accept_ns[1] = d->accept_ns[0];
        d->accept_lane[0] = l->id;
    }
    d->accept_ns[0] = now;
}

bool delivery_others_accepted(const struct delivery *d, const struct lane *l, int64_t since)
{
    for (size_t i = 0; i < 2; i++)
        if (d->accept_lane[i] != 0 && (l == NULL || d->accept_lane[i] != l->id) && d->accept_ns[i] >= since)
            return true;
    return false;
}

void delivery_accepted(struct delivery *d, struct lane *l, size_t url, int64_t now)
{
    d->urls[url].attempt = 0;
    note_accepted(d, l, now);
    gauge_set(&d->st->up, 1);
    gauge_set(&d->st->last_success_wall_ns, clock_wall_ns());
    gauge_set(&d->st->failing_since_wall_ns, 0);
    if (!d->is_failing)
        return;
    d->is_failing = false;
    log_info("deliver", "output.recovered", "the output takes lines again", LOG_SLICE("output", d->conf->name));
}

void delivery_refused(struct delivery *d, const struct lane *l, bool is_whole, unsigned attempt, int64_t delay_ns,
                      bool is_hold, const char *text)
{
    (void)snprintf(d->error, sizeof(d->error), "%s", text);
    d->error_wall_ns = clock_wall_ns();
    gauge_set(&d->st->up, 0);
    if (!is_whole && delivery_others_accepted(d, l, clock_mono_ns() - OTHERS_RECENT_NS))
        return; /* the key's own trouble: key.held tells */
    if (gauge_get(&d->st->failing_since_wall_ns) == 0)
        gauge_set(&d->st->failing_since_wall_ns, d->error_wall_ns);
    d->is_failing = true;
    log_at(is_hold ? LOG_ERROR : LOG_WARN, "deliver", "output.failing",
           "an output cannot be delivered to; its lines stay in the queue", LOG_SLICE("output", d->conf->name),
           LOG_NUM("attempt", attempt), LOG_NUM("delay_ms", delay_ns / NS_PER_MS), LOG_CSTR("error", text));
}

/* --- taking frames from the queue --- */

static void append_to_window(struct delivery *d, struct frame *f)
{
    f->prev = d->last;
    if (d->last == NULL)
        d->first = f;
    else
        d->last->next = f;
    d->last = f;
    d->n_frames++;
}

/* Keeps the body with the frame when it will be sent soon. */
static void keep_body(struct delivery *d, struct frame *f, struct loaded *ld)
{
    const struct lane *l = f->lane;
    if (l->state != LANE_ACCEPTED || lane_has_parked(l) || d->n_ahead > LOOKAHEAD_FRAMES ||
        budget_of(d->account) > budget_sending_share()) /* it is among them */
        return;
    buf_shrink(&ld->body, ld->body.len);
    f->body = ld->body;
    buf_init(&ld->body, 0);
}

static int admit(struct delivery *d, const struct frame_head *head, struct loaded *ld)
{
    struct lane *l = lane_get(d, ld->fields.route);
    struct frame *f = l == NULL ? NULL : frame_new(d, head, ld, l);
    struct part *p = f == NULL ? NULL : part_whole(f);
    if (p == NULL) {
        if (f != NULL)
            frame_free(f);
        return -ENOMEM;
    }
    append_to_window(d, f);
    lane_add(l, p);
    keep_body(d, f, ld);
    return 0;
}

/* One frame more in the window: 1; 0 when there is none now. */
static int pull(struct delivery *d, int64_t now)
{
    if (!d->has_next) {
        int r = queue_next(d->q, &d->next);
        if (r <= 0) {
            if (r < 0)
                d->pull_not_before_ns = now + READ_RETRY_NS;
            return 0;
        }
        d->has_next = true;
    }
    if (!delivery_has_room(d, d->next.body_len))
        return 0;
    struct loaded *ld = malloc(sizeof(*ld));
    int r = -ENOMEM;
    if (ld != NULL) {
        loaded_init(ld, d->account);
        r = loaded_read(ld, d->q, &d->next);
        if (r == 0)
            r = admit(d, &d->next, ld);
        loaded_deinit(ld);
    }
    free(ld);
    if (r == 0 || r == -EBADMSG) { /* damaged: the queue has counted and passed it */
        d->has_next = false;
        return 1;
    }
    d->pull_not_before_ns = now + READ_RETRY_NS;
    return 0;
}

static bool wants_frames(const struct delivery *d, int64_t now)
{
    if (d->in_flight >= (unsigned)d->conf->http.concurrency || d->n_frames >= WINDOW_FRAMES ||
        now < d->pull_not_before_ns)
        return false;
    if (!delivery_is_up(d))
        return d->n_frames < DOWN_FRAMES;
    return d->n_ahead < LOOKAHEAD_FRAMES || now - d->begun_ns >= STALL_NS;
}

/* --- sending --- */

/* Begins what this lane may begin now, one request. False: nothing. */
static bool send_one(struct lane *l, int64_t now, int64_t *wake)
{
    struct delivery *d = l->d;
    if (!lane_may_send(l, now)) {
        if (l->state != LANE_ACCEPTED && l->in_flight == 0 && (l->first != NULL || l->parked.n > 0))
            *wake = MIN(*wake, l->next_ns);
        return false;
    }
    park_take_up(l, now);
    if (l->first == NULL || !park_is_oldest(l, l->first))
        return false; /* what is parked goes first */
    if (!lane_takes_company(l, l->first->frame))
        return false; /* its turn comes with the reply */
    int64_t when = INT64_MAX;
    const int url = delivery_pick_url(d, now, &when);
    if (url < 0) {
        *wake = MIN(*wake, when);
        return false;
    }
    int r = shipment_begin(l, (size_t)url, now);
    if (r < 0 && r != -EAGAIN)
        *wake = MIN(*wake, now + READ_RETRY_NS);
    if (r == 0)
        d->begun_ns = now;
    return r == 0;
}

/* All lanes in turn, one request each, until none can begin any. While no URL works one request asks whether one does
 * again: each time by another lane, for it may be the lane that is never answered. */
static int64_t send_all(struct delivery *d, int64_t now)
{
    int64_t wake = INT64_MAX;
    bool has_begun = true;
    while (has_begun) {
        has_begun = false;
        for (size_t i = d->n_lanes; i > 0 && d->lanes != NULL; i--) {
            if (d->in_flight >= (unsigned)d->conf->http.concurrency)
                return wake;
            struct lane *l = d->lanes;
            d->lanes = l->next; /* the next round begins with another */
            if (!send_one(l, now, &wake))
                continue;
            if (!delivery_is_up(d)) /* whole rounds would lead back to this lane */
                return wake;
            has_begun = true;
        }
    }
    return wake;
}

static bool drop_bodies(struct delivery *d)
{
    const size_t before = budget_of(d->account);
    for (struct frame *f = d->first; f != NULL; f = f->next)
        frame_drop_body(f);
    return budget_of(d->account) < before;
}

static int64_t send_turn(struct delivery *d, int64_t now)
{
    int64_t wake = send_all(d, now);
    unsigned n = 0;
    while (n < PULLS_PER_TURN && wants_frames(d, now) && pull(d, now) == 1) {
        n++;
        wake = send_all(d, now);
    }
    if (n == PULLS_PER_TURN)
        return now;
    if (now < d->pull_not_before_ns)
        wake = MIN(wake, d->pull_not_before_ns);
    /* Deadlock is not an option: bodies kept for later make room for the one that could go now. */
    if (d->in_flight == 0 && budget_of(d->account) > 2 * budget_sending_share() && drop_bodies(d))
        return now;
    if (d->n_ahead >= LOOKAHEAD_FRAMES && d->in_flight < (unsigned)d->conf->http.concurrency)
        wake = MIN(wake, now + STALL_NS);
    return wake;
}

/* Setup requests go before the first data; what the server thinks of them never stops data. True when done. */
static bool setup_turn(struct delivery *d, int64_t now, int64_t *wake)
{
    if (d->is_setup_done)
        return true;
    if (d->is_setup_sent)
        return false;
    if (d->setup_tries >= SETUP_TRIES_MAX) {
        d->setup_tries = 0;
        d->setup_step++;
    }
    int64_t when = INT64_MAX;
    const int url = delivery_pick_url(d, now, &when);
    if (url < 0) {
        *wake = MIN(*wake, when);
        return false;
    }
    d->is_setup_done = !shipment_begin_setup(d, (size_t)url, now);
    if (d->is_setup_done && d->setup_error[0] != '\0')
        log_warn("deliver", "output.setup", "the server refused what was to be set up; lines are sent all the same",
                 LOG_SLICE("output", d->conf->name), LOG_CSTR("error", d->setup_error));
    return d->is_setup_done;
}

/* --- cursor, gauges --- */

void delivery_cursor(struct delivery *d, int64_t now, bool is_last)
{
    if (d->is_cursor_job || !queue_has_cursor_news(d->q))
        return;
    enum blocked_reason reason;
    const int64_t every = queue_is_blocked(d->q, &reason) ? deliver_timing.cursor_blocked_ns : deliver_timing.cursor_ns;
    if (!is_last && now - d->cursor_ns < every)
        return;
    struct job *j = job_new(d, JOB_CURSOR);
    d->cursor_ns = now;
    if (j == NULL)
        return;
    d->is_cursor_job = true;
    job_post(j);
}

static int64_t cursor_wake(const struct delivery *d)
{
    if (d->is_cursor_job || !queue_has_cursor_news(d->q))
        return INT64_MAX;
    enum blocked_reason reason;
    return d->cursor_ns +
           (queue_is_blocked(d->q, &reason) ? deliver_timing.cursor_blocked_ns : deliver_timing.cursor_ns);
}

static void set_gauges(struct delivery *d)
{
    int64_t oldest = local_oldest(d);
    if (d->first != NULL)
        oldest = d->first->head.built_ns;
    gauge_set(&d->st->oldest_unsent_wall_ns, oldest);
    gauge_set(&d->st->inflight, d->in_flight);
    if (d->target != NULL) {
        gauge_set(&d->st->certificate_expiry_s[0], http_target_server_expiry(d->target));
        gauge_set(&d->st->certificate_expiry_s[1], http_target_client_expiry(d->target));
    }
}

/* Forgets lanes that nobody has used for a while: tenants and indices come and go. */
static void forget_lanes(struct delivery *d, int64_t now)
{
    if (now - d->swept_ns < deliver_timing.lane_idle_ns)
        return;
    d->swept_ns = now;
    for (size_t i = d->n_lanes; i > 0; i--) {
        struct lane *l = d->lanes;
        d->lanes = l->next;
        if (lane_is_forgettable(l, now))
            lane_free(l);
    }
}

/* For whoever watches that frames move (agent/stall.h). */
static enum output_waits waits_for(const struct delivery *d, int64_t now)
{
    int64_t when;
    if (d->local != NULL)
        return local_waits(d, now);
    if (d->in_flight > 0)
        return WAITS_REPLY;
    if (delivery_pick_url(d, now, &when) < 0)
        return WAITS_SERVER;
    if (!d->is_setup_done || !d->is_parked_known)
        return WAITS_SETUP;
    if (now < d->pull_not_before_ns || d->n_parking > 0 || d->s->n_jobs > 0)
        return WAITS_DISK;
    return d->n_frames > 0 && d->n_ahead == 0 ? WAITS_KEYS : WAITS_NOTHING;
}

/* Nothing of it is in our hands, so nothing is sent twice: the queue is asked anew. */
static void look_anew(struct delivery *d)
{
    if (d->n_frames == 0 && d->local == NULL) {
        d->has_next = false;
        queue_rewind(d->q);
    }
    d->pull_not_before_ns = 0;
}

int64_t delivery_turn(struct delivery *d, int64_t now)
{
    int64_t wake = INT64_MAX;
    queue_cursor_write(d->q);
    if (atomic_exchange_explicit(&d->is_kicked, false, memory_order_relaxed))
        look_anew(d);
    if (atomic_load_explicit(&d->s->is_stopping, memory_order_relaxed)) {
        set_gauges(d);
        return wake;
    }
    if (d->local != NULL) {
        wake = local_turn(d, now);
    } else if (!park_recover(d)) {
        wake = now;
    } else {
        /* Frames are known of even while nothing may be sent. */
        if (setup_turn(d, now, &wake))
            wake = MIN(wake, send_turn(d, now));
        else if (d->n_frames == 0)
            (void)pull(d, now);
        wake = MIN(wake, park_turn(d, now));
        forget_lanes(d, now);
    }
    delivery_cursor(d, now, false);
    set_gauges(d);
    gauge_set(&d->st->waits, waits_for(d, now));
    return MIN(wake, cursor_wake(d));
}
