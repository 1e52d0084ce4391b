/*
 * Goal: what happened while we were down, or while an output was blocked, loses and doubles nothing.
 * Method: world.h. "Down" is between world_stop and world_start; the queues' positions are what is carried
 * over.
 */
#include "world.h"

#include <sys/resource.h>

/* Lines long enough to be told apart by content: "line N …". */
static const char *line(int n)
{
    static char text[8][128];
    char *p = text[n % 8];
    (void)snprintf(p, 128, "line %d of a file whose lines are long enough to be told apart by a checksum\n",
                   n);
    return p;
}

static void expect_numbers(struct world *w, uint32_t o, int from, int to)
{
    struct buf want;
    buf_init(&want, MIB);
    for (int i = from; i <= to; i++) {
        assert_int_equal(0, buf_append_cstr(&want, line(i)));
        want.ptr[want.len - 1] = i == to ? '\0' : '|';
    }
    expect_lines(w, o, want.ptr);
    buf_deinit(&want);
}

/* Lines 1 and 2 are read and durable, 3 is not; then we are down. */
static struct world *down_after_two(void)
{
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", line(1));
    w_append(w, "a.log", line(2));
    world_start(w);
    world_run(w);
    world_commit_all(w);
    world_stop(w);
    w_append(w, "a.log", line(3));
    return w;
}

static void up_and_expect(struct world *w, int to)
{
    world_start(w);
    world_run(w);
    world_pass(w, 12);
    expect_numbers(w, 0, 1, to);
    world_commit_all(w);
    world_crash(w);
    world_pass(w, 12);
    expect_numbers(w, 0, 1, to);
    world_free(w);
}

static void test_rotated_once(void **state)
{
    (void)state;
    struct world *w = down_after_two();
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", line(4));
    up_and_expect(w, 4);
}

/* A rotated name fits no include: what the pattern catches (a tenant) is caught of the name before. */
static void test_rotated_keeps_its_captures(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "<tenant>.log");
    w_append(w, "acme.log", line(1));
    world_start(w);
    world_run(w);
    world_commit_all(w);
    world_stop(w);
    w_append(w, "acme.log", line(2));
    w_rename(w, "acme.log", "acme.log.1");
    world_start(w);
    world_run(w);
    expect_numbers(w, 0, 1, 2);
    assert_string_equal("tenant=acme ", w->last_captures);
    world_commit_all(w);
    world_stop(w); /* now the queue knows it by its new name */
    w_append(w, "acme.log.1", line(3));
    world_start(w);
    world_run(w);
    expect_numbers(w, 0, 1, 3);
    assert_string_equal("tenant=acme ", w->last_captures);
    world_free(w);
}

static void test_rotated_thrice(void **state)
{
    (void)state;
    struct world *w = down_after_two();
    w_rename(w, "a.log", "a.log.3");
    w_append(w, "a.log.2", line(4));
    w_append(w, "a.log.1", line(5));
    w_append(w, "a.log", line(6));
    up_and_expect(w, 6);
}

static void test_rotated_and_no_live_file_yet(void **state)
{
    (void)state;
    struct world *w = down_after_two();
    w_rename(w, "a.log", "a.log.2");
    w_append(w, "a.log.1", line(4));
    world_start(w);
    world_run(w);
    w_append(w, "a.log", line(5));
    world_run(w);
    world_pass(w, 12);
    expect_numbers(w, 0, 1, 5);
    world_free(w);
}

static void test_compressed(void **state)
{
    (void)state;
    struct world *w = down_after_two();
    w_rename(w, "a.log", "a.log.1");
    w_gzip(w, "a.log.1");
    w_append(w, "a.log", line(4));
    up_and_expect(w, 4);
}

static void test_delaycompress(void **state)
{
    (void)state;
    struct world *w = down_after_two();
    w_rename(w, "a.log", "a.log.2");
    w_gzip(w, "a.log.2");
    w_append(w, "a.log.1", line(4));
    w_append(w, "a.log", line(5));
    up_and_expect(w, 5);
}

static void test_twice_compressed(void **state)
{
    (void)state;
    struct world *w = down_after_two();
    w_rename(w, "a.log", "a.log.2");
    w_gzip(w, "a.log.2");
    w_append(w, "a.log.1", line(4));
    w_gzip(w, "a.log.1");
    w_append(w, "a.log", line(5));
    up_and_expect(w, 5);
}

static void test_dateext(void **state)
{
    (void)state;
    struct world *w = down_after_two();
    w_rename(w, "a.log", "a.log-20260102");
    w_gzip(w, "a.log-20260102");
    w_append(w, "a.log-20260103", line(4));
    w_append(w, "a.log", line(5));
    up_and_expect(w, 5);
}

