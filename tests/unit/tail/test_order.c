/*
 * Goal: of the files of one live name each is read after the one that was written before it, also when some are heard of late:
 * a record may begin in one and end in the next.
 * Method: world.h; events that wait while the rescan looks; what is linked to what, and what the queues hear in which order.
 */
#include "world.h"

static struct tail_file *at(struct world *w, const char *name)
{
    struct tail_file *f = file_by_path(w->t, w_path(w, name));
    assert_non_null(f);
    return f;
}

static void expect_after(struct world *w, const char *name, const char *before)
{
    struct tail_file *f = at(w, name);
    if (f->after != (before == NULL ? NULL : at(w, before)))
        fail_msg("%s comes after %s, not after %s", name, f->after == NULL ? "nothing" : f->after->path.path,
                 before == NULL ? "nothing" : before);
}

/* The rescan, and turns; events wait. */
static void look(struct world *w)
{
    tail_overflowed(w->t);
    (void)tail_tick(w->t, w_now);
    while (tail_turn(w->t, w_now))
        ;
}

static size_t told_as(const struct world *w, uint32_t o, const char *name)
{
    for (size_t i = 0; i < w->q[o].n; i++)
        if (slice_eq(w->q[o].files[i].ident.path, slice_cstr(w_path(w, name))))
            return i;
    fail_msg("the queue has not heard of %s", name);
    return 0;
}

static void set_mtime(const struct world *w, const char *name, time_t s)
{
    struct timespec times[2] = { { .tv_sec = s }, { .tv_sec = s } };
    assert_int_equal(0, utimensat(AT_FDCWD, w_path(w, name), times, 0));
}

/* The first was renamed unseen; the second is known when that is heard of, and renamed, too. */
static struct world *hear_of_the_first_late(bool is_told_before)
{
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    world_start(w);
    w_append(w, "a.log", "1Phalf of \n");
    set_mtime(w, "a.log", 1000);
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "1Fit\n");
    set_mtime(w, "a.log", 2000);
    look(w);
    if (is_told_before)
        world_commit_all(w);
    w_rename(w, "a.log.1", "a.log.2");
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "x\n");
    world_run(w);
    return w;
}

static void test_heard_of_late(void **state)
{
    (void)state;
    struct world *w = hear_of_the_first_late(false);
    expect_after(w, "a.log", "a.log.1");
    expect_after(w, "a.log.1", "a.log.2");
    expect_after(w, "a.log.2", NULL);
    world_commit_all(w);
    assert_true(told_as(w, 0, "a.log.2") < told_as(w, 0, "a.log.1"));
    assert_true(told_as(w, 0, "a.log.1") < told_as(w, 0, "a.log"));
    world_free(w);
}

/* As above, and nobody has the live name when the first is heard of. */
static void test_heard_of_late_without_a_live_one(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    world_start(w);
    w_append(w, "a.log", "x\n");
    set_mtime(w, "a.log", 1000);
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "1Phalf of \n");
    set_mtime(w, "a.log", 2000);
    look(w);
    w_rename(w, "a.log.1", "a.log.2");
    w_rename(w, "a.log", "a.log.1");
    world_run(w);
    w_append(w, "a.log", "1Fit\n");
    world_run(w);
    expect_after(w, "a.log", "a.log.1");
    expect_after(w, "a.log.1", "a.log.2");
    expect_after(w, "a.log.2", NULL);
    world_free(w);
}

/* Its queue heard of the second first; after a restart the order is that of the files. */
static void test_told_late(void **state)
{
    (void)state;
    struct world *w = hear_of_the_first_late(true);
    world_commit_all(w);
    assert_true(told_as(w, 0, "a.log.2") > told_as(w, 0, "a.log.1"));
    world_crash(w);
    world_run(w);
    expect_after(w, "a.log", "a.log.1");
    expect_after(w, "a.log.1", "a.log.2");
    expect_after(w, "a.log.2", NULL);
    world_free(w);
}

