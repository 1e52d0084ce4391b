/*
 * json.h - one JSON object a line, in one pass: calls back for the members that somebody wants.
 *
 * json_walk.c reads lines as loggers write them; what it does not understand is read by yajl, whose word is the last.
 *
 * Strings without an escape are slices of the line; others are decoded into the scanner's buffer and live until the next
 * json_scan. Only a whole, valid object counts: blanks around it are fine, anything else behind it is not, nor is nesting
 * deeper than JSON_DEPTH_MAX, nor bytes that are not UTF-8 (yajl itself would let overlong and surrogate forms pass).
 * The escape of a lone surrogate is taken, as yajl and most readers do: the line is ASCII there, and decoded it is U+FFFD.
 *
 * Owns:   the yajl handle, its pool, the decode buffer, the duplicate set. Keys are borrowed.
 * Heap:   none per line; a line longer than any before, and over 32 KiB, may grow the buffers.
 */
#ifndef TAILRACE_PARSERS_JSON_H
#define TAILRACE_PARSERS_JSON_H

#include <stdbool.h>

#include "agent/base/err.h"
#include "agent/base/record.h"
#include "parsers/keys.h"

struct json;

enum json_result {
    JSON_OBJECT,  /* read to its end */
    JSON_STOPPED, /* the sink said so; the rest was not looked at */
    JSON_BAD      /* not exactly one object */
};

struct json_sink {
    /* A value under a key with a use. Objects and arrays come at their start, with their kind only; what they hold comes
     * after, if the trie looks inside. false stops the scan. */
    bool (*value)(void *ctx, const struct key_node *node, struct value value);
    /* A top-level member whose first dotted segment is trusted, at its end. */
    void (*suspect)(void *ctx, const struct suspect *suspect);
    /* What was told of this line so far is void: it begins again. */
    void (*restart)(void *ctx);
};

NODISCARD int json_new(const struct keys *keys, bool find_duplicates, struct json **ret_json);
void json_free(struct json *j);

/* Reads the line. What the sink was told holds only when JSON_OBJECT or JSON_STOPPED comes back. */
enum json_result json_scan(struct json *j, struct slice line, const struct json_sink *sink, void *ctx);

/* The same by yajl alone: slower, and what json_scan is compared with. restart is not called. */
enum json_result json_scan_by_yajl(struct json *j, struct slice line, const struct json_sink *sink, void *ctx);

/* Of the last line that was read to its end. */
bool json_has_duplicates(const struct json *j);

/* Does the line begin like an object? */
static inline bool json_is_likely(struct slice line)
{
    size_t i = 0;
    while (i < line.len && (line.ptr[i] == ' ' || line.ptr[i] == '\t' || line.ptr[i] == '\n' || line.ptr[i] == '\r'))
        i++;
    return i < line.len && line.ptr[i] == '{';
}

#endif
