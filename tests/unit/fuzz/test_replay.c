/*
 * Goal: what the fuzzers were started from, and all they ever found, keeps the promises of its target.
 * Method: every file of tests/fuzz/corpus/NAME and tests/fuzz/found/NAME through fuzz_NAME(), whole and, when it is short, cut
 * at every byte; each time in memory of exactly its length.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the above first */
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "agent/base/io.h"
#include "tests/fuzz/fuzz.h"

#define INPUT_BYTES_MAX (1 * MIB)
#define CUT_BYTES_MAX 200

typedef int fuzz_fn(const uint8_t *data, size_t size);

static char current[1024]; /* the file at hand, for the words behind an abort */

static void on_abort(int signal_number)
{
    (void)signal_number;
    (void)!write(2, current, strlen(current));
}

static void feed(fuzz_fn *target, const char *bytes, size_t len)
{
    uint8_t *exact = malloc(len + (len == 0));
    assert_non_null(exact);
    memcpy(exact, bytes, len);
    (void)target(exact, len);
    free(exact);
}

static void feed_file(fuzz_fn *target, int dir_fd, const char *name)
{
    static char bytes[INPUT_BYTES_MAX];
    CLEANUP(fd_closep) int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t len = io_pread_full(fd, bytes, sizeof(bytes), 0);
    assert_true(len >= 0 && (size_t)len < sizeof(bytes));
    feed(target, bytes, (size_t)len);
    for (size_t cut = 0; len <= CUT_BYTES_MAX && cut < (size_t)len; cut++)
        feed(target, bytes, cut);
}

/* How many files there were; a folder that is not there has none. */
static unsigned feed_folder(fuzz_fn *target, const char *kind, const char *name)
{
    char path[256];
    unsigned n = 0;
    assert_true(snprintf(path, sizeof(path), "tests/fuzz/%s/%s", kind, name) < (int)sizeof(path));
    DIR *dir = opendir(path);
    assert_true(dir != NULL || errno == ENOENT);
    for (struct dirent *e = dir == NULL ? NULL : readdir(dir); e != NULL; e = readdir(dir)) {
        if (e->d_name[0] == '.')
            continue;
        (void)snprintf(current, sizeof(current), "replay: %s/%s\n", path, e->d_name);
        feed_file(target, dirfd(dir), e->d_name);
        n++;
    }
    if (dir != NULL)
        (void)closedir(dir);
    return n;
}

static void replay(fuzz_fn *target, const char *name)
{
    (void)signal(SIGABRT, on_abort); /* it returns, and abort() goes on */
    assert_true(feed_folder(target, "corpus", name) > 0);
    (void)feed_folder(target, "found", name);
    (void)signal(SIGABRT, SIG_DFL);
}

#define REPLAY_TEST(name)                  \
    static void replay_##name(void **state) \
    {                                      \
        (void)state;                       \
        replay(fuzz_##name, #name);        \
    }
FUZZ_TARGETS(REPLAY_TEST)

#define REPLAY_ROW(name) cmocka_unit_test(replay_##name),

int main(void)
{
    (void)setenv("TZ", "UTC", 1);
    const struct CMUnitTest tests[] = { FUZZ_TARGETS(REPLAY_ROW) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
