/*
 * The model disk as fs_ops: what the agent calls, with faults and death.
 */
#include <assert.h>
#include <stdlib.h>
#include <sys/inotify.h>

#include "tests/sim/disk_core.h"

/* ---- descriptors ---- */

struct dfd *fd_find(const struct disk *d, int fd)
{
    size_t i = (size_t)fd - DISK_FD_FIRST;
    return fd >= DISK_FD_FIRST && i < d->n_fds && d->fds[i].is_used ? &d->fds[i] : NULL;
}

int fd_new(struct disk *d, uint32_t node, int flags, bool is_worlds)
{
    size_t i = 0;
    while (i < d->n_fds && d->fds[i].is_used)
        i++;
    if (i == d->n_fds) {
        d->fds = model_grow(d->fds, &d->cap_fds, d->n_fds + 1, sizeof(*d->fds));
        d->n_fds++;
    }
    struct node *n = node_at(d, node);
    d->fds[i] = (struct dfd){ .is_used = true, .is_worlds = is_worlds, .node = node, .flags = flags,
                              .err_seen = n->err_seq, .since = d->calls };
    node_ref(d, node);
    n->n_fds++;
    d->n_agent_fds += !is_worlds;
    return DISK_FD_FIRST + (int)i;
}

void fd_free(struct disk *d, int fd)
{
    struct dfd *f = fd_find(d, fd);
    assert(f != NULL);
    struct node *n = node_at(d, f->node);
    if (n->lock_fd == fd)
        n->lock_fd = -1;
    n->n_fds--;
    d->n_agent_fds -= !f->is_worlds;
    f->is_used = false;
    node_unref(d, f->node);
}

/* The agent's: NULL also for a descriptor of the world's. */
static struct dfd *fd_agents(const struct disk *d, int fd)
{
    struct dfd *f = fd_find(d, fd);
    return f == NULL || f->is_worlds ? NULL : f;
}

/* ---- faults ---- */

static const char *const op_names[DISK_N_OPS] = { "open",   "create",  "close",  "read",   "write", "sync",
                                                  "syncdir", "truncate", "reserve", "rename", "unlink", "mkdir",
                                                  "stat",   "list",    "space",  "lock",   "realpath" };

/* What becomes of this call. */
struct gate {
    bool is_struck;
    enum disk_fault_kind kind;
    int error; /* negative */
};

static bool fault_strikes(struct disk *d, struct fault *f, enum disk_op op, unsigned zone)
{
    if (!(f->f.ops & DISK_OP(op)) || (f->f.zones != 0 && !(f->f.zones & zone)) || (f->f.times != 0 && f->left == 0))
        return false;
    if (f->left_to_skip > 0) {
        f->left_to_skip--;
        return false;
    }
    if (f->f.per_million != 0 && rng_below(&d->rng, 1000000) >= f->f.per_million)
        return false;
    if (f->f.times != 0)
        f->left--;
    d->struck++;
    return true;
}

static struct gate gate_faults(struct disk *d, enum disk_op op, unsigned zone)
{
    struct gate g = { 0 };
    for (size_t i = 0; i < d->n_faults && !g.is_struck; i++) {
        struct fault *f = &d->faults[i];
        if (!fault_strikes(d, f, op, zone))
            continue;
        if (f->f.kind == DISK_SLOW) {
            if (d->slow != NULL)
                d->slow(d->slow_ctx, f->f.slow_ns);
            continue;
        }
        g = (struct gate){ true, f->f.kind, -(f->f.error != 0 ? f->f.error : EIO) };
        if (g.kind == DISK_DIE_BEFORE) {
            d->is_dead = true;
            g.error = -EIO;
        }
    }
    return g;
}

/* True: the call is not made, its result is *ret. */
static bool gate_refuses(struct disk *d, enum disk_op op, unsigned zone, struct gate *g, int *ret)
{
    *g = (struct gate){ 0 };
    if (d->is_dead) {
        *ret = -EIO;
        return true;
    }
    d->calls++;
    d->calls_of[op]++;
    if (d->n_faults > 0)
        *g = gate_faults(d, op, zone);
    if (!g->is_struck || (g->kind != DISK_FAIL && g->kind != DISK_DIE_BEFORE))
        return false;
    *ret = g->error;
    return true;
}

