/*
 * Goal: what is read again comes whole, also when the output takes no more in the middle of it. Method: rig.h with a real writer
 * that is given no turn; a range is read again, with a stop before and after each of its records.
 */
#include "agent/reread.h"
#include "tests/unit/agent/rig.h"

#define INPUT "inputs: { i: { type: file, include: \"%s/*.log\", tenant: t } }"
#define CRI(stream, text) "2026-01-15T10:30:00Z " stream " F " text "\n"
#define CRI_PART(stream, text) "2026-01-15T10:30:00Z " stream " P " text "\n"

struct again {
    struct rig *g;
    struct queue *queue;
    struct writer_output out;
    struct stepper stepper;
    struct rereader *rereader;
};

static void on_space(void *ctx, uint32_t output)
{
    (void)ctx;
    (void)output;
}

static void on_durable(void *ctx, uint32_t output, uint64_t number)
{
    (void)ctx;
    (void)output;
    (void)number;
}

/* b: of a second file; NULL: there is none. */
static void begin(struct again *a, const char *text, const char *b)
{
    struct queue_recovery rec;
    struct err err = { 0 };
    struct rig *g = a->g = rig_new(INPUT);
    rig_write(g, "a.log", text, strlen(text));
    rig_start(g);
    if (b != NULL) {
        rig_pass(g, 5);
        rig_write(g, "b.log", b, strlen(b));
    }
    rig_pass(g, 5);
    for (uint32_t i = 0; i < RIG_OUTPUTS; i++)
        rig_commit(g, i);
    struct queue_open_conf qc = { .output = &g->conf->outputs[0], .allow_network_fs = true };
    assert_int_equal(queue_open(&qc, &a->queue, &rec, &err), 0);
    queue_recovered_free(a->queue);
    a->out = (struct writer_output){ &g->out[0].base, a->queue };
    struct writer_conf wc = { .outputs = &a->out, .n_outputs = 1,
                              .events = { .on_space = on_space, .on_durable = on_durable }, .stepper = &a->stepper };
    assert_int_equal(writer_start(&wc, &g->feeders[0].writer, &err), 0);
    struct tail_sink sink = pipeline_sink(g->pipeline);
    a->rereader = rereader_new(&g->feeders[0], g->tail, &sink);
    assert_non_null(a->rereader);
}

static void end(struct again *a)
{
    rereader_free(a->rereader);
    writer_stop(a->g->feeders[0].writer, 0);
    writer_free(a->g->feeders[0].writer);
    queue_close(a->queue);
    rig_free(a->g);
}

/* What is known of a range. */
enum known {
    KNOWN_FROM,       /* not what was unfinished at its end */
    KNOWN_TO,         /* nothing was */
    KNOWN_GROUP,      /* the group of stdout that begins it was */
    KNOWN_REST,       /* stderr begins with the rest of a record of another file */
};

/* All of the n-th file. */
static struct reread_range range_of(const struct again *a, size_t n, size_t len, enum known known)
{
    const struct recovered_file *f = &a->g->out[0].files[n];
    struct reread_range range = { .from.incarnation = f->ident.incarnation, .knows_to = known != KNOWN_FROM,
                                  .to = { .incarnation = f->ident.incarnation, .end = len } };
    if (known == KNOWN_GROUP) {
        range.to.n_parts = 1;
        range.to.parts[0].stream = STREAM_STDOUT;
    }
    if (known == KNOWN_REST) {
        range.from.n_parts = 1;
        range.from.parts[0].stream = STREAM_STDERR;
    }
    return range;
}

static void read_again(struct again *a, struct reread_range *ranges, size_t n)
{
    struct reread rr = { .id = { 1, 2 }, .ranges = ranges, .n_ranges = n }, *copy;
    records_clear(&a->g->out[0].durable);
    assert_int_equal(reread_copy(&rr, &copy), 0);
    rereader_add(a->rereader, copy);
    for (int i = 0; rereader_due_at(a->rereader) != INT64_MAX || a->g->feeders[0].is_blocked; i++) {
        assert_true(i < 100);
        if (a->g->feeders[0].is_blocked)
            rig_unblock(a->g, 0);
        (void)rereader_turn(a->rereader, rig_now);
    }
}

static void stopped_anywhere(void **state)
{
    static const struct {
        const char *text, *want;
        unsigned records;
        enum known known;
    } cases[] = {
        { "one\n  more\ntwo\n  more\n", "one\\  more|two\\  more", 2, KNOWN_FROM },
        { CRI("stdout", "one") CRI("stderr", "two") CRI("stdout", "  more"), "one\\  more|two", 2, KNOWN_FROM },
        { CRI("stdout", "one") CRI("stderr", "two") CRI("stderr", "three"), "two|three", 2, KNOWN_GROUP },
        { "{\"a\":1}\nlast\n", "{\"a\":1}|last", 2, KNOWN_FROM },
        { CRI("stderr", "rest") CRI("stdout", "one") CRI("stderr", "two"), "one|two", 2, KNOWN_REST },
        { CRI("stdout", "one") CRI_PART("stderr", "re") CRI("stdout", "two") CRI("stderr", "st") CRI("stderr", "three"),
          "one|two|three", 3, KNOWN_REST },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        for (enum rig_stop stop = STOP_NOT; stop <= STOP_AFTER; stop++)
            for (unsigned k = 0; k < cases[i].records; k++) {
                struct again a = { 0 };
                begin(&a, cases[i].text, NULL);
                struct reread_range range = range_of(&a, 0, strlen(cases[i].text), cases[i].known);
                a.g->out[0].stop = stop;
                a.g->out[0].countdown = k;
                read_again(&a, &range, 1);
                rig_expect(a.g, 0, cases[i].want);
                assert_int_equal(a.g->feeders[0].reread_lines, cases[i].records);
                end(&a);
            }
}

/* One group had the end of a file with half a record and the rest of it, where another one begins: no half comes by itself, whether
 * it is known or not that nothing was unfinished behind that group. */
static void a_record_of_two_files(enum known known)
{
    static const char a_text[] = CRI("stdout", "one") CRI_PART("stdout", "ha"),
                      b_text[] = CRI("stderr", "{\"two\":2}") CRI("stdout", "lf") CRI("stdout", "three");
    for (enum rig_stop stop = STOP_NOT; stop <= STOP_AFTER; stop++)
        for (unsigned k = 0; k < 3; k++) {
            struct again a = { 0 };
            begin(&a, a_text, b_text);
            struct reread_range ranges[] = { range_of(&a, 1, strlen(b_text), KNOWN_TO),
                                             range_of(&a, 0, strlen(a_text), known) };
            ranges[1].from.end = strlen(CRI("stdout", "one")) / 2; /* of the first record it has a part only */
            ranges[1].from.flags = POSITION_SKIP_TO_NEWLINE;
            a.g->out[0].stop = stop;
            a.g->out[0].countdown = k;
            read_again(&a, ranges, 2);
            rig_expect(a.g, 0, "{\"two\":2}|three");
            assert_int_equal(a.g->feeders[0].reread_lines, 2);
            end(&a);
        }
}

static void records_of_two_files(void **state)
{
    (void)state;
    a_record_of_two_files(KNOWN_TO);
    a_record_of_two_files(KNOWN_FROM);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(stopped_anywhere), cmocka_unit_test(records_of_two_files) };
    return cmocka_run_group_tests_name("agent/reread", tests, NULL, NULL);
}
