/*
 * Goal: files that were made, written, rotated and compressed between two looks are read, once, in order; what is not
 * of the chain is left alone; what is gone is counted.
 * Method: world.h. A "look" is world_run; between two of them rotation runs whole, several times.
 */
#include "world.h"

#include <time.h>

#include "agent/queue/fs.h"
#include "agent/tail/internal.h"

#define TEXT "line %d, long enough to tell one file from another by what stands in it"

/* What rotation does. */
struct way {
    const char *name;
    bool copies, compresses, delays, dates;
};

static const struct way WAYS[] = {
    { "create", .copies = false },
    { "create compress", .compresses = true },
    { "create compress delaycompress", .compresses = true, .delays = true },
    { "create dateext", .dates = true },
    { "create dateext compress", .dates = true, .compresses = true },
    { "copytruncate", .copies = true },
    { "copytruncate compress", .copies = true, .compresses = true },
    { "copytruncate compress delaycompress", .copies = true, .compresses = true, .delays = true },
    { "copytruncate dateext compress", .copies = true, .dates = true, .compresses = true },
};

struct service {
    struct world *w;
    struct way way;
    int n_lines, n_rotated;
};

static void write_line(struct service *s)
{
    char text[128];
    (void)snprintf(text, sizeof(text), TEXT "\n", ++s->n_lines);
    w_append(s->w, "a.log", text);
}

static void rotated_name(const struct service *s, int i, char ret[64])
{
    if (s->way.dates)
        (void)snprintf(ret, 64, "a.log-%d", 20260101 + s->n_rotated - i);
    else
        (void)snprintf(ret, 64, "a.log.%d", i);
}

static void shift(const struct service *s)
{
    for (int i = s->n_rotated; i >= 1 && !s->way.dates; i--) {
        for (int gz = 0; gz < 2; gz++) {
            char from[64], to[64];
            (void)snprintf(from, sizeof(from), "a.log.%d%s", i, gz ? ".gz" : "");
            (void)snprintf(to, sizeof(to), "a.log.%d%s", i + 1, gz ? ".gz" : "");
            (void)rename(w_path(s->w, from), w_path(s->w, to)); /* one of the two is there */
        }
    }
}

static void rotate(struct service *s)
{
    char name[64];
    shift(s);
    s->n_rotated++;
    rotated_name(s, 1, name);
    if (s->way.copies) {
        w_copy(s->w, "a.log", name);
        assert_int_equal(0, truncate(w_path(s->w, "a.log"), 0));
    } else {
        w_rename(s->w, "a.log", name);
    }
    int late = s->way.delays ? 2 : 1;
    if (s->way.compresses && s->n_rotated >= late) {
        rotated_name(s, late, name);
        w_gzip(s->w, name);
    }
}

static void expect_all(struct service *s)
{
    struct buf want;
    buf_init(&want, MIB);
    for (int i = 1; i <= s->n_lines; i++)
        assert_int_equal(0, buf_printf(&want, "%s" TEXT, i > 1 ? "|" : "", i));
    assert_int_equal(0, buf_terminate(&want));
    expect_lines(s->w, 0, want.ptr);
    if (s->w->q[0].lost_bytes != 0)
        fail_msg("%s: %lu lost bytes", s->way.name, (unsigned long)s->w->q[0].lost_bytes);
    buf_deinit(&want);
}

/* What rotates it is the first line of the log, which a failure shows. */
static struct service service_new(const struct way *way)
{
    struct service s = { .w = world_new(1), .way = *way };
    assert_true(dprintf(s.w->log_fd, "%s\n", way->name) > 0);
    world_include(s.w, 0, "a.log");
    return s;
}

static void begin(struct service *s, const struct way *way)
{
    *s = service_new(way);
    write_line(s);
    write_line(s);
    world_start(s->w);
}

static void finish(struct service *s)
{
    world_run(s->w);
    world_pass(s->w, 12);
    expect_all(s);
    world_commit_all(s->w);
    world_crash(s->w);
    world_pass(s->w, 12);
    expect_all(s); /* and not again */
    world_free(s->w);
}

