/*
 * Goal: what gzip_compress writes is gzip that anyone reads; what is not whole gzip is refused, within
 * bounds. Method: round trips over sizes and kinds of data, zlib's own writer as the foreign one, every
 * truncation, every changed byte, bombs against small bounds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <zlib.h>

#include "outputs/codec/gzip.h"

static uint64_t next_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

/* kind 0: random bytes, 1: text that repeats, 2: zeros. */
static void fill(struct buf *b, size_t len, int kind, uint64_t seed)
{
    buf_reset(b);
    assert_int_equal(buf_reserve(b, len + 1), 0);
    for (size_t i = 0; i < len; i++)
        b->ptr[i] = kind == 0   ? (char)next_random(&seed)
                    : kind == 1 ? "level=info msg=\"hello\" "[i % 23]
                                : '\0';
    b->len = len;
}

static void assert_same(const struct buf *a, const struct buf *b)
{
    assert_int_equal(a->len, b->len);
    if (a->len > 0)
        assert_memory_equal(a->ptr, b->ptr, a->len);
}

static void round_trip(void **state)
{
    (void)state;
    static const size_t lens[] = { 0, 1, 2, 100, 4095, 65536, 300000 };
    struct buf in, wire, back;
    buf_init(&in, 1 * MIB);
    buf_init(&wire, 2 * MIB);
    buf_init(&back, 1 * MIB);
    for (int level = 1; level <= 12; level += 5) {
        struct gzip *g = NULL;
        assert_int_equal(gzip_new(level, &g), 0);
        for (size_t i = 0; i < ARRAY_LEN(lens); i++)
            for (int kind = 0; kind < 3; kind++) {
                fill(&in, lens[i], kind, i + 1);
                buf_reset(&wire);
                buf_reset(&back);
                assert_int_equal(gzip_compress(g, buf_slice(&in), SLICE(""), &wire), 0);
                assert_int_equal(gzip_decompress(buf_slice(&wire), &back), 0);
                assert_same(&in, &back);
            }
        gzip_free(g);
    }
    gzip_free(NULL);
    buf_deinit(&in);
    buf_deinit(&wire);
    buf_deinit(&back);
}

/* What the compressor did before leaves no trace in what it makes. */
static void same_bytes(void **state)
{
    (void)state;
    struct buf in, first, again;
    buf_init(&in, 1 * MIB);
    buf_init(&first, 1 * MIB);
    buf_init(&again, 1 * MIB);
    for (int level = 1; level <= 6; level += 5) {
        struct gzip *g = NULL;
        assert_int_equal(gzip_new(level, &g), 0);
        for (size_t i = 1; i <= 50; i++) {
            struct gzip *fresh = NULL;
            buf_reset(&first);
            buf_reset(&again);
            fill(&in, i * 3001, (int)(i % 3), i);
            assert_int_equal(gzip_compress(g, buf_slice(&in), SLICE(""), &again), 0);
            assert_int_equal(gzip_new(level, &fresh), 0);
            assert_int_equal(gzip_compress(fresh, buf_slice(&in), SLICE(""), &first), 0);
            assert_same(&first, &again);
            gzip_free(fresh);
        }
        gzip_free(g);
    }
    buf_deinit(&in);
    buf_deinit(&first);
    buf_deinit(&again);
}

/* Three members in a row: one content for gzip_decompress, three for gzip_read_member, extra fields kept. */
static void members(void **state)
{
    (void)state;
    struct gzip *g = NULL;
    struct buf wire, back;
    buf_init(&wire, 1 * MIB);
    buf_init(&back, 1 * MIB);
    assert_int_equal(gzip_new(GZIP_LEVEL_FAST, &g), 0);
    assert_int_equal(gzip_compress(g, SLICE("one "), SLICE(""), &wire), 0);
    assert_int_equal(gzip_compress(g, SLICE(""), SLICE("TR\x03\0abc"), &wire), 0);
    assert_int_equal(gzip_compress(g, SLICE("three"), SLICE("TR\x01\0x"), &wire), 0);
    assert_int_equal(gzip_decompress(buf_slice(&wire), &back), 0);
    assert_true(slice_eq(buf_slice(&back), SLICE("one three")));

    static const struct {
        struct slice content, extra;
    } want[] = { { SLICE_INIT("one "), SLICE_INIT("") },
                 { SLICE_INIT(""), SLICE_INIT("TR\x03\0abc") },
                 { SLICE_INIT("three"), SLICE_INIT("TR\x01\0x") } };
    struct slice rest = buf_slice(&wire);
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        struct slice extra = SLICE("unset");
        buf_reset(&back);
        ssize_t n = gzip_read_member(rest, &extra, &back);
        assert_true(n > 0 && (size_t)n <= rest.len);
        assert_true(slice_eq(buf_slice(&back), want[i].content));
        assert_true(slice_eq(extra, want[i].extra));
        rest = slice_from(rest, (size_t)n);
    }
    assert_int_equal(rest.len, 0);
    gzip_free(g);
    buf_deinit(&wire);
    buf_deinit(&back);
}

