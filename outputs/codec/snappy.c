#include "outputs/codec/snappy.h"

#include <assert.h>
#include <errno.h>

#include <snappy-c.h>

#include "outputs/codec/protobuf.h"

/* Snappy's own piece: more gains nothing, for its copies never reach further back. */
#define PIECE_BYTES (64 * KIB)

/* No element makes more of its bytes than a 64 byte copy of three; the preamble is on top. */
#define EXPANSION_MAX 22

/* Compresses one piece and keeps its elements only: the block has one preamble for all. */
static int append_elements(struct buf *out, struct slice piece)
{
    size_t room = snappy_max_compressed_length(piece.len);
    int r = buf_reserve(out, room);
    if (r < 0)
        return r;
    char *at = out->ptr + out->len;
    snappy_status status = snappy_compress(piece.ptr, piece.len, at, &room);
    assert(status == SNAPPY_OK); /* it fails for want of room only */
    size_t preamble = pb_varint_size(piece.len);
    memmove(at, at + preamble, room - preamble);
    out->len += room - preamble;
    return 0;
}

int snappy_writer_begin(struct snappy_writer *w, struct buf *out, size_t total)
{
    *w = (struct snappy_writer){ .out = out, .out_start = out->len, .left = total };
    buf_init(&w->stage, PIECE_BYTES);
    char preamble[PB_VARINT_MAX];
    return buf_append(out, preamble, pb_put_varint(preamble, total));
}

static int flush_stage(struct snappy_writer *w)
{
    int r = append_elements(w->out, buf_slice(&w->stage));
    buf_reset(&w->stage);
    return r;
}

int snappy_writer_add(struct snappy_writer *w, struct slice s)
{
    assert(s.len <= w->left);
    w->left -= s.len;
    while (s.len > 0) {
        bool is_direct = w->stage.len == 0 && s.len >= PIECE_BYTES;
        size_t n = MIN(s.len, PIECE_BYTES - w->stage.len);
        int r = is_direct ? append_elements(w->out, slice_first(s, n)) : buf_append(&w->stage, s.ptr, n);
        if (r == 0 && w->stage.len == PIECE_BYTES)
            r = flush_stage(w);
        if (r < 0)
            return r;
        s = slice_from(s, n);
    }
    return 0;
}

int snappy_writer_end(struct snappy_writer *w, int r)
{
    if (r == 0 && w->stage.len > 0)
        r = flush_stage(w);
    assert(r < 0 || w->left == 0);
    buf_deinit(&w->stage);
    if (r < 0)
        w->out->len = w->out_start;
    return r;
}

int snappy_block_compress(struct slice in, struct buf *out)
{
    struct snappy_writer w;
    int r = snappy_writer_begin(&w, out, in.len);
    if (r == 0)
        r = snappy_writer_add(&w, in);
    return snappy_writer_end(&w, r);
}

/* Length of the preamble too. */
static int read_preamble(struct slice in, size_t *ret_content, size_t *ret_preamble)
{
    uint64_t v;
    ssize_t n = pb_get_varint(in, &v);
    if (n < 0 || v > UINT32_MAX || v > (uint64_t)(in.len - (size_t)n) * EXPANSION_MAX)
        return -EBADMSG;
    *ret_content = (size_t)v;
    *ret_preamble = (size_t)n;
    return 0;
}

int snappy_block_length(struct slice in, size_t *ret_len)
{
    size_t preamble;
    return read_preamble(in, ret_len, &preamble);
}

int snappy_block_decompress(struct slice in, struct buf *out)
{
    size_t content, preamble;
    int r = read_preamble(in, &content, &preamble);
    if (r == 0)
        r = buf_reserve(out, MAX(content, (size_t)1)); /* never NULL for snappy */
    if (r < 0)
        return r;
    size_t room = content;
    if (snappy_uncompress(in.ptr, in.len, out->ptr + out->len, &room) != SNAPPY_OK || room != content)
        return -EBADMSG;
    out->len += content;
    return 0;
}

int snappy_join(const struct slice *blocks, size_t n, struct buf *out)
{
    size_t content, preamble, total = 0, len_before = out->len;
    for (size_t i = 0; i < n; i++) {
        int r = read_preamble(blocks[i], &content, &preamble);
        if (r < 0)
            return r;
        total += content;
    }
    if (total > UINT32_MAX)
        return -ENOBUFS;
    char varint[PB_VARINT_MAX];
    int r = buf_append(out, varint, pb_put_varint(varint, total));
    for (size_t i = 0; r == 0 && i < n; i++) {
        (void)read_preamble(blocks[i], &content, &preamble); /* it was fine above */
        r = buf_append_slice(out, slice_from(blocks[i], preamble));
    }
    if (r < 0)
        out->len = len_before;
    return r;
}
