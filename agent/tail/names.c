/* What a changed name means: new file, renamed, replaced, deleted. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>

#include "agent/base/log.h"
#include "agent/queue/fs.h"
#include "agent/tail/internal.h"

void name_touch(struct tail *t, const char *path, const char *from)
{
    if (vec_reserve(&t->touched, sizeof(struct pending)) < 0) {
        t->wants_rescan = true;
        return;
    }
    struct pending p = { strdup(path), from == NULL ? NULL : strdup(from) };
    if (p.path == NULL || (from != NULL && p.from == NULL)) {
        free(p.path);
        free(p.from);
        t->wants_rescan = true;
        return;
    }
    VEC(&t->touched, struct pending)[t->touched.n++] = p;
}

static void pending_clear(struct vec *v)
{
    for (size_t i = 0; i < v->n; i++) {
        free(VEC(v, struct pending)[i].path);
        free(VEC(v, struct pending)[i].from);
    }
    if (v->n > CROWD_FILES)
        vec_deinit(v); /* what is found now needs it */
    v->n = 0;
}

void names_forget(struct tail *t)
{
    pending_clear(&t->touched);
}

/* ---- losing and finding ---- */

void file_lose_names(struct tail_file *f)
{
    if (!f->is_tracked) {
        file_free(f);
        return;
    }
    file_keep_base(f);
    file_drop_names(f);
    chain_stir(f->t, f->base);
    if (!f->is_displaced)
        f->t->n_displaced++;
    f->is_displaced = true;
    f->lost_ns = f->t->now;
    if (f->phase == PHASE_LIVE || f->stage == STAGE_FINISHED)
        file_set_phase(f, PHASE_ROTATED);
    if (f->stage == STAGE_READING)
        file_ready(f);
}

void file_place(struct tail_file *f, const char *path, const char *real)
{
    struct tail *t = f->t;
    file_keep_base(f);
    bool is_back = strcmp(real, file_base(f)) == 0;
    file_set_path(f, path, real);
    t->n_displaced -= f->is_displaced;
    f->is_displaced = false;
    f->is_deleted = f->is_copied; /* what the descriptor shows has no name */
    bool is_wanted = input_of_path(t, slice_cstr(path), NULL, NULL) >= 0;
    if (is_back || (is_wanted && !sibling_name(path_name(file_base(f)), path_name(real)))) {
        file_clear_base(f);
        file_set_phase(f, PHASE_LIVE);
    } else {
        file_set_phase(f, PHASE_ROTATED);
    }
    file_ready(f);
}

void file_found_at(struct tail_file *f, const char *path, const char *real)
{
    file_place(f, path, real);
    file_changed_ident(f);
    /* Rotation may delete it before its turn comes: hold it now. */
    if (f->stage == STAGE_READING && f->fd < 0 && !file_is_read(f) && file_open(f) < 0)
        f->is_stalled = true;
}

void file_revive(struct tail_file *f)
{
    assert(f->is_tracked && f->stage == STAGE_FINISHED);
    f->stage = STAGE_READING;
    list_del(&f->stages);
    for (struct tail_pass *p = f->passes; p != NULL; p = p->next)
        pass_of(p)->is_ended = false;
    for (size_t o = 0; o < f->t->n_outputs; o++)
        f->slots[o].told_stage = STAGE_READING;
    file_dirty(f, f->t->outputs);
    file_set_phase(f, f->base == NULL ? PHASE_LIVE : PHASE_ROTATED);
    file_ready(f);
}

/* ---- settling ---- */

static bool same_inode(const struct tail_file *f, const struct stat *st)
{
    return f->ident.dev == st->st_dev && f->ident.ino == st->st_ino;
}

/* f's descriptor shows another file than its number, which is that of a copy. Is that still under this name? As
 * file_open_at(). */
