/*
 * A disk with so many bytes and no more, that a queue has filled while its server was away: when the server has taken
 * all of it, the queue takes lines again, though all it has stood in its newest segment, which is never removed.
 */
#include "tests/unit/queue/fixture.h"

static struct fixture *fixture;
static uint64_t disk_bytes; /* what the segments and the room for the next one may take */
static bool says_free;      /* limits.min_free looks at it; else only writes do */

static uint64_t taken(const struct stat *st)
{
    return (uint64_t)st->st_blocks * 512;
}

static uint64_t used(void)
{
    char path[512];
    uint64_t sum = 0;
    fixture_path(fixture, path, ".");
    DIR *dir = opendir(path);
    for (const struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
        struct stat st;
        bool counts = strstr(e->d_name, ".seg") != NULL || strcmp(e->d_name, "next") == 0;
        if (counts && fstatat(dirfd(dir), e->d_name, &st, 0) == 0)
            sum += taken(&st);
    }
    if (dir != NULL)
        closedir(dir);
    return sum;
}

static bool has_room(int fd, uint64_t end)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    uint64_t needs = (end + 4095) / 4096 * 4096;
    return needs <= taken(&st) || used() - taken(&st) + needs <= disk_bytes;
}

static bool is_counted(int fd)
{
    char link[64], path[512] = "";
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    assert_true(readlink(link, path, sizeof(path) - 1) > 0);
    return strstr(path, ".seg") != NULL || strstr(path, "/next") != NULL;
}

static ssize_t limited_pwritev(int fd, const struct iovec *iov, int n, uint64_t off)
{
    uint64_t end = off;
    for (int i = 0; i < n; i++)
        end += iov[i].iov_len;
    return is_counted(fd) && !has_room(fd, end) ? -ENOSPC : fs_real.pwritev(fd, iov, n, off);
}

/* What is refused takes with it what the file had beyond its end: as tmpfs does. */
static int limited_reserve(int fd, uint64_t len)
{
    struct stat st;
    if (!is_counted(fd) || has_room(fd, len))
        return fs_real.reserve(fd, len);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(ftruncate(fd, st.st_size), 0);
    return -ENOSPC;
}

static int limited_space(int fd, struct fs_space *ret)
{
    int r = fs_real.space(fd, ret);
    uint64_t has = used();
    if (says_free)
        ret->free_bytes = disk_bytes > has ? disk_bytes - has : 0;
    return r;
}

static struct fs_ops limited;

static int setup(void **state)
{
    (void)fixture_setup(state);
    fixture = *state;
    limited = fs_real;
    limited.pwritev = limited_pwritev;
    limited.reserve = limited_reserve;
    limited.space = limited_space;
    disk_bytes = UINT64_MAX / 2;
    says_free = false;
    fs_set_ops(&limited);
    return 0;
}

static int teardown(void **state)
{
    fs_set_ops(NULL);
    return fixture_teardown(state);
}

static void crash_and_open(struct fixture *f)
{
    fixture_crash(f);
    fixture_open(f);
}

/* Until the disk is full: the number of the last. */
static unsigned fill(struct fixture *f, unsigned n)
{
    int r;
    while ((r = put_one(f, n + 1)) == 0)
        n++;
    assert_int_equal(r, -ENOSPC);
    enum blocked_reason why;
    assert_true(queue_is_blocked(f->q, &why));
    assert_int_equal(why, BLOCKED_DISK_FULL);
    assert_int_equal(queue_sync(f->q), 0);
    return n;
}

/* The writer tries again and again. */
static void put_soon(struct fixture *f, unsigned number)
{
    int r = -ENOSPC;
    for (int i = 0; i < 3 && r == -ENOSPC; i++)
        r = put_one(f, number);
    assert_int_equal(r, 0);
}

/* All that was written is sent, and the queue takes lines again in the room of it: one segment is there, another one. */
static void drain_and_go_on(struct fixture *f, unsigned n)
{
    uint64_t id = f->q->last_id;
    assert_int_equal(put_one(f, n + 1), -ENOSPC); /* not all is acknowledged */
    drain(f, 1, n);
    put_soon(f, n + 1);
    assert_false(queue_is_blocked(f->q, NULL));
    assert_true(f->q->last_id > id);
    assert_int_equal(f->q->n_segs, 1);
    assert_int_equal(queue_sync(f->q), 0);
}

