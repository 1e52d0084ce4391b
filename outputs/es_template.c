/*
 * Our index template, installed at start: strings become keywords (no dates guessed, so loggers clash less), the keys
 * that hold sentences text, @timestamp keeps its nanoseconds, the payload's key, if any, is `flattened`.
 */
#include "outputs/es.h"

#include <errno.h>

/* A shorter prefix would catch indices of other people. */
#define PREFIX_MIN 3
#define PRIORITY 501
/* Below the built-in logs-*-* of Elasticsearch (100): where that exists it stays in charge; OpenSearch has none. */
#define PRIORITY_BELOW_BUILTIN 99

#define HEADERS "Content-Type: application/json\n"

/* Where loggers put sentences, at any depth: searched by word. All other strings are searched as a whole. A regex is the
 * one form of a list that all versions take. */
#define SENTENCES                                                                                                      \
    "{\"sentences\":{\"match_mapping_type\":\"string\",\"match_pattern\":\"regex\","                                    \
    "\"match\":\"^(message|msg|event|text|log|body|error|err|exception|exc_info|stack|stack_trace|backtrace)$\","      \
    "\"mapping\":{\"type\":\"text\",\"fields\":{\"keyword\":{\"type\":\"keyword\",\"ignore_above\":1024}}}}}"

/* The constant start of a template, before its first variable or date. */
static struct slice constant_prefix(const struct template *t)
{
    struct slice text = template_text(t);
    size_t n = 0;
    while (n < text.len && text.ptr[n] != '{' && text.ptr[n] != '%')
        n++;
    return slice_first(text, n);
}

/* "app-" and a star, or "app" alone when the whole name is constant. */
static int append_part(const struct template *t, struct slice fallback, bool *is_open, struct buf *out)
{
    if (t == NULL)
        return buf_append_slice(out, fallback);
    struct slice prefix = constant_prefix(t);
    *is_open |= prefix.len == 0;
    int r = prefix.len > 0 ? es_clean_part(prefix, fallback, out) : 0;
    return r < 0 || template_is_constant(t) ? r : buf_append_byte(out, '*');
}

static int append_stream_pattern(const struct es_settings *set, bool *is_open, struct buf *out)
{
    bool ignored = false; /* the namespace may well be a variable */
    int r = buf_append_slice(out, set->data_stream.type);
    if (r == 0)
        r = buf_append_byte(out, '-');
    if (r == 0)
        r = append_part(set->data_stream.dataset, SLICE("generic"), is_open, out);
    if (r == 0)
        r = buf_append_byte(out, '-');
    return r < 0 ? r : append_part(set->data_stream.namespace_, SLICE("default"), &ignored, out);
}

int es_template_pattern(const struct es_settings *set, struct buf *out)
{
    bool ignored = false;
    if (es_is_data_stream(set))
        return append_stream_pattern(set, &ignored, out);
    struct slice prefix = constant_prefix(set->index);
    if (prefix.len < PREFIX_MIN)
        return 0;
    int r = es_clean_index(prefix, out);
    return r < 0 || template_is_constant(set->index) ? r : buf_append_byte(out, '*');
}

static unsigned priority(const struct es_settings *set)
{
    struct buf unused;
    bool is_open = false;
    buf_init(&unused, 4 * KIB);
    if (es_is_data_stream(set) && append_stream_pattern(set, &is_open, &unused) < 0)
        is_open = true;
    buf_deinit(&unused);
    return is_open ? PRIORITY_BELOW_BUILTIN : PRIORITY;
}

/* flattened is Elasticsearch's word, flat_object is OpenSearch's; each refuses the other's. */
static int append_payload_mapping(const struct es_settings *set, bool is_opensearch, struct buf *body)
{
    if (es_payload_is_top(set))
        return 0;
    int r = buf_append_byte(body, ',');
    if (r == 0)
        r = buf_append_json_string(body, set->document.payload);
    if (r < 0)
        return r;
    return is_opensearch ? buf_append_lit(body, ":{\"type\":\"flat_object\"}")
                         : buf_append_lit(body, ":{\"type\":\"flattened\",\"ignore_above\":1024}");
}

static int append_body(const struct es_settings *set, struct slice pattern, bool is_opensearch, struct buf *body)
{
    int r = buf_printf(body, "{\"index_patterns\":[\"%.*s\"],\"priority\":%u,", SLICE_ARGS(pattern), priority(set));
    if (r == 0 && es_is_data_stream(set))
        r = buf_append_lit(body, "\"data_stream\":{},");
    if (r == 0)
        r = buf_append_lit(body, "\"_meta\":{\"managed_by\":\"tailrace\"},\"template\":{\"mappings\":{"
                                 "\"date_detection\":false,\"numeric_detection\":false,"
                                 "\"dynamic_templates\":[" SENTENCES ",{\"strings\":{\"match_mapping_type\":\"string\","
                                 "\"mapping\":{\"type\":\"keyword\",\"ignore_above\":1024}}}],"
                                 "\"properties\":{\"@timestamp\":{\"type\":\"date_nanos\"},"
                                 "\"message\":{\"type\":\"text\"}");
    if (r == 0)
        r = append_payload_mapping(set, is_opensearch, body);
    return r < 0 ? r : buf_append_lit(body, "}}}}");
}

/* tailrace, or tailrace-PATTERN where the pattern is not the default one, so that two outputs do not fight for a name. */
static int append_name(struct slice pattern, struct buf *path)
{
    int r = buf_append_lit(path, "/_index_template/tailrace");
    if (r < 0 || slice_eq(pattern, SLICE("tailrace-*")))
        return r;
    r = buf_append_byte(path, '-');
    for (size_t i = 0; i < pattern.len && r == 0; i++)
        if (pattern.ptr[i] != '*')
            r = buf_append_byte(path, pattern.ptr[i]);
    return r;
}

static int make_request(const struct output *out, bool is_opensearch, size_t url_index, struct http_request *ret,
                        struct buf *body)
{
    const struct es_settings *set = ((const struct es *)out)->set;
    struct buf pattern, path;
    buf_init(&pattern, 4 * KIB);
    buf_init(&path, 8 * KIB);
    int r = es_template_pattern(set, &pattern);
    if (r == 0 && pattern.len == 0)
        r = -ENOENT;
    if (r == 0)
        r = append_name(buf_slice(&pattern), &path);
    if (r == 0)
        r = buf_terminate(&path);
    if (r == 0)
        r = es_append_url(out, url_index, path.ptr, &ret->url);
    if (r == 0)
        r = buf_append_lit(&ret->headers, HEADERS);
    if (r == 0)
        r = append_body(set, buf_slice(&pattern), is_opensearch, body);
    buf_deinit(&pattern);
    buf_deinit(&path);
    ret->method = "PUT";
    return r;
}

bool es_setup_request(struct output *out, unsigned step, size_t url_index, struct http_request *ret, struct buf *body)
{
    const struct es_settings *set = ((const struct es *)out)->set;
    if (set->template_ == ES_TEMPLATE_OFF)
        return false;
    /* Only the type of the payload's key differs: of the two requests each server refuses one and keeps the other. */
    unsigned n_steps = es_payload_is_top(set) ? 1 : 2;
    return step < n_steps && make_request(out, step == 0 && n_steps == 2, url_index, ret, body) == 0;
}
