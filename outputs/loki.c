/*
 * The Loki output: settings, and a record's way into a body. One body a tenant, in it one Stream message per
 * label set; lines are encoded once, in place. Reader thread, but for open and request.
 */
#include "outputs/loki.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/bug.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"

/* What an entry costs a body beside its own bytes: the head of its stream. */
#define STREAM_HEAD_MAX ((size_t)8)
#define LOOKUP_SLOTS 4096
#define PAIRS_SLOTS 256
#define SAID_SLOTS 256
/* Times that leave room for steps: years 1823 to 2116. */
#define TIME_MAX (INT64_C(1) << 62)
/* Bodies whose lines are all this near to when they were read may pass one another on their way: Loki takes lines that are
 * an hour behind. A backlog holds hours in one body; were the one behind it faster, Loki would drop it all. */
#define NEAR_NS (10 * 60 * NS_PER_SEC)
#define PUSH_PATH "/loki/api/v1/push"

/* Our own words in the metadata, refused as configured names. */
#define META_ORIGINAL_TIME "original_time"
#define META_CUT "cut"
#define LABEL_LATE "late"

enum line_form { LINE_ORIGINAL, LINE_ENRICHED };

struct loki_settings {
    struct template *tenant;
    struct template_map labels, metadata;
    int line; /* enum line_form */
    int64_t max_age_ns, max_future_ns, late_after_ns;
    uint64_t max_line;
};

static const char *const line_forms[] = { "original", "enriched", NULL };

static const struct setting settings[] = {
    { .key = "tenant",
      .type = SETTING_TEMPLATE,
      .offset = offsetof(struct loki_settings, tenant),
      .def = "\"{tenant}\"",
      .help = "X-Scope-OrgID; characters that Loki refuses become _, empty sends no header" },
    { .key = "labels",
      .type = SETTING_TEMPLATES,
      .offset = offsetof(struct loki_settings, labels),
      .def = "{ namespace: \"{namespace}\", service_name: \"{service}\", container: \"{container}\", node: "
             "\"{node}\" }",
      .help = "few values each; at most 15; one of them names the node or host, else such a label is added" },
    { .key = "metadata",
      .type = SETTING_TEMPLATES,
      .offset = offsetof(struct loki_settings, metadata),
      .def = "{ level: \"{level}\", pod: \"{pod}\", module: \"{module}\", tenant: \"{tenant}\", "
             "trace_id: \"{record.trace_id}\" }",
      .help = "structured metadata of each line; empty values are left out; off for servers that do not take "
              "it" },
    { .key = "line",
      .type = SETTING_ENUM,
      .offset = offsetof(struct loki_settings, line),
      .def = "original",
      .choices = line_forms,
      .help = "original, or enriched: with our trusted fields spliced in" },
    { .key = "max_age",
      .type = SETTING_DURATION,
      .offset = offsetof(struct loki_settings, max_age_ns),
      .def = "168h",
      .help = "older lines are not sent, counted as filtered{too_old}; 0 is off" },
    { .key = "max_future",
      .type = SETTING_DURATION,
      .offset = offsetof(struct loki_settings, max_future_ns),
      .def = "10m",
      .help =
          "lines further ahead go with the time they were read, original_time in the metadata; 0 is off" },
    { .key = "late_after",
      .type = SETTING_DURATION,
      .offset = offsetof(struct loki_settings, late_after_ns),
      .def = "45m",
      .help = "lines further behind their stream's newest go to the same labels and late=\"1\" … \"9\" (\"1.N\" "
              "after a restart); 0 is off" },
    { .key = "max_line",
      .type = SETTING_SIZE,
      .offset = offsetof(struct loki_settings, max_line),
      .def = "256KiB",
      .min = 1 * (int64_t)KIB,
      .max = (int64_t)LINE_BYTES_MAX,
      .help = "longer lines are cut and marked; not above the server's max_line_size" },
    SETTING_END
};

/* A name and what gives its value; t is the configuration's, or our own writer label. */
struct label {
    struct slice name;
    const struct template *t;
};

/* Lines of one origin, tenant, level and stdout or stderr: what the templates make of these alone is the same for all. */
struct alike {
    uint64_t origin_id;
    uint32_t tenant_id, variant;
};

/* Where the stream of lines alike was found last. */
struct lookup {
    struct alike of;
    uint64_t stream_id; /* 0 = none */
    struct loki_stream *stream;
};

/* The pairs of metadata that lines alike share, as they stand in an entry. */
#define ALIKE_PAIRS_MAX 208
struct alike_pairs {
    struct alike of;
    bool is_used;
    uint16_t len, sum; /* sum: of the names and values */
    char pairs[ALIKE_PAIRS_MAX];
};

