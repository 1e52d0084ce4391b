#include "parsers/json.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include <yajl/yajl_parse.h>

#include "agent/base/buf.h"
#include "agent/base/limits.h"
#include "parsers/duplicates.h"
#include "parsers/json_pool.h"
#include "parsers/json_string.h"

#define DECODE_KEEP (64 * KIB)

struct json {
    const struct keys *keys;
    bool find_duplicates;
    yajl_handle handle; /* NULL = to be made; reused from line to line as long as each was whole */
    struct json_pool pool;
    struct duplicates duplicates;
    struct buf decoded; /* never grows within a line: slices point into it */

    /* The line at hand. */
    struct slice line;   /* without the blanks around it */
    size_t line_off;     /* of `line` in what the caller gave */
    const struct json_sink *sink;
    void *ctx;
    enum json_result result; /* why a callback cancelled */
    bool has_duplicates, is_done;
    unsigned depth;
    uint32_t node;       /* of the key whose value comes next */
    bool is_suspect;     /* that key is one, in `suspect` */
    bool is_suspect_open; /* its object or array is being read */
    struct suspect suspect;
    uint32_t n_objects;
    struct {
        uint32_t node;   /* KEY_NONE: nobody looks inside; arrays too */
        uint32_t object; /* number for the duplicate set */
    } stack[JSON_DEPTH_MAX + 1];
};

/* ---- tokens ------------------------------------------------------------------------------------------------------- */

/* Bytes of the line behind the present token; for all but numbers, whose end yajl finds by reading one further. */
static size_t token_end(const struct json *j)
{
    return yajl_get_bytes_consumed(j->handle);
}

static bool is_in_line(const struct json *j, const unsigned char *ptr)
{
    uintptr_t p = (uintptr_t)ptr, from = (uintptr_t)j->line.ptr;
    return p >= from && p - from <= j->line.len;
}

/*
 * The raw inside of the string that yajl has just handed out. A string without an escape lies in the line itself; of one
 * with escapes we get a decoded copy, so its opening quote is looked for backwards from the closing one: it is the first
 * quote without a backslash before it (inside, every quote has one; before an opening quote stands never one).
 */
static struct slice raw_string(const struct json *j, const unsigned char *ptr, size_t len)
{
    if (is_in_line(j, ptr))
        return slice_of(ptr, len);
    const char *line = j->line.ptr;
    size_t close = token_end(j) - 1, open = close - 1;
    assert(line[close] == '"');
    while (line[open] != '"' || line[open - 1] == '\\') {
        assert(open > 1); /* the brace and this quote come before */
        open--;
    }
    return slice_of(line + open + 1, close - open - 1);
}

/* false: an escape that cannot be decoded, or no memory; the line is then bad. */
static bool decode(struct json *j, struct slice raw, const unsigned char *ptr, struct slice *ret_text)
{
    if (is_in_line(j, ptr)) {
        *ret_text = raw;
        return true;
    }
    /* No string is decoded twice and decoding never lengthens, so the line's length is room for all of them. */
    if (j->decoded.len == 0 && buf_reserve(&j->decoded, j->line.len) < 0)
        return false;
    assert(raw.len <= j->decoded.cap - j->decoded.len);
    char *out = j->decoded.ptr + j->decoded.len;
    ssize_t n = json_unescape(raw, out);
    if (n < 0)
        return false;
    j->decoded.len += (size_t)n;
    *ret_text = slice_of(out, (size_t)n);
    return true;
}

static uint32_t offset_of(const struct json *j, const char *ptr)
{
    return (uint32_t)(j->line_off + (size_t)(ptr - j->line.ptr));
}

static int cancel(struct json *j, enum json_result result)
{
    j->result = result;
    return 0;
}

/* ---- keys --------------------------------------------------------------------------------------------------------- */

/* Top level only: is the key's first dotted segment one of ours? */
static bool is_trusted(const struct json *j, uint32_t node, struct slice key)
{
    if (node != KEY_NONE && j->keys->nodes[node].is_trusted)
        return true;
    if (key.len == 0 || !j->keys->trusted_first[(unsigned char)key.ptr[0]])
        return false;
    struct slice segment = key_first_segment(key);
    if (segment.len == key.len)
        return false; /* that was the node */
    uint32_t first = keys_find(j->keys, KEY_ROOT, segment, key_hash(segment));
    return first != KEY_NONE && j->keys->nodes[first].is_trusted;
}

