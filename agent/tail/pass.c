/* Places of outputs in files: joining, blocking, and what the queues are told of them. */
#include <assert.h>
#include <stdlib.h>

#include "agent/base/must.h"
#include "agent/tail/internal.h"

#define BIT(o) (UINT32_C(1) << (o))

/* ---- passes ---- */

static void pass_init(struct pass *p, struct tail_file *f)
{
    *p = (struct pass){ .file = f, .want = TURN_BYTES };
}

struct pass *pass_new(struct tail_file *f)
{
    struct pass *p = malloc(sizeof(*p));
    budget_took(ACCOUNT_OF(MEMORY_FILES), p);
    if (p != NULL)
        pass_init(p, f);
    return p;
}

static void parked_del(struct pass *p)
{
    struct output_side *side = &p->file->t->sides[p->parked_output];
    if (p->prev_parked != NULL)
        p->prev_parked->next_parked = p->next_parked;
    else
        side->parked = p->next_parked;
    if (p->next_parked != NULL)
        p->next_parked->prev_parked = p->prev_parked;
    p->is_parked = false;
}

static void unlink_pass(struct tail_pass **list, struct tail_pass *p)
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
        parked_del(p);
    if (p->pub.state != NULL)
        t->sink.pass_free(t->sink.ctx, &p->pub);
    budget_free(ACCOUNT_OF(MEMORY_FILES), p);
}

static void pass_drop(struct pass *p)
{
    unlink_pass(p->is_parked ? &p->file->parked : &p->file->passes, &p->pub);
    pass_free(p);
}

/* tail_block may need one for each output in the middle of a feed, and tail_block_before one more. */
int passes_reserve(struct tail *t)
{
    size_t n = 0;
    for (struct pass *p = t->spares; p != NULL; p = p->next_parked)
        n++;
    for (; n < 2 * t->n_outputs; n++) {
        struct pass *p = calloc(1, sizeof(*p));
        if (p == NULL)
            return -1;
        budget_took(ACCOUNT_OF(MEMORY_FILES), p);
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

static const struct position_part *part_of(const struct position_part *parts, uint8_t n, uint8_t stream)
{
    for (uint8_t i = 0; i < n; i++)
        if (parts[i].stream == stream)
            return &parts[i];
    return NULL;
}

/* What is unfinished at this place. Below resume_until each stream that is being read again counts from where
 * its record began, or, when none is open, from what is read of it so far. */
static uint8_t pass_parts(const struct pass *p, struct position_part *parts)
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
        const struct position_part *open = part_of(now, n_now, p->pub.parts[i].stream);
        parts[i] = p->pub.parts[i];
        parts[i].start = open != NULL ? open->start : MAX(p->pub.off, parts[i].start);
    }
    return p->pub.n_parts;
}

/* Of what is unfinished something may be borrowed: by the next file from one of these passes, or by one of them from the
 * file before. */
static bool may_be_lent(const struct tail_file *f)
{
    if (f->after != NULL && f->after->stage == STAGE_READING)
        return true;
    if (f->successor == NULL)
        return false;
    bool is_read = f->successor->parked != NULL;
    for (const struct tail_pass *p = f->successor->passes; p != NULL; p = p->next)
        is_read = is_read || p->off > 0;
    return is_read;
}

/* The same records are unfinished, and so the same bytes: what follows goes on for both. */
static bool are_parts_same(const struct pass *a, const struct pass *b)
{
    struct position_part x[STREAMS_MAX], y[STREAMS_MAX];
    uint8_t n = sink_parts(a, x), m = sink_parts(b, y);
    for (uint8_t i = 0; n == m && i < n; i++)
        if (x[i].stream != y[i].stream || x[i].start != y[i].start)
            return false;
    return n == m && (n == 0 || !may_be_lent(a->file));
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

static void place(struct pass *p, const struct file_position *pos)
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
        place(p, pos);
        p->pub.next = f->passes;
        f->passes = at = &p->pub;
    }
    at->mask |= BIT(output);
    f->slots[output].pass = pass_of(at);
    return 0;
}

/* ---- blocking ---- */

static void park(struct pass *p, uint32_t output)
{
    struct output_side *side = &p->file->t->sides[output];
    p->is_parked = true;
    p->parked_output = output;
    p->prev_parked = NULL;
    p->next_parked = side->parked;
    if (side->parked != NULL)
        side->parked->prev_parked = p;
    side->parked = p;
    p->pub.next = p->file->parked;
    p->file->parked = &p->pub;
    p->file->slots[output].pass = p;
}

