/*
 * Goal: the small things that delivery stands on: back-off, secrets, certificates, runs, the order of parked frames.
 * Method: tables, bounds, files in a fresh folder, every truncation of the certificate.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/base/base64.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/deliver/auth.h"
#include "agent/deliver/backoff.h"
#include "agent/deliver/lane.h"
#include "agent/deliver/pem.h"
#include "agent/deliver/pending.h"

static void test_backoff(void **state)
{
    (void)state;
    uint64_t rng = backoff_seed();
    assert_int_not_equal(rng, 0);
    static const struct {
        unsigned attempt;
        int64_t least, most; /* ms */
    } cases[] = {
        { 0, 500, 500 }, { 1, 500, 1000 }, { 2, 500, 2000 }, { 6, 500, 32000 }, { 7, 500, 60000 }, { 8, 500, 60000 },
        { 1000000, 500, 60000 }, { UINT32_MAX, 500, 60000 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int64_t low = INT64_MAX, high = 0;
        for (int k = 0; k < 2000; k++) {
            const int64_t d = backoff_delay_ns(cases[i].attempt, &rng);
            assert_in_range(d, cases[i].least * NS_PER_MS, cases[i].most * NS_PER_MS);
            low = MIN(low, d);
            high = MAX(high, d);
        }
        /* Full jitter: all of the range is used. */
        const int64_t span = (cases[i].most - cases[i].least) * NS_PER_MS;
        assert_true(high - low >= span - span / 10);
    }
}

static void write_file(const char *path, const char *text)
{
    char beside[128];
    (void)snprintf(beside, sizeof(beside), "%s.new", path);
    const int fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    (void)close(fd);
    assert_int_equal(rename(beside, path), 0); /* another inode, as Kubernetes does it */
}

static int64_t fake_mono;

static int64_t fake_mono_ns(void)
{
    return fake_mono;
}

static void assert_header(struct auth *a, const char *want)
{
    assert_true(slice_eq(buf_slice(&a->header), slice_cstr(want)));
}

static void test_auth_literals(void **state)
{
    (void)state;
    static const struct {
        struct http_conf conf;
        const char *want;
    } cases[] = {
        { { .timeout_ns = 1 }, "" },
        { { .username = SLICE_INIT("user"), .password = SLICE_INIT("pass") }, "Authorization: Basic dXNlcjpwYXNz" },
        { { .bearer = SLICE_INIT("abc.def") }, "Authorization: Bearer abc.def" },
        { { .api_key = SLICE_INIT("aWQ6a2V5") }, "Authorization: ApiKey aWQ6a2V5" },
        { { .api_key = SLICE_INIT("id:key") }, "Authorization: ApiKey aWQ6a2V5" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct auth a;
        assert_int_equal(auth_init(&a, &cases[i].conf), 0);
        assert_int_equal(auth_refresh(&a, NULL), 0);
        assert_header(&a, cases[i].want);
        auth_deinit(&a);
    }
}

static void test_auth_file(void **state)
{
    (void)state;
    char dir[] = "/tmp/tailrace-auth-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/token", dir);
    fake_mono = NS_PER_SEC;
    clock_set_source(fake_mono_ns, NULL);
    const struct http_conf conf = { .bearer_file = slice_cstr(path) };
    struct auth a;
    struct err err = { 0 };
    assert_int_equal(auth_init(&a, &conf), 0);

    assert_int_equal(auth_refresh(&a, &err), -ENOENT); /* not there yet */
    assert_int_equal(a.header.len, 0);
    write_file(path, "one\n");
    fake_mono += 2 * NS_PER_SEC;
    assert_int_equal(auth_refresh(&a, &err), 0);
    assert_header(&a, "Authorization: Bearer one");

    write_file(path, "two\r\n");
    assert_int_equal(auth_refresh(&a, &err), 0); /* looked at a moment ago */
    assert_header(&a, "Authorization: Bearer one");
    auth_distrust(&a);
    assert_int_equal(auth_refresh(&a, &err), 0); /* after a 401 it is looked at */
    assert_header(&a, "Authorization: Bearer two");

    write_file(path, "three\nX-Injected: yes");
    fake_mono += 2 * NS_PER_SEC;
    assert_int_equal(auth_refresh(&a, &err), -EINVAL);
    assert_header(&a, "Authorization: Bearer two");
    assert_int_equal(unlink(path), 0);
    fake_mono += 2 * NS_PER_SEC;
    assert_int_equal(auth_refresh(&a, &err), -ENOENT);
    assert_header(&a, "Authorization: Bearer two"); /* the last good one stays */
    write_file(path, "four");
    fake_mono += 2 * NS_PER_SEC;
    assert_int_equal(auth_refresh(&a, &err), 0);
    assert_header(&a, "Authorization: Bearer four");

    auth_deinit(&a);
    clock_set_source(NULL, NULL);
    (void)unlink(path);
    (void)rmdir(dir);
}

/* A self-signed certificate: notAfter 2031-03-04 05:06:07 UTC. */
static const uint8_t der_start[] = {
    0x30, 0x81, 0x80,                               /* Certificate */
    0x30, 0x50,                                     /* TBSCertificate */
    0xa0, 0x03, 0x02, 0x01, 0x02,                   /* version */
    0x02, 0x01, 0x07,                               /* serial */
    0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70,       /* algorithm */
    0x30, 0x00,                                     /* issuer */
    0x30, 0x1e,                                     /* validity */
    0x17, 0x0d, '2', '1', '0', '3', '0', '4', '0', '5', '0', '6', '0', '7', 'Z',
    0x17, 0x0d, '3', '1', '0', '3', '0', '4', '0', '5', '0', '6', '0', '7', 'Z',
};

