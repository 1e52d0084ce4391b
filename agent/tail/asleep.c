/* Files that nothing happens to: what is kept of them, and how they are files again. */
#include <fcntl.h>
#include <stdlib.h>

#include "agent/base/must.h"
#include "agent/queue/fs.h"
#include "agent/tail/internal.h"

/* ---- falling asleep ---- */

static bool is_anything_odd(const struct tail_file *f)
{
    return f->real.path != NULL || f->base != NULL || f->reason != NULL || f->is_gz || f->gz != NULL || f->is_deleted ||
           f->is_copied || f->is_being_copied || f->is_let_go || f->is_cut || f->is_displaced || f->is_stalled ||
           f->is_sink_held || f->is_stuck || f->is_viewed || f->after != NULL || f->successor != NULL;
}

static bool is_anything_due(const struct tail_file *f)
{
    const int64_t now = f->t->now;
    return f->sink_file != NULL || list_is_in(&f->ready) || list_is_in(&f->ending) || list_is_in(&f->stages) ||
           list_is_in(&f->waking) || f->stall_ns != 0 || now - f->read_ns <= LATELY_NS || now - f->born_ns <= COPY_WAIT_NS;
}

static bool is_read_whole(const struct tail_file *f)
{
    const struct tail_pass *p = f->passes;
    if (p == NULL || p->next != NULL || f->parked != NULL || p->mask != f->t->outputs)
        return false;
    const struct pass *own = pass_of(f->passes);
    return p->off == f->size && p->state == NULL && p->off >= p->resume_until && p->n_parts == 0 && !own->is_hungry &&
           !own->is_ended && f->nul_end <= p->off && f->gauge_state == FILES_OPEN && f->gauge_unread == 0;
}

/* Every queue has all that there is to say. */
static bool is_settled(const struct tail_file *f)
{
    const struct slot *first = &f->slots[0];
    for (size_t o = 0; o < f->t->n_outputs; o++) {
        const struct slot *s = &f->slots[o];
        if (s->is_dirty || s->collected != f->size || s->told_group > f->t->sides[o].n_durable ||
            s->ident_version != f->ident_version || s->told_stage != STAGE_READING || s->first_off != first->first_off ||
            s->first_skip != first->first_skip || s->is_own != first->is_own)
            return false;
    }
    return f->t->n_outputs > 0;
}

static bool may_sleep(const struct tail_file *f)
{
    return f->phase == PHASE_LIVE && f->is_tracked && f->stage == STAGE_READING && f->input < f->t->conf->n_inputs &&
           f->path.link.is_in && f->by_ino.is_in && f->by_incarnation.is_in && f->n_captures <= UINT8_MAX &&
           !is_anything_odd(f) && !is_anything_due(f) && is_read_whole(f) && is_settled(f);
}

static void note(struct sleeper *s, const struct tail_file *f)
{
    struct file_position pos;
    position_of(f, 0, &pos);
    *s = (struct sleeper){ .captures = f->captures,
                           .n_captures = (uint8_t)f->n_captures,
                           .incarnation = f->ident.incarnation,
                           .dev = f->ident.dev,
                           .ino = f->ident.ino,
                           .generation = f->ident.generation,
                           .btime_ns = f->ident.btime_ns,
                           .fp_len = f->ident.fp_len,
                           .fp_crc = f->ident.fp_crc,
                           .first_seen_ns = f->ident.first_seen_ns,
                           .ident_version = f->ident_version,
                           .off = pos.end,
                           .head_crc = pos.head_crc,
                           .tail_crc = pos.tail_crc,
                           .tail_len = pos.tail_len,
                           .position_flags = (uint8_t)pos.flags,
                           .first_off = f->slots[0].first_off,
                           .first_skip = f->slots[0].first_skip,
                           .is_own = f->slots[0].is_own,
                           .mtime_ns = f->mtime_ns,
                           .read_ns = f->read_ns,
                           .born_mtime_ns = f->born_mtime_ns,
                           .input = f->input,
                           .fd = f->fd,
                           .is_sniffed = f->is_sniffed,
                           .is_warned = f->is_warned,
                           .is_blank = f->is_blank,
                           .is_fed = f->fed_incarnation == f->ident.incarnation && f->fed_to == pos.end };
}

static void file_sleep(struct tail_file *f)
{
    struct tail *t = f->t;
    struct sleeper *s = malloc(sizeof(*s));
    if (s == NULL)
        return;
    uint32_t path = f->path.link.hash, ino = f->by_ino.hash, incarnation = f->by_incarnation.hash;
    note(s, f);
    s->path = file_give_path(f);
    budget_took(ACCOUNT_OF(MEMORY_FILES), s);
    f->captures = NULL;
    f->fd = -1; /* it stays among t->n_open, as the gauge still counts the file */
    f->gauge_state = -1;
    file_free(f);
    list_add_tail(s->fd >= 0 ? &t->asleep_open : &t->asleep, &s->all);
    table_add(&t->names, &s->by_path, path);
    table_add(&t->by_ino, &s->by_ino, ino);
    table_add(&t->by_incarnation, &s->by_incarnation, incarnation);
    s->by_path.is_other = s->by_ino.is_other = s->by_incarnation.is_other = true;
}

void sleepers_take(struct tail *t)
{
    for (struct list *l = t->files.next, *next; l != &t->files; l = next) {
        next = l->next;
        struct tail_file *f = CONTAINER_OF(l, struct tail_file, all);
        if (may_sleep(f))
            file_sleep(f);
    }
}

/* ---- waking up ---- */

