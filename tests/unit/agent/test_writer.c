/*
 * Goal: what is pushed is in the queue once and counted once, whatever the disk says; a failed sync tells the reader where
 * it stands and drops what is under way; nobody waits for a word that does not come.
 * Method: stand.h: a real queue on a disk that can be made to fail.
 */
#include "tests/unit/agent/stand.h"

static void push(struct stand *s, struct group *g)
{
    assert_int_equal(writer_push(s->writer, 0, g), 0);
}

static unsigned calls_of_the_sender(struct stand *s)
{
    pthread_mutex_lock(&s->told.lock);
    unsigned n = s->told.frames;
    pthread_mutex_unlock(&s->told.lock);
    return n;
}

static void test_groups_become_durable(void **state)
{
    struct stand *s = stand_new();
    (void)state;
    push(s, stand_group(s, 1, 3, true, 0));
    push(s, stand_group(s, 2, 2, false, 0)); /* MORE */
    push(s, stand_group(s, 2, 4, true, 0));
    push(s, stand_group(s, 3, 0, true, 0)); /* positions alone */
    stand_wait(s, s->told.durable == 3);
    assert_int_equal(stand_accepted(s), 9);
    assert_int_equal(stand_queued(s), 9);
    stand_poll(calls_of_the_sender(s) > 0);
    stand_free(s);
}

static void test_full_disk_blocks_and_recovers(void **state)
{
    struct stand *s = stand_new();
    (void)state;
    push(s, stand_group(s, 1, 1, true, 0));
    stand_wait(s, s->told.durable == 1);
    atomic_store(&stand_write_error, -ENOSPC);
    push(s, stand_group(s, 2, 5, true, 0));
    stand_poll(gauge_get(&stats.outputs[0].blocked[BLOCKED_DISK_FULL]) == 1);
    assert_int_equal(stand_accepted(s), 1);
    unsigned seals = atomic_load(&stand_seals);
    atomic_store(&stand_write_error, 0);
    writer_wake(s->writer);
    stand_wait(s, s->told.durable == 2);
    assert_int_equal(stand_accepted(s), 6);
    assert_int_equal(gauge_get(&stats.outputs[0].blocked[BLOCKED_DISK_FULL]), 0);
    assert_int_equal(atomic_load(&stand_seals), seals); /* the same bytes again, not sealed again */
    stand_free(s);
}

static void test_seal_out_of_memory_is_tried_again(void **state)
{
    struct stand *s = stand_new();
    (void)state;
    atomic_store(&stand_seal_error, -ENOMEM);
    push(s, stand_group(s, 1, 2, true, 0));
    stand_poll(gauge_get(&stats.outputs[0].blocked[BLOCKED_WRITE_ERROR]) == 1);
    assert_int_equal(stand_accepted(s), 0);
    atomic_store(&stand_seal_error, 0);
    stand_wait(s, s->told.durable == 1);
    assert_int_equal(stand_accepted(s), 2);
    stand_free(s);
}

static void test_fence(void **state)
{
    struct stand *s = stand_new();
    (void)state;
    push(s, stand_group(s, 1, 3, true, 0));
    stand_wait(s, s->told.durable == 1);
    uint64_t off = s->off;
    atomic_store(&stand_sync_errors, 1);
    push(s, stand_group(s, 2, 5, true, 0));
    push(s, stand_group(s, 3, 5, false, 0));
    stand_wait(s, s->told.fences == 1);
    assert_int_equal(s->told.epoch, 1);
    assert_int_equal(s->told.fence_end, off);
    assert_int_equal(s->told.fence_lines, off);
    push(s, stand_group(s, 3, 7, true, 0)); /* the reader has not heard of it: void */
    s->off = off;
    push(s, stand_group(s, 4, 5, true, 1));
    stand_wait(s, s->told.durable == 4);
    assert_int_equal(stand_accepted(s), 8);
    assert_int_equal(stand_queued(s), 8);
    stand_free(s);
}

