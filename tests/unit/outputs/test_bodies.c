/*
 * Goal: one open body a route key, oldest first, nothing lost when they are taken in any order; rows and runs
 * say whose each line is. Method: many routes against a plain list, counting checked by decoding the runs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/clock.h"
#include "outputs/output.h"

static struct slice route_name(char *to, size_t size, unsigned i)
{
    return slice_of(to, (size_t)snprintf(to, size, "tenant-%u", i));
}

static void found_again(void **state)
{
    (void)state;
    struct bodies bs;
    char name[32];
    assert_int_equal(bodies_init(&bs, 1 * MIB), 0);
    for (unsigned i = 0; i < 500; i++) {
        struct body *b = bodies_get(&bs, route_name(name, sizeof(name), i));
        assert_non_null(b);
        assert_true(slice_eq(buf_slice(&b->route), slice_of(name, strlen(name))));
        b->lines = i + 1;
    }
    assert_int_equal(bs.n_open, 500);
    for (unsigned i = 0; i < 500; i++)
        assert_int_equal(bodies_get(&bs, route_name(name, sizeof(name), i))->lines, i + 1);
    unsigned n = 0;
    for (struct body *b = bs.first; b != NULL; b = b->next)
        assert_int_equal(b->lines, ++n); /* in the order of their making */
    assert_int_equal(n, 500);
    bodies_deinit(&bs);
}

/* Routes may be empty, or hold any byte. */
static void odd_routes(void **state)
{
    (void)state;
    static const struct slice routes[] = { SLICE_INIT(""), SLICE_INIT("\0"), SLICE_INIT("\0\0"),
                                           SLICE_INIT("a\0b"), SLICE_INIT("a") };
    struct bodies bs;
    struct body *made[ARRAY_LEN(routes)];
    assert_int_equal(bodies_init(&bs, 1 * MIB), 0);
    for (size_t i = 0; i < ARRAY_LEN(routes); i++)
        made[i] = bodies_get(&bs, routes[i]);
    for (size_t i = 0; i < ARRAY_LEN(routes); i++)
        assert_ptr_equal(bodies_get(&bs, routes[i]), made[i]);
    assert_int_equal(bs.n_open, ARRAY_LEN(routes));
    bodies_deinit(&bs);
}

/* Taken in a scrambled order: the rest stays findable after each one, sums follow. */
static void taken(void **state)
{
    (void)state;
    enum { N = 200 };
    struct bodies bs;
    struct body *b[N];
    char name[32];
    assert_int_equal(bodies_init(&bs, 1 * MIB), 0);
    for (unsigned i = 0; i < N; i++) {
        b[i] = bodies_get(&bs, route_name(name, sizeof(name), i));
        b[i]->raw_bytes = i;
        bs.raw_bytes += i;
    }
    size_t left = bs.raw_bytes;
    for (unsigned k = 0; k < N; k++) {
        unsigned i = k * 67 % N;
        bodies_take(&bs, b[i]);
        left -= i;
        assert_int_equal(bs.raw_bytes, left);
        assert_int_equal(bs.n_open, N - k - 1);
        assert_null(b[i]->next);
        body_free(b[i]);
        b[i] = NULL;
        unsigned n = 0;
        for (struct body *o = bs.first; o != NULL; o = o->next)
            n++;
        assert_int_equal(n, N - k - 1);
        for (unsigned j = 0; j < N; j += 13)
            if (b[j] != NULL)
                assert_ptr_equal(bodies_get(&bs, route_name(name, sizeof(name), j)), b[j]);
    }
    assert_null(bs.first);
    struct body *again = bodies_get(&bs, SLICE("tenant-1"));
    assert_int_equal(again->lines, 0);
    bodies_deinit(&bs);
}

/* The rows of all lines, as the runs say. */
static size_t decode_runs(struct slice runs, uint8_t *row_of, size_t max)
{
    size_t n = 0;
    for (size_t i = 0; i < runs.len;) {
        uint8_t row = (uint8_t)runs.ptr[i++];
        uint32_t count = 0;
        for (unsigned shift = 0;; shift += 7) {
            assert_true(i < runs.len && shift < 35);
            uint8_t c = (uint8_t)runs.ptr[i++];
            count |= (uint32_t)(c & 0x7f) << shift;
            if (c < 0x80)
                break;
        }
        assert_true(count > 0 && count <= max - n);
        memset(row_of + n, row, count);
        n += count;
    }
    return n;
}

