/*
 * fuzz_template.c - templates, beside one that is read and evaluated in the same breath.
 *
 * Nine bytes (time, and whether there is one), then the template. Which names there are is var_parse()'s to say for both.
 */
#include <time.h>

#include "agent/base/bytes.h"
#include "agent/base/template.h"
#include "tests/fuzz/fuzz.h"

struct model {
    struct slice text;
    size_t at;
    bool has_time;
    const struct record *rec;
    struct wanted_keys *wanted;
    char out[64 * KIB];
    size_t len;
};

static void put(struct model *m, struct slice s)
{
    size_t n = MIN(s.len, sizeof(m->out) - m->len);
    memcpy(m->out + m->len, s.ptr, n);
    m->len += n;
}

static bool next_is(const struct model *m, char c)
{
    return m->at < m->text.len && m->text.ptr[m->at] == c;
}

static void blanks(struct model *m)
{
    while (next_is(m, ' '))
        m->at++;
}

/* One of a|b|'c'. */
static bool choice(struct model *m, char room[4096], struct slice *ret)
{
    size_t n = 0, from = m->at;
    if (next_is(m, '\'')) {
        for (m->at++;; m->at++) {
            if (m->at == m->text.len)
                return false;
            if (next_is(m, '\'')) {
                m->at++;
                if (!next_is(m, '\''))
                    break;
            }
            room[n++] = m->text.ptr[m->at];
        }
        *ret = slice_of(room, n);
        return true;
    }
    while (m->at < m->text.len && memchr("|}{'", m->text.ptr[m->at], 4) == NULL)
        m->at++;
    struct var v;
    struct slice name = slice_trim(slice_of(m->text.ptr + from, m->at - from));
    if (m->at == m->text.len || name.len == 0 || var_parse(name, m->wanted, &v, NULL) < 0)
        return false;
    *ret = var_get(&v, m->rec);
    return true;
}

static bool group(struct model *m)
{
    bool is_found = false;
    for (;;) {
        char room[4096];
        struct slice value;
        blanks(m);
        if (!choice(m, room, &value))
            return false;
        if (!is_found && value.len > 0) {
            put(m, value);
            is_found = true;
        }
        blanks(m);
        m->at++;
        char c = m->at <= m->text.len ? m->text.ptr[m->at - 1] : '\0';
        if (c == '}')
            return true;
        if (c != '|')
            return false;
    }
}

static bool date(struct model *m)
{
    char format[3] = { '%', m->at < m->text.len ? m->text.ptr[m->at] : '\0', '\0' }, text[32];
    m->at++;
    if (format[1] == '\0' || strchr("YmdHMSj%", format[1]) == NULL)
        return false;
    int64_t ns = m->rec->time_ns;
    time_t s = (time_t)(ns / NS_PER_SEC - (ns % NS_PER_SEC < 0));
    struct tm tm;
    fuzz_check(gmtime_r(&s, &tm) != NULL, "gmtime");
    put(m, slice_of(text, strftime(text, sizeof(text), format, &tm)));
    return true;
}

static bool evaluate(struct model *m)
{
    while (m->at < m->text.len) {
        char c = m->text.ptr[m->at++];
        bool is_doubled = next_is(m, c);
        if ((c == '{' || c == '}') && is_doubled)
            m->at++;
        else if (c == '{') {
            if (!group(m))
                return false;
            continue;
        } else if (c == '}') {
            return false;
        } else if (c == '%' && m->has_time) {
            if (!date(m))
                return false;
            continue;
        }
        put(m, slice_of(&c, 1));
    }
    return true;
}

static struct record a_record(int64_t time_ns)
{
    static const struct pair pairs[] = { { SLICE_INIT("a"), SLICE_INIT("A") }, { SLICE_INIT("b.c/d"), SLICE_INIT("\xc3\xa9{}'%") },
                                         { SLICE_INIT("none"), SLICE_INIT("") } };
    static char three_kib[3 * KIB];
    static const struct origin origin = { .input = SLICE_INIT("in"), .file = SLICE_INIT("/var/log/x.log"), .file_stem = SLICE_INIT("x"),
                                          .host = SLICE_INIT("h"), .pod = SLICE_INIT("p-1"), .path = { pairs, 3 },
                                          .fields = { pairs, 3 }, .labels = { pairs, 3 }, .annotations = { pairs, 3 } };
    memset(three_kib, 0xC3, sizeof(three_kib));
    for (size_t i = 1; i < sizeof(three_kib); i += 2)
        three_kib[i] = (char)0xA9;
    struct record rec = { .origin = &origin, .time_ns = time_ns, .level = LEVEL_WARN, .tenant = SLICE("acme"),
                          .stream = STREAM_STDERR, .message = slice_of(three_kib, sizeof(three_kib)) };
    for (size_t i = 0; i < WANTED_KEYS_MAX; i++)
        rec.values[i] = (struct value){ (enum value_kind)(i % (VALUE_ARRAY + 1)),
                                        i % 3 == 0 ? SLICE("") : slice_of("0123456789abcdef", 1 + i % 15) };
    return rec;
}

int fuzz_template(const uint8_t *data, size_t size)
{
    static struct model m;
    struct slice in = slice_of(data, size);
    if (in.len < 9 || in.len > 4000)
        return -1;
    struct record rec = a_record((int64_t)get_le64(in.ptr));
    struct wanted_keys one = { .n = 0 }, two = { .n = 0 };
    bool has_time = (in.ptr[8] & 1) != 0;
    struct slice text = slice_from(in, 9);
    struct template *t = NULL;
    struct err err = { 0 };
    m = (struct model){ .text = text, .has_time = has_time, .rec = &rec, .wanted = &two };
    int r = template_parse(text, has_time, &one, &t, &err);
    bool is_good = text.len <= TEMPLATE_OUT_MAX && evaluate(&m);
    fuzz_check((r == 0) == is_good, "%s: %.*s", r == 0 ? "it is taken" : err.text, SLICE_ARGS(text));
    fuzz_check(r == 0 || slice_cstr(err.text).len > 0, "refused without a word");
    if (r == 0) {
        struct buf out;
        buf_init(&out, 2 * TEMPLATE_OUT_MAX);
        fuzz_check(template_eval(t, &rec, &out) == 0, "eval");
        struct slice got = buf_slice(&out), want = slice_of(m.out, m.len);
        if (want.len <= TEMPLATE_OUT_MAX)
            fuzz_check(slice_eq(got, want), "'%.*s' instead of '%.*s'", SLICE_ARGS(got), SLICE_ARGS(want));
        else /* cut between characters */
            fuzz_check(slice_starts(want, got) && got.len <= TEMPLATE_OUT_MAX && got.len + 4 > TEMPLATE_OUT_MAX, "cut at %zu", got.len);
        fuzz_check(slice_eq(template_text(t), text), "its text");
        buf_deinit(&out);
        template_free(t);
    }
    wanted_keys_deinit(&one);
    wanted_keys_deinit(&two);
    return 0;
}