static void test_date_before_extension(void **state)
{
    (void)state;
    struct world *w = down_after_two();
    w_rename(w, "a.log", "a-2026-01-02.old"); /* not a name that rotation makes: not read whole */
    w_rename(w, "a-2026-01-02.old", "a-2026-01-02.log");
    w_append(w, "a.log", line(4));
    up_and_expect(w, 4);
}

static void test_lost_own_file_reads_newer_siblings(void **state)
{
    (void)state;
    struct world *w = down_after_two();
    w_unlink(w, "a.log"); /* line 3 went with it */
    w_append(w, "a.log.2", line(4));
    w_append(w, "a.log.1", line(5));
    w_append(w, "a.log", line(6));
    struct timespec past[2] = { { 1000, 0 }, { 1000, 0 } };
    w_append(w, "a.log.9", line(7));
    assert_int_equal(
        0, utimensat(AT_FDCWD, w_path(w, "a.log.9"), past, 0)); /* older than all we saw: not ours */
    world_start(w);
    world_pass(w, 12);
    assert_int_equal(5, w->q[0].durable.n + w->q[0].open.n);
    for (size_t i = 0; i < 3; i++)
        assert_memory_equal(line((int)i + 4), w->q[0].open.item[i], 6);
    world_free(w);
}

static void test_first_start_reads_no_siblings(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    w_append(w, "a.log.1", line(1));
    w_append(w, "a.log", line(2));
    world_start(w);
    world_pass(w, 12);
    expect_numbers(w, 0, 2, 2);
    world_free(w);
}

static void test_copytruncate_while_down(void **state)
{
    (void)state;
    struct world *w = down_after_two();
    w_copy(w, "a.log", "a.log.1");
    assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
    w_append(w, "a.log", line(4));
    up_and_expect(w, 4);
}

static void test_copytruncate_twice_with_compress(void **state)
{
    (void)state;
    struct world *w = down_after_two();
    w_copy(w, "a.log", "a.log.2");
    w_gzip(w, "a.log.2");
    assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
    w_append(w, "a.log", line(4));
    w_append(w, "a.log", line(5));
    w_append(w, "a.log", line(6));
    w_append(w, "a.log", line(7));
    w_copy(w, "a.log", "a.log.1");
    assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
    w_append(w, "a.log", line(8));
    up_and_expect(w, 8);
}

static void test_restored_under_another_inode(void **state)
{
    (void)state;
    struct world *w = down_after_two();
    w_copy(w, "a.log", "b.tmp");
    w_unlink(w, "a.log");
    w_append(w, "placeholder", "x"); /* takes the inode that became free */
    w_rename(w, "b.tmp", "a.log");
    up_and_expect(w, 3);
}

static void test_finished_is_not_read_again(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "a.log*");
    w_append(w, "a.log", line(1));
    world_start(w);
    world_run(w);
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", line(2));
    world_run(w);
    world_settle(w, 7);
    world_stop(w);
    w_rename(w, "a.log.1", "a.log.2");
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", line(3));
    up_and_expect(w, 3);
}

/* ---- blocked outputs ---- */

static void test_blocked_output_resumes(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", line(1));
    world_start(w);
    world_run(w);
    w->q[1].refuses = true;
    w_append(w, "a.log", line(2));
    w_append(w, "a.log", line(3));
    world_run(w);
    assert_true(tail_is_blocked(w->t, 1));
    assert_false(tail_is_blocked(w->t, 0));
    expect_numbers(w, 0, 1, 3);
    expect_numbers(w, 1, 1, 1);
    world_commit_all(w);
    w->q[1].refuses = false;
    tail_unblock(w->t, 1);
    w_append(w, "a.log", line(4));
    world_run(w);
    expect_numbers(w, 0, 1, 4);
    expect_numbers(w, 1, 1, 4);
    struct tail_file *f = file_by_path(w->t, w_path(w, "a.log"));
    assert_ptr_equal(NULL, f->passes->next); /* one pass again */
    assert_int_equal(3, f->passes->mask);
    world_commit_all(w);
    world_free(w);
}

static void test_blocked_through_rotation_and_restart(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", line(1));
    world_start(w);
    world_run(w);
    w->q[1].refuses = true;
    w_append(w, "a.log", line(2));
    world_run(w);
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", line(3));
    world_run(w);
    world_pass(w, 10);
    expect_numbers(w, 0, 1, 3);
    expect_numbers(w, 1, 1, 1);
    world_commit_all(w);
    world_commit_all(w);
    world_stop(w);
    w_rename(w, "a.log.1", "a.log.2");
    w_gzip(w, "a.log.2");
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", line(4));
    world_start(w);
    world_run(w);
    world_pass(w, 12);
    expect_numbers(w, 0, 1, 4);
    expect_numbers(w, 1, 1, 4);
    world_free(w);
}

