/*
 * es.h - what the parts of the Elasticsearch output share: elasticsearch.c (settings, record -> document), es_wire.c
 * (wire body <-> lines), es_reply.c (reply -> verdict), es_template.c (index template). OpenSearch is the same.
 *
 * A wire body is gzip of line pairs, the action and the document, each ended by LF:
 *     {"create":{"_index":"tailrace-acme-2026.01.02","_id":"AAAAAAAAAAEAAAAAAAA"}}
 *     {"level":"INFO","msg":"hi","pod":"p-1","severity":"info","@timestamp":"2026-01-02T03:04:05.000000000Z"}
 * In the action of a document that is text already, _id comes before _index. The server sees no difference; we see,
 * after any restart, that a refusal of it is final.
 *
 * Threads: the reader owns enrich, index and the caches; the writer owns gzip; the sender owns sender_gzip.
 */
#ifndef TAILRACE_OUTPUTS_ES_H
#define TAILRACE_OUTPUTS_ES_H

#include "outputs/codec/gzip.h"
#include "outputs/enrich.h"
#include "outputs/output.h"

/* base64url of 14 bytes, without padding. */
#define ES_ID_LEN 19
#define ES_INDEX_MAX 255
/* Dataset and namespace of a data stream, each. */
#define ES_PART_MAX 100
/* Decoded bytes of one wire body, some bodies joined included: a bound for what we read back. */
#define ES_DECODED_MAX (64 * MIB)

enum es_refused { ES_REFUSED_TEXT, ES_REFUSED_DEAD };
enum es_template { ES_TEMPLATE_AUTO, ES_TEMPLATE_OFF };

struct es_settings {
    struct template *index;
    struct {
        struct slice type;
        struct template *dataset, *namespace_; /* NULL when not given; both: no data stream */
    } data_stream;
    struct {
        int names;            /* enum enrich_style */
        struct slice payload; /* "top" or the key that the payload goes under */
        int on_refused;       /* enum es_refused */
    } document;
    int template_; /* enum es_template */
};

struct es {
    struct output base; /* first */
    const struct es_settings *set;
    struct enricher *enrich;
    struct gzip *gzip, *sender_gzip;
    uint64_t salt;        /* hash of the machine id */
    struct slice extra_names[2];
    struct buf index;     /* the name of the record at hand */
    bool index_is_cached; /* it depends on nothing but what the next three say */
    int64_t cache_unit_ns;
    uint64_t cached_origin;
    uint32_t cached_tenant;
    int64_t cached_unit;
    bool has_cached;
};

static inline bool es_is_data_stream(const struct es_settings *set)
{
    return set->data_stream.dataset != NULL || set->data_stream.namespace_ != NULL;
}

static inline bool es_payload_is_top(const struct es_settings *set)
{
    return slice_eq(set->document.payload, SLICE("top"));
}

/* Makes an index name that the server takes: lowercase, what is forbidden becomes _, no leading - _ + or dot, at most
 * ES_INDEX_MAX bytes, never empty. Appended to out. */
NODISCARD int es_clean_index(struct slice name, struct buf *out);
/* The same for the dataset or namespace of a data stream: no - inside, at most ES_PART_MAX bytes; empty: fallback. */
NODISCARD int es_clean_part(struct slice name, struct slice fallback, struct buf *out);

/* ES_ID_LEN characters to id. */
void es_make_id(uint64_t incarnation, uint64_t salt, uint64_t offset, char id[ES_ID_LEN]);

/* RFC 3339 with an offset, in the range of date_nanos: the server will take it as it is. */
bool es_is_good_timestamp(struct slice s);

/* True when the item's document is text already. */
bool es_item_is_text(const struct item *item);

int es_items(const struct output *out, struct slice wire, struct slice route, struct items *ret);
int es_build(struct output *out, const struct items *items, const uint8_t *choose, bool as_text, struct buf *wire);
int es_join(struct output *out, const struct slice *wires, size_t n, struct buf *wire);
int es_print(const struct output *out, const struct items *items, struct buf *ndjson);

void es_judge(struct output *out, const struct http_reply *reply, struct slice wire, struct judgement *ret);
void es_judge_items(struct output *out, const struct http_reply *reply, const struct items *items,
                    struct judgement *ret);

/* The template's pattern ("tailrace-*"), or empty when index or data stream begin with nothing that is ours alone. */
NODISCARD int es_template_pattern(const struct es_settings *set, struct buf *out);
bool es_setup_request(struct output *out, unsigned step, size_t url_index, struct http_request *ret, struct buf *body);

/* Appends the address: the configured URL without trailing slashes, then path. */
NODISCARD int es_append_url(const struct output *out, size_t url_index, const char *path, struct buf *url);

#endif
