/* The open bodies of an output by route key, and whose lines they hold. Part of output.h. */
#include "outputs/output.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/array.h"
#include "agent/base/clock.h"

#define TABLE_MIN 16

/* An upper bound of one body's runs: two bytes each, a new run at worst every line. */
#define RUNS_BYTES_MAX (1 * MIB)
/* A body of lines from more files than this does not say where they are from. About 14 bytes each. */
#define SOURCES_MAX 1024
#define SOURCES_BYTES_MAX (64 * KIB)

int bodies_init(struct bodies *bs, size_t body_max)
{
    *bs = (struct bodies){ .n_table = TABLE_MIN, .body_max = body_max };
    bs->table = calloc(bs->n_table, sizeof(struct body *));
    return bs->table == NULL ? -ENOMEM : 0;
}

void bodies_deinit(struct bodies *bs)
{
    struct body *next;
    for (struct body *b = bs->first; b != NULL; b = next) {
        next = b->next;
        body_free(b);
    }
    free(bs->table);
    *bs = (struct bodies){ 0 };
}

/* The slot of this route, or the empty one where it belongs: linear probing, never more than half full. */
static size_t find_slot(const struct bodies *bs, struct slice route)
{
    size_t i = slice_hash(route) % bs->n_table;
    while (bs->table[i] != NULL && !slice_eq(buf_slice(&bs->table[i]->route), route))
        i = (i + 1) % bs->n_table;
    return i;
}

static int grow_table(struct bodies *bs)
{
    struct body **table = calloc(bs->n_table * 2, sizeof(struct body *));
    if (table == NULL)
        return -ENOMEM;
    free(bs->table);
    bs->table = table;
    bs->n_table *= 2;
    for (struct body *b = bs->first; b != NULL; b = b->next)
        bs->table[find_slot(bs, buf_slice(&b->route))] = b;
    return 0;
}

static struct body *body_new(struct slice route, size_t body_max, uint8_t account)
{
    struct body *b = calloc(1, sizeof(*b));
    if (b == NULL)
        return NULL;
    budget_took(account, b);
    buf_init_in(&b->route, MAX(route.len, (size_t)1), account);
    buf_init_in(&b->raw, body_max, account);
    buf_init_in(&b->runs, RUNS_BYTES_MAX, account);
    buf_init_in(&b->sources, SOURCES_BYTES_MAX, account);
    if (buf_append_slice(&b->route, route) < 0) {
        body_free(b);
        return NULL;
    }
    b->opened_mono_ns = clock_mono_ns();
    return b;
}

struct body *bodies_get(struct bodies *bs, struct slice route)
{
    if (bs->last != NULL && slice_eq(buf_slice(&bs->last->route), route))
        return bs->last;
    size_t i = find_slot(bs, route);
    if (bs->table[i] != NULL)
        return bs->last = bs->table[i];
    if ((bs->n_open + 1) * 2 > bs->n_table) {
        if (grow_table(bs) < 0)
            return NULL;
        i = find_slot(bs, route);
    }
    struct body *b = body_new(route, bs->body_max, bs->account);
    if (b == NULL)
        return NULL;
    bs->table[i] = b;
    bs->n_open++;
    struct body **end =
        &bs->first; /* the list is as long as there are routes with lines: short, or rarely walked */
    while (*end != NULL)
        end = &(*end)->next;
    *end = b;
    return bs->last = b;
}

/* Closes the gap that a removed entry leaves in its run of the table. */
static void table_remove(struct bodies *bs, size_t gap)
{
    bs->table[gap] = NULL;
    for (size_t i = (gap + 1) % bs->n_table; bs->table[i] != NULL; i = (i + 1) % bs->n_table) {
        struct body *b = bs->table[i];
        bs->table[i] = NULL;
        bs->table[find_slot(bs, buf_slice(&b->route))] = b;
    }
}

void bodies_take(struct bodies *bs, struct body *b)
{
    size_t i = find_slot(bs, buf_slice(&b->route));
    assert(bs->table[i] == b);
    assert(bs->raw_bytes >= b->raw_bytes);
    bs->last = NULL;
    table_remove(bs, i);
    struct body **link = &bs->first;
    while (*link != b)
        link = &(*link)->next;
    *link = b->next;
    b->next = NULL;
    bs->n_open--;
    bs->raw_bytes -= b->raw_bytes;
}

void body_free(struct body *b)
{
    if (b == NULL)
        return;
    assert(b->parts == NULL);
    uint8_t account = b->raw.account;
    buf_deinit(&b->route);
    buf_deinit(&b->raw);
    buf_deinit(&b->runs);
    buf_deinit(&b->sources);
    budget_free(account, b->rows);
    budget_free(account, b);
}