static void full_disk_is_given_back(void **state)
{
    struct fixture *f = *state;
    disk_bytes = 128 * KIB;
    fixture_open(f);
    unsigned n = fill(f, 0);
    assert_true(n > 100);
    drain_and_go_on(f, n);
    crash_and_open(f);
    assert_int_equal(file_end(&f->rec, 1), n + 1);
    assert_int_equal(take_all(f), 1);
    assert_int_equal(queue_unlink_acked(f->q), 0);
    unsigned more = fill(f, n + 1) - n;
    assert_true(more > 100); /* and again */
    assert_int_equal(take_all(f), more - 1);
    put_soon(f, n + more + 1);
}

/* Whoever is killed and started on the full disk begins in the room that was kept; what was before is sent and goes. */
static void restart_on_the_full_disk_goes_on(void **state)
{
    struct fixture *f = *state;
    disk_bytes = 128 * KIB;
    fixture_open(f);
    unsigned n = fill(f, 0);
    disk_bytes = used();
    crash_and_open(f);
    assert_true(f->q->fd >= 0);
    drain(f, 1, n);
    assert_int_equal(queue_cursor_sync(f->q), 0);
    assert_int_equal(queue_unlink_acked(f->q), 0);
    put_soon(f, n + 1);
    assert_int_equal(f->q->n_segs, 1);
    assert_int_equal(queue_sync(f->q), 0);
    crash_and_open(f);
    assert_int_equal(file_end(&f->rec, 1), n + 1);
    drain(f, n + 1, n + 1);
}