static void test_blocked_and_deleted(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", line(1));
    world_start(w);
    world_run(w);
    w->q[1].refuses = true;
    w_append(w, "a.log", line(2));
    world_run(w);
    w_unlink(w, "a.log");
    world_run(w);
    world_pass(w, 10);
    for (int i = 0; i < 4; i++)
        world_commit(w, 0);
    w->q[1].refuses = false;
    tail_unblock(w->t, 1);
    world_pass(w, 10);
    expect_numbers(w, 1, 1, 2);
    for (int i = 0; i < 6; i++)
        world_commit_all(w);
    assert_int_equal(0, w->q[0].n);
    assert_int_equal(0, w->q[1].n);
    world_free(w);
}

static void test_crash_before_one_output_knew_the_file(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", line(1));
    world_start(w);
    world_run(w);
    world_commit_all(w);
    w_append(w, "b.log", line(2));
    world_run(w);
    world_commit(w, 0);
    world_crash(w); /* output 1 never heard of b.log: it begins at its start, not where output 0 stands */
    world_run(w);
    expect_numbers(w, 0, 1, 2);
    expect_numbers(w, 1, 1, 2);
    world_free(w);
}

static void test_new_output_begins_where_the_others_stand(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", line(1));
    world_start(w);
    world_run(w);
    world_commit_all(w);
    world_stop(w);
    world_use_outputs(w, 2);
    world_start(w);
    w_append(w, "a.log", line(2));
    world_run(w);
    expect_numbers(w, 0, 1, 2);
    expect_numbers(w, 1, 2, 2);
    world_free(w);
}

static void test_one_output_forgot_what_all_had_finished(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", line(1));
    w_append(w, "keep.log", "k\n");
    world_start(w);
    world_run(w);
    w_unlink(w, "a.log");
    world_run(w);
    world_settle(w, 7); /* finished */
    world_commit_all(w); /* passed */
    world_commit(w, 0);  /* gone, for the first only */
    assert_int_equal(1, w->q[0].n);
    assert_int_equal(2, w->q[1].n);
    world_crash(w);
    world_run(w);
    for (int i = 0; i < 4; i++)
        world_commit_all(w);
    assert_int_equal(1, w->q[0].n);
    assert_int_equal(1, w->q[1].n);
    assert_int_equal(0, w->q[0].lost_bytes);
    world_free(w);
}

/* ---- parts ---- */

static void test_parts_are_read_again(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "x\n1Pone-\ny\n2Ptwo-\nz\n");
    world_start(w);
    world_run(w);
    world_commit_all(w);
    assert_int_equal(2, w->q[0].files[0].position.n_parts);
    world_crash(w);
    w_append(w, "a.log", "1Fone\n");
    world_run(w);
    expect_lines(w, 0, "x|y|z|one-one");
    world_commit_all(w);
    assert_int_equal(1, w->q[0].files[0].position.n_parts);
    world_crash(w);
    world_commit_all(w); /* before anything was read again: the place is the same */
    assert_int_equal(1, w->q[0].files[0].position.n_parts);
    world_run(w);
    w_append(w, "a.log", "2Ftwo\nend\n");
    world_run(w);
    expect_lines(w, 0, "x|y|z|one-one|two-two|end");
    world_commit_all(w);
    assert_int_equal(0, w->q[0].files[0].position.n_parts);
    world_free(w);
}

static void test_blocked_inside_parts(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "x\n1Pa-\ny\n");
    world_start(w);
    world_run(w);
    w->q[1].refuses = true;
    w_append(w, "a.log", "1Pb-\n1Fc\nz\n");
    world_run(w);
    expect_lines(w, 0, "x|y|a-b-c|z");
    expect_lines(w, 1, "x|y");
    world_commit_all(w);
    assert_int_equal(1, w->q[1].files[0].position.n_parts);
    w->q[1].refuses = false;
    tail_unblock(w->t, 1);
    world_run(w);
    expect_lines(w, 1, "x|y|a-b-c|z");
    world_commit_all(w);
    assert_int_equal(0, w->q[1].files[0].position.n_parts);
    world_free(w);
}

static void test_unfinished_record_is_flushed_at_the_end(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "x\n1Pnever finished\n");
    world_start(w);
    world_run(w);
    w_unlink(w, "a.log");
    world_run(w);
    world_pass(w, 7);
    expect_lines(w, 0, "x|never finished");
    for (int i = 0; i < 4; i++)
        world_commit_all(w);
    assert_int_equal(0, w->q[0].n);
    world_free(w);
}

