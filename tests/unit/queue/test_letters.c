/*
 * Goal: a dead letter that is sent again is in the queue once, whatever call the process dies at; what is given up or
 * passed over is counted once. Method: the real disk that after n changes changes no more, for every n; then a new
 * process that does the same again.
 */
#include "agent/queue/inspect.h"
#include "agent/queue/letters.h"

#include "tests/unit/queue/fixture.h"

enum { LETTERS = 7 };

static struct fs_ops ops;
static long changes_left; /* < 0: any number */

static bool is_dead(void)
{
    if (changes_left == 0)
        return true;
    changes_left -= changes_left > 0;
    return false;
}

/* The end of what was written in files of dead/, and synced after that. */
static uint64_t dead_written, dead_synced;

static bool is_in_dead(int fd)
{
    char link[64], path[512];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof(path));
    return n > 5 && memcmp(path + n - 5, ".dead", 5) == 0;
}

static ssize_t mortal_pwritev(int fd, const struct iovec *iov, int n, uint64_t off)
{
    ssize_t r = is_dead() ? -EIO : fs_real.pwritev(fd, iov, n, off);
    if (r > 0 && is_in_dead(fd))
        dead_written = MAX(dead_written, off + (uint64_t)r);
    return r;
}

static int mortal_fdatasync(int fd)
{
    if (is_dead())
        return -EIO;
    if (is_in_dead(fd))
        dead_synced = dead_written;
    return 0;
}

static int mortal_open(int dir_fd, const char *name, int flags, mode_t mode)
{
    return (flags & O_CREAT) != 0 && is_dead() ? -EIO : fs_real.open(dir_fd, name, flags, mode);
}

static int mortal_unlink(int dir_fd, const char *name)
{
    return is_dead() ? -EIO : fs_real.unlink(dir_fd, name);
}

static int mortal_truncate(int fd, uint64_t len)
{
    return is_dead() ? -EIO : fs_real.truncate(fd, len);
}

static int mortal_rename(int dir_fd, const char *from, int to_dir_fd, const char *to)
{
    return is_dead() ? -EIO : fs_real.rename(dir_fd, from, to_dir_fd, to);
}

static int setup(void **state)
{
    static struct fixture f;
    changes_left = -1;
    dead_written = dead_synced = 0;
    ops = fs_real;
    ops.pwritev = mortal_pwritev;
    ops.fdatasync = ops.sync_dir = mortal_fdatasync;
    ops.open = mortal_open;
    ops.unlink = mortal_unlink;
    ops.truncate = mortal_truncate;
    ops.rename = mortal_rename;
    fs_set_ops(&ops);
    fixture_init(&f);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    changes_left = -1;
    fixture_deinit(*state);
    fs_set_ops(NULL);
    return 0;
}

/* Frames 1..LETTERS were refused, frame LETTERS + 1 and the next wait. */
static void fill(struct fixture *f)
{
    struct sample s;
    struct frame_head h;
    queue_tuning.dead_file_bytes = KIB;
    fixture_open(f);
    put_synced(f, 1, LETTERS + 2);
    for (unsigned i = 1; i <= LETTERS; i++) {
        assert_int_equal(take_one(f, &h), i);
        struct frame_orig orig = { .seq = h.seq, .item = 0, .status = 400, .text = SLICE("no"),
                                   .reason = i % 2 == 0 ? SLICE("even") : SLICE("odd") };
        assert_int_equal(queue_dead_append(f->q, sample_frame(&s, i, 1, "t"), &orig), 0);
        assert_true(queue_ack(f->q, h.seq));
    }
    assert_int_equal(queue_cursor_sync(f->q), 0);
    fixture_close(f);
}

static bool all(void *ctx, const struct letter *l)
{
    (void)ctx;
    assert_int_equal(l->lines, 1);
    assert_int_equal(l->orig.status, 400);
    assert_true(slice_eq(l->route, SLICE("t")));
    return true;
}

