/*
 * Goal: when memory runs out, or descriptors, or a read fails, nothing is lost and nothing is doubled; what could not be done is
 * done by whoever can. Where the disk's last word is that it cannot read, what is lost is counted. Method: a run over all of the
 * queue whose n-th allocation, or call to the disk, fails, for every n until the run needs none; then a process without faults
 * looks at what is there. Built with --wrap.
 */
#include "agent/queue/inspect.h"
#include "agent/queue/letters.h"

#include "tests/unit/queue/fixture.h"
#include "tests/unit/starve.h"

enum { LINES = 12 };

/* A queue with all there is: segments, a parked frame, letters, a damaged body, one damaged frame, half a group. */
static void fill(struct fixture *f)
{
    struct sample s;
    struct frame_head h;
    uint64_t id, seq;
    queue_tuning.segment_bytes = 2 * KIB;
    queue_tuning.dead_file_bytes = KIB;
    fixture_open(f);
    put_synced(f, 1, LINES);
    for (unsigned i = 1; i <= 4; i++) {
        assert_int_equal(take_one(f, &h), i);
        struct frame_orig orig = { .seq = h.seq, .item = 0, .status = 400, .reason = SLICE("r"), .text = SLICE("t") };
        if (i == 1)
            assert_int_equal(queue_park(f->q, sample_frame(&s, i, 1, "t"), &orig, &id), 0);
        else
            assert_int_equal(queue_dead_append(f->q, sample_frame(&s, i, 1, "t"), &orig), 0);
        assert_true(queue_ack(f->q, h.seq));
    }
    assert_int_equal(queue_cursor_sync(f->q), 0);
    assert_int_equal(queue_append(f->q, sample_frame(&s, 99, 1, "t"), NULL, &seq), 0);
    fixture_crash(f);
}

static void hurt(const struct fixture *f)
{
    char path[512];
    struct stat st;
    fixture_path(f, path, "0000000000000002.seg");
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(pwrite(fd, "\xff\xff\xff", 3, st.st_size / 2), 3);
    close(fd);
}

static bool all(void *ctx, const struct letter *l)
{
    (void)ctx;
    (void)l;
    return true;
}

static int look(void *ctx, const struct queue_frame *frame)
{
    return queue_frame_json(frame, ctx);
}

static int inspect(struct fixture *f, struct buf *text)
{
    char dir[512];
    fixture_path(f, dir, "");
    struct queue_report to = { .dir = dir, .output = SLICE("out"), .text = text };
    int worst = 0;
    for (int i = 0; i < 2; i++) {
        to.is_json = i == 1;
        worst = MIN(worst, queue_inspect_ls(&to, &f->err));
        worst = MIN(worst, queue_inspect_verify(&to, &f->err));
    }
    worst = MIN(worst, queue_inspect_each_frame(dir, look, text, &f->err));
    return worst;
}

/* What a process may do; any of it may fail. */
static void live(struct fixture *f)
{
    struct sample s;
    struct frame_head h;
    struct buf text, meta, body;
    struct letters_result res;
    uint64_t iter = 0;
    uint32_t lines;
    buf_init(&text, MIB);
    buf_init(&meta, FRAME_META_MAX);
    buf_init(&body, FRAME_BODY_MAX);
    (void)!inspect(f, &text);
    if (fixture_try_open(f) == 0) {
        (void)!queue_letters_settle(f->q, LETTER_RESENT, all, NULL, &res);
        for (int i = 0; i < 3 && queue_next(f->q, &h) == 1; i++)
            (void)!queue_load(f->q, &h, &meta, &body);
        if (queue_parked_next(f->q, &iter, &h) == 1)
            (void)!queue_load(f->q, &h, &meta, &body);
        struct frame_orig orig = { .seq = 1, .reason = SLICE("r") };
        (void)!queue_park(f->q, sample_frame(&s, 200, 1, "u"), &orig, &iter);
        (void)!queue_skip(f->q, 1u << 20, &lines);
        (void)!queue_cursor_sync(f->q);
        fixture_close(f);
    }
    buf_deinit(&text);
    buf_deinit(&meta);
    buf_deinit(&body);
}

/* may_repeat: a cursor that cannot be read for good is none, and what it has passed comes again. */
static void assert_all_is_there(struct fixture *f, long at, bool is_hurt, bool may_repeat)
{
    unsigned seen[LINES + 1] = { 0 }, n;
    struct frame_head h;
    struct letters_result res;
    fixture_open(f);
    assert_int_equal(queue_letters_settle(f->q, LETTER_RESENT, all, NULL, &res), 0);
    while ((n = take_one(f, &h)) != 0) {
        assert_true(n <= LINES);
        seen[n]++;
        assert_true(queue_ack(f->q, h.seq));
    }
    for (unsigned i = 2; i <= LINES; i++)
        if (seen[i] != 1 && !(is_hurt && seen[i] == 0) && !(may_repeat && seen[i] == 2))
            fail_msg("allocation %ld: line %u came %u times", at, i, seen[i]);
    assert_true(seen[1] <= may_repeat); /* parked */
    uint64_t iter = 0;
    assert_int_equal(queue_parked_next(f->q, &iter, &h), 1);
    assert_int_equal(queue_cursor_sync(f->q), 0);
    queue_close(f->q);
    fixture_open(f);
    struct recovered_row row = rec_row(&f->rec, "t"), unknown = rec_row(&f->rec, TENANT_UNKNOWN);
    uint64_t lost = row.lost[LOST_DAMAGE] + unknown.lost[LOST_DAMAGE];
    if (!is_hurt)
        assert_int_equal(lost, 0);
    uint64_t missing = 0;
    for (unsigned i = 2; i <= LINES; i++)
        missing += seen[i] == 0;
    /* A file of letters that cannot be read for good is set aside, with the ledger that is in it. */
    const bool has_ledger = !may_repeat || count_files(f, "quarantine", ".dead") == 0;
    if (has_ledger && (may_repeat ? lost < missing : lost != missing))
        fail_msg("allocation %ld: %llu lines are missing, %llu counted lost", at, (unsigned long long)missing,
                 (unsigned long long)lost);
}

