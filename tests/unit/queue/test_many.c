/*
 * Goal: more letters than go in one group, more damaged places than are remembered, a segment taken away under a running queue:
 * each line comes once or is counted, once. Method: a queue on the real disk, whose files are changed as damage would.
 */
#include "agent/queue/inspect.h"
#include "agent/queue/letters.h"

#include "tests/unit/queue/fixture.h"

/* ---- letters ---- */

enum { LETTERS = 600 };

/* All lines of the queue are dead letters. */
static void write_letters(struct fixture *f)
{
    struct sample s;
    struct frame_head h;
    fixture_open(f);
    put_synced(f, 1, LETTERS);
    for (unsigned i = 1; i <= LETTERS; i++) {
        assert_int_equal(take_one(f, &h), i);
        struct frame_orig orig = { .seq = h.seq, .status = 400, .reason = SLICE("r"), .text = SLICE("t") };
        assert_int_equal(queue_dead_append(f->q, sample_frame(&s, i, 1, "t"), &orig), 0);
        assert_true(queue_ack(f->q, h.seq));
    }
    assert_int_equal(queue_cursor_sync(f->q), 0);
    fixture_close(f);
}

static bool all(void *ctx, const struct letter *l)
{
    (void)ctx;
    (void)l;
    return true;
}

static bool none(void *ctx, const struct letter *l)
{
    (void)ctx;
    (void)l;
    return false;
}

static void many_letters(void **state)
{
    struct fixture *f = *state;
    struct letters_result res;
    bool seen[LETTERS + 1] = { false };
    struct frame_head h;
    for (uint64_t group_bytes = 0; group_bytes <= KIB; group_bytes += KIB) { /* by number, and by bytes */
        f->output.queue.group_bytes = group_bytes;
        write_letters(f);
        fixture_open(f);
        assert_int_equal(queue_letters_settle(f->q, LETTER_RESENT, all, NULL, &res), 0);
        memset(seen, 0, sizeof(seen));
        for (unsigned i, n = 0; n < LETTERS; n++) {
            i = take_one(f, &h);
            assert_true(i >= 1 && i <= LETTERS && !seen[i]);
            seen[i] = true;
            assert_true(queue_ack(f->q, h.seq));
        }
        assert_int_equal(take_one(f, &h), 0);
        assert_int_equal(queue_letters_settle(f->q, LETTER_RESENT, all, NULL, &res), 0);
        assert_int_equal(take_one(f, &h), 0); /* once */
        fixture_deinit(f);
        (void)fixture_setup(state);
    }
}

static bool every_other(void *ctx, const struct letter *l)
{
    (void)ctx;
    return l->id.seq % 2 == 0;
}

static int note(void *ctx, const struct queue_frame *frame)
{
    return queue_frame_json(frame, ctx);
}

static void fates_by_name(void **state)
{
    struct fixture *f = *state;
    struct letters_result res;
    struct buf text;
    char dir[512];
    write_letters(f);
    fixture_open(f);
    assert_int_equal(queue_letters_settle(f->q, LETTER_DROPPED, none, NULL, &res), 0);
    fixture_path(f, dir, "");
    buf_init(&text, 4 * MIB);
    assert_int_equal(queue_inspect_each_frame(dir, note, &text, &f->err), 0);
    assert_true(slice_find(buf_slice(&text), SLICE("\"open\"")) >= 0);
    assert_true(slice_find(buf_slice(&text), SLICE("\"dropped\"")) < 0);
    assert_int_equal(queue_letters_settle(f->q, LETTER_DROPPED, every_other, NULL, &res), 0);
    buf_reset(&text);
    assert_int_equal(queue_inspect_each_frame(dir, note, &text, &f->err), 0);
    assert_true(slice_find(buf_slice(&text), SLICE("\"open\"")) >= 0);
    assert_true(slice_find(buf_slice(&text), SLICE("\"dropped\"")) >= 0);
    buf_deinit(&text);
    struct frame_head h;
    assert_int_equal(take_one(f, &h), 0);
}

