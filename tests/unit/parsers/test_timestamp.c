/*
 * Goal:   every form of time gives the exact nanosecond, in every timezone; what is no time is refused.
 * Method: tables; zones against the C library's own reading of the same files.
 */
#include "parsers/timestamp.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "tests/unit/parsers/guard.h"
#include "tests/unit/parsers/samples.h"

static struct zone *load(struct slice name)
{
    struct zone *z = NULL;
    struct err err = { 0 };
    if (zone_load(name, &z, &err) < 0)
        fail_msg("%s", err.text);
    return z;
}

/* ---- forms -------------------------------------------------------------------------------------------------------- */

/* In Europe/Berlin, on 2026-01-03. */
static const struct { struct slice text; int64_t ns; } good[] = {
    { SLICE_INIT("2026-01-02T03:04:05Z"), AT(0) },
    { SLICE_INIT("950000000000.1234567"), INT64_C(950000000000123456) }, /* 19 digits that need 64 bits */
    { SLICE_INIT("2026-01-02t03:04:05z"), AT(0) },
    { SLICE_INIT("2026-01-02T03:04:05.6Z"), AT(600000000) },
    { SLICE_INIT("2026-01-02T03:04:05.678901234Z"), AT(678901234) },
    { SLICE_INIT("2026-01-02T03:04:05.678901234999Z"), AT(678901234) },
    { SLICE_INIT("2026-01-02T03:04:05,678Z"), AT(678000000) },
    { SLICE_INIT("2026-01-02T04:04:05+01:00"), AT(0) },
    { SLICE_INIT("2026-01-02T04:04:05+0100"), AT(0) },
    { SLICE_INIT("2026-01-02T04:04:05+01"), AT(0) },
    { SLICE_INIT("2026-01-01T23:34:05-03:30"), AT(0) },
    { SLICE_INIT("2026-01-02 03:04:05Z"), AT(0) },
    { SLICE_INIT("2026-01-02 04:04:05"), AT(0) },
    { SLICE_INIT("2026-01-02T04:04:05.678"), AT(678000000) },
    { SLICE_INIT("2026-01-02 04:04:05,678"), AT(678000000) },
    { SLICE_INIT("2026-01-02 04:04:05 +0100"), AT(0) },
    { SLICE_INIT("2026-01-02 04:04:05 +01:00"), AT(0) },
    { SLICE_INIT("2026-01-02 03:04:05.678 UTC"), AT(678000000) },
    { SLICE_INIT("2026-01-02 04:04:05.678 CET"), AT(678000000) },
    { SLICE_INIT("2026-01-02 05:04:05.678 CEST"), AT(678000000) },
    { SLICE_INIT("2026-01-01 22:04:05 EST"), AT(0) },
    { SLICE_INIT("2026/01/02 04:04:05"), AT(0) },
    { SLICE_INIT("Jan  2 04:04:05"), AT(0) },
    { SLICE_INIT("Jan 02 04:04:05"), AT(0) },
    { SLICE_INIT("Jan 2 04:04:05"), AT(0) },
    { SLICE_INIT("Jan  2 04:04:05.678901"), AT(678901000) },
    { SLICE_INIT("Jan  2 2026 04:04:05"), AT(0) },
    { SLICE_INIT("02/Jan/2026:03:04:05 +0000"), AT(0) },
    { SLICE_INIT("02/Jan/2026:04:04:05"), AT(0) },
    { SLICE_INIT("02-Jan-2026 03:04:05 UTC"), AT(0) },
    { SLICE_INIT("Fri Jan 02 04:04:05.678901 2026"), AT(678901000) },
    { SLICE_INIT("Fri Jan  2 03:04:05 UTC 2026"), AT(0) },
    { SLICE_INIT("Fri, 02 Jan 2026 03:04:05 GMT"), AT(0) },
    { SLICE_INIT("02 Jan 2026 04:04:05.678"), AT(678000000) },
    { SLICE_INIT("  2026-01-02T03:04:05Z "), AT(0) },
    { SLICE_INIT("2026-01-02T03:03:60Z"), NS(T0 - 5, 0) },
    { SLICE_INIT("2024-02-29T00:00:00Z"), NS(1709164800, 0) },
    { SLICE_INIT("1969-12-31T23:59:59.5Z"), -500000000 },
    { SLICE_INIT("1767323045"), AT(0) },
    { SLICE_INIT("1767323045678"), AT(678000000) },
    { SLICE_INIT("1767323045678901"), AT(678901000) },
    { SLICE_INIT("1767323045678901234"), AT(678901234) },
    { SLICE_INIT("1767323045.678901234"), AT(678901234) },
    { SLICE_INIT("1767323045.6789012345678901234567890"), AT(678901234) },
    { SLICE_INIT("1767323045678.901"), AT(678901000) },
    { SLICE_INIT("1.767323045678901e9"), AT(678901000) },
    { SLICE_INIT("1767323045678901E-6"), AT(678901000) },
    { SLICE_INIT("01767323045"), AT(0) },
    { SLICE_INIT("1767323045."), AT(0) },
    { SLICE_INIT("9223372036854775807"), INT64_MAX },
    { SLICE_INIT("100000000"), NS(100000000, 0) },
};

