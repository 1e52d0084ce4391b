/*
 * pipeline.h - one line's way from a file's bytes to the open bodies of the outputs: frame, join, parse, filter, tenant,
 * route, append (docs/ARCHITECTURE.md follows it step by step).
 *
 * Threads: reader. Owns: the parsers, sources and joins; borrows conf, feeders and tallies.
 */
#ifndef TAILRACE_AGENT_PIPELINE_H
#define TAILRACE_AGENT_PIPELINE_H

#include <stdint.h>

#include "agent/base/err.h"
#include "agent/base/position.h"
#include "agent/feeder.h"
#include "agent/source.h"
#include "agent/tail/tail.h"
#include "agent/tally.h"
#include "conf/conf.h"
#include "parsers/parser.h"

struct pipeline;

struct pipeline_conf {
    const struct conf *conf;
    struct kube *kube;      /* metadata of pods; NULL: there is none */
    struct feeder *feeders; /* by output index */
    size_t n_feeders;
    struct tallies *tallies;
    /* What each output's queue recovered, by output index, or NULL; borrowed during pipeline_new. The agent's ledger goes
     * on from the rows, and so from the positions, of the output `reference`. */
    const struct queue_recovery *const *recovered;
    uint32_t reference;
};

NODISCARD int pipeline_new(const struct pipeline_conf *conf, struct pipeline **ret_pipeline, struct err *err);
void pipeline_free(struct pipeline *p); /* after tail_close */
struct tail_sink pipeline_sink(struct pipeline *p);

/* What happened to one record, in the order it happened: for `explain`. */
struct decision {
    bool is_out_early;             /* by the input's levels, before the rest was parsed */
    const struct levels *levels;   /* that decided, NULL = none said */
    bool is_dropped_by_level;
    struct {
        uint32_t route;
        uint32_t outputs;          /* that this route added */
        bool is_matched, is_dropped_by_level;
    } routes[ROUTES_MAX];
    size_t n_routes;
    uint32_t outputs;              /* mask */
    bool is_dropped_by_rule;
};

/* Decides without appending: rec->origin, line and time fields are set by the caller; the source's conditions hold. */
void pipeline_decide(struct pipeline *p, struct source *s, struct record *rec, struct decision *ret);
struct parser *pipeline_parser(struct pipeline *p, uint32_t input);

#endif