static void run_all(bool is_hurt)
{
    struct fixture f;
    long at = 1;
    for (bool is_reached = true; is_reached; at++) {
        fixture_init(&f);
        fill(&f);
        if (is_hurt)
            hurt(&f);
        starve_from(at);
        starve_is_on = true;
        live(&f);
        starve_is_on = false;
        is_reached = starve_was_reached();
        assert_all_is_there(&f, at, is_hurt, false);
        fixture_deinit(&f);
    }
    assert_true(at > 100);
}

static void each_allocation_fails(void **state)
{
    (void)state;
    run_all(false);
}

static void each_allocation_fails_in_a_damaged_queue(void **state)
{
    (void)state;
    run_all(true);
}

/* ---- calls that look, and fail as often as they are tried ---- */

enum look_call { LOOK_READ, LOOK_OPEN, LOOK_FSTAT, LOOK_STAT, LOOK_LIST };

static struct {
    enum look_call call;
    long n, first, last;
    int error;
} blind;

static bool is_blind(enum look_call call)
{
    return call == blind.call && ++blind.n >= blind.first && blind.n <= blind.last;
}

static ssize_t blind_pread(int fd, void *ptr, size_t len, uint64_t off)
{
    return is_blind(LOOK_READ) ? blind.error : fs_real.pread(fd, ptr, len, off);
}

static ssize_t blind_preadv(int fd, const struct iovec *iov, int n, uint64_t off)
{
    return is_blind(LOOK_READ) ? blind.error : fs_real.preadv(fd, iov, n, off);
}

static int blind_open(int dir_fd, const char *name, int flags, mode_t mode)
{
    return is_blind(LOOK_OPEN) ? blind.error : fs_real.open(dir_fd, name, flags, mode);
}

static int blind_fstat(int fd, struct stat *st)
{
    return is_blind(LOOK_FSTAT) ? blind.error : fs_real.fstat(fd, st);
}

static int blind_stat(int dir_fd, const char *name, struct stat *st, bool follow)
{
    return is_blind(LOOK_STAT) ? blind.error : fs_real.stat(dir_fd, name, st, follow);
}

static int blind_list(int dir_fd, void (*each)(void *ctx, const char *name), void *ctx)
{
    return is_blind(LOOK_LIST) ? blind.error : fs_real.list(dir_fd, each, ctx);
}

static void run_blind(enum look_call call, int error, long times, bool is_hurt)
{
    struct fs_ops ops = fs_real;
    ops.pread = blind_pread;
    ops.preadv = blind_preadv;
    ops.open = blind_open;
    ops.fstat = blind_fstat;
    ops.stat = blind_stat;
    ops.list = blind_list;
    long at = 1;
    for (bool is_reached = true; is_reached; at++) {
        struct fixture f;
        fixture_init(&f);
        fill(&f);
        if (is_hurt)
            hurt(&f);
        blind.call = call;
        blind.n = 0;
        blind.first = at;
        blind.last = at + times - 1;
        blind.error = error;
        fs_set_ops(&ops);
        live(&f);
        fs_set_ops(NULL);
        is_reached = blind.n >= at;
        assert_all_is_there(&f, at, is_hurt || error == -EIO, error == -EIO);
        fixture_deinit(&f);
    }
    assert_true(at > 3);
}

static void each_look_fails_for_a_moment(void **state)
{
    (void)state;
    for (int is_hurt = 0; is_hurt < 2; is_hurt++) {
        run_blind(LOOK_READ, -ENOMEM, FS_TRIES, is_hurt);
        run_blind(LOOK_OPEN, -EMFILE, FS_TRIES, is_hurt);
        run_blind(LOOK_FSTAT, -ENOMEM, FS_TRIES, is_hurt);
        run_blind(LOOK_STAT, -ENOMEM, FS_TRIES, is_hurt);
        run_blind(LOOK_LIST, -ENOMEM, 1, is_hurt);
    }
}

static void each_look_fails_for_good(void **state)
{
    (void)state;
    for (int is_hurt = 0; is_hurt < 2; is_hurt++) {
        run_blind(LOOK_READ, -EIO, FS_TRIES, is_hurt);
        run_blind(LOOK_OPEN, -EIO, FS_TRIES, is_hurt);
        run_blind(LOOK_FSTAT, -EIO, FS_TRIES, is_hurt);
        run_blind(LOOK_LIST, -EIO, 1, is_hurt);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_allocation_fails),
        cmocka_unit_test(each_allocation_fails_in_a_damaged_queue),
        cmocka_unit_test(each_look_fails_for_a_moment),
        cmocka_unit_test(each_look_fails_for_good),
    };
    return cmocka_run_group_tests_name("queue/memory", tests, NULL, NULL);
}