/* It knows of more files than the room that it could keep is meant for: what it has is not put at stake for more. */
static void restart_with_more_to_say_goes_on(void **state)
{
    struct fixture *f = *state;
    struct sample s;
    struct sample_end e;
    uint64_t seq;
    fixture_open(f);
    unsigned n = 0;
    for (; n < 400; n++)
        assert_int_equal(queue_append(f->q, sample_frame(&s, n + 1, 1, "t"), sample_end(&e, n + 1, 0, n + 1), &seq), 0);
    assert_int_equal(queue_sync(f->q), 0);
    fixture_crash(f);
    char next[512];
    fixture_path(f, next, "next");
    assert_int_equal(truncate(next, 0), 0);
    int fd = open(next, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(fs_real.reserve(fd, 64 * KIB), 0); /* all that there was room for */
    close(fd);
    disk_bytes = 0;
    says_free = true;
    fixture_open(f);
    assert_true(f->q->fd >= 0);
    drain(f, 1, n);
    assert_int_equal(queue_cursor_sync(f->q), 0);
    assert_int_equal(queue_unlink_acked(f->q), 0);
    assert_int_equal(f->q->n_segs, 1);
}

static void room_below_min_free_is_given_back(void **state)
{
    struct fixture *f = *state;
    f->conf.min_free_bytes = MIB;
    disk_bytes = MIB + 128 * KIB;
    says_free = true;
    fixture_open(f);
    unsigned n = fill(f, 0);
    assert_true(n > 100);
    drain_and_go_on(f, n);
}

/* A disk that others have filled gives nothing back: the segments do not follow each other without end. */
static void full_of_others_is_not_rolled_over_for_ever(void **state)
{
    struct fixture *f = *state;
    f->conf.min_free_bytes = MIB;
    says_free = true;
    fixture_open(f);
    put_synced(f, 1, 10);
    drain(f, 1, 10);
    disk_bytes = MIB;
    for (int i = 0; i < 5; i++)
        assert_int_equal(put_one(f, 11), -ENOSPC);
    uint64_t id = f->q->last_id;
    for (int i = 0; i < 5; i++)
        assert_int_equal(put_one(f, 11), -ENOSPC);
    assert_int_equal(f->q->last_id, id);
    disk_bytes = UINT64_MAX / 2;
    put_synced(f, 11, 11);
    drain(f, 11, 11);
}

/* A group that was begun cannot be ended: what stands before it is acknowledged, and holds the room. */
static void open_group_is_given_up(void **state)
{
    struct fixture *f = *state;
    struct sample s;
    uint64_t seq;
    disk_bytes = 128 * KIB;
    fixture_open(f);
    put_synced(f, 1, 100);
    drain(f, 1, 100);
    unsigned k = 0;
    int r;
    while ((r = queue_append(f->q, sample_frame(&s, 101 + k, 1, "t"), NULL, &seq)) == 0)
        k++;
    assert_true(k > 5);
    assert_int_equal(r, -ECANCELED);
    assert_false(queue_in_group(f->q));
    const struct frame_row *rows;
    const struct recovered_file *files;
    size_t n;
    queue_voided(f->q, &rows, &n);
    assert_int_equal(n, 1);
    assert_int_equal(rows[0].lines, k);
    assert_int_equal(queue_fenced(f->q, &files, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(files[0].position.end, 100);
    put_soon(f, 101);
    assert_int_equal(queue_sync(f->q), 0);
    drain(f, 101, 101);
    crash_and_open(f);
    assert_int_equal(file_end(&f->rec, 1), 101);
    assert_int_equal(rec_row(&f->rec, "t").accepted, 101);
}

static struct stat stat_next(struct fixture *f)
{
    char next[512];
    struct stat st;
    fixture_path(f, next, "next");
    assert_int_equal(lstat(next, &st), 0);
    return st;
}

/* Gone, with bytes in it as after a power cut that took its new name back, or not a file at all: the room is there again. */
static void room_is_made_anew(void **state)
{
    struct fixture *f = *state;
    char next[512];
    fixture_path(f, next, "next");
    for (unsigned i = 0; i < 4; i++) {
        if (i > 0)
            assert_int_equal(unlink(next), 0);
        if (i == 1)
            assert_int_equal(mkdir(next, 0700), 0);
        if (i == 2)
            assert_int_equal(symlink("cursor", next), 0);
        int fd = i == 3 ? open(next, O_RDWR | O_CREAT, 0600) : -1;
        if (i == 3)
            assert_int_equal(pwrite(fd, "TRQSEG", 6, 100000), 6);
        if (fd >= 0)
            close(fd);
        fixture_open(f);
        assert_int_equal(f->rec.damaged_bytes, 0);
        put_synced(f, i + 1, i + 1);
        drain(f, i + 1, i + 1);
        assert_true(S_ISREG(stat_next(f).st_mode));
        assert_int_equal(stat_next(f).st_size, 0);
        assert_int_equal(stat_next(f).st_blocks * 512, 64 * KIB);
        assert_int_equal(queue_cursor_sync(f->q), 0);
        fixture_crash(f);
    }
    assert_int_equal(count_files(f, ".", ".aside.1"), 1);
    assert_int_equal(count_files(f, ".", ".aside.2"), 1);
}

static int no_reserve(int fd, uint64_t len)
{
    (void)fd, (void)len;
    return -EOPNOTSUPP;
}

/* No fallocate: nothing is kept, and nothing waits for it. */
static void disk_without_fallocate(void **state)
{
    struct fixture *f = *state;
    limited.reserve = no_reserve;
    fixture_open(f);
    put_synced(f, 1, 3);
    drain(f, 1, 3);
    assert_int_equal(stat_next(f).st_blocks, 0);
    crash_and_open(f);
    assert_int_equal(file_end(&f->rec, 1), 3);
    put_synced(f, 4, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(full_disk_is_given_back, setup, teardown),
        cmocka_unit_test_setup_teardown(restart_on_the_full_disk_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(restart_with_more_to_say_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(room_below_min_free_is_given_back, setup, teardown),
        cmocka_unit_test_setup_teardown(full_of_others_is_not_rolled_over_for_ever, setup, teardown),
        cmocka_unit_test_setup_teardown(open_group_is_given_up, setup, teardown),
        cmocka_unit_test_setup_teardown(room_is_made_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(disk_without_fallocate, setup, teardown),
    };
    return cmocka_run_group_tests_name("queue/room", tests, NULL, NULL);
}
