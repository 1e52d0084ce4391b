/*
 * Goal: the page is Prometheus text: families contiguous, each once, labels escaped, no series twice; every name of
 * docs is there at 0; at most max_tenants tenants, the rest in _other, and the sum is kept.
 * Method: counters are set, the page is read back by a small parser.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/admin/admin.h"
#include "agent/base/tenants.h"

static struct conf_input inputs[2];
static struct output_conf outputs[2];
static struct conf conf = { .inputs = inputs, .n_inputs = 2, .outputs = outputs, .n_outputs = 2,
                            .metrics_max_tenants = 3 };
static struct buf page;

static int set_up(void **state)
{
    (void)state;
    inputs[0].name = SLICE("in");
    inputs[1].name = SLICE("second");
    outputs[0].name = SLICE("out");
    outputs[1].name = SLICE("o\"t\\h\ner\xff");
    conf.tenants_other = SLICE("unassigned");
    for (uint32_t i = 0; i < 2; i++)
        stats_forget_output(i); /* its codes are on the heap */
    memset(&stats, 0, sizeof(stats));
    stats_forget_rows();
    buf_init(&page, 8 * MIB);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    buf_deinit(&page);
    return 0;
}

static const char *write_page(void)
{
    struct admin_view v = { .conf = &conf };
    buf_reset(&page);
    assert_int_equal(metrics_write(&v, &page), 0);
    assert_int_equal(buf_terminate(&page), 0);
    return page.ptr;
}

static bool has(const char *line)
{
    char text[512];
    (void)snprintf(text, sizeof(text), "\n%s\n", line);
    return strstr(page.ptr, text) != NULL;
}

static int compare_lines(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Series, and the families that were begun, of a page. */
static void check_shape(char *text)
{
    static char *series[20000];
    static char families[200][128];
    size_t n = 0, n_families = 0;
    for (char *line = strtok_r(text, "\n", &text); line != NULL; line = strtok_r(NULL, "\n", &text)) {
        if (strncmp(line, "# HELP ", 7) == 0) {
            size_t len = strcspn(line + 7, " ");
            for (size_t i = 0; i < n_families; i++)
                assert_false(strlen(families[i]) == len && strncmp(families[i], line + 7, len) == 0);
            assert_true(n_families < ARRAY_LEN(families) && len < sizeof(families[0]));
            memcpy(families[n_families], line + 7, len);
            families[n_families++][len] = '\0';
            continue;
        }
        if (strncmp(line, "# TYPE ", 7) == 0)
            continue;
        size_t family = strlen(families[n_families - 1]);
        assert_int_equal(strncmp(line, families[n_families - 1], family), 0);
        char *space = strrchr(line, ' ');
        char *end;
        (void)strtod(space + 1, &end);
        assert_int_equal(*end, '\0');
        *space = '\0';
        assert_true(n < ARRAY_LEN(series));
        series[n++] = line;
    }
    qsort(series, n, sizeof(series[0]), compare_lines);
    for (size_t i = 1; i < n; i++)
        if (strcmp(series[i - 1], series[i]) == 0)
            fail_msg("twice: %s", series[i]);
    assert_true(n > 100);
}

static void test_all_names_from_the_start(void **state)
{
    static const char *const names[] = {
        "tailrace_read_lines_total{input=\"in\",tenant=\"unassigned\"} 0",
        "tailrace_read_bytes_total{input=\"second\",tenant=\"unassigned\"} 0",
        "tailrace_filtered_lines_total{input=\"in\",tenant=\"unassigned\",reason=\"unrouted\"} 0",
        "tailrace_altered_lines_total{input=\"in\",reason=\"refused_mapping\"} 0",
        "tailrace_altered_lines_total{input=\"in\",reason=\"split\"} 0",
        "tailrace_files{input=\"in\",state=\"stalled\"} 0",
        "tailrace_unread_bytes{input=\"in\"} 0",
        "tailrace_held_bytes{input=\"in\"} 0",
        "tailrace_inotify_overflows_total 0",
        "tailrace_queue_bytes{output=\"out\"} 0",
        "tailrace_queue_limit_bytes{output=\"out\"} 0",
        "tailrace_queue_oldest_age_seconds{output=\"out\"} 0",
        "tailrace_queue_blocked{output=\"out\",reason=\"disk_full\"} 0",
        "tailrace_accepted_lines_total{output=\"out\",tenant=\"unassigned\"} 0",
        "tailrace_delivered_lines_total{output=\"out\",tenant=\"unassigned\"} 0",
        "tailrace_output_up{output=\"out\"} 0",
        "tailrace_output_last_success_timestamp_seconds{output=\"out\"} 0",
        "tailrace_dead_letter_lines_total{output=\"out\",tenant=\"unassigned\",reason=\"none\"} 0",
        "tailrace_dead_letter_bytes{output=\"out\"} 0",
        "tailrace_lost_lines_total{output=\"out\",tenant=\"unassigned\",reason=\"held_limit\"} 0",
        "tailrace_lost_bytes_total{output=\"out\",tenant=\"unassigned\",reason=\"truncated\"} 0",
        "tailrace_ledger_imbalance_lines{scope=\"inputs\"} 0",
        "tailrace_ledger_imbalance_lines{scope=\"outputs\"} 0",
        "tailrace_state_free_bytes 0",
        "tailrace_memory_bytes 0",
        "tailrace_memory_limit_bytes 0",
        "tailrace_config_reload_successful 0",
        "tailrace_config_reload_timestamp_seconds 0",
        "tailrace_tenant_overflow_lines_total{input=\"in\"} 0",
        "tailrace_request_duration_seconds_count{output=\"out\"} 0",
        "tailrace_delivery_delay_seconds_bucket{output=\"out\",le=\"+Inf\"} 0",
    };
    (void)state;
    (void)write_page();
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (!has(names[i]))
            fail_msg("missing: %s", names[i]);
    check_shape(page.ptr);
}

static void test_labels_are_escaped(void **state)
{
    (void)state;
    counter_add(&stats_output_row(1, tenant_intern(SLICE("a\\b\"c\nd")))->accepted_lines, 7);
    stats_count_code(stats.outputs[1].requests, "\"204\n", 3);
    (void)write_page();
    assert_true(has("tailrace_accepted_lines_total{output=\"o\\\"t\\\\h\\ner?\",tenant=\"a\\\\b\\\"c\\nd\"} 7"));
    assert_true(has("tailrace_requests_total{output=\"o\\\"t\\\\h\\ner?\",code=\"\\\"204\\n\"} 3"));
    check_shape(page.ptr);
}

static void test_tenants_are_capped(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 10; i++) {
        char name[16];
        struct slice s = slice_of(name, (size_t)snprintf(name, sizeof(name), "cap%u", i));
        uint32_t id = tenant_intern(s);
        counter_add(&stats_input_row(0, id)->read_lines, 1u << i);
        counter_add(&stats_output_row(0, id)->dead_lines, 1u << i);
        stats_count_dead_reason(stats_output_row(0, id), "mapping", 1 << i);
    }
    const char *text = write_page();
    unsigned shown = 0;
    uint64_t sum = 0;
    for (const char *p = text; (p = strstr(p, "\ntailrace_read_lines_total{input=\"in\"")) != NULL; p++) {
        shown++;
        sum += strtoull(strchr(p, '}') + 2, NULL, 10);
    }
    assert_int_equal(shown, 4); /* three and _other */
    assert_int_equal(sum, 1023);
    shown = 0;
    sum = 0;
    for (const char *p = text; (p = strstr(p, "\ntailrace_dead_letter_lines_total{output=\"out\"")) != NULL; p++) {
        shown++;
        sum += strtoull(strchr(p, '}') + 2, NULL, 10);
    }
    assert_int_equal(shown, 4);
    assert_int_equal(sum, 1023);
    assert_non_null(strstr(text, "tailrace_read_lines_total{input=\"in\",tenant=\"_other\"}"));
    check_shape(page.ptr);
}

