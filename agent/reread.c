#include "agent/reread.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/log.h"
#include "agent/base/stats.h"
#include "agent/join.h"

#define POSTPONE_NS (10 * NS_PER_SEC) /* a file that is looked for */
#define RETRY_NS (100 * NS_PER_MS)
#define RETRIES_MAX 100 /* in the middle of a range; then the rest stays lost */
/* More in one group would make a segment that is too long. */
#define REREAD_BYTES_MAX (512 * MIB)
#define RAW_BYTES (LINE_BYTES_MAX + TURN_BYTES)

struct job {
    struct job *next;
    struct reread *rr;
};

struct rereader {
    struct feeder *feeder;
    struct tail *tail;
    struct tail_sink sink;
    struct job *first;
    int64_t due_ns;       /* monotonic: not before */

    /* the job in work: its group is open */
    bool is_open;
    size_t range;         /* of the job */
    void *sink_file;      /* of the range; NULL: to be opened */
    struct tail_pass pass;
    size_t want;
    unsigned n_retries;
    char *raw;
    uint64_t lost_bytes;
    uint8_t halves;       /* streams of which a record was left unfinished where a file ends: its rest is in a later range */
};

/* ---- jobs ---- */

int reread_copy(const struct reread *rr, struct reread **ret)
{
    size_t bytes = rr->n_ranges * sizeof(*rr->ranges);
    struct reread *copy = malloc(sizeof(*copy) + bytes + rr->held.len);
    if (copy == NULL)
        return -ENOMEM;
    *copy = *rr;
    copy->ranges = (struct reread_range *)(copy + 1);
    size_t n = 0;
    for (int begins = 0; begins < 2; begins++) /* first those whose end may go on where another file begins */
        for (size_t i = 0; i < rr->n_ranges; i++)
            if ((rr->ranges[i].from.end == 0) == begins)
                copy->ranges[n++] = rr->ranges[i];
    char *held = (char *)copy->ranges + bytes;
    if (rr->held.len > 0)
        memcpy(held, rr->held.ptr, rr->held.len);
    copy->held = slice_of(held, rr->held.len);
    *ret = copy;
    return 0;
}

static uint64_t bytes_of(const struct reread *rr)
{
    uint64_t n = 0;
    for (size_t i = 0; i < rr->n_ranges; i++)
        n += rr->ranges[i].to.end - rr->ranges[i].from.end;
    return n;
}

static void publish(const struct rereader *r)
{
    uint64_t n = 0;
    for (const struct job *j = r->first; j != NULL; j = j->next)
        n += bytes_of(j->rr);
    gauge_set(&stats.outputs[r->feeder->index].reread_pending_bytes, (int64_t)n);
}

struct rereader *rereader_new(struct feeder *f, struct tail *t, const struct tail_sink *sink)
{
    struct rereader *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return NULL;
    r->feeder = f;
    r->tail = t;
    r->sink = *sink;
    gauge_set(&stats.outputs[f->index].reread_pending_bytes, 0);
    return r;
}

/* The pass's state holds on to the file. */
static void leave_range(struct rereader *r)
{
    if (r->pass.state != NULL)
        r->sink.pass_free(r->sink.ctx, &r->pass);
    r->pass.state = NULL;
    if (r->sink_file != NULL)
        r->sink.file_free(r->sink.ctx, r->sink_file);
    r->sink_file = NULL;
}

static void leave_job(struct rereader *r)
{
    struct job *j = r->first;
    leave_range(r);
    free(r->raw);
    r->raw = NULL;
    r->is_open = false;
    r->first = j->next;
    free(j->rr);
    free(j);
    publish(r);
}

void rereader_drop(struct rereader *r)
{
    while (r->first != NULL)
        leave_job(r);
}

void rereader_free(struct rereader *r)
{
    if (r == NULL)
        return;
    rereader_drop(r);
    free(r);
}

