/*
 * fuzz_text.c - lines of text: head, logfmt, and which lines belong together.
 *
 * There is no second opinion on what a line of prose means, so what is checked is what must hold of any: slices point into the
 * line or the scratch buffer, a message is never empty, the answer does not depend on what was read before, and of multi-line
 * groups that they begin, grow and end as multiline.h says.
 */
#include "agent/base/buf.h"
#include "parsers/multiline.h"
#include "parsers/text.h"
#include "tests/fuzz/fuzz.h"

#define NOW_NS INT64_C(1767323045000000000)

static struct timestamp_env env = { .now_ns = NOW_NS };
static struct buf scratch, again;
static struct multiline *automatic, *by_regex;

static void make(void)
{
    if (automatic != NULL)
        return;
    struct zone *zone;
    fuzz_check(zone_load(SLICE("+02:00"), &zone, NULL) == 0, "zone");
    env.zone = zone;
    buf_init(&scratch, MIB);
    buf_init(&again, MIB);
    fuzz_check(multiline_new(true, SLICE(""), &automatic, NULL) == 0, "multiline");
    fuzz_check(multiline_new(false, SLICE("^[0-9]{4}-|^\\["), &by_regex, NULL) == 0, "multiline");
}

static bool is_inside(struct slice part, struct slice whole)
{
    return part.len == 0 || (whole.len > 0 && part.ptr >= whole.ptr && part.len <= whole.len &&
                             (size_t)(part.ptr - whole.ptr) <= whole.len - part.len);
}

static void check_text(struct slice line)
{
    struct text t, u;
    text_read(&env, line, &scratch, &t);
    fuzz_check(t.level < LEVEL_OFF, "level %d", (int)t.level);
    fuzz_check(is_inside(t.message, line) || is_inside(t.message, buf_slice(&scratch)), "a message from elsewhere");
    fuzz_check(is_inside(t.module, line), "a module from elsewhere");
    /* A message that logfmt says is empty (msg="") is as good as none: the line stands for it. */
    fuzz_check(t.message.len > 0 || line.len == 0, "no message");
    if (t.has_time)
        fuzz_check(t.time_ns > INT64_C(-9215000000) * NS_PER_SEC && t.time_ns < INT64_C(9215000000) * NS_PER_SEC, "time");
    text_read(&env, line, &again, &u);
    fuzz_check(t.level == u.level && slice_eq(t.module, u.module) && slice_eq(t.message, u.message) &&
                   t.has_time == u.has_time && (!t.has_time || t.time_ns == u.time_ns),
               "read twice, it says two things");
}

static bool is_object(struct slice line)
{
    line = slice_trim(line);
    return line.len > 1 && line.ptr[0] == '{' && line.ptr[line.len - 1] == '}';
}

static void check_group(const struct multiline *m, struct multiline_state *state, struct slice line)
{
    unsigned before = state->n_lines;
    bool is_part = multiline_continues(m, state, line);
    fuzz_check(!is_part || before > 0, "it continues nothing");
    fuzz_check(state->n_lines == (is_part ? before + 1 : 1), "%u lines after %u", state->n_lines, before);
    fuzz_check(state->n_lines <= MULTILINE_LINES_MAX, "more lines than a group may have");
    fuzz_check(multiline_is_single(m, line) == is_object(line), "single");
    if (is_part && is_object(line)) /* only inside of an object that is printed over several lines */
        fuzz_check(m == automatic && (line.ptr[0] == ' ' || line.ptr[0] == '\t'), "an object continues something");
}

int fuzz_text(const uint8_t *data, size_t size)
{
    make();
    struct multiline_state a = { 0 }, b = { 0 };
    for (struct slice in = slice_of(data, size); in.len > 0;) {
        struct slice line = fuzz_take_until(&in, '\n');
        check_text(line);
        check_group(automatic, &a, line);
        check_group(by_regex, &b, line);
    }
    return 0;
}
