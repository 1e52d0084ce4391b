/*
 * The model disk: programs that write logs, rotate and remove them; and what tests look at.
 */
#include <assert.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <zlib.h>

#include "tests/sim/disk_core.h"

static int look(const struct disk *d, const char *path, bool follow, struct where *ret)
{
    return walk(d, ROOT, path, follow, ret, NULL);
}

static int look_file(const struct disk *d, const char *path, struct where *ret)
{
    int r = look(d, path, true, ret);
    if (r < 0)
        return r;
    if (ret->node == NO_NODE)
        return -ENOENT;
    return S_ISREG(node_at(d, ret->node)->mode) ? 0 : -EINVAL;
}

static uint32_t make(struct disk *d, const struct where *w, mode_t mode)
{
    uint32_t i = node_new(d, mode, w->dir);
    (void)names_change(d, NO_NODE, NULL, w->dir, w->name, i);
    notify(d, w->dir, IN_CREATE | (S_ISDIR(mode) ? IN_ISDIR : 0), 0, w->name);
    return i;
}

/* Finds or makes a regular file. */
static int reach(struct disk *d, const char *path, struct where *ret)
{
    int r = look(d, path, true, ret);
    if (r < 0)
        return r;
    if (ret->node == NO_NODE)
        ret->node = make(d, ret, S_IFREG | 0644);
    return S_ISREG(node_at(d, ret->node)->mode) ? 0 : -EINVAL;
}

static void put(struct disk *d, const struct where *w, const void *ptr, size_t len, uint64_t off)
{
    if (len == 0)
        return;
    file_write(d, node_at(d, w->node), ptr, len, off);
    notify(d, w->dir, IN_MODIFY, 0, w->name);
}

static void resize(struct disk *d, const struct where *w, uint64_t len)
{
    file_resize(d, node_at(d, w->node), len);
    notify(d, w->dir, IN_MODIFY, 0, w->name);
}

/* ---- folders and names ---- */

int disk_mkdir(struct disk *d, const char *path, enum disk_zone zone)
{
    char part[PATH_MAX];
    size_t len = strlen(path);
    if (len >= sizeof(part))
        return -ENAMETOOLONG;
    for (size_t i = 1; i <= len; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        struct where w;
        memcpy(part, path, i);
        part[i] = '\0';
        int r = look(d, part, true, &w);
        if (r < 0)
            return r;
        if (w.node != NO_NODE)
            continue;
        w.node = make(d, &w, S_IFDIR | 0755);
        if (zone == DISK_STATE) {
            node_at(d, w.node)->zone = DISK_STATE;
            node_at(d, w.node)->is_safe = false;
        }
    }
    return 0;
}

static int remove_name(struct disk *d, const struct where *w)
{
    (void)names_change(d, w->dir, w->name, NO_NODE, NULL, NO_NODE);
    return 0;
}

int disk_rmdir(struct disk *d, const char *path)
{
    struct where w;
    int r = look(d, path, false, &w);
    if (r < 0 || w.node == NO_NODE)
        return r < 0 ? r : -ENOENT;
    if (!S_ISDIR(node_at(d, w.node)->mode) || w.node == ROOT)
        return -ENOTDIR;
    if (node_at(d, w.node)->names.n > 0)
        return -ENOTEMPTY;
    notify_gone(d, w.node);
    r = remove_name(d, &w);
    notify(d, w.dir, IN_DELETE | IN_ISDIR, 0, w.name);
    return r;
}

int disk_unlink(struct disk *d, const char *path)
{
    struct where w;
    int r = look(d, path, false, &w);
    if (r < 0 || w.node == NO_NODE)
        return r < 0 ? r : -ENOENT;
    if (S_ISDIR(node_at(d, w.node)->mode))
        return -EISDIR;
    r = remove_name(d, &w);
    notify(d, w.dir, IN_DELETE, 0, w.name);
    return r;
}

int disk_rename(struct disk *d, const char *from, const char *to)
{
    struct where a, b;
    int r = look(d, from, false, &a);
    if (r == 0)
        r = look(d, to, false, &b);
    if (r < 0 || a.node == NO_NODE)
        return r < 0 ? r : -ENOENT;
    if (a.node == b.node)
        return 0;
    bool is_dir = S_ISDIR(node_at(d, a.node)->mode);
    if (b.node != NO_NODE && (S_ISDIR(node_at(d, b.node)->mode) || is_dir))
        return -EISDIR;
    disk_events_arrive(d); /* of the rename before: it had the folder to itself */
    (void)names_change(d, a.dir, a.name, b.dir, b.name, a.node);
    notify_renamed(d, &a, &b, is_dir ? IN_ISDIR : 0);
    if (is_dir)
        notify_moved_self(d, a.node);
    return 0;
}

