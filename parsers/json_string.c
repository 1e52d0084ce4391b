#include "parsers/json_string.h"

#include <errno.h>

#define REPLACEMENT 0xFFFDu

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* The four digits at off, or -1. */
static int32_t hex4(struct slice raw, size_t off)
{
    if (raw.len < 4 || off > raw.len - 4)
        return -1;
    int32_t v = 0;
    for (size_t i = 0; i < 4; i++) {
        int d = hex_digit(raw.ptr[off + i]);
        if (d < 0)
            return -1;
        v = v * 16 + d;
    }
    return v;
}

static size_t put_utf8(uint32_t c, char *out)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | (c >> 6));
        out[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | (c >> 12));
        out[1] = (char)(0x80 | ((c >> 6) & 0x3F));
        out[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | (c >> 18));
    out[1] = (char)(0x80 | ((c >> 12) & 0x3F));
    out[2] = (char)(0x80 | ((c >> 6) & 0x3F));
    out[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}

/* \uXXXX with its digits at off. Returns the bytes of raw consumed from off on, 0 when the digits are wrong. */
static size_t unicode_escape(struct slice raw, size_t off, uint32_t *ret_char)
{
    int32_t high = hex4(raw, off);
    if (high < 0)
        return 0;
    *ret_char = (uint32_t)high;
    if (high < 0xD800 || high > 0xDFFF)
        return 4;

    *ret_char = REPLACEMENT;
    if (high > 0xDBFF || raw.len - off < 10 || raw.ptr[off + 4] != '\\' || raw.ptr[off + 5] != 'u')
        return 4;
    int32_t low = hex4(raw, off + 6);
    if (low < 0xDC00 || low > 0xDFFF)
        return 4; /* what follows is decoded on its own */
    *ret_char = 0x10000u + (((uint32_t)high - 0xD800u) << 10) + ((uint32_t)low - 0xDC00u);
    return 10;
}

static char simple_escape(char c)
{
    switch (c) {
    case '"': case '\\': case '/':
        return c;
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    default:
        return 0;
    }
}

ssize_t json_unescape(struct slice raw, char *out)
{
    size_t in = 0, n = 0;
    while (in < raw.len) {
        const char *p = raw.ptr + in;
        const char *slash = memchr(p, '\\', raw.len - in);
        size_t plain = slash == NULL ? raw.len - in : (size_t)(slash - p);
        memcpy(out + n, p, plain);
        n += plain;
        in += plain;
        if (in == raw.len)
            break;
        if (raw.len - in < 2)
            return -EBADMSG;

        char c = raw.ptr[in + 1];
        in += 2;
        if (c == 'u') {
            uint32_t code = 0;
            size_t used = unicode_escape(raw, in, &code);
            if (used == 0)
                return -EBADMSG;
            in += used;
            n += put_utf8(code, out + n);
            continue;
        }
        char plain_char = simple_escape(c);
        if (plain_char == 0)
            return -EBADMSG;
        out[n++] = plain_char;
    }
    return (ssize_t)n;
}
