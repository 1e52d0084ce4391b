/*
 * Elasticsearch and OpenSearch: settings, a record as an action and a document, the _bulk request. The rest of this
 * output is in es_wire.c, es_reply.c and es_template.c; es.h says how a body looks.
 */
#include "outputs/es.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "agent/base/bug.h"
#include "agent/base/clock.h"
#include "agent/base/io.h"

/* Above batch_bytes a body may grow by one document: 1 MiB of line, each byte escaped to six. */
#define DOCUMENT_MAX (8 * MIB)
#define BULK_PATH \
    "/_bulk?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason"
#define DAY_NS (86400 * NS_PER_SEC)
#define TIMESTAMP_MAX 64

/* ---- settings ---- */

#define DEFAULT_INDEX "tailrace-{tenant}-%Y.%m.%d"

static const char *const names_choices[] = { [ENRICH_PLAIN] = "plain", [ENRICH_ECS] = "ecs", NULL };
static const char *const refused_choices[] = { [ES_REFUSED_TEXT] = "text", [ES_REFUSED_DEAD] = "dead", NULL };
static const char *const template_choices[] = { [ES_TEMPLATE_AUTO] = "auto", [ES_TEMPLATE_OFF] = "off", NULL };

static const struct setting data_stream_settings[] = {
    { .key = "type", .type = SETTING_STRING, .offset = offsetof(struct es_settings, data_stream.type), .def = "logs",
      .help = "First part of the data stream's name." },
    { .key = "dataset", .type = SETTING_TEMPLATE, .offset = offsetof(struct es_settings, data_stream.dataset),
      .help = "Second part, a template such as \"{service}\"; generic when it is empty." },
    { .key = "namespace", .type = SETTING_TEMPLATE, .offset = offsetof(struct es_settings, data_stream.namespace_),
      .help = "Third part, a template such as \"{tenant}\"; default when it is empty." },
    SETTING_END,
};

static const struct setting document_settings[] = {
    { .key = "names", .type = SETTING_ENUM, .offset = offsetof(struct es_settings, document.names), .def = "plain",
      .choices = names_choices, .help = "How our fields are called: pod, namespace …, or as ECS calls them." },
    { .key = "payload", .type = SETTING_STRING, .offset = offsetof(struct es_settings, document.payload), .def = "top",
      .help = "Where the logger's own object goes: top, or the name of a key; loggers cannot clash under a key." },
    { .key = "on_refused", .type = SETTING_ENUM, .offset = offsetof(struct es_settings, document.on_refused),
      .def = "text", .choices = refused_choices,
      .help = "A document that the server refuses is sent once more as text in message, or becomes a dead letter." },
    SETTING_END,
};

static const struct setting settings[] = {
    { .key = "index", .type = SETTING_TEMPLATE, .offset = offsetof(struct es_settings, index), .def = DEFAULT_INDEX,
      .help = "Name of the index, a template with the record's UTC date." },
    { .key = "data_stream", .type = SETTING_SECTION, .section = data_stream_settings,
      .help = "A data stream TYPE-DATASET-NAMESPACE instead of an index." },
    { .key = "document", .type = SETTING_SECTION, .section = document_settings,
      .help = "What a document looks like." },
    { .key = "template", .type = SETTING_ENUM, .offset = offsetof(struct es_settings, template_), .def = "auto",
      .choices = template_choices,
      .help = "Install our index template at start; a server that forbids it is fine." },
    SETTING_END,
};

static size_t count_byte(struct slice s, char c)
{
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++)
        n += s.ptr[i] == c;
    return n;
}

static void warn_of_builtin(const struct es_settings *set, void (*warn)(void *ctx, const char *text), void *ctx)
{
    struct slice text = template_text(set->index);
    if (slice_starts(text, SLICE("logs-")) && count_byte(text, '-') >= 2)
        warn(ctx, "index: Elasticsearch's built-in template logs-*-* makes a data stream of this name; use data_stream, or "
                  "another name");
}