static void make_pem(struct buf *pem, const uint8_t *der, size_t n)
{
    assert_int_equal(buf_append_lit(pem, "Bag Attributes\n-----BEGIN CERTIFICATE-----\n"), 0);
    struct buf b;
    buf_init(&b, KIB);
    assert_int_equal(base64_encode(slice_of(der, n), &b), 0);
    for (struct slice rest = buf_slice(&b); rest.len > 0; rest = slice_from(rest, 64)) {
        assert_int_equal(buf_append_slice(pem, slice_first(rest, 64)), 0);
        assert_int_equal(buf_append_byte(pem, '\n'), 0);
    }
    buf_deinit(&b);
    assert_int_equal(buf_append_lit(pem, "-----END CERTIFICATE-----\n"), 0);
}

static void test_pem(void **state)
{
    (void)state;
    uint8_t der[0x83] = { 0 };
    memcpy(der, der_start, sizeof(der_start));
    struct buf pem;
    buf_init(&pem, 4 * KIB);
    int64_t when = 0;
    make_pem(&pem, der, sizeof(der));
    assert_int_equal(pem_not_after(buf_slice(&pem), &when), 0);
    assert_int_equal(when, 1930367167);
    for (size_t n = 0; n + 2 < pem.len; n++) /* never beyond, never a wrong answer */
        assert_int_equal(pem_not_after(slice_first(buf_slice(&pem), n), &when), -EBADMSG);
    for (size_t n = 0; n < sizeof(der_start); n++) {
        buf_reset(&pem);
        make_pem(&pem, der, n);
        assert_int_equal(pem_not_after(buf_slice(&pem), &when), -EBADMSG);
    }
    /* No byte of it can make it read outside. */
    for (size_t i = 0; i < sizeof(der_start); i++) {
        for (unsigned v = 0; v < 256; v += 5) {
            const uint8_t was = der[i];
            der[i] = (uint8_t)v;
            buf_reset(&pem);
            make_pem(&pem, der, sizeof(der));
            (void)!pem_not_after(buf_slice(&pem), &when);
            der[i] = was;
        }
    }
    buf_deinit(&pem);
}

static void test_runs(void **state)
{
    (void)state;
    static const struct {
        struct slice runs;
        uint8_t want[6];
    } cases[] = {
        { SLICE_INIT(""), { 0, 0, 0, 0, 0, 0 } },
        { SLICE_INIT("\x01\x02\x00\x04"), { 1, 1, 0, 0, 0, 0 } },
        { SLICE_INIT("\x05\x80\x01"), { 5, 5, 5, 5, 5, 5 } },        /* longer than there are lines */
        { SLICE_INIT("\x02\x01"), { 2, 0, 0, 0, 0, 0 } },            /* shorter */
        { SLICE_INIT("\x03"), { 0, 0, 0, 0, 0, 0 } },                /* cut */
        { SLICE_INIT("\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), { 3, 3, 3, 3, 3, 3 } },
        { SLICE_INIT("\x03\x00\x04\x06"), { 4, 4, 4, 4, 4, 4 } },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint8_t rows[6];
        runs_decode(cases[i].runs, rows, 6);
        assert_memory_equal(rows, cases[i].want, 6);
    }
    uint64_t rng = 1;
    for (int k = 0; k < 200; k++) {
        uint8_t rows[700], again[700];
        const size_t n = backoff_random(&rng) % sizeof(rows);
        for (size_t i = 0; i < n; i++)
            rows[i] = i > 0 && backoff_random(&rng) % 8 != 0 ? rows[i - 1] : (uint8_t)backoff_random(&rng);
        struct buf b;
        buf_init(&b, 4 * KIB);
        assert_int_equal(runs_encode(rows, n, &b), 0);
        runs_decode(buf_slice(&b), again, n);
        assert_memory_equal(rows, again, n);
        buf_deinit(&b);
    }
}

static void test_parked_order(void **state)
{
    (void)state;
    struct parked p = { 0 };
    struct frame_head h = { .body_len = 10, .meta_len = 1 };
    uint64_t rng = 7, next = 1;
    assert_false(parked_pop(&p, &h));
    for (int round = 0; round < 50; round++) {
        for (unsigned i = 0; i < 40; i++) { /* two neighbours swapped now and then, as a frame in flight is */
            const bool is_swapped = backoff_random(&rng) % 4 == 0;
            h.seq = next + is_swapped;
            assert_int_equal(parked_push(&p, &h), 0);
            h.seq = next + !is_swapped;
            assert_int_equal(parked_push(&p, &h), 0);
            next += 2;
        }
        struct frame_head got;
        uint64_t last = 0;
        for (unsigned i = 0; i < 60 && parked_pop(&p, &got); i++) {
            assert_true(got.seq > last);
            last = got.seq;
        }
        assert_int_equal(p.bytes, p.n * 11);
    }
    free(p.heads);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backoff),       cmocka_unit_test(test_auth_literals),
        cmocka_unit_test(test_auth_file),     cmocka_unit_test(test_pem),    cmocka_unit_test(test_runs),
        cmocka_unit_test(test_parked_order),
    };
    log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
    return cmocka_run_group_tests_name("deliver/parts", tests, NULL, NULL);
}