struct loki {
    struct output base; /* first */
    const struct loki_settings *set;
    struct slices urls;
    struct label labels[LOKI_LABELS_MAX + 1]; /* sorted by name; service_name is not counted */
    size_t n_labels, late_at;                 /* where the label late goes */
    struct template *writer;                  /* our own label's, or NULL */
    bool is_keyed;             /* stream = function of origin, tenant, level and stdout/stderr */
    struct enricher *enricher; /* line: enriched */
    struct loki_streams *streams;
    struct lookup *lookups;
    struct label metadata_of[LOKI_METADATA_PAIRS_MAX]; /* first those that are keyed, n_alike of them */
    size_t n_metadata, n_alike;
    struct alike_pairs *alike;
    uint64_t said[SAID_SLOTS]; /* incarnations whose old lines were spoken of */
    uint64_t next_serial;
    struct buf route, labels_text, value, metadata, line;
};

/* ---- settings ---- */

static bool is_label_name(struct slice s)
{
    if (s.len == 0 || s.len > 1024 || (s.ptr[0] >= '0' && s.ptr[0] <= '9'))
        return false;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'))
            return false;
    }
    return true;
}

static int check_names(const char *what, const struct template_map *map, struct err *err)
{
    for (size_t i = 0; i < map->n; i++)
        if (!is_label_name(map->items[i].name) || slice_starts(map->items[i].name, SLICE("__")))
            return err_say(err, -EINVAL,
                           "%s.%.*s: Loki takes letters, digits and _ in names, no digit first, no __ first",
                           what, SLICE_ARGS(map->items[i].name));
    return 0;
}

static bool has_writer(const struct template_map *labels)
{
    for (size_t i = 0; i < labels->n; i++)
        if (template_uses(labels->items[i].template, VAR_NODE) ||
            template_uses(labels->items[i].template, VAR_HOST))
            return true;
    return false;
}

static bool map_has(const struct template_map *map, struct slice name)
{
    for (size_t i = 0; i < map->n; i++)
        if (slice_eq(map->items[i].name, name))
            return true;
    return false;
}

/* The name of the label that we add: the first that is not taken. */
static struct slice writer_name(const struct template_map *labels)
{
    static const struct slice names[] = { SLICE_INIT("node"), SLICE_INIT("host"),
                                          SLICE_INIT("tailrace_host") };
    size_t i = 0;
    while (i < ARRAY_LEN(names) - 1 && map_has(labels, names[i]))
        i++;
    return names[i];
}

static int check_labels(const struct loki_settings *set, struct err *err)
{
    const struct template_map *labels = &set->labels;
    int r = check_names("labels", labels, err);
    if (r < 0)
        return r;
    if (set->late_after_ns > 0 && map_has(labels, SLICE(LABEL_LATE)))
        return err_say(err, -EINVAL,
                       "labels.late: this label is set by tailrace for late lines; choose another name, or "
                       "late_after: 0");
    size_t n = labels->n - (map_has(labels, SLICE("service_name")) ? 1 : 0);
    size_t ours = (has_writer(labels) ? 0u : 1u) + (set->late_after_ns > 0 ? 1u : 0u);
    if (n + ours > LOKI_LABELS_MAX)
        return err_say(
            err, -EINVAL,
            "labels: %zu labels and %zu of our own (writer, late); Loki takes %d beside service_name", n,
            ours, LOKI_LABELS_MAX);
    return 0;
}

static int check_metadata(const struct loki_settings *set, struct err *err)
{
    const struct template_map *metadata = &set->metadata;
    int r = check_names("metadata", metadata, err);
    if (r < 0)
        return r;
    if (map_has(metadata, SLICE(META_ORIGINAL_TIME)) || map_has(metadata, SLICE(META_CUT)))
        return err_say(err, -EINVAL,
                       "metadata: the names " META_ORIGINAL_TIME " and " META_CUT " are set by tailrace");
    if (metadata->n > LOKI_METADATA_PAIRS_MAX - 2)
        return err_say(err, -EINVAL, "metadata: %zu names; Loki takes %d, and two may be ours", metadata->n,
                       LOKI_METADATA_PAIRS_MAX);
    return 0;
}

static int validate(struct output_conf *conf, void (*warn)(void *ctx, const char *text), void *ctx,
                    struct err *err)
{
    const struct loki_settings *set = conf->settings;
    int r = check_labels(set, err);
    if (r == 0)
        r = check_metadata(set, err);
    if (r < 0)
        return r;
    if (!has_writer(&set->labels) && warn != NULL) {
        struct slice name = writer_name(&set->labels);
        char text[256];
        (void)snprintf(text, sizeof(text),
                       "labels: none names the node or host, so %.*s: \"{node|host}\" is added: two writers "
                       "of one stream "
                       "refuse each other's late lines",
                       SLICE_ARGS(name));
        warn(ctx, text);
    }
    return 0;
}