static int copy_is_at(struct tail_file *f, const char *path)
{
    struct text x;
    struct file_ident id = { 0 };
    int r = text_open(f->t, path, slice_ends(slice_cstr(path), SLICE(".gz")), &x);
    if (r < 0)
        return r;
    ident_of_fd(x.src.fd, &x.st, &id);
    if (x.st.st_ino != f->ident.ino || x.st.st_dev != f->ident.dev)
        r = -ENOENT;
    else if (!ident_same_inode(&id, &f->ident) || (id.btime_ns == 0 && id.generation == 0 && !text_is_of(&x, f)))
        r = -ESTALE;
    text_close(&x);
    return r;
}

/* The number is that of f, and so is the file, under this name? Without a descriptor that keeps it, the number may have
 * been used again; then its time or its size is another. */
bool file_is_still(struct tail_file *f, const char *path, const struct stat *st)
{
    bool is_plain = !f->is_gz && !f->is_copied;
    if ((f->fd >= 0 && !f->is_copied) || !f->is_tracked ||
        (timespec_ns(st->st_mtim) == f->mtime_ns && (!is_plain || (uint64_t)st->st_size == f->size)))
        return true;
    int r = f->is_copied ? copy_is_at(f, path) : file_open_at(f, path);
    if (r == 0 && !f->is_copied && f->stage != STAGE_READING)
        file_close(f);
    return r != -ESTALE; /* the name may lead elsewhere by now: that says nothing of f */
}

struct tail_file *file_holding(struct tail *t, const char *path, const struct stat *st)
{
    struct tail_file *f = file_by_ino(t, st);
    if (f == NULL || !f->is_tracked || file_is_still(f, path, st))
        return f;
    table_del(&t->by_ino, &f->by_ino);
    return file_by_ino(t, st);
}

static void touch_aliases(struct tail *t, const char *target)
{
    struct link *l = table_first(&t->aliases_by_target, path_hash(target, strlen(target)));
    for (; l != NULL; l = table_next(l)) {
        struct alias *a = CONTAINER_OF(l, struct alias, by_target);
        if (strcmp(a->target, target) == 0)
            name_touch(t, a->link_path, NULL);
    }
}

/* May free g. */
static void grew(struct tail_file *g, const struct stat *st)
{
    if (!g->is_tracked) {
        file_retry(g);
        return;
    }
    if (g->is_being_copied) {
        g->is_being_copied = false;
        chain_stir(g->t, file_base(g));
    }
    bool is_changed = (uint64_t)st->st_size != g->size || timespec_ns(st->st_mtim) != g->mtime_ns;
    g->mtime_ns = timespec_ns(st->st_mtim);
    bool is_plain = !g->is_gz && !g->is_copied; /* its size is that of its text */
    if (is_plain && (uint64_t)st->st_size > g->size && g->stage == STAGE_READING) {
        g->size = (uint64_t)st->st_size; /* what is unread shows, also while nobody may read it */
        g->quiet_ns = g->t->now;
        passes_unend(g);
        file_account(g);
    }
    if (g->stage == STAGE_READING && (is_changed || g->is_stalled)) {
        g->is_stalled = false;
        file_ready(g);
    } else if (g->stage == STAGE_FINISHED && is_plain && (uint64_t)st->st_size > file_least_off(g)) {
        file_revive(g);
    }
}

void file_poll(struct tail_file *f)
{
    struct stat st;
    if (!f->path.link.is_in) {
        if (f->is_stalled && f->stage == STAGE_READING) {
            f->is_stalled = false;
            file_ready(f);
        }
        return;
    }
    if (fs_current()->stat(AT_FDCWD, file_real(f), &st, true) == 0 && same_inode(f, &st) &&
        file_is_still(f, file_real(f), &st)) {
        grew(f, &st);
        return;
    }
    struct tail *t = f->t;
    name_touch(t, file_real(f), NULL);
    if (f->real.path != NULL)
        name_touch(t, f->path.path, NULL);
}

/* An empty file had this live name, and one with its number has it now: rather a new one, for nothing but the number, which is free
 * when the other is gone, says that it came back. Begun anew it stands behind those that had the name in between. */
