#include "parsers/json.h"

#include <errno.h>
#include <stdlib.h>

#include "parsers/json_events.h"

#define DECODE_KEEP (64 * KIB)

/* ---- a line by yajl: its callbacks as our events
 * -------------------------------------------------------------------- */

/* Behind the present token; for all but numbers, whose end yajl finds by reading one further. */
static const char *token_end(const struct json *j)
{
    return j->line.ptr + yajl_get_bytes_consumed(j->handle);
}

static bool is_in_line(const struct json *j, const unsigned char *ptr)
{
    uintptr_t p = (uintptr_t)ptr, from = (uintptr_t)j->line.ptr;
    return p >= from && p - from <= j->line.len;
}

/*
 * The string that yajl has just handed out. One without an escape lies in the line itself; of one with
 * escapes we get a decoded copy, so its opening quote is looked for backwards from the closing one: it is the
 * first quote without a backslash before it (inside, every quote has one; before an opening quote stands
 * never one).
 */
static struct json_text string_token(const struct json *j, const unsigned char *ptr, size_t len)
{
    if (is_in_line(j, ptr))
        return (struct json_text){ .raw = slice_of(ptr, len) };
    const char *close = token_end(j) - 1, *open = close - 1;
    assert(*close == '"');
    while (*open != '"' || open[-1] == '\\') {
        assert(open > j->line.ptr + 1); /* the brace and this quote come before */
        open--;
    }
    return (struct json_text){ .raw = slice_of(open + 1, (size_t)(close - open - 1)), .is_escaped = true };
}

static int on_key(void *ctx, const unsigned char *ptr, size_t len)
{
    struct json *j = ctx;
    return json_on_key(j, string_token(j, ptr, len));
}

static int on_string(void *ctx, const unsigned char *ptr, size_t len)
{
    struct json *j = ctx;
    return !json_is_wanted(j) || json_on_string(j, string_token(j, ptr, len));
}

static int on_number(void *ctx, const char *ptr, size_t len)
{
    return json_on_number(ctx, slice_of(ptr, len));
}

static int on_word(struct json *j, enum value_kind kind, size_t len)
{
    return json_on_word(j, kind, slice_of(token_end(j) - len, len));
}

static int on_null(void *ctx)
{
    return on_word(ctx, VALUE_NULL, 4);
}

static int on_boolean(void *ctx, int is_true)
{
    return on_word(ctx, VALUE_BOOL, is_true ? 4 : 5);
}

static int on_start_map(void *ctx)
{
    return json_on_open(ctx, VALUE_OBJECT, token_end(ctx) - 1);
}

static int on_start_array(void *ctx)
{
    return json_on_open(ctx, VALUE_ARRAY, token_end(ctx) - 1);
}

static int on_end(void *ctx)
{
    struct json *j = ctx;
    json_on_close(j, token_end(j));
    if (j->depth > 0)
        return 1;
    /* The handle takes many values, so that it can be used for the next line: what follows the object is our
     * business, and must never reach its lexer, which would keep it for the next line. */
    if (token_end(j) != j->line.ptr + j->line.len)
        return json_stop(j, JSON_BAD);
    j->is_done = true;
    return 1;
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

/* ---- public
 * ------------------------------------------------------------------------------------------------------- */

int json_new(const struct keys *keys, bool find_duplicates, struct json **ret_json)
{
    struct json *j = calloc(1, sizeof(*j));
    if (j == NULL)
        return -ENOMEM;
    j->keys = keys;
    j->find_duplicates = find_duplicates;
    buf_init(&j->decoded, SIZE_MAX / 4); /* bounded by the line, which its reader bounds */
    json_pool_init(&j->pool);
    int r = find_duplicates ? duplicates_init(&j->duplicates) : 0;
    if (r == 0 && (j->shape = json_shape_new()) == NULL)
        r = -ENOMEM;
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
    free(j->shape);
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
    buf_reset(&j->decoded); /* the slices of the last line are dead now */
    if (j->decoded.cap > 4 * DECODE_KEEP)
        buf_shrink(&j->decoded, DECODE_KEEP);
    if (j->find_duplicates)
        duplicates_begin(&j->duplicates);
}

/* What yajl lets pass and JSON does not: bytes that are not UTF-8, and \v and \f between tokens. */
static bool is_clean(struct slice line)
{
    return slice_utf8_valid(line) == line.len && memchr(line.ptr, '\v', line.len) == NULL &&
           memchr(line.ptr, '\f', line.len) == NULL;
}

enum json_result json_scan_by_yajl(struct json *j, struct slice line, const struct json_sink *sink, void *ctx)
{
    if (line.len >= UINT32_MAX || !json_is_likely(line))
        return JSON_BAD;
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

enum json_result json_scan(struct json *j, struct slice line, const struct json_sink *sink, void *ctx)
{
    if (line.len >= UINT32_MAX || !json_is_likely(line))
        return JSON_BAD;
    begin(j, line, sink, ctx);
    enum json_result result = json_walk(j);
    if (result != JSON_BAD)
        return result;
    sink->restart(ctx);
    return json_scan_by_yajl(j, line, sink, ctx);
}

bool json_has_duplicates(const struct json *j)
{
    return j->has_duplicates;
}