/* The first half of a record lies in the old file, the other is still to come: over a restart, too, the new file goes on
 * where the old one stopped. */
static void test_record_spans_files_over_a_restart(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "x\n1Phalf of \n");
    world_start(w);
    world_run(w);
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "y\n");
    world_run(w);
    world_commit_all(w);
    world_crash(w);
    world_run(w);
    struct tail_file *f = file_by_path(w->t, w_path(w, "a.log"));
    assert_ptr_equal(file_by_path(w->t, w_path(w, "a.log.1")), f->after);
    assert_non_null(tail_predecessor(f));
    world_free(w);
}

/* What stands before the place was not looked at yet when an output leaves it to read its half again: it is still not known. */
static void test_leaves_a_place_that_was_not_looked_at(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "1Phalf of \n");
    world_start(w);
    world_run(w);
    world_commit_all(w);
    tail_fence(w->t, 0, w->q[0].files, w->q[0].n);
    (void)tail_turn(w->t, w_now); /* up to the place, and no further */
    struct tail_file *f = file_by_path(w->t, w_path(w, "a.log"));
    assert_true(f->passes->off >= f->passes->resume_until && pass_of(f->passes)->wants_tail);
    const struct position_part part = { .stream = 1, .start = 0 };
    assert_int_equal(0, passes_reserve(w->t));
    tail_block_before(f, f->passes, 0, &part, 1);
    pass_drop(pass_of(f->passes->next));
    world_run(w);
    w_append(w, "a.log", "1Fit\n");
    world_run(w);
    expect_lines(w, 0, "half of it");
    assert_false(log_has(w, "file.truncated"));
    world_free(w);
}

/* Both outputs have the first half: they go on as one, so that the next file can borrow it for both. */
static void test_passes_with_the_same_half_go_on_as_one(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    world_include(w, 0, "*.log");
    world_start(w);
    w->q[1].refuses = true;
    w_append(w, "a.log", "x\n1Phalf of \n");
    world_run(w);
    expect_lines(w, 1, "");
    w->q[1].refuses = false;
    tail_unblock(w->t, 1);
    world_run(w);
    struct tail_file *f = file_by_path(w->t, w_path(w, "a.log"));
    assert_ptr_equal(NULL, f->passes->next);
    w_append(w, "a.log", "1Fit\n");
    world_run(w);
    expect_lines(w, 0, "x|half of it");
    expect_lines(w, 1, "x|half of it");
    world_free(w);
}

/* The same after a rotation, when the next file was read already: it may go on there for both still. */
static void test_halves_join_after_a_rotation(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    world_include(w, 0, "*.log");
    world_start(w);
    w->q[1].refuses = true;
    w_append(w, "a.log", "x\n1Phalf of \n");
    world_run(w);
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "y\n");
    world_run(w);
    w->q[1].refuses = false;
    tail_unblock(w->t, 1);
    world_run(w);
    struct tail_file *f = file_by_path(w->t, w_path(w, "a.log.1"));
    assert_non_null(f->successor);
    assert_null(f->passes->next);
    assert_int_equal(3, f->passes->mask);
    world_free(w);
}

/* a.log.2, a.log.1 and a.log, each of which ends with a half; by the clock each of the later ones was first seen so much
 * earlier. */
static void make_chain(struct world *w, int64_t back_ns)
{
    world_start(w);
    for (int i = 0; i < 3; i++) {
        w_wall_back_ns = i * back_ns;
        if (i == 2)
            w_rename(w, "a.log.1", "a.log.2");
        if (i > 0)
            w_rename(w, "a.log", "a.log.1");
        w_append(w, "a.log", "x\n1Phalf of \n");
        world_run(w);
    }
    world_commit_all(w);
}

static void expect_chain_after_a_crash(struct world *w)
{
    world_crash(w);
    world_run(w);
    struct tail_file *f = file_by_path(w->t, w_path(w, "a.log"));
    assert_ptr_equal(file_by_path(w->t, w_path(w, "a.log.1")), f->after);
    assert_ptr_equal(file_by_path(w->t, w_path(w, "a.log.2")), f->after->after);
}

/* Which file came before which is the order in which the queue heard of them, not the times at which they were first seen, by a
 * clock that was put back. */
static void test_chain_whose_clock_went_back(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    clock_set_source(w_mono, w_wall);
    world_include(w, 0, "*.log");
    make_chain(w, 3600 * NS_PER_SEC);
    expect_chain_after_a_crash(w);
    world_free(w);
}

/* An output that was away may have heard of a chain in any order: then it is the times that tell. */
static void test_chain_that_queues_heard_of_differently(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    world_include(w, 0, "*.log");
    make_chain(w, 0);
    struct recovered_file first = w->q[0].files[0];
    w->q[0].files[0] = w->q[0].files[1];
    w->q[0].files[1] = first;
    expect_chain_after_a_crash(w);
    world_free(w);
}