static bool even(void *ctx, const struct letter *l)
{
    (void)ctx;
    return slice_eq(l->orig.reason, SLICE("even"));
}

struct seen_letters {
    unsigned queued[LETTERS + 3], open, resent, dropped;
};

static int each(void *ctx, const struct queue_frame *frame)
{
    struct seen_letters *s = ctx;
    unsigned number;
    char body[64];
    snprintf(body, sizeof(body), "%.*s", SLICE_ARGS(frame->body));
    assert_int_equal(sscanf(body, "frame %u", &number), 1);
    if (frame->place == QUEUE_PLACE_QUEUED)
        s->queued[number]++;
    else if (frame->place == QUEUE_PLACE_DEAD) {
        s->open += frame->fate == LETTER_OPEN;
        s->resent += frame->fate == LETTER_RESENT;
        s->dropped += frame->fate == LETTER_DROPPED;
    }
    return 0;
}

static struct seen_letters look(struct fixture *f)
{
    char dir[512];
    struct seen_letters seen = { 0 };
    fixture_path(f, dir, "");
    assert_int_equal(queue_inspect_each_frame(dir, each, &seen, &f->err), 0);
    return seen;
}

static void letters_are_sent_again(void **state)
{
    struct fixture *f = *state;
    struct letters_result res;
    fill(f);
    assert_int_equal(look(f).open, LETTERS);
    fixture_open(f);
    assert_int_equal(queue_letters_settle(f->q, LETTER_RESENT, even, NULL, &res), 0);
    assert_int_equal(res.letters, LETTERS / 2);
    assert_int_equal(res.lines, LETTERS / 2);
    assert_int_equal(queue_letters_settle(f->q, LETTER_RESENT, all, NULL, &res), 0);
    assert_int_equal(res.letters, LETTERS - LETTERS / 2);
    assert_int_equal(queue_letters_settle(f->q, LETTER_RESENT, all, NULL, &res), 0);
    assert_int_equal(res.letters, 0);
    queue_close(f->q);
    struct seen_letters seen = look(f);
    for (unsigned i = 1; i <= LETTERS + 2; i++)
        assert_int_equal(seen.queued[i], 1);
    assert_int_equal(seen.open, 0);
    fixture_open(f);
    assert_int_equal(f->rec.queued_lines, LETTERS + 2);
    assert_int_equal(rec_row(&f->rec, "t").dead, LETTERS); /* they were */
    assert_int_equal(rec_row(&f->rec, "t").accepted, 2 * LETTERS + 2);
    assert_int_equal(queue_letters_settle(f->q, LETTER_RESENT, all, NULL, &res), 0);
    assert_int_equal(res.letters, 0);
    /* Their files are gone but the last. */
    assert_true(count_files(f, "dead", ".dead") <= 2);
    static const unsigned order[] = { 8, 9, 2, 4, 6, 1, 3, 5, 7 };
    struct frame_head h;
    for (size_t i = 0; i < ARRAY_LEN(order); i++)
        assert_int_equal(take_one(f, &h), order[i]);
}

static void sent_again_once_wherever_it_dies(void **state)
{
    struct fixture *f = *state;
    struct letters_result res;
    bool has_died = true;
    long at = 0;
    for (; has_died; at++) {
        fill(f);
        changes_left = at;
        int r = fixture_try_open(f);
        if (r == 0)
            r = queue_letters_settle(f->q, LETTER_RESENT, all, NULL, &res);
        has_died = r < 0;
        changes_left = -1;
        if (f->q != NULL)
            fixture_crash(f);
        /* Once more, and again to see that it says so. */
        fixture_open(f);
        assert_int_equal(queue_letters_settle(f->q, LETTER_RESENT, all, NULL, &res), 0);
        queue_close(f->q);
        fixture_open(f);
        assert_int_equal(queue_letters_settle(f->q, LETTER_RESENT, all, NULL, &res), 0);
        assert_int_equal(res.letters, 0);
        struct seen_letters seen = look(f);
        for (unsigned i = 1; i <= LETTERS + 2; i++)
            if (seen.queued[i] != 1)
                fail_msg("died after %ld changes: frame %u is there %u times", at, i, seen.queued[i]);
        assert_int_equal(seen.open, 0);
        fixture_deinit(f);
        fixture_init(f);
    }
    assert_true(at > 15);
}

