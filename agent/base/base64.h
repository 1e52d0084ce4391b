/*
 * base64.h - RFC 4648's base64, the standard alphabet, both ways.
 */
#ifndef TAILRACE_BASE_BASE64_H
#define TAILRACE_BASE_BASE64_H

#include "agent/base/buf.h"

/* Appended in one line, padded. */
NODISCARD int base64_encode(struct slice s, struct buf *to);
/* Appended; ASCII blanks and '=' are passed over wherever they stand. -EBADMSG: another byte; `to` then holds what came before. */
NODISCARD int base64_decode(struct slice s, struct buf *to);

#endif
