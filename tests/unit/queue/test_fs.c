/*
 * Goal: the door to the real disk: a signal in the middle of a call is no error, every other failure is told by its errno, and
 * nothing is lost by either. Method: the system calls themselves are wrapped (--wrap) and fail as they are told, under single
 * operations and under the whole life of a queue.
 */
#include <sys/file.h>
#include <sys/random.h>
#include <sys/vfs.h>

#include "tests/unit/queue/fixture.h"

enum call { OPENAT, CLOSE, PREAD, PREADV, PWRITEV, FDATASYNC, FSYNC, FTRUNCATE, FALLOCATE, FSTATFS, FLOCK, CALLS };

/* In a row: so many times of a call fail with this errno; every > 0: one of so many fails, for ever. */
static struct {
    int error;
    unsigned times, every, n;
    unsigned struck[CALLS];
} fault;
static bool is_mute; /* fstatfs has no fragment size, statx and getrandom nothing */

static bool strikes(enum call c)
{
    bool now = fault.times > 0 || (fault.every > 0 && ++fault.n % fault.every == 0);
    fault.times -= fault.times > 0;
    if (now) {
        fault.struck[c]++;
        errno = fault.error;
    }
    return now;
}

#define WRAP(type, call, name, params, args)                                                                 \
    type __real_##name params;                                                                               \
    type __wrap_##name params;                                                                               \
    type __wrap_##name params                                                                                \
    {                                                                                                        \
        return strikes(call) ? -1 : __real_##name args;                                                      \
    }

WRAP(ssize_t, PREAD, pread, (int fd, void *p, size_t n, off_t off), (fd, p, n, off))
WRAP(ssize_t, PREADV, preadv, (int fd, const struct iovec *v, int n, off_t off), (fd, v, n, off))
WRAP(ssize_t, PWRITEV, pwritev, (int fd, const struct iovec *v, int n, off_t off), (fd, v, n, off))
WRAP(int, FDATASYNC, fdatasync, (int fd), (fd))
WRAP(int, FSYNC, fsync, (int fd), (fd))
WRAP(int, FTRUNCATE, ftruncate, (int fd, off_t n), (fd, n))
WRAP(int, FALLOCATE, fallocate, (int fd, int mode, off_t off, off_t n), (fd, mode, off, n))
WRAP(int, FLOCK, flock, (int fd, int op), (fd, op))

int __real_openat(int dir, const char *name, int flags, mode_t mode);
int __wrap_openat(int dir, const char *name, int flags, mode_t mode);
int __real_close(int fd);
int __wrap_close(int fd);
int __real_fstatfs(int fd, struct statfs *st);
int __wrap_fstatfs(int fd, struct statfs *st);
int __real_statx(int dir, const char *name, int flags, unsigned mask, struct statx *st);
int __wrap_statx(int dir, const char *name, int flags, unsigned mask, struct statx *st);
ssize_t __real_getrandom(void *p, size_t n, unsigned flags);
ssize_t __wrap_getrandom(void *p, size_t n, unsigned flags);

int __wrap_openat(int dir, const char *name, int flags, mode_t mode)
{
    return strikes(OPENAT) ? -1 : __real_openat(dir, name, flags, mode);
}

/* The kernel takes the descriptor away whatever it says. */
int __wrap_close(int fd)
{
    int r = __real_close(fd);
    return strikes(CLOSE) ? -1 : r;
}

int __wrap_fstatfs(int fd, struct statfs *st)
{
    int r = strikes(FSTATFS) ? -1 : __real_fstatfs(fd, st);
    if (r == 0 && is_mute)
        st->f_frsize = 0;
    return r;
}

int __wrap_statx(int dir, const char *name, int flags, unsigned mask, struct statx *st)
{
    int r = is_mute ? 0 : __real_statx(dir, name, flags, mask, st);
    if (is_mute)
        *st = (struct statx){ .stx_mask = STATX_BASIC_STATS };
    return r;
}

ssize_t __wrap_getrandom(void *p, size_t n, unsigned flags)
{
    return is_mute ? -1 : __real_getrandom(p, n, flags);
}

static struct fixture fix;
static int dir_fd, fd;

