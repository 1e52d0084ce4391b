/*
 * Goal: each threshold of metrics.md makes the level it says, one step to each side; live and ready tell who does not turn.
 * Method: the gauges are set, the clock is an argument.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <yajl/yajl_tree.h>

#include "agent/admin/admin.h"
#include "agent/base/budget.h"

#define S NS_PER_SEC
#define NOW (INT64_C(1800000000) * S)

static struct conf_input inputs[1];
static struct output_conf outputs[1];
static struct conf conf = { .inputs = inputs, .n_inputs = 1, .outputs = outputs, .n_outputs = 1 };

static int set_up(void **state)
{
    (void)state;
    inputs[0].name = SLICE("in");
    outputs[0].name = SLICE("out");
    for (uint32_t i = 0; i < 2; i++)
        stats_forget_output(i); /* its codes are on the heap */
    memset(&stats, 0, sizeof(stats));
    stats_forget_rows();
    gauge_set(&stats.state_writable, 1);
    gauge_set(&stats.reload_successful, 1);
    gauge_set(&stats.started_wall_ns, NOW - 3600 * S);
    gauge_set(&stats.state_free_bytes, 100);
    gauge_set(&stats.kube.is_wanted, 1);
    gauge_set(&stats.outputs[0].queue_limit_bytes, 1000);
    gauge_set(&stats.outputs[0].last_success_wall_ns, NOW);
    return 0;
}

static enum health_level judge(struct health *h)
{
    health_judge(&conf, NOW, h);
    return h->level;
}

struct gauge_case {
    gauge *g;
    int64_t value;
    enum health_level want;
};

static void test_thresholds(void **state)
{
    struct output_stats *o = &stats.outputs[0];
    struct input_stats *in = &stats.inputs[0];
    const struct gauge_case cases[] = {
        { &o->oldest_unsent_wall_ns, NOW - 10 * S + 1, HEALTH_OPTIMAL },
        { &o->oldest_unsent_wall_ns, NOW - 10 * S, HEALTH_HEALTHY },
        { &o->oldest_unsent_wall_ns, NOW - 300 * S + 1, HEALTH_HEALTHY },
        { &o->oldest_unsent_wall_ns, NOW - 300 * S, HEALTH_DEGRADED },
        { &o->oldest_unsent_wall_ns, NOW + 60 * S, HEALTH_OPTIMAL }, /* a clock that was set back */
        { &o->queue_bytes, 99, HEALTH_OPTIMAL },
        { &o->queue_bytes, 100, HEALTH_HEALTHY },
        { &o->queue_bytes, 499, HEALTH_HEALTHY },
        { &o->queue_bytes, 500, HEALTH_DEGRADED },
        { &o->queue_bytes, 810, HEALTH_DEGRADED },
        { &o->last_dead_wall_ns, NOW - 3600 * S, HEALTH_OPTIMAL },
        { &o->last_dead_wall_ns, NOW - 3600 * S + 1, HEALTH_HEALTHY },
        { &o->last_dead_wall_ns, NOW - 900 * S, HEALTH_HEALTHY },
        { &o->last_dead_wall_ns, NOW - 900 * S + 1, HEALTH_DEGRADED },
        { &o->last_lost_wall_ns, NOW - 3600 * S, HEALTH_OPTIMAL },
        { &o->last_lost_wall_ns, NOW - 3600 * S + 1, HEALTH_HEALTHY },
        { &o->last_lost_wall_ns, NOW - 900 * S + 1, HEALTH_DEGRADED },
        { &o->failing_since_wall_ns, NOW - 60 * S, HEALTH_OPTIMAL },
        { &o->failing_since_wall_ns, NOW - 60 * S - 1, HEALTH_DEGRADED },
        { &o->blocked[BLOCKED_FULL], 1, HEALTH_UNHEALTHY },
        { &o->blocked[BLOCKED_DISK_FULL], 1, HEALTH_UNHEALTHY },
        { &o->blocked[BLOCKED_WRITE_ERROR], 1, HEALTH_UNHEALTHY },
        { &in->files[FILES_UNREADABLE], 1, HEALTH_DEGRADED },
        { &in->files[FILES_STALLED], 1, HEALTH_DEGRADED },
        { &in->files[FILES_SKIPPED], 1, HEALTH_OPTIMAL },
        { &in->files[FILES_HELD], 1, HEALTH_OPTIMAL },
        { &o->stalled, 1, HEALTH_DEGRADED },
        { &stats.state_writable, 0, HEALTH_UNHEALTHY },
        { &stats.reload_successful, 0, HEALTH_DEGRADED },
        { &o->certificate_expiry_s[0], NOW / S + 14 * 86400, HEALTH_OPTIMAL },
        { &o->certificate_expiry_s[0], NOW / S + 14 * 86400 - 1, HEALTH_DEGRADED },
        { &o->certificate_expiry_s[1], NOW / S + 5 * 86400, HEALTH_DEGRADED },
        { &o->certificate_expiry_s[0], NOW / S - 86400, HEALTH_DEGRADED },
        { &stats.state_min_free_bytes, 50, HEALTH_OPTIMAL },
        { &stats.state_min_free_bytes, 51, HEALTH_HEALTHY },
        { &stats.state_min_free_bytes, 100, HEALTH_HEALTHY },
        { &stats.state_min_free_bytes, 101, HEALTH_DEGRADED },
        { &stats.kube.unsynced_since_wall_ns, NOW - 61 * S, HEALTH_DEGRADED },
        { &stats.kube.unsynced_since_wall_ns, NOW - 60 * S, HEALTH_OPTIMAL },
        { &stats.kube.files_held, 1, HEALTH_HEALTHY },
    };
    struct health h;
    assert_int_equal(judge(&h), HEALTH_OPTIMAL);
    assert_int_equal(h.n_reasons, 0);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        (void)set_up(state);
        gauge_set(cases[i].g, cases[i].value);
        if (judge(&h) != cases[i].want)
            fail_msg("case %zu: %s, not %s", i, health_level_name(h.level), health_level_name(cases[i].want));
        assert_int_equal(h.n_reasons, cases[i].want == HEALTH_OPTIMAL ? 0 : 1);
    }
}

