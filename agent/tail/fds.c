/* Descriptors of files: a budget of them, and whether a name still leads to the same file. */
#include <errno.h>
#include <fcntl.h>

#include "agent/queue/fs.h"
#include "agent/tail/internal.h"

void file_is_gone(struct tail_file *f)
{
    f->is_deleted = true;
    if (f->fd < 0 && f->phase != PHASE_MISSING)
        table_del(&f->t->by_ino, &f->by_ino);
}

void file_close(struct tail_file *f)
{
    gz_close(f->gz);
    f->gz = NULL;
    if (f->fd < 0)
        return;
    (void)fs_current()->close(f->fd); /* only read from */
    f->fd = -1;
    list_del(&f->lru);
    f->t->n_open--;
    if (f->is_deleted && !f->is_copied)
        file_is_gone(f);
    if (f->is_copied) { /* the copy is the file from now on */
        f->is_copied = f->is_deleted = false;
        f->is_gz = slice_ends(slice_cstr(file_real(f)), SLICE(".gz"));
    }
}

void file_take_fd(struct tail_file *f, int fd)
{
    file_close(f);
    f->fd = fd;
    list_add_tail(&f->t->lru, &f->lru);
    f->t->n_open++;
}

/* Lower goes first; 3 never: closing it would lose its bytes. */
static int eviction_class(const struct tail_file *f)
{
    if (f->is_deleted && !f->is_copied && f->stage == STAGE_READING)
        return 3;
    if (f->phase == PHASE_LIVE)
        return file_is_read(f) ? 0 : 1;
    return f->stage == STAGE_READING ? 2 : 0;
}

/* The least recently used come first, and one of these few will do: with ten thousand new files, all of them unread, looking
 * at every one for each that is opened took half of the time of a start. */
#define EVICT_LOOKS 64

static bool evict_one(struct tail *t)
{
    if (sleepers_close_one(t))
        return true;
    struct tail_file *best = NULL;
    int best_class = 3, n = 0;
    for (struct list *l = t->lru.next; l != &t->lru && best_class > 0 && (n < EVICT_LOOKS || best == NULL); l = l->next, n++) {
        struct tail_file *f = CONTAINER_OF(l, struct tail_file, lru);
        int class = eviction_class(f);
        if (class < best_class) {
            best = f;
            best_class = class;
        }
    }
    if (best != NULL)
        file_close(best);
    return best != NULL;
}

int open_regular(struct tail *t, const char *path, struct stat *st)
{
    const struct fs_ops *fs = fs_current();
    if (t->n_open >= t->fd_budget && !evict_one(t))
        return -EMFILE;
    int fd = -EPERM;
    for (int try = 0; try < 3; try++) {
        int atime = try == 0 ? O_NOATIME : 0; /* only for the owner and root */
        fd = fs->open(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_NOCTTY | atime, 0);
        if ((fd == -EMFILE || fd == -ENFILE) && evict_one(t))
            continue;
        if (fd != -EPERM)
            break;
    }
    if (fd >= t->fd_top && fd < t->fd_limit)
        (void)(evict_one(t) && evict_one(t)); /* the others hold more than was thought: files make room */
    if (fd < 0)
        return fd;
    int r = fs->fstat(fd, st);
    if (r == 0 && !S_ISREG(st->st_mode))
        r = -EINVAL;
    if (r == 0)
        return fd;
    (void)fs->close(fd); /* nothing was written */
    return r;
}

bool file_is_by_number(const struct tail_file *f, const struct file_ident *id)
{
    return f->ident.fp_len == 0 && id->generation == 0 && id->btime_ns == 0;
}

bool file_may_be_named(const struct tail_file *f, const struct file_ident *id, const char *path)
{
    const struct slice p = slice_cstr(path);
    if (!file_is_by_number(f, id))
        return true;
    return f->is_gz ? slice_ends(p, SLICE(".gz")) : !is_compressed_name(p); /* compressing makes another file */
}

/* Where an inode has neither birth time nor generation, its number may be another file's by now: then what is in it has to
 * say whose it is. */
static int is_same_file(struct tail_file *f, int fd, const struct file_ident *id, const char *path)
{
    struct source src = { fd, NULL };
    if (id->dev != f->ident.dev || !ident_same_inode(id, &f->ident))
        return 0;
    if (id->generation != 0 || id->btime_ns != 0 || !f->is_tracked)
        return 1;
    if (!file_may_be_named(f, id, path))
        return 0;
    int r = f->is_gz ? gz_open(fd, &src.gz) : 0;
    if (r == 0)
        r = source_holds(f, &src, false);
    gz_close(src.gz);
    return r;
}

/* The name leads to the same file as ever? */
int file_open_at(struct tail_file *f, const char *path)
{
    struct stat st;
    int fd = open_regular(f->t, path, &st);
    if (fd < 0)
        return fd;
    struct file_ident id = { 0 };
    ident_of_fd(fd, &st, &id);
    int r = is_same_file(f, fd, &id, path);
    if (r > 0) {
        file_take_fd(f, fd);
        f->is_by_number = file_is_by_number(f, &id);
        return 0;
    }
    (void)fs_current()->close(fd); /* another file now, or nobody can say */
    bool has_number = id.dev == f->ident.dev && id.ino == f->ident.ino;
    return r < 0 ? r : has_number ? -ESTALE : -ENOENT;
}

int file_open(struct tail_file *f)
{
    if (f->fd >= 0) {
        list_del(&f->lru);
        list_add_tail(&f->t->lru, &f->lru);
        return 0;
    }
    int r = f->is_deleted ? -ENOENT : file_open_at(f, file_real(f));
    if (r == -ENOENT || r == -ENOTDIR || r == -EINVAL || r == -ESTALE) {
        name_touch(f->t, file_real(f), NULL); /* whoever is there now is not this one */
        r = rotate_find(f);
        return r > 0 ? 0 : r == 0 ? -ENOENT : r;
    }
    return r == -EMFILE || r == -ENFILE || r == -ENOMEM ? -EAGAIN : r;
}

int source_of(struct tail_file *f, struct source *ret)
{
    int r = file_open(f);
    if (r < 0)
        return r;
    if (f->is_gz && f->gz == NULL) {
        r = gz_open(f->fd, &f->gz);
        if (r < 0)
            return r;
    }
    *ret = (struct source){ f->fd, f->gz };
    return 0;
}
