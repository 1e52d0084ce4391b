/*
 * fuzz_zone.c - timezones: any bytes as a TZif file, any text as a POSIX rule, and the installed zones beside the C library.
 *
 *   'f' bytes of a TZif file        'r' rule        'z' zone (1 byte), time (8 bytes)
 *
 * Where the C library may differ, and why: rules with hours beyond a day are an extension that glibc takes in part, so only
 * their safety is checked; behind the year 2200 our tables end.
 */
#include <time.h>

#include "agent/base/bytes.h"
#include "parsers/zone.h"
#include "parsers/zone_rule.h"
#include "tests/fuzz/fuzz.h"

#define YEAR_2200 INT64_C(7258118400)

static void check_promises(const struct zone *z)
{
    static const int64_t times[] = { INT64_C(-9214560000), -1, 0, INT64_C(1767323045), INT64_C(4102444800), INT64_C(9214646400) };
    for (size_t i = 0; i < ARRAY_LEN(times); i++) {
        int32_t offset = zone_offset(z, times[i]);
        fuzz_check(offset >= -26 * 3600 && offset <= 26 * 3600, "an offset of %d s", (int)offset);
        int64_t away = zone_to_utc(z, times[i]) - times[i];
        fuzz_check(away >= -26 * 3600 && away <= 26 * 3600, "UTC is %lld s away", (long long)away);
    }
}

static void fuzz_file(struct slice in)
{
    struct zone *z;
    if (zone_from_tzif(in, &z) < 0)
        return;
    check_promises(z);
    int32_t offset;
    (void)zone_abbreviation(z, SLICE("CET"), &offset);
    zone_free(z);
}

static void fuzz_rule(struct slice in)
{
    struct zone_rule r;
    if (!zone_rule_parse(in, &r))
        return;
    fuzz_check(r.std_name.len >= 3 && (!r.has_dst || r.dst_name.len >= 3), "a short name");
    for (int64_t year = 1970; year <= 2200; year += 23) {
        int64_t first = (year - 1970) * 365 * 86400;
        int64_t start = r.has_dst ? zone_rule_at(&r.start, year) : first;
        fuzz_check(start >= first - 8 * 86400 && start <= first + (365 + 70) * INT64_C(86400), "a change in another year");
    }
}

/* The C library's tables are one per process: TZ is set for each question. */
static void fuzz_installed(struct slice in)
{
    static const char *const names[] = { "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu",
                                         "Africa/Casablanca", "America/St_Johns", "Pacific/Apia", "Europe/Dublin", "UTC" };
    static struct zone *zones[ARRAY_LEN(names)];
    size_t i = fuzz_take_byte(&in) % ARRAY_LEN(names);
    if (in.len < 8)
        return;
    if (zones[i] == NULL)
        fuzz_check(zone_load(slice_cstr(names[i]), &zones[i], NULL) == 0, "zone %s", names[i]);
    int64_t utc = (int64_t)(get_le64(in.ptr) % (uint64_t)YEAR_2200);
    (void)setenv("TZ", names[i], 1);
    tzset();
    struct tm tm;
    time_t t = (time_t)utc;
    fuzz_check(localtime_r(&t, &tm) != NULL, "localtime");
    int32_t offset = zone_offset(zones[i], utc);
    fuzz_check(offset == tm.tm_gmtoff, "%s at %lld: %d instead of %ld", names[i], (long long)utc, (int)offset, tm.tm_gmtoff);
    /* There and back, but for the hour that comes twice: then it is its first coming. */
    int64_t back = zone_to_utc(zones[i], utc + offset);
    fuzz_check(back == utc || (back < utc && zone_offset(zones[i], back) == utc + offset - back), "%s: back at %lld from %lld",
               names[i], (long long)back, (long long)utc);
}

int fuzz_zone(const uint8_t *data, size_t size)
{
    struct slice in = slice_of(data, size);
    switch (fuzz_take_byte(&in)) {
    case 'f':
        fuzz_file(in);
        return 0;
    case 'r':
        fuzz_rule(in);
        return 0;
    case 'z':
        fuzz_installed(in);
        return 0;
    default:
        return -1;
    }
}
