/* Wire bodies of the Elasticsearch output back into lines, and lines into wire bodies. */
#include "outputs/es.h"

#include <errno.h>

#define ACTION_INDEX_FIRST "{\"create\":{\"_index\":\""
#define ACTION_ID_FIRST "{\"create\":{\"_id\":\""

/* ---- wire -> lines ---- */

/* Takes s up to stop off the front of *s; false when stop is not there. Names and ids hold nothing that JSON escapes. */
static bool take_until(struct slice *s, struct slice stop, struct slice *ret)
{
    ptrdiff_t at = slice_find(*s, stop);
    if (at < 0)
        return false;
    *ret = slice_first(*s, (size_t)at);
    *s = slice_from(*s, (size_t)at + stop.len);
    return ret->len > 0 && slice_find_byte(*ret, '"') < 0 && slice_find_byte(*ret, '\\') < 0;
}

static bool parse_action(struct slice action, struct item *item)
{
    struct slice rest = action;
    if (slice_starts(action, SLICE(ACTION_INDEX_FIRST))) {
        rest = slice_from(rest, sizeof(ACTION_INDEX_FIRST) - 1);
        return take_until(&rest, SLICE("\",\"_id\":\""), &item->key) && take_until(&rest, SLICE("\"}}"), &item->id) &&
               rest.len == 0;
    }
    if (!slice_starts(action, SLICE(ACTION_ID_FIRST)))
        return false;
    rest = slice_from(rest, sizeof(ACTION_ID_FIRST) - 1);
    return take_until(&rest, SLICE("\",\"_index\":\""), &item->id) && take_until(&rest, SLICE("\"}}"), &item->key) &&
           rest.len == 0;
}

static bool take_line(struct slice *rest, struct slice *ret_line)
{
    ptrdiff_t nl = slice_find_byte(*rest, '\n');
    if (nl < 0)
        return false;
    *ret_line = slice_first(*rest, (size_t)nl);
    *rest = slice_from(*rest, (size_t)nl + 1);
    return true;
}

static int split_lines(struct items *it)
{
    struct slice rest = buf_slice(&it->raw);
    while (rest.len > 0) {
        struct item item = { 0 };
        if (!take_line(&rest, &item.head) || !take_line(&rest, &item.data) || !parse_action(item.head, &item) ||
            item.data.len < 2 || item.data.ptr[0] != '{' || item.data.ptr[item.data.len - 1] != '}')
            return -EBADMSG;
        int r = items_add(it, item);
        if (r < 0)
            return r;
    }
    return it->n == 0 ? -EBADMSG : 0;
}

int es_items(const struct output *out, struct slice wire, struct slice route, struct items *ret)
{
    (void)out;
    (void)route; /* the index stands in each line */
    struct items it = { 0 };
    buf_init_in(&it.raw, ES_DECODED_MAX, ACCOUNT_OF(MEMORY_SENDING));
    int r = gzip_decompress(wire, &it.raw);
    if (r == 0)
        r = split_lines(&it);
    if (r < 0) {
        items_deinit(&it);
        return r;
    }
    *ret = it;
    return 0;
}

bool es_item_is_text(const struct item *item)
{
    return slice_starts(item->head, SLICE(ACTION_ID_FIRST));
}

/* ---- the members of one of our documents: valid JSON on one line ---- */

struct member {
    size_t start;             /* of the key's quote */
    struct slice name, value; /* as written, the name without quotes */
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* One behind the closing quote of the string that starts at i, or 0. */
static size_t string_end(struct slice doc, size_t i)
{
    for (i++; i < doc.len; i++) {
        if (doc.ptr[i] == '\\')
            i++;
        else if (doc.ptr[i] == '"')
            return i + 1;
    }
    return 0;
}

/* One behind the value that starts at i, or 0. */
static size_t value_end(struct slice doc, size_t i)
{
    size_t depth = 0;
    while (i < doc.len) {
        char c = doc.ptr[i];
        if (c == '"') {
            i = string_end(doc, i);
            if (i == 0 || depth == 0)
                return i;
            continue;
        }
        if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            if (depth == 0)
                return i;
            if (--depth == 0)
                return i + 1;
        } else if (depth == 0 && (c == ',' || is_blank(c))) {
            return i;
        }
        i++;
    }
    return 0;
}

static size_t skip(struct slice doc, size_t i, char also)
{
    while (i < doc.len && (is_blank(doc.ptr[i]) || doc.ptr[i] == also))
        i++;
    return i;
}

/* Steps through the top level; *pos starts at 1. False at the end, and where the document is not what we write. */
static bool next_member(struct slice doc, size_t *pos, struct member *ret)
{
    size_t i = skip(doc, *pos, ',');
    if (i >= doc.len || doc.ptr[i] != '"')
        return false;
    size_t key_end = string_end(doc, i);
    if (key_end == 0)
        return false;
    size_t value = skip(doc, skip(doc, key_end, ':'), ':');
    size_t end = value < doc.len ? value_end(doc, value) : 0;
    if (end <= value)
        return false;
    ret->start = i;
    ret->name = slice_of(doc.ptr + i + 1, key_end - i - 2);
    ret->value = slice_of(doc.ptr + value, end - value);
    *pos = end;
    return true;
}

