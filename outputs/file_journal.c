#include "outputs/file_journal.h"

#include <errno.h>

#include "agent/base/bytes.h"

enum { HEAD_BYTES = 8, SNAPSHOT_BYTES = 1 + 8 + 8 + 4, FILE_BYTES = 1 + 8 + 8 + 8, GZ_BYTES = 1 + 2,
       SERIES_BYTES = 1 + 8 + CHAIN_HASH_BYTES };
static const char magic[8] = { 'T', 'R', 'F', 'I', 'L', 'E', 'S', '1' };

/* zlib's and gzip's polynomial, four bits at a time: a table of 16 words is enough for the speed of an archive. */
uint32_t file_journal_crc(uint32_t crc, struct slice s)
{
    static const uint32_t table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    crc = ~crc;
    for (size_t i = 0; i < s.len; i++) {
        crc ^= (unsigned char)s.ptr[i];
        crc = table[crc & 0x0f] ^ crc >> 4;
        crc = table[crc & 0x0f] ^ crc >> 4;
    }
    return ~crc;
}

/* content: fixed, then a, then b. */
static int put_record(struct buf *out, struct slice fixed, struct slice a, struct slice b)
{
    size_t len = fixed.len + a.len + b.len;
    char head[HEAD_BYTES];
    if (len > FILE_JOURNAL_RECORD_MAX)
        return -ENAMETOOLONG;
    int r = buf_reserve(out, HEAD_BYTES + len);
    if (r < 0)
        return r;
    put_le32(head, (uint32_t)len);
    put_le32(head + 4, file_journal_crc(file_journal_crc(file_journal_crc(0, fixed), a), b));
    r = buf_append(out, head, sizeof(head));
    if (r == 0)
        r = buf_append_slice(out, fixed);
    if (r == 0)
        r = buf_append_slice(out, a);
    return r < 0 ? r : buf_append_slice(out, b);
}

int file_journal_put_snapshot(struct buf *out, uint64_t seq, uint32_t n_records)
{
    char fixed[SNAPSHOT_BYTES];
    fixed[0] = 'S';
    memcpy(fixed + 1, magic, sizeof(magic));
    put_le64(fixed + 9, seq);
    put_le32(fixed + 17, n_records);
    return put_record(out, slice_of(fixed, sizeof(fixed)), SLICE(""), SLICE(""));
}

int file_journal_put_file(struct buf *out, const struct file_journal_file *f)
{
    char fixed[FILE_BYTES];
    fixed[0] = 'F';
    put_le64(fixed + 1, f->len);
    put_le64(fixed + 9, f->inode);
    put_le64(fixed + 17, (uint64_t)f->written_ns);
    return put_record(out, slice_of(fixed, sizeof(fixed)), f->path, SLICE(""));
}

int file_journal_put_gz(struct buf *out, struct slice path, struct slice gz_name)
{
    char fixed[GZ_BYTES];
    fixed[0] = 'Z';
    put_le16(fixed + 1, (uint16_t)path.len);
    return put_record(out, slice_of(fixed, sizeof(fixed)), path, gz_name);
}

int file_journal_put_series(struct buf *out, const struct file_journal_series *s)
{
    char fixed[SERIES_BYTES];
    fixed[0] = 'C';
    put_le64(fixed + 1, (uint64_t)s->written_ns);
    memcpy(fixed + 9, s->last.bytes, sizeof(s->last.bytes));
    return put_record(out, slice_of(fixed, sizeof(fixed)), s->folder, SLICE(""));
}

/* Takes a whole record off the front. */
static bool take_record(struct slice *rest, struct slice *ret)
{
    if (rest->len < HEAD_BYTES)
        return false;
    size_t len = get_le32(rest->ptr);
    if (len < 1 || len > FILE_JOURNAL_RECORD_MAX || len > rest->len - HEAD_BYTES)
        return false;
    struct slice content = slice_of(rest->ptr + HEAD_BYTES, len);
    if (file_journal_crc(0, content) != get_le32(rest->ptr + 4))
        return false;
    *ret = content;
    *rest = slice_from(*rest, HEAD_BYTES + len);
    return true;
}

static int read_record(struct slice c, const struct file_journal_reader *reader)
{
    if (c.ptr[0] == 'F' && c.len > FILE_BYTES) {
        struct file_journal_file f = { .path = slice_from(c, FILE_BYTES), .len = get_le64(c.ptr + 1),
                                       .inode = get_le64(c.ptr + 9), .written_ns = (int64_t)get_le64(c.ptr + 17) };
        if (f.path.ptr[0] != '/' || slice_find_byte(f.path, '\0') >= 0)
            return -EBADMSG;
        return reader->file == NULL ? 0 : reader->file(reader->ctx, &f);
    }
    if (c.ptr[0] == 'Z' && c.len > GZ_BYTES && get_le16(c.ptr + 1) < c.len - GZ_BYTES) {
        size_t path_len = get_le16(c.ptr + 1);
        struct slice name = slice_from(c, GZ_BYTES + path_len);
        if (slice_find_byte(name, '/') >= 0 || slice_find_byte(name, '\0') >= 0)
            return -EBADMSG;
        return reader->gz == NULL ? 0 : reader->gz(reader->ctx, slice_first(slice_from(c, GZ_BYTES), path_len), name);
    }
    if (c.ptr[0] == 'C' && c.len > SERIES_BYTES) {
        struct file_journal_series s = { .folder = slice_from(c, SERIES_BYTES), .written_ns = (int64_t)get_le64(c.ptr + 1) };
        memcpy(s.last.bytes, c.ptr + 9, sizeof(s.last.bytes));
        if (s.folder.ptr[0] != '/' || slice_find_byte(s.folder, '\0') >= 0)
            return -EBADMSG;
        return reader->series == NULL ? 0 : reader->series(reader->ctx, &s);
    }
    return -EBADMSG;
}

int file_journal_read(struct slice content, const struct file_journal_reader *reader, uint64_t *ret_seq)
{
    struct slice rest = content, c;
    if (!take_record(&rest, &c) || c.len != SNAPSHOT_BYTES || c.ptr[0] != 'S' ||
        memcmp(c.ptr + 1, magic, sizeof(magic)) != 0)
        return -EBADMSG;
    uint64_t seq = get_le64(c.ptr + 9);
    uint32_t n = get_le32(c.ptr + 17);
    for (uint64_t i = 0; take_record(&rest, &c); i++) {
        int r = read_record(c, reader);
        if (r < 0)
            return r;
        if (i < n && i + 1 == n)
            n = 0; /* the snapshot is whole */
    }
    if (n != 0)
        return -EBADMSG;
    *ret_seq = seq;
    return 0;
}