/* A file that came and was rotated between two looks: the one that has its name is found first, and goes on where it stops. */
static void test_rotated_before_it_was_seen(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    world_start(w);
    w_append(w, "a.log", "x\n1Phalf of \n");
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "1Fit\n");
    world_run(w);
    struct tail_file *f = file_by_path(w->t, w_path(w, "a.log"));
    assert_non_null(f->after);
    assert_ptr_equal(file_by_path(w->t, w_path(w, "a.log.1")), f->after);
    world_free(w);
}

/* An output that is new begins where the other stands: before the record that is unfinished there. */
static void test_new_output_begins_before_a_half(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "x\n1Phalf of \n");
    world_start(w);
    world_run(w);
    world_commit_all(w);
    world_stop(w);
    world_start(w);
    assert_false(tail_takes_new_names(w->t)); /* all is known */
    world_stop(w);
    world_use_outputs(w, 2);
    world_start(w);
    assert_true(tail_takes_new_names(w->t)); /* where it begins is to be told at once */
    world_run(w);
    w_append(w, "a.log", "1Fit\n");
    world_run(w);
    expect_lines(w, 0, "x|half of it");
    expect_lines(w, 1, "half of it");
    world_free(w);
}

/* ---- an output that was away ---- */

/* Only a's queue has the file; b alone begins it anew; then both are there, and each has its own name for it. */
static void test_two_incarnations_of_one_file(void **state)
{
    (void)state;
    for (int rotated = 0; rotated < 2; rotated++) {
        struct world *w = world_new(2);
        world_include(w, 0, "*.log");
        w_append(w, "a.log", line(1));
        w_append(w, "a.log", line(2));
        world_start(w);
        world_run(w);
        assert_true(world_commit(w, 0));
        world_stop(w);
        world_swap_outputs(w, 1);
        world_start(w);
        w_append(w, "a.log", line(3));
        world_run(w);
        if (rotated)
            w_rename(w, "a.log", "a.log.1");
        world_run(w);
        world_commit_all(w);
        world_stop(w);
        world_swap_outputs(w, 2);
        world_start(w);
        world_run(w);
        expect_numbers(w, 0, 1, 3);
        expect_numbers(w, 1, 1, 3);
        for (int i = 0; i < 4; i++)
            world_commit_all(w);
        assert_int_equal(1, w->q[0].n);
        assert_int_equal(1, w->q[1].n);
        assert_int_equal(w->q[0].files[0].ident.incarnation, w->q[1].files[0].ident.incarnation);
        world_free(w);
    }
}

/* One queue heard of an empty file only, the other of its text. While that one is away the text is copied and cut, and another is
 * written: the name that both have for the first must not stand for the second. */
static void test_empty_for_one_and_cut_for_the_other(void **state)
{
    (void)state;
    for (int late = 0; late < 2; late++) {
        struct world *w = world_new(2);
        world_include(w, 0, "*.log");
        w_append(w, "a.log", "");
        world_start(w);
        world_run(w);
        world_commit_all(w);
        w_append(w, "a.log", line(1));
        world_run(w);
        (void)world_commit(w, 1);
        world_stop(w);
        world_use_outputs(w, 1);
        w_copy(w, "a.log", "a.log.1");
        assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
        if (late)
            world_start(w);
        w_append(w, "a.log", line(2));
        if (!late)
            world_start(w);
        world_pass(w, 1);
        world_commit_all(w);
        world_stop(w);
        world_use_outputs(w, 2);
        world_start(w);
        world_pass(w, 12);
        expect_numbers(w, 0, 1, 2);
        expect_numbers(w, 1, 1, 2);
        world_free(w);
    }
}

/* A reload before the second incarnation of such a file was told. */
static void test_empty_and_reloaded(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "");
    world_start(w);
    world_run(w);
    world_commit_all(w);
    world_crash(w);
    w_append(w, "a.log", line(1));
    world_run(w);
    world_reload(w);
    w_append(w, "a.log", line(2));
    world_pass(w, 12);
    for (int i = 0; i < 3; i++)
        world_commit_all(w);
    expect_numbers(w, 0, 1, 2);
    expect_numbers(w, 1, 1, 2);
    assert_int_equal(w->q[0].n, 1);
    assert_int_equal(w->q[1].lost_bytes, 0);
    world_free(w);
}

