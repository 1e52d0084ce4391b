/*
 * fs.h - the only door to the disk for the queue, the positions and the tailer. On the real disk each call is the
 * system call of its name; under test `fs_set_ops` puts a model disk in its place (tests/sim/disk.h). inotify has a
 * door of its own, agent/tail/watch.h; time is agent/base/clock.h.
 *
 * Errors: negative errno. EINTR is retried here; short reads and writes are returned as they are.
 *
 * Looking again. A call that only looks (open of what is there, fstat, pread) may fail for a reason that says nothing of
 * the file. fs_pread_full and queue_open_file make it again, FS_TRIES times in all, within 50 ms. What still fails then is
 * the disk's last word, or *passing*: nobody may judge by it, the whole step is to be made again later.
 */
#ifndef TAILRACE_QUEUE_FS_H
#define TAILRACE_QUEUE_FS_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "agent/base/macros.h"

struct fs_space {
    uint64_t free_bytes, total_bytes;
    uint32_t type; /* magic number of the filesystem, see statfs(2) */
};

/* What tells two lives of one inode number apart; 0 where the filesystem does not say. */
struct fs_birth {
    uint64_t generation;
    int64_t btime_ns;
};

struct fs_ops {
    int (*open)(int dir_fd, const char *name, int flags, mode_t mode); /* O_CLOEXEC is added */
    int (*close)(int fd);
    ssize_t (*pread)(int fd, void *ptr, size_t len, uint64_t off);
    ssize_t (*preadv)(int fd, const struct iovec *iov, int n, uint64_t off); /* NULL: one pread for each part */
    ssize_t (*pwritev)(int fd, const struct iovec *iov, int n, uint64_t off);
    int (*fdatasync)(int fd);
    int (*sync_dir)(int dir_fd);
    int (*truncate)(int fd, uint64_t len);
    int (*reserve)(int fd, uint64_t len); /* fallocate KEEP_SIZE; -EOPNOTSUPP is fine */
    int (*rename)(int dir_fd, const char *from, int to_dir_fd, const char *to);
    int (*unlink)(int dir_fd, const char *name);
    int (*mkdir)(int dir_fd, const char *name, mode_t mode);
    int (*fstat)(int fd, struct stat *st);
    int (*stat)(int dir_fd, const char *name, struct stat *st, bool follow);
    int (*list)(int dir_fd, void (*each)(void *ctx, const char *name), void *ctx); /* without . and .. */
    int (*space)(int fd, struct fs_space *ret);
    int (*lock)(int fd); /* flock LOCK_EX|LOCK_NB */
    int (*realpath)(const char *path, char ret[PATH_MAX]);
    void (*birth)(int fd, struct fs_birth *ret);
    int (*random)(void *ptr, size_t len); /* len <= 256; with the disk, so that a run under test repeats */
};

extern const struct fs_ops fs_real;
const struct fs_ops *fs_current(void);
void fs_set_ops(const struct fs_ops *ops); /* NULL: the real disk */

#define FS_TRIES 4
/* There is no room, for anybody or for this user. */
bool fs_is_full(ssize_t r);
/* Nothing of it is the disk's: memory, descriptors, signals. */
bool fs_is_passing(ssize_t r);
/* r failed, and is worth another call, after a pause if need be. *tries starts at 0. */
bool fs_tries_again(ssize_t r, unsigned *tries);

/* For CLEANUP(fs_closep): closes when >= 0. */
void fs_closep(const int *fd);
/* In terms of the above: whole writes, small reads. */
NODISCARD int fs_pwrite_full(int fd, const void *ptr, size_t len, uint64_t off);
NODISCARD ssize_t fs_pread_full(int fd, void *ptr, size_t len, uint64_t off); /* less only at the end of file */
NODISCARD ssize_t fs_preadv_full(int fd, const struct iovec *iov, int n, uint64_t off); /* the same */
/* Bytes that may be in the page cache alone: of a process that died, or whose sync failed, after which the pages are clean and
 * the next sync says 0 while the platter has nothing of them. Pages that are written again are dirty again; whatever a crash
 * makes of that, the bytes are the same. A disk without room for that (one that never overwrites) is trusted. */
NODISCARD int fs_make_durable(int fd, uint64_t off, uint64_t end);

#endif