/* One of the middle was empty, so that its .gz is nobody's and is begun when the next is known. */
static void test_empty_and_compressed(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "x\n");
    world_start(w);
    world_run(w);
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "");
    world_pass(w, 12);
    world_commit_all(w);
    world_stop(w);
    w_rename(w, "a.log.1", "a.log.2");
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "1Phalf of \n");
    world_start(w);
    w_gzip(w, "a.log.1");
    w_rename(w, "a.log.2", "a.log.3");
    w_rename(w, "a.log.1.gz", "a.log.2.gz");
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "1Fit\n");
    world_run(w);
    expect_after(w, "a.log", "a.log.1");
    world_free(w);
}

/* What lies beside the live name, and is older than all that is known of it, comes before that. */
static void test_oldest_is_found_last(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    world_start(w);
    w_append(w, "a.log", "1Phalf of \n");
    world_run(w);
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "1Fit\n");
    world_run(w);
    w_append(w, "elsewhere", "older\n");
    w_rename(w, "elsewhere", "a.log.2");
    world_run(w);
    expect_after(w, "a.log", "a.log.1");
    expect_after(w, "a.log.1", "a.log.2");
    assert_true(at(w, "a.log.2")->ident.first_seen_ns < at(w, "a.log.1")->ident.first_seen_ns);
    world_free(w);
}

/* One that lost its name and one that was never seen under it, in the same look: the latter is the younger. */
static void test_deleted_and_unseen(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "x\n");
    world_start(w);
    world_run(w);
    w_rename(w, "a.log", "a.log.1");
    w_unlink(w, "a.log.1");
    w_append(w, "a.log", "1Phalf of \n");
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "1Fit\n");
    look(w);
    expect_after(w, "a.log", "a.log.1");
    world_free(w);
}

/* No event told of the next one, and the rescan comes later than the end of the first: what that ends with goes on all the same. */
static void test_untold_is_looked_for_in_time(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    char events[4096];
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "1Phalf of \n");
    world_start(w);
    world_settle(w, 2);
    w_rename(w, "a.log", "a.log.1");
    world_run(w);
    w_append(w, "a.log", "1Fit\n");
    while (read(tail_fd(w->t), events, sizeof(events)) > 0)
        continue;
    world_settle(w, 6);
    expect_after(w, "a.log", "a.log.1");
    world_free(w);
}

/* One that lost its name for good, and one that came and was rotated unseen since: behind the file that is listed before both, but
 * the younger of the two. After a restart, too, when the first is gone, what the other ends with goes on in the live file. */
static void test_unseen_after_one_without_name(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "x\n");
    world_start(w);
    world_run(w);
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "y\n");
    world_run(w);
    const uint64_t gone = at(w, "a.log")->ident.incarnation;
    w_unlink(w, "a.log");
    world_run(w);
    world_commit_all(w);
    w_append(w, "a.log", "1Phalf of \n");
    w_rename(w, "a.log.1", "a.log.2");
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "");
    look(w);
    assert_ptr_equal(file_by_incarnation(w->t, gone), at(w, "a.log.1")->after);
    expect_after(w, "a.log", "a.log.1");
    world_commit_all(w);
    world_crash(w);
    world_run(w);
    assert_int_equal(PHASE_MISSING, file_by_incarnation(w->t, gone)->phase);
    expect_after(w, "a.log", "a.log.1");
    assert_non_null(tail_predecessor(at(w, "a.log")));
    world_free(w);
}

/* A log that was copied and cut and then renamed, before anybody looked: its second text is told after the file behind it. */
static void test_cut_and_renamed(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "the first text, which is long enough to be known again wherever it is copied to\n");
    world_start(w);
    world_run(w);
    world_commit_all(w);
    w_copy(w, "a.log", "a.log.2");
    assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
    w_append(w, "a.log", "1Phalf of \n");
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "1Fit\n");
    world_run(w);
    world_commit_all(w);
    w_rename(w, "a.log.2", "a.log.3");
    w_rename(w, "a.log.1", "a.log.2");
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "x\n");
    world_run(w);
    world_commit_all(w);
    for (int i = 0; i < 2; i++) {
        expect_after(w, "a.log", "a.log.1");
        expect_after(w, "a.log.1", "a.log.2");
        expect_after(w, "a.log.2", "a.log.3");
        world_crash(w);
        world_run(w);
    }
    world_free(w);
}

/* Two that are begun in one instant of a coarse clock, and one that is found between them: it came before the second, also after a
 * restart that finds that one renamed. */
