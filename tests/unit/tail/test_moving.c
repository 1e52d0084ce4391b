/*
 * Goal: names that change while they are looked at, between the listing of a folder and the look at what was listed: each
 * file is read once, and what is known of it stays known.
 * Method: world.h over a disk on which rotation goes on at each look.
 */
#include <fcntl.h>
#include <unistd.h>

#include "life.h"
#include "world.h"

#include "agent/queue/fs.h"
#include "agent/tail/internal.h"

/* Rotation goes on at each look: whoever looks finds the name that it had a moment ago. */
static struct {
    const struct world *w;
    int n, left;
} moving;

static void move_on(void)
{
    char from[32], to[32];
    if (moving.left-- <= 0)
        return;
    (void)snprintf(from, sizeof(from), "a.log.%d", moving.n);
    (void)snprintf(to, sizeof(to), "a.log.%d", ++moving.n);
    w_rename(moving.w, from, to);
}

/* What the world does after a look at names. */
static void (*on_look)(void);

static int looking_stat(int dir_fd, const char *name, struct stat *st, bool follow)
{
    int r = fs_real.stat(dir_fd, name, st, follow);
    on_look();
    return r;
}

static int looking_fstat(int fd, struct stat *st)
{
    int r = fs_real.fstat(fd, st);
    on_look();
    return r;
}

static int looking_open(int dir_fd, const char *name, int flags, mode_t mode)
{
    int r = fs_real.open(dir_fd, name, flags, mode);
    on_look();
    return r;
}

static int looking_list(int dir_fd, void (*each)(void *ctx, const char *name), void *ctx)
{
    int r = fs_real.list(dir_fd, each, ctx);
    on_look();
    return r;
}

static int looking_realpath(const char *path, char ret[PATH_MAX])
{
    int r = fs_real.realpath(path, ret);
    on_look();
    return r;
}

/* The first file is read, and all of it is durable: its descriptor goes. Then it is renamed once more. */
static struct world *read_and_renamed(void)
{
    struct world *w = world_new(1);
    world_include(w, 0, "a.log");
    w_append(w, "a.log", "the first, long enough to be known by\n");
    world_start(w);
    world_run(w);
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "the second, as long as the one before\n");
    world_settle(w, 8);
    world_pass(w, 2);
    w_rename(w, "a.log.1", "a.log.2");
    moving.w = w;
    moving.n = 2;
    return w;
}

static void test_read_and_renamed_again_and_again(void **state)
{
    (void)state;
    for (int times = 1; times < 20; times++) {
        struct fs_ops ops = fs_real;
        ops.realpath = looking_realpath;
        ops.list = looking_list;
        on_look = move_on;
        struct world *w = read_and_renamed();
        moving.left = times;
        fs_set_ops(&ops);
        world_run(w);
        fs_set_ops(NULL);
        world_settle(w, 12);
        world_settle(w, 12);
        expect_lines(w, 0, "the first, long enough to be known by|the second, as long as the one before");
        world_free(w);
    }
}

static void lose_events(const struct world *w)
{
    char events[4096];
    while (read(tail_fd(w->t), events, sizeof(events)) > 0)
        continue;
}

/* All names of a folder move on by one after the look at this one of them: so the listing has files under two names. */
static struct {
    struct world *w;
    const char *after;
    int n_rotated, left;
} shift;

static void shift_all(void)
{
    char from[32], to[32];
    for (int i = shift.n_rotated++; i >= 1; i--) {
        (void)snprintf(from, sizeof(from), "a.log.%d", i);
        (void)snprintf(to, sizeof(to), "a.log.%d", i + 1);
        w_rename(shift.w, from, to);
    }
    w_rename(shift.w, "a.log", "a.log.1");
    life_lines(shift.w, 3);
}

static int shifting_stat(int dir_fd, const char *name, struct stat *st, bool follow)
{
    int r = fs_real.stat(dir_fd, name, st, follow);
    if (dir_fd != AT_FDCWD && strcmp(name, shift.after) == 0 && shift.left-- > 0)
        shift_all();
    return r;
}

struct names {
    char name[64][NAME_MAX + 1];
    size_t n;
};