const struct output_type loki_type = { .name = "loki",
                                       .is_http = true,
                                       .settings = settings,
                                       .settings_size = sizeof(struct loki_settings),
                                       .validate = validate };

/* ---- opening ---- */

static int add_url(struct slice given, struct slice *ret_url)
{
    while (given.len > 0 && given.ptr[given.len - 1] == '/')
        given.len--;
    bool is_whole = slice_ends(given, SLICE("/push"));
    size_t len = given.len + (is_whole ? 0 : sizeof(PUSH_PATH) - 1);
    char *url = malloc(len + 1);
    if (url == NULL)
        return -ENOMEM;
    (void)snprintf(url, len + 1, "%.*s%s", SLICE_ARGS(given), is_whole ? "" : PUSH_PATH);
    *ret_url = slice_of(url, len);
    return 0;
}

static int make_urls(struct loki *l)
{
    const struct slices *given = &l->base.conf->http.urls;
    struct slice *urls = calloc(MAX(given->n, (size_t)1), sizeof(*urls));
    if (urls == NULL)
        return -ENOMEM;
    l->urls = (struct slices){ urls, given->n };
    for (size_t i = 0; i < given->n; i++) {
        int r = add_url(given->items[i], &urls[i]);
        if (r < 0)
            return r;
    }
    return 0;
}

static int compare_labels(const void *a, const void *b)
{
    return slice_cmp(((const struct label *)a)->name, ((const struct label *)b)->name);
}

static int make_labels(struct loki *l, struct err *err)
{
    const struct template_map *map = &l->set->labels;
    for (size_t i = 0; i < map->n; i++)
        l->labels[l->n_labels++] = (struct label){ map->items[i].name, map->items[i].template };
    if (!has_writer(map)) {
        struct wanted_keys none = { .n = 0 };
        int r = template_parse(SLICE("{node|host}"), false, &none, &l->writer, err);
        if (r < 0)
            return r;
        l->labels[l->n_labels++] = (struct label){ writer_name(map), l->writer };
    }
    assert(l->n_labels <= ARRAY_LEN(l->labels));
    qsort(l->labels, l->n_labels, sizeof(l->labels[0]), compare_labels);
    while (l->late_at < l->n_labels && slice_cmp(l->labels[l->late_at].name, SLICE(LABEL_LATE)) < 0)
        l->late_at++;
    return 0;
}

/* Same origin, tenant, level and stdout/stderr: same text? */
static bool is_keyed(const struct template *t)
{
    static const enum var_kind others[] = { VAR_MODULE, VAR_MESSAGE, VAR_RECORD, VAR_RECORD_TENANT };
    if (template_is_static(t) || template_is_constant(t))
        return true;
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        if (template_uses(t, others[i]))
            return false;
    return slice_find_byte(template_text(t), '%') < 0; /* no date */
}

static void sort_metadata(struct loki *l)
{
    const struct template_map *map = &l->set->metadata;
    assert(map->n <= ARRAY_LEN(l->metadata_of));
    for (int keyed = 1; keyed >= 0; keyed--) {
        for (size_t i = 0; i < map->n; i++)
            if (is_keyed(map->items[i].template) == (keyed == 1))
                l->metadata_of[l->n_metadata++] = (struct label){ map->items[i].name, map->items[i].template };
        l->n_alike = keyed == 1 ? l->n_metadata : l->n_alike;
    }
}

static void init_bufs(struct loki *l)
{
    buf_init(&l->route, 2 * TEMPLATE_OUT_MAX);
    buf_init(&l->labels_text, 1 * MIB); /* 16 values of 2 KiB, escaped at worst four times as long */
    buf_init(&l->value, 2 * TEMPLATE_OUT_MAX);
    buf_init(&l->metadata, 2 * LOKI_METADATA_BYTES_MAX);
    buf_init(&l->line, 16 * MIB); /* an escaped line of LINE_BYTES_MAX and our fields */
}