static void test_memory(void **state)
{
    struct health h;
    (void)state;
    budget_configure(16 * MIB, 1);
    budget_add(ACCOUNT_OF(MEMORY_FILES), 3 * MIB);
    assert_int_equal(judge(&h), HEALTH_OPTIMAL);
    budget_add(ACCOUNT_OF(MEMORY_FILES), 1 * MIB);
    assert_int_equal(judge(&h), HEALTH_DEGRADED);
    assert_non_null(strstr(h.reasons[0].text, "limits.memory (16 MiB)"));
    assert_non_null(strstr(h.reasons[0].text, "tables take 4 MiB"));
    budget_add(ACCOUNT_OF(MEMORY_FILES), -(int64_t)(4 * MIB));
    budget_configure(0, 1);
    assert_int_equal(judge(&h), HEALTH_OPTIMAL);
}

static void test_nothing_accepted(void **state)
{
    struct output_stats *o = &stats.outputs[0];
    struct health h;
    (void)state;
    gauge_set(&o->oldest_unsent_wall_ns, NOW - 900 * S);
    gauge_set(&o->last_success_wall_ns, NOW - 900 * S + 1);
    assert_int_equal(judge(&h), HEALTH_DEGRADED);
    gauge_set(&o->last_success_wall_ns, NOW - 900 * S);
    assert_int_equal(judge(&h), HEALTH_UNHEALTHY);
    gauge_set(&o->oldest_unsent_wall_ns, NOW - 899 * S); /* those lines wait for less */
    assert_int_equal(judge(&h), HEALTH_DEGRADED);
    gauge_set(&o->oldest_unsent_wall_ns, 0); /* none wait */
    assert_int_equal(judge(&h), HEALTH_OPTIMAL);
    gauge_set(&o->oldest_unsent_wall_ns, NOW - 9000 * S); /* from before this start: it has its 15 minutes */
    gauge_set(&o->last_success_wall_ns, 0);
    gauge_set(&stats.started_wall_ns, NOW - 899 * S);
    assert_int_equal(judge(&h), HEALTH_DEGRADED);
}

