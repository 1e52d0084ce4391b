/* Rotation: siblings of a live file, copies of a truncated one. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/io.h"
#include "agent/base/log.h"
#include "agent/queue/fs.h"
#include "agent/tail/internal.h"

#define NUMBER_DIGITS_MAX 5             /* NAME.20260102 is a date */

/* ---- names ---- */

struct slice path_dir(const char *path)
{
    const char *cut = strrchr(path, '/');
    return cut == NULL ? slice_cstr("") : slice_of(path, (size_t)(cut - path));
}

struct slice path_name(const char *path)
{
    const char *cut = strrchr(path, '/');
    return slice_cstr(cut == NULL ? path : cut + 1);
}

static bool is_rotation_suffix(struct slice s)
{
    bool has_digit = false;
    if (s.len < 2 || (s.ptr[0] != '.' && s.ptr[0] != '-' && s.ptr[0] != '_'))
        return false;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool is_digit = c >= '0' && c <= '9';
        if (!is_digit && c != '.' && c != '-' && c != '_' && c != ':' && c != 'T')
            return false;
        has_digit = has_digit || is_digit;
    }
    return has_digit;
}

static struct slice without_gz(struct slice name)
{
    return slice_ends(name, SLICE(".gz")) ? slice_first(name, name.len - 3) : name;
}

/* What rotation added to base, or the empty slice: "app.log.1" and "app-2026-01-02.log" of "app.log". */
static struct slice rotation_suffix(struct slice base, struct slice name)
{
    name = without_gz(name);
    if (slice_starts(name, base) && is_rotation_suffix(slice_from(name, base.len)))
        return slice_from(name, base.len);
    ptrdiff_t dot = slice_rfind_byte(base, '.');
    if (dot <= 0)
        return SLICE("");
    struct slice stem = slice_first(base, (size_t)dot), ext = slice_from(base, (size_t)dot);
    if (name.len <= base.len || !slice_starts(name, stem) || !slice_ends(name, ext))
        return SLICE("");
    struct slice mid = slice_of(name.ptr + stem.len, name.len - base.len);
    return is_rotation_suffix(mid) ? mid : SLICE("");
}

bool sibling_name(struct slice base, struct slice name)
{
    return rotation_suffix(base, name).len > 0;
}

void rotate_base(const char *path, char *ret)
{
    struct slice dir = path_dir(path), name = path_name(path);
    struct slice bare = without_gz(name);
    size_t len = name.len;
    for (size_t i = 1; i < bare.len; i++) {
        if (is_rotation_suffix(slice_from(bare, i))) {
            len = i;
            break;
        }
    }
    (void)snprintf(ret, PATH_MAX, "%.*s/%.*s", SLICE_ARGS(dir), (int)len, name.ptr); /* shorter than path */
}

bool rotate_next_base(const char *path, size_t *cut, char *ret)
{
    struct slice dir = path_dir(path), bare = without_gz(path_name(path));
    ptrdiff_t dot = slice_rfind_byte(bare, '.');
    while (++*cut < bare.len) {
        struct slice ext = slice_from(bare, (size_t)MAX(dot, 0)), mid = slice_from(bare, *cut);
        if (is_rotation_suffix(mid))
            ext = SLICE("");
        else if (dot <= (ptrdiff_t)*cut || !is_rotation_suffix(slice_first(mid, (size_t)dot - *cut)))
            continue;
        (void)snprintf(ret, PATH_MAX, "%.*s/%.*s%.*s", SLICE_ARGS(dir), (int)*cut, bare.ptr, SLICE_ARGS(ext));
        return true;
    }
    return false;
}

struct tail_file *live_of_sibling(struct tail *t, const char *path)
{
    char base[PATH_MAX];
    for (size_t cut = 0; rotate_next_base(path, &cut, base);) {
        struct tail_file *f = file_by_path(t, base);
        if (f != NULL && f->is_tracked && f->phase == PHASE_LIVE)
            return f;
    }
    return NULL;
}

/* ---- siblings on the disk ---- */

static uint64_t number_of(struct slice suffix)
{
    uint64_t v;
    bool is_short = suffix.len >= 2 && suffix.len - 1 <= NUMBER_DIGITS_MAX;
    return is_short && slice_to_u64(slice_from(suffix, 1), &v) ? v + 1 : 0;
}

/* "app-1.log" of "app.log" is as likely the log of another program. */
static bool is_doubtful(struct slice base, struct slice name)
{
    struct slice suffix = rotation_suffix(base, name);
    return !slice_starts(name, base) && suffix.ptr[0] != '.' && number_of(suffix) > 0;
}

static void add_sibling(void *ctx, const char *name)
{
    struct siblings *s = ctx;
    struct slice n = slice_cstr(name);
    if (n.len > NAME_MAX || !sibling_name(s->base, n) || vec_reserve(&s->v, sizeof(struct sibling)) < 0)
        return;
    struct sibling *sb = &VEC(&s->v, struct sibling)[s->v.n++];
    *sb = (struct sibling){ 0 };
    memcpy(sb->name, name, n.len + 1);
    sb->is_gz = slice_ends(n, SLICE(".gz"));
    sb->is_doubtful = is_doubtful(s->base, n);
}