/* The call was made: what the agent hears. */
static int64_t gate_after(struct disk *d, const struct gate *g, int64_t result)
{
    if (!g->is_struck)
        return result;
    if (g->kind == DISK_FAIL_LATE)
        return g->error;
    if (g->kind == DISK_DIE_AFTER || g->kind == DISK_DIE_WITHIN) {
        d->is_dead = true;
        return -EIO;
    }
    return result;
}

static void path_of(const struct disk *d, uint32_t i, char *out, size_t room)
{
    const struct node *n = node_at(d, i);
    if (i == ROOT || n->home == NO_NODE) {
        (void)snprintf(out, room, "%s", i == ROOT ? "" : "(removed)");
        return;
    }
    path_of(d, n->home, out, room);
    size_t at = strlen(out);
    (void)snprintf(out + at, room - at, "/%s", n->name);
}

static void tell(struct disk *d, enum disk_op op, uint32_t node, const char *more, int64_t result)
{
    char what[2 * PATH_MAX];
    if (d->call == NULL)
        return;
    size_t at = (size_t)snprintf(what, sizeof(what), "%s ", op_names[op]);
    if (node != NO_NODE)
        path_of(d, node, what + at, PATH_MAX);
    at = strlen(what);
    (void)snprintf(what + at, sizeof(what) - at, "%s%s", node != NO_NODE && more[0] != '\0' ? " " : "", more);
    d->call(d->call_ctx, what, result);
}

static void tell_bytes(struct disk *d, enum disk_op op, uint32_t node, uint64_t len, uint64_t off, int64_t result)
{
    char more[64];
    if (d->call == NULL)
        return;
    (void)snprintf(more, sizeof(more), "%llu@%llu", (unsigned long long)len, (unsigned long long)off);
    tell(d, op, node, more, result);
}

/* The agent has looked at the logs: it is the world's turn, whose changes are not in what was seen. */
static void looked(struct disk *d, enum disk_op op, unsigned zone, const char *name)
{
    if (d->look == NULL || zone != DISK_LOGS || d->is_dead)
        return;
    late_one_call(d);
    d->look(d->look_ctx, op, name);
}

/* A call for a descriptor: NULL, and its result in *ret. */
static struct node *by_fd(struct disk *d, enum disk_op op, int fd, struct gate *g, int *ret)
{
    const struct dfd *f = fd_agents(d, fd);
    struct node *n = f == NULL ? NULL : node_at(d, f->node);
    if (gate_refuses(d, op, n == NULL ? 0 : n->zone, g, ret)) {
        tell(d, op, f == NULL ? NO_NODE : f->node, "", *ret);
        return NULL;
    }
    if (n == NULL)
        *ret = -EBADF;
    return n;
}

/* The folder that names begin at. */
static int dir_of(const struct disk *d, int dir_fd, uint32_t *ret)
{
    const struct dfd *f = dir_fd == AT_FDCWD ? NULL : fd_agents(d, dir_fd);
    if (dir_fd != AT_FDCWD && f == NULL)
        return -EBADF;
    *ret = f == NULL ? ROOT : f->node;
    return 0;
}

static int find(const struct disk *d, int dir_fd, const char *name, bool follow, struct where *ret)
{
    uint32_t from = ROOT;
    int r = name[0] == '/' ? 0 : dir_of(d, dir_fd, &from);
    ret->dir = ret->node = NO_NODE;
    ret->name[0] = '\0';
    return r < 0 ? r : walk(d, from, name, follow, ret, NULL);
}

static unsigned zone_at(const struct disk *d, const struct where *w)
{
    uint32_t i = w->node != NO_NODE ? w->node : w->dir;
    return i == NO_NODE ? 0 : node_at(d, i)->zone;
}

/* ---- open and close ---- */

static bool takes_page(struct disk *d, uint32_t dir)
{
    if (!d->is_limited || node_at(d, dir)->zone != DISK_STATE)
        return true;
    if (d->space_left < DISK_PAGE)
        return false;
    d->space_left -= DISK_PAGE;
    return true;
}

static int create(struct disk *d, const struct where *w, mode_t mode, uint32_t *ret)
{
    if (w->dir == NO_NODE || w->name[0] == '\0')
        return -ENOENT;
    if (!takes_page(d, w->dir))
        return -ENOSPC;
    *ret = node_new(d, mode, w->dir);
    node_at(d, *ret)->has_charged_name = node_at(d, *ret)->zone == DISK_STATE && d->is_limited;
    (void)names_change(d, NO_NODE, NULL, w->dir, w->name, *ret);
    notify(d, w->dir, IN_CREATE | (S_ISDIR(mode) ? IN_ISDIR : 0), 0, w->name);
    return 0;
}

