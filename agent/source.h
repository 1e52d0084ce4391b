/*
 * source.h - one followed file as the pipeline sees it: its origin, and all decisions that do not change from line to
 * line (level spec, tenant, which routes can match).
 *
 * Owns:    its origin, one block. Threads: reader.
 */
#ifndef TAILRACE_AGENT_SOURCE_H
#define TAILRACE_AGENT_SOURCE_H

#include "agent/base/record.h"
#include "agent/metadata.h"
#include "agent/tail/tail.h"
#include "conf/conf.h"

#define ROUTE_WORDS (ROUTES_MAX / 64)

struct tally;
struct join;

struct series;

/* Of tailrace_log_lines_total, for this source's lines of one tenant and origin (line_counters.h). */
struct line_series {
    uint32_t tenant;
    uint64_t origin; /* its id: what is known of a pod may change */
    struct series *by_level[LEVEL_OFF];
};

struct source {
    const struct conf_input *input;
    uint32_t input_index;
    uint64_t incarnation;
    struct tail_file *file;
    struct origin *origin;
    struct metadata metadata;
    const struct levels *levels;        /* the input's, after static overrides and annotations; NULL keeps all */
    bool has_dynamic_overrides;
    const struct template *tenant;      /* of the input or an override */
    uint32_t static_tenant;             /* id, or 0 when it is known per record */
    bool is_static_overflow;            /* the static tenant is not allowed, or beyond the limit */
    uint64_t routes[ROUTE_WORDS];       /* bit = route may match: its static conditions hold */
    /* Records that end at or below are in the input's ledger already, but for those between behind_off and behind_end:
     * after a restart other outputs go on behind them, and they count when the ledger's reference output reads them. */
    uint64_t counted_off[STREAMS_MAX], behind_off[STREAMS_MAX], behind_end[STREAMS_MAX];
    uint64_t skipped_off; /* the rests of lines that were cut are counted up to here */
    struct tally *last_tally;
    struct line_series line_series;
    struct join *joins;                 /* of its passes */
    uint64_t first_off[STREAMS_MAX];    /* of the first line of each stream that was seen: only it can go on from another file */
};

struct origin;
/* All that the path, the configuration and the metadata say; labels and annotations are borrowed from the latter. m may be
 * NULL. NULL when out of memory; the caller frees with origin_free. */
struct origin *origin_new(const struct conf *conf, uint32_t input_index, struct slice path, struct pairs captures,
                          const struct metadata *m);
void origin_free(struct origin *o);

/* k may be NULL. */
struct source *source_new(const struct conf *conf, struct kube *k, struct tail_file *f, const struct tail_file_info *info);
/* What its pod is may have changed: origin and decisions are made anew then. */
void source_refresh(const struct conf *conf, struct source *s);
/* Takes both, NULL is fine: what is known of the pod is this from now on, and nobody else is asked. -ENOMEM: as before. */
NODISCARD int source_set_pod(const struct conf *conf, struct source *s, struct pod *pod_take, struct pod *namespace_take);
void source_free(struct source *s);

#endif
