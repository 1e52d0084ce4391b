#include "outputs/file_keep.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/io.h"
#include "outputs/codec/gzip.h"

/* One step of a compression: its own gzip member, so that memory stays small whatever the file is. */
#define STEP_BYTES (1 * MIB)
/* Better than the level of the wire: an archive is written once and kept. */
#define ARCHIVE_LEVEL 6
/* Files that one walk deletes for bytes_max; there are more walks when that is not enough. */
#define OLDEST_MAX 256
#define WALKS_MAX 64

enum keep_state { KEEP_IDLE, KEEP_POSTED, KEEP_DONE };

struct file_keep {
    _Atomic int state; /* enum keep_state: who owns job */
    atomic_bool is_stopping;
    struct file_job *job;
    sem_t wake;
    bool has_thread;
    pthread_t thread;
};

/* ---- compressing ---- */

static bool is_stopping(const struct file_keep *k)
{
    return atomic_load_explicit(&k->is_stopping, memory_order_relaxed);
}

bool file_keep_temp_name(const char *gz_name, char temp[256])
{
    return snprintf(temp, 256, ".%s.tmp", gz_name) < 256;
}

/* Copies len bytes of in to out, a member a step. */
static int copy_members(const struct file_keep *k, int in, int out, uint64_t len)
{
    struct gzip *g = NULL;
    struct buf packed;
    char *step = malloc(STEP_BYTES);
    buf_init(&packed, 2 * STEP_BYTES);
    int r = step == NULL ? -ENOMEM : gzip_new(ARCHIVE_LEVEL, &g);
    uint64_t off = 0;
    do { /* also an empty file gets a member */
        if (r == 0 && is_stopping(k))
            r = -ECANCELED;
        ssize_t n = r < 0 ? r : io_pread_full(in, step, (size_t)MIN((uint64_t)STEP_BYTES, len - off), off);
        if (n < 0 || (n == 0 && len > off))
            r = n < 0 ? (int)n : -EIO;
        buf_reset(&packed);
        if (r == 0)
            r = gzip_compress(g, slice_of(step, (size_t)n), SLICE(""), &packed);
        if (r == 0)
            r = io_write_full(out, packed.ptr, packed.len);
        if (r == 0)
            off += (uint64_t)n;
    } while (r == 0 && off < len);
    gzip_free(g);
    buf_deinit(&packed);
    free(step);
    return r;
}

