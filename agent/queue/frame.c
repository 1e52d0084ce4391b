#include "agent/queue/frame.h"

#include <assert.h>
#include <errno.h>
#include <libdeflate.h>

#include "agent/base/bytes.h"

/*
 * The segment header, SEGMENT_HEAD_BYTES at offset 0.
 *
 *   off  size  field
 *     0     8  magic "TRQSEG1\n"
 *     8     2  major            10  2  minor           12  4  header length (128)
 *    16    16  queue uuid
 *    32     8  segment id       40  8  first seq       48  8  fence
 *    56     8  created, unix ns 64  4  salt            68  4  wire form
 *    72    52  zero
 *   124     4  crc32 of 0..123
 *
 * It counts if magic and CRC are right, the length is 128 or more, and the numbers are in range.
 */
static const char segment_magic[8] = { 'T', 'R', 'Q', 'S', 'E', 'G', '1', '\n' };
static const char frame_magic[4] = { 'T', 'R', 'F', '1' };

uint32_t frame_crc_more(uint32_t crc, const void *ptr, size_t len)
{
    return len == 0 ? crc : libdeflate_crc32(crc, ptr, len);
}

uint32_t frame_crc(struct slice s)
{
    return frame_crc_more(0, s.ptr, s.len);
}

void segment_head_encode(const struct segment_head *h, uint8_t out[SEGMENT_HEAD_BYTES])
{
    memset(out, 0, SEGMENT_HEAD_BYTES);
    memcpy(out, segment_magic, sizeof(segment_magic));
    put_le16(out + 8, FORMAT_MAJOR);
    put_le16(out + 10, FORMAT_MINOR);
    put_le32(out + 12, SEGMENT_HEAD_BYTES);
    memcpy(out + 16, h->uuid, UUID_BYTES);
    put_le64(out + 32, h->id);
    put_le64(out + 40, h->first_seq);
    put_le64(out + 48, h->fence);
    put_le64(out + 56, (uint64_t)h->created_ns);
    put_le32(out + 64, h->salt);
    put_le32(out + 68, h->wire_form);
    put_le32(out + 124, frame_crc_more(0, out, 124));
}

int segment_head_decode(const uint8_t in[SEGMENT_HEAD_BYTES], struct segment_head *ret)
{
    if (memcmp(in, segment_magic, sizeof(segment_magic)) != 0 || get_le32(in + 124) != frame_crc_more(0, in, 124))
        return -EBADMSG;
    if (get_le16(in + 8) > FORMAT_MAJOR)
        return -EPROTO;
    struct segment_head h = {
        .major = get_le16(in + 8),
        .minor = get_le16(in + 10),
        .id = get_le64(in + 32),
        .first_seq = get_le64(in + 40),
        .fence = get_le64(in + 48),
        .created_ns = (int64_t)get_le64(in + 56),
        .salt = get_le32(in + 64),
        .wire_form = get_le32(in + 68),
    };
    memcpy(h.uuid, in + 16, UUID_BYTES);
    if (h.major != FORMAT_MAJOR || get_le32(in + 12) != SEGMENT_HEAD_BYTES || h.id == 0 || h.id > SEQ_MAX ||
        h.first_seq == 0 || h.first_seq > SEQ_MAX || h.fence >= h.first_seq)
        return -EBADMSG;
    *ret = h;
    return 0;
}

/*
 * The frame header, FRAME_HEAD_BYTES at an offset that 8 divides; meta and body follow, then zeros up to 8.
 *
 *   off  size  field
 *     0     4  magic "TRF1"
 *     4     1  type              5  1  flags            6  2  meta offset (64)
 *     8     8  seq              16  8  synced_seq
 *    24     4  meta length      28  4  body length     32  4  raw length   36  4  lines
 *    40     8  built, unix ns   48  4  salt of the segment
 *    52     4  meta crc         56  4  body crc        60  4  crc32 of 0..59
 */
