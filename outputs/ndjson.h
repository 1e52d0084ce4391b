/*
 * ndjson.h - bodies of JSON lines, plain or as one gzip member: what the outputs on this machine share.
 */
#ifndef TAILRACE_OUTPUTS_NDJSON_H
#define TAILRACE_OUTPUTS_NDJSON_H

#include "outputs/enrich.h"
#include "outputs/output.h"

/* Above batch_bytes a body may grow by one line: 1 MiB, each byte escaped to six. */
#define NDJSON_LINE_MAX (8 * MIB)
/* Decoded bytes of one wire body: a bound for what we read back. */
#define NDJSON_DECODED_MAX (64 * MIB)

/* The one name beyond the enricher's own: text lines carry their time as @timestamp. For enricher_new. */
extern const struct slice ndjson_extra_names[1];

/* Appends the record as one line with its newline: enriched JSON, or {"message":…,"@timestamp":…} for text. When even an
 * empty body (is_empty) has no room, the start of the line. 0, -ENOBUFS or -ENOMEM; raw is then as it was. */
NODISCARD int ndjson_append(struct enricher *e, const struct record *rec, bool is_empty, struct buf *raw,
                            uint32_t *altered);

/* The lines of it->raw as items of this route. -EBADMSG when there is none or the last one is cut. */
NODISCARD int ndjson_split(struct slice route, struct items *it);
/* The chosen lines (NULL: all) again. */
NODISCARD int ndjson_join(const struct items *items, const uint8_t *choose, struct buf *raw);

#endif
