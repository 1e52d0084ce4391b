/*
 * Goal: raw lines become the records that they are: framed, joined, grouped, cut, unfinished at the file's end; and an
 * output that stops anywhere goes on with exactly what it has not had.
 * Method: rig.h; whole files, and the same files with a stop before and after each record.
 */
#include "tests/unit/agent/rig.h"

#define INPUT "inputs: { i: { type: file, include: \"%s/a.log\", tenant: t } }"
#define CRI(stream, tag, text) "2026-01-15T10:30:00Z " stream " " tag " " text "\n"

static const struct {
    const char *name, *text, *want; /* records apart by |, newlines inside as backslashes */
    int seconds;                    /* that pass */
} cases[] = {
    { "json", "{\"a\":1}\n{\"a\":2}\n", "{\"a\":1}|{\"a\":2}", 0 },
    { "no newline yet", "{\"a\":1}\n{\"a\":2}", "{\"a\":1}", 3 },
    { "CR LF", "{\"a\":1}\r\n", "{\"a\":1}", 0 },
    { "empty lines", "\n\n{\"a\":1}\n\n", "{\"a\":1}", 0 },
    { "text waits for what continues it", "one\n", "", 1 },
    { "text after two seconds", "one\n", "one", 3 },
    { "indented lines", "one\n  two\n  three\nfour\n", "one\\  two\\  three|four", 3 },
    { "JSON ends a group", "one\n  two\n{\"a\":1}\n", "one\\  two|{\"a\":1}", 0 },
    { "traceback with an empty line",
      "Traceback (most recent call last):\n  File \"x\"\nValueError: a\n\nDuring handling of the above exception, another "
      "exception occurred:\n\nTraceback (most recent call last):\n  File \"y\"\nKeyError: b\n{\"a\":1}\n",
      "Traceback (most recent call last):\\  File \"x\"\\ValueError: a\\\\During handling of the above exception, another "
      "exception occurred:\\\\Traceback (most recent call last):\\  File \"y\"\\KeyError: b|{\"a\":1}",
      0 },
    { "CRI", CRI("stdout", "F", "{\"a\":1}") CRI("stderr", "F", "{\"a\":2}"), "{\"a\":1}|{\"a\":2}", 0 },
    { "CRI parts", CRI("stdout", "P", "{\"a\":") CRI("stdout", "P", "\"b") CRI("stdout", "F", "c\"}"), "{\"a\":\"bc\"}", 0 },
    { "CRI parts of two streams",
      CRI("stdout", "P", "{\"a\":") CRI("stderr", "P", "{\"b\":") CRI("stdout", "F", "1}") CRI("stderr", "F", "2}"),
      "{\"a\":1}|{\"b\":2}", 0 },
    { "an unfinished part", CRI("stdout", "P", "{\"a\":"), "", 5 },
    { "a part ends the group before it at once", CRI("stdout", "F", "one") CRI("stdout", "P", "two"), "one", 0 },
    { "a part that continues the group", CRI("stdout", "F", "one") CRI("stdout", "P", "  two") CRI("stdout", "F", " three"),
      "one\\  two three", 3 },
    { "an empty CRI line", CRI("stdout", "F", "{\"a\":1}") CRI("stdout", "F", ""), "{\"a\":1}|", 3 },
    { "Docker", "{\"log\":\"one \",\"stream\":\"stdout\",\"time\":\"2026-01-15T10:30:00Z\"}\n"
                "{\"log\":\"two\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-15T10:30:00Z\"}\n",
      "one two", 3 },
};

static void test_records(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct rig *g = rig_new(INPUT);
        rig_write(g, "a.log", cases[i].text, strlen(cases[i].text));
        rig_start(g);
        rig_run(g);
        rig_pass(g, cases[i].seconds);
        print_message("    %s\n", cases[i].name);
        for (uint32_t o = 0; o < RIG_OUTPUTS; o++)
            rig_expect(g, o, cases[i].want);
        rig_free(g);
    }
}

