/*
 * fuzz_glob.c - globs over values (slice_glob) and over paths (tail/pattern.h), beside matchers that try everything.
 *
 * PATTERN LF TEXT. The models take exponential time, so they only see short ones with few stars.
 */
#include "agent/tail/pattern.h"
#include "tests/fuzz/fuzz.h"

#define MODEL_BYTES_MAX 48
#define MODEL_STARS_MAX 5

/* The end of a class that opens at p[0], 0: none, it is a bracket. ^ negates in paths only. */
static size_t class_of(struct slice p, bool is_path, size_t *ret_from, bool *ret_is_not)
{
    size_t i = 1;
    *ret_is_not = i < p.len && (p.ptr[i] == '!' || p.ptr[i] == '^');
    i += *ret_is_not;
    *ret_from = i;
    (void)is_path;
    if (i < p.len && p.ptr[i] == ']')
        i++;
    while (i < p.len && p.ptr[i] != ']')
        i++;
    return i < p.len ? i : 0;
}

static bool class_takes(struct slice inside, unsigned char c)
{
    for (size_t i = 0; i < inside.len; i++) {
        unsigned char lo = (unsigned char)inside.ptr[i], hi = lo;
        if (i + 2 < inside.len && inside.ptr[i + 1] == '-') {
            hi = (unsigned char)inside.ptr[i + 2];
            i += 2;
        }
        if (c >= lo && c <= hi)
            return true;
    }
    return false;
}

/* The first element of p: does it take c, and how long is it? */
static bool element(struct slice p, char c, bool is_path, size_t *ret_len)
{
    size_t from;
    bool is_not;
    *ret_len = 1;
    if (p.ptr[0] == '?')
        return true;
    if (p.ptr[0] == '\\' && p.len > 1) {
        *ret_len = 2;
        return p.ptr[1] == c;
    }
    size_t end = p.ptr[0] == '[' ? class_of(p, is_path, &from, &is_not) : 0;
    if (end > 0) {
        *ret_len = end + 1;
        return class_takes(slice_of(p.ptr + from, end - from), (unsigned char)c) != is_not;
    }
    return p.ptr[0] == c;
}

static bool glob(struct slice p, struct slice s)
{
    if (p.len == 0)
        return s.len == 0;
    if (p.ptr[0] == '*')
        return glob(slice_from(p, 1), s) || (s.len > 0 && glob(p, slice_from(s, 1)));
    size_t len;
    return s.len > 0 && element(p, s.ptr[0], false, &len) && glob(slice_from(p, len), slice_from(s, 1));
}

static size_t stars(struct slice p)
{
    size_t n = 0;
    for (size_t i = 0; i < p.len; i++)
        n += p.ptr[i] == '*' || p.ptr[i] == '<';
    return n;
}

/* ---- paths -------------------------------------------------------------------------------------------------------- */

/* One part of a path with its captures; the first way that fits, longest runs first. */
static bool part(struct slice p, struct slice s, struct pair *caps, size_t n)
{
    if (p.len == 0)
        return s.len == 0;
    if (p.ptr[0] == '*' || p.ptr[0] == '<') {
        size_t least = p.ptr[0] == '<', len = 1;
        struct slice name = { "", 0 };
        if (least == 1) {
            name = slice_of(p.ptr + 1, (size_t)slice_find_byte(p, '>') - 1);
            len = name.len + 2;
        }
        for (size_t take = s.len + 1; take-- > least;) {
            if (!part(slice_from(p, len), slice_from(s, take), caps, n + least))
                continue;
            if (least == 1)
                caps[n] = (struct pair){ name, slice_first(s, take) };
            return true;
        }
        return false;
    }
    size_t len;
    return s.len > 0 && element(p, s.ptr[0], true, &len) && part(slice_from(p, len), slice_from(s, 1), caps, n);
}

static size_t captures_in(struct slice p)
{
    size_t n = 0;
    for (size_t i = 0; i < p.len; i++) {
        size_t from, end;
        bool is_not;
        if (p.ptr[i] == '\\' && i + 1 < p.len)
            i++;
        else if (p.ptr[i] == '[' && (end = class_of(slice_from(p, i), true, &from, &is_not)) > 0)
            i += end;
        else
            n += p.ptr[i] == '<';
    }
    return n;
}