void rereader_add(struct rereader *r, struct reread *rr)
{
    struct job *j = malloc(sizeof(*j)), **end = &r->first;
    if (j == NULL) {
        free(rr); /* the next start finds it again */
        return;
    }
    *j = (struct job){ .rr = rr };
    while (*end != NULL)
        end = &(*end)->next;
    *end = j;
    publish(r);
}

int64_t rereader_due_at(const struct rereader *r)
{
    return r->first == NULL || r->feeder->is_blocked ? INT64_MAX : r->due_ns;
}

/* ---- one range ---- */

static bool is_held(void *ctx, struct slice route, const struct record *rec)
{
    const struct rereader *r = ctx;
    return reread_is_held(r->first->rr, route, rec->incarnation, (uint8_t)rec->stream, rec->offset);
}

static void stay_lost(struct rereader *r, const struct reread_range *g, uint64_t from)
{
    r->lost_bytes += g->to.end - from;
    log_error("queue", "lines.lost", "lines that damage took cannot be read again: their file is gone, or is not what it was",
              LOG_SLICE("output", r->feeder->output->conf->name), LOG_NUM("incarnation", g->to.incarnation),
              LOG_NUM("from", from), LOG_NUM("to", g->to.end));
}

static void next_range(struct rereader *r)
{
    leave_range(r);
    r->range++;
    r->n_retries = 0;
}

/* Not now: waits a little, and not for ever. */
static void retry(struct rereader *r, const struct reread_range *g, int64_t now)
{
    r->due_ns = now + RETRY_NS;
    if (++r->n_retries < RETRIES_MAX)
        return;
    stay_lost(r, g, r->sink_file == NULL ? g->from.end : r->pass.off);
    next_range(r);
}

static void place(struct rereader *r, const struct file_position *pos)
{
    struct tail_pass *p = &r->pass;
    bool skips = pos->flags & POSITION_SKIP_TO_NEWLINE;
    bool begins_file = pos->end == 0; /* then its parts say of which streams it goes on with a record of another file */
    uint8_t halves = begins_file ? r->halves : 0;
    for (uint8_t i = 0; begins_file && i < pos->n_parts; i++)
        halves |= (uint8_t)(1u << pos->parts[i].stream);
    *p = (struct tail_pass){ .mask = UINT32_C(1) << r->feeder->index, .off = pos->end, .is_again = true, .skips = halves };
    p->n_parts = begins_file ? 0 : pos->n_parts;
    memcpy(p->parts, pos->parts, sizeof(*pos->parts) * pos->n_parts);
    for (uint8_t i = 0; i < p->n_parts; i++)
        p->off = MIN(p->off, p->parts[i].start);
    p->resume_until = p->n_parts > 0 ? pos->end : 0;
    p->skip_to_newline = skips && p->n_parts == 0;
    r->want = TURN_BYTES;
}

void reread_stop(struct tail_pass *pass, uint64_t pos_end, const struct position_part *parts, uint8_t n_parts)
{
    struct position_part old[STREAMS_MAX];
    uint8_t n_old = pos_end < pass->resume_until ? pass->n_parts : 0, n = n_parts;
    memcpy(old, pass->parts, sizeof(old));
    memcpy(pass->parts, parts, sizeof(*parts) * n_parts);
    for (uint8_t i = 0; i < n_old; i++) { /* streams that are read again and are not done with */
        bool is_there = false;
        for (uint8_t k = 0; k < n_parts; k++)
            is_there |= parts[k].stream == old[i].stream;
        if (!is_there && n < STREAMS_MAX)
            pass->parts[n++] = (struct position_part){ .stream = old[i].stream, .start = MAX(old[i].start, pos_end) };
    }
    pass->n_parts = n;
    uint64_t end = MAX(pos_end, pass->resume_until);
    pass->off = end;
    for (uint8_t i = 0; i < n; i++)
        pass->off = MIN(pass->off, pass->parts[i].start);
    pass->resume_until = n > 0 ? end : 0;
    pass->mask = 0;
}