static void forget(struct tail *t, struct sleeper *s)
{
    list_del(&s->all);
    table_del(&t->names, &s->by_path);
    table_del(&t->by_ino, &s->by_ino);
    table_del(&t->by_incarnation, &s->by_incarnation);
    budget_gives(ACCOUNT_OF(MEMORY_FILES), s);
}

static void restore_ident(struct tail_file *f, const struct sleeper *s)
{
    struct file_ident id = { .dev = s->dev, .ino = s->ino, .generation = s->generation, .btime_ns = s->btime_ns };
    file_set_ino(f, &id);
    file_set_incarnation(f, s->incarnation);
    f->ident.fp_len = s->fp_len;
    f->ident.fp_crc = s->fp_crc;
    f->ident.first_seen_ns = s->first_seen_ns;
    f->ident_version = s->ident_version;
}

static void restore_places(struct tail_file *f, const struct sleeper *s)
{
    struct file_position pos = { .end = s->off,
                                 .flags = s->position_flags,
                                 .head_crc = s->head_crc,
                                 .tail_crc = s->tail_crc,
                                 .tail_len = s->tail_len };
    for (uint32_t o = 0; o < f->t->n_outputs; o++) {
        struct slot *slot = &f->slots[o];
        slot_place(f, o, &pos);
        slot->first_off = s->first_off;
        slot->first_skip = s->first_skip;
        slot->is_own = s->is_own;
        slot->ident_version = s->ident_version;
        slot->pass->is_hungry = false;
    }
}

static void restore_rest(struct tail_file *f, const struct sleeper *s)
{
    struct tail *t = f->t;
    f->captures = s->captures;
    f->n_captures = s->n_captures;
    f->phase = PHASE_LIVE;
    f->is_tracked = true;
    f->gauge_state = FILES_OPEN;
    f->is_sniffed = s->is_sniffed;
    f->is_warned = s->is_warned;
    f->is_blank = s->is_blank;
    f->size = s->off;
    f->mtime_ns = s->mtime_ns;
    f->read_ns = f->quiet_ns = s->read_ns;
    f->born_ns = t->now - COPY_WAIT_NS - 1;
    f->born_mtime_ns = s->born_mtime_ns;
    f->fed_to = s->is_fed ? s->off : 0;
    f->fed_incarnation = s->is_fed ? s->incarnation : 0;
    f->fd = s->fd;
    if (f->fd >= 0)
        list_add_tail(&t->lru, &f->lru);
}

struct tail_file *sleeper_wake(struct tail *t, struct sleeper *s)
{
    struct tail_file *f;
    for (struct must must = { 0 }; (f = file_alloc(t, s->input)) == NULL;)
        must_wait(&must); /* whoever looks would think that there is none, and begin it again */
    forget(t, s);
    file_take_path(f, s->path);
    restore_ident(f, s);
    restore_places(f, s);
    restore_rest(f, s);
    free(s);
    return f;
}

void sleepers_wake_all(struct tail *t)
{
    sleepers_wake_below(t, "", 0);
}

void sleepers_wake_below(struct tail *t, const char *dir, size_t len)
{
    struct list *all[] = { &t->asleep_open, &t->asleep };
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        for (struct list *l = all[i]->next, *next; l != all[i]; l = next) {
            next = l->next;
            struct sleeper *s = CONTAINER_OF(l, struct sleeper, all);
            if (strncmp(s->path, dir, len) == 0 && (len == 0 || s->path[len] == '/'))
                (void)sleeper_wake(t, s);
        }
}

void sleepers_free(struct tail *t)
{
    struct list *all[] = { &t->asleep_open, &t->asleep };
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        while (all[i]->next != NULL && all[i]->next != all[i])
            file_free(sleeper_wake(t, CONTAINER_OF(all[i]->next, struct sleeper, all)));
}

/* ---- looking after them ---- */

static bool is_as_known(const struct sleeper *s, const struct stat *st)
{
    return st->st_ino == s->ino && st->st_dev == s->dev && (uint64_t)st->st_size == s->off &&
           timespec_ns(st->st_mtim) == s->mtime_ns;
}

bool sleeper_is_still(struct tail *t, const char *path, const struct stat *st)
{
    struct link *l = table_first(&t->names, path_hash(path, strlen(path)));
    for (; l != NULL; l = table_next(l)) {
        const struct sleeper *s = CONTAINER_OF(l, struct sleeper, by_path);
        if (l->is_other && strcmp(s->path, path) == 0)
            return is_as_known(s, st);
    }
    return false;
}

static void close_fd(struct tail *t, struct sleeper *s)
{
    (void)fs_current()->close(s->fd); /* only read from */
    s->fd = -1;
    t->n_open--;
    list_del(&s->all);
    list_add_tail(&t->asleep, &s->all);
}

bool sleepers_close_one(struct tail *t)
{
    if (!list_is_in(&t->asleep_open))
        return false;
    close_fd(t, CONTAINER_OF(t->asleep_open.next, struct sleeper, all));
    return true;
}

void sleepers_look(struct tail *t)
{
    struct list *all[] = { &t->asleep_open, &t->asleep };
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        for (struct list *l = all[i]->next, *next; l != all[i]; l = next) {
            next = l->next;
            struct stat st;
            struct sleeper *s = CONTAINER_OF(l, struct sleeper, all);
            if (fs_current()->stat(AT_FDCWD, s->path, &st, true) < 0 || !is_as_known(s, &st))
                (void)sleeper_wake(t, s); /* file_poll() says what that means */
            else if (s->fd >= 0 && t->now - s->read_ns >= IDLE_CLOSE_NS)
                close_fd(t, s);
        }
}
