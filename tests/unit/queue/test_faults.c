/*
 * Goal: whatever disk call fails, and wherever the process dies, each line is in the queue once and in order. Method: a
 * run of appends, syncs, sends and unlinks over a disk that fails its n-th call, for every n until the run needs none;
 * the writer here does what the real one does: the same again after -ENOSPC, back to the positions after a fence.
 */
#include "tests/unit/queue/fixture.h"

enum { FRAMES = 90 };
enum fault { FAULT_ERROR, FAULT_FULL, FAULT_SHORT, FAULT_SYNC, FAULT_DEATH, FAULT_POWER };
enum { SECTOR = 512, PENDING_MAX = 4096 };

static struct {
    enum fault kind;
    long left;       /* calls until it strikes; < 0: never */
    unsigned length; /* and how often in a row */
    bool has_struck;
} plan;

/* A power cut: what was written and not synced is there or not, sector by sector; names too. */
static struct {
    struct pending {
        int fd; /* of its own */
        ino_t ino;
        uint64_t off;
        size_t len;
        uint8_t *old;
        char name[64]; /* a new name instead: in dir fd */
    } list[PENDING_MAX];
    size_t n;
    uint64_t seed;
} disk;

static ino_t ino_of(int fd)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    return st.st_ino;
}

/* A duplicate would share its lock. */
static int open_again(int fd, int flags)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int again = open(path, flags);
    assert_true(again >= 0);
    return again;
}

static uint64_t chance(void)
{
    disk.seed = disk.seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return disk.seed >> 33;
}

static void pending_free(struct pending *p)
{
    close(p->fd);
    free(p->old);
}

static void disk_synced(int fd)
{
    ino_t ino = ino_of(fd);
    size_t kept = 0;
    for (size_t i = 0; i < disk.n; i++) {
        if (disk.list[i].ino == ino)
            pending_free(&disk.list[i]);
        else
            disk.list[kept++] = disk.list[i];
    }
    disk.n = kept;
}

static void disk_writes(int fd, size_t len, uint64_t off)
{
    assert_true(disk.n < PENDING_MAX);
    struct pending *p = &disk.list[disk.n++];
    *p = (struct pending){ .fd = open_again(fd, O_RDWR), .ino = ino_of(fd), .off = off, .len = len, .old = calloc(1, len) };
    assert_true(pread(fd, p->old, len, (off_t)off) >= 0);
}

static void disk_creates(int dir_fd, const char *name)
{
    assert_true(disk.n < PENDING_MAX);
    struct pending *p = &disk.list[disk.n++];
    *p = (struct pending){ .fd = open_again(dir_fd, O_RDONLY), .ino = ino_of(dir_fd) };
    snprintf(p->name, sizeof(p->name), "%s", name);
}

/* From the newest write to the oldest: a sector that reached the disk has all that was written to it before. */
static struct {
    ino_t ino;
    uint64_t sector;
} kept[PENDING_MAX];
static size_t n_kept;

static bool is_kept(ino_t ino, uint64_t sector)
{
    for (size_t i = 0; i < n_kept; i++)
        if (kept[i].ino == ino && kept[i].sector == sector)
            return true;
    if (chance() % 3 != 0 || n_kept == PENDING_MAX)
        return false;
    kept[n_kept].ino = ino;
    kept[n_kept++].sector = sector;
    return true;
}

static void lose_sectors(const struct pending *p)
{
    for (size_t at = 0; at < p->len;) {
        size_t n = MIN(SECTOR - (size_t)((p->off + at) % SECTOR), p->len - at);
        if (!is_kept(p->ino, (p->off + at) / SECTOR))
            assert_int_equal(pwrite(p->fd, p->old + at, n, (off_t)(p->off + at)), n);
        at += n;
    }
}