static void note_name(void *ctx, const char *name)
{
    struct names *all = ctx;
    assert_true(all->n < ARRAY_LEN(all->name));
    (void)snprintf(all->name[all->n++], sizeof(all->name[0]), "%s", name);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* The lower number first, whatever the disk's order is. */
static int sorted_list(int dir_fd, void (*each)(void *ctx, const char *name), void *ctx)
{
    struct names all = { 0 };
    int r = fs_real.list(dir_fd, note_name, &all);
    qsort(all.name, all.n, sizeof(all.name[0]), compare_names);
    for (size_t i = 0; i < all.n; i++)
        each(ctx, all.name[i]);
    return r;
}

static void test_listed_under_two_names(void **state)
{
    (void)state;
    const char *after[] = { "a.log.1", "a.log.2", "a.log.3" };
    for (size_t i = 0; i < ARRAY_LEN(after); i++) {
        for (int times = 1; times < 7; times++) {
            struct fs_ops ops = fs_real;
            ops.stat = shifting_stat;
            ops.list = sorted_list;
            struct world *w = world_new(1);
            world_include(w, 0, "a.log");
            life_written = 0;
            life_lines(w, 3);
            world_start(w);
            world_run(w);
            shift.w = w;
            shift.n_rotated = 0;
            shift.after = after[i];
            for (int k = 0; k < 3; k++)
                shift_all(); /* two that nobody has seen: */
            lose_events(w);
            tail_overflowed(w->t);
            shift.left = times;
            fs_set_ops(&ops);
            world_run(w);
            fs_set_ops(NULL);
            world_settle(w, 12);
            world_settle(w, 12);
            assert_true(shift.left < times);
            life_expect_each_once(w, after[i]);
            world_free(w);
        }
    }
}

/* One file, two names, from before the first look at it. */
static void test_linked_twice(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "a.log");
    w_append(w, "a.log", "line of the first file\n");
    world_start(w);
    world_run(w);
    w_rename(w, "a.log", "a.log.3");
    w_append(w, "a.log", "line of the second file\n");
    assert_int_equal(0, link(w_path(w, "a.log"), w_path(w, "a.log.2")));
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "line of the third file\n");
    world_run(w);
    world_settle(w, 12);
    expect_lines(w, 0, "line of the first file|line of the second file|line of the third file");
    world_free(w);
}

/* The name moves on just before each look at it, and nobody has been told yet: a rename is seen before its event comes. */
static int untold_stat(int dir_fd, const char *name, struct stat *st, bool follow)
{
    char last[32];
    (void)snprintf(last, sizeof(last), "a.log.%d", moving.n);
    if (moving.left > 0 && slice_ends(slice_cstr(name), slice_cstr(last))) {
        move_on();
        lose_events(moving.w);
    }
    return fs_real.stat(dir_fd, name, st, follow);
}

static void test_moves_on_untold(void **state)
{
    (void)state;
    for (int times = 1; times <= LOOKS_MAX; times++) {
        struct fs_ops ops = fs_real;
        ops.stat = untold_stat;
        struct world *w = read_and_renamed();
        moving.left = times;
        fs_set_ops(&ops);
        world_run(w);
        fs_set_ops(NULL);
        assert_int_equal(0, moving.left);
        tail_overflowed(w->t);
        world_settle(w, 12);
        w_rename(w, "a.log", "a.log.1");
        w_append(w, "a.log", "the third\n");
        world_settle(w, 12);
        world_settle(w, 12);
        expect_lines(w, 0, "the first, long enough to be known by|the second, as long as the one before|the third");
        world_free(w);
    }
}

/* The world acts once, after this many calls that look at names. */
static struct {
    struct world *w;
    void (*act)(struct world *w);
    int after;
} meanwhile;

static void looked(void)
{
    if (--meanwhile.after == 0)
        meanwhile.act(meanwhile.w);
}

/* False: there are not so many calls. */
static bool run_and_act(struct world *w, void (*act)(struct world *w), int after)
{
    struct fs_ops ops = fs_real;
    ops.stat = looking_stat;
    ops.fstat = looking_fstat;
    ops.open = looking_open;
    ops.list = looking_list;
    ops.realpath = looking_realpath;
    on_look = looked;
    meanwhile.w = w;
    meanwhile.act = act;
    meanwhile.after = after;
    fs_set_ops(&ops);
    world_run(w);
    fs_set_ops(NULL);
    return meanwhile.after <= 0;
}

/* By the clock that the agent goes by, however busy the machine is: one that nobody has seen yet is new by its time alone. */
static void write_now(struct world *w)
{
    const struct timespec now = { .tv_sec = w_wall() / NS_PER_SEC, .tv_nsec = w_wall() % NS_PER_SEC };
    life_lines(w, 3);
    assert_int_equal(0, utimensat(AT_FDCWD, w_path(w, "a.log"), (struct timespec[]){ now, now }, 0));
}

static void rotate(struct world *w)
{
    w_rename(w, "a.log.1", "a.log.2");
    w_rename(w, "a.log", "a.log.1");
    write_now(w);
}

