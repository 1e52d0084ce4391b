#include "outputs/codec/gzip.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include <isa-l/igzip_lib.h>
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

/* With its default of 332 KiB it is 2 % faster. */
#define FAST_LEVEL 2
#define FAST_ROOM ISAL_DEF_LVL2_SMALL

struct fast {
    struct isal_zstream stream;
    uint8_t room[FAST_ROOM];
};

struct gzip {
    int level;
    /* 200 KiB either: made when it is first needed. */
    struct fast *fast;                        /* GZIP_LEVEL_FAST */
    struct libdeflate_compressor *compressor; /* the other levels */
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
    free(g->fast);
    g->fast = NULL;
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

/* Appends deflate's stream of in. ISA-L promises no bound, so it is given more room until it is through. */
static int deflate_fast(struct gzip *g, struct slice in, struct buf *out)
{
    if (g->fast == NULL && (g->fast = malloc(sizeof(*g->fast))) == NULL)
        return -ENOMEM;
    struct isal_zstream *z = &g->fast->stream;
    isal_deflate_init(z);
    z->level = FAST_LEVEL;
    z->level_buf = g->fast->room;
    z->level_buf_size = FAST_ROOM;
    z->end_of_stream = 1;
    z->next_in = (uint8_t *)(uintptr_t)in.ptr;
    z->avail_in = (uint32_t)in.len;
    for (size_t room = in.len + 1 * KIB; z->internal_state.state != ZSTATE_END; room = 64 * KIB) {
        int r = buf_reserve(out, room);
        if (r < 0)
            return r;
        z->next_out = (uint8_t *)out->ptr + out->len;
        z->avail_out = (uint32_t)room;
        r = isal_deflate(z);
        assert(r == COMP_OK); /* it fails for wrong parameters only */
        out->len += room - z->avail_out;
    }
    return 0;
}

static int deflate_small(struct gzip *g, struct slice in, struct buf *out)
{
    if (g->compressor == NULL && (g->compressor = libdeflate_alloc_compressor(g->level)) == NULL)
        return -ENOMEM;
    size_t bound = libdeflate_deflate_compress_bound(g->compressor, in.len);
    int r = buf_reserve(out, bound);
    if (r < 0)
        return r;
    size_t n = libdeflate_deflate_compress(g->compressor, in.ptr, in.len, out->ptr + out->len, bound);
    assert(n > 0); /* the bound is libdeflate's promise */
    out->len += n;
    return 0;
}

int gzip_compress(struct gzip *g, struct slice in, struct slice extra, struct buf *out)
{
    assert(extra.len <= GZIP_EXTRA_MAX && in.len <= GZIP_CONTENT_MAX);
    if (in.len == 0)
        in.ptr = ""; /* the libraries take no NULL */
    size_t len_before = out->len;
    int r = buf_reserve(out, GZIP_HEAD_BYTES + 2 + extra.len);
    if (r < 0)
        return r;
    out->len += put_head(out->ptr + out->len, extra);
    r = g->level == GZIP_LEVEL_FAST ? deflate_fast(g, in, out) : deflate_small(g, in, out);
    if (r == 0)
        r = buf_reserve(out, GZIP_TAIL_BYTES);
    if (r < 0) {
        out->len = len_before;
        return r;
    }
    put_le32(out->ptr + out->len, libdeflate_crc32(0, in.ptr, in.len));
    put_le32(out->ptr + out->len + 4, (uint32_t)in.len);
    out->len += GZIP_TAIL_BYTES;
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
