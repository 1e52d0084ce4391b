/* model_time.h - RFC 3339 and its relatives by a regular expression and the C library: beside parsers/timestamp.c. */
#ifndef TAILRACE_TESTS_FUZZ_MODEL_TIME_H
#define TAILRACE_TESTS_FUZZ_MODEL_TIME_H

#include <regex.h>
#include <time.h>

#include "tests/fuzz/fuzz.h"

#define MODEL_GROUPS 16

static inline void model_regex(regex_t *regex, const char *pattern)
{
    fuzz_check(regcomp(regex, pattern, REG_EXTENDED) == 0, "pattern %s", pattern);
}

/* On a copy with a NUL: with REG_STARTEND glibc still looks one byte behind the end. */
static inline bool model_matches(const regex_t *regex, struct slice s, regmatch_t groups[MODEL_GROUPS])
{
    char *copy = slice_dup(s);
    fuzz_check(copy != NULL, "memory");
    groups[0] = (regmatch_t){ .rm_so = 0, .rm_eo = (regoff_t)s.len };
    bool is_match = regexec(regex, copy, MODEL_GROUPS, groups, REG_STARTEND) == 0;
    free(copy);
    return is_match;
}

static inline struct slice model_group(struct slice s, regmatch_t g)
{
    return g.rm_so < 0 ? slice_of("", 0) : slice_of(s.ptr + g.rm_so, (size_t)(g.rm_eo - g.rm_so));
}

static inline int model_number(struct slice s)
{
    int v = 0;
    for (size_t i = 0; i < s.len; i++)
        v = v * 10 + (s.ptr[i] - '0');
    return v;
}

static inline int64_t model_nanos(struct slice digits)
{
    char nine[10] = "000000000";
    memcpy(nine, digits.ptr, MIN(digits.len, (size_t)9));
    return model_number(slice_of(nine, 9));
}

/* Z, +01:00, +0100, +01. false: no such offset. */
static inline bool model_offset(struct slice s, int64_t *ret_seconds)
{
    *ret_seconds = 0;
    if (s.ptr[0] == 'Z' || s.ptr[0] == 'z')
        return true;
    int h = model_number(slice_of(s.ptr + 1, 2)), m = s.len < 5 ? 0 : model_number(slice_of(s.ptr + s.len - 2, 2));
    *ret_seconds = (s.ptr[0] == '-' ? -1 : 1) * (h * 3600 + m * 60);
    return h <= 18 && m <= 59;
}

/* parts: six groups from the year on. */
static inline bool model_utc(struct slice s, const regmatch_t *parts, int64_t *ret_seconds)
{
    int v[6];
    for (int i = 0; i < 6; i++)
        v[i] = model_number(model_group(s, parts[i]));
    struct tm tm = { .tm_year = v[0] - 1900, .tm_mon = v[1] - 1, .tm_mday = v[2] }, day = tm;
    int64_t seconds = timegm(&tm);
    bool is_date = tm.tm_year == day.tm_year && tm.tm_mon == day.tm_mon && tm.tm_mday == day.tm_mday;
    *ret_seconds = seconds + v[3] * 3600 + v[4] * 60 + v[5];
    return is_date && v[0] >= 1678 && v[0] <= 2261 && v[3] <= 23 && v[4] <= 59 && v[5] <= 60;
}

#endif
