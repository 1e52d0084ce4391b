#include "agent/queue/fs.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define AGAIN_BYTES (256 * KIB)
#define SYNC_TRIES 3

static int real_open(int dir_fd, const char *name, int flags, mode_t mode)
{
    int fd;
    do
        fd = openat(dir_fd, name, flags | O_CLOEXEC, mode);
    while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

/* On Linux the descriptor is gone even when close says EINTR: never again. */
static int real_close(int fd)
{
    return close(fd) < 0 && errno != EINTR ? -errno : 0;
}

static ssize_t real_pread(int fd, void *ptr, size_t len, uint64_t off)
{
    ssize_t n;
    do
        n = pread(fd, ptr, len, (off_t)off);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static ssize_t real_preadv(int fd, const struct iovec *iov, int n, uint64_t off)
{
    ssize_t done;
    do
        done = preadv(fd, iov, n, (off_t)off);
    while (done < 0 && errno == EINTR);
    return done < 0 ? -errno : done;
}

static ssize_t real_pwritev(int fd, const struct iovec *iov, int n, uint64_t off)
{
    ssize_t done;
    do
        done = pwritev(fd, iov, n, (off_t)off);
    while (done < 0 && errno == EINTR);
    return done < 0 ? -errno : done;
}

/* EINTR is not retried blindly elsewhere, but for fdatasync it means that nothing was decided yet. */
static int real_fdatasync(int fd)
{
    int r;
    do
        r = fdatasync(fd);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

static int real_sync_dir(int dir_fd)
{
    int r;
    do
        r = fsync(dir_fd);
    while (r < 0 && errno == EINTR);
    /* Some filesystems have no fsync on directories and need none. */
    return r < 0 && errno != EINVAL ? -errno : 0;
}

static int real_truncate(int fd, uint64_t len)
{
    int r;
    do
        r = ftruncate(fd, (off_t)len);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

static int real_reserve(int fd, uint64_t len)
{
    int r;
    do
        r = fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)len);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

static int real_rename(int dir_fd, const char *from, int to_dir_fd, const char *to)
{
    return renameat(dir_fd, from, to_dir_fd, to) < 0 ? -errno : 0;
}

static int real_unlink(int dir_fd, const char *name)
{
    return unlinkat(dir_fd, name, 0) < 0 ? -errno : 0;
}

static int real_mkdir(int dir_fd, const char *name, mode_t mode)
{
    return mkdirat(dir_fd, name, mode) < 0 ? -errno : 0;
}

static int real_fstat(int fd, struct stat *st)
{
    return fstat(fd, st) < 0 ? -errno : 0;
}

static int real_stat(int dir_fd, const char *name, struct stat *st, bool follow)
{
    return fstatat(dir_fd, name, st, follow ? 0 : AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static bool is_dot(const char *name)
{
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

/* Through a descriptor of its own: the caller's has one shared read position. */
static int real_list(int dir_fd, void (*each)(void *ctx, const char *name), void *ctx)
{
    int fd = real_open(dir_fd, ".", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        int r = -errno;
        (void)real_close(fd);
        return r;
    }

    int r = 0;
    for (;;) {
        errno = 0;
        const struct dirent *e = readdir(dir);
        if (e == NULL) {
            r = -errno;
            break;
        }
        if (!is_dot(e->d_name))
            each(ctx, e->d_name);
    }
    (void)closedir(dir);
    return r;
}

static int real_space(int fd, struct fs_space *ret)
{
    struct statfs vfs;
    int r;
    do
        r = fstatfs(fd, &vfs);
    while (r < 0 && errno == EINTR);
    if (r < 0)
        return -errno;
    uint64_t block = (uint64_t)(vfs.f_frsize > 0 ? vfs.f_frsize : vfs.f_bsize);
    ret->free_bytes = (uint64_t)vfs.f_bavail * block;
    ret->total_bytes = (uint64_t)vfs.f_blocks * block;
    ret->type = (uint32_t)vfs.f_type;
    return 0;
}

static int real_lock(int fd)
{
    int r;
    do
        r = flock(fd, LOCK_EX | LOCK_NB);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

static int real_realpath(const char *path, char ret[PATH_MAX])
{
    return realpath(path, ret) == NULL ? -errno : 0;
}

static void real_birth(int fd, struct fs_birth *ret)
{
    /* The kernel writes 32 bits, whatever its header says. */
    unsigned long generation = 0;
    struct statx sx;
    *ret = (struct fs_birth){ 0 };
    if (ioctl(fd, FS_IOC_GETVERSION, &generation) == 0)
        ret->generation = (uint32_t)generation;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &sx) == 0 && (sx.stx_mask & STATX_BTIME))
        ret->btime_ns = (int64_t)sx.stx_btime.tv_sec * NS_PER_SEC + sx.stx_btime.tv_nsec;
}

static int real_random(void *ptr, size_t len)
{
    assert(len <= 256); /* getrandom() is whole up to here */
    return getrandom(ptr, len, 0) == (ssize_t)len ? 0 : -ENOSYS;
}

const struct fs_ops fs_real = {
    .open = real_open,
    .close = real_close,
    .pread = real_pread,
    .preadv = real_preadv,
    .pwritev = real_pwritev,
    .fdatasync = real_fdatasync,
    .sync_dir = real_sync_dir,
    .truncate = real_truncate,
    .reserve = real_reserve,
    .rename = real_rename,
    .unlink = real_unlink,
    .mkdir = real_mkdir,
    .fstat = real_fstat,
    .stat = real_stat,
    .list = real_list,
    .space = real_space,
    .lock = real_lock,
    .realpath = real_realpath,
    .birth = real_birth,
    .random = real_random,
};

/* Set by tests before threads start. */
static const struct fs_ops *current = &fs_real;

const struct fs_ops *fs_current(void)
{
    return current;
}

void fs_set_ops(const struct fs_ops *ops)
{
    current = ops == NULL ? &fs_real : ops;
}

void fs_closep(const int *fd)
{
    if (*fd >= 0)
        (void)current->close(*fd); /* for descriptors that were only read from */
}

int fs_pwrite_full(int fd, const void *ptr, size_t len, uint64_t off)
{
    const char *p = ptr;
    while (len > 0) {
        struct iovec iov = { .iov_base = (void *)(uintptr_t)p, .iov_len = len };
        ssize_t n = current->pwritev(fd, &iov, 1, off);
        if (n < 0)
            return (int)n;
        if (n == 0)
            return -EIO;
        assert((size_t)n <= len);
        p += n;
        len -= (size_t)n;
        off += (uint64_t)n;
    }
    return 0;
}

static int write_again(int fd, uint64_t off, uint64_t end)
{
    uint8_t *raw = malloc(AGAIN_BYTES);
    int r = raw == NULL ? -ENOMEM : 0;
    while (r == 0 && off < end) {
        ssize_t n = fs_pread_full(fd, raw, (size_t)MIN(end - off, (uint64_t)AGAIN_BYTES), off);
        r = n <= 0 ? (n < 0 ? (int)n : -EIO) : fs_pwrite_full(fd, raw, (size_t)n, off);
        off += (uint64_t)MAX(n, (ssize_t)0);
    }
    free(raw);
    return r;
}

int fs_make_durable(int fd, uint64_t off, uint64_t end)
{
    int r = 0;
    for (int tries = 0; tries < SYNC_TRIES; tries++) {
        r = write_again(fd, off, end);
        if (r < 0 && !fs_is_full(r))
            continue;
        r = current->fdatasync(fd);
        if (r == 0)
            return 0;
    }
    return r;
}

bool fs_is_full(ssize_t r)
{
    return r == -ENOSPC || r == -EDQUOT;
}

bool fs_is_passing(ssize_t r)
{
    return r == -ENOMEM || r == -EAGAIN || r == -EINTR || r == -EMFILE || r == -ENFILE;
}

/* EIO too: a disk that lost its cable for a moment. It has waited in the kernel already; a model disk has no time. */
bool fs_tries_again(ssize_t r, unsigned *tries)
{
    if ((r != -EIO && !fs_is_passing(r)) || ++*tries >= FS_TRIES)
        return false;
    if (r != -EIO && *tries > 1 && current == &fs_real)
        (void)nanosleep(&(struct timespec){ .tv_nsec = 20 * NS_PER_MS }, NULL);
    return true;
}

ssize_t fs_pread_full(int fd, void *ptr, size_t len, uint64_t off)
{
    char *p = ptr;
    size_t done = 0;
    unsigned tries = 0;
    while (done < len) {
        ssize_t n = current->pread(fd, p + done, len - done, off + done);
        if (fs_tries_again(n, &tries))
            continue;
        if (n < 0)
            return n;
        if (n == 0)
            break;
        assert((size_t)n <= len - done);
        done += (size_t)n;
    }
    return (ssize_t)done;
}

/* What the first call left out, part by part. */
ssize_t fs_preadv_full(int fd, const struct iovec *iov, int n, uint64_t off)
{
    unsigned tries = 0;
    ssize_t got;
    do
        got = current->preadv == NULL ? 0 : current->preadv(fd, iov, n, off);
    while (fs_tries_again(got, &tries));
    if (got < 0)
        return got;
    size_t done = (size_t)got, at = 0;
    for (int i = 0; i < n; at += iov[i++].iov_len) {
        size_t has = MIN(done - at, iov[i].iov_len);
        if (has == iov[i].iov_len)
            continue;
        size_t wants = iov[i].iov_len - has;
        got = fs_pread_full(fd, (char *)iov[i].iov_base + has, wants, off + done);
        if (got < 0)
            return got;
        done += (size_t)got;
        if ((size_t)got < wants)
            break;
    }
    return (ssize_t)done;
}