/* In two feeds, cut at every byte: the same records. */
static void test_cut_at_every_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        size_t len = strlen(cases[i].text);
        for (size_t cut = 1; cut < len && cases[i].seconds == 0; cut++) {
            struct rig *g = rig_new(INPUT);
            rig_write(g, "a.log", cases[i].text, cut);
            rig_start(g);
            rig_run(g);
            rig_write(g, "a.log", cases[i].text + cut, len - cut);
            rig_run(g);
            rig_pass(g, 1); /* no news may come from a file without events before the rescan */
            if (cases[i].text[0] != '2' || cut > 30) /* the format of a file is told by whole lines */
                rig_expect(g, 0, cases[i].want);
            rig_free(g);
        }
    }
}

/* One output stops at each record, before or after it, is unblocked, or crashes: it has what the other has. */
static void test_stopped_anywhere(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        for (int how = 0; how < 8; how++)
            for (unsigned at = 0; at < 4 && cases[i].seconds != 1; at++) { /* 1: it would be 2 and more */
                struct rig *g = rig_new(INPUT);
                rig_write(g, "a.log", cases[i].text, strlen(cases[i].text));
                rig_start(g);
                g->out[0].stop = how & 1 ? STOP_BEFORE : STOP_AFTER;
                g->out[0].countdown = at;
                rig_run(g);
                rig_pass(g, cases[i].seconds);
                if (how & 2)
                    rig_commit(g, 0);
                if (how & 4)
                    rig_crash(g);
                else
                    rig_unblock(g, 0);
                rig_run(g);
                rig_pass(g, cases[i].seconds);
                rig_expect(g, 0, cases[i].want);
                rig_free(g);
            }
}

static void test_long_lines(void **state)
{
    struct rig *g = rig_new(INPUT);
    static char text[3 * LINE_BYTES_MAX];
    (void)state;
    rig_start(g);
    /* Its newline comes with it; its newline comes later; just as long as may be. */
    static const size_t lens[] = { LINE_BYTES_MAX + 1, 2 * LINE_BYTES_MAX + 5, LINE_BYTES_MAX };
    for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
        memset(text, (int)('a' + i), lens[i]);
        text[lens[i]] = '\n';
        rig_write(g, "a.log", text, lens[i] + 1);
        rig_run(g);
    }
    rig_write(g, "a.log", "{}\n", 3);
    rig_run(g);
    rig_pass(g, 3);
    assert_int_equal(g->out[0].open.n, ARRAY_LEN(lens) + 1);
    for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
        const struct rig_record *r = &g->out[0].open.item[i];
        assert_int_equal(strlen(r->text), LINE_BYTES_MAX);
        assert_int_equal(r->text[0], 'a' + i);
        assert_int_equal((r->flags & RECORD_CUT) != 0, lens[i] > LINE_BYTES_MAX);
    }
    assert_string_equal(g->out[0].open.item[ARRAY_LEN(lens)].text, "{}");
    assert_int_equal(counter_get(&stats.inputs[0].altered[ALTER_CUT]), 2);
    rig_free(g);
}

static uint64_t read_bytes(const struct rig_output *o)
{
    uint64_t n = 0;
    for (size_t i = 0; i < o->n_ledger; i++)
        n += o->ledger[i].read_bytes;
    return n;
}

/* All of a line that is cut is read, and is read once: by the agent's ledger and by each output's, a crash or not. */
static void test_bytes_of_long_lines(void **state)
{
    static char text[3 * LINE_BYTES_MAX];
    const size_t len = sizeof(text);
    (void)state;
    memset(text, 'a', len);
    text[len - 1] = '\n';
    for (int how = 0; how < 4; how++) {
        struct rig *g = rig_new(INPUT);
        rig_start(g);
        rig_write(g, "a.log", "{}\n", 3);
        rig_write(g, "a.log", text, len - 100);
        rig_run(g);
        g->out[0].stop = how & 1 ? STOP_BEFORE : STOP_NOT;
        rig_write(g, "a.log", text + len - 100, 100);
        rig_write(g, "a.log", "{}\n", 3);
        rig_run(g);
        rig_commit(g, 1);
        rig_commit(g, 0);
        if (how & 2)
            rig_crash(g);
        else
            rig_unblock(g, 0);
        rig_run(g);
        rig_commit(g, 0);
        rig_commit(g, 1);
        uint32_t tenant = tenant_intern(g->out[1].ledger[0].tenant);
        assert_int_equal(counter_get(&stats_input_row(0, tenant)->read_bytes), len + 6);
        assert_int_equal(read_bytes(&g->out[0]), len + 6);
        assert_int_equal(read_bytes(&g->out[1]), len + 6);
        rig_free(g);
    }
}

