/*
 * json_string.h - the inside of a JSON string -> the bytes it stands for.
 *
 * yajl decodes too, but it swallows the byte behind a lone high surrogate and writes lone low ones as bytes that are
 * not UTF-8; what we hand on must be UTF-8, so strings that anybody wants are decoded here.
 */
#ifndef TAILRACE_PARSERS_JSON_STRING_H
#define TAILRACE_PARSERS_JSON_STRING_H

#include <sys/types.h>

#include "agent/base/slice.h"

/* raw: what stands between the quotes. Writes at most raw.len bytes to out; a lone surrogate becomes U+FFFD. Returns
 * the bytes written, or -EBADMSG for an escape that JSON does not know. Bytes without a backslash are copied as is. */
NODISCARD ssize_t json_unescape(struct slice raw, char *out);

#endif