static void disk_loses_power(bool really)
{
    n_kept = 0;
    while (disk.n > 0) {
        struct pending *p = &disk.list[--disk.n];
        if (really && p->name[0] != '\0' && chance() % 2 == 0)
            (void)unlinkat(p->fd, p->name, 0);
        else if (really)
            lose_sectors(p);
        pending_free(p);
    }
}

static bool is_death(void)
{
    return plan.kind == FAULT_DEATH || plan.kind == FAULT_POWER;
}

static bool strikes(void)
{
    if (plan.left < 0 || plan.left-- > 0)
        return false;
    plan.has_struck = true;
    plan.left = is_death() ? 0 : plan.length-- > 1 ? 0 : -1;
    return true;
}

static int plain_error(void)
{
    return plan.kind == FAULT_FULL ? -ENOSPC : -EIO;
}

static ssize_t fault_pwritev(int fd, const struct iovec *iov, int n, uint64_t off)
{
    if (plan.kind == FAULT_SYNC || !strikes()) {
        size_t len = 0;
        for (int i = 0; i < n; i++)
            len += iov[i].iov_len;
        if (plan.kind == FAULT_POWER)
            disk_writes(fd, len, off);
        return fs_real.pwritev(fd, iov, n, off);
    }
    if (plan.kind == FAULT_POWER)
        return -EIO;
    if (plan.kind != FAULT_SHORT && plan.kind != FAULT_DEATH)
        return plain_error();
    struct iovec part = iov[0];
    part.iov_len -= part.iov_len / 3;
    ssize_t done = fs_real.pwritev(fd, &part, 1, off);
    return plan.kind == FAULT_DEATH ? -EIO : done;
}

static int fault_fdatasync(int fd)
{
    if ((plan.kind == FAULT_SYNC || is_death()) && strikes())
        return -EIO;
    if (plan.kind == FAULT_POWER)
        disk_synced(fd);
    return 0;
}

static int fault_sync_dir(int fd)
{
    return fault_fdatasync(fd);
}

static int fault_open(int dir_fd, const char *name, int flags, mode_t mode)
{
    if ((flags & O_CREAT) && plan.kind != FAULT_SYNC && plan.kind != FAULT_SHORT && strikes())
        return plain_error();
    int fd = fs_real.open(dir_fd, name, flags, mode);
    if (plan.kind == FAULT_POWER && fd >= 0 && (flags & O_EXCL))
        disk_creates(dir_fd, name);
    return fd;
}

static int fault_unlink(int dir_fd, const char *name)
{
    if (plan.kind != FAULT_SYNC && plan.kind != FAULT_SHORT && strikes())
        return plain_error();
    return fs_real.unlink(dir_fd, name);
}

static int fault_truncate(int fd, uint64_t len)
{
    if (plan.kind != FAULT_SYNC && plan.kind != FAULT_SHORT && strikes())
        return plain_error();
    return fs_real.truncate(fd, len);
}

static int fault_reserve(int fd, uint64_t len)
{
    (void)fd;
    (void)len;
    return plan.kind == FAULT_FULL && strikes() ? -ENOSPC : -EOPNOTSUPP;
}

struct run {
    struct fixture f;
    unsigned next_in;  /* the source: the next line */
    unsigned next_out; /* what the server expects */
    bool is_dead;
};

/* Where the queue says that the source stands. */
static void go_back(struct run *r)
{
    const struct recovered_file *files;
    size_t n;
    assert_int_equal(queue_fenced(r->f.q, &files, &n), 0);
    r->next_in = n == 0 ? 1 : (unsigned)files[0].position.end + 1;
}

static void append_some(struct run *r)
{
    for (unsigned i = 0; i < 5 && r->next_in <= FRAMES; i++) {
        int e = put_one(&r->f, r->next_in);
        if (e == 0)
            r->next_in++;
        else if (e == -ESTALE)
            go_back(r);
        else
            assert_true(e == -ENOSPC || e == -EIO);
    }
    if (queue_sync(r->f.q) < 0)
        go_back(r);
}