static void warn_of_template(const struct es_settings *set, void (*warn)(void *ctx, const char *text), void *ctx)
{
    struct buf pattern;
    buf_init(&pattern, 4 * KIB);
    if (set->template_ == ES_TEMPLATE_AUTO && es_template_pattern(set, &pattern) == 0 && pattern.len == 0)
        warn(ctx, "template: index does not begin with at least three constant characters, so our index template is not "
                  "installed; fields get the types that the server guesses");
    buf_deinit(&pattern);
}

static int check_data_stream(struct es_settings *set, struct err *err)
{
    struct slice type = set->data_stream.type;
    if (!slice_eq(template_text(set->index), SLICE(DEFAULT_INDEX)))
        return err_say(err, -EINVAL, "index and data_stream exclude each other: expected one of them");
    bool is_plain = type.len > 0 && type.len <= 50 && type.ptr[0] >= 'a' && type.ptr[0] <= 'z';
    for (size_t i = 0; i < type.len && is_plain; i++)
        is_plain = (type.ptr[i] >= 'a' && type.ptr[i] <= 'z') || (type.ptr[i] >= '0' && type.ptr[i] <= '9') ||
                   type.ptr[i] == '_';
    return is_plain ? 0 : err_say(err, -EINVAL, "data_stream.type: expected at most 50 of a-z 0-9 _, such as logs");
}

static int check_payload(const struct es_settings *set, struct err *err)
{
    static const struct slice taken[] = { SLICE_INIT("@timestamp"), SLICE_INIT("message") };
    struct slice key = set->document.payload;
    struct enricher *e;
    size_t n;
    bool is_bad = key.len == 0 || key.len > 128 || key.ptr[0] == '_' || slice_find_byte(key, '.') >= 0;
    for (size_t i = 0; i < ARRAY_LEN(taken); i++)
        is_bad |= slice_eq(key, taken[i]);
    if (enricher_new((enum enrich_style)set->document.names, NULL, 0, &e) < 0)
        return err_set(err, -ENOMEM, "cannot check document.payload");
    const struct slice *names = enricher_names(e, &n);
    for (size_t i = 0; i < n; i++) /* also the first step of a dotted name */
        is_bad |= slice_starts(names[i], key) && (names[i].len == key.len || names[i].ptr[key.len] == '.');
    enricher_free(e);
    return is_bad ? err_say(err, -EINVAL, "document.payload: expected top, or a key without dots that is not one of ours")
                  : 0;
}

static int validate(struct output_conf *conf, void (*warn)(void *ctx, const char *text), void *ctx, struct err *err)
{
    struct es_settings *set = conf->settings;
    for (size_t i = 0; i < conf->http.urls.n; i++)
        if (slice_find_byte(conf->http.urls.items[i], '?') >= 0)
            return err_say(err, -EINVAL, "urls: expected an address without parameters, as in https://es:9200");
    int r = check_payload(set, err);
    if (r == 0 && es_is_data_stream(set))
        r = check_data_stream(set, err);
    if (r < 0)
        return r;
    if (!es_is_data_stream(set)) {
        warn_of_builtin(set, warn, ctx);
        warn_of_template(set, warn, ctx);
    }
    return 0;
}

const struct output_type elasticsearch_type = {
    .name = "elasticsearch",
    .is_http = true,
    .settings = settings,
    .settings_size = sizeof(struct es_settings),
    .validate = validate,
};

/* ---- names and ids ---- */

/* No strchr(): it is asked for each character of a name, and what that costs hangs on where the linker puts the string. */
static bool is_forbidden(unsigned char c)
{
    switch (c) {
    case '\\':
    case '/':
    case '*':
    case '?':
    case '"':
    case '<':
    case '>':
    case '|':
    case ',':
    case '#':
    case ':':
        return true;
    default:
        return c <= 0x20 || c >= 0x7f;
    }
}

/* Lowercase; one _ for each character that is forbidden. Letters beyond ASCII too: the server wants them lowercase, and
 * that takes tables. */