static bool is_rather_new(const struct tail_file *g, const char *real)
{
    return g->fd < 0 && g->base != NULL && strcmp(g->base, real) == 0 && g->size == 0 && file_is_unseen(g) &&
           g->ident.generation == 0 && g->ident.btime_ns == 0;
}

/* An inode that we know, seen under this name. False: it is another file after all, the inode was used again.
 */
static bool known(struct tail_file *g, const char *path, const char *real, const struct stat *st)
{
    struct tail *t = g->t;
    if (g->path.link.is_in && (strcmp(file_real(g), real) == 0 || strcmp(g->path.path, path) == 0)) {
        if (strcmp(file_real(g), real) != 0 && g->is_tracked)
            file_found_at(g, path, real);
        grew(g, st);
        return true;
    }
    struct stat other;
    if (g->path.link.is_in && fs_current()->stat(AT_FDCWD, file_real(g), &other, true) == 0 &&
        same_inode(g, &other)) {
        grew(g, st); /* one file, two names */
        return true;
    }
    if (!g->is_tracked) {
        file_free(g);
        return false;
    }
    int r = g->is_copied ? copy_is_at(g, real) : is_rather_new(g, real) ? -ESTALE : g->fd < 0 ? file_open_at(g, real) : 0;
    if (r == -ESTALE || r == -ENOENT) { /* the latter: the name has led elsewhere since */
        if (r == -ESTALE)
            table_del(&t->by_ino, &g->by_ino);
        if (g->path.link.is_in)
            file_lose_names(g);
        return false;
    }
    file_found_at(g, path, real);
    grew(g, st);
    return true;
}

/* Its strings go there. */
static void add_pending(struct tail *t, struct pending *p)
{
    if (vec_reserve(&t->pending, sizeof(*p)) < 0) {
        t->wants_rescan = true;
        return;
    }
    VEC(&t->pending, struct pending)[t->pending.n++] = *p;
    *p = (struct pending){ 0 };
}

static void look_at(struct tail *t, struct pending *p)
{
    struct stat st;
    char real[PATH_MAX];
    int r = fs_current()->stat(AT_FDCWD, p->path, &st, true);
    bool is_there = r == 0;
    if (is_there && sleeper_is_still(t, p->path, &st))
        return;
    struct tail_file *f = file_by_path(t, p->path);
    if (r < 0 && !is_absent(r)) {
        discover_again(t, p->path); /* what is known of it may still be right */
        return;
    }
    if (f != NULL && is_there && same_inode(f, &st) && !file_is_still(f, p->path, &st)) {
        table_del(&t->by_ino, &f->by_ino);
        file_lose_names(f);
    } else if (f != NULL && (!is_there || !same_inode(f, &st))) {
        file_lose_names(f);
    }
    touch_aliases(t, p->path);
    if (!is_there || S_ISDIR(st.st_mode))
        return;
    struct tail_file *g = file_by_ino(t, &st);
    if (g == NULL) {
        add_pending(t, p);
        return;
    }
    if (g->path.link.is_in && strcmp(file_real(g), p->path) == 0) {
        grew(g, &st);
        return;
    }
    r = fs_current()->realpath(p->path, real);
    if (r < 0)
        discover_again(t, p->path);
    else if (!known(g, p->path, real, &st))
        add_pending(t, p);
}

/* It is not among the names that were listed; but these change, or events that wait say how. */
static bool may_be_moving(const struct tail_file *f, int found)
{
    return f->t->now - f->lost_ns < MOVING_NS && (found < 0 || watch_has_events(&f->t->watch));
}