static int may_open(const struct node *n, int flags)
{
    bool writes = (flags & O_ACCMODE) != O_RDONLY;
    if (S_ISLNK(n->mode))
        return -ELOOP;
    if ((flags & O_DIRECTORY) && !S_ISDIR(n->mode))
        return -ENOTDIR;
    if (S_ISDIR(n->mode) && writes)
        return -EISDIR;
    return (n->mode & 0444) == 0 ? -EACCES : 0;
}

static int open_found(struct disk *d, const struct where *w, int flags, mode_t mode)
{
    uint32_t i = w->node;
    if (i == NO_NODE && !(flags & O_CREAT))
        return -ENOENT;
    if (i != NO_NODE && (flags & O_CREAT) && (flags & O_EXCL))
        return -EEXIST;
    if (d->n_agent_fds >= (d->conf.fds_max == 0 ? 65536 : d->conf.fds_max))
        return -EMFILE;
    int r = i == NO_NODE ? create(d, w, S_IFREG | (mode & 0777), &i) : may_open(node_at(d, i), flags);
    if (r < 0)
        return r;
    if ((flags & O_TRUNC) && node_at(d, i)->size > 0)
        file_resize(d, node_at(d, i), 0);
    return fd_new(d, i, flags, false);
}

static int model_open(int dir_fd, const char *name, int flags, mode_t mode)
{
    struct disk *d = disk_current;
    struct where w;
    struct gate g;
    bool follow = !(flags & O_NOFOLLOW) && !((flags & O_CREAT) && (flags & O_EXCL));
    int r = find(d, dir_fd, name, follow, &w), refused;
    enum disk_op op = (flags & O_CREAT) && w.node == NO_NODE ? DISK_CREATE : DISK_OPEN;
    if (gate_refuses(d, op, zone_at(d, &w), &g, &refused))
        r = refused;
    else if (r == 0)
        r = (int)gate_after(d, &g, open_found(d, &w, flags, mode));
    tell(d, op, NO_NODE, name, r);
    looked(d, op, zone_at(d, &w), name);
    return r;
}

/* A descriptor is gone whatever close says. */
static int model_close(int fd)
{
    struct disk *d = disk_current;
    struct gate g;
    int r = 0;
    const struct node *n = by_fd(d, DISK_CLOSE, fd, &g, &r);
    if (!d->is_dead && fd_agents(d, fd) != NULL) {
        if (n != NULL)
            tell(d, DISK_CLOSE, fd_agents(d, fd)->node, "", 0);
        fd_free(d, fd);
    }
    return (int)gate_after(d, &g, r);
}

/* ---- bytes ---- */

static ssize_t model_pread(int fd, void *ptr, size_t len, uint64_t off)
{
    struct disk *d = disk_current;
    struct gate g;
    int r = 0;
    const struct node *n = by_fd(d, DISK_READ, fd, &g, &r);
    if (n == NULL)
        return r;
    ssize_t result;
    if ((fd_agents(d, fd)->flags & O_ACCMODE) == O_WRONLY) {
        result = -EBADF;
    } else if (!S_ISREG(n->mode)) {
        result = S_ISDIR(n->mode) ? -EISDIR : -ESPIPE;
    } else {
        size_t got = off >= n->size ? 0 : (size_t)MIN((uint64_t)len, n->size - off);
        if (g.is_struck && g.kind == DISK_SHORT && got > 1)
            got = 1 + (size_t)rng_below(&d->rng, got - 1);
        if (got > 0)
            memcpy(ptr, n->now.p + off, got);
        result = (ssize_t)got;
    }
    result = (ssize_t)gate_after(d, &g, result);
    tell_bytes(d, DISK_READ, fd_agents(d, fd)->node, len, off, result);
    return result;
}

/* How much of a write there is room for; -ENOSPC: none. */
static int64_t room_for(const struct disk *d, const struct node *n, uint64_t len, uint64_t off)
{
    uint64_t end = off + len, pages = (end + DISK_PAGE - 1) / DISK_PAGE;
    if (!d->is_limited || n->zone != DISK_STATE || pages <= n->pages)
        return (int64_t)len;
    uint64_t last = (n->pages + d->space_left / DISK_PAGE) * DISK_PAGE;
    if (end <= last)
        return (int64_t)len;
    return last > off ? (int64_t)(last - off) : -ENOSPC;
}