int disk_link(struct disk *d, const char *from, const char *to)
{
    struct where a, b;
    int r = look_file(d, from, &a);
    if (r == 0)
        r = look(d, to, false, &b);
    if (r < 0 || b.node != NO_NODE)
        return r < 0 ? r : -EEXIST;
    (void)names_change(d, NO_NODE, NULL, b.dir, b.name, a.node);
    notify(d, b.dir, IN_CREATE, 0, b.name);
    return 0;
}

int disk_symlink(struct disk *d, const char *target, const char *path)
{
    struct where w;
    int r = look(d, path, false, &w);
    if (r < 0 || w.node != NO_NODE)
        return r < 0 ? r : -EEXIST;
    w.node = make(d, &w, S_IFLNK | 0777);
    file_write(d, node_at(d, w.node), target, strlen(target), 0);
    file_synced(node_at(d, w.node)); /* its text goes with its name */
    return 0;
}

int disk_mkfifo(struct disk *d, const char *path)
{
    struct where w;
    int r = look(d, path, false, &w);
    if (r < 0 || w.node != NO_NODE)
        return r < 0 ? r : -EEXIST;
    (void)make(d, &w, S_IFIFO | 0644);
    return 0;
}

/* ---- bytes ---- */

int disk_append(struct disk *d, const char *path, const void *ptr, size_t len)
{
    struct where w;
    int r = reach(d, path, &w);
    if (r < 0)
        return r;
    put(d, &w, ptr, len, node_at(d, w.node)->size);
    notify(d, w.dir, IN_CLOSE_WRITE, 0, w.name);
    return 0;
}

int disk_write_file(struct disk *d, const char *path, const void *ptr, size_t len)
{
    struct where w;
    int r = reach(d, path, &w);
    if (r < 0)
        return r;
    if (node_at(d, w.node)->size > 0)
        resize(d, &w, 0);
    put(d, &w, ptr, len, 0);
    notify(d, w.dir, IN_CLOSE_WRITE, 0, w.name);
    return 0;
}

int disk_truncate(struct disk *d, const char *path, uint64_t len)
{
    struct where w;
    int r = look_file(d, path, &w);
    if (r == 0)
        resize(d, &w, len);
    return r;
}

int disk_copy(struct disk *d, const char *from, const char *to, uint64_t len)
{
    struct where a;
    int r = look_file(d, from, &a);
    if (r < 0)
        return r;
    const struct node *n = node_at(d, a.node);
    size_t size = (size_t)MIN(len, n->size);
    uint8_t *copy = malloc(MAX(size, (size_t)1)); /* `to` may be the same file */
    if (copy == NULL)
        abort();
    if (size > 0)
        memcpy(copy, n->now.p, size);
    r = disk_write_file(d, to, copy, size);
    free(copy);
    return r;
}