/* The streams that p was reading again are not done with at `end`, below resume_until. */
static void keep_resume(struct pass *p, const struct pass *from, uint64_t end)
{
    for (uint8_t i = 0; i < from->pub.n_parts; i++) {
        struct position_part part = from->pub.parts[i];
        if (part_of(p->pub.parts, p->pub.n_parts, part.stream) != NULL)
            continue;
        assert(p->pub.n_parts < STREAMS_MAX);
        part.start = MAX(part.start, end);
        p->pub.parts[p->pub.n_parts++] = part;
    }
}

/* The pass is not the one that is fed: it stands still, so its place is known. */
void tail_block_before(struct tail_file *f, struct tail_pass *pub, uint32_t output,
                       const struct position_part *parts, uint8_t n_parts)
{
    struct tail *t = f->t;
    struct pass *from = pass_of(pub), *p = t->spares;
    assert(t->feeding.pass != from && p != NULL);
    assert(pub->mask & BIT(output));
    assert(n_parts > 0 && n_parts <= STREAMS_MAX && pub->resume_until <= pub->off);
    t->spares = p->next_parked;
    pass_init(p, f);
    p->pub = *pub;
    p->pub.state = NULL;
    p->pub.mask = BIT(output);
    p->head_unknown = from->head_unknown;
    p->pub.n_parts = n_parts;
    memcpy(p->pub.parts, parts, sizeof(*parts) * n_parts);
    p->pub.resume_until = pub->off;
    for (uint8_t i = 0; i < n_parts; i++)
        p->pub.off = MIN(p->pub.off, parts[i].start);
    p->resume_skip = pub->skip_to_newline;
    p->pub.skip_to_newline = false;
    pub->mask &= ~BIT(output);
    park(p, output);
    file_dirty(f, BIT(output));
}

void tail_block(struct tail_file *f, struct tail_pass *pub, uint32_t output, uint64_t pos_end,
                const struct position_part *parts, uint8_t n_parts)
{
    struct tail *t = f->t;
    struct pass *from = pass_of(pub), *p = t->spares;
    const struct feed *feed = t->feeding.feed;
    assert(t->feeding.pass == from && p != NULL);
    assert(pub->mask & BIT(output));
    assert(pos_end >= feed->off && pos_end <= feed->off + feed->bytes.len);
    assert(n_parts <= STREAMS_MAX);
    t->spares = p->next_parked;
    t->blocked |= BIT(output);

    pass_init(p, f);
    p->pub = *pub;
    p->pub.state = NULL;
    p->pub.mask = BIT(output);
    p->head_unknown = from->head_unknown;
    p->tail_crc = from->tail_crc;
    p->wants_tail = from->wants_tail;
    p->pub.n_parts = n_parts;
    memcpy(p->pub.parts, parts, sizeof(*parts) * n_parts);
    uint64_t end = MAX(pos_end, pub->resume_until);
    bool skip = pos_end == feed->off ? t->feeding.skip_before : pub->skip_to_newline;
    if (pos_end < pub->resume_until) {
        keep_resume(p, from, pos_end);
        skip = from->resume_skip;
    } else {
        size_t n = (size_t)(pos_end - feed->off);
        p->pub.resume_until = from->pub.resume_until;
        p->pub.off = feed->off;
        p->pub.n_parts = 0; /* pass_consume forgets them at resume_until */
        pass_consume(p, feed->bytes.ptr, n);
        p->pub.n_parts = n_parts;
        memcpy(p->pub.parts, parts, sizeof(*parts) * n_parts);
    }
    p->pub.off = end;
    for (uint8_t i = 0; i < p->pub.n_parts; i++)
        p->pub.off = MIN(p->pub.off, p->pub.parts[i].start);
    p->pub.resume_until = p->pub.n_parts > 0 ? end : 0;
    p->pub.skip_to_newline = skip && p->pub.n_parts == 0;
    p->resume_skip = skip && p->pub.n_parts > 0;
    pub->mask &= ~BIT(output);
    park(p, output);
    file_dirty(f, BIT(output));
}

static void unpark(struct pass *p)
{
    struct tail_file *f = p->file;
    parked_del(p);
    unlink_pass(&f->parked, &p->pub);
    p->is_hungry = !p->is_ended;
    p->pub.next = f->passes;
    f->passes = &p->pub;
}

void tail_unblock(struct tail *t, uint32_t output)
{
    assert(output < t->n_outputs);
    t->blocked &= ~BIT(output);
    while (t->sides[output].parked != NULL) {
        struct tail_file *f = t->sides[output].parked->file;
        unpark(t->sides[output].parked);
        passes_merge(f);
        file_ready(f);
        if (list_is_in(&f->ending))
            t->next_ending_ns = MIN(t->next_ending_ns, t->now); /* its end may be due */
    }
}

