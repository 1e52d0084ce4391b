/* What is known of each Loki stream: its newest entry and the times in use. Part of loki.h. */
#include "outputs/loki.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

struct loki_streams {
    struct loki_stream **table; /* by hash, n_table slots, chained */
    size_t n_table;             /* a power of two */
    size_t n, max;
    size_t key_bytes; /* of all keys; labels may be long, so streams alone are no bound */
    struct loki_stream *newest, *oldest;
    struct loki_stream *spare; /* forgotten, linked by hash_next */
    uint64_t next_id;
};

int loki_streams_new(size_t max, struct loki_streams **ret_streams)
{
    assert(max > 0);
    struct loki_streams *ss = calloc(1, sizeof(*ss));
    if (ss == NULL)
        return -ENOMEM;
    ss->max = max;
    ss->next_id = 1;
    ss->n_table = 64;
    while (ss->n_table < max)
        ss->n_table *= 2;
    ss->table = calloc(ss->n_table, sizeof(struct loki_stream *));
    if (ss->table == NULL) {
        free(ss);
        return -ENOMEM;
    }
    *ret_streams = ss;
    return 0;
}

static void free_stream(struct loki_stream *s)
{
    budget_free(ACCOUNT_OF(MEMORY_STREAMS), s->key);
    budget_free(ACCOUNT_OF(MEMORY_STREAMS), s->more);
    budget_free(ACCOUNT_OF(MEMORY_STREAMS), s);
}

void loki_streams_free(struct loki_streams *ss)
{
    if (ss == NULL)
        return;
    struct loki_stream *next;
    for (struct loki_stream *s = ss->newest; s != NULL; s = next) {
        next = s->older;
        free_stream(s);
    }
    for (struct loki_stream *s = ss->spare; s != NULL; s = next) {
        next = s->hash_next;
        free_stream(s);
    }
    free(ss->table);
    free(ss);
}

static void unlink_age(struct loki_streams *ss, struct loki_stream *s)
{
    *(s->newer != NULL ? &s->newer->older : &ss->newest) = s->older;
    *(s->older != NULL ? &s->older->newer : &ss->oldest) = s->newer;
}

static void link_newest(struct loki_streams *ss, struct loki_stream *s)
{
    s->newer = NULL;
    s->older = ss->newest;
    *(ss->newest != NULL ? &ss->newest->newer : &ss->oldest) = s;
    ss->newest = s;
}

void loki_streams_touch(struct loki_streams *ss, struct loki_stream *s)
{
    if (ss->newest == s)
        return;
    unlink_age(ss, s);
    link_newest(ss, s);
}

static size_t key_bytes(const struct loki_stream *s)
{
    return (size_t)s->route_len + s->labels_len;
}

/* Its memory is kept: lookups elsewhere compare the id, which is 0 now. */
static void forget_oldest(struct loki_streams *ss)
{
    struct loki_stream *s = ss->oldest;
    struct loki_stream **link = &ss->table[s->hash & (ss->n_table - 1)];
    while (*link != s)
        link = &(*link)->hash_next;
    *link = s->hash_next;
    unlink_age(ss, s);
    ss->key_bytes -= key_bytes(s);
    ss->n--;
    budget_free(ACCOUNT_OF(MEMORY_STREAMS), s->key);
    s->key = NULL;
    s->id = 0;
    s->hash_next = ss->spare;
    ss->spare = s;
}

static struct loki_stream *take_spare(struct loki_streams *ss)
{
    struct loki_stream *s = ss->spare;
    if (s == NULL) {
        s = calloc(1, sizeof(*s));
        budget_took(ACCOUNT_OF(MEMORY_STREAMS), s);
        return s;
    }
    ss->spare = s->hash_next;
    *s = (struct loki_stream){ .more = s->more };
    return s;
}

