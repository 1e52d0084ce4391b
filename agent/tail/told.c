/* What the queues are told of the files: how far they are, and in stages that they are done with. */
#include <assert.h>

#include "agent/tail/internal.h"

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

void file_untrack(struct tail_file *f)
{
    struct tail *t = f->t;
    file_drop_dirty(f);
    for (size_t o = 0; o < t->n_outputs; o++) {
        struct vec *gone = &t->sides[o].gone;
        const bool is_known = f->slots[o].ident_version > 0 || f->slots[o].is_own;
        if (is_known && vec_reserve(gone, sizeof(uint64_t)) == 0)
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
    vec_must_reserve(&t->ret_files, sizeof(struct file_ident)); /* see file_dirty */
    vec_must_reserve(&t->ret_positions, sizeof(struct file_position));
    vec_must_reserve(&t->ret_gone, sizeof(uint64_t));
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

/* Its queue never heard of it, and there is nothing to say but that it is there: no group depends on that. */
static bool is_but_new(const struct tail_file *f, uint32_t output)
{
    const struct slot *s = &f->slots[output];
    return s->told_group == 0 && s->ident_version == 0 && f->stage == STAGE_READING && s->pass->pub.state == NULL &&
           s->pass->pub.n_parts == 0 && pass_end(&s->pass->pub) == s->collected;
}

static bool is_unheard(const struct tail_file *f, uint32_t output)
{
    return f != NULL && f->is_tracked && f->slots[output].is_dirty && f->slots[output].ident_version == 0;
}

/* Those that it came after go first, when its queue has not heard of them either: after a restart that order is what tells which
 * is older. */
static int collect_in_order(struct tail *t, uint32_t output, struct tail_file *f)
{
    int n = 0;
    struct tail_file *first = f;
    while (is_unheard(f, output) && is_unheard(first->after, output))
        first = first->after;
    for (; first != f; first = first->successor)
        n += collect_file(t, output, first);
    return n + collect_file(t, output, f);
}

/* Returns how many. */
static int collect_dirty(struct tail *t, uint32_t output, size_t max_new)
{
    struct vec *dirty = &t->sides[output].dirty;
    struct tail_file **files = dirty->items;
    size_t n_left = 0, n_kept = 0;
    int n = 0;
    for (size_t i = 0; i < dirty->n; i++) {
        struct tail_file *f = files[i];
        if (f == NULL || !f->slots[output].is_dirty)
            continue;
        if (is_but_new(f, output) && max_new-- == 0) {
            max_new = 0;
            files[n_left++] = f;
        } else {
            n += collect_in_order(t, output, f);
        }
    }
    for (size_t i = 0; i < n_left; i++)
        if (files[i]->slots[output].is_dirty) /* else it went before one that came after it */
            files[n_kept++] = files[i];
    dirty->n = n_kept;
    t->has_new_names |= n_kept > 0;
    return n;
}

bool file_is_untold(const struct tail_file *f)
{
    for (size_t o = 0; o < f->t->n_outputs; o++)
        if (f->slots[o].ident_version > 0)
            return false;
    return f->is_tracked;
}

bool tail_collect(struct tail *t, uint32_t output, size_t max_new, struct group_end *end)
{
    assert(output < t->n_outputs);
    assert(t->feeding.pass == NULL); /* bytes that are being fed have no place yet */
    struct output_side *side = &t->sides[output];
    t->ret_files.n = t->ret_positions.n = t->ret_gone.n = 0;
    int n = collect_dirty(t, output, max_new);
    for (size_t i = 0; i < side->gone.n; i++, n++) {
        vec_must_reserve(&t->ret_gone, sizeof(uint64_t));
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
