/*
 * Goal: whole reads and writes through pipes that give little at a time; small files read whole or refused with a reason;
 * a file is replaced or stays as it was.
 * Method: a fresh folder; a thread that drains a pipe slowly.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/io.h"

static char folder[] = "/tmp/tailrace-io-XXXXXX";
static int dir_fd = -1;

static int set_up(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL)
        return 1;
    dir_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return dir_fd < 0;
}

static int tear_down(void **state)
{
    char command[128];
    (void)state;
    fd_close(&dir_fd);
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command);
}

static void *drain(void *arg)
{
    static char part[777];
    uintptr_t sum = 0;
    for (ssize_t n; (n = read(*(int *)arg, part, sizeof(part))) > 0;)
        for (ssize_t i = 0; i < n; i++)
            sum += (unsigned char)part[i];
    return (void *)sum;
}

static void test_write_full(void **state)
{
    static char big[1 << 20];
    int p[2];
    pthread_t t;
    void *sum;
    (void)state;
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    memset(big, 3, sizeof(big));
    assert_int_equal(pthread_create(&t, NULL, drain, &p[0]), 0);
    assert_int_equal(io_write_full(p[1], big, sizeof(big)), 0);
    fd_close(&p[1]);
    assert_int_equal(p[1], -1);
    fd_close(&p[1]); /* again is fine */
    assert_int_equal(pthread_join(t, &sum), 0);
    assert_int_equal((uintptr_t)sum, 3 * sizeof(big));
    fd_close(&p[0]);
    assert_int_equal(io_write_full(-1, "x", 1), -EBADF);
    assert_int_equal(io_write_full(-1, "x", 0), 0);
}

static void test_pread_and_pwrite(void **state)
{
    char got[16] = "";
    (void)state;
    int fd = openat(dir_fd, "p", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(io_pwrite_full(fd, "abcdef", 6, 2), 0);
    assert_int_equal(io_pread_full(fd, got, sizeof(got), 0), 8);
    assert_memory_equal(got, "\0\0abcdef", 8);
    assert_int_equal(io_pread_full(fd, got, 2, 4), 2);
    assert_int_equal(io_pread_full(fd, got, 2, 100), 0);
    assert_int_equal(io_pread_full(-1, got, 2, 0), -EBADF);
    assert_int_equal(io_pwrite_full(-1, got, 2, 0), -EBADF);
    fd_close(&fd);
}

static void test_read_file(void **state)
{
    static char big[10000];
    struct err err = { 0 };
    struct buf b;
    (void)state;
    memset(big, 'b', sizeof(big));
    assert_int_equal(io_replace_file(dir_fd, "f", slice_of(big, sizeof(big)), 0600, &err), 0);
    for (size_t max = sizeof(big) - 1; max <= sizeof(big) + 1; max++) {
        buf_init(&b, max);
        assert_int_equal(io_read_file(dir_fd, "f", &b, &err), max < sizeof(big) ? -EFBIG : 0);
        assert_int_equal(b.len, MIN(max, sizeof(big)));
        buf_deinit(&b);
    }
    buf_init(&b, 100);
    assert_int_equal(io_read_file(dir_fd, "missing", &b, &err), -ENOENT);
    assert_non_null(strstr(err.text, "missing"));
    assert_int_equal(mkfifoat(dir_fd, "fifo", 0600), 0);
    assert_int_equal(io_read_file(dir_fd, "fifo", &b, &err), -EINVAL); /* and does not wait for a writer */
    assert_int_equal(io_read_file(dir_fd, ".", &b, NULL), -EINVAL);
    buf_deinit(&b);
}

static void test_replace_file(void **state)
{
    struct buf b;
    struct stat st;
    char name[300];
    (void)state;
    buf_init(&b, 100);
    assert_int_equal(io_replace_file(dir_fd, "r", SLICE("one"), 0640, NULL), 0);
    assert_int_equal(io_replace_file(dir_fd, "r", SLICE("two"), 0640, NULL), 0);
    assert_int_equal(io_read_file(dir_fd, "r", &b, NULL), 0);
    assert_true(slice_eq(buf_slice(&b), SLICE("two")));
    assert_int_equal(fstatat(dir_fd, ".r.tmp", &st, 0), -1); /* nothing stays beside it */
    memset(name, 'n', 254);
    name[254] = '\0';
    assert_int_equal(io_replace_file(dir_fd, name, SLICE("x"), 0600, NULL), -ENAMETOOLONG);
    assert_int_equal(mkdirat(dir_fd, "d", 0700), 0);
    assert_true(io_replace_file(dir_fd, "d", SLICE("x"), 0600, NULL) < 0); /* a folder is there */
    assert_int_equal(fstatat(dir_fd, ".d.tmp", &st, 0), -1);
    assert_int_equal(symlinkat("/etc/passwd", dir_fd, ".s.tmp"), 0);
    assert_int_equal(io_replace_file(dir_fd, "s", SLICE("x"), 0600, NULL), -ELOOP); /* a trap */
    buf_deinit(&b);
}

static void test_mkdirs(void **state)
{
    char path[5000];
    struct stat st;
    (void)state;
    (void)snprintf(path, sizeof(path), "%s/a//b/c/", folder);
    assert_int_equal(io_mkdirs(path, 0755, NULL), 0);
    assert_int_equal(io_mkdirs(path, 0755, NULL), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_true(S_ISDIR(st.st_mode));
    (void)snprintf(path, sizeof(path), "%s/file/below", folder);
    assert_int_equal(io_replace_file(dir_fd, "file", SLICE("x"), 0600, NULL), 0);
    assert_int_equal(io_mkdirs(path, 0755, NULL), -ENOTDIR);
    assert_int_equal(io_mkdirs("", 0755, NULL), -ENAMETOOLONG);
    memset(path, 'a', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    assert_int_equal(io_mkdirs(path, 0755, NULL), -ENAMETOOLONG);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_write_full), cmocka_unit_test(test_pread_and_pwrite),
                                        cmocka_unit_test(test_read_file), cmocka_unit_test(test_replace_file),
                                        cmocka_unit_test(test_mkdirs) };
    return cmocka_run_group_tests_name("base/io", tests, set_up, tear_down);
}