static void write_parts(struct disk *d, struct node *n, const struct iovec *iov, uint64_t len, uint64_t off)
{
    bool is_one = iov[0].iov_len >= len;
    static struct store whole; /* one write is one pending write, however many pieces it came in */
    if (!is_one) {
        store_need(&whole, (size_t)len);
        for (uint64_t at = 0; at < len; iov++) {
            size_t part = (size_t)MIN((uint64_t)iov->iov_len, len - at);
            memcpy(whole.p + at, iov->iov_base, part);
            at += part;
        }
    }
    file_write(d, n, is_one ? iov[0].iov_base : whole.p, (size_t)len, off);
    if (n->home != NO_NODE)
        notify_node(d, n, IN_MODIFY);
}

static ssize_t model_pwritev(int fd, const struct iovec *iov, int n_iov, uint64_t off)
{
    struct disk *d = disk_current;
    struct gate g;
    int r = 0;
    struct node *n = by_fd(d, DISK_WRITE, fd, &g, &r);
    if (n == NULL)
        return r;
    uint64_t len = 0;
    for (int i = 0; i < n_iov; i++)
        len += iov[i].iov_len;
    if ((fd_agents(d, fd)->flags & O_ACCMODE) == O_RDONLY)
        return -EBADF;
    bool is_partial = g.is_struck && (g.kind == DISK_SHORT || g.kind == DISK_FAIL_LATE || g.kind == DISK_DIE_WITHIN);
    uint64_t wanted = is_partial && len > 1 ? 1 + rng_below(&d->rng, len - 1) : len;
    int64_t result = room_for(d, n, wanted, off);
    if (result > 0)
        write_parts(d, n, iov, (uint64_t)result, off);
    result = gate_after(d, &g, result);
    tell_bytes(d, DISK_WRITE, fd_agents(d, fd)->node, len, off, result);
    return (ssize_t)result;
}

static int sync_file(struct disk *d, struct dfd *f)
{
    struct node *n = node_at(d, f->node);
    file_synced(n);
    if (f->err_seen == n->err_seq)
        return 0;
    f->err_seen = n->err_seq;
    return -EIO;
}

static int model_fdatasync(int fd)
{
    struct disk *d = disk_current;
    struct dfd *f = fd_agents(d, fd);
    struct gate g;
    int r = 0;
    struct node *n = by_fd(d, DISK_SYNC, fd, &g, &r);
    bool fails = n == NULL && f != NULL && g.is_struck && g.kind == DISK_FAIL;
    if (fails) {
        file_sync_failed(d, node_at(d, f->node));
        f->err_seen = ++node_at(d, f->node)->err_seq;
    }
    if (n == NULL)
        return r;
    if (g.is_struck && g.kind == DISK_DIE_WITHIN)
        file_sync_failed(d, n); /* some of it was written; nobody will ever hear */
    else
        r = sync_file(d, f);
    r = (int)gate_after(d, &g, r);
    tell(d, DISK_SYNC, f->node, "", r);
    return r;
}

static int model_truncate(int fd, uint64_t len)
{
    struct disk *d = disk_current;
    struct gate g;
    int r = 0;
    struct node *n = by_fd(d, DISK_TRUNCATE, fd, &g, &r);
    if (n == NULL)
        return r;
    file_resize(d, n, len);
    r = (int)gate_after(d, &g, 0);
    tell_bytes(d, DISK_TRUNCATE, fd_agents(d, fd)->node, len, 0, r);
    return r;
}

static int model_reserve(int fd, uint64_t len)
{
    struct disk *d = disk_current;
    struct gate g;
    int r = 0;
    struct node *n = by_fd(d, DISK_RESERVE, fd, &g, &r);
    if (n == NULL)
        return r;
    uint64_t pages = (len + DISK_PAGE - 1) / DISK_PAGE;
    if (d->conf.has_no_reserve) {
        r = -EOPNOTSUPP;
    } else if (pages > n->pages) {
        uint64_t need = (pages - n->pages) * DISK_PAGE;
        if (d->is_limited && need > d->space_left)
            r = -ENOSPC;
        else
            d->space_left -= d->is_limited ? need : 0;
        if (r == 0)
            n->pages = pages;
    }
    r = (int)gate_after(d, &g, r);
    tell_bytes(d, DISK_RESERVE, fd_agents(d, fd)->node, len, 0, r);
    return r;
}

