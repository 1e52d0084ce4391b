/*
 * The chain of an archive: what is written, where it goes on, and that each change of it shows.
 *
 * Method: a real folder and the real store; then every single bit and every single line of a small archive.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/sha.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/base/clock.h"
#include "agent/base/io.h"
#include "outputs/file_archive.h"
#include "outputs/file_store.h"

#define DAY (86400 * NS_PER_SEC)
#define T0 (INT64_C(1795219200) * NS_PER_SEC) /* 2026-11-21T00:00:00Z */

static char root[64];

static int make_root(void **state)
{
    (void)state;
    (void)snprintf(root, sizeof(root), "/tmp/tailrace-chain-XXXXXX");
    return mkdtemp(root) == NULL;
}

static int remove_root(void **state)
{
    (void)state;
    char cmd[128];
    (void)snprintf(cmd, sizeof(cmd), "rm -rf '%s'", root);
    return system(cmd);
}

/* ---- a store ---- */

struct world {
    char text[256], state[256];
    struct file_store_conf conf;
    struct file_shape shape;
    struct file_store *s;
    uint64_t seq;
};

static void world_open(struct world *w)
{
    struct err err = { 0 };
    if (file_store_open(&w->conf, &w->s, &err) < 0)
        fail_msg("%s", err.text);
}

static void world_init(struct world *w)
{
    *w = (struct world){ 0 };
    (void)snprintf(w->text, sizeof(w->text), "%s/a/{tenant}/%%Y-%%m-%%d.log", root);
    assert_int_equal(file_shape_parse(slice_cstr(w->text), &w->shape, NULL), 0);
    (void)snprintf(w->state, sizeof(w->state), "%s/state", root);
    w->conf = (struct file_store_conf){ .state_dir = slice_cstr(w->state), .shape = &w->shape, .chain = true,
                                        .mode = 0640, .dir_mode = 0750 };
    world_open(w);
}

static const char *path_of(const char *name)
{
    static char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/a/%s", root, name);
    return path;
}

static void write_frame(struct world *w, const char *name, const char *lines)
{
    struct err err = { 0 };
    struct buf b;
    buf_init(&b, MIB);
    assert_int_equal(buf_append_cstr(&b, lines), 0);
    if (file_store_write(w->s, ++w->seq, slice_cstr(path_of(name)), &b, &err) < 0)
        fail_msg("%s", err.text);
    buf_deinit(&b);
}

static void sync_all(struct world *w)
{
    assert_int_equal(file_store_sync(w->s, w->seq, NULL), 0);
}

static void load(const char *name, struct buf *b)
{
    struct err err = { 0 };
    buf_init(b, MIB);
    if (io_read_file(AT_FDCWD, path_of(name), b, &err) < 0)
        fail_msg("%s", err.text);
}

