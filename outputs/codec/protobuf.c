#include "outputs/codec/protobuf.h"

#include <errno.h>

#include "agent/base/bytes.h"

ssize_t pb_get_varint(struct slice in, uint64_t *ret_value)
{
    uint64_t v = 0;
    for (size_t i = 0; i < in.len && i < PB_VARINT_MAX; i++) {
        unsigned char c = (unsigned char)in.ptr[i];
        if (i == PB_VARINT_MAX - 1 && c > 1) /* the tenth byte holds bit 63 alone */
            return -EBADMSG;
        v |= (uint64_t)(c & 0x7f) << (7 * i);
        if (c < 0x80) {
            *ret_value = v;
            return (ssize_t)i + 1;
        }
    }
    return -EBADMSG;
}

/* Takes a fixed number of size bytes. */
static int next_fixed(struct slice *in, size_t size, struct pb_field *f)
{
    if (in->len < size)
        return -EBADMSG;
    f->value = size == 8 ? get_le64(in->ptr) : get_le32(in->ptr);
    *in = slice_from(*in, size);
    return 1;
}

static int next_varint(struct slice *in, uint64_t *ret_value)
{
    ssize_t n = pb_get_varint(*in, ret_value);
    if (n < 0)
        return -EBADMSG;
    *in = slice_from(*in, (size_t)n);
    return 1;
}

static int next_bytes(struct slice *in, struct pb_field *f)
{
    int r = next_varint(in, &f->value);
    if (r < 0 || f->value > in->len)
        return -EBADMSG;
    f->bytes = slice_first(*in, (size_t)f->value);
    *in = slice_from(*in, f->bytes.len);
    return 1;
}

int pb_next(struct slice *in, struct pb_field *ret_field)
{
    if (in->len == 0)
        return 0;
    struct slice rest = *in;
    struct pb_field f = { 0 };
    uint64_t key;
    int r = next_varint(&rest, &key);
    if (r < 0 || key >> 3 == 0 || key >> 3 > 0x1fffffff)
        return -EBADMSG;
    f.number = key >> 3;
    switch (key & 7) {
    case PB_VARINT:
        f.wire = PB_VARINT;
        r = next_varint(&rest, &f.value);
        break;
    case PB_FIXED64:
        f.wire = PB_FIXED64;
        r = next_fixed(&rest, 8, &f);
        break;
    case PB_BYTES:
        f.wire = PB_BYTES;
        r = next_bytes(&rest, &f);
        break;
    case PB_FIXED32:
        f.wire = PB_FIXED32;
        r = next_fixed(&rest, 4, &f);
        break;
    default:
        return -EBADMSG; /* groups are of another age */
    }
    if (r < 0)
        return r;
    *in = rest;
    *ret_field = f;
    return 1;
}
