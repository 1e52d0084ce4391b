/*
 * Goal: the model disk answers as a real one does, and loses at a power cut what a real one may lose and nothing
 * else. Method: random calls on both at once; then each rule of disk.h by itself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/tail/gz.h"
#include "agent/tail/watch.h"
#include "tests/sim/disk.h"

static struct disk *d;
static int64_t now = 1000;

static int64_t model_now(void)
{
    return now;
}

static void reset(const struct disk_conf *conf, uint64_t seed)
{
    disk_reset(d, conf, seed);
    assert_int_equal(disk_mkdir(d, "/var/log", DISK_LOGS), 0);
    assert_int_equal(disk_mkdir(d, "/state", DISK_STATE), 0);
    disk_write_back(d, false);
}

static int setup(void **state)
{
    (void)state;
    clock_set_source(model_now, model_now);
    d = disk_new();
    disk_use(d);
    reset(&(struct disk_conf){ 0 }, 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    disk_free(d);
    clock_set_source(NULL, NULL);
    return 0;
}

static int make(const char *path)
{
    return fs_current()->open(AT_FDCWD, path, O_RDWR | O_CREAT | O_EXCL, 0600);
}

static void put(int fd, const char *text, uint64_t off)
{
    assert_int_equal(fs_pwrite_full(fd, text, strlen(text), off), 0);
}

static void expect(const char *path, const char *text)
{
    char got[256] = "";
    ssize_t n = disk_read(d, path, got, sizeof(got) - 1, 0);
    assert_true(n >= 0);
    assert_string_equal(got, text);
}

static void names_need_sync_dir(void **state)
{
    (void)state;
    int dir = fs_current()->open(AT_FDCWD, "/state", O_RDONLY | O_DIRECTORY, 0), fd = make("/state/a");
    put(fd, "one", 0);
    assert_int_equal(fs_current()->fdatasync(fd), 0);
    disk_crash(d, LOSS_ALL, 1);
    assert_int_equal(disk_size(d, "/state/a"), -ENOENT);

    dir = fs_current()->open(AT_FDCWD, "/state", O_RDONLY | O_DIRECTORY, 0);
    fd = make("/state/a");
    put(fd, "one", 0);
    assert_int_equal(fs_current()->sync_dir(dir), 0);
    disk_crash(d, LOSS_ALL, 1);
    assert_int_equal(disk_size(d, "/state/a"), 0);

    dir = fs_current()->open(AT_FDCWD, "/state", O_RDONLY | O_DIRECTORY, 0);
    assert_int_equal(fs_current()->rename(dir, "a", dir, "b"), 0);
    assert_int_equal(fs_current()->unlink(dir, "a"), -ENOENT);
    disk_crash(d, LOSS_NAMES, 1);
    assert_int_equal(disk_size(d, "/state/b"), -ENOENT);
    assert_int_equal(disk_size(d, "/state/a"), 0);
    assert_int_equal(disk_open_fds(d), 0);
}

static void bytes_need_fdatasync(void **state)
{
    (void)state;
    static const struct {
        enum disk_loss loss;
        const char *want;
        int64_t size;
    } cases[] = { { LOSS_ALL, "one", 3 }, { LOSS_DATA, "one", 3 }, { LOSS_NOTHING, "twomore", 7 },
                  { LOSS_NAMES, "twomore", 7 }, { LOSS_ZEROS, "one", 7 } };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        reset(&(struct disk_conf){ 0 }, 1);
        int fd = make("/state/a");
        put(fd, "one", 0);
        disk_write_back(d, false);
        put(fd, "two", 0);
        put(fd, "more", 3);
        expect("/state/a", "twomore");
        disk_crash(d, cases[i].loss, 3);
        expect("/state/a", cases[i].want);
        assert_int_equal(disk_size(d, "/state/a"), cases[i].size);
    }
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(names_need_sync_dir),
        TEST(bytes_need_fdatasync),
    };
    return cmocka_run_group_tests_name("sim/disk", tests, NULL, NULL);
}
