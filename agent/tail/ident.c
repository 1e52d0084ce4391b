#include "agent/tail/ident.h"

#include <errno.h>
#include <libdeflate.h>
#include <stdlib.h>

#include "agent/base/clock.h"
#include "agent/queue/fs.h"

ssize_t source_pread(const struct source *s, void *ptr, size_t len, uint64_t off)
{
    return s->gz != NULL ? gz_pread(s->gz, ptr, len, off) : fs_pread_full(s->fd, ptr, len, off);
}

ssize_t source_pread_some(const struct source *s, void *ptr, size_t len, uint64_t off)
{
    return s->gz != NULL ? gz_pread(s->gz, ptr, len, off) : fs_current()->pread(s->fd, ptr, len, off);
}

int source_crc_on(const struct source *s, uint64_t from, uint64_t len, uint32_t *crc)
{
    uint8_t raw[32 * KIB];
    for (uint64_t off = from; off < len;) {
        ssize_t n = source_pread(s, raw, (size_t)MIN(len - off, sizeof(raw)), off);
        if (n <= 0)
            return n < 0 ? (int)n : -ENODATA;
        *crc = crc_update(*crc, raw, (size_t)n);
        off += (uint64_t)n;
    }
    return 0;
}

int source_crc(const struct source *s, uint64_t len, uint32_t *ret_crc)
{
    uint32_t crc = 0;
    int r = source_crc_on(s, 0, len, &crc);
    if (r == 0)
        *ret_crc = crc;
    return r;
}

uint32_t crc_update(uint32_t crc, const void *ptr, size_t len)
{
    return libdeflate_crc32(crc, ptr, len);
}

int64_t timespec_ns(struct timespec ts)
{
    return (int64_t)ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

void ident_of_fd(int fd, const struct stat *st, struct file_ident *id)
{
    id->dev = st->st_dev;
    id->ino = st->st_ino;
    struct fs_birth birth;
    fs_current()->birth(fd, &birth);
    id->generation = birth.generation;
    id->btime_ns = birth.btime_ns;
}

bool ident_same_inode(const struct file_ident *a, const struct file_ident *b)
{
    if (a->ino != b->ino || a->generation != b->generation)
        return false;
    return a->btime_ns == 0 || b->btime_ns == 0 || a->btime_ns == b->btime_ns;
}

int64_t ident_seen_now(int64_t *last)
{
    int64_t now = clock_wall_ns();
    now -= now % SEEN_BESIDE_NS;
    if (now < *last + 2 * SEEN_BESIDE_NS && *last - now < NS_PER_SEC) /* else it was put back */
        now = *last + 2 * SEEN_BESIDE_NS;
    *last = now;
    return now;
}

bool ident_is_dated(const struct file_ident *id)
{
    return id->first_seen_ns % SEEN_BESIDE_NS != 0;
}

bool ident_is_beside(const struct file_ident *a, const struct file_ident *b)
{
    return llabs(a->first_seen_ns - b->first_seen_ns) <= SEEN_BESIDE_NS;
}

uint64_t ident_incarnation(uint64_t salt)
{
    uint64_t v = 0;
    if (fs_current()->random(&v, sizeof(v)) < 0) {
        static uint64_t n; /* reader thread only */
        v = ((uint64_t)clock_wall_ns() << 8) + ++n;
    }
    v ^= salt;
    return v != 0 ? v : 1;
}