/* As long as it has to be: there are thousands, and they stay. */
static int set_key(struct loki_stream *s, struct slice route, struct slice labels)
{
    if (route.len + labels.len > 1 * MIB)
        return -E2BIG;
    char *key = malloc(MAX(route.len + labels.len, (size_t)1));
    if (key == NULL)
        return -ENOMEM;
    budget_took(ACCOUNT_OF(MEMORY_STREAMS), key);
    if (route.len > 0)
        memcpy(key, route.ptr, route.len);
    memcpy(key + route.len, labels.ptr, labels.len);
    s->key = key;
    s->route_len = (uint32_t)route.len;
    s->labels_len = (uint32_t)labels.len;
    return 0;
}

static struct loki_stream *add_stream(struct loki_streams *ss, uint64_t hash, struct slice route,
                                      struct slice labels)
{
    while (ss->n > 0 && (ss->n >= ss->max || ss->key_bytes > LOKI_STREAM_KEYS_MAX))
        forget_oldest(ss);
    struct loki_stream *s = take_spare(ss);
    if (s == NULL)
        return NULL;
    if (set_key(s, route, labels) < 0) {
        s->hash_next = ss->spare;
        ss->spare = s;
        return NULL;
    }
    s->id = ss->next_id++;
    s->hash = hash;
    struct loki_stream **slot = &ss->table[hash & (ss->n_table - 1)];
    s->hash_next = *slot;
    *slot = s;
    link_newest(ss, s);
    ss->key_bytes += key_bytes(s);
    ss->n++;
    return s;
}

struct loki_stream *loki_streams_get(struct loki_streams *ss, struct slice route, struct slice labels)
{
    uint64_t hash = slice_hash(labels) ^ slice_hash(route) * UINT64_C(0x9e3779b97f4a7c15);
    hash ^= hash >> 32;
    for (struct loki_stream *s = ss->table[hash & (ss->n_table - 1)]; s != NULL; s = s->hash_next) {
        if (s->hash == hash && slice_eq(loki_stream_route(s), route) &&
            slice_eq(loki_stream_labels(s), labels)) {
            loki_streams_touch(ss, s);
            return s;
        }
    }
    return add_stream(ss, hash, route, labels);
}

static struct loki_used *used_of(const struct loki_stream *s)
{
    return s->more != NULL ? s->more : &((struct loki_stream *)(uintptr_t)s)->one;
}

/* The range that holds ts, or -1. */
static int find_used(const struct loki_stream *s, int64_t ts)
{
    const struct loki_used *used = used_of(s);
    for (int i = 0; i < s->n_used; i++)
        if (used[i].first <= ts && ts <= used[i].last)
            return i;
    return -1;
}

/* Many streams have one line, or few. Without memory the one place there is takes the newest. */
static unsigned used_room(struct loki_stream *s)
{
    if (s->more != NULL)
        return LOKI_USED_MAX;
    if (s->n_used == 0)
        return 1;
    s->more = malloc(LOKI_USED_MAX * sizeof(*s->more));
    if (s->more == NULL)
        return 1;
    budget_took(ACCOUNT_OF(MEMORY_STREAMS), s->more);
    s->more[0] = s->one;
    s->next_used = 1;
    return LOKI_USED_MAX;
}

int64_t loki_stream_free_time(const struct loki_stream *s, int64_t ts)
{
    int i;
    if (s->has_newest && ts > s->newest_ns)
        return ts;
    while ((i = find_used(s, ts)) >= 0) /* each range is passed once */
        ts = used_of(s)[i].last + 1;
    return ts;
}

void loki_stream_use_time(struct loki_stream *s, int64_t ts)
{
    const bool is_beyond = s->has_newest && ts > s->newest_ns + 1;
    assert(is_beyond || find_used(s, ts) < 0);
    int before = is_beyond ? -1 : find_used(s, ts - 1);
    if (before >= 0) {
        used_of(s)[before].last = ts;
    } else {
        unsigned room = used_room(s);
        used_of(s)[s->next_used] = (struct loki_used){ ts, ts };
        s->next_used = (uint8_t)((s->next_used + 1u) % room);
        s->n_used = (uint8_t)MIN(s->n_used + 1u, room);
    }
    if (!s->has_newest || ts > s->newest_ns)
        s->newest_ns = ts;
    s->has_newest = true;
}
