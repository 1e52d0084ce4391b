/*
 * fuzz_levels.c - level directives beside a reading of their grammar that keeps no order and compiles nothing.
 *
 * LEVEL (1 byte) MODULE LF SPEC. The judge of the grammar itself is the tracing-subscriber crate (tests/levels-crate); here it is
 * the order of targets, the later of two, and what is kept.
 */
#include "agent/base/level.h"
#include "tests/fuzz/fuzz.h"

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool threshold_of(struct slice s, enum level *ret)
{
    static const char *const names[][3] = { [LEVEL_TRACE] = { "trace", "5", "" },   [LEVEL_DEBUG] = { "debug", "4", "" },
                                            [LEVEL_INFO] = { "info", "3", "notice" }, [LEVEL_WARN] = { "warn", "2", "warning" },
                                            [LEVEL_ERROR] = { "error", "1", "" },   [LEVEL_FATAL] = { "fatal", "", "critical" },
                                            [LEVEL_OFF] = { "off", "0", "" } };
    for (unsigned level = LEVEL_TRACE; level <= LEVEL_OFF; level++) {
        for (unsigned i = 0; i < 3; i++) {
            struct slice name = slice_cstr(names[level][i]), word = s;
            bool is_digit = i == 1 && name.len > 0;
            if (is_digit && word.len > 1 && word.ptr[0] == '+')
                word = slice_from(word, 1);
            while (is_digit && word.len > 1 && word.ptr[0] == '0')
                word = slice_from(word, 1);
            if (name.len > 0 && slice_ieq(word, name)) {
                *ret = (enum level)level;
                return true;
            }
        }
    }
    return false;
}

/* target and threshold of one part; false: it is refused. */
static bool directive_of(struct slice part, struct slice *ret_target, enum level *ret)
{
    struct slice word = part;
    while (word.len > 0 && is_blank(word.ptr[0]))
        word = slice_from(word, 1);
    while (word.len > 0 && is_blank(word.ptr[word.len - 1]))
        word.len--;
    unsigned char first = word.len > 0 ? (unsigned char)word.ptr[0] : '[';
    bool is_start = (first | 0x20u) - 'a' < 26u || first - '0' < 10 || first == '-' || first == ':' || first == '_' || first >= 0x80;
    for (size_t i = 0; i < word.len; i++)
        is_start = is_start && memchr("[]{}", word.ptr[i], 4) == NULL;
    if (!is_start || (first < '0' && first != '-'))
        return false;
    *ret = LEVEL_TRACE;
    ptrdiff_t eq = slice_find_byte(word, '=');
    if (eq < 0) {
        *ret_target = threshold_of(part, ret) ? SLICE("") : part;
        return true;
    }
    *ret_target = slice_first(word, (size_t)eq);
    struct slice level = slice_from(word, (size_t)eq + 1);
    return word.len == part.len && (level.len == 0 || threshold_of(level, ret));
}

struct model {
    bool is_good, has_bare, covers_nothing;
    enum level threshold; /* for the module; LEVEL_UNKNOWN: nobody covers it */
};

static struct model read_spec(struct slice spec, struct slice module)
{
    struct model m = { .is_good = true };
    size_t best = 0;
    while (spec.len > 0) {
        struct slice part = fuzz_take_until(&spec, ','), target;
        enum level threshold;
        if (part.len == 0)
            continue;
        if (!directive_of(part, &target, &threshold)) {
            m.is_good = false;
            return m;
        }
        m.has_bare |= target.len == 0;
        if (slice_starts(module, target) && (m.threshold == LEVEL_UNKNOWN || target.len >= best)) {
            best = target.len;
            m.threshold = threshold;
        }
    }
    return m;
}

int fuzz_levels(const uint8_t *data, size_t size)
{
    struct slice spec = slice_of(data, size);
    enum level level = (enum level)(fuzz_take_byte(&spec) % LEVEL_OFF);
    struct slice module = fuzz_take_until(&spec, '\n');
    struct levels *l = NULL;
    struct err err = { 0 };
    struct model m = read_spec(spec, module);
    int r = levels_parse(spec, &l, &err);
    fuzz_check((r == 0) == m.is_good, "%s: %.*s", r == 0 ? "it is taken" : err.text, SLICE_ARGS(spec));
    if (r < 0) {
        fuzz_check(slice_cstr(err.text).len > 0, "refused without a word");
        return 0;
    }
    fuzz_check(levels_threshold(l, module) == m.threshold, "threshold %d instead of %d", (int)levels_threshold(l, module),
               (int)m.threshold);
    bool is_kept = m.threshold == LEVEL_UNKNOWN || (level == LEVEL_UNKNOWN ? m.threshold != LEVEL_OFF : level >= m.threshold);
    fuzz_check(levels_keep(l, level, module) == is_kept, "level %d is %s", (int)level, is_kept ? "dropped" : "kept");
    fuzz_check(!is_kept || !levels_drops_all(l, level), "it drops all, but not this");
    fuzz_check(levels_has_bare(l) == m.has_bare, "a bare directive");
    fuzz_check(slice_eq(levels_text(l), spec), "its text");
    fuzz_check((levels_directive(l, module).len > 0) == (m.threshold != LEVEL_UNKNOWN), "the directive that decides");
    levels_free(l);
    return 0;
}
