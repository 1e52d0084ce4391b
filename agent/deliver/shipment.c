#include "agent/deliver/shipment.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"

#define URL_BYTES_MAX (16 * KIB)
#define HEADER_BYTES_MAX (64 * KIB)
#define WIRE_BYTES_MAX (64 * MIB)
#define SETUP_BODY_MAX (1 * MIB)
/* Looked at in a lane when choosing what to send. */
#define CHOICE_MAX 16

static bool is_plain(const struct part *p)
{
    return p->bits == NULL && !p->as_text;
}

/* The first, but a frame whose requests are reset or refused whole lets the others of its lane pass: they tell whether
 * it is the frame or the server. Nothing overtakes one that goes alone, and that one overtakes nothing. */
static struct part *choose(const struct lane *l)
{
    struct part *best = l->first;
    unsigned best_score = UINT32_MAX, i = 0;
    for (struct part *p = l->first; p != NULL && i < CHOICE_MAX; p = p->next, i++) {
        if (p->frame->head.flags & FRAME_FLAG_ALONE)
            break;
        const unsigned score = p->resets + p->frame->n_refusals / VERDICT_REFUSALS_MAX * 1000;
        if (p->frame->head.is_parked != l->first->frame->head.is_parked)
            break; /* parked ones first, whatever they score */
        if (score < best_score && lane_takes_company(l, p->frame)) {
            best = p;
            best_score = score;
        }
    }
    return best;
}

/* --- bodies --- */

int shipment_build(struct part *p, struct loaded *ld, struct buf *wire)
{
    struct delivery *d = p->frame->d;
    const struct output_ops *ops = d->out->ops;
    struct items items = { 0 };
    int r = ops->items(d->out, buf_slice(&ld->body), ld->fields.route, &items);
    uint8_t *chosen = r < 0 ? NULL : calloc(1, items.n + 1);
    if (r == 0 && chosen == NULL)
        r = -ENOMEM;
    for (size_t i = 0; r == 0 && i < items.n; i++)
        chosen[i] = p->bits == NULL || (p->bits[i / 8] >> i % 8 & 1) != 0;
    if (r == 0)
        r = ops->build(d->out, &items, chosen, p->as_text, wire);
    free(chosen);
    items_deinit(&items);
    return r;
}

/* The bytes of one part: those on disk, or built from them. */
static int fill_wire(struct part *p, struct buf *wire)
{
    struct frame *f = p->frame;
    struct delivery *d = f->d;
    if (f->is_damaged)
        return -EBADMSG;
    if (is_plain(p) && f->body.len > 0) {
        *wire = f->body;
        buf_init(&f->body, 0); /* a body is moved there, or none */
        return 0;
    }
    if (!delivery_has_room(d, f->head.body_len))
        return -EAGAIN;
    struct loaded *ld = malloc(sizeof(*ld));
    if (ld == NULL)
        return -ENOMEM;
    loaded_init(ld, d->account);
    int r = loaded_read(ld, d->q, &f->head);
    if (r == 0 && is_plain(p)) {
        const struct buf empty = *wire;
        *wire = ld->body;
        ld->body = empty;
    } else if (r == 0) {
        r = shipment_build(p, ld, wire);
        if (r == -EBADMSG)
            r = -EPROTO; /* it was decoded before: not the queue's kind of damage */
    }
    loaded_deinit(ld);
    free(ld);
    return r;
}

/* Whole small frames that follow in the lane go along, up to batch_bytes. -errno: nothing is joined. */
static int join_more(struct shipment *sh)
{
    struct lane *l = sh->lane;
    struct delivery *d = sh->d;
    struct part *last = sh->parts, *more[JOIN_FRAMES_MAX];
    struct slice wires[JOIN_FRAMES_MAX + 1] = { buf_slice(&sh->wire) };
    size_t raw = last->frame->head.raw_len, n = 0, wire_len = sh->wire.len;
    if (d->out->ops->join == NULL || l->state != LANE_ACCEPTED || !is_plain(last) || last->is_alone)
        return 0;
    for (struct part *p = l->first; p != NULL && n < JOIN_FRAMES_MAX; p = p->next) {
        const struct frame *f = p->frame;
        if (!is_plain(p) || p->is_alone || !lane_takes_company(l, f) || f->lane != last->frame->lane || f->body.len == 0 ||
            f->head.raw_len > d->conf->queue.batch_bytes - MIN(raw, d->conf->queue.batch_bytes))
            break;
        raw += f->head.raw_len;
        wire_len += f->body.len;
        wires[n + 1] = buf_slice(&f->body);
        more[n++] = p;
    }
    if (n == 0)
        return 0;
    struct buf joined;
    buf_init_in(&joined, WIRE_BYTES_MAX, d->account);
    int r = buf_reserve(&joined, wire_len);
    if (r == 0)
        r = d->out->ops->join(d->out, wires, n + 1, &joined);
    if (r < 0) {
        buf_deinit(&joined);
        return r;
    }
    for (size_t i = 0; i < n; i++) {
        lane_remove(l, more[i]);
        frame_drop_body(more[i]->frame);
        last->next = more[i];
        last = more[i];
    }
    buf_deinit(&sh->wire);
    sh->wire = joined;
    sh->n_parts += n;
    return 0;
}

/* --- begin --- */

static int start_call(struct shipment *sh, const struct http_request *req, struct slice body, int64_t now)
{
    struct delivery *d = sh->d;
    int r = http_start(d->s->http, d->target, req, body, sh, &sh->call);
    if (r < 0)
        return r;
    struct endpoint *u = &d->urls[sh->url];
    sh->is_probe = u->attempt > 0;
    u->is_probing |= sh->is_probe;
    sh->started_ns = now;
    sh->others_ns = d->passed_ns;
    counter_bump(&d->st->attempts, 1);
    sh->next = d->shipments;
    if (sh->next != NULL)
        sh->next->prev = sh;
    d->shipments = sh;
    d->in_flight++;
    return 0;
}