static void save(const char *name, struct slice content)
{
    int fd = open(path_of(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    assert_true(fd >= 0);
    assert_int_equal(io_write_full(fd, content.ptr, content.len), 0);
    fd_close(&fd);
}

/* ---- an archive ---- */

static void count_problem(void *ctx, const struct archive_file *f, const char *text)
{
    (void)f;
    assert_true(strlen(text) > 10);
    ++*(unsigned *)ctx;
}

/* Problems of one file that nobody writes to, and what it holds. */
static unsigned problems_of(const char *name, struct archive_file *ret)
{
    unsigned n = 0;
    struct err err = { 0 };
    const struct archive_reader to = { .problem = count_problem, .ctx = &n };
    const struct timespec old[2] = { { .tv_sec = 1000 }, { .tv_sec = 1000 } };
    *ret = (struct archive_file){ .path = strdup(path_of(name)) };
    assert_int_equal(utimensat(AT_FDCWD, ret->path, old, 0), 0);
    if (archive_read(ret, &to, &err) < 0)
        fail_msg("%s", err.text);
    free(ret->path);
    return n;
}

static void hash_says_what_the_header_says(void **state)
{
    (void)state;
    struct buf b;
    struct chain_hash hash = { 0 }, by_hand;
    struct chain_link l;
    uint8_t two[64] = { 0 };
    buf_init(&b, 4 * KIB);
    assert_int_equal(buf_append_cstr(&b, "{\"a\":1}\n{\"b\":2}\n"), 0);
    (void)SHA256((const unsigned char *)b.ptr, b.len, two + 32);
    (void)SHA256(two, sizeof(two), by_hand.bytes);
    const size_t len = b.len;
    assert_int_equal(chain_close_block(&b, &hash), 0);
    assert_true(chain_hash_eq(&hash, &by_hand));
    assert_true(b.ptr[b.len - 1] == '\n');
    assert_true(chain_parse_link(slice_of(b.ptr + len, b.len - len - 1), &l));
    assert_int_equal(l.lines, 2);
    assert_int_equal(l.bytes, len);
    assert_true(chain_hash_is_zero(&l.prev) && chain_hash_eq(&l.hash, &hash));
    buf_deinit(&b);
}

static void no_record_is_a_link(void **state)
{
    (void)state;
    struct buf b;
    struct chain_hash hash = { 0 };
    struct chain_link l;
    buf_init(&b, 4 * KIB);
    assert_int_equal(chain_close_block(&b, &hash), 0);
    b.len--;
    assert_true(chain_parse_link(buf_slice(&b), &l));
    for (size_t cut = 0; cut < b.len; cut++)
        assert_false(chain_parse_link(slice_first(buf_slice(&b), cut), &l));
    for (size_t i = 0; i < b.len; i++) { /* each byte counts, but a digit may be another digit */
        const char was = b.ptr[i];
        b.ptr[i] = was == 'x' ? 'y' : 'x';
        assert_false(chain_parse_link(buf_slice(&b), &l));
        b.ptr[i] = was;
    }
    assert_int_equal(buf_append_cstr(&b, ",\"tenant\":\"t\"}"), 0);
    assert_false(chain_parse_link(buf_slice(&b), &l));
    buf_deinit(&b);
}

static void goes_on_over_frames_restarts_and_days(void **state)
{
    (void)state;
    struct world w;
    struct archive_file one, two, other;
    world_init(&w);
    write_frame(&w, "t/2026-11-20.log", "{\"n\":1}\n{\"n\":2}\n");
    sync_all(&w);
    write_frame(&w, "t/2026-11-20.log", "{\"n\":3}\n");
    write_frame(&w, "u/2026-11-20.log", "{\"n\":9}\n");
    sync_all(&w);
    file_store_close(w.s);
    world_open(&w);
    write_frame(&w, "t/2026-11-20.log", "{\"n\":4}\n");
    write_frame(&w, "t/2026-11-21.log", "{\"n\":5}\n");
    sync_all(&w);
    file_store_close(w.s);
    assert_int_equal(problems_of("t/2026-11-20.log", &one), 0);
    assert_int_equal(problems_of("t/2026-11-21.log", &two), 0);
    assert_int_equal(problems_of("u/2026-11-20.log", &other), 0);
    assert_int_equal(one.lines, 4);
    assert_int_equal(one.links, 3);
    assert_true(chain_hash_is_zero(&one.first_prev) && chain_hash_is_zero(&other.first_prev));
    assert_true(chain_hash_eq(&two.first_prev, &one.last));

    /* The day's file goes on from the last one even when that was forgotten long since. */
    w.seq = 1000;
    world_open(&w);
    write_frame(&w, "t/2026-11-22.log", "{\"n\":6}\n");
    sync_all(&w);
    file_store_close(w.s);
    struct archive_file three;
    assert_int_equal(problems_of("t/2026-11-22.log", &three), 0);
    assert_true(chain_hash_eq(&three.first_prev, &two.last));
}

static void a_crash_leaves_a_chain(void **state)
{
    (void)state;
    struct world w;
    struct archive_file f, next;
    world_init(&w);
    write_frame(&w, "t/2026-11-20.log", "{\"n\":1}\n");
    sync_all(&w);
    write_frame(&w, "t/2026-11-20.log", "{\"n\":2}\n"); /* not synced: written again */
    write_frame(&w, "t/2026-11-21.log", "{\"n\":3}\n");
    file_store_close(w.s);
    world_open(&w);
    assert_int_equal(file_store_seq(w.s), 1);
    w.seq = 1;
    write_frame(&w, "t/2026-11-20.log", "{\"n\":2}\n");
    write_frame(&w, "t/2026-11-21.log", "{\"n\":3}\n");
    sync_all(&w);
    file_store_close(w.s);
    assert_int_equal(problems_of("t/2026-11-20.log", &f), 0);
    assert_int_equal(problems_of("t/2026-11-21.log", &next), 0);
    assert_int_equal(f.lines, 2);
    assert_int_equal(f.links, 2);
    assert_true(chain_hash_eq(&next.first_prev, &f.last));
}

static void make_small(void)
{
    struct world w;
    world_init(&w);
    write_frame(&w, "t/2026-11-20.log", "{\"n\":1}\n{\"n\":2}\n");
    write_frame(&w, "t/2026-11-20.log", "{\"n\":3}\n");
    write_frame(&w, "t/2026-11-20.log", "{\"n\":4}\n{\"n\":5}\n{\"n\":6}\n");
    sync_all(&w);
    file_store_close(w.s);
}

static void every_bit_shows(void **state)
{
    (void)state;
    struct buf b;
    struct archive_file f;
    make_small();
    load("t/2026-11-20.log", &b);
    assert_int_equal(problems_of("t/2026-11-20.log", &f), 0);
    /* But for the first link's prev: that is compared with the other files, and it is in the hash. */
    for (size_t bit = 0; bit < 8 * b.len; bit++) {
        b.ptr[bit / 8] = (char)(b.ptr[bit / 8] ^ 1 << bit % 8);
        save("t/2026-11-20.log", buf_slice(&b));
        if (problems_of("t/2026-11-20.log", &f) == 0)
            fail_msg("bit %zu of byte %zu does not show", bit % 8, bit / 8);
        b.ptr[bit / 8] = (char)(b.ptr[bit / 8] ^ 1 << bit % 8);
    }
    buf_deinit(&b);
}

/* Without line `without`, with line `twice` twice; -1: none. */
static void edit(struct slice content, int without, int twice, struct buf *out)
{
    buf_init(out, MIB);
    for (int i = 0; content.len > 0; i++) {
        const size_t len = (size_t)slice_find_byte(content, '\n') + 1;
        for (int k = i == twice ? 2 : 1; k > 0 && i != without; k--)
            assert_int_equal(buf_append_slice(out, slice_first(content, len)), 0);
        content = slice_from(content, len);
    }
}

static void every_line_that_is_removed_or_doubled_shows(void **state)
{
    (void)state;
    struct buf b, e;
    struct archive_file f;
    make_small();
    load("t/2026-11-20.log", &b);
    for (int i = 0; i < 9; i++) {
        edit(buf_slice(&b), i, -1, &e);
        save("t/2026-11-20.log", buf_slice(&e));
        assert_true(problems_of("t/2026-11-20.log", &f) > 0);
        buf_deinit(&e);
        edit(buf_slice(&b), -1, i, &e);
        save("t/2026-11-20.log", buf_slice(&e));
        assert_true(problems_of("t/2026-11-20.log", &f) > 0);
        buf_deinit(&e);
    }
    buf_deinit(&b);
}

static void a_stranger_in_the_file_shows(void **state)
{
    (void)state;
    struct world w;
    struct archive_file f;
    world_init(&w);
    write_frame(&w, "t/2026-11-20.log", "{\"n\":1}\n");
    sync_all(&w);
    file_store_close(w.s);
    struct buf b;
    load("t/2026-11-20.log", &b);
    assert_int_equal(buf_append_cstr(&b, "{\"n\":\"forged\"}\n"), 0);
    save("t/2026-11-20.log", buf_slice(&b));
    buf_deinit(&b);
    assert_true(problems_of("t/2026-11-20.log", &f) > 0);
    assert_int_equal(f.loose_lines, 1);
}

static void files_are_listed_by_day_and_tenant(void **state)
{
    (void)state;
    struct world w;
    struct archive_files files;
    struct err err = { 0 };
    world_init(&w);
    const char *const names[] = { "t/2026-11-19.log", "t/2026-11-20.log", "t/2026-11-21.log", "u/2026-11-20.log" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        write_frame(&w, names[i], "{}\n");
    file_store_close(w.s);
    save("t/2026-11-20.log.gz", SLICE(""));
    save("t/2026-11-20.log.2.gz", SLICE(""));
    save("t/2026-11-20.log.10.gz", SLICE(""));
    save("t/2026-11-20.log.bak", SLICE(""));
    save("t/other", SLICE(""));
    const int64_t day = T0 / DAY; /* the 21st */
    assert_int_equal(archive_list(&w.shape, &(struct archive_select){ SLICE_INIT("t"), day - 1, day }, &files, &err), 0);
    const char *const want[] = { "t/2026-11-20.log.gz", "t/2026-11-20.log.2.gz", "t/2026-11-20.log.10.gz", "t/2026-11-20.log",
                                 "t/2026-11-21.log" };
    assert_int_equal(files.n, ARRAY_LEN(want));
    for (size_t i = 0; i < files.n; i++)
        assert_string_equal(files.items[i].path, path_of(want[i]));
    archive_free(&files);
    assert_int_equal(archive_list(&w.shape, &(struct archive_select){ { 0 }, INT64_MIN, INT64_MAX }, &files, &err), 0);
    assert_int_equal(files.n, 7);
    archive_free(&files);

    struct file_shape plain;
    assert_int_equal(file_shape_parse(SLICE("/nowhere/x.log"), &plain, NULL), 0);
    assert_int_equal(archive_list(&plain, &(struct archive_select){ SLICE_INIT("t"), INT64_MIN, INT64_MAX }, &files, &err), -EINVAL);
    assert_non_null(strstr(err.text, "{tenant}"));
    assert_int_equal(archive_list(&plain, &(struct archive_select){ { 0 }, day, day }, &files, &err), -EINVAL);
    assert_int_equal(archive_list(&plain, &(struct archive_select){ { 0 }, INT64_MIN, INT64_MAX }, &files, &err), 0);
    assert_int_equal(files.n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hash_says_what_the_header_says),
        cmocka_unit_test(no_record_is_a_link),
        cmocka_unit_test_setup_teardown(goes_on_over_frames_restarts_and_days, make_root, remove_root),
        cmocka_unit_test_setup_teardown(a_crash_leaves_a_chain, make_root, remove_root),
        cmocka_unit_test_setup_teardown(every_bit_shows, make_root, remove_root),
        cmocka_unit_test_setup_teardown(every_line_that_is_removed_or_doubled_shows, make_root, remove_root),
        cmocka_unit_test_setup_teardown(a_stranger_in_the_file_shows, make_root, remove_root),
        cmocka_unit_test_setup_teardown(files_are_listed_by_day_and_tenant, make_root, remove_root),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
