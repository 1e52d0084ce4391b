/*
 * Goal: lines as people and programs read them, no control byte of a log line on the terminal, and a slow or closed
 * reader that neither blocks nor kills.
 * Method: descriptor 1 is a pipe while the output writes.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/base/io.h"
#include "outputs/output.h"

#define T0 INT64_C(1767323045678901234) /* 2026-01-02T03:04:05.678901234Z */

enum { FORMAT_AUTO, FORMAT_JSON, FORMAT_SHORT }; /* the order of the choices */

static struct output *open_format(int format, int *settings, struct output_conf *conf)
{
    struct output *out;
    struct err err = { 0 };
    *settings = format;
    *conf = (struct output_conf){ .name = SLICE("terminal"), .type = &stdout_type, .settings = settings };
    conf->queue.batch_bytes = 1 * MIB;
    assert_int_equal(stdout_type.settings_size, sizeof(*settings));
    assert_int_equal(stdout_ops.open(conf, &out, &err), 0);
    return out;
}

static struct body *append(struct output *out, const struct record *rec)
{
    struct append_result res;
    assert_int_equal(stdout_ops.append(out, rec, &res), 0);
    return res.body;
}

static void assert_slice(struct slice got, const char *want)
{
    if (!slice_eq(got, slice_cstr(want)))
        fail_msg("got  %.*s\nwant %s", SLICE_ARGS(got), want);
}

/* Swaps descriptor 1 for fd and back, around calls that may write to it; nothing is asserted in between. */
static int swap_stdout(int fd)
{
    (void)fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    (void)dup2(fd, STDOUT_FILENO);
    return saved;
}

static void swap_back(int saved)
{
    (void)dup2(saved, STDOUT_FILENO);
    (void)close(saved);
}

static int deliver(struct output *out, int fd, const struct frame_ref *frame)
{
    struct err err = { 0 };
    int saved = swap_stdout(fd);
    int r = stdout_ops.deliver(out, frame, &err);
    swap_back(saved);
    return r;
}

static void test_formats(void **state)
{
    (void)state;
    static const struct { enum record_kind kind; enum level level; const char *line, *message, *module, *want; } cases[] = {
        { RECORD_TEXT, LEVEL_INFO, "x: hi", "hi", "", "2026-01-02T03:04:05.678Z INFO  shop hi\n" },
        { RECORD_JSON, LEVEL_ERROR, "{\"a\":1}", "", "app.db", "2026-01-02T03:04:05.678Z ERROR shop app.db {\"a\":1}\n" },
        { RECORD_TEXT, LEVEL_UNKNOWN, "l", "a\033[31mb\r\x7f\xc2\x9b\xc3\xa9\xff", "",
          "2026-01-02T03:04:05.678Z -     shop a?[31mb???\xc3\xa9?\n" },
        { RECORD_TEXT, LEVEL_WARN, "l", "one\n\ttwo", "", "2026-01-02T03:04:05.678Z WARN  shop one\v\ttwo\n" },
    };
    struct output_conf conf;
    int settings;
    struct origin o = { .id = 1, .service = SLICE("shop") };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct output *out = open_format(FORMAT_SHORT, &settings, &conf);
        struct record rec = { .origin = &o, .kind = cases[i].kind, .level = cases[i].level, .time_ns = T0,
                              .line = slice_cstr(cases[i].line), .message = slice_cstr(cases[i].message),
                              .module = slice_cstr(cases[i].module) };
        struct buf wire;
        buf_init(&wire, 64 * KIB);
        struct body *b = append(out, &rec);
        assert_int_equal(stdout_ops.seal(out, b, &wire), 0);
        /* On a terminal there are colors between the words. */
        if (isatty(STDOUT_FILENO) != 1)
            assert_slice(buf_slice(&wire), cases[i].want);
        buf_deinit(&wire);
        stdout_ops.close(out);
    }
    struct output *out = open_format(FORMAT_JSON, &settings, &conf);
    struct record rec = { .origin = &o, .kind = RECORD_JSON, .level = LEVEL_INFO, .time_ns = T0, .line = SLICE("{}") };
    assert_slice(buf_slice(&append(out, &rec)->raw), "{\"service_name\":\"shop\",\"severity\":\"info\"}\n");
    stdout_ops.close(out);
}

