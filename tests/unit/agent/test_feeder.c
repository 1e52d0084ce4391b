/*
 * Goal: bodies and groups are handed over when they are full or due, the feeder stands still when the writer takes no more,
 * comes back, and forgets what a fence makes void; lost bytes reach the queue's ledger.
 * Method: followed.h.
 */
#include "tests/unit/agent/followed.h"

static int append(struct followed *w, size_t len)
{
    static char big[2 * MIB];
    struct append_result res;
    memset(big, 'x', len);
    w->s->rec.line = slice_of(big, len);
    return feeder_append(&w->f, &w->s->rec, w->now, &res);
}

static void test_due(void **state)
{
    struct followed w;
    (void)state;
    followed_init(&w);
    assert_true(feeder_due_at(&w.f) == w.now + 30 * NS_PER_SEC); /* nothing but positions */
    assert_int_equal(append(&w, 100), 0);
    assert_true(feeder_due_at(&w.f) == w.now + NS_PER_SEC);
    feeder_close_if_due(&w.f, w.tail, w.now, false);
    assert_non_null(w.s->out.open.first);
    followed_read(&w);
    feeder_close_if_due(&w.f, w.tail, w.now + NS_PER_SEC, false);
    assert_null(w.s->out.open.first);
    stand_wait(w.s, w.s->told.durable == 1);
    assert_int_equal(stand_accepted(w.s), 1);
    assert_true(feeder_due_at(&w.f) == w.now + 31 * NS_PER_SEC);
    feeder_close_if_due(&w.f, w.tail, w.now, true); /* nothing: no group */
    assert_int_equal(w.f.collected, 1);
    followed_deinit(&w);
}

static void test_full_body_goes_at_once(void **state)
{
    struct followed w;
    (void)state;
    followed_init(&w);
    assert_int_equal(append(&w, MIB), 0); /* batch_bytes */
    assert_null(w.s->out.open.first);
    assert_true(w.f.is_in_group);
    stand_poll(stand_accepted(w.s) == 1);
    assert_int_equal(append(&w, 10), 0);
    assert_int_equal(append(&w, 2 * MIB - 5), 0); /* no room with the other: that one goes first */
    stand_poll(stand_accepted(w.s) == 3);
    assert_int_equal(append(&w, MIB - 5), 0);
    assert_true(feeder_due_at(&w.f) == 0); /* 4 MiB in all, though most of it is with the writer */
    followed_read(&w);
    feeder_close_if_due(&w.f, w.tail, w.now, false);
    stand_wait(w.s, w.s->told.durable == 1);
    assert_int_equal(stand_accepted(w.s), 4);
    assert_false(w.f.is_in_group);
    assert_true(feeder_due_at(&w.f) > w.now);
    followed_deinit(&w);
}

/* Behind three full bodies of four a half one ends the group: a full one would leave a few lines for another. */
static void test_half_a_body_ends_a_group(void **state)
{
    struct followed w;
    (void)state;
    followed_init(&w);
    assert_int_equal(append(&w, MIB / 2), 0);
    assert_true(feeder_due_at(&w.f) > w.now);
    assert_int_equal(append(&w, MIB / 2), 0);
    assert_int_equal(append(&w, MIB), 0);
    stand_poll(stand_accepted(w.s) == 3);
    assert_int_equal(append(&w, MIB / 2), 0);
    assert_true(feeder_due_at(&w.f) > w.now);
    assert_int_equal(append(&w, MIB / 2), 0);
    stand_poll(stand_accepted(w.s) == 5);
    assert_int_equal(append(&w, MIB / 2 - 100), 0);
    assert_true(feeder_due_at(&w.f) > w.now);
    assert_int_equal(append(&w, 100), 0);
    assert_true(feeder_due_at(&w.f) == 0);
    followed_read(&w);
    feeder_close_if_due(&w.f, w.tail, w.now, false);
    stand_wait(w.s, w.s->told.durable == 1);
    assert_int_equal(stand_accepted(w.s), 7);
    followed_deinit(&w);
}

static void test_blocked_and_back(void **state)
{
    struct followed w;
    unsigned appended = 0;
    (void)state;
    followed_init(&w);
    atomic_store(&stand_write_error, -ENOSPC);
    while (!w.f.is_blocked) {
        assert_int_equal(append(&w, MIB), 0);
        assert_true(++appended < 10);
    }
    assert_non_null(w.f.pending);
    assert_true(feeder_due_at(&w.f) == INT64_MAX);
    assert_false(feeder_on_space(&w.f, w.now));
    followed_read(&w);
    feeder_close_if_due(&w.f, w.tail, w.now, true); /* not while one is pending */
    assert_int_equal(w.f.collected, 0);
    atomic_store(&stand_write_error, 0);
    for (unsigned seen = 0; w.f.is_blocked;) { /* as the reader does: each time it is told of space */
        stand_wait(w.s, w.s->told.spaces > seen);
        pthread_mutex_lock(&w.s->told.lock);
        seen = w.s->told.spaces;
        pthread_mutex_unlock(&w.s->told.lock);
        if (feeder_on_space(&w.f, w.now))
            break;
    }
    assert_null(w.f.pending);
    assert_false(w.f.is_blocked);
    feeder_close_if_due(&w.f, w.tail, w.now, true);
    stand_wait(w.s, w.s->told.durable == 1);
    assert_int_equal(stand_accepted(w.s), appended);
    followed_deinit(&w);
}

