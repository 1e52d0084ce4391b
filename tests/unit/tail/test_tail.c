/*
 * Goal: files that come, grow, rotate and go on a real disk reach every output line by line, once, in order.
 * Method: world.h. Each test plays a few system calls and looks at what arrived; time is driven by hand.
 */
#include "world.h"

#include <sys/resource.h>

#include "agent/queue/fs.h"

static struct world *one(void)
{
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    return w;
}

static void test_appends_and_half_lines(void **state)
{
    (void)state;
    struct world *w = one();
    w_append(w, "a.log", "one\ntwo\nthr");
    world_start(w);
    assert_true(tail_first_scan_done(w->t));
    world_run(w);
    expect_lines(w, 0, "one|two");
    w_append(w, "a.log", "ee\nfour");
    world_run(w);
    expect_lines(w, 0, "one|two|three");
    w_append(w, "b.log", "new\n");
    world_run(w);
    expect_lines(w, 0, "one|two|three|new");
    world_commit_all(w);
    assert_int_equal(2, w->q[0].n);
    world_free(w);
}

static void test_resume_after_crash(void **state)
{
    (void)state;
    struct world *w = one();
    w_append(w, "a.log", "one\ntwo\n");
    world_start(w);
    world_run(w);
    world_commit_all(w);
    w_append(w, "a.log", "three\n");
    world_run(w);
    expect_lines(w, 0, "one|two|three");
    world_crash(w); /* three was not durable */
    world_run(w);
    expect_lines(w, 0, "one|two|three");
    world_commit_all(w);
    world_crash(w);
    world_run(w);
    expect_lines(w, 0, "one|two|three");
    world_free(w);
}

static void test_idle_file_is_remembered(void **state)
{
    (void)state;
    struct world *w = one();
    w->inputs[0].read_from = READ_FROM_END;
    w_append(w, "a.log", "old\nhal");
    world_start(w);
    world_run(w);
    world_commit_all(w); /* nothing was read, and yet it is known */
    assert_int_equal(1, w->q[0].n);
    world_stop(w);
    w_append(w, "a.log", "f\nwhile down\n");
    world_start(w);
    world_run(w);
    expect_lines(w, 0, "while down");
    w_append(w, "later.log", "whole\n");
    world_run(w);
    expect_lines(w, 0, "while down|whole");
    world_free(w);
}

static void test_rename_rotation(void **state)
{
    (void)state;
    struct world *w = one();
    w_append(w, "a.log", "one\n");
    world_start(w);
    world_run(w);
    w_append(w, "a.log", "two\n");
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log.1", "late\nunterminated");
    w_append(w, "a.log", "new\n");
    world_run(w);
    expect_lines(w, 0, "one|two|late|new");
    w_append(w, "a.log.1", " end");
    world_pass(w, 4);
    expect_lines(w, 0, "one|two|late|new");
    world_pass(w, 3); /* 5 s after the last byte */
    expect_lines(w, 0, "one|two|late|new|unterminated end");
    assert_string_equal(w_path(w, "a.log"), w->last_path);
    world_commit_all(w);
    assert_int_equal(2, w->q[0].n); /* finished and on the disk: known */
    w_append(w, "a.log.1", "\nvery late\n");
    world_pass(w, 7);
    expect_lines(w, 0, "one|two|late|new|unterminated end||very late");
    world_commit_all(w);
    w_unlink(w, "a.log.1");
    world_run(w);
    for (int i = 0; i < 4; i++)
        world_commit_all(w);
    assert_int_equal(1, w->q[0].n); /* gone */
    world_free(w);
}

static void test_several_renames(void **state)
{
    (void)state;
    struct world *w = one();
    w_append(w, "a.log", "1\n");
    world_start(w);
    world_run(w);
    for (int i = 2; i < 6; i++) {
        char line[16];
        for (int k = i - 2; k >= 1; k--) {
            char from[32], to[32];
            (void)snprintf(from, sizeof(from), "a.log.%d", k);
            (void)snprintf(to, sizeof(to), "a.log.%d", k + 1);
            w_rename(w, from, to);
        }
        w_rename(w, "a.log", "a.log.1");
        (void)snprintf(line, sizeof(line), "%d\n", i);
        w_append(w, "a.log", line); /* no look in between: some are born and rotated unseen */
    }
    world_run(w);
    expect_lines(w, 0, "1|2|3|4|5");
    world_free(w);
}

