/* Outputs that take no more: they leave their passes, and come back with passes of their own; or a failed sync takes them
 * back. */
#include <assert.h>
#include <stdlib.h>

#include "agent/base/must.h"
#include "agent/tail/internal.h"

void pass_unpark(struct pass *p)
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
}

/* It has its turns from now on. */
static void go_on(struct pass *p)
{
    p->is_hungry = true;
    p->pub.next = p->file->passes;
    p->file->passes = &p->pub;
    file_ready(p->file);
}

/* A pass for one output, which leaves pub for it: with these unfinished records, in no list and at no place yet. */
static struct pass *take_spare(struct tail_file *f, struct tail_pass *pub, uint32_t output,
                               const struct position_part *parts, uint8_t n_parts)
{
    struct pass *p = f->t->spares;
    assert(p != NULL && (pub->mask & BIT(output)) && n_parts <= STREAMS_MAX);
    f->t->spares = p->next_parked;
    pass_init(p, f);
    p->pub = *pub;
    p->pub.state = NULL;
    p->pub.mask = BIT(output);
    p->pub.n_parts = n_parts;
    memcpy(p->pub.parts, parts, sizeof(*parts) * n_parts);
    p->head_unknown = pass_of(pub)->head_unknown;
    p->tail_crc = pass_of(pub)->tail_crc;
    p->wants_tail = pass_of(pub)->wants_tail;
    pub->mask &= ~BIT(output);
    f->slots[output].pass = p;
    file_dirty(f, BIT(output));
    return p;
}

/* The streams that p was reading again are not done with at `end`, below resume_until. */
static void keep_resume(struct pass *p, const struct pass *from, uint64_t end)
{
    for (uint8_t i = 0; i < from->pub.n_parts; i++) {
        struct position_part part = from->pub.parts[i];
        if (part_of_stream(p->pub.parts, p->pub.n_parts, part.stream) != NULL)
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
    assert(t->feeding.pass != pass_of(pub));
    assert(n_parts > 0 && pub->resume_until <= pub->off);
    struct pass *p = take_spare(f, pub, output, parts, n_parts);
    p->pub.resume_until = pub->off;
    for (uint8_t i = 0; i < n_parts; i++)
        p->pub.off = MIN(p->pub.off, parts[i].start);
    p->resume_skip = pub->skip_to_newline;
    p->pub.skip_to_newline = false;
    if (t->blocked & BIT(output))
        park(p, output);
    else
        go_on(p);
}

/* From the pass that is fed: a pass of its own, in no list yet. */
static struct pass *part_from_feed(struct tail_file *f, struct tail_pass *pub, uint32_t output, uint64_t pos_end,
                                   const struct position_part *parts, uint8_t n_parts)
{
    struct tail *t = f->t;
    struct pass *from = pass_of(pub);
    const struct feed *feed = t->feeding.feed;
    assert(t->feeding.pass == from);
    assert(pos_end >= feed->off && pos_end <= feed->off + feed->bytes.len);
    struct pass *p = take_spare(f, pub, output, parts, n_parts);
    uint64_t end = MAX(pos_end, pub->resume_until);
    bool skip = pos_end == feed->off ? t->feeding.skip_before : pub->skip_to_newline;
    if (pos_end < pub->resume_until) {
        keep_resume(p, from, pos_end);
        skip = from->resume_skip;
    } else {
        p->pub.off = feed->off;
        pass_consume(p, feed->bytes.ptr, (size_t)(pos_end - feed->off));
        p->pub.n_parts = n_parts; /* it forgets them at resume_until */
    }
    p->pub.off = end;
    for (uint8_t i = 0; i < p->pub.n_parts; i++)
        p->pub.off = MIN(p->pub.off, p->pub.parts[i].start);
    p->pub.resume_until = p->pub.n_parts > 0 ? end : 0;
    p->pub.skip_to_newline = skip && p->pub.n_parts == 0;
    p->resume_skip = skip && p->pub.n_parts > 0;
    return p;
}

void tail_block(struct tail_file *f, struct tail_pass *pub, uint32_t output, uint64_t pos_end,
                const struct position_part *parts, uint8_t n_parts)
{
    f->t->blocked |= BIT(output);
    park(part_from_feed(f, pub, output, pos_end, parts, n_parts), output);
}

void tail_part(struct tail_file *f, struct tail_pass *pub, uint32_t output, uint64_t pos_end,
               const struct position_part *parts, uint8_t n_parts)
{
    go_on(part_from_feed(f, pub, output, pos_end, parts, n_parts));
}

static void unpark(struct pass *p)
{
    struct tail_file *f = p->file;
    pass_unpark(p);
    pass_unlink(&f->parked, &p->pub);
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
            slot_leave(f, output);
            pass_set(own, &pos);
            own->pub.mask = BIT(output);
            s->pass = own;
        } else {
            pass_unlink(&f->passes, &s->pass->pub);
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
    sleepers_wake_all(t);
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
