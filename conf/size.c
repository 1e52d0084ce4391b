#include "conf/size.h"

#include "agent/base/clock.h"

struct unit {
    struct slice name;
    uint64_t factor;
};

static const struct unit size_units[] = {
    { SLICE_INIT("TiB"), UINT64_C(1) << 40 },
    { SLICE_INIT("GiB"), 1 << 30 },
    { SLICE_INIT("MiB"), 1 << 20 },
    { SLICE_INIT("KiB"), 1 << 10 },
    { SLICE_INIT("Ti"), UINT64_C(1) << 40 },
    { SLICE_INIT("Gi"), 1 << 30 },
    { SLICE_INIT("Mi"), 1 << 20 },
    { SLICE_INIT("Ki"), 1 << 10 },
    { SLICE_INIT("TB"), 1000000000000 },
    { SLICE_INIT("GB"), 1000000000 },
    { SLICE_INIT("MB"), 1000000 },
    { SLICE_INIT("kB"), 1000 },
    { SLICE_INIT("KB"), 1000 },
    { SLICE_INIT("B"), 1 },
    { SLICE_INIT(""), 1 },
};
#define SIZE_UNITS_PRINTED 4

static const struct unit duration_units[] = {
    { SLICE_INIT("w"), UINT64_C(7) * 86400 * NS_PER_SEC },
    { SLICE_INIT("d"), UINT64_C(86400) * NS_PER_SEC },
    { SLICE_INIT("h"), UINT64_C(3600) * NS_PER_SEC },
    { SLICE_INIT("m"), UINT64_C(60) * NS_PER_SEC },
    { SLICE_INIT("s"), NS_PER_SEC },
    { SLICE_INIT("ms"), NS_PER_MS },
    { SLICE_INIT("us"), 1000 },
    { SLICE_INIT("ns"), 1 },
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static struct slice take_digits(struct slice *s)
{
    size_t n = 0;
    while (n < s->len && is_digit(s->ptr[n]))
        n++;
    struct slice digits = slice_first(*s, n);
    *s = slice_from(*s, n);
    return digits;
}

/* "12" or "1.5" from the front of *s; the fraction counts in billionths. */
static bool take_number(struct slice *s, uint64_t *ret_whole, uint64_t *ret_billionths)
{
    *ret_billionths = 0;
    if (!slice_to_u64(take_digits(s), ret_whole))
        return false;
    if (s->len == 0 || s->ptr[0] != '.')
        return true;
    *s = slice_from(*s, 1);
    struct slice digits = take_digits(s);
    if (digits.len == 0 || digits.len > 9 || !slice_to_u64(digits, ret_billionths))
        return false;
    for (size_t i = digits.len; i < 9; i++)
        *ret_billionths *= 10;
    return true;
}

static bool scale(uint64_t whole, uint64_t billionths, uint64_t factor, uint64_t *ret_value)
{
    unsigned __int128 v =
        (unsigned __int128)whole * factor + (unsigned __int128)billionths * factor / 1000000000u;
    if (v > INT64_MAX)
        return false;
    *ret_value = (uint64_t)v;
    return true;
}

bool size_parse(struct slice text, uint64_t *ret_bytes)
{
    uint64_t whole, billionths;
    if (!take_number(&text, &whole, &billionths))
        return false;
    text = slice_trim(text);
    for (size_t i = 0; i < ARRAY_LEN(size_units); i++)
        if (slice_eq(text, size_units[i].name))
            return scale(whole, billionths, size_units[i].factor, ret_bytes);
    return false;
}

bool duration_parse(struct slice text, int64_t *ret_ns)
{
    if (slice_eq(text, SLICE("0"))) {
        *ret_ns = 0;
        return true;
    }
    uint64_t sum = 0;
    do {
        uint64_t whole, billionths, part = 0;
        if (!take_number(&text, &whole, &billionths))
            return false;
        size_t n = 0;
        while (n < text.len && !is_digit(text.ptr[n]))
            n++;
        struct slice name = slice_trim(slice_first(text, n));
        text = slice_from(text, n);
        size_t i = 0;
        while (i < ARRAY_LEN(duration_units) && !slice_eq(name, duration_units[i].name))
            i++;
        if (i == ARRAY_LEN(duration_units) || !scale(whole, billionths, duration_units[i].factor, &part))
            return false;
        if (__builtin_add_overflow(sum, part, &sum) || sum > INT64_MAX)
            return false;
    } while (text.len > 0);
    *ret_ns = (int64_t)sum;
    return true;
}

bool percent_parse(struct slice text, unsigned *ret_percent)
{
    uint64_t n;
    if (text.len > 0 && text.ptr[text.len - 1] == '%')
        text.len--;
    if (!slice_to_u64(text, &n) || n > 100)
        return false;
    *ret_percent = (unsigned)n;
    return true;
}

/* ---- points in time
 * ---------------------------------------------------------------------------------------------- */

static bool take_fixed(struct slice *s, size_t digits, unsigned max, unsigned *ret_value)
{
    uint64_t v;
    if (s->len < digits || !slice_to_u64(slice_first(*s, digits), &v) || v > max)
        return false;
    *ret_value = (unsigned)v;
    *s = slice_from(*s, digits);
    return true;
}

static bool take_char(struct slice *s, char c)
{
    if (s->len == 0 || s->ptr[0] != c)
        return false;
    *s = slice_from(*s, 1);
    return true;
}

/* Z or ±hh:mm, and nothing after it. */
static bool take_offset(struct slice *s, int64_t *ret_offset_s)
{
    if (take_char(s, 'Z') || take_char(s, 'z')) {
        *ret_offset_s = 0;
        return s->len == 0;
    }
    unsigned h, m;
    bool is_minus = s->len > 0 && s->ptr[0] == '-';
    if (!take_char(s, '+') && !take_char(s, '-'))
        return false;
    if (!take_fixed(s, 2, 23, &h) || !take_char(s, ':') || !take_fixed(s, 2, 59, &m) || s->len > 0)
        return false;
    *ret_offset_s = (int64_t)(h * 3600 + m * 60) * (is_minus ? -1 : 1);
    return true;
}

static bool take_clock(struct slice *s, int64_t *ret_ns)
{
    unsigned h, m, sec = 0;
    uint64_t billionths = 0;
    if (!take_fixed(s, 2, 23, &h) || !take_char(s, ':') || !take_fixed(s, 2, 59, &m))
        return false;
    if (take_char(s, ':')) {
        if (!take_fixed(s, 2, 60, &sec))
            return false;
        if (s->len > 0 && s->ptr[0] == '.') {
            struct slice fake = *s; /* ".5" without its whole number */
            uint64_t scale_by = 100000000;
            for (fake = slice_from(fake, 1); fake.len > 0 && is_digit(fake.ptr[0]);
                 fake = slice_from(fake, 1)) {
                billionths += (uint64_t)(fake.ptr[0] - '0') * scale_by;
                scale_by /= 10;
            }
            *s = fake;
        }
    }
    *ret_ns = (int64_t)(h * 3600 + m * 60 + sec) * NS_PER_SEC + (int64_t)billionths;
    return true;
}

bool wall_time_parse(struct slice text, int64_t *ret_wall_ns)
{
    static const unsigned month_days[] = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    unsigned year, month, day;
    int64_t of_day_ns = 0, offset_s = 0;
    if (!take_fixed(&text, 4, 2261, &year) || !take_char(&text, '-') || !take_fixed(&text, 2, 12, &month) ||
        !take_char(&text, '-') || !take_fixed(&text, 2, 31, &day))
        return false;
    bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (year < 1970 || month == 0 || day == 0 || day > month_days[month - 1] ||
        (month == 2 && day == 29 && !is_leap))
        return false;
    if (text.len > 0) {
        if (!take_char(&text, 'T') && !take_char(&text, 't') && !take_char(&text, ' '))
            return false;
        if (!take_clock(&text, &of_day_ns) || !take_offset(&text, &offset_s))
            return false;
    }
    int64_t days = clock_days_from_civil(year, month, day);
    *ret_wall_ns = (days * 86400 - offset_s) * NS_PER_SEC + of_day_ns;
    return true;
}

/* ---- and back
 * ---------------------------------------------------------------------------------------------------- */

static int append_exact(struct buf *b, uint64_t value, const struct unit *units, size_t n)
{
    size_t i = 0;
    while (i < n - 1 && (value == 0 || value % units[i].factor != 0))
        i++;
    size_t start = b->len;
    int r = buf_append_u64(b, value / units[i].factor);
    if (r == 0)
        r = buf_append_slice(b, units[i].name);
    if (r < 0)
        b->len = start;
    return r;
}

int size_append(struct buf *b, uint64_t bytes)
{
    for (size_t i = 0; i < SIZE_UNITS_PRINTED; i++)
        if (bytes > 0 && bytes % size_units[i].factor == 0)
            return append_exact(b, bytes, &size_units[i], 1);
    return buf_append_u64(b, bytes);
}

int duration_append(struct buf *b, int64_t ns)
{
    if (ns == 0)
        return buf_append_lit(b, "0s");
    /* Weeks are understood and not written: 7d is what people expect to see. */
    return append_exact(b, (uint64_t)ns, duration_units + 1, ARRAY_LEN(duration_units) - 1);
}