static void test_delete_while_held(void **state)
{
    (void)state;
    struct world *w = one();
    w_append(w, "a.log", "one\n");
    world_start(w);
    world_run(w);
    int fd = open(w_path(w, "a.log"), O_WRONLY | O_APPEND | O_CLOEXEC);
    assert_int_equal(4, write(fd, "two\n", 4));
    w_unlink(w, "a.log");
    w_append(w, "a.log", "recreated\n");
    world_run(w);
    expect_lines(w, 0, "one|two|recreated");
    assert_int_equal(6, write(fd, "three\n", 6));
    assert_int_equal(4, write(fd, "half", 4));
    close(fd);
    world_pass(w, 8);
    expect_lines(w, 0, "one|two|recreated|three|half");
    for (int i = 0; i < 4; i++)
        world_commit_all(w);
    assert_int_equal(1, w->q[0].n);
    world_free(w);
}

static void truncate_copy(struct world *w, const char *name, const char *copy)
{
    w_copy(w, name, copy);
    assert_int_equal(0, truncate(w_path(w, name), 0));
}

#define LONG_A "a line that is longer than sixty-four bytes, so that a copy of it can be told: aaaaaaaaaaaa\n"
#define LONG_A_LINE                                                                                          \
    "a line that is longer than sixty-four bytes, so that a copy of it can be told: aaaaaaaaaaaa"

static void test_copytruncate(void **state)
{
    (void)state;
    struct world *w = one();
    w_append(w, "a.log", LONG_A "two\n");
    world_start(w);
    world_run(w);
    w_append(w, "a.log", "unread\n"); /* comes to light in the copy only */
    truncate_copy(w, "a.log", "a.log.1");
    w_append(w, "a.log", "new\n");
    world_run(w);
    world_pass(w, 7);
    expect_lines(w, 0, LONG_A_LINE "|two|unread|new");
    assert_true(log_has(w, "file.truncated"));
    world_commit_all(w);
    assert_int_equal(2, w->q[0].n);
    world_free(w);
}

static void test_copytruncate_grown_past(void **state)
{
    (void)state;
    struct world *w = one();
    w_append(w, "a.log", LONG_A);
    world_start(w);
    world_run(w);
    truncate_copy(w, "a.log", "a.log.1");
    w_append(w, "a.log",
             "b much longer text than was there before: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\n"
             "and one more line behind it, so that the size tells nothing\n");
    world_pass(w, 7);
    expect_lines(w, 0,
                 LONG_A_LINE
                 "|b much longer text than was there before: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
                 "bbbbbbbb|and one more line behind it, so that the size tells nothing");
    world_free(w);
}

static void test_copytruncate_of_all_names(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*");
    w_append(w, "a.log", LONG_A "two\n");
    world_start(w);
    world_run(w);
    w_append(w, "a.log", "three\n");
    w_copy(w, "a.log", "a.log.1");
    world_run(w); /* a copy in the making: not read */
    expect_lines(w, 0, LONG_A_LINE "|two|three");
    assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
    w_append(w, "a.log", "new\n");
    world_pass(w, 20);
    expect_lines(w, 0, LONG_A_LINE "|two|three|new");
    world_free(w);
}

static void test_plain_copy_is_a_file_of_its_own(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*");
    w_append(w, "a.log", LONG_A);
    world_start(w);
    world_run(w);
    w_copy(w, "a.log", "a.log.1");
    world_pass(w, 9);
    expect_lines(w, 0, LONG_A_LINE);
    world_pass(w, 4);
    expect_lines(w, 0, LONG_A_LINE "|" LONG_A_LINE);
    world_free(w);
}

static void test_holes_are_skipped(void **state)
{
    (void)state;
    struct world *w = one();
    w_append(w, "a.log", LONG_A);
    world_start(w);
    world_run(w);
    assert_int_equal(
        0, truncate(w_path(w, "a.log"), 0)); /* the writer does not append: it goes on where it was */
    assert_int_equal(0, truncate(w_path(w, "a.log"), 3 * 1024 * 1024));
    w_append(w, "a.log", "after the hole\n");
    world_pass(w, 12);
    expect_lines(w, 0, LONG_A_LINE "|after the hole");
    world_commit_all(w);
    world_crash(w);
    w_append(w, "a.log", "more\n");
    world_run(w);
    expect_lines(w, 0, LONG_A_LINE "|after the hole|more");
    world_free(w);
}

