/* A reload: the files of the old tail go over to the new one, with who they are and what is open of them. */
#include <assert.h>
#include <stdlib.h>

#include "agent/base/log.h"
#include "agent/tail/internal.h"

/* Index in old of each output of t; -1 = new. By name: the order may have changed. */
static void map_outputs(const struct tail *t, const struct tail *old, int map[OUTPUTS_MAX])
{
    for (size_t o = 0; o < t->n_outputs; o++) {
        map[o] = -1;
        for (size_t i = 0; i < old->n_outputs; i++)
            if (o < t->conf->n_outputs && i < old->conf->n_outputs &&
                slice_eq(t->conf->outputs[o].name, old->conf->outputs[i].name))
                map[o] = (int)i;
    }
}

static uint32_t input_now(const struct tail *t, const struct tail_file *g)
{
    for (uint32_t i = 0; i < t->conf->n_inputs; i++)
        if (slice_eq(t->conf->inputs[i].name, g->ident.input))
            return i;
    return UINT32_MAX;
}

/* No queue knows f: it is g, and nothing of it is durable, however far g was read. Reading begins where it began. */
static void take_places(struct tail_file *f, const struct tail_file *g, const int map[OUTPUTS_MAX])
{
    struct tail *t = f->t;
    passes_drop(f);
    for (uint32_t o = 0; o < t->n_outputs; o++) {
        if (map[o] < 0 || g->slots[map[o]].pass == NULL)
            continue;
        struct file_position pos = first_position(&g->slots[map[o]]);
        slot_place(f, o, &pos);
        f->slots[o].first_off = pos.end;
        f->slots[o].first_skip = g->slots[map[o]].first_skip;
    }
    for (uint32_t o = 0; o < t->n_outputs; o++)
        if (f->slots[o].pass == NULL && f->passes != NULL)
            place_at_furthest(f, o);
    for (uint32_t o = 0; o < t->n_outputs; o++)
        if (f->slots[o].pass == NULL) { /* every output is new: where it was begun just now, or from the start */
            struct file_position pos = first_position(&f->slots[o]);
            slot_place(f, o, &pos);
        }
    file_set_incarnation(f, g->ident.incarnation);
    f->ident.fp_len = g->ident.fp_len;
    f->ident.fp_crc = g->ident.fp_crc;
    f->ident.first_seen_ns = g->ident.first_seen_ns;
    f->is_sniffed = g->is_sniffed;
    f->size = MAX(f->size, g->size);
    file_changed_ident(f);
}

/* Where an output began in g is not durable, so its queue knows nothing of f, which others know: they may have read on since. */
static void take_beginnings(struct tail_file *f, const struct tail_file *g, const int map[OUTPUTS_MAX])
{
    for (uint32_t o = 0; o < f->t->n_outputs; o++) {
        const struct slot *its = map[o] < 0 ? NULL : &g->slots[map[o]];
        struct slot *s = &f->slots[o];
        if (its == NULL || its->pass == NULL || its->is_own || s->pass == NULL || s->is_own ||
            durable_off(g->t, (uint32_t)map[o], its) != its->first_off || s->collected == its->first_off)
            continue;
        struct file_position pos = first_position(its);
        slot_place(f, o, &pos);
        s->first_off = pos.end;
        s->first_skip = its->first_skip;
        file_dirty(f, BIT(o));
        if (f->stage == STAGE_FINISHED)
            file_reopen(f);
        file_ready(f);
    }
}

static void move_fd(struct tail_file *f, struct tail_file *g)
{
    if (f->fd >= 0 || g->fd < 0 || (g->is_copied && f->is_gz))
        return; /* the copy is as good */
    int fd = g->fd;
    gz_close(g->gz);
    g->gz = NULL;
    g->fd = -1;
    list_del(&g->lru);
    g->t->n_open--;
    file_take_fd(f, fd);
}

/* What its path says as it is configured now; of a path that no input names any more, what it said before. */
static void take_captures(struct tail_file *f, const struct tail_file *g)
{
    if (file_set_captures(f, g->captures, g->n_captures) < 0)
        log_error("tail", "file.stalled", "out of memory", LOG_CSTR("path", g->path.path));
    resume_captures(f);
}

