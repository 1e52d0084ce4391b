/*
 * Goal: whatever blocks, crashes, fails to sync or rotates, each output gets each line once, joined records stay together,
 * and the ledger counts each line once.
 * Method: rig.h. Random runs from a seed: containers' lines of two streams with parts and continuation lines, or plain JSON
 * lines; every piece holds a token "[o17]" that must arrive exactly once. Then the branches of the decision by tables.
 */
#include "tests/unit/agent/rig.h"

/* ---- random runs ---- */

struct source_of_lines {
    unsigned next[2];     /* tokens, by stream */
    bool in_part[2];      /* the last piece of this stream was partial */
    bool is_cri;
    bool with_parts;
    unsigned rotations;
    uint64_t lines;       /* raw lines */
};

static unsigned rnd(uint64_t *seed, unsigned n)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(*seed >> 33) % n;
}

static void write_some(struct rig *g, struct source_of_lines *s, uint64_t *seed)
{
    char text[8192];
    size_t at = 0;
    for (unsigned n = rnd(seed, 12) + 1; n > 0; n--) {
        unsigned stream = s->is_cri ? rnd(seed, 2) : 0, token = s->next[stream]++;
        char c = stream == 0 ? 'o' : 'e';
        bool was_in_part = s->in_part[stream];
        bool is_partial = s->is_cri && s->with_parts && rnd(seed, 3) == 0;
        if (!s->is_cri)
            at += (size_t)snprintf(text + at, sizeof(text) - at, "{\"level\":\"%s\",\"m\":\"[%c%u]\"}\n",
                                   token % 3 == 0 ? "debug" : "info", c, token);
        else
            at += (size_t)snprintf(text + at, sizeof(text) - at, "2026-01-15T10:30:00.%09uZ %s %c %s[%c%u]\n", token,
                                   stream == 0 ? "stdout" : "stderr", is_partial ? 'P' : 'F',
                                   !was_in_part && rnd(seed, 3) == 0 ? "   at " : "", c, token);
        s->in_part[stream] = is_partial;
        s->lines++;
    }
    rig_write(g, "logs/app.log", text, at);
}

static void rotate(struct rig *g, struct source_of_lines *s)
{
    char to[64];
    /* Files that come and go between two looks, or that no queue has heard of, are the tail's tests' business. */
    rig_run(g);
    for (uint32_t o = 0; o < RIG_OUTPUTS; o++)
        rig_commit(g, o);
    (void)snprintf(to, sizeof(to), "logs/app.log.%u", ++s->rotations);
    if (access(rig_path(g, "logs/app.log"), F_OK) == 0)
        assert_int_equal(rename(rig_path(g, "logs/app.log"), rig_path(g, to)), 0);
    rig_write(g, "logs/app.log", "", 0);
    rig_run(g);
}

static void close_parts(struct rig *g, struct source_of_lines *s)
{
    for (unsigned k = 0; k < 2; k++) {
        char text[128];
        int n = snprintf(text, sizeof(text), "2026-01-15T10:30:01Z %s F [%c%u]\n", k == 0 ? "stdout" : "stderr",
                         k == 0 ? 'o' : 'e', s->next[k]);
        if (!s->in_part[k])
            continue;
        s->next[k]++;
        s->lines++;
        rig_write(g, "logs/app.log", text, (size_t)n);
        s->in_part[k] = false;
    }
}

/* With TRACE set: what is done, and what each output has and knows before it. */
static void trace(struct rig *g, int step, unsigned op, uint32_t output)
{
    print_message("step %d: op %u output %u, agent read %llu\n", step, op, output,
                  (unsigned long long)rig_agent_row(tenant_intern(SLICE("t"))).read_lines);
    for (uint32_t o = 0; o < RIG_OUTPUTS; o++) {
        for (size_t i = 0; i < g->out[o].n_files; i++) {
            const struct file_position *p = &g->out[o].files[i].position;
            print_message("  %u: %llx at %llu", o, (unsigned long long)p->incarnation, (unsigned long long)p->end);
            for (int k = 0; k < p->n_parts; k++)
                print_message(" part %u from %llu", p->parts[k].stream, (unsigned long long)p->parts[k].start);
            print_message("\n");
        }
        for (size_t i = 0; i < g->out[o].n_ledger; i++)
            print_message("  %u ledger: read %llu\n", o, (unsigned long long)g->out[o].ledger[i].read_lines);
        print_message("  %u%s:", o, g->feeders[o].is_blocked ? " (blocked)" : "");
        for (size_t i = 0; i < g->out[o].open.n; i++)
            print_message(" <%s>", g->out[o].open.item[i].text);
        print_message("\n");
    }
}

