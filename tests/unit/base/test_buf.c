/*
 * Goal: buffers and arenas grow to their maximum and no further, and a refused call leaves the content as it was.
 * Method: small maxima; JSON escaping against a table, bad UTF-8 included.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/base/arena.h"
#include "agent/base/buf.h"

static void test_bounds(void **state)
{
    struct buf b;
    (void)state;
    buf_init(&b, 100);
    assert_int_equal(buf_append_fill(&b, 'x', 100), 0);
    assert_int_equal(buf_append_byte(&b, 'y'), -ENOBUFS);
    assert_int_equal(buf_append_json_string(&b, SLICE("z")), -ENOBUFS);
    assert_int_equal(buf_append_i64(&b, -5), -ENOBUFS);
    assert_int_equal(b.len, 100);
    buf_consume(&b, 98);
    assert_int_equal(buf_append_i64(&b, INT64_MIN), 0);
    assert_true(slice_eq(buf_slice(&b), SLICE("xx-9223372036854775808")));
    buf_shrink(&b, 32);
    assert_int_equal(b.cap, 32);
    assert_true(slice_starts(buf_slice(&b), SLICE("xx-92")));
    buf_deinit(&b);
    buf_deinit(&b);
}

static void test_json_escapes(void **state)
{
    static const struct {
        struct slice in, want;
    } cases[] = { { SLICE_INIT("plain"), SLICE_INIT("\"plain\"") },
                  { SLICE_INIT("a\"b\\c\n\r\t"), SLICE_INIT("\"a\\\"b\\\\c\\n\\r\\t\"") },
                  { SLICE_INIT("\0\x1f"), SLICE_INIT("\"\\u0000\\u001f\"") },
                  { SLICE_INIT("\xc3\xbc\"\xc3\xbc"), SLICE_INIT("\"\xc3\xbc\\\"\xc3\xbc\"") },
                  { SLICE_INIT("x\xff\xfey"), SLICE_INIT("\"x\xef\xbf\xbd\xef\xbf\xbdy\"") },
                  { SLICE_INIT("\xe2\x82"), SLICE_INIT("\"\xef\xbf\xbd\xef\xbf\xbd\"") },
                  { SLICE_INIT(""), SLICE_INIT("\"\"") } };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf b;
        buf_init(&b, 1000);
        assert_int_equal(buf_append_json_string(&b, cases[i].in), 0);
        assert_int_equal(b.len, cases[i].want.len);
        assert_memory_equal(b.ptr, cases[i].want.ptr, b.len);
        buf_deinit(&b);
    }
}

static void test_printf(void **state)
{
    struct buf b;
    (void)state;
    buf_init(&b, 20);
    assert_int_equal(buf_printf(&b, "%d-%s", 42, "x"), 0);
    assert_int_equal(buf_printf(&b, "%030d", 1), -ENOBUFS);
    assert_true(slice_eq(buf_slice(&b), SLICE("42-x")));
    assert_int_equal(buf_terminate(&b), 0);
    assert_string_equal(b.ptr, "42-x");
    buf_deinit(&b);
}

static void test_arena(void **state)
{
    struct arena a;
    (void)state;
    arena_init(&a, 64 * KIB);
    char *first = arena_alloc(&a, 10);
    assert_non_null(first);
    for (int i = 0; i < 10; i++)
        assert_int_equal(first[i], 0);
    struct slice copy = arena_copy(&a, SLICE("nul\0in"));
    assert_true(slice_eq(copy, SLICE("nul\0in")));
    assert_null(arena_alloc(&a, 65 * KIB));
    while (arena_alloc(&a, 1000) != NULL)
        assert_true(a.used_bytes <= 64 * KIB);
    arena_reset(&a);
    assert_ptr_equal(arena_alloc(&a, 10), first);
    arena_deinit(&a);
    assert_int_equal(a.used_bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_bounds), cmocka_unit_test(test_json_escapes),
                                        cmocka_unit_test(test_printf), cmocka_unit_test(test_arena) };
    return cmocka_run_group_tests_name("base/buf", tests, NULL, NULL);
}