bool tail_is_blocked(const struct tail *t, uint32_t output)
{
    return (t->blocked & BIT(output)) != 0;
}

/* ---- stages ---- */

static bool is_durable(const struct tail_file *f, enum stage stage)
{
    for (size_t o = 0; o < f->t->n_outputs; o++)
        if (f->slots[o].told_stage < stage || f->slots[o].told_group > f->t->sides[o].n_durable)
            return false;
    return true;
}

static void stage_set(struct tail_file *f, enum stage stage)
{
    assert(f->is_tracked);
    f->stage = stage;
    if (!list_is_in(&f->stages))
        list_add_tail(&f->t->stages, &f->stages);
    file_dirty(f, f->t->outputs);
    file_account(f);
}

/* All that can be forgotten once no output will ever go back. */
static void release(struct tail_file *f)
{
    file_close(f);
    if (f->sink_file != NULL) {
        for (struct tail_pass *p = f->passes; p != NULL; p = p->next) {
            if (p->state != NULL)
                f->t->sink.pass_free(f->t->sink.ctx, p);
            p->state = NULL;
        }
        f->t->sink.file_free(f->t->sink.ctx, f->sink_file);
        f->sink_file = NULL;
    }
}

/* May free f. */
void stage_advance(struct tail_file *f)
{
    while (f->stage != STAGE_READING && is_durable(f, f->stage)) {
        switch (f->stage) {
        case STAGE_READING:
            return;
        case STAGE_FINISHED:
            release(f);
            list_del(&f->ending);
            if (!f->is_deleted && f->phase != PHASE_ORPHAN) {
                list_del(&f->stages); /* settled: known by its inode until that goes */
                return;
            }
            stage_set(f, f->t->n_outputs > 1 ? STAGE_PASSED : STAGE_GONE);
            break;
        case STAGE_PASSED:
            stage_set(f, STAGE_GONE);
            break;
        case STAGE_GONE:
            file_free(f);
            return;
        }
    }
}

void stage_check(struct tail_file *f)
{
    if (!f->is_tracked)
        return;
    if (f->stage == STAGE_READING) {
        for (size_t o = 0; o < f->t->n_outputs; o++)
            if (!f->slots[o].pass->is_ended)
                return;
        stage_set(f, STAGE_FINISHED);
    }
    stage_advance(f);
}

