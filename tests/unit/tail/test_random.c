/*
 * Goal: whatever happens to files, to us and to outputs, each output has each line once, in order within its
 * file. Method: random operations from a seed: append, half lines, rotation (1 to 3 at once; renamed or copied and
 * cut; numbers or dates; compressed at once, at the next time, or whenever; a writer that is late), delete when all
 * is durable, a minute and more in which nothing happens, block, unblock, commit, failed sync, crash, being down while any of
 * these go on. Between any two system calls of a rotation or a compression the tail may look: at events only, for one turn, or
 * until it is at rest; in some runs often, in some never. At the end everything is unblocked and read; then the lines are
 * counted.
 * TAILRACE_SEED repeats one run, TAILRACE_RUNS makes more, from TAILRACE_FIRST on.
 */
#include "world.h"

#include <time.h>

enum { NAMES = 3, GENS_MAX = 400, OPS = 120, OUTPUTS = 2 };

struct sim {
    struct world *w;
    uint64_t rng;
    int gen[NAMES];               /* of the live file */
    int n_lines[NAMES][GENS_MAX]; /* whole lines written */
    bool has_half[NAMES];
    bool is_refusing[OUTPUTS];
    char last[NAMES][64];         /* what the last rotation made of the live file; "" = it is compressed, or gone */
    /* Of this run: one configuration of the rotating program. */
    bool is_copytruncate, is_dated, has_new_mtime, is_short;
    enum { COMPRESS_WHENEVER, COMPRESS_NEVER, COMPRESS_NOW, COMPRESS_DELAYED } compress;
    uint32_t look_one_in; /* 0 = the tail does not look in the middle of things */
};

/* With TAILRACE_TRACE set: what a seed does, step by step. */
static void PRINTF_LIKE(1, 2) trace(const char *fmt, ...)
{
    va_list ap;
    if (getenv("TAILRACE_TRACE") == NULL)
        return;
    va_start(ap, fmt);
    (void)vfprintf(stderr, fmt, ap);
    va_end(ap);
}

static uint32_t rnd(struct sim *s, uint32_t n)
{
    s->rng ^= s->rng << 13;
    s->rng ^= s->rng >> 7;
    s->rng ^= s->rng << 17;
    return (uint32_t)(s->rng >> 33) % n;
}

static const char *name_of(int i)
{
    static const char *const NAME[NAMES] = { "one.log", "two.log", "three.log" };
    return NAME[i];
}

static void line_text(const struct sim *s, char *out, size_t size, int name, int gen, int seq)
{
    if (s->is_short)
        (void)snprintf(out, size, "%d %d %d\n", name, gen, seq);
    else
        (void)snprintf(out, size,
                   "%d %d %d padding so that even one line is enough to tell a file by, %d times %d\n", name,
                   gen, seq, gen * 7919, seq * 104729);
}

/* The tail may come by here. */
static void maybe_look(struct sim *s)
{
    if (s->w->t == NULL || s->look_one_in == 0 || rnd(s, s->look_one_in) > 0)
        return;
    uint32_t how = rnd(s, 5);
    trace("  look %u\n", how);
    if (how < 3)
        tail_on_events(s->w->t);
    for (uint32_t n = how == 0 ? 0 : 1 + rnd(s, 3); n > 0 && how < 4; n--)
        (void)tail_turn(s->w->t, w_now);
    if (how == 2)
        (void)tail_tick(s->w->t, w_now);
    if (how == 4)
        world_run(s->w);
}

static void append_to(struct sim *s, int i, const char *file)
{
    char text[256];
    int n = 1 + (int)rnd(s, 5);
    trace("append %s gen %d lines %d..%d\n", file, s->gen[i], s->n_lines[i][s->gen[i]],
          s->n_lines[i][s->gen[i]] + n - 1);
    for (int k = 0; k < n; k++) {
        line_text(s, text, sizeof(text), i, s->gen[i], s->n_lines[i][s->gen[i]]);
        const char *rest = text + (s->has_half[i] ? strlen(text) / 2 : 0);
        s->has_half[i] = false;
        w_append(s->w, file, rest);
        s->n_lines[i][s->gen[i]]++;
    }
    if (rnd(s, 4) == 0) {
        line_text(s, text, sizeof(text), i, s->gen[i], s->n_lines[i][s->gen[i]]);
        text[strlen(text) / 2] = '\0';
        w_append(s->w, file, text);
        s->has_half[i] = true;
    }
}

static void op_append(struct sim *s, int i)
{
    append_to(s, i, name_of(i));
}

static bool has_file(struct sim *s, const char *name)
{
    struct stat st;
    return stat(w_path(s->w, name), &st) == 0;
}