static void test_rotated_thrice_at_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(WAYS); i++) {
        struct service s;
        begin(&s, &WAYS[i]);
        world_run(s.w);
        for (int k = 0; k < 3; k++) {
            write_line(&s);
            rotate(&s);
            write_line(&s);
        }
        finish(&s);
    }
}

static void test_rotated_thrice_and_no_live_file_yet(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(WAYS); i++) {
        struct service s;
        begin(&s, &WAYS[i]);
        world_run(s.w);
        for (int k = 0; k < 3; k++) {
            write_line(&s);
            rotate(&s);
        }
        world_pass(s.w, 11);
        finish(&s);
    }
}

static void test_rotated_after_a_long_time(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(WAYS); i++) {
        struct service s;
        begin(&s, &WAYS[i]);
        world_pass(s.w, 700); /* its descriptor is closed */
        rotate(&s);
        write_line(&s);
        world_run(s.w);
        for (int k = 0; k < 2; k++) {
            rotate(&s);
            write_line(&s);
        }
        finish(&s);
    }
}

static void age(struct world *w, const char *name, int seconds)
{
    struct timespec now, times[2];
    assert_int_equal(0, clock_gettime(CLOCK_REALTIME, &now));
    now.tv_sec -= seconds;
    times[0] = times[1] = now;
    assert_int_equal(0, utimensat(AT_FDCWD, w_path(w, name), times, 0));
}

static int64_t ahead_ns;

static int64_t wall_ahead(void)
{
    struct timespec now;
    assert_int_equal(0, clock_gettime(CLOCK_REALTIME, &now));
    return timespec_ns(now) + ahead_ns;
}

static void lose_events(const struct world *w)
{
    char events[4096];
    while (read(tail_fd(w->t), events, sizeof(events)) > 0)
        continue;
}

/* No event told of these, and the one before them is deleted: they are new by their time alone, also by that of a clock that was put
 * back since, and come after that one. */
static void rotated_unseen(int64_t back_ns)
{
    struct world *w = world_new(1);
    ahead_ns = back_ns;
    clock_set_source(w_mono, wall_ahead);
    world_include(w, 0, "a.log");
    w_append(w, "a.log.3", "from before our time\n");
    age(w, "a.log.3", 86400);
    w_append(w, "a.log", "1Pthe first \n");
    world_start(w);
    world_settle(w, 2);
    ahead_ns = 0;
    const struct tail_file *first = file_by_path(w->t, w_path(w, "a.log"));
    assert_non_null(first);
    w_unlink(w, "a.log");
    w_append(w, "a.log.2", "1Pgoes on \n");
    w_append(w, "a.log.1", "1Pand on \n");
    w_append(w, "a.log", "1Fand ends\n");
    lose_events(w);
    tail_overflowed(w->t);
    world_run(w);
    const struct tail_file *second = file_by_path(w->t, w_path(w, "a.log.2"));
    const struct tail_file *third = file_by_path(w->t, w_path(w, "a.log.1"));
    const struct tail_file *live = file_by_path(w->t, w_path(w, "a.log"));
    assert_true(second != NULL && third != NULL && live != NULL);
    assert_null(file_by_path(w->t, w_path(w, "a.log.3")));
    assert_ptr_equal(live->after, third);
    assert_ptr_equal(third->after, second);
    assert_ptr_equal(second->after, first);
    world_free(w);
}

static void test_rotated_unseen_and_the_first_deleted(void **state)
{
    (void)state;
    rotated_unseen(0);
    rotated_unseen(3600 * NS_PER_SEC);
}