/* Lost its name, and nobody told us of another: renamed out of sight, or deleted? False: that cannot be said yet. */
static bool resolve(struct tail_file *f)
{
    struct tail *t = f->t;
    struct stat st;
    t->n_displaced--;
    f->is_displaced = false;
    if (f->fd >= 0) {
        if (f->is_copied) {
            f->is_copied = false; /* the copy is gone; its number may be another's soon */
            table_del(&t->by_ino, &f->by_ino);
        }
        f->is_deleted = fs_current()->fstat(f->fd, &st) < 0 || st.st_nlink == 0;
        if (f->stage == STAGE_READING || !f->is_deleted)
            return true; /* a copy, when there is one, is found with its chain */
    }
    const int found = rotate_find(f);
    if (found > 0)
        return true;
    if (may_be_moving(f, found)) {
        f->is_displaced = true;
        return false;
    }
    file_is_gone(f);
    if (f->stage == STAGE_READING)
        file_give_up(f, LOST_TRUNCATED); /* what was not read is gone; all read: nothing is lost */
    else if (!list_is_in(&f->stages))
        list_add_tail(&t->stages, &f->stages), stage_check(f);
    return true;
}

static void resolve_displaced(struct tail *t)
{
    size_t n_left = 0;
    for (struct list *l = t->ending.next, *next; t->n_displaced > 0 && l != &t->ending; l = next) {
        next = l->next;
        struct tail_file *f = CONTAINER_OF(l, struct tail_file, ending);
        if (f->is_displaced && !resolve(f))
            n_left++;
    }
    t->n_displaced = n_left;
}

static bool comes_after(const struct tail_file *f, const struct tail_file *before)
{
    while (f != NULL && f != before)
        f = f->after;
    return f != NULL;
}

/* What the queues that know both say of their age: < 0: a is older, > 0: b, 0: nothing, or not all the same, for an output that
 * was away from the configuration heard of some late. */
static int rank_order(const struct tail_file *a, const struct tail_file *b)
{
    int all = 0;
    for (size_t o = 0; o < a->t->n_outputs; o++) {
        const uint32_t ra = a->slots[o].rank, rb = b->slots[o].rank;
        const int one = ra == 0 || rb == 0 || ra == rb ? 0 : ra < rb ? -1 : 1;
        if (one * all < 0)
            return 0;
        all = one != 0 ? one : all;
    }
    return all;
}

static bool is_recovered(const struct tail_file *f)
{
    for (size_t o = 0; o < f->t->n_outputs; o++)
        if (f->slots[o].rank > 0)
            return true;
    return false;
}

/* One that is gone was written after f's predecessor and before f: what that ends with does not go on here. A clock does not
 * say so, only a queue that knew them; what no queue knew came last. */
static bool has_gap_before(const struct tail_file *f)
{
    for (const struct tail_file *g = chain_first(f->t, f->after->base); g != NULL; g = chain_next(g))
        if (g->phase == PHASE_MISSING && rank_order(f->after, g) < 0 && (!is_recovered(f) || rank_order(g, f) < 0))
            return true;
    return false;
}

void *tail_predecessor(const struct tail_file *f)
{
    return f->after != NULL && f->after->is_tracked && !has_gap_before(f) ? f->after->sink_file : NULL;
}

/* Of two of a chain. A queue has them in the order in which it heard of them; the clock by which they were first seen may have
 * been put back, and names count upwards or downwards. */
bool file_is_older(const struct tail_file *a, const struct tail_file *b)
{
    if ((a->phase == PHASE_LIVE) != (b->phase == PHASE_LIVE))
        return b->phase == PHASE_LIVE;
    const int by_rank = rank_order(a, b);
    if (by_rank != 0)
        return by_rank < 0;
    if (a->ident.first_seen_ns != b->ident.first_seen_ns)
        return a->ident.first_seen_ns < b->ident.first_seen_ns;
    return rotation_order(path_name(file_base(a)), path_name(file_real(a)), path_name(file_real(b))) < 0;
}

bool file_left_sooner(const struct tail_file *a, const struct tail_file *b)
{
    return a->left_ns != b->left_ns ? a->left_ns < b->left_ns : file_is_older(a, b);
}