static int append_clean(struct slice name, bool with_dash, size_t max, struct buf *out)
{
    size_t start = out->len;
    for (size_t i = 0; i < name.len && out->len - start < max; i++) {
        unsigned char c = (unsigned char)name.ptr[i];
        if (c >= 'A' && c <= 'Z')
            c = (unsigned char)(c - 'A' + 'a');
        if ((c & 0xc0) == 0x80 && i > 0 && (unsigned char)name.ptr[i - 1] >= 0x80)
            continue; /* the rest of a character */
        if (is_forbidden(c) || (c == '-' && !with_dash))
            c = '_';
        int r = buf_append_byte(out, (char)c);
        if (r < 0) {
            out->len = start;
            return r;
        }
    }
    return 0;
}

int es_clean_index(struct slice name, struct buf *out)
{
    /* - _ + are refused in front; a dot means a system's index, which no tenant may name. */
    size_t skip = 0;
    while (skip < name.len && strchr("-_+.", name.ptr[skip]) != NULL && name.ptr[skip] != '\0')
        skip++;
    size_t start = out->len;
    int r = append_clean(slice_from(name, skip), true, ES_INDEX_MAX, out);
    if (r < 0)
        return r;
    if (out->len == start)
        return buf_append_lit(out, "tailrace");
    if (out->ptr[start] == '_') /* a forbidden character stood in front */
        out->ptr[start] = 'x';
    return 0;
}

int es_clean_part(struct slice name, struct slice fallback, struct buf *out)
{
    size_t start = out->len;
    int r = append_clean(name, false, ES_PART_MAX, out);
    return r < 0 || out->len > start ? r : buf_append_slice(out, fallback);
}

void es_make_id(uint64_t incarnation, uint64_t salt, uint64_t offset, char id[ES_ID_LEN])
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    /* 64 bits of the file and 48 of the offset, highest first, so that ids of a file sort by place: 18 digits of six bits,
     * and the last four with two zeros behind them. */
    uint64_t file = BUG(32) ? salt : incarnation ^ salt;
    uint64_t high = file >> 4, low = ((file & 0xf) << 48 | (offset & ((UINT64_C(1) << 48) - 1))) << 2;
    for (size_t i = 10; i-- > 0; high >>= 6)
        id[i] = digits[high & 0x3f];
    for (size_t i = ES_ID_LEN; i-- > 10; low >>= 6)
        id[i] = digits[low & 0x3f];
}

/* FNV-1a with a final mix: equal in every process, unlike slice_hash. */
static uint64_t stable_hash(struct slice s)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < s.len; i++)
        h = (h ^ (unsigned char)s.ptr[i]) * UINT64_C(0x100000001b3);
    h = (h ^ h >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    h = (h ^ h >> 27) * UINT64_C(0x94d049bb133111eb);
    return h ^ h >> 31;
}

/* Machines without an id file (some containers) have at least a name. */
static uint64_t machine_salt(const struct output_conf *conf)
{
    struct buf id;
    buf_init(&id, 256);
    int r = io_read_file(AT_FDCWD, "/etc/machine-id", &id, NULL);
    struct slice text = slice_trim(r < 0 ? SLICE("") : buf_slice(&id));
    uint64_t salt = stable_hash(text.len > 0 ? text : conf->host);
    buf_deinit(&id);
    return salt;
}

/* ---- open and close ---- */

static void close_output(struct output *out)
{
    struct es *es = (struct es *)out;
    if (es == NULL)
        return;
    bodies_deinit(&es->base.open);
    enricher_free(es->enrich);
    gzip_free(es->gzip);
    gzip_free(es->sender_gzip);
    buf_deinit(&es->index);
    free(es);
}

static bool has_any(struct slice text, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (slice_find(text, slice_cstr(words[i])) >= 0)
            return true;
    return false;
}

static bool uses_record(const struct template *t)
{
    static const enum var_kind kinds[] = { VAR_STREAM, VAR_LEVEL, VAR_MODULE, VAR_MESSAGE, VAR_RECORD,
                                           VAR_RECORD_TENANT };
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (template_uses(t, kinds[i]))
            return true;
    return false;
}