void frame_hdr_encode(const struct frame_hdr *h, uint8_t out[FRAME_HEAD_BYTES])
{
    memcpy(out, frame_magic, sizeof(frame_magic));
    out[4] = h->type;
    out[5] = h->flags;
    put_le16(out + 6, FRAME_HEAD_BYTES);
    put_le64(out + 8, h->seq);
    put_le64(out + 16, h->synced_seq);
    put_le32(out + 24, h->meta_len);
    put_le32(out + 28, h->body_len);
    put_le32(out + 32, h->raw_len);
    put_le32(out + 36, h->lines);
    put_le64(out + 40, (uint64_t)h->built_ns);
    put_le32(out + 48, h->salt);
    put_le32(out + 52, h->meta_crc);
    put_le32(out + 56, h->body_crc);
    put_le32(out + 60, frame_crc_more(0, out, 60));
}

int frame_hdr_decode(const uint8_t in[FRAME_HEAD_BYTES], struct frame_hdr *ret)
{
    if (memcmp(in, frame_magic, sizeof(frame_magic)) != 0 || get_le32(in + 60) != frame_crc_more(0, in, 60))
        return -EBADMSG;
    struct frame_hdr h = {
        .type = in[4],
        .flags = in[5],
        .seq = get_le64(in + 8),
        .synced_seq = get_le64(in + 16),
        .meta_len = get_le32(in + 24),
        .body_len = get_le32(in + 28),
        .raw_len = get_le32(in + 32),
        .lines = get_le32(in + 36),
        .built_ns = (int64_t)get_le64(in + 40),
        .salt = get_le32(in + 48),
        .meta_crc = get_le32(in + 52),
        .body_crc = get_le32(in + 56),
    };
    if (h.type == 0 || get_le16(in + 6) != FRAME_HEAD_BYTES || h.seq == 0 || h.seq > SEQ_MAX ||
        h.synced_seq >= h.seq || h.meta_len > FRAME_META_MAX || h.body_len > FRAME_BODY_MAX)
        return -EBADMSG;
    *ret = h;
    return 0;
}

/* ---- meta: a list of {u8 tag, u8 critical, u16 zero, u32 length, bytes} ---- */

#define ITEM_HEAD_BYTES 8

int meta_begin(struct buf *b, enum meta_tag tag, bool is_critical, size_t *ret_mark)
{
    uint8_t head[ITEM_HEAD_BYTES] = { (uint8_t)tag, is_critical };
    size_t mark = b->len;
    int r = buf_append(b, head, sizeof(head));
    if (r < 0)
        return r;
    *ret_mark = mark;
    return 0;
}

void meta_end(struct buf *b, size_t mark)
{
    assert(b->len >= mark + ITEM_HEAD_BYTES);
    put_le32(b->ptr + mark + 4, (uint32_t)(b->len - mark - ITEM_HEAD_BYTES));
}

/* Two parts: most items are a fixed record with names behind it. */
static int put_parts(struct buf *b, enum meta_tag tag, bool is_critical, struct slice fixed, struct slice more)
{
    uint8_t head[ITEM_HEAD_BYTES] = { (uint8_t)tag, is_critical };
    size_t len = fixed.len + more.len;
    if (len > FRAME_META_MAX)
        return -ENOBUFS;
    put_le32(head + 4, (uint32_t)len);
    int r = buf_reserve(b, sizeof(head) + len);
    if (r < 0)
        return r;
    r = buf_append(b, head, sizeof(head));
    if (r == 0)
        r = buf_append_slice(b, fixed);
    if (r == 0)
        r = buf_append_slice(b, more);
    return r;
}

int meta_put(struct buf *b, enum meta_tag tag, bool is_critical, struct slice bytes)
{
    return put_parts(b, tag, is_critical, bytes, SLICE(""));
}