/* One queue heard of an empty file, the other of its first bytes, too: after a restart both are to know these. */
static void test_one_queue_knows_more_of_a_file(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "");
    world_start(w);
    world_run(w);
    world_commit_all(w);
    w_append(w, "a.log", line(1));
    world_run(w);
    (void)world_commit(w, 1);
    world_crash(w);
    world_run(w);
    world_commit_all(w);
    assert_int_equal(w->q[0].files[0].ident.fp_len, strlen(line(1)));
    assert_int_equal(w->q[0].files[0].ident.fp_crc, w->q[1].files[0].ident.fp_crc);
    expect_numbers(w, 0, 1, 1);
    expect_numbers(w, 1, 1, 1);
    world_free(w);
}

/* It was done with a rotated file; then that grew, and the other is not done with it. */
static void test_away_while_a_finished_file_grew(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", line(1));
    world_start(w);
    world_run(w);
    w_rename(w, "a.log", "a.log.1");
    world_pass(w, 7);
    world_commit_all(w);
    world_stop(w);
    world_swap_outputs(w, 1);
    w_append(w, "a.log.1", line(2));
    world_start(w);
    world_run(w);
    world_commit_all(w);
    world_stop(w);
    world_swap_outputs(w, 2);
    world_start(w);
    world_pass(w, 7);
    expect_numbers(w, 0, 1, 2);
    expect_numbers(w, 1, 1, 2);
    world_free(w);
}

/* As above, and it was not away: the other was blocked, and has the last descriptor kept. */
static void test_finished_file_grew_for_a_blocked_output(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    world_include(w, 0, "*.log");
    world_start(w);
    w->q[1].refuses = true;
    w_append(w, "a.log", line(1));
    world_run(w);
    w_rename(w, "a.log", "a.log.1");
    world_pass(w, 7);
    w_append(w, "a.log.1", line(2));
    w_unlink(w, "a.log.1");
    world_pass(w, 1);
    w->q[1].refuses = false;
    tail_unblock(w->t, 1);
    world_pass(w, 7);
    expect_numbers(w, 0, 1, 2);
    expect_numbers(w, 1, 1, 2);
    assert_int_equal(w->q[0].lost_bytes, 0);
    world_free(w);
}

/* ---- a failed sync ---- */

static void test_fence(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", line(1));
    world_start(w);
    world_run(w);
    world_commit_all(w);
    w_append(w, "a.log", line(2));
    w_append(w, "b.log", "b\n");
    world_run(w);
    struct group_end end = { 0 };
    assert_true(tail_collect(w->t, 1, SIZE_MAX, &end)); /* written, never synced */
    w_lines_clear(&w->q[1].open);
    w->q[1].n_groups++;
    tail_fence(w->t, 1, w->q[1].files, w->q[1].n);
    world_run(w);
    world_commit_all(w);
    assert_int_equal(3, w->q[0].durable.n);
    assert_int_equal(3, w->q[1].durable.n);
    struct tail_file *f = file_by_path(w->t, w_path(w, "a.log"));
    assert_ptr_equal(NULL, f->passes->next);
    world_free(w);
}

/* Nothing of the file is durable: it stands where it began, inside a line. */
static void test_fence_inside_a_line(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    w->inputs[0].read_from = READ_FROM_END;
    w_append(w, "a.log", "old\nhalf of ");
    world_start(w);
    w_append(w, "a.log", "a line\nnew\n");
    world_run(w);
    expect_lines(w, 0, "new");
    struct group_end end = { 0 };
    assert_true(tail_collect(w->t, 0, SIZE_MAX, &end)); /* written, never synced */
    w_lines_clear(&w->q[0].open);
    w->q[0].n_groups++;
    struct recovered_file undone = { .ident = end.files[0] };
    undone.position = (struct file_position){ .incarnation = end.files[0].incarnation, .start = 12, .end = 12,
                                              .flags = POSITION_HEAD_UNKNOWN };
    tail_fence(w->t, 0, &undone, 1);
    world_run(w);
    expect_lines(w, 0, "new");
    world_commit_all(w);
    world_free(w);
}

static void test_fence_of_a_blocked_output(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", line(1));
    world_start(w);
    world_run(w);
    world_commit_all(w);
    w_append(w, "a.log", line(2));
    world_run(w);
    w->q[1].refuses = true;
    w_append(w, "a.log", line(3));
    world_run(w);
    w_lines_clear(&w->q[1].open);
    tail_fence(w->t, 1, w->q[1].files, w->q[1].n);
    world_run(w);
    expect_numbers(w, 0, 1, 3);
    expect_numbers(w, 1, 1, 1);
    w->q[1].refuses = false;
    tail_unblock(w->t, 1);
    world_run(w);
    expect_numbers(w, 1, 1, 3);
    world_commit_all(w);
    world_free(w);
}

/* ---- many files, few descriptors ---- */

