/*
 * fuzz_codec.c - our readers of gzip and snappy beside zlib and snappy themselves, and what is written read back.
 *
 *   'g' any bytes as gzip    's' any bytes as snappy    'w' bytes to be written as both    'p' any bytes as protobuf fields
 */
#include <snappy-c.h>
#include <zlib.h>

#include "outputs/codec/gzip.h"
#include "outputs/codec/protobuf.h"
#include "outputs/codec/snappy.h"
#include "tests/fuzz/fuzz.h"

#define CONTENT_MAX (1 * MIB)

/* All members, and nothing behind them. -1: no; else the length of the content. */
static ssize_t zlib_reads(struct slice in, char *room)
{
    z_stream z = { .next_in = (unsigned char *)(uintptr_t)in.ptr, .avail_in = (unsigned)in.len, .next_out = (unsigned char *)room,
                   .avail_out = CONTENT_MAX };
    int r = in.len == 0 ? Z_BUF_ERROR : Z_STREAM_END;
    fuzz_check(inflateInit2(&z, 16 + 15) == Z_OK, "zlib");
    while (r == Z_STREAM_END && z.avail_in > 0) {
        r = inflate(&z, Z_FINISH);
        if (r == Z_STREAM_END)
            fuzz_check(inflateReset(&z) == Z_OK, "zlib");
    }
    (void)inflateEnd(&z);
    return r == Z_STREAM_END ? (ssize_t)(CONTENT_MAX - z.avail_out) : -1;
}

static void fuzz_gzip(struct slice in)
{
    static char room[CONTENT_MAX];
    struct buf out, member;
    struct slice extra;
    buf_init(&out, CONTENT_MAX);
    buf_init(&member, CONTENT_MAX);
    ssize_t want = zlib_reads(in, room);
    int r = gzip_decompress(in, &out);
    fuzz_check((r == 0) == (want >= 0), "gzip: %d, and zlib: %zd", r, want);
    if (r == 0)
        fuzz_check(slice_eq(buf_slice(&out), slice_of(room, (size_t)want)), "another content");
    else
        fuzz_check(out.len == 0, "a refused member left something");
    ssize_t n = gzip_read_member(in, &extra, &member);
    fuzz_check(n <= (ssize_t)in.len && n != 0, "a member of %zd bytes", n);
    fuzz_check(r < 0 || (n > 0 && slice_starts(buf_slice(&out), buf_slice(&member))), "the first member is no beginning");
    if (n > 0 && extra.len > 0)
        fuzz_check(extra.ptr > in.ptr && extra.ptr + extra.len <= in.ptr + n, "the extra field");
    buf_deinit(&out);
    buf_deinit(&member);
}

static void fuzz_snappy(struct slice in)
{
    static char room[CONTENT_MAX];
    struct buf out;
    size_t want = 0, said = 0, len = sizeof(room);
    buf_init(&out, CONTENT_MAX);
    bool has_length = snappy_uncompressed_length(in.ptr, in.len, &want) == SNAPPY_OK && want <= CONTENT_MAX;
    bool is_good = has_length && snappy_uncompress(in.ptr, in.len, room, &len) == SNAPPY_OK;
    int r = snappy_block_decompress(in, &out);
    fuzz_check((r == 0) == is_good, "%d, and snappy: %d", r, is_good);
    if (r == 0)
        fuzz_check(slice_eq(buf_slice(&out), slice_of(room, len)) && snappy_block_length(in, &said) == 0 && said == len, "content");
    struct slice two[] = { in, in };
    struct buf joined, twice;
    buf_init(&joined, CONTENT_MAX);
    buf_init(&twice, 2 * CONTENT_MAX);
    if (r == 0) {
        fuzz_check(snappy_join(two, 2, &joined) == 0 && snappy_block_decompress(buf_slice(&joined), &twice) == 0, "join");
        fuzz_check(twice.len == 2 * len && slice_starts(buf_slice(&twice), buf_slice(&out)) &&
                       slice_ends(buf_slice(&twice), buf_slice(&out)),
                   "joined, it is another");
    }
    buf_deinit(&out);
    buf_deinit(&joined);
    buf_deinit(&twice);
}

static void fuzz_written(struct slice in)
{
    static struct gzip *gz;
    struct buf wire, back;
    if (gz == NULL)
        fuzz_check(gzip_new(GZIP_LEVEL_FAST, &gz) == 0, "gzip");
    buf_init(&wire, CONTENT_MAX);
    buf_init(&back, CONTENT_MAX);
    fuzz_check(gzip_compress(gz, in, SLICE("TR\x02\0ab"), &wire) == 0 && gzip_decompress(buf_slice(&wire), &back) == 0, "gzip");
    fuzz_check(slice_eq(buf_slice(&back), in), "gzip: another content");
    buf_reset(&wire);
    buf_reset(&back);
    fuzz_check(snappy_block_compress(in, &wire) == 0 && snappy_block_decompress(buf_slice(&wire), &back) == 0, "snappy");
    fuzz_check(slice_eq(buf_slice(&back), in), "snappy: another content");
    buf_deinit(&wire);
    buf_deinit(&back);
}

static void fuzz_protobuf(struct slice in)
{
    struct pb_field f;
    size_t before = in.len;
    while (pb_next(&in, &f) == 1) {
        fuzz_check(in.len < before, "a field of no bytes");
        fuzz_check(f.wire != PB_BYTES || f.bytes.len <= before - in.len, "a field of more bytes than there are");
        before = in.len;
    }
}

int fuzz_codec(const uint8_t *data, size_t size)
{
    struct slice in = slice_of(data, size);
    switch (fuzz_take_byte(&in)) {
    case 'g':
        fuzz_gzip(in);
        return 0;
    case 's':
        fuzz_snappy(in);
        return 0;
    case 'w':
        fuzz_written(in);
        return 0;
    case 'p':
        fuzz_protobuf(in);
        return 0;
    default:
        return -1;
    }
}
