#include "agent/tail/gz.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>

#include "agent/base/bytes.h"
#include "agent/queue/fs.h"

#define IN_BYTES (32 * KIB)
#define GZ_BYTES_MIN 18 /* header and trailer */
#define TRAILER_BYTES 8
#define WINDOW_GZIP (15 + 16) /* gzip header and trailer, checked by zlib */

struct gz {
    int fd;
    z_stream z;
    uint64_t in_off;  /* of the next compressed byte to read */
    uint64_t out_off; /* of the next byte of the text */
    bool is_in_member;
    uint8_t in[IN_BYTES];
};

int gz_open(int fd, struct gz **ret_gz)
{
    struct gz *gz = calloc(1, sizeof(*gz));
    if (gz == NULL)
        return -ENOMEM;
    gz->fd = fd;
    if (inflateInit2(&gz->z, WINDOW_GZIP) != Z_OK) {
        free(gz);
        return -ENOMEM;
    }
    *ret_gz = gz;
    return 0;
}

void gz_close(struct gz *gz)
{
    if (gz == NULL)
        return;
    (void)inflateEnd(&gz->z); /* only frees */
    free(gz);
}

bool gz_is_whole(const struct gz *gz)
{
    return !gz->is_in_member && gz->in_off > 0;
}

static int rewind_text(struct gz *gz)
{
    if (inflateReset(&gz->z) != Z_OK)
        return -EBADMSG;
    gz->z.avail_in = 0;
    gz->in_off = gz->out_off = 0;
    gz->is_in_member = false;
    return 0;
}

/* Compressed bytes into the empty buffer: their number, 0 at the end of file. */
static ssize_t refill(struct gz *gz)
{
    ssize_t n = fs_current()->pread(gz->fd, gz->in, sizeof(gz->in), gz->in_off);
    if (n <= 0)
        return n;
    gz->z.next_in = gz->in;
    gz->z.avail_in = (uInt)n;
    gz->in_off += (uint64_t)n;
    return n;
}

/* One step of inflate; -EBADMSG when the bytes are no gzip. */
static int step(struct gz *gz)
{
    gz->is_in_member = true;
    int r = inflate(&gz->z, Z_NO_FLUSH);
    if (r == Z_STREAM_END) {
        gz->is_in_member = false;
        return inflateReset(&gz->z) == Z_OK ? 0 : -EBADMSG; /* another member may follow */
    }
    if (r == Z_MEM_ERROR)
        return -ENOMEM;
    return r == Z_OK || r == Z_BUF_ERROR ? 0 : -EBADMSG;
}

/* The next len bytes of the text, fewer at the end only. */
static ssize_t read_on(struct gz *gz, void *ptr, size_t len)
{
    assert(len <= UINT32_MAX);
    gz->z.next_out = ptr;
    gz->z.avail_out = (uInt)len;
    while (gz->z.avail_out > 0) {
        if (gz->z.avail_in == 0) {
            ssize_t n = refill(gz);
            if (n < 0)
                return n;
            if (n == 0)
                break;
        }
        if (!gz->is_in_member && gz->out_off + (len - gz->z.avail_out) > 0 && gz->z.next_in[0] == 0)
            break; /* zeros behind the last member: padding of tapes and block devices */
        int r = step(gz);
        if (r < 0)
            return r;
    }
    size_t got = len - gz->z.avail_out;
    gz->out_off += got;
    return (ssize_t)got;
}

ssize_t gz_pread(struct gz *gz, void *ptr, size_t len, uint64_t off)
{
    if (off < gz->out_off) {
        int r = rewind_text(gz);
        if (r < 0)
            return r;
    }
    while (gz->out_off < off) {
        uint8_t skipped[4096];
        ssize_t n = read_on(gz, skipped, (size_t)MIN(off - gz->out_off, sizeof(skipped)));
        if (n <= 0)
            return n;
    }
    return read_on(gz, ptr, len);
}

int gz_trailer(int fd, uint64_t size, uint32_t *ret_crc, uint32_t *ret_len)
{
    uint8_t raw[TRAILER_BYTES];
    if (size < GZ_BYTES_MIN)
        return -EBADMSG;
    ssize_t n = fs_pread_full(fd, raw, sizeof(raw), size - sizeof(raw));
    if (n != (ssize_t)sizeof(raw))
        return n < 0 ? (int)n : -EBADMSG;
    *ret_crc = get_le32(raw);
    *ret_len = get_le32(raw + 4);
    return 0;
}
