/*
 * json_record.h - a JSON line -> the fields of a record.
 *
 * Owns: the trie of keys and the scanner. Slices it leaves in the record point into the line or the scanner's buffer and
 * live until the next json_record_read.
 */
#ifndef TAILRACE_PARSERS_JSON_RECORD_H
#define TAILRACE_PARSERS_JSON_RECORD_H

#include "parsers/json.h"
#include "parsers/parser.h"
#include "parsers/timestamp.h"

struct json_record;

NODISCARD int json_record_new(const struct parser_conf *conf, struct json_record **ret_reader); /* -ENOMEM, -ENOSPC */
void json_record_free(struct json_record *r);

/* Empties what a parser fills in *rec; what the caller set stays. */
void record_clear(struct record *rec, size_t n_wanted);

/* JSON_OBJECT: *rec is filled but for kind. JSON_STOPPED: is_out said so. JSON_BAD: what is in *rec has no meaning; the
 * caller begins anew. env: for times without an offset or a year. */
enum json_result json_record_read(struct json_record *r, const struct timestamp_env *env, struct record *rec,
                                  parser_is_out_fn *is_out, void *ctx);

#endif