static const struct slice bad[] = {
    SLICE_INIT("0000-01-02 03:04:05"), SLICE_INIT("0000-01-02T03:04:05Z"), SLICE_INIT("0001-01-01T00:00:00Z"),
    SLICE_INIT(""), SLICE_INIT("now"), SLICE_INIT("2026-01-02"), SLICE_INIT("2026-13-02T03:04:05Z"),
    SLICE_INIT("2026-02-29T03:04:05Z"), SLICE_INIT("2026-00-02T03:04:05Z"), SLICE_INIT("2026-01-00T03:04:05Z"),
    SLICE_INIT("2026-01-02T24:04:05Z"), SLICE_INIT("2026-01-02T03:60:05Z"), SLICE_INIT("2026-01-02T03:04:61Z"),
    SLICE_INIT("2026-01-02T03:04Z"), SLICE_INIT("2026-01/02T03:04:05Z"), SLICE_INIT("2026-01-02X03:04:05Z"),
    SLICE_INIT("2026-01-02T03:04:05Zulu"), SLICE_INIT("2026-01-02T03:04:05+25:00"), SLICE_INIT("2026-01-02T03:04:05 INFO"),
    SLICE_INIT("2026-01-02T03:04:05 +01"), SLICE_INIT("9999-01-02T03:04:05Z"), SLICE_INIT("0001-01-01T00:00:00Z"),
    SLICE_INIT("Foo  2 04:04:05"), SLICE_INIT("Jan 32 04:04:05"), SLICE_INIT("Feb 30 04:04:05"), SLICE_INIT("0"),
    SLICE_INIT("12"), SLICE_INIT("99999999"), SLICE_INIT("-1767323045"), SLICE_INIT("1767323045x"),
    SLICE_INIT("99999999999"), SLICE_INIT("1e999"), SLICE_INIT("1e-999"), SLICE_INIT("1767323045e"),
    SLICE_INIT("9223372036854775808"), SLICE_INIT("99999999999999999999999999999999"), SLICE_INIT("1.2.3"),
    SLICE_INIT("1e99999999999999999999"), SLICE_INIT("0x69573B65"), SLICE_INIT("."), SLICE_INIT("e9"),
    SLICE_INIT("00000000000000000000000000"), SLICE_INIT("2026-01-02T03:04:05.Z"), SLICE_INIT("1767323045\0"),
};

static void test_forms(void **state)
{
    (void)state;
    struct zone *berlin = load(SLICE("Europe/Berlin"));
    struct timestamp_env env = { .zone = berlin, .now_ns = NS(T0 + 86400, 0) };
    unsigned n_wrong = 0;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        int64_t ns = -1;
        if (timestamp_parse(&env, guard_put(good[i].text), &ns) && ns == good[i].ns)
            continue;
        print_error("'%.*s' gives %lld\n", SLICE_ARGS(good[i].text), (long long)ns);
        n_wrong++;
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        int64_t ns;
        if (!timestamp_parse(&env, guard_put(bad[i]), &ns))
            continue;
        print_error("'%.*s' is taken for %lld\n", SLICE_ARGS(bad[i]), (long long)ns);
        n_wrong++;
    }
    assert_int_equal(n_wrong, 0);
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        for (size_t n = 0; n < good[i].text.len; n++) {
            int64_t ns;
            struct slice cut = guard_put(slice_first(good[i].text, n));
            (void)timestamp_parse(&env, cut, &ns); /* must only stay inside */
            (void)timestamp_scan(&env, cut, &ns);
            (void)timestamp_rfc3339(cut, &ns);
            (void)timestamp_scan_klog(&env, cut, &ns);
        }
    }
    zone_free(berlin);
}