/* A quiet file is forgotten by the pipeline and enters again: its lines are in the ledger once all the same, also when an
 * output goes back, and a half line before it is not asked for again. */
static void test_quiet_file_counts_once(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        struct rig *g = rig_new(INPUT);
        rig_write(g, "a.log", "{}\n{}\n", 6);
        rig_start(g);
        rig_run(g);
        rig_commit(g, 0);
        rig_commit(g, 1);
        rig_write(g, "a.log", "{}\n", 3);
        rig_run(g);
        rig_pass(g, 15);
        if (how == 1)
            rig_fence(g, 0); /* the reference output, or the other */
        if (how == 2)
            rig_fence(g, 1);
        rig_run(g);
        rig_write(g, "a.log", "{}\n", 3);
        rig_run(g);
        rig_commit(g, 0);
        rig_commit(g, 1);
        const struct input_row *row = stats_input_row(0, tenant_intern(g->out[1].ledger[0].tenant));
        assert_int_equal(counter_get(&row->read_lines), 4);
        assert_int_equal(counter_get(&row->read_bytes), 12);
        for (int o = 0; o < 2; o++) {
            assert_int_equal(read_bytes(&g->out[o]), 12);
            assert_int_equal(g->out[o].durable.n, 4);
        }
        rig_free(g);
    }
}

/* The file ends with two parts; lines of the other stream lie behind the first one. */
static void test_parts_at_the_end(void **state)
{
    (void)state;
    for (unsigned at = 0; at < 4; at++)
        for (int how = 0; how < 2; how++) {
            static const char text[] = CRI("stdout", "P", "{\"o\":1}") CRI("stderr", "F", "{\"e\":1}")
                CRI("stderr", "P", "{\"e\":2}");
            struct rig *g = rig_new(INPUT);
            rig_write(g, "a.log", text, sizeof(text) - 1);
            rig_start(g);
            rig_run(g);
            assert_int_equal(unlink(rig_path(g, "a.log")), 0);
            g->out[0].stop = how == 0 ? STOP_BEFORE : STOP_AFTER;
            g->out[0].countdown = at;
            rig_pass(g, 10);
            rig_unblock(g, 0);
            rig_pass(g, 10);
            rig_expect(g, 0, "{\"e\":1}|{\"o\":1}|{\"e\":2}");
            rig_expect(g, 1, "{\"e\":1}|{\"o\":1}|{\"e\":2}");
            rig_free(g);
        }
}

/* A line in parts may begin in one file and end in the next. In a third it begins anew: two records, and it is counted. */
static void test_parts_in_many_files(void **state)
{
    (void)state;
    for (int n_files = 2; n_files <= 3; n_files++) {
        struct rig *g = rig_new(INPUT);
        char from[512], to[600];
        rig_start(g);
        for (int i = 1; i <= n_files; i++) {
            char text[128];
            (void)snprintf(text, sizeof(text), "2026-01-15T10:30:00Z stdout %s part %d;\n", i < n_files ? "P" : "F", i);
            rig_write(g, "a.log", text, strlen(text));
            rig_run(g);
            if (i == n_files)
                break;
            (void)snprintf(from, sizeof(from), "%s", rig_path(g, "a.log"));
            (void)snprintf(to, sizeof(to), "%s.%d", from, i);
            assert_int_equal(rename(from, to), 0);
        }
        rig_pass(g, 15);
        rig_expect(g, 0, n_files == 2 ? "part 1;part 2;" : "part 3;|part 1;part 2;");
        rig_expect(g, 1, n_files == 2 ? "part 1;part 2;" : "part 3;|part 1;part 2;");
        assert_int_equal(counter_get(&stats.inputs[0].altered[ALTER_SPLIT]), n_files == 2 ? 0 : 1);
        rig_free(g);
    }
}

/* An output that was stopped at a record of two files comes back when the first one's end has long been due: it reads the first half
 * again, and before it takes that for the whole it reads how the next file goes on. */