/* The name of the index is the same for a whole file and day, mostly; then it is made once. */
static void plan_cache(struct es *es)
{
    static const char *const clock_words[] = { "%H", "%M", "%S" };
    const struct template *const parts[] = { es->set->index, es->set->data_stream.dataset,
                                             es->set->data_stream.namespace_ };
    es->index_is_cached = true;
    es->cache_unit_ns = DAY_NS;
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (parts[i] == NULL)
            continue;
        es->index_is_cached &= !uses_record(parts[i]);
        if (has_any(template_text(parts[i]), clock_words, ARRAY_LEN(clock_words)))
            es->cache_unit_ns = NS_PER_SEC;
    }
}

static int open_parts(struct es *es, const struct output_conf *conf)
{
    size_t n = 0;
    es->extra_names[n++] = SLICE("@timestamp");
    if (!es_payload_is_top(es->set))
        es->extra_names[n++] = es->set->document.payload;
    buf_init(&es->index, TEMPLATE_OUT_MAX * 4);
    int r = bodies_init(&es->base.open, (size_t)conf->queue.batch_bytes + DOCUMENT_MAX);
    if (r == 0)
        r = enricher_new((enum enrich_style)es->set->document.names, es->extra_names, n, &es->enrich);
    if (r == 0)
        r = gzip_new(GZIP_LEVEL_FAST, &es->gzip);
    return r < 0 ? r : gzip_new(GZIP_LEVEL_FAST, &es->sender_gzip);
}

static int open_output(const struct output_conf *conf, struct output **ret_out, struct err *err)
{
    struct es *es = calloc(1, sizeof(*es));
    if (es == NULL)
        return err_set(err, -ENOMEM, "cannot open output %.*s", SLICE_ARGS(conf->name));
    es->base.ops = &elasticsearch_ops;
    es->base.conf = conf;
    es->set = conf->settings;
    int r = open_parts(es, conf);
    if (r < 0) {
        close_output(&es->base);
        return err_set(err, r, "cannot open output %.*s", SLICE_ARGS(conf->name));
    }
    es->salt = machine_salt(conf);
    plan_cache(es);
    *ret_out = &es->base;
    return 0;
}

static const struct slice *trusted(const struct output *out, size_t *n)
{
    return enricher_names(((const struct es *)out)->enrich, n);
}

/* ---- record -> lines ---- */

static int eval_part(const struct template *t, const struct record *rec, struct slice fallback, struct buf *out)
{
    if (t == NULL)
        return buf_append_slice(out, fallback);
    char room[TEMPLATE_OUT_MAX];
    struct buf value = { .ptr = room, .cap = sizeof(room), .max = sizeof(room) }; /* never grows: never freed */
    int r = template_eval(t, rec, &value);
    return r < 0 ? r : es_clean_part(buf_slice(&value), fallback, out);
}

static int eval_stream(const struct es_settings *set, const struct record *rec, struct buf *out)
{
    int r = buf_append_slice(out, set->data_stream.type);
    if (r == 0)
        r = buf_append_byte(out, '-');
    if (r == 0)
        r = eval_part(set->data_stream.dataset, rec, SLICE("generic"), out);
    if (r == 0)
        r = buf_append_byte(out, '-');
    return r < 0 ? r : eval_part(set->data_stream.namespace_, rec, SLICE("default"), out);
}

static int eval_index(const struct es_settings *set, const struct record *rec, struct buf *out)
{
    char room[TEMPLATE_OUT_MAX];
    struct buf value = { .ptr = room, .cap = sizeof(room), .max = sizeof(room) };
    int r = template_eval(set->index, rec, &value);
    return r < 0 ? r : es_clean_index(buf_slice(&value), out);
}