static void test_binary_is_skipped(void **state)
{
    (void)state;
    struct world *w = one();
    int fd = open(w_path(w, "bin.log"), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_int_equal(8, write(fd, "ab\0cd\nx\n", 8));
    w_append(w, "empty.log", "");
    world_start(w);
    world_run(w);
    int late = open(w_path(w, "empty.log"), O_WRONLY | O_CLOEXEC);
    assert_int_equal(4, write(late, "e\0f\n", 4));
    world_run(w);
    world_commit_all(w);
    expect_lines(w, 0, "");
    assert_true(log_has(w, "file.skipped"));
    assert_int_equal(2, gauge_get(&stats.inputs[0].files[FILES_SKIPPED]));
    assert_int_equal(0, w->q[0].n);
    close(fd);
    close(late);
    world_free(w);
    assert_int_equal(0, gauge_get(&stats.inputs[0].files[FILES_SKIPPED]));
}

static void test_not_files(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "**");
    assert_int_equal(0, mkfifo(w_path(w, "fifo.log"), 0644));
    assert_int_equal(0, symlink("/dev/zero", w_path(w, "zero.log")));
    assert_int_equal(0, symlink(w->dir, w_path(w, "loop")));
    assert_int_equal(0, symlink("nowhere", w_path(w, "dangling.log")));
    w_mkdir(w, "sub");
    assert_int_equal(0, symlink("..", w_path(w, "sub/up")));
    w_append(w, "sub/x.log", "x\n");
    w_append(w, "old.gz", "not read\n");
    world_start(w);
    world_run(w);
    world_pass(w, 11);
    expect_lines(w, 0, "x");
    world_free(w);
}

static void test_unreadable_is_tried_again(void **state)
{
    (void)state;
    struct world *w = one();
    w_append(w, "a.log", "one\n");
    assert_int_equal(0, chmod(w_path(w, "a.log"), 0));
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        /* As a user who may not read it. */
        if (geteuid() == 0 && (chmod(w->dir, 0755) < 0 || setegid(65534) < 0 || seteuid(65534) < 0))
            _exit(2);
        world_start(w);
        world_run(w);
        bool ok = w->q[0].open.n == 0 && log_has(w, "file.unreadable") &&
                  gauge_get(&stats.inputs[0].files[FILES_UNREADABLE]) == 1;
        if (seteuid(0) == 0 || getuid() != 0) {
            ok = ok && chmod(w_path(w, "a.log"), 0644) == 0;
            if (getuid() == 0)
                (void)!seteuid(65534);
            world_pass(w, 11);
            ok = ok && w->q[0].open.n == 1;
        }
        _exit(ok ? 0 : 1);
    }
    int status;
    assert_int_equal(pid, waitpid(pid, &status, 0));
    assert_int_equal(0, status);
    world_free(w);
}

static void test_patterns_and_new_directories(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    w->conf.n_inputs = 2;
    world_include(w, 0, "srv/<tenant>/logs/<service>.log");
    world_include(w, 1, "**");
    world_exclude(w, 1, "private");
    world_start(w);
    world_run(w);
    w_mkdir(w, "srv");
    w_mkdir(w, "srv/acme");
    world_run(w);
    w_mkdir(w, "srv/acme/logs");
    w_append(w, "srv/acme/logs/api.log", "hello\n");
    world_run(w);
    expect_lines(w, 0, "hello");
    assert_string_equal("tenant=acme service=api ", w->last_captures);
    w_mkdir(w, "private");
    w_append(w, "private/x", "secret\n");
    w_mkdir(w, "deep");
    w_mkdir(w, "deep/er");
    w_mkdir(w, "deep/er/still");
    w_append(w, "deep/er/still/f", "deep\n");
    world_run(w);
    expect_lines(w, 0, "hello|deep");
    w_rename(w, "deep/er", "moved");
    w_append(w, "moved/still/f", "moved\n");
    world_run(w);
    world_pass(w, 11);
    expect_lines(w, 0, "hello|deep|moved");
    world_free(w);
}

static bool no_directory_opens, no_directory_is_there;

static int failing_open(int dir_fd, const char *name, int flags, mode_t mode)
{
    return no_directory_opens && flags & O_DIRECTORY ? -EMFILE : fs_real.open(dir_fd, name, flags, mode);
}

static int failing_stat(int dir_fd, const char *name, struct stat *st, bool follow)
{
    int r = fs_real.stat(dir_fd, name, st, follow);
    return no_directory_is_there && r == 0 && S_ISDIR(st->st_mode) ? -EIO : r;
}

