/*
 * podtable.h - what is known of pods and namespaces, shared between who learns it (the kube thread) and who uses it (the
 * reader).
 *
 * A struct pod is one block, never changed, and counted: a source keeps the one it was made with until it takes the next.
 * Whatever changes makes a new one; what is told again and is the same changes nothing. Each change raises the version, so
 * that whoever looks again and again compares one number.
 *
 * A deleted pod stays known: its lines may come for long. It goes with podtable_expire().
 *
 * Threads: any; a lock inside, held for lookups and copies, never across I/O.
 * Limits:  PODTABLE_MAX entries; beyond it the longest deleted goes, then new ones are not kept (-ENOSPC).
 */
#ifndef TAILRACE_KUBE_PODTABLE_H
#define TAILRACE_KUBE_PODTABLE_H

#include "agent/base/buf.h"
#include "agent/kube/events.h"

#define PODTABLE_MAX 8192

struct pod {
    _Atomic uint32_t refs;
    uint32_t bytes; /* the whole block */
    /* A namespace has the empty name and labels only. path_uid: as paths have it (a static pod's is not its uid). */
    struct slice namespace_, name, uid, path_uid;
    struct slice workload_kind, workload;
    struct pairs labels, annotations, images;
};

/* A block of its own out of what was read; NULL = out of memory. The caller holds it. */
struct pod *pod_new(const struct kube_object *obj);
/* The same from a struct whose slices are anybody's: bytes and refs do not count. */
struct pod *pod_pack(struct pod *from);
struct pod *pod_ref(struct pod *p); /* NULL is fine */
void pod_unref(struct pod *p);      /* NULL is fine */

struct podtable;

struct podtable *podtable_new(void);
void podtable_free(struct podtable *t); /* pods that are held live on; NULL is fine */
/* Raised by every change that podtable_find() can see, and by podtable_raise(). */
uint64_t podtable_version(const struct podtable *t);
void podtable_raise(struct podtable *t);

/* Takes the pod; 0, -ENOMEM, -ENOSPC. *ret_is_new: it was not known, or is another than was known (NULL: not asked). */
NODISCARD int podtable_put(struct podtable *t, struct pod *pod_take, bool *ret_is_new);
/* It is gone from the cluster; what is known of it stays. */
void podtable_delete(struct podtable *t, struct slice namespace_, struct slice name, struct slice uid, int64_t mono_ns);
/* The pod of a path; path_uid may be empty: the newest of that name. name empty: the namespace. Held for the caller; NULL:
 * not known. */
struct pod *podtable_find(struct podtable *t, struct slice namespace_, struct slice name, struct slice path_uid);

/* A whole list comes: what is not put between begin and end, of pods or of namespaces, is deleted. */
void podtable_list_begin(struct podtable *t, bool is_namespaces);
void podtable_list_end(struct podtable *t, bool is_namespaces, int64_t mono_ns);

/* Deleted pods of before `until_ns` that nobody holds and whose files are gone, as is_gone says, leave. */
void podtable_expire(struct podtable *t, int64_t until_ns, bool (*is_gone)(void *ctx, const struct pod *pod), void *ctx);

/* All entries, each held for the call; not under the lock. */
NODISCARD int podtable_each(struct podtable *t, int (*each)(void *ctx, const struct pod *pod, bool is_deleted), void *ctx);
size_t podtable_count(struct podtable *t, size_t *ret_bytes); /* not deleted pods; bytes of all blocks */

#endif