static void loki_close(struct output *out)
{
    struct loki *l = (struct loki *)out;
    if (l == NULL)
        return;
    for (struct body *b = l->base.open.first; b != NULL; b = b->next)
        loki_discard(out, b);
    bodies_deinit(&l->base.open);
    for (size_t i = 0; i < l->urls.n; i++)
        free((void *)(uintptr_t)l->urls.items[i].ptr);
    free((void *)(uintptr_t)l->urls.items);
    template_free(l->writer);
    enricher_free(l->enricher);
    loki_streams_free(l->streams);
    budget_free(ACCOUNT_OF(MEMORY_STREAMS), l->lookups);
    budget_free(ACCOUNT_OF(MEMORY_STREAMS), l->alike);
    buf_deinit(&l->route);
    buf_deinit(&l->labels_text);
    buf_deinit(&l->value);
    buf_deinit(&l->metadata);
    buf_deinit(&l->line);
    free(l);
}

static int open_parts(struct loki *l, struct err *err)
{
    int r = bodies_init(&l->base.open, LOKI_RAW_MAX);
    if (r == 0)
        r = make_urls(l);
    if (r == 0)
        r = make_labels(l, err);
    if (r == 0)
        r = loki_streams_new(LOKI_STREAMS_MAX, &l->streams);
    if (r == 0 && l->set->line == LINE_ENRICHED)
        r = enricher_new(ENRICH_PLAIN, NULL, 0, &l->enricher);
    l->lookups = calloc(LOOKUP_SLOTS, sizeof(struct lookup));
    budget_took(ACCOUNT_OF(MEMORY_STREAMS), l->lookups);
    l->alike = calloc(PAIRS_SLOTS, sizeof(struct alike_pairs));
    budget_took(ACCOUNT_OF(MEMORY_STREAMS), l->alike);
    return r == 0 && (l->lookups == NULL || l->alike == NULL) ? -ENOMEM : r;
}

static int loki_open(const struct output_conf *conf, struct output **ret_out, struct err *err)
{
    struct loki *l = calloc(1, sizeof(*l));
    if (l == NULL)
        return err_set(err, -ENOMEM, "cannot open output %.*s", SLICE_ARGS(conf->name));
    l->base = (struct output){ .ops = &loki_ops, .conf = conf };
    l->set = conf->settings;
    l->next_serial = 1;
    init_bufs(l);
    int r = open_parts(l, err);
    if (r < 0) {
        loki_close(&l->base);
        return err_set(err, r, "cannot open output %.*s", SLICE_ARGS(conf->name));
    }
    sort_metadata(l);
    l->is_keyed = is_keyed(l->set->tenant);
    for (size_t i = 0; i < l->n_labels; i++)
        l->is_keyed = l->is_keyed && is_keyed(l->labels[i].t);
    *ret_out = &l->base;
    return 0;
}

static const struct slice *loki_trusted(const struct output *out, size_t *n)
{
    const struct loki *l = (const struct loki *)out;
    *n = 0;
    return l->enricher == NULL ? NULL : enricher_names(l->enricher, n);
}

/* ---- which stream ---- */

/* dskit: a-z A-Z 0-9 and ! - _ . * ' ( ), at most 150 bytes, not . or .. */
static int render_route(struct loki *l, const struct record *rec)
{
    buf_reset(&l->route);
    int r = template_eval(l->set->tenant, rec, &l->route);
    if (r < 0)
        return r;
    l->route.len = MIN(l->route.len, (size_t)LOKI_TENANT_MAX);
    for (size_t i = 0; i < l->route.len; i++) {
        char *c = &l->route.ptr[i];
        bool is_good = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
                       (*c != '\0' && strchr("!-_.*'()", *c) != NULL);
        if (!is_good)
            *c = '_';
    }
    if (slice_eq(buf_slice(&l->route), SLICE(".")) || slice_eq(buf_slice(&l->route), SLICE("..")))
        memset(l->route.ptr, '_', l->route.len);
    return 0;
}

static int append_late(const struct loki *l, struct buf *out, unsigned late)
{
    char text[32];
    if (late == 0)
        return 0;
    int n = l->base.resumed_ns == 0 ? snprintf(text, sizeof(text), "%u", late)
                                    : snprintf(text, sizeof(text), "%u.%llu", late, (unsigned long long)l->base.life);
    return loki_append_label(out, SLICE(LABEL_LATE), slice_of(text, (size_t)n));
}

/* late: 0, or the step. */
static int render_labels(struct loki *l, const struct record *rec, unsigned late)
{
    struct buf *out = &l->labels_text;
    buf_reset(out);
    int r = buf_append_byte(out, '{');
    for (size_t i = 0; r == 0 && i < l->n_labels; i++) {
        if (i == l->late_at)
            r = append_late(l, out, late);
        buf_reset(&l->value);
        if (r == 0)
            r = template_eval(l->labels[i].t, rec, &l->value);
        if (r == 0 && l->value.len > 0)
            r = loki_append_label(out, l->labels[i].name, buf_slice(&l->value));
    }
    if (r == 0 && l->late_at == l->n_labels)
        r = append_late(l, out, late);
    if (r == 0 && out->len == 1) /* Loki takes no stream without a label */
        r = loki_append_label(out, SLICE("service_name"), SLICE("unknown_service"));
    return r < 0 ? r : buf_append_byte(out, '}');
}

