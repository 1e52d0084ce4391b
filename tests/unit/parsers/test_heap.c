/*
 * Goal:   after parser_new and a first look at every kind of line, 10,000 lines allocate nothing.
 * Method: malloc is counted: by our own definition of it, and under a sanitizer by its hook.
 */
#include "parsers/multiline.h"
#include "parsers/parser.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/parsers/samples.h"

static volatile unsigned long n_allocations; /* volatile: compilers know that malloc changes nothing of ours */

#if HAS_ASAN || HAS_TSAN
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *, size_t),
                                              void (*on_free)(const volatile void *));

static void count(const volatile void *ptr, size_t size)
{
    (void)ptr;
    (void)size;
    n_allocations++;
}

static void ignore(const volatile void *ptr)
{
    (void)ptr;
}

static void start_counting(void)
{
    (void)__sanitizer_install_malloc_and_free_hooks(count, ignore);
}
#else
/* glibc's own entry points, behind the names that everything else calls. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *ptr, size_t size);

void *malloc(size_t size)
{
    n_allocations++;
    return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    n_allocations++;
    return __libc_calloc(n, size);
}

void *realloc(void *ptr, size_t size)
{
    n_allocations++;
    return __libc_realloc(ptr, size);
}

static void start_counting(void)
{
}
#endif

/* It puts its malloc before ours. */
static bool is_under_valgrind(void)
{
    const char *preload = getenv("LD_PRELOAD");
    return preload != NULL && strstr(preload, "vgpreload") != NULL;
}

static bool every_third_is_out(void *ctx, const struct record *rec)
{
    (void)rec;
    unsigned *n = ctx;
    return ++*n % 3 == 0;
}

static void read_all(struct parser *p, const struct multiline *m, unsigned *n_asked)
{
    static const struct slice framed[] = {
        SLICE_INIT("2026-01-02T03:04:05.678901234Z stdout F {\"level\":\"info\",\"pod\":\"x\",\"p\\u006fd\":2}"),
        SLICE_INIT("{\"log\":\"{\\\"level\\\":\\\"info\\\",\\\"msg\\\":\\\"a\\\\nb\\\"}\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-02T03:04:05Z\"}"),
        SLICE_INIT("{\"a\":\"cut \\n short"), SLICE_INIT("{\"a\":1} {\"b\":2}"), SLICE_INIT("{\"a\":1,\"a\":2}"),
    };
    struct multiline_state state = { 0 };
    for (size_t i = 0; i < ARRAY_LEN(json_samples) + ARRAY_LEN(text_samples) + ARRAY_LEN(framed); i++) {
        size_t t = i - ARRAY_LEN(json_samples), f = t - ARRAY_LEN(text_samples);
        struct slice line = i < ARRAY_LEN(json_samples) ? json_samples[i].line
                            : t < ARRAY_LEN(text_samples) ? text_samples[t].line : framed[f];
        static struct record rec;
        struct framed fr;
        parser_frame(p, line, 0, &fr);
        (void)multiline_continues(m, &state, fr.content);
        rec.line = fr.content;
        rec.flags = 0;
        (void)parser_record(p, &rec, every_third_is_out, n_asked);
    }
}

static void test_no_allocation_per_line(void **state)
{
    (void)state;
    static const struct slice trusted[] = { SLICE_INIT("pod"), SLICE_INIT("namespace") };
    static const struct wanted_keys wanted = { .paths = { SLICE_INIT("user.id"), SLICE_INIT("id") }, .n = 2 };
    struct parser *p = NULL;
    struct multiline *m = NULL;
    assert_int_equal(parser_new(&(struct parser_conf){ .timezone = SLICE("Europe/Berlin"), .find_duplicates = true,
                                                       .trusted = trusted, .n_trusted = 2, .wanted = &wanted }, &p, NULL), 0);
    assert_int_equal(multiline_new(true, SLICE(""), &m, NULL), 0);
    start_counting();
    unsigned long before = n_allocations;
    void *volatile probe = malloc(1); /* does the counter count? */
    free(probe);
    bool is_counted = n_allocations - before == 1;
    assert_true(is_counted || is_under_valgrind());

    unsigned n_asked = 0;
    read_all(p, m, &n_asked); /* the first line that needs yajl makes its pool */
    before = n_allocations;
    for (unsigned i = 0; i < 100; i++)
        read_all(p, m, &n_asked); /* more than 100 lines each */
    assert_int_equal(n_allocations - before, 0);
    if (!is_counted)
        print_message("valgrind has its own malloc: memory was checked, allocations were not counted\n");
    assert_true(n_asked > 1000);
    multiline_free(m);
    parser_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_no_allocation_per_line) };
    return cmocka_run_group_tests_name("parsers/heap", tests, NULL, NULL);
}