/* zlib's writer, with a name and a comment in the header. */
static void foreign_header(void **state)
{
    (void)state;
    unsigned char out[512];
    gz_header head = { .name = (unsigned char *)"app.log", .comment = (unsigned char *)"c" };
    z_stream z = {
        .next_in = (unsigned char *)"hello", .avail_in = 5, .next_out = out, .avail_out = sizeof(out)
    };
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflateSetHeader(&z, &head), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    struct buf back;
    buf_init(&back, 100);
    assert_int_equal(gzip_decompress(slice_of(out, z.total_out), &back), 0);
    assert_true(slice_eq(buf_slice(&back), SLICE("hello")));
    (void)deflateEnd(&z);
    buf_deinit(&back);
}

/* Exactly (ptr, len) on the heap, so that ASan sees a byte too far. */
static int decompress_exactly(const char *ptr, size_t len, struct buf *back)
{
    char *copy = malloc(len > 0 ? len : 1);
    assert_non_null(copy);
    if (len > 0)
        memcpy(copy, ptr, len);
    int r = gzip_decompress(slice_of(copy, len), back);
    free(copy);
    return r;
}

static void damaged(void **state)
{
    (void)state;
    struct gzip *g = NULL;
    struct buf in, wire, back;
    buf_init(&in, 1 * MIB);
    buf_init(&wire, 1 * MIB);
    buf_init(&back, 1 * MIB);
    assert_int_equal(gzip_new(1, &g), 0);
    fill(&in, 700, 1, 1);
    assert_int_equal(gzip_compress(g, buf_slice(&in), SLICE("TR\x01\0x"), &wire), 0);
    assert_int_equal(buf_append_lit(&back, "kept"), 0);
    for (size_t len = 0; len < wire.len; len++) {
        assert_int_equal(decompress_exactly(wire.ptr, len, &back), -EBADMSG);
        assert_true(slice_eq(buf_slice(&back), SLICE("kept")));
    }
    for (size_t i = 0; i < wire.len; i++) {
        wire.ptr[i] = (char)(wire.ptr[i] ^ 0x40);
        buf_reset(&back);
        int r = decompress_exactly(wire.ptr, wire.len, &back);
        /* Only bytes that carry nothing (time, system, the extra's text) may change unseen. */
        assert_true(r == -EBADMSG || (r == 0 && (i < 10 || (i >= 12 && i < 17)) && back.len == in.len));
        wire.ptr[i] = (char)(wire.ptr[i] ^ 0x40);
    }
    buf_reset(&back);
    assert_int_equal(buf_append_lit(&wire, "junk"), 0);
    assert_int_equal(decompress_exactly(wire.ptr, wire.len, &back), -EBADMSG);
    gzip_free(g);
    buf_deinit(&in);
    buf_deinit(&wire);
    buf_deinit(&back);
}

/* A megabyte of zeros is a kilobyte of gzip; the bound of the buffer decides, to the byte. */
static void bomb(void **state)
{
    (void)state;
    static const size_t lens[] = { 1, 1000, 65536, 1 * MIB };
    struct gzip *g = NULL;
    struct buf in, wire;
    buf_init(&in, 2 * MIB);
    buf_init(&wire, 2 * MIB);
    assert_int_equal(gzip_new(1, &g), 0);
    for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
        fill(&in, lens[i], 2, 1);
        buf_reset(&wire);
        assert_int_equal(gzip_compress(g, buf_slice(&in), SLICE(""), &wire), 0);
        struct buf back;
        buf_init(&back, lens[i]);
        assert_int_equal(gzip_decompress(buf_slice(&wire), &back), 0);
        assert_int_equal(back.len, lens[i]);
        buf_deinit(&back);
        buf_init(&back, lens[i] - 1);
        assert_int_equal(gzip_decompress(buf_slice(&wire), &back), -ENOBUFS);
        assert_int_equal(back.len, 0);
        buf_deinit(&back);
    }
    struct buf small;
    buf_init(&small, 10);
    assert_int_equal(gzip_compress(g, buf_slice(&in), SLICE(""), &small), -ENOBUFS);
    assert_int_equal(small.len, 0);
    gzip_free(g);
    buf_deinit(&small);
    buf_deinit(&in);
    buf_deinit(&wire);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip), cmocka_unit_test(same_bytes), cmocka_unit_test(members), cmocka_unit_test(foreign_header),
        cmocka_unit_test(damaged),    cmocka_unit_test(bomb),
    };
    return cmocka_run_group_tests_name("outputs/gzip", tests, NULL, NULL);
}