static struct loki_stream *render_stream(struct loki *l, const struct record *rec, unsigned late)
{
    if (render_route(l, rec) < 0 || render_labels(l, rec, late) < 0)
        return NULL;
    return loki_streams_get(l->streams, buf_slice(&l->route), buf_slice(&l->labels_text));
}

static struct alike alike_of(const struct record *rec)
{
    return (struct alike){ rec->origin->id, rec->tenant_id, (uint32_t)rec->level << 2 | (uint32_t)rec->stream };
}

static bool is_alike(const struct alike *a, const struct alike *b)
{
    return a->origin_id == b->origin_id && a->tenant_id == b->tenant_id && a->variant == b->variant;
}

static size_t alike_hash(const struct alike *a)
{
    uint64_t h = a->origin_id * UINT64_C(0x9e3779b97f4a7c15) ^ a->tenant_id * UINT64_C(0xc2b2ae3d27d4eb4f) ^
                 a->variant * UINT64_C(0x165667b19e3779f9);
    return (size_t)(h ^ h >> 32);
}

static struct loki_stream *find_stream(struct loki *l, const struct record *rec)
{
    if (!l->is_keyed)
        return render_stream(l, rec, 0);
    const struct alike of = alike_of(rec);
    struct lookup *lk = &l->lookups[alike_hash(&of) % LOOKUP_SLOTS];
    if (lk->stream_id != 0 && is_alike(&lk->of, &of) && lk->stream->id == lk->stream_id) {
        loki_streams_touch(l->streams, lk->stream);
        return lk->stream;
    }
    struct loki_stream *s = render_stream(l, rec, 0);
    if (s != NULL)
        *lk = (struct lookup){ of, s->id, s };
    return s;
}

/* The stream with the next late label. s may be forgotten in making it: streams come from a pool, so it is
 * asked first. */
static struct loki_stream *later_stream(struct loki *l, const struct record *rec, struct loki_stream *s,
                                        unsigned late)
{
    if (s->late != NULL && s->late->id == s->late_id) {
        loki_streams_touch(l->streams, s->late);
        return s->late;
    }
    uint64_t id = s->id;
    struct loki_stream *next = render_stream(l, rec, late);
    if (next != NULL && s->id == id) {
        s->late = next;
        s->late_id = next->id;
    }
    return next;
}

/* ---- a record ---- */

/* A line on its way: what goes out, and how it differs from what came. */
struct entry {
    struct loki_stream *stream;
    int64_t time_ns;
    bool has_original_time; /* time_ns is not the record's */
    struct slice line;
    bool is_cut;
    uint32_t altered;
};

static bool is_too_old(const struct loki *l, const struct record *rec)
{
    return l->set->max_age_ns > 0 && rec->time_ns < rec->read_ns - l->set->max_age_ns;
}

/* Said once a file, as far as a small table knows. */
static void say_too_old(struct loki *l, const struct record *rec)
{
    uint64_t *slot = &l->said[rec->incarnation % SAID_SLOTS];
    if (*slot == rec->incarnation)
        return;
    *slot = rec->incarnation;
    log_info("loki", "lines.too_old", "lines older than max_age are not sent, and counted as filtered",
             LOG_SLICE("file", rec->origin->file), LOG_SLICE("output", l->base.conf->name));
}

static void settle_time(const struct loki *l, const struct record *rec, struct entry *e)
{
    bool is_ahead = l->set->max_future_ns > 0 && rec->time_ns > rec->read_ns + l->set->max_future_ns;
    e->time_ns = rec->time_ns;
    if (is_ahead || rec->time_ns > TIME_MAX || rec->time_ns < -TIME_MAX) {
        e->time_ns = rec->read_ns;
        e->has_original_time = true;
        e->altered |= 1u << ALTER_FUTURE;
    }
}

/*
 * Loki drops what is an hour behind its stream's newest entry, even with 204. Each late label makes another
 * stream, with a newest entry of its own. Behind the last one too, the line goes with the oldest time that is
 * taken. After a restart we do not know how far a stream had come: it is taken for as far as anything was read then,
 * and the late labels are others than before, so that we know all that is in those streams.
 */
static bool is_behind(const struct loki *l, const struct loki_stream *s, unsigned late, int64_t time_ns)
{
    const int64_t after = l->set->late_after_ns;
    if (after <= 0)
        return false;
    if (late == 1 && l->base.resumed_ns > 0 && !BUG(33) && time_ns < l->base.resumed_ns - after)
        return true;
    return s->has_newest && time_ns < s->newest_ns - after;
}

