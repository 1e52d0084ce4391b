#include "agent/base/level.h"

#include <errno.h>
#include <stdlib.h>

/* ---- levels of records
 * ------------------------------------------------------------------------------------------- */

static const struct slice names[] = {
    [LEVEL_UNKNOWN] = SLICE_INIT("unknown"), [LEVEL_TRACE] = SLICE_INIT("trace"),
    [LEVEL_DEBUG] = SLICE_INIT("debug"),     [LEVEL_INFO] = SLICE_INIT("info"),
    [LEVEL_WARN] = SLICE_INIT("warn"),       [LEVEL_ERROR] = SLICE_INIT("error"),
    [LEVEL_FATAL] = SLICE_INIT("fatal"),     [LEVEL_OFF] = SLICE_INIT("off"),
};

struct slice level_name(enum level level)
{
    return names[level];
}

/* Sorted by nothing but how often loggers write them: the search is linear and compares lengths first. */
static const struct {
    struct slice name;
    enum level level;
} aliases[] = {
    { SLICE_INIT("info"), LEVEL_INFO },    { SLICE_INIT("debug"), LEVEL_DEBUG },
    { SLICE_INIT("warn"), LEVEL_WARN },    { SLICE_INIT("error"), LEVEL_ERROR },
    { SLICE_INIT("warning"), LEVEL_WARN }, { SLICE_INIT("trace"), LEVEL_TRACE },
    { SLICE_INIT("fatal"), LEVEL_FATAL },  { SLICE_INIT("critical"), LEVEL_FATAL },
    { SLICE_INIT("notice"), LEVEL_INFO },  { SLICE_INIT("err"), LEVEL_ERROR },
    { SLICE_INIT("panic"), LEVEL_FATAL },  { SLICE_INIT("dpanic"), LEVEL_FATAL },
    { SLICE_INIT("crit"), LEVEL_FATAL },   { SLICE_INIT("alert"), LEVEL_FATAL },
    { SLICE_INIT("emerg"), LEVEL_FATAL },  { SLICE_INIT("emergency"), LEVEL_FATAL },
    { SLICE_INIT("severe"), LEVEL_ERROR }, { SLICE_INIT("information"), LEVEL_INFO },
    { SLICE_INIT("default"), LEVEL_INFO }, { SLICE_INIT("verbose"), LEVEL_TRACE },
    { SLICE_INIT("fine"), LEVEL_TRACE },   { SLICE_INIT("finest"), LEVEL_TRACE },
    { SLICE_INIT("i"), LEVEL_INFO },       { SLICE_INIT("w"), LEVEL_WARN },
    { SLICE_INIT("e"), LEVEL_ERROR },      { SLICE_INIT("f"), LEVEL_FATAL },
    { SLICE_INIT("d"), LEVEL_DEBUG },
};

/* The longest alias; "INFO+2147483648" and the like are not levels anyway. */
#define LEVEL_NAME_MAX 24

/* slog's levels are numbers around four names: DEBUG -4, INFO 0, WARN 4, ERROR 8; what lies between is
 * written "INFO+2", what lies below "DEBUG-4". */
static enum level from_slog(struct slice name, size_t sign_at)
{
    static const struct {
        struct slice name;
        int64_t value;
    } bases[] = { { SLICE_INIT("debug"), -4 },
                  { SLICE_INIT("info"), 0 },
                  { SLICE_INIT("warn"), 4 },
                  { SLICE_INIT("error"), 8 } };

    uint64_t n;
    if (!slice_to_u64(slice_from(name, sign_at + 1), &n) || n > 1000)
        return LEVEL_UNKNOWN;
    for (size_t i = 0; i < ARRAY_LEN(bases); i++) {
        if (!slice_ieq(slice_first(name, sign_at), bases[i].name))
            continue;
        int64_t v = bases[i].value + (name.ptr[sign_at] == '+' ? (int64_t)n : -(int64_t)n);
        return v < -4   ? LEVEL_TRACE
               : v < 0  ? LEVEL_DEBUG
               : v < 4  ? LEVEL_INFO
               : v < 8  ? LEVEL_WARN
               : v < 12 ? LEVEL_ERROR
                        : LEVEL_FATAL;
    }
    return LEVEL_UNKNOWN;
}

enum level level_from_name(struct slice name)
{
    name = slice_trim(name);
    if (name.len == 0 || name.len > LEVEL_NAME_MAX)
        return LEVEL_UNKNOWN;
    for (size_t i = 0; i < ARRAY_LEN(aliases); i++)
        if (name.len == aliases[i].name.len && slice_ieq(name, aliases[i].name))
            return aliases[i].level;
    for (size_t i = 1; i < name.len; i++)
        if (name.ptr[i] == '+' || name.ptr[i] == '-')
            return from_slog(name, i);
    return LEVEL_UNKNOWN;
}