/* With little memory groups are closed early, one is on its way at a time, and what an output holds stays near its share
 * while the disk takes nothing. */
static void test_small_share(void **state)
{
    struct followed w;
    unsigned appended = 0;
    (void)state;
    followed_init(&w);
    uint8_t account = w.s->out.open.account;
    budget_configure(1, 1); /* the least there is: a share of FLOW_MIN_BYTES / 2 */
    size_t share = budget_batches_share();
    assert_int_equal(share, FLOW_MIN_BYTES / 2);
    atomic_store(&stand_write_error, -ENOSPC);
    for (; !w.f.is_blocked; appended++) {
        assert_int_equal(append(&w, 16 * KIB), 0);
        assert_true(budget_of(account) < 2 * share);
        if (feeder_due_at(&w.f) == 0)
            feeder_close_if_due(&w.f, w.tail, w.now, false);
        assert_true(appended < 100);
    }
    assert_true(w.f.collected >= 1 || w.f.pending != NULL);
    atomic_store(&stand_write_error, 0);
    for (unsigned seen = 0; w.f.is_blocked;) {
        stand_wait(w.s, w.s->told.spaces > seen);
        pthread_mutex_lock(&w.s->told.lock);
        seen = w.s->told.spaces;
        pthread_mutex_unlock(&w.s->told.lock);
        if (feeder_on_space(&w.f, w.now))
            break;
    }
    feeder_close_if_due(&w.f, w.tail, w.now, true);
    stand_poll(stand_accepted(w.s) == appended);
    assert_int_equal(append(&w, MIB), 0); /* one line is always taken */
    followed_read(&w);
    feeder_close_if_due(&w.f, w.tail, w.now, true);
    stand_poll(stand_accepted(w.s) == appended + 1);
    budget_configure(0, 1);
    followed_deinit(&w);
    assert_int_equal(budget_of(account), 0);
}

static void test_fence(void **state)
{
    struct followed w;
    (void)state;
    followed_init(&w);
    atomic_store(&stand_write_error, -ENOSPC);
    while (!w.f.is_blocked)
        assert_int_equal(append(&w, MIB), 0);
    feeder_on_fence(&w.f, 1);
    assert_false(w.f.is_blocked);
    assert_null(w.f.pending);
    assert_null(w.s->out.open.first);
    assert_false(w.f.is_in_group);
    assert_int_equal(w.f.epoch, 1);
    assert_int_equal(append(&w, 10), 0);
    atomic_store(&stand_write_error, 0);
    followed_deinit(&w);
}

#define RETRY_NS (200 * NS_PER_MS)

static void test_no_memory(void **state)
{
    struct followed w;
    (void)state;
    followed_init(&w);
    atomic_store(&stand_append_error, -ENOMEM);
    assert_int_equal(append(&w, 10), -ENOMEM);
    assert_non_null(w.s->out.open.first); /* a body that was made for it, and is empty */
    assert_true(w.f.is_blocked);
    assert_true(feeder_due_at(&w.f) == w.now + RETRY_NS);
    assert_false(feeder_on_space(&w.f, w.now + RETRY_NS - 1));
    feeder_close_if_due(&w.f, w.tail, w.now, true); /* not while it waits */
    assert_true(feeder_on_space(&w.f, w.now + RETRY_NS));
    followed_read(&w);
    feeder_close_if_due(&w.f, w.tail, w.now, true);
    stand_wait(w.s, w.s->told.durable == 1);
    assert_null(w.s->out.open.first);
    assert_int_equal(atomic_load(&stand_seals), 0); /* positions, and no frame without lines */
    atomic_store(&stand_append_error, 0);
    assert_int_equal(append(&w, 10), 0);
    followed_deinit(&w);
}

static void test_lost_bytes_are_kept(void **state)
{
    struct followed w;
    struct queue_recovery rec;
    (void)state;
    followed_init(&w);
    struct lost_range lost = { 7, 100, 350, LOST_HELD_LIMIT, SLICE("t") };
    followed_read(&w);
    for (int i = 0; i < 9; i++)
        feeder_lost(&w.f, &lost);
    assert_int_equal(append(&w, 10), 0);
    feeder_close_if_due(&w.f, w.tail, w.now, true);
    assert_int_equal(w.f.n_lost, 0);
    stand_wait(w.s, w.s->told.durable == 1);
    stand_stop(w.s);
    struct queue_open_conf qc = { .output = &w.s->conf, .wire_form = WIRE_NDJSON, .allow_network_fs = true };
    assert_int_equal(queue_open(&qc, &w.s->queue, &rec, NULL), 0);
    assert_int_equal(rec.n_rows, 1);
    assert_int_equal(rec.rows[0].lost_bytes[LOST_HELD_LIMIT], 9 * 250);
    assert_int_equal(rec.rows[0].lost[LOST_HELD_LIMIT], 0);
    queue_close(w.s->queue);
    stand_start(w.s);
    followed_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_due),   cmocka_unit_test(test_full_body_goes_at_once), cmocka_unit_test(test_blocked_and_back),
        cmocka_unit_test(test_fence), cmocka_unit_test(test_no_memory),              cmocka_unit_test(test_lost_bytes_are_kept),
        cmocka_unit_test(test_small_share), cmocka_unit_test(test_half_a_body_ends_a_group),
    };
    return cmocka_run_group_tests_name("agent/feeder", tests, NULL, NULL);
}