/* What could not be listed or looked at is tried again, although nothing changes there. */
static void test_directory_that_fails_for_a_while(void **state)
{
    (void)state;
    struct fs_ops ops = fs_real;
    ops.open = failing_open;
    ops.stat = failing_stat;
    for (int i = 0; i < 2; i++) {
        struct world *w = world_new(1);
        world_include(w, 0, "srv/*/x.log");
        w_mkdir(w, "srv");
        w_mkdir(w, "srv/a");
        w_append(w, "srv/a/x.log", "one\n");
        fs_set_ops(&ops);
        no_directory_opens = i == 0;
        no_directory_is_there = i == 1;
        world_start(w);
        world_run(w);
        expect_lines(w, 0, "");
        no_directory_opens = no_directory_is_there = false;
        world_pass(w, 11);
        world_pass(w, 11);
        expect_lines(w, 0, "one");
        world_free(w);
        fs_set_ops(NULL);
    }
}

static void test_missing_prefix_and_replaced_directory(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "not/yet/*.log");
    world_start(w);
    world_run(w);
    w_mkdir(w, "not");
    world_run(w);
    w_mkdir(w, "not/yet");
    w_append(w, "not/yet/a.log", "one\n");
    world_run(w);
    expect_lines(w, 0, "one");
    w_rename(w, "not/yet", "not/old");
    w_mkdir(w, "not/yet");
    w_append(w, "not/yet/a.log", "two\n");
    world_run(w);
    world_pass(w, 11);
    expect_lines(w, 0, "one|two");
    world_free(w);
}

static void test_first_input_wins_and_same_inode_once(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    w->conf.n_inputs = 2;
    world_include(w, 0, "x/*.log");
    world_exclude(w, 0, "x/not.log");
    world_include(w, 1, "x/*");
    world_include(w, 1, "y/*");
    w_mkdir(w, "x");
    w_mkdir(w, "y");
    w_append(w, "x/a.log", "a\n");
    assert_int_equal(0, link(w_path(w, "x/a.log"), w_path(w, "y/hard")));
    assert_int_equal(0, symlink("../x/a.log", w_path(w, "y/soft")));
    w_append(w, "x/not.log", "n\n");
    world_start(w);
    world_run(w);
    world_settle(w, 11);
    assert_int_equal(2, w->q[0].durable.n);
    assert_int_equal(2, w->q[0].n);
    for (size_t i = 0; i < 2; i++) {
        const struct file_ident *id = &w->q[0].files[i].ident;
        bool is_not = slice_ends(id->path, SLICE("not.log"));
        assert_true(slice_eq(id->input, is_not ? SLICE("second") : SLICE("logs")));
    }
    world_free(w);
}

static void test_containers_symlinks(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "containers/*.log");
    w_mkdir(w, "containers");
    w_mkdir(w, "pods");
    w_mkdir(w, "docker");
    w_append(w, "docker/id-json.log", "one\n");
    assert_int_equal(0, symlink("../docker/id-json.log", w_path(w, "pods/0.log")));
    assert_int_equal(0, symlink("../pods/0.log", w_path(w, "containers/c.log")));
    world_start(w);
    world_run(w);
    expect_lines(w, 0, "one");
    assert_string_equal(w_path(w, "containers/c.log"), w->last_path);
    w_append(w, "docker/id-json.log", "two\n");
    world_run(w); /* by the event in the target's folder */
    expect_lines(w, 0, "one|two");
    w_rename(w, "docker/id-json.log", "docker/id-json.log.1");
    w_append(w, "docker/id-json.log.1", "late\n");
    world_run(w);
    w_append(w, "docker/id-json.log", "three\n");
    world_run(w);
    world_pass(w, 11);
    expect_lines(w, 0, "one|two|late|three");
    world_free(w);
}