static void test_more_files_than_descriptors(void **state)
{
    (void)state;
    enum { FILES = 2000 };
    struct rlimit old, few;
    assert_int_equal(0, getrlimit(RLIMIT_NOFILE, &old));
    few = old;
    few.rlim_cur = 64;
    struct world *w = world_new(2);
    world_include(w, 0, "*.log");
    char name[32], text[64];
    for (int i = 0; i < FILES; i++) {
        (void)snprintf(name, sizeof(name), "%d.log", i);
        (void)snprintf(text, sizeof(text), "%d first\n", i);
        w_append(w, name, text);
    }
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &few));
    world_start(w);
    world_run(w);
    assert_true(w->t->n_open <= 32);
    assert_int_equal(FILES, w->q[1].open.n);
    w->q[1].refuses = true;
    for (int i = 0; i < FILES; i++) {
        (void)snprintf(name, sizeof(name), "%d.log", i);
        (void)snprintf(text, sizeof(text), "%d second\n", i);
        w_append(w, name, text);
    }
    world_run(w);
    assert_int_equal(2 * FILES, w->q[0].open.n);
    assert_int_equal(FILES, w->q[1].open.n);
    /* A few are rotated meanwhile, with bytes that output 1 has not read. */
    for (int i = 0; i < 100; i++) {
        char to[32];
        (void)snprintf(name, sizeof(name), "%d.log", i);
        (void)snprintf(to, sizeof(to), "%d.log.1", i);
        w_rename(w, name, to);
        w_append(w, name, "third\n");
    }
    world_run(w);
    world_commit_all(w);
    w->q[1].refuses = false;
    tail_unblock(w->t, 1);
    world_run(w);
    world_settle(w, 12);
    assert_int_equal(2 * FILES + 100, w->q[0].durable.n);
    assert_int_equal(2 * FILES + 100, w->q[1].durable.n);
    assert_int_equal(0, w->q[1].lost_bytes);
    assert_true(w->t->n_open <= 32);
    world_stop(w);
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &old));
    world_free(w);
}

/* ---- reload ---- */

static void test_adopt(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", line(1));
    w_append(w, "held.log", "h1\n");
    world_start(w);
    world_run(w);
    w->q[1].refuses = true;
    w_append(w, "held.log", "h2\n");
    world_run(w);
    w_unlink(w, "held.log");
    world_run(w);
    world_commit_all(w);
    world_hand_over(w);
    w_append(w, "a.log", line(2));
    world_run(w);
    world_settle(w, 8);
    assert_int_equal(4, w->q[0].durable.n);
    assert_int_equal(4, w->q[1].durable.n);
    for (int i = 0; i < 4; i++)
        world_commit_all(w);
    assert_int_equal(1, w->q[0].n);
    assert_int_equal(1, w->q[1].n);
    world_free(w);
}

/* ---- logs that a power cut made shorter ---- */

#define STEP "%c: a line that is long enough to tell one text from another, and more of it\n"

static void step(struct world *w, char c)
{
    char text[128];
    (void)snprintf(text, sizeof(text), STEP, c);
    w_append(w, "a.log", text);
    if (w->t == NULL)
        return;
    world_run(w);
    world_commit_all(w);
}

/* What arrived at an output, a letter a line. */
static void expect_letters(struct world *w, uint32_t o, const char *want)
{
    char got[64] = "";
    for (size_t i = 0; i < w->q[o].durable.n; i++)
        got[i] = w->q[o].durable.item[i][0];
    assert_string_equal(got, want);
}

static struct world *read_to_f(size_t n_outputs)
{
    struct world *w = world_new(n_outputs);
    world_include(w, 0, "*.log");
    world_start(w);
    for (char c = 'a'; c <= 'f'; c++)
        step(w, c);
    world_stop(w);
    return w;
}

static off_t line_bytes(void)
{
    return snprintf(NULL, 0, STEP, 'a');
}

static void go_on(struct world *w)
{
    world_start(w);
    world_settle(w, 20);
}

/* Within the fourth line: the three before it are known. Its rest is what somebody writes next. */
static void test_power_cut(void **state)
{
    (void)state;
    struct world *w = read_to_f(1);
    assert_int_equal(0, truncate(w_path(w, "a.log"), 3 * line_bytes() + 10));
    w_append(w, "a.log", "\n");
    go_on(w);
    expect_letters(w, 0, "abcdefd");
    step(w, 'x');
    expect_letters(w, 0, "abcdefdx");
    world_stop(w); /* what is known of it now is durable */
    step(w, 'y');
    go_on(w);
    expect_letters(w, 0, "abcdefdxy");
    assert_int_equal(1, w->q[0].n);
    world_free(w);
}