/* Afterwards es->index is the record's. */
static int find_index(struct es *es, const struct record *rec)
{
    int64_t unit = rec->time_ns / es->cache_unit_ns - (rec->time_ns % es->cache_unit_ns < 0);
    if (es->has_cached && es->cached_origin == rec->origin->id && es->cached_tenant == rec->tenant_id &&
        es->cached_unit == unit)
        return 0;
    es->has_cached = false;
    buf_reset(&es->index);
    int r = es_is_data_stream(es->set) ? eval_stream(es->set, rec, &es->index) : eval_index(es->set, rec, &es->index);
    if (r < 0)
        return r;
    es->has_cached = es->index_is_cached;
    es->cached_origin = rec->origin->id;
    es->cached_tenant = rec->tenant_id;
    es->cached_unit = unit;
    return 0;
}

static bool is_text(const struct record *rec)
{
    return rec->kind == RECORD_TEXT || (rec->flags & (RECORD_DUPLICATE_KEYS | RECORD_MANY_SUSPECTS)) != 0;
}

/* {"create":{"_index":"…","_id":"…"}}; the other way round for text (es.h). */
static int append_action(const struct es *es, const struct record *rec, struct buf *out)
{
    char id[ES_ID_LEN];
    bool id_first = is_text(rec);
    es_make_id(rec->incarnation, es->salt, rec->offset, id);
    struct slice first = id_first ? slice_of(id, sizeof(id)) : buf_slice(&es->index);
    struct slice second = id_first ? buf_slice(&es->index) : slice_of(id, sizeof(id));
    if (BUG(17) && !id_first) {
        return buf_printf(out, "{\"index\":{\"_index\":\"%.*s\",\"_id\":\"%.*s\"}}\n", SLICE_ARGS(first), SLICE_ARGS(second));
    }
    int r = id_first ? buf_append_lit(out, "{\"create\":{\"_id\":\"") : buf_append_lit(out, "{\"create\":{\"_index\":\"");
    if (r == 0)
        r = buf_append_slice(out, first);
    if (r == 0)
        r = id_first ? buf_append_lit(out, "\",\"_index\":\"") : buf_append_lit(out, "\",\"_id\":\"");
    if (r == 0)
        r = buf_append_slice(out, second);
    return r < 0 ? r : buf_append_lit(out, "\"}}\n");
}

/* n digits at *at as a number; -1 when one is missing. */
static int digits(struct slice s, size_t at, size_t n)
{
    int v = 0;
    for (size_t i = at; i < at + n; i++) {
        if (i >= s.len || s.ptr[i] < '0' || s.ptr[i] > '9')
            return -1;
        v = v * 10 + (s.ptr[i] - '0');
    }
    return v;
}

static bool is_good_date(struct slice s)
{
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    int year = digits(s, 0, 4), month = digits(s, 5, 2), day = digits(s, 8, 2);
    if (year < 1971 || year > 2261 || month < 1 || month > 12 || day < 1)
        return false;
    bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return day <= days[month - 1] + (month == 2 && is_leap);
}

/* "Z" or "+02:00", the whole slice; Java takes offsets up to 18 hours. */
static bool is_good_offset(struct slice s)
{
    if (slice_eq(s, SLICE("Z")))
        return true;
    if (s.len != 6 || (s.ptr[0] != '+' && s.ptr[0] != '-') || s.ptr[3] != ':')
        return false;
    int hour = digits(s, 1, 2), minute = digits(s, 4, 2);
    return hour >= 0 && minute >= 0 && minute <= 59 && hour * 60 + minute <= 18 * 60;
}

bool es_is_good_timestamp(struct slice s)
{
    if (s.len < 20 || s.ptr[4] != '-' || s.ptr[7] != '-' || s.ptr[10] != 'T' || s.ptr[13] != ':' || s.ptr[16] != ':')
        return false;
    int hour = digits(s, 11, 2), minute = digits(s, 14, 2), second = digits(s, 17, 2);
    if (!is_good_date(s) || hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59)
        return false;
    size_t at = 19;
    if (s.ptr[at] == '.') {
        size_t start = ++at;
        while (at < s.len && s.ptr[at] >= '0' && s.ptr[at] <= '9')
            at++;
        if (at == start || at - start > 9)
            return false;
    }
    return is_good_offset(slice_from(s, at));
}