static void test_long_line_is_cut_and_memory_flat(void **state)
{
    (void)state;
    struct world *w = one();
    int fd = open(w_path(w, "a.log"), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    char *raw = malloc(MIB);
    memset(raw, 'x', MIB);
    for (int i = 0; i < 8; i++)
        assert_int_equal(MIB, write(fd, raw, MIB));
    assert_int_equal(6, write(fd, "\nnext\n", 6));
    world_start(w);
    world_run(w);
    assert_int_equal(2, w->q[0].open.n);
    assert_int_equal(LINE_BYTES_MAX, strlen(w->q[0].open.item[0]));
    assert_string_equal("next", w->q[0].open.item[1]);
    assert_int_equal(1, w->n_cut);
    assert_true(w->feed_max <= LINE_BYTES_MAX + TURN_BYTES);
    /* A crash inside the rest of the cut line. */
    for (int i = 0; i < 3; i++)
        assert_int_equal(MIB, write(fd, raw, MIB));
    world_run(w);
    world_commit_all(w);
    world_crash(w);
    assert_int_equal(6, write(fd, "\nlast\n", 6));
    world_run(w);
    assert_int_equal(1, w->q[0].open.n);
    assert_string_equal("last", w->q[0].open.item[0]);
    assert_int_equal(3, w->q[0].durable.n);
    close(fd);
    free(raw);
    world_free(w);
}

static void test_line_just_as_long_as_may_be(void **state)
{
    (void)state;
    struct world *w = one();
    char *raw = malloc(LINE_BYTES_MAX + 2);
    memset(raw, 'y', LINE_BYTES_MAX);
    memcpy(raw + LINE_BYTES_MAX, "\n", 2);
    w_append(w, "a.log", raw);
    world_start(w);
    world_run(w);
    assert_int_equal(1, w->q[0].open.n);
    assert_int_equal(0, w->n_cut);
    free(raw);
    world_free(w);
}

static void test_overflow_and_rescan(void **state)
{
    (void)state;
    struct world *w = one();
    w_append(w, "a.log", "one\n");
    world_start(w);
    world_run(w);
    uint64_t before = counter_get(&stats.inotify_overflows);
    w_append(w, "a.log", "two\n");
    w_append(w, "b.log", "b\n");
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "three\n");
    char raw[65536];
    while (read(tail_fd(w->t), raw, sizeof(raw)) > 0) /* nobody sees these events */
        ;
    tail_overflowed(w->t);
    world_run(w);
    assert_int_equal(before + 1, counter_get(&stats.inotify_overflows));
    assert_int_equal(4, w->q[0].open.n);
    world_pass(w, 7);
    assert_int_equal(4, w->q[0].open.n);
    /* And the plain rescan, 10 s later. */
    w_append(w, "a.log", "four\n");
    while (read(tail_fd(w->t), raw, sizeof(raw)) > 0)
        ;
    world_pass(w, 11);
    assert_int_equal(5, w->q[0].open.n);
    world_free(w);
}

static void test_without_watches(void **state)
{
    (void)state;
    struct world *w = one();
    w_append(w, "a.log", "one\n");
    world_start(w);
    w->t->watch.is_working = false; /* as when every watch is taken */
    struct list *l;
    for (l = w->t->dirs.next; l != &w->t->dirs; l = l->next) {
        struct dir *d = CONTAINER_OF(l, struct dir, all);
        table_del(&w->t->dirs_by_wd, &d->by_wd);
        d->wd = -1;
    }
    world_pass(w, 11);
    assert_true(log_has(w, "watch.overflow"));
    w_append(w, "a.log", "two\n");
    w_append(w, "b.log", "b\n");
    world_pass(w, 3);
    expect_lines(w, 0, "one|two|b");
    world_free(w);
}

static void test_ignore_older(void **state)
{
    (void)state;
    struct world *w = one();
    w->inputs[0].ignore_older_ns = 3600 * NS_PER_SEC;
    w_append(w, "old.log", "old\n");
    struct timespec times[2] = { { 1000, 0 }, { 1000, 0 } };
    assert_int_equal(0, utimensat(AT_FDCWD, w_path(w, "old.log"), times, 0));
    w_append(w, "new.log", "new\n");
    world_start(w);
    world_run(w);
    expect_lines(w, 0, "new");
    assert_int_equal(1, gauge_get(&stats.inputs[0].files[FILES_SKIPPED]));
    w_append(w, "old.log", "awake\n");
    world_run(w);
    expect_lines(w, 0, "new|old|awake");
    assert_int_equal(0, gauge_get(&stats.inputs[0].files[FILES_SKIPPED]));
    world_free(w);
}

static void test_own_state_is_not_read(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    char own[128];
    world_include(w, 0, "**");
    w_mkdir(w, "state");
    (void)snprintf(own, sizeof(own), "%s/state", w->dir);
    w->conf.state_dir = slice_cstr(own);
    w_append(w, "state/archive.ndjson", "no\n");
    w_append(w, "a", "yes\n");
    world_start(w);
    world_run(w);
    w_append(w, "state/more", "no\n");
    world_run(w);
    expect_lines(w, 0, "yes");
    world_free(w);
}