static struct slice next_part(struct slice *path)
{
    struct slice p;
    do
        p = fuzz_take_until(path, '/');
    while ((p.len == 0 || slice_eq(p, SLICE("."))) && path->len > 0);
    return slice_eq(p, SLICE(".")) ? SLICE("") : p;
}

/* names are not skipped when they are "." - a path from the kernel has none. */
static struct slice next_name(struct slice *path)
{
    struct slice p;
    do
        p = fuzz_take_until(path, '/');
    while (p.len == 0 && path->len > 0);
    return p;
}

static bool path(struct slice pattern, struct slice text, struct pair *caps, size_t n, size_t *ret_n)
{
    struct slice rest = pattern, names = text, p = next_part(&rest);
    if (p.len == 0) {
        *ret_n = n;
        return next_name(&names).len == 0;
    }
    if (slice_eq(p, SLICE("**"))) {
        struct slice behind = rest;
        while (slice_eq(next_part(&behind), SLICE("**")))
            rest = behind;
        behind = rest;
        bool is_last = next_part(&behind).len == 0;
        for (;;) {
            struct slice before = names;
            if (is_last ? path(SLICE("*"), names, caps, n, ret_n) : path(rest, names, caps, n, ret_n))
                return true;
            if (next_name(&names).len == 0 || names.ptr == before.ptr)
                return false;
        }
    }
    struct slice name = next_name(&names);
    return name.len > 0 && name.len <= 255 && part(p, name, caps, n) && path(rest, names, caps, n + captures_in(p), ret_n);
}

static void check_path(struct slice text, struct slice name)
{
    struct pattern *p;
    struct err err = { 0 };
    struct pair caps[PATTERN_CAPTURES_MAX], want[PATTERN_CAPTURES_MAX + 1] = { 0 };
    size_t n = 0, n_want = 0;
    if (pattern_parse(text, &p, &err) < 0) {
        fuzz_check(slice_cstr(err.text).len > 0, "refused without a word");
        return;
    }
    bool is_match = pattern_match(p, name, caps, &n);
    fuzz_check(slice_eq(pattern_text(p), text), "its text");
    fuzz_check(!is_match || pattern_covers(p, name), "it matches, and does not cover");
    for (size_t i = 0; is_match && i < n; i++)
        fuzz_check(caps[i].name.len > 0 && caps[i].value.len > 0, "an empty capture");
    if (text.len + name.len <= MODEL_BYTES_MAX && stars(text) <= MODEL_STARS_MAX) {
        char any[MODEL_BYTES_MAX + 4] = "**/";
        memcpy(any + 3, text.ptr, text.len);
        struct slice whole = text.ptr[0] == '/' ? text : slice_of(any, text.len + 3);
        bool want_match = path(whole, name, want, 0, &n_want);
        fuzz_check(is_match == want_match, "'%.*s' %s '%.*s'", SLICE_ARGS(text), is_match ? "matches" : "does not match",
                   SLICE_ARGS(name));
        fuzz_check(!is_match || n == n_want, "%zu captures instead of %zu", n, n_want);
        for (size_t i = 0; is_match && i < n; i++)
            fuzz_check(slice_eq(caps[i].name, want[i].name) && slice_eq(caps[i].value, want[i].value),
                       "<%.*s> is '%.*s' instead of '%.*s'", SLICE_ARGS(caps[i].name), SLICE_ARGS(caps[i].value),
                       SLICE_ARGS(want[i].value));
    }
    pattern_free(p);
}

int fuzz_glob(const uint8_t *data, size_t size)
{
    struct slice in = slice_of(data, size), pattern = fuzz_take_until(&in, '\n');
    bool is_match = slice_glob(pattern, in);
    if (pattern.len + in.len <= MODEL_BYTES_MAX && stars(pattern) <= MODEL_STARS_MAX)
        fuzz_check(is_match == glob(pattern, in), "'%.*s' %s '%.*s'", SLICE_ARGS(pattern), is_match ? "matches" : "does not match",
                   SLICE_ARGS(in));
    check_path(pattern, in);
    return 0;
}
