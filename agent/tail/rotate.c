/* Rotation: where a file went that lost its name, and what becomes of one that was cut. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/io.h"
#include "agent/base/log.h"
#include "agent/base/must.h"
#include "agent/queue/fs.h"
#include "agent/tail/internal.h"


/* ---- finding where a file went ---- */

bool release_inode(struct tail *t, const char *path, const struct stat *st)
{
    struct tail_file *g = file_holding(t, path, st);
    if (g == NULL)
        return true;
    if (g->is_tracked) {
        for (struct tail_pass *p = g->passes; p != NULL; p = p->next)
            if (p->off > 0)
                return false;
        if (g->parked != NULL || g->phase == PHASE_MISSING)
            return false;
        file_untrack(g);
    }
    file_free(g);
    return true;
}

void take_place(struct tail_file *f, struct text *x, const char *path)
{
    struct file_ident id = { 0 };
    bool is_gz = x->src.gz != NULL;
    ident_of_fd(x->src.fd, &x->st, &id);
    if (f->phase == PHASE_MISSING) {
        resume_found(f);
        resume_captures(f);
    }
    file_take_fd(f, x->src.fd);
    x->src.fd = -1;
    file_set_ino(f, &id);
    f->is_gz = is_gz;
    f->gz_at_end = f->is_copied = false;
    f->mtime_ns = timespec_ns(x->st.st_mtim);
    f->size = is_gz ? f->size : (uint64_t)x->st.st_size;
    file_found_at(f, path, path);
}

/* 1: found there; 0: it is not; -EAGAIN: another file is there than was listed. */
static int try_sibling(struct tail_file *f, const char *path, const struct sibling *sb, bool by_inode)
{
    struct text x;
    int r = text_open(f->t, path, sb->is_gz, &x);
    if (r < 0)
        return r == -ENOENT ? -EAGAIN : 0;
    struct file_ident id = { 0 };
    ident_of_fd(x.src.fd, &x.st, &id);
    bool is_listed = x.st.st_ino == sb->st.st_ino;
    bool may_be = by_inode && ident_same_inode(&id, &f->ident) && file_may_be_named(f, &id, path);
    bool ok = is_listed && (by_inode ? may_be && source_holds(f, &x.src, false) > 0 : text_is_of(&x, f));
    ok = ok && (file_by_ino(f->t, &x.st) == f || release_inode(f->t, path, &x.st));
    if (ok)
        take_place(f, &x, path);
    text_close(&x);
    return ok ? 1 : is_listed ? 0 : -EAGAIN;
}

static int find_once(struct tail_file *f, bool has_folders)
{
    struct siblings s;
    char path[PATH_MAX];
    int r = 0;
    bool is_raced = false;
    siblings_list(f->base, has_folders, &s);
    is_raced = s.is_moving;
    const struct sibling *sb = s.v.items;
    for (size_t i = s.v.n; r <= 0 && i > 0; i--) {
        sibling_path(f->base, &sb[i - 1], path);
        if (sb[i - 1].st.st_ino == f->ident.ino && f->phase != PHASE_ORPHAN)
            r = try_sibling(f, path, &sb[i - 1], true);
        is_raced = is_raced || r < 0;
    }
    for (size_t i = s.v.n; r <= 0 && f->stage <= STAGE_FINISHED && i > 0; i--) {
        bool is_short = !sb[i - 1].is_gz && (uint64_t)sb[i - 1].st.st_size < pass_end(&furthest(f)->pub);
        if (is_short || sibling_is_in_the_making(&s, &sb[i - 1]) || file_by_ino(f->t, &sb[i - 1].st) == f)
            continue;
        sibling_path(f->base, &sb[i - 1], path);
        r = try_sibling(f, path, &sb[i - 1], false);
        is_raced = is_raced || r < 0;
    }
    vec_deinit(&s.v);
    return r > 0 ? 1 : is_raced ? -EAGAIN : 0;
}

int rotate_find(struct tail_file *f)
{
    if (!f->is_tracked || furthest(f) == NULL)
        return 0;
    file_keep_base(f);
    int r = -EAGAIN;
    for (int try = 0; r < 0 && try < LOOKS_MAX; try++)
        r = find_once(f, false);
    return r != 0 ? r : find_once(f, true); /* logrotate's olddir */
}

