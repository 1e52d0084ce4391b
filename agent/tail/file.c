/* Files: their names, inodes and gauges. */
#include "agent/tail/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/array.h"
#include "agent/base/log.h"
#include "agent/base/must.h"
#include "agent/base/pool.h"
#include "agent/base/shared.h"

/* Most go to sleep before long: whole pages of them are given back. */
static struct pool pool = POOL_INIT(ACCOUNT_OF(MEMORY_FILES));

int vec_reserve(struct vec *v, size_t item_size)
{
    void *items = array_room(v->items, v->n, &v->cap, item_size);
    if (items == NULL)
        return -ENOMEM;
    v->items = items;
    return 0;
}

void vec_must_reserve(struct vec *v, size_t item_size)
{
    for (struct must must = { 0 }; vec_reserve(v, item_size) < 0;)
        must_wait(&must);
}

void vec_deinit(struct vec *v)
{
    free(v->items);
    *v = (struct vec){ 0 };
}

/* ---- names ---- */

static uint64_t hash_mix(uint64_t dir, uint64_t name)
{
    return (dir ^ (name >> 1)) * UINT64_C(0x9E3779B97F4A7C15) + name;
}

uint64_t path_hash(const char *path, size_t len)
{
    struct slice p = slice_of(path, len);
    ptrdiff_t cut = slice_rfind_byte(p, '/');
    size_t dir_len = cut < 0 ? 0 : (size_t)cut;
    return hash_mix(slice_hash(slice_first(p, dir_len)), slice_hash(slice_from(p, (size_t)(cut + 1))));
}

static struct tail_file *name_file(struct name *n)
{
    return n->is_real ? CONTAINER_OF(n, struct tail_file, real) : CONTAINER_OF(n, struct tail_file, path);
}

static bool is_made_of(const char *path, struct slice dir, struct slice name)
{
    return strncmp(path, dir.ptr, dir.len) == 0 && path[dir.len] == '/' &&
           strncmp(path + dir.len + 1, name.ptr, name.len) == 0 && path[dir.len + 1 + name.len] == '\0';
}

struct tail_file *file_by_name(struct tail *t, struct slice dir, struct slice name)
{
    struct link *l = table_first(&t->names, hash_mix(slice_hash(dir), slice_hash(name)));
    for (; l != NULL; l = table_next(l)) {
        struct sleeper *s = l->is_other ? CONTAINER_OF(l, struct sleeper, by_path) : NULL;
        struct name *n = CONTAINER_OF(l, struct name, link);
        if (is_made_of(s != NULL ? s->path : n->path, dir, name))
            return s != NULL ? sleeper_wake(t, s) : name_file(n);
    }
    return NULL;
}

struct tail_file *file_by_path(struct tail *t, const char *path)
{
    return file_by_name(t, path_dir(path), path_name(path));
}

/* The queues have the same paths. */
static const char *must_share(const char *path)
{
    const char *p;
    for (struct must must = { 0 }; (p = shared_text(slice_cstr(path))) == NULL;)
        must_wait(&must);
    return p;
}

static void name_drop(struct name *n)
{
    table_del(&name_file(n)->t->names, &n->link);
    shared_drop(n->path);
    n->path = NULL;
    n->len = 0;
}

static void name_put(struct name *n, const char *path)
{
    n->path = path;
    n->len = (uint32_t)strlen(path);
    table_add(&name_file(n)->t->names, &n->link, path_hash(path, n->len));
}

void file_set_path(struct tail_file *f, const char *path, const char *real)
{
    const char *p = must_share(path);
    const char *r = real != NULL && strcmp(path, real) != 0 ? must_share(real) : NULL;
    name_drop(&f->path);
    name_drop(&f->real);
    name_put(&f->path, p);
    if (r != NULL)
        name_put(&f->real, r);
    f->ident.path = slice_of(f->path.path, f->path.len);
}

/* The names are no longer found by; the last one is still known and reported. */
void file_drop_names(struct tail_file *f)
{
    table_del(&f->t->names, &f->path.link);
    table_del(&f->t->names, &f->real.link);
}