/* One that is there is the rather read to its end. */
static bool is_rather(const struct tail_file *f, const struct tail_file *other)
{
    if ((f->phase == PHASE_MISSING) != (other->phase == PHASE_MISSING))
        return other->phase == PHASE_MISSING;
    return file_left_sooner(other, f);
}

struct tail_file *predecessor(const struct tail *t, const char *base)
{
    struct tail_file *best = NULL;
    for (struct tail_file *f = chain_first(t, base); f != NULL; f = chain_next(f))
        if (f->is_tracked && f->stage == STAGE_READING && f->successor == NULL && (best == NULL || is_rather(f, best)))
            best = f;
    return best;
}

void follow_after(struct tail_file *f, struct tail_file *before)
{
    if (f == NULL || before == NULL || f->after != NULL || comes_after(before, f))
        return;
    struct tail_file *last = f, *next = before->successor;
    while (last->successor != NULL)
        last = last->successor;
    if (next != NULL && last != f && !file_is_older(last, next))
        return;
    if (next != NULL) { /* found late: f, and those that are known to come after it, go between the two */
        last->successor = next;
        next->after = last;
    }
    f->after = before;
    before->successor = f;
}

/* The one of f's chain that f came after. */
static struct tail_file *older_of_chain(const struct tail_file *f)
{
    struct tail_file *best = NULL;
    for (struct tail_file *g = chain_first(f->t, file_base(f)); g != NULL; g = chain_next(g))
        if (g != f && g->is_tracked && g->stage == STAGE_READING && g->phase != PHASE_MISSING && g->phase != PHASE_LIVE &&
            file_is_older(g, f) && (best == NULL || file_is_older(best, g)))
            best = g;
    return best;
}

void follow_all(struct tail *t)
{
    for (struct list *l = t->files.next; l != &t->files; l = l->next) {
        struct tail_file *f = CONTAINER_OF(l, struct tail_file, all);
        if (f->is_tracked && f->stage == STAGE_READING && f->phase != PHASE_MISSING)
            follow_after(f, older_of_chain(f));
    }
}

/* Both what rotation made of their names and when they were written last say so: alone the former may count upwards. */
static bool was_before(const struct new_file *nf, const struct tail_file *f)
{
    return rotation_order(path_name(nf->base), path_name(nf->path), path_name(file_real(f))) < 0 &&
           timespec_ns(nf->st->st_mtim) <= f->mtime_ns;
}

/* A rotated file that we hear of when those that came after it were begun already: the one that has its live name now (NULL: none
 * has), and perhaps others before that, of which `before` is the last. */
static void begin_among(struct tail *t, struct new_file *nf, struct tail_file *live, struct tail_file *before)
{
    struct tail_file *next = live;
    while (before != NULL && was_before(nf, before)) {
        next = before;
        before = before->after;
    }
    if (next != NULL) {
        nf->first_seen_ns = before != NULL ? before->ident.first_seen_ns + 1 : next->ident.first_seen_ns - 1;
        nf->left_ns = before != NULL ? before->left_ns : 0;
    }
    struct tail_file *f = file_begin(t, nf);
    if (before != NULL)
        follow_after(f, before);
    else if (f != NULL)
        follow_after(next, f);
}

/* -EAGAIN: it leads elsewhere than it did when st was taken, or than when a file was begun under it, both a moment ago. */
static int open_seen(struct tail *t, const char *real, struct stat *st)
{
    const struct stat seen = *st;
    int fd = open_regular(t, real, st);
    if (fd < 0 || (st->st_ino == seen.st_ino && st->st_dev == seen.st_dev && file_by_path(t, real) == NULL))
        return fd;
    (void)fs_current()->close(fd); /* only read from */
    return -EAGAIN;
}

/* A name whose inode nobody has. by_inode_only: the first round, when recovered files claim what is theirs.
 */
