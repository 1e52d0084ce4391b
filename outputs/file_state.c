#include "outputs/file_state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/io.h"

#define ROOM_MIN (16 * KIB) /* of both files: some entries more need none */
#define MODE 0640

void file_state_init(struct file_state *st, int dir_fd)
{
    *st = (struct file_state){ .dir_fd = dir_fd, .fd = -1 };
}

void file_state_deinit(struct file_state *st)
{
    fd_close(&st->fd);
}

static int write_zeros(int fd, uint64_t from, uint64_t to)
{
    static const char zeros[4 * KIB];
    int r = 0;
    for (uint64_t off = from; r == 0 && off < to; off += sizeof(zeros))
        r = io_pwrite_full(fd, zeros, (size_t)MIN(to - off, sizeof(zeros)), off);
    return r;
}

/* At least len bytes that are the file's own; as much again when there is space, for the records to come. */
static int make_room(int fd, uint64_t *size, uint64_t len)
{
    const uint64_t wants = MAX((uint64_t)ROOM_MIN, 2 * len);
    if (*size >= len)
        return 0;
    int r = write_zeros(fd, *size, wants);
    if (r < 0)
        r = write_zeros(fd, *size, len);
    *size = r == 0 ? MAX(*size, len) : *size;
    return r;
}

static int write_spare(int fd, struct slice content)
{
    struct stat s;
    if (fstat(fd, &s) < 0)
        return -errno;
    uint64_t size = (uint64_t)s.st_size;
    int r = make_room(fd, &size, content.len);
    if (r == 0)
        r = io_pwrite_full(fd, content.ptr, content.len, 0);
    if (r == 0) /* no record of before may follow */
        r = write_zeros(fd, content.len, size);
    return r == 0 && fdatasync(fd) < 0 ? -errno : r;
}

/* The first time there is nothing to change names with; and not every filesystem can. */
static int change_names(const struct file_state *st)
{
    if (renameat2(st->dir_fd, FILE_STATE_SPARE, st->dir_fd, FILE_STATE_NAME, RENAME_EXCHANGE) == 0)
        return 0;
    if (errno != ENOENT && errno != EINVAL && errno != ENOSYS)
        return -errno;
    return renameat(st->dir_fd, FILE_STATE_SPARE, st->dir_fd, FILE_STATE_NAME) < 0 ? -errno : 0;
}

/* While there is space: the next snapshot may find none. Not having one is no error before that. */
static void prepare_spare(struct file_state *st, uint64_t len)
{
    struct stat s;
    int fd = openat(st->dir_fd, FILE_STATE_SPARE, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, MODE);
    if (fd >= 0 && fstat(fd, &s) == 0 && (uint64_t)s.st_size < len) {
        uint64_t size = (uint64_t)s.st_size;
        (void)make_room(fd, &size, len);
    }
    fd_close(&fd);
}

int file_state_replace(struct file_state *st, struct slice content, struct err *err)
{
    int fd = openat(st->dir_fd, FILE_STATE_SPARE, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, MODE);
    if (fd < 0)
        return err_set(err, -errno, "cannot open " FILE_STATE_SPARE);
    int r = write_spare(fd, content);
    if (r == 0)
        r = change_names(st);
    if (r == 0 && fsync(st->dir_fd) < 0) {
        r = -errno;
        /* What is the spare by name may be the journal by what is on disk: it is not to be written over. */
        (void)unlinkat(st->dir_fd, FILE_STATE_SPARE, 0);
    }
    if (r < 0) {
        fd_close(&fd);
        return err_set(err, r, "cannot write " FILE_STATE_NAME);
    }
    fd_close(&st->fd);
    st->fd = fd;
    st->end = content.len;
    prepare_spare(st, 2 * content.len);
    return 0;
}

int file_state_append(struct file_state *st, struct slice record, bool *ret_is_torn, struct err *err)
{
    int r = st->fd < 0 ? -EBADF : io_pwrite_full(st->fd, record.ptr, record.len, st->end);
    if (r == 0 && fdatasync(st->fd) < 0)
        r = -errno;
    *ret_is_torn = r < 0 && st->fd >= 0 && write_zeros(st->fd, st->end, st->end + record.len) < 0;
    if (r < 0)
        return err_set(err, r, "cannot write " FILE_STATE_NAME);
    st->end += record.len;
    return 0;
}
