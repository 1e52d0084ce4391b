/*
 * What was rotated between two looks.
 *
 * The files that have or had one live name are its *chain*. News of names comes late and in pieces: a file may be made,
 * filled, rotated and compressed before we hear of it. So when anything happens to a name of a chain, what lies beside
 * the live name is listed, and each of those siblings is
 *  - one that we follow, by its inode;
 *  - a copy of one that lost its file (compressed, or copied and cut), by its text: it stands for that one from now on;
 *  - nobody's, and newer than one of the chain: it was never seen. It is begun, oldest first;
 *  - nobody's, and older: from before our time. It is left alone.
 * Names change while we look: a sibling that is not what was listed means looking again; what changes later has news of
 * its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/clock.h"
#include "agent/base/io.h"
#include "agent/base/must.h"
#include "agent/queue/fs.h"
#include "agent/tail/internal.h"

/* ---- which chains ---- */

bool chain_is_known(const struct tail *t, const char *base)
{
    return chain_first(t, base) != NULL;
}

static void stir(struct tail *t, const char *base)
{
    for (size_t i = 0; i < t->stirred.n; i++)
        if (strcmp(VEC(&t->stirred, char *)[i], base) == 0)
            return;
    vec_must_reserve(&t->stirred, sizeof(char *)); /* what was rotated unseen would be lost */
    VEC(&t->stirred, char *)[t->stirred.n++] = must_dup(base);
}

static void stir_base(struct tail *t, const char *path)
{
    const struct tail_file *f = file_by_path(t, path);
    if (f != NULL && f->is_tracked)
        stir(t, file_base(f));
    else if (chain_first(t, path) != NULL)
        stir(t, path);
}

void chain_stir(struct tail *t, const char *path)
{
    char base[PATH_MAX];
    stir_base(t, path);
    for (size_t cut = 0; rotate_next_base(path, &cut, base);)
        stir_base(t, base);
}

/* ---- one look ---- */

struct look {
    struct tail *t;
    const char *base;
    struct siblings s;
    struct tail_file *live;  /* follows the live name; NULL: nobody does yet */
    struct tail_file *model; /* the newest of the chain: what is begun is like it */
    bool has_folders;        /* one of the chain lies in a folder below, or may */
    int64_t since_ns;        /* by the clock of file times: the newest came to be known then */
};

static bool is_followed(const struct tail *t, const struct tail_file *f)
{
    return f != NULL && f->is_tracked && f->input < t->conf->n_inputs;
}

/* It is not beside the live name; deleted, it may have a .gz elsewhere. */
static bool has_left(const struct tail_file *f)
{
    bool is_nameless = f->phase == PHASE_ROTATED && !f->path.link.is_in;
    return is_nameless || !slice_eq(path_dir(file_real(f)), path_dir(f->base));
}

/* When it came to be known, by the clock of file times, which may have been put back since: then that was in what is to come. */
static int64_t known_since(const struct tail_file *model)
{
    if (model->ident.first_seen_ns > clock_wall_ns() + MTIME_SLACK_NS)
        return file_seen_since(model) - MTIME_SLACK_NS;
    return MAX(model->ident.first_seen_ns - MTIME_SLACK_NS, model->born_mtime_ns);
}

/* False: there is no chain. */
static bool look_begin(struct look *k, struct tail *t, const char *base)
{
    *k = (struct look){ .t = t, .base = base };
    for (struct tail_file *f = chain_first(t, base); f != NULL; f = chain_next(f)) {
        if (is_followed(t, f) && (k->model == NULL || f->ident.first_seen_ns > k->model->ident.first_seen_ns))
            k->model = f;
        k->has_folders = k->has_folders || has_left(f);
    }
    struct tail_file *live = file_by_path(t, base);
    if (is_followed(t, live) && live->phase == PHASE_LIVE) {
        k->live = live;
        bool is_settled = t->now - live->born_ns > COPY_WAIT_NS && !file_is_unseen(live); /* else what is older may be new */
        if (is_settled || k->model == NULL)
            k->model = live;
    }
    if (k->model == NULL)
        return false;
    k->since_ns = known_since(k->model);
    return true;
}