static void send_some(struct run *r, unsigned max)
{
    struct frame_head h;
    for (unsigned i = 0; i < max; i++) {
        unsigned n = take_one(&r->f, &h);
        if (n == 0)
            return;
        assert_int_equal(n, r->next_out);
        assert_true(queue_ack(r->f.q, h.seq));
        r->next_out++;
    }
}

static void keep_house(struct run *r)
{
    if (queue_cursor_sync(r->f.q) == 0)
        (void)!queue_unlink_acked(r->f.q);
}

/* Alive again: nothing that was acknowledged comes back, unless the cursor could not be written any more. */
static void reopen(struct run *r)
{
    plan.left = -1;
    fixture_crash(&r->f);
    disk_loses_power(true);
    fixture_open(&r->f);
    r->next_in = (unsigned)file_end(&r->f.rec, 1) + 1;
    struct frame_head h;
    unsigned n = take_one(&r->f, &h);
    unsigned first = n == 0 ? r->next_in : n;
    assert_true(first <= r->next_out);
    assert_true(r->next_in >= r->next_out); /* what a server has seen is still there */
    assert_int_equal(r->f.rec.damaged_frames, 0);
    r->next_out = first;
    queue_rewind(r->f.q);
    assert_int_equal(r->f.rec.queued_lines, r->next_in - first);
}

static void run_to_the_end(struct run *r)
{
    for (unsigned turns = 0; r->next_out <= FRAMES; turns++) {
        assert_true(turns < 1000);
        append_some(r);
        send_some(r, 4);
        if (turns % 3 == 0)
            keep_house(r);
        if (is_death() && plan.has_struck && !r->is_dead) {
            r->is_dead = true;
            reopen(r);
        }
    }
}

/* False when the run did not come to the fault any more. */
static bool run_once(enum fault kind, long at, unsigned length)
{
    struct run r = { .next_in = 1, .next_out = 1 };
    struct frame_head h;
    fixture_init(&r.f);
    queue_tuning.segment_bytes = 8 * KIB;
    plan.kind = kind;
    plan.left = -1;
    plan.has_struck = false;
    fixture_open(&r.f);
    plan.left = at;
    plan.length = length;
    disk.seed = (uint64_t)at * 77 + length;
    run_to_the_end(&r);
    plan.left = -1;
    assert_int_equal(take_one(&r.f, &h), 0);
    assert_int_equal(r.next_in, FRAMES + 1);
    queue_close(r.f.q);
    r.f.q = NULL;
    fixture_open(&r.f);
    assert_int_equal(r.f.rec.queued_lines, 0);
    assert_int_equal(file_end(&r.f.rec, 1), FRAMES);
    assert_int_equal(rec_row(&r.f.rec, "t").accepted, FRAMES);
    assert_int_equal(r.f.rec.damaged_frames, 0);
    fixture_deinit(&r.f);
    disk_loses_power(false);
    return plan.has_struck;
}

static void run_all(enum fault kind, unsigned length)
{
    long at = 0;
    while (run_once(kind, at, length)) {
        at++;
        assert_true(at < 5000);
    }
    assert_true(at > 10); /* it was the queue's own calls that failed */
}

static struct fs_ops faulty;

static int setup(void **state)
{
    (void)state;
    faulty = fs_real;
    faulty.pwritev = fault_pwritev;
    faulty.fdatasync = fault_fdatasync;
    faulty.sync_dir = fault_sync_dir;
    faulty.open = fault_open;
    faulty.unlink = fault_unlink;
    faulty.truncate = fault_truncate;
    faulty.reserve = fault_reserve;
    fs_set_ops(&faulty);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fs_set_ops(NULL);
    return 0;
}

static void each_call_fails_once(void **state)
{
    (void)state;
    run_all(FAULT_ERROR, 1);
}

static void disk_is_full_for_a_while(void **state)
{
    (void)state;
    run_all(FAULT_FULL, 7);
}

