/*
 * Goal: dates are those of the C library for every day of many years, and back; times are written as RFC 3339 wants them.
 * Method: timegm over all days from 1600 to 2400; the ends of int64.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "agent/base/clock.h"

static void test_days(void **state)
{
    (void)state;
    for (int64_t days = -135140; days < 157054; days++) {
        time_t t = (time_t)days * 86400;
        struct tm tm;
        int64_t year;
        unsigned month, day;
        assert_non_null(gmtime_r(&t, &tm));
        clock_civil_from_days(days, &year, &month, &day);
        assert_int_equal(year, tm.tm_year + 1900);
        assert_int_equal(month, tm.tm_mon + 1);
        assert_int_equal(day, tm.tm_mday);
        assert_int_equal(clock_days_from_civil(year, month, day), days);
        assert_int_equal(timegm(&tm), t);
    }
    assert_int_equal(clock_days_from_civil(1970, 1, 1), 0);
    assert_int_equal(clock_days_from_civil(2000, 2, 29), 11016);
    assert_int_equal(clock_days_from_civil(-1, 3, 1), -719834);
}

static void test_rfc3339(void **state)
{
    static const struct {
        int64_t ns;
        unsigned digits;
        const char *want;
    } cases[] = {
        { 0, 0, "1970-01-01T00:00:00Z" },
        { 0, 3, "1970-01-01T00:00:00.000Z" },
        { 1, 9, "1970-01-01T00:00:00.000000001Z" },
        { 1, 8, "1970-01-01T00:00:00.00000000Z" }, /* cut, not rounded */
        { -1, 9, "1969-12-31T23:59:59.999999999Z" },
        { -NS_PER_SEC, 0, "1969-12-31T23:59:59Z" },
        { INT64_C(951782400) * NS_PER_SEC, 0, "2000-02-29T00:00:00Z" },
        { INT64_MAX, 9, "2262-04-11T23:47:16.854775807Z" },
        { INT64_MIN, 9, "1677-09-21T00:12:43.145224192Z" },
        { 5, 12, "1970-01-01T00:00:00.000000005Z" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf b;
        buf_init(&b, 64);
        assert_int_equal(clock_append_rfc3339(&b, cases[i].ns, cases[i].digits), 0);
        assert_int_equal(buf_terminate(&b), 0);
        assert_string_equal(b.ptr, cases[i].want);
        buf_deinit(&b);
    }
}

static int64_t seven(void)
{
    return 7;
}

static void test_sources(void **state)
{
    (void)state;
    clock_set_source(seven, seven);
    assert_int_equal(clock_mono_ns(), 7);
    assert_int_equal(clock_wall_ns(), 7);
    clock_set_source(NULL, NULL);
    int64_t a = clock_mono_ns();
    assert_true(clock_mono_ns() >= a);
    assert_true(clock_wall_ns() > INT64_C(1600000000) * NS_PER_SEC);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_days), cmocka_unit_test(test_rfc3339),
                                        cmocka_unit_test(test_sources) };
    return cmocka_run_group_tests_name("base/clock", tests, NULL, NULL);
}