static void rotate_and_compress(struct world *w)
{
    rotate(w);
    w_gzip(w, "a.log.1");
}

/* What was compressed before it was ever noted need not come. */
static void expect_none_twice(const struct world *w, const char *what)
{
    unsigned char seen[100] = { 0 };
    for (size_t i = 0; i < w->q[0].durable.n; i++)
        if (++seen[strtoul(w->q[0].durable.item[i] + 5, NULL, 10)] > 1)
            fail_msg("%s: %s comes twice", what, w->q[0].durable.item[i]);
    for (unsigned i = life_written - 3; i < life_written; i++)
        assert_int_equal(1, seen[i]);
}

/* A file and the one after it come to be known in one look, and move on at some moment of it: neither is begun twice. */
static void test_moves_while_begun(void **state)
{
    (void)state;
    void (*const acts[])(struct world *w) = { rotate, rotate_and_compress };
    for (size_t i = 0; i < ARRAY_LEN(acts); i++) {
        bool has_acted = true;
        for (int after = 1; has_acted; after++) {
            char what[64];
            (void)snprintf(what, sizeof(what), "act %zu after %d calls", i, after);
            struct world *w = world_new(1);
            clock_set_source(w_mono, w_wall);
            world_include(w, 0, "a.log");
            world_start(w);
            world_run(w);
            life_written = 0;
            write_now(w);
            w_rename(w, "a.log", "a.log.1");
            write_now(w);
            has_acted = run_and_act(w, acts[i], after);
            world_settle(w, 12);
            world_settle(w, 12);
            if (acts[i] == rotate)
                life_expect_each_once(w, what);
            expect_none_twice(w, what);
            world_free(w);
        }
    }
}

/* gzip is at it: NAME is there still, and NAME.gz holds the first half of its text. */
static void gzip_half(struct world *w, const char *name)
{
    char raw[65536], to[1024];
    (void)snprintf(to, sizeof(to), "%s.gz", w_path(w, name));
    int in = open(w_path(w, name), O_RDONLY | O_CLOEXEC);
    ssize_t n = read(in, raw, sizeof(raw));
    assert_true(n > 1);
    close(in);
    gzFile out = gzopen(to, "wb0"); /* as it stands */
    assert_non_null(out);
    assert_int_equal(n, gzwrite(out, raw, (unsigned)n));
    assert_int_equal(Z_OK, gzclose(out));
    assert_int_equal(0, truncate(to, n / 2));
}

static void shift_and_compress_half(struct world *w)
{
    w_rename(w, "a.log.1.gz", "a.log.2.gz");
    w_rename(w, "a.log", "a.log.1");
    write_now(w);
    gzip_half(w, "a.log.1");
}

/* A .gz is listed, and another one has its name when it is looked at, in the making of a file that was not listed: what that holds
 * is the other's. */
static void test_another_is_compressed_meanwhile(void **state)
{
    (void)state;
    bool has_acted = true;
    for (int after = 1; has_acted; after++) {
        char what[64];
        (void)snprintf(what, sizeof(what), "after %d calls", after);
        struct world *w = world_new(1);
        clock_set_source(w_mono, w_wall);
        world_include(w, 0, "a.log");
        life_written = 0;
        write_now(w);
        world_start(w);
        world_run(w);
        w_rename(w, "a.log", "a.log.3");
        write_now(w);
        world_run(w);
        w_rename(w, "a.log", "a.log.1");
        write_now(w);
        w_gzip(w, "a.log.1");
        world_run(w);
        world_settle(w, 12);
        w_rename(w, "a.log.3", "a.log.4");
        has_acted = run_and_act(w, shift_and_compress_half, after);
        if (!has_acted)
            shift_and_compress_half(w);
        world_settle(w, 12);
        world_settle(w, 12);
        life_expect_each_once(w, what);
        world_free(w);
    }
}

static const struct tail_file *at(struct world *w, const char *name)
{
    const struct tail_file *f = file_by_path(w->t, w_path(w, name));
    assert_non_null(f);
    return f;
}

static struct world *one_from_before(void)
{
    struct world *w = world_new(1);
    world_include(w, 0, "a.log");
    w_append(w, "a.log", "from before\n");
    world_start(w);
    world_run(w);
    return w;
}

/* One record over four files, the last one is the live one. */
static void rotate_thrice(struct world *w)
{
    w_rename(w, "a.log", "a.log.3");
    w_append(w, "a.log", "1Pgoes on \n");
    w_rename(w, "a.log", "a.log.2");
    w_append(w, "a.log", "1Pand on \n");
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "1Fand ends\n");
}

