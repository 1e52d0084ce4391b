/*
 * Goal: the archive has each line once, whatever the crash; paths stay in their folder; days become .gz and go.
 * Method: a real folder. A crash is an output closed without a checkpoint, its files and journal then damaged as a crash
 * would; the clock is a test's.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <signal.h>

#include <cmocka.h>

#include "agent/base/clock.h"
#include "agent/base/io.h"
#include "agent/base/log.h"
#include "outputs/codec/gzip.h"
#include "outputs/file_journal.h"
#include "outputs/file_store.h"
#include "outputs/output.h"

#define DAY (86400 * NS_PER_SEC)
#define T0 INT64_C(1767323045678901234) /* 2026-01-02T03:04:05.678901234Z */

static int64_t wall_now = T0, mono_now = NS_PER_SEC;
static int64_t test_wall(void)
{
    return wall_now;
}
static int64_t test_mono(void)
{
    return mono_now;
}

static char root[64];

static int set_up(void **state)
{
    (void)state;
    (void)strcpy(root, "/tmp/tailrace-file-XXXXXX");
    wall_now = T0;
    mono_now = NS_PER_SEC;
    clock_set_source(test_mono, test_wall);
    return mkdtemp(root) == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    char cmd[128];
    clock_set_source(NULL, NULL);
    (void)snprintf(cmd, sizeof(cmd), "rm -rf '%s'", root);
    return system(cmd);
}

static const char *in_root(const char *name)
{
    static char path[4][PATH_MAX];
    static unsigned next;
    char *p = path[next++ % 4];
    (void)snprintf(p, PATH_MAX, "%s/%s", root, name);
    return p;
}

static void assert_slice(struct slice got, const char *want)
{
    if (!slice_eq(got, slice_cstr(want)))
        fail_msg("got  %.*s\nwant %s", SLICE_ARGS(got), want);
}

static bool exists(const char *name)
{
    struct stat st;
    return lstat(in_root(name), &st) == 0;
}

static void assert_content(const char *name, const char *want)
{
    struct buf b;
    struct err err = { 0 };
    buf_init(&b, 16 * MIB);
    if (io_read_file(AT_FDCWD, in_root(name), &b, &err) < 0)
        fail_msg("%s", err.text);
    assert_slice(buf_slice(&b), want);
    buf_deinit(&b);
}

static void assert_gz_content(const char *name, struct slice want)
{
    struct buf b, text;
    buf_init(&b, 16 * MIB);
    buf_init(&text, 64 * MIB);
    assert_int_equal(io_read_file(AT_FDCWD, in_root(name), &b, NULL), 0);
    assert_int_equal(gzip_decompress(buf_slice(&b), &text), 0);
    assert_true(slice_eq(buf_slice(&text), want));
    buf_deinit(&b);
    buf_deinit(&text);
}