/* False: the output took no more. */
static bool feed(struct rereader *r, const char *ptr, size_t len, bool is_last, size_t *ret_used)
{
    struct feed fd = { .bytes = slice_of(ptr, len), .off = r->pass.off, .is_last = is_last,
                       .is_full = len > LINE_BYTES_MAX };
    *ret_used = r->sink.feed(r->sink.ctx, r->sink_file, &r->pass, &fd);
    if (r->pass.mask != 0) {
        r->pass.off += *ret_used;
        if (r->pass.off >= r->pass.resume_until)
            r->pass.resume_until = r->pass.n_parts = 0;
        return true;
    }
    if (r->pass.state != NULL) /* it is read again from where its record begins */
        r->sink.pass_free(r->sink.ctx, &r->pass);
    r->pass.state = NULL;
    r->pass.mask = UINT32_C(1) << r->feeder->index;
    return false;
}

/* What was unfinished at the range's end was placed by a later group. When it is not known what was, it is a line that has only
 * some of its pieces, and no record of several lines: those are given up waiting for sooner or later. */
static void forget_parts(struct rereader *r, const struct reread_range *g)
{
    struct join *j = r->pass.state;
    for (uint8_t i = 0; j != NULL && !g->knows_to && i < STREAMS_MAX; i++)
        pending_end(&j->streams[i].part);
    for (uint8_t i = 0; j != NULL && i < g->to.n_parts; i++) {
        if (g->to.parts[i].stream >= STREAMS_MAX)
            continue;
        pending_end(&j->streams[g->to.parts[i].stream].part);
        pending_end(&j->streams[g->to.parts[i].stream].group);
    }
}

/* Does a later range begin a file? What is unfinished at this one's end may have gone on there. */
static bool may_go_on(const struct rereader *r)
{
    const struct reread *rr = r->first->rr;
    bool may = false;
    for (size_t i = r->range + 1; i < rr->n_ranges; i++)
        may |= rr->ranges[i].from.end == 0;
    return may;
}

/* A record that began here and was finished elsewhere stays lost: of halves nobody knows whether they belong together. */
static void leave_halves(struct rereader *r)
{
    struct join *j = r->pass.state;
    for (uint8_t i = 0; j != NULL && i < STREAMS_MAX; i++) {
        if (!j->streams[i].part.is_active)
            continue;
        pending_end(&j->streams[i].part);
        r->halves |= (uint8_t)(1u << i);
    }
}

static void end_range(struct rereader *r, const struct reread_range *g)
{
    size_t used;
    bool may = may_go_on(r);
    if (may && !g->knows_to) /* it may have gone on there as well as in this file */
        leave_halves(r);
    forget_parts(r, g);
    if (may)
        leave_halves(r);
    if (feed(r, r->raw, 0, true, &used)) /* else what it did not take is read once more */
        next_range(r);
}

static void read_chunk(struct rereader *r, const struct reread_range *g, int64_t now)
{
    uint64_t left = g->to.end - r->pass.off;
    size_t want = (size_t)MIN((uint64_t)r->want, left);
    ssize_t n = tail_again_read(r->tail, g->to.incarnation, r->raw, want, r->pass.off);
    if (n == -EAGAIN) {
        retry(r, g, now);
        return;
    }
    if (n <= 0) {
        stay_lost(r, g, r->pass.off);
        next_range(r);
        return;
    }
    size_t used, len = (size_t)n;
    bool is_end = len == left;
    bool is_whole = is_end && g->knows_to && g->to.n_parts == 0;
    bool is_last = is_whole && (!may_go_on(r) || r->raw[len - 1] != '\n');
    if (!feed(r, r->raw, len, is_last, &used))
        return;
    r->n_retries = 0;
    if (used > 0) {
        r->want = TURN_BYTES;
    } else if (r->want < RAW_BYTES) {
        r->want = MIN(r->want * 2, (size_t)RAW_BYTES);
    } else if (!is_end) {
        r->pass.off += len; /* as large as a line can be, and not taken */
    }
    if (is_end && used < len && r->want >= left)
        r->pass.off = g->to.end;
}