static void begin(struct tail *t, const struct pending *p, bool by_inode_only)
{
    struct stat st;
    struct pair caps[PATTERN_CAPTURES_MAX];
    size_t n_caps = 0;
    char real[PATH_MAX];
    const struct fs_ops *fs = fs_current();
    const char *named = p->path;
    int input = input_of_path(t, slice_cstr(p->path), caps, &n_caps);
    if (input < 0 && p->from != NULL) {
        named = p->from; /* came and was rotated before we looked */
        input = input_of_path(t, slice_cstr(p->from), caps, &n_caps);
    }
    if (input < 0 || is_compressed_name(slice_cstr(p->path)))
        return;
    int r = fs->stat(AT_FDCWD, p->path, &st, true);
    r = r < 0 ? r : fs->realpath(p->path, real);
    if (r < 0 && !is_absent(r))
        discover_again(t, p->path);
    if (r < 0 || path_is_own(t, real))
        return;
    if (strcmp(p->path, real) != 0)
        alias_set(t, p->path, real);
    if (file_by_ino(t, &st) != NULL || (st.st_dev == t->own_log_dev && st.st_ino == t->own_log_ino))
        return;
    if (!S_ISREG(st.st_mode)) {
        if (!by_inode_only && !S_ISDIR(st.st_mode))
            file_begin_unread(t, (uint32_t)input, p->path, &st, PHASE_SKIPPED, "file.skipped",
                         "not a regular file");
        return;
    }
    int fd = open_seen(t, real, &st);
    if (fd == -EAGAIN) {
        if (!by_inode_only)
            name_touch(t, p->path, p->from);
        return;
    }
    if (fd < 0) {
        if (!by_inode_only && fd != -ENOENT)
            file_begin_unread(t, (uint32_t)input, p->path, &st, PHASE_UNREADABLE, "file.unreadable",
                         "a file cannot be opened; it is tried again every 10 s");
        return;
    }
    r = resume_match(t, fd, &st, p->path, real, (uint32_t)input, !by_inode_only);
    if (r > 0)
        return;
    if (r < 0 || by_inode_only)
        (void)fs->close(fd); /* the second round, or a later one, opens it again */
    if (r < 0 && !by_inode_only)
        file_begin_unread(t, (uint32_t)input, p->path, &st, PHASE_UNREADABLE, "file.unreadable",
                     "a file cannot be compared with what is known of it; it is tried again every 10 s");
    if (r < 0 || by_inode_only)
        return;
    bool is_from = named != p->path;
    struct new_file nf = { .input = (uint32_t)input,
                           .caps = caps,
                           .n_caps = n_caps,
                           .path = p->path,
                           .real = real,
                           .base = is_from ? named : NULL,
                           .origin = is_from ? named : NULL,
                           .fd = fd,
                           .st = &st,
                           .phase = is_from ? PHASE_ROTATED : PHASE_LIVE,
                           .left_ns = is_from ? t->now : 0 };
    if (!is_from) {
        struct tail_file *before = predecessor(t, real);
        follow_after(file_begin(t, &nf), before);
        return;
    }
    struct tail_file *live = file_by_path(t, named);
    live = live != NULL && live->is_tracked ? live : NULL;
    begin_among(t, &nf, live, live != NULL ? live->after : predecessor(t, named));
}

void names_settle(struct tail *t)
{
    for (size_t i = 0; i < t->touched.n; i++) {
        struct pending p = VEC(&t->touched, struct pending)[i];
        look_at(t, &p); /* may touch more */
        VEC(&t->touched, struct pending)[i] = p;
    }
    pending_clear(&t->touched);
    resolve_displaced(t);
    bool has_missing = t->missing.n > 0;
    for (size_t i = 0; has_missing && i < t->pending.n; i++)
        begin(t, &VEC(&t->pending, struct pending)[i], true);
    if (t->is_first_scan)
        resume_siblings(t);
    for (size_t i = 0; i < t->pending.n; i++)
        chain_stir(t, VEC(&t->pending, struct pending)[i].path);
    chains_settle(t);
    for (size_t i = 0; i < t->pending.n; i++)
        begin(t, &VEC(&t->pending, struct pending)[i], false);
    pending_clear(&t->pending);
}