static int settle_stream(struct loki *l, const struct record *rec, struct entry *e)
{
    unsigned late = 1;
    struct loki_stream *s = find_stream(l, rec);
    for (; s != NULL && is_behind(l, s, late, e->time_ns); late++) {
        e->altered |= 1u << ALTER_LATE;
        if (late > LOKI_LATE_STEPS) {
            e->time_ns = s->newest_ns - l->set->late_after_ns;
            e->has_original_time = true;
            break;
        }
        s = later_stream(l, rec, s, late);
    }
    if (s == NULL)
        return -ENOMEM;
    e->stream = s;
    e->time_ns = loki_stream_free_time(s, e->time_ns);
    return 0;
}

/* At most max bytes, whole characters. */
static struct slice cut_line(struct slice line, size_t max)
{
    if (line.len <= max)
        return line;
    size_t len = max;
    while (len > 0 && max - len < 4 && ((unsigned char)line.ptr[len] & 0xc0) == 0x80)
        len--;
    return slice_first(line, ((unsigned char)line.ptr[len] & 0xc0) == 0x80 ? max : len);
}

static int settle_line(struct loki *l, const struct record *rec, struct entry *e)
{
    e->line = rec->line;
    if (l->enricher != NULL) {
        buf_reset(&l->line);
        int r = enrich_append(l->enricher, rec, 0, NULL, 0, &l->line, &e->altered);
        if (r < 0 && r != -ENOBUFS)
            return r;
        if (r == 0)
            e->line = buf_slice(&l->line);
    }
    struct slice cut = cut_line(e->line, (size_t)l->set->max_line);
    if (cut.len < e->line.len)
        e->altered |= 1u << ALTER_CUT;
    e->is_cut = cut.len < e->line.len || (rec->flags & RECORD_CUT) != 0;
    e->line = cut;
    return 0;
}

/* Adds a pair unless Loki's limit for the sum of names and values would be passed. */
static int add_metadata(struct loki *l, struct slice name, struct slice value, size_t *sum)
{
    if (value.len == 0 || name.len + value.len > LOKI_METADATA_BYTES_MAX - *sum)
        return 0;
    *sum += name.len + value.len;
    return loki_append_metadata(&l->metadata, name, value);
}

static int add_template(struct loki *l, const struct label *of, const struct record *rec, size_t *sum)
{
    struct slice value;
    if (!template_peek(of->t, rec, &value)) {
        buf_reset(&l->value);
        int r = template_eval(of->t, rec, &l->value);
        if (r < 0)
            return r;
        value = buf_slice(&l->value);
    }
    return add_metadata(l, of->name, value, sum);
}

/* The pairs that all lines alike have: made once, if nothing had to be left out. */
static int add_alike(struct loki *l, const struct record *rec, size_t *sum)
{
    const struct alike of = alike_of(rec);
    struct alike_pairs *a = &l->alike[alike_hash(&of) % PAIRS_SLOTS];
    if (a->is_used && is_alike(&a->of, &of) && a->sum <= LOKI_METADATA_BYTES_MAX - *sum) {
        *sum += a->sum;
        return buf_append(&l->metadata, a->pairs, a->len);
    }
    const size_t before = l->metadata.len, sum_before = *sum;
    for (size_t i = 0; i < l->n_alike; i++) {
        int r = add_template(l, &l->metadata_of[i], rec, sum);
        if (r < 0)
            return r;
    }
    const size_t len = l->metadata.len - before;
    a->is_used = sum_before == 0 && len <= ALIKE_PAIRS_MAX;
    if (a->is_used) {
        a->of = of;
        a->len = (uint16_t)len;
        a->sum = (uint16_t)*sum;
        memcpy(a->pairs, l->metadata.ptr + before, len);
    }
    return 0;
}

static int render_metadata(struct loki *l, const struct record *rec, const struct entry *e)
{
    size_t sum = 0;
    int r = 0;
    buf_reset(&l->metadata);
    if (l->set->metadata.is_off)
        return 0;
    if (e->is_cut)
        r = add_metadata(l, SLICE(META_CUT), SLICE("true"), &sum);
    if (r == 0 && e->has_original_time) {
        buf_reset(&l->value);
        r = clock_append_rfc3339(&l->value, rec->time_ns, 9);
        if (r == 0)
            r = add_metadata(l, SLICE(META_ORIGINAL_TIME), buf_slice(&l->value), &sum);
    }
    if (r == 0 && l->n_alike > 0)
        r = add_alike(l, rec, &sum);
    for (size_t i = l->n_alike; r == 0 && i < l->n_metadata; i++)
        r = add_template(l, &l->metadata_of[i], rec, &sum);
    return r;
}