/* The disk is full within a group, and all before it is acknowledged: what of it is written counts no more, what came before
 * it does, and the reader hears where it stands. */
static void test_group_is_given_up_on_a_full_disk(void **state)
{
    struct stand *s = stand_new();
    struct frame_head head;
    (void)state;
    push(s, stand_group(s, 1, 3, true, 0));
    stand_wait(s, s->told.durable == 1);
    assert_int_equal(queue_next(s->queue, &head), 1);
    assert_true(queue_ack(s->queue, head.seq));
    uint64_t off = s->off;
    push(s, stand_group(s, 2, 5, false, 0)); /* MORE */
    stand_poll(stand_accepted(s) == 8);
    atomic_store(&stand_write_error, -ENOSPC);
    push(s, stand_group(s, 2, 4, true, 0));
    stand_wait(s, s->told.fences == 1);
    assert_int_equal(s->told.epoch, 1);
    assert_int_equal(s->told.fence_end, off);
    assert_int_equal(s->told.fence_lines, off);
    assert_int_equal(s->told.durable, 1);
    assert_int_equal(stand_accepted(s), 3);
    atomic_store(&stand_write_error, 0);
    s->off = off;
    push(s, stand_group(s, 2, 9, true, 1));
    stand_wait(s, s->told.durable == 2);
    assert_int_equal(stand_accepted(s), 12);
    assert_int_equal(queue_next(s->queue, &head), 1);
    assert_int_equal(head.lines, 9);
    assert_true(queue_ack(s->queue, head.seq));
    assert_int_equal(queue_next(s->queue, &head), 0);
    stand_free(s);
}

struct counted_job {
    struct writer_job job;
    _Atomic int runs, dones;
};

static void job_run(struct writer_job *job)
{
    atomic_fetch_add(&((struct counted_job *)(void *)job)->runs, 1);
}

static void job_done(struct writer_job *job)
{
    atomic_fetch_add(&((struct counted_job *)(void *)job)->dones, 1);
}

/* A job runs after what the writer was doing: then it is done with what was pushed before. */
static bool writer_is_idle(struct stand *s)
{
    struct counted_job j = { .job = { .run = job_run, .done = job_done } };
    writer_post(s->writer, &j.job);
    stand_poll(atomic_load(&j.dones) == 1);
    return true;
}

/* A segment that is gone keeps its blocks for as long as the sender has it open: it is called to look. */
static void test_full_disk_calls_the_sender(void **state)
{
    struct stand *s = stand_new();
    (void)state;
    push(s, stand_group(s, 1, 1, true, 0));
    stand_wait(s, s->told.durable == 1);
    stand_poll(calls_of_the_sender(s) > 0);
    stand_poll(writer_is_idle(s));
    unsigned calls = calls_of_the_sender(s);
    atomic_store(&stand_write_error, -ENOSPC);
    push(s, stand_group(s, 2, 5, true, 0));
    stand_poll(calls_of_the_sender(s) > calls);
    atomic_store(&stand_write_error, 0);
    stand_free(s);
}

/* Groups that a roll made durable are not taken back when a later sync fails. */
static void test_fence_after_a_roll(void **state)
{
    struct stand *s = stand_new();
    (void)state;
    s->conf.queue.sync_interval_ns = 3600 * NS_PER_SEC;
    uint64_t lines = 0, number = 0;
    static char big[MIB];
    memset(big, 'x', sizeof(big));
    s->rec.line = slice_of(big, sizeof(big)); /* 4 MiB segments: a few of these roll */
    while (queue_durable_seq(s->queue) <= 1 || lines < 6) { /* one at a time: none is refused */
        push(s, stand_group(s, ++number, 1, true, 0));
        lines++;
        stand_poll(stand_accepted(s) == lines);
        stand_poll(writer_is_idle(s));
    }
    uint64_t durable = queue_durable_seq(s->queue);
    assert_true(durable > 1); /* a roll synced what was before it */
    atomic_store(&stand_sync_errors, 1);
    stand_stop(s);
    assert_true(stand_accepted(s) > 0 && stand_accepted(s) < lines);
    assert_int_equal(stand_queued(s), stand_accepted(s));
    uint64_t accepted = stand_accepted(s);
    stand_start(s);
    struct queue_recovery rec;
    struct queue_open_conf qc = { .output = &s->conf, .wire_form = WIRE_NDJSON, .allow_network_fs = true };
    stand_stop(s);
    assert_int_equal(queue_open(&qc, &s->queue, &rec, NULL), 0);
    assert_int_equal(rec.n_rows, 1);
    assert_int_equal(rec.rows[0].accepted, accepted); /* the counter says what the disk says */
    queue_close(s->queue);
    s->queue = NULL;
    stand_start(s);
    stand_free(s);
}