/* ---- names ---- */

static void sync_names(struct disk *d, uint32_t dir)
{
    size_t kept = 0;
    for (size_t i = 0; i < d->n_ops; i++) {
        struct name_op op = d->ops[i];
        bool is_of_it = op.add_dir == dir || op.del_dir == dir;
        if (d->conf.names == NAMES_JOURNAL || (is_of_it && !op.is_stuck)) {
            for (size_t k = 0; k < kept; k++)
                name_op_supersede(d, &d->ops[k], &op);
            name_op_commit(d, &op);
        } else {
            d->ops[kept++] = op;
        }
    }
    d->n_ops = kept;
}

static void names_stick(struct disk *d, uint32_t dir)
{
    for (size_t i = 0; i < d->n_ops; i++)
        d->ops[i].is_stuck |= d->ops[i].add_dir == dir || d->ops[i].del_dir == dir;
}

static int model_sync_dir(int dir_fd)
{
    struct disk *d = disk_current;
    const struct dfd *f = fd_agents(d, dir_fd);
    struct gate g;
    int r = 0;
    const struct node *n = by_fd(d, DISK_SYNC_DIR, dir_fd, &g, &r);
    if (n == NULL) {
        if (f != NULL && g.is_struck && g.kind == DISK_FAIL && d->conf.names == NAMES_LOOSE)
            names_stick(d, f->node);
        return r;
    }
    if (!g.is_struck || g.kind != DISK_DIE_WITHIN)
        sync_names(d, f->node);
    r = (int)gate_after(d, &g, 0);
    tell(d, DISK_SYNC_DIR, f->node, "", r);
    return r;
}

/* Is a folder, or the one above it …, this one? */
static bool is_below(const struct disk *d, uint32_t dir, uint32_t above)
{
    while (dir != NO_NODE && dir != above)
        dir = node_at(d, dir)->parent;
    return dir == above;
}

static int rename_found(struct disk *d, const struct where *from, const struct where *to)
{
    if (from->node == NO_NODE || to->dir == NO_NODE)
        return -ENOENT;
    if (to->node == from->node)
        return 0;
    bool is_dir = S_ISDIR(node_at(d, from->node)->mode);
    if (to->node != NO_NODE && S_ISDIR(node_at(d, to->node)->mode) != is_dir)
        return is_dir ? -ENOTDIR : -EISDIR;
    if (is_dir && is_below(d, to->dir, from->node))
        return -EINVAL;
    if (is_dir && to->node != NO_NODE && node_at(d, to->node)->names.n > 0)
        return -ENOTEMPTY;
    disk_events_arrive(d);
    (void)names_change(d, from->dir, from->name, to->dir, to->name, from->node);
    notify_renamed(d, from, to, is_dir ? IN_ISDIR : 0);
    if (is_dir)
        notify_moved_self(d, from->node);
    return 0;
}

static int model_rename(int dir_fd, const char *from, int to_dir_fd, const char *to)
{
    struct disk *d = disk_current;
    struct where a, b;
    struct gate g;
    int r = find(d, dir_fd, from, false, &a), refused;
    if (r == 0)
        r = find(d, to_dir_fd, to, false, &b);
    if (gate_refuses(d, DISK_RENAME, zone_at(d, &a), &g, &refused))
        r = refused;
    else if (r == 0)
        r = (int)gate_after(d, &g, rename_found(d, &a, &b));
    tell(d, DISK_RENAME, NO_NODE, from, r);
    return r;
}

static int model_unlink(int dir_fd, const char *name)
{
    struct disk *d = disk_current;
    struct where w;
    struct gate g;
    int r = find(d, dir_fd, name, false, &w), refused;
    if (gate_refuses(d, DISK_UNLINK, zone_at(d, &w), &g, &refused)) {
        r = refused;
    } else if (r == 0 && w.node == NO_NODE) {
        r = -ENOENT;
    } else if (r == 0 && S_ISDIR(node_at(d, w.node)->mode)) {
        r = -EISDIR;
    } else if (r == 0) {
        (void)names_change(d, w.dir, w.name, NO_NODE, NULL, NO_NODE);
        notify(d, w.dir, IN_DELETE, 0, w.name);
        r = (int)gate_after(d, &g, 0);
    }
    tell(d, DISK_UNLINK, NO_NODE, name, r);
    return r;
}