static int on_key(void *ctx, const unsigned char *ptr, size_t len)
{
    struct json *j = ctx;
    uint32_t parent = j->stack[j->depth].node;
    j->node = KEY_NONE;
    if (parent == KEY_NONE && !j->find_duplicates)
        return 1;

    struct slice raw = raw_string(j, ptr, len), key;
    if (!decode(j, raw, ptr, &key))
        return cancel(j, JSON_BAD);
    uint64_t hash = key_hash(key);
    if (j->find_duplicates && !j->has_duplicates)
        j->has_duplicates = duplicates_add(&j->duplicates, j->stack[j->depth].object, hash);
    if (parent == KEY_NONE)
        return 1;
    j->node = keys_find(j->keys, parent, key, hash);
    if (j->depth == 1 && is_trusted(j, j->node, key)) {
        j->is_suspect = true;
        j->suspect = (struct suspect){ .key = key,
                                       .key_start = offset_of(j, raw.ptr) - 1,
                                       .key_end = offset_of(j, raw.ptr + raw.len) + 1 };
    }
    return 1;
}

/* ---- values ------------------------------------------------------------------------------------------------------- */

static int tell(struct json *j, struct value value)
{
    const struct key_node *node = &j->keys->nodes[j->node];
    j->node = KEY_NONE;
    if (node->has_use && !j->sink->value(j->ctx, node, value))
        return cancel(j, JSON_STOPPED);
    return 1;
}

/* A scalar with its span in j->line. */
static int scalar(struct json *j, struct value value, size_t start, size_t end)
{
    if (j->is_suspect) {
        j->is_suspect = false;
        j->suspect.value = value;
        j->suspect.value_start = (uint32_t)(j->line_off + start);
        j->suspect.value_end = (uint32_t)(j->line_off + end);
        j->sink->suspect(j->ctx, &j->suspect);
    }
    return tell(j, value);
}

static bool is_wanted(const struct json *j)
{
    return j->node != KEY_NONE || j->is_suspect;
}

static int on_string(void *ctx, const unsigned char *ptr, size_t len)
{
    struct json *j = ctx;
    if (!is_wanted(j))
        return 1;
    struct slice raw = raw_string(j, ptr, len);
    struct value value = { .kind = VALUE_STRING };
    if (!decode(j, raw, ptr, &value.text))
        return cancel(j, JSON_BAD);
    size_t start = (size_t)(raw.ptr - j->line.ptr);
    return scalar(j, value, start - 1, start + raw.len + 1);
}

static int on_number(void *ctx, const char *ptr, size_t len)
{
    struct json *j = ctx;
    if (!is_wanted(j))
        return 1;
    size_t start = (size_t)(ptr - j->line.ptr);
    return scalar(j, (struct value){ VALUE_NUMBER, slice_of(ptr, len) }, start, start + len);
}

static int on_word(struct json *j, enum value_kind kind, struct slice word)
{
    if (!is_wanted(j))
        return 1;
    size_t end = token_end(j);
    return scalar(j, (struct value){ kind, kind == VALUE_NULL ? SLICE("") : word }, end - word.len, end);
}

static int on_null(void *ctx)
{
    return on_word(ctx, VALUE_NULL, SLICE("null"));
}

static int on_boolean(void *ctx, int is_true)
{
    return on_word(ctx, VALUE_BOOL, is_true ? SLICE("true") : SLICE("false"));
}

/* ---- objects and arrays ------------------------------------------------------------------------------------------- */

static int open_container(struct json *j, enum value_kind kind)
{
    uint32_t inside = KEY_NONE;
    if (j->depth == 0)
        inside = KEY_ROOT;
    else if (kind == VALUE_OBJECT && j->node != KEY_NONE && j->keys->nodes[j->node].has_children)
        inside = j->node;
    if (j->depth == JSON_DEPTH_MAX)
        return cancel(j, JSON_BAD);
    j->depth++;
    j->stack[j->depth].node = inside;
    j->stack[j->depth].object = ++j->n_objects;

    if (j->is_suspect) {
        j->is_suspect = false;
        j->is_suspect_open = true;
        j->suspect.value = (struct value){ .kind = kind };
        j->suspect.value_start = (uint32_t)(j->line_off + token_end(j) - 1);
    }
    return j->node == KEY_NONE ? 1 : tell(j, (struct value){ .kind = kind });
}

static int close_container(struct json *j)
{
    assert(j->depth > 0);
    j->depth--;
    if (j->depth == 1 && j->is_suspect_open) {
        j->is_suspect_open = false;
        j->suspect.value_end = (uint32_t)(j->line_off + token_end(j));
        j->sink->suspect(j->ctx, &j->suspect);
    }
    if (j->depth > 0)
        return 1;
    /* The handle takes many values, so that it can be used for the next line: what follows the object is our business,
     * and must never reach its lexer, which would keep it for the next line. */
    if (token_end(j) != j->line.len)
        return cancel(j, JSON_BAD);
    j->is_done = true;
    return 1;
}

