/*
 * Goal: the sender's end asks the disk once for a frame, and is right when the disk gives less than was asked for or
 * cannot read one place. Method: the real disk behind calls that count, cut short or fail.
 */
#include "tests/unit/queue/fixture.h"

static struct fs_ops ops;
static struct {
    unsigned reads;
    size_t most;        /* bytes a preadv gives; 0: all */
    uint64_t bad_at;    /* a place that cannot be read; 0: none */
    uint64_t bytes;     /* read in all */
    unsigned skip, fails; /* after so many reads so many fail, whatever they ask for */
    int error;
} disk;

static bool strikes(void)
{
    disk.reads++;
    if (disk.fails == 0)
        return false;
    if (disk.skip > 0) {
        disk.skip--;
        return false;
    }
    disk.fails--;
    return true;
}

static bool is_bad(uint64_t off, size_t len)
{
    return disk.bad_at >= off && disk.bad_at < off + len && disk.bad_at > 0;
}

static ssize_t counted_pread(int fd, void *ptr, size_t len, uint64_t off)
{
    if (strikes())
        return disk.error;
    disk.bytes += len;
    return is_bad(off, len) ? -EIO : fs_real.pread(fd, ptr, len, off);
}

/* As the kernel does: what lies before a bad place is given. */
static ssize_t counted_preadv(int fd, const struct iovec *iov, int n, uint64_t off)
{
    if (strikes())
        return disk.error;
    size_t done = 0, most = disk.most == 0 ? SIZE_MAX : disk.most;
    for (int i = 0; i < n && done < most; i++) {
        size_t len = MIN(iov[i].iov_len, most - done);
        bool bad = is_bad(off + done, len);
        if (bad)
            len = (size_t)(disk.bad_at - off) - done;
        ssize_t got = fs_real.pread(fd, iov[i].iov_base, len, off + done);
        assert_true(got >= 0);
        done += (size_t)got;
        if (bad)
            return done == 0 ? -EIO : (ssize_t)done;
    }
    return (ssize_t)done;
}

static int setup(void **state)
{
    static struct fixture f;
    disk.reads = 0;
    disk.most = 0;
    disk.bad_at = 0;
    disk.fails = 0;
    ops = fs_real;
    ops.pread = counted_pread;
    ops.preadv = counted_preadv;
    fs_set_ops(&ops);
    fixture_init(&f);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture_deinit(*state);
    fs_set_ops(NULL);
    return 0;
}

static unsigned reads_of(struct fixture *f, unsigned first, unsigned last)
{
    disk.reads = 0;
    drain(f, first, last);
    return disk.reads;
}

static void one_read_for_a_frame_just_written(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    put_synced(f, 1, 1);
    assert_int_equal(reads_of(f, 1, 1), 2); /* the SNAP before it */
    for (unsigned i = 2; i < 10; i++) {
        put_synced(f, i, i);
        assert_int_equal(reads_of(f, i, i), 1);
    }
}

static void one_read_for_a_frame_of_a_backlog(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    put_synced(f, 1, 500);
    fixture_crash(f);
    fixture_open(f);
    assert_in_range(reads_of(f, 1, 500), 500, 505); /* the first header, and what was begun at the start */
}

static void backlog_and_new_frames_meet(void **state)
{
    struct fixture *f = *state;
    struct frame_head h;
    queue_tuning.segment_bytes = 64 * KIB;
    fixture_open(f);
    put_synced(f, 1, 300);
    for (unsigned i = 1; i <= 900; i++) {
        assert_int_equal(take_one(f, &h), i);
        assert_true(queue_ack(f->q, h.seq));
        if (i <= 600)
            put_synced(f, 300 + i, 300 + i);
        if (i % 50 == 0)
            queue_rewind(f->q);
    }
    assert_int_equal(take_one(f, &h), 0);
}

static void short_reads_are_finished(void **state)
{
    struct fixture *f = *state;
    for (size_t most = 1; most < 400; most += 7) {
        fixture_open(f);
        disk.most = most;
        put_synced(f, 1, 3);
        drain(f, 1, 3);
        fixture_deinit(f);
        fixture_init(f);
    }
    ops.preadv = NULL; /* a disk without it */
    fixture_open(f);
    put_synced(f, 1, 3);
    drain(f, 1, 3);
}

static void fail_reads(unsigned skip, unsigned fails, int error)
{
    disk.skip = skip;
    disk.fails = fails;
    disk.error = error;
}

/* Each read of an open and of a drain in turn, so often that the next try is the last. */
static void what_fails_for_a_moment_is_no_damage(void **state)
{
    struct fixture *f = *state;
    static const int errors[] = { -EIO, -EAGAIN, -EINTR, -ENOMEM };
    bool has_struck = true;
    for (unsigned n = 0; has_struck; n++) {
        fixture_open(f);
        put_synced(f, 1, 3);
        fixture_crash(f);
        fail_reads(n, FS_TRIES - 1, errors[n % ARRAY_LEN(errors)]);
        fixture_open(f);
        drain(f, 1, 3);
        has_struck = disk.fails == 0;
        fail_reads(0, 0, 0);
        assert_int_equal(f->rec.damaged_frames, 0);
        assert_int_equal(count_files(f, "quarantine", ""), 0);
        fixture_deinit(f);
        fixture_init(f);
    }
}

