/*
 * Goal: writer and sender work at the same time without a lock around them. Method: two threads, 20,000 frames, small
 * segments; TSan sees what is shared, the order and number of frames what is lost.
 */
#include <pthread.h>
#include <sched.h>

#include "tests/unit/queue/fixture.h"

#define FRAMES 20000

static _Atomic bool is_sent;

static void *writer(void *arg)
{
    struct fixture *f = arg;
    unsigned n = 0;
    while (n < FRAMES || !atomic_load(&is_sent)) {
        if (n < FRAMES) {
            if (put_one(f, n + 1) == 0)
                n++;
        }
        /* A full queue gets room only by what is synced, sent and unlinked: that goes on, as in the real writer. */
        bool is_waiting = n == FRAMES || queue_is_blocked(f->q, NULL);
        if (n % 64 == 0 || is_waiting)
            assert_int_equal(queue_sync(f->q), 0);
        if (n % 512 == 0 || is_waiting) {
            assert_int_equal(queue_cursor_sync(f->q), 0);
            assert_int_equal(queue_unlink_acked(f->q), 0);
            (void)queue_bytes(f->q);
        }
        if (is_waiting)
            sched_yield();
    }
    return NULL;
}

/* Acknowledges every other frame at once, the rest behind it. */
static void *sender(void *arg)
{
    struct fixture *f = arg;
    struct frame_head h;
    uint64_t late = 0;
    for (unsigned i = 1; i <= FRAMES;) {
        unsigned number = take_one(f, &h);
        if (number == 0) {
            (void)queue_has_cursor_news(f->q);
            sched_yield();
            continue;
        }
        assert_int_equal(number, i);
        if (i % 2 == 0) {
            assert_true(queue_ack(f->q, h.seq));
            assert_true(queue_ack(f->q, late));
        }
        late = h.seq;
        i++;
    }
    atomic_store(&is_sent, true);
    return NULL;
}

static void frames_flow(void **state)
{
    (void)state;
    struct fixture f;
    pthread_t a, b;
    fixture_init(&f);
    queue_tuning.segment_bytes = 128 * KIB;
    f.output.queue.max_bytes = 2 * MIB;
    fixture_open(&f);
    assert_int_equal(pthread_create(&a, NULL, writer, &f), 0);
    assert_int_equal(pthread_create(&b, NULL, sender, &f), 0);
    pthread_join(a, NULL);
    pthread_join(b, NULL);
    queue_close(f.q);
    f.q = NULL;
    fixture_open(&f);
    assert_int_equal(f.rec.queued_lines, 0);
    assert_int_equal(file_end(&f.rec, 1), FRAMES);
    assert_int_equal(rec_row(&f.rec, "t").accepted, FRAMES);
    fixture_deinit(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(frames_flow) };
    return cmocka_run_group_tests_name("queue/threads", tests, NULL, NULL);
}