static void finish_half(struct sim *s, int i, const char *file)
{
    while (s->has_half[i])
        append_to(s, i, file);
}

static void shift(struct sim *s, int i)
{
    for (int k = 30; k >= 1; k--) {
        for (int gz = 0; gz < 2; gz++) {
            char from[64], to[64];
            (void)snprintf(from, sizeof(from), "%s.%d%s", name_of(i), k, gz ? ".gz" : "");
            (void)snprintf(to, sizeof(to), "%s.%d%s", name_of(i), k + 1, gz ? ".gz" : "");
            if (!has_file(s, from))
                continue;
            w_rename(s->w, from, to);
            maybe_look(s);
        }
    }
}

/* NAME to NAME.gz, step by step. */
static void compress_file(struct sim *s, const char *name)
{
    char to[1024], raw[65536];
    struct stat st;
    trace("gzip %s\n", name);
    (void)snprintf(to, sizeof(to), "%s.gz%s", w_path(s->w, name), s->has_new_mtime ? ".tmp" : "");
    int in = open(w_path(s->w, name), O_RDONLY | O_CLOEXEC);
    assert_true(in >= 0);
    assert_int_equal(0, fstat(in, &st));
    int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    assert_true(out >= 0);
    maybe_look(s);
    gzFile gz = gzdopen(out, "wb");
    assert_non_null(gz);
    for (ssize_t n; (n = read(in, raw, MAX((size_t)st.st_size / 2, (size_t)1))) > 0; maybe_look(s)) {
        assert_int_equal(n, gzwrite(gz, raw, (unsigned)n));
        assert_int_equal(Z_OK, gzflush(gz, Z_SYNC_FLUSH));
    }
    close(in);
    assert_int_equal(Z_OK, gzclose(gz));
    maybe_look(s);
    if (s->has_new_mtime) { /* as the kubelet does it */
        char whole[64], made[80];
        (void)snprintf(whole, sizeof(whole), "%s.gz", name);
        (void)snprintf(made, sizeof(made), "%s.gz.tmp", name);
        w_rename(s->w, made, whole);
    } else {
        struct timespec times[2] = { st.st_atim, st.st_mtim };
        assert_int_equal(0, utimensat(AT_FDCWD, to, times, 0));
    }
    maybe_look(s);
    w_unlink(s->w, name);
    maybe_look(s);
}

