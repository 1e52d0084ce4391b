/*
 * json_events.h - what a key, a value, a start and an end mean: shared by the two readers of a line,
 * json_walk.c and the one by yajl in json.c. Both tell the same events in the same order, so it does not
 * matter which of them read a line.
 *
 * Internal to json*.c. Inline, for it is run for every token.
 */
#ifndef TAILRACE_PARSERS_JSON_EVENTS_H
#define TAILRACE_PARSERS_JSON_EVENTS_H

#include <assert.h>

#include <yajl/yajl_parse.h>

#include "agent/base/buf.h"
#include "agent/base/limits.h"
#include "parsers/duplicates.h"
#include "parsers/json.h"
#include "parsers/json_pool.h"
#include "parsers/json_string.h"

/* What a key means in the object where it stands. */
struct json_key {
    uint64_t hash;
    uint32_t parent, node;
    bool is_trusted; /* top level only: its first dotted segment is one of ours */
};

struct json {
    const struct keys *keys;
    bool find_duplicates;
    yajl_handle handle; /* NULL = to be made; reused from line to line as long as each was whole */
    struct json_pool pool;
    struct duplicates duplicates;
    struct buf decoded; /* never grows within a line: slices point into it */
    struct json_shape *shape; /* json_walk.c's: the keys of the lines before */

    /* The line at hand. */
    struct slice line; /* without the blanks around it */
    size_t line_off;   /* of `line` in what the caller gave */
    const struct json_sink *sink;
    void *ctx;
    enum json_result result; /* why an event said no */
    bool has_duplicates, is_done;
    unsigned depth;
    uint32_t node;        /* of the key whose value comes next */
    bool is_suspect;      /* that key is one, in `suspect` */
    bool is_suspect_open; /* its object or array is being read */
    struct suspect suspect;
    uint32_t n_objects;
    struct {
        uint32_t node;   /* KEY_NONE: nobody looks inside; arrays too */
        uint32_t object; /* number for the duplicate set */
        bool is_object;
    } stack[JSON_DEPTH_MAX + 1];
};

/* A string token. */
struct json_text {
    struct slice raw; /* what stands between the quotes, in the line */
    bool is_escaped;
};

struct json_shape *json_shape_new(void); /* NULL: no memory */

/* One pass over a line as loggers write them. JSON_BAD: not sure, or j->result says BAD; yajl shall decide.
 */
enum json_result json_walk(struct json *j);

/* ---- the events: false = stop, and j->result says why
 * --------------------------------------------------------------- */

static inline bool json_stop(struct json *j, enum json_result result)
{
    j->result = result;
    return false;
}

/* false: an escape that cannot be decoded, or no memory; the line is then bad. */
static inline bool json_decode(struct json *j, struct json_text text, struct slice *ret_text)
{
    if (!text.is_escaped) {
        *ret_text = text.raw;
        return true;
    }
    /* No string is decoded twice and decoding never lengthens, so the line's length is room for all of them.
     */
    if (j->decoded.len == 0 && buf_reserve(&j->decoded, j->line.len) < 0)
        return false;
    assert(text.raw.len <= j->decoded.cap - j->decoded.len);
    char *out = j->decoded.ptr + j->decoded.len;
    ssize_t n = json_unescape(text.raw, out);
    if (n < 0)
        return false;
    j->decoded.len += (size_t)n;
    *ret_text = slice_of(out, (size_t)n);
    return true;
}

static inline uint32_t json_offset(const struct json *j, const char *ptr)
{
    return (uint32_t)(j->line_off + (size_t)(ptr - j->line.ptr));
}

/* Top level only: is the key's first dotted segment one of ours? */
static inline bool json_is_trusted(const struct json *j, uint32_t node, struct slice key)
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

static inline struct json_key json_look_up(const struct json *j, uint32_t parent, struct slice key)
{
    struct json_key k = { .hash = key_hash(key), .parent = parent, .node = KEY_NONE };
    if (parent == KEY_NONE)
        return k;
    k.node = keys_find(j->keys, parent, key, k.hash);
    k.is_trusted = parent == KEY_ROOT && json_is_trusted(j, k.node, key);
    return k;
}

