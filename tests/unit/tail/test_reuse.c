/*
 * Goal: where an inode has neither birth time nor generation, its number is no proof of who a file is: one that got the
 * number of a file that is gone is read from its start.
 * Method: world.h over a disk that hides births and gives the number of the first file to the second.
 */
#include "world.h"

#include "agent/queue/fs.h"

static uint64_t old_ino, new_ino; /* the second is shown as the first; 0 = not yet */

static void show(struct stat *st)
{
    if (st->st_ino == new_ino)
        st->st_ino = old_ino;
}

static int reused_fstat(int fd, struct stat *st)
{
    int r = fs_real.fstat(fd, st);
    show(st);
    return r;
}

static int reused_stat(int dir_fd, const char *name, struct stat *st, bool follow)
{
    int r = fs_real.stat(dir_fd, name, st, follow);
    show(st);
    return r;
}

static void no_birth(int fd, struct fs_birth *ret)
{
    (void)fd;
    *ret = (struct fs_birth){ 0 };
}

static struct fs_ops ops;

static int reuse_inodes(void **state)
{
    (void)state;
    ops = fs_real;
    ops.fstat = reused_fstat;
    ops.stat = reused_stat;
    ops.birth = no_birth;
    old_ino = new_ino = 0;
    fs_set_ops(&ops);
    return 0;
}

static int use_real_disk(void **state)
{
    (void)state;
    fs_set_ops(NULL);
    return 0;
}

static uint64_t ino_of(const struct world *w, const char *name)
{
    struct stat st;
    assert_int_equal(0, stat(w_path(w, name), &st));
    return st.st_ino;
}

/* The file goes, and a new one of this name and text gets its number. */
static void replace(const struct world *w, const char *old, const char *name, const char *text)
{
    old_ino = ino_of(w, old);
    w_mkdir(w, "elsewhere");
    w_append(w, "elsewhere/new", text); /* both exist for a moment: so the real numbers differ */
    new_ino = ino_of(w, "elsewhere/new");
    w_unlink(w, old);
    w_rename(w, "elsewhere/new", name);
}

static void test_of_a_finished_file(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "the first of all\n");
    world_start(w);
    world_run(w);
    w_rename(w, "a.log", "a.log.1");
    world_run(w);
    world_settle(w, 7);
    replace(w, "a.log.1", "a.log", "new\n");
    world_run(w);
    expect_lines(w, 0, "the first of all|new");
    world_commit_all(w);
    world_free(w);
}

/* It never held a byte: nothing in it could tell. */
static void test_of_an_empty_file(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "");
    world_start(w);
    world_run(w);
    old_ino = ino_of(w, "a.log");
    w_mkdir(w, "elsewhere");
    w_append(w, "elsewhere/new", "new\n");
    w_unlink(w, "a.log");
    world_run(w);
    world_settle(w, 7); /* finished: its descriptor goes; that it is gone is not durable yet */
    new_ino = ino_of(w, "elsewhere/new");
    w_rename(w, "elsewhere/new", "a.log");
    world_run(w);
    expect_lines(w, 0, "new");
    world_commit_all(w);
    world_free(w);
}

static void test_over_a_reload(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "the first of all\n");
    world_start(w);
    world_run(w);
    world_commit_all(w);
    file_close(file_by_path(w->t, w_path(w, "a.log")));
    replace(w, "a.log", "a.log", "new\n");
    w_drop(&w->q[0], &w->q[0].files[0]); /* as if nothing had been durable */
    world_reload(w);
    world_pass(w, 12);
    expect_lines(w, 0, "the first of all|new");
    world_free(w);
}

/* A copy that was read whole is compressed, and the next copy gets its number, while no event comes. */
static void test_of_a_copy_that_was_compressed(void **state)
{
    char raw[65536];
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "the first of all\n");
    world_start(w);
    world_run(w);
    w_copy(w, "a.log", "a.log.1");
    assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
    world_run(w);
    world_pass(w, 20);
    world_commit_all(w); /* finished: its descriptor goes */
    w_append(w, "a.log", "the sec");
    world_run(w);
    w_append(w, "a.log", "ond of all\n");
    old_ino = ino_of(w, "a.log.1");
    w_mkdir(w, "elsewhere");
    w_copy(w, "a.log", "elsewhere/new");
    new_ino = ino_of(w, "elsewhere/new");
    w_gzip(w, "a.log.1");
    w_rename(w, "a.log.1.gz", "a.log.2.gz");
    w_rename(w, "elsewhere/new", "a.log.1");
    assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
    w_append(w, "a.log", "the third, and it is longer\n");
    while (read(tail_fd(w->t), raw, sizeof(raw)) > 0)
        ;
    w->t->next_rescan_ns = w_now + 1000 * NS_PER_SEC;
    world_pass(w, 20);
    expect_lines(w, 0, "the first of all|the second of all|the third, and it is longer");
    assert_int_equal(w->q[0].lost_bytes, 0);
    world_free(w);
}

