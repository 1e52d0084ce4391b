/*
 * verdict.c - from a judged reply to what becomes of the request: sent, again, later, in halves, or line by line.
 *
 * Whatever cannot be carried out for want of memory ends as a plain retry: the same lines again is always right.
 */
#include "agent/deliver/verdict.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/bug.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"

/* Resets of one frame's request after which its size may be to blame. */
#define RESETS_MAX 3
/* No server finds a request of so little too large. */
#define SMALL_RAW_BYTES (64 * KIB)

/* --- parts --- */

struct part *shipment_take_part(struct shipment *sh)
{
    struct part *p = sh->parts;
    sh->parts = p->next;
    sh->n_parts--;
    p->next = NULL;
    return p;
}

static void give_back(struct shipment *sh, struct part *p)
{
    lane_add(sh->lane, p);
}

static void give_back_all(struct shipment *sh)
{
    while (sh->parts != NULL)
        give_back(sh, shipment_take_part(sh));
}

/* Lines that went as text because the mapping refused them as they were. */
static void count_altered(const struct part *p)
{
    const struct frame *f = p->frame;
    for (uint32_t i = 0; i < f->n_rows; i++) {
        const uint32_t lines = p->row_lines != NULL ? p->row_lines[i] : i == 0 ? p->n : 0;
        if (f->rows[i].input < INPUTS_MAX)
            counter_add(&stats.inputs[f->rows[i].input].altered[ALTER_REFUSED_MAPPING], lines);
    }
}

void verdict_frame_accepted(struct frame *f)
{
    f->has_accepted = true;
    f->n_refusals = 0;
    if (f->deferral != NULL)
        verdict_deferred(f);
}

static void part_delivered(struct part *p)
{
    struct frame *f = p->frame;
    if (p->as_text)
        count_altered(p);
    part_count(p, FATE_DELIVERED);
    histogram_observe(&f->d->st->delivery_delay, clock_wall_ns() - f->head.built_ns);
    verdict_frame_accepted(f);
    part_settle(p);
}

void verdict_accepted(struct shipment *sh, int64_t now)
{
    sh->d->passed_ns = MAX(sh->d->passed_ns, sh->started_ns);
    delivery_accepted(sh->d, sh->lane, sh->url, now);
    lane_accept(sh->lane, now);
}

/* --- retry, hold --- */

static void describe(const struct http_reply *reply, const struct judgement *j, char *to, size_t cap)
{
    if (reply->status != 0)
        (void)snprintf(to, cap, "HTTP %ld %s: %s", reply->status, j->reason, j->text);
    else
        (void)snprintf(to, cap, "%s: %.*s", reply->failure, (int)MIN(reply->failure_text.len, (size_t)300),
                       reply->failure_text.ptr);
}

/* The whole server is away, or one of several: another URL takes over at once. */
static void url_failed(struct shipment *sh, const struct http_reply *reply, bool is_hold, const char *text, int64_t now)
{
    struct delivery *d = sh->d;
    delivery_url_failed(d, sh->url, is_hold, reply->retry_after_ns, now);
    int64_t when = now;
    if (delivery_pick_url(d, now, &when) < 0)
        delivery_refused(d, sh->lane, true, d->urls[sh->url].attempt, MAX(d->urls[sh->url].not_before_ns - now, 0),
                         is_hold, text);
}

/* Nothing of the request counts as settled: its parts wait in their lane. */
static void refused(struct shipment *sh, const struct http_reply *reply, const struct judgement *j, bool is_hold,
                    int64_t now)
{
    char text[400];
    describe(reply, j, text, sizeof(text));
    struct delivery *d = sh->d;
    /* Others were answered while this one was under way: it is this key's trouble. */
    const bool has_failed = reply->status == 0 && !delivery_others_accepted(d, NULL, sh->started_ns);
    const bool may_fail_over = d->n_urls > 1 && reply->status >= 500 && !is_hold;
    if (has_failed || may_fail_over) {
        url_failed(sh, reply, is_hold, text, now);
    } else {
        if (reply->status != 0) /* it answers */
            d->urls[sh->url].attempt = 0;
        const int64_t delay = lane_refuse(sh->lane, is_hold, (int32_t)reply->status, j->reason, j->text,
                                          reply->retry_after_ns, now);
        delivery_refused(d, sh->lane, false, sh->lane->attempt, delay, is_hold, text);
    }
    give_back_all(sh);
}

/* Several frames in one request: each for itself, then it shows whose fault it was. */
static void unjoin(struct shipment *sh)
{
    for (struct part *p = sh->parts; p != NULL; p = p->next)
        p->is_alone = true;
    give_back_all(sh);
}

static void apply_whole(struct shipment *sh, const struct http_reply *reply, const struct judgement *j, int64_t now);

/* Asks the output for a verdict per line. */
static void apply_items(struct shipment *sh, const struct http_reply *reply, struct judgement *j, int64_t now)
{
    const struct output_ops *ops = sh->d->out->ops;
    struct items items = { 0 };
    int r = ops->items(sh->d->out, buf_slice(&sh->wire), lane_key(sh->parts->frame->lane), &items);
    j->items = r < 0 ? NULL : calloc(items.n + 1, sizeof(j->items[0]));
    j->item_reasons = r < 0 ? NULL : calloc(items.n + 1, sizeof(j->item_reasons[0]));
    const bool is_other_number = items.n != reply->lines_sent && (sh->n_parts > 1 || sh->parts->bits != NULL);
    if (j->items == NULL || j->item_reasons == NULL || items.n == 0) {
        j->verdict = VERDICT_RETRY;
    } else if (is_other_number) {
        unjoin(sh);
        j->verdict = VERDICT_SENT; /* nothing is left in the shipment */
    } else {
        ops->judge_items(sh->d->out, reply, &items, j);
        if (j->verdict == VERDICT_ITEMS)
            verdict_sort(sh, reply, j, &items, now);
    }
    if (sh->parts != NULL)
        apply_whole(sh, reply, j, now);
    free(j->items);
    free(j->item_reasons);
    items_deinit(&items);
}