static int on_start_map(void *ctx)
{
    return open_container(ctx, VALUE_OBJECT);
}

static int on_start_array(void *ctx)
{
    return open_container(ctx, VALUE_ARRAY);
}

static int on_end(void *ctx)
{
    return close_container(ctx);
}

static const yajl_callbacks callbacks = {
    .yajl_null = on_null,
    .yajl_boolean = on_boolean,
    .yajl_number = on_number,
    .yajl_string = on_string,
    .yajl_start_map = on_start_map,
    .yajl_map_key = on_key,
    .yajl_end_map = on_end,
    .yajl_start_array = on_start_array,
    .yajl_end_array = on_end,
};

/* ---- public ------------------------------------------------------------------------------------------------------- */

int json_new(const struct keys *keys, bool find_duplicates, struct json **ret_json)
{
    struct json *j = calloc(1, sizeof(*j));
    if (j == NULL)
        return -ENOMEM;
    j->keys = keys;
    j->find_duplicates = find_duplicates;
    buf_init(&j->decoded, SIZE_MAX / 4); /* bounded by the line, which its reader bounds */
    int r = json_pool_init(&j->pool);
    if (r == 0 && find_duplicates)
        r = duplicates_init(&j->duplicates);
    if (r == 0)
        r = buf_reserve(&j->decoded, DECODE_KEEP);
    if (r < 0) {
        json_free(j);
        return r;
    }
    *ret_json = j;
    return 0;
}

void json_free(struct json *j)
{
    if (j == NULL)
        return;
    json_pool_deinit(&j->pool); /* the handle lives in it whole */
    duplicates_deinit(&j->duplicates);
    buf_deinit(&j->decoded);
    free(j);
}

static void drop_handle(struct json *j)
{
    j->handle = NULL;
    json_pool_reset(&j->pool);
}

/* The handle for this line, new if the last one was cancelled. false: no memory. */
static bool prepare_handle(struct json *j, size_t line_len)
{
    bool is_moved;
    int r = json_pool_reserve(&j->pool, line_len, &is_moved);
    if (r < 0 || is_moved)
        drop_handle(j);
    if (r < 0)
        return false;
    if (j->handle != NULL)
        return true;
    yajl_alloc_funcs funcs = json_pool_funcs(&j->pool);
    j->handle = yajl_alloc(&callbacks, &funcs, j);
    /* UTF-8 is checked by us, over the whole line at once: quicker, and stricter. */
    return j->handle != NULL && yajl_config(j->handle, yajl_dont_validate_strings, 1) != 0 &&
           yajl_config(j->handle, yajl_allow_multiple_values, 1) != 0;
}

static void begin(struct json *j, struct slice line, const struct json_sink *sink, void *ctx)
{
    j->line = slice_trim(line);
    j->line_off = (size_t)(j->line.ptr - line.ptr);
    j->sink = sink;
    j->ctx = ctx;
    j->result = JSON_BAD;
    j->has_duplicates = j->is_done = j->is_suspect = j->is_suspect_open = false;
    j->depth = 0;
    j->node = KEY_NONE;
    j->n_objects = 0;
    buf_reset(&j->decoded);
    if (j->find_duplicates)
        duplicates_begin(&j->duplicates);
}

/* What yajl lets pass and JSON does not: bytes that are not UTF-8, and \v and \f between tokens. */
static bool is_clean(struct slice line)
{
    return slice_utf8_valid(line) == line.len && memchr(line.ptr, '\v', line.len) == NULL &&
           memchr(line.ptr, '\f', line.len) == NULL;
}

enum json_result json_scan(struct json *j, struct slice line, const struct json_sink *sink, void *ctx)
{
    if (line.len >= UINT32_MAX || !json_is_likely(line))
        return JSON_BAD;
    if (j->decoded.cap > 4 * DECODE_KEEP) { /* the slices of the last line are dead now */
        buf_reset(&j->decoded);
        buf_shrink(&j->decoded, DECODE_KEEP);
    }
    begin(j, line, sink, ctx);
    if (!prepare_handle(j, j->line.len)) {
        drop_handle(j);
        return JSON_BAD;
    }
    yajl_status status = yajl_parse(j->handle, (const unsigned char *)j->line.ptr, j->line.len);
    bool is_whole = status == yajl_status_ok && j->is_done && j->depth == 0;
    if (!is_whole || json_pool_shrink(&j->pool))
        drop_handle(j);
    if (!is_whole)
        return status == yajl_status_client_canceled ? j->result : JSON_BAD;
    return is_clean(j->line) ? JSON_OBJECT : JSON_BAD;
}

bool json_has_duplicates(const struct json *j)
{
    return j->has_duplicates;
}