static void dropped_letters_are_gone_and_counted(void **state)
{
    struct fixture *f = *state;
    struct letters_result res;
    bool has_died = true;
    for (long at = 0; has_died; at++) {
        fill(f);
        changes_left = at;
        int r = fixture_try_open(f);
        if (r == 0)
            r = queue_letters_settle(f->q, LETTER_DROPPED, even, NULL, &res);
        has_died = r < 0;
        changes_left = -1;
        if (f->q != NULL)
            fixture_crash(f);
        fixture_open(f);
        assert_int_equal(queue_letters_settle(f->q, LETTER_DROPPED, even, NULL, &res), 0);
        queue_close(f->q);
        fixture_open(f);
        struct seen_letters seen = look(f);
        assert_int_equal(seen.open, LETTERS - LETTERS / 2);
        assert_int_equal(seen.queued[2], 0);
        assert_int_equal(rec_row(&f->rec, "t").dead, LETTERS);
        assert_int_equal(rec_row(&f->rec, "t").accepted, LETTERS + 2);
        fixture_deinit(f);
        fixture_init(f);
    }
}

/* The frame of a letter is still there: it comes again by itself. */
static void unsettled_letters_wait(void **state)
{
    struct fixture *f = *state;
    struct letters_result res;
    struct sample s;
    struct frame_head h;
    fixture_open(f);
    put_synced(f, 1, 1);
    assert_int_equal(take_one(f, &h), 1);
    struct frame_orig orig = { .seq = h.seq, .status = 400, .reason = SLICE("r") };
    assert_int_equal(queue_dead_append(f->q, sample_frame(&s, 1, 1, "t"), &orig), 0);
    assert_int_equal(queue_letters_settle(f->q, LETTER_RESENT, all, NULL, &res), 0);
    assert_int_equal(res.unsettled, 1);
    assert_int_equal(res.letters, 0);
}

static void letters_of_another_form_stay(void **state)
{
    struct fixture *f = *state;
    struct letters_result res;
    fill(f);
    fixture_open(f);
    drain(f, LETTERS + 1, LETTERS + 2);
    assert_int_equal(queue_cursor_sync(f->q), 0);
    queue_close(f->q);
    f->conf.wire_form = 1;
    fixture_open(f);
    assert_int_equal(queue_letters_settle(f->q, LETTER_RESENT, all, NULL, &res), 0);
    assert_int_equal(res.foreign, LETTERS);
    assert_int_equal(queue_letters_settle(f->q, LETTER_DROPPED, all, NULL, &res), 0);
    assert_int_equal(res.letters, LETTERS);
}

static void full_queue_takes_what_fits(void **state)
{
    struct fixture *f = *state;
    struct letters_result res;
    fill(f);
    fixture_open(f);
    f->q->conf.max_bytes = 1; /* not even a group */
    assert_int_equal(queue_letters_settle(f->q, LETTER_RESENT, all, NULL, &res), -ENOSPC);
    assert_int_equal(res.letters, 0);
    f->q->conf.max_bytes = 64 * MIB;
    assert_int_equal(queue_letters_settle(f->q, LETTER_RESENT, all, NULL, &res), 0);
    assert_int_equal(res.letters, LETTERS);
}

