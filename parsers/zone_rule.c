#include "parsers/zone_rule.h"

#include "agent/base/clock.h"

struct cursor {
    struct slice rest;
};

static bool take(struct cursor *c, char byte)
{
    if (c->rest.len == 0 || c->rest.ptr[0] != byte)
        return false;
    c->rest = slice_from(c->rest, 1);
    return true;
}

static bool number(struct cursor *c, unsigned max, unsigned *ret_value)
{
    size_t n = 0;
    while (n < c->rest.len && n < 4 && c->rest.ptr[n] >= '0' && c->rest.ptr[n] <= '9')
        n++;
    uint64_t v;
    if (!slice_to_u64(slice_first(c->rest, n), &v) || v > max)
        return false;
    *ret_value = (unsigned)v;
    c->rest = slice_from(c->rest, n);
    return true;
}

/* [+-]h[h][:mm[:ss]] */
static bool hours(struct cursor *c, unsigned max_hours, int32_t *ret_seconds)
{
    bool is_negative = take(c, '-');
    if (!is_negative)
        (void)take(c, '+'); /* optional */
    unsigned h, m = 0, s = 0;
    if (!number(c, max_hours, &h))
        return false;
    if (take(c, ':') && (!number(c, 59, &m) || (take(c, ':') && !number(c, 59, &s))))
        return false;
    int32_t v = (int32_t)(h * 3600 + m * 60 + s);
    *ret_seconds = is_negative ? -v : v;
    return true;
}

static bool is_name_byte(char c, bool is_quoted)
{
    return ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || (is_quoted && ((c >= '0' && c <= '9') || c == '+' || c == '-'));
}

/* CET, <+03>: at least three characters. */
static bool name(struct cursor *c, struct slice *ret_name)
{
    bool is_quoted = take(c, '<');
    size_t n = 0;
    while (n < c->rest.len && is_name_byte(c->rest.ptr[n], is_quoted))
        n++;
    *ret_name = slice_first(c->rest, n);
    c->rest = slice_from(c->rest, n);
    return n >= 3 && (!is_quoted || take(c, '>'));
}

static bool change(struct cursor *c, struct zone_change *ret_change)
{
    struct zone_change ch = { .time_s = 2 * 3600 };
    if (!take(c, ','))
        return false;
    if (take(c, 'M')) {
        ch.kind = ZONE_DAY_MONTH;
        if (!number(c, 12, &ch.month) || ch.month == 0 || !take(c, '.') || !number(c, 5, &ch.week) || ch.week == 0 ||
            !take(c, '.') || !number(c, 6, &ch.day))
            return false;
    } else {
        ch.kind = take(c, 'J') ? ZONE_DAY_JULIAN : ZONE_DAY_ZERO;
        if (!number(c, 365, &ch.day) || (ch.kind == ZONE_DAY_JULIAN && ch.day == 0))
            return false;
    }
    if (take(c, '/') && !hours(c, 167, &ch.time_s))
        return false;
    *ret_change = ch;
    return true;
}

bool zone_rule_parse(struct slice text, struct zone_rule *ret_rule)
{
    struct cursor c = { text };
    struct zone_rule r = { 0 };
    int32_t west;
    if (!name(&c, &r.std_name) || !hours(&c, 24, &west))
        return false;
    r.std_offset = -west;
    if (c.rest.len > 0) {
        if (!name(&c, &r.dst_name))
            return false;
        r.has_dst = true;
        r.dst_offset = r.std_offset + 3600;
        if (c.rest.len > 0 && c.rest.ptr[0] != ',') {
            if (!hours(&c, 24, &west))
                return false;
            r.dst_offset = -west;
        }
        if (!change(&c, &r.start) || !change(&c, &r.end) || c.rest.len > 0)
            return false;
    }
    *ret_rule = r;
    return true;
}

static bool is_leap(int64_t y)
{
    return (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
}

int64_t zone_rule_at(const struct zone_change *change_, int64_t year)
{
    int64_t first = clock_days_from_civil(year, 1, 1), days = first;
    switch (change_->kind) {
    case ZONE_DAY_ZERO:
        days = first + change_->day;
        break;
    case ZONE_DAY_JULIAN: /* 60 is March 1st in every year */
        days = first + change_->day - 1 + (change_->day >= 60 && is_leap(year) ? 1 : 0);
        break;
    case ZONE_DAY_MONTH: {
        int64_t month_first = clock_days_from_civil(year, change_->month, 1);
        int64_t next = change_->month == 12 ? clock_days_from_civil(year + 1, 1, 1)
                                            : clock_days_from_civil(year, change_->month + 1, 1);
        int64_t weekday = ((month_first + 4) % 7 + 7) % 7; /* 1970-01-01 was a Thursday */
        days = month_first + ((int64_t)change_->day - weekday + 7) % 7 + 7 * ((int64_t)change_->week - 1);
        if (days >= next) /* week 5 is the last one */
            days -= 7;
        break;
    }
    }
    return days * 86400 + change_->time_s;
}