int meta_next(struct slice *rest, struct meta_item *ret)
{
    for (;;) {
        if (rest->len == 0)
            return 0;
        if (rest->len < ITEM_HEAD_BYTES)
            return -EBADMSG;
        uint32_t len = get_le32(rest->ptr + 4);
        if (len > rest->len - ITEM_HEAD_BYTES)
            return -EBADMSG;
        uint8_t tag = (uint8_t)rest->ptr[0];
        bool is_critical = rest->ptr[1] != 0;
        struct slice bytes = slice_of(rest->ptr + ITEM_HEAD_BYTES, len);
        *rest = slice_from(*rest, ITEM_HEAD_BYTES + (size_t)len);
        if (tag > 0 && tag < META_TAGS) {
            *ret = (struct meta_item){ tag, bytes };
            return 1;
        }
        if (is_critical)
            return -EPROTO;
    }
}

/* Two names behind a fixed record: the first one's length stands in the record, the second is the rest. */
static int put_named(struct buf *b, enum meta_tag tag, bool is_critical, struct slice fixed, struct slice a,
                     struct slice z)
{
    size_t mark;
    int r = meta_begin(b, tag, is_critical, &mark);
    if (r < 0)
        return r;
    r = buf_append_slice(b, fixed);
    if (r == 0)
        r = buf_append_slice(b, a);
    if (r == 0)
        r = buf_append_slice(b, z);
    if (r < 0) {
        b->len = mark;
        return r;
    }
    meta_end(b, mark);
    return 0;
}

static struct slice name_first(struct slice s)
{
    return slice_first(s, UINT16_MAX);
}

static int get_names(struct slice s, size_t fixed, uint16_t first_len, struct slice *ret_a, struct slice *ret_z)
{
    assert(s.len >= fixed);
    struct slice names = slice_from(s, fixed);
    if (first_len > names.len)
        return -EBADMSG;
    *ret_a = slice_first(names, first_len);
    *ret_z = slice_from(names, first_len);
    return 0;
}

/* FILE: incarnation dev ino generation btime first_seen (8 each), fp_len fp_crc (4), input length (2), zero (2), input,
 * path. */
#define FILE_BYTES 60

int meta_put_file(struct buf *b, const struct file_ident *f)
{
    uint8_t p[FILE_BYTES] = { 0 };
    struct slice input = name_first(f->input);
    put_le64(p, f->incarnation);
    put_le64(p + 8, f->dev);
    put_le64(p + 16, f->ino);
    put_le64(p + 24, f->generation);
    put_le64(p + 32, (uint64_t)f->btime_ns);
    put_le64(p + 40, (uint64_t)f->first_seen_ns);
    put_le32(p + 48, f->fp_len);
    put_le32(p + 52, f->fp_crc);
    put_le16(p + 56, (uint16_t)input.len);
    return put_named(b, META_FILE, true, slice_of(p, sizeof(p)), input, f->path);
}

int meta_get_file(struct slice s, struct file_ident *ret)
{
    if (s.len < FILE_BYTES)
        return -EBADMSG;
    struct file_ident f = {
        .incarnation = get_le64(s.ptr),
        .dev = get_le64(s.ptr + 8),
        .ino = get_le64(s.ptr + 16),
        .generation = get_le64(s.ptr + 24),
        .btime_ns = (int64_t)get_le64(s.ptr + 32),
        .first_seen_ns = (int64_t)get_le64(s.ptr + 40),
        .fp_len = get_le32(s.ptr + 48),
        .fp_crc = get_le32(s.ptr + 52),
    };
    int r = get_names(s, FILE_BYTES, get_le16(s.ptr + 56), &f.input, &f.path);
    if (r < 0 || f.fp_len > FINGERPRINT_BYTES)
        return -EBADMSG;
    *ret = f;
    return 0;
}

/* POS: incarnation start end (8 each), flags head_crc tail_crc (4), tail length (2), zero (2). */
#define POS_BYTES 40
/* PART: incarnation start (8 each), stream (1), zero (7). */
#define PART_BYTES 24