/* Programs were back before us: there is more than there was, and not the same. */
static void test_power_cut_and_grown_past(void **state)
{
    (void)state;
    struct world *w = read_to_f(2);
    assert_int_equal(0, truncate(w_path(w, "a.log"), 4 * line_bytes()));
    for (char c = 'p'; c <= 't'; c++)
        step(w, c);
    go_on(w);
    expect_letters(w, 0, "abcdefpqrst");
    expect_letters(w, 1, "abcdefpqrst");
    world_free(w);
}

/* Emptied, and begun with another text; or shorter than the first place that is known. */
static void test_cut_and_another_text(void **state)
{
    (void)state;
    struct world *w = read_to_f(1);
    assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
    step(w, 'n');
    step(w, 'o');
    go_on(w);
    expect_letters(w, 0, "abcdefno");
    world_free(w);
    w = read_to_f(1);
    assert_int_equal(0, truncate(w_path(w, "a.log"), line_bytes() - 5));
    w_append(w, "a.log", "\n");
    go_on(w);
    expect_letters(w, 0, "abcdefa");
    world_free(w);
}

/* One output is behind: all go on where it stood. */
static void test_power_cut_with_one_behind(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    world_include(w, 0, "*.log");
    world_start(w);
    for (char c = 'a'; c <= 'f'; c++) {
        w->q[1].refuses = c > 'b';
        step(w, c);
    }
    world_stop(w);
    assert_int_equal(0, truncate(w_path(w, "a.log"), 4 * line_bytes()));
    go_on(w);
    expect_letters(w, 0, "abcdefcd");
    expect_letters(w, 1, "abcd");
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_power_cut),
        cmocka_unit_test(test_power_cut_and_grown_past),
        cmocka_unit_test(test_cut_and_another_text),
        cmocka_unit_test(test_power_cut_with_one_behind),
        cmocka_unit_test(test_rotated_once),
        cmocka_unit_test(test_rotated_keeps_its_captures),
        cmocka_unit_test(test_rotated_thrice),
        cmocka_unit_test(test_rotated_and_no_live_file_yet),
        cmocka_unit_test(test_compressed),
        cmocka_unit_test(test_delaycompress),
        cmocka_unit_test(test_twice_compressed),
        cmocka_unit_test(test_dateext),
        cmocka_unit_test(test_date_before_extension),
        cmocka_unit_test(test_lost_own_file_reads_newer_siblings),
        cmocka_unit_test(test_first_start_reads_no_siblings),
        cmocka_unit_test(test_copytruncate_while_down),
        cmocka_unit_test(test_copytruncate_twice_with_compress),
        cmocka_unit_test(test_restored_under_another_inode),
        cmocka_unit_test(test_finished_is_not_read_again),
        cmocka_unit_test(test_blocked_output_resumes),
        cmocka_unit_test(test_blocked_through_rotation_and_restart),
        cmocka_unit_test(test_blocked_and_deleted),
        cmocka_unit_test(test_crash_before_one_output_knew_the_file),
        cmocka_unit_test(test_new_output_begins_where_the_others_stand),
        cmocka_unit_test(test_one_output_forgot_what_all_had_finished),
        cmocka_unit_test(test_parts_are_read_again),
        cmocka_unit_test(test_blocked_inside_parts),
        cmocka_unit_test(test_unfinished_record_is_flushed_at_the_end),
        cmocka_unit_test(test_record_spans_files_over_a_restart),
        cmocka_unit_test(test_leaves_a_place_that_was_not_looked_at),
        cmocka_unit_test(test_passes_with_the_same_half_go_on_as_one),
        cmocka_unit_test(test_halves_join_after_a_rotation),
        cmocka_unit_test(test_chain_whose_clock_went_back),
        cmocka_unit_test(test_chain_that_queues_heard_of_differently),
        cmocka_unit_test(test_rotated_before_it_was_seen),
        cmocka_unit_test(test_new_output_begins_before_a_half),
        cmocka_unit_test(test_two_incarnations_of_one_file),
        cmocka_unit_test(test_empty_for_one_and_cut_for_the_other),
        cmocka_unit_test(test_empty_and_reloaded),
        cmocka_unit_test(test_one_queue_knows_more_of_a_file),
        cmocka_unit_test(test_away_while_a_finished_file_grew),
        cmocka_unit_test(test_finished_file_grew_for_a_blocked_output),
        cmocka_unit_test(test_fence),
        cmocka_unit_test(test_fence_inside_a_line),
        cmocka_unit_test(test_fence_of_a_blocked_output),
        cmocka_unit_test(test_more_files_than_descriptors),
        cmocka_unit_test(test_adopt),
    };
    return cmocka_run_group_tests_name("tail/resume", tests, NULL, NULL);
}