/* The .gz of a file that is still held open goes, and the live file's copy gets its number: that is not what is held. */
static void test_of_a_gz_beside_its_descriptor(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "the first of all\n");
    world_start(w);
    world_run(w);
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "the second of all\n");
    world_run(w);
    w_gzip(w, "a.log.1");
    world_run(w);
    assert_true(file_by_path(w->t, w_path(w, "a.log.1.gz"))->is_copied);
    const uint64_t second = file_by_path(w->t, w_path(w, "a.log"))->ident.incarnation;
    old_ino = ino_of(w, "a.log.1.gz");
    w_mkdir(w, "elsewhere");
    w_copy(w, "a.log", "elsewhere/new");
    new_ino = ino_of(w, "elsewhere/new");
    w_unlink(w, "a.log.1.gz");
    w_rename(w, "elsewhere/new", "a.log.1");
    assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
    world_run(w);
    const struct tail_file *f = file_by_path(w->t, w_path(w, "a.log.1"));
    assert_non_null(f);
    assert_int_equal(second, f->ident.incarnation);
    world_settle(w, 30);
    expect_lines(w, 0, "the first of all|the second of all");
    world_free(w);
}

/* A .gz that was read whole goes, and a log that is no .gz gets its number. */
static void test_of_a_gz(void **state)
{
    (void)state;
    for (int empty = 0; empty < 2; empty++) {
        struct world *w = world_new(1);
        world_include(w, 0, "*.log");
        w_append(w, "a.log", "the first of all\n");
        world_start(w);
        world_run(w);
        w_rename(w, "a.log", "a.log.1");
        w_append(w, "a.log", "");
        world_run(w);
        if (empty) {
            w_rename(w, "a.log.1", "a.log.2");
            w_rename(w, "a.log", "a.log.1");
            w_append(w, "a.log", "");
            world_run(w);
        }
        w_gzip(w, "a.log.1");
        world_run(w);
        world_pass(w, 20);
        world_commit_all(w); /* finished: its descriptor goes */
        w_unlink(w, "a.log");
        replace(w, "a.log.1.gz", "a.log", "new\n");
        world_run(w);
        expect_lines(w, 0, "the first of all|new");
        world_free(w);
        old_ino = new_ino = 0;
    }
}

/* Nothing was ever written to it, and while the agent is stopped another log gets its number: that is not the same file. */
static void test_of_an_empty_file_by_another_log(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*/a.log");
    w_mkdir(w, "first");
    w_mkdir(w, "second");
    w_append(w, "first/a.log", "");
    world_start(w);
    world_run(w);
    world_commit_all(w);
    const uint64_t first = file_by_path(w->t, w_path(w, "first/a.log"))->ident.incarnation;
    world_stop(w);
    replace(w, "first/a.log", "second/a.log", "new\n");
    world_start(w);
    world_run(w);
    expect_lines(w, 0, "new");
    const struct tail_file *f = file_by_path(w->t, w_path(w, "second/a.log"));
    assert_non_null(f);
    assert_int_not_equal(first, f->ident.incarnation);
    world_free(w);
}

/* An empty file was rotated, and the one behind it ends with half a record. */
static struct world *empty_and_half(void)
{
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "");
    world_start(w);
    world_run(w);
    w_rename(w, "a.log", "a.log.1");
    world_run(w);
    world_settle(w, 8);
    w_append(w, "a.log", "1Phalf of \n");
    world_run(w);
    return w;
}