static void test_held_keys_and_ledger(void **state)
{
    struct health h;
    (void)state;
    stats_count_code(stats.outputs[0].keys_held, "unauthorized", 2);
    assert_int_equal(judge(&h), HEALTH_DEGRADED);
    assert_non_null(strstr(h.reasons[0].text, "unauthorized"));
    stats_count_code(stats.outputs[0].keys_held, "unauthorized", -2);
    assert_int_equal(judge(&h), HEALTH_OPTIMAL);

    counter_add(&stats_input_row(0, 1)->read_lines, 3);
    counter_add(&stats_input_row(0, 1)->kept_lines, 2);
    counter_add(&stats_input_row(0, 1)->filtered[FILTER_RULE], 1);
    counter_add(&stats_output_row(0, 1)->accepted_lines, 6);
    counter_add(&stats_output_row(0, 1)->delivered_lines, 1);
    counter_add(&stats_output_row(0, 1)->dead_lines, 1);
    counter_add(&stats_output_row(0, 1)->lost_lines[LOST_DAMAGE], 1);
    gauge_add(&stats_output_row(0, 1)->queued_lines, 1);
    gauge_add(&stats_output_row(0, 1)->parked_lines, 2);
    assert_int_equal(judge(&h), HEALTH_OPTIMAL);
    counter_add(&stats_input_row(0, 1)->read_lines, 1);
    assert_int_equal(ledger_input_off(stats_input_row(0, 1)), 1);
    assert_int_equal(judge(&h), HEALTH_UNHEALTHY);
    counter_add(&stats_input_row(0, 1)->kept_lines, 1);
    counter_add(&stats_output_row(0, 1)->delivered_lines, 5);
    assert_int_equal(ledger_sum().inputs, 0);
    assert_int_equal(ledger_sum().outputs, 5);
    assert_int_equal(judge(&h), HEALTH_UNHEALTHY);
}

/* More reasons than fit: the worst still counts; both forms stay well-formed. */
static void test_forms(void **state)
{
    struct health h;
    struct buf out;
    char why[128];
    const char *level[] = { "level", NULL }, *checks[] = { "checks", NULL };
    (void)state;
    outputs[0].name = SLICE("o\"\n\xff");
    for (int i = 0; i < 40; i++) {
        char code[16];
        (void)snprintf(code, sizeof(code), "\"c%d", i);
        stats_count_code(stats.outputs[0].keys_held, code, 1);
    }
    gauge_set(&stats.state_writable, 0);
    assert_int_equal(judge(&h), HEALTH_UNHEALTHY);
    assert_int_equal(h.n_reasons, HEALTH_REASONS_MAX);
    buf_init(&out, MIB);
    assert_int_equal(health_write_json(&h, &out), 0);
    assert_int_equal(buf_terminate(&out), 0);
    yajl_val v = yajl_tree_parse(out.ptr, why, sizeof(why));
    assert_non_null(v);
    assert_string_equal(YAJL_GET_STRING(yajl_tree_get(v, level, yajl_t_string)), "Unhealthy");
    assert_int_equal(YAJL_GET_ARRAY(yajl_tree_get(v, checks, yajl_t_array))->len, HEALTH_REASONS_MAX);
    yajl_tree_free(v);
    buf_reset(&out);
    assert_int_equal(health_write_text(&h, &out), 0);
    assert_true(slice_starts(buf_slice(&out), SLICE("Unhealthy\n")));
    buf_deinit(&out);
}

static double number(yajl_val v, const char *key)
{
    const char *path[] = { "outputs", NULL }, *key_path[] = { key, NULL };
    yajl_val list = yajl_tree_get(v, path, yajl_t_array);
    assert_non_null(list);
    yajl_val n = yajl_tree_get(YAJL_GET_ARRAY(list)->values[0], key_path, yajl_t_any);
    assert_non_null(n);
    return YAJL_IS_NULL(n) ? -1 : YAJL_GET_DOUBLE(n);
}

