/*
 * snappy.h - snappy's block format, as Loki wants it; not the framed .sz stream.
 *
 * A block is a varint of the content's length and elements that copy only from the 64 KiB they are in. So a
 * block can be made piece by piece, and blocks joined: the sum of the lengths, then all elements
 * (snappy_join).
 *
 * Errors: -ENOMEM, -ENOBUFS when out's max would be passed, -EBADMSG for what is no block. out is then as it
 * was.
 */
#ifndef TAILRACE_OUTPUTS_CODEC_SNAPPY_H
#define TAILRACE_OUTPUTS_CODEC_SNAPPY_H

#include "agent/base/buf.h"

/* Compresses many small slices as one block without putting them together first. */
struct snappy_writer {
    struct buf *out;
    struct buf stage; /* at most one piece */
    size_t out_start;
    size_t left; /* content still to come */
};

/* total: the length of all that will be written. Call snappy_writer_end() whatever happens in between. */
NODISCARD int snappy_writer_begin(struct snappy_writer *w, struct buf *out, size_t total);
NODISCARD int snappy_writer_add(struct snappy_writer *w, struct slice s);
/* r: what the last call said; with an error out becomes as it was. Asserts that all of total came. */
NODISCARD int snappy_writer_end(struct snappy_writer *w, int r);

/* Appends in as one block. */
NODISCARD int snappy_block_compress(struct slice in, struct buf *out);

/* The length of a block's content, as it says itself. */
NODISCARD int snappy_block_length(struct slice in, size_t *ret_len);

/* Appends the content of a block that is all of in. A length that the block cannot have is refused
 * unallocated. */
NODISCARD int snappy_block_decompress(struct slice in, struct buf *out);

/* Appends one block whose content is that of all blocks, in order. */
NODISCARD int snappy_join(const struct slice *blocks, size_t n, struct buf *out);

#endif
