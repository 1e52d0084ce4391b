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
#define MTIME_SLACK_NS (20 * NS_PER_MS) /* file times lag behind the clock by a tick */

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

struct tail_file *live_of_sibling(struct tail *t, const char *path)
{
    struct slice dir = path_dir(path), name = path_name(path);
    for (size_t i = name.len; i > 0; i--) {
        struct slice base = slice_first(name, i - 1);
        if (base.len == 0 || !sibling_name(base, name))
            continue;
        struct tail_file *f = file_by_name(t, dir, base);
        if (f != NULL && f->is_tracked && f->phase == PHASE_LIVE)
            return f;
    }
    return NULL;
}

/* ---- siblings on the disk ---- */

struct sibling {
    char name[NAME_MAX + 1];
    struct stat st;
    bool is_gz;
};

struct siblings {
    struct slice base; /* the name, without folder */
    struct vec v;      /* struct sibling */
};

static void add_sibling(void *ctx, const char *name)
{
    struct siblings *s = ctx;
    struct slice n = slice_cstr(name);
    if (n.len > NAME_MAX || !sibling_name(s->base, n) || vec_reserve(&s->v, sizeof(struct sibling)) < 0)
        return;
    struct sibling *sb = &VEC(&s->v, struct sibling)[s->v.n++];
    memcpy(sb->name, name, n.len + 1);
    sb->is_gz = slice_ends(n, SLICE(".gz"));
}

