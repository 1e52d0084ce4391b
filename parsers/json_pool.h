/*
 * json_pool.h - the memory of one yajl handle.
 *
 * yajl never checks for NULL, so nothing may fail inside it: json_pool_reserve() makes room for a line of that length
 * beforehand. A handle that was cancelled cannot be used again; json_pool_reset() forgets it and the next one costs
 * six bumps of a pointer, no malloc.
 *
 * Owns:   two big blocks (yajl's decode and lexer buffers, which double as they grow); its small ones are inside.
 * Limits: 2 x (line + 1), at least JSON_POOL_KEEP, each; json_pool_shrink() gives more than that back.
 */
#ifndef TAILRACE_PARSERS_JSON_POOL_H
#define TAILRACE_PARSERS_JSON_POOL_H

#include <stdbool.h>
#include <stddef.h>

#include <yajl/yajl_common.h>

#include "agent/base/macros.h"

#define JSON_POOL_KEEP (64 * KIB)
#define JSON_POOL_SMALL (2 * KIB)

struct json_pool {
    _Alignas(16) unsigned char small[JSON_POOL_SMALL];
    size_t small_used;
    struct {
        void *ptr;
        size_t cap;
        bool is_taken;
    } big[2];
};

void json_pool_init(struct json_pool *p); /* no memory yet: most inputs never need yajl */
void json_pool_deinit(struct json_pool *p);

/* Makes room for a line of line_len bytes. -ENOMEM: do not parse. *ret_moved: live blocks moved, so the handle must be
 * dropped by json_pool_reset(). */
NODISCARD int json_pool_reserve(struct json_pool *p, size_t line_len, bool *ret_moved);

void json_pool_reset(struct json_pool *p); /* forgets every block */

/* After a line: true when big blocks were given back and the pool was reset. */
bool json_pool_shrink(struct json_pool *p);

yajl_alloc_funcs json_pool_funcs(struct json_pool *p);

#endif