static void range_turn(struct rereader *r, int64_t now)
{
    const struct reread_range *g = &r->first->rr->ranges[r->range];
    if (r->sink_file == NULL) {
        int e = tail_again_open(r->tail, g, &r->sink_file);
        if (e == -EAGAIN)
            retry(r, g, now);
        else if (e < 0) {
            stay_lost(r, g, g->from.end);
            next_range(r);
        } else
            place(r, &g->from);
    } else if (r->pass.off >= g->to.end) {
        end_range(r, g);
    } else {
        read_chunk(r, g, now);
    }
}

/* ---- the job ---- */

/* All that can be read is, in one group: a file that is being looked for is waited for first. */
static bool may_begin(struct rereader *r, int64_t now)
{
    struct feeder *f = r->feeder;
    const struct reread *rr = r->first->rr;
    for (size_t i = 0; i < rr->n_ranges; i++) {
        if (tail_again_look(r->tail, &rr->ranges[i]) != -EAGAIN)
            continue;
        struct job *j = r->first, **end = &r->first;
        r->first = j->next;
        j->next = NULL;
        while (*end != NULL)
            end = &(*end)->next;
        *end = j;
        r->due_ns = now + POSTPONE_NS;
        return false;
    }
    feeder_close_if_due(f, r->tail, now, true);
    if (f->is_blocked || f->pending != NULL)
        return false;
    if (r->raw == NULL && (r->raw = malloc(RAW_BYTES)) == NULL) {
        r->due_ns = now + RETRY_NS;
        return false;
    }
    return true;
}

static void begin(struct rereader *r)
{
    const struct reread *rr = r->first->rr;
    r->is_open = true;
    r->range = bytes_of(rr) > REREAD_BYTES_MAX ? rr->n_ranges : 0;
    r->lost_bytes = 0;
    r->n_retries = 0;
    r->halves = 0;
    for (size_t i = 0; r->range > 0 && i < rr->n_ranges; i++)
        stay_lost(r, &rr->ranges[i], rr->ranges[i].from.end);
    feeder_begin_reread(r->feeder, is_held, r);
}

static void end(struct rereader *r, int64_t now)
{
    struct output_stats *st = &stats.outputs[r->feeder->index];
    if (feeder_end_reread(r->feeder, r->first->rr->id, now) < 0) {
        r->due_ns = now + RETRY_NS;
        return;
    }
    counter_add(&st->reread_lost_bytes, r->lost_bytes);
    log_info("queue", "lines.reread", "lines that damage took were read again from their files",
             LOG_SLICE("output", r->feeder->output->conf->name),
             LOG_NUM("lines", r->feeder->reread_lines),
             LOG_NUM("bytes", bytes_of(r->first->rr) - r->lost_bytes), LOG_NUM("lost_bytes", r->lost_bytes));
    leave_job(r);
    if (!r->feeder->is_blocked)
        tail_unblock(r->tail, r->feeder->index); /* others may have been stopped by us */
}

bool rereader_turn(struct rereader *r, int64_t mono_ns)
{
    struct feeder *f = r->feeder;
    if (r->first == NULL || f->is_blocked || f->pending != NULL || mono_ns < r->due_ns)
        return false;
    r->due_ns = 0;
    if (!r->is_open) {
        if (!may_begin(r, mono_ns))
            return false;
        begin(r);
    }
    if (r->range < r->first->rr->n_ranges) {
        range_turn(r, mono_ns);
        feeder_relieve(f, mono_ns);
    } else {
        end(r, mono_ns);
    }
    return rereader_due_at(r) <= mono_ns;
}