/* raw: as it stands between the quotes; key: decoded. */
static inline void json_take_key(struct json *j, const struct json_key *k, struct slice raw, struct slice key)
{
    if (j->find_duplicates && !j->has_duplicates)
        j->has_duplicates = duplicates_add(&j->duplicates, j->stack[j->depth].object, k->hash);
    j->node = k->node;
    if (k->is_trusted) {
        j->is_suspect = true;
        j->suspect = (struct suspect){ .key = key,
                                       .key_start = json_offset(j, raw.ptr) - 1,
                                       .key_end = json_offset(j, raw.ptr + raw.len) + 1 };
    }
}

static inline bool json_on_key(struct json *j, struct json_text text)
{
    uint32_t parent = j->stack[j->depth].node;
    j->node = KEY_NONE;
    if (parent == KEY_NONE && !j->find_duplicates)
        return true;

    struct slice key;
    if (!json_decode(j, text, &key))
        return json_stop(j, JSON_BAD);
    const struct json_key k = json_look_up(j, parent, key);
    json_take_key(j, &k, text.raw, key);
    return true;
}

static inline bool json_tell(struct json *j, struct value value)
{
    const struct key_node *node = &j->keys->nodes[j->node];
    j->node = KEY_NONE;
    return !node->has_use || j->sink->value(j->ctx, node, value) || json_stop(j, JSON_STOPPED);
}

/* Does anybody want the value that comes next? */
static inline bool json_is_wanted(const struct json *j)
{
    return j->node != KEY_NONE || j->is_suspect;
}

/* A wanted scalar that stands from start to end in the line. */
static inline bool json_on_scalar(struct json *j, struct value value, const char *start, const char *end)
{
    if (j->is_suspect) {
        j->is_suspect = false;
        j->suspect.value = value;
        j->suspect.value_start = json_offset(j, start);
        j->suspect.value_end = json_offset(j, end);
        j->sink->suspect(j->ctx, &j->suspect);
    }
    return json_tell(j, value);
}

static inline bool json_on_string(struct json *j, struct json_text text)
{
    struct value value = { .kind = VALUE_STRING };
    if (!json_is_wanted(j))
        return true;
    if (!json_decode(j, text, &value.text))
        return json_stop(j, JSON_BAD);
    return json_on_scalar(j, value, text.raw.ptr - 1, text.raw.ptr + text.raw.len + 1);
}

static inline bool json_on_number(struct json *j, struct slice text)
{
    return !json_is_wanted(j) ||
           json_on_scalar(j, (struct value){ VALUE_NUMBER, text }, text.ptr, text.ptr + text.len);
}

/* true, false, null: `word` as it stands in the line. */
static inline bool json_on_word(struct json *j, enum value_kind kind, struct slice word)
{
    struct value value = { kind, kind == VALUE_NULL ? SLICE("") : word };
    return !json_is_wanted(j) || json_on_scalar(j, value, word.ptr, word.ptr + word.len);
}

/* at: its bracket. */
static inline bool json_on_open(struct json *j, enum value_kind kind, const char *at)
{
    uint32_t inside = KEY_NONE;
    if (j->depth == 0)
        inside = KEY_ROOT;
    else if (kind == VALUE_OBJECT && j->node != KEY_NONE && j->keys->nodes[j->node].has_children)
        inside = j->node;
    if (j->depth == JSON_DEPTH_MAX)
        return json_stop(j, JSON_BAD);
    j->depth++;
    j->stack[j->depth].node = inside;
    j->stack[j->depth].object = ++j->n_objects;
    j->stack[j->depth].is_object = kind == VALUE_OBJECT;

    if (j->is_suspect) {
        j->is_suspect = false;
        j->is_suspect_open = true;
        j->suspect.value = (struct value){ .kind = kind };
        j->suspect.value_start = json_offset(j, at);
    }
    return j->node == KEY_NONE || json_tell(j, (struct value){ .kind = kind });
}

/* end: behind its bracket. */
static inline void json_on_close(struct json *j, const char *end)
{
    assert(j->depth > 0);
    j->depth--;
    if (j->depth == 1 && j->is_suspect_open) {
        j->is_suspect_open = false;
        j->suspect.value_end = json_offset(j, end);
        j->sink->suspect(j->ctx, &j->suspect);
    }
}

#endif
