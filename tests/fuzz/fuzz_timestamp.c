/*
 * fuzz_timestamp.c - times as loggers write them: ISO forms beside a regular expression and timegm(), epochs beside strtold().
 *
 * Where the models may differ, and why: strtold() rounds from the 19th digit on, so epochs are compared as far as a long double
 * goes; forms without a year, and with names of zones, have no model and are only held to their promises.
 */
#include <math.h>

#include "parsers/timestamp.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/model_time.h"

#define NOW_NS INT64_C(1767323045000000000)
#define YEAR_NS (366 * 86400 * NS_PER_SEC)

static struct zone *utc, *berlin;
static regex_t iso, number;

static void make(void)
{
    if (utc != NULL)
        return;
    fuzz_check(zone_load(SLICE("UTC"), &utc, NULL) == 0, "zone");
    fuzz_check(zone_load(SLICE("Europe/Berlin"), &berlin, NULL) == 0, "zone");
    model_regex(&iso, "^([0-9]{4})[-/]([0-9]{2})[-/]([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})([.,]([0-9]+))?"
                      "(Z|z|[+-][0-9]{2}(:?[0-9]{2})?| [+-][0-9]{2}:?[0-9]{2})?$");
    model_regex(&number, "^-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?$");
}

static void check_iso(struct slice s, const struct timestamp_env *env)
{
    regmatch_t g[MODEL_GROUPS];
    if (!model_matches(&iso, s, g) || s.ptr[4] != s.ptr[7])
        return;
    int64_t seconds, offset = 0, ns;
    bool is_good = model_utc(s, g + 1, &seconds);
    struct slice zone = slice_trim(model_group(s, g[9]));
    if (zone.len > 0 && !model_offset(zone, &offset))
        return; /* the time ends before what is no offset */
    bool is_parsed = timestamp_parse(env, s, &ns);
    fuzz_check(is_parsed == is_good, "%s: %.*s", is_good ? "not understood" : "no such time", SLICE_ARGS(s));
    int64_t want = is_good ? (seconds - offset) * NS_PER_SEC + model_nanos(model_group(s, g[8])) : 0;
    if (is_good)
        fuzz_check(ns == want, "%.*s is %lld instead of %lld", SLICE_ARGS(s), (long long)ns, (long long)want);
}

/* The whole number of nanoseconds, by magnitude. */
static void check_number(struct slice s)
{
    regmatch_t g[MODEL_GROUPS];
    int64_t ns;
    bool is_epoch = timestamp_from_number(s, &ns);
    if (!model_matches(&number, s, g) || s.len > 400)
        return;
    char *text = slice_dup(s);
    long double v = strtold(text, NULL), want = v < 1e11L ? v * 1e9L : v < 1e14L ? v * 1e6L : v < 1e17L ? v * 1e3L : v;
    free(text);
    static const long double edges[] = { 1e8L, 1e11L, 1e14L, 1e17L, 9223372036854775807.0L };
    for (size_t i = 0; i < ARRAY_LEN(edges); i++)
        if (fabsl(v - edges[i]) < edges[i] * 1e-17L || fabsl(want - edges[i]) < edges[i] * 1e-17L)
            return; /* on the edge as far as a long double can tell */
    bool is_good = v >= edges[0] && want < edges[4]; /* in 64 bits of nanoseconds */
    fuzz_check(is_epoch == is_good, "%.*s is %s epoch", SLICE_ARGS(s), is_epoch ? "an" : "no");
    if (is_good)
        fuzz_check(fabsl((long double)ns - want) < 2, "%.*s is %lld", SLICE_ARGS(s), (long long)ns);
}

/* Without a year it is the nearest one. */
static void check_scan(struct slice s, const struct timestamp_env *env)
{
    int64_t ns = 0, same = 0;
    size_t n = timestamp_scan(env, s, &ns);
    fuzz_check(n <= s.len, "it took more than there is");
    if (n == 0)
        return;
    fuzz_check(n >= 14, "a time of %zu bytes", n);
    /* What stands behind a time has no part in it, as long as it is no part of a name, an offset or a year. */
    char *copy = slice_dup(slice_first(s, n));
    fuzz_check(timestamp_parse(env, slice_of(copy, n), &same) && same == ns, "cut behind the time, it is another");
    free(copy);
    bool has_year = false;
    for (size_t i = 0; i + 4 <= n; i++) {
        bool is_year = true;
        for (size_t k = i; k < i + 4; k++)
            is_year = is_year && s.ptr[k] >= '0' && s.ptr[k] <= '9';
        has_year = has_year || is_year;
    }
    bool is_leap_day = slice_find(slice_first(s, n), SLICE("Feb 29")) >= 0;
    if (!has_year && !is_leap_day)
        fuzz_check(llabs(ns - env->now_ns) <= YEAR_NS / 2 + 2 * 86400 * NS_PER_SEC, "more than half a year away");
}

int fuzz_timestamp(const uint8_t *data, size_t size)
{
    make();
    struct slice s = slice_of(data, size);
    struct timestamp_env in_utc = { .zone = utc, .now_ns = NOW_NS }, in_berlin = { .zone = berlin, .now_ns = NOW_NS };
    int64_t ns, other;
    check_iso(s, &in_utc);
    check_number(s);
    check_scan(s, &in_utc);
    check_scan(s, &in_berlin);
    size_t n = timestamp_rfc3339(s, &ns);
    if (n > 0) {
        size_t m = timestamp_scan(&in_berlin, slice_first(s, n), &other);
        fuzz_check(m == n && other == ns, "RFC 3339 is two times");
    }
    (void)timestamp_scan_klog(&in_utc, s, &ns);
    return 0;
}