/* No memory for longer: the start is refused, the sender comes again; nothing is concluded from it. */
static void what_passes_later_is_waited_for(void **state)
{
    struct fixture *f = *state;
    struct frame_head h;
    bool has_struck = true;
    for (unsigned n = 0; has_struck; n++) {
        fixture_open(f);
        put_synced(f, 1, 3);
        fixture_crash(f);
        fail_reads(n, FS_TRIES, -ENOMEM);
        int r = queue_open(&f->conf, &f->q, &f->rec, &f->err);
        has_struck = disk.fails == 0;
        if (r != 0 && r != -ENOMEM) fail_msg("read %u: %d %s", n, r, f->err.text);
        fail_reads(0, 0, 0);
        if (r < 0)
            fixture_open(f);
        assert_int_equal(f->rec.damaged_frames, 0);
        assert_int_equal(count_files(f, "quarantine", ""), 0);
        drain(f, 1, 3);
        fixture_deinit(f);
        fixture_init(f);
    }
    fixture_open(f);
    put_synced(f, 1, 3);
    fixture_crash(f);
    fixture_open(f);
    fail_reads(0, FS_TRIES, -EAGAIN);
    assert_int_equal(queue_next(f->q, &h), -EAGAIN);
    assert_int_equal(take_one(f, &h), 1);
    assert_true(queue_ack(f->q, h.seq));
    struct buf meta, body;
    buf_init(&meta, FRAME_META_MAX);
    buf_init(&body, FRAME_BODY_MAX);
    assert_int_equal(queue_next(f->q, &h), 1);
    fail_reads(0, FS_TRIES, -ENOMEM);
    assert_int_equal(queue_load(f->q, &h, &meta, &body), -ENOMEM);
    assert_int_equal(queue_load(f->q, &h, &meta, &body), 0);
    assert_true(queue_ack(f->q, h.seq));
    buf_deinit(&meta);
    buf_deinit(&body);
    drain(f, 3, 3);
}

/* However long the newest segment is: of what was known durable a start reads headers and metas. */
static void a_start_reads_no_old_bodies(void **state)
{
    struct fixture *f = *state;
    static char text[300 * KIB];
    struct sample s;
    struct sample_end e;
    uint64_t seq;
    memset(text, 'x', sizeof(text));
    fixture_open(f);
    for (unsigned i = 1; i <= 12; i++) {
        struct frame_in *in = sample_frame(&s, i, 1, "t");
        in->wire = slice_of(text, sizeof(text));
        assert_int_equal(queue_append(f->q, in, sample_end(&e, 1, i - 1, i), &seq), 0);
        assert_int_equal(queue_sync(f->q), 0);
    }
    fixture_crash(f);
    disk.bytes = 0;
    fixture_open(f);
    assert_int_equal(f->rec.queued_lines, 12);
    assert_true(disk.bytes < 4 * sizeof(text)); /* the last, that no frame behind it calls durable: looked at, written again */
}

/* A search over a sector that cannot be read goes on behind it, and asks for it a few times only. */
static void bad_sectors_are_stepped_over(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    put_synced(f, 1, 30);
    fixture_crash(f);
    fixture_open(f);
    disk.bad_at = 2048;
    unsigned before = disk.reads;
    struct frame_head h;
    unsigned last = 0, n = 0;
    for (unsigned number; (number = take_one(f, &h)) != 0; n++) {
        assert_true(number > last);
        last = number;
    }
    assert_int_equal(last, 30);
    assert_in_range(n, 25, 29);
    assert_true(disk.reads - before < 500);
}

/* Whose lines a body held is known although it cannot be read. */
static void bad_place_in_a_body_costs_the_body(void **state)
{
    struct fixture *f = *state;
    struct frame_head h;
    fixture_open(f);
    put_synced(f, 1, 3);
    assert_int_equal(queue_next(f->q, &h), 1);
    struct buf meta, body;
    buf_init(&meta, FRAME_META_MAX);
    buf_init(&body, FRAME_BODY_MAX);
    disk.bad_at = h.off + FRAME_HEAD_BYTES + h.meta_len + 3;
    assert_int_equal(queue_load(f->q, &h, &meta, &body), -EBADMSG);
    buf_deinit(&meta);
    buf_deinit(&body);
    assert_int_equal(f->q->losses.n, 1);
    assert_true(slice_eq(f->q->losses.rows[0].tenant, SLICE("t")));
    assert_int_equal(f->q->losses.rows[0].lost[LOST_DAMAGE], 1);
    disk.bad_at = 0;
    assert_int_equal(queue_cursor_sync(f->q), 0);
    drain(f, 2, 3);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(one_read_for_a_frame_just_written),
        TEST(one_read_for_a_frame_of_a_backlog),
        TEST(backlog_and_new_frames_meet),
        TEST(short_reads_are_finished),
        TEST(what_fails_for_a_moment_is_no_damage),
        TEST(what_passes_later_is_waited_for),
        TEST(a_start_reads_no_old_bodies),
        TEST(bad_sectors_are_stepped_over),
        TEST(bad_place_in_a_body_costs_the_body),
    };
    return cmocka_run_group_tests_name("queue/reader", tests, NULL, NULL);
}