/* ---- whose is it? ---- */

/* Its file is gone (the events may not have told yet), and is to be read still or may have a copy. */
static bool is_unplaced(const struct look *k, struct tail_file *f)
{
    struct stat st;
    if (!f->is_tracked || f->stage > STAGE_FINISHED || f->is_copied || f == k->live)
        return false;
    for (size_t i = 0; i < k->s.v.n; i++)
        if (VEC(&k->s.v, struct sibling)[i].owner == f)
            return false;
    return !f->path.link.is_in || fs_current()->stat(AT_FDCWD, file_real(f), &st, true) < 0 ||
           st.st_ino != f->ident.ino || st.st_dev != f->ident.dev || !file_is_still(f, file_real(f), &st);
}

/* The copy stands for f. As long as f has a descriptor it is read through that: there may be more in it. */
static void give_copy(struct tail_file *f, struct text *x, const char *path)
{
    if (f->fd < 0) {
        take_place(f, x, path);
        return;
    }
    struct file_ident id = { 0 };
    ident_of_fd(x->src.fd, &x->st, &id);
    file_set_ino(f, &id);
    f->mtime_ns = timespec_ns(x->st.st_mtim);
    f->is_copied = true;
    file_found_at(f, path, path);
}

/* sb is a copy of the live file, which may be cut any moment. What was not read of it is in the copy alone then; and of
 * a file of which nothing was read nobody would know that it was cut. */
static void note_copy(struct look *k, const struct sibling *sb)
{
    const struct pass *far = k->live == NULL ? NULL : furthest(k->live);
    if (far != NULL && (sb->is_gz || pass_end(&far->pub) <= (uint64_t)sb->st.st_size))
        k->live->is_being_copied = true;
}

static struct tail_file *find_by_text(struct look *k, struct text *x, const struct sibling *sb, const char *path)
{
    for (struct tail_file *f = chain_first(k->t, k->base), *next; f != NULL; f = next) {
        next = chain_next(f);
        if (!is_unplaced(k, f) || !text_is_of(x, f))
            continue;
        give_copy(f, x, path);
        return f;
    }
    if (k->live == NULL || !text_is_of(x, k->live))
        return NULL;
    note_copy(k, sb);
    return k->live;
}

static struct tail_file *owner_by_text(struct look *k, const struct sibling *sb, const char *path)
{
    struct text x;
    struct tail_file *owner = NULL;
    if (text_open(k->t, path, sb->is_gz, &x) < 0)
        return NULL;
    if (x.st.st_ino == sb->st.st_ino && x.st.st_dev == sb->st.st_dev)
        owner = find_by_text(k, &x, sb, path);
    text_close(&x);
    return owner;
}

/* One that a queue knows by a name that is gone, and that is not of this chain: it had both names then. */
static struct tail_file *recovered_at(const struct look *k, const struct sibling *sb, const char *path)
{
    struct stat st;
    struct tail *t = k->t;
    struct tail_file *f = NULL;
    if (table_first(&t->missing, sb->st.st_ino) == NULL)
        return NULL;
    int fd = open_regular(t, path, &st);
    if (fd < 0)
        return NULL;
    if (st.st_ino == sb->st.st_ino && st.st_dev == sb->st.st_dev &&
        resume_match(t, fd, &st, path, path, k->model->input, false) > 0)
        f = file_by_ino(t, &st);
    else
        (void)fs_current()->close(fd); /* only read from */
    if (f != NULL && f->phase == PHASE_ROTATED)
        file_set_base(f, k->base, f->origin);
    return f;
}

/* The live file has this name by now, and no event has told of it yet: what is listed behind it came after it. A link to it, while
 * it has its live name still, says nothing. */
static void note_rename(struct look *k, const char *path)
{
    struct stat st;
    const int r = fs_current()->stat(AT_FDCWD, k->base, &st, true);
    if (!is_absent(r) && (r < 0 || (st.st_ino == k->live->ident.ino && st.st_dev == k->live->ident.dev)))
        return;
    file_found_at(k->live, path, path);
    k->live = NULL;
}