/* The payload's own @timestamp as it stands in the line, quotes included, when the server will take it; else empty. */
static struct slice own_timestamp(const struct record *rec)
{
    if (is_text(rec))
        return SLICE("");
    for (size_t i = 0; i < rec->n_suspects; i++) {
        const struct suspect *s = &rec->suspects[i];
        if (slice_eq(s->key, SLICE("@timestamp")) && s->value.kind == VALUE_STRING && es_is_good_timestamp(s->value.text))
            return slice_of(rec->line.ptr + s->value_start, s->value_end - s->value_start);
    }
    return SLICE("");
}

/* The value of @timestamp: the payload's, or ours written into room. */
static int find_timestamp(const struct record *rec, char room[TIMESTAMP_MAX], struct slice *ret)
{
    *ret = own_timestamp(rec);
    if (ret->len > 0)
        return 0;
    struct buf text = { .ptr = room, .cap = TIMESTAMP_MAX, .max = TIMESTAMP_MAX };
    /* date_nanos begins with 1970 */
    int64_t time_ns = rec->time_ns >= 0 ? rec->time_ns : MAX(rec->read_ns, 0);
    int r = buf_append_byte(&text, '"');
    if (r == 0)
        r = clock_append_rfc3339(&text, time_ns, 9);
    if (r == 0)
        r = buf_append_byte(&text, '"');
    *ret = buf_slice(&text);
    return r;
}

/* The payload's object on one line: a joined record may hold newlines, which only stand between tokens. */
static int append_object(struct slice line, struct buf *out)
{
    size_t start = out->len;
    int r = buf_append_slice(out, slice_trim(line));
    for (size_t i = start; r == 0 && i < out->len; i++)
        if (out->ptr[i] == '\n')
            out->ptr[i] = ' ';
    return r;
}

/* {"@timestamp":T,"message":"…","KEY":{…}, our members}. The message is repeated above for full-text search: under a
 * flattened key there are only keywords. */
static int append_under_key(struct es *es, const struct record *rec, struct slice timestamp, struct buf *out)
{
    int r = buf_append_lit(out, "{\"@timestamp\":");
    if (r == 0)
        r = buf_append_slice(out, timestamp);
    if (r == 0 && rec->message.len > 0) {
        r = buf_append_lit(out, ",\"message\":");
        if (r == 0)
            r = buf_append_json_string(out, rec->message);
    }
    if (r == 0)
        r = buf_append_byte(out, ',');
    if (r == 0)
        r = buf_append_json_string(out, es->set->document.payload);
    if (r == 0)
        r = buf_append_byte(out, ':');
    if (r == 0)
        r = append_object(rec->line, out);
    if (r == 0)
        r = enrich_append_members(es->enrich, rec, out);
    return r < 0 ? r : buf_append_byte(out, '}');
}

static int append_document(struct es *es, const struct record *rec, struct buf *out, uint32_t *altered)
{
    char room[TIMESTAMP_MAX];
    struct enrich_extra stamp = { .name = SLICE("@timestamp") };
    int r = find_timestamp(rec, room, &stamp.json);
    if (r < 0)
        return r;
    if (!es_payload_is_top(es->set) && !is_text(rec))
        return append_under_key(es, rec, stamp.json, out);
    return enrich_append(es->enrich, rec, ENRICH_NO_DUPLICATES, &stamp, 1, out, altered);
}

static int append_pair(struct es *es, const struct record *rec, struct buf *raw, uint32_t *altered)
{
    size_t before = raw->len;
    int r = append_action(es, rec, raw);
    if (r == 0)
        r = append_document(es, rec, raw, altered);
    if (r == 0)
        r = buf_append_byte(raw, '\n');
    if (r < 0)
        raw->len = before;
    return r;
}

/* Not even an empty body has room: the start of the line, as text. Six bytes for each of it always fit. */
static int append_cut_pair(struct es *es, const struct record *rec, struct buf *raw, uint32_t *altered)
{
    struct record cut = *rec;
    cut.kind = RECORD_TEXT;
    cut.line = slice_first(rec->line, (raw->max - raw->len) / 8);
    *altered |= 1u << ALTER_CUT;
    return append_pair(es, &cut, raw, altered);
}

