#include "parsers/docker.h"

#include "agent/base/limits.h"
#include "parsers/json_string.h"
#include "parsers/timestamp.h"

struct docker {
    struct slice log, stream, time; /* raw insides of the strings; ptr NULL = not seen */
    bool has_attrs;
};

/* Every helper takes the position by pointer and says whether what it wants stands there. */

static void blanks(struct slice s, size_t *pos)
{
    while (*pos < s.len && (s.ptr[*pos] == ' ' || s.ptr[*pos] == '\t'))
        ++*pos;
}

static bool byte(struct slice s, size_t *pos, char c)
{
    blanks(s, pos);
    if (*pos == s.len || s.ptr[*pos] != c)
        return false;
    ++*pos;
    return true;
}

/* The raw inside of a string; control bytes are refused, escapes are checked when it is decoded. */
static bool string(struct slice s, size_t *pos, struct slice *ret_raw)
{
    if (!byte(s, pos, '"'))
        return false;
    size_t i = *pos;
    for (; i < s.len && s.ptr[i] != '"'; i++) {
        if ((unsigned char)s.ptr[i] < 0x20)
            return false;
        if (s.ptr[i] == '\\' && ++i == s.len)
            return false;
    }
    if (i == s.len)
        return false;
    *ret_raw = slice_of(s.ptr + *pos, i - *pos);
    *pos = i + 1;
    return true;
}

/* {"key":"value",…}: Docker's attrs are strings. */
static bool attrs(struct slice s, size_t *pos)
{
    struct slice ignored;
    if (!byte(s, pos, '{'))
        return false;
    if (byte(s, pos, '}'))
        return true;
    do {
        if (!string(s, pos, &ignored) || !byte(s, pos, ':') || !string(s, pos, &ignored))
            return false;
    } while (byte(s, pos, ','));
    return byte(s, pos, '}');
}

static bool member(struct slice s, size_t *pos, struct docker *d)
{
    struct slice key;
    if (!string(s, pos, &key) || !byte(s, pos, ':'))
        return false;
    struct slice *field = slice_eq(key, SLICE("log"))      ? &d->log
                          : slice_eq(key, SLICE("stream")) ? &d->stream
                          : slice_eq(key, SLICE("time"))   ? &d->time
                                                           : NULL;
    if (field != NULL)
        return field->ptr == NULL && string(s, pos, field);
    if (!slice_eq(key, SLICE("attrs")) || d->has_attrs)
        return false;
    d->has_attrs = true;
    return attrs(s, pos);
}

static bool object(struct slice s, struct docker *d)
{
    size_t pos = 0;
    if (!byte(s, &pos, '{'))
        return false;
    do {
        if (!member(s, &pos, d))
            return false;
    } while (byte(s, &pos, ','));
    if (!byte(s, &pos, '}'))
        return false;
    blanks(s, &pos);
    return pos == s.len && d->log.ptr != NULL && d->stream.ptr != NULL && d->time.ptr != NULL;
}

static bool content(struct slice raw, struct buf *scratch, struct slice *ret_content)
{
    *ret_content = raw;
    if (raw.len == 0 || memchr(raw.ptr, '\\', raw.len) == NULL)
        return true;
    buf_reset(scratch);
    if (buf_reserve(scratch, raw.len) < 0)
        return false;
    ssize_t n = json_unescape(raw, scratch->ptr);
    if (n < 0)
        return false;
    scratch->len = (size_t)n;
    *ret_content = buf_slice(scratch);
    return true;
}

bool docker_read(struct slice line, struct buf *scratch, struct framed *ret_framed)
{
    struct docker d = { 0 };
    struct framed f = { .is_framed = true };
    if (!object(line, &d))
        return false;
    if (slice_eq(d.stream, SLICE("stdout")))
        f.stream = STREAM_STDOUT;
    else if (slice_eq(d.stream, SLICE("stderr")))
        f.stream = STREAM_STDERR;
    else
        return false;
    if (!content(d.log, scratch, &f.content))
        return false;
    size_t n = timestamp_rfc3339(d.time, &f.time_ns);
    f.has_time = n > 0 && n == d.time.len;
    f.is_partial = f.content.len == 0 || f.content.ptr[f.content.len - 1] != '\n';
    if (!f.is_partial) {
        f.content.len--;
        if (f.content.len > 0 && f.content.ptr[f.content.len - 1] == '\r')
            f.content.len--;
    }
    *ret_framed = f;
    return true;
}