/* A file of dead/ that another queue made, and one that holds nothing good. */
static void strangers_in_dead_are_set_aside(void **state)
{
    struct fixture *f = *state;
    char from[512], to[512];
    fill(f);
    fixture_path(f, from, "dead/0000000000000001.dead");
    fixture_path(f, to, "../stranger");
    assert_int_equal(rename(from, to), 0);
    char dir[512];
    fixture_path(f, dir, "");
    (void)nftw(dir, fixture_rm, 16, FTW_DEPTH | FTW_PHYS);
    fill(f);
    fixture_path(f, from, "dead/00000000000000ff.dead");
    assert_int_equal(rename(to, from), 0);
    int fd = open(from, O_RDONLY);
    assert_true(fd >= 0);
    close(fd);
    fixture_open(f);
    assert_int_equal(count_files(f, "quarantine", ".dead"), 1);
    assert_int_equal(rec_row(&f->rec, "t").dead, LETTERS);
}

static void skipped_frame_is_lost_once(void **state)
{
    struct fixture *f = *state;
    uint32_t lines;
    bool has_died = true;
    long at = 0;
    for (; has_died; at++) {
        fixture_open(f);
        put_synced(f, 1, 5);
        queue_close(f->q);
        changes_left = at;
        f->q = NULL;
        int r = fixture_try_open(f);
        uint64_t third = 4; /* the SNAP is 1 */
        if (r == 0)
            r = queue_skip(f->q, third, &lines);
        has_died = r < 0;
        changes_left = -1;
        if (f->q != NULL)
            fixture_crash(f);
        fixture_open(f);
        r = queue_skip(f->q, third, &lines);
        assert_true(r == 0 || r == -ENOENT);
        assert_int_equal(queue_skip(f->q, third, &lines), -ENOENT);
        queue_close(f->q);
        fixture_open(f);
        assert_int_equal(rec_row(&f->rec, "t").lost[LOST_DROPPED], 1);
        assert_int_equal(rec_row(&f->rec, "t").queued, 4);
        struct frame_head h;
        assert_int_equal(take_one(f, &h), 1);
        assert_int_equal(take_one(f, &h), 2);
        assert_int_equal(take_one(f, &h), 4);
        assert_int_equal(take_one(f, &h), 5);
        assert_int_equal(take_one(f, &h), 0);
        assert_int_equal(count_files(f, "quarantine", ".bad"), 1);
        fixture_deinit(f);
        fixture_init(f);
    }
    assert_true(at > 10);
}

static void skip_of_what_is_parked_or_far(void **state)
{
    struct fixture *f = *state;
    struct sample s;
    struct frame_head h;
    uint64_t id;
    uint32_t lines;
    fixture_open(f);
    put_synced(f, 1, 2);
    assert_int_equal(take_one(f, &h), 1);
    struct frame_orig orig = { .seq = h.seq, .item = UINT32_MAX, .reason = SLICE("r") };
    assert_int_equal(queue_park(f->q, sample_frame(&s, 1, 1, "t"), &orig, &id), 0);
    assert_true(queue_ack(f->q, h.seq));
    assert_int_equal(queue_skip(f->q, h.seq, &lines), 0);
    assert_int_equal(lines, 1);
    assert_int_equal(queue_skip(f->q, h.seq, &lines), -ENOENT);
    assert_int_equal(queue_skip(f->q, 1u << 30, &lines), -ENOENT);
    put_synced(f, 3, QUEUE_WINDOW + 10);
    assert_int_equal(queue_skip(f->q, QUEUE_WINDOW + 9, &lines), -ERANGE);
    assert_int_equal(take_one(f, &h), 2);
}

/* It died between the write of a letter and its sync: the next process finds the letter in the page cache, where a power cut takes
 * it, and writes none for its frame. So it writes it again and syncs it. */
static void a_letter_that_was_not_synced(void **state)
{
    struct fixture *f = *state;
    struct frame_orig orig = { .seq = 2, .item = 0, .status = 400, .reason = SLICE("r"), .text = SLICE("t") };
    struct sample s;
    fixture_open(f);
    put_synced(f, 1, 2);
    assert_int_equal(queue_dead_append(f->q, sample_frame(&s, 1, 1, "t"), &orig), 0);
    orig.seq = 3;
    changes_left = 1;
    assert_int_equal(queue_dead_append(f->q, sample_frame(&s, 2, 1, "t"), &orig), -EIO);
    fixture_crash(f);
    const uint64_t written = dead_written;
    assert_true(dead_synced < written);
    dead_written = dead_synced = 0;
    changes_left = -1;
    fixture_open(f);
    assert_int_equal(dead_written, written);
    assert_int_equal(dead_synced, written);
    assert_int_equal(queue_dead_append(f->q, sample_frame(&s, 2, 1, "t"), &orig), 0);
    assert_int_equal(dead_written, written); /* it is there */
}