/* As `gzip -n` would: the bytes depend on the text alone. */
static uint8_t *deflated(const struct node *n, size_t *ret_len)
{
    z_stream z = { 0 };
    if (deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        abort();
    uLong max = deflateBound(&z, (uLong)n->size);
    uint8_t *out = malloc(max);
    if (out == NULL)
        abort();
    uint8_t none = 0;
    z.next_in = n->size > 0 ? n->now.p : &none;
    z.avail_in = (uInt)n->size;
    z.next_out = out;
    z.avail_out = (uInt)max;
    int r = deflate(&z, Z_FINISH);
    assert(r == Z_STREAM_END);
    (void)r;
    *ret_len = max - z.avail_out;
    (void)deflateEnd(&z);
    return out;
}

int disk_gzip(struct disk *d, const char *path, unsigned permille)
{
    char to[PATH_MAX];
    struct where w;
    int r = look_file(d, path, &w);
    if (r < 0)
        return r;
    size_t len;
    uint8_t *gz = deflated(node_at(d, w.node), &len);
    (void)snprintf(to, sizeof(to), "%s.gz", path);
    r = disk_write_file(d, to, gz, permille >= 1000 ? len : len * permille / 1000);
    free(gz);
    if (r < 0 || permille < 1000)
        return r;
    r = disk_set_mtime(d, to, node_at(d, w.node)->mtime);
    return r < 0 ? r : disk_unlink(d, path);
}

int disk_set_mtime(struct disk *d, const char *path, int64_t wall_ns)
{
    struct where w;
    int r = look_file(d, path, &w);
    if (r < 0)
        return r;
    node_at(d, w.node)->mtime = wall_ns;
    notify(d, w.dir, IN_ATTRIB, 0, w.name);
    return 0;
}

int disk_chmod(struct disk *d, const char *path, mode_t mode)
{
    struct where w;
    int r = look(d, path, true, &w);
    if (r < 0 || w.node == NO_NODE)
        return r < 0 ? r : -ENOENT;
    struct node *n = node_at(d, w.node);
    n->mode = (n->mode & S_IFMT) | (mode & 07777);
    notify(d, w.dir, IN_ATTRIB, 0, w.name);
    return 0;
}

/* ---- programs that keep their file open ---- */

static struct dfd *writer_of(struct disk *d, int writer)
{
    struct dfd *f = fd_find(d, writer);
    return f != NULL && f->is_worlds ? f : NULL;
}

int disk_writer_open(struct disk *d, const char *path)
{
    struct where w;
    int r = reach(d, path, &w);
    return r < 0 ? r : fd_new(d, w.node, O_WRONLY | O_APPEND, true);
}

int disk_writer_write(struct disk *d, int writer, const void *ptr, size_t len)
{
    const struct dfd *f = writer_of(d, writer);
    if (f == NULL)
        return -EBADF;
    struct node *n = node_at(d, f->node);
    file_write(d, n, ptr, len, n->size);
    notify_node(d, n, IN_MODIFY);
    return 0;
}

int disk_writer_truncate(struct disk *d, int writer, uint64_t len)
{
    const struct dfd *f = writer_of(d, writer);
    if (f == NULL)
        return -EBADF;
    file_resize(d, node_at(d, f->node), len);
    notify_node(d, node_at(d, f->node), IN_MODIFY);
    return 0;
}

void disk_writer_close(struct disk *d, int writer)
{
    const struct dfd *f = writer_of(d, writer);
    if (f == NULL)
        return;
    notify_node(d, node_at(d, f->node), IN_CLOSE_WRITE);
    fd_free(d, writer);
}

/* ---- for oracles ---- */

int64_t disk_size(struct disk *d, const char *path)
{
    struct where w;
    int r = look(d, path, true, &w);
    if (r < 0 || w.node == NO_NODE)
        return r < 0 ? r : -ENOENT;
    return (int64_t)node_at(d, w.node)->size;
}

uint64_t disk_ino(struct disk *d, const char *path)
{
    struct where w;
    return look(d, path, true, &w) < 0 || w.node == NO_NODE ? 0 : node_at(d, w.node)->ino;
}

ssize_t disk_read(struct disk *d, const char *path, void *ptr, size_t len, uint64_t off)
{
    struct where w;
    int r = look_file(d, path, &w);
    if (r < 0)
        return r;
    const struct node *n = node_at(d, w.node);
    size_t got = off >= n->size ? 0 : (size_t)MIN((uint64_t)len, n->size - off);
    if (got > 0)
        memcpy(ptr, n->now.p + off, got);
    return (ssize_t)got;
}

int disk_poke(struct disk *d, const char *path, uint64_t off, const void *ptr, size_t len)
{
    struct where w;
    int r = look_file(d, path, &w);
    if (r < 0)
        return r;
    struct node *n = node_at(d, w.node);
    if (len == 0)
        return 0;
    store_need(&n->now, (size_t)off + len);
    memcpy(n->now.p + off, ptr, len);
    n->size = MAX(n->size, off + len);
    if (!n->is_safe) {
        store_need(&n->old, (size_t)off + len);
        memcpy(n->old.p + off, ptr, len);
        n->old_size = MAX(n->old_size, off + len);
    }
    return 0;
}

int disk_cut(struct disk *d, const char *path, uint64_t len)
{
    struct where w;
    int r = look_file(d, path, &w);
    if (r < 0)
        return r;
    struct node *n = node_at(d, w.node);
    file_resize(d, n, len);
    file_synced(n);
    return 0;
}

int disk_each(struct disk *d, const char *path, void (*each)(void *ctx, const char *name), void *ctx)
{
    struct where w;
    int r = look(d, path, true, &w);
    if (r < 0 || w.node == NO_NODE)
        return r < 0 ? r : -ENOENT;
    const struct node *n = node_at(d, w.node);
    if (!S_ISDIR(n->mode))
        return -ENOTDIR;
    for (size_t i = 0; i < n->names.n; i++)
        each(ctx, n->names.e[i].name);
    return 0;
}