static int model_mkdir(int dir_fd, const char *name, mode_t mode)
{
    struct disk *d = disk_current;
    struct where w;
    struct gate g;
    uint32_t made;
    int r = find(d, dir_fd, name, true, &w), refused;
    if (gate_refuses(d, DISK_MKDIR, zone_at(d, &w), &g, &refused))
        r = refused;
    else if (r == 0)
        r = (int)gate_after(d, &g, w.node != NO_NODE ? -EEXIST : create(d, &w, S_IFDIR | (mode & 0777), &made));
    tell(d, DISK_MKDIR, NO_NODE, name, r);
    return r;
}

/* ---- looking ---- */

static struct timespec timespec_of(int64_t ns)
{
    return (struct timespec){ .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };
}

static void fill_stat(const struct disk *d, const struct node *n, struct stat *st)
{
    *st = (struct stat){ .st_dev = d->dev,
                         .st_ino = n->ino,
                         .st_mode = n->mode,
                         .st_nlink = n->nlink + (S_ISDIR(n->mode) ? 1u : 0u),
                         .st_size = S_ISDIR(n->mode) ? DISK_PAGE : (off_t)n->size,
                         .st_blksize = DISK_PAGE,
                         .st_blocks = (blkcnt_t)((n->size + DISK_PAGE - 1) / DISK_PAGE * (DISK_PAGE / 512)),
                         .st_atim = timespec_of(n->mtime),
                         .st_mtim = timespec_of(n->mtime),
                         .st_ctim = timespec_of(n->ctime) };
}

static int model_fstat(int fd, struct stat *st)
{
    struct disk *d = disk_current;
    struct gate g;
    int r = 0;
    const struct node *n = by_fd(d, DISK_STAT, fd, &g, &r);
    if (n == NULL)
        return r;
    fill_stat(d, n, st);
    r = (int)gate_after(d, &g, 0);
    tell(d, DISK_STAT, fd_agents(d, fd)->node, "", r);
    looked(d, DISK_STAT, n->zone, NULL);
    return r;
}

static int model_stat(int dir_fd, const char *name, struct stat *st, bool follow)
{
    struct disk *d = disk_current;
    struct where w;
    struct gate g;
    int r = find(d, dir_fd, name, follow, &w), refused;
    if (gate_refuses(d, DISK_STAT, zone_at(d, &w), &g, &refused)) {
        r = refused;
    } else if (r == 0 && w.node == NO_NODE) {
        r = -ENOENT;
    } else if (r == 0) {
        fill_stat(d, node_at(d, w.node), st);
        r = (int)gate_after(d, &g, 0);
    }
    tell(d, DISK_STAT, NO_NODE, name, r);
    looked(d, DISK_STAT, zone_at(d, &w), name);
    return r;
}

/* As readdir: names that were there when it began and still are. The caller may change the folder meanwhile. */
static void list_names(struct disk *d, const struct names *t, void (*each)(void *ctx, const char *name), void *ctx)
{
    size_t n = t->n, first = 0, step = 1;
    if (n == 0)
        return;
    size_t cap = 0;
    char(*copy)[DISK_NAME_MAX + 1] = model_grow(NULL, &cap, n, sizeof(*copy));
    for (size_t i = 0; i < n; i++)
        memcpy(copy[i], t->e[i].name, sizeof(copy[i]));
    if (d->conf.shuffles_lists) {
        first = (size_t)rng_below(&d->rng, n);
        step = rng_below(&d->rng, 2) != 0 ? 1 : n - 1;
    }
    for (size_t i = 0, at = first; i < n; i++, at = (at + step) % n)
        each(ctx, copy[at]);
    free(copy);
}

static int model_list(int dir_fd, void (*each)(void *ctx, const char *name), void *ctx)
{
    struct disk *d = disk_current;
    struct gate g;
    int r = 0;
    const struct node *n = by_fd(d, DISK_LIST, dir_fd, &g, &r);
    if (n == NULL)
        return r;
    if (!S_ISDIR(n->mode))
        return -ENOTDIR;
    tell(d, DISK_LIST, fd_agents(d, dir_fd)->node, "", 0);
    disk_events_arrive(d); /* a rename had the folder locked until it had told */
    list_names(d, &n->names, each, ctx);
    r = (int)gate_after(d, &g, 0);
    looked(d, DISK_LIST, n->zone, NULL);
    return r;
}

