/*
 * fuzz_json.c - a JSON line as a record, beside what jansson and a naive reading of its tree say.
 *
 * Checked: which lines are objects at all, which have a key twice, and level, module, message, time, tenant, wanted values and
 * suspects of the others; that a second parser that does not look for duplicates says the same; that a line cut short by the
 * filter, or broken, leaves nothing behind that changes the next line.
 *
 * Where jansson may differ, and why:
 *   - a lone surrogate escape: jansson refuses it, we read U+FFFD, as most readers do. It is written as \ufffd before jansson
 *     sees it;
 *   - a number too large for a double (1e999): jansson stops there; the line is then not judged. So is one whose object key
 *     holds \u0000, which jansson cannot keep;
 *   - a NUL byte behind a number: jansson's stream loses it (it stands for the end of the buffer), we refuse it;
 *   - depth: jansson's limit is 2048, ours JSON_DEPTH_MAX: deeper ones are text.
 */
#include <errno.h>
#include <jansson.h>

#include "agent/base/buf.h"
#include "parsers/parser.h"
#include "parsers/shapes.h"
#include "parsers/timestamp.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/model_json.h"

#define READ_NS INT64_C(1767323045000000000)
#define ANY 1000

/* ---- what the loggers call things, written down once more --------------------------------------------------------- */

static const struct {
    const char *name;
    enum level_kind kind;
} level_keys[] = {
    { "severity_name", LEVEL_KEY_WORD }, /* of the configuration below */
    { "level", LEVEL_KEY_WORD },         { "log.level", LEVEL_KEY_WORD },       { "severity", LEVEL_KEY_SEVERITY },
    { "levelname", LEVEL_KEY_WORD },     { "lvl", LEVEL_KEY_WORD },             { "loglevel", LEVEL_KEY_WORD },
    { "log_level", LEVEL_KEY_WORD },     { "level_name", LEVEL_KEY_WORD },      { "@l", LEVEL_KEY_WORD },
    { "LogLevel", LEVEL_KEY_WORD },      { "Level", LEVEL_KEY_WORD },           { "LEVEL", LEVEL_KEY_WORD },
    { "Severity", LEVEL_KEY_SEVERITY },  { "SEVERITY", LEVEL_KEY_SEVERITY },    { "severity_text", LEVEL_KEY_WORD },
    { "severityText", LEVEL_KEY_WORD },  { "SeverityText", LEVEL_KEY_WORD },    { "severity_number", LEVEL_KEY_OTEL },
    { "severityNumber", LEVEL_KEY_OTEL }, { "SeverityNumber", LEVEL_KEY_OTEL }, { "PRIORITY", LEVEL_KEY_SEVERITY },
};

static const char *const module_keys[] = { "target", "logger",   "logger_name",   "loggerName", "log.logger",        "name",
                                           "module", "Category", "SourceContext", "channel",    "SYSLOG_IDENTIFIER", "_SYSTEMD_UNIT" };

static const struct {
    const char *name;
    enum time_kind kind;
    unsigned rank;
} time_keys[] = {
    { "when.at", TIME_KEY_WHOLE, 0 }, /* of the configuration below */
    { "@timestamp", TIME_KEY_WHOLE, 1 },          { "timestamp", TIME_KEY_WHOLE, 2 },
    { "timestamp.seconds", TIME_KEY_SECONDS, 3 }, { "timestamp.nanos", TIME_KEY_NANOS, 3 },
    { "timestampSeconds", TIME_KEY_SECONDS, 4 },  { "timestampNanos", TIME_KEY_NANOS, 4 },
    { "@t", TIME_KEY_WHOLE, 5 },
    { "instant.epochSecond", TIME_KEY_SECONDS, 6 }, { "instant.nanoOfSecond", TIME_KEY_NANOS, 6 },
    { "timeMillis", TIME_KEY_WHOLE, 7 },          { "__REALTIME_TIMESTAMP", TIME_KEY_WHOLE, 8 },
    { "Timestamp", TIME_KEY_WHOLE, 9 },           { "time", TIME_KEY_WHOLE, 10 },
    { "ts", TIME_KEY_WHOLE, 11 },                 { "asctime", TIME_KEY_WHOLE, 12 },
    { "datetime", TIME_KEY_WHOLE, 13 },           { "time_iso8601", TIME_KEY_WHOLE, 14 },
    { "msec", TIME_KEY_WHOLE, 15 },               { "time_local", TIME_KEY_WHOLE, 16 },
    { "t.$date", TIME_KEY_WHOLE, 17 },            { "start_time", TIME_KEY_WHOLE, 18 },
};

