/*
 * Goal: sizes, durations, percentages and points in time are read as people write them, refused when they are
 * not, and printed so that reading gives the same. Method: tables, and a round trip over awkward numbers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "conf/size.h"

static void sizes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t want; /* -1: refused */
    } cases[] = {
        { "0", 0 },
        { "4096", 4096 },
        { "4096B", 4096 },
        { "1KiB", 1024 },
        { "1Ki", 1024 },
        { "1kB", 1000 },
        { "1KB", 1000 },
        { "64MiB", 64 << 20 },
        { "10MB", 10000000 },
        { "2GiB", INT64_C(2) << 30 },
        { "1GB", 1000000000 },
        { "1TiB", INT64_C(1) << 40 },
        { "1.5GiB", INT64_C(3) << 29 },
        { "0.5KiB", 512 },
        { "1 MiB", 1 << 20 },
        { "", -1 },
        { "MiB", -1 },
        { "-1", -1 },
        { "+1", -1 },
        { "1M", -1 },
        { "1mib", -1 },
        { "1MiBx", -1 },
        { "1.MiB", -1 },
        { "1.2.3MiB", -1 },
        { "1e3", -1 },
        { "0x10", -1 },
        { "99999999999999999999", -1 },
        { "9223372036854775807", INT64_MAX },
        { "9223372036854775808", -1 },
        { "9000000TiB", -1 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t got = 0;
        bool good = size_parse(slice_cstr(cases[i].text), &got);
        if (good != (cases[i].want >= 0) || (good && got != (uint64_t)cases[i].want))
            fail_msg("\"%s\" is %d %llu", cases[i].text, good, (unsigned long long)got);
    }
}

static void durations(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t want;
    } cases[] = {
        { "0", 0 },
        { "0s", 0 },
        { "200ms", 200 * NS_PER_MS },
        { "1s", NS_PER_SEC },
        { "10m", 600 * NS_PER_SEC },
        { "24h", 86400 * NS_PER_SEC },
        { "7d", 7 * 86400 * NS_PER_SEC },
        { "2w", 14 * 86400 * NS_PER_SEC },
        { "5us", 5000 },
        { "5ns", 5 },
        { "1h30m", 5400 * NS_PER_SEC },
        { "1.5h", 5400 * NS_PER_SEC },
        { "1 s", NS_PER_SEC },
        { "5", -1 },
        { "", -1 },
        { "s", -1 },
        { "-1s", -1 },
        { "1y", -1 },
        { "1M", -1 },
        { "1h30", -1 },
        { "1h-30m", -1 },
        { "300000000000000000h", -1 },
        { "200000d200000d", -1 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int64_t got = 0;
        bool good = duration_parse(slice_cstr(cases[i].text), &got);
        if (good != (cases[i].want >= 0) || (good && got != cases[i].want))
            fail_msg("\"%s\" is %d %lld", cases[i].text, good, (long long)got);
    }
}

static void percentages(void **state)
{
    (void)state;
    unsigned p = 0;
    assert_true(percent_parse(SLICE("25%"), &p) && p == 25);
    assert_true(percent_parse(SLICE("25"), &p) && p == 25);
    assert_true(percent_parse(SLICE("100%"), &p) && p == 100);
    assert_false(percent_parse(SLICE("101%"), &p));
    assert_false(percent_parse(SLICE("%"), &p));
    assert_false(percent_parse(SLICE(""), &p));
    assert_false(percent_parse(SLICE("-1%"), &p));
    assert_false(percent_parse(SLICE("2.5%"), &p));
}

static void times(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t want_s, want_ns;
    } cases[] = {
        { "1970-01-01", 0, 0 },
        { "2026-01-31", 1769817600, 0 },
        { "2026-01-31T00:00:00Z", 1769817600, 0 },
        { "2026-01-31t01:02z", 1769821320, 0 },
        { "2026-01-31 01:00:00+01:00", 1769817600, 0 },
        { "2026-01-30T22:30:00.5-01:30", 1769817600, 500000000 },
        { "2026-01-31T00:00:00.123456789123Z", 1769817600, 123456789 },
        { "2024-02-29", 1709164800, 0 },
        { "2023-02-29", -1, 0 },
        { "2100-02-29", -1, 0 },
        { "2026-02-30", -1, 0 },
        { "2026-13-01", -1, 0 },
        { "2026-00-01", -1, 0 },
        { "2026-01-00", -1, 0 },
        { "1969-12-31", -1, 0 },
        { "3000-01-01", -1, 0 },
        { "2026-1-1", -1, 0 },
        { "2026-01-31T", -1, 0 },
        { "2026-01-31T24:00:00Z", -1, 0 },
        { "2026-01-31T00:00:00", -1, 0 }, /* whose time? */
        { "2026-01-31T00:00:00+1:00", -1, 0 },
        { "2026-01-31T00:00:00Zx", -1, 0 },
        { "yesterday", -1, 0 },
        { "", -1, 0 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int64_t got = -1;
        bool good = wall_time_parse(slice_cstr(cases[i].text), &got);
        if (good != (cases[i].want_s >= 0) ||
            (good && got != cases[i].want_s * NS_PER_SEC + cases[i].want_ns))
            fail_msg("\"%s\" is %d %lld", cases[i].text, good, (long long)got);
    }
}

static void printed_reads_the_same(void **state)
{
    (void)state;
    static const uint64_t numbers[] = { 0,
                                        1,
                                        1023,
                                        1024,
                                        1025,
                                        1000000,
                                        1 << 20,
                                        3 << 20,
                                        UINT64_C(5) << 30,
                                        UINT64_C(7) << 40,
                                        INT64_MAX,
                                        60 * NS_PER_SEC,
                                        86400 * NS_PER_SEC,
                                        90 * NS_PER_SEC,
                                        200 * NS_PER_MS };
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        struct buf b;
        uint64_t size = 1;
        int64_t duration = 1;
        buf_init(&b, 64);
        assert_int_equal(size_append(&b, numbers[i]), 0);
        assert_true(size_parse(buf_slice(&b), &size) && size == numbers[i]);
        buf_reset(&b);
        assert_int_equal(duration_append(&b, (int64_t)numbers[i]), 0);
        assert_true(duration_parse(buf_slice(&b), &duration) && duration == (int64_t)numbers[i]);
        buf_deinit(&b);
    }
    struct buf b;
    buf_init(&b, 64);
    assert_int_equal(size_append(&b, 1 << 20), 0);
    assert_int_equal(duration_append(&b, 7 * 86400 * NS_PER_SEC), 0);
    assert_true(slice_eq(buf_slice(&b), SLICE("1MiB7d")));
    buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(durations),
        cmocka_unit_test(percentages),
        cmocka_unit_test(times),
        cmocka_unit_test(printed_reads_the_same),
    };
    return cmocka_run_group_tests_name("conf/size", tests, NULL, NULL);
}
