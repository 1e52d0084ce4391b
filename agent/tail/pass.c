/* Passes: the places of outputs in files, what is read there, and those that came to one place. */
#include <assert.h>

#include "agent/base/must.h"
#include "agent/base/pool.h"
#include "agent/tail/internal.h"

static struct pool pool = POOL_INIT(ACCOUNT_OF(MEMORY_FILES)); /* a file that goes to sleep gives its pass back */

/* ---- passes ---- */

void pass_init(struct pass *p, struct tail_file *f)
{
    *p = (struct pass){ .file = f, .want = TURN_BYTES };
}

struct pass *pass_new(struct tail_file *f)
{
    struct pass *p = pool_alloc(&pool, sizeof(*p));
    if (p != NULL)
        pass_init(p, f);
    return p;
}

void pass_unlink(struct tail_pass **list, struct tail_pass *p)
{
    while (*list != NULL && *list != p)
        list = &(*list)->next;
    if (*list == p)
        *list = p->next;
}

void pass_free(struct pass *p)
{
    struct tail *t = p->file->t;
    if (p->is_parked)
        pass_unpark(p);
    if (p->pub.state != NULL)
        t->sink.pass_free(t->sink.ctx, &p->pub);
    pool_free(&pool, p);
}

void passes_free_spares(struct tail *t)
{
    for (struct pass *p = t->spares, *next; p != NULL; p = next) {
        next = p->next_parked;
        pool_free(&pool, p);
    }
    t->spares = NULL;
}

void pass_drop(struct pass *p)
{
    pass_unlink(p->is_parked ? &p->file->parked : &p->file->passes, &p->pub);
    pass_free(p);
}

/* tail_block may need one for each output in the middle of a feed, and tail_block_before one more. */
int passes_reserve(struct tail *t)
{
    size_t n = 0;
    for (struct pass *p = t->spares; p != NULL; p = p->next_parked)
        n++;
    for (; n < 2 * t->n_outputs; n++) {
        struct pass *p = pool_alloc(&pool, sizeof(*p));
        if (p == NULL)
            return -1;
        p->next_parked = t->spares;
        t->spares = p;
    }
    return 0;
}

static uint8_t sink_parts(const struct pass *p, struct position_part *parts)
{
    const struct tail *t = p->file->t;
    return p->pub.state == NULL ? 0 : t->sink.parts(t->sink.ctx, &p->pub, parts);
}

const struct position_part *part_of_stream(const struct position_part *parts, uint8_t n, uint8_t stream)
{
    for (uint8_t i = 0; i < n; i++)
        if (parts[i].stream == stream)
            return &parts[i];
    return NULL;
}

/* What is unfinished at this place. Below resume_until each stream that is being read again counts from where
 * its record began, or, when none is open, from what is read of it so far. */
uint8_t pass_parts(const struct pass *p, struct position_part *parts)
{
    if (p->is_parked) {
        memcpy(parts, p->pub.parts, sizeof(*parts) * p->pub.n_parts);
        return p->pub.n_parts;
    }
    struct position_part now[STREAMS_MAX];
    uint8_t n_now = sink_parts(p, now);
    assert(n_now <= STREAMS_MAX);
    if (p->pub.off >= p->pub.resume_until) {
        memcpy(parts, now, sizeof(*now) * n_now);
        return n_now;
    }
    for (uint8_t i = 0; i < p->pub.n_parts; i++) {
        const struct position_part *open = part_of_stream(now, n_now, p->pub.parts[i].stream);
        parts[i] = p->pub.parts[i];
        parts[i].start = open != NULL ? open->start : MAX(p->pub.off, parts[i].start);
    }
    return p->pub.n_parts;
}

static bool is_bound(const struct pass *p)
{
    const struct tail *t = p->file->t;
    return p->pub.state != NULL && t->sink.is_bound != NULL && t->sink.is_bound(t->sink.ctx, &p->pub);
}

/* The same records are unfinished, and so the same bytes: what follows goes on for both. */
static bool are_parts_same(const struct pass *a, const struct pass *b)
{
    struct position_part x[STREAMS_MAX], y[STREAMS_MAX];
    uint8_t n = sink_parts(a, x), m = sink_parts(b, y);
    for (uint8_t i = 0; n == m && i < n; i++)
        if (x[i].stream != y[i].stream || x[i].start != y[i].start)
            return false;
    return n == m && !is_bound(a) && !is_bound(b);
}