static void test_busy_file_starves_nobody(void **state)
{
    (void)state;
    struct world *w = one();
    char line[1001];
    memset(line, 'z', 999);
    memcpy(line + 999, "\n", 2);
    for (int i = 0; i < 2000; i++)
        w_append(w, "big.log", line);
    w_append(w, "small.log", "small\n");
    world_start(w);
    for (int i = 0; i < 2; i++)
        (void)tail_turn(w->t, w_now);
    bool is_seen = false;
    for (size_t i = 0; i < w->q[0].open.n; i++)
        is_seen = is_seen || strcmp(w->q[0].open.item[i], "small") == 0;
    assert_true(is_seen);
    assert_true(w->q[0].open.n <= TURN_BYTES / 1000 + 2);
    world_free(w);
}

static void test_unread_gauge(void **state)
{
    (void)state;
    struct world *w = one();
    w_append(w, "a.log", "one\nhalf");
    world_start(w);
    assert_int_equal(8, gauge_get(&stats.inputs[0].unread_bytes));
    world_run(w);
    assert_int_equal(4, gauge_get(&stats.inputs[0].unread_bytes));
    assert_int_equal(1, gauge_get(&stats.inputs[0].files[FILES_OPEN]));
    w_unlink(w, "a.log");
    world_run(w);
    assert_int_equal(4, gauge_get(&stats.inputs[0].held_bytes));
    assert_int_equal(1, gauge_get(&stats.inputs[0].files[FILES_HELD]));
    world_pass(w, 7);
    assert_int_equal(0, gauge_get(&stats.inputs[0].held_bytes));
    world_free(w);
    assert_int_equal(0, gauge_get(&stats.inputs[0].unread_bytes));
    assert_int_equal(0, gauge_get(&stats.inputs[0].files[FILES_OPEN]));
    assert_int_equal(0, gauge_get(&stats.inputs[0].files[FILES_HELD]));
}

static void test_held_limit(void **state)
{
    (void)state;
    struct world *w = one();
    w->conf.held_max_bytes = 100;
    w_append(w, "a.log", "first\n");
    w_append(w, "b.log", "first\n");
    world_start(w);
    world_run(w);
    w->q[0].refuses = true;
    w_append(w, "a.log", LONG_A);
    world_run(w);
    w_unlink(w, "a.log");
    world_run(w);
    world_pass(w, 1);
    assert_int_equal(0, w->q[0].lost_bytes); /* 92 bytes may be held */
    w_append(w, "b.log", LONG_A);
    world_run(w);
    w_unlink(w, "b.log");
    world_run(w);
    world_pass(w, 2);
    assert_int_equal(strlen(LONG_A), w->q[0].lost_bytes); /* the older went */
    assert_true(log_has(w, "held.released"));
    w->q[0].refuses = false;
    tail_unblock(w->t, 0);
    world_pass(w, 8);
    expect_lines(w, 0, "first|first|" LONG_A_LINE);
    for (int i = 0; i < 4; i++)
        world_commit_all(w);
    assert_int_equal(0, w->q[0].n);
    world_free(w);
}

/* What was read of a deleted file takes room as long as the rest is not read, or its end not durable. */
static void test_held_files_count_whole(void **state)
{
    (void)state;
    struct world *w = one();
    w->conf.held_max_bytes = 250;
    for (int i = 0; i < 2; i++) {
        w_append(w, "a.log", LONG_A);
        w_append(w, "b.log", LONG_A);
    }
    world_start(w);
    world_run(w);
    world_commit_all(w);
    w->q[0].refuses = true;
    w_append(w, "a.log", "unread\n");
    world_run(w);
    w_unlink(w, "a.log");
    world_run(w);
    world_pass(w, 1);
    assert_int_equal(0, w->q[0].lost_bytes);
    w_unlink(w, "b.log"); /* all of it is read */
    world_run(w);
    world_pass(w, 1);
    assert_int_equal(strlen("unread\n"), w->q[0].lost_bytes);
    world_commit_all(w);
    w->conf.held_max_bytes = 100;
    w->q[0].refuses = false;
    tail_unblock(w->t, 0);
    world_pass(w, 1);
    assert_int_equal(strlen("unread\n"), w->q[0].lost_bytes); /* the other is closed without a loss */
    assert_int_equal(0, w->t->n_open);
    for (int i = 0; i < 4; i++) {
        world_settle(w, 8);
    }
    assert_int_equal(0, w->q[0].n);
    world_free(w);
}