/* in is the plain file, open; on success NAME.gz is whole, synced and under its name, and NAME is gone. */
static int replace_by_gz(const struct file_keep *k, struct file_job *job, const struct file_place *at, int in,
                         const struct stat *st)
{
    char temp[256];
    if (!file_keep_temp_name(job->gz_name, temp))
        return -ENAMETOOLONG;
    (void)unlinkat(at->dir_fd, temp, 0); /* of an attempt that was cut short */
    CLEANUP(fd_closep) int out = openat(at->dir_fd, temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, job->mode);
    if (out < 0)
        return -errno;
    int r = fchmod(out, job->mode) < 0 ? -errno : copy_members(k, in, out, job->bytes);
    /* Its age stays that of its last line: retention goes by it. */
    if (r == 0 && futimens(out, (const struct timespec[]){ st->st_mtim, st->st_mtim }) < 0)
        r = -errno;
    if (r == 0 && fsync(out) < 0)
        r = -errno;
    if (r == 0 && renameat2(at->dir_fd, temp, at->dir_fd, job->gz_name, RENAME_NOREPLACE) < 0)
        r = -errno;
    /* Some file systems know no flags; the owner has looked that the name is free. */
    if ((r == -EINVAL || r == -ENOSYS) && faccessat(at->dir_fd, job->gz_name, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
        r = renameat(at->dir_fd, temp, at->dir_fd, job->gz_name) < 0 ? -errno : 0;
    if (r == 0 && fsync(at->dir_fd) < 0)
        return -errno; /* NAME stays; at the next start both are there and NAME goes */
    if (r < 0) {
        (void)unlinkat(at->dir_fd, temp, 0); /* the error that counts is r */
        return r;
    }
    return unlinkat(at->dir_fd, at->name, 0) < 0 || fsync(at->dir_fd) < 0 ? -errno : 0;
}

static int compress_file(const struct file_keep *k, struct file_job *job)
{
    struct file_place at;
    int r = file_place_open(buf_slice(&job->path), job->base_len, 0, &at, &job->err);
    if (r < 0)
        return r;
    CLEANUP(fd_closep) int dir_fd = at.dir_fd;
    CLEANUP(fd_closep) int in = openat(dir_fd, at.name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    if (in < 0 || fstat(in, &st) < 0)
        return err_set(&job->err, -errno, "cannot open %s", at.name);
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != job->bytes)
        return err_say(&job->err, -ESTALE, "%s is not the file that was written", at.name);
    r = replace_by_gz(k, job, &at, in, &st);
    return r < 0 ? err_set(&job->err, r, "cannot compress %s", at.name) : 0;
}

/* ---- retention ---- */

struct old_file {
    char *path; /* malloc'd */
    int64_t mtime_ns;
    uint64_t bytes;
};

struct walk {
    const struct file_keep *k;
    struct file_job *job;
    struct buf globs[FILE_PATH_PARTS_MAX];
    struct buf path;          /* of the entry at hand */
    uint64_t bytes;           /* of all files that are ours */
    struct old_file *oldest;  /* OLDEST_MAX, by age, oldest first */
    size_t n_oldest;
};

static bool is_live(const struct file_job *job, struct slice path)
{
    struct slice rest = buf_slice(&job->live);
    while (rest.len > 0) {
        size_t len = strnlen(rest.ptr, rest.len);
        if (slice_eq(slice_first(rest, len), path))
            return true;
        rest = slice_from(rest, len + 1);
    }
    return false;
}

/* NAME, NAME.gz, NAME.1.gz … */
static bool is_our_name(const struct walk *w, struct slice name)
{
    const struct buf *glob = &w->globs[w->job->shape->n_parts - 1];
    if (slice_glob(buf_slice(glob), name))
        return true;
    if (!slice_ends(name, SLICE(".gz")))
        return false;
    name = slice_first(name, name.len - 3);
    if (slice_glob(buf_slice(glob), name))
        return true;
    ptrdiff_t dot = slice_rfind_byte(name, '.');
    uint64_t n;
    return dot > 0 && slice_to_u64(slice_from(name, (size_t)dot + 1), &n) &&
           slice_glob(buf_slice(glob), slice_first(name, (size_t)dot));
}

static void note_old(struct walk *w, int64_t mtime_ns, uint64_t bytes)
{
    if (w->oldest == NULL || mtime_ns > w->job->young_ns)
        return;
    size_t i = w->n_oldest;
    if (i == OLDEST_MAX && w->oldest[i - 1].mtime_ns <= mtime_ns)
        return;
    char *path = slice_dup(buf_slice(&w->path));
    if (path == NULL)
        return; /* the next walk finds it again */
    if (i == OLDEST_MAX)
        free(w->oldest[--i].path);
    else
        w->n_oldest++;
    for (; i > 0 && w->oldest[i - 1].mtime_ns > mtime_ns; i--)
        w->oldest[i] = w->oldest[i - 1];
    w->oldest[i] = (struct old_file){ path, mtime_ns, bytes };
}

static void visit_file(struct walk *w, int dir_fd, const char *name)
{
    struct stat st;
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode) ||
        !is_our_name(w, slice_cstr(name)))
        return;
    int64_t mtime_ns = (int64_t)st.st_mtim.tv_sec * NS_PER_SEC + st.st_mtim.tv_nsec;
    uint64_t bytes = (uint64_t)st.st_size;
    if (is_live(w->job, buf_slice(&w->path))) {
        w->bytes += bytes;
        return;
    }
    if (w->job->older_than_ns != 0 && mtime_ns < w->job->older_than_ns && unlinkat(dir_fd, name, 0) == 0) {
        w->job->n_deleted++;
        w->job->bytes_deleted += bytes;
        return;
    }
    w->bytes += bytes;
    note_old(w, mtime_ns, bytes);
}

static void walk_folder(struct walk *w, int dir_fd, size_t part);

static void visit_folder(struct walk *w, int dir_fd, const char *name, size_t part)
{
    if (!slice_glob(buf_slice(&w->globs[part]), slice_cstr(name)))
        return;
    int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return; /* a file, a link, or gone */
    uint64_t before = w->job->n_deleted;
    if (buf_append_byte(&w->path, '/') == 0)
        walk_folder(w, fd, part + 1);
    else
        (void)close(fd);
    if (w->job->n_deleted > before)
        (void)unlinkat(dir_fd, name, AT_REMOVEDIR); /* only when it is empty now */
}

/* Takes dir_fd. w->path is its path with the '/'. Depth is at most FILE_PATH_PARTS_MAX. */
static void walk_folder(struct walk *w, int dir_fd, size_t part)
{
    DIR *dir = fdopendir(dir_fd);
    if (dir == NULL) {
        (void)close(dir_fd);
        return;
    }
    size_t before = w->path.len;
    const struct dirent *e;
    while (!is_stopping(w->k) && (e = readdir(dir)) != NULL) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        w->path.len = before;
        if (buf_append_cstr(&w->path, e->d_name) < 0)
            continue;
        if (part + 1 == w->job->shape->n_parts)
            visit_file(w, dirfd(dir), e->d_name);
        else
            visit_folder(w, dirfd(dir), e->d_name, part);
    }
    w->path.len = before;
    (void)closedir(dir);
}