/* The live file is begun, and then in one look those that were before it, behind none that has a name: also after a restart, when it
 * is none that lives any more, it is the last of them. */
static void test_some_before_the_live_one(void **state)
{
    (void)state;
    bool has_acted = true;
    for (int after = 1; has_acted; after++) {
        struct world *w = one_from_before();
        w_unlink(w, "a.log");
        w_append(w, "a.log", "1Pit begins, \n");
        has_acted = run_and_act(w, rotate_thrice, after);
        if (!has_acted)
            rotate_thrice(w);
        world_run(w);
        world_commit_all(w);
        world_stop(w);
        w_rename(w, "a.log.3", "a.log.4");
        w_rename(w, "a.log.2", "a.log.3");
        w_rename(w, "a.log.1", "a.log.2");
        w_rename(w, "a.log", "a.log.1");
        world_start(w);
        world_run(w);
        if (at(w, "a.log.3")->after != at(w, "a.log.4") || at(w, "a.log.2")->after != at(w, "a.log.3") ||
            at(w, "a.log.1")->after != at(w, "a.log.2"))
            fail_msg("after %d calls", after);
        world_free(w);
    }
}

static void rotate_twice(struct world *w)
{
    w_rename(w, "a.log", "a.log.2");
    w_append(w, "a.log", "1Pgoes on \n");
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "1Fand ends\n");
}

/* The live file is listed under a name that it has got since the events were read, and behind it one that nobody has seen: that
 * came after it. */
static void test_one_behind_the_live_one(void **state)
{
    (void)state;
    bool has_acted = true;
    for (int after = 1; has_acted; after++) {
        struct world *w = one_from_before();
        w_rename(w, "a.log", "a.log.3");
        w_append(w, "a.log", "1Pit begins, \n");
        world_run(w);
        w_rename(w, "a.log.3", "a.log.4");
        has_acted = run_and_act(w, rotate_twice, after);
        if (!has_acted)
            rotate_twice(w);
        world_run(w);
        if (at(w, "a.log.2")->after != at(w, "a.log.4") || at(w, "a.log.1")->after != at(w, "a.log.2") ||
            at(w, "a.log")->after != at(w, "a.log.1"))
            fail_msg("after %d calls", after);
        world_free(w);
    }
}

/* A file is filled after it was looked at and found empty, but before it is read; then, once its first line was read, it gets a
 * second one, and all of it is copied and cut. */
static struct {
    const struct world *w;
    int n;
} filling;

static ssize_t filling_pread(int fd, void *ptr, size_t len, uint64_t off)
{
    const struct world *w = filling.w;
    ssize_t n = fs_real.pread(fd, ptr, len, off);
    if (n == 0 && filling.n == 0) {
        filling.n = 1;
        w_append(w, "a.log", "the first line of a text, which is long enough to know a text by\n");
    } else if (n > 0 && filling.n == 1) {
        filling.n = 2;
        w_append(w, "a.log", "second\n");
        w_copy(w, "a.log", "a.log.1");
        assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
        w_append(w, "a.log", "another text, which is longer than the first line of the one before it, so that nobody sees it cut\n");
    }
    return n;
}

/* The copy is known by what was read. */
static void test_filled_between_look_and_read(void **state)
{
    (void)state;
    struct fs_ops ops = fs_real;
    ops.pread = filling_pread;
    struct world *w = world_new(1);
    world_include(w, 0, "a.log");
    w_append(w, "a.log", "");
    world_start(w);
    filling.w = w;
    filling.n = 0;
    fs_set_ops(&ops);
    world_run(w);
    fs_set_ops(NULL);
    assert_int_equal(2, filling.n);
    world_settle(w, 12);
    world_settle(w, 12);
    expect_lines(w, 0, "the first line of a text, which is long enough to know a text by|second|another text, which is longer than the "
                       "first line of the one before it, so that nobody sees it cut");
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_and_renamed_again_and_again),
        cmocka_unit_test(test_listed_under_two_names),
        cmocka_unit_test(test_linked_twice),
        cmocka_unit_test(test_moves_on_untold),
        cmocka_unit_test(test_moves_while_begun),
        cmocka_unit_test(test_another_is_compressed_meanwhile),
        cmocka_unit_test(test_some_before_the_live_one),
        cmocka_unit_test(test_one_behind_the_live_one),
        cmocka_unit_test(test_filled_between_look_and_read),
    };
    return cmocka_run_group_tests_name("tail/moving", tests, NULL, NULL);
}