/* ---- a refused document as text ---- */

static bool is_ours(const struct es *es, struct slice name)
{
    size_t n;
    const struct slice *names = enricher_names(es->enrich, &n);
    for (size_t i = 0; i < n; i++)
        if (slice_eq(names[i], name))
            return true;
    return false;
}

/*
 * What becomes the message: the object under the payload's key; else the document without the run of our own members
 * at its end. Constants of the configuration stop that run (we do not know their names here): then some of our
 * members stay in the text too, which harms nothing.
 */
static int append_original(const struct es *es, struct slice doc, struct buf *out)
{
    struct member m;
    size_t pos = 1, keep = 0;
    bool has_other = false;
    while (next_member(doc, &pos, &m)) {
        if (!es_payload_is_top(es->set) && slice_eq(m.name, es->set->document.payload))
            return buf_append_json_string(out, m.value);
        if (!is_ours(es, m.name)) {
            keep = pos;
            has_other = true;
        }
    }
    if (!has_other || skip(doc, pos, ' ') != doc.len - 1)
        return buf_append_json_string(out, doc);
    int r = buf_append_byte(out, '"');
    if (r == 0)
        r = buf_append_json_escaped(out, slice_first(doc, keep));
    return r < 0 ? r : buf_append_lit(out, "}\"");
}

static int append_member(struct buf *out, const struct member *m)
{
    int r = buf_append_lit(out, ",\"");
    if (r == 0)
        r = buf_append_slice(out, m->name);
    if (r == 0)
        r = buf_append_lit(out, "\":");
    return r < 0 ? r : buf_append_slice(out, m->value);
}

/* A text must not be refused for a name twice: of equal names the last one counts, it is ours. */
static bool comes_again(struct slice doc, size_t pos, struct slice name)
{
    struct member m;
    while (next_member(doc, &pos, &m))
        if (slice_eq(m.name, name))
            return true;
    return false;
}

/* {"message":"the document's text", our members}. A payload's key is not ours here: it is inside the text. */
static int append_text_document(const struct es *es, struct slice doc, struct buf *out)
{
    int r = buf_append_lit(out, "{\"message\":");
    if (r == 0)
        r = append_original(es, doc, out);
    struct member m;
    size_t pos = 1;
    while (r == 0 && next_member(doc, &pos, &m))
        if (is_ours(es, m.name) && !slice_eq(m.name, es->set->document.payload) && !comes_again(doc, pos, m.name))
            r = append_member(out, &m);
    return r < 0 ? r : buf_append_byte(out, '}');
}

static int append_text_action(const struct item *item, struct buf *out)
{
    int r = buf_append_lit(out, ACTION_ID_FIRST);
    if (r == 0)
        r = buf_append_slice(out, item->id);
    if (r == 0)
        r = buf_append_lit(out, "\",\"_index\":\"");
    if (r == 0)
        r = buf_append_slice(out, item->key);
    return r < 0 ? r : buf_append_lit(out, "\"}}");
}

static int append_item(const struct es *es, const struct item *item, bool as_text, struct buf *out)
{
    bool rebuild = as_text && !es_item_is_text(item);
    int r = rebuild ? append_text_action(item, out) : buf_append_slice(out, item->head);
    if (r == 0)
        r = buf_append_byte(out, '\n');
    if (r == 0)
        r = rebuild ? append_text_document(es, item->data, out) : buf_append_slice(out, item->data);
    return r < 0 ? r : buf_append_byte(out, '\n');
}

int es_build(struct output *out, const struct items *items, const uint8_t *choose, bool as_text, struct buf *wire)
{
    struct es *es = (struct es *)out;
    struct buf raw;
    buf_init_in(&raw, 2 * ES_DECODED_MAX, ACCOUNT_OF(MEMORY_SENDING)); /* text grows by its escapes */
    int r = 0;
    for (size_t i = 0; i < items->n && r == 0; i++)
        if (choose[i] != 0)
            r = append_item(es, &items->item[i], as_text, &raw);
    if (r == 0 && raw.len == 0)
        r = -EINVAL;
    if (r == 0)
        r = gzip_compress(es->sender_gzip, buf_slice(&raw), SLICE(""), wire);
    gzip_rest(es->sender_gzip); /* bodies are rebuilt seldom */
    buf_deinit(&raw);
    return r;
}

int es_join(struct output *out, const struct slice *wires, size_t n, struct buf *wire)
{
    (void)out;
    size_t before = wire->len;
    for (size_t i = 0; i < n; i++) {
        int r = buf_append_slice(wire, wires[i]);
        if (r < 0) {
            wire->len = before;
            return r;
        }
    }
    return 0;
}

int es_print(const struct output *out, const struct items *items, struct buf *ndjson)
{
    (void)out;
    size_t before = ndjson->len;
    for (size_t i = 0; i < items->n; i++) {
        int r = buf_append_slice(ndjson, items->item[i].data);
        if (r == 0)
            r = buf_append_byte(ndjson, '\n');
        if (r < 0) {
            ndjson->len = before;
            return r;
        }
    }
    return 0;
}
