/*
 * Goal: blocks that snappy itself reads, made in pieces and joined; nothing else is taken, and no lie about a
 * length makes memory. Method: round trips over sizes around the 64 KiB piece, pieces of any cut, the
 * format's own elements by hand, every truncation, random bytes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <snappy-c.h>
#include <stdlib.h>

#include "outputs/codec/snappy.h"

static uint64_t next_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

static void fill(struct buf *b, size_t len, uint64_t seed)
{
    assert_int_equal(buf_reserve(b, len + 1), 0);
    for (size_t i = 0; i < len; i++)
        b->ptr[b->len + i] = next_random(&seed) % 3 == 0 ? (char)next_random(&seed) : "level=info "[i % 11];
    b->len += len;
}

static const size_t lens[] = { 0, 1, 59, 60, 61, 65535, 65536, 65537, 131072, 200001 };

static void round_trip(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
        struct buf in, wire, back;
        buf_init(&in, 1 * MIB);
        buf_init(&wire, 1 * MIB);
        buf_init(&back, 1 * MIB);
        fill(&in, lens[i], i);
        assert_int_equal(snappy_block_compress(buf_slice(&in), &wire), 0);
        size_t len = 1;
        assert_int_equal(snappy_block_length(buf_slice(&wire), &len), 0);
        assert_int_equal(len, lens[i]);
        assert_int_equal(snappy_validate_compressed_buffer(wire.ptr, wire.len), SNAPPY_OK);
        assert_int_equal(snappy_block_decompress(buf_slice(&wire), &back), 0);
        assert_true(slice_eq(buf_slice(&back), buf_slice(&in)));
        buf_deinit(&in);
        buf_deinit(&wire);
        buf_deinit(&back);
    }
}

/* The same content in any cut is a block of the same content. */
static void pieces(void **state)
{
    (void)state;
    struct buf in;
    buf_init(&in, 1 * MIB);
    fill(&in, 300000, 7);
    uint64_t seed = 5;
    for (int round = 0; round < 20; round++) {
        struct buf wire, back;
        buf_init(&wire, 1 * MIB);
        buf_init(&back, 1 * MIB);
        assert_int_equal(buf_append_lit(&wire, "before"), 0);
        struct snappy_writer w;
        int r = snappy_writer_begin(&w, &wire, in.len);
        for (size_t at = 0; r == 0 && at < in.len;) {
            size_t want = next_random(&seed) % (round < 10 ? 300 : 150000), n = MIN(want, in.len - at);
            r = snappy_writer_add(&w, slice_of(in.ptr + at, n));
            at += n;
        }
        assert_int_equal(snappy_writer_end(&w, r), 0);
        assert_int_equal(snappy_block_decompress(slice_from(buf_slice(&wire), 6), &back), 0);
        assert_true(slice_eq(buf_slice(&back), buf_slice(&in)));
        buf_deinit(&wire);
        buf_deinit(&back);
    }
    buf_deinit(&in);
}

static void join(void **state)
{
    (void)state;
    struct buf all, wires[4], joined, back;
    struct slice blocks[4];
    buf_init(&all, 2 * MIB);
    buf_init(&joined, 2 * MIB);
    buf_init(&back, 2 * MIB);
    for (size_t i = 0; i < 4; i++) {
        size_t start = all.len;
        fill(&all, (size_t[]){ 70000, 0, 5, 65536 }[i], i);
        buf_init(&wires[i], 1 * MIB);
        assert_int_equal(snappy_block_compress(slice_from(buf_slice(&all), start), &wires[i]), 0);
        blocks[i] = buf_slice(&wires[i]);
    }
    assert_int_equal(snappy_join(blocks, 4, &joined), 0);
    assert_int_equal(snappy_block_decompress(buf_slice(&joined), &back), 0);
    assert_true(slice_eq(buf_slice(&back), buf_slice(&all)));
    buf_reset(&joined);
    blocks[2] = SLICE("\xff\xff\xff\xff\xff\xff");
    assert_int_equal(snappy_join(blocks, 4, &joined), -EBADMSG);
    assert_int_equal(joined.len, 0);
    for (size_t i = 0; i < 4; i++)
        buf_deinit(&wires[i]);
    buf_deinit(&all);
    buf_deinit(&joined);
    buf_deinit(&back);
}

