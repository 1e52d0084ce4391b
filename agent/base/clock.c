#include "agent/base/clock.h"

#include <stdio.h>
#include <time.h>

static int64_t (*mono_source)(void);
static int64_t (*wall_source)(void);

static int64_t read_clock(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t); /* cannot fail for these clocks */
    return (int64_t)t.tv_sec * NS_PER_SEC + t.tv_nsec;
}

int64_t clock_mono_ns(void)
{
    return mono_source != NULL ? mono_source() : read_clock(CLOCK_MONOTONIC);
}

int64_t clock_wall_ns(void)
{
    return wall_source != NULL ? wall_source() : read_clock(CLOCK_REALTIME);
}

void clock_set_source(int64_t (*mono_ns)(void), int64_t (*wall_ns)(void))
{
    mono_source = mono_ns;
    wall_source = wall_ns;
}

int64_t clock_cpu_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* fails for no clock that is there */
    return t.tv_sec * NS_PER_SEC + t.tv_nsec;
}

/* Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": eras of 400 years that begin on March 1st. */
int64_t clock_days_from_civil(int64_t year, unsigned month, unsigned day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t yoe = y - era * 400;
    int64_t doy = (153 * ((int64_t)month + (month > 2 ? -3 : 9)) + 2) / 5 + (int64_t)day - 1;
    int64_t doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return era * 146097 + doe - 719468;
}

void clock_civil_from_days(int64_t days, int64_t *ret_year, unsigned *ret_month, unsigned *ret_day)
{
    int64_t z = days + 719468;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    int64_t doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t mp = (5 * doy + 2) / 153;
    *ret_day = (unsigned)(doy - (153 * mp + 2) / 5 + 1);
    *ret_month = (unsigned)(mp < 10 ? mp + 3 : mp - 9);
    *ret_year = yoe + era * 400 + (*ret_month <= 2 ? 1 : 0);
}

/* v < 10^n. In 32 bits: this is written for every document. */
static void put_digits(char *p, int64_t v, unsigned n)
{
    uint32_t rest = (uint32_t)v;
    for (unsigned i = n; i > 0; i--, rest /= 10)
        p[i - 1] = (char)('0' + rest % 10);
}

int clock_append_rfc3339(struct buf *b, int64_t wall_ns, unsigned digits)
{
    int64_t s = wall_ns / NS_PER_SEC, ns = wall_ns % NS_PER_SEC;
    if (ns < 0) {
        ns += NS_PER_SEC;
        s--;
    }
    int64_t days = s / 86400, rest = s % 86400, year;
    unsigned month, day;
    if (rest < 0) {
        rest += 86400;
        days--;
    }
    clock_civil_from_days(days, &year, &month, &day);
    /* int64 nanoseconds span 1677..2262: four digits always do. */
    char t[] = "0000-00-00T00:00:00.000000000";
    put_digits(t, year, 4);
    put_digits(t + 5, month, 2);
    put_digits(t + 8, day, 2);
    put_digits(t + 11, rest / 3600, 2);
    put_digits(t + 14, rest / 60 % 60, 2);
    put_digits(t + 17, rest % 60, 2);
    put_digits(t + 20, ns, 9);
    size_t len = digits == 0 ? 19 : 20 + (size_t)MIN(digits, 9u);
    t[len] = 'Z';
    return buf_append(b, t, len + 1);
}