/* ---- into the body ---- */

static struct loki_parts *parts_of(struct loki *l, struct body *b)
{
    if (b->parts == NULL) {
        struct loki_parts *parts = calloc(1, sizeof(*parts));
        budget_took(b->raw.account, parts);
        if (parts != NULL) {
            parts->account = b->raw.account;
            parts->serial = l->next_serial++;
        }
        b->parts = parts;
    }
    return b->parts;
}

static struct loki_part *part_new(struct loki_parts *parts, struct slice labels)
{
    if (parts->n == parts->cap) {
        size_t cap = parts->cap == 0 ? 8 : parts->cap * 2;
        struct loki_part **grown = budget_realloc(parts->account, parts->part, cap * sizeof(struct loki_part *));
        if (grown == NULL)
            return NULL;
        parts->part = grown;
        parts->cap = cap;
    }
    struct loki_part *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return NULL;
    buf_init_in(&p->msg, LOKI_RAW_MAX + 1 * MIB, parts->account);
    buf_init_in(&p->runs, 1 * MIB, parts->account);
    if (loki_begin_stream(&p->msg, labels) < 0) {
        buf_deinit(&p->msg);
        free(p);
        return NULL;
    }
    budget_took(parts->account, p);
    parts->part[parts->n++] = p;
    return p;
}

/* The part of this stream in this body; *ret_more: bytes that a new one costs. */
static struct loki_part *part_of(struct loki_parts *parts, struct loki_stream *s)
{
    if (s->body_serial != parts->serial) {
        struct loki_part *p = part_new(parts, loki_stream_labels(s));
        if (p == NULL)
            return NULL;
        s->part = p;
        s->body_serial = parts->serial;
    }
    return s->part;
}

static int count_run(struct loki_part *p, uint32_t row)
{
    if (row != p->run_row && p->run_lines > 0) {
        int r = body_add_run(&p->runs, p->run_row, p->run_lines);
        if (r < 0)
            return r;
        p->run_lines = 0;
    }
    p->run_row = row;
    p->run_lines++;
    return 0;
}

/* All that can fail comes before the first change that would show. */
static int put_entry(struct loki *l, struct body *b, struct loki_part *p, const struct record *rec,
                     const struct entry *e)
{
    uint32_t row;
    struct slice metadata = buf_slice(&l->metadata);
    int r = body_row(b, rec, &row);
    if (r == 0)
        r = buf_reserve(&p->msg, loki_entry_most(e->line, metadata));
    if (r == 0)
        r = count_run(p, row);
    if (r < 0)
        return r;
    size_t before = p->lines == 0 ? 0 : p->msg.len + STREAM_HEAD_MAX;
    r = loki_append_entry(&p->msg, e->time_ns, e->line, metadata);
    assert(r == 0); /* the room was made above */
    size_t more = p->msg.len + STREAM_HEAD_MAX - before;
    p->lines++;
    b->raw_bytes += more;
    l->base.open.raw_bytes += more;
    body_count_row(b, rec, row);
    const int64_t oldest_ns = MIN(e->time_ns, b->oldest_read_ns), newest_ns = MAX(e->time_ns, rec->read_ns);
    b->is_alone |= oldest_ns < rec->read_ns - NEAR_NS || newest_ns > b->oldest_read_ns + NEAR_NS;
    loki_stream_use_time(e->stream, e->time_ns);
    return 0;
}

static int add_entry(struct loki *l, const struct record *rec, const struct entry *e,
                     struct append_result *ret)
{
    if (bodies_hold(&l->base.open, loki_stream_route(e->stream), rec)) {
        ret->is_filtered = true;
        return 0;
    }
    struct body *b = bodies_get(&l->base.open, loki_stream_route(e->stream));
    if (b == NULL)
        return -ENOMEM;
    size_t most = loki_entry_most(e->line, buf_slice(&l->metadata)) + loki_stream_labels(e->stream).len + 2 * STREAM_HEAD_MAX;
    struct loki_parts *parts = parts_of(l, b);
    if (b->lines > 0 && b->raw_bytes + most > l->base.open.body_max) {
        ret->body = b;
        return -ENOBUFS;
    }
    struct loki_part *p = parts == NULL ? NULL : part_of(parts, e->stream);
    if (p == NULL)
        return -ENOMEM;
    int r = put_entry(l, b, p, rec, e);
    if (r == -ENOBUFS || r == 0)
        ret->body = b;
    return r;
}