static void test_archives_are_left_alone(void **state)
{
    (void)state;
    static const int AGES[] = { 86400, 1, -86400 };
    for (size_t a = 0; a < ARRAY_LEN(AGES); a++) {
        for (size_t i = 0; i < ARRAY_LEN(WAYS); i++) {
            struct service s = service_new(&WAYS[i]);
            for (int k = 0; k < 3; k++) {
                w_append(s.w, "a.log", "a line of the time before ours, long enough to be told from the others\n");
                rotate(&s);
            }
            for (int k = 1; k <= 3; k++) {
                char name[64], gz[80];
                rotated_name(&s, k, name);
                (void)snprintf(gz, sizeof(gz), "%s.gz", name);
                bool is_gz = access(w_path(s.w, name), F_OK) != 0;
                age(s.w, is_gz ? gz : name, AGES[a] < 0 && !is_gz ? 1 : AGES[a]);
            }
            write_line(&s);
            world_start(s.w);
            world_run(s.w);
            for (int k = 0; k < 2; k++) {
                write_line(&s);
                rotate(&s);
                write_line(&s);
            }
            finish(&s);
        }
    }
}

/* By its name "a-1.log" could be made of "a.log", and it was written to last. It is another program's. */
static void test_neighbours_are_left_alone(void **state)
{
    (void)state;
    struct service s;
    begin(&s, &WAYS[0]);
    w_append(s.w, "a-1.log", "not ours\n");
    world_run(s.w);
    rotate(&s);
    write_line(&s);
    w_append(s.w, "a-1.log", "not ours\n");
    w_append(s.w, "a_2.log", "not ours\n");
    world_run(s.w);
    rotate(&s);
    write_line(&s);
    rotate(&s);
    write_line(&s);
    finish(&s);
}

/* A neighbour that is followed for its own name says nothing of what lies between. */
static void test_followed_neighbour(void **state)
{
    (void)state;
    struct service s = service_new(&WAYS[0]);
    world_include(s.w, 0, "a-2.log");
    w_append(s.w, "a.log.1", "archive\n");
    age(s.w, "a.log.1", 86400);
    w_append(s.w, "a-2.log", "");
    write_line(&s);
    world_start(s.w);
    world_run(s.w);
    s.n_rotated = 1;
    rotate(&s);
    write_line(&s);
    world_run(s.w);
    rotate(&s);
    write_line(&s);
    finish(&s);
}

static void test_unpacked_is_not_read_again(void **state)
{
    (void)state;
    struct service s;
    begin(&s, &WAYS[1]);
    world_run(s.w);
    rotate(&s);
    write_line(&s);
    world_run(s.w);
    world_pass(s.w, 7);
    char gz[1024], cmd[2200];
    (void)snprintf(gz, sizeof(gz), "%s", w_path(s.w, "a.log.1.gz"));
    (void)snprintf(cmd, sizeof(cmd), "gzip -dc %s > %s", gz, w_path(s.w, "a.log.1"));
    assert_int_equal(0, system(cmd));
    world_pass(s.w, 12);
    rotate(&s);
    write_line(&s);
    finish(&s);
}

/* The first bytes of a copy in the making are those of many files. */
static void test_copy_in_the_making_is_nobodys(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    world_include(w, 0, "a.log");
    w_append(w, "a.log", "1 21 0\n");
    world_start(w);
    world_run(w);
    w_unlink(w, "a.log"); /* held for its late writers */
    w_append(w, "a.log", "1 22 0\n1 22 1\n");
    world_run(w);
    w->q[0].refuses = true;
    w_append(w, "a.log.1", "1 22 0\n1 22 1\n");
    assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
    w_append(w, "a.log", "1 23 0\n");
    w_rename(w, "a.log.1", "a.log.2");
    w_append(w, "a.log.1", "1 2");
    world_run(w);
    w_append(w, "a.log.1", "3 0\n");
    assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
    w_append(w, "a.log", "1 24 0\n");
    world_run(w);
    w->q[0].refuses = false;
    tail_unblock(w->t, 0);
    world_pass(w, 12);
    expect_lines(w, 0, "1 21 0|1 22 0|1 22 1|1 23 0|1 24 0");
    expect_lines(w, 1, "1 21 0|1 22 0|1 22 1|1 23 0|1 24 0");
    world_free(w);
}