/* "committed" is what the queue has durably, not what was handed to it. */
static void test_status_says_what_is_durable(void **state)
{
    (void)state;
    struct world *w = one();
    struct group_end end;
    w_append(w, "a.log", "one\n");
    world_start(w);
    world_run(w);
    struct tail_file *f = file_by_path(w->t, w_path(w, "a.log"));
    const struct slot *s = &f->slots[0];
    assert_int_equal(0, durable_off(w->t, 0, s));
    assert_true(tail_collect(w->t, 0, SIZE_MAX, &end)); /* group 1 */
    assert_int_equal(0, durable_off(w->t, 0, s));
    for (int i = 2; i <= 4; i++) {
        w_append(w, "a.log", "more\n");
        world_pass(w, 1);
        assert_true(tail_collect(w->t, 0, SIZE_MAX, &end));
    }
    tail_durable(w->t, 0, 1);
    assert_int_equal(4, durable_off(w->t, 0, s));
    w_append(w, "a.log", "more\n");
    world_pass(w, 1);
    assert_true(tail_collect(w->t, 0, SIZE_MAX, &end)); /* 5 */
    tail_durable(w->t, 0, 4);
    assert_int_equal(4, durable_off(w->t, 0, s)); /* 2 to 4 were not kept apart: it says less than there is */
    tail_durable(w->t, 0, 5);
    assert_int_equal(24, durable_off(w->t, 0, s));
    world_free(w);
}

/* Many files that appear at once are told in parts; what was fed is told with its lines, whatever the part. */
static void test_new_files_are_told_in_parts(void **state)
{
    (void)state;
    struct world *w = one();
    struct group_end end;
    for (int i = 0; i < 5; i++)
        w_append(w, (const char *[]){ "a.log", "b.log", "c.log", "d.log", "e.log" }[i], "");
    world_start(w);
    (void)tail_takes_new_names(w->t);
    assert_true(tail_collect(w->t, 0, 2, &end));
    assert_int_equal(2, end.n_files);
    assert_int_equal(2, end.n_positions);
    assert_true(tail_takes_new_names(w->t));
    w_append(w, "c.log", "one\n");
    w_append(w, "d.log", "two\n");
    world_run(w);
    assert_true(tail_collect(w->t, 0, 0, &end));
    assert_int_equal(2, end.n_files);
    for (size_t i = 0; i < end.n_positions; i++)
        assert_int_equal(4, end.positions[i].end);
    assert_true(tail_takes_new_names(w->t));
    assert_true(tail_collect(w->t, 0, SIZE_MAX, &end));
    assert_int_equal(1, end.n_files);
    assert_false(tail_takes_new_names(w->t));
    assert_false(tail_collect(w->t, 0, SIZE_MAX, &end));
    world_free(w);
}

static void test_status_and_explain(void **state)
{
    (void)state;
    struct world *w = one();
    world_exclude(w, 0, "no*");
    w_append(w, "a.log", "one\n");
    world_start(w);
    world_run(w);
    struct buf out;
    buf_init(&out, MIB);
    assert_int_equal(0, tail_status(w->t, &out));
    assert_int_equal(0, buf_terminate(&out));
    assert_non_null(strstr(out.ptr, "\"state\":\"followed\""));
    assert_non_null(strstr(out.ptr, "\"position\":4"));
    buf_reset(&out);
    uint32_t input;
    struct pairs caps;
    assert_int_equal(0, tail_explain(&w->conf, w_path(w, "a.log"), &out, &input, &caps));
    assert_int_equal(0, input);
    assert_int_equal(0, caps.n);
    free((void *)(uintptr_t)caps.items);
    buf_reset(&out);
    assert_int_equal(-ENOENT, tail_explain(&w->conf, w_path(w, "no.log"), &out, &input, &caps));
    assert_true(slice_find(buf_slice(&out), SLICE("excludes it")) >= 0);
    buf_reset(&out);
    assert_int_equal(-ENOENT, tail_explain(&w->conf, "/somewhere/else", &out, &input, &caps));
    assert_true(slice_find(buf_slice(&out), SLICE("no include pattern")) >= 0);
    buf_deinit(&out);
    world_free(w);
}

