/*
 * Goal: varints and fields are written as the format says and read back; anything cut, too long or of an
 * unknown kind is refused. Method: tables of known encodings, all sizes at their edges, every truncation,
 * random bytes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>

#include "outputs/codec/protobuf.h"

static const struct {
    uint64_t value;
    struct slice bytes;
} varints[] = {
    { 0, SLICE_INIT("\x00") },
    { 1, SLICE_INIT("\x01") },
    { 127, SLICE_INIT("\x7f") },
    { 128, SLICE_INIT("\x80\x01") },
    { 300, SLICE_INIT("\xac\x02") },
    { 16383, SLICE_INIT("\xff\x7f") },
    { 16384, SLICE_INIT("\x80\x80\x01") },
    { UINT32_MAX, SLICE_INIT("\xff\xff\xff\xff\x0f") },
    { UINT64_MAX, SLICE_INIT("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01") },
    { (uint64_t)INT64_MIN, SLICE_INIT("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01") },
};

static void varint_encodings(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(varints); i++) {
        char at[PB_VARINT_MAX];
        uint64_t back = 42;
        size_t n = pb_put_varint(at, varints[i].value);
        assert_true(slice_eq(slice_of(at, n), varints[i].bytes));
        assert_int_equal(pb_varint_size(varints[i].value), n);
        assert_int_equal(pb_get_varint(varints[i].bytes, &back), n);
        assert_true(back == varints[i].value);
        for (size_t cut = 0; cut < n; cut++)
            assert_int_equal(pb_get_varint(slice_first(varints[i].bytes, cut), &back), -EBADMSG);
    }
}

static void varint_refusals(void **state)
{
    (void)state;
    uint64_t v;
    assert_int_equal(pb_get_varint(SLICE("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), &v),
                     -EBADMSG); /* bit 64 */
    assert_int_equal(pb_get_varint(SLICE("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00"), &v), -EBADMSG);
    assert_int_equal(pb_get_varint(SLICE("\x80\x00"), &v), 2); /* longer than need be is legal */
    assert_true(v == 0);
}

static const struct {
    struct slice in;
    int want;
    uint64_t number;
    enum pb_wire wire;
    uint64_t value;
    struct slice bytes;
} fields[] = {
    { SLICE_INIT(""), 0, 0, PB_VARINT, 0, SLICE_INIT("") },
    { SLICE_INIT("\x08\x96\x01"), 1, 1, PB_VARINT, 150, SLICE_INIT("") },
    { SLICE_INIT("\x12\x07testing"), 1, 2, PB_BYTES, 7, SLICE_INIT("testing") },
    { SLICE_INIT("\x12\x00"), 1, 2, PB_BYTES, 0, SLICE_INIT("") },
    { SLICE_INIT("\x1d\x01\x02\x03\x04"), 1, 3, PB_FIXED32, 0x04030201, SLICE_INIT("") },
    { SLICE_INIT("\x21\x01\x00\x00\x00\x00\x00\x00\x80"), 1, 4, PB_FIXED64, UINT64_C(0x8000000000000001),
      SLICE_INIT("") },
    { SLICE_INIT("\x80\x01\x05"), 1, 16, PB_VARINT, 5, SLICE_INIT("") },
    { SLICE_INIT("\x00\x01"), -EBADMSG, 0, PB_VARINT, 0, SLICE_INIT("") }, /* field 0 */
    { SLICE_INIT("\x0b\x0c"), -EBADMSG, 0, PB_VARINT, 0, SLICE_INIT("") }, /* a group */
    { SLICE_INIT("\x0e\x01"), -EBADMSG, 0, PB_VARINT, 0, SLICE_INIT("") }, /* wire type 6 */
    { SLICE_INIT("\x12\x03hi"), -EBADMSG, 0, PB_VARINT, 0, SLICE_INIT("") },
    { SLICE_INIT("\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01h"), -EBADMSG, 0, PB_VARINT, 0,
      SLICE_INIT("") },
};

static void field_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        struct slice in = fields[i].in;
        struct pb_field f;
        int r = pb_next(&in, &f);
        if (r != fields[i].want)
            fail_msg("case %zu: %d", i, r);
        if (r <= 0) {
            assert_int_equal(in.len, fields[i].in.len); /* nothing taken */
            continue;
        }
        assert_int_equal(in.len, 0);
        assert_true(f.number == fields[i].number && f.wire == fields[i].wire && f.value == fields[i].value);
        assert_true(slice_eq(f.bytes, fields[i].bytes));
        for (size_t cut = 1; cut < fields[i].in.len; cut++) {
            struct slice part = slice_first(fields[i].in, cut);
            assert_int_equal(pb_next(&part, &f), -EBADMSG);
        }
    }
}

static void written_is_read(void **state)
{
    (void)state;
    static const size_t lens[] = { 0, 1, 127, 128, 300, 16383, 16384 };
    char *content = calloc(1, 16384), *out = malloc(20000);
    assert_non_null(content);
    assert_non_null(out);
    for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
        size_t n = pb_put_bytes(out, 3, slice_of(content, lens[i]));
        assert_int_equal(n, pb_bytes_size(lens[i]));
        n += pb_put_uint(out + n, 2, lens[i]);
        struct slice in = slice_of(out, n);
        struct pb_field f;
        assert_int_equal(pb_next(&in, &f), 1);
        assert_true(f.number == 3 && f.bytes.len == lens[i]);
        assert_int_equal(pb_next(&in, &f), 1);
        assert_true(f.number == 2 && f.wire == PB_VARINT && f.value == lens[i]);
        assert_int_equal(pb_next(&in, &f), 0);
    }
    free(content);
    free(out);
}

/* Random bytes on the heap, to their very end. */
static void garbage(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (int round = 0; round < 20000; round++) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        size_t len = (size_t)(seed >> 60);
        char *bytes = malloc(len > 0 ? len : 1);
        assert_non_null(bytes);
        for (size_t i = 0; i < len; i++) {
            seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            bytes[i] = (char)(seed >> 40);
        }
        struct slice in = slice_of(bytes, len);
        struct pb_field f;
        size_t before = in.len;
        while (pb_next(&in, &f) > 0) {
            assert_true(in.len < before);
            before = in.len;
        }
        free(bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(varint_encodings), cmocka_unit_test(varint_refusals), cmocka_unit_test(field_table),
        cmocka_unit_test(written_is_read),  cmocka_unit_test(garbage),
    };
    return cmocka_run_group_tests_name("outputs/protobuf", tests, NULL, NULL);
}