enum level level_from_number(int64_t n)
{
    if (n >= 10 && n < 100) { /* pino, bunyan; a custom level above 60 is at least fatal */
        static const enum level tens[] = { LEVEL_TRACE, LEVEL_DEBUG, LEVEL_INFO,
                                           LEVEL_WARN,  LEVEL_ERROR, LEVEL_FATAL };
        return tens[MIN(n / 10 - 1, 5)];
    }
    if (n >= 5000 && n < 10000) /* logback's level_value; 50000 is log4j's FATAL */
        return LEVEL_TRACE;
    if (n >= 10000 && n <= 50000) {
        static const enum level steps[] = { LEVEL_DEBUG, LEVEL_INFO, LEVEL_WARN, LEVEL_ERROR, LEVEL_FATAL };
        return steps[n / 10000 - 1];
    }
    return LEVEL_UNKNOWN;
}

enum level level_from_severity(int64_t n)
{
    static const enum level severities[] = { LEVEL_FATAL, LEVEL_FATAL, LEVEL_FATAL, LEVEL_ERROR,
                                             LEVEL_WARN,  LEVEL_INFO,  LEVEL_INFO,  LEVEL_DEBUG };
    return n >= 0 && n < (int64_t)ARRAY_LEN(severities) ? severities[n] : LEVEL_UNKNOWN;
}

/* ---- directives
 * -------------------------------------------------------------------------------------------------- */

struct directive {
    struct slice target; /* into levels.text; empty = bare */
    struct slice text;   /* into levels.text */
    enum level threshold;
};

struct levels {
    struct slice text; /* the spec, malloc'd behind the struct */
    bool has_bare;
    bool drops_all[LEVEL_OFF + 1]; /* by level of the record */
    size_t n;
    struct directive items[]; /* longest target first; the bare one, if any, last */
};

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool starts_a_directive(char c)
{
    unsigned char u = (unsigned char)c;
    return (u >= '0' && u <= '9') || (u >= 'a' && u <= 'z') || (u >= 'A' && u <= 'Z') || c == '-' ||
           c == ':' || c == '_' || u >= 0x80;
}

/* Rust's usize: digits after an optional plus. */
static bool threshold_from_digits(struct slice s, enum level *ret_level)
{
    static const enum level digits[] = { LEVEL_OFF,  LEVEL_ERROR, LEVEL_WARN,
                                         LEVEL_INFO, LEVEL_DEBUG, LEVEL_TRACE };
    uint64_t n;
    if (s.len > 1 && s.ptr[0] == '+')
        s = slice_from(s, 1);
    if (!slice_to_u64(s, &n) || n >= ARRAY_LEN(digits))
        return false;
    *ret_level = digits[n];
    return true;
}

static bool threshold_from_text(struct slice s, enum level *ret_level)
{
    static const struct {
        struct slice name;
        enum level level;
    } words[] = {
        { SLICE_INIT("off"), LEVEL_OFF },        { SLICE_INIT("error"), LEVEL_ERROR },
        { SLICE_INIT("warn"), LEVEL_WARN },      { SLICE_INIT("info"), LEVEL_INFO },
        { SLICE_INIT("debug"), LEVEL_DEBUG },    { SLICE_INIT("trace"), LEVEL_TRACE },
        { SLICE_INIT("warning"), LEVEL_WARN },   { SLICE_INIT("fatal"), LEVEL_FATAL },
        { SLICE_INIT("critical"), LEVEL_FATAL }, { SLICE_INIT("notice"), LEVEL_INFO },
    };
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (slice_ieq(s, words[i].name)) {
            *ret_level = words[i].level;
            return true;
        }
    }
    return threshold_from_digits(s, ret_level);
}

/*
 * One part between commas. Blanks are as in EnvFilter, where a directive with "=" must have none at its ends,
 * and a bare word with blanks at its ends is the target of that name, blanks included. `conf` warns of the
 * latter.
 */