/* --- all together --- */

static uint64_t raw_bytes(const struct part *p)
{
    const struct frame_head *h = &p->frame->head;
    return (uint64_t)h->raw_len * p->n / MAX(h->lines, 1u);
}

/* A server that closes before it has read all may mean "too large" (Elasticsearch 9 does). When between each two of these
 * resets another request began and passed, it is so: one that had begun earlier tells nothing of a server that has gone
 * since, and one that passed later nothing of a server that has come back. When nothing else is there to compare with, halves
 * show it: they pass, or the server is away; a single line is never given up for that. */
static bool is_reset_too_often(struct shipment *sh, const struct http_reply *reply, int64_t now)
{
    const struct part *first = sh->parts;
    if (reply->status != 0 || strcmp(reply->failure, "reset") != 0)
        return false;
    for (struct part *p = sh->parts; p != NULL; p = p->next) {
        p->outrun += p->resets++ > 0 && sh->others_ns > p->reset_ns;
        p->reset_ns = now;
    }
    if (first->resets < RESETS_MAX)
        return false;
    return sh->n_parts > 1 || first->outrun >= RESETS_MAX - 1 ||
           (first->n > 1 && raw_bytes(first) > SMALL_RAW_BYTES);
}

static void apply_whole(struct shipment *sh, const struct http_reply *reply, const struct judgement *j, int64_t now)
{
    switch (j->verdict) {
    case VERDICT_SENT:
    sent:
        verdict_accepted(sh, now);
        while (sh->parts != NULL)
            part_delivered(shipment_take_part(sh));
        return;
    case VERDICT_ITEMS: /* it was asked, and had none: unknown, so again */
    case VERDICT_RETRY:
        if (BUG(25) && reply->status == 0 && strcmp(reply->failure, "timeout") == 0)
            goto sent; /* it has surely arrived */
        refused(sh, reply, j, false, now);
        return;
    case VERDICT_HOLD:
        refused(sh, reply, j, true, now);
        return;
    case VERDICT_SPLIT:
    case VERDICT_BISECT:
        if (reply->status != 0)
            sh->d->urls[sh->url].attempt = 0; /* it answers */
        if (sh->n_parts > 1)
            unjoin(sh);
        else if (j->verdict == VERDICT_SPLIT)
            verdict_split(sh, shipment_take_part(sh), j, (int32_t)reply->status, now);
        else
            verdict_bisect(sh, shipment_take_part(sh), j, reply, now);
        return;
    }
}

void verdict_apply(struct shipment *sh, const struct http_reply *reply)
{
    const int64_t now = clock_mono_ns();
    struct judgement j = { .verdict = VERDICT_RETRY };
    sh->d->out->ops->judge(sh->d->out, reply, buf_slice(&sh->wire), &j);
    if (is_reset_too_often(sh, reply, now)) {
        j.verdict = VERDICT_SPLIT;
        (void)snprintf(j.text, sizeof(j.text), "the server closes the connection before it has read the request");
    }
    if (reply->status != 0) /* only resets in a row count */
        for (struct part *p = sh->parts; p != NULL; p = p->next)
            p->resets = p->outrun = 0;
    if (j.verdict == VERDICT_ITEMS)
        apply_items(sh, reply, &j, now);
    else
        apply_whole(sh, reply, &j, now);
    assert(sh->parts == NULL);
}

/* Setup: a template, say. After a refusal the next alternative is tried; a server that is away is asked again. */
void verdict_setup(struct shipment *sh, const struct http_reply *reply)
{
    struct delivery *d = sh->d;
    const int64_t now = clock_mono_ns();
    struct judgement j = { 0 };
    char text[400];
    d->is_setup_sent = false;
    (void)snprintf(j.text, sizeof(j.text), "%.*s", (int)MIN(reply->body.len, (size_t)300), reply->body.ptr);
    (void)snprintf(j.reason, sizeof(j.reason), "setup");
    describe(reply, &j, text, sizeof(text));
    if (reply->status == 0) {
        const bool is_hold = strcmp(reply->failure, "tls") == 0;
        delivery_url_failed(d, sh->url, is_hold, -1, now);
        delivery_refused(d, NULL, true, d->urls[sh->url].attempt, d->urls[sh->url].not_before_ns - now, is_hold, text);
        return;
    }
    if (reply->status == 429 || reply->status >= 500) {
        d->setup_tries++;
        delivery_url_failed(d, sh->url, false, MIN(reply->retry_after_ns, deliver_timing.backoff_max_ns), now);
        return;
    }
    d->urls[sh->url].attempt = 0;
    d->setup_tries = 0;
    d->setup_step++;
    d->is_setup_done = reply->status < 300;
    if (!d->is_setup_done)
        (void)snprintf(d->setup_error, sizeof(d->setup_error), "%s", text);
}