void file_set_base(struct tail_file *f, const char *base, const char *origin)
{
    char *b = must_dup(base), *o = must_dup(origin);
    free(f->base);
    free(f->origin);
    table_del(&f->t->bases, &f->by_base);
    f->base = b;
    f->origin = o;
    table_add(&f->t->bases, &f->by_base, path_hash(b, strlen(b)));
}

void file_clear_base(struct tail_file *f)
{
    table_del(&f->t->bases, &f->by_base);
    free(f->base);
    free(f->origin);
    f->base = f->origin = NULL;
}

void file_keep_base(struct tail_file *f)
{
    if (f->base != NULL)
        return;
    file_set_base(f, file_real(f), file_origin(f));
    f->left_ns = f->t->now;
}

/* l, or the next one of this hash whose file has that base. */
static struct tail_file *of_base(struct link *l, const char *base)
{
    while (l != NULL && strcmp(CONTAINER_OF(l, struct tail_file, by_base)->base, base) != 0)
        l = table_next(l);
    return l == NULL ? NULL : CONTAINER_OF(l, struct tail_file, by_base);
}

struct tail_file *chain_first(const struct tail *t, const char *base)
{
    return base == NULL ? NULL : of_base(table_first(&t->bases, path_hash(base, strlen(base))), base);
}

struct tail_file *chain_next(const struct tail_file *f)
{
    return of_base(table_next(&f->by_base), f->base);
}

/* ---- inodes and incarnations ---- */

static uint64_t ino_hash(uint64_t dev, uint64_t ino)
{
    return (ino * UINT64_C(0x9E3779B97F4A7C15)) ^ (dev * UINT64_C(0xC2B2AE3D27D4EB4F));
}

struct tail_file *file_by_ino(struct tail *t, const struct stat *st)
{
    struct link *l = table_first(&t->by_ino, ino_hash(st->st_dev, st->st_ino));
    for (; l != NULL; l = table_next(l)) {
        struct sleeper *s = l->is_other ? CONTAINER_OF(l, struct sleeper, by_ino) : NULL;
        struct tail_file *f = CONTAINER_OF(l, struct tail_file, by_ino);
        if (s != NULL && s->dev == st->st_dev && s->ino == st->st_ino)
            return sleeper_wake(t, s);
        if (s == NULL && f->ident.dev == st->st_dev && f->ident.ino == st->st_ino)
            return f;
    }
    return NULL;
}

void file_set_ino(struct tail_file *f, const struct file_ident *id)
{
    table_del(&f->t->by_ino, &f->by_ino);
    f->ident.dev = id->dev;
    f->ident.ino = id->ino;
    f->ident.generation = id->generation;
    f->ident.btime_ns = id->btime_ns;
    table_add(&f->t->by_ino, &f->by_ino, ino_hash(id->dev, id->ino));
}

struct tail_file *file_by_incarnation(struct tail *t, uint64_t incarnation)
{
    struct link *l = table_first(&t->by_incarnation, incarnation);
    for (; l != NULL; l = table_next(l)) {
        struct sleeper *s = l->is_other ? CONTAINER_OF(l, struct sleeper, by_incarnation) : NULL;
        struct tail_file *f = CONTAINER_OF(l, struct tail_file, by_incarnation);
        if (s != NULL && s->incarnation == incarnation)
            return sleeper_wake(t, s);
        if (s == NULL && f->ident.incarnation == incarnation)
            return f;
    }
    return NULL;
}

void file_set_incarnation(struct tail_file *f, uint64_t incarnation)
{
    assert(incarnation != 0);
    table_del(&f->t->by_incarnation, &f->by_incarnation);
    f->ident.incarnation = incarnation;
    table_add(&f->t->by_incarnation, &f->by_incarnation, incarnation);
}

/* ---- birth and death ---- */

void file_take_path(struct tail_file *f, const char *path)
{
    name_put(&f->path, path);
    f->ident.path = slice_of(path, f->path.len);
}

const char *file_give_path(struct tail_file *f)
{
    const char *path = f->path.path;
    table_del(&f->t->names, &f->path.link);
    f->path.path = NULL;
    f->ident.path = SLICE("");
    return path;
}

