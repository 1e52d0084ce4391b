/*
 * Goal: every line of our own log is one JSON object on one line, whatever it is told and however long; the same event about
 * the same thing comes once a minute with what was suppressed.
 * Method: the log goes to a memfd; yajl reads it back; the clock is ours.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <yajl/yajl_tree.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"

static int64_t now = 1000 * NS_PER_SEC;
static int fd;
static char text[1 << 20];

static int64_t mono(void)
{
    return now;
}

static int set_up(void **state)
{
    (void)state;
    now += 3600 * NS_PER_SEC;
    clock_set_source(mono, NULL);
    fd = memfd_create("log", MFD_CLOEXEC);
    log_set_fd(fd);
    log_set_filter(NULL);
    return fd < 0;
}

static int tear_down(void **state)
{
    (void)state;
    log_set_fd(2);
    clock_set_source(NULL, NULL);
    return close(fd);
}

/* The number of lines; each is an object with what every line has. */
static unsigned read_lines(void)
{
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    unsigned lines = 0;
    assert_true(n >= 0);
    text[n] = '\0';
    assert_true(n == 0 || text[n - 1] == '\n');
    static char copy[1 << 20];
    memcpy(copy, text, (size_t)n + 1);
    for (char *rest = copy, *line; (line = strsep(&rest, "\n")) != NULL && *line != '\0'; lines++) {
        char why[256];
        yajl_val v = yajl_tree_parse(line, why, sizeof(why));
        if (v == NULL)
            fail_msg("%s in %s", why, line);
        static const char *const keys[] = { "timestamp", "level", "target", "event", "message", "fields" };
        for (size_t i = 0; i < ARRAY_LEN(keys); i++)
            assert_non_null(yajl_tree_get(v, (const char *[]){ keys[i], NULL }, i < 5 ? yajl_t_string : yajl_t_object));
        yajl_tree_free(v);
    }
    return lines;
}

static void test_kinds_of_fields(void **state)
{
    (void)state;
    log_info("t", "e.a", "a message", LOG_CSTR("s", "q\"\n\t\\"), LOG_NUM("n", -5), LOG_REAL("r", 0.5),
             LOG_REAL("nan", (double)NAN), LOG_SLICE("bytes", slice_of("\x00\xff\x1f", 3)));
    log_info("t", "e.b", "no fields", LOG_NUM("n", INT64_MIN));
    assert_int_equal(read_lines(), 2);
    assert_non_null(strstr(text, "\"n\":-5"));
    assert_non_null(strstr(text, "\"r\":0.5"));
    assert_non_null(strstr(text, "\"nan\":null"));
    assert_non_null(strstr(text, "\\u0000"));
}

/* Around every length at which the buffer, the reserve or a field is full. */
static void test_lines_that_are_too_long(void **state)
{
    static char big[4096];
    unsigned written = 0;
    (void)state;
    memset(big, 'x', sizeof(big));
    memset(big + 3000, '\x01', 500); /* six bytes each */
    for (size_t len = 0; len < 2048; len += 3, written++) {
        struct slice a = slice_of(big, 2000), b = slice_of(big, len), c = slice_of(big + 3000, 500);
        log_info("t", "e", "long", LOG_SLICE("a", a), LOG_SLICE("c", c), LOG_SLICE("b", b), LOG_SLICE("d", b),
                 LOG_SLICE("e", a), LOG_NUM("n", len));
        if (written % 50 == 49) {
            assert_int_equal(read_lines(), 50);
            assert_int_equal(ftruncate(fd, 0), 0);
            assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
        }
    }
}

static void test_the_same_event_once_a_minute(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++)
        log_warn("t", "same", "again", LOG_CSTR("output", "a"), LOG_NUM("i", i));
    log_warn("t", "same", "of another", LOG_CSTR("output", "b"));
    assert_int_equal(read_lines(), 2);
    assert_null(strstr(text, "suppressed"));
    now += 60 * NS_PER_SEC;
    log_warn("t", "same", "again", LOG_CSTR("output", "a"), LOG_NUM("i", 10));
    assert_int_equal(read_lines(), 3);
    assert_non_null(strstr(text, "\"suppressed\":9"));
    for (int i = 0; i < 3; i++)
        log_info("t", "life", "is not limited", LOG_CSTR("output", "a"));
    assert_int_equal(read_lines(), 6);
}

static bool only_tail_debug(enum log_level level, const char *target)
{
    return level >= LOG_ERROR || (strcmp(target, "tail") == 0 && level >= LOG_DEBUG);
}

static void test_filter(void **state)
{
    (void)state;
    log_debug("tail", "e", "off by default", LOG_NUM("n", 1));
    assert_int_equal(read_lines(), 0);
    log_set_filter(only_tail_debug);
    assert_true(log_enabled(LOG_DEBUG, "tail"));
    log_debug("tail", "e", "on", LOG_NUM("n", 1));
    log_info("queue", "e", "off", LOG_NUM("n", 1));
    log_error("queue", "e.err", "on", LOG_NUM("n", 1));
    assert_int_equal(read_lines(), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_kinds_of_fields, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_lines_that_are_too_long, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_same_event_once_a_minute, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_filter, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("base/log", tests, NULL, NULL);
}