static void test_inode_used_again(void **state)
{
    (void)state;
    struct world *w = one();
    w_append(w, "a.log", LONG_A "two\n");
    world_start(w);
    world_run(w);
    world_commit_all(w);
    world_stop(w);
    /* Not ours any more, most likely under the same number: the filesystem hands it out again at once. */
    w_unlink(w, "a.log");
    w_append(w, "a.log",
             "an entirely different file of more than sixty-four bytes, so that it could be mistaken\nx\n");
    world_start(w);
    world_run(w);
    expect_lines(w, 0,
                 LONG_A_LINE
                 "|two|an entirely different file of more than sixty-four bytes, so that it could be "
                 "mistaken|x");
    world_free(w);
}

static void test_inode_used_again_without_descriptor(void **state)
{
    (void)state;
    struct world *w = one();
    w_append(w, "a.log", LONG_A);
    world_start(w);
    world_run(w);
    file_close(file_by_path(w->t, w_path(w, "a.log"))); /* as after ten idle minutes */
    w_unlink(w, "a.log");
    w_append(w, "a.log", LONG_A "more\n"); /* begins alike, is another */
    world_run(w);
    world_pass(w, 12);
    expect_lines(w, 0, LONG_A_LINE "|" LONG_A_LINE "|more");
    world_free(w);
}

/* With fewer descriptors than files some stay free for the rest of the program, whatever that holds by now. */
static void test_spare_descriptors(void **state)
{
    (void)state;
    struct rlimit old, few;
    int others[64];
    size_t n_others = 0;
    char name[32];
    struct world *w = world_new(3);
    world_include(w, 0, "*.log");
    for (int i = 0; i < 200; i++) {
        (void)snprintf(name, sizeof(name), "%d.log", i);
        w_append(w, name, "one\n");
    }
    assert_int_equal(0, getrlimit(RLIMIT_NOFILE, &old));
    few = old;
    few.rlim_cur = 96;
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &few));
    while (n_others < 40)
        others[n_others++] = dup(w->log_fd);
    world_start(w);
    world_run(w);
    assert_int_equal(200, w->q[0].open.n);
    assert_true(w->t->n_open > 0 && w->t->n_open <= 24);
    for (int i = 0; i < 20; i++) { /* they want more */
        assert_true((others[n_others++] = dup(w->log_fd)) >= 0);
        (void)snprintf(name, sizeof(name), "%d.log", i);
        w_append(w, name, "two\n");
        world_run(w);
    }
    assert_int_equal(220, w->q[0].open.n);
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &old));
    while (n_others > 0)
        (void)close(others[--n_others]);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_appends_and_half_lines),
        cmocka_unit_test(test_resume_after_crash),
        cmocka_unit_test(test_idle_file_is_remembered),
        cmocka_unit_test(test_rename_rotation),
        cmocka_unit_test(test_several_renames),
        cmocka_unit_test(test_delete_while_held),
        cmocka_unit_test(test_copytruncate),
        cmocka_unit_test(test_copytruncate_grown_past),
        cmocka_unit_test(test_copytruncate_of_all_names),
        cmocka_unit_test(test_plain_copy_is_a_file_of_its_own),
        cmocka_unit_test(test_holes_are_skipped),
        cmocka_unit_test(test_binary_is_skipped),
        cmocka_unit_test(test_not_files),
        cmocka_unit_test(test_unreadable_is_tried_again),
        cmocka_unit_test(test_patterns_and_new_directories),
        cmocka_unit_test(test_directory_that_fails_for_a_while),
        cmocka_unit_test(test_missing_prefix_and_replaced_directory),
        cmocka_unit_test(test_first_input_wins_and_same_inode_once),
        cmocka_unit_test(test_containers_symlinks),
        cmocka_unit_test(test_long_line_is_cut_and_memory_flat),
        cmocka_unit_test(test_line_just_as_long_as_may_be),
        cmocka_unit_test(test_overflow_and_rescan),
        cmocka_unit_test(test_without_watches),
        cmocka_unit_test(test_ignore_older),
        cmocka_unit_test(test_own_state_is_not_read),
        cmocka_unit_test(test_busy_file_starves_nobody),
        cmocka_unit_test(test_unread_gauge),
        cmocka_unit_test(test_held_limit),
        cmocka_unit_test(test_held_files_count_whole),
        cmocka_unit_test(test_status_says_what_is_durable),
        cmocka_unit_test(test_new_files_are_told_in_parts),
        cmocka_unit_test(test_status_and_explain),
        cmocka_unit_test(test_inode_used_again),
        cmocka_unit_test(test_inode_used_again_without_descriptor),
        cmocka_unit_test(test_spare_descriptors),
    };
    return cmocka_run_group_tests_name("tail/tail", tests, NULL, NULL);
}
