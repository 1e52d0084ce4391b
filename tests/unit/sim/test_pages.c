/*
 * Goal: what recovery finds in the page cache alone is on the disk before it counts. Method: the model disk, where a sync that
 * fails leaves pages clean that were never written, and the next sync says 0 of them: groups are written, their sync fails, the
 * process is killed before it can make them void; the next one finds them whole, and then the power goes. In each round
 * other sectors are those that the failed sync wrote.
 */
#include "tests/scopes/scope.h"

enum { ROUNDS = 16, LINES = 9 };

/* Lines 2.. are written, and then the sync of them fails; nothing more is done before the process dies. */
static void fail_a_sync_and_die(struct scope *s)
{
    scope_open(s);
    (void)scope_put_one(s, 1, 1);
    scope_sync(s);
    for (unsigned n = 2; n <= LINES; n++)
        (void)scope_put_one(s, n, n);
    disk_fault_add(s->d, &(struct disk_fault){ .kind = DISK_FAIL, .ops = DISK_OP(DISK_SYNC), .times = 1 });
    disk_fault_add(s->d, &(struct disk_fault){ .kind = DISK_DIE_BEFORE, .ops = DISK_ALL_OPS & ~DISK_OP(DISK_SYNC) });
    assert_int_equal(queue_sync(s->q), -EIO);
    assert_true(disk_is_dead(s->d));
    scope_close(s);
    disk_faults_clear(s->d);
    disk_kill(s->d);
}

static void expect_all(struct scope *s)
{
    struct account a = { 0 };
    assert_int_equal(scope_file_end(&s->rec), 10 * LINES);
    assert_int_equal(s->rec.damaged_frames, 0);
    scope_deliver(s, &a);
    for (unsigned n = 1; n <= LINES; n++)
        assert_int_equal(a.out[n], 1);
}

static void pages_of_a_failed_sync_are_written_again(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < ROUNDS; seed++) {
        struct scope s;
        scope_init(&s, seed);
        fail_a_sync_and_die(&s);
        scope_open(&s);
        assert_int_equal(scope_file_end(&s.rec), 10 * LINES); /* the cache has them: they count from here on */
        scope_crash(&s, LOSS_ALL, seed);
        scope_open(&s);
        expect_all(&s);
        scope_deinit(&s);
    }
}

/* What the first life knew to be durable was durable: when the cache goes before anybody has looked, the rest is read again. */
static void pages_that_are_gone_count_no_more(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < ROUNDS; seed++) {
        struct scope s;
        struct account a;
        scope_init(&s, seed);
        fail_a_sync_and_die(&s);
        disk_crash(s.d, LOSS_ALL, seed);
        scope_live(&s, LINES, &a);
        for (unsigned n = 1; n <= LINES; n++)
            assert_int_equal(a.out[n], 1);
        assert_int_equal(a.lost + a.dead, 0);
        scope_deinit(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_of_a_failed_sync_are_written_again),
        cmocka_unit_test(pages_that_are_gone_count_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
