/*
 * ident.h - who a file is: device, inode, generation, birth time; and CRCs of what is in it.
 */
#ifndef TAILRACE_TAIL_IDENT_H
#define TAILRACE_TAIL_IDENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "agent/base/position.h"
#include "agent/tail/gz.h"

/* A file's text: plain, or what a .gz holds. Borrowed descriptor. */
struct source {
    int fd;
    struct gz *gz; /* NULL: plain */
};

/* Fewer bytes than asked for: the text ends there. A plain file that is read to its end costs one call more. */
NODISCARD ssize_t source_pread(const struct source *s, void *ptr, size_t len, uint64_t off);
/* The same in one call, that may come short anywhere. */
NODISCARD ssize_t source_pread_some(const struct source *s, void *ptr, size_t len, uint64_t off);
/* CRC-32 of [0, len). -ENODATA when the text is shorter. */
NODISCARD int source_crc(const struct source *s, uint64_t len, uint32_t *ret_crc);

/* Goes on with *crc, which is that of [0, from), to len. */
NODISCARD int source_crc_on(const struct source *s, uint64_t from, uint64_t len, uint32_t *crc);

/* dev, ino, generation and btime of an open file; the rest of *id is left alone. */
void ident_of_fd(int fd, const struct stat *st, struct file_ident *id);
/* Are they the same inode in the same life? The device number is a hint that changes over a reboot: not
 * compared. */
bool ident_same_inode(const struct file_ident *a, const struct file_ident *b);
/* Random, never 0. */
uint64_t ident_incarnation(uint64_t salt);

/*
 * When a file is first seen: by the clock these are whole microseconds, and no two files that one tail sees, one after the other, have
 * less than two between them, however coarse the clock is. A file that is found when one that came after it is known already is dated
 * beside another, some nanoseconds before or after that: it is told late. Another life of a file is one microsecond younger.
 */
#define SEEN_BESIDE_NS 1000
int64_t ident_seen_now(int64_t *last); /* last: what was returned before, 0 at first */
bool ident_is_dated(const struct file_ident *id);
bool ident_is_beside(const struct file_ident *a, const struct file_ident *b);

uint32_t crc_update(uint32_t crc, const void *ptr, size_t len);
int64_t timespec_ns(struct timespec ts);

#endif