/* g has no name that the new tail could find: it is read on through its descriptor. is_cut: that shows another text. */
static void take_unnamed(struct tail_file *f, struct tail_file *g, bool is_cut)
{
    if (f->phase == PHASE_MISSING)
        resume_found(f);
    take_captures(f, g);
    f->is_deleted = g->is_deleted;
    f->is_copied = false; /* found again by its text, should it be needed */
    f->is_gz = g->is_gz;
    f->size = MAX(f->size, g->size);
    f->lost_ns = g->lost_ns;
    if (!is_cut) {
        file_set_ino(f, &g->ident);
        move_fd(f, g);
    }
    file_drop_names(f);
    file_set_phase(f, is_cut ? PHASE_ORPHAN : PHASE_ROTATED);
    file_ready(f);
    chain_release_copies(f);
    stage_check(f);
}

static struct tail_file *make_like(struct tail *t, const struct tail_file *g, const int map[OUTPUTS_MAX])
{
    uint32_t input = input_now(t, g);
    if (input == UINT32_MAX)
        return NULL; /* its input is gone: what was not read is not wanted any more */
    struct tail_file *f = file_new(t, input, g->path.path);
    if (f == NULL)
        return NULL;
    f->ident.generation = 0;
    file_set_incarnation(f, g->ident.incarnation);
    f->ident_version = 1;
    f->is_tracked = true;
    take_places(f, g, map);
    file_set_base(f, file_base(g), file_origin(g));
    table_add(&t->missing, &f->by_ino, g->ident.ino);
    return f;
}

/* Who has g's inode in the new tail. One that could not be read is not known to be another: it is g that goes on there, by
 * its descriptor, or once it can be read again. */
static struct tail_file *has_inode_of(struct tail *t, const struct tail_file *g)
{
    struct stat st = { .st_dev = g->ident.dev, .st_ino = g->ident.ino };
    struct tail_file *same = g->phase == PHASE_ORPHAN ? NULL : file_by_ino(t, &st);
    if (same == NULL || same->phase != PHASE_UNREADABLE)
        return same;
    if (g->fd >= 0) {
        name_touch(t, same->path.path, NULL);
        file_free(same);
    }
    return NULL;
}

static bool is_in_chain(const struct tail_file *f)
{
    return f != NULL && f->is_tracked && f->stage == STAGE_READING && f->phase != PHASE_MISSING;
}

/* Old knows which file came after which. Of two that a queue heard of late, or not at all, the clock by which they were first seen
 * may say otherwise. */
static void follow_as_before(struct tail *t, const struct tail *old)
{
    for (const struct list *l = old->files.next; l != &old->files; l = l->next) {
        const struct tail_file *g = CONTAINER_OF(l, const struct tail_file, all);
        struct tail_file *f = file_by_incarnation(t, g->ident.incarnation);
        struct tail_file *before = g->after == NULL ? NULL : file_by_incarnation(t, g->after->ident.incarnation);
        if (is_in_chain(f) && is_in_chain(before) && before->phase != PHASE_LIVE)
            follow_after(f, before);
    }
}

void tail_adopt(struct tail *t, struct tail *old)
{
    int map[OUTPUTS_MAX];
    if (old == NULL)
        return;
    t->now = MAX(t->now, old->now);
    map_outputs(t, old, map);
    sleepers_wake_all(old);
    for (struct list *l = old->files.next; l != &old->files; l = l->next) {
        struct tail_file *g = CONTAINER_OF(l, struct tail_file, all);
        if (!g->is_tracked || g->stage >= STAGE_PASSED || g->phase == PHASE_MISSING)
            continue;
        struct tail_file *f = file_by_incarnation(t, g->ident.incarnation);
        struct tail_file *same = has_inode_of(t, g);
        if (f == NULL && same != NULL && same->is_blank)
            file_renew(same); /* as g was, and that was not told */
        if (f != NULL && f->stage < STAGE_PASSED)
            take_beginnings(f, g, map);
        if (f == NULL && same != NULL && file_is_untold(same)) {
            f = same;
            take_places(f, g, map);
            file_ready(f);
        }
        /* Read to its end, it has its descriptor until all of it is durable: then its group was given up, too. */
        if (f == NULL && (g->stage == STAGE_READING || g->fd >= 0))
            f = make_like(t, g, map);
        if (f == NULL || f->input >= t->conf->n_inputs)
            continue; /* without its input it stays missing, its positions kept */
        /* Cut, perhaps while nobody read it: the new tail has begun what its inode holds now. */
        bool is_cut = g->phase == PHASE_ORPHAN || (same != NULL && same != f);
        if (f->phase == PHASE_MISSING && (g->fd >= 0 || is_cut))
            take_unnamed(f, g, is_cut);
        else if (f->phase != PHASE_MISSING)
            move_fd(f, g);
    }
    twins_join(t); /* as after the first scan: of a file that has no name any more the new tail knows only now where it is */
    follow_as_before(t, old);
    follow_all(t);
}