static bool can_merge(const struct pass *a, const struct pass *b)
{
    return a->pub.off == b->pub.off && a->pub.off >= a->pub.resume_until && b->pub.off >= b->pub.resume_until &&
           a->pub.skip_to_newline == b->pub.skip_to_newline && a->is_ended == b->is_ended && are_parts_same(a, b);
}

/* Passes that came to the same place go on as one. */
void passes_merge(struct tail_file *f)
{
    for (struct tail_pass *a = f->passes; a != NULL; a = a->next) {
        for (struct tail_pass *b = a->next, *next; b != NULL; b = next) {
            next = b->next;
            if (!can_merge(pass_of(a), pass_of(b)))
                continue;
            a->mask |= b->mask;
            pass_of(a)->is_hungry = pass_of(a)->is_hungry || pass_of(b)->is_hungry;
            if (pass_of(a)->head_unknown && !pass_of(b)->head_unknown) {
                a->head_crc = b->head_crc;
                pass_of(a)->head_unknown = false;
            }
            if (b->tail_len > a->tail_len) {
                memcpy(a->tail_bytes, b->tail_bytes, b->tail_len);
                a->tail_len = b->tail_len;
                pass_of(a)->tail_crc = pass_of(b)->tail_crc;
                pass_of(a)->wants_tail = pass_of(b)->wants_tail;
            }
            for (size_t o = 0; o < f->t->n_outputs; o++)
                if (f->slots[o].pass == pass_of(b))
                    f->slots[o].pass = pass_of(a);
            pass_drop(pass_of(b));
        }
    }
}

static void tail_append(struct tail_pass *p, const char *ptr, size_t len)
{
    if (len >= TAIL_CRC_BYTES) {
        memcpy(p->tail_bytes, ptr + len - TAIL_CRC_BYTES, TAIL_CRC_BYTES);
        p->tail_len = TAIL_CRC_BYTES;
        return;
    }
    size_t keep = MIN((size_t)p->tail_len, TAIL_CRC_BYTES - len);
    memmove(p->tail_bytes, p->tail_bytes + p->tail_len - keep, keep);
    memcpy(p->tail_bytes + keep, ptr, len);
    p->tail_len = (uint16_t)(keep + len);
}

/* Bytes at off are seen, read by anyone or not: the fingerprint grows with them. */
void file_see(struct tail_file *f, uint64_t off, const char *ptr, size_t len)
{
    uint64_t fp_len = f->ident.fp_len, end = off + len;
    if (fp_len >= FINGERPRINT_BYTES || off > fp_len || end <= fp_len)
        return;
    size_t more = (size_t)(MIN(end, FINGERPRINT_BYTES) - fp_len);
    f->ident.fp_crc = crc_update(f->ident.fp_crc, ptr + (fp_len - off), more);
    f->ident.fp_len = (uint32_t)(fp_len + more);
    file_changed_ident(f);
}

/* len bytes at off are consumed: checksums, off. */
void pass_consume(struct pass *p, const char *ptr, size_t len)
{
    uint64_t off = p->pub.off, end = off + len;
    file_see(p->file, off, ptr, len);
    uint64_t from = MAX(off, p->pub.resume_until);
    if (end > from) {
        if (p->wants_tail) { /* what is before was never looked at: this chunk's own bytes, as far as they reach */
            size_t known = (size_t)MIN(from - off, (uint64_t)TAIL_CRC_BYTES);
            memcpy(p->pub.tail_bytes, ptr + (from - off) - known, known);
            p->pub.tail_len = (uint16_t)known;
        }
        p->pub.head_crc = crc_update(p->pub.head_crc, ptr + (from - off), (size_t)(end - from));
        tail_append(&p->pub, ptr + (from - off), (size_t)(end - from));
        p->wants_tail = false;
    }
    p->pub.off = end;
    if (end >= p->pub.resume_until && p->pub.resume_until > 0) {
        p->pub.resume_until = 0;
        p->pub.n_parts = 0;
    }
}

static bool same_place(const struct pass *p, const struct file_position *pos)
{
    return pass_end(&p->pub) == pos->end && p->pub.n_parts == pos->n_parts && p->pub.state == NULL &&
           memcmp(p->pub.parts, pos->parts, sizeof(*pos->parts) * pos->n_parts) == 0 &&
           p->head_unknown == ((pos->flags & POSITION_HEAD_UNKNOWN) != 0) &&
           p->is_ended == ((pos->flags & POSITION_FINISHED) != 0);
}