static void test_scan_leaves_the_rest(void **state)
{
    (void)state;
    static const struct { struct slice text; size_t n; } cases[] = {
        { SLICE_INIT("2026-01-02 03:04:05 INFO x"), 19 }, { SLICE_INIT("2026-01-02 03:04:05 UTC [1]"), 23 },
        { SLICE_INIT("2026-01-02 03:04:05 - app"), 19 },  { SLICE_INIT("2026-01-02 03:04:05 -5 degrees"), 19 },
        { SLICE_INIT("2026-01-02T03:04:05Z: x"), 20 },    { SLICE_INIT("2026-01-02 03:04:05.x"), 19 },
        { SLICE_INIT("Jan  2 03:04:05 2026 x"), 15 },     { SLICE_INIT("Fri Jan  2 03:04:05 2026 x"), 24 },
        { SLICE_INIT("Fri Jan  2 03:04:05 2026-x"), 19 }, { SLICE_INIT("2026-01-02T03:04:05.5+01:00]"), 27 },
        { SLICE_INIT("2026-01-02 03:04:05 EST5EDT"), 19 }, { SLICE_INIT("1767323045 x y z 1 2 3"), 0 },
        { SLICE_INIT("2026-01-02T03:04:05abc"), 0 },
    };
    struct zone *utc = load(SLICE("UTC"));
    struct timestamp_env env = { .zone = utc, .now_ns = AT(0) };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int64_t ns;
        size_t n = timestamp_scan(&env, guard_put(cases[i].text), &ns);
        if (n != cases[i].n)
            fail_msg("'%.*s': %zu", SLICE_ARGS(cases[i].text), n);
    }
    zone_free(utc);
}

static void test_rfc3339_is_strict(void **state)
{
    (void)state;
    static const struct slice cases[] = {
        SLICE_INIT("2026-01-02T03:04:05"), SLICE_INIT("2026-01-02 03:04:05Z"), SLICE_INIT("2026/01/02T03:04:05Z"),
        SLICE_INIT("2026-01-02T03:04:05+01"), SLICE_INIT("1767323045"),
    };
    int64_t ns;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(timestamp_rfc3339(guard_put(cases[i]), &ns), 0);
    assert_int_equal(timestamp_rfc3339(SLICE("2026-01-02T05:04:05.678901234+02:00 stdout"), &ns), 35);
    assert_true(ns == AT(678901234));
}

/* The second that was read last is known by its text: whatever came before, a time is the same, with any fraction. */
static void test_seconds_that_come_again(void **state)
{
    (void)state;
    static const struct { struct slice text; int64_t ns; } cases[] = {
        { SLICE_INIT("2026-01-02T03:04:05Z"), AT(0) },           { SLICE_INIT("2026-01-02T03:04:05.1Z"), AT(100000000) },
        { SLICE_INIT("2026-01-02T03:04:05.12Z"), AT(120000000) }, { SLICE_INIT("2026-01-02T03:04:05.123Z"), AT(123000000) },
        { SLICE_INIT("2026-01-02T03:04:05.0001Z"), AT(100000) },  { SLICE_INIT("2026-01-02T03:04:05.12345Z"), AT(123450000) },
        { SLICE_INIT("2026-01-02T03:04:05.123456Z"), AT(123456000) },
        { SLICE_INIT("2026-01-02T03:04:05.1234567Z"), AT(123456700) },
        { SLICE_INIT("2026-01-02T03:04:05.12345678Z"), AT(123456780) },
        { SLICE_INIT("2026-01-02T03:04:05.123456789Z"), AT(123456789) },
        { SLICE_INIT("2026-01-02T03:04:05.999999999Z"), AT(999999999) },
        { SLICE_INIT("2026-01-02T03:04:06.5Z"), AT(1500000000) }, { SLICE_INIT("2026-01-03T03:04:05Z"), AT(86400 * NS_PER_SEC) },
        { SLICE_INIT("2026-01-02T04:04:05Z"), AT(3600 * NS_PER_SEC) },
        { SLICE_INIT("2026-13-02T03:04:05Z"), -1 },               { SLICE_INIT("2026-01-02T03:04:0aZ"), -1 },
        { SLICE_INIT("2026-01-02T03:04:05.Z"), -1 },              { SLICE_INIT("2026-01-02T03:04:05./Z"), -1 },
        { SLICE_INIT("2026-01-02T03:04:05.12:Z"), -1 },           { SLICE_INIT("2026-01-02T03:04:05."), -1 },
        { SLICE_INIT("2026-01-02T03:04:05.123456789"), -1 },      { SLICE_INIT("2026-01-02T03:04:05"), -1 },
        { SLICE_INIT("\0\0\0\0\0\0\0\0\0\0T\0\0\0\0\0\0\0\0Z"), -1 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
            int64_t ns = -1;
            (void)timestamp_rfc3339(guard_put(cases[i].text), &ns);
            ns = -1;
            size_t n = timestamp_rfc3339(guard_put(cases[k].text), &ns);
            assert_int_equal(n, cases[k].ns == -1 ? 0 : cases[k].text.len);
            if (n > 0)
                assert_int_equal(ns, cases[k].ns);
        }
    }
}