/* Fills e; nothing is changed but scratch. */
static int settle(struct loki *l, const struct record *rec, struct entry *e)
{
    *e = (struct entry){ .altered = 0 };
    settle_time(l, rec, e);
    int r = settle_line(l, rec, e);
    if (r == 0)
        r = settle_stream(l, rec, e);
    if (r == 0)
        r = render_metadata(l, rec, e);
    return r;
}

static int loki_append(struct output *out, const struct record *rec, struct append_result *ret)
{
    struct loki *l = (struct loki *)out;
    *ret = (struct append_result){ .body = NULL };
    if (is_too_old(l, rec)) {
        say_too_old(l, rec);
        ret->is_filtered = true;
        return 0;
    }
    struct entry e;
    int r = settle(l, rec, &e);
    if (r == 0)
        r = add_entry(l, rec, &e, ret);
    if (r == 0)
        ret->altered = e.altered;
    return r;
}

/* ---- requests, words ---- */

static int loki_request(struct output *out, struct slice route, size_t url_index, struct http_request *ret)
{
    struct loki *l = (struct loki *)out;
    assert(l->urls.n > 0);
    ret->method = "POST";
    int r = buf_append_slice(&ret->url, l->urls.items[url_index % l->urls.n]);
    if (r == 0)
        r = buf_append_lit(&ret->headers, "Content-Type: application/x-protobuf\n");
    if (r == 0 && route.len > 0)
        r = buf_printf(&ret->headers, "X-Scope-OrgID: %.*s\n", SLICE_ARGS(route));
    return r;
}

static int explain_metadata(void *ctx, struct slice name, struct slice value)
{
    struct buf *text = ctx;
    return buf_printf(text, "  metadata %.*s: %.*s\n", SLICE_ARGS(name), SLICE_ARGS(value));
}

static int explain_entry(struct loki *l, const struct record *rec, const struct entry *e, struct buf *text)
{
    struct slice route = loki_stream_route(e->stream), labels = loki_stream_labels(e->stream);
    int r = route.len > 0 ? buf_printf(text, "  tenant (X-Scope-OrgID): %.*s\n", SLICE_ARGS(route))
                          : buf_append_lit(text, "  tenant: no header\n");
    if (r == 0)
        r = buf_printf(text, "  labels: %.*s\n  timestamp: ", SLICE_ARGS(labels));
    if (r == 0)
        r = clock_append_rfc3339(text, e->time_ns, 9);
    if (r == 0 && e->has_original_time)
        r = buf_append_lit(text, " (the time it was read: its own is further ahead than max_future)");
    if (r == 0 && (rec->flags & RECORD_HAS_TIME) == 0)
        r = buf_append_lit(text, " (the time it was read: it has none of its own)");
    if (r == 0)
        r = buf_append_byte(text, '\n');
    if (r == 0 && e->is_cut)
        r = buf_printf(text, "  line: cut to %zu bytes (max_line)\n", e->line.len);
    if (r == 0 && l->set->line == LINE_ENRICHED)
        r = buf_printf(text, "  line: %.*s\n", SLICE_ARGS(e->line));
    return r;
}

/* Reads the pairs back from the bytes that would go out. */
static int explain_pairs(struct loki *l, const struct entry *e, struct buf *text)
{
    struct buf field;
    struct loki_entry back;
    buf_init(&field, LOKI_RAW_MAX);
    int r = loki_append_entry(&field, e->time_ns, SLICE(""), buf_slice(&l->metadata));
    if (r == 0)
        r = loki_read_entry_field(buf_slice(&field), &back, explain_metadata, text);
    buf_deinit(&field);
    return r;
}

static int loki_explain(struct output *out, const struct record *rec, struct buf *text)
{
    struct loki *l = (struct loki *)out;
    if (is_too_old(l, rec))
        return buf_append_lit(text, "  not sent: older than max_age, counted as filtered{too_old}\n");
    struct entry e;
    int r = settle(l, rec, &e);
    if (r == 0)
        r = explain_entry(l, rec, &e, text);
    return r == 0 ? explain_pairs(l, &e, text) : r;
}

const struct output_ops loki_ops = {
    .type = &loki_type,
    .wire_form = WIRE_LOKI_PROTO_SNAPPY,
    .open = loki_open,
    .close = loki_close,
    .trusted = loki_trusted,
    .append = loki_append,
    .discard = loki_discard,
    .explain = loki_explain,
    .seal = loki_seal,
    .request = loki_request,
    .judge = loki_judge,
    .judge_items = loki_judge_items,
    .items = loki_items,
    .build = loki_build,
    .join = loki_join,
    .print = loki_print,
};
