/*
 * Goal: a reload hands each file over with who it is and what is open of it, whatever the queues were told.
 * Method: world.h; a second tail beside the first, on the same folder and queues.
 */
#include "world.h"

#define LONG(n) "line " #n ", long enough to tell one file from another by what stands in it"

static uint64_t incarnation_of(const struct world *w, const char *name)
{
    const struct tail_file *f = file_by_path(w->t, w_path(w, name));
    assert_non_null(f);
    return f->ident.incarnation;
}

static void finish(struct world *w)
{
    for (int i = 0; i < 5; i++) {
        world_settle(w, 8);
    }
}

static struct world *begin(size_t n_outputs)
{
    struct world *w = world_new(n_outputs);
    world_include(w, 0, "a.log");
    w_append(w, "a.log", LONG(1) "\n");
    return w;
}

static void test_nothing_is_adopted(void **state)
{
    (void)state;
    struct world *w = begin(1);
    world_start(w);
    tail_adopt(w->t, NULL); /* the first start */
    world_run(w);
    expect_lines(w, 0, LONG(1));
    world_free(w);
}

/* The queues know nothing yet: it is the same file all the same, from where it began. */
static void test_untold(void **state)
{
    (void)state;
    struct world *w = begin(2);
    world_start(w);
    world_run(w);
    uint64_t incarnation = incarnation_of(w, "a.log");
    world_reload(w);
    assert_true(incarnation == incarnation_of(w, "a.log"));
    w_append(w, "a.log", LONG(2) "\n");
    world_run(w);
    finish(w);
    expect_lines(w, 0, LONG(1) "|" LONG(2));
    expect_lines(w, 1, LONG(1) "|" LONG(2));
    world_free(w);
}

static void test_untold_and_begun_inside_a_line(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "a.log");
    w->inputs[0].read_from = READ_FROM_END;
    w_append(w, "a.log", "before us\nhalf");
    world_start(w);
    world_run(w);
    world_reload(w);
    w_append(w, "a.log", " a line\nours\n");
    world_run(w);
    finish(w);
    expect_lines(w, 0, "ours");
    world_free(w);
}

/* Deleted, and only the descriptor has it. */
static void test_untold_and_deleted(void **state)
{
    (void)state;
    struct world *w = begin(2);
    world_start(w);
    world_run(w);
    uint64_t incarnation = incarnation_of(w, "a.log");
    w->q[1].refuses = true;
    int fd = open(w_path(w, "a.log"), O_WRONLY | O_APPEND | O_CLOEXEC);
    assert_int_equal(4, write(fd, "two\n", 4));
    world_run(w);
    w_unlink(w, "a.log");
    world_run(w);
    world_reload(w);
    assert_non_null(file_by_incarnation(w->t, incarnation));
    assert_int_equal(6, write(fd, "three\n", 6));
    close(fd);
    finish(w);
    expect_lines(w, 0, LONG(1) "|two|three");
    expect_lines(w, 1, LONG(1) "|two|three");
    assert_int_equal(0, w->q[0].n);
    world_free(w);
}

/* What the path says goes along, be it that only the descriptor is left. */
static void test_keeps_its_captures(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "<tenant>/app.log");
    w_mkdir(w, "acme");
    w_append(w, "acme/app.log", LONG(1) "\n");
    world_start(w);
    world_run(w);
    world_commit_all(w);
    w_append(w, "acme/app.log", "two\n");
    w->q[0].refuses = true;
    world_run(w);
    w_unlink(w, "acme/app.log");
    world_run(w);
    world_reload(w);
    w->q[0].refuses = false;
    finish(w);
    expect_lines(w, 0, LONG(1) "|two");
    assert_string_equal("tenant=acme ", w->last_captures);
    world_free(w);
}

/* The queues know it, one of them to its middle. */
static void test_told_and_deleted(void **state)
{
    (void)state;
    struct world *w = begin(2);
    world_start(w);
    world_run(w);
    w->q[1].refuses = true;
    w_append(w, "a.log", "two\n");
    world_run(w);
    w_unlink(w, "a.log");
    world_run(w);
    world_commit_all(w);
    world_reload(w);
    finish(w);
    expect_lines(w, 0, LONG(1) "|two");
    expect_lines(w, 1, LONG(1) "|two");
    world_free(w);
}