static void test_year_is_the_nearest(void **state)
{
    (void)state;
    static const struct { struct slice text; int64_t now_s, want_s; } cases[] = {
        { SLICE_INIT("Dec 31 23:59:59"), 1767225601, 1767225599 }, /* read on January 1st: last year's */
        { SLICE_INIT("Jan  1 00:00:01"), 1767225599, 1767225601 }, /* a clock ahead of ours, read on December 31st */
        { SLICE_INIT("Feb 29 00:00:00"), 1709337600, 1709164800 },
        { SLICE_INIT("Feb 29 00:00:00"), 1767225601, 1709164800 }, /* from 2026, 2024's is nearer than 2028's */
        { SLICE_INIT("Jul 10 00:00:00"), 1767323045, 1752105600 }, /* last summer is nearer */
        { SLICE_INIT("Jun 10 00:00:00"), 1767323045, 1781049600 },
        { SLICE_INIT("Jan  1 00:00:00"), 0, 0 },
        { SLICE_INIT("Dec 31 00:00:00"), 0, -86400 },
    };
    struct zone *utc = load(SLICE("UTC"));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct timestamp_env env = { .zone = utc, .now_ns = NS(cases[i].now_s, 5) };
        int64_t ns = -1;
        assert_int_equal(timestamp_scan(&env, cases[i].text, &ns), cases[i].text.len);
        if (ns != NS(cases[i].want_s, 0))
            fail_msg("%.*s: %lld", SLICE_ARGS(cases[i].text), (long long)(ns / 1000000000));
    }
    int64_t ns;
    struct timestamp_env env = { .zone = utc, .now_ns = INT64_MAX };
    (void)timestamp_scan(&env, SLICE("Dec 31 00:00:00"), &ns); /* no overflow */
    env.now_ns = INT64_MIN;
    (void)timestamp_scan(&env, SLICE("Dec 31 00:00:00"), &ns);
    zone_free(utc);
}

/* ---- zones -------------------------------------------------------------------------------------------------------- */

/* Every hour of some years, against localtime_r of the same file. */
static void test_offsets_agree_with_libc(void **state)
{
    (void)state;
    static const char *const names[] = {
        "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Kolkata", "Pacific/Chatham",
        "Africa/Casablanca", "America/Nuuk", "Asia/Tehran", "Europe/Dublin", "Etc/GMT+3", "Asia/Gaza", "UTC",
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct zone *z = load(slice_cstr(names[i]));
        assert_int_equal(setenv("TZ", names[i], 1), 0);
        tzset();
        for (int64_t t = 946684800; t < 4102444800; t += 3600 * 5 + 1) { /* 2000 to 2100 */
            time_t at = (time_t)t;
            struct tm tm;
            assert_non_null(localtime_r(&at, &tm));
            if (zone_offset(z, t) != tm.tm_gmtoff)
                fail_msg("%s at %lld: %d, not %ld", names[i], (long long)t, zone_offset(z, t), tm.tm_gmtoff);
        }
        zone_free(z);
    }
    assert_int_equal(unsetenv("TZ"), 0);
    tzset();
}

/* Back from the wall clock: the same moment, but in the hour that comes twice, where it may be the first coming. */
static void test_wall_clock_comes_back(void **state)
{
    (void)state;
    static const struct slice names[] = { SLICE_INIT("Europe/Berlin"), SLICE_INIT("America/New_York"), SLICE_INIT("Australia/Lord_Howe") };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct zone *z = load(names[i]);
        for (int64_t t = 1735689600; t < 1798761600; t += 601) { /* 2025 and 2026 */
            int64_t back = zone_to_utc(z, t + zone_offset(z, t));
            assert_true(back == t || (back < t && back + zone_offset(z, back) == t + zone_offset(z, t)));
        }
        zone_free(z);
    }
    struct zone *berlin = load(SLICE("Europe/Berlin"));
    assert_int_equal(zone_to_utc(berlin, 1774751400), 1774747800); /* 2026-03-29 02:30 does not exist: 03:30 CEST */
    assert_int_equal(zone_to_utc(berlin, 1792895400), 1792888200); /* 2026-10-25 02:30 comes twice: CEST */
    zone_free(berlin);
}

