/*
 * cache.h - what is known of pods, on disk: after a restart the first line has its labels, and the watch goes on where it was
 * without a list. state_dir/kube/pods (docs/FORMATS.md), replaced as a whole; one that is damaged, or of another node, server
 * or set of used names, is as good as none.
 */
#ifndef TAILRACE_KUBE_CACHE_H
#define TAILRACE_KUBE_CACHE_H

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/kube/podtable.h"

#define CACHE_BYTES_MAX (32 * MIB)

struct cache_head {
    uint64_t key;                    /* of node, server and used names */
    struct slice pods, namespaces;   /* resourceVersions; empty: none */
};

/* Fills the table. *ret_head's texts are in `text`, which the caller frees. -ENOENT: there is none; -ESTALE: of another key;
 * -EBADMSG: damaged, and the table may hold a part. */
NODISCARD int cache_load(const char *dir, uint64_t key, struct podtable *t, struct cache_head *ret_head, struct buf *text);
/* The entries alone, whatever their key: for who only looks. */
NODISCARD int cache_peek(const char *dir, struct podtable *t);
NODISCARD int cache_save(const char *dir, const struct cache_head *head, struct podtable *t, struct err *err);

/* The bytes alone, for tests. */
NODISCARD int cache_encode(const struct cache_head *head, struct podtable *t, struct buf *out);
NODISCARD int cache_decode(struct slice bytes, uint64_t key, struct podtable *t, struct cache_head *ret_head);

#endif