static uint64_t number_of(struct slice suffix)
{
    uint64_t v;
    bool is_short = suffix.len >= 2 && suffix.len - 1 <= NUMBER_DIGITS_MAX;
    return is_short && slice_to_u64(slice_from(suffix, 1), &v) ? v + 1 : 0;
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

bool is_in_number_two(const struct tail_file *f)
{
    return f->base != NULL && number_of(rotation_suffix(path_name(f->base), path_name(file_real(f)))) > 2;
}

/* The regular files, oldest first. */
static void list_siblings(const char *base, struct siblings *s)
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

/* "x" of "x.gz" is there as well: the latter is being made of it. */
static bool has_plain_twin(const struct siblings *s, size_t i)
{
    const struct sibling *sb = s->v.items;
    for (size_t k = 0; sb[i].is_gz && k < s->v.n; k++)
        if (!sb[k].is_gz && slice_eq(slice_cstr(sb[k].name), without_gz(slice_cstr(sb[i].name))))
            return true;
    return false;
}

static void join_path(const char *base, const char *name, char ret[PATH_MAX])
{
    (void)snprintf(ret, PATH_MAX, "%.*s/%s", SLICE_ARGS(path_dir(base)), name);
}

/* ---- content ---- */

static struct pass *furthest(const struct tail_file *f)
{
    struct pass *best = NULL;
    for (int i = 0; i < 2; i++)
        for (struct tail_pass *p = i == 0 ? f->passes : f->parked; p != NULL; p = p->next)
            if (best == NULL || pass_end(p) > pass_end(&best->pub))
                best = pass_of(p);
    return best;
}

static bool tail_holds(struct pass *p, const struct source *src)
{
    char raw[TAIL_CRC_BYTES];
    size_t len = p->pub.tail_len;
    uint64_t end = pass_end(&p->pub);
    if (len == 0)
        return true;
    if (end < len || source_pread(src, raw, len, end - len) != (ssize_t)len)
        return false;
    if (!p->wants_tail)
        return memcmp(raw, p->pub.tail_bytes, len) == 0;
    if (crc_update(0, raw, len) != p->tail_crc)
        return false;
    memcpy(p->pub.tail_bytes, raw, len);
    p->wants_tail = false;
    return true;
}

bool source_holds(struct tail_file *f, const struct source *src, bool is_full)
{
    uint32_t crc;
    struct pass *far = furthest(f);
    if (far == NULL)
        return false;
    if (f->ident.fp_len > 0 && (source_crc(src, f->ident.fp_len, &crc) < 0 || crc != f->ident.fp_crc))
        return false;
    uint64_t end = pass_end(&far->pub);
    if (is_full && !far->head_unknown) {
        if (source_crc(src, end, &crc) < 0 || crc != far->pub.head_crc)
            return false;
        if (src->gz != NULL)
            return true; /* reading its tails means inflating it again, and says no more */
    }
    for (struct tail_pass *p = f->passes; p != NULL; p = p->next)
        if (!tail_holds(pass_of(p), src))
            return false;
    for (struct tail_pass *p = f->parked; p != NULL; p = p->next)
        if (!tail_holds(pass_of(p), src))
            return false;
    return true;
}

/* ---- finding where a file went ---- */

/* Nobody has read it, or nobody will: its inode may be taken over by the file it is a copy of. */
static bool release_inode(struct tail *t, const struct stat *st)
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

static void take_place(struct tail_file *f, int fd, const struct stat *st, const char *path, bool is_gz)
{
    struct file_ident id = { 0 };
    ident_of_fd(fd, st, &id);
    if (f->phase == PHASE_MISSING) {
        resume_found(f);
        resume_captures(f);
    }
    file_take_fd(f, fd);
    file_set_ino(f, &id);
    f->is_gz = is_gz;
    f->gz_at_end = false;
    f->mtime_ns = timespec_ns(st->st_mtim);
    f->size = is_gz ? f->size : (uint64_t)st->st_size;
    file_found_at(f, path, path);
}

/* fd is taken in any case. */
static bool try_sibling(struct tail_file *f, const char *path, bool is_gz, bool by_inode)
{
    struct stat st;
    struct file_ident id = { 0 };
    int fd = open_regular(f->t, path, &st);
    if (fd < 0)
        return false;
    struct source src = { fd, NULL };
    ident_of_fd(fd, &st, &id);
    bool ok = !by_inode || ident_same_inode(&id, &f->ident);
    if (ok && is_gz)
        ok = gz_open(fd, &src.gz) == 0;
    ok = ok && source_holds(f, &src, !by_inode) && (file_by_ino(f->t, &st) == f || release_inode(f->t, &st));
    gz_close(src.gz);
    if (ok)
        take_place(f, fd, &st, path, is_gz);
    else
        (void)fs_current()->close(fd); /* only read from */
    return ok;
}

bool rotate_find(struct tail_file *f)
{
    struct siblings s;
    char path[PATH_MAX];
    bool is_found = false;
    const struct pass *far = furthest(f);
    if (!f->is_tracked || far == NULL)
        return false;
    if (file_keep_base(f) < 0)
        return false;
    list_siblings(f->base, &s);
    const struct sibling *sb = s.v.items;
    for (size_t i = s.v.n; !is_found && i > 0; i--) {
        join_path(f->base, sb[i - 1].name, path);
        is_found = sb[i - 1].st.st_ino == f->ident.ino && f->phase != PHASE_ORPHAN &&
                   try_sibling(f, path, sb[i - 1].is_gz, true);
    }
    bool is_telling = f->ident.fp_len >= ADOPT_BYTES_MIN;
    for (size_t i = s.v.n; !is_found && is_telling && f->stage == STAGE_READING && i > 0; i--) {
        bool is_short = !sb[i - 1].is_gz && (uint64_t)sb[i - 1].st.st_size < pass_end(&far->pub);
        struct tail_file *owner = file_by_ino(f->t, &sb[i - 1].st);
        join_path(f->base, sb[i - 1].name, path);
        is_found = !is_short && owner != f && try_sibling(f, path, sb[i - 1].is_gz, false);
    }
    vec_deinit(&s.v);
    return is_found;
}

/* ---- truncation ---- */

void rotate_truncated(struct tail_file *f)
{
    struct tail *t = f->t;
    struct stat st;
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
    if (rotate_find(f) && is_live) /* else again, each second, for COPY_WAIT_NS */
        rotate_catch_up(f); /* cut more than once since we looked: the copies between were never seen */
    struct tail_file *before = is_live ? predecessor(t, real) : NULL;
    follow_after(file_begin(t, &nf), before != NULL ? before : f);
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

/* ---- what was missed between two rotations ---- */

/* The sibling is being copied from the live file right now: that one will be read, or is. */
static bool is_copied_from(const char *base, const char *path, const struct stat *st)
{
    struct stat live;
    char a[FINGERPRINT_BYTES], b[FINGERPRINT_BYTES];
    const struct fs_ops *fs = fs_current();
    if (fs->stat(AT_FDCWD, base, &live, true) < 0 || live.st_size < st->st_size || st->st_size == 0)
        return false;
    CLEANUP(fs_closep) int x = fs->open(AT_FDCWD, base, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    CLEANUP(fs_closep) int y = fs->open(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    size_t head = MIN((size_t)st->st_size, sizeof(a)), tail = MIN(head, (size_t)TAIL_CRC_BYTES);
    uint64_t off = (uint64_t)st->st_size - tail;
    return x >= 0 && y >= 0 && fs->pread(x, a, head, 0) == (ssize_t)head &&
           fs->pread(y, b, head, 0) == (ssize_t)head && memcmp(a, b, head) == 0 &&
           fs->pread(x, a, tail, off) == (ssize_t)tail && fs->pread(y, b, tail, off) == (ssize_t)tail &&
           memcmp(a, b, tail) == 0;
}

/* What f holds, or held. Of a file that nobody read yet all is compared, by its descriptor. */
static bool is_text_of(struct tail_file *f, const struct source *src)
{
    struct stat st;
    struct source own;
    uint32_t mine, its;
    if (f->ident.fp_len >= ADOPT_BYTES_MIN)
        return source_holds(f, src, true);
    if (f->is_gz || f->fd < 0 || source_of(f, &own) < 0 || fs_current()->fstat(own.fd, &st) < 0 ||
        st.st_size < ADOPT_BYTES_MIN)
        return false;
    return source_crc(&own, (uint64_t)st.st_size, &mine) == 0 && source_crc(src, (uint64_t)st.st_size, &its) == 0 &&
           mine == its;
}

/* The text of a file that we know by another inode: compressed since, or copied. */
static bool is_known_text(struct tail *t, const char *base, const char *path, bool is_gz)
{
    struct stat st;
    bool is_known = false;
    struct link *l = table_first(&t->bases, path_hash(base, strlen(base)));
    int fd = l == NULL ? -ENOENT : open_regular(t, path, &st);
    if (fd < 0)
        return false;
    struct source src = { fd, NULL };
    bool ok = !is_gz || gz_open(fd, &src.gz) == 0;
    for (; ok && !is_known && l != NULL; l = table_next(l)) {
        struct tail_file *f = CONTAINER_OF(l, struct tail_file, by_base);
        is_known = f->is_tracked && strcmp(f->base, base) == 0 && is_text_of(f, &src);
    }
    gz_close(src.gz);
    (void)fs_current()->close(fd); /* only read from */
    return is_known;
}

void rotate_catch_up(struct tail_file *known)
{
    struct tail *t = known->t;
    struct siblings s;
    char path[PATH_MAX];
    int64_t since_ns = known->ident.first_seen_ns;
    const char *base = known->base;
    if (base == NULL || known->input >= t->conf->n_inputs)
        return;
    struct link *l = table_first(&t->bases, path_hash(base, strlen(base)));
    for (; l != NULL; l = table_next(l)) {
        struct tail_file *f = CONTAINER_OF(l, struct tail_file, by_base);
        if (strcmp(f->base, base) != 0)
            continue;
        since_ns = MAX(since_ns, f->ident.first_seen_ns);
        f->is_caught_up = true;
    }
    struct tail_file *live = file_by_path(t, base);
    if (live != NULL && live->is_tracked)
        return; /* nothing is newer than what we follow */
    list_siblings(base, &s);
    const struct sibling *sb = s.v.items;
    size_t start = 0;
    struct tail_file *before = NULL;
    for (size_t i = 0; i < s.v.n; i++) {
        struct tail_file *f = file_by_ino(t, &sb[i].st);
        join_path(base, sb[i].name, path);
        if (f != NULL && f->is_tracked) {
            start = i + 1;
            before = f;
        } else if (f == NULL && is_known_text(t, base, path, sb[i].is_gz)) {
            start = i + 1;
        }
    }
    for (size_t i = start; i < s.v.n; i++) {
        struct stat st;
        join_path(base, sb[i].name, path);
        bool is_old =
            (before == NULL || sb[i].is_gz) && timespec_ns(sb[i].st.st_mtim) <= since_ns - MTIME_SLACK_NS;
        if (is_old || has_plain_twin(&s, i) || (!sb[i].is_gz && is_copied_from(base, path, &sb[i].st)) ||
            !release_inode(t, &sb[i].st))
            continue;
        int fd = open_regular(t, path, &st);
        if (fd < 0)
            continue;
        struct new_file nf = { .input = known->input,
                               .caps = known->captures,
                               .n_caps = known->n_captures,
                               .path = path,
                               .real = path,
                               .base = base,
                               .origin = file_origin(known),
                               .fd = fd,
                               .st = &st,
                               .phase = PHASE_ROTATED,
                               .is_gz = sb[i].is_gz };
        struct tail_file *f = file_begin(t, &nf);
        if (f == NULL)
            continue;
        f->is_caught_up = true;
        follow_after(f, before);
        before = f;
    }
    vec_deinit(&s.v);
}