static int sync_fails(int fd)
{
    (void)fd;
    return -EIO;
}

/* The power takes it back. */
static int truncate_in_vain(int fd, uint64_t len)
{
    (void)fd;
    (void)len;
    return 0;
}

/* A sync fails, so the file is left; what was written last to it comes back with a power cut, and does not count. */
static void what_was_left_is_void(struct fixture *f, bool is_written_again)
{
    struct sample s;
    struct frame_head h;
    struct fs_ops faulty = fs_real;
    fixture_open(f);
    put_synced(f, 1, 3);
    assert_int_equal(take_one(f, &h), 1);
    struct frame_orig first = { .seq = h.seq, .reason = SLICE("r"), .text = SLICE("t") }, second = first, third = first;
    assert_int_equal(queue_dead_append(f->q, sample_frame(&s, 1, 1, "t"), &first), 0);
    assert_true(queue_ack(f->q, h.seq));
    assert_int_equal(take_one(f, &h), 2);
    second.seq = h.seq;
    assert_int_equal(take_one(f, &h), 3);
    third.seq = h.seq;
    assert_true(queue_ack(f->q, h.seq));
    assert_int_equal(queue_cursor_sync(f->q), 0);
    faulty.fdatasync = sync_fails;
    faulty.truncate = truncate_in_vain;
    f->q->fs = &faulty;
    assert_int_equal(queue_dead_append(f->q, sample_frame(&s, 2, 1, "t"), &second), -EIO);
    f->q->fs = &fs_real;
    assert_int_equal(queue_dead_append(f->q, sample_frame(&s, 3, 1, "t"), &third), 0);
    if (is_written_again)
        assert_int_equal(queue_dead_append(f->q, sample_frame(&s, 2, 1, "t"), &second), 0);
    fixture_crash(f);
    fixture_open(f); /* the second is sent again, and until then it is queued */
    assert_int_equal(f->q->dead.n_seen, is_written_again);
    assert_int_equal(rec_row(&f->rec, "t").dead, 2);
    assert_int_equal(rec_row(&f->rec, "t").queued, 1);
    assert_int_equal(take_one(f, &h), 2);
    assert_int_equal(queue_dead_append(f->q, sample_frame(&s, 2, 1, "t"), &second), 0);
    assert_true(queue_ack(f->q, h.seq));
    for (unsigned i = 0; i < 2; i++) {
        fixture_close(f);
        fixture_open(f);
        assert_int_equal(rec_row(&f->rec, "t").dead, 3);
        assert_int_equal(rec_row(&f->rec, "t").queued, 0);
    }
}

static void what_was_left_is_void_once(void **state)
{
    what_was_left_is_void(*state, false);
}

static void what_was_left_is_void_twice(void **state)
{
    what_was_left_is_void(*state, true);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(letters_are_sent_again),
        TEST(a_letter_that_was_not_synced),
        TEST(sent_again_once_wherever_it_dies),
        TEST(dropped_letters_are_gone_and_counted),
        TEST(unsettled_letters_wait),
        TEST(letters_of_another_form_stay),
        TEST(full_queue_takes_what_fits),
        TEST(strangers_in_dead_are_set_aside),
        TEST(skipped_frame_is_lost_once),
        TEST(skip_of_what_is_parked_or_far),
        TEST(what_was_left_is_void_once),
        TEST(what_was_left_is_void_twice),
    };
    return cmocka_run_group_tests_name("queue/letters", tests, NULL, NULL);
}
