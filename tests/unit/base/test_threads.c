/*
 * Goal: rings, inboxes, questions, names and counters keep what one thread gives to another, each once, in order.
 * Method: real threads, many items through small capacities; run under TSan as well.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/base/ask.h"
#include "agent/base/inbox.h"
#include "agent/base/ring.h"
#include "agent/base/stats.h"
#include "agent/base/tenants.h"

#define ITEMS 20000

static struct ring ring;
static struct inbox space;

struct note {
    struct inbox_link link;
    int value;
};
static struct note notes[ITEMS + 1];

static void *consumer(void *arg)
{
    uintptr_t next = 1;
    (void)arg;
    while (next <= ITEMS) {
        bool was_wanted;
        void *item = ring_pop(&ring, &was_wanted);
        if (was_wanted)
            inbox_post(&space, &notes[next].link);
        if (item == NULL)
            continue;
        if ((uintptr_t)item != next)
            return (void *)1;
        next++;
    }
    return NULL;
}

static void test_ring_wakes_a_full_producer(void **state)
{
    pthread_t t;
    void *result;
    (void)state;
    ring_init(&ring, 4);
    assert_int_equal(inbox_init(&space), 0);
    assert_int_equal(pthread_create(&t, NULL, consumer, NULL), 0);
    for (uintptr_t i = 1; i <= ITEMS; i++) {
        while (ring_push(&ring, (void *)i) == -EAGAIN) {
            struct pollfd p = { .fd = space.event_fd, .events = POLLIN };
            assert_int_equal(poll(&p, 1, 10000), 1); /* the wish is always heard */
            (void)inbox_take_all(&space);
        }
    }
    pthread_join(t, &result);
    assert_null(result);
    (void)inbox_take_all(&space);
    inbox_deinit(&space);
}

static void *poster(void *arg)
{
    struct inbox *in = arg;
    for (int i = 0; i < ITEMS; i++) {
        notes[i].value = i;
        inbox_post(in, &notes[i].link);
    }
    return NULL;
}

static void test_inbox_keeps_order(void **state)
{
    struct inbox in;
    pthread_t t;
    int next = 0;
    (void)state;
    assert_int_equal(inbox_init(&in), 0);
    pthread_create(&t, NULL, poster, &in);
    while (next < ITEMS) {
        struct pollfd p = { .fd = in.event_fd, .events = POLLIN };
        assert_int_equal(poll(&p, 1, 10000), 1);
        for (struct inbox_link *l = inbox_take_all(&in); l != NULL;) {
            struct note *n = CONTAINER_OF(l, struct note, link);
            l = l->next;
            assert_int_equal(n->value, next++);
        }
    }
    pthread_join(t, NULL);
    inbox_deinit(&in);
}

static void *answerer(void *arg)
{
    struct ask *a = arg;
    assert_int_equal(buf_append_lit(ask_answer(a), "42"), 0);
    ask_done(a);
    ask_unref(a);
    return NULL;
}

static void test_ask(void **state)
{
    struct buf out;
    pthread_t t;
    (void)state;
    buf_init(&out, 100);
    struct ask *a = ask_new(100);
    assert_int_equal(ask_wait(a, NS_PER_MS, &out), -ETIMEDOUT);
    pthread_create(&t, NULL, answerer, ask_ref(a));
    assert_int_equal(ask_wait(a, 10 * NS_PER_SEC, &out), 0);
    assert_true(slice_eq(buf_slice(&out), SLICE("42")));
    ask_unref(a);
    pthread_join(t, NULL);
    buf_deinit(&out);
}

static void test_tenants(void **state)
{
    char name[32];
    uint32_t before = tenant_count();
    (void)state;
    for (int i = 0; i < 3000; i++) {
        int n = snprintf(name, sizeof(name), "tenant-%d", i % 1500);
        uint32_t id = tenant_intern(slice_of(name, (size_t)n));
        assert_int_equal(id, before + (uint32_t)(i % 1500) + 1);
        assert_true(slice_eq(tenant_name(id), slice_of(name, (size_t)n)));
    }
    assert_int_equal(tenant_count(), before + 1500);
    assert_int_equal(tenant_name(0).len, 0);
    assert_int_equal(tenant_name(before + 1501).len, 0);
}

static void test_rows_and_codes(void **state)
{
    (void)state;
    struct input_row *row = stats_input_row(3, 7);
    assert_ptr_equal(stats_input_row(3, 7), row);
    assert_ptr_not_equal(stats_input_row(3, 8), row);
    counter_bump(&row->read_lines, 5);
    assert_true(counter_get(&stats_input_row(3, 7)->read_lines) == 5);
    static struct code_count table[CODES_MAX];
    char code[16];
    for (int i = 0; i < 100; i++) {
        (void)snprintf(code, sizeof(code), "c%d", i);
        stats_count_code(table, code, 1);
        stats_count_code(table, "c3", 1);
    }
    uint64_t sum = 0;
    for (int i = 0; i < CODES_MAX; i++)
        sum += counter_get(&table[i].n);
    assert_true(sum == 200); /* a full table loses no count */
    assert_true(counter_get(&table[3].n) == 101 || counter_get(&table[1].n) == 101);
}

static void test_histogram(void **state)
{
    static struct histogram h;
    (void)state;
    histogram_observe(&h, 4 * NS_PER_MS);
    histogram_observe(&h, 5 * NS_PER_MS);
    histogram_observe(&h, 400 * NS_PER_SEC);
    assert_true(counter_get(&h.buckets[0]) == 2);
    assert_true(counter_get(&h.buckets[HISTOGRAM_BUCKETS]) == 1);
    assert_true(counter_get(&h.sum_us) == 400009000);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_ring_wakes_a_full_producer),
                                        cmocka_unit_test(test_inbox_keeps_order),
                                        cmocka_unit_test(test_ask),
                                        cmocka_unit_test(test_tenants),
                                        cmocka_unit_test(test_rows_and_codes),
                                        cmocka_unit_test(test_histogram) };
    return cmocka_run_group_tests_name("base/threads", tests, NULL, NULL);
}