struct tail_file *file_alloc(struct tail *t, uint32_t input)
{
    size_t size = sizeof(struct tail_file) + t->n_outputs * sizeof(struct slot);
    struct tail_file *f = pool_alloc(&pool, size);
    if (f == NULL)
        return NULL;
    memset(f, 0, size);
    f->t = t;
    f->fd = -1;
    f->input = input;
    f->real.is_real = true;
    f->phase = PHASE_MISSING;
    f->gauge_state = -1;
    f->quiet_ns = f->read_ns = f->born_ns = t->now;
    list_init(&f->ready);
    list_init(&f->lru);
    list_init(&f->ending);
    list_init(&f->stages);
    list_init(&f->waking);
    list_add_tail(&t->files, &f->all);
    t->n_files++;
    if (input < t->conf->n_inputs)
        f->ident.input = t->conf->inputs[input].name;
    return f;
}

struct tail_file *file_new(struct tail *t, uint32_t input, const char *path)
{
    struct tail_file *f = file_alloc(t, input);
    if (f != NULL)
        file_set_path(f, path, NULL);
    return f;
}

static void free_passes(struct tail_pass *p)
{
    for (struct tail_pass *next; p != NULL; p = next) {
        next = p->next;
        pass_free(pass_of(p));
    }
}

void file_drop_dirty(struct tail_file *f)
{
    for (size_t o = 0; o < f->t->n_outputs; o++) {
        struct vec *v = &f->t->sides[o].dirty;
        if (!f->slots[o].is_dirty)
            continue;
        for (size_t i = 0; i < v->n; i++)
            if (VEC(v, struct tail_file *)[i] == f)
                VEC(v, struct tail_file *)[i] = NULL;
    }
}

void file_free(struct tail_file *f)
{
    struct tail *t = f->t;
    file_drop_dirty(f);
    table_del(f->phase == PHASE_MISSING ? &t->missing : &t->by_ino, &f->by_ino);
    f->phase = PHASE_MISSING;
    f->is_tracked = f->is_stalled = false;
    file_account(f);
    file_close(f);
    free_passes(f->passes);
    free_passes(f->parked);
    if (f->sink_file != NULL)
        t->sink.file_free(t->sink.ctx, f->sink_file);
    if (f->successor != NULL)
        f->successor->after = NULL;
    if (f->after != NULL)
        f->after->successor = NULL;
    table_del(&t->by_incarnation, &f->by_incarnation);
    name_drop(&f->path);
    name_drop(&f->real);
    list_del(&f->all);
    list_del(&f->ready);
    list_del(&f->lru);
    list_del(&f->ending);
    list_del(&f->stages);
    list_del(&f->waking);
    t->n_files--;
    file_clear_base(f);
    free(f->captures);
    pool_free(&pool, f);
}

int file_track(struct tail_file *f, uint64_t off)
{
    assert(!f->is_tracked);
    struct pass *p = pass_new(f);
    if (p == NULL)
        return -ENOMEM;
    p->pub.mask = f->t->outputs;
    p->pub.off = off;
    p->is_hungry = true;
    p->pub.next = f->passes;
    f->passes = &p->pub;
    for (size_t o = 0; o < f->t->n_outputs; o++)
        f->slots[o] = (struct slot){ .pass = p, .collected = off, .durable = off, .first_off = off };
    if (f->ident.incarnation == 0)
        file_set_incarnation(f, ident_incarnation(f->t->salt));
    if (f->ident.first_seen_ns == 0)
        f->ident.first_seen_ns = ident_seen_now(&f->t->seen_ns);
    f->is_tracked = true;
    file_changed_ident(f);
    return 0;
}

void file_dirty(struct tail_file *f, uint32_t outputs)
{
    for (size_t o = 0; o < f->t->n_outputs; o++) {
        struct vec *v = &f->t->sides[o].dirty;
        if (!(outputs & BIT(o)) || f->slots[o].is_dirty)
            continue;
        vec_must_reserve(v, sizeof(struct tail_file *)); /* a position that is not recorded would double lines */
        VEC(v, struct tail_file *)[v->n++] = f;
        f->slots[o].is_dirty = true;
    }
}