static void test_stopped_between_two_files(void **state)
{
    (void)state;
    static const char half[] = CRI("stdout", "F", "one;") CRI("stdout", "P", "part 1;");
    static const char rest[] = CRI("stdout", "F", "part 2;") CRI("stdout", "F", "two;");
    struct rig *g = rig_new(INPUT);
    char from[512], to[600];
    rig_start(g);
    rig_write(g, "a.log", half, sizeof(half) - 1);
    rig_run(g);
    (void)snprintf(from, sizeof(from), "%s", rig_path(g, "a.log"));
    (void)snprintf(to, sizeof(to), "%s.1", from);
    assert_int_equal(rename(from, to), 0);
    g->out[0].stop = STOP_BEFORE;
    g->out[0].countdown = 0;
    rig_write(g, "a.log", rest, sizeof(rest) - 1);
    rig_pass(g, 15);
    rig_unblock(g, 0);
    rig_pass(g, 15);
    rig_expect(g, 0, "one;|part 1;part 2;|two;");
    rig_expect(g, 1, "one;|part 1;part 2;|two;");
    rig_free(g);
}

/* A half line that is found late, as the rotated file's events came after the live one was read, goes on nowhere: its rest is a
 * record of its own already. A restart does not make the next line of its stream look like that rest. */
static void test_half_found_late(void **state)
{
    (void)state;
    static const char half[] = CRI("stdout", "P", "half;"), rest[] = CRI("stdout", "F", "rest;"),
                      other[] = "{\"log\":\"oth\\u0065r;\\n\",\"stream\":\"stderr\",\"time\":\"2026-01-15T10:30:00Z\"}\n",
                      next[] = "{\"log\":\"n\\u0065xt;\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-15T10:30:00Z\"}\n";
    for (int is_first = 0; is_first < 2; is_first++) { /* of its stream: then it goes on in the live file after all */
        struct rig *g = rig_new(INPUT);
        char live[512], away[600], rotated[600];
        const char *begin = is_first ? other : rest;
        (void)snprintf(live, sizeof(live), "%s", rig_path(g, "a.log"));
        (void)snprintf(away, sizeof(away), "%s/away", g->dir);
        (void)snprintf(rotated, sizeof(rotated), "%s.1", live);
        rig_start(g);
        rig_write(g, "a.log", begin, strlen(begin));
        rig_run(g);
        rig_write(g, "away", half, sizeof(half) - 1);
        assert_int_equal(rename(away, rotated), 0);
        rig_pass(g, 3);
        rig_commit(g, 0);
        rig_commit(g, 1);
        rig_crash(g);
        rig_write(g, "a.log", next, sizeof(next) - 1);
        rig_pass(g, 15);
        rig_expect(g, 0, is_first ? "other;|half;next;" : "rest;|next;|half;");
        rig_expect(g, 1, is_first ? "other;|half;next;" : "rest;|next;|half;");
        rig_free(g);
    }
}

/* Quiet files keep no joins. */
static void test_join_goes_when_idle(void **state)
{
    struct rig *g = rig_new(INPUT);
    (void)state;
    rig_write(g, "a.log", "one\n", 4);
    rig_start(g);
    rig_run(g);
    rig_pass(g, 3);
    rig_commit(g, 0);
    assert_int_equal(g->out[0].files[0].position.n_parts, 0);
    assert_int_equal(g->out[0].files[0].position.end, 4);
    rig_expect(g, 0, "one");
    rig_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records),       cmocka_unit_test(test_cut_at_every_byte),
        cmocka_unit_test(test_stopped_anywhere), cmocka_unit_test(test_long_lines),       cmocka_unit_test(test_bytes_of_long_lines),
        cmocka_unit_test(test_quiet_file_counts_once),
        cmocka_unit_test(test_parts_at_the_end), cmocka_unit_test(test_parts_in_many_files),
        cmocka_unit_test(test_stopped_between_two_files), cmocka_unit_test(test_half_found_late),
        cmocka_unit_test(test_join_goes_when_idle),
    };
    return cmocka_run_group_tests_name("agent/lines", tests, NULL, NULL);
}
