/*
 * Goal: broken configurations are refused with these lines and no others: the wording, the places and the
 * order are what an operator reads. Method: each tests/golden/conf/NAME.yaml is loaded and its errors
 * compared with NAME.errors. TAILRACE_GOLDEN=write writes them anew, to be looked at in the diff. Runs in the
 * top folder of the tree.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/base/io.h"
#include "agent/registry.h"
#include "conf/conf.h"

#define FOLDER "tests/golden/conf/"

static void read_file(const char *name, const char *suffix, struct buf *b)
{
    char path[512];
    struct err err = { 0 };
    buf_init(b, 1 * MIB);
    (void)snprintf(path, sizeof(path), FOLDER "%.200s%s", name, suffix);
    if (io_read_file(AT_FDCWD, path, b, &err) < 0)
        fail_msg("%s", err.text);
}

static void check(const char *name)
{
    char file[256];
    struct buf yaml, want, got;
    struct conf *c = NULL;
    (void)snprintf(file, sizeof(file), "%.200s.yaml", name);
    read_file(name, ".yaml", &yaml);
    buf_init(&got, 1 * MIB);
    assert_int_equal(conf_load_text(file, buf_slice(&yaml), registry_types(), &c, &got), -EINVAL);
    assert_null(c);
    const char *mode = getenv("TAILRACE_GOLDEN");
    if (mode != NULL && strcmp(mode, "write") == 0) {
        (void)snprintf(file, sizeof(file), FOLDER "%.200s.errors", name);
        FILE *f = fopen(file, "w");
        assert_non_null(f);
        assert_int_equal(fwrite(got.ptr, 1, got.len, f), got.len);
        assert_int_equal(fclose(f), 0);
    }
    read_file(name, ".errors", &want);
    if (!slice_eq(buf_slice(&got), buf_slice(&want)))
        fail_msg("%s: expected\n%.*sgot\n%.*s", name, SLICE_ARGS(buf_slice(&want)),
                 SLICE_ARGS(buf_slice(&got)));
    buf_deinit(&yaml);
    buf_deinit(&want);
    buf_deinit(&got);
}

static void golden_files(void **state)
{
    (void)state;
    DIR *dir = opendir(FOLDER);
    assert_non_null(dir);
    size_t n = 0;
    (void)unsetenv("TAILRACE_NOT_SET");
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        struct slice name = slice_cstr(e->d_name);
        if (!slice_ends(name, SLICE(".yaml")))
            continue;
        e->d_name[name.len - 5] = '\0';
        check(e->d_name);
        n++;
    }
    (void)closedir(dir); /* nothing was written */
    assert_true(n >= 9);
}

static void twelve_mistakes_are_twelve_lines(void **state)
{
    (void)state;
    struct buf lines;
    size_t n = 0;
    read_file("twelve", ".errors", &lines);
    for (size_t i = 0; i < lines.len; i++)
        n += lines.ptr[i] == '\n';
    assert_int_equal(n, 12);
    buf_deinit(&lines);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_files),
        cmocka_unit_test(twelve_mistakes_are_twelve_lines),
    };
    return cmocka_run_group_tests_name("conf/golden", tests, NULL, NULL);
}