int meta_put_position(struct buf *b, const struct file_position *f)
{
    uint8_t p[POS_BYTES] = { 0 };
    put_le64(p, f->incarnation);
    put_le64(p + 8, f->start);
    put_le64(p + 16, f->end);
    put_le32(p + 24, f->flags);
    put_le32(p + 28, f->head_crc);
    put_le32(p + 32, f->tail_crc);
    put_le16(p + 36, f->tail_len);
    int r = meta_put(b, META_POS, true, slice_of(p, sizeof(p)));
    for (unsigned i = 0; r == 0 && i < f->n_parts; i++) {
        uint8_t part[PART_BYTES] = { 0 };
        put_le64(part, f->incarnation);
        put_le64(part + 8, f->parts[i].start);
        part[16] = f->parts[i].stream;
        r = meta_put(b, META_PART, true, slice_of(part, sizeof(part)));
    }
    return r;
}

int meta_get_position(struct slice s, struct file_position *ret)
{
    if (s.len < POS_BYTES)
        return -EBADMSG;
    struct file_position f = {
        .incarnation = get_le64(s.ptr),
        .start = get_le64(s.ptr + 8),
        .end = get_le64(s.ptr + 16),
        .flags = get_le32(s.ptr + 24),
        .head_crc = get_le32(s.ptr + 28),
        .tail_crc = get_le32(s.ptr + 32),
        .tail_len = get_le16(s.ptr + 36),
    };
    if (f.start > f.end || f.end > (uint64_t)INT64_MAX || f.tail_len > TAIL_CRC_BYTES)
        return -EBADMSG;
    *ret = f;
    return 0;
}

int meta_get_part(struct slice s, uint64_t *ret_incarnation, struct position_part *ret)
{
    if (s.len < PART_BYTES)
        return -EBADMSG;
    *ret_incarnation = get_le64(s.ptr);
    *ret = (struct position_part){ .start = get_le64(s.ptr + 8), .stream = (uint8_t)s.ptr[16] };
    return 0;
}

void meta_add_part(struct slice s, struct file_position *pos)
{
    uint64_t incarnation;
    struct position_part part;
    if (meta_get_part(s, &incarnation, &part) == 0 && incarnation == pos->incarnation && pos->n_parts < STREAMS_MAX)
        pos->parts[pos->n_parts++] = part;
}

/* COUNT: lines (8), input length (2), zero (2), input, tenant. */
#define COUNT_BYTES 12

int meta_put_count(struct buf *b, struct slice input, struct slice tenant, uint64_t lines)
{
    uint8_t p[COUNT_BYTES] = { 0 };
    input = name_first(input);
    put_le64(p, lines);
    put_le16(p + 8, (uint16_t)input.len);
    return put_named(b, META_COUNT, false, slice_of(p, sizeof(p)), input, tenant);
}

int meta_get_count(struct slice s, struct slice *ret_input, struct slice *ret_tenant, uint64_t *ret_lines)
{
    if (s.len < COUNT_BYTES || get_le64(s.ptr) > SEQ_MAX)
        return -EBADMSG;
    *ret_lines = get_le64(s.ptr);
    return get_names(s, COUNT_BYTES, get_le16(s.ptr + 8), ret_input, ret_tenant);
}

/* MISSED: segment id (8), then as COUNT. */
#define MISSED_BYTES (8 + COUNT_BYTES)

int meta_put_missed(struct buf *b, uint64_t segment_id, struct slice input, struct slice tenant, uint64_t lines)
{
    uint8_t p[MISSED_BYTES] = { 0 };
    input = name_first(input);
    put_le64(p, segment_id);
    put_le64(p + 8, lines);
    put_le16(p + 16, (uint16_t)input.len);
    return put_named(b, META_MISSED, false, slice_of(p, sizeof(p)), input, tenant);
}

int meta_get_missed(struct slice s, uint64_t *ret_segment_id, struct slice *ret_input, struct slice *ret_tenant,
                    uint64_t *ret_lines)
{
    if (s.len < MISSED_BYTES)
        return -EBADMSG;
    *ret_segment_id = get_le64(s.ptr);
    return meta_get_count(slice_from(s, 8), ret_input, ret_tenant, ret_lines);
}

