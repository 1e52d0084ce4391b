/*
 * parser.h - bytes of one line -> record. Two steps, so that the pipeline can join parts between them:
 *
 *   parser_frame()   unwraps CRI or Docker json-file, or passes a plain line through;
 *   parser_record()  reads the joined payload: a JSON object, else text.
 *
 * Pure: no files, no clock, no threads; after parser_new nothing is allocated per line. One parser an input, used by
 * the reader thread only.
 */
#ifndef TAILRACE_PARSERS_PARSER_H
#define TAILRACE_PARSERS_PARSER_H

#include <stdbool.h>

#include "agent/base/err.h"
#include "agent/base/record.h"
#include "agent/base/setting.h"
#include "agent/base/template.h"

enum frame_format { FRAME_AUTO, FRAME_PLAIN, FRAME_CRI, FRAME_DOCKER }; /* plain: json and text */

struct parser_conf {
    enum frame_format frame;
    bool text_only;                     /* format: text - JSON is not looked for */
    struct slices level_keys, module_keys, time_keys, message_keys, tenant_keys; /* before the known names */
    const struct wanted_keys *wanted;   /* record.values[] in this order */
    const struct slice *trusted;        /* names, dotted paths, that suspects are collected for (all outputs' together) */
    size_t n_trusted;
    bool find_duplicates;               /* some output refuses duplicate keys */
    struct slice timezone;              /* for times without an offset: local, UTC, +02:00, Europe/Berlin */
};

struct parser;
NODISCARD int parser_new(const struct parser_conf *conf, struct parser **ret_parser, struct err *err);
void parser_free(struct parser *p);

struct framed {
    struct slice content;         /* valid until the next parser_frame */
    enum record_stream stream;
    bool is_framed;               /* CRI or Docker was recognised */
    bool is_partial;              /* the rest follows on the same stream */
    bool has_time;
    int64_t time_ns;
};

/* line without its LF. Never fails: what is not CRI or Docker is plain content with STREAM_NONE. A trailing CR is
 * removed. now_ns: for times without a year. */
void parser_frame(struct parser *p, struct slice line, int64_t now_ns, struct framed *ret_framed);

/* Asked when level or module became known; true = the line is out, stop reading it. */
typedef bool parser_is_out_fn(void *ctx, const struct record *rec);

enum parse_result { PARSE_OK, PARSE_OUT };

/*
 * Fills kind, flags (but CUT, MULTILINE, UNFINISHED), level, module, message, time_ns, tenant_key, values[], suspects
 * of *rec from rec->line; on entry rec->origin, line, read_ns and, with RECORD_HAS_TIME, the frame's time are set; the
 * record's own good time wins over the frame's. PARSE_OUT: is_out said so; the rest of *rec is not filled.
 * Slices point into rec->line or the parser's arena until the next parser_record.
 */
enum parse_result parser_record(struct parser *p, struct record *rec, parser_is_out_fn *is_out, void *ctx);

#endif