/* ---- truncation ---- */

void rotate_truncated(struct tail_file *f)
{
    struct tail *t = f->t;
    struct stat st;
    f->is_cut = false;
    log_warn("tail", "file.truncated",
             "a file was cut: it is read from its start, and a copy of it is looked for",
             LOG_CSTR("path", f->path.path), LOG_NUM("offset", pass_end(&furthest(f)->pub)));
    if (f->is_deleted || f->fd < 0 || fs_current()->fstat(f->fd, &st) < 0) {
        file_give_up(f, LOST_TRUNCATED);
        return;
    }
    char *path = must_dup(f->path.path), *real = must_dup(file_real(f));
    file_keep_base(f);
    bool is_live = f->phase == PHASE_LIVE;
    struct new_file nf = { .input = f->input,
                           .caps = f->captures,
                           .n_caps = f->n_captures,
                           .path = path,
                           .real = real,
                           .base = is_live ? NULL : f->base,
                           .origin = is_live ? NULL : f->origin,
                           .fd = f->fd,
                           .st = &st,
                           .phase = f->phase,
                           .left_ns = is_live ? 0 : f->left_ns,
                           .first_seen_ns = is_live ? 0 : f->ident.first_seen_ns + 1 }; /* others came after it */
    list_del(&f->lru);
    t->n_open--;
    f->fd = -1;
    file_drop_names(f);
    table_del(&t->by_ino, &f->by_ino);
    list_del(&f->ready);
    file_set_phase(f, PHASE_ORPHAN);
    bool is_found = rotate_find(f) > 0; /* else again, each second, for COPY_WAIT_NS */
    struct tail_file *before = is_live ? predecessor(t, real) : NULL;
    follow_after(file_begin(t, &nf), before != NULL ? before : f);
    if (is_found)
        chain_stir(t, f->base); /* cut more than once since we looked: the copies between were never seen */
    free(path);
    free(real);
}

static bool same_bytes(struct tail_file *f, struct tail_file *live, uint64_t off, size_t len)
{
    char a[TAIL_CRC_BYTES], b[TAIL_CRC_BYTES];
    struct source src;
    assert(len <= sizeof(a));
    if (source_of(live, &src) < 0 || source_pread(&src, b, len, off) != (ssize_t)len)
        return false;
    return source_of(f, &src) == 0 && source_pread(&src, a, len, off) == (ssize_t)len &&
           memcmp(a, b, len) == 0;
}

bool is_copy_in_the_making(struct tail_file *f)
{
    struct tail *t = f->t;
    struct source src;
    struct stat mine, lives;
    uint32_t crc;
    bool may_be = f->phase == PHASE_LIVE || f->phase == PHASE_WAITING;
    struct tail_file *live = may_be ? live_of_sibling(t, file_real(f)) : NULL;
    if (live == NULL || live == f || live->ident.fp_len < ADOPT_BYTES_MIN)
        return false;
    if (source_of(live, &src) < 0 || fs_current()->fstat(src.fd, &lives) < 0)
        return false;
    if (source_of(f, &src) < 0 || fs_current()->fstat(src.fd, &mine) < 0)
        return false;
    uint64_t size = (uint64_t)mine.st_size, live_size = (uint64_t)lives.st_size;
    if (size < live->ident.fp_len) /* just begun: the little there is must be the same */
        return size <= live_size && size > 0 &&
               same_bytes(f, live, size - MIN(size, TAIL_CRC_BYTES), (size_t)MIN(size, TAIL_CRC_BYTES));
    if (source_crc(&src, live->ident.fp_len, &crc) < 0 || crc != live->ident.fp_crc)
        return false;
    if (live_size < pass_end(&furthest(live)->pub))
        return true; /* cut already, and we have not read there yet */
    uint64_t end = MIN(size, live_size);
    size_t len = (size_t)MIN(end, TAIL_CRC_BYTES);
    return same_bytes(f, live, end - len, len);
}