/* LEDGER: read_lines read_bytes kept_lines (8 each), number of reasons (2), input length (2), the filtered counts (8
 * each), input, tenant. */
#define LEDGER_BYTES 28

int meta_put_ledger(struct buf *b, const struct ledger_row *row)
{
    uint8_t p[LEDGER_BYTES + 8 * FILTER_REASONS];
    struct slice input = name_first(row->input);
    put_le64(p, row->read_lines);
    put_le64(p + 8, row->read_bytes);
    put_le64(p + 16, row->kept_lines);
    put_le16(p + 24, FILTER_REASONS);
    put_le16(p + 26, (uint16_t)input.len);
    for (size_t i = 0; i < FILTER_REASONS; i++)
        put_le64(p + LEDGER_BYTES + 8 * i, row->filtered[i]);
    return put_named(b, META_LEDGER, false, slice_of(p, sizeof(p)), input, row->tenant);
}

int meta_get_ledger(struct slice s, struct ledger_row *ret)
{
    if (s.len < LEDGER_BYTES)
        return -EBADMSG;
    size_t reasons = get_le16(s.ptr + 24);
    if (reasons > (s.len - LEDGER_BYTES) / 8)
        return -EBADMSG;
    struct ledger_row row = {
        .read_lines = get_le64(s.ptr),
        .read_bytes = get_le64(s.ptr + 8),
        .kept_lines = get_le64(s.ptr + 16),
    };
    for (size_t i = 0; i < MIN(reasons, (size_t)FILTER_REASONS); i++)
        row.filtered[i] = get_le64(s.ptr + LEDGER_BYTES + 8 * i);
    int r = get_names(s, LEDGER_BYTES + 8 * reasons, get_le16(s.ptr + 26), &row.input, &row.tenant);
    if (r < 0)
        return r;
    *ret = row;
    return 0;
}

/* ORIG: seq (8), item status (4 each), reason length (2), zero (2), reason, text. */
#define ORIG_BYTES 20

int meta_put_orig(struct buf *b, const struct frame_orig *o)
{
    uint8_t p[ORIG_BYTES] = { 0 };
    struct slice reason = name_first(o->reason);
    put_le64(p, o->seq);
    put_le32(p + 8, o->item);
    put_le32(p + 12, (uint32_t)o->status);
    put_le16(p + 16, (uint16_t)reason.len);
    return put_named(b, META_ORIG, false, slice_of(p, sizeof(p)), reason, o->text);
}

int meta_get_orig(struct slice s, struct frame_orig *ret)
{
    if (s.len < ORIG_BYTES)
        return -EBADMSG;
    struct frame_orig o = {
        .seq = get_le64(s.ptr),
        .item = get_le32(s.ptr + 8),
        .status = (int32_t)get_le32(s.ptr + 12),
    };
    int r = get_names(s, ORIG_BYTES, get_le16(s.ptr + 16), &o.reason, &o.text);
    if (r < 0)
        return r;
    *ret = o;
    return 0;
}

/* LOST: incarnation start end (8 each), reason (4), zero (4). */
#define LOST_BYTES 32

int meta_put_lost(struct buf *b, const struct lost_range *l)
{
    uint8_t p[LOST_BYTES] = { 0 };
    put_le64(p, l->incarnation);
    put_le64(p + 8, l->start);
    put_le64(p + 16, l->end);
    put_le32(p + 24, l->reason);
    return meta_put(b, META_LOST, false, slice_of(p, sizeof(p)));
}

int meta_get_lost(struct slice s, struct lost_range *ret)
{
    if (s.len < LOST_BYTES || get_le32(s.ptr + 24) >= LOST_REASONS || get_le64(s.ptr + 8) > get_le64(s.ptr + 16))
        return -EBADMSG;
    *ret = (struct lost_range){ .incarnation = get_le64(s.ptr),
                                .start = get_le64(s.ptr + 8),
                                .end = get_le64(s.ptr + 16),
                                .reason = (enum lost_reason)get_le32(s.ptr + 24) };
    return 0;
}

