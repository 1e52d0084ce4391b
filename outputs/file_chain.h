/*
 * file_chain.h - the chain through an archive: behind each block of lines a line of its own that says how the block and
 * all before it hash, so that a line that was removed, added or changed shows.
 *
 *   {"@chain":{"lines":12,"bytes":4711,"prev":"64 hex digits","hash":"64 hex digits"}}
 *
 * hash = SHA-256(prev ‖ SHA-256(block)), the block being the bytes between two links, newlines included: what one frame
 * brought, about a thousand lines. prev is the hash of the link before, in the same file or, for a file's first link, in
 * the file of the same folder that was written before; 64 zeros where a chain begins. No record is such a line: records
 * carry names of ours behind whatever the log said.
 *
 * Who can write to the archive can make it all anew. The hashes that go out in the event file.chained, and from there to
 * another machine, are what such an archive is compared with (tailrace archive verify --hash).
 */
#ifndef TAILRACE_OUTPUTS_FILE_CHAIN_H
#define TAILRACE_OUTPUTS_FILE_CHAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/buf.h"

#define CHAIN_HASH_BYTES 32
#define CHAIN_HEX_BYTES (2 * CHAIN_HASH_BYTES)
/* The longest link with its newline, two numbers of 20 digits. */
#define CHAIN_LINK_MAX 256

struct chain_hash {
    uint8_t bytes[CHAIN_HASH_BYTES];
};

struct chain_link {
    uint64_t lines, bytes;
    struct chain_hash prev, hash;
};

static inline bool chain_hash_eq(const struct chain_hash *a, const struct chain_hash *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}
bool chain_hash_is_zero(const struct chain_hash *h);
void chain_hash_hex(const struct chain_hash *h, char hex[CHAIN_HEX_BYTES + 1]);
NODISCARD bool chain_hash_parse(struct slice hex, struct chain_hash *ret);

/* The digest of a block in pieces; chain_block_end() gives the link's hash and begins the next block. */
struct chain_block;
NODISCARD int chain_block_new(struct chain_block **ret_block);
void chain_block_free(struct chain_block *b); /* NULL is fine */
NODISCARD int chain_block_add(struct chain_block *b, struct slice bytes);
NODISCARD int chain_block_end(struct chain_block *b, const struct chain_hash *prev, struct chain_hash *ret);

/* Appends the link of the block that is in b already, all of it, and moves *hash on. */
NODISCARD int chain_close_block(struct buf *b, struct chain_hash *hash);

/* Is this line (without its newline) a link, to the byte as chain_close_block() writes them? */
bool chain_parse_link(struct slice line, struct chain_link *ret);

/* The last link of a file of len bytes: 1; 0 when its end is none; negative errno. */
NODISCARD int chain_last(int fd, uint64_t len, struct chain_hash *ret);

#endif
