#include "parsers/keys.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define NODES_MAX 16384u /* of a configuration; far more than lists of keys written by hand */
#define SLOTS_FIRST 256u

int keys_init(struct keys *k)
{
    memset(k, 0, sizeof(*k));
    k->cap = SLOTS_FIRST / 4;
    k->nodes = calloc(k->cap, sizeof(*k->nodes));
    k->slots = calloc(SLOTS_FIRST, sizeof(*k->slots));
    k->n_slots = SLOTS_FIRST;
    k->n_nodes = KEY_ROOT + 1;
    if (k->nodes == NULL || k->slots == NULL) {
        keys_deinit(k);
        return -ENOMEM;
    }
    return 0;
}

void keys_deinit(struct keys *k)
{
    for (uint32_t i = KEY_ROOT + 1; k->nodes != NULL && i < k->n_nodes; i++)
        free((char *)(uintptr_t)k->nodes[i].key.ptr); /* ours; const only for the readers */
    free(k->nodes);
    free(k->slots);
    memset(k, 0, sizeof(*k));
}

static void slot_insert(uint32_t *slots, uint32_t n_slots, const struct key_node *nodes, uint32_t node)
{
    uint32_t i = (uint32_t)(nodes[node].hash >> 32) & (n_slots - 1);
    while (slots[i] != KEY_NONE)
        i = (i + 1) & (n_slots - 1);
    slots[i] = node;
}

static int grow(struct keys *k)
{
    if (k->cap >= NODES_MAX)
        return -ENOSPC;
    uint32_t cap = k->cap * 2, n_slots = cap * 4;
    struct key_node *nodes = realloc(k->nodes, cap * sizeof(*nodes));
    if (nodes == NULL)
        return -ENOMEM;
    k->nodes = nodes;
    uint32_t *slots = calloc(n_slots, sizeof(*slots));
    if (slots == NULL)
        return -ENOMEM;
    for (uint32_t i = KEY_ROOT + 1; i < k->n_nodes; i++)
        slot_insert(slots, n_slots, k->nodes, i);
    free(k->slots);
    k->slots = slots;
    k->n_slots = n_slots;
    k->cap = cap;
    return 0;
}

int keys_add(struct keys *k, uint32_t parent, struct slice key, uint32_t *ret_node)
{
    assert(parent >= KEY_ROOT && parent < k->n_nodes);
    uint32_t n = keys_find(k, parent, key, key_hash(key));
    if (n != KEY_NONE) {
        *ret_node = n;
        return 0;
    }
    if (k->n_nodes == k->cap) {
        int r = grow(k);
        if (r < 0)
            return r;
    }
    char *copy = slice_dup(key);
    if (copy == NULL)
        return -ENOMEM;
    n = k->n_nodes++;
    k->nodes[n] = (struct key_node){ .hash = key_hash_in(parent, key_hash(key)),
                                     .key = slice_of(copy, key.len),
                                     .parent = parent,
                                     .wanted = -1 };
    k->nodes[parent].has_children = true;
    slot_insert(k->slots, k->n_slots, k->nodes, n);
    *ret_node = n;
    return 0;
}

int keys_add_nested(struct keys *k, struct slice path, uint32_t *ret_node)
{
    uint32_t node = KEY_ROOT;
    for (;;) {
        struct slice segment = key_first_segment(path);
        int r = keys_add(k, node, segment, &node);
        if (r < 0)
            return r;
        if (segment.len == path.len)
            break;
        path = slice_from(path, segment.len + 1);
    }
    *ret_node = node;
    return 0;
}

struct slice key_first_segment(struct slice key)
{
    const char *dot = key.len == 0 ? NULL : memchr(key.ptr, '.', key.len);
    return dot == NULL ? key : slice_first(key, (size_t)(dot - key.ptr));
}