static void find_owners(struct look *k)
{
    char path[PATH_MAX];
    struct sibling *sb = k->s.v.items;
    for (size_t i = 0; i < k->s.v.n; i++) {
        sibling_path(k->base, &sb[i], path);
        struct tail_file *f = file_holding(k->t, path, &sb[i].st);
        f = f != NULL ? f : recovered_at(k, &sb[i], path);
        sb[i].owner = f != NULL && f->is_tracked ? f : NULL;
        if (f != NULL && f == k->live)
            note_rename(k, path);
        if (sb[i].owner != NULL && f->phase == PHASE_ROTATED && !f->path.link.is_in)
            file_found_at(f, path, path); /* no event tells of a folder that no include names */
        sb[i].is_passed_over = (f != NULL && !f->is_tracked) || sibling_is_in_the_making(&k->s, &sb[i]);
    }
    for (size_t i = 0; i < k->s.v.n; i++) {
        sibling_path(k->base, &sb[i], path);
        sb[i].is_passed_over = sb[i].is_passed_over || sibling_is_unpacked(&k->s, &sb[i]);
        if (sb[i].owner == NULL && !sb[i].is_passed_over)
            sb[i].owner = owner_by_text(k, &sb[i], path);
    }
}

/* ---- nobody's ---- */

/* Never seen, or from before our time? What comes after one of the chain is new: those stay known as long as they exist.
 * Else its time has to say so, which says little of a .gz: that may be new and its text old, or be dated as its maker
 * likes. Such a one is new only when the live file has no bytes yet that could tell. */
static bool is_new(const struct look *k, const struct sibling *sb, bool has_known)
{
    if (sb->is_passed_over || sb->is_doubtful)
        return false;
    if (has_known)
        return true;
    if (sb->is_gz && k->live != NULL && !file_is_unseen(k->live))
        return false;
    int64_t mtime_ns = timespec_ns(sb->st.st_mtim); /* one that has not come yet says nothing */
    return mtime_ns >= k->since_ns && mtime_ns <= clock_wall_ns() + MTIME_SLACK_NS;
}

static bool fds_agree(int x, int y, uint64_t off, size_t len)
{
    char a[FINGERPRINT_BYTES], b[FINGERPRINT_BYTES];
    return fs_pread_full(x, a, len, off) == (ssize_t)len && fs_pread_full(y, b, len, off) == (ssize_t)len &&
           memcmp(a, b, len) == 0;
}