/* Renamed and compressed while nobody took its lines; when held files may take no more, the .gz is as good. */
static void test_held_file_goes_on_in_its_gz(void **state)
{
    (void)state;
    struct service s;
    begin(&s, &WAYS[1]);
    world_run(s.w);
    s.w->q[0].refuses = true;
    write_line(&s);
    world_run(s.w);
    rotate(&s);
    world_run(s.w);
    s.w->conf.held_max_bytes = 10;
    world_pass(s.w, 2);
    s.w->q[0].refuses = false;
    tail_unblock(s.w->t, 0);
    write_line(&s);
    finish(&s);
}

/* Nothing has what stood there: it is counted, once for each output. */
static void test_what_is_gone_is_counted(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    world_include(w, 0, "a.log");
    w_append(w, "a.log", "one\n");
    world_start(w);
    world_run(w);
    w->q[1].refuses = true;
    w_append(w, "a.log", "two\n");
    world_run(w);
    assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
    w_append(w, "a.log", "x\n");
    world_run(w);
    w->q[1].refuses = false;
    tail_unblock(w->t, 1);
    world_pass(w, 12);
    expect_lines(w, 0, "one|two|x");
    expect_lines(w, 1, "one|x");
    assert_int_equal(0, w->q[0].lost_bytes);
    assert_int_equal(4, w->q[1].lost_bytes);
    world_free(w);
}

/* logrotate's olddir: what is rotated goes to a folder that nobody watches. */
static void test_olddir(void **state)
{
    (void)state;
    for (int how = 0; how < 8; how++) {
        bool copies = how & 1, is_closed = how & 2, compresses = how & 4;
        struct service s;
        begin(&s, &WAYS[0]);
        w_mkdir(s.w, "old");
        w_append(s.w, "old/b.log.1", "of another file\n");
        world_pass(s.w, is_closed ? 700 : 1);
        for (int i = 1; i <= 3; i++) {
            char to[64];
            write_line(&s);
            (void)snprintf(to, sizeof(to), "old/a.log-%d", 20260101 + i);
            if (copies) {
                w_copy(s.w, "a.log", to);
                assert_int_equal(0, truncate(w_path(s.w, "a.log"), 0));
            } else {
                w_rename(s.w, "a.log", to);
            }
            if (compresses)
                w_gzip(s.w, to);
            write_line(&s);
            if (i != 2) /* the third time there is no look between two rotations */
                world_pass(s.w, 12);
        }
        finish(&s);
    }
}

static void gzip_member(struct world *w, const char *name, const char *text)
{
    gzFile gz = gzopen(w_path(w, name), "ab");
    assert_non_null(gz);
    assert_int_equal(strlen(text), gzwrite(gz, text, (unsigned)strlen(text)));
    assert_int_equal(Z_OK, gzclose(gz));
}

/* Its trailer tells of the last member only. */
static void test_gz_of_two_members(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "a.log");
    w_append(w, "a.log", "one\ntwo\n");
    world_start(w);
    world_run(w);
    gzip_member(w, "a.log.1.gz", "one\n");
    gzip_member(w, "a.log.1.gz", "two\n");
    w_unlink(w, "a.log");
    w_append(w, "a.log", "three\n");
    world_run(w);
    world_pass(w, 12);
    expect_lines(w, 0, "one|two|three");
    world_free(w);
}

/* The next file has the half that a .gz ends with, and waits for the rest: the .gz is looked at now and then. */
static void test_gz_whose_half_is_lent(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "a.log");
    w_append(w, "a.log", "a line that is long enough to know a file by" "\n");
    world_start(w);
    world_settle(w, 2);
    world_stop(w);
    w_append(w, "a.log", "1Phalf\n");
    w_rename(w, "a.log", "a.log.1");
    w_gzip(w, "a.log.1");
    w_append(w, "a.log", "1Pa line\n");
    world_start(w);
    w->lends = true;
    world_pass(w, 10);
    for (int i = 0; i < 5; i++) {
        tail_on_events(w->t);
        (void)tail_turn(w->t, w_now);
        assert_true(tail_tick(w->t, w_now) > w_now);
    }
    w->lends = false;
    world_pass(w, 2);
    expect_lines(w, 0, "a line that is long enough to know a file by" "|half");
    world_free(w);
}