static int walk_all(struct walk *w)
{
    const struct file_shape *shape = w->job->shape;
    struct slice base = slice_first(shape->text, shape->base_len);
    w->bytes = 0;
    w->n_oldest = 0;
    buf_reset(&w->path);
    int r = buf_append_slice(&w->path, base);
    if (r == 0)
        r = buf_terminate(&w->path);
    if (r < 0)
        return r;
    int fd = open(w->path.ptr, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno; /* nothing was written yet */
    walk_folder(w, fd, 0);
    return 0;
}

/* Deletes what note_old found until the rest fits; true when something went. */
static bool delete_oldest(struct walk *w)
{
    bool has_deleted = false;
    for (size_t i = 0; i < w->n_oldest; i++) {
        struct old_file *f = &w->oldest[i];
        struct file_place at;
        if (w->bytes > w->job->bytes_max && !is_stopping(w->k) &&
            file_place_open(slice_cstr(f->path), w->job->shape->base_len, 0, &at, NULL) == 0) {
            if (unlinkat(at.dir_fd, at.name, 0) == 0) {
                w->bytes -= MIN(f->bytes, w->bytes);
                w->job->n_deleted++;
                w->job->bytes_deleted += f->bytes;
                has_deleted = true;
            }
            (void)close(at.dir_fd);
        }
        free(f->path);
    }
    w->n_oldest = 0;
    return has_deleted;
}

static int prepare_walk(struct walk *w)
{
    buf_init(&w->path, PATH_MAX);
    for (size_t i = 0; i < w->job->shape->n_parts; i++) {
        buf_init(&w->globs[i], 64 * KIB);
        int r = file_shape_glob(w->job->shape, i, &w->globs[i]);
        if (r < 0)
            return r;
    }
    if (w->job->bytes_max > 0) {
        w->oldest = calloc(OLDEST_MAX, sizeof(*w->oldest));
        if (w->oldest == NULL)
            return -ENOMEM;
    }
    return 0;
}

static int retain_files(const struct file_keep *k, struct file_job *job)
{
    struct walk w = { .k = k, .job = job };
    int r = prepare_walk(&w);
    bool again = true;
    for (int i = 0; r == 0 && again && i < WALKS_MAX; i++) {
        r = walk_all(&w);
        bool is_over = r == 0 && job->bytes_max > 0 && w.bytes > job->bytes_max;
        again = delete_oldest(&w) && is_over && w.bytes > job->bytes_max;
    }
    for (size_t i = 0; i < job->shape->n_parts; i++)
        buf_deinit(&w.globs[i]);
    buf_deinit(&w.path);
    free(w.oldest);
    return r < 0 ? err_set(&job->err, r, "cannot delete old files") : 0;
}

/* ---- the thread ---- */

void file_job_deinit(struct file_job *job)
{
    buf_deinit(&job->path);
    buf_deinit(&job->live);
}

static void *keep_main(void *arg)
{
    struct file_keep *k = arg;
    for (;;) {
        while (sem_wait(&k->wake) < 0 && errno == EINTR)
            ;
        if (is_stopping(k))
            return NULL;
        struct file_job *job = k->job;
        job->result = job->kind == FILE_JOB_COMPRESS ? compress_file(k, job) : retain_files(k, job);
        atomic_store_explicit(&k->state, KEEP_DONE, memory_order_release);
    }
}

int file_keep_new(struct file_keep **ret_keep)
{
    struct file_keep *k = calloc(1, sizeof(*k));
    if (k == NULL)
        return -ENOMEM;
    if (sem_init(&k->wake, 0, 0) < 0) {
        free(k);
        return -errno;
    }
    *ret_keep = k;
    return 0;
}

void file_keep_free(struct file_keep *k)
{
    if (k == NULL)
        return;
    if (k->has_thread) {
        atomic_store_explicit(&k->is_stopping, true, memory_order_relaxed);
        (void)sem_post(&k->wake);
        (void)pthread_join(k->thread, NULL);
    }
    (void)sem_destroy(&k->wake);
    free(k);
}

bool file_keep_is_idle(const struct file_keep *k)
{
    return atomic_load_explicit(&((struct file_keep *)(uintptr_t)k)->state, memory_order_acquire) == KEEP_IDLE;
}

/* Signals are the main thread's. */
static int start_thread(struct file_keep *k)
{
    sigset_t all, old;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&k->thread, NULL, keep_main, k);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    k->has_thread = r == 0;
    return -r;
}

int file_keep_post(struct file_keep *k, struct file_job *job)
{
    assert(file_keep_is_idle(k));
    int r = k->has_thread ? 0 : start_thread(k);
    if (r < 0)
        return r;
    k->job = job;
    atomic_store_explicit(&k->state, KEEP_POSTED, memory_order_release);
    return sem_post(&k->wake) < 0 ? -errno : 0;
}

struct file_job *file_keep_take(struct file_keep *k)
{
    if (atomic_load_explicit(&k->state, memory_order_acquire) != KEEP_DONE)
        return NULL;
    struct file_job *job = k->job;
    k->job = NULL;
    atomic_store_explicit(&k->state, KEEP_IDLE, memory_order_release);
    return job;
}
