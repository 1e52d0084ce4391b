#include "agent/base/slice.h"

#include <stdlib.h>

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

bool slice_ieq(struct slice a, struct slice b)
{
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++)
        if (lower(a.ptr[i]) != lower(b.ptr[i]))
            return false;
    return true;
}

int slice_cmp(struct slice a, struct slice b)
{
    size_t n = MIN(a.len, b.len);
    int r = n == 0 ? 0 : memcmp(a.ptr, b.ptr, n);
    if (r != 0)
        return r;
    return a.len < b.len ? -1 : a.len > b.len;
}

ptrdiff_t slice_find_byte(struct slice s, char c)
{
    const char *p = s.len == 0 ? NULL : memchr(s.ptr, c, s.len);
    return p == NULL ? -1 : p - s.ptr;
}

ptrdiff_t slice_rfind_byte(struct slice s, char c)
{
    const char *p = s.len == 0 ? NULL : memrchr(s.ptr, c, s.len);
    return p == NULL ? -1 : p - s.ptr;
}

ptrdiff_t slice_find(struct slice s, struct slice needle)
{
    if (needle.len == 0)
        return 0;
    const char *p = s.len == 0 ? NULL : memmem(s.ptr, s.len, needle.ptr, needle.len);
    return p == NULL ? -1 : p - s.ptr;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct slice slice_trim(struct slice s)
{
    while (s.len > 0 && is_blank(s.ptr[0]))
        s = slice_from(s, 1);
    while (s.len > 0 && is_blank(s.ptr[s.len - 1]))
        s.len--;
    return s;
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    __uint128_t m = (__uint128_t)a * b;
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

static uint64_t load_up_to_8(const char *p, size_t n)
{
    uint64_t v = 0;
    memcpy(&v, p, n);
    return v;
}

/* Multiply-and-fold over 16 bytes at a time. Values are for tables in this process only, never for a file. */
uint64_t slice_hash(struct slice s)
{
    uint64_t h = UINT64_C(0x9e3779b97f4a7c15) ^ s.len;
    const char *p = s.ptr;
    size_t n = s.len;
    for (; n >= 16; p += 16, n -= 16)
        h = mix(load_up_to_8(p, 8) ^ UINT64_C(0xa0761d6478bd642f), load_up_to_8(p + 8, 8) ^ h);
    uint64_t a = 0, b = 0;
    if (n > 8)
        b = load_up_to_8(p + 8, n - 8);
    if (n > 0)
        a = load_up_to_8(p, MIN(n, (size_t)8));
    return mix(a ^ UINT64_C(0xe7037ed1a0b428db), b ^ h ^ UINT64_C(0x8ebc6af09c88c6e3));
}

bool slice_to_u64(struct slice s, uint64_t *ret_value)
{
    uint64_t v = 0;
    if (s.len == 0)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return false;
        if (__builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(s.ptr[i] - '0'), &v))
            return false;
    }
    *ret_value = v;
    return true;
}

bool slice_to_i64(struct slice s, int64_t *ret_value)
{
    bool is_negative = s.len > 0 && s.ptr[0] == '-';
    uint64_t v;
    if (!slice_to_u64(is_negative ? slice_from(s, 1) : s, &v))
        return false;
    if (v > (uint64_t)INT64_MAX + (is_negative ? 1 : 0))
        return false;
    *ret_value = is_negative ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

/* One class "[...]" at p: does it hold c? *ret_next is behind the bracket; 0 when the bracket never closes. */
static bool class_holds(struct slice pattern, size_t p, char c, size_t *ret_next)
{
    size_t i = p + 1;
    bool is_not = i < pattern.len && (pattern.ptr[i] == '!' || pattern.ptr[i] == '^');
    bool holds = false;
    i += is_not;
    for (bool is_first = true; i < pattern.len; is_first = false) {
        if (pattern.ptr[i] == ']' && !is_first) {
            *ret_next = i + 1;
            return holds != is_not;
        }
        unsigned char from = (unsigned char)pattern.ptr[i], to = from;
        if (i + 2 < pattern.len && pattern.ptr[i + 1] == '-' && pattern.ptr[i + 2] != ']') {
            to = (unsigned char)pattern.ptr[i + 2];
            i += 2;
        }
        i++;
        if ((unsigned char)c >= from && (unsigned char)c <= to)
            holds = true;
    }
    *ret_next = 0;
    return false;
}

/* Does the single element at *p (not a '*') take c? Moves *p behind it. */
static bool element_takes(struct slice pattern, size_t *p, char c)
{
    char e = pattern.ptr[*p];
    size_t next;
    if (e == '[') {
        bool takes = class_holds(pattern, *p, c, &next);
        if (next != 0) {
            *p = next;
            return takes;
        }
    } else if (e == '?') {
        (*p)++;
        return true;
    } else if (e == '\\' && *p + 1 < pattern.len) {
        *p += 2;
        return pattern.ptr[*p - 1] == c;
    }
    (*p)++;
    return e == c;
}

bool slice_glob(struct slice pattern, struct slice s)
{
    size_t p = 0, i = 0, star_p = SIZE_MAX, star_i = 0;
    while (i < s.len) {
        size_t next = p;
        if (p < pattern.len && pattern.ptr[p] == '*') {
            star_p = ++p;
            star_i = i;
        } else if (p < pattern.len && element_takes(pattern, &next, s.ptr[i])) {
            p = next;
            i++;
        } else if (star_p != SIZE_MAX) {
            p = star_p; /* the last star takes one byte more; earlier stars need no second try */
            i = ++star_i;
        } else {
            return false;
        }
    }
    while (p < pattern.len && pattern.ptr[p] == '*')
        p++;
    return p == pattern.len;
}

/* Length of the UTF-8 sequence at p (n bytes left), 0 when it is none: no overlong forms, no surrogates. */
static size_t utf8_sequence(const unsigned char *p, size_t n)
{
    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return 0;
    size_t len = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (n < len)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return len;
}

size_t slice_utf8_valid(struct slice s)
{
    size_t i = 0;
    while (i < s.len) {
        while (i + 8 <= s.len && (load_up_to_8(s.ptr + i, 8) & UINT64_C(0x8080808080808080)) == 0)
            i += 8;
        while (i < s.len && (unsigned char)s.ptr[i] < 0x80)
            i++;
        if (i >= s.len)
            break;
        size_t len = utf8_sequence((const unsigned char *)s.ptr + i, s.len - i);
        if (len == 0)
            return i;
        i += len;
    }
    return s.len;
}

char *slice_dup(struct slice s)
{
    char *copy = malloc(s.len + 1);
    if (copy == NULL)
        return NULL;
    if (s.len > 0)
        memcpy(copy, s.ptr, s.len);
    copy[s.len] = '\0';
    return copy;
}