static int directive_parse(struct slice part, struct directive *ret, struct err *err)
{
    struct slice word = part;
    while (word.len > 0 && is_blank(word.ptr[0]))
        word = slice_from(word, 1);
    while (word.len > 0 && is_blank(word.ptr[word.len - 1]))
        word.len--;
    bool has_blanks = word.len != part.len;

    if (word.len == 0)
        return err_say(err, -EINVAL, "a blank where a directive should stand, after a comma");
    if (slice_find_byte(word, '[') >= 0 || slice_find_byte(word, ']') >= 0)
        return err_say(err, -EINVAL, "\"%.*s\": spans in [brackets] cannot be filtered, only module=level",
                       SLICE_ARGS(word));
    if (slice_find_byte(word, '{') >= 0 || slice_find_byte(word, '}') >= 0)
        return err_say(err, -EINVAL, "\"%.*s\": fields in {braces} cannot be filtered, only module=level",
                       SLICE_ARGS(word));
    if (!starts_a_directive(word.ptr[0]))
        return err_say(err, -EINVAL, "\"%.*s\": expected a level, a module or module=level",
                       SLICE_ARGS(word));

    ptrdiff_t eq = slice_find_byte(word, '=');
    enum level threshold = LEVEL_TRACE;
    if (eq < 0) {
        bool is_level = threshold_from_text(part, &threshold);
        *ret = (struct directive){ is_level ? (struct slice){ 0 } : part, part, threshold };
        return 0;
    }
    if (has_blanks)
        return err_say(err, -EINVAL, "\"%.*s\": blanks around a directive are not allowed", SLICE_ARGS(part));
    struct slice level = slice_from(word, (size_t)eq + 1);
    if (level.len > 0 && !threshold_from_text(level, &threshold))
        return err_say(
            err, -EINVAL,
            "\"%.*s\": \"%.*s\" is not a level; expected off, error, warn, info, debug, trace or 0 to 5",
            SLICE_ARGS(word), SLICE_ARGS(level));
    *ret = (struct directive){ slice_first(word, (size_t)eq), word, threshold };
    return 0;
}

/* Keeps the longest first; a target that is there already is replaced. */
static void directive_insert(struct levels *l, struct directive d)
{
    size_t at = 0;
    while (at < l->n && l->items[at].target.len >= d.target.len) {
        if (slice_eq(l->items[at].target, d.target)) {
            l->items[at] = d;
            return;
        }
        at++;
    }
    memmove(&l->items[at + 1], &l->items[at], (l->n - at) * sizeof(d));
    l->items[at] = d;
    l->n++;
}

static bool passes(enum level threshold, enum level level)
{
    if (level == LEVEL_UNKNOWN)
        return threshold != LEVEL_OFF;
    return level >= threshold;
}

static void summarise(struct levels *l)
{
    l->has_bare = l->n > 0 && l->items[l->n - 1].target.len == 0;
    for (unsigned level = LEVEL_UNKNOWN; level < LEVEL_OFF; level++) {
        bool all = l->has_bare; /* otherwise an uncovered module is kept */
        for (size_t i = 0; i < l->n && all; i++)
            all = !passes(l->items[i].threshold, (enum level)level);
        l->drops_all[level] = all;
    }
}

int levels_parse(struct slice spec, struct levels **ret_levels, struct err *err)
{
    size_t parts = 1;
    for (size_t i = 0; i < spec.len; i++)
        parts += spec.ptr[i] == ',';

    struct levels *l = calloc(1, sizeof(*l) + parts * sizeof(l->items[0]) + spec.len);
    if (l == NULL)
        return err_set(err, -ENOMEM, "cannot keep level directives");
    char *text = (char *)&l->items[parts];
    if (spec.len > 0)
        memcpy(text, spec.ptr, spec.len);
    l->text = slice_of(text, spec.len);

    struct slice rest = l->text;
    while (rest.len > 0) {
        ptrdiff_t comma = slice_find_byte(rest, ',');
        struct slice part = comma < 0 ? rest : slice_first(rest, (size_t)comma);
        rest = slice_from(rest, part.len + 1);
        if (part.len == 0)
            continue;
        struct directive d = { 0 };
        int r = directive_parse(part, &d, err);
        if (r < 0) {
            free(l);
            return r;
        }
        directive_insert(l, d);
    }
    summarise(l);
    *ret_levels = l;
    return 0;
}

void levels_free(struct levels *l)
{
    free(l);
}

static const struct directive *directive_for(const struct levels *l, struct slice module)
{
    for (size_t i = 0; i < l->n; i++)
        if (slice_starts(module, l->items[i].target))
            return &l->items[i];
    return NULL;
}

enum level levels_threshold(const struct levels *l, struct slice module)
{
    const struct directive *d = l == NULL ? NULL : directive_for(l, module);
    return d == NULL ? LEVEL_UNKNOWN : d->threshold;
}

bool levels_keep(const struct levels *l, enum level level, struct slice module)
{
    if (l == NULL)
        return true;
    const struct directive *d = directive_for(l, module);
    return d == NULL || passes(d->threshold, level);
}

bool levels_drops_all(const struct levels *l, enum level level)
{
    return l != NULL && l->drops_all[level];
}

bool levels_has_bare(const struct levels *l)
{
    return l != NULL && l->has_bare;
}

bool levels_asks_module(const struct levels *l)
{
    return l != NULL && l->n > (l->has_bare ? 1 : 0);
}

struct slice levels_directive(const struct levels *l, struct slice module)
{
    const struct directive *d = l == NULL ? NULL : directive_for(l, module);
    return d == NULL ? (struct slice){ "", 0 } : d->text;
}

struct slice levels_text(const struct levels *l)
{
    return l == NULL ? (struct slice){ "", 0 } : l->text;
}