void file_forget(struct tail_file *f)
{
    stage_set(f, f->t->n_outputs > 1 ? STAGE_PASSED : STAGE_GONE);
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

void file_untrack(struct tail_file *f)
{
    struct tail *t = f->t;
    for (size_t o = 0; o < t->n_outputs; o++) {
        struct vec *dirty = &t->sides[o].dirty, *gone = &t->sides[o].gone;
        for (size_t i = 0; f->slots[o].is_dirty && i < dirty->n; i++)
            if (VEC(dirty, struct tail_file *)[i] == f)
                VEC(dirty, struct tail_file *)[i] = NULL;
        if (f->slots[o].ident_version > 0 && vec_reserve(gone, sizeof(uint64_t)) == 0)
            VEC(gone, uint64_t)[gone->n++] = f->ident.incarnation;
        f->slots[o] = (struct slot){ 0 };
    }
    passes_drop(f);
    if (f->sink_file != NULL)
        t->sink.file_free(t->sink.ctx, f->sink_file);
    f->sink_file = NULL;
    table_del(&t->by_incarnation, &f->by_incarnation);
    f->ident.incarnation = 0;
    f->is_tracked = false;
    list_del(&f->ready);
    list_del(&f->stages);
    file_account(f);
}

/* ---- collecting ---- */

void position_of(const struct tail_file *f, uint32_t output, struct file_position *ret)
{
    const struct slot *s = &f->slots[output];
    const struct pass *p = s->pass;
    *ret = (struct file_position){ .incarnation = f->ident.incarnation,
                                   .start = s->collected,
                                   .end = pass_end(&p->pub),
                                   .head_crc = p->head_unknown ? 0 : p->pub.head_crc,
                                   .tail_len = p->pub.tail_len };
    bool skip = p->pub.off >= p->pub.resume_until ? p->pub.skip_to_newline : p->resume_skip;
    ret->flags = (skip ? POSITION_SKIP_TO_NEWLINE : 0) | (p->is_ended ? POSITION_FINISHED : 0) |
                 (p->head_unknown ? POSITION_HEAD_UNKNOWN : 0) |
                 (f->stage >= STAGE_PASSED ? POSITION_PASSED : 0);
    ret->tail_crc = p->wants_tail ? p->tail_crc : crc_update(0, p->pub.tail_bytes, p->pub.tail_len);
    ret->n_parts = pass_parts(p, ret->parts);
}

void slot_settle(struct slot *s, uint64_t off)
{
    s->collected = s->durable = off;
    s->under_way_group = 0;
}

uint64_t durable_off(const struct tail *t, uint32_t output, const struct slot *s)
{
    uint32_t n = (uint32_t)t->sides[output].n_durable;
    if (s->told_group <= n)
        return s->collected;
    return s->under_way_group > 0 && s->under_way_group <= n ? s->under_way : s->durable;
}

static int collect_file(struct tail *t, uint32_t output, struct tail_file *f)
{
    struct slot *s = &f->slots[output];
    s->is_dirty = false;
    struct must must = { 0 };
    while (vec_reserve(&t->ret_files, sizeof(struct file_ident)) < 0 ||
           vec_reserve(&t->ret_positions, sizeof(struct file_position)) < 0 ||
           vec_reserve(&t->ret_gone, sizeof(uint64_t)) < 0)
        must_wait(&must); /* see file_dirty */
    if (s->told_stage == STAGE_GONE)
        return 0;
    s->durable = durable_off(t, output, s);
    s->told_group = (uint32_t)(t->sides[output].n_groups + 1);
    s->told_stage = (uint8_t)f->stage;
    if (f->stage == STAGE_GONE) {
        if (s->ident_version > 0)
            VEC(&t->ret_gone, uint64_t)[t->ret_gone.n++] = f->ident.incarnation;
        return 1;
    }
    if (s->ident_version != f->ident_version)
        VEC(&t->ret_files, struct file_ident)[t->ret_files.n++] = f->ident;
    s->ident_version = f->ident_version;
    struct file_position *pos = &VEC(&t->ret_positions, struct file_position)[t->ret_positions.n++];
    position_of(f, output, pos);
    assert(pos->start <= pos->end);
    s->collected = pos->end;
    if (s->under_way_group <= t->sides[output].n_durable) { /* none, or that of durable */
        s->under_way = pos->end;
        s->under_way_group = s->told_group;
    }
    return 1;
}

bool tail_collect(struct tail *t, uint32_t output, struct group_end *end)
{
    assert(output < t->n_outputs);
    assert(t->feeding.pass == NULL); /* bytes that are being fed have no place yet */
    struct output_side *side = &t->sides[output];
    int n = 0;
    t->ret_files.n = t->ret_positions.n = t->ret_gone.n = 0;
    for (size_t i = 0; i < side->dirty.n; i++) {
        struct tail_file *f = VEC(&side->dirty, struct tail_file *)[i];
        n += f == NULL ? 0 : collect_file(t, output, f);
    }
    side->dirty.n = 0;
    for (size_t i = 0; i < side->gone.n; i++, n++) {
        struct must must = { 0 };
        while (vec_reserve(&t->ret_gone, sizeof(uint64_t)) < 0)
            must_wait(&must);
        VEC(&t->ret_gone, uint64_t)[t->ret_gone.n++] = VEC(&side->gone, uint64_t)[i];
    }
    side->gone.n = 0;
    end->files = t->ret_files.items;
    end->n_files = t->ret_files.n;
    end->positions = t->ret_positions.items;
    end->n_positions = t->ret_positions.n;
    end->gone = t->ret_gone.items;
    end->n_gone = t->ret_gone.n;
    side->n_groups += n > 0;
    return n > 0;
}

void tail_durable(struct tail *t, uint32_t output, uint64_t n)
{
    struct output_side *side = &t->sides[output];
    assert(output < t->n_outputs && n <= side->n_groups);
    side->n_durable = MAX(side->n_durable, n);
    for (struct list *l = t->stages.next, *next; l != &t->stages; l = next) {
        next = l->next;
        stage_advance(CONTAINER_OF(l, struct tail_file, stages));
    }
}

/* ---- a failed sync ---- */

static int by_incarnation(const void *a, const void *b)
{
    uint64_t x = (*(const struct recovered_file *const *)a)->ident.incarnation;
    uint64_t y = (*(const struct recovered_file *const *)b)->ident.incarnation;
    return x < y ? -1 : x > y;
}

static const struct recovered_file *find_recovered(const struct recovered_file **sorted, size_t n,
                                                   uint64_t incarnation)
{
    struct recovered_file key = { .ident.incarnation = incarnation };
    const struct recovered_file *k = &key, **hit;
    hit = n == 0 ? NULL : bsearch(&k, sorted, n, sizeof(*sorted), by_incarnation);
    return hit == NULL ? NULL : *hit;
}

/* The output leaves whatever pass it is in. */
static void leave(struct tail_file *f, uint32_t output)
{
    struct pass *p = f->slots[output].pass;
    p->pub.mask &= ~BIT(output);
    f->slots[output].pass = NULL;
    if (p->pub.mask == 0)
        pass_drop(p);
}

struct file_position first_position(const struct slot *s)
{
    uint32_t flags = (s->first_off > 0 ? POSITION_HEAD_UNKNOWN : 0) | (s->first_skip ? POSITION_SKIP_TO_NEWLINE : 0);
    return (struct file_position){ .end = s->first_off, .flags = flags };
}

void slot_place(struct tail_file *f, uint32_t output, const struct file_position *pos)
{
    struct slot *s = &f->slots[output];
    if (s->pass != NULL)
        leave(f, output);
    for (struct must must = { 0 }; pass_place(f, output, pos) < 0;)
        must_wait(&must); /* not from a wrong place */
    slot_settle(s, pos->end);
    s->ident_version = 0;
    s->told_stage = pos->flags & POSITION_PASSED     ? STAGE_PASSED
                    : pos->flags & POSITION_FINISHED ? STAGE_FINISHED
                                                     : STAGE_READING;
}

void file_reopen(struct tail_file *f)
{
    f->stage = STAGE_READING;
    list_del(&f->stages);
    if (f->phase == PHASE_ROTATED || f->phase == PHASE_ORPHAN)
        file_set_phase(f, f->phase);
}

/* The queue has no place of this file but where it began, and of that no more than how far it is. */
static bool is_at_first(const struct slot *s, const struct recovered_file *at)
{
    return at == NULL || (at->position.end == s->first_off && at->position.tail_len == 0 && at->position.n_parts == 0 &&
                          (at->position.flags & ~(uint32_t)POSITION_HEAD_UNKNOWN) == 0);
}

static void fence_file(struct tail_file *f, uint32_t output, const struct recovered_file *at)
{
    struct slot *s = &f->slots[output];
    struct file_position pos = is_at_first(s, at) ? first_position(s) : at->position;
    if (at == NULL && s->told_stage == STAGE_GONE && s->told_group <= f->t->sides[output].n_durable)
        return; /* the queue has done with it for good */
    bool is_forgotten = f->stage >= STAGE_PASSED && f->phase == PHASE_MISSING;
    slot_place(f, output, &pos);
    s->told_group = 0;
    if (!is_forgotten && !s->pass->is_ended && f->stage != STAGE_READING)
        file_reopen(f);
    if (f->t->blocked & BIT(output)) {
        /* Its own, even when another stands at the same place. */
        if (s->pass->pub.mask != BIT(output)) {
            struct pass *own;
            for (struct must must = { 0 }; (own = pass_new(f)) == NULL;)
                must_wait(&must);
            leave(f, output);
            place(own, &pos);
            own->pub.mask = BIT(output);
            s->pass = own;
        } else {
            unlink_pass(&f->passes, &s->pass->pub);
        }
        park(s->pass, output);
    }
    file_dirty(f, BIT(output));
    file_ready(f);
    file_account(f);
}

void tail_fence(struct tail *t, uint32_t output, const struct recovered_file *files, size_t n)
{
    assert(output < t->n_outputs && t->feeding.pass == NULL);
    const struct recovered_file **sorted = must_alloc(n * sizeof(*sorted));
    for (size_t i = 0; i < n; i++)
        sorted[i] = &files[i];
    qsort(sorted, n, sizeof(*sorted), by_incarnation);
    for (struct list *l = t->files.next; l != &t->files; l = l->next) {
        struct tail_file *f = CONTAINER_OF(l, struct tail_file, all);
        if (f->is_tracked && f->slots[output].pass != NULL)
            fence_file(f, output, find_recovered(sorted, n, f->ident.incarnation));
    }
    for (size_t i = 0; i < n; i++) {
        struct vec *gone = &t->sides[output].gone;
        if (file_by_incarnation(t, files[i].ident.incarnation) == NULL &&
            vec_reserve(gone, sizeof(uint64_t)) == 0)
            VEC(gone, uint64_t)[gone->n++] = files[i].ident.incarnation;
    }
    free(sorted);
}