/* The empty one is deleted, and what has the rest of the record gets its number: the two have these names then. */
static void give_number_to_rest(struct world *w, const char *first, const char *second)
{
    old_ino = ino_of(w, "a.log.1");
    w_mkdir(w, "elsewhere");
    w_append(w, "elsewhere/new", "1Fit\n");
    new_ino = ino_of(w, "elsewhere/new");
    w_unlink(w, "a.log.1");
    w_rename(w, "a.log", first);
    w_rename(w, "elsewhere/new", second);
}

static void expect_rest_after_half(struct world *w, const char *first, const char *second)
{
    const struct tail_file *half = file_by_path(w->t, w_path(w, first)), *rest = file_by_path(w->t, w_path(w, second));
    assert_non_null(half);
    assert_non_null(rest);
    assert_ptr_equal(half, rest->after);
}

/* It was rotated before another, that ends with half a record, and the file that gets its number is rotated, too, before anybody
 * looks, or has the live name: it comes after the other. */
static void test_of_an_empty_rotated_file(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        const bool is_stopped = i & 1, is_live = i & 2;
        const char *const first = is_live ? "a.log.1" : "a.log.2", *const second = is_live ? "a.log" : "a.log.1";
        struct world *w = empty_and_half();
        world_commit_all(w);
        if (is_stopped)
            world_stop(w);
        give_number_to_rest(w, first, second);
        if (is_stopped)
            world_start(w);
        world_run(w);
        expect_rest_after_half(w, first, second);
        world_settle(w, 20);
        expect_lines(w, 0, "it|half of "); /* world.h joins nothing over files */
        world_free(w);
        old_ino = new_ino = 0;
    }
}

/* A file that never held a byte is deleted, and what gets its number is being compressed just now, or was: by its name it is no
 * plain file, and so another. */
static void test_of_an_empty_file_by_a_gz(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++) {
        const bool is_stopped = i & 1, is_whole = i & 2, is_finished = i & 4;
        struct world *w = world_new(1);
        world_include(w, 0, "*.log");
        w_append(w, "a.log", "the first of all\n");
        world_start(w);
        world_run(w);
        w_rename(w, "a.log", "a.log.1");
        w_append(w, "a.log", "");
        world_run(w);
        w_rename(w, "a.log.1", "a.log.2");
        w_rename(w, "a.log", "a.log.1");
        w_append(w, "a.log", "the third of all\n");
        world_run(w);
        for (int k = 0; is_finished && k < 2; k++)
            world_settle(w, 20);
        world_commit_all(w);
        file_close(file_by_path(w->t, w_path(w, "a.log.1")));
        if (is_stopped)
            world_stop(w);
        old_ino = ino_of(w, "a.log.1");
        w_unlink(w, "a.log.1");
        w_mkdir(w, "elsewhere");
        if (is_whole) {
            w_copy(w, "a.log.2", "elsewhere/a.log.2");
            w_gzip(w, "elsewhere/a.log.2");
        } else {
            w_append(w, "elsewhere/a.log.2.gz", "\x1f\x8b\x08");
        }
        new_ino = ino_of(w, "elsewhere/a.log.2.gz");
        w_unlink(w, "a.log.2");
        w_rename(w, "elsewhere/a.log.2.gz", "a.log.2.gz");
        if (is_stopped)
            world_start(w);
        world_settle(w, 20);
        world_settle(w, 20);
        expect_lines(w, 0, "the first of all|the third of all");
        world_free(w);
        old_ino = new_ino = 0;
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, reuse_inodes, use_real_disk)

/* It had the live name before another, that ends with half a record, and the file that gets its number has that name now: it comes
 * after the other. */
static void test_of_an_empty_file_of_the_chain(void **state)
{
    (void)state;
    struct world *w = empty_and_half();
    give_number_to_rest(w, "a.log.1", "a.log");
    world_run(w);
    expect_rest_after_half(w, "a.log.1", "a.log");
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_of_a_finished_file),
        TEST(test_of_an_empty_file),
        TEST(test_over_a_reload),
        TEST(test_of_a_copy_that_was_compressed),
        TEST(test_of_a_gz_beside_its_descriptor),
        TEST(test_of_a_gz),
        TEST(test_of_an_empty_file_by_another_log),
        TEST(test_of_an_empty_file_of_the_chain),
        TEST(test_of_an_empty_rotated_file),
        TEST(test_of_an_empty_file_by_a_gz),
    };
    return cmocka_run_group_tests_name("tail/reuse", tests, NULL, NULL);
}
