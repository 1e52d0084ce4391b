/* Counters with label values: one series for each set of values, a bound, and no counter that falls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "agent/base/series.h"

struct seen {
    struct slice name;
    unsigned families, series;
    uint64_t sum, other;
};

static void on_family(void *ctx, struct slice name, struct slice help)
{
    struct seen *seen = ctx;
    assert_true(help.len > 0);
    seen->families += slice_eq(name, seen->name);
}

static void on_series(void *ctx, struct slice name, const struct slice *labels, const struct slice *values, size_t n,
                      uint64_t value)
{
    struct seen *seen = ctx;
    if (!slice_eq(name, seen->name))
        return;
    seen->series++;
    seen->sum += value;
    for (size_t i = 0; i < n; i++)
        assert_true(labels[i].len > 0 && values[i].len <= SERIES_VALUE_MAX);
    if (n > 0 && slice_eq(values[0], SLICE("_other")))
        seen->other = value;
}

static struct seen look(struct slice name)
{
    struct seen seen = { .name = name };
    series_each(&(struct series_seen){ on_family, on_series, &seen });
    return seen;
}

static const struct slice two[] = { SLICE_INIT("a"), SLICE_INIT("b") };

static void values_make_a_series(void **state)
{
    (void)state;
    const struct slice name = SLICE("tailrace_log_x_total");
    struct series_family *f = series_family(name, SLICE("help"), two, 2);
    struct slice v[] = { SLICE("1"), SLICE("23") }, w[] = { SLICE("12"), SLICE("3") }, empty[2] = { { 0 }, { 0 } };
    struct series *s = series_get(f, v, 10);
    assert_ptr_equal(series_get(f, v, 10), s);
    assert_ptr_not_equal(series_get(f, w, 10), s); /* not by what they are together */
    assert_ptr_not_equal(series_get(f, empty, 10), s);
    counter_bump(&s->value, 3);
    assert_int_equal(look(name).series, 3);
    assert_int_equal(look(name).sum, 3);

    /* Another family with the same values is another series. */
    struct series_family *g = series_family(SLICE("tailrace_log_y_total"), SLICE("help"), two, 2);
    assert_ptr_not_equal(series_get(g, v, 10), s);
    char text[1000];
    memset(text, 'x', sizeof(text));
    struct slice one[] = { slice_of(text, 1000), SLICE("") }, same[] = { slice_of(text, 900), SLICE("") };
    assert_ptr_equal(series_get(g, one, 10), series_get(g, same, 10));
}

static void more_than_the_bound_is_other(void **state)
{
    (void)state;
    const struct slice name = SLICE("tailrace_log_bound_total");
    struct series_family *f = series_family(name, SLICE("help"), two, 1);
    for (int i = 0; i < 5000; i++) {
        char text[16];
        struct slice v = slice_of(text, (size_t)snprintf(text, sizeof(text), "%d", i));
        counter_bump(&series_get(f, &v, 100)->value, 1);
    }
    const struct seen seen = look(name);
    assert_int_equal(seen.series, 101);
    assert_int_equal(seen.sum, 5000);
    assert_int_equal(seen.other, 4900);
}

static void is_shown_while_someone_has_it(void **state)
{
    (void)state;
    const struct slice name = SLICE("tailrace_log_shown_total");
    struct series_family *f = series_family(name, SLICE("help"), two, 1);
    counter_bump(&series_get(f, two, 10)->value, 7);
    assert_ptr_equal(series_family(name, SLICE("help"), two, 1), f); /* the next configuration, before the old one goes */
    series_hide(f);
    assert_int_equal(look(name).families, 1);
    series_hide(f);
    assert_int_equal(look(name).families, 0);
    assert_int_equal(look(name).series, 0);
    assert_ptr_equal(series_family(name, SLICE("help"), two, 1), f);
    assert_int_equal(look(name).sum, 7);
    /* Other label names: another family. */
    assert_ptr_not_equal(series_family(name, SLICE("help"), two, 2), f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_make_a_series),
        cmocka_unit_test(more_than_the_bound_is_other),
        cmocka_unit_test(is_shown_while_someone_has_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