static const char *const message_keys[] = { "message", "msg",     "fields.message", "@m", "Message",
                                            "MESSAGE", "short_message", "event",     "@mt" };
static const char *const tenant_keys[] = { "org.id", "tenant", "tenant_id", "tenantId" }; /* the first: of the configuration */

static const char *const trusted[] = { "pod", "namespace", "tenant", "container_name", "kubernetes.pod.name", "log.level",
                                       "@timestamp" };

/* ---- the parsers, made once --------------------------------------------------------------------------------------- */

static struct wanted_keys wanted;
static struct parser *with_duplicates, *without_duplicates;
static struct timestamp_env env;

static void make_parsers(void)
{
    static const struct slice level[] = { SLICE_INIT("severity_name") }, time[] = { SLICE_INIT("when.at") },
                              tenant[] = { SLICE_INIT("org.id") };
    static struct slice names[ARRAY_LEN(trusted)];
    if (with_duplicates != NULL)
        return;
    for (size_t i = 0; i < ARRAY_LEN(trusted); i++)
        names[i] = slice_cstr(trusted[i]);
    static const char *const paths[] = { "trace_id", "user.id", "a.b.c", "level" };
    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        fuzz_check(wanted_keys_add(&wanted, slice_cstr(paths[i])) == (int)i, "wanted keys");
    struct parser_conf conf = { .frame = FRAME_PLAIN, .level_keys = { level, 1 }, .time_keys = { time, 1 },
                                .tenant_keys = { tenant, 1 }, .wanted = &wanted, .trusted = names,
                                .n_trusted = ARRAY_LEN(names), .find_duplicates = true, .timezone = SLICE("UTC") };
    struct err err;
    fuzz_check(parser_new(&conf, &with_duplicates, &err) == 0, "parser: %s", err.text);
    conf.find_duplicates = false;
    fuzz_check(parser_new(&conf, &without_duplicates, &err) == 0, "parser: %s", err.text);
    struct zone *zone;
    fuzz_check(zone_load(SLICE("UTC"), &zone, NULL) == 0, "zone");
    env = (struct timestamp_env){ .zone = zone, .now_ns = READ_NS };
}

/* ---- the model: the same from jansson's tree ---------------------------------------------------------------------- */

struct model {
    bool has_level, has_module, is_time_bad;
    enum level level;
    unsigned marks;
    const json_t *module, *message, *tenant, *values[WANTED_KEYS_MAX];
    bool is_nested[WANTED_KEYS_MAX];
    size_t message_rank, tenant_rank, time_rank, seconds_rank, nanos_rank;
    int64_t time_ns, seconds, nanos;
};

/* Does the member at this path have this name, as a flat key or as nested objects? */
static bool is_named(const char *const *path, const size_t *lens, size_t depth, const char *name, bool *ret_is_nested)
{
    size_t len = strlen(name), at = 0, dots = 0;
    for (size_t i = 0; i < len; i++)
        dots += name[i] == '.';
    *ret_is_nested = depth > 1;
    if (depth == 1)
        return lens[0] == len && memcmp(path[0], name, len) == 0;
    if (dots + 1 != depth)
        return false;
    for (size_t i = 0; i < depth; i++) {
        if (lens[i] > len - at || memcmp(path[i], name + at, lens[i]) != 0)
            return false;
        at += lens[i];
        if (i + 1 < depth && name[at++] != '.')
            return false;
    }
    return at == len;
}

/* A value as the parser hands it out; of a number, without its text. */
static struct value value_of(const json_t *v)
{
    if (json_is_string(v))
        return (struct value){ VALUE_STRING, slice_of(json_string_value(v), json_string_length(v)) };
    return (struct value){ .kind = json_is_number(v)    ? VALUE_NUMBER
                                   : json_is_boolean(v) ? VALUE_BOOL
                                   : json_is_null(v)    ? VALUE_NULL
                                   : json_is_object(v)  ? VALUE_OBJECT
                                                        : VALUE_ARRAY };
}