static void rows_and_runs(void **state)
{
    (void)state;
    enum { N = 5000 };
    static uint8_t want[N], got[N];
    struct origin origins[3] = { { .input_index = 0 }, { .input_index = 1 }, { .input_index = 2 } };
    struct bodies bs;
    assert_int_equal(bodies_init(&bs, 1 * MIB), 0);
    struct body *b = bodies_get(&bs, SLICE("r"));
    uint32_t lines[256] = { 0 };
    for (unsigned i = 0; i < N; i++) {
        /* 300 lines alike first, then blocks, then each line another. */
        unsigned pick = i < 300 ? 0 : i < 3000 ? i / 100 % 6 : i % 6;
        struct record rec = { .origin = &origins[pick % 3], .tenant_id = pick / 3, .read_ns = 1000 - i % 10 };
        assert_int_equal(body_count(b, &rec), 0);
        uint32_t row;
        assert_int_equal(body_row(b, &rec, &row), 0);
        assert_true(b->rows[row].input == pick % 3 && b->rows[row].tenant == pick / 3);
        want[i] = (uint8_t)row;
        lines[row]++;
    }
    assert_int_equal(body_end_runs(b), 0);
    assert_int_equal(body_end_runs(b), 0); /* nothing more */
    assert_int_equal(b->lines, N);
    assert_int_equal(b->n_rows, 6);
    assert_int_equal(b->oldest_read_ns, 991);
    for (uint32_t i = 0; i < b->n_rows; i++)
        assert_int_equal(b->rows[i].lines, lines[i]);
    assert_int_equal(decode_runs(buf_slice(&b->runs), got, N), N);
    assert_memory_equal(got, want, N);
    bodies_deinit(&bs);
}

static void one_row_has_no_runs(void **state)
{
    (void)state;
    struct origin o = { .input_index = 3 };
    struct record rec = { .origin = &o, .tenant_id = 9, .read_ns = 5 };
    struct bodies bs;
    assert_int_equal(bodies_init(&bs, 1 * MIB), 0);
    struct body *b = bodies_get(&bs, SLICE(""));
    for (int i = 0; i < 1000; i++)
        assert_int_equal(body_count(b, &rec), 0);
    assert_int_equal(body_end_runs(b), 0);
    assert_int_equal(b->runs.len, 0);
    assert_int_equal(b->rows[0].lines, 1000);
    bodies_deinit(&bs);
}

static void rows_are_bounded(void **state)
{
    (void)state;
    struct origin o = { .input_index = 0 };
    struct record rec = { .origin = &o };
    struct bodies bs;
    assert_int_equal(bodies_init(&bs, 1 * MIB), 0);
    struct body *b = bodies_get(&bs, SLICE(""));
    for (uint32_t i = 0; i < BODY_ROWS_MAX; i++) {
        rec.tenant_id = i + 1;
        assert_int_equal(body_count(b, &rec), 0);
    }
    rec.tenant_id = BODY_ROWS_MAX + 1;
    assert_int_equal(body_count(b, &rec), -ENOBUFS);
    assert_int_equal(b->lines, BODY_ROWS_MAX); /* not counted */
    rec.tenant_id = 7;
    assert_int_equal(body_count(b, &rec), 0); /* a known row still is */
    bodies_deinit(&bs);
}

static int64_t fixed_mono(void)
{
    return 12345;
}

static int64_t fixed_wall(void)
{
    return 99;
}

static void opened_when(void **state)
{
    (void)state;
    struct bodies bs;
    clock_set_source(fixed_mono, fixed_wall);
    assert_int_equal(bodies_init(&bs, 77), 0);
    struct body *b = bodies_get(&bs, SLICE("x"));
    assert_int_equal(b->opened_mono_ns, 12345);
    assert_int_equal(b->raw.max, 77);
    clock_set_source(NULL, NULL);
    bodies_deinit(&bs);
    body_free(NULL);
}

static void items_end(void **state)
{
    (void)state;
    struct items it = { 0 };
    items_deinit(&it);
    it.item = calloc(2, sizeof(*it.item));
    it.cap = 2;
    buf_init(&it.raw, 10);
    assert_int_equal(buf_append_lit(&it.raw, "raw"), 0);
    items_deinit(&it);
    assert_null(it.item);
    assert_null(it.raw.ptr);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(found_again),
        cmocka_unit_test(odd_routes),
        cmocka_unit_test(taken),
        cmocka_unit_test(rows_and_runs),
        cmocka_unit_test(one_row_has_no_runs),
        cmocka_unit_test(rows_are_bounded),
        cmocka_unit_test(opened_when),
        cmocka_unit_test(items_end),
    };
    return cmocka_run_group_tests_name("outputs/bodies", tests, NULL, NULL);
}
