/*
 * limits.h - every fixed limit, its reason, and what happens there.
 */
#ifndef TAILRACE_BASE_LIMITS_H
#define TAILRACE_BASE_LIMITS_H

#include "agent/base/macros.h"

/* A longer line is cut here, shipped marked, the rest counted (altered{cut}). */
#define LINE_BYTES_MAX (1 * MIB)
/* One turn of one file; then the next ready file. Busy files cannot starve the rest. */
#define TURN_BYTES (256 * KIB)
/* Deeper JSON is shipped as text (yajl itself accepts any depth). */
#define JSON_DEPTH_MAX 128
/* record.KEY paths of the whole configuration, wanted keys included. More is a config error. */
#define WANTED_KEYS_MAX 64
/* Top-level keys of one line that may clash with trusted names; more: the line is shipped as text. */
#define SUSPECT_KEYS_MAX 16
/* Outputs of one agent: positions and masks are sized by it. More is a config error. */
#define OUTPUTS_MAX 16
#define INPUTS_MAX 64
#define ROUTES_MAX 256
#define COUNTERS_MAX 64
/* Streams joined apart in one file: none, stdout, stderr. */
#define STREAMS_MAX 3
/* Tenant names: Loki takes 150 bytes. Longer ones go to tenants.other. */
#define TENANT_BYTES_MAX 150
/* One evaluated template (label, index, path, tenant): longer is cut. */
#define TEMPLATE_OUT_MAX (2 * KIB)
/* The bytes before a committed offset that are checked on resume. */
#define TAIL_CRC_BYTES 64
/* A file's fingerprint covers at most this much of its start. */
#define FINGERPRINT_BYTES (1 * KIB)
/* Below this length a file is known by its inode alone and is never adopted under another. */
#define ADOPT_BYTES_MIN 64

/* Memory, and who waits when it is used up: budget.h. */

#endif