/*
 * jansson keeps a number's value, not its digits, and levels and times are read from the digits. So the model takes them from
 * the line: numbers are found there again, in the order they stand.
 */
struct digits {
    struct slice line;
    size_t at;
};

static struct slice next_number(struct digits *d)
{
    bool in_string = false;
    for (; d->at < d->line.len; d->at++) {
        char c = d->line.ptr[d->at];
        if (in_string && c == '\\') {
            d->at++;
        } else if (c == '"') {
            in_string = !in_string;
        } else if (!in_string && (c == '-' || (c >= '0' && c <= '9'))) {
            size_t from = d->at;
            while (d->at < d->line.len && memchr("+-.eE0123456789", d->line.ptr[d->at], 15) != NULL)
                d->at++;
            return slice_of(d->line.ptr + from, d->at - from);
        }
    }
    fuzz_fail("jansson has more numbers than the line");
}

static void model_time(struct model *m, size_t key, struct value v)
{
    size_t rank = time_keys[key].rank;
    int64_t n;
    if (v.kind == VALUE_NULL || (v.kind == VALUE_STRING && v.text.len == 0) || rank >= m->time_rank)
        return;
    bool is_scalar = v.kind == VALUE_STRING || v.kind == VALUE_NUMBER;
    if (!is_scalar) {
        m->is_time_bad = true;
    } else if (time_keys[key].kind == TIME_KEY_WHOLE) {
        int64_t ns;
        bool is_good = v.kind == VALUE_STRING ? timestamp_parse(&env, v.text, &ns) : timestamp_from_number(v.text, &ns);
        m->is_time_bad |= !is_good;
        if (!is_good)
            return;
        m->time_rank = rank;
        m->time_ns = ns;
        m->marks |= v.kind == VALUE_NUMBER ? SHAPE_EPOCH : 0u;
    } else if (time_keys[key].kind == TIME_KEY_SECONDS) {
        bool is_good = slice_to_i64(v.text, &n) && n >= 1 && n < INT64_MAX / NS_PER_SEC;
        if (rank >= m->seconds_rank)
            return;
        m->is_time_bad |= !is_good;
        if (is_good) {
            m->seconds_rank = rank;
            m->seconds = n;
        }
    } else {
        bool is_good = slice_to_i64(v.text, &n) && n >= 0 && n < NS_PER_SEC;
        m->is_time_bad |= !is_good;
        if (is_good && rank < m->nanos_rank) {
            m->nanos_rank = rank;
            m->nanos = n;
        }
    }
}

static void model_ranked(const json_t *v, const char *const *path, const size_t *lens, size_t depth, const char *const *keys,
                         size_t n, bool is_good, size_t *rank, const json_t **ret)
{
    bool is_nested;
    for (size_t i = 0; i < n; i++) {
        if (is_good && i < *rank && is_named(path, lens, depth, keys[i], &is_nested)) {
            *rank = i;
            *ret = v;
        }
    }
}

static void model_marks(struct model *m, const char *key, size_t len, struct value v)
{
    struct slice k = slice_of(key, len);
    if (slice_eq(k, SLICE("@t")))
        m->marks |= SHAPE_SERILOG_TIME;
    if (slice_eq(k, SLICE("@m")) || slice_eq(k, SLICE("@mt")))
        m->marks |= SHAPE_SERILOG_TEXT;
    if (slice_eq(k, SLICE("v")) && v.kind == VALUE_NUMBER)
        m->marks |= SHAPE_KLOG_V;
    if (slice_eq(k, SLICE("err")))
        m->marks |= SHAPE_KLOG_ERR;
    if (slice_eq(k, SLICE("msg")))
        m->marks |= SHAPE_MSG;
}