static void test_found_between_two_of_an_instant(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    clock_set_source(w_mono, w_wall);
    world_include(w, 0, "a.log");
    w_append(w, "a.log", "1Pa half, \n");
    world_start(w);
    world_run(w);
    w_rename(w, "a.log", "a.log.2");
    w_append(w, "a.log", "1Panother, \n");
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "1Pone more, \n");
    look(w);
    world_commit_all(w);
    world_stop(w);
    w_rename(w, "a.log.2", "a.log.3");
    w_rename(w, "a.log.1", "a.log.2");
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "1Fthe end\n");
    world_start(w);
    world_run(w);
    expect_after(w, "a.log.2", "a.log.3");
    expect_after(w, "a.log.1", "a.log.2");
    expect_after(w, "a.log", "a.log.1");
    world_free(w);
}

/* A .gz that was begun late, and so told late; the file by which it was dated is gone for this queue, and only that of an output that
 * was away has it still. What is in the .1 goes on in the live file nevertheless. */
static void test_dated_by_one_that_is_gone(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    clock_set_source(w_mono, w_wall);
    world_include(w, 0, "a.log");
    w_append(w, "a.log", "x\n");
    world_start(w);
    world_settle(w, 1);
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "");
    world_settle(w, 1);
    world_stop(w);
    world_use_outputs(w, 1);
    world_start(w);
    w_rename(w, "a.log.1", "a.log.2");
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "1Phalf of \n");
    world_settle(w, 1);
    w_gzip(w, "a.log.1");
    for (int i = 0; i < 5; i++)
        world_settle(w, 6);
    assert_int_equal(3, w->q[0].n);
    assert_true(told_as(w, 0, "a.log.1.gz") > told_as(w, 0, "a.log"));
    w_rename(w, "a.log.2", "a.log.3");
    w_rename(w, "a.log.1.gz", "a.log.2.gz");
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "1Fit\n");
    world_settle(w, 1);
    world_stop(w);
    world_use_outputs(w, 2);
    world_start(w);
    world_run(w);
    expect_after(w, "a.log", "a.log.1");
    expect_after(w, "a.log.1", "a.log.2.gz");
    world_free(w);
}

/* One that is gone seems to be the youngest, by a clock that was put back since. */
static void test_clock_went_back(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    clock_set_source(w_mono, w_wall);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "x\n");
    world_start(w);
    world_run(w);
    world_commit_all(w);
    world_stop(w);
    w_unlink(w, "a.log");
    w_append(w, "a.log", "1Phalf of \n");
    w_wall_back_ns = 7200 * NS_PER_SEC;
    world_start(w);
    world_run(w);
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "1Fit\n");
    world_run(w);
    expect_after(w, "a.log", "a.log.1");
    world_free(w);
}

/* Of two lives of one inode the younger has it, also where the older seems to be the younger by a clock that was put back, and
 * the text could be that of both. */
static void test_lives_whose_clock_went_back(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    clock_set_source(w_mono, w_wall);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "{\"x\":1");
    world_start(w);
    world_run(w);
    world_commit_all(w);
    world_stop(w);
    w_wall_back_ns = 7200 * NS_PER_SEC;
    w_write(w, "a.log", "another text\n", O_TRUNC);
    world_start(w);
    world_run(w);
    w_copy(w, "a.log", "a.log.1");
    w_write(w, "a.log", "{\"x\":1,\"y\":2}\n", O_TRUNC);
    world_run(w);
    world_commit_all(w);
    const uint64_t life = at(w, "a.log")->ident.incarnation;
    world_crash(w);
    world_run(w);
    assert_int_equal(life, at(w, "a.log")->ident.incarnation);
    expect_lines(w, 0, "another text|{\"x\":1,\"y\":2}");
    world_free(w);
}

