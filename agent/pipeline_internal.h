/*
 * pipeline_internal.h - what pipeline.c (decide about a record) and lines.c (make records of raw lines) share.
 */
#ifndef TAILRACE_AGENT_PIPELINE_INTERNAL_H
#define TAILRACE_AGENT_PIPELINE_INTERNAL_H

#include "agent/base/buf.h"
#include "agent/pipeline.h"
#include "parsers/multiline.h"

/* Thresholds of (spec, module): modules are few and repeat line after line. */
#define THRESHOLDS 256
#define THRESHOLD_MODULE_MAX 48
#define TRUSTED_MAX 256
/* The tenant of a raw name, after allow list and limit. */
#define TENANT_SLOTS 256

struct threshold {
    const struct levels *levels;
    uint8_t threshold, len;
    char module[THRESHOLD_MODULE_MAX];
};

struct tenant_slot {
    uint32_t id, len;
    bool is_overflow;
    char raw[TENANT_BYTES_MAX];
};

/* How far the agent's ledger has counted a file before the restart, and how far another output may have been ahead. */
struct counted {
    uint64_t incarnation, off[STREAMS_MAX], ahead[STREAMS_MAX];
};

struct pipeline {
    struct pipeline_conf conf;
    struct counted *counted; /* by incarnation */
    size_t n_counted;
    struct parser *parsers[INPUTS_MAX];
    struct parser *text_parsers[INPUTS_MAX]; /* for pods that say format: text; made when first needed */
    struct multiline *multilines[INPUTS_MAX];
    struct slice trusted[TRUSTED_MAX];
    size_t n_trusted;
    bool find_duplicates;
    struct threshold thresholds[THRESHOLDS]; /* known by the address of their directives */
    uint64_t levels_freed;                   /* as of this many that were freed */
    struct tenant_slot tenants[TENANT_SLOTS];
    uint32_t other_tenant, n_tenants;
    struct line_counters *line_counters;
    struct buf tenant_text;
    struct record rec;         /* the one in work: large, so not on the stack for every line */
    int64_t mono_ns, wall_ns;  /* of the feed in work */
};

/* Where an output stands that stops at this record. */
struct place {
    uint64_t before; /* the record is not in: read the current raw line again, and this stream from rec->offset */
    uint64_t after;  /* the record is in */
};

struct work {
    struct pipeline *p;
    struct source *source;
    struct tail_pass *pass;
};

/* pipeline.c: the way of one record. rec: origin, offset, stream, line, flags and frame time are set.
 * end: behind its last raw line. */
void pipeline_process(struct work *w, struct record *rec, uint64_t end, uint64_t raw_bytes, struct place place);
/* This output leaves the pass before the raw line at this place, and reads it by itself: at once, or when it is no more blocked. */
void pipeline_part(struct work *w, uint32_t output, uint64_t at, bool is_blocked);
/* The rest of a line that was cut: read, and nothing becomes of it. */
void pipeline_skip(struct work *w, uint64_t start, uint64_t end);
/* lines.c: struct tail_sink.feed. */
size_t lines_feed(struct pipeline *p, struct source *s, struct tail_pass *pass, const struct feed *feed);

#endif