static void test_histogram_and_imbalance(void **state)
{
    (void)state;
    histogram_observe(&stats.outputs[0].request_duration, 4 * NS_PER_MS);
    histogram_observe(&stats.outputs[0].request_duration, 2 * NS_PER_SEC);
    histogram_observe(&stats.outputs[0].request_duration, 4000 * NS_PER_SEC);
    counter_add(&stats_input_row(0, 1)->kept_lines, 4);
    gauge_add(&stats_output_row(0, 1)->queued_lines, 2);
    (void)write_page();
    assert_true(has("tailrace_request_duration_seconds_bucket{output=\"out\",le=\"0.005\"} 1"));
    assert_true(has("tailrace_request_duration_seconds_bucket{output=\"out\",le=\"1\"} 1"));
    assert_true(has("tailrace_request_duration_seconds_bucket{output=\"out\",le=\"2\"} 2"));
    assert_true(has("tailrace_request_duration_seconds_bucket{output=\"out\",le=\"+Inf\"} 3"));
    assert_true(has("tailrace_request_duration_seconds_count{output=\"out\"} 3"));
    assert_true(has("tailrace_ledger_imbalance_lines{scope=\"inputs\"} 4"));
    assert_true(has("tailrace_ledger_imbalance_lines{scope=\"outputs\"} 2"));
    assert_true(has("tailrace_health 3"));
}

static void test_no_room(void **state)
{
    struct admin_view v = { .conf = &conf };
    struct buf small;
    (void)state;
    buf_init(&small, 1000);
    assert_true(metrics_write(&v, &small) < 0);
    buf_deinit(&small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_all_names_from_the_start, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_labels_are_escaped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_tenants_are_capped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_histogram_and_imbalance, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_room, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("admin/metrics", tests, NULL, NULL);
}
