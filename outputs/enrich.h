/*
 * enrich.h - a record as one JSON object on one line: the payload's own bytes, and our trusted fields spliced
 * in before the closing brace. Used by every output that writes documents.
 *
 * Names, style plain:  pod namespace tenant container_name node_name service_name host_name cluster severity
 * Names, style ecs:    kubernetes.pod.name kubernetes.namespace organization.id container.name
 *                      kubernetes.node.name service.name host.name orchestrator.cluster.name log.level
 *
 * and the constants of the configuration (origin->fields) by their own names. Fields that are empty are left
 * out; the level is always there ("unknown").
 *
 * A payload cannot forge them. Its top-level keys (rec->suspects, found by the scanner) are compared decoded,
 * as dotted paths: one that equals, begins or extends a trusted name is renamed to original_KEY, its value
 * byte for byte as it was (original_2_KEY … when that is taken). An equal string under the equal key is no
 * clash: theirs stays, ours is not added a second time. The names above but cluster are reserved even where
 * ours is empty; cluster, constants and extras only where they are set.
 *
 * A constant named `message`, or like a name above or an extra, is left out.
 *
 * Text, a line with too many suspects, and (ENRICH_NO_DUPLICATES) one with a key twice become a new object
 * that holds the line as the string `message`, bytes that are not UTF-8 replaced.
 *
 * The scanner reports only keys it was told of: whoever tells it adds the names of the configured constants
 * to enricher_names().
 *
 * Threads: one (the reader). Memory: a bounded cache of prebuilt fields per (origin, tenant).
 */
#ifndef TAILRACE_OUTPUTS_ENRICH_H
#define TAILRACE_OUTPUTS_ENRICH_H

#include "agent/base/buf.h"
#include "agent/base/record.h"

enum enrich_style { ENRICH_PLAIN, ENRICH_ECS };

enum enrich_flag {
    ENRICH_NO_DUPLICATES = 1 << 0, /* lines with RECORD_DUPLICATE_KEYS as text */
    ENRICH_AS_TEXT = 1 << 1        /* every line as text */
};

/* A member that only this output adds to this record: @timestamp, data_stream.type … */
struct enrich_extra {
    struct slice name; /* dotted path; known to enricher_new, or the scanner did not look for it */
    struct slice
        json; /* the value as JSON; a payload member of this name with these very bytes is no clash */
};

struct enricher;

/* extra_names: what enricher_names adds for the scanner (copied by pointer: they must outlive the enricher).
 */
NODISCARD int enricher_new(enum enrich_style style, const struct slice *extra_names, size_t n_extra_names,
                           struct enricher **ret_enricher);
void enricher_free(struct enricher *e); /* NULL is fine */

/* The names for output_ops.trusted; they live as long as the enricher. */
const struct slice *enricher_names(const struct enricher *e, size_t *ret_n);

/* Appends the object, without a newline and without a raw newline inside. flags: enum enrich_flag. Sets
 * 1 << ALTER_KEY_CONFLICT in *altered when a key was renamed or the line became text for its keys.
 * 0, -ENOBUFS or -ENOMEM; then out is as it was. */
NODISCARD int enrich_append(struct enricher *e, const struct record *rec, unsigned flags,
                            const struct enrich_extra *extras, size_t n_extras, struct buf *out,
                            uint32_t *altered);

/* Appends only our members, each as ,"name":value with its leading comma: for documents that are built
 * otherwise (payload under a key). Nothing of the payload is looked at. */
NODISCARD int enrich_append_members(struct enricher *e, const struct record *rec, struct buf *out);

/* The line as a JSON string would hold it under `message`: {"message":"…" without the closing brace. */
NODISCARD int enrich_append_message(const struct record *rec, struct buf *out);

#endif
