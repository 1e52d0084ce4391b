/*
 * frame.h - the bytes of the queue's files: segment header, frame header, meta. Byte tables: docs/FORMATS.md.
 *
 * Pure: encodes to and decodes from memory. All numbers little-endian; every decoder takes any bytes and answers
 * -EBADMSG for what is not valid, -EPROTO for what a newer version wrote.
 */
#ifndef TAILRACE_QUEUE_FRAME_H
#define TAILRACE_QUEUE_FRAME_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/queue/queue.h"

#define SEGMENT_HEAD_BYTES 128
#define FRAME_HEAD_BYTES 64
#define FRAME_ALIGN 8
#define UUID_BYTES 16
#define FORMAT_MAJOR 1
#define FORMAT_MINOR 0
/* A longer meta or body does not count as a frame: no length from disk allocates more than this. */
#define FRAME_META_MAX (64 * MIB)
#define FRAME_BODY_MAX (64 * MIB)
/* Of a SNAP's meta when inflated. 10,000 files take 3 MiB. */
#define SNAP_RAW_MAX (256 * MIB)
/* Numbers above this are not ours: additions to them could overflow. */
#define SEQ_MAX (UINT64_C(1) << 62)
/* The tenant of lines that were lost with the bytes that said whose they were. */
#define TENANT_UNKNOWN "unknown"

struct segment_head {
    uint16_t major, minor;
    uint8_t uuid[UUID_BYTES];
    uint64_t id, first_seq, fence;
    int64_t created_ns;
    uint32_t salt, wire_form;
};

void segment_head_encode(const struct segment_head *h, uint8_t out[SEGMENT_HEAD_BYTES]);
/* -EBADMSG damaged, -EPROTO a newer major version. */
NODISCARD int segment_head_decode(const uint8_t in[SEGMENT_HEAD_BYTES], struct segment_head *ret);

struct frame_hdr {
    uint8_t type, flags;
    uint64_t seq, synced_seq;
    uint32_t meta_len, body_len, raw_len, lines;
    int64_t built_ns;
    uint32_t salt, meta_crc, body_crc;
};

void frame_hdr_encode(const struct frame_hdr *h, uint8_t out[FRAME_HEAD_BYTES]);
/* The header alone: magic, CRC, bounds. -EBADMSG. */
NODISCARD int frame_hdr_decode(const uint8_t in[FRAME_HEAD_BYTES], struct frame_hdr *ret);
/* Header, meta, body and padding. */
static inline uint64_t frame_bytes(const struct frame_hdr *h)
{
    uint64_t n = FRAME_HEAD_BYTES + (uint64_t)h->meta_len + h->body_len;
    return (n + FRAME_ALIGN - 1) & ~(uint64_t)(FRAME_ALIGN - 1);
}

uint32_t frame_crc(struct slice s);
/* Continues a CRC over more bytes; starts from 0. */
uint32_t frame_crc_more(uint32_t crc, const void *ptr, size_t len);

enum meta_tag {
    META_ROUTE = 1,
    META_FILE,
    META_POS,
    META_PART,
    META_CURSOR, /* reserved: the position of a source that is not a file */
    META_GONE,
    META_LOST,
    META_COUNT,
    META_ORIG,
    META_RUNS,
    META_LEDGER,
    META_TOTAL,
    META_TALLY,   /* in dead/: dead and lost lines of a tenant, cumulative */
    META_LOSS,    /* in dead/: lines that are lost */
    META_SPAN,    /* in dead/: seqs whose loss is counted */
    META_DROPPED, /* in dead/: files up to this id are counted as lost */
    META_LETTER,  /* in dead/: what became of a dead letter; in the queue: which letter this frame was */
    META_SOURCES, /* which records of which files are in the frame: agent/base/sources.h */
    META_HELD,    /* in dead/: what other frames hold of ranges that are to be read again */
    META_MISSED,  /* in dead/: lines that a segment lacks and whose loss is counted */
    META_GIVEN,   /* in dead/: a parked frame whose lines are counted as lost */
    META_TAGS
};

struct meta_item {
    uint8_t tag;
    struct slice bytes;
};

/* One item: starts it, returns where its length stands in *ret_mark; meta_end() fills the length in. */
NODISCARD int meta_begin(struct buf *b, enum meta_tag tag, bool is_critical, size_t *ret_mark);
void meta_end(struct buf *b, size_t mark);
NODISCARD int meta_put(struct buf *b, enum meta_tag tag, bool is_critical, struct slice bytes);
/* Takes the next item off rest: 1, 0 at the end, -EBADMSG, -EPROTO for an unknown critical tag. Unknown others pass. */
NODISCARD int meta_next(struct slice *rest, struct meta_item *ret);

NODISCARD int meta_put_file(struct buf *b, const struct file_ident *f);
NODISCARD int meta_put_position(struct buf *b, const struct file_position *p); /* POS and its PARTs */
NODISCARD int meta_put_count(struct buf *b, struct slice input, struct slice tenant, uint64_t lines);
NODISCARD int meta_put_missed(struct buf *b, uint64_t segment_id, struct slice input, struct slice tenant, uint64_t lines);
NODISCARD int meta_put_ledger(struct buf *b, const struct ledger_row *row);
NODISCARD int meta_put_orig(struct buf *b, const struct frame_orig *o);
NODISCARD int meta_put_lost(struct buf *b, const struct lost_range *l);
NODISCARD int meta_put_u64s(struct buf *b, enum meta_tag tag, bool is_critical, const uint64_t *v, size_t n);

/* Slices in results point into the item. */
NODISCARD int meta_get_file(struct slice s, struct file_ident *ret);
NODISCARD int meta_get_position(struct slice s, struct file_position *ret); /* without parts */
NODISCARD int meta_get_part(struct slice s, uint64_t *ret_incarnation, struct position_part *ret);
/* A PART that follows a POS: added to it when it is of its file and there is room. */
void meta_add_part(struct slice s, struct file_position *pos);
NODISCARD int meta_get_count(struct slice s, struct slice *ret_input, struct slice *ret_tenant, uint64_t *ret_lines);
NODISCARD int meta_get_missed(struct slice s, uint64_t *ret_segment_id, struct slice *ret_input, struct slice *ret_tenant,
                              uint64_t *ret_lines);
NODISCARD int meta_get_ledger(struct slice s, struct ledger_row *ret);
NODISCARD int meta_get_orig(struct slice s, struct frame_orig *ret);
NODISCARD int meta_get_lost(struct slice s, struct lost_range *ret);

/* SNAP: {u32 inflated length, zlib stream}. */
NODISCARD int meta_pack(struct slice raw, struct buf *out);
NODISCARD int meta_unpack(struct slice packed, struct buf *out);

#endif
