/*
 * Goal:   JSON escapes decode to valid UTF-8, lone surrogates included; wrong ones are refused.
 * Method: a table; each also cut at every byte against an unreadable page.
 */
#include "parsers/json_string.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "tests/unit/parsers/guard.h"

#define FFFD "\xEF\xBF\xBD"

static const struct { struct slice raw, want; bool is_bad; } cases[] = {
    { SLICE_INIT(""), SLICE_INIT(""), false },
    { SLICE_INIT("plain"), SLICE_INIT("plain"), false },
    { SLICE_INIT("\\\"\\\\\\/\\b\\f\\n\\r\\t"), SLICE_INIT("\"\\/\b\f\n\r\t"), false },
    { SLICE_INIT("a\\u0041\\u00e9\\u20AC\\u0000z"), SLICE_INIT("aA\xC3\xA9\xE2\x82\xAC\0z"), false },
    { SLICE_INIT("\\ud83d\\ude00"), SLICE_INIT("\xF0\x9F\x98\x80"), false },
    { SLICE_INIT("\\uD800\\uDC00\\udbff\\udfff"), SLICE_INIT("\xF0\x90\x80\x80\xF4\x8F\xBF\xBF"), false },
    { SLICE_INIT("\\ud800"), SLICE_INIT(FFFD), false },
    { SLICE_INIT("\\ud800x"), SLICE_INIT(FFFD "x"), false },
    { SLICE_INIT("\\ud800\\n"), SLICE_INIT(FFFD "\n"), false },
    { SLICE_INIT("\\ud800\\u0041"), SLICE_INIT(FFFD "A"), false },
    { SLICE_INIT("\\ud800\\ud800\\udc00"), SLICE_INIT(FFFD "\xF0\x90\x80\x80"), false },
    { SLICE_INIT("\\udc00\\ud800"), SLICE_INIT(FFFD FFFD), false },
    { SLICE_INIT("\xE2\x82\xAC\\t\xE2\x82\xAC"), SLICE_INIT("\xE2\x82\xAC\t\xE2\x82\xAC"), false },
    { SLICE_INIT("\\"), SLICE_INIT(""), true },
    { SLICE_INIT("\\x41"), SLICE_INIT(""), true },
    { SLICE_INIT("\\u12"), SLICE_INIT(""), true },
    { SLICE_INIT("\\u12g4"), SLICE_INIT(""), true },
    { SLICE_INIT("\\ud800\\u12g4"), SLICE_INIT(""), true },
    { SLICE_INIT("\\\0"), SLICE_INIT(""), true },
};

static void test_decode(void **state)
{
    (void)state;
    char out[64];
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        ssize_t n = json_unescape(guard_put(cases[i].raw), out);
        assert_int_equal(n, cases[i].is_bad ? -EBADMSG : (ssize_t)cases[i].want.len);
        if (cases[i].is_bad)
            continue;
        struct slice got = slice_of(out, (size_t)n);
        if (!slice_eq(got, cases[i].want))
            fail_msg("'%.*s'", SLICE_ARGS(cases[i].raw));
        assert_int_equal(slice_utf8_valid(got), got.len);
    }
}

static void test_cut(void **state)
{
    (void)state;
    char out[64];
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        for (size_t n = 0; n < cases[i].raw.len; n++)
            assert_true(json_unescape(guard_put(slice_first(cases[i].raw, n)), out) <= (ssize_t)n);
}

static int open_guard(void **state)
{
    (void)state;
    guard_open();
    return 0;
}

static int close_guard(void **state)
{
    (void)state;
    guard_close();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_decode), cmocka_unit_test(test_cut) };
    return cmocka_run_group_tests_name("parsers/json_string", tests, open_guard, close_guard);
}