/* Small groups overrun the ring of 16 again and again: each -EAGAIN is followed by on_space. */
static void test_full_ring_is_always_heard(void **state)
{
    struct stand *s = stand_new();
    unsigned waits = 0;
    (void)state;
    for (uint64_t n = 1; n <= 3000; n++) {
        struct group *g = stand_group(s, n, 1, true, 0);
        for (;;) {
            pthread_mutex_lock(&s->told.lock);
            unsigned spaces = s->told.spaces;
            pthread_mutex_unlock(&s->told.lock);
            if (writer_push(s->writer, 0, g) == 0)
                break;
            waits++;
            stand_wait(s, s->told.spaces > spaces);
        }
    }
    stand_wait(s, s->told.durable == 3000);
    assert_int_equal(stand_accepted(s), 3000);
    assert_true(waits > 0);
    stand_free(s);
}

static void test_stop_with_a_blocked_queue(void **state)
{
    struct stand *s = stand_new();
    (void)state;
    push(s, stand_group(s, 1, 1, true, 0));
    stand_wait(s, s->told.durable == 1);
    push(s, stand_group(s, 2, 3, false, 0));
    stand_poll(stand_accepted(s) == 4);
    atomic_store(&stand_write_error, -ENOSPC);
    push(s, stand_group(s, 2, 1, true, 0));
    stand_poll(gauge_get(&stats.outputs[0].blocked[BLOCKED_DISK_FULL]) == 1);
    int64_t before = clock_mono_ns();
    writer_stop(s->writer, 100 * NS_PER_MS);
    assert_true(clock_mono_ns() - before < 5 * NS_PER_SEC);
    assert_int_equal(stand_accepted(s), 1); /* the open group is given up: its lines are in their file */
    assert_int_equal(stand_queued(s), 1);
    atomic_store(&stand_write_error, 0);
    stand_free(s);
}

static void test_jobs_run_before_and_after_the_stop(void **state)
{
    struct stand *s = stand_new();
    struct counted_job a = { .job = { .run = job_run, .done = job_done } };
    struct counted_job b = { .job = { .run = job_run, .done = job_done } };
    (void)state;
    writer_post(s->writer, &a.job);
    stand_poll(atomic_load(&a.dones) == 1);
    writer_stop(s->writer, NS_PER_SEC);
    writer_post(s->writer, &b.job);
    stand_free(s);
    assert_int_equal(b.runs, 1);
    assert_int_equal(b.dones, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups_become_durable),
        cmocka_unit_test(test_full_disk_blocks_and_recovers),
        cmocka_unit_test(test_group_is_given_up_on_a_full_disk),
        cmocka_unit_test(test_full_disk_calls_the_sender),
        cmocka_unit_test(test_seal_out_of_memory_is_tried_again),
        cmocka_unit_test(test_fence),
        cmocka_unit_test(test_fence_after_a_roll),
        cmocka_unit_test(test_full_ring_is_always_heard),
        cmocka_unit_test(test_stop_with_a_blocked_queue),
        cmocka_unit_test(test_jobs_run_before_and_after_the_stop),
    };
    return cmocka_run_group_tests_name("agent/writer", tests, NULL, NULL);
}
