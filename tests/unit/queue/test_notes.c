/*
 * Goal: notes of what is to be read again are taken as far as they make sense: whatever else stands in them does no harm, and rather
 * too little is read again than a line twice. Method: metas put together item by item.
 */
#include "tests/unit/queue/fixture.h"

static const struct letter_id ID = { 3, 4 };

static void put_range_item(struct buf *b, uint64_t incarnation, uint64_t start, uint64_t end, enum lost_reason reason)
{
    assert_int_equal(meta_put_lost(b, &(struct lost_range){ .incarnation = incarnation, .start = start, .end = end, .reason = reason }), 0);
}

static void put_place(struct buf *b, uint64_t incarnation, uint64_t end)
{
    const struct file_position pos = { .incarnation = incarnation, .start = end, .end = end, .tail_len = 3 };
    assert_int_equal(meta_put_position(b, &pos), 0);
}

static void put_held(struct buf *b, const void *p, size_t n)
{
    assert_int_equal(meta_put(b, META_HELD, false, slice_of(p, n)), 0);
}

static void put_mark(struct buf *b)
{
    put_held(b, "\0\0\0\0", 4);
}

/* What is taken of b, which is emptied. */
static void taken(struct buf *b, struct rereads *rr, struct letter_id id)
{
    assert_int_equal(rereads_take(rr, id, buf_slice(b)), 0);
    buf_reset(b);
}

static void what_is_no_note(void **state)
{
    (void)state;
    struct rereads rr = { 0 };
    struct buf b;
    buf_init(&b, MIB);
    taken(&b, &rr, ID);
    put_range_item(&b, 1, 0, 10, LOST_DAMAGE); /* without a mark: of an older version */
    assert_false(reread_is_meant(buf_slice(&b)));
    taken(&b, &rr, ID);
    put_mark(&b); /* of nothing */
    assert_true(reread_is_meant(buf_slice(&b)));
    taken(&b, &rr, ID);
    put_range_item(&b, 1, 0, 10, LOST_TRUNCATED); /* not to be had again */
    put_mark(&b);
    taken(&b, &rr, ID);
    put_range_item(&b, 1, 0, 10, LOST_DAMAGE);
    put_held(&b, "\1\0\0\0", 4); /* no mark */
    put_held(&b, "\0\0\0\0\0", 5);
    taken(&b, &rr, ID);
    put_range_item(&b, 1, 0, 10, LOST_DAMAGE); /* without a name nobody could say that it is done */
    put_mark(&b);
    taken(&b, &rr, (struct letter_id){ 0, 0 });
    assert_int_equal(meta_put(&b, META_LOST, false, SLICE("short")), 0);
    assert_int_equal(meta_put(&b, META_POS, false, SLICE("short")), 0);
    put_mark(&b);
    taken(&b, &rr, ID);
    assert_int_equal(rr.n, 0);
    rereads_deinit(&rr);
    buf_deinit(&b);
}

/* Places belong to the range before them, if they are its own. */
static void places_of_ranges(void **state)
{
    (void)state;
    struct rereads rr = { 0 };
    struct buf b;
    buf_init(&b, MIB);
    put_place(&b, 1, 10); /* of none yet */
    put_range_item(&b, 1, 10, 20, LOST_DAMAGE);
    put_place(&b, 2, 10); /* of another file */
    put_place(&b, 1, 15); /* in its middle */
    assert_int_equal(meta_put(&b, META_PART, false, SLICE("of nothing")), 0);
    put_place(&b, 1, 10);
    put_range_item(&b, 1, 30, 40, LOST_DAMAGE);
    put_place(&b, 1, 40);
    put_place(&b, 1, 30);
    put_mark(&b);
    taken(&b, &rr, ID);
    assert_int_equal(rr.n, 1);
    assert_int_equal(rr.list[0].n_ranges, 2);
    assert_int_equal(rr.list[0].ranges[0].from.tail_len, 3);
    assert_false(rr.list[0].ranges[0].knows_to);
    assert_true(rr.list[0].ranges[1].knows_to);
    assert_true(rereads_have(&rr, ID));
    rereads_deinit(&rr);
    buf_deinit(&b);
}

/* More ranges than are kept: the first are read again, the rest stays lost. */
static void more_ranges_than_are_kept(void **state)
{
    (void)state;
    struct rereads rr = { 0 };
    struct gaps gaps = { 0 };
    struct buf b;
    buf_init(&b, MIB);
    for (uint64_t i = 0; i < GAPS_MAX + 5; i++) {
        const struct reread_range g = { .from = { .incarnation = 1, .end = 10 * i },
                                        .to = { .incarnation = 1, .start = 10 * i, .end = 10 * i + 5 } };
        put_range_item(&b, 1, 10 * i, 10 * i + 5, LOST_DAMAGE);
        assert_int_equal(gaps_put(&gaps, &g), 0);
        assert_int_equal(gaps_put(&gaps, &g), 0); /* once */
    }
    put_mark(&b);
    taken(&b, &rr, ID);
    assert_int_equal(rr.n, 1);
    assert_int_equal(rr.list[0].n_ranges, GAPS_MAX);
    assert_int_equal(gaps.n, GAPS_MAX);
    gaps_deinit(&gaps);
    rereads_deinit(&rr);
    buf_deinit(&b);
}

/* What other frames hold: lists that are cut or too long say nothing, and nothing beyond them is read. */
static void held_lists(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, MIB);
    put_held(&b, "", 0);
    put_held(&b, "\1\0", 2);
    put_held(&b, "\377\377\1\0t", 5);   /* a longer name than there is */
    put_held(&b, "\2\0\1\0t", 5);
    assert_int_equal(meta_put(&b, META_LOST, false, SLICE("\1\0\1\0t")), 0);
    struct reread rr = { .held = buf_slice(&b) };
    assert_false(reread_is_held(&rr, SLICE("t"), 1, 0, 5));
    put_held(&b, "\1\0\0\0t", 5);       /* no sources: nothing of it is held */
    rr.held = buf_slice(&b);
    assert_false(reread_is_held(&rr, SLICE("t"), 1, 0, 5));
    put_held(&b, "\1\0\1\0t", 5);       /* a frame that does not say: all of it may be held */
    rr.held = buf_slice(&b);
    assert_true(reread_is_held(&rr, SLICE("t"), 1, 0, 5));
    assert_false(reread_is_held(&rr, SLICE("u"), 1, 0, 5));
    buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_no_note), cmocka_unit_test(places_of_ranges), cmocka_unit_test(more_ranges_than_are_kept),
        cmocka_unit_test(held_lists),
    };
    return cmocka_run_group_tests_name("queue/notes", tests, NULL, NULL);
}