static void check_tokens(const struct rig *g, uint32_t index, const struct source_of_lines *s, uint64_t seed)
{
    unsigned *seen[2];
    for (int k = 0; k < 2; k++) {
        seen[k] = calloc(s->next[k] + 1, sizeof(unsigned));
        assert_non_null(seen[k]);
    }
    for (size_t i = 0; i < g->out[index].durable.n; i++) {
        const struct rig_record *r = &g->out[index].durable.item[i];
        long last = -1;
        for (const char *p = r->text; (p = strchr(p, '[')) != NULL; p++) {
            unsigned k = p[1] == 'e', token = (unsigned)strtoul(p + 2, NULL, 10);
            if (s->is_cri)
                assert_int_equal(r->stream, k == 0 ? STREAM_STDOUT : STREAM_STDERR);
            assert_true(token < s->next[k]);
            seen[k][token]++;
            if (last >= 0 && token != (unsigned)last + 1)
                fail_msg("seed %llu: output %u: pieces of one record are not in order: %s", (unsigned long long)seed, index,
                         r->text);
            last = token;
        }
    }
    for (unsigned k = 0; k < 2; k++) {
        for (unsigned i = 0; i < s->next[k]; i++) {
            unsigned want = !s->is_cri && i % 3 == 0 ? 0 : 1; /* debug is filtered */
            if (seen[k][i] != want && getenv("TRACE") != NULL) {
                char log[16384] = "";
                (void)!pread(g->log_fd, log, sizeof(log) - 1, 0);
                trace((struct rig *)(uintptr_t)g, 0, 0, 0);
                for (size_t j = 0; j < g->out[index].durable.n; j++)
                    print_message("<%s at %llu>", g->out[index].durable.item[j].text,
                                  (unsigned long long)g->out[index].durable.item[j].offset);
                print_message("%s\n", log);
                struct buf status;
                buf_init(&status, MIB);
                assert_int_equal(tail_status(g->tail, &status), 0);
                print_message("%.*s\n", SLICE_ARGS(buf_slice(&status)));
                buf_deinit(&status);
            }
            if (seen[k][i] != want)
                fail_msg("seed %llu: output %u has token %c%u %u times", (unsigned long long)seed, index,
                         k == 0 ? 'o' : 'e', i, seen[k][i]);
        }
        free(seen[k]);
    }
}

static void random_run(uint64_t seed, bool is_cri, bool with_parts, bool rotates)
{
    struct rig *g = rig_new("inputs: { i: { type: file, include: \"%s/logs/*.log\", levels: info, read_from: beginning, "
                            "tenant: t } }");
    struct source_of_lines s = { .is_cri = is_cri, .with_parts = with_parts };
    uint64_t first_seed = seed;
    assert_int_equal(mkdir(rig_path(g, "logs"), 0755), 0);
    rig_start(g);
    for (int step = 0; step < 120; step++) {
        uint32_t o = rnd(&seed, RIG_OUTPUTS);
        unsigned op = rnd(&seed, 14);
        if (getenv("TRACE") != NULL)
            trace(g, step, op, o);
        switch (op) {
        case 0:
        case 1:
        case 2:
        case 3:
            write_some(g, &s, &seed);
            break;
        case 4:
        case 5:
            rig_run(g);
            break;
        case 6:
            g->out[o].stop = rnd(&seed, 2) == 0 ? STOP_BEFORE : STOP_AFTER;
            g->out[o].countdown = rnd(&seed, 10);
            break;
        case 7:
        case 8:
            rig_unblock(g, o);
            break;
        case 9:
        case 10:
            rig_commit(g, o);
            break;
        case 11:
            if (rnd(&seed, 3) == 0)
                rig_crash(g);
            break;
        case 12:
            if (rnd(&seed, 3) == 0)
                rig_fence(g, o);
            else if (rotates && rnd(&seed, 3) == 0)
                rotate(g, &s);
            break;
        case 13:
            rig_pass(g, (int)rnd(&seed, 12)); /* long enough for a file to rest */
            break;
        }
    }
    rig_run(g); /* before the last pieces: what was rotated away is known */
    close_parts(g, &s);
    for (uint32_t o = 0; o < RIG_OUTPUTS; o++) {
        g->out[o].stop = STOP_NOT;
        rig_unblock(g, o);
    }
    rig_pass(g, 30);
    for (uint32_t o = 0; o < RIG_OUTPUTS; o++)
        rig_commit(g, o);
    for (uint32_t o = 0; o < RIG_OUTPUTS; o++)
        check_tokens(g, o, &s, first_seed);
    if (!is_cri) {
        struct tally_cell row = rig_agent_row(tenant_intern(SLICE("t")));
        uint64_t debug = (s.next[0] + 2) / 3;
        if (row.read_lines != s.lines || row.filtered[FILTER_LEVEL] != debug || row.kept_lines != s.lines - debug)
            fail_msg("seed %llu: %llu lines, but the ledger has read %llu, kept %llu, filtered %llu",
                     (unsigned long long)first_seed, (unsigned long long)s.lines, (unsigned long long)row.read_lines,
                     (unsigned long long)row.kept_lines, (unsigned long long)row.filtered[FILTER_LEVEL]);
        for (uint32_t o = 0; s.lines > 0 && o < RIG_OUTPUTS; o++) {
            assert_int_equal(g->out[o].n_ledger, 1);
            assert_int_equal(g->out[o].ledger[0].read_lines, s.lines);
            assert_int_equal(g->out[o].ledger[0].filtered[FILTER_LEVEL], debug);
        }
    }
    rig_free(g);
}

static uint64_t runs(void)
{
    const char *n = getenv("RUNS");
    return n == NULL ? 40 : strtoull(n, NULL, 10);
}

static uint64_t first_seed(void)
{
    const char *n = getenv("SEED");
    return n == NULL ? 1 : strtoull(n, NULL, 10);
}

static void test_random_json(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < runs(); i++)
        random_run(first_seed() + i, false, false, true);
}

static void test_random_groups(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < runs(); i++)
        random_run(first_seed() + i, true, false, true);
}

static void test_random_parts(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < runs(); i++)
        random_run(first_seed() + i, true, true, false);
}

static void test_random_parts_rotated(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < runs(); i++)
        random_run(first_seed() + i, true, true, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_json),
        cmocka_unit_test(test_random_groups),
        cmocka_unit_test(test_random_parts),
        cmocka_unit_test(test_random_parts_rotated),
    };
    return cmocka_run_group_tests_name("agent/pipeline", tests, NULL, NULL);
}
