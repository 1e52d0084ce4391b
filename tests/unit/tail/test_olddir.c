/*
 * Goal: a log that is rotated into another folder and compressed there (logrotate's olddir), while one of two outputs stands
 * still, is at each output once, over reloads and restarts.
 * Method: world.h; lives made of a seed, and the two ways in which it once went wrong.
 */
#include "tests/unit/tail/world.h"

#define LIVES 60
#define STEPS 30

/* One life. folder: where rotation puts its files. */
static struct {
    const char *folder;
    unsigned n_lines, n_rotated, n_zipped;
    uint64_t rng;
} life;

static unsigned pick(unsigned n)
{
    life.rng = life.rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(life.rng >> 33) % n;
}

static void lines(struct world *w, unsigned n)
{
    char text[1024] = "";
    for (size_t at = 0; n > 0; n--)
        at += (size_t)snprintf(text + at, sizeof(text) - at, "line %05u of a log that is rotated far away\n", life.n_lines++);
    w_append(w, "log/a.log", text);
}

static struct world *begin(const char *folder, uint64_t seed)
{
    struct world *w = world_new(2);
    memset(&life, 0, sizeof(life));
    life.folder = folder;
    life.rng = seed * 77777 + 1;
    w_mkdir(w, "log");
    w_mkdir(w, folder);
    world_include(w, 0, "log/*.log");
    lines(w, 10);
    world_start(w);
    world_run(w);
    return w;
}

static const char *rotated_name(unsigned n)
{
    static char name[64];
    (void)snprintf(name, sizeof(name), "%s/a.log.%u", life.folder, 20260000 + n);
    return name;
}

/* The live file was seen: one that came and went between two looks is nobody's in another folder. */
static void rotate(struct world *w)
{
    world_run(w);
    w_rename(w, "log/a.log", rotated_name(life.n_rotated++));
    lines(w, 2 + pick(5)); /* of less than ADOPT_BYTES_MIN a .gz is not known again */
}

static void zip(struct world *w)
{
    if (life.n_zipped < life.n_rotated)
        w_gzip(w, rotated_name(life.n_zipped++));
}

static void refuse(struct world *w, bool does)
{
    w->q[1].refuses = does;
    if (!does)
        tail_unblock(w->t, 1);
}

static void reload(struct world *w)
{
    bool refuses = w->q[1].refuses;
    world_reload(w);
    w->q[1].refuses = refuses;
}

static void step(struct world *w)
{
    switch (pick(8)) {
    case 0:
        lines(w, 1 + pick(5));
        break;
    case 1:
        rotate(w);
        break;
    case 2:
        zip(w);
        break;
    case 3:
        refuse(w, !w->q[1].refuses);
        break;
    case 4:
        reload(w); /* the groups that are open are given up, as on a full disk */
        break;
    case 5:
        world_commit(w, pick(2));
        break;
    case 6:
        world_pass(w, 7);
        break;
    default:
        world_run(w);
    }
}

static void end(struct world *w, uint64_t seed)
{
    refuse(w, false);
    for (int i = 0; i < 6; i++)
        world_settle(w, 10);
    for (int o = 0; o < 2; o++) {
        unsigned char seen[1000] = { 0 };
        for (size_t i = 0; i < w->q[o].durable.n; i++)
            seen[strtoul(w->q[o].durable.item[i] + 5, NULL, 10)]++;
        for (unsigned i = 0; i < life.n_lines; i++)
            if (seen[i] != 1)
                fail_msg("%s, seed %lu, output %d: line %u is there %u times", life.folder, seed, o, i, seen[i]);
        assert_int_equal(0, w->q[o].lost_bytes);
    }
    world_free(w);
}

static void test_lives(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= LIVES; seed++) {
        struct world *w = begin("far", seed);
        for (int i = 0; i < STEPS; i++)
            step(w);
        end(w, seed);
    }
}

/* The file was read to its end, and no queue has heard of it when its group is given up: only its descriptor is left. */
static void test_read_whole_and_not_told(void **state)
{
    struct world *w = begin("far", 0);
    (void)state;
    rotate(w);
    zip(w);
    world_pass(w, 7);
    reload(w);
    end(w, 0);
}

/* What a queue has as log/old/a.log.1 is of the chain of log/a.log after a restart as well: its .gz is nobody else's. */
static void test_compressed_after_restarts(void **state)
{
    struct world *w = begin("log/old", 0);
    (void)state;
    rotate(w);
    world_pass(w, 7);
    for (int i = 0; i < 2; i++) { /* the second knows it by the name that the first found */
        world_commit_all(w);
        world_crash(w);
        world_run(w);
    }
    zip(w);
    rotate(w);
    end(w, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lives),
        cmocka_unit_test(test_read_whole_and_not_told),
        cmocka_unit_test(test_compressed_after_restarts),
    };
    return cmocka_run_group_tests_name("tail/olddir", tests, NULL, NULL);
}