/* The younger was empty when the queue heard of it, and of the older no more was ever there than what each line begins with. */
static void test_lives_that_begin_alike(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    world_include(w, 0, "a.log");
    w_append(w, "a.log", "2026-01-02T10");
    world_start(w);
    world_run(w);
    world_commit_all(w);
    w_write(w, "a.log", "", O_TRUNC);
    world_pass(w, 12);
    assert_true(world_commit(w, 0)); /* no copy was found: it is given up, which the other queue does not hear */
    assert_int_equal(2, w->q[0].n);
    world_stop(w);
    w_append(w, "a.log", "2026-01-02T10:15:00 the first line\n");
    world_start(w);
    world_run(w);
    for (uint32_t o = 0; o < 2; o++)
        expect_lines(w, o, "2026-01-02T10:15:00 the first line");
    world_free(w);
}

/* The queue knows the first alone, by a clock that was put back since; a reload finds the last without a name. */
static void test_clock_went_back_before_a_reload(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    clock_set_source(w_mono, w_wall);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "x\n");
    world_start(w);
    world_run(w);
    world_commit_all(w);
    w_wall_back_ns = 7200 * NS_PER_SEC;
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "1Phalf of \n");
    world_run(w);
    w_rename(w, "a.log.1", "a.log.2");
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "1Fit\n");
    world_run(w);
    const uint64_t incarnation = at(w, "a.log")->ident.incarnation;
    w_unlink(w, "a.log");
    world_reload(w);
    const struct tail_file *last = file_by_incarnation(w->t, incarnation);
    assert_non_null(last);
    assert_ptr_equal(at(w, "a.log.1"), last->after);
    expect_after(w, "a.log.1", "a.log.2");
    world_free(w);
}

/* The file with the rest went while nobody had it open: what comes after that does not go on where the first file stopped, also
 * for an output that has to read that again. */
static void test_one_between_is_gone(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "1Phalf of \n");
    world_start(w);
    world_run(w);
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "1Fit\n");
    world_run(w);
    assert_non_null(tail_predecessor(at(w, "a.log")));
    world_commit_all(w);
    world_stop(w);
    w_unlink(w, "a.log");
    w_append(w, "a.log", "1Fanother\n");
    world_start(w);
    world_run(w);
    expect_after(w, "a.log", "a.log.1");
    assert_null(tail_predecessor(at(w, "a.log")));
    world_commit_all(w);
    world_crash(w);
    world_run(w);
    expect_after(w, "a.log", "a.log.1");
    assert_null(tail_predecessor(at(w, "a.log")));
    world_free(w);
}

/* A .gz of an empty file, that is nobody's by its text, is begun behind the first. The next one came after the empty one, too, which
 * is gone since: so it is the last of the chain, and the live file goes on with its half. */
static void test_compressed_empty(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "x\n");
    world_start(w);
    world_run(w);
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "");
    world_pass(w, 1);
    w_rename(w, "a.log.1", "a.log.2");
    w_rename(w, "a.log", "a.log.1");
    world_pass(w, 8);
    w_append(w, "a.log", "1Phalf of \n");
    world_pass(w, 1);
    w_rename(w, "a.log.2", "a.log.3");
    w_gzip(w, "a.log.1");
    w_rename(w, "a.log.1.gz", "a.log.2.gz");
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "1Fit\n");
    world_run(w);
    expect_after(w, "a.log.1", "a.log.2.gz");
    expect_after(w, "a.log", "a.log.1");
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heard_of_late),
        cmocka_unit_test(test_heard_of_late_without_a_live_one),
        cmocka_unit_test(test_told_late),
        cmocka_unit_test(test_empty_and_compressed),
        cmocka_unit_test(test_oldest_is_found_last),
        cmocka_unit_test(test_deleted_and_unseen),
        cmocka_unit_test(test_untold_is_looked_for_in_time),
        cmocka_unit_test(test_unseen_after_one_without_name),
        cmocka_unit_test(test_cut_and_renamed),
        cmocka_unit_test(test_found_between_two_of_an_instant),
        cmocka_unit_test(test_dated_by_one_that_is_gone),
        cmocka_unit_test(test_clock_went_back),
        cmocka_unit_test(test_clock_went_back_before_a_reload),
        cmocka_unit_test(test_lives_whose_clock_went_back),
        cmocka_unit_test(test_lives_that_begin_alike),
        cmocka_unit_test(test_one_between_is_gone),
        cmocka_unit_test(test_compressed_empty),
    };
    return cmocka_run_group_tests_name("tail/order", tests, NULL, NULL);
}
