/*
 * Goal: writer and sender work at the same time without a lock around them. Method: two threads, 20,000 frames, small
 * segments; TSan sees what is shared, the order and number of frames what is lost. The same over damaged frames, whose loss
 * the sender counts while the writer logs it.
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

/* ---- damage ---- */

#define DAMAGED 240 /* of three times as many; below GAPS_MAX, should the flusher have no turn in between */

/* One byte of the body of each third frame. */
static void hurt_all(struct fixture *f)
{
    static char bytes[256 * KIB];
    char path[512], name[64];
    unsigned n = 0;
    for (unsigned id = 1; n < DAMAGED; id++) {
        snprintf(name, sizeof(name), "%016x.seg", id);
        fixture_path(f, path, name);
        int fd = open(path, O_RDWR);
        assert_true(fd >= 0);
        ssize_t len = pread(fd, bytes, sizeof(bytes), 0);
        unsigned number = 0;
        for (char *p = bytes; (p = memmem(p, (size_t)(bytes + len - p), "frame ", 6)) != NULL; p++)
            if (sscanf(p, "frame %u", &number) == 1 && number % 3 == 0 && number <= 3 * DAMAGED) {
                assert_int_equal(pwrite(fd, "X", 1, p - bytes), 1);
                n++;
            }
        close(fd);
    }
}

static void *flusher(void *arg)
{
    struct fixture *f = arg;
    const struct reread *rr;
    uint64_t *read_again = calloc(1, sizeof(*read_again));
    for (bool is_last = false;; is_last = atomic_load(&is_sent)) {
        assert_int_equal(queue_cursor_sync(f->q), 0);
        while ((rr = queue_reread_next(f->q)) != NULL)
            for (size_t i = 0; i < rr->n_ranges; i++)
                *read_again += rr->ranges[i].to.end - rr->ranges[i].from.end;
        if (is_last)
            return read_again;
        sched_yield();
    }
}

static void *passer(void *arg)
{
    struct fixture *f = arg;
    struct frame_head h;
    for (unsigned i = 1; i <= 3 * DAMAGED; i++) {
        if (i % 3 == 0)
            continue;
        assert_int_equal(take_one(f, &h), i);
        assert_true(queue_ack(f->q, h.seq));
    }
    assert_int_equal(take_one(f, &h), 3 * DAMAGED + 1);
    assert_true(queue_ack(f->q, h.seq));
    atomic_store(&is_sent, true);
    return NULL;
}

static void losses_are_logged_meanwhile(void **state)
{
    (void)state;
    struct fixture f;
    pthread_t a, b;
    void *read_again;
    fixture_init(&f);
    queue_tuning.segment_bytes = 4 * KIB;
    fixture_open(&f);
    put_synced(&f, 1, 3 * DAMAGED + 1);
    queue_close(f.q);
    hurt_all(&f);
    fixture_open(&f);
    atomic_store(&is_sent, false);
    assert_int_equal(pthread_create(&a, NULL, flusher, &f), 0);
    assert_int_equal(pthread_create(&b, NULL, passer, &f), 0);
    pthread_join(b, NULL);
    pthread_join(a, &read_again);
    assert_int_equal(*(uint64_t *)read_again, DAMAGED); /* a byte of the file each */
    free(read_again);
    assert_int_equal(f.q->dead.tally.n, 1);
    assert_int_equal(f.q->dead.tally.rows[0].lost[LOST_DAMAGE], DAMAGED);
    fixture_deinit(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(frames_flow), cmocka_unit_test(losses_are_logged_meanwhile) };
    return cmocka_run_group_tests_name("queue/threads", tests, NULL, NULL);
}
