/*
 * Goal: /status is one JSON object whatever the names are and whoever does not answer; the ledger's numbers are in it.
 * Method: yajl reads it back; the threads that are asked are functions.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <yajl/yajl_tree.h>

#include "agent/admin/admin.h"
#include "agent/base/tenants.h"

static struct conf_input inputs[1];
static struct output_conf outputs[1];
static struct conf conf = { .inputs = inputs, .n_inputs = 1, .outputs = outputs, .n_outputs = 1 };
static int files_error, senders_error;

static int files(void *ctx, struct buf *out, int64_t timeout_ns)
{
    (void)ctx;
    (void)timeout_ns;
    int r = buf_append_lit(out, "[{\"path\":\"/a\"}]");
    return r < 0 ? r : files_error; /* half an answer is taken back */
}

static int senders(void *ctx, struct buf *out, int64_t timeout_ns)
{
    (void)ctx;
    (void)timeout_ns;
    int r = buf_append_lit(out, "{\"out\":{}}");
    return r < 0 ? r : senders_error;
}

static int set_up(void **state)
{
    (void)state;
    inputs[0].name = SLICE("i\"n\n");
    outputs[0].name = SLICE("o\\ut\xff");
    conf.path = SLICE("/etc/\"x\"");
    files_error = senders_error = 0;
    memset(&stats, 0, sizeof(stats));
    stats_forget_rows();
    return 0;
}

static yajl_val status(void)
{
    struct admin_view v = { .conf = &conf, .files = files, .senders = senders };
    struct buf out;
    char why[256] = "";
    buf_init(&out, MIB);
    assert_int_equal(admin_write_status(&v, &out), 0);
    assert_int_equal(buf_terminate(&out), 0);
    yajl_val val = yajl_tree_parse(out.ptr, why, sizeof(why));
    if (val == NULL)
        fail_msg("%s in %s", why, out.ptr);
    buf_deinit(&out);
    return val;
}

static yajl_val at(yajl_val v, const char *a, const char *b, yajl_type type)
{
    const char *path[] = { a, b, NULL };
    yajl_val found = yajl_tree_get(v, path, type);
    if (found == NULL)
        fail_msg("%s.%s is missing", a, b == NULL ? "" : b);
    return found;
}

static bool is_tenant(yajl_val row, const char *name)
{
    const char *tenant = YAJL_GET_STRING(at(row, "tenant", NULL, yajl_t_string));
    return tenant != NULL && strcmp(tenant, name) == 0;
}

static void test_it_is_json(void **state)
{
    (void)state;
    yajl_val v = status();
    assert_string_equal(YAJL_GET_STRING(at(v, "config", NULL, yajl_t_string)), "/etc/\"x\"");
    (void)at(v, "inputs", "i\"n\n", yajl_t_object);
    (void)at(v, "outputs", "out", yajl_t_object);
    (void)at(v, "queues", NULL, yajl_t_object);
    assert_int_equal(YAJL_GET_ARRAY(at(v, "files", NULL, yajl_t_array))->len, 1);
    assert_int_equal(YAJL_GET_ARRAY(at(v, "ledger", "inputs", yajl_t_array))->len, 0);
    yajl_tree_free(v);
}

static void test_threads_that_do_not_answer(void **state)
{
    (void)state;
    files_error = senders_error = -ETIMEDOUT;
    yajl_val v = status();
    (void)at(v, "files", NULL, yajl_t_null);
    (void)at(v, "outputs", NULL, yajl_t_null);
    (void)at(v, "ledger", "outputs", yajl_t_array);
    yajl_tree_free(v);
}

static void test_ledger(void **state)
{
    uint32_t t = tenant_intern(SLICE("te\"nant"));
    struct output_row *row = stats_output_row(0, t);
    (void)state;
    counter_add(&stats_input_row(0, t)->read_lines, 5);
    counter_add(&stats_input_row(0, t)->kept_lines, 4);
    counter_add(&stats_input_row(9, t)->kept_lines, 4); /* of an input that is configured no more */
    counter_add(&row->accepted_lines, 10);
    counter_add(&row->delivered_lines, 4);
    gauge_add(&row->queued_lines, 3);
    gauge_add(&row->parked_lines, 1);
    counter_add(&row->dead_lines, 1);
    counter_add(&row->lost_lines[LOST_KEY_QUOTA], 1);
    counter_add(&row->lost_bytes[LOST_HELD_LIMIT], 77);
    yajl_val v = status();
    yajl_val in = at(v, "ledger", "inputs", yajl_t_array), out = at(v, "ledger", "outputs", yajl_t_array);
    size_t n_in = 0, n_out = 0;
    for (size_t i = 0; i < YAJL_GET_ARRAY(in)->len; i++) { /* rows of other tests are at zero */
        yajl_val r = YAJL_GET_ARRAY(in)->values[i];
        if (!is_tenant(r, "te\"nant"))
            continue;
        n_in++;
        assert_int_equal(YAJL_GET_INTEGER(at(r, "read_lines", NULL, yajl_t_number)), 5);
        assert_int_equal(YAJL_GET_INTEGER(at(r, "imbalance", NULL, yajl_t_number)), 1);
        (void)at(r, "filtered_unrouted", NULL, yajl_t_number);
    }
    for (size_t i = 0; i < YAJL_GET_ARRAY(out)->len; i++) {
        yajl_val r = YAJL_GET_ARRAY(out)->values[i];
        if (!is_tenant(r, "te\"nant"))
            continue;
        n_out++;
        assert_int_equal(YAJL_GET_INTEGER(at(r, "imbalance", NULL, yajl_t_number)), 0);
        assert_int_equal(YAJL_GET_INTEGER(at(r, "lost_key_quota_lines", NULL, yajl_t_number)), 1);
        assert_int_equal(YAJL_GET_INTEGER(at(r, "lost_held_limit_bytes", NULL, yajl_t_number)), 77);
    }
    assert_int_equal(n_in, 1);
    assert_int_equal(n_out, 1);
    yajl_tree_free(v);
}

static void test_no_room(void **state)
{
    struct admin_view v = { .conf = &conf, .files = files, .senders = senders };
    (void)state;
    for (size_t max = 1; max < 300; max += 7) {
        struct buf out;
        buf_init(&out, max);
        assert_true(admin_write_status(&v, &out) < 0);
        buf_deinit(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_it_is_json, set_up),
        cmocka_unit_test_setup(test_threads_that_do_not_answer, set_up),
        cmocka_unit_test_setup(test_ledger, set_up),
        cmocka_unit_test_setup(test_no_room, set_up),
    };
    return cmocka_run_group_tests_name("admin/status", tests, NULL, NULL);
}
