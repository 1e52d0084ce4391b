/*
 * keys.h - the keys an input looks for, as a trie over decoded keys: (object, key) -> what the value is for.
 *
 * Built once from the configuration and the known loggers; read-only afterwards. One hash table for all depths, so that
 * a key nobody wants costs one hash and one probe, and a nested object nobody wants costs nothing.
 */
#ifndef TAILRACE_PARSERS_KEYS_H
#define TAILRACE_PARSERS_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/slice.h"

#define KEY_NONE 0u /* no node: nobody looks inside */
#define KEY_ROOT 1u /* the line's object itself */

enum level_kind { LEVEL_KEY_NONE, LEVEL_KEY_WORD, LEVEL_KEY_SEVERITY, LEVEL_KEY_OTEL };
enum time_kind { TIME_KEY_NONE, TIME_KEY_WHOLE, TIME_KEY_SECONDS, TIME_KEY_NANOS };

/* What a value under this key is for. Ranks: 0 = not at all, 1 = best. */
struct key_node {
    uint64_t hash;
    struct slice key;
    uint32_t parent;
    uint8_t level;      /* enum level_kind */
    uint8_t time;       /* enum time_kind */
    uint8_t marks;      /* enum shape_mark in shapes.h */
    bool is_module;
    bool is_trusted;    /* the first segment of a trusted name */
    bool has_children;
    bool has_use;       /* any of the above but is_trusted, or a rank, or wanted */
    uint16_t time_rank, message_rank, tenant_rank;
    int16_t wanted;     /* index in record.values[], -1 = none */
    bool is_nested;     /* wanted: by the nested path, so a flat key of the same name beats it */
};

struct keys {
    struct key_node *nodes; /* [0] and [1] are KEY_NONE and KEY_ROOT */
    uint32_t n_nodes, cap;
    uint32_t *slots;        /* node indexes, 0 = free; a power of two, at most a quarter full */
    uint32_t n_slots;
    bool trusted_first[256]; /* first bytes of trusted segments */
};

NODISCARD int keys_init(struct keys *k); /* 0 or -ENOMEM */
void keys_deinit(struct keys *k);        /* zeroed is fine */

/* The node of `key` in the object `parent`, made when new; the key is copied. -ENOMEM, -ENOSPC. */
NODISCARD int keys_add(struct keys *k, uint32_t parent, struct slice key, uint32_t *ret_node);
/* The node for the path as nested objects; the same as keys_add(KEY_ROOT) when it has no dot. */
NODISCARD int keys_add_nested(struct keys *k, struct slice path, uint32_t *ret_node);

/* The part before the first dot. */
struct slice key_first_segment(struct slice key);

static inline uint64_t key_mix(uint64_t a, uint64_t b)
{
    __uint128_t m = (__uint128_t)(a ^ UINT64_C(0x9E3779B97F4A7C15)) * (b ^ UINT64_C(0xD6E8FEB86659FD93));
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

/* All bytes of up to 16 are taken in two loads. */
static inline uint64_t key_hash(struct slice key)
{
    uint64_t a = 0, b = 0;
    const char *p = key.ptr;
    size_t n = key.len;
    if (n >= 8) {
        uint64_t h = 0;
        for (; n > 16; p += 8, n -= 8) {
            memcpy(&a, p, 8);
            h = key_mix(a ^ h, key.len);
        }
        memcpy(&a, p, 8);
        memcpy(&b, p + n - 8, 8);
        return key_mix(a ^ h, b + key.len);
    }
    if (n >= 4) {
        uint32_t x, y;
        memcpy(&x, p, 4);
        memcpy(&y, p + n - 4, 4);
        a = x;
        b = y;
    } else if (n > 0) {
        a = ((uint64_t)(unsigned char)p[0] << 16) | ((uint64_t)(unsigned char)p[n / 2] << 8) | (unsigned char)p[n - 1];
    }
    return key_mix(a, b + n);
}

static inline uint64_t key_hash_in(uint32_t parent, uint64_t hash)
{
    return hash + (uint64_t)parent * UINT64_C(0x9E3779B97F4A7C15);
}

/* hash: key_hash(key). KEY_NONE when nobody wants it. */
static inline uint32_t keys_find(const struct keys *k, uint32_t parent, struct slice key, uint64_t hash)
{
    uint64_t h = key_hash_in(parent, hash);
    for (uint32_t i = (uint32_t)(h >> 32) & (k->n_slots - 1);; i = (i + 1) & (k->n_slots - 1)) {
        uint32_t n = k->slots[i];
        if (n == KEY_NONE)
            return KEY_NONE;
        const struct key_node *node = &k->nodes[n];
        if (node->hash == h && node->parent == parent && slice_eq(node->key, key))
            return n;
    }
}

#endif
