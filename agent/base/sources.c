#include "agent/base/sources.h"

#include "agent/base/bytes.h"

#define NUMBER_BYTES_MAX 10

static size_t put_number(uint8_t *p, uint64_t v)
{
    size_t n = 0;
    for (; v >= 0x80; v >>= 7)
        p[n++] = (uint8_t)(v | 0x80);
    p[n++] = (uint8_t)v;
    return n;
}

static bool take_number(struct slice *rest, uint64_t *ret)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 63 && rest->len > 0; shift += 7) {
        uint8_t byte = (uint8_t)rest->ptr[0];
        *rest = slice_from(*rest, 1);
        v |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            *ret = v;
            return true;
        }
    }
    return false;
}

int sources_put(struct buf *b, const struct source_span *s)
{
    uint8_t p[8 + 2 * NUMBER_BYTES_MAX];
    put_le64(p, s->incarnation);
    size_t n = 8;
    n += put_number(p + n, s->first << 2 | (s->stream & 3u));
    n += put_number(p + n, s->last - s->first);
    return buf_append(b, p, n);
}

bool sources_next(struct slice *rest, struct source_span *ret)
{
    uint64_t first, more;
    if (rest->len < 8)
        return false;
    struct source_span s = { .incarnation = get_le64(rest->ptr) };
    *rest = slice_from(*rest, 8);
    if (!take_number(rest, &first) || !take_number(rest, &more) || more > UINT64_MAX - (first >> 2))
        return false;
    s.stream = (uint8_t)(first & 3);
    s.first = first >> 2;
    s.last = s.first + more;
    *ret = s;
    return true;
}

bool sources_have(struct slice sources, uint64_t incarnation, uint8_t stream, uint64_t offset)
{
    struct source_span s;
    while (sources_next(&sources, &s))
        if (s.incarnation == incarnation && s.stream == stream && s.first <= offset && offset <= s.last)
            return true;
    return false;
}
