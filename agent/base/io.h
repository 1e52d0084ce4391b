/*
 * io.h - descriptors: whole reads and writes, small files, cleanup.
 */
#ifndef TAILRACE_BASE_IO_H
#define TAILRACE_BASE_IO_H

#include <sys/types.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"

void fd_close(int *fd);                         /* closes when >= 0 and sets -1 */
static inline void fd_closep(int *fd)           /* for CLEANUP(fd_closep) */
{
    fd_close(fd);
}

NODISCARD int io_write_full(int fd, const void *ptr, size_t len);              /* EINTR, short writes */
NODISCARD int io_pwrite_full(int fd, const void *ptr, size_t len, uint64_t off);
/* Reads until len or the end of file; the count. */
NODISCARD ssize_t io_pread_full(int fd, void *ptr, size_t len, uint64_t off);
/* The whole of a small file, at most b's max. */
NODISCARD int io_read_file(int dir_fd, const char *path, struct buf *b, struct err *err);
/* Writes beside it, syncs, renames, syncs the directory. */
NODISCARD int io_replace_file(int dir_fd, const char *name, struct slice content, mode_t mode, struct err *err);
NODISCARD int io_mkdirs(const char *path, mode_t mode, struct err *err);

#endif
