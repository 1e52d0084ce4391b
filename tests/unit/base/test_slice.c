/*
 * Goal: slices compare, search, convert and match as their header says, on any bytes.
 * Method: tables of cases; globs also against a naive matcher on random words.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "agent/base/slice.h"

static void test_numbers(void **state)
{
    static const struct {
        const char *in;
        bool ok;
        uint64_t want;
    } cases[] = { { "0", true, 0 },
                  { "18446744073709551615", true, UINT64_MAX },
                  { "18446744073709551616", false, 0 },
                  { "", false, 0 },
                  { "-1", false, 0 },
                  { "1 ", false, 0 },
                  { "0x1", false, 0 } };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t v = 7;
        assert_int_equal(slice_to_u64(slice_cstr(cases[i].in), &v), cases[i].ok);
        assert_true(v == (cases[i].ok ? cases[i].want : 7));
    }
    int64_t s = 0;
    assert_true(slice_to_i64(SLICE("-9223372036854775808"), &s));
    assert_true(s == INT64_MIN);
    assert_false(slice_to_i64(SLICE("9223372036854775808"), &s));
    assert_false(slice_to_i64(SLICE("-"), &s));
}

static void test_globs(void **state)
{
    static const struct {
        const char *pattern, *s;
        bool want;
    } cases[] = { { "*", "", true },          { "", "", true },           { "", "a", false },
                  { "a*c", "abbc", true },    { "a*c", "abbd", false },   { "*a*b*", "xxaybz", true },
                  { "?", "", false },         { "?", "x", true },         { "[a-c]x", "bx", true },
                  { "[!a-c]x", "bx", false }, { "[!a-c]x", "dx", true },  { "[]]", "]", true },
                  { "[a", "[a", true },       { "\\*", "*", true },       { "\\*", "x", false },
                  { "**", "anything", true }, { "test-*", "test-", true } };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (slice_glob(slice_cstr(cases[i].pattern), slice_cstr(cases[i].s)) != cases[i].want)
            fail_msg("'%s' on '%s'", cases[i].pattern, cases[i].s);
}

static bool naive_glob(const char *p, const char *s)
{
    if (*p == '\0')
        return *s == '\0';
    if (*p == '*')
        return naive_glob(p + 1, s) || (*s != '\0' && naive_glob(p, s + 1));
    return *s != '\0' && (*p == '?' || *p == *s) && naive_glob(p + 1, s + 1);
}

static void test_globs_like_a_naive_matcher(void **state)
{
    (void)state;
    srand(1);
    for (int i = 0; i < 20000; i++) {
        char p[8] = { 0 }, s[10] = { 0 };
        for (int k = rand() % 7; k > 0; k--)
            p[k - 1] = "ab*?"[rand() % 4];
        for (int k = rand() % 9; k > 0; k--)
            s[k - 1] = "ab"[rand() % 2];
        assert_int_equal(slice_glob(slice_cstr(p), slice_cstr(s)), naive_glob(p, s));
    }
}

static void test_utf8(void **state)
{
    static const struct {
        struct slice in;
        size_t want;
    } cases[] = { { SLICE_INIT("plain"), 5 },
                  { SLICE_INIT("gr\xc3\xbc\xc3\x9f\x65 0123456789"), 18 },
                  { SLICE_INIT("\xf0\x9f\x98\x80"), 4 },
                  { SLICE_INIT("a\xc0\x80"), 1 },     /* overlong */
                  { SLICE_INIT("\xed\xa0\x80"), 0 },  /* surrogate */
                  { SLICE_INIT("\xf4\x90\x80\x80"), 0 }, /* above U+10FFFF */
                  { SLICE_INIT("abc\xe2\x82"), 3 },   /* cut */
                  { SLICE_INIT("nul\0in"), 6 } };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(slice_utf8_valid(cases[i].in), cases[i].want);
}

static void test_searching(void **state)
{
    (void)state;
    struct slice s = SLICE("a\0b,a");
    assert_int_equal(slice_find_byte(s, '\0'), 1);
    assert_int_equal(slice_rfind_byte(s, 'a'), 4);
    assert_int_equal(slice_find(s, SLICE("b,")), 2);
    assert_int_equal(slice_find(s, SLICE("zz")), -1);
    assert_true(slice_eq(slice_trim(SLICE(" \tx y\r\n")), SLICE("x y")));
    assert_true(slice_ieq(SLICE("WaRn"), SLICE("warn")));
    assert_false(slice_ieq(SLICE("war"), SLICE("warn")));
    assert_true(slice_cmp(SLICE("ab"), SLICE("abc")) < 0);
    assert_true(slice_starts(s, SLICE("a\0b")));
    assert_true(slice_ends(s, SLICE(",a")));
    assert_true(slice_hash(SLICE("abc")) == slice_hash(SLICE("abc")));
    assert_true(slice_hash(SLICE("abc")) != slice_hash(SLICE("abd")));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_numbers), cmocka_unit_test(test_globs),
                                        cmocka_unit_test(test_globs_like_a_naive_matcher),
                                        cmocka_unit_test(test_utf8), cmocka_unit_test(test_searching) };
    return cmocka_run_group_tests_name("base/slice", tests, NULL, NULL);
}
