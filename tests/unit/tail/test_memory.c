/*
 * Goal: an allocation that fails anywhere in the tail is got over: no line is lost or comes twice, and a start that says that
 * it has no memory works the next time. Method: a life of a file on world.h, whose nth allocation fails, for each n there is.
 * Built with --wrap.
 */
#include "tests/unit/starve.h"

#include "agent/base/slice.h"

/* The world's own are not the tail's. */
#define malloc __real_malloc
#define calloc __real_calloc
#define realloc __real_realloc
static inline char *real_dup(struct slice s)
{
    char *p = malloc(s.len + 1);
    if (p != NULL) {
        memcpy(p, s.ptr, s.len);
        p[s.len] = '\0';
    }
    return p;
}
#define slice_dup real_dup
#include "tests/unit/tail/life.h"
#undef malloc
#undef calloc
#undef realloc
#undef slice_dup

/* A restart that may fail, and then does not. */
static void again(struct world *w)
{
    struct err err = { 0 };
    if (w->t != NULL)
        world_stop(w);
    if (world_try_start(w, &err) == 0)
        return;
    assert_non_null(strstr(err.text, "memory"));
    assert_null(w->t);
    world_start(w);
}

static void each_allocation_fails(void **state)
{
    (void)state;
    char what[64];
    bool is_reached = true;
    long n = 1;
    for (; is_reached; n++) {
        struct world *w = world_new(1);
        world_include(w, 0, "*.log");
        starve_from(n);
        starve_is_on = true;
        life_live(w, again);
        starve_is_on = false;
        is_reached = starve_was_reached();
        world_settle(w, 30);
        (void)snprintf(what, sizeof(what), "allocation %ld", n);
        life_expect_each_once(w, what);
        world_free(w);
    }
    assert_true(n > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(each_allocation_fails) };
    return cmocka_run_group_tests_name("tail/memory", tests, NULL, NULL);
}