static void model_member(struct model *m, const json_t *v, struct value value, const char *const *path, const size_t *lens,
                         size_t depth)
{
    bool is_nested;
    for (size_t i = 0; i < ARRAY_LEN(level_keys); i++) {
        bool is_scalar = value.kind == VALUE_STRING || value.kind == VALUE_NUMBER;
        if (!m->has_level && is_scalar && is_named(path, lens, depth, level_keys[i].name, &is_nested)) {
            m->has_level = true;
            m->level = shapes_level(level_keys[i].kind, value);
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(module_keys); i++) {
        if (m->module == NULL && value.kind == VALUE_STRING && value.text.len > 0 &&
            is_named(path, lens, depth, module_keys[i], &is_nested))
            m->module = v;
    }
    for (size_t i = 0; i < ARRAY_LEN(time_keys); i++)
        if (is_named(path, lens, depth, time_keys[i].name, &is_nested))
            model_time(m, i, value);
    model_ranked(v, path, lens, depth, message_keys, ARRAY_LEN(message_keys), value.kind == VALUE_STRING, &m->message_rank,
                 &m->message);
    bool is_tenant = value.kind == VALUE_NUMBER || value.kind == VALUE_BOOL ||
                     (value.kind == VALUE_STRING && value.text.len > 0);
    model_ranked(v, path, lens, depth, tenant_keys, ARRAY_LEN(tenant_keys), is_tenant, &m->tenant_rank, &m->tenant);
    if (depth == 1)
        model_marks(m, path[0], lens[0], value);
    for (size_t i = 0; i < wanted.n; i++) {
        if (is_named(path, lens, depth, wanted.paths[i].ptr, &is_nested) &&
            (m->values[i] == NULL || (m->is_nested[i] && !is_nested))) {
            m->values[i] = v;
            m->is_nested[i] = is_nested;
        }
    }
}

/* Every member of the tree in the order of the line; the digits of numbers go along, those in arrays too. */
static void model_walk(struct model *m, json_t *tree, struct digits *d, const char **path, size_t *lens, size_t depth)
{
    json_t *v;
    size_t index;
    if (json_is_array(tree)) {
        json_array_foreach(tree, index, v) {
            if (json_is_number(v))
                (void)next_number(d);
            model_walk(m, v, d, path, lens, ANY); /* nobody looks inside an array */
        }
        return;
    }
    if (!json_is_object(tree))
        return;
    for (void *it = json_object_iter(tree); it != NULL; it = json_object_iter_next(tree, it)) {
        v = json_object_iter_value(it);
        struct value value = value_of(v);
        if (json_is_number(v))
            value.text = next_number(d);
        if (depth < 8) {
            path[depth] = json_object_iter_key(it);
            lens[depth] = json_object_iter_key_len(it);
            model_member(m, v, value, path, lens, depth + 1);
        }
        model_walk(m, v, d, path, lens, depth < 8 ? depth + 1 : ANY);
    }
}

/* ---- comparing ---------------------------------------------------------------------------------------------------- */

static void check_value(struct value got, const json_t *want, const char *what)
{
    if (want == NULL) {
        fuzz_check(got.kind == VALUE_MISSING, "%s is there and should not be", what);
        return;
    }
    struct value v = value_of(want);
    fuzz_check(got.kind == v.kind, "%s: kind %d instead of %d", what, (int)got.kind, (int)v.kind);
    if (v.kind == VALUE_STRING)
        fuzz_check(slice_eq(got.text, v.text), "%s: '%.*s' instead of '%.*s'", what, SLICE_ARGS(got.text), SLICE_ARGS(v.text));
    if (v.kind == VALUE_NUMBER) {
        char text[4096];
        if (got.text.len >= sizeof(text))
            return;
        memcpy(text, got.text.ptr, got.text.len);
        text[got.text.len] = '\0';
        fuzz_check(strtod(text, NULL) == json_number_value(want), "%s: %s instead of %g", what, text, json_number_value(want));
    }
    if (v.kind == VALUE_BOOL)
        fuzz_check(slice_eq(got.text, json_is_true(want) ? SLICE("true") : SLICE("false")), "%s: wrong boolean", what);
}

static bool is_suspect_key(const char *key, size_t len)
{
    struct slice segment = slice_of(key, len);
    ptrdiff_t dot = slice_find_byte(segment, '.');
    segment = dot < 0 ? segment : slice_first(segment, (size_t)dot);
    for (size_t i = 0; i < ARRAY_LEN(trusted); i++) {
        struct slice name = slice_cstr(trusted[i]);
        ptrdiff_t end = slice_find_byte(name, '.');
        if (slice_eq(segment, end < 0 ? name : slice_first(name, (size_t)end)))
            return true;
    }
    return false;
}

/* line: what jansson read, so of equal length as the record's. */
static void check_suspects(const struct record *rec, struct slice line, json_t *tree)
{
    size_t n = 0;
    for (void *it = json_object_iter(tree); it != NULL; it = json_object_iter_next(tree, it)) {
        struct slice key = slice_of(json_object_iter_key(it), json_object_iter_key_len(it));
        if (!is_suspect_key(key.ptr, key.len))
            continue;
        if (n == SUSPECT_KEYS_MAX) {
            fuzz_check((rec->flags & RECORD_MANY_SUSPECTS) != 0, "too many suspects, and not said");
            return;
        }
        fuzz_check(n < rec->n_suspects, "suspect '%.*s' was not seen", SLICE_ARGS(key));
        const struct suspect *s = &rec->suspects[n++];
        fuzz_check(slice_eq(s->key, key), "suspect '%.*s' instead of '%.*s'", SLICE_ARGS(s->key), SLICE_ARGS(key));
        fuzz_check(s->key_start < s->key_end && s->key_end < s->value_start && s->value_start < s->value_end &&
                       s->value_end < line.len,
                   "the suspect's offsets");
        fuzz_check(line.ptr[s->key_start] == '"' && line.ptr[s->key_end - 1] == '"', "the suspect's key is not a string");
        json_t *value = json_loadb(line.ptr + s->value_start, s->value_end - s->value_start,
                                   JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, NULL);
        fuzz_check(value != NULL && json_equal(value, json_object_iter_value(it)), "the suspect's value is '%.*s'",
                   (int)(s->value_end - s->value_start), line.ptr + s->value_start);
        json_decref(value);
        check_value(s->value, json_object_iter_value(it), "suspect");
    }
    fuzz_check(n == rec->n_suspects && (rec->flags & RECORD_MANY_SUSPECTS) == 0, "%zu suspects instead of %zu",
               rec->n_suspects, n);
}

static void check_record(const struct record *rec, struct slice line, json_t *tree)
{
    struct model m = { .message_rank = ANY, .tenant_rank = ANY, .time_rank = ANY, .seconds_rank = ANY, .nanos_rank = ANY };
    const char *path[8];
    size_t lens[8];
    struct digits d = { .line = line };
    model_walk(&m, tree, &d, path, lens, 0);

    enum level level = m.has_level ? m.level : shapes_default_level(m.marks);
    fuzz_check(rec->level == level, "level %d instead of %d", (int)rec->level, (int)level);
    struct slice module = m.module == NULL ? SLICE("") : slice_of(json_string_value(m.module), json_string_length(m.module));
    fuzz_check(slice_eq(rec->module, module), "module '%.*s' instead of '%.*s'", SLICE_ARGS(rec->module), SLICE_ARGS(module));
    struct slice message = m.message == NULL ? line
                                             : slice_of(json_string_value(m.message), json_string_length(m.message));
    if (m.message != NULL)
        fuzz_check(slice_eq(rec->message, message), "message '%.*s' instead of '%.*s'", SLICE_ARGS(rec->message),
                   SLICE_ARGS(message));
    else
        fuzz_check(slice_eq(rec->message, rec->line), "no message, and it is not the line");

    bool has_time = m.time_rank != ANY || m.seconds_rank != ANY;
    int64_t time_ns = m.time_ns;
    if (m.seconds_rank < m.time_rank)
        time_ns = m.seconds * NS_PER_SEC + (m.nanos_rank == m.seconds_rank ? m.nanos : 0);
    fuzz_check(((rec->flags & RECORD_HAS_TIME) != 0) == has_time, "it has %s time", has_time ? "a" : "no");
    fuzz_check(rec->time_ns == (has_time ? time_ns : READ_NS), "time %lld instead of %lld", (long long)rec->time_ns,
               (long long)time_ns);
    fuzz_check(((rec->flags & RECORD_BAD_TIME) != 0) == (!has_time && m.is_time_bad), "a bad time");
    check_value(rec->tenant_key, m.tenant, "tenant");
    for (size_t i = 0; i < wanted.n; i++)
        check_value(rec->values[i], m.values[i], wanted.paths[i].ptr);
    check_suspects(rec, line, tree);
}

/* ---- reading ------------------------------------------------------------------------------------------------------ */

static struct record read_line(struct parser *p, struct slice line)
{
    static struct origin origin;
    struct record rec = { .origin = &origin, .read_ns = READ_NS, .line = line };
    fuzz_check(parser_record(p, &rec, NULL, NULL) == PARSE_OK, "nobody asked to stop");
    return rec;
}

static bool is_out_now(void *ctx, const struct record *rec)
{
    unsigned *countdown = ctx;
    (void)rec;
    return (*countdown)-- == 0;
}

/* A line that is stopped in the middle, and then a good one by the same parser. */
static void check_stopped(struct slice line)
{
    static struct origin origin;
    static const struct slice good = SLICE_INIT("{\"level\":\"w\\u0061rn\",\"target\":\"a::b\",\"message\":\"m\",\"pod\":{}}");
    for (unsigned calls = 0; calls < 2; calls++) {
        unsigned countdown = calls;
        struct record rec = { .origin = &origin, .read_ns = READ_NS, .line = line };
        (void)parser_record(with_duplicates, &rec, is_out_now, &countdown);
        rec = read_line(with_duplicates, good);
        fuzz_check(rec.kind == RECORD_JSON && rec.flags == 0 && rec.level == LEVEL_WARN && rec.n_suspects == 1 &&
                       slice_eq(rec.module, SLICE("a::b")) && slice_eq(rec.message, SLICE("m")),
                   "the line before changed the reading of a good one");
    }
}

static size_t depth_of(struct slice line)
{
    size_t depth = 0, max = 0;
    bool in_string = false;
    for (size_t i = 0; i < line.len; i++) {
        char c = line.ptr[i];
        if (in_string && c == '\\')
            i++;
        else if (c == '"')
            in_string = !in_string;
        else if (!in_string && (c == '{' || c == '['))
            depth++;
        else if (!in_string && (c == '}' || c == ']'))
            depth--;
        max = MAX(max, depth);
    }
    return max;
}

static bool same_record(const struct record *a, const struct record *b)
{
    return a->kind == b->kind && (a->flags | RECORD_DUPLICATE_KEYS) == (b->flags | RECORD_DUPLICATE_KEYS) &&
           a->level == b->level && slice_eq(a->module, b->module) && slice_eq(a->message, b->message) &&
           a->time_ns == b->time_ns && a->n_suspects == b->n_suspects && a->tenant_key.kind == b->tenant_key.kind;
}

int fuzz_json(const uint8_t *data, size_t size)
{
    make_parsers();
    struct slice line = slice_of(data, size);
    if (!slice_starts(slice_trim(line), SLICE("{")))
        return -1; /* text: another target's */

    struct record rec = read_line(with_duplicates, line);
    struct record other = read_line(without_duplicates, line);
    fuzz_check(same_record(&rec, &other), "it matters whether duplicates are looked for");
    fuzz_check((other.flags & RECORD_DUPLICATE_KEYS) == 0, "duplicates that nobody looks for");

    char *text = model_without_lone_surrogates(line);
    struct slice read = slice_of(text, line.len);
    json_error_t error = { .line = 0 };
    const size_t flags = JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL;
    json_t *tree = json_loadb(read.ptr, read.len, flags, &error);
    enum json_error_code code = tree == NULL ? json_error_code(&error) : json_error_unknown;
    bool is_judged = tree != NULL || (code != json_error_numeric_overflow && code != json_error_null_byte_in_key &&
                                      code != json_error_stack_overflow);
    bool is_object = tree != NULL && json_is_object(tree) && depth_of(read) <= JSON_DEPTH_MAX &&
                     slice_find_byte(line, '\0') < 0;
    if (is_judged)
        fuzz_check((rec.kind == RECORD_JSON) == is_object, "%s, and jansson: %s", is_object ? "taken for text" : "taken for JSON",
                   error.text);
    fuzz_check(rec.kind == RECORD_JSON || (rec.flags & RECORD_BAD_JSON) != 0, "text that began like JSON, and not said");
    if (is_judged && is_object) {
        json_t *strict = json_loadb(read.ptr, read.len, flags | JSON_REJECT_DUPLICATES, &error);
        bool has_duplicates = strict == NULL;
        fuzz_check(((rec.flags & RECORD_DUPLICATE_KEYS) != 0) == has_duplicates, "duplicates: %s", error.text);
        if (!has_duplicates)
            check_record(&rec, read, tree);
        json_decref(strict);
    }
    json_decref(tree);
    free(text);
    check_stopped(line);
    return 0;
}