static const struct {
    struct slice in;
    int want;
    struct slice content;
} elements[] = {
    { SLICE_INIT("\x00"), 0, SLICE_INIT("") },
    { SLICE_INIT("\x02\x04hi"), 0, SLICE_INIT("hi") },
    { SLICE_INIT("\x08\x04"
                 "ab\x0a\x02\x00\x09\x02\x00"),
      -EBADMSG, SLICE_INIT("") }, /* more than it says */
    { SLICE_INIT("\x08\x04"
                 "ab\x16\x02\x00"),
      0, SLICE_INIT("abababab") }, /* overlap is repetition */
    { SLICE_INIT("\x08\x04"
                 "ab\x16\x03\x00"),
      -EBADMSG, SLICE_INIT("") }, /* before the start */
    { SLICE_INIT("\x08\x04"
                 "ab\x16\x00\x00"),
      -EBADMSG, SLICE_INIT("") },                           /* offset 0 */
    { SLICE_INIT("\x03\x04hi"), -EBADMSG, SLICE_INIT("") }, /* less than it says */
    { SLICE_INIT(""), -EBADMSG, SLICE_INIT("") },
    { SLICE_INIT("\xff\xff\xff\xff\x0f"), -EBADMSG, SLICE_INIT("") }, /* 4 GiB of nothing */
    { SLICE_INIT("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), -EBADMSG, SLICE_INIT("") },
    { SLICE_INIT("\xff\x06\x00\x00sNaPpY"), -EBADMSG, SLICE_INIT("") }, /* the framed format */
};

static void by_hand(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(elements); i++) {
        struct buf back;
        buf_init(&back, 1 * MIB);
        int r = snappy_block_decompress(elements[i].in, &back);
        if (r != elements[i].want || !slice_eq(buf_slice(&back), elements[i].content))
            fail_msg("case %zu: %d, %zu bytes", i, r, back.len);
        buf_deinit(&back);
    }
}

static int decompress_exactly(const char *ptr, size_t len, struct buf *back)
{
    char *copy = malloc(len > 0 ? len : 1);
    assert_non_null(copy);
    if (len > 0)
        memcpy(copy, ptr, len);
    int r = snappy_block_decompress(slice_of(copy, len), back);
    free(copy);
    return r;
}

static void garbage(void **state)
{
    (void)state;
    struct buf in, wire, back;
    buf_init(&in, 1 * MIB);
    buf_init(&wire, 1 * MIB);
    buf_init(&back, 64 * KIB);
    fill(&in, 3000, 3);
    assert_int_equal(snappy_block_compress(buf_slice(&in), &wire), 0);
    for (size_t len = 0; len < wire.len; len++) {
        assert_int_equal(decompress_exactly(wire.ptr, len, &back), -EBADMSG);
        assert_int_equal(back.len, 0);
    }
    uint64_t seed = 99;
    for (int round = 0; round < 3000; round++) {
        char bytes[64];
        size_t len = next_random(&seed) % sizeof(bytes);
        for (size_t i = 0; i < len; i++)
            bytes[i] = (char)next_random(&seed);
        buf_reset(&back);
        int r = decompress_exactly(bytes, len, &back);
        assert_true(r == 0 || r == -EBADMSG || r == -ENOBUFS);
    }
    buf_deinit(&back);
    buf_init(&back, in.len - 1);
    assert_int_equal(snappy_block_decompress(buf_slice(&wire), &back), -ENOBUFS);
    buf_deinit(&in);
    buf_deinit(&wire);
    buf_deinit(&back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip), cmocka_unit_test(pieces),  cmocka_unit_test(join),
        cmocka_unit_test(by_hand),    cmocka_unit_test(garbage),
    };
    return cmocka_run_group_tests_name("outputs/snappy", tests, NULL, NULL);
}
