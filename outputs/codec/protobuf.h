/*
 * protobuf.h - the wire format of protocol buffers, as far as log messages need it: varints and byte strings.
 *
 * Writing is by put functions into room that the caller has made; lengths of nested messages are known
 * before, by the size functions. Reading walks the fields of one message and borrows from it.
 */
#ifndef TAILRACE_OUTPUTS_CODEC_PROTOBUF_H
#define TAILRACE_OUTPUTS_CODEC_PROTOBUF_H

#include <sys/types.h>

#include "agent/base/slice.h"

#define PB_VARINT_MAX 10

static inline size_t pb_varint_size(uint64_t v)
{
    /* 7 bits a byte; 0 takes one. */
    return (size_t)((64 - __builtin_clzll(v | 1)) + 6) / 7;
}

/* Writes at most PB_VARINT_MAX bytes; how many. */
static inline size_t pb_put_varint(char *at, uint64_t v)
{
    size_t n = 0;
    for (; v >= 0x80; v >>= 7)
        at[n++] = (char)(v | 0x80);
    at[n++] = (char)v;
    return n;
}

/* Bytes taken (> 0), or -EBADMSG when it is cut or longer than 64 bits. */
NODISCARD ssize_t pb_get_varint(struct slice in, uint64_t *ret_value);

/* A field of bytes: key, length and content. number < 16. */
static inline size_t pb_bytes_size(size_t len)
{
    return 1 + pb_varint_size(len) + len;
}

/* Its key and length; the content follows. */
static inline size_t pb_put_bytes_head(char *at, unsigned number, size_t len)
{
    at[0] = (char)(number << 3 | 2);
    return 1 + pb_put_varint(at + 1, len);
}

static inline size_t pb_put_bytes(char *at, unsigned number, struct slice s)
{
    size_t n = pb_put_bytes_head(at, number, s.len);
    if (s.len > 0)
        memcpy(at + n, s.ptr, s.len);
    return n + s.len;
}

static inline size_t pb_put_uint(char *at, unsigned number, uint64_t v)
{
    at[0] = (char)(number << 3);
    return 1 + pb_put_varint(at + 1, v);
}

enum pb_wire { PB_VARINT = 0, PB_FIXED64 = 1, PB_BYTES = 2, PB_FIXED32 = 5 };

struct pb_field {
    uint64_t number;
    enum pb_wire wire;
    uint64_t value;     /* numbers */
    struct slice bytes; /* PB_BYTES */
};

/* 1 = a field, and *in is behind it; 0 = the end; -EBADMSG. */
NODISCARD int pb_next(struct slice *in, struct pb_field *ret_field);

#endif