/* Cut while no output takes lines, so that nobody saw it; its copy comes later. */
static void test_orphan(void **state)
{
    (void)state;
    for (int is_told = 0; is_told < 2; is_told++) {
        struct world *w = begin(1);
        world_start(w);
        world_run(w);
        w->q[0].refuses = true;
        w_append(w, "a.log", "unread\n");
        world_run(w);
        w_copy(w, "a.log", "hidden");
        assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
        w_append(w, "a.log", "new\n");
        world_run(w);
        if (is_told)
            world_commit_all(w);
        world_reload(w);
        w_rename(w, "hidden", "a.log.1");
        finish(w);
        expect_lines(w, 0, is_told ? LONG(1) "|new|unread" : "new|" LONG(1) "|unread");
        assert_int_equal(0, w->q[0].lost_bytes);
        world_free(w);
    }
}

/* A file that was found compressed and is half read. */
static void test_compressed(void **state)
{
    (void)state;
    struct world *w = begin(1);
    world_start(w);
    world_run(w);
    world_commit_all(w);
    world_stop(w);
    w_append(w, "a.log", "two\n");
    w_rename(w, "a.log", "a.log.1");
    w_gzip(w, "a.log.1");
    w_append(w, "a.log", "three\n");
    world_start(w);
    w->q[0].refuses = true;
    world_run(w);
    world_reload(w);
    finish(w);
    expect_lines(w, 0, LONG(1) "|two|three");
    world_free(w);
}

/* An output more; and none that was there before. */
static void test_new_outputs(void **state)
{
    (void)state;
    for (int is_renamed = 0; is_renamed < 2; is_renamed++) {
        struct world *w = begin(1);
        world_start(w);
        world_run(w);
        world_keep_names(w);
        if (is_renamed)
            w->outputs[0].name = SLICE("other");
        world_use_outputs(w, 2);
        world_reload(w);
        w_append(w, "a.log", LONG(2) "\n");
        finish(w);
        expect_lines(w, 0, LONG(1) "|" LONG(2));
        expect_lines(w, 1, LONG(1) "|" LONG(2));
        world_free(w);
    }
}

/* A new output, whose disk takes nothing: where it began is not durable when the next reload comes, and others have read on since. */
static void test_new_output_untold(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        const bool is_finished = i & 1, is_new = i & 2; /* its queue may have been made, with nothing in it */
        struct world *w = begin(1);
        world_start(w);
        world_settle(w, 2);
        world_keep_names(w);
        world_use_outputs(w, 2);
        world_reload(w);
        w_append(w, "a.log", LONG(2) "\n");
        world_run(w);
        if (is_finished) {
            w_rename(w, "a.log", "a.log.1");
            world_pass(w, 20);
        }
        (void)world_commit(w, 0);
        w->q[1].is_new = is_new;
        world_reload(w);
        finish(w);
        expect_lines(w, 0, LONG(1) "|" LONG(2));
        expect_lines(w, 1, LONG(2));
        world_free(w);
    }
}

/* None that was there before: the file begins where read_from says, as after a restart, for what it tells at once, too. */
static void test_new_outputs_read_from_the_end(void **state)
{
    (void)state;
    struct world *w = begin(1);
    w->inputs[0].read_from = READ_FROM_END;
    world_start(w);
    w_append(w, "a.log", LONG(2) "\n");
    world_run(w);
    world_commit_all(w);
    expect_lines(w, 0, LONG(2));
    world_swap_outputs(w, 1);
    world_hand_over(w);
    world_commit_all(w);
    w_append(w, "a.log", LONG(3) "\n");
    finish(w);
    expect_lines(w, 0, LONG(3));
    world_free(w);
}