static void copy_and_cut(struct sim *s, const char *from, const char *to)
{
    char raw[65536];
    int in = open(w_path(s->w, from), O_RDONLY | O_CLOEXEC);
    int out = open(w_path(s->w, to), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    struct stat st;
    assert_true(in >= 0 && out >= 0);
    assert_int_equal(0, fstat(in, &st));
    maybe_look(s);
    for (ssize_t n; (n = read(in, raw, MAX((size_t)st.st_size / 2, (size_t)1))) > 0; maybe_look(s))
        assert_int_equal(n, write(out, raw, (size_t)n));
    close(in);
    close(out);
    assert_int_equal(0, truncate(w_path(s->w, from), 0));
    maybe_look(s);
}

static void compress_last(struct sim *s, int i)
{
    if (s->last[i][0] == '\0' || !has_file(s, s->last[i]))
        return;
    compress_file(s, s->last[i]);
    s->last[i][0] = '\0';
}

static void op_rotate(struct sim *s, int i)
{
    if (!has_file(s, name_of(i)) || s->n_lines[i][s->gen[i]] == 0)
        return;
    bool is_late = !s->is_copytruncate && rnd(s, 3) == 0;
    if (!is_late)
        finish_half(s, i, name_of(i));
    trace("rotate %s gen %d\n", name_of(i), s->gen[i]);
    if (s->compress == COMPRESS_DELAYED)
        compress_last(s, i);
    char first[64];
    if (s->is_dated)
        (void)snprintf(first, sizeof(first), "%s-%d", name_of(i), 20260101 + s->gen[i]);
    else
        (void)snprintf(first, sizeof(first), "%s.1", name_of(i));
    if (!s->is_dated)
        shift(s, i);
    if (s->is_copytruncate)
        copy_and_cut(s, name_of(i), first);
    else
        w_rename(s->w, name_of(i), first);
    maybe_look(s);
    if (is_late) {
        append_to(s, i, first);
        maybe_look(s);
        finish_half(s, i, first);
    }
    memcpy(s->last[i], first, sizeof(first));
    s->gen[i]++;
    assert_true(s->gen[i] < GENS_MAX);
    if (!s->is_copytruncate && rnd(s, 2) == 0) {
        w_append(s->w, name_of(i), "");
        maybe_look(s);
    }
    bool is_first = rnd(s, 2) == 0;
    if (is_first)
        op_append(s, i);
    if (s->compress == COMPRESS_NOW)
        compress_last(s, i);
    maybe_look(s);
    if (!is_first)
        op_append(s, i);
}

static void op_gzip(struct sim *s, int i)
{
    char name[64];
    (void)snprintf(name, sizeof(name), "%s.%d", name_of(i), 1 + (int)rnd(s, 3));
    if (s->compress == COMPRESS_WHENEVER && !s->is_dated && has_file(s, name))
        compress_file(s, name);
}

static void settle_all(struct sim *s)
{
    for (uint32_t o = 0; o < OUTPUTS; o++) {
        s->is_refusing[o] = s->w->q[o].refuses = false;
        tail_unblock(s->w->t, o);
    }
    world_run(s->w);
    world_settle(s->w, 8);
    world_commit_all(s->w);
}

static void remove_rotated(struct sim *s)
{
    for (int i = 0; s->is_dated && i < NAMES; i++)
        for (int g = 0; g <= s->gen[i]; g++)
            for (int gz = 0; gz < 2; gz++) {
                char name[64];
                (void)snprintf(name, sizeof(name), "%s-%d%s", name_of(i), 20260101 + g, gz ? ".gz" : "");
                if (has_file(s, name))
                    w_unlink(s->w, name);
            }
    for (int i = 0; i < NAMES; i++)
        for (int k = 1; k <= 31; k++)
            for (int gz = 0; gz < 2; gz++) {
                char name[64];
                (void)snprintf(name, sizeof(name), "%s.%d%s", name_of(i), k, gz ? ".gz" : "");
                if (has_file(s, name))
                    w_unlink(s->w, name);
            }
}

static void op_delete(struct sim *s, int i)
{
    if (!has_file(s, name_of(i)))
        return;
    finish_half(s, i, name_of(i));
    trace("delete %s gen %d\n", name_of(i), s->gen[i]);
    settle_all(s);
    remove_rotated(s);
    w_unlink(s->w, name_of(i));
    s->gen[i]++;
    world_run(s->w);
    op_append(s, i); /* seen once before it may be rotated: of a name that nobody knows no sibling is read */
    world_run(s->w);
    world_commit_all(s->w);
}

static void op_file(struct sim *s)
{
    int i = (int)rnd(s, NAMES);
    switch (rnd(s, 6)) {
    case 0:
    case 1:
    case 2:
        op_append(s, i);
        break;
    case 3:
        op_rotate(s, i);
        break;
    case 4:
        for (uint32_t n = rnd(s, 4); n > 0; n--)
            op_rotate(s, i);
        break;
    case 5:
        op_gzip(s, i);
        break;
    }
}

static void op_down(struct sim *s)
{
    if (rnd(s, 2) == 0)
        world_commit_all(s->w);
    trace("down\n");
    world_stop(s->w);
    for (uint32_t n = rnd(s, 5); n > 0; n--)
        op_file(s);
    trace("up\n");
    world_start(s->w);
    for (uint32_t o = 0; o < OUTPUTS; o++)
        s->w->q[o].refuses = s->is_refusing[o];
}

/* A group is written, its sync fails: the queue and the tail go back to what is durable. */
static void op_fence(struct sim *s, uint32_t o)
{
    struct group_end end = { 0 };
    struct w_queue *q = &s->w->q[o];
    trace("fence %u\n", o);
    if (rnd(s, 2) == 0 && tail_collect(s->w->t, o, rnd(s, 4), &end))
        q->n_groups++;
    w_lines_clear(&q->open);
    tail_fence(s->w->t, o, q->files, q->n);
}

/* Long enough to fall asleep. */
static void op_quiet(struct sim *s)
{
    trace("quiet\n");
    world_run(s->w);
    world_commit_all(s->w);
    world_settle(s->w, 80);
    world_pass(s->w, 10 * (int)rnd(s, 2));
}

static void op(struct sim *s)
{
    uint32_t o = rnd(s, OUTPUTS);
    switch (rnd(s, 13)) {
    case 7:
        op_fence(s, o);
        break;
    case 0:
        op_down(s);
        break;
    case 1:
        trace("refuse %u\n", o);
        s->is_refusing[o] = s->w->q[o].refuses = true;
        break;
    case 2:
        trace("accept %u\n", o);
        s->is_refusing[o] = s->w->q[o].refuses = false;
        tail_unblock(s->w->t, o);
        break;
    case 3:
        (void)world_commit(s->w, o);
        break;
    case 4:
        world_commit_all(s->w);
        break;
    case 5:
        op_delete(s, (int)rnd(s, NAMES));
        break;
    case 6:
        if (rnd(s, 4) == 0)
            op_quiet(s);
        else
            world_pass(s->w, 1 + (int)rnd(s, 7));
        break;
    default:
        op_file(s);
        break;
    }
    if (rnd(s, 3) > 0) {
        trace("run\n");
        world_run(s->w);
    }
}

static void check(struct sim *s, uint64_t seed)
{
    for (uint32_t o = 0; o < OUTPUTS; o++) {
        int next[NAMES][GENS_MAX] = { { 0 } };
        const struct w_lines *l = &s->w->q[o].durable;
        for (size_t k = 0; k < l->n; k++) {
            char want[256], *end;
            int name = (int)strtol(l->item[k], &end, 10), gen = (int)strtol(end, &end, 10);
            int seq = (int)strtol(end, &end, 10);
            assert_in_range(name, 0, NAMES - 1);
            assert_in_range(gen, 0, GENS_MAX - 1);
            line_text(s, want, sizeof(want), name, gen, seq);
            want[strlen(want) - 1] = '\0';
            if (strcmp(want, l->item[k]) != 0)
                fail_msg("seed %llu output %u: a damaged line: %s", (unsigned long long)seed, o, l->item[k]);
            if (seq != next[name][gen])
                fail_msg("seed %llu output %u: file %d.%d line %d came when %d was next",
                         (unsigned long long)seed, o, name, gen, seq, next[name][gen]);
            next[name][gen]++;
        }
        for (int i = 0; i < NAMES; i++)
            for (int g = 0; g <= s->gen[i]; g++)
                if (next[i][g] != s->n_lines[i][g])
                    fail_msg("seed %llu output %u: file %d.%d has %d of %d lines", (unsigned long long)seed,
                             o, i, g, next[i][g], s->n_lines[i][g]);
        assert_int_equal(0, s->w->q[o].lost_bytes);
    }
}

/* What was rotated before anyone looked, and is nobody's business; its time may say anything. */
static void make_archive(struct sim *s, int i)
{
    char name[64], text[256], gz[80];
    line_text(s, text, sizeof(text), i, GENS_MAX, 0); /* check() would stumble over it */
    (void)snprintf(name, sizeof(name), s->is_dated ? "%s-20251231" : "%s.1", name_of(i));
    (void)snprintf(gz, sizeof(gz), "%s.gz", name);
    w_append(s->w, name, text);
    w_gzip(s->w, name);
    time_t when = time(NULL) + (s->has_new_mtime ? 86400 : -86400);
    struct timespec times[2] = { { when, 0 }, { when, 0 } };
    assert_int_equal(0, utimensat(AT_FDCWD, w_path(s->w, gz), times, 0));
}

static void run(uint64_t seed)
{
    struct sim *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    s->rng = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    s->is_copytruncate = seed % 3 == 2;
    s->is_dated = rnd(s, 2) == 0;
    s->compress = (int)rnd(s, 4);
    s->has_new_mtime = rnd(s, 4) == 0;
    s->is_short = rnd(s, 4) == 0;
    static const uint32_t OFTEN[] = { 0, 2, 4, 10 };
    s->look_one_in = OFTEN[rnd(s, 4)];
    trace("run: copytruncate %d dated %d compress %d new mtime %d short %d look 1 in %u\n", s->is_copytruncate,
          s->is_dated, (int)s->compress, s->has_new_mtime, s->is_short, s->look_one_in);
    s->w = world_new(OUTPUTS);
    s->w->max_new = rnd(s, 4);
    world_include(s->w, 0, "*.log");
    for (int i = 0; i < NAMES; i++) {
        op_append(s, i);
        if (rnd(s, 2) == 0)
            make_archive(s, i);
    }
    world_start(s->w);
    world_run(s->w);
    world_commit_all(s->w);
    for (int i = 0; i < OPS; i++)
        op(s);
    for (int i = 0; i < NAMES; i++)
        finish_half(s, i, name_of(i));
    settle_all(s);
    world_settle(s->w, 25);
    check(s, seed);
    world_free(s->w);
    free(s);
}

static void test_random(void **state)
{
    (void)state;
    const char *one = getenv("TAILRACE_SEED"), *runs = getenv("TAILRACE_RUNS");
    if (one != NULL) {
        run(strtoull(one, NULL, 10));
        return;
    }
    const char *from = getenv("TAILRACE_FIRST");
    uint64_t n = runs == NULL ? 30 : strtoull(runs, NULL, 10), first = from == NULL ? 1 : strtoull(from, NULL, 10);
    for (uint64_t seed = first; seed < first + n; seed++)
        run(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_random) };
    return cmocka_run_group_tests_name("tail/random", tests, NULL, NULL);
}