void file_changed_ident(struct tail_file *f)
{
    f->ident_version++;
    if (f->is_tracked)
        file_dirty(f, f->t->outputs);
}

void file_set_phase(struct tail_file *f, enum phase phase)
{
    f->phase = phase;
    if (phase == PHASE_ROTATED || phase == PHASE_ORPHAN || phase == PHASE_WAITING) {
        f->quiet_ns = f->t->now;
        if (!list_is_in(&f->ending))
            list_add_tail(&f->t->ending, &f->ending);
        f->t->next_ending_ns = MIN(f->t->next_ending_ns, f->t->now + HELD_POLL_NS);
    } else {
        list_del(&f->ending);
    }
    file_account(f);
}

void file_ready(struct tail_file *f)
{
    bool is_any = false;
    for (struct tail_pass *p = f->passes; p != NULL; p = p->next) {
        pass_of(p)->is_hungry = !pass_of(p)->is_ended;
        is_any = is_any || pass_of(p)->is_hungry;
    }
    if (is_any && !list_is_in(&f->ready) && (f->phase == PHASE_LIVE || f->phase == PHASE_ROTATED))
        list_add_tail(&f->t->ready, &f->ready);
}

void file_skip(struct tail_file *f, enum phase phase, const char *event, const char *reason)
{
    f->reason = reason;
    file_close(f);
    file_set_phase(f, phase);
    if (!f->is_warned)
        log_warn("tail", event, reason, LOG_CSTR("path", f->path.path));
    f->is_warned = true;
}

/* ---- what is unread ---- */

uint64_t file_least_off(const struct tail_file *f)
{
    uint64_t least = UINT64_MAX;
    for (const struct tail_pass *p = f->passes; p != NULL; p = p->next)
        least = MIN(least, p->off);
    for (const struct tail_pass *p = f->parked; p != NULL; p = p->next)
        least = MIN(least, p->off);
    return least;
}

bool file_is_read(const struct tail_file *f)
{
    return !f->is_tracked || file_least_off(f) >= f->size;
}

static int state_of(const struct tail_file *f)
{
    if ((f->is_stalled || f->is_stuck) && f->is_tracked)
        return FILES_STALLED;
    switch (f->phase) {
    case PHASE_LIVE:
        return f->stage == STAGE_READING ? FILES_OPEN : -1;
    case PHASE_ROTATED:
    case PHASE_ORPHAN:
        return f->is_tracked && f->stage == STAGE_READING ? FILES_HELD : -1;
    case PHASE_SKIPPED:
        return FILES_SKIPPED;
    case PHASE_UNREADABLE:
        return FILES_UNREADABLE;
    case PHASE_MISSING:
    case PHASE_WAITING:
        return -1;
    }
    return -1;
}

/* Brings the gauges up to date with this file; cheap, called wherever something of it changed. */
void file_account(struct tail_file *f)
{
    if (f->input >= MIN(f->t->conf->n_inputs, (size_t)INPUTS_MAX))
        return;
    struct input_stats *in = &stats.inputs[f->input];
    int state = state_of(f);
    if (state != f->gauge_state) {
        if (f->gauge_state >= 0)
            gauge_add(&in->files[f->gauge_state], -1);
        if (state >= 0)
            gauge_add(&in->files[state], 1);
        f->gauge_state = (int8_t)state;
    }
    uint64_t unread = 0;
    if (f->is_tracked && f->stage == STAGE_READING && f->phase != PHASE_MISSING) {
        uint64_t least = file_least_off(f);
        unread = least < f->size ? f->size - least : 0;
    }
    bool is_held = f->phase == PHASE_ROTATED;
    gauge_add(&in->unread_bytes, (int64_t)(unread - f->gauge_unread));
    gauge_add(&in->held_bytes, (int64_t)((is_held ? unread : 0) - file_held_bytes(f)));
    f->gauge_unread = unread;
    f->is_gauge_held = is_held;
}