static bool row_is(const struct body *b, uint32_t row, const struct record *rec)
{
    return b->rows[row].input == rec->origin->input_index && b->rows[row].tenant == rec->tenant_id;
}

static int add_row(struct body *b, const struct record *rec)
{
    if (b->n_rows == BODY_ROWS_MAX)
        return -ENOBUFS;
    if (b->n_rows == b->cap_rows) {
        uint32_t cap = b->cap_rows == 0 ? 4 : b->cap_rows * 2;
        struct body_row *rows = budget_realloc(b->raw.account, b->rows, cap * sizeof(*rows));
        if (rows == NULL)
            return -ENOMEM;
        b->rows = rows;
        b->cap_rows = cap;
    }
    b->rows[b->n_rows++] = (struct body_row){ .input = rec->origin->input_index, .tenant = rec->tenant_id };
    return 0;
}

int body_row(struct body *b, const struct record *rec, uint32_t *ret_row)
{
    if (b->n_rows > 0 && row_is(b, b->run_row, rec)) { /* as the line before */
        *ret_row = b->run_row;
        return 0;
    }
    uint32_t row = 0;
    while (row < b->n_rows && !row_is(b, row, rec))
        row++;
    if (row == b->n_rows) {
        int r = add_row(b, rec);
        if (r < 0)
            return r;
    }
    *ret_row = row;
    return 0;
}

static void end_spans(struct body *b)
{
    for (size_t i = 0; i < STREAMS_MAX; i++) {
        struct source_span *s = &b->spans[i];
        if (s->incarnation != 0 && !b->has_no_sources)
            b->has_no_sources = b->n_sources++ == SOURCES_MAX || sources_put(&b->sources, s) < 0;
        s->incarnation = 0;
    }
}

/* Records of a stream come in the order of the file, but for one that is read anew behind a part of itself. */
static void note_source(struct body *b, const struct record *rec)
{
    struct source_span *s = &b->spans[rec->stream];
    if (b->source_file != rec->incarnation || (s->incarnation != 0 && rec->offset < s->last)) {
        end_spans(b);
        b->source_file = rec->incarnation;
    }
    if (s->incarnation == 0)
        *s = (struct source_span){ rec->incarnation, rec->offset, rec->offset, (uint8_t)rec->stream };
    s->last = rec->offset;
}

struct slice body_end_sources(struct body *b)
{
    end_spans(b);
    return b->has_no_sources ? SLICE("") : buf_slice(&b->sources);
}

void body_count_row(struct body *b, const struct record *rec, uint32_t row)
{
    assert(row < b->n_rows && rec->stream < STREAMS_MAX);
    note_source(b, rec);
    b->rows[row].lines++;
    b->lines++;
    b->run_row = row;
    if (b->oldest_read_ns == 0 || rec->read_ns < b->oldest_read_ns)
        b->oldest_read_ns = rec->read_ns;
}

int body_add_run(struct buf *runs, uint32_t row, uint32_t lines)
{
    char run[6] = { (char)row };
    size_t n = 1;
    assert(row < BODY_ROWS_MAX && lines > 0);
    for (; lines >= 0x80; lines >>= 7)
        run[n++] = (char)(lines | 0x80);
    run[n++] = (char)lines;
    return buf_append(runs, run, n);
}

int body_count(struct body *b, const struct record *rec)
{
    uint32_t row;
    int r = body_row(b, rec, &row);
    if (r < 0)
        return r;
    if (row != b->run_row && b->run_lines > 0) {
        r = body_add_run(&b->runs, b->run_row, b->run_lines);
        if (r < 0)
            return r;
        b->run_lines = 0;
    }
    b->run_lines++;
    body_count_row(b, rec, row);
    return 0;
}

int body_end_runs(struct body *b)
{
    if (b->n_rows <= 1 || b->run_lines == 0)
        return 0;
    int r = body_add_run(&b->runs, b->run_row, b->run_lines);
    if (r == 0)
        b->run_lines = 0;
    return r;
}

int items_add(struct items *it, struct item item)
{
    struct item *more = array_room(it->item, it->n, &it->cap, sizeof(*more));
    if (more == NULL)
        return -ENOMEM;
    it->item = more;
    it->item[it->n++] = item;
    return 0;
}

void items_deinit(struct items *it)
{
    free(it->item);
    buf_deinit(&it->raw);
    *it = (struct items){ 0 };
}