/* Its input is configured no more: what is not read of it is not wanted; the place is kept, should it come back. */
static void test_input_is_gone(void **state)
{
    (void)state;
    for (int is_told = 0; is_told < 2; is_told++) {
        struct world *w = begin(1);
        world_start(w);
        world_run(w);
        if (is_told)
            world_commit_all(w);
        w->inputs[0].name = SLICE("another");
        free((char *)(uintptr_t)w->include[0][--w->inputs[0].include.n].ptr);
        world_include(w, 0, "b.log");
        world_hand_over(w);
        w_append(w, "a.log", "two\n");
        w_append(w, "b.log", "of b\n");
        world_settle(w, 8);
        expect_lines(w, 0, is_told ? LONG(1) "|of b" : "of b");
        world_free(w);
    }
}

/* Compressed before the reload, of which the old tail has the descriptor: the new one finds the .gz first. The queue knows of it
 * that it was there and empty, or nothing. */
static void test_compressed_unheard(void **state)
{
    (void)state;
    for (int is_told = 0; is_told < 2; is_told++) {
        struct world *w = begin(1);
        world_start(w);
        world_run(w);
        world_commit_all(w);
        w_rename(w, "a.log", "a.log.1");
        w_append(w, "a.log", "");
        world_run(w);
        if (is_told)
            world_commit_all(w);
        w_append(w, "a.log", "two\n");
        if (!is_told)
            world_run(w);
        w_rename(w, "a.log.1", "a.log.2");
        w_rename(w, "a.log", "a.log.1");
        w_gzip(w, "a.log.1");
        w_append(w, "a.log", "three\n");
        world_reload(w);
        finish(w);
        expect_lines(w, 0, LONG(1) "|two|three");
        world_free(w);
    }
}

/* One that two queues know as two, for the other output was away when it was begun anew. It has no name any more: that it is one is
 * known only when the old tail hands over its descriptor. */
static void test_known_as_two_and_deleted(void **state)
{
    (void)state;
    for (int is_read = 0; is_read < 2; is_read++) {
        struct world *w = begin(2);
        world_start(w);
        world_run(w);
        assert_true(world_commit(w, 0));
        world_stop(w);
        world_swap_outputs(w, 1);
        world_start(w);
        world_settle(w, 1);
        w_append(w, "a.log", LONG(2) "\n");
        w->q[0].refuses = !is_read;
        world_settle(w, 1);
        w_unlink(w, "a.log");
        world_run(w);
        world_swap_outputs(w, 2);
        w->q[1].refuses = false;
        world_reload(w);
        finish(w);
        expect_lines(w, 0, LONG(1) "|" LONG(2));
        expect_lines(w, 1, LONG(1) "|" LONG(2));
        assert_int_equal(0, w->q[0].n);
        assert_int_equal(0, w->q[1].n);
        world_free(w);
    }
}

/* What is finished everywhere is not taken up again. */
static void test_finished(void **state)
{
    (void)state;
    struct world *w = begin(2);
    world_start(w);
    world_run(w);
    w_rename(w, "a.log", "a.log.1");
    finish(w);
    world_reload(w);
    w_append(w, "a.log", LONG(2) "\n");
    finish(w);
    w_unlink(w, "a.log.1");
    world_run(w);
    world_reload(w);
    world_pass(w, 610); /* for so long it may come back */
    finish(w);
    expect_lines(w, 0, LONG(1) "|" LONG(2));
    expect_lines(w, 1, LONG(1) "|" LONG(2));
    assert_int_equal(1, w->q[0].n);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_adopted),
        cmocka_unit_test(test_untold),
        cmocka_unit_test(test_untold_and_begun_inside_a_line),
        cmocka_unit_test(test_untold_and_deleted),
        cmocka_unit_test(test_keeps_its_captures),
        cmocka_unit_test(test_told_and_deleted),
        cmocka_unit_test(test_orphan),
        cmocka_unit_test(test_compressed),
        cmocka_unit_test(test_compressed_unheard),
        cmocka_unit_test(test_new_outputs),
        cmocka_unit_test(test_new_output_untold),
        cmocka_unit_test(test_new_outputs_read_from_the_end),
        cmocka_unit_test(test_input_is_gone),
        cmocka_unit_test(test_known_as_two_and_deleted),
        cmocka_unit_test(test_finished),
    };
    return cmocka_run_group_tests_name("tail/adopt", tests, NULL, NULL);
}