/* The live file's bytes are being copied to this one right now: the former is read. */
static bool is_copied_from(const char *base, const char *path, const struct stat *st)
{
    struct stat live, after;
    const struct fs_ops *fs = fs_current();
    if (st->st_size == 0)
        return true; /* or has just begun to be */
    if (fs->stat(AT_FDCWD, base, &live, true) < 0 || live.st_size < st->st_size)
        return false;
    CLEANUP(fs_closep) int x = fs->open(AT_FDCWD, base, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    CLEANUP(fs_closep) int y = fs->open(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (x < 0 || y < 0)
        return false;
    size_t head = MIN((size_t)st->st_size, FINGERPRINT_BYTES), tail = MIN(head, TAIL_CRC_BYTES);
    bool is_same = fds_agree(x, y, 0, head) && fds_agree(x, y, (uint64_t)st->st_size - tail, tail);
    return is_same || fs->fstat(x, &after) < 0 || after.st_size < live.st_size; /* cut meanwhile: who knows */
}

/* "x.gz", and "x" is there, too, by now: it has come since the names were listed, and the one may be made of the other. */
static bool is_made_meanwhile(const struct sibling *sb, const char *path)
{
    struct stat st;
    char plain[PATH_MAX];
    if (!sb->is_gz)
        return false;
    (void)snprintf(plain, sizeof(plain), "%.*s", (int)(strlen(path) - strlen(".gz")), path);
    return fs_current()->stat(AT_FDCWD, plain, &st, false) == 0 && S_ISREG(st.st_mode) &&
           st.st_nlink == 1; /* of more names only one is listed */
}

/* Not the live file: before a copy of that there may be missed ones. Nor one that is followed for its own name. */
static bool is_of_chain(const struct look *k, const struct tail_file *f)
{
    return f != NULL && f != k->live && strcmp(file_base(f), k->base) == 0;
}

/* The first that is known of the chain among the siblings behind this one. */
static struct tail_file *known_behind(const struct look *k, const struct sibling *sb)
{
    const struct sibling *end = VEC(&k->s.v, struct sibling) + k->s.v.n;
    for (sb++; sb < end; sb++)
        if (is_of_chain(k, sb->owner))
            return sb->owner;
    return NULL;
}

/* Where a file that never held a byte came before one that stands before it in the list, another has got its number. */
static void disown_reused(struct look *k)
{
    struct tail_file *before = NULL;
    for (size_t i = 0; i < k->s.v.n; i++) {
        struct sibling *sb = &VEC(&k->s.v, struct sibling)[i];
        struct tail_file *f = sb->owner;
        if (!is_of_chain(k, f))
            continue;
        const bool is_doubtful = f->is_by_number && file_is_unseen(f) && sb->st.st_size > 0 && f != k->model;
        if (is_doubtful && before != NULL && file_is_older(f, before))
            sb->owner = NULL; /* begin_sibling() lets go of it */
        else if (!file_is_unseen(f))
            before = f;
    }
}

static bool is_listed(const struct look *k, const struct tail_file *f)
{
    for (size_t i = 0; i < k->s.v.n; i++)
        if (VEC(&k->s.v, struct sibling)[i].owner == f)
            return true;
    return false;
}

/* What no look has seen was made since the last one: after all that was known then, also after what has lost its name since, and
 * is not listed any more. But one that stands behind it in the list came later, and so did what left the live name after that. */
static struct tail_file *came_before(const struct look *k, const struct sibling *sb, struct tail_file *listed)
{
    struct tail_file *last = listed;
    const struct tail_file *next = known_behind(k, sb);
    for (struct tail_file *f = chain_first(k->t, k->base); f != NULL; f = chain_next(f))
        if (f != k->live && is_followed(k->t, f) && (last == NULL || file_left_sooner(last, f)) && !is_listed(k, f) &&
            (next == NULL || file_left_sooner(f, next)))
            last = f;
    return last;
}

/* What is begun in this look between this one and the first of the chain that is known behind it. */
static int64_t n_new_behind(const struct look *k, const struct sibling *sb)
{
    int64_t n = 0;
    const struct sibling *end = VEC(&k->s.v, struct sibling) + k->s.v.n;
    for (sb++; sb < end && !is_of_chain(k, sb->owner); sb++)
        n += sb->owner == NULL;
    return n;
}

/* Later ones may be known: when it would have been seen first, and have left the live name, had we looked in time. Those that are
 * begun behind it come between the two. */
static void date_sibling(const struct look *k, const struct sibling *sb, const struct tail_file *before, struct new_file *nf)
{
    const struct tail_file *next = known_behind(k, sb);
    if (before != NULL) {
        nf->left_ns = before->left_ns;
        nf->first_seen_ns = before->ident.first_seen_ns + 1;
    } else if (next != NULL) {
        nf->first_seen_ns = next->ident.first_seen_ns - 1 - n_new_behind(k, sb);
    } else {
        nf->left_ns = k->t->now;
        nf->first_seen_ns = k->live == NULL ? 0 : k->live->ident.first_seen_ns - 1 - n_new_behind(k, sb);
    }
}

/* 0: done; -EAGAIN: another file is there than was listed. */
static int begin_sibling(struct look *k, struct sibling *sb, struct tail_file *before)
{
    struct stat st;
    char path[PATH_MAX];
    sibling_path(k->base, sb, path);
    if (!sb->is_gz && is_copied_from(k->base, path, &sb->st)) {
        note_copy(k, sb);
        return 0;
    }
    if (is_made_meanwhile(sb, path))
        return -EAGAIN;
    if (k->live != NULL && file_is_cut(k->live))
        return -EAGAIN; /* since it was compared with this one, which may be its copy */
    if (!release_inode(k->t, path, &sb->st))
        return 0;
    int fd = open_regular(k->t, path, &st);
    if (fd < 0)
        return fd == -ENOENT ? -EAGAIN : 0;
    if (st.st_ino != sb->st.st_ino || st.st_dev != sb->st.st_dev) {
        (void)fs_current()->close(fd); /* only read from */
        return -EAGAIN;
    }
    struct new_file nf = { .input = k->model->input,
                           .caps = k->model->captures,
                           .n_caps = k->model->n_captures,
                           .path = path,
                           .real = path,
                           .base = k->base,
                           .origin = file_origin(k->model),
                           .fd = fd,
                           .st = &st,
                           .phase = PHASE_ROTATED,
                           .is_gz = sb->is_gz };
    date_sibling(k, sb, before, &nf);
    sb->owner = file_begin(k->t, &nf);
    return 0;
}

static int begin_new(struct look *k)
{
    int r = 0;
    bool is_begun = false; /* what comes after that is known, and may not know that there is one before it */
    struct tail_file *before = NULL;
    disown_reused(k);
    for (size_t i = 0; r == 0 && i < k->s.v.n; i++) {
        struct sibling *sb = &VEC(&k->s.v, struct sibling)[i];
        const bool was_known = sb->owner != NULL;
        struct tail_file *last = before;
        if (!was_known && is_new(k, sb, before != NULL)) {
            last = came_before(k, sb, before);
            r = begin_sibling(k, sb, last);
        }
        if (!is_of_chain(k, sb->owner))
            continue;
        if (is_begun || !was_known)
            follow_after(sb->owner, last);
        is_begun = !was_known;
        before = sb->owner;
    }
    if (is_begun)
        follow_after(k->live, before);
    return r;
}

/* f was cut since it was read. Its turn stirs the chain again: until then a copy of it looks like nobody's. */
static bool note_cut(struct tail_file *f)
{
    if (f->stage != STAGE_READING || !file_is_cut(f))
        return false;
    f->is_cut = true;
    file_ready(f);
    return true;
}

/* Of those that lost the live name, too: one may have been cut before that, and nobody had looked in between. */
static bool note_cuts(struct look *k)
{
    bool is_any = k->live != NULL && note_cut(k->live);
    if (is_any)
        k->live = NULL;
    for (struct tail_file *f = chain_first(k->t, k->base); f != NULL; f = chain_next(f))
        if (is_followed(k->t, f) && note_cut(f))
            is_any = true;
    return is_any;
}

static int look_once(struct tail *t, const char *base)
{
    struct look k;
    if (!look_begin(&k, t, base))
        return 0;
    const bool is_cut = note_cuts(&k);
    siblings_list(base, k.has_folders, &k.s);
    int r = k.s.is_moving ? -EAGAIN : 0;
    if (r == 0)
        find_owners(&k);
    if (r == 0 && !is_cut)
        r = begin_new(&k);
    vec_deinit(&k.s.v);
    return r;
}

void chains_settle(struct tail *t)
{
    struct vec bases = t->stirred;
    t->stirred = (struct vec){ 0 };
    for (size_t i = 0; i < bases.n; i++) {
        char *base = VEC(&bases, char *)[i];
        int r = -EAGAIN;
        for (int try = 0; r < 0 && try < LOOKS_MAX; try++)
            r = look_once(t, base);
        free(base);
    }
    vec_deinit(&bases);
}

static void release_copy(struct tail_file *g, struct tail_file *f)
{
    struct text x;
    if (text_open(g->t, file_real(g), g->is_gz, &x) < 0)
        return;
    if (text_is_of(&x, f))
        (void)release_inode(g->t, file_real(g), &x.st);
    text_close(&x);
}

void chain_release_copies(struct tail_file *f)
{
    for (struct tail_file *g = chain_first(f->t, file_base(f)), *next; g != NULL; g = next) {
        next = chain_next(g);
        if (g != f && g->phase == PHASE_ROTATED && g->path.link.is_in && file_is_untold(g))
            release_copy(g, f);
    }
    stir(f->t, file_base(f));
}
