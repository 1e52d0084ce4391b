#include "parsers/timestamp.h"

#include "agent/base/bytes.h"
#include "agent/base/clock.h"

#define YEAR_MIN 1678
#define YEAR_MAX 2261
#define YEAR_NONE (-1) /* not written; 0000 is, and is no year */
#define DAY_S INT64_C(86400)

/* A time as written, piece by piece. */
struct stamp {
    int64_t year;
    unsigned month, day, hour, minute, second;
    int64_t nanos;
    bool has_offset;
    int32_t offset;
};

/* ---- pieces ------------------------------------------------------------------------------------------------------- */
/* Each takes the position by pointer, moves it behind what it read, and leaves it alone when it returns false. */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_alpha(char c)
{
    return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

static char at(struct slice s, size_t i)
{
    return i < s.len ? s.ptr[i] : '\0';
}

static bool two(struct slice s, size_t *pos, unsigned *ret_value)
{
    size_t i = *pos;
    if (s.len < 2 || i > s.len - 2 || !is_digit(s.ptr[i]) || !is_digit(s.ptr[i + 1]))
        return false;
    *ret_value = (unsigned)((s.ptr[i] - '0') * 10 + (s.ptr[i + 1] - '0'));
    *pos = i + 2;
    return true;
}

static bool four(struct slice s, size_t *pos, int64_t *ret_value)
{
    size_t i = *pos;
    unsigned high, low;
    if (!two(s, &i, &high) || !two(s, &i, &low))
        return false;
    *ret_value = (int64_t)(high * 100 + low);
    *pos = i;
    return true;
}

static bool byte(struct slice s, size_t *pos, char c)
{
    if (at(s, *pos) != c || *pos >= s.len)
        return false;
    ++*pos;
    return true;
}

/* .678 or ,678: at least one digit. */
static int64_t fraction(struct slice s, size_t *pos)
{
    size_t i = *pos;
    if ((at(s, i) != '.' && at(s, i) != ',') || !is_digit(at(s, i + 1)))
        return 0;
    int64_t nanos = 0, unit = NS_PER_SEC / 10;
    for (i++; is_digit(at(s, i)); i++, unit /= 10)
        nanos += (s.ptr[i] - '0') * unit;
    *pos = i;
    return nanos;
}

/* 15:04:05 and a fraction. */
static bool clock_time(struct slice s, size_t *pos, struct stamp *t)
{
    size_t i = *pos;
    if (!two(s, &i, &t->hour) || !byte(s, &i, ':') || !two(s, &i, &t->minute) || !byte(s, &i, ':') ||
        !two(s, &i, &t->second))
        return false;
    t->nanos = fraction(s, &i);
    *pos = i;
    return true;
}

static bool month_name(struct slice s, size_t *pos, unsigned *ret_month)
{
    static const char names[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    if (s.len < 3 || *pos > s.len - 3)
        return false;
    for (unsigned m = 0; m < 12; m++) {
        if (memcmp(s.ptr + *pos, names + m * (size_t)3, 3) == 0) {
            *ret_month = m + 1;
            *pos += 3;
            return true;
        }
    }
    return false;
}

/* "Fri " or "Fri, " */
static bool weekday(struct slice s, size_t *pos)
{
    static const char names[] = "MonTueWedThuFriSatSun";
    size_t i = *pos;
    if (s.len < 5 || i > s.len - 5)
        return false;
    for (unsigned d = 0; d < 7; d++) {
        if (memcmp(s.ptr + i, names + d * (size_t)3, 3) != 0)
            continue;
        i += 3;
        (void)byte(s, &i, ','); /* optional */
        if (!byte(s, &i, ' '))
            return false;
        *pos = i;
        return true;
    }
    return false;
}

/* 2, 02 or " 2" */
static bool day_of_month(struct slice s, size_t *pos, unsigned *ret_day)
{
    size_t i = *pos;
    if (two(s, pos, ret_day))
        return true;
    (void)byte(s, &i, ' '); /* optional */
    if (!is_digit(at(s, i)) || is_digit(at(s, i + 1)))
        return false;
    *ret_day = (unsigned)(s.ptr[i] - '0');
    *pos = i + 1;
    return true;
}

/* Z, +hh:mm, +hhmm, and where no blank came before, +hh. */
static bool numeric_offset(struct slice s, size_t *pos, bool may_be_short, struct stamp *t)
{
    size_t i = *pos;
    char sign = at(s, i);
    if (sign == 'Z' || sign == 'z') {
        t->offset = 0;
        t->has_offset = true;
        *pos = i + 1;
        return true;
    }
    unsigned h, m = 0;
    if (sign != '+' && sign != '-')
        return false;
    i++;
    if (!two(s, &i, &h))
        return false;
    size_t after_hours = i;
    (void)byte(s, &i, ':'); /* optional */
    if (!two(s, &i, &m)) {
        if (!may_be_short)
            return false;
        i = after_hours;
    }
    if (h > 18 || m > 59)
        return false;
    t->offset = (int32_t)(h * 3600 + m * 60) * (sign == '-' ? -1 : 1);
    t->has_offset = true;
    *pos = i;
    return true;
}

/* Names that are written into logs; where one has several meanings, the one that servers are set to. */
static const struct {
    struct slice name;
    int32_t minutes;
} abbreviations[] = {
    { SLICE_INIT("UTC"), 0 },    { SLICE_INIT("GMT"), 0 },    { SLICE_INIT("WET"), 0 },    { SLICE_INIT("WEST"), 60 },
    { SLICE_INIT("BST"), 60 },   { SLICE_INIT("CET"), 60 },   { SLICE_INIT("CEST"), 120 }, { SLICE_INIT("EET"), 120 },
    { SLICE_INIT("EEST"), 180 }, { SLICE_INIT("MSK"), 180 },  { SLICE_INIT("SAST"), 120 }, { SLICE_INIT("IST"), 330 },
    { SLICE_INIT("PKT"), 300 },  { SLICE_INIT("HKT"), 480 },  { SLICE_INIT("JST"), 540 },  { SLICE_INIT("KST"), 540 },
    { SLICE_INIT("AWST"), 480 }, { SLICE_INIT("AEST"), 600 }, { SLICE_INIT("AEDT"), 660 }, { SLICE_INIT("NZST"), 720 },
    { SLICE_INIT("NZDT"), 780 }, { SLICE_INIT("EST"), -300 }, { SLICE_INIT("EDT"), -240 }, { SLICE_INIT("CST"), -360 },
    { SLICE_INIT("CDT"), -300 }, { SLICE_INIT("MST"), -420 }, { SLICE_INIT("MDT"), -360 }, { SLICE_INIT("PST"), -480 },
    { SLICE_INIT("PDT"), -420 }, { SLICE_INIT("AKST"), -540 }, { SLICE_INIT("AKDT"), -480 }, { SLICE_INIT("HST"), -600 },
};

/* A known zone's name; the input's own timezone knows best what its names mean. "INFO" and other words are no zones. */
static bool named_offset(const struct timestamp_env *env, struct slice s, size_t *pos, struct stamp *t)
{
    size_t n = 0;
    while (at(s, *pos + n) >= 'A' && at(s, *pos + n) <= 'Z')
        n++;
    char next = at(s, *pos + n);
    if (n < 3 || n > 5 || is_alpha(next) || is_digit(next))
        return false;
    struct slice name = slice_first(slice_from(s, *pos), n);
    bool is_known = env->zone != NULL && zone_abbreviation(env->zone, name, &t->offset);
    for (size_t i = 0; !is_known && i < ARRAY_LEN(abbreviations); i++) {
        is_known = slice_eq(name, abbreviations[i].name);
        t->offset = abbreviations[i].minutes * 60;
    }
    t->has_offset = is_known;
    *pos += is_known ? n : 0;
    return is_known;
}

/* Whatever offset follows; none is fine. */
static void optional_offset(const struct timestamp_env *env, struct slice s, size_t *pos, struct stamp *t)
{
    size_t i = *pos;
    if (numeric_offset(s, pos, true, t) || !byte(s, &i, ' '))
        return;
    char c = at(s, i);
    bool is_read = c == '+' || c == '-' ? numeric_offset(s, &i, false, t) : named_offset(env, s, &i, t);
    if (is_read)
        *pos = i;
}

/* ---- stamp -> nanoseconds ----------------------------------------------------------------------------------------- */

static bool is_date(int64_t year, unsigned month, unsigned day)
{
    static const unsigned char days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    if (year < YEAR_MIN || year > YEAR_MAX || month < 1 || month > 12 || day < 1)
        return false;
    bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return day <= days[month - 1] + (month == 2 && is_leap ? 1u : 0u);
}

static bool to_ns(const struct zone *zone, const struct stamp *t, int64_t *ret_ns)
{
    if (!is_date(t->year, t->month, t->day) || t->hour > 23 || t->minute > 59 || t->second > 60)
        return false;
    int64_t local = clock_days_from_civil(t->year, t->month, t->day) * DAY_S + t->hour * 3600 + t->minute * 60 + t->second;
    int64_t utc = local;
    if (t->has_offset)
        utc = local - t->offset;
    else if (zone != NULL)
        utc = zone_to_utc(zone, local);
    *ret_ns = utc * NS_PER_SEC + t->nanos;
    return true;
}

/* Of the years around now, the one that brings the time nearest. February 29th may be four years away. */
static bool to_ns_without_year(const struct timestamp_env *env, struct stamp *t, int64_t *ret_ns)
{
    int64_t year;
    unsigned month, day;
    int64_t now_s = env->now_ns / NS_PER_SEC, best = 0, best_away = INT64_MAX;
    clock_civil_from_days((now_s - (now_s < 0 ? DAY_S - 1 : 0)) / DAY_S, &year, &month, &day);
    int64_t reach = t->month == 2 && t->day == 29 ? 8 : 1;
    for (int64_t y = year - reach; y <= year + reach; y++) {
        int64_t ns, away;
        t->year = y;
        if (!to_ns(env->zone, t, &ns) || __builtin_sub_overflow(ns, env->now_ns, &away))
            continue;
        away = away < 0 ? -away : away;
        if (away >= best_away)
            continue;
        best = ns;
        best_away = away;
    }
    t->year = YEAR_NONE;
    if (best_away == INT64_MAX)
        return false;
    *ret_ns = best;
    return true;
}

/* ---- the form that nearly all loggers write ----------------------------------------------------------------------- */

/* The two digits at p; *bad gets a bit beyond 0xf when they are none. */
static inline unsigned pair_at(const char *p, unsigned *bad)
{
    unsigned high = (unsigned)(unsigned char)p[0] - '0', low = (unsigned)(unsigned char)p[1] - '0';
    *bad |= (high > 9) | (low > 9);
    return high * 10 + low;
}

/* 2026-01-02T15:04:05 at p, 19 bytes, whatever stands for the T, in seconds of UTC. */
static bool read_second(const char *p, int64_t *ret_utc_s)
{
    if (p[4] != '-' || p[7] != '-' || p[13] != ':' || p[16] != ':')
        return false;
    unsigned bad = 0;
    struct stamp t = { .year = pair_at(p, &bad) * 100, .has_offset = true };
    t.year += pair_at(p + 2, &bad);
    t.month = pair_at(p + 5, &bad);
    t.day = pair_at(p + 8, &bad);
    t.hour = pair_at(p + 11, &bad);
    t.minute = pair_at(p + 14, &bad);
    t.second = pair_at(p + 17, &bad);
    int64_t ns;
    if (bad != 0 || !to_ns(NULL, &t, &ns))
        return false;
    *ret_utc_s = ns / NS_PER_SEC;
    return true;
}

/* The same, of the second that was read last if it is that again: lines come by the thousand a second, and a frame's time and
 * that of the line in it are mostly of one. */
static bool utc_second(const char *p, int64_t *ret_utc_s)
{
    static _Thread_local struct {
        uint64_t text[3]; /* bytes 0 to 7, 8 to 15, 11 to 18; at first they contradict each other */
        int64_t utc_s;
    } last = { .text = { 0, 0, 1 } };
    const uint64_t text[3] = { get_le64(p), get_le64(p + 8), get_le64(p + 11) };
    if (((text[0] ^ last.text[0]) | (text[1] ^ last.text[1]) | (text[2] ^ last.text[2])) != 0) {
        if (!read_second(p, &last.utc_s))
            return false; /* utc_s is what it was */
        memcpy(last.text, text, sizeof(text));
    }
    *ret_utc_s = last.utc_s;
    return true;
}

/* The eight bytes at s.ptr + i, the first lowest; zeros behind the end. i < s.len, and s has eight. */
static uint64_t eight_at(struct slice s, size_t i)
{
    size_t left = s.len - i;
    return left >= 8 ? get_le64(s.ptr + i) : get_le64(s.ptr + s.len - 8) >> (8 * (8 - left));
}

/* Up to nine digits at s.ptr + i as a fraction, eight at once. How many. */
static size_t nine_digits(struct slice s, size_t i, int64_t *ret_nanos)
{
    static const int64_t units[] = { 1000000000, 100000000, 10000000, 1000000, 100000, 10000, 1000, 100, 10, 1 };
    const uint64_t all = UINT64_C(0x0101010101010101);
    uint64_t v = eight_at(s, i) ^ (all * '0'); /* a digit is 0 to 9 now, nothing else is */
    uint64_t others = (((v & (all * 0x7f)) + all * (0x7f - 9)) | v) & (all * 0x80);
    size_t n = others == 0 ? 8 : (size_t)__builtin_ctzll(others) / 8;
    if (n == 0)
        return 0;
    v <<= 8 * (8 - n); /* zeros before them */
    v = v * 10 + (v >> 8);
    v = ((v & UINT64_C(0x000000ff000000ff)) * UINT64_C(0x000f424000000064) +
         ((v >> 16 & UINT64_C(0x000000ff000000ff)) * UINT64_C(0x0000271000000001))) >> 32;
    int64_t value = (int64_t)v;
    if (n == 8 && is_digit(at(s, i + 8)))
        value = value * 10 + (s.ptr[i + n++] - '0');
    *ret_nanos = value * units[n];
    return n;
}

/* 2026-01-02T15:04:05Z, with a fraction or without; 0: another form, or none, let the general way say which. */
static size_t utc_form(struct slice s, int64_t *ret_ns)
{
    int64_t utc_s, nanos = 0;
    size_t n = 19;
    if (s.len < 20 || s.ptr[10] != 'T' || !utc_second(s.ptr, &utc_s))
        return 0;
    if (s.ptr[n] == '.') {
        size_t digits = s.len == 20 ? 0 : nine_digits(s, 20, &nanos);
        if (digits == 0)
            return 0;
        n = 20 + digits;
    }
    if (n == s.len || s.ptr[n] != 'Z')
        return 0;
    *ret_ns = utc_s * NS_PER_SEC + nanos;
    return n + 1;
}

/* ---- forms -------------------------------------------------------------------------------------------------------- */
/* Each returns the position behind the time, 0 when s is not of its form. */

/* 2026-01-02T15:04:05, with - or / in the date and T or a blank behind it. */
static size_t iso_form(const struct timestamp_env *env, struct slice s, struct stamp *t)
{
    size_t i = 0;
    if (!four(s, &i, &t->year))
        return 0;
    char sep = at(s, i);
    if ((sep != '-' && sep != '/') || !byte(s, &i, sep) || !two(s, &i, &t->month) || !byte(s, &i, sep) ||
        !two(s, &i, &t->day))
        return 0;
    if (!byte(s, &i, 'T') && !byte(s, &i, ' ') && !byte(s, &i, 't'))
        return 0;
    if (!clock_time(s, &i, t))
        return 0;
    optional_offset(env, s, &i, t);
    return i;
}

/* 02/Jan/2026:15:04:05 +0000, and php-fpm's 02-Jan-2026 15:04:05 */
static size_t access_log_form(const struct timestamp_env *env, struct slice s, struct stamp *t)
{
    size_t i = 0;
    char sep = at(s, 2);
    if (!two(s, &i, &t->day) || !byte(s, &i, sep) || !month_name(s, &i, &t->month) || !byte(s, &i, sep) ||
        !four(s, &i, &t->year) || !byte(s, &i, sep == '/' ? ':' : ' ') || !clock_time(s, &i, t))
        return 0;
    optional_offset(env, s, &i, t);
    return i;
}

/* 02 Jan 2026 15:04:05 */
static size_t day_first_form(const struct timestamp_env *env, struct slice s, size_t i, struct stamp *t)
{
    if (!day_of_month(s, &i, &t->day) || !byte(s, &i, ' ') || !month_name(s, &i, &t->month) || !byte(s, &i, ' ') ||
        !four(s, &i, &t->year) || !byte(s, &i, ' ') || !clock_time(s, &i, t))
        return 0;
    optional_offset(env, s, &i, t);
    return i;
}

/* " 2026", not followed by more of a word or number. */
static void trailing_year(struct slice s, size_t *pos, struct stamp *t)
{
    size_t i = *pos;
    int64_t year;
    if (byte(s, &i, ' ') && four(s, &i, &year) && !is_digit(at(s, i)) && !is_alpha(at(s, i)) && at(s, i) != '-' &&
        at(s, i) != '.' && at(s, i) != ':') {
        t->year = year;
        *pos = i;
    }
}

/* Jan  2 15:04:05, Jan  2 2026 15:04:05, and behind a weekday Jan 02 15:04:05 2026 */
static size_t month_first_form(const struct timestamp_env *env, struct slice s, size_t i, bool has_weekday, struct stamp *t)
{
    if (!month_name(s, &i, &t->month) || !byte(s, &i, ' ') || !day_of_month(s, &i, &t->day) || !byte(s, &i, ' '))
        return 0;
    size_t with_year = i;
    if (four(s, &with_year, &t->year) && byte(s, &with_year, ' '))
        i = with_year;
    else
        t->year = YEAR_NONE;
    if (!clock_time(s, &i, t))
        return 0;
    optional_offset(env, s, &i, t);
    if (has_weekday && t->year == YEAR_NONE)
        trailing_year(s, &i, t);
    return i;
}

static size_t any_form(const struct timestamp_env *env, struct slice s, struct stamp *t)
{
    if (s.len < 14) /* "Jan 2 15:04:05" */
        return 0;
    if (is_digit(s.ptr[0])) {
        if (s.ptr[2] == '/' || s.ptr[2] == '-')
            return access_log_form(env, s, t);
        if (s.ptr[1] == ' ' || s.ptr[2] == ' ')
            return day_first_form(env, s, 0, t);
        return iso_form(env, s, t);
    }
    size_t i = 0;
    bool has_weekday = weekday(s, &i);
    if (has_weekday && (is_digit(at(s, i)) || at(s, i) == ' '))
        return day_first_form(env, s, i, t);
    return month_first_form(env, s, i, has_weekday, t);
}

/* ---- public ------------------------------------------------------------------------------------------------------- */

size_t timestamp_scan(const struct timestamp_env *env, struct slice s, int64_t *ret_ns)
{
    struct stamp t = { .year = YEAR_NONE };
    size_t n = utc_form(s, ret_ns);
    if (n > 0 && !is_alpha(at(s, n)) && !is_digit(at(s, n)))
        return n;
    n = any_form(env, s, &t);
    if (n == 0 || is_alpha(at(s, n)) || is_digit(at(s, n)))
        return 0;
    bool is_good = t.year == YEAR_NONE ? to_ns_without_year(env, &t, ret_ns) : to_ns(env->zone, &t, ret_ns);
    return is_good ? n : 0;
}

size_t timestamp_scan_klog(const struct timestamp_env *env, struct slice s, int64_t *ret_ns)
{
    struct stamp t = { 0 };
    size_t i = 0;
    if (!two(s, &i, &t.month) || !two(s, &i, &t.day) || !byte(s, &i, ' ') || !clock_time(s, &i, &t))
        return 0;
    return to_ns_without_year(env, &t, ret_ns) ? i : 0;
}

size_t timestamp_rfc3339(struct slice s, int64_t *ret_ns)
{
    struct stamp t = { 0 };
    size_t i = utc_form(s, ret_ns);
    if (i > 0)
        return i;
    if (!four(s, &i, &t.year) || !byte(s, &i, '-') || !two(s, &i, &t.month) || !byte(s, &i, '-') ||
        !two(s, &i, &t.day) || !byte(s, &i, 'T') || !clock_time(s, &i, &t) || !numeric_offset(s, &i, false, &t))
        return 0;
    return to_ns(NULL, &t, ret_ns) ? i : 0;
}

bool timestamp_parse(const struct timestamp_env *env, struct slice s, int64_t *ret_ns)
{
    s = slice_trim(s);
    size_t n = timestamp_scan(env, s, ret_ns);
    if (n > 0)
        return n == s.len;
    return timestamp_from_number(s, ret_ns);
}

/* ---- epochs ------------------------------------------------------------------------------------------------------- */

#define DIGITS_KEPT 19 /* fit in 64 bits; no double rounds anything */

/* A decimal number as digits * 10^exponent. */
struct decimal {
    uint64_t digits;
    int exponent;
    int n_integer; /* digits before the point */
};

static bool read_exponent(struct slice s, size_t *pos, int *ret_exponent)
{
    size_t i = *pos;
    if (at(s, i) != 'e' && at(s, i) != 'E')
        return true;
    i++;
    bool is_negative = at(s, i) == '-';
    if (at(s, i) == '-' || at(s, i) == '+')
        i++;
    int v = 0;
    size_t from = i;
    for (; is_digit(at(s, i)); i++)
        v = MIN(v * 10 + (s.ptr[i] - '0'), 1000);
    *ret_exponent += is_negative ? -v : v;
    *pos = i;
    return i > from;
}

static bool read_decimal(struct slice s, struct decimal *ret_decimal)
{
    struct decimal d = { 0 };
    size_t i = 0;
    int n_kept = 0;
    bool has_point = false, has_digits = false;
    for (; i < s.len; i++) {
        if (s.ptr[i] == '.' && !has_point && has_digits) {
            has_point = true;
            continue;
        }
        if (!is_digit(s.ptr[i]))
            break;
        has_digits = true;
        if (n_kept < DIGITS_KEPT) {
            d.digits = d.digits * 10 + (uint64_t)(s.ptr[i] - '0');
            n_kept += d.digits > 0 ? 1 : 0; /* zeros in front do not count */
            d.exponent -= has_point ? 1 : 0;
        } else {
            d.exponent = MIN(d.exponent + (has_point ? 0 : 1), 1000);
        }
    }
    if (d.digits == 0 || !read_exponent(s, &i, &d.exponent) || i != s.len)
        return false;
    d.n_integer = n_kept + d.exponent;
    *ret_decimal = d;
    return true;
}

bool timestamp_from_number(struct slice s, int64_t *ret_ns)
{
    struct decimal d;
    if (!read_decimal(s, &d) || d.n_integer < 9 || d.n_integer > 19)
        return false;
    int exponent = d.exponent + (d.n_integer <= 11 ? 9 : d.n_integer <= 14 ? 6 : d.n_integer <= 17 ? 3 : 0);
    uint64_t ns = d.digits; /* 950000000000.1234567 has 19 digits and passes INT64_MAX before it is divided */
    for (; exponent < 0; exponent++)
        ns /= 10;
    for (; exponent > 0; exponent--)
        if (__builtin_mul_overflow(ns, UINT64_C(10), &ns))
            return false;
    if (ns > INT64_MAX)
        return false;
    *ret_ns = (int64_t)ns;
    return true;
}