/* ---- damage ---- */

/* The magic of every step-th frame of the first segment, the SNAP left out. */
static unsigned hurt(const struct fixture *f, unsigned step)
{
    static char bytes[MIB];
    char path[512];
    fixture_path(f, path, "0000000000000001.seg");
    int fd = open(path, O_RDWR);
    ssize_t len = pread(fd, bytes, sizeof(bytes), 0);
    assert_true(len > 0);
    unsigned frames = 0, hurt = 0;
    for (char *p = bytes; (p = memmem(p, (size_t)(bytes + len - p), "TRF1", 4)) != NULL; p++)
        if (p[4] == FRAME_DATA && ++frames % step == 0) {
            assert_int_equal(pwrite(fd, "----", 4, p - bytes), 4);
            hurt++;
        }
    close(fd);
    return hurt;
}

/* SPANS_MAX is 256. */
static void more_damage_than_is_remembered(void **state)
{
    struct fixture *f = *state;
    enum { FRAMES = 1200 };
    fixture_open(f);
    put_synced(f, 1, FRAMES);
    fixture_close(f);
    unsigned gone = hurt(f, 2);
    assert_int_equal(gone, FRAMES / 2);
    fixture_open(f);
    assert_int_equal(take_all(f), FRAMES - gone);
    for (int i = 0; i < 2; i++) {
        fixture_close(f);
        fixture_open(f);
        assert_int_equal(take_all(f), 0);
        assert_int_equal(rec_row(&f->rec, "t").lost[LOST_DAMAGE] + rec_row(&f->rec, TENANT_UNKNOWN).lost[LOST_DAMAGE], gone);
    }
}

static void a_segment_is_taken_away(void **state)
{
    struct fixture *f = *state;
    char path[512];
    enum { FRAMES = 200 };
    queue_tuning.segment_bytes = 8 * KIB;
    fixture_open(f);
    put_synced(f, 1, FRAMES);
    assert_true(f->q->n_segs > 3);
    fixture_path(f, path, "0000000000000002.seg");
    assert_int_equal(unlink(path), 0);
    unsigned n = take_all(f);
    assert_true(n > FRAMES / 2 && n < FRAMES);
    assert_int_equal(queue_cursor_sync(f->q), 0);
    const struct reread *rr = queue_reread_next(f->q);
    assert_non_null(rr);
    assert_int_equal(rr->n_ranges, 1);
    assert_int_equal(rr->ranges[0].to.end - rr->ranges[0].from.end, FRAMES - n);
    put_synced(f, FRAMES + 1, FRAMES + 2);
    for (unsigned i = 0; i < 2; i++) { /* once */
        fixture_close(f);
        fixture_open(f);
        assert_int_equal(rec_row(&f->rec, "t").lost[LOST_DAMAGE], FRAMES - n);
        assert_int_equal(rec_row(&f->rec, "t").queued, 2);
    }
    assert_int_equal(take_all(f), 2);
}

static void skips_that_find_nothing(void **state)
{
    struct fixture *f = *state;
    uint32_t lines;
    fixture_open(f);
    put_synced(f, 1, QUEUE_WINDOW + 10);
    const uint64_t last = queue_durable_seq(f->q);
    assert_int_equal(queue_skip(f->q, last + 1, &lines), -ENOENT);
    assert_int_equal(queue_skip(f->q, last, &lines), -ERANGE);
    assert_int_equal(hurt(f, QUEUE_WINDOW), 1); /* its neighbour comes in its place */
    assert_int_equal(queue_skip(f->q, 3, &lines), 0);
    assert_int_equal(lines, 1);
    assert_int_equal(queue_skip(f->q, 3, &lines), -ENOENT);
    assert_int_equal(take_all(f), QUEUE_WINDOW + 10 - 2);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(many_letters), TEST(fates_by_name), TEST(more_damage_than_is_remembered), TEST(a_segment_is_taken_away),
        TEST(skips_that_find_nothing),
    };
    return cmocka_run_group_tests_name("queue/many", tests, NULL, NULL);
}