static void each_write_is_short(void **state)
{
    (void)state;
    run_all(FAULT_SHORT, 1);
}

static void each_sync_fails(void **state)
{
    (void)state;
    run_all(FAULT_SYNC, 1);
}

static void syncs_fail_for_a_while(void **state)
{
    (void)state;
    run_all(FAULT_SYNC, 4);
}

static void death_at_each_call(void **state)
{
    (void)state;
    run_all(FAULT_DEATH, 1);
}

static void power_cut_at_each_call(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 3; seed++)
        run_all(FAULT_POWER, seed);
}

/* The frames that a failed sync left in the old file are never sent, although they can be read. */
static void fence_hides_what_was_not_durable(void **state)
{
    (void)state;
    struct fixture f;
    const struct recovered_file *files;
    const struct frame_row *rows;
    size_t n;
    fixture_init(&f);
    plan.left = -1;
    plan.kind = FAULT_SYNC;
    fixture_open(&f);
    put_synced(&f, 1, 2);
    for (unsigned i = 3; i <= 5; i++)
        assert_int_equal(put_one(&f, i), 0);
    uint64_t durable = queue_durable_seq(f.q);
    plan.left = 0;
    plan.length = 1;
    assert_int_equal(queue_sync(f.q), -EIO);
    assert_int_equal(queue_fenced(f.q, &files, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(files[0].position.end, 2);
    const struct ledger_row *ledger;
    assert_int_equal(queue_fenced_ledger(f.q, &ledger, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(ledger[0].read_lines, 2);
    assert_true(slice_eq(ledger[0].input, SLICE("in")) && slice_eq(ledger[0].tenant, SLICE("t")));
    queue_voided(f.q, &rows, &n);
    assert_int_equal(n, 1);
    assert_int_equal(rows[0].lines, 3);
    assert_true(queue_durable_seq(f.q) > durable); /* the new segment's SNAP */
    assert_int_equal(count_files(&f, ".", ".seg"), 2);
    struct sample s;
    struct sample_end e;
    uint64_t seq;
    assert_int_equal(queue_append(f.q, sample_frame(&s, 33, 1, "t"), sample_end(&e, 1, 2, 4), &seq), 0);
    assert_true(seq > durable + 4);
    assert_int_equal(queue_sync(f.q), 0);
    for (int round = 0; round < 2; round++) {
        struct frame_head h;
        assert_int_equal(take_one(&f, &h), 1);
        assert_int_equal(take_one(&f, &h), 2);
        assert_int_equal(take_one(&f, &h), 33);
        assert_int_equal(take_one(&f, &h), 0);
        fixture_crash(&f);
        fixture_open(&f);
        assert_int_equal(f.rec.queued_lines, 3);
        assert_int_equal(file_end(&f.rec, 1), 4);
        assert_int_equal(rec_row(&f.rec, "t").accepted, 3);
    }
    fixture_deinit(&f);
}

static int open_on_a_full_disk(int dir_fd, const char *name, int flags, mode_t mode)
{
    return flags & O_EXCL ? -ENOSPC : fs_real.open(dir_fd, name, flags, mode);
}

static int rename_nothing(int from_fd, const char *from, int to_fd, const char *to)
{
    (void)from_fd, (void)from, (void)to_fd, (void)to;
    return -ENOSPC;
}

/* No room for the segment whose fence would make void what a sync did not keep, until the queue is closed, and none to write
 * it again at the next open: it is cut, else it would be sent from pages that no disk has. */
static void no_room_for_the_fence(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    plan.left = -1;
    plan.kind = FAULT_SYNC;
    fixture_open(&f);
    put_synced(&f, 1, 2);
    for (unsigned i = 3; i <= 5; i++)
        assert_int_equal(put_one(&f, i), 0);
    faulty.open = open_on_a_full_disk;
    faulty.rename = rename_nothing; /* nor is the room that was kept to be had */
    plan.left = 0;
    plan.length = 1;
    assert_int_equal(queue_sync(f.q), -EIO);
    assert_int_equal(count_files(&f, ".", ".seg"), 1);
    queue_close(f.q);
    faulty.open = fault_open;
    faulty.rename = fs_real.rename;
    fixture_open(&f);
    assert_int_equal(f.rec.queued_lines, 2);
    assert_int_equal(file_end(&f.rec, 1), 2);
    fixture_deinit(&f);
}

/* A file that began at 7: the CRC of what is before that was never told, and 0 must not be taken for it. */
static void fence_knows_no_head_of_what_began_inside(void **state)
{
    (void)state;
    struct fixture f;
    struct sample s;
    struct sample_end e;
    const struct recovered_file *files;
    size_t n;
    uint64_t seq;
    fixture_init(&f);
    plan.left = -1;
    plan.kind = FAULT_SYNC;
    fixture_open(&f);
    assert_int_equal(queue_append(f.q, sample_frame(&s, 1, 1, "t"), sample_end(&e, 1, 7, 9), &seq), 0);
    plan.left = 0;
    plan.length = 1;
    assert_int_equal(queue_sync(f.q), -EIO);
    assert_int_equal(queue_fenced(f.q, &files, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(files[0].position.end, 7);
    assert_int_equal(files[0].position.flags, POSITION_HEAD_UNKNOWN);
    fixture_deinit(&f);
}

/* Acknowledging writes in place: a disk without a free byte drains. */
static void full_disk_drains(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    plan.left = -1;
    plan.kind = FAULT_FULL;
    queue_tuning.segment_bytes = 8 * KIB;
    fixture_open(&f);
    put_synced(&f, 1, 80);
    f.q->min_free_bytes = UINT64_MAX / 2;
    enum blocked_reason why;
    assert_int_equal(put_one(&f, 81), -ENOSPC);
    assert_true(queue_is_blocked(f.q, &why));
    assert_int_equal(why, BLOCKED_DISK_FULL);
    drain(&f, 1, 80);
    assert_int_equal(queue_cursor_sync(f.q), 0);
    assert_int_equal(queue_unlink_acked(f.q), 0);
    assert_int_equal(count_files(&f, ".", ".seg"), f.q->spare_fd >= 0 ? 2 : 1);
    fixture_deinit(&f);
}

/* No room for a new segment at start: it opens all the same, sends, and writes again when there is room. */
static void opens_on_a_full_disk(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    plan.left = -1;
    plan.kind = FAULT_FULL;
    fixture_open(&f);
    put_synced(&f, 1, 3);
    fixture_crash(&f);
    for (unsigned calls = 2; calls < 5; calls++) {
        plan.left = 0;
        plan.length = 1000;
        /* The lock and the cursor exist already; everything else that is created or written fails. */
        faulty.open = fs_real.open;
        fixture_open(&f);
        faulty.open = fault_open;
        assert_true(queue_is_blocked(f.q, NULL));
        assert_int_equal(put_one(&f, 4), -ENOSPC);
        plan.left = -1;
        struct frame_head h;
        assert_int_equal(take_one(&f, &h), 1);
        fixture_crash(&f);
    }
    fixture_open(&f);
    put_synced(&f, 4, 5);
    drain(&f, 1, 5);
    fixture_deinit(&f);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(each_call_fails_once), TEST(disk_is_full_for_a_while), TEST(each_write_is_short),
        TEST(fence_knows_no_head_of_what_began_inside), TEST(each_sync_fails),      TEST(syncs_fail_for_a_while),   TEST(death_at_each_call),
        TEST(power_cut_at_each_call),
        TEST(fence_hides_what_was_not_durable), TEST(no_room_for_the_fence), TEST(full_disk_drains), TEST(opens_on_a_full_disk),
    };
    return cmocka_run_group_tests_name("queue/faults", tests, NULL, NULL);
}
