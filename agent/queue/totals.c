#include "agent/queue/totals.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/array.h"
#include "agent/base/bytes.h"
#include "agent/queue/frame.h"

static uint64_t minus(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static size_t hash_of(struct slice input, struct slice tenant)
{
    return (size_t)(slice_hash(input) * 31 + slice_hash(tenant));
}

void totals_deinit(struct totals *t)
{
    for (size_t i = 0; i < t->n; i++) {
        free((void *)(uintptr_t)t->rows[i].input.ptr);
        free((void *)(uintptr_t)t->rows[i].tenant.ptr);
    }
    free(t->rows);
    free(t->index);
    *t = (struct totals){ 0 };
}

static void index_add(struct totals *t, size_t i)
{
    size_t h = hash_of(t->rows[i].input, t->rows[i].tenant) & (t->n_index - 1);
    while (t->index[h] != 0)
        h = (h + 1) & (t->n_index - 1);
    t->index[h] = (uint32_t)(i + 1);
}

/* Room for one more row, and an index at most half full. */
static bool grow(struct totals *t)
{
    struct totals_row *rows = array_room(t->rows, t->n, &t->cap, sizeof(*rows));
    if (rows == NULL)
        return false;
    t->rows = rows;
    if ((t->n + 1) * 2 > t->n_index) {
        size_t n_index = t->n_index == 0 ? 32 : t->n_index * 2;
        uint32_t *index = calloc(n_index, sizeof(*index));
        if (index == NULL)
            return false;
        free(t->index);
        t->index = index;
        t->n_index = n_index;
        for (size_t i = 0; i < t->n; i++)
            index_add(t, i);
    }
    return true;
}

struct totals_row *totals_find(const struct totals *t, struct slice input, struct slice tenant)
{
    if (t->n_index == 0)
        return NULL;
    size_t h = hash_of(input, tenant) & (t->n_index - 1);
    for (; t->index[h] != 0; h = (h + 1) & (t->n_index - 1)) {
        struct totals_row *row = &t->rows[t->index[h] - 1];
        if (slice_eq(row->input, input) && slice_eq(row->tenant, tenant))
            return row;
    }
    return NULL;
}

struct totals_row *totals_get(struct totals *t, struct slice input, struct slice tenant)
{
    struct totals_row *row = totals_find(t, input, tenant);
    if (row != NULL)
        return row;
    if (!grow(t))
        return NULL;
    char *in = slice_dup(input), *ten = slice_dup(tenant);
    if (in == NULL || ten == NULL) {
        free(in);
        free(ten);
        return NULL;
    }
    row = &t->rows[t->n];
    *row = (struct totals_row){ .input = slice_of(in, input.len), .tenant = slice_of(ten, tenant.len) };
    index_add(t, t->n++);
    return row;
}

void totals_touch(struct totals *t, struct totals_row *row)
{
    if (row->is_dirty)
        return;
    row->is_dirty = true;
    row->next_dirty = t->dirty;
    t->dirty = (uint32_t)(row - t->rows) + 1;
}

static struct totals_row *take_dirty(struct totals *t)
{
    if (t->dirty == 0)
        return NULL;
    struct totals_row *row = &t->rows[t->dirty - 1];
    t->dirty = row->next_dirty;
    row->is_dirty = false;
    return row;
}

void totals_commit(struct totals *t)
{
    for (struct totals_row *r; (r = take_dirty(t)) != NULL;) {
        r->durable_lines = r->lines;
        r->durable_ledger = r->ledger;
        r->has_durable_ledger = r->has_ledger;
    }
    t->durable_lines = t->lines;
    t->durable_frames = t->frames;
}

void totals_rollback(struct totals *t)
{
    for (struct totals_row *r; (r = take_dirty(t)) != NULL;) {
        r->lines = r->durable_lines;
        r->ledger = r->durable_ledger;
        r->has_ledger = r->has_durable_ledger;
    }
    t->lines = t->durable_lines;
    t->frames = t->durable_frames;
}

void totals_clear_lines(struct totals *t)
{
    for (size_t i = 0; i < t->n; i++) {
        totals_touch(t, &t->rows[i]);
        t->rows[i].lines = 0;
    }
    t->lines = 0;
}

void totals_clear(struct totals *t)
{
    totals_clear_lines(t);
    for (size_t i = 0; i < t->n; i++) {
        t->rows[i].has_ledger = false;
        t->rows[i].ledger = (struct ledger_row){ 0 };
    }
    t->frames = 0;
}

int totals_add(struct totals *t, struct slice input, struct slice tenant, uint64_t lines)
{
    struct totals_row *row = totals_get(t, input, tenant);
    if (row == NULL)
        return -ENOMEM;
    totals_touch(t, row);
    row->lines += lines;
    t->lines += lines;
    return 0;
}

int totals_add_all(struct totals *t, const struct totals *from)
{
    int r = 0;
    for (size_t i = 0; i < from->n; i++)
        if (totals_add(t, from->rows[i].input, from->rows[i].tenant, from->rows[i].lines) < 0)
            r = -ENOMEM;
    return r;
}

void totals_subtract(struct totals *t, const struct totals *other)
{
    for (size_t i = 0; i < other->n; i++) {
        struct totals_row *row = totals_find(t, other->rows[i].input, other->rows[i].tenant);
        if (row == NULL)
            continue;
        totals_touch(t, row);
        uint64_t less = MIN(row->lines, other->rows[i].lines);
        row->lines -= less;
        t->lines = minus(t->lines, less);
    }
    t->frames = minus(t->frames, other->frames);
}

int totals_put(const struct totals *t, struct buf *meta, bool with_ledger)
{
    for (size_t i = 0; i < t->n; i++) {
        const struct totals_row *row = &t->rows[i];
        int r = 0;
        if (row->lines > 0)
            r = meta_put_count(meta, row->input, row->tenant, row->lines);
        if (r == 0 && with_ledger && row->has_ledger) {
            struct ledger_row l = row->ledger;
            l.input = row->input;
            l.tenant = row->tenant;
            r = meta_put_ledger(meta, &l);
        }
        if (r < 0)
            return r;
    }
    return meta_put_u64s(meta, META_TOTAL, false, (const uint64_t[]){ t->lines, t->frames }, 2);
}

static int take_count(struct totals *t, struct slice bytes)
{
    struct slice input, tenant;
    uint64_t lines;
    int r = meta_get_count(bytes, &input, &tenant, &lines);
    if (r < 0)
        return r;
    struct totals_row *row = totals_get(t, input, tenant);
    if (row == NULL)
        return -ENOMEM;
    totals_touch(t, row);
    row->lines = lines;
    return 0;
}

static int take_ledger(struct totals *t, struct slice bytes)
{
    struct ledger_row l;
    int r = meta_get_ledger(bytes, &l);
    if (r < 0)
        return r;
    struct totals_row *row = totals_get(t, l.input, l.tenant);
    if (row == NULL)
        return -ENOMEM;
    l.input = l.tenant = SLICE(""); /* the row has the names */
    totals_touch(t, row);
    row->ledger = l;
    row->has_ledger = true;
    return 0;
}

int totals_take(struct totals *t, uint8_t tag, struct slice bytes)
{
    if (tag == META_COUNT)
        return take_count(t, bytes);
    if (tag == META_LEDGER)
        return take_ledger(t, bytes);
    if (tag == META_TOTAL) {
        if (bytes.len < 16)
            return -EBADMSG;
        t->lines = get_le64(bytes.ptr);
        t->frames = get_le64(bytes.ptr + 8);
    }
    return 0;
}

/* ---- dead and lost ---- */

void tally_deinit(struct tally *t)
{
    for (size_t i = 0; i < t->n; i++)
        free((void *)(uintptr_t)t->rows[i].tenant.ptr);
    free(t->rows);
    *t = (struct tally){ 0 };
}

/* Losses are rare and tenants at most a thousand or so: no hash. */
struct tally_row *tally_get(struct tally *t, struct slice tenant)
{
    for (size_t i = 0; i < t->n; i++)
        if (slice_eq(t->rows[i].tenant, tenant))
            return &t->rows[i];
    struct tally_row *rows = array_room(t->rows, t->n, &t->cap, sizeof(*rows));
    if (rows == NULL)
        return NULL;
    t->rows = rows;
    char *name = slice_dup(tenant);
    if (name == NULL)
        return NULL;
    t->rows[t->n] = (struct tally_row){ .tenant = slice_of(name, tenant.len) };
    return &t->rows[t->n++];
}

/* TALLY: dead (8), number of reasons (4), zero (4), {lines, bytes} (16) of each, tenant. */
#define TALLY_BYTES 16

int tally_put(const struct tally *t, struct buf *meta)
{
    for (size_t i = 0; i < t->n; i++) {
        const struct tally_row *row = &t->rows[i];
        uint8_t p[TALLY_BYTES + 16 * LOST_REASONS] = { 0 };
        put_le64(p, row->dead);
        put_le32(p + 8, LOST_REASONS);
        for (size_t k = 0; k < LOST_REASONS; k++) {
            put_le64(p + TALLY_BYTES + 16 * k, row->lost[k]);
            put_le64(p + TALLY_BYTES + 16 * k + 8, row->lost_bytes[k]);
        }
        size_t mark;
        int r = meta_begin(meta, META_TALLY, false, &mark);
        if (r == 0)
            r = buf_append(meta, p, sizeof(p));
        if (r == 0)
            r = buf_append_slice(meta, row->tenant);
        if (r < 0)
            return r;
        meta_end(meta, mark);
    }
    return 0;
}

int tally_take(struct tally *t, struct slice bytes)
{
    if (bytes.len < TALLY_BYTES)
        return -EBADMSG;
    size_t reasons = get_le32(bytes.ptr + 8);
    if (reasons > (bytes.len - TALLY_BYTES) / 16)
        return -EBADMSG;
    struct tally_row *row = tally_get(t, slice_from(bytes, TALLY_BYTES + 16 * reasons));
    if (row == NULL)
        return -ENOMEM;
    row->dead = get_le64(bytes.ptr);
    for (size_t k = 0; k < MIN(reasons, (size_t)LOST_REASONS); k++) {
        row->lost[k] = get_le64(bytes.ptr + TALLY_BYTES + 16 * k);
        row->lost_bytes[k] = get_le64(bytes.ptr + TALLY_BYTES + 16 * k + 8);
    }
    return 0;
}
