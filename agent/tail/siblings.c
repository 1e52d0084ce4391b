/* Names that rotation makes of a live one, and the files that have them. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/buf.h"
#include "agent/base/bug.h"
#include "agent/queue/fs.h"
#include "agent/tail/internal.h"

#define NUMBER_DIGITS_MAX 5 /* NAME.20260102 is a date */
#define FOLDER_NAMES_BYTES_MAX (16 * KIB)

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

bool sibling_is_doubtful(struct slice base, struct slice name)
{
    struct slice suffix = rotation_suffix(base, name);
    return !slice_starts(name, base) && suffix.ptr[0] != '.' && number_of(suffix) > 0;
}

/* What is in one folder: the live name's own, or one below it. */
struct listing {
    struct siblings *s;
    struct slice folder; /* "old/", or "" */
    struct buf *others;  /* names that may be folders, each with its NUL; NULL = not wanted */
};

static void add_name(void *ctx, const char *name)
{
    struct listing *l = ctx;
    struct slice n = slice_cstr(name);
    if (!sibling_name(l->s->base, n)) {
        bool may_be_folder = slice_find_byte(n, '.') < 0; /* of ten thousand files few are tried in vain */
        if (l->others != NULL && may_be_folder && buf_append(l->others, name, n.len + 1) < 0)
            l->others = NULL; /* folders behind so many names are not looked into */
        return;
    }
    if (l->folder.len + n.len > NAME_MAX || vec_reserve(&l->s->v, sizeof(struct sibling)) < 0)
        return;
    struct sibling *sb = &VEC(&l->s->v, struct sibling)[l->s->v.n++];
    *sb = (struct sibling){ .is_gz = slice_ends(n, SLICE(".gz")), .is_doubtful = sibling_is_doubtful(l->s->base, n) };
    memcpy(sb->name, l->folder.ptr, l->folder.len);
    memcpy(sb->name + l->folder.len, name, n.len + 1);
}

int rotation_order(struct slice base, struct slice a, struct slice b)
{
    struct slice sa = rotation_suffix(base, a), sb = rotation_suffix(base, b);
    uint64_t na = number_of(sa), nb = number_of(sb);
    if (na > 0 && nb > 0 && na != nb)
        return na > nb ? -1 : 1;
    bool are_dates = sa.len > 0 && na == 0 && nb == 0 && sa.len == sb.len;
    return are_dates ? slice_cmp(sa, sb) : 0; /* of one form */
}

static int older_first(const void *pa, const void *pb, void *base)
{
    const struct sibling *a = pa, *b = pb;
    int by_name = rotation_order(*(const struct slice *)base, path_name(a->name), path_name(b->name));
    if (by_name != 0)
        return by_name;
    int64_t ma = timespec_ns(a->st.st_mtim), mb = timespec_ns(b->st.st_mtim);
    if (ma != mb)
        return ma < mb ? -1 : 1;
    return (int)b->is_gz - (int)a->is_gz;
}

/* The folder of this name in that of fd, or that one itself when it is NULL. What could be listed is what there is. */
static void list_folder(struct siblings *s, int dir_fd, const char *folder, struct buf *others)
{
    const struct fs_ops *fs = fs_current();
    char prefix[NAME_MAX + 2] = "";
    if (folder != NULL)
        (void)snprintf(prefix, sizeof(prefix), "%s/", folder);
    struct listing l = { s, slice_cstr(prefix), others };
    CLEANUP(fs_closep) int fd = folder == NULL ? -1 : fs->open(dir_fd, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (folder == NULL || fd >= 0)
        (void)fs->list(folder == NULL ? dir_fd : fd, add_name, &l);
}

/* Those that are regular files stay. */
static void stat_siblings(struct siblings *s, int dir_fd)
{
    struct sibling *sb = s->v.items;
    size_t n = 0;
    for (size_t i = 0; i < s->v.n; i++) {
        int r = fs_current()->stat(dir_fd, sb[i].name, &sb[i].st, false);
        s->is_moving = s->is_moving || (is_absent(r) && !BUG(40));
        if (r == 0 && S_ISREG(sb[i].st.st_mode))
            sb[n++] = sb[i];
    }
    s->v.n = n;
}

static int by_inode(const void *pa, const void *pb)
{
    const struct stat *a = &((const struct sibling *)pa)->st, *b = &((const struct sibling *)pb)->st;
    if (a->st_dev != b->st_dev)
        return a->st_dev < b->st_dev ? -1 : 1;
    return a->st_ino < b->st_ino ? -1 : a->st_ino > b->st_ino;
}

/* A file that has two names stays once, and one of a single name has moved on from the one to the other. */
static void drop_twins(struct siblings *s)
{
    struct sibling *sb = s->v.items;
    size_t n = 0;
    if (s->v.n > 1)
        qsort(sb, s->v.n, sizeof(*sb), by_inode);
    for (size_t i = 0; i < s->v.n; i++) {
        if (n == 0 || by_inode(&sb[n - 1], &sb[i]) != 0 || BUG(40))
            sb[n++] = sb[i];
        else
            s->is_moving = s->is_moving || sb[i].st.st_nlink == 1;
    }
    s->v.n = n;
}

void siblings_list(const char *base, bool has_folders, struct siblings *s)
{
    char dir[PATH_MAX];
    struct buf others;
    *s = (struct siblings){ .base = path_name(base) };
    (void)snprintf(dir, sizeof(dir), "%.*s/", SLICE_ARGS(path_dir(base)));
    CLEANUP(fs_closep) int fd = fs_current()->open(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return;
    buf_init(&others, FOLDER_NAMES_BYTES_MAX);
    list_folder(s, fd, NULL, has_folders ? &others : NULL);
    for (size_t i = 0; i < others.len; i += strlen(others.ptr + i) + 1)
        list_folder(s, fd, others.ptr + i, NULL); /* what is no folder cannot be opened as one */
    buf_deinit(&others);
    stat_siblings(s, fd);
    drop_twins(s);
    if (s->v.n > 1)
        qsort_r(s->v.items, s->v.n, sizeof(struct sibling), older_first, &s->base);
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