static int older_first(const void *pa, const void *pb, void *base)
{
    const struct sibling *a = pa, *b = pb;
    struct slice sa = rotation_suffix(*(const struct slice *)base, slice_cstr(a->name));
    struct slice sb = rotation_suffix(*(const struct slice *)base, slice_cstr(b->name));
    uint64_t na = number_of(sa), nb = number_of(sb);
    if (na > 0 && nb > 0 && na != nb)
        return na > nb ? -1 : 1;
    int64_t ma = timespec_ns(a->st.st_mtim), mb = timespec_ns(b->st.st_mtim);
    if (na == 0 && nb == 0 && sa.len == sb.len && !slice_eq(sa, sb))
        return slice_cmp(sa, sb); /* dates of one form */
    if (ma != mb)
        return ma < mb ? -1 : 1;
    return (int)b->is_gz - (int)a->is_gz;
}

void siblings_list(const char *base, struct siblings *s)
{
    const struct fs_ops *fs = fs_current();
    char dir[PATH_MAX];
    *s = (struct siblings){ .base = path_name(base) };
    (void)snprintf(dir, sizeof(dir), "%.*s/", SLICE_ARGS(path_dir(base)));
    int fd = fs->open(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return;
    (void)fs->list(fd, add_sibling, s); /* what could be listed is what there is */
    struct sibling *sb = s->v.items;
    size_t n = 0;
    for (size_t i = 0; i < s->v.n; i++)
        if (fs->stat(fd, sb[i].name, &sb[i].st, false) == 0 && S_ISREG(sb[i].st.st_mode))
            sb[n++] = sb[i];
    (void)fs->close(fd); /* only read from */
    s->v.n = n;
    if (n > 1)
        qsort_r(sb, n, sizeof(*sb), older_first, &s->base);
}

/* "x" of "x.gz", or the other way round; NULL: it is not there. */
static const struct sibling *twin_of(const struct siblings *s, const struct sibling *sb)
{
    struct slice name = without_gz(slice_cstr(sb->name));
    for (size_t k = 0; k < s->v.n; k++) {
        const struct sibling *o = &VEC(&s->v, struct sibling)[k];
        if (o->is_gz != sb->is_gz && slice_eq(without_gz(slice_cstr(o->name)), name))
            return o;
    }
    return NULL;
}

bool sibling_is_in_the_making(const struct siblings *s, const struct sibling *sb)
{
    return sb->is_gz && twin_of(s, sb) != NULL;
}

bool sibling_is_unpacked(const struct siblings *s, const struct sibling *sb)
{
    const struct sibling *gz = sb->is_gz ? NULL : twin_of(s, sb);
    return gz != NULL && gz->owner != NULL;
}

void sibling_path(const char *base, const struct sibling *sb, char ret[PATH_MAX])
{
    (void)snprintf(ret, PATH_MAX, "%.*s/%s", SLICE_ARGS(path_dir(base)), sb->name);
}

/* ---- finding where a file went ---- */

bool release_inode(struct tail *t, const struct stat *st)
{
    struct tail_file *g = file_by_ino(t, st);
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
    bool ok = is_listed && (by_inode ? ident_same_inode(&id, &f->ident) && source_holds(f, &x.src, false)
                                     : text_is_of(&x, f));
    ok = ok && (file_by_ino(f->t, &x.st) == f || release_inode(f->t, &x.st));
    if (ok)
        take_place(f, &x, path);
    text_close(&x);
    return ok ? 1 : is_listed ? 0 : -EAGAIN;
}

static int find_once(struct tail_file *f)
{
    struct siblings s;
    char path[PATH_MAX];
    int r = 0;
    bool is_raced = false;
    siblings_list(f->base, &s);
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

bool rotate_find(struct tail_file *f)
{
    if (!f->is_tracked || furthest(f) == NULL || file_keep_base(f) < 0)
        return false;
    int r = -EAGAIN;
    for (int try = 0; r < 0 && try < LOOKS_MAX; try++)
        r = find_once(f);
    return r > 0;
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
    char *path = strdup(f->path.path), *real = strdup(file_real(f));
    if (path == NULL || real == NULL || file_keep_base(f) < 0) {
        free(path);
        free(real);
        return; /* seen again at the next turn */
    }
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
                           .phase = f->phase };
    list_del(&f->lru);
    t->n_open--;
    f->fd = -1;
    file_drop_names(f);
    table_del(&t->by_ino, &f->by_ino);
    list_del(&f->ready);
    file_set_phase(f, PHASE_ORPHAN);
    bool is_found = rotate_find(f); /* else again, each second, for COPY_WAIT_NS */
    struct tail_file *before = is_live ? predecessor(t, real) : NULL;
    follow_after(file_begin(t, &nf), before != NULL ? before : f);
    if (is_found && is_live)
        chain_stir(t, real); /* cut more than once since we looked: the copies between were never seen */
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
