#include "outputs/codec/gzip.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include <libdeflate.h>
#include <zlib.h>

#include "agent/base/bytes.h"

/*
 * A member (RFC 1952):
 *
 *   off  size  field
 *     0     2  1f 8b
 *     2     1  08 (deflate)
 *     3     1  flags: 0 or FEXTRA
 *     4     4  time, always 0
 *     8     1  extra flags, always 0
 *     9     1  system, always 255 (unknown)
 *    10     2  length of the extra field, only with FEXTRA; then its bytes
 *     .     .  deflate stream
 *    -8     4  crc32 of the content
 *    -4     4  length of the content, modulo 2^32
 */
enum { GZIP_HEAD_BYTES = 10, GZIP_TAIL_BYTES = 8, GZIP_FEXTRA = 0x04 };

/* What one round of inflate may add; keeps the growth of out near its content. */
#define INFLATE_STEP (64 * KIB)

struct gzip {
    int level;
    struct libdeflate_compressor *compressor; /* 200 KiB: made when it is first needed */
};

int gzip_new(int level, struct gzip **ret_gzip)
{
    assert(level >= 1 && level <= 12);
    struct gzip *g = calloc(1, sizeof(*g));
    if (g == NULL)
        return -ENOMEM;
    g->level = level;
    *ret_gzip = g;
    return 0;
}

void gzip_rest(struct gzip *g)
{
    if (g->compressor != NULL)
        libdeflate_free_compressor(g->compressor);
    g->compressor = NULL;
}

void gzip_free(struct gzip *g)
{
    if (g == NULL)
        return;
    gzip_rest(g);
    free(g);
}

/* Into memory that buf_reserve made. */
static size_t put_head(char *at, struct slice extra)
{
    static const unsigned char head[GZIP_HEAD_BYTES] = { 0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255 };
    memcpy(at, head, sizeof(head));
    if (extra.len == 0)
        return sizeof(head);
    at[3] = GZIP_FEXTRA;
    put_le16(at + GZIP_HEAD_BYTES, (uint16_t)extra.len);
    memcpy(at + GZIP_HEAD_BYTES + 2, extra.ptr, extra.len);
    return sizeof(head) + 2 + extra.len;
}

int gzip_compress(struct gzip *g, struct slice in, struct slice extra, struct buf *out)
{
    assert(extra.len <= GZIP_EXTRA_MAX);
    if (g->compressor == NULL && (g->compressor = libdeflate_alloc_compressor(g->level)) == NULL)
        return -ENOMEM;
    const char *content = in.len > 0 ? in.ptr : ""; /* libdeflate and zlib take no NULL */
    size_t bound = libdeflate_deflate_compress_bound(g->compressor, in.len);
    size_t most = GZIP_HEAD_BYTES + 2 + extra.len + bound + GZIP_TAIL_BYTES;
    int r = buf_reserve(out, most);
    if (r < 0)
        return r;

    char *at = out->ptr + out->len;
    at += put_head(at, extra);
    size_t n = libdeflate_deflate_compress(g->compressor, content, in.len, at, bound);
    assert(n > 0); /* the bound is libdeflate's promise */
    at += n;
    put_le32(at, libdeflate_crc32(0, content, in.len));
    put_le32(at + 4, (uint32_t)in.len);
    out->len = (size_t)(at + GZIP_TAIL_BYTES - out->ptr);
    return 0;
}

/* Makes room for one more round of inflate; less than a step when max is near. */
static int make_room(struct buf *out)
{
    if (out->cap > out->len)
        return 0;
    size_t left = out->max - out->len;
    return left == 0 ? -ENOBUFS : buf_reserve(out, MIN(left, INFLATE_STEP));
}

/* 1 = the member ended, 0 = go on, negative errno. */
static int inflate_round(z_stream *z, struct buf *out)
{
    /* At the bound a last round without room tells a finished member from a longer one. */
    int r = make_room(out);
    if (r < 0 && r != -ENOBUFS)
        return r;
    unsigned char none;
    size_t room = MIN(out->cap - out->len, (size_t)UINT_MAX);
    z->next_out = room > 0 ? (unsigned char *)out->ptr + out->len : &none;
    z->avail_out = (uInt)room;
    uInt in_before = z->avail_in;

    int zr = inflate(z, Z_NO_FLUSH);
    size_t made = room - z->avail_out;
    out->len += made;
    if (zr == Z_STREAM_END)
        return 1;
    if (zr == Z_MEM_ERROR)
        return -ENOMEM;
    if (zr != Z_OK && zr != Z_BUF_ERROR)
        return -EBADMSG;
    if (made > 0 || z->avail_in != in_before)
        return 0;
    return room == 0 && z->avail_in > 0 ? -ENOBUFS : -EBADMSG; /* no progress: bounded, or cut */
}

/* One member from z's input; 0 or negative errno. */
static int inflate_member(z_stream *z, struct buf *out)
{
    int r;
    do {
        r = inflate_round(z, out);
    } while (r == 0);
    return r < 0 ? r : 0;
}

static int reader_init(z_stream *z, struct slice in)
{
    if (in.len == 0 || in.len > UINT_MAX)
        return -EBADMSG;
    *z = (z_stream){ .next_in = (unsigned char *)(uintptr_t)in.ptr, .avail_in = (uInt)in.len };
    return inflateInit2(z, 16 + MAX_WBITS) == Z_OK ? 0 : -ENOMEM;
}

int gzip_decompress(struct slice in, struct buf *out)
{
    z_stream z;
    int r = reader_init(&z, in);
    if (r < 0)
        return r;
    size_t len_before = out->len;
    while ((r = inflate_member(&z, out)) == 0 && z.avail_in > 0)
        (void)inflateReset(&z); /* fails only on an uninitialised stream */
    (void)inflateEnd(&z);
    if (r < 0)
        out->len = len_before;
    return r;
}

/* Of a member that inflate has accepted. */
static struct slice member_extra(struct slice in)
{
    if (in.len < GZIP_HEAD_BYTES + 2 || (in.ptr[3] & GZIP_FEXTRA) == 0)
        return (struct slice){ "", 0 };
    return slice_first(slice_from(in, GZIP_HEAD_BYTES + 2), get_le16(in.ptr + GZIP_HEAD_BYTES));
}

ssize_t gzip_read_member(struct slice in, struct slice *ret_extra, struct buf *out)
{
    z_stream z;
    int r = reader_init(&z, in);
    if (r < 0)
        return r;
    size_t len_before = out->len;
    r = inflate_member(&z, out);
    size_t taken = in.len - z.avail_in;
    (void)inflateEnd(&z);
    if (r < 0) {
        out->len = len_before;
        return r;
    }
    if (ret_extra != NULL)
        *ret_extra = member_extra(in);
    return (ssize_t)taken;
}