static yajl_val told(void)
{
    struct health h;
    struct buf out;
    char why[128];
    buf_init(&out, MIB);
    (void)judge(&h);
    assert_int_equal(health_write_json(&h, &out), 0);
    assert_int_equal(buf_terminate(&out), 0);
    yajl_val v = yajl_tree_parse(out.ptr, why, sizeof(why));
    assert_non_null(v);
    buf_deinit(&out);
    return v;
}

static void test_what_is_told_of_an_output(void **state)
{
    static const char *const unknown[] = { "latency_mean_ms", "latency_p99_ms", "certificate_days", "client_certificate_days" };
    struct output_stats *o = &stats.outputs[0];
    (void)state;
    yajl_val v = told();
    for (size_t i = 0; i < ARRAY_LEN(unknown); i++)
        assert_true(number(v, unknown[i]) < 0);
    assert_true(number(v, "last_success_seconds") == 0);
    yajl_tree_free(v);
    for (int i = 0; i < 199; i++)
        histogram_observe(&o->request_duration, 4 * NS_PER_MS);
    histogram_observe(&o->request_duration, S);
    gauge_set(&o->certificate_expiry_s[0], NOW / S + 29 * 86400 + 7);
    gauge_set(&o->last_success_wall_ns, NOW - 3 * S);
    v = told();
    assert_true(number(v, "latency_p99_ms") == 5 && number(v, "certificate_days") == 29);
    assert_true(number(v, "last_success_seconds") == 3);
    assert_true(number(v, "latency_mean_ms") > 8.9 && number(v, "latency_mean_ms") < 9.1);
    yajl_tree_free(v);
    for (int i = 0; i < 10; i++)
        histogram_observe(&o->request_duration, 1000 * S);
    v = told();
    assert_true(number(v, "latency_p99_ms") < 0); /* above all that is told apart */
    yajl_tree_free(v);
}

static void test_live(void **state)
{
    const char *why = NULL;
    int64_t now = 1000 * S;
    (void)state;
    assert_true(health_is_live(now, &why)); /* no thread has begun */
    for (int t = 0; t < 4; t++)
        gauge_set(&stats.thread_turn_mono_ns[t], now - 30 * S);
    assert_true(health_is_live(now, &why));
    for (int t = 0; t < 4; t++) {
        gauge_set(&stats.thread_turn_mono_ns[t], now - 30 * S - 1);
        assert_false(health_is_live(now, &why));
        gauge_set(&stats.thread_turn_mono_ns[t], now);
    }
    gauge_set(&stats.writer_in_sync, 1);
    gauge_set(&stats.thread_turn_mono_ns[THREAD_WRITER], now - 120 * S);
    assert_true(health_is_live(now, &why));
    gauge_set(&stats.thread_turn_mono_ns[THREAD_WRITER], now - 120 * S - 1);
    assert_false(health_is_live(now, &why));
    assert_non_null(strstr(why, "writer"));
}

static void test_ready(void **state)
{
    const char *why;
    (void)state;
    assert_false(health_is_ready(&why));
    gauge_set(&stats.ready_config, 1);
    assert_false(health_is_ready(&why));
    assert_non_null(strstr(why, "queues"));
    gauge_set(&stats.ready_queues, 1);
    assert_false(health_is_ready(&why));
    assert_non_null(strstr(why, "scan"));
    gauge_set(&stats.ready_scan, 1);
    assert_true(health_is_ready(&why));
    assert_null(why);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_thresholds, set_up), cmocka_unit_test_setup(test_memory, set_up), cmocka_unit_test_setup(test_nothing_accepted, set_up),
        cmocka_unit_test_setup(test_held_keys_and_ledger, set_up), cmocka_unit_test_setup(test_forms, set_up),
        cmocka_unit_test_setup(test_what_is_told_of_an_output, set_up),
        cmocka_unit_test_setup(test_live, set_up), cmocka_unit_test_setup(test_ready, set_up),
    };
    return cmocka_run_group_tests_name("admin/health", tests, NULL, NULL);
}