static int setup(void **state)
{
    (void)state;
    fixture_init(&fix);
    dir_fd = open(fix.root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    fd = fs_real.open(dir_fd, "f", O_RDWR | O_CREAT, 0600);
    assert_true(dir_fd >= 0 && fd >= 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    memset(&fault, 0, sizeof(fault));
    is_mute = false;
    close(fd);
    close(dir_fd);
    fixture_deinit(&fix);
    return 0;
}

static char bytes[8];

/* One operation on the file, 0 or more when it worked. */
static ssize_t do_call(enum call c)
{
    struct iovec v = { .iov_base = bytes, .iov_len = 1 };
    struct fs_space space;
    int other;
    switch (c) {
    case OPENAT:
        other = fs_real.open(dir_fd, "f", O_RDONLY, 0);
        if (other >= 0)
            assert_int_equal(__real_close(other), 0);
        return MIN(other, 0);
    case CLOSE: return fs_real.close(__real_openat(dir_fd, "f", O_RDONLY, 0));
    case PREAD: return fs_real.pread(fd, bytes, 1, 0);
    case PREADV: return fs_real.preadv(fd, &v, 1, 0);
    case PWRITEV: return fs_real.pwritev(fd, &v, 1, 0);
    case FDATASYNC: return fs_real.fdatasync(fd);
    case FSYNC: return fs_real.sync_dir(dir_fd);
    case FTRUNCATE: return fs_real.truncate(fd, 1);
    case FALLOCATE: other = fs_real.reserve(fd, 1); return other == -EOPNOTSUPP ? 0 : other;
    case FSTATFS: return fs_real.space(fd, &space);
    case FLOCK: return fs_real.lock(fd);
    case CALLS: break;
    }
    return -1;
}

static void a_signal_is_no_error(void **state)
{
    (void)state;
    for (enum call c = 0; c < CALLS; c++) {
        fault.error = EINTR;
        fault.times = c == CLOSE ? 1 : 3;
        assert_true(do_call(c) >= 0);
        assert_int_equal(fault.times, 0);
        assert_int_equal(fault.struck[c], c == CLOSE ? 1 : 3); /* close is never made again: the number may be another's */
    }
}

static void what_fails_says_why(void **state)
{
    (void)state;
    for (enum call c = 0; c < CALLS; c++) {
        fault.error = EIO;
        fault.times = 1;
        assert_int_equal(do_call(c), -EIO);
        assert_true(do_call(c) >= 0);
    }
    fault.error = EINVAL; /* some filesystems have no fsync of folders */
    fault.times = 1;
    assert_int_equal(fs_real.sync_dir(dir_fd), 0);
    struct stat st;
    char path[PATH_MAX];
    assert_int_equal(fs_real.fstat(-1, &st), -EBADF);
    assert_int_equal(fs_real.stat(dir_fd, "no", &st, true), -ENOENT);
    assert_int_equal(fs_real.rename(dir_fd, "no", dir_fd, "where"), -ENOENT);
    assert_int_equal(fs_real.unlink(dir_fd, "no"), -ENOENT);
    assert_int_equal(fs_real.mkdir(dir_fd, "f", 0700), -EEXIST);
    assert_int_equal(fs_real.realpath("/no/such/folder", path), -ENOENT);
}

static void note(void *ctx, const char *name)
{
    char *all = ctx;
    (void)snprintf(all + strlen(all), 64 - strlen(all), "%s ", name);
}

static void lists_names_but_not_itself(void **state)
{
    (void)state;
    char all[64] = "";
    close(fs_real.open(dir_fd, ".hidden", O_RDWR | O_CREAT, 0600));
    close(fs_real.open(dir_fd, "..x", O_RDWR | O_CREAT, 0600));
    assert_int_equal(fs_real.list(dir_fd, note, all), 0);
    assert_int_equal(strlen(all), strlen("f .hidden ..x "));
    assert_true(strstr(all, "f ") && strstr(all, ".hidden ") && strstr(all, "..x "));
    assert_int_equal(fs_real.list(fd, note, all), -ENOTDIR);
}

/* An old or strange filesystem, an old kernel. */
static void a_disk_that_does_not_say(void **state)
{
    (void)state;
    struct fs_birth b = { 1, 1 };
    struct fs_space with, without;
    uint32_t x, y;
    assert_int_equal(fs_real.space(fd, &with), 0);
    is_mute = true;
    fs_real.birth(fd, &b);
    assert_int_equal(b.btime_ns, 0);
    assert_int_equal(fs_real.space(fd, &without), 0);
    assert_int_equal(with.total_bytes, without.total_bytes); /* the block size counts instead */
    assert_int_equal(fs_real.random(&x, sizeof(x)), -ENOSYS);
    x = random_u32();
    y = random_u32();
    assert_true(x != y); /* salts of neighbours differ all the same */
    fixture_open(&fix);
    put_synced(&fix, 1, 3);
    queue_close(fix.q);
    fixture_open(&fix);
    drain(&fix, 1, 3);
}

static ssize_t none(int f, const struct iovec *v, int n, uint64_t off)
{
    (void)f;
    (void)v;
    (void)n;
    (void)off;
    return 0;
}

static void whole_reads_and_writes(void **state)
{
    (void)state;
    struct fs_ops ops = fs_real;
    char a[4], b[4], c[4];
    const struct iovec v[3] = { { a, 4 }, { b, 4 }, { c, 4 } };
    assert_int_equal(fs_pwrite_full(fd, "0123456", 7, 0), 0);
    ops.preadv = NULL;
    for (int i = 0; i < 2; i++) { /* by one call, and by one for each part */
        memset(b, '-', sizeof(b));
        memset(c, '-', sizeof(c));
        assert_int_equal(fs_preadv_full(fd, v, 3, 0), 7); /* the end of the file: less, and no error */
        assert_memory_equal(b, "456-", 4);
        assert_memory_equal(c, "----", 4);
        fs_set_ops(&ops);
    }
    fault.error = EISDIR;
    fault.times = 1;
    assert_int_equal(fs_preadv_full(fd, v, 3, 0), -EISDIR);
    ops.pwritev = none; /* a disk that takes nothing and does not say why */
    assert_int_equal(fs_pwrite_full(fd, "x", 1, 0), -EIO);
    fs_set_ops(NULL);
    fault.error = EISDIR;
    fault.times = 1;
    assert_int_equal(fs_preadv_full(fd, v, 3, 0), -EISDIR);
}

/* What passes is tried again, after a pause; what lasts is said. */
static void passing_errors(void **state)
{
    (void)state;
    static const int passing[] = { ENOMEM, EAGAIN, EMFILE, ENFILE, EIO };
    assert_int_equal(fs_pwrite_full(fd, "0", 1, 0), 0);
    for (size_t i = 0; i < ARRAY_LEN(passing); i++) {
        fault.error = passing[i];
        fault.times = FS_TRIES - 1;
        assert_int_equal(fs_pread_full(fd, bytes, 1, 0), 1);
        fault.times = FS_TRIES;
        assert_int_equal(fs_pread_full(fd, bytes, 1, 0), -passing[i]);
        assert_int_equal(fault.times, 0);
    }
}

/* A queue whose every second, third … call is interrupted by a signal: the same queue. */
static void a_queue_under_signals(void **state)
{
    (void)state;
    for (unsigned every = 2; every <= 6; every++) {
        fault.error = EINTR;
        fault.every = every;
        fixture_open(&fix);
        put_synced(&fix, 1, 20);
        queue_close(fix.q);
        fixture_open(&fix);
        drain(&fix, 1, 20);
        assert_int_equal(queue_cursor_sync(fix.q), 0);
        queue_close(fix.q);
        fixture_open(&fix);
        assert_int_equal(fix.rec.queued_frames, 0);
        assert_int_equal(fix.rec.damaged_bytes, 0);
        fault.every = 0;
        fixture_deinit(&fix);
        close(fd);
        close(dir_fd);
        (void)setup(state);
    }
    for (enum call c = 0; c < CALLS; c++)
        if (c != PREADV && c != FTRUNCATE && fault.struck[c] == 0)
            fail_msg("call %d was never interrupted", c);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_signal_is_no_error), TEST(what_fails_says_why), TEST(lists_names_but_not_itself),
        TEST(a_disk_that_does_not_say), TEST(whole_reads_and_writes), TEST(passing_errors),
        TEST(a_queue_under_signals),
    };
    return cmocka_run_group_tests_name("queue/fs", tests, NULL, NULL);
}
