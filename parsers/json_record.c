#include "parsers/json_record.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "parsers/shapes.h"

#define RANK_NONE UINT16_MAX
/* Times of a line that are kept to be read at its end; the next ones are read at once. */
#define LATER_TIMES 4

struct json_record {
    struct keys keys;
    struct json *json;
    size_t n_wanted;

    /* The line at hand. */
    const struct timestamp_env *env;
    struct record *rec;
    parser_is_out_fn *is_out;
    void *ctx;
    unsigned marks;
    bool has_level, has_module;
    bool is_time_bad;                              /* a time key held something that is none */
    uint16_t time_rank, message_rank, tenant_rank; /* of what the record holds so far */
    int64_t time_ns;
    struct {
        const struct key_node *node;
        struct value value;
    } later[LATER_TIMES]; /* a line that is out needs no time: they are read when it is known to stay */
    unsigned n_later;
    uint16_t seconds_rank, nanos_rank;     /* a time in two members: instant.epochSecond and instant.nanoOfSecond */
    int64_t seconds, nanos;
    bool is_nested[WANTED_KEYS_MAX]; /* values[i] came by the nested path: a flat key beats it */
};

int json_record_new(const struct parser_conf *conf, struct json_record **ret_reader)
{
    struct json_record *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return -ENOMEM;
    r->n_wanted = conf->wanted == NULL ? 0 : conf->wanted->n;
    assert(r->n_wanted <= WANTED_KEYS_MAX);
    int e = keys_init(&r->keys);
    if (e == 0)
        e = shapes_build(&r->keys, conf);
    if (e == 0)
        e = json_new(&r->keys, conf->find_duplicates, &r->json);
    if (e < 0) {
        json_record_free(r);
        return e;
    }
    *ret_reader = r;
    return 0;
}

void json_record_free(struct json_record *r)
{
    if (r == NULL)
        return;
    json_free(r->json);
    keys_deinit(&r->keys);
    free(r);
}

/* ---- one value
 * ---------------------------------------------------------------------------------------------------- */

/* Asks the pipeline; false ends the scan. */
static bool goes_on(const struct json_record *r)
{
    return r->is_out == NULL || !r->is_out(r->ctx, r->rec);
}

static bool on_level(struct json_record *r, enum level_kind kind, struct value value)
{
    if (r->has_level || (value.kind != VALUE_STRING && value.kind != VALUE_NUMBER))
        return true;
    r->has_level = true;
    r->rec->level = shapes_level(kind, value);
    return goes_on(r);
}

static bool on_module(struct json_record *r, struct value value)
{
    if (r->has_module || value.kind != VALUE_STRING || value.text.len == 0)
        return true;
    r->has_module = true;
    r->rec->module = value.text;
    return goes_on(r);
}

static bool whole_number(struct slice s, int64_t min, int64_t max, int64_t *ret_value)
{
    int64_t v;
    if (!slice_to_i64(s, &v) || v < min || v > max)
        return false;
    *ret_value = v;
    return true;
}

/* Half of a time; the halves meet in finish_time. */
static bool on_time_part(struct json_record *r, const struct key_node *node, struct slice text)
{
    if (node->time == TIME_KEY_NANOS) {
        if (r->nanos_rank <= node->time_rank)
            return true;
        if (!whole_number(text, 0, NS_PER_SEC - 1, &r->nanos))
            return false;
        r->nanos_rank = node->time_rank;
        return true;
    }
    if (r->seconds_rank <= node->time_rank)
        return true;
    if (!whole_number(text, 1, INT64_MAX / NS_PER_SEC - 1, &r->seconds))
        return false;
    r->seconds_rank = node->time_rank;
    return true;
}

static void read_time(struct json_record *r, const struct key_node *node, struct value value)
{
    if (value.kind == VALUE_NULL || (value.kind == VALUE_STRING && value.text.len == 0))
        return; /* written by loggers for "has none" */
    if (node->time_rank >= r->time_rank)
        return; /* a better one is there */
    int64_t ns;
    bool is_scalar = value.kind == VALUE_STRING || value.kind == VALUE_NUMBER;
    if (is_scalar && node->time != TIME_KEY_WHOLE) {
        r->is_time_bad |= !on_time_part(r, node, value.text);
        return;
    }
    bool is_good = value.kind == VALUE_STRING   ? timestamp_parse(r->env, value.text, &ns)
                   : value.kind == VALUE_NUMBER ? timestamp_from_number(value.text, &ns)
                                                : false;
    if (!is_good) {
        r->is_time_bad = true; /* an object may still hold the time in two parts */
        return;
    }
    r->time_rank = node->time_rank;
    r->time_ns = ns;
    if (value.kind == VALUE_NUMBER)
        r->marks |= SHAPE_EPOCH;
}

static void read_later_times(struct json_record *r)
{
    for (unsigned i = 0; i < r->n_later; i++)
        read_time(r, r->later[i].node, r->later[i].value);
    r->n_later = 0;
}