static int append(struct output *out, const struct record *rec, struct append_result *ret)
{
    struct es *es = (struct es *)out;
    int r = find_index(es, rec);
    if (r < 0)
        return r;
    if (bodies_hold(&out->open, SLICE(""), rec)) {
        *ret = (struct append_result){ .is_filtered = true };
        return 0;
    }
    struct body *b = bodies_get(&out->open, SLICE(""));
    if (b == NULL)
        return -ENOMEM;
    size_t before = b->raw.len;
    uint32_t altered = 0;
    r = append_pair(es, rec, &b->raw, &altered);
    if (r == -ENOBUFS && b->lines == 0)
        r = append_cut_pair(es, rec, &b->raw, &altered);
    if (r == 0)
        r = body_count(b, rec);
    if (r < 0) {
        b->raw.len = before;
        return r;
    }
    b->raw_bytes += b->raw.len - before;
    out->open.raw_bytes += b->raw.len - before;
    *ret = (struct append_result){ .body = b, .altered = altered };
    return 0;
}

static void discard(struct output *out, struct body *b)
{
    (void)out;
    (void)b; /* no parts: all is in raw */
}

static int explain(struct output *out, const struct record *rec, struct buf *text)
{
    struct es *es = (struct es *)out;
    uint32_t altered = 0;
    int r = find_index(es, rec);
    if (r == 0)
        r = buf_printf(text, "%s %.*s\n", es_is_data_stream(es->set) ? "data stream" : "index",
                       SLICE_ARGS(buf_slice(&es->index)));
    if (r == 0)
        r = append_pair(es, rec, text, &altered);
    if (r == 0 && (rec->flags & RECORD_DUPLICATE_KEYS) != 0)
        r = buf_append_lit(text, "as text: a key stands in it twice, which the server refuses\n");
    else if (r == 0 && (altered & 1u << ALTER_KEY_CONFLICT) != 0)
        r = buf_append_lit(text, "a key of the line is one of ours: it is kept as original_KEY\n");
    return r;
}

/* ---- body -> request ---- */

static int seal(struct output *out, struct body *b, struct buf *wire)
{
    int r = body_end_runs(b);
    return r < 0 ? r : gzip_compress(((struct es *)out)->gzip, buf_slice(&b->raw), SLICE(""), wire);
}

static void es_rest(struct output *out)
{
    gzip_rest(((struct es *)out)->gzip);
}

int es_append_url(const struct output *out, size_t url_index, const char *path, struct buf *url)
{
    const struct slices *urls = &out->conf->http.urls;
    if (url_index >= urls->n)
        return -EINVAL;
    struct slice base = urls->items[url_index];
    while (base.len > 0 && base.ptr[base.len - 1] == '/')
        base.len--;
    int r = buf_append_slice(url, base);
    return r < 0 ? r : buf_append_cstr(url, path);
}

static int request(struct output *out, struct slice route, size_t url_index, struct http_request *ret)
{
    (void)route;
    ret->method = "POST";
    int r = es_append_url(out, url_index, BULK_PATH, &ret->url);
    if (r == 0)
        r = buf_append_lit(&ret->headers, "Content-Type: application/x-ndjson\nContent-Encoding: gzip\n");
    return r;
}

const struct output_ops elasticsearch_ops = {
    .type = &elasticsearch_type,
    .wire_form = WIRE_ES_BULK_GZIP,
    .find_duplicates = true,
    .open = open_output,
    .close = close_output,
    .trusted = trusted,
    .append = append,
    .discard = discard,
    .explain = explain,
    .seal = seal,
    .rest = es_rest,
    .request = request,
    .judge = es_judge,
    .judge_items = es_judge_items,
    .items = es_items,
    .build = es_build,
    .join = es_join,
    .setup_request = es_setup_request,
    .print = es_print,
};
