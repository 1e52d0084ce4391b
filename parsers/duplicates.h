/*
 * duplicates.h - has a key been seen before in this object?
 *
 * Elasticsearch refuses a document with a key twice, at any depth and after unescaping. A set of 64-bit fingerprints of
 * (object, key) over one line, in three steps of size, so that a usual line touches 1 KiB. A false "yes" costs a line its
 * structure (chance about 2^-64 a pair), a false "no" cannot be.
 *
 * Limits: DUPLICATES_KEYS_MAX keys a line; beyond, the answer is "yes" (Elasticsearch takes 1,000 fields).
 */
#ifndef TAILRACE_PARSERS_DUPLICATES_H
#define TAILRACE_PARSERS_DUPLICATES_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/macros.h"

#define DUPLICATES_KEYS_MAX 16384

struct duplicates {
    uint64_t *steps[3]; /* one allocation */
    uint64_t seed;
    unsigned step;
    uint32_t n;         /* in the present step */
};

NODISCARD int duplicates_init(struct duplicates *d); /* 0 or -ENOMEM */
void duplicates_deinit(struct duplicates *d);        /* zeroed is fine */

void duplicates_begin(struct duplicates *d);         /* a new line */
/* object: any number that is the object's own in this line. key_hash: of the decoded key. True = seen before. */
bool duplicates_add(struct duplicates *d, uint32_t object, uint64_t key_hash);

#endif