void pass_set(struct pass *p, const struct file_position *pos)
{
    bool skip = pos->flags & POSITION_SKIP_TO_NEWLINE;
    p->pub.off = pos->end;
    p->pub.n_parts = (uint8_t)MIN(pos->n_parts, STREAMS_MAX);
    memcpy(p->pub.parts, pos->parts, sizeof(*pos->parts) * p->pub.n_parts);
    for (uint8_t i = 0; i < p->pub.n_parts; i++)
        p->pub.off = MIN(p->pub.off, pos->parts[i].start);
    p->pub.resume_until = p->pub.n_parts > 0 ? pos->end : 0;
    p->pub.skip_to_newline = skip && p->pub.n_parts == 0;
    p->resume_skip = skip && p->pub.n_parts > 0;
    p->pub.head_crc = pos->head_crc;
    p->pub.tail_len = MIN(pos->tail_len, TAIL_CRC_BYTES);
    p->tail_crc = pos->tail_crc;
    p->wants_tail = p->pub.tail_len > 0;
    p->head_unknown = pos->flags & POSITION_HEAD_UNKNOWN;
    p->is_ended = pos->flags & POSITION_FINISHED;
    p->is_hungry = !p->is_ended;
}

int pass_place(struct tail_file *f, uint32_t output, const struct file_position *pos)
{
    struct tail_pass *at = f->passes;
    while (at != NULL && !same_place(pass_of(at), pos))
        at = at->next;
    if (at == NULL) {
        struct pass *p = pass_new(f);
        if (p == NULL)
            return -1;
        pass_set(p, pos);
        p->pub.next = f->passes;
        f->passes = at = &p->pub;
    }
    at->mask |= BIT(output);
    f->slots[output].pass = pass_of(at);
    return 0;
}

void passes_drop(struct tail_file *f)
{
    while (f->passes != NULL)
        pass_drop(pass_of(f->passes));
    while (f->parked != NULL)
        pass_drop(pass_of(f->parked));
    for (size_t o = 0; o < f->t->n_outputs; o++)
        f->slots[o].pass = NULL;
}

/* ---- an output goes to another place ---- */

struct file_position first_position(const struct slot *s)
{
    uint32_t flags = (s->first_off > 0 ? POSITION_HEAD_UNKNOWN : 0) | (s->first_skip ? POSITION_SKIP_TO_NEWLINE : 0);
    return (struct file_position){ .end = s->first_off, .flags = flags };
}

void slot_settle(struct slot *s, uint64_t off)
{
    s->collected = s->durable = off;
    s->under_way_group = 0;
}

/* The output leaves whatever pass it is in. */
void slot_leave(struct tail_file *f, uint32_t output)
{
    struct pass *p = f->slots[output].pass;
    p->pub.mask &= ~BIT(output);
    f->slots[output].pass = NULL;
    if (p->pub.mask == 0)
        pass_drop(p);
}

void slot_place(struct tail_file *f, uint32_t output, const struct file_position *pos)
{
    struct slot *s = &f->slots[output];
    if (s->pass != NULL)
        slot_leave(f, output);
    for (struct must must = { 0 }; pass_place(f, output, pos) < 0;)
        must_wait(&must); /* not from a wrong place */
    slot_settle(s, pos->end);
    s->ident_version = 0;
    s->told_stage = pos->flags & POSITION_PASSED     ? STAGE_PASSED
                    : pos->flags & POSITION_FINISHED ? STAGE_FINISHED
                                                     : STAGE_READING;
}

static void unend(struct pass *p)
{
    struct tail_file *f = p->file;
    p->is_ended = false;
    p->is_hungry = !p->is_parked;
    for (size_t o = 0; o < f->t->n_outputs; o++)
        if (p->pub.mask & BIT(o))
            f->slots[o].told_stage = STAGE_READING;
    file_dirty(f, p->pub.mask);
}

void passes_unend(struct tail_file *f)
{
    for (int i = 0; i < 2; i++)
        for (struct tail_pass *p = i == 0 ? f->passes : f->parked; p != NULL; p = p->next)
            if (pass_of(p)->is_ended && pass_end(p) < f->size)
                unend(pass_of(p));
}

void file_reopen(struct tail_file *f)
{
    f->stage = STAGE_READING;
    list_del(&f->stages);
    if (f->phase == PHASE_ROTATED || f->phase == PHASE_ORPHAN)
        file_set_phase(f, f->phase);
}
