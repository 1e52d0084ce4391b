/*
 * Goal: the share holds to a percent over seconds whatever the turns cost, a quiet time is not saved up, and without a limit
 * nothing waits. Method: a model of a process that spends processor time in turns and sleeps when it is told to.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/base/macros.h"
#include "agent/pace.h"

#define MS INT64_C(1000000)

struct process {
    struct pace pace;
    int64_t mono_ns, cpu_ns;
};

/* Turns of turn_ns each until the time has passed, as fast as the pace lets them. */
static int64_t spend(struct process *p, int64_t turn_ns, int64_t for_ns)
{
    const int64_t until_ns = p->mono_ns + for_ns, before_ns = p->cpu_ns;
    while (p->mono_ns < until_ns) {
        const int64_t at_ns = pace_next(&p->pace, p->mono_ns, p->cpu_ns);
        assert_true(at_ns >= p->mono_ns);
        if (at_ns > p->mono_ns) {
            p->mono_ns = at_ns;
            continue;
        }
        p->mono_ns += turn_ns;
        p->cpu_ns += turn_ns;
    }
    return p->cpu_ns - before_ns;
}

static struct process begin(unsigned percent)
{
    struct process p = { .mono_ns = 123456789 * MS, .cpu_ns = 77 * MS };
    pace_init(&p.pace, percent, p.mono_ns, p.cpu_ns);
    return p;
}

static void share_holds(void **state)
{
    (void)state;
    static const unsigned percents[] = { 1, 10, 33, 99 };
    static const int64_t turns[] = { 10000, MS, 20 * MS };
    for (size_t i = 0; i < ARRAY_LEN(percents); i++)
        for (size_t k = 0; k < ARRAY_LEN(turns); k++) {
            struct process p = begin(percents[i]);
            const int64_t spent = spend(&p, turns[k], 100000 * MS), want = 1000 * MS * percents[i];
            assert_in_range(spent, want - want / 100, want + want / 100 + turns[k] + PACE_CREDIT_NS);
        }
}

static void quiet_times_lapse(void **state)
{
    (void)state;
    struct process p = begin(10);
    for (int i = 0; i < 3600; i++) { /* asked now and then, as the reader's ticks do */
        p.mono_ns += 1000 * MS;
        assert_int_equal(pace_next(&p.pace, p.mono_ns, p.cpu_ns), p.mono_ns);
    }
    assert_true(spend(&p, MS, 1000 * MS) <= 100 * MS + PACE_CREDIT_NS + MS);
}

static void without_a_limit(void **state)
{
    (void)state;
    struct process p = begin(0);
    assert_int_equal(spend(&p, MS, 500 * MS), 500 * MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(share_holds), cmocka_unit_test(quiet_times_lapse),
                                        cmocka_unit_test(without_a_limit) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