static void on_time(struct json_record *r, const struct key_node *node, struct value value)
{
    if (r->n_later == LATER_TIMES)
        read_later_times(r);
    r->later[r->n_later].node = node;
    r->later[r->n_later++].value = value;
}

static void on_wanted(struct json_record *r, const struct key_node *node, struct value value)
{
    size_t i = (size_t)node->wanted;
    struct value *v = &r->rec->values[i];
    bool beats = v->kind == VALUE_MISSING || (r->is_nested[i] && !node->is_nested);
    if (!beats)
        return;
    *v = value;
    r->is_nested[i] = node->is_nested;
}

static bool is_tenant_value(struct value value)
{
    return value.kind == VALUE_NUMBER || value.kind == VALUE_BOOL ||
           (value.kind == VALUE_STRING && value.text.len > 0);
}

static bool on_value(void *ctx, const struct key_node *node, struct value value)
{
    struct json_record *r = ctx;
    if (node->wanted >= 0)
        on_wanted(r, node, value);
    if (node->marks != 0 && (node->marks != SHAPE_KLOG_V || value.kind == VALUE_NUMBER))
        r->marks |= node->marks;
    if (node->time_rank != 0)
        on_time(r, node, value);
    if (node->message_rank != 0 && node->message_rank < r->message_rank && value.kind == VALUE_STRING) {
        r->message_rank = node->message_rank;
        r->rec->message = value.text;
    }
    if (node->tenant_rank != 0 && node->tenant_rank < r->tenant_rank && is_tenant_value(value)) {
        r->tenant_rank = node->tenant_rank;
        r->rec->tenant_key = value;
    }
    if (node->level != LEVEL_KEY_NONE && !on_level(r, (enum level_kind)node->level, value))
        return false;
    return !node->is_module || on_module(r, value);
}

static void on_suspect(void *ctx, const struct suspect *suspect)
{
    struct record *rec = ((struct json_record *)ctx)->rec;
    if (rec->n_suspects == SUSPECT_KEYS_MAX)
        rec->flags |= RECORD_MANY_SUSPECTS;
    else
        rec->suspects[rec->n_suspects++] = *suspect;
}

/* ---- the line
 * ----------------------------------------------------------------------------------------------------- */

void record_clear(struct record *rec, size_t n_wanted)
{
    rec->flags &=
        ~(uint32_t)(RECORD_BAD_JSON | RECORD_DUPLICATE_KEYS | RECORD_BAD_TIME | RECORD_MANY_SUSPECTS);
    rec->level = LEVEL_UNKNOWN;
    rec->module = SLICE("");
    rec->message = rec->line;
    rec->tenant_key = (struct value){ .kind = VALUE_MISSING, .text = SLICE("") };
    for (size_t i = 0; i < n_wanted; i++)
        rec->values[i] = (struct value){ .kind = VALUE_MISSING, .text = SLICE("") };
    rec->n_suspects = 0;
}

static void begin(struct json_record *r)
{
    r->marks = 0;
    r->has_level = r->has_module = r->is_time_bad = false;
    r->time_rank = r->message_rank = r->tenant_rank = r->seconds_rank = r->nanos_rank = RANK_NONE;
    r->nanos = 0;
    r->n_later = 0;
    memset(r->is_nested, 0, r->n_wanted * sizeof(r->is_nested[0]));
}

static void on_restart(void *ctx)
{
    struct json_record *r = ctx;
    record_clear(r->rec, r->n_wanted);
    begin(r);
}

static const struct json_sink sink = { .value = on_value, .suspect = on_suspect, .restart = on_restart };

static void finish_time(struct json_record *r)
{
    struct record *rec = r->rec;
    if (r->seconds_rank < r->time_rank) {
        r->time_rank = r->seconds_rank;
        /* Nanoseconds of another logger's shape are none of these seconds'. */
        r->time_ns = r->seconds * NS_PER_SEC + (r->nanos_rank == r->seconds_rank ? r->nanos : 0);
    }
    if (r->time_rank != RANK_NONE) {
        rec->time_ns = r->time_ns;
        rec->flags |= RECORD_HAS_TIME;
    } else if (r->is_time_bad) {
        rec->flags |= RECORD_BAD_TIME;
    }
}

enum json_result json_record_read(struct json_record *r, const struct timestamp_env *env, struct record *rec,
                                  parser_is_out_fn *is_out, void *ctx)
{
    r->env = env;
    r->rec = rec;
    r->is_out = is_out;
    r->ctx = ctx;
    begin(r);

    enum json_result result = json_scan(r->json, rec->line, &sink, r);
    if (result != JSON_OBJECT)
        return result;
    read_later_times(r); /* the first thing: SHAPE_EPOCH is known by it */
    if (!r->has_level) {
        rec->level = shapes_default_level(r->marks);
        bool is_news = !r->has_module || rec->level != LEVEL_UNKNOWN;
        if (is_news && !goes_on(r))
            return JSON_STOPPED;
    }
    finish_time(r);
    if (json_has_duplicates(r->json))
        rec->flags |= RECORD_DUPLICATE_KEYS;
    return JSON_OBJECT;
}