static void test_auto_is_json_in_a_pipe(void **state)
{
    (void)state;
    struct output_conf conf;
    int settings = FORMAT_AUTO, fds[2];
    struct output *out = NULL;
    struct err err = { 0 };
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    conf = (struct output_conf){ .name = SLICE("terminal"), .type = &stdout_type, .settings = &settings };
    conf.queue.batch_bytes = 1 * MIB;
    int saved = swap_stdout(fds[1]);
    int r = stdout_ops.open(&conf, &out, &err);
    swap_back(saved);
    assert_int_equal(r, 0);
    struct origin o = { .id = 1 };
    struct record rec = { .origin = &o, .kind = RECORD_TEXT, .time_ns = T0, .line = SLICE("x") };
    assert_slice(buf_slice(&append(out, &rec)->raw),
                 "{\"message\":\"x\",\"severity\":\"unknown\",\"@timestamp\":\"2026-01-02T03:04:05.678901234Z\"}\n");
    stdout_ops.close(out);
    fd_close(&fds[0]);
    fd_close(&fds[1]);
}

static void test_multiline_is_indented(void **state)
{
    (void)state;
    struct output_conf conf;
    int settings, fds[2];
    char got[64];
    struct output *out = open_format(FORMAT_SHORT, &settings, &conf);
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    struct frame_ref frame = { .seq = 1, .wire = SLICE("a\vb\vc\nd\n"), .lines = 2 };
    assert_int_equal(deliver(out, fds[1], &frame), 0);
    ssize_t n = read(fds[0], got, sizeof(got));
    assert_slice(slice_of(got, (size_t)n), "a\n    b\n    c\nd\n");
    stdout_ops.close(out);
    fd_close(&fds[0]);
    fd_close(&fds[1]);
}

/* A reader that sleeps: -EAGAIN, then on from where it stopped; each byte once. */
static void test_slow_reader(void **state)
{
    (void)state;
    struct output_conf conf;
    int settings, fds[2];
    struct output *out = open_format(FORMAT_JSON, &settings, &conf);
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    size_t len = 300 * KIB, n_read = 0;
    char *wire = malloc(len), *got = malloc(len);
    for (size_t i = 0; i < len; i++)
        wire[i] = i % 100 == 99 ? '\n' : (char)('a' + i / 100 % 26);
    struct frame_ref frame = { .seq = 5, .wire = slice_of(wire, len) };
    int again = 0, r;
    while ((r = deliver(out, fds[1], &frame)) == -EAGAIN) {
        again++;
        ssize_t n = read(fds[0], got + n_read, MIN(len - n_read, (size_t)64 * KIB));
        assert_true(n > 0);
        n_read += (size_t)n;
    }
    assert_int_equal(r, 0);
    assert_true(again >= 3);
    fd_close(&fds[1]);
    while (n_read < len) {
        ssize_t n = read(fds[0], got + n_read, len - n_read);
        assert_true(n > 0);
        n_read += (size_t)n;
    }
    assert_memory_equal(got, wire, len);
    assert_int_equal(read(fds[0], got, 1), 0);
    free(wire);
    free(got);
    stdout_ops.close(out);
    fd_close(&fds[0]);
}

static void test_closed_reader(void **state)
{
    (void)state;
    struct output_conf conf;
    int settings, fds[2];
    struct output *out = open_format(FORMAT_JSON, &settings, &conf);
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    fd_close(&fds[0]);
    struct frame_ref frame = { .seq = 1, .wire = SLICE("x\n") };
    assert_int_equal(deliver(out, fds[1], &frame), -EPIPE);
    stdout_ops.close(out);
    fd_close(&fds[1]);
}

static void test_items_and_print(void **state)
{
    (void)state;
    struct output_conf conf;
    int settings;
    struct items it = { 0 };
    struct buf text;
    struct output *out = open_format(FORMAT_SHORT, &settings, &conf);
    buf_init(&text, 4 * KIB);
    assert_int_equal(stdout_ops.items(out, SLICE("{\"a\":1}\n\033[2mT\033[0m say \"hi\"\n"), SLICE(""), &it), 0);
    assert_int_equal(it.n, 2);
    assert_int_equal(stdout_ops.print(out, &it, &text), 0);
    assert_slice(buf_slice(&text), "{\"a\":1}\n{\"message\":\"T say \\\"hi\\\"\"}\n");
    buf_reset(&text);
    assert_int_equal(stdout_ops.build(out, &it, (const uint8_t[]){ 1, 0 }, false, &text), 0);
    assert_slice(buf_slice(&text), "{\"a\":1}\n");
    items_deinit(&it);
    assert_int_equal(stdout_ops.items(out, SLICE("no newline"), SLICE(""), &it), -EBADMSG);
    assert_int_equal(stdout_ops.items(out, SLICE(""), SLICE(""), &it), -EBADMSG);
    buf_deinit(&text);
    stdout_ops.close(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats),     cmocka_unit_test(test_auto_is_json_in_a_pipe),
        cmocka_unit_test(test_slow_reader), cmocka_unit_test(test_multiline_is_indented),
        cmocka_unit_test(test_closed_reader), cmocka_unit_test(test_items_and_print),
    };
    return cmocka_run_group_tests_name("outputs/stdout", tests, NULL, NULL);
}
