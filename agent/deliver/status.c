/*
 * status.c - what the sender knows, as JSON: for /status and for people who ask why a line is not there yet.
 */
#include <stdio.h>

#include "agent/base/clock.h"
#include "agent/deliver/deliver.h"
#include "agent/deliver/shipment.h"

/* Keys that are shown one by one; all of them are counted. */
#define KEYS_SHOWN 50

/* A full buffer ends the text in the middle; status_write sees it at the end. */
static void ignore(int r)
{
    (void)r;
}

static void put(struct buf *out, struct slice s)
{
    ignore(buf_append_slice(out, s));
}

static void put_name(struct buf *out, const char *name)
{
    ignore(buf_append_json_string(out, slice_cstr(name)));
    put(out, SLICE(":"));
}

static void put_str(struct buf *out, const char *name, struct slice value)
{
    put_name(out, name);
    ignore(buf_append_json_string(out, value));
    put(out, SLICE(","));
}

static void put_num(struct buf *out, const char *name, int64_t value)
{
    put_name(out, name);
    ignore(buf_append_i64(out, value));
    put(out, SLICE(","));
}

/* Closes an object or array behind its last comma. */
static void put_end(struct buf *out, char c)
{
    if (out->len > 0 && out->ptr[out->len - 1] == ',')
        out->len--;
    ignore(buf_append_byte(out, c));
    put(out, SLICE(","));
}

static void put_lane(struct buf *out, const struct lane *l, int64_t now)
{
    put(out, SLICE("{"));
    put_str(out, "key", lane_key(l));
    put_str(out, "state", l->state == LANE_HELD ? SLICE("held") : l->state == LANE_BACKOFF ? SLICE("backoff")
                                                                                           : SLICE("draining"));
    put_str(out, "reason", slice_cstr(l->state == LANE_ACCEPTED ? l->told_reason : l->reason));
    put_str(out, "error", slice_cstr(l->text));
    put_num(out, "status", l->status);
    put_num(out, "attempt", l->attempt);
    if (l->state != LANE_ACCEPTED) {
        put_num(out, "refused_for_ms", (now - l->refused_ns) / NS_PER_MS);
        put_num(out, "next_in_ms", MAX(l->next_ns - now, 0) / NS_PER_MS);
    }
    put_num(out, "waiting", (int64_t)l->n_waiting);
    put_num(out, "in_flight", l->in_flight);
    put_num(out, "parked_frames", (int64_t)l->parked.n + l->n_unparked);
    put_num(out, "parked_bytes", (int64_t)l->parked.bytes);
    put_end(out, '}');
}

static void put_lanes(struct buf *out, const struct delivery *d, int64_t now)
{
    size_t n_refused = 0, n_shown = 0;
    const struct lane *l = d->lanes;
    put_name(out, "keys");
    put(out, SLICE("["));
    for (size_t i = 0; i < d->n_lanes; i++, l = l->next) {
        n_refused += l->state != LANE_ACCEPTED;
        if ((l->state != LANE_ACCEPTED || lane_has_parked(l)) && n_shown++ < KEYS_SHOWN)
            put_lane(out, l, now);
    }
    put_end(out, ']');
    put_num(out, "lanes", (int64_t)d->n_lanes);
    put_num(out, "lanes_refused", (int64_t)n_refused);
}

static void put_urls(struct buf *out, const struct delivery *d, int64_t now)
{
    put_name(out, "urls");
    put(out, SLICE("["));
    for (size_t i = 0; i < d->n_urls && i < d->conf->http.urls.n; i++) {
        put(out, SLICE("{"));
        put_str(out, "url", d->conf->http.urls.items[i]);
        put_num(out, "failures", d->urls[i].attempt);
        put_num(out, "next_in_ms", d->urls[i].attempt == 0 ? 0 : MAX(d->urls[i].not_before_ns - now, 0) / NS_PER_MS);
        put_end(out, '}');
    }
    put_end(out, ']');
}

static void put_delivery(struct buf *out, const struct delivery *d, int64_t now)
{
    ignore(buf_append_json_string(out, d->conf->name));
    put(out, SLICE(":{"));
    put_name(out, "failing");
    put(out, d->is_failing ? SLICE("true,") : SLICE("false,"));
    put_str(out, "waits_for", slice_cstr(output_waits_name((enum output_waits)gauge_get(&d->st->waits))));
    put_num(out, "in_flight", d->in_flight);
    put_num(out, "window_frames", (int64_t)d->n_frames);
    put_num(out, "loaded_bytes", (int64_t)budget_of(d->account));
    if (d->error[0] != '\0') {
        put_str(out, "last_error", slice_cstr(d->error));
        put_num(out, "last_error_ms_ago", MAX(clock_wall_ns() - d->error_wall_ns, 0) / NS_PER_MS);
    }
    if (d->local == NULL) {
        put_urls(out, d, now);
        put_lanes(out, d, now);
    }
    put_end(out, '}');
}

void status_write(struct sender *s, struct buf *out)
{
    const int64_t now = clock_mono_ns();
    put(out, SLICE("{"));
    for (size_t i = 0; i < s->n; i++)
        put_delivery(out, &s->deliveries[i], now);
    put_end(out, '}');
    out->len--; /* the last comma */
    if (out->len > 0 && out->ptr[out->len - 1] == '}')
        return;
    buf_reset(out);
    put(out, SLICE("{}"));
}