/* All names are included: a copy is not read while it is being made, however little there is of it. */
static void test_copy_grows_under_an_included_name(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*");
    char text[] = TEXT "\n" TEXT "\n", half[64] = "";
    w_append(w, "a.log", text);
    world_start(w);
    world_run(w);
    memcpy(half, text, 20);
    w_append(w, "a.log.1", half);
    world_run(w);
    w_append(w, "a.log.1", text + 20);
    world_run(w);
    assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
    world_run(w);
    w_append(w, "a.log", "new\n");
    world_pass(w, 25);
    expect_lines(w, 0, TEXT "|" TEXT "|new");
    assert_int_equal(0, w->q[0].lost_bytes);
    world_free(w);
}

/* Copied, cut and written at once, then renamed, before anybody looked: what the inode holds is not what was read of it, and
 * the copy is of that. Then it is rotated some times more. */
static void cut_and_renamed(bool compresses, bool is_read, bool is_closed, int n_more)
{
    struct service s;
    begin(&s, &WAYS[3]);
    world_run(s.w);
    if (is_closed)
        world_pass(s.w, 700);
    for (int i = 0; i < 2; i++) {
        char copy[64];
        (void)snprintf(copy, sizeof(copy), "a.log-%d", 20260101 + s.n_rotated++);
        if (!is_read)
            write_line(&s);
        w_copy(s.w, "a.log", copy);
        if (compresses)
            w_gzip(s.w, copy);
        assert_int_equal(0, truncate(w_path(s.w, "a.log"), 0));
        write_line(&s);
        for (int k = 0; k <= n_more; k++) {
            rotate(&s);
            write_line(&s);
        }
        if (i == 0)
            world_run(s.w);
    }
    finish(&s);
}

static void test_cut_and_renamed_between_two_looks(void **state)
{
    (void)state;
    for (int how = 0; how < 24; how++)
        cut_and_renamed(how & 1, how & 2, how & 4, how / 8);
}

/* The same, and a crash before the cut file had its turn: those behind it are known, what it holds now is not. */
static void test_cut_and_renamed_and_crashed(void **state)
{
    (void)state;
    for (int n_more = 1; n_more <= 3; n_more++) {
        struct service s;
        begin(&s, &WAYS[3]);
        world_run(s.w);
        world_commit_all(s.w);
        w_copy(s.w, "a.log", "a.log-20260101");
        s.n_rotated++;
        assert_int_equal(0, truncate(w_path(s.w, "a.log"), 0));
        write_line(&s);
        for (int k = 0; k <= n_more; k++) {
            rotate(&s);
            write_line(&s);
        }
        tail_on_events(s.w->t);
        assert_true(world_commit(s.w, 0));
        world_crash(s.w);
        finish(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rotated_thrice_at_once),
        cmocka_unit_test(test_rotated_thrice_and_no_live_file_yet),
        cmocka_unit_test(test_rotated_after_a_long_time),
        cmocka_unit_test(test_rotated_unseen_and_the_first_deleted),
        cmocka_unit_test(test_archives_are_left_alone),
        cmocka_unit_test(test_neighbours_are_left_alone),
        cmocka_unit_test(test_followed_neighbour),
        cmocka_unit_test(test_unpacked_is_not_read_again),
        cmocka_unit_test(test_copy_in_the_making_is_nobodys),
        cmocka_unit_test(test_held_file_goes_on_in_its_gz),
        cmocka_unit_test(test_what_is_gone_is_counted),
        cmocka_unit_test(test_olddir),
        cmocka_unit_test(test_gz_whose_half_is_lent), cmocka_unit_test(test_gz_of_two_members),
        cmocka_unit_test(test_copy_grows_under_an_included_name),
        cmocka_unit_test(test_cut_and_renamed_between_two_looks),
        cmocka_unit_test(test_cut_and_renamed_and_crashed),
    };
    return cmocka_run_group_tests_name("tail/catchup", tests, NULL, NULL);
}
