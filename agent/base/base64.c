#include "agent/base/base64.h"

#include <errno.h>

int base64_encode(struct slice s, struct buf *to)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    int r = buf_reserve(to, (s.len + 2) / 3 * 4);
    if (r < 0)
        return r;
    for (size_t i = 0; i < s.len; i += 3) {
        const size_t have = MIN(s.len - i, (size_t)3);
        uint32_t v = 0;
        for (size_t k = 0; k < 3; k++)
            v = v << 8 | (k < have ? (uint8_t)s.ptr[i + k] : 0);
        for (size_t k = 0; k < 4; k++)
            to->ptr[to->len++] = k <= have ? digits[v >> (18 - 6 * k) & 63] : '=';
    }
    return 0;
}

static int value_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static bool is_passed_over(char c)
{
    return c == '=' || c == ' ' || (c >= '\t' && c <= '\r');
}

int base64_decode(struct slice s, struct buf *to)
{
    uint32_t acc = 0;
    unsigned bits = 0;
    int r = 0;
    for (size_t i = 0; r == 0 && i < s.len; i++) {
        const int v = value_of(s.ptr[i]);
        if (v < 0) {
            r = is_passed_over(s.ptr[i]) ? 0 : -EBADMSG;
            continue;
        }
        acc = (acc << 6 | (uint32_t)v) & 0xffffff;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            r = buf_append_byte(to, (char)(acc >> bits & 0xff));
        }
    }
    return r;
}
