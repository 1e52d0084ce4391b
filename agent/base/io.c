#include "agent/base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

void fd_close(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd); /* nothing was promised that a failed close could break: what must last was synced */
    *fd = -1;
}

int io_write_full(int fd, const void *ptr, size_t len)
{
    const char *p = ptr;
    while (len > 0) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

int io_pwrite_full(int fd, const void *ptr, size_t len, uint64_t off)
{
    const char *p = ptr;
    while (len > 0) {
        ssize_t n = pwrite(fd, p, len, (off_t)off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        p += n;
        len -= (size_t)n;
        off += (uint64_t)n;
    }
    return 0;
}

ssize_t io_pread_full(int fd, void *ptr, size_t len, uint64_t off)
{
    char *p = ptr;
    size_t done = 0;
    while (done < len) {
        ssize_t n = pread(fd, p + done, len - done, (off_t)(off + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

static int read_all(int fd, struct buf *b)
{
    for (;;) {
        size_t room = MIN(b->max - b->len, 4 * KIB);
        if (room == 0) { /* full: fine only at the end of the file */
            char one;
            ssize_t n = read(fd, &one, 1);
            return n < 0 ? -errno : n == 0 ? 0 : -EFBIG;
        }
        int r = buf_reserve(b, room);
        if (r < 0)
            return r;
        ssize_t n = read(fd, b->ptr + b->len, room);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return 0;
        b->len += (size_t)n;
    }
}

int io_read_file(int dir_fd, const char *path, struct buf *b, struct err *err)
{
    /* NONBLOCK: the path comes from a person and may be a FIFO. */
    CLEANUP(fd_closep) int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_set(err, -errno, "cannot open %s", path);
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_set(err, -errno, "cannot look at %s", path);
    if (!S_ISREG(st.st_mode))
        return err_say(err, -EINVAL, "%s is not a regular file", path);
    int r = read_all(fd, b);
    return r < 0 ? err_set(err, r, "cannot read %s", path) : 0;
}

int io_replace_file(int dir_fd, const char *name, struct slice content, mode_t mode, struct err *err)
{
    char tmp[NAME_MAX + 1];
    if (snprintf(tmp, sizeof(tmp), ".%s.tmp", name) >= (int)sizeof(tmp))
        return err_set(err, -ENAMETOOLONG, "cannot replace %s", name);
    CLEANUP(fd_closep) int fd = openat(dir_fd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return err_set(err, -errno, "cannot create %s", tmp);
    int r = io_write_full(fd, content.ptr, content.len);
    if (r == 0 && fdatasync(fd) < 0)
        r = -errno;
    if (r == 0 && renameat(dir_fd, tmp, dir_fd, name) < 0)
        r = -errno;
    if (r == 0 && fsync(dir_fd) < 0)
        r = -errno;
    if (r < 0) {
        (void)unlinkat(dir_fd, tmp, 0); /* the error that counts is r */
        return err_set(err, r, "cannot write %s", name);
    }
    return 0;
}

int io_mkdirs(const char *path, mode_t mode, struct err *err)
{
    char part[PATH_MAX];
    size_t len = strlen(path);
    if (len == 0 || len >= sizeof(part))
        return err_set(err, -ENAMETOOLONG, "cannot create folder '%s'", path);
    for (size_t i = 1; i <= len; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, mode) < 0 && errno != EEXIST)
            return err_set(err, -errno, "cannot create folder %s", part);
    }
    return 0;
}
