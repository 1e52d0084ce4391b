#include "agent/join.h"

#include <stdlib.h>

#include "agent/base/limits.h"

#define PENDING_BYTES_KEEP (4 * KIB)

struct join *join_new(void)
{
    struct join *j = calloc(1, sizeof(*j));
    for (size_t i = 0; j != NULL && i < STREAMS_MAX; i++) {
        buf_init(&j->streams[i].part.text, LINE_BYTES_MAX);
        buf_init(&j->streams[i].group.text, LINE_BYTES_MAX);
    }
    return j;
}

void join_free(struct join *j)
{
    for (size_t i = 0; j != NULL && i < STREAMS_MAX; i++) {
        buf_deinit(&j->streams[i].part.text);
        buf_deinit(&j->streams[i].group.text);
    }
    free(j);
}

int pending_add(struct pending *p, struct slice text, uint64_t start, uint64_t end)
{
    size_t room = LINE_BYTES_MAX - p->text.len;
    int r = buf_append_slice(&p->text, slice_first(text, room));
    if (r < 0)
        return r;
    if (!p->is_active) {
        p->is_active = true;
        p->start = start;
    }
    p->is_cut |= text.len > room;
    p->end = end;
    p->raw_bytes += end - start;
    return 0;
}

void pending_end(struct pending *p)
{
    struct buf text = p->text;
    buf_reset(&text);
    buf_shrink(&text, PENDING_BYTES_KEEP);
    *p = (struct pending){ .text = text };
}

uint8_t join_parts(const struct join *j, int except, struct position_part *parts)
{
    uint8_t n = 0;
    for (int i = 0; j != NULL && i < STREAMS_MAX; i++) {
        const struct join_stream *s = &j->streams[i];
        if (i == except || (!s->part.is_active && !s->group.is_active))
            continue;
        uint64_t start = s->group.is_active ? s->group.start : s->part.start; /* the group is the older one */
        parts[n++] = (struct position_part){ .stream = (uint8_t)i, .start = start };
    }
    return n;
}

int64_t join_flush_at(const struct join *j)
{
    int64_t at = INT64_MAX;
    for (size_t i = 0; j != NULL && i < STREAMS_MAX; i++)
        if (j->streams[i].group.is_active)
            at = MIN(at, j->streams[i].flush_at_ns);
    return at;
}
