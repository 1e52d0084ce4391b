/*
 * pem.h - when the first certificate of a PEM file ends. Enough DER to find notAfter, and nothing else.
 */
#ifndef TAILRACE_DELIVER_PEM_H
#define TAILRACE_DELIVER_PEM_H

#include <stdint.h>

#include "agent/base/slice.h"

/* 0, or -EBADMSG when there is no certificate or its bytes are not one. */
NODISCARD int pem_not_after(struct slice pem, int64_t *ret_unix_s);

#endif