static void test_zone_names(void **state)
{
    (void)state;
    static const struct { struct slice name; int32_t offset; } cases[] = {
        { SLICE_INIT("UTC"), 0 }, { SLICE_INIT("utc"), 0 }, { SLICE_INIT("+02:00"), 7200 }, { SLICE_INIT("-0330"), -12600 },
        { SLICE_INIT("+2"), 7200 }, { SLICE_INIT("-11"), -39600 }, { SLICE_INIT("Asia/Kolkata"), 19800 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct zone *z = load(cases[i].name);
        assert_int_equal(zone_offset(z, T0), cases[i].offset);
        zone_free(z);
    }
    static const struct slice wrong[] = {
        SLICE_INIT("/etc/localtime"), SLICE_INIT("../x"), SLICE_INIT("Europe/../../x"), SLICE_INIT("+"), SLICE_INIT("+99:00"),
        SLICE_INIT("+02:99"), SLICE_INIT("Mars/Base"), SLICE_INIT("Europe"), SLICE_INIT("a b"), SLICE_INIT("x\0y"), SLICE_INIT("tzdata.zi"),
    };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        struct zone *z = NULL;
        struct err err = { 0 };
        assert_true(zone_load(wrong[i], &z, &err) < 0);
        assert_null(z);
        assert_true(err.text[0] != '\0');
    }
}

static void test_local_follows_tz(void **state)
{
    (void)state;
    static const struct { const char *tz; int32_t january, july; } cases[] = {
        { "Europe/Berlin", 3600, 7200 }, { ":America/New_York", -18000, -14400 }, { "CET-1CEST,M3.5.0,M10.5.0/3", 3600, 7200 },
        { "<-03>3", -10800, -10800 }, { "AEST-10AEDT,M10.1.0,M4.1.0/3", 39600, 36000 }, { "EST5EDT,J60/0,J300", -18000, -14400 },
        { "", 0, 0 }, { "/usr/share/zoneinfo/Asia/Tokyo", 32400, 32400 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(setenv("TZ", cases[i].tz, 1), 0);
        struct zone *z = load(SLICE("local"));
        assert_int_equal(zone_offset(z, 1767323045), cases[i].january);
        assert_int_equal(zone_offset(z, 1783641600), cases[i].july);
        zone_free(z);
    }
    assert_int_equal(setenv("TZ", "no such zone", 1), 0);
    struct zone *z = NULL;
    assert_int_equal(zone_load(SLICE("local"), &z, NULL), -EINVAL);
    assert_int_equal(unsetenv("TZ"), 0);
    z = load(SLICE("local"));
    zone_free(z);
}

/* A real file cut at every byte, and with every byte of its head and types changed. */
static void test_damaged_zone_files(void **state)
{
    (void)state;
    FILE *f = fopen("/usr/share/zoneinfo/Europe/Berlin", "re");
    assert_non_null(f);
    static char bytes[8192];
    size_t len = fread(bytes, 1, sizeof(bytes), f);
    assert_true(len > 1000 && len < sizeof(bytes));
    assert_int_equal(fclose(f), 0);
    for (size_t n = 0; n <= len; n++) {
        struct zone *z = NULL;
        if (zone_from_tzif(guard_put(slice_of(bytes, n)), &z) == 0)
            (void)zone_to_utc(z, T0);
        zone_free(z);
    }
    for (size_t i = 0; i < len; i++) {
        char was = bytes[i];
        bytes[i] = (char)0xFF;
        struct zone *z = NULL;
        if (zone_from_tzif(guard_put(slice_of(bytes, len)), &z) == 0)
            (void)zone_to_utc(z, T0);
        zone_free(z);
        bytes[i] = was;
    }
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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_scan_leaves_the_rest),
        cmocka_unit_test(test_rfc3339_is_strict),
        cmocka_unit_test(test_seconds_that_come_again),
        cmocka_unit_test(test_year_is_the_nearest),
        cmocka_unit_test(test_offsets_agree_with_libc),
        cmocka_unit_test(test_wall_clock_comes_back),
        cmocka_unit_test(test_zone_names),
        cmocka_unit_test(test_local_follows_tz),
        cmocka_unit_test(test_damaged_zone_files),
    };
    return cmocka_run_group_tests_name("parsers/timestamp", tests, open_guard, close_guard);
}