static void request_init(struct http_request *req)
{
    *req = (struct http_request){ .method = "POST" };
    buf_init(&req->url, URL_BYTES_MAX);
    buf_init(&req->headers, HEADER_BYTES_MAX);
}

static void request_deinit(struct http_request *req)
{
    buf_deinit(&req->url);
    buf_deinit(&req->headers);
}

static int start_data(struct shipment *sh, int64_t now)
{
    struct http_request req;
    request_init(&req);
    int r = sh->d->out->ops->request(sh->d->out, lane_key(sh->parts->frame->lane), sh->url, &req);
    if (r == 0)
        r = start_call(sh, &req, buf_slice(&sh->wire), now);
    request_deinit(&req);
    return r;
}

static void give_back_parts(struct shipment *sh)
{
    for (struct part *p; (p = sh->parts) != NULL;) {
        sh->parts = p->next;
        lane_add(sh->lane, p);
    }
}

/* The lane cannot go on for our own sake: memory, the disk, bytes that we do not understand. */
static void begin_failed(struct shipment *sh, int r, int64_t now)
{
    struct lane *l = sh->lane;
    if (r == -EAGAIN || r == 0)
        return;
    const bool is_strange = r == -EPROTO || r == -EINVAL;
    const char *text = is_strange ? "a body in the queue cannot be understood" : "a frame cannot be read or sent";
    const int64_t delay = lane_refuse(l, is_strange, 0, is_strange ? "undecodable" : "local", text, -1, now);
    delivery_refused(sh->d, l, false, l->attempt, delay, is_strange, text);
}

int shipment_begin(struct lane *l, size_t url, int64_t now)
{
    struct shipment *sh = calloc(1, sizeof(*sh));
    if (sh == NULL)
        return -ENOMEM;
    sh->d = l->d;
    sh->lane = l;
    sh->url = url;
    buf_init_in(&sh->wire, WIRE_BYTES_MAX, l->d->account);
    struct part *p = choose(l);
    assert(p != NULL);
    int r = fill_wire(p, &sh->wire);
    if (r == 0) {
        lane_remove(l, p);
        sh->parts = p;
        sh->n_parts = 1;
        (void)join_more(sh); /* without it they go one by one */
        r = start_data(sh, now);
    }
    if (r == 0) {
        if (l->in_flight == 0)
            l->is_alone_in_flight = false;
        for (const struct part *q = sh->parts; q != NULL; q = q->next)
            lane_in_flight(l, q->frame);
        l->in_flight++;
        return 0;
    }
    give_back_parts(sh);
    if (r == -EBADMSG) { /* damaged on disk: the queue has counted it and passed */
        p->frame->is_damaged = true;
        lane_remove(l, p);
        part_settle(p);
    } else {
        begin_failed(sh, r, now);
    }
    buf_deinit(&sh->wire);
    free(sh);
    return r;
}

bool shipment_begin_setup(struct delivery *d, size_t url, int64_t now)
{
    struct http_request req;
    struct shipment *sh = calloc(1, sizeof(*sh));
    if (sh == NULL)
        return true; /* next turn */
    sh->d = d;
    sh->url = url;
    buf_init(&sh->wire, SETUP_BODY_MAX);
    request_init(&req);
    const bool has_step = d->out->ops->setup_request(d->out, d->setup_step, url, &req, &sh->wire);
    int r = has_step ? start_call(sh, &req, buf_slice(&sh->wire), now) : 0;
    request_deinit(&req);
    if (has_step && r == 0) {
        d->is_setup_sent = true;
        return true;
    }
    d->setup_tries++;
    buf_deinit(&sh->wire);
    free(sh);
    return has_step;
}

/* --- end --- */

static void unlink_shipment(struct shipment *sh)
{
    struct delivery *d = sh->d;
    if (sh->prev == NULL)
        d->shipments = sh->next;
    else
        sh->prev->next = sh->next;
    if (sh->next != NULL)
        sh->next->prev = sh->prev;
    d->in_flight--;
    if (sh->is_probe)
        d->urls[sh->url].is_probing = false;
    if (sh->lane != NULL)
        sh->lane->in_flight--;
}

static void free_shipment(struct shipment *sh)
{
    http_call_free(sh->d->s->http, sh->call);
    buf_deinit(&sh->wire);
    free(sh);
}

static void count_request(struct shipment *sh, const struct http_reply *reply, int64_t now)
{
    char code[24];
    (void)snprintf(code, sizeof(code), "%ld", reply->status);
    stats_count_code(sh->d->st->requests, reply->status == 0 ? reply->failure : code, 1);
    histogram_observe(&sh->d->st->request_duration, now - sh->started_ns);
}

void shipment_end(struct shipment *sh)
{
    struct http_reply reply = *http_call_reply(sh->call);
    for (const struct part *p = sh->parts; p != NULL; p = p->next)
        reply.lines_sent += p->n;
    unlink_shipment(sh);
    count_request(sh, &reply, clock_mono_ns());
    if (sh->lane == NULL)
        verdict_setup(sh, &reply);
    else
        verdict_apply(sh, &reply);
    assert(sh->parts == NULL);
    free_shipment(sh);
}

void shipment_abort(struct shipment *sh)
{
    unlink_shipment(sh);
    if (sh->lane != NULL)
        give_back_parts(sh);
    free_shipment(sh);
}
