#include "outputs/ndjson.h"

#include <errno.h>

#include "agent/base/clock.h"

const struct slice ndjson_extra_names[1] = { SLICE_INIT("@timestamp") };

static int append_enriched(struct enricher *e, const struct record *rec, struct buf *raw, uint32_t *altered)
{
    char room[64];
    struct buf stamp = { .ptr = room, .cap = sizeof(room), .max = sizeof(room) }; /* never grows: never freed */
    struct enrich_extra extra = { .name = ndjson_extra_names[0] };
    if (rec->kind != RECORD_TEXT)
        return enrich_append(e, rec, 0, NULL, 0, raw, altered);
    /* Its time may stand in the frame only, or nowhere. */
    int r = buf_append_byte(&stamp, '"');
    if (r == 0)
        r = clock_append_rfc3339(&stamp, rec->time_ns, 9);
    if (r == 0)
        r = buf_append_byte(&stamp, '"');
    extra.json = buf_slice(&stamp);
    return r < 0 ? r : enrich_append(e, rec, 0, &extra, 1, raw, altered);
}

static int append_line(struct enricher *e, const struct record *rec, struct buf *raw, uint32_t *altered)
{
    size_t before = raw->len;
    int r = append_enriched(e, rec, raw, altered);
    if (r == 0)
        r = buf_append_byte(raw, '\n');
    if (r < 0)
        raw->len = before;
    return r;
}

int ndjson_append(struct enricher *e, const struct record *rec, bool is_empty, struct buf *raw, uint32_t *altered)
{
    int r = append_line(e, rec, raw, altered);
    if (r != -ENOBUFS || !is_empty)
        return r;
    struct record cut = *rec;
    cut.kind = RECORD_TEXT;
    cut.line = slice_first(rec->line, (raw->max - raw->len) / 8); /* six bytes for each of it always fit */
    *altered |= 1u << ALTER_CUT;
    return append_line(e, &cut, raw, altered);
}

int ndjson_split(struct slice route, struct items *it)
{
    struct slice rest = buf_slice(&it->raw);
    while (rest.len > 0) {
        ptrdiff_t nl = slice_find_byte(rest, '\n');
        if (nl < 0)
            return -EBADMSG;
        int r = items_add(it, (struct item){ .key = route, .data = slice_first(rest, (size_t)nl) });
        if (r < 0)
            return r;
        rest = slice_from(rest, (size_t)nl + 1);
    }
    return it->n == 0 ? -EBADMSG : 0;
}

int ndjson_join(const struct items *items, const uint8_t *choose, struct buf *raw)
{
    size_t before = raw->len;
    int r = 0;
    for (size_t i = 0; i < items->n && r == 0; i++) {
        if (choose != NULL && choose[i] == 0)
            continue;
        r = buf_append_slice(raw, items->item[i].data);
        if (r == 0)
            r = buf_append_byte(raw, '\n');
    }
    if (r < 0)
        raw->len = before;
    return r;
}