static void put(const char *name, const char *content)
{
    int fd = open(in_root(name), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(io_write_full(fd, content, strlen(content)), 0);
    fd_close(&fd);
}

/* Takes the place of libc's: the next fail_syncs calls fail, as a bad disk does. */
static int fail_syncs;

int fdatasync(int fd)
{
    if (fail_syncs > 0) {
        fail_syncs--;
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

/* ---- the store alone ---- */

struct world {
    char text[256], state[256];
    struct file_shape shape;
    struct file_store_conf conf;
    struct file_store *s;
};

static void world_init(struct world *w, const char *below)
{
    memset(w, 0, sizeof(*w));
    (void)snprintf(w->text, sizeof(w->text), "%s/%s", root, below);
    assert_int_equal(file_shape_parse(slice_cstr(w->text), &w->shape, NULL), 0);
    (void)snprintf(w->state, sizeof(w->state), "%s/state/queue/audit", root);
    w->conf = (struct file_store_conf){ .state_dir = slice_cstr(w->state), .shape = &w->shape,
                                        .mode = 0640, .dir_mode = 0750 };
}

static void world_open(struct world *w)
{
    struct err err = { 0 };
    if (file_store_open(&w->conf, &w->s, &err) < 0)
        fail_msg("%s", err.text);
}

static int try_write(struct world *w, uint64_t seq, const char *name, const char *lines)
{
    struct err err = { 0 };
    struct buf b;
    buf_init(&b, 64 * MIB);
    assert_int_equal(buf_append_cstr(&b, lines), 0);
    int r = file_store_write(w->s, seq, slice_cstr(in_root(name)), &b, &err);
    buf_deinit(&b);
    return r;
}

static void write_ok(struct world *w, uint64_t seq, const char *name, const char *lines)
{
    assert_int_equal(try_write(w, seq, name, lines), 0);
}

static void sync_ok(struct world *w, uint64_t seq)
{
    struct err err = { 0 };
    if (file_store_sync(w->s, seq, &err) < 0)
        fail_msg("%s", err.text);
}

static void test_crash_doubles_nothing(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, "a/{tenant}/%Y-%m-%d.log");
    world_open(&w);
    assert_int_equal(file_store_seq(w.s), 0);
    write_ok(&w, 1, "a/acme/1.log", "one\n");
    write_ok(&w, 2, "a/globex/1.log", "two\n");
    sync_ok(&w, 2);
    assert_int_equal(file_store_seq(w.s), 2);
    write_ok(&w, 3, "a/acme/1.log", "three\n");
    write_ok(&w, 4, "a/new/1.log", "four\n"); /* made after the last checkpoint */
    file_store_close(w.s);                    /* the crash */
    assert_content("a/acme/1.log", "one\nthree\n");
    put("a/acme/1.log", "torn");

    world_open(&w);
    assert_int_equal(file_store_seq(w.s), 2);
    assert_content("a/acme/1.log", "one\n");
    assert_content("a/globex/1.log", "two\n");
    assert_content("a/new/1.log", "");
    write_ok(&w, 2, "a/globex/1.log", "two\n"); /* the cursor was behind: skipped */
    write_ok(&w, 3, "a/acme/1.log", "three\n");
    write_ok(&w, 4, "a/new/1.log", "four\n");
    sync_ok(&w, 4);
    file_store_close(w.s);
    world_open(&w);
    assert_int_equal(file_store_seq(w.s), 4);
    assert_content("a/acme/1.log", "one\nthree\n");
    assert_content("a/globex/1.log", "two\n");
    assert_content("a/new/1.log", "four\n");
    struct stat st;
    assert_int_equal(stat(in_root("a/new/1.log"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(stat(in_root("a/new"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0750);
    file_store_close(w.s);
}

/* A file that was there before us is appended to and never cut below what was in it. */
static void test_existing_file(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, "{tenant}.log");
    put("acme.log", "theirs\n");
    world_open(&w);
    write_ok(&w, 1, "acme.log", "ours\n");
    file_store_close(w.s);
    world_open(&w);
    assert_content("acme.log", "theirs\n");
    write_ok(&w, 1, "acme.log", "ours\n");
    sync_ok(&w, 1);
    assert_content("acme.log", "theirs\nours\n");

    /* Someone moves it away while it is open: the next lines go into a new one, and the old one stays as it is. */
    assert_int_equal(rename(in_root("acme.log"), in_root("moved.log")), 0);
    write_ok(&w, 2, "acme.log", "more\n");
    assert_content("acme.log", "more\n");
    assert_content("moved.log", "theirs\nours\n");
    sync_ok(&w, 2);
    /* Another file under our name is not cut. */
    assert_int_equal(rename(in_root("acme.log"), in_root("moved2.log")), 0);
    put("acme.log", "a stranger's file, longer than ours\n");
    file_store_close(w.s);
    world_open(&w);
    assert_content("acme.log", "a stranger's file, longer than ours\n");
    /* Truncated or deleted: it goes on with what is there. */
    write_ok(&w, 3, "acme.log", "x\n");
    sync_ok(&w, 3);
    assert_int_equal(truncate(in_root("acme.log"), 0), 0);
    write_ok(&w, 4, "acme.log", "y\n");
    sync_ok(&w, 4);
    assert_content("acme.log", "y\n");
    file_store_close(w.s);
}

/* Without the zeros behind the last record. */
static size_t journal_len(void)
{
    struct buf all;
    buf_init(&all, MIB);
    assert_int_equal(io_read_file(AT_FDCWD, in_root("state/queue/audit/files.state"), &all, NULL), 0);
    size_t n = all.len;
    while (n > 0 && all.ptr[n - 1] == '\0')
        n--;
    buf_deinit(&all);
    return n;
}

static void test_journal_damage(void **state)
{
    (void)state;
    struct world w;
    struct buf good;
    world_init(&w, "a/{tenant}.log");
    world_open(&w);
    write_ok(&w, 1, "a/x.log", "one\n");
    sync_ok(&w, 1);
    const size_t snapshot = journal_len();
    write_ok(&w, 2, "a/y.log", "two\n"); /* appends an entry */
    file_store_close(w.s);
    buf_init(&good, 64 * KIB);
    assert_int_equal(io_read_file(AT_FDCWD, in_root("state/queue/audit/files.state"), &good, NULL), 0);
    good.len = journal_len();
    assert_true(good.len > snapshot);

    for (size_t n = 0; n <= good.len; n++) { /* torn at every byte */
        int fd = open(in_root("state/queue/audit/files.state"), O_WRONLY | O_TRUNC | O_CLOEXEC);
        assert_int_equal(io_write_full(fd, good.ptr, n), 0);
        fd_close(&fd);
        (void)unlink(in_root("state/queue/audit/files.state.bad"));
        world_open(&w);
        bool is_whole = n >= snapshot;
        assert_int_equal(file_store_seq(w.s), is_whole ? 1 : 0);
        assert_int_equal(exists("state/queue/audit/files.state.bad"), !is_whole);
        assert_content("a/x.log", "one\n");
        file_store_close(w.s);
    }
    for (size_t n = 0; n < good.len; n++) { /* one bit wrong: no crash, nothing lost of what was durable */
        int fd = open(in_root("state/queue/audit/files.state"), O_WRONLY | O_TRUNC | O_CLOEXEC);
        good.ptr[n] ^= 4;
        assert_int_equal(io_write_full(fd, good.ptr, good.len), 0);
        good.ptr[n] ^= 4;
        fd_close(&fd);
        world_open(&w);
        assert_content("a/x.log", "one\n");
        file_store_close(w.s);
    }
    buf_deinit(&good);
}

/* Two files that change names: a checkpoint takes no space, for the disk may be full of what it acknowledges. */
static void test_checkpoint_takes_no_space(void **state)
{
    (void)state;
    static const char *const names[] = { "state/queue/audit/files.state", "state/queue/audit/files.state.spare" };
    struct world w;
    struct stat before[2], after[2];
    world_init(&w, "a/{tenant}.log");
    world_open(&w);
    write_ok(&w, 1, "a/x.log", "one\n");
    sync_ok(&w, 1);
    for (int i = 0; i < 2; i++)
        assert_int_equal(stat(in_root(names[i]), &before[i]), 0);
    for (unsigned seq = 2; seq < 9; seq++) {
        write_ok(&w, seq, seq % 2 == 0 ? "a/x.log" : "a/y.log", "more\n");
        sync_ok(&w, seq);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(stat(in_root(names[i]), &after[i]), 0);
            assert_int_equal(after[i].st_ino, before[((unsigned)i + seq - 1) % 2].st_ino);
            assert_int_equal(after[i].st_blocks, before[i].st_blocks);
        }
    }
    file_store_close(w.s);
    world_open(&w);
    assert_int_equal(file_store_seq(w.s), 8);
    file_store_close(w.s);
}

static void test_symlinks_are_not_followed(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, "a/{tenant}/{service}.log");
    assert_int_equal(mkdir(in_root("outside"), 0755), 0);
    put("outside/precious", "keep\n");
    assert_int_equal(mkdir(in_root("a"), 0755), 0);
    assert_int_equal(symlink("../outside", in_root("a/evil")), 0);
    assert_int_equal(mkdir(in_root("a/acme"), 0755), 0);
    assert_int_equal(symlink("../../outside/precious", in_root("a/acme/s.log")), 0);
    assert_int_equal(link(in_root("outside/precious"), in_root("a/acme/hard.log")), 0);
    assert_int_equal(mkfifo(in_root("a/acme/fifo.log"), 0644), 0);
    assert_int_equal(mkdir(in_root("a/acme/dir.log"), 0755), 0);
    world_open(&w);
    static const char *const bad[] = { "a/evil/x.log", "a/acme/s.log", "a/acme/hard.log", "a/acme/fifo.log",
                                       "a/acme/dir.log", "a/../outside/x.log", "a/acme/..", "a//x.log" };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_true(try_write(&w, 1, bad[i], "x\n") < 0);
    assert_content("outside/precious", "keep\n");
    assert_false(exists("outside/x.log"));
    write_ok(&w, 1, "a/acme/good.log", "x\n"); /* others go on */
    file_store_close(w.s);
}

/* No room: the error is reported, the file is as before, and the same frame fits later. */
static void test_disk_full(void **state)
{
    (void)state;
    struct world w;
    struct rlimit old, small;
    world_init(&w, "{tenant}.log");
    world_open(&w);
    write_ok(&w, 1, "x.log", "0123456789\n");
    sync_ok(&w, 1);
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){ .rlim_cur = 14, .rlim_max = old.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int r = try_write(&w, 2, "x.log", "abcdefghij\n");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(r, -EFBIG); /* three bytes had room */
    assert_content("x.log", "0123456789\n");
    write_ok(&w, 2, "x.log", "abcdefghij\n");
    assert_content("x.log", "0123456789\nabcdefghij\n");
    file_store_close(w.s);
}

/* The kernel forgets what it could not write and says so once: what was not synced is written and synced once more. */
static void test_failed_sync(void **state)
{
    (void)state;
    struct world w;
    struct err err = { 0 };
    world_init(&w, "{tenant}.log");
    world_open(&w);
    write_ok(&w, 1, "x.log", "one\n");
    sync_ok(&w, 1);
    write_ok(&w, 2, "x.log", "two\n");
    write_ok(&w, 3, "x.log", "three\n");
    fail_syncs = 1;
    sync_ok(&w, 3);
    assert_int_equal(fail_syncs, 0);
    assert_int_equal(file_store_seq(w.s), 3);
    assert_content("x.log", "one\ntwo\nthree\n");

    /* The pages are not what we wrote: never called durable, and after a restart written again. */
    write_ok(&w, 4, "x.log", "four\n");
    int fd = open(in_root("x.log"), O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "FOUR", 4, 14), 4);
    fd_close(&fd);
    fail_syncs = 1;
    assert_int_equal(file_store_sync(w.s, 4, &err), -EIO);
    assert_int_equal(file_store_seq(w.s), 3);
    file_store_close(w.s);
    world_open(&w);
    assert_int_equal(file_store_seq(w.s), 3);
    assert_content("x.log", "one\ntwo\nthree\n");

    /* The disk stays bad: an error each time, and good again when it is. */
    write_ok(&w, 4, "x.log", "four\n");
    fail_syncs = 3;
    assert_int_equal(file_store_sync(w.s, 4, &err), -EIO);
    fail_syncs = 2;
    assert_int_equal(file_store_sync(w.s, 4, &err), -EIO);
    assert_int_equal(file_store_seq(w.s), 3);
    sync_ok(&w, 4);
    assert_int_equal(file_store_seq(w.s), 4);

    /* A sync that works after one that failed proves nothing: what is there is still compared. */
    write_ok(&w, 5, "x.log", "five\n");
    fail_syncs = 2;
    assert_int_equal(file_store_sync(w.s, 5, &err), -EIO);
    fd = open(in_root("x.log"), O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "old!", 4, 19), 4);
    fd_close(&fd);
    assert_int_equal(file_store_sync(w.s, 5, &err), -EIO);
    assert_int_equal(file_store_seq(w.s), 4);
    file_store_close(w.s);
}

static void test_many_files(void **state)
{
    (void)state;
    struct world w;
    char name[32], want[64];
    world_init(&w, "m/{tenant}.log");
    world_open(&w);
    for (uint64_t i = 0; i < 400; i++) { /* more than may be open at once, and each twice */
        (void)snprintf(name, sizeof(name), "m/%u.log", (unsigned)(i % 200));
        (void)snprintf(want, sizeof(want), "%u\n", (unsigned)i);
        write_ok(&w, i + 1, name, want);
    }
    sync_ok(&w, 400);
    file_store_close(w.s);
    world_open(&w);
    assert_int_equal(file_store_seq(w.s), 400);
    for (unsigned i = 0; i < 200; i++) {
        (void)snprintf(name, sizeof(name), "m/%u.log", i);
        (void)snprintf(want, sizeof(want), "%u\n%u\n", i, i + 200);
        assert_content(name, want);
    }
    file_store_close(w.s);
}

/* Turns the store until the thread has made the file (or the file is gone). */
static void wait_for(struct world *w, const char *name, bool there)
{
    for (int i = 0; i < 2000000 && exists(name) != there; i++) {
        sync_ok(w, 0);
        (void)sched_yield();
    }
    assert_int_equal(exists(name), there);
}

static void test_compress(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, "a/{tenant}/%Y-%m-%d.log");
    w.conf.compress = true;
    world_open(&w);
    size_t big_len = 3 * MIB + 17;
    char *big = malloc(big_len + 1);
    for (size_t i = 0; i < big_len; i++)
        big[i] = i % 80 == 79 ? '\n' : (char)('a' + i * 7 % 26);
    big[big_len] = '\0';
    write_ok(&w, 1, "a/acme/2026-01-02.log", big);
    sync_ok(&w, 1);
    wall_now += NS_PER_SEC * 3600; /* the same day: stays */
    sync_ok(&w, 1);
    assert_true(exists("a/acme/2026-01-02.log"));
    wall_now += DAY;
    wait_for(&w, "a/acme/2026-01-02.log", false);
    assert_gz_content("a/acme/2026-01-02.log.gz", slice_of(big, big_len));
    struct stat st;
    assert_int_equal(stat(in_root("a/acme/2026-01-02.log.gz"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);

    /* Late lines for a closed day go beside it. */
    for (int i = 0; i < 1000000 && try_write(&w, 2, "a/acme/2026-01-02.log", "late\n") == -EAGAIN; i++)
        (void)sched_yield();
    sync_ok(&w, 2);
    wall_now += DAY;
    wait_for(&w, "a/acme/2026-01-02.log.1.gz", true);
    wait_for(&w, "a/acme/2026-01-02.log", false);
    assert_gz_content("a/acme/2026-01-02.log.1.gz", SLICE("late\n"));
    assert_gz_content("a/acme/2026-01-02.log.gz", slice_of(big, big_len));
    file_store_close(w.s);
    world_open(&w);
    assert_int_equal(file_store_seq(w.s), 2);
    file_store_close(w.s);
    free(big);
}

/* A journal as a crash leaves it while x.log is being compressed. */
static void write_journal(const char *len_file, uint64_t len)
{
    struct buf b;
    buf_init(&b, 4 * KIB);
    struct file_journal_file f = { .path = slice_cstr(in_root(len_file)), .len = len, .written_ns = T0 };
    assert_int_equal(file_journal_put_snapshot(&b, 7, 1), 0);
    assert_int_equal(file_journal_put_file(&b, &f), 0);
    assert_int_equal(file_journal_put_file(&b, &f), 0);
    assert_int_equal(file_journal_put_gz(&b, f.path, SLICE("x.log.gz")), 0);
    int fd = open(in_root("state/queue/audit/files.state"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    assert_int_equal(io_write_full(fd, b.ptr, b.len), 0);
    fd_close(&fd);
    buf_deinit(&b);
}

static void test_crash_while_compressing(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, "%d/x.log");
    w.conf.compress = true;
    assert_int_equal(io_mkdirs(in_root("state/queue/audit"), 0750, NULL), 0);
    assert_int_equal(mkdir(in_root("02"), 0750), 0);

    /* Before the .gz had its name: begun again. */
    put("02/x.log", "one\n");
    put("02/.x.log.gz.tmp", "half");
    write_journal("02/x.log", 4);
    world_open(&w);
    assert_int_equal(file_store_seq(w.s), 7);
    assert_content("02/x.log", "one\n");
    wall_now += 2 * DAY;
    wait_for(&w, "02/x.log", false);
    assert_gz_content("02/x.log.gz", SLICE("one\n"));
    file_store_close(w.s);
    assert_false(exists("02/.x.log.gz.tmp"));

    /* After: the plain one is the one too many. */
    put("02/x.log", "one\n");
    write_journal("02/x.log", 4);
    world_open(&w);
    assert_false(exists("02/x.log"));
    assert_gz_content("02/x.log.gz", SLICE("one\n"));
    file_store_close(w.s);
}

static void set_age(const char *name, int64_t ago_ns)
{
    int64_t s = (wall_now - ago_ns) / NS_PER_SEC;
    const struct timespec ts[2] = { { .tv_sec = s }, { .tv_sec = s } };
    assert_int_equal(utimensat(AT_FDCWD, in_root(name), ts, 0), 0);
}

static void old_file(const char *name, int64_t ago_ns)
{
    put(name, "0123456789");
    set_age(name, ago_ns);
}

static void test_retention_by_days(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, "a/{tenant}/%Y-%m-%d.log");
    w.conf.retain_ns = 7 * DAY;
    assert_int_equal(io_mkdirs(in_root("a/acme"), 0755, NULL), 0);
    assert_int_equal(io_mkdirs(in_root("a/empty"), 0755, NULL), 0);
    assert_int_equal(io_mkdirs(in_root("a/acme/deep"), 0755, NULL), 0);
    old_file("a/acme/2025-12-20.log", 13 * DAY);
    old_file("a/acme/2025-12-21.log.gz", 12 * DAY);
    old_file("a/acme/2025-12-21.log.3.gz", 12 * DAY);
    old_file("a/acme/2025-12-31.log.gz", 2 * DAY);
    old_file("a/empty/2025-12-20.log.gz", 13 * DAY);
    /* Not ours by their names or places. */
    old_file("a/acme/notes.log", 99 * DAY);
    old_file("a/acme/2025-12-20.log.bak", 99 * DAY);
    old_file("a/acme/2025-12-20.log.x.gz", 99 * DAY);
    old_file("a/2025-12-20.log", 99 * DAY);
    old_file("a/acme/deep/2025-12-20.log", 99 * DAY);
    assert_int_equal(symlink("notes.log", in_root("a/acme/2025-01-01.log")), 0);
    world_open(&w);
    wait_for(&w, "a/empty", false); /* its last file went */
    wait_for(&w, "a/acme/2025-12-20.log", false);
    wait_for(&w, "a/acme/2025-12-21.log.gz", false);
    wait_for(&w, "a/acme/2025-12-21.log.3.gz", false);
    file_store_close(w.s);
    assert_true(exists("a/acme/2025-12-31.log.gz"));
    assert_true(exists("a/acme/notes.log"));
    assert_true(exists("a/acme/2025-12-20.log.bak"));
    assert_true(exists("a/acme/2025-12-20.log.x.gz"));
    assert_true(exists("a/2025-12-20.log"));
    assert_true(exists("a/acme/deep/2025-12-20.log"));
    assert_true(exists("a/acme/2025-01-01.log"));
}

static void test_retention_by_bytes(void **state)
{
    (void)state;
    struct world w;
    char name[32];
    world_init(&w, "a/%Y-%m-%d.log");
    w.conf.retain_bytes = 100; /* ten files */
    assert_int_equal(io_mkdirs(in_root("a"), 0755, NULL), 0);
    for (int i = 0; i < 600; i++) { /* more than one walk deletes */
        (void)snprintf(name, sizeof(name), "a/%04d-01-01.log.gz", 1000 + i);
        old_file(name, (700 - i) * DAY);
    }
    world_open(&w);
    wait_for(&w, "a/1589-01-01.log.gz", false);
    for (int i = 0; i < 1000; i++)
        sync_ok(&w, 0);
    file_store_close(w.s); /* ends the thread: the rest is still */
    for (int i = 0; i < 600; i++) {
        (void)snprintf(name, sizeof(name), "a/%04d-01-01.log.gz", 1000 + i);
        assert_int_equal(exists(name), i >= 590);
    }
}

/* ---- paths ---- */

static void test_shapes(void **state)
{
    (void)state;
    static const struct { const char *text; int want; size_t base_len, n_parts; enum file_period period; const char *last; } cases[] = {
        { "/a/b/{tenant}/%Y-%m-%d.ndjson", 0, 5, 2, FILE_PERIOD_DAY, "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9].ndjson" },
        { "/a/x-{tenant}.log", 0, 3, 1, FILE_PERIOD_EVER, "x-*.log" },
        { "/{a|'b'}/%j/%H%M%S", 0, 1, 3, FILE_PERIOD_SECOND, "[0-9][0-9][0-9][0-9][0-9][0-9]" },
        { "/a/fixed[1]*.log", 0, 3, 1, FILE_PERIOD_EVER, "fixed\\[1\\]\\*.log" },
        { "/a/100%%/{{x}}.log", 0, 3, 2, FILE_PERIOD_EVER, "{x}.log" },
        { "relative/{x}", -EINVAL, 0, 0, 0, NULL },
        { "/a/{x}/", -EINVAL, 0, 0, 0, NULL },
        { "/", -EINVAL, 0, 0, 0, NULL },
        { "", -EINVAL, 0, 0, 0, NULL },
        { "/a/{x|'b/c'}", -EINVAL, 0, 0, 0, NULL },
        { "/%Y/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16", -EINVAL, 0, 0, 0, NULL },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct file_shape shape = { 0 };
        struct err err = { 0 };
        assert_int_equal(file_shape_parse(slice_cstr(cases[i].text), &shape, &err), cases[i].want);
        if (cases[i].want < 0)
            continue;
        struct buf glob;
        buf_init(&glob, 4 * KIB);
        assert_int_equal(shape.base_len, cases[i].base_len);
        assert_int_equal(shape.n_parts, cases[i].n_parts);
        assert_int_equal(shape.period, cases[i].period);
        assert_int_equal(file_shape_glob(&shape, shape.n_parts - 1, &glob), 0);
        assert_slice(buf_slice(&glob), cases[i].last);
        buf_deinit(&glob);
    }
}

static void test_clean_paths(void **state)
{
    (void)state;
    static const struct { struct slice in; const char *want; } cases[] = {
        { SLICE_INIT("/a/acme/x.log"), "/a/acme/x.log" },
        { SLICE_INIT("/a//x.log"), "/a/_/x.log" },
        { SLICE_INIT("/a/./x.log"), "/a/_/x.log" },
        { SLICE_INIT("/a/../x.log"), "/a/__/x.log" },
        { SLICE_INIT("/a/acme/.."), "/a/acme/__" },
        { SLICE_INIT("/a/../../etc/x.log"), "/a/_/.._.._etc_x.log" },
        { SLICE_INIT("/a/acme/x/../../globex/x.log"), "/a/_/acme_x_.._.._globex_x.log" },
        { SLICE_INIT("/a/ac\0me/x\n\x7f.log"), "/a/ac_me/x__.log" },
        { SLICE_INIT("/a/cut"), "/a/_/cut" },
    };
    struct file_shape shape;
    struct buf out;
    buf_init(&out, 4 * KIB);
    assert_int_equal(file_shape_parse(SLICE("/a/{tenant}/{service}.log"), &shape, NULL), 0);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        buf_reset(&out);
        assert_int_equal(file_path_clean(&shape, cases[i].in, &out), 0);
        assert_slice(buf_slice(&out), cases[i].want);
    }
    char longs[2][600];
    struct slice names[2];
    for (int i = 0; i < 2; i++) { /* two long names that differ at the end only stay two */
        memset(longs[i], 'x', sizeof(longs[i]));
        memcpy(longs[i], "/a/acme/", 8);
        longs[i][599] = (char)('0' + i);
        size_t before = out.len;
        assert_int_equal(file_path_clean(&shape, slice_of(longs[i], 600), &out), 0);
        names[i] = slice_of(out.ptr + before, out.len - before);
        assert_true(names[i].len < 8 + 255);
    }
    names[0] = slice_of(out.ptr + out.len - 2 * names[1].len, names[1].len);
    assert_false(slice_eq(names[0], names[1]));
    buf_deinit(&out);
}

static void test_periods(void **state)
{
    (void)state;
    assert_false(file_period_is_over(FILE_PERIOD_EVER, 0, INT64_MAX));
    assert_false(file_period_is_over(FILE_PERIOD_DAY, T0, T0 + 3600 * NS_PER_SEC));
    assert_true(file_period_is_over(FILE_PERIOD_DAY, T0, T0 + DAY));
    assert_false(file_period_is_over(FILE_PERIOD_MONTH, T0, T0 + 20 * DAY));
    assert_true(file_period_is_over(FILE_PERIOD_MONTH, T0, T0 + 31 * DAY));
    assert_true(file_period_is_over(FILE_PERIOD_MONTH, T0, T0 + 365 * DAY));
    assert_false(file_period_is_over(FILE_PERIOD_YEAR, T0, T0 + 300 * DAY));
    assert_true(file_period_is_over(FILE_PERIOD_YEAR, T0, T0 + 365 * DAY));
    assert_true(file_period_is_over(FILE_PERIOD_HOUR, T0, T0 + 3600 * NS_PER_SEC));
    assert_true(file_period_is_over(FILE_PERIOD_MINUTE, T0, T0 + 60 * NS_PER_SEC));
    assert_true(file_period_is_over(FILE_PERIOD_SECOND, T0, T0 + NS_PER_SEC));
}

/* ---- the output as a whole ---- */

struct file_settings_view { /* the output's own settings, as the configuration fills them */
    char bytes[256];
};

/* Fills a type's settings as conf/ would: by its table. */
static void set_default(const struct setting *table, void *settings, const char *path, struct template **t)
{
    static struct wanted_keys wanted;
    for (const struct setting *s = table; s->key != NULL; s++) {
        void *at = (char *)settings + s->offset;
        if (s->type == SETTING_SECTION) {
            set_default(s->section, settings, path, t);
        } else if (s->type == SETTING_TEMPLATE) {
            assert_int_equal(template_parse(slice_cstr(path), true, &wanted, t, NULL), 0);
            memcpy(at, t, sizeof(*t));
        } else if (s->type == SETTING_STRING) {
            struct slice v = slice_cstr(s->def);
            memcpy(at, &v, sizeof(v));
        } else if (s->type == SETTING_BOOL) {
            *(bool *)at = strcmp(s->def, "true") == 0;
        }
    }
}

static void test_output(void **state)
{
    (void)state;
    struct file_settings_view settings = { { 0 } };
    struct output_conf conf = { .name = SLICE("audit"), .type = &file_type, .settings = &settings,
                                .state_dir = slice_cstr(in_root("state")) };
    struct template *t = NULL;
    struct output *out;
    struct err err = { 0 };
    conf.queue.batch_bytes = 1 * MIB;
    assert_true(file_type.settings_size <= sizeof(settings));
    set_default(file_type.settings, &settings, in_root("a/{tenant}/%Y-%m-%d.ndjson"), &t);
    assert_int_equal(file_type.validate(&conf, NULL, NULL, &err), 0);
    assert_int_equal(file_ops.open(&conf, &out, &err), 0);

    struct origin o = { .id = 1, .host = SLICE("vm-1") };
    struct record rec = { .origin = &o, .read_ns = T0, .time_ns = T0 - 9 * DAY, .kind = RECORD_JSON,
                          .line = SLICE("{\"a\":1}"), .level = LEVEL_WARN, .tenant = SLICE("acme"), .tenant_id = 1 };
    struct append_result res;
    assert_int_equal(file_ops.append(out, &rec, &res), 0);
    rec.kind = RECORD_TEXT;
    rec.line = SLICE("text");
    assert_int_equal(file_ops.append(out, &rec, &res), 0);
    assert_slice(buf_slice(&res.body->route), in_root("a/acme/2026-01-02.ndjson")); /* by arrival, not by record */
#define JSON_LINE "{\"a\":1,\"tenant\":\"acme\",\"host_name\":\"vm-1\",\"severity\":\"warn\"}\n"
#define TEXT_LINE                                                                                                      \
    "{\"message\":\"text\",\"tenant\":\"acme\",\"host_name\":\"vm-1\",\"severity\":\"warn\","                          \
    "\"@timestamp\":\"2025-12-24T03:04:05.678901234Z\"}\n"
    assert_slice(buf_slice(&res.body->raw), JSON_LINE TEXT_LINE);
    rec.tenant = SLICE("../x/..");
    rec.tenant_id = 2;
    struct append_result evil;
    assert_int_equal(file_ops.append(out, &rec, &evil), 0);
    assert_slice(buf_slice(&evil.body->route), in_root("a/_/.._x_.._2026-01-02.ndjson"));

    struct buf wire, again, text;
    struct items items = { 0 };
    buf_init(&wire, 1 * MIB);
    buf_init(&again, 1 * MIB);
    buf_init(&text, 1 * MIB);
    assert_int_equal(file_ops.seal(out, res.body, &wire), 0);
    struct frame_ref frame = { .seq = 1, .route = buf_slice(&res.body->route), .wire = buf_slice(&wire), .lines = 2 };
    assert_int_equal(file_ops.deliver(out, &frame, &err), 0);
    assert_int_equal(file_ops.deliver(out, &frame, &err), 0); /* again: skipped */
    assert_int_equal(file_ops.checkpoint(out, 1, &err), 0);
    assert_int_equal(file_ops.delivered(out), 1);
    assert_content("a/acme/2026-01-02.ndjson", JSON_LINE TEXT_LINE);
    assert_int_equal(file_ops.items(out, buf_slice(&wire), frame.route, &items), 0);
    assert_int_equal(items.n, 2);
    assert_int_equal(file_ops.print(out, &items, &text), 0);
    assert_slice(buf_slice(&text), JSON_LINE TEXT_LINE);
    assert_int_equal(file_ops.build(out, &items, (const uint8_t[]){ 0, 1 }, false, &again), 0);
    items_deinit(&items);
    assert_int_equal(file_ops.items(out, buf_slice(&again), frame.route, &items), 0);
    assert_int_equal(items.n, 1);
    assert_slice(items.item[0].data, "{\"message\":\"text\",\"tenant\":\"acme\",\"host_name\":\"vm-1\",\"severity\":\"warn\","
                                     "\"@timestamp\":\"2025-12-24T03:04:05.678901234Z\"}");
    items_deinit(&items);
    frame.seq = 2;
    frame.wire = SLICE("garbage");
    assert_int_equal(file_ops.deliver(out, &frame, &err), -EBADMSG);
    buf_deinit(&wire);
    buf_deinit(&again);
    buf_deinit(&text);
    file_ops.close(out);
    template_free(t);
}

int main(void)
{
#define ON_DISK(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        ON_DISK(test_crash_doubles_nothing),
        ON_DISK(test_existing_file),
        ON_DISK(test_journal_damage),
        ON_DISK(test_checkpoint_takes_no_space),
        ON_DISK(test_symlinks_are_not_followed),
        ON_DISK(test_disk_full),
        ON_DISK(test_failed_sync),
        ON_DISK(test_many_files),
        ON_DISK(test_compress),
        ON_DISK(test_crash_while_compressing),
        ON_DISK(test_retention_by_days),
        ON_DISK(test_retention_by_bytes),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_clean_paths),
        cmocka_unit_test(test_periods),
        ON_DISK(test_output),
    };
    return cmocka_run_group_tests_name("outputs/file", tests, NULL, NULL);
}