static int model_space(int fd, struct fs_space *ret)
{
    struct disk *d = disk_current;
    struct gate g;
    int r = 0;
    if (by_fd(d, DISK_SPACE, fd, &g, &r) == NULL)
        return r;
    ret->total_bytes = UINT64_C(1) << 41;
    ret->free_bytes = d->is_limited ? d->space_left : UINT64_C(1) << 40;
    ret->type = 0xef53; /* ext4 */
    return (int)gate_after(d, &g, 0);
}

static int model_lock(int fd)
{
    struct disk *d = disk_current;
    struct gate g;
    int r = 0;
    struct node *n = by_fd(d, DISK_LOCK, fd, &g, &r);
    if (n == NULL)
        return r;
    if (n->lock_fd >= 0 && n->lock_fd != fd)
        r = -EWOULDBLOCK;
    else
        n->lock_fd = fd;
    return (int)gate_after(d, &g, r);
}

static int model_realpath(const char *path, char ret[PATH_MAX])
{
    struct disk *d = disk_current;
    struct where w = { .node = NO_NODE };
    struct gate g;
    int refused, r = walk(d, ROOT, path, true, &w, ret);
    if (r == 0 && w.node == NO_NODE)
        r = -ENOENT;
    if (gate_refuses(d, DISK_REALPATH, r < 0 ? 0 : node_at(d, w.node)->zone, &g, &refused))
        r = refused;
    else if (r == 0)
        r = (int)gate_after(d, &g, 0);
    tell(d, DISK_REALPATH, NO_NODE, path, r);
    looked(d, DISK_REALPATH, zone_at(d, &w), path);
    return r;
}

static void model_birth(int fd, struct fs_birth *ret)
{
    const struct disk *d = disk_current;
    const struct dfd *f = fd_agents(d, fd);
    *ret = (struct fs_birth){ 0 };
    if (f == NULL || d->is_dead || !d->conf.has_birth)
        return;
    *ret = (struct fs_birth){ node_at(d, f->node)->generation, node_at(d, f->node)->btime };
}

static int model_random(void *ptr, size_t len)
{
    for (size_t i = 0; i < len; i += sizeof(uint64_t)) {
        uint64_t x = rng_next(&disk_current->entropy);
        memcpy((uint8_t *)ptr + i, &x, MIN(len - i, sizeof(x)));
    }
    return 0;
}

const struct fs_ops disk_ops = {
    .open = model_open,
    .close = model_close,
    .pread = model_pread,
    .pwritev = model_pwritev,
    .fdatasync = model_fdatasync,
    .sync_dir = model_sync_dir,
    .truncate = model_truncate,
    .reserve = model_reserve,
    .rename = model_rename,
    .unlink = model_unlink,
    .mkdir = model_mkdir,
    .fstat = model_fstat,
    .stat = model_stat,
    .list = model_list,
    .space = model_space,
    .lock = model_lock,
    .realpath = model_realpath,
    .birth = model_birth,
    .random = model_random,
};

/* ---- plans ---- */

void disk_fault_add(struct disk *d, const struct disk_fault *f)
{
    assert(d->n_faults < DISK_FAULTS_MAX);
    d->faults[d->n_faults++] = (struct fault){ *f, f->skip, f->times };
}

void disk_faults_clear(struct disk *d)
{
    d->n_faults = 0;
    d->struck = 0;
}

uint64_t disk_faults_struck(const struct disk *d)
{
    return d->struck;
}

uint64_t disk_calls(const struct disk *d)
{
    return d->calls;
}

uint64_t disk_calls_of(const struct disk *d, enum disk_op op)
{
    return d->calls_of[op];
}

void disk_on_slow(struct disk *d, void (*slow)(void *ctx, int64_t ns), void *ctx)
{
    d->slow = slow;
    d->slow_ctx = ctx;
}

void disk_on_call(struct disk *d, void (*call)(void *ctx, const char *what, int64_t result), void *ctx)
{
    d->call = call;
    d->call_ctx = ctx;
}

void disk_on_look(struct disk *d, void (*look)(void *ctx, enum disk_op op, const char *name), void *ctx)
{
    d->look = look;
    d->look_ctx = ctx;
}

const char *disk_op_word(enum disk_op op)
{
    return op_names[op];
}

void disk_set_space(struct disk *d, uint64_t bytes)
{
    d->is_limited = bytes != 0;
    d->space_left = bytes;
}

unsigned disk_open_fds(const struct disk *d)
{
    return d->n_agent_fds;
}
