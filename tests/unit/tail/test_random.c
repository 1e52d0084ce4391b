/*
 * Goal: whatever happens to files, to us and to outputs, each output has each line once, in order within its
 * file. Method: random operations from a seed: append, half lines, rename rotation (1 to 3 at once),
 * copytruncate, compress, delete when all is durable, block, unblock, commit, failed sync, crash, being down
 * while any of these go on. At the end everything is unblocked and read; then the lines are counted.
 * TAILRACE_SEED repeats one run, TAILRACE_RUNS makes more.
 */
#include "world.h"

enum { NAMES = 3, GENS_MAX = 400, OPS = 120, OUTPUTS = 2 };

struct sim {
    struct world *w;
    uint64_t rng;
    int gen[NAMES];               /* of the live file */
    int n_lines[NAMES][GENS_MAX]; /* whole lines written */
    bool has_half[NAMES];
    bool is_refusing[OUTPUTS];
    bool is_copytruncate; /* of this run: the two are not mixed by anyone */
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

static void line_text(char *out, size_t size, int name, int gen, int seq)
{
    (void)snprintf(out, size,
                   "%d %d %d padding so that even one line is enough to tell a file by, %d times %d\n", name,
                   gen, seq, gen * 7919, seq * 104729);
}

static void op_append(struct sim *s, int i)
{
    char text[256];
    int n = 1 + (int)rnd(s, 5);
    trace("append %s gen %d lines %d..%d\n", name_of(i), s->gen[i], s->n_lines[i][s->gen[i]],
          s->n_lines[i][s->gen[i]] + n - 1);
    for (int k = 0; k < n; k++) {
        line_text(text, sizeof(text), i, s->gen[i], s->n_lines[i][s->gen[i]]);
        size_t half = strlen(text) / 2;
        char rest[256];
        memcpy(rest, text + half, strlen(text + half) + 1);
        if (s->has_half[i]) {
            w_append(s->w, name_of(i), rest);
            s->has_half[i] = false;
        } else {
            w_append(s->w, name_of(i), text);
        }
        s->n_lines[i][s->gen[i]]++;
    }
    if (rnd(s, 4) == 0) {
        line_text(text, sizeof(text), i, s->gen[i], s->n_lines[i][s->gen[i]]);
        text[strlen(text) / 2] = '\0';
        w_append(s->w, name_of(i), text);
        s->has_half[i] = true;
    }
}

static bool has_file(struct sim *s, const char *name)
{
    struct stat st;
    return stat(w_path(s->w, name), &st) == 0;
}

static void finish_half(struct sim *s, int i)
{
    if (s->has_half[i])
        op_append(s, i);
    if (s->has_half[i])
        finish_half(s, i);
}

static void shift(struct sim *s, int i)
{
    for (int k = 30; k >= 1; k--) {
        for (int gz = 0; gz < 2; gz++) {
            char from[64], to[64];
            (void)snprintf(from, sizeof(from), "%s.%d%s", name_of(i), k, gz ? ".gz" : "");
            (void)snprintf(to, sizeof(to), "%s.%d%s", name_of(i), k + 1, gz ? ".gz" : "");
            if (has_file(s, from))
                w_rename(s->w, from, to);
        }
    }
}

static void op_rotate(struct sim *s, int i)
{
    if (!has_file(s, name_of(i)) || s->n_lines[i][s->gen[i]] == 0)
        return;
    finish_half(s, i);
    trace("rotate %s gen %d\n", name_of(i), s->gen[i]);
    char first[64];
    (void)snprintf(first, sizeof(first), "%s.1", name_of(i));
    shift(s, i);
    if (s->is_copytruncate) {
        w_copy(s->w, name_of(i), first);
        assert_int_equal(0, truncate(w_path(s->w, name_of(i)), 0));
    } else {
        w_rename(s->w, name_of(i), first);
    }
    s->gen[i]++;
    assert_true(s->gen[i] < GENS_MAX);
    op_append(s, i);
}

static void op_gzip(struct sim *s, int i)
{
    char name[64];
    (void)snprintf(name, sizeof(name), "%s.%d", name_of(i), 1 + (int)rnd(s, 3));
    if (has_file(s, name)) {
        trace("gzip %s\n", name);
        w_gzip(s->w, name);
    }
}

static void settle_all(struct sim *s)
{
    for (uint32_t o = 0; o < OUTPUTS; o++) {
        s->is_refusing[o] = s->w->q[o].refuses = false;
        tail_unblock(s->w->t, o);
    }
    world_run(s->w);
    world_pass(s->w, 8);
    world_commit_all(s->w);
    world_commit_all(s->w);
}

static void remove_rotated(struct sim *s)
{
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
    finish_half(s, i);
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
        for (uint32_t n = rnd(s, 3); n > 0; n--)
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
    if (rnd(s, 2) == 0 && tail_collect(s->w->t, o, &end))
        q->n_groups++;
    w_lines_clear(&q->open);
    tail_fence(s->w->t, o, q->files, q->n);
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
            line_text(want, sizeof(want), name, gen, seq);
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

static void run(uint64_t seed)
{
    struct sim *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    s->rng = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    s->is_copytruncate = seed % 3 == 2;
    s->w = world_new(OUTPUTS);
    world_include(s->w, 0, "*.log");
    for (int i = 0; i < NAMES; i++)
        op_append(s, i);
    world_start(s->w);
    world_run(s->w);
    world_commit_all(s->w);
    for (int i = 0; i < OPS; i++)
        op(s);
    for (int i = 0; i < NAMES; i++)
        finish_half(s, i);
    settle_all(s);
    world_pass(s->w, 25);
    world_commit_all(s->w);
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
    uint64_t n = runs == NULL ? 30 : strtoull(runs, NULL, 10);
    for (uint64_t seed = 1; seed <= n; seed++)
        run(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_random) };
    return cmocka_run_group_tests_name("tail/random", tests, NULL, NULL);
}
