#include "parsers/cri.h"

#include "parsers/timestamp.h"

#define TIME_BYTES_MIN 20 /* 2026-01-02T03:04:05Z */

/* P or F, and tags behind it that nobody uses yet. Bytes, 0 = neither. */
static size_t read_tag(struct slice s, bool *ret_is_partial)
{
    if (s.len == 0 || (s.ptr[0] != 'P' && s.ptr[0] != 'F'))
        return 0;
    size_t n = 1;
    if (n < s.len && s.ptr[n] == ':')
        while (n < s.len && s.ptr[n] != ' ')
            n++;
    *ret_is_partial = s.ptr[0] == 'P';
    return n;
}

bool cri_read(struct slice line, struct framed *ret_framed)
{
    int64_t time_ns;
    if (line.len < TIME_BYTES_MIN || line.ptr[4] != '-')
        return false;
    size_t n = timestamp_rfc3339(line, &time_ns);
    if (n == 0)
        return false;
    struct slice rest = slice_from(line, n);
    bool is_stdout = slice_starts(rest, SLICE(" stdout "));
    if (!is_stdout && !slice_starts(rest, SLICE(" stderr ")))
        return false;
    rest = slice_from(rest, 8);
    bool is_partial;
    n = read_tag(rest, &is_partial);
    if (n == 0 || (n < rest.len && rest.ptr[n] != ' '))
        return false;
    struct slice content = slice_from(rest, n + 1);
    if (!is_partial && content.len > 0 && content.ptr[content.len - 1] == '\r')
        content.len--;
    *ret_framed = (struct framed){ .content = content,
                                   .stream = is_stdout ? STREAM_STDOUT : STREAM_STDERR,
                                   .is_framed = true,
                                   .is_partial = is_partial,
                                   .has_time = true,
                                   .time_ns = time_ns };
    return true;
}