int meta_put_u64s(struct buf *b, enum meta_tag tag, bool is_critical, const uint64_t *v, size_t n)
{
    size_t mark;
    int r = meta_begin(b, tag, is_critical, &mark);
    for (size_t i = 0; r == 0 && i < n; i++) {
        uint8_t p[8];
        put_le64(p, v[i]);
        r = buf_append(b, p, sizeof(p));
        if (r < 0)
            b->len = mark;
    }
    if (r < 0)
        return r;
    meta_end(b, mark);
    return 0;
}

/* ---- SNAP ---- */

/* Level 3: 3 MiB of file names take 15 ms, and rolls are rare. */
int meta_pack(struct slice raw, struct buf *out)
{
    if (raw.len > SNAP_RAW_MAX)
        return -ENOBUFS;
    struct libdeflate_compressor *c = libdeflate_alloc_compressor(3);
    if (c == NULL)
        return -ENOMEM;
    uint8_t len[4];
    put_le32(len, (uint32_t)raw.len);
    size_t bound = libdeflate_zlib_compress_bound(c, raw.len);
    int r = buf_append(out, len, sizeof(len));
    if (r == 0)
        r = buf_reserve(out, bound);
    if (r == 0) {
        size_t n = libdeflate_zlib_compress(c, raw.ptr, raw.len, out->ptr + out->len, bound);
        if (n == 0)
            r = -ENOBUFS;
        out->len += n;
    }
    libdeflate_free_compressor(c);
    return r;
}

/* Deflate cannot grow more than about 1032 times: a length beyond that is a lie, and is not allocated. */
int meta_unpack(struct slice packed, struct buf *out)
{
    if (packed.len < 4)
        return -EBADMSG;
    size_t raw_len = get_le32(packed.ptr);
    packed = slice_from(packed, 4);
    if (raw_len > SNAP_RAW_MAX || raw_len / 1100 > packed.len)
        return -EBADMSG;
    int r = buf_reserve(out, raw_len + 1);
    if (r < 0)
        return r;
    struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
    if (d == NULL)
        return -ENOMEM;
    size_t n = 0;
    enum libdeflate_result res =
        libdeflate_zlib_decompress(d, packed.ptr, packed.len, out->ptr + out->len, raw_len, &n);
    libdeflate_free_decompressor(d);
    if (res != LIBDEFLATE_SUCCESS || n != raw_len)
        return -EBADMSG;
    out->len += n;
    return 0;
}

/* ---- for the sender ---- */

int frame_meta_parse(struct slice meta, struct frame_row *rows, size_t rows_max, struct frame_meta *ret)
{
    *ret = (struct frame_meta){ .route = SLICE(""), .runs = SLICE("") };
    struct meta_item item;
    int r;
    while ((r = meta_next(&meta, &item)) > 0) {
        if (item.tag == META_ROUTE) {
            ret->route = item.bytes;
        } else if (item.tag == META_RUNS) {
            ret->runs = item.bytes;
        } else if (item.tag == META_ORIG) {
            r = meta_get_orig(item.bytes, &ret->orig);
        } else if (item.tag == META_COUNT) {
            struct frame_row row = { 0 };
            uint64_t lines;
            r = meta_get_count(item.bytes, &row.input, &row.tenant, &lines);
            if (r == 0 && lines > UINT32_MAX)
                r = -EBADMSG;
            if (r == 0) {
                row.lines = (uint32_t)lines;
                if (ret->n_rows < rows_max)
                    rows[ret->n_rows] = row;
                ret->n_rows++;
            }
        }
        if (r < 0)
            return r;
    }
    if (r < 0)
        return r;
    return ret->n_rows > rows_max ? -ENOBUFS : 0;
}
