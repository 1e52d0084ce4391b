/*
 * fuzz_queue.c - a queue's whole folder of any bytes, on the model disk (tests/sim/disk.h).
 *
 * First byte: 1 = what is delivered is acknowledged. Then files, {kind, length (2 bytes), bytes}:
 *
 *   kind & 15   which file: names[] below
 *   kind & 128  CRCs are put right first, so that a changed field is believed
 *   kind & 64   the bytes describe a segment or a cursor, which is then built by FORMATS.md:
 *               {first seq, fence, wire form}, frames {type, flags, step of seq, lag of synced seq, lines, meta length (2),
 *               body length, meta, body}; {generation, acked seq, 8 bytes of bits}
 *
 * Checked: the start succeeds, or says that a newer version wrote this; frames come in order and whole; what verify calls clean
 * is recovered without damage; a group can be appended; and the next start finds everything as the first one left it, nothing
 * damaged any more. The readers of the command line take the same folder.
 */
#include <errno.h>
#include <zlib.h>

#include "agent/base/bytes.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/queue/core.h"
#include "agent/queue/inspect.h"
#include "tests/fuzz/fuzz.h"
#include "tests/sim/disk.h"

#define DIR_PATH "/state/queue/out"
#define FILE_MAX (64 * KIB)
#define UUID 0x11
#define SALT 0x5a5a5a5au

static const struct {
    const char *path;
    uint64_t id; /* of a segment-like file, else 0 */
} names[16] = {
    { DIR_PATH "/cursor", 0 },
    { DIR_PATH "/0000000000000001.seg", 1 },
    { DIR_PATH "/0000000000000002.seg", 2 },
    { DIR_PATH "/0000000000000003.seg", 3 },
    { DIR_PATH "/0000000000000007.seg", 7 },
    { DIR_PATH "/dead/0000000000000001.dead", 1 },
    { DIR_PATH "/dead/0000000000000002.dead", 2 },
    { DIR_PATH "/parked/0000000000000001.parked", 1 },
    { DIR_PATH "/parked/0000000000000002.parked", 2 },
    { DIR_PATH "/lock", 0 },
    { DIR_PATH "/zzz.seg", 0 },
    { DIR_PATH "/quarantine/0000000000000001.seg", 0 },
    { DIR_PATH "/ffffffffffffffff.seg", UINT64_MAX },
    { DIR_PATH "/dead/x", 0 },
    { DIR_PATH "/parked/ffffffffffffffff.parked", UINT64_MAX },
    { DIR_PATH "/cursor.new", 0 },
};

static struct disk *d;

static int64_t now(void)
{
    return INT64_C(1767323045000000000);
}

static bool quiet(enum log_level level, const char *target)
{
    (void)level;
    (void)target;
    return false;
}

static void make(void)
{
    static const struct disk_conf conf = { .has_birth = true };
    if (d == NULL) {
        clock_set_source(now, now);
        log_set_filter(quiet);
        d = disk_new();
        queue_tuning = (struct queue_tuning){ .segment_bytes = 16 * KIB };
    }
    disk_use(d);
    disk_reset(d, &conf, 1);
    fuzz_check(disk_mkdir(d, "/state", DISK_STATE) == 0 && disk_mkdir(d, DIR_PATH "/dead", DISK_STATE) == 0 &&
                   disk_mkdir(d, DIR_PATH "/parked", DISK_STATE) == 0 && disk_mkdir(d, DIR_PATH "/quarantine", DISK_STATE) == 0,
               "mkdir");
}

/* ---- writing by FORMATS.md ---------------------------------------------------------------------------------------- */

static uint32_t crc(const char *p, size_t n)
{
    return (uint32_t)crc32(crc32(0, NULL, 0), (const unsigned char *)p, (unsigned)n);
}

static void put(struct buf *out, const void *p, size_t n)
{
    fuzz_check(buf_append(out, p, n) == 0, "memory");
}

static void put_header(struct buf *out, uint64_t id, uint64_t first_seq, uint64_t fence, uint32_t wire)
{
    char h[128] = "TRQSEG1\n";
    put_le16(h + 8, 1);
    put_le32(h + 12, sizeof(h));
    memset(h + 16, UUID, 16);
    put_le64(h + 32, id);
    put_le64(h + 40, first_seq);
    put_le64(h + 48, fence);
    put_le32(h + 64, SALT);
    put_le32(h + 68, wire);
    put_le32(h + 124, crc(h, 124));
    put(out, h, sizeof(h));
}

struct described {
    uint8_t type, flags, lines;
    uint64_t seq, synced;
    struct slice meta, body;
};

static void put_frame(struct buf *out, const struct described *f)
{
    char h[64] = "TRF1", packed[FILE_MAX];
    struct slice meta = f->meta;
    uLongf room = sizeof(packed) - 4;
    if (f->type == FRAME_SNAP) { /* {inflated length, zlib} */
        fuzz_check(compress((unsigned char *)packed + 4, &room, (const unsigned char *)meta.ptr, meta.len) == Z_OK, "zlib");
        put_le32(packed, (uint32_t)meta.len);
        meta = slice_of(packed, room + 4);
    }
    h[4] = (char)f->type;
    h[5] = (char)f->flags;
    put_le16(h + 6, sizeof(h));
    put_le64(h + 8, f->seq);
    put_le64(h + 16, f->synced);
    put_le32(h + 24, (uint32_t)meta.len);
    put_le32(h + 28, (uint32_t)f->body.len);
    put_le32(h + 32, (uint32_t)f->body.len);
    put_le32(h + 36, f->lines);
    put_le64(h + 40, 1000);
    put_le32(h + 48, SALT);
    put_le32(h + 52, crc(meta.ptr, meta.len));
    put_le32(h + 56, crc(f->body.ptr, f->body.len));
    put_le32(h + 60, crc(h, 60));
    put(out, h, sizeof(h));
    put(out, meta.ptr, meta.len);
    put(out, f->body.ptr, f->body.len);
    fuzz_check(buf_append_fill(out, 0, -out->len & 7) == 0, "memory");
}

static struct slice take(struct slice *in, size_t n)
{
    struct slice part = slice_first(*in, n);
    *in = slice_from(*in, n);
    return part;
}

static void describe_segment(struct buf *out, uint64_t id, struct slice in)
{
    uint64_t seq = fuzz_take_byte(&in), fence = fuzz_take_byte(&in);
    put_header(out, id, seq, fence, fuzz_take_byte(&in));
    while (in.len >= 8) {
        struct described f = { .type = (uint8_t)fuzz_take_byte(&in), .flags = (uint8_t)fuzz_take_byte(&in) };
        int step = (int8_t)fuzz_take_byte(&in);
        seq += (uint64_t)(int64_t)step;
        f.seq = seq;
        uint64_t lag = fuzz_take_byte(&in);
        f.synced = seq > lag ? seq - 1 - lag : 0;
        f.lines = (uint8_t)fuzz_take_byte(&in);
        size_t meta = fuzz_take_byte(&in), body;
        meta |= (size_t)fuzz_take_byte(&in) << 8;
        body = fuzz_take_byte(&in);
        f.meta = take(&in, meta);
        f.body = take(&in, body);
        put_frame(out, &f);
    }
}

static void describe_cursor(struct buf *out, struct slice in)
{
    static char file[4608];
    memset(file, 0, sizeof(file));
    while (in.len >= 10) {
        unsigned generation = fuzz_take_byte(&in);
        char *slot = file + (generation & 1) * 4096;
        memcpy(slot, "TRQCUR1\n", 8);
        put_le64(slot + 8, generation);
        memset(slot + 16, UUID, 16);
        put_le64(slot + 32, fuzz_take_byte(&in));
        memcpy(slot + 40, take(&in, 8).ptr, 8);
        put_le32(slot + 508, crc(slot, 508));
    }
    put(out, file, sizeof(file));
}

static void repair_segment(char *p, size_t n)
{
    if (n < 128)
        return;
    put_le32(p + 124, crc(p, 124));
    for (size_t at = 128; n - at >= 64 && at < n;) {
        char *h = p + at;
        uint64_t meta = get_le32(h + 24), body = get_le32(h + 28);
        if (memcmp(h, "TRF1", 4) != 0 || meta > n - at - 64 || body > n - at - 64 - meta)
            return;
        memcpy(h + 48, p + 64, 4);
        put_le32(h + 52, crc(h + 64, meta));
        put_le32(h + 56, crc(h + 64 + meta, body));
        put_le32(h + 60, crc(h, 60));
        at += (size_t)((64 + meta + body + 7) & ~UINT64_C(7));
    }
}

static void repair(unsigned name, char *p, size_t n)
{
    if (names[name].id != 0)
        repair_segment(p, n);
    for (size_t at = 0; name == 0 && at + 512 <= n; at += 4096)
        put_le32(p + at + 508, crc(p + at, 508));
}

/* The files of the input, as they are to be found. */
static void write_files(struct slice in)
{
    while (in.len >= 3) {
        unsigned kind = fuzz_take_byte(&in), name = kind & 15;
        size_t len = fuzz_take_byte(&in);
        len |= (size_t)fuzz_take_byte(&in) << 8;
        struct slice bytes = take(&in, len);
        struct buf file;
        buf_init(&file, 4 * MIB);
        if ((kind & 64) != 0 && name == 0)
            describe_cursor(&file, bytes);
        else if ((kind & 64) != 0 && names[name].id != 0)
            describe_segment(&file, names[name].id, bytes);
        else
            put(&file, bytes.ptr, bytes.len);
        if ((kind & 128) != 0)
            repair(name, file.ptr, file.len);
        fuzz_check(disk_write_file(d, names[name].path, file.ptr, file.len) == 0, "cannot write %s", names[name].path);
        buf_deinit(&file);
    }
}

/* ---- the readers of the command line ------------------------------------------------------------------------------ */

static int count_frame(void *ctx, const struct queue_frame *frame)
{
    struct buf text;
    buf_init(&text, MIB);
    int r = queue_frame_json(frame, &text);
    fuzz_check(r == 0 || r == -EBADMSG || r == -EPROTO, "a frame in words: %d", r);
    buf_deinit(&text);
    return ++*(int *)ctx > 10000 ? -E2BIG : 0;
}

/* How many problems verify has. */
static int inspect(void)
{
    struct buf text;
    struct err err = { 0 };
    int frames = 0;
    buf_init(&text, 16 * MIB);
    struct queue_report to = { .dir = DIR_PATH, .output = SLICE("out"), .text = &text };
    fuzz_check(queue_inspect_ls(&to, &err) >= 0 || err.text[0] != '\0', "ls: no words");
    buf_reset(&text);
    int problems = queue_inspect_verify(&to, &err);
    fuzz_check(problems >= 0 || err.text[0] != '\0', "verify: no words");
    to.is_json = true;
    buf_reset(&text);
    fuzz_check(queue_inspect_verify(&to, &err) == problems, "verify says two things");
    int r = queue_inspect_each_frame(DIR_PATH, count_frame, &frames, &err);
    fuzz_check(r == 0 || problems < 0, "each frame: %d", r);
    buf_deinit(&text);
    return problems;
}

/* ---- the queue ---------------------------------------------------------------------------------------------------- */

static int open_queue(struct queue **ret, struct queue_recovery *rec)
{
    static struct output_conf output;
    struct err err = { 0 };
    output = (struct output_conf){ .name = SLICE("out"), .state_dir = SLICE("/state") };
    output.queue = (struct queue_conf){ .max_bytes = 64 * MIB, .key_share_percent = 25, .dead_max_bytes = MIB };
    struct queue_open_conf conf = { .output = &output, .wire_form = 3, .allow_network_fs = true };
    int r = queue_open(&conf, ret, rec, &err);
    fuzz_check(r == 0 || (r == -EPROTO && err.text[0] != '\0'), "start: %d %s", r, err.text);
    return r;
}

struct delivered {
    uint64_t n, n_damaged, last_seq;
};

static struct delivered deliver(struct queue *q, bool acks)
{
    struct delivered got = { 0 };
    struct frame_head head;
    struct buf meta, body;
    int r;
    buf_init(&meta, FRAME_META_MAX);
    buf_init(&body, FRAME_BODY_MAX);
    while ((r = queue_next(q, &head)) == 1) {
        fuzz_check(head.seq > got.last_seq, "seq %llu behind %llu", (unsigned long long)head.seq, (unsigned long long)got.last_seq);
        got.last_seq = head.seq;
        buf_reset(&meta);
        buf_reset(&body);
        r = queue_load(q, &head, &meta, &body);
        fuzz_check(r == 0 || r == -EBADMSG, "load: %d", r);
        struct frame_row rows[4];
        struct frame_meta m;
        int parsed = r < 0 ? r : frame_meta_parse(buf_slice(&meta), rows, ARRAY_LEN(rows), &m);
        got.n++;
        got.n_damaged += parsed < 0 && parsed != -ENOBUFS;
        fuzz_check(r < 0 || (meta.len == head.meta_len && body.len == head.body_len), "another length");
        if (r == 0 && acks)
            (void)queue_ack(q, head.seq);
    }
    fuzz_check(r == 0, "next: %d", r);
    buf_deinit(&meta);
    buf_deinit(&body);
    return got;
}

static void take_parked(struct queue *q)
{
    struct frame_head head;
    struct buf meta, body;
    uint64_t iter = 0;
    int r;
    buf_init(&meta, FRAME_META_MAX);
    buf_init(&body, FRAME_BODY_MAX);
    while ((r = queue_parked_next(q, &iter, &head)) == 1) {
        r = queue_load(q, &head, &meta, &body);
        fuzz_check(r == 0 || r == -EBADMSG, "load of a parked frame: %d", r);
        r = r < 0 ? queue_park_drop(q, head.segment_id, LOST_DAMAGE) : queue_unpark(q, head.segment_id);
        fuzz_check(r == 0, "parked: %d", r);
    }
    fuzz_check(r == 0, "parked_next: %d", r);
    buf_deinit(&meta);
    buf_deinit(&body);
}

#define OUR_FILE UINT64_C(0xfeedfacefeedface)

static uint64_t append(struct queue *q)
{
    struct frame_row row = { SLICE("in"), SLICE("t"), 2 };
    struct frame_in in = { .route = SLICE("t"), .wire = SLICE("body"), .raw_len = 4, .lines = 2, .rows = &row, .n_rows = 1, .built_ns = 5 };
    struct file_ident ident = { .incarnation = OUR_FILE, .dev = 1, .ino = 2, .path = SLICE("/x"), .input = SLICE("in") };
    struct file_position pos = { .incarnation = OUR_FILE, .start = 0, .end = 7 };
    struct group_end end = { .files = &ident, .n_files = 1, .positions = &pos, .n_positions = 1 };
    uint64_t seq = 0;
    fuzz_check(queue_append(q, &in, &end, &seq) == 0 && queue_sync(q) == 0 && queue_durable_seq(q) >= seq, "append");
    return seq;
}

#define PLACES_MAX 256

/* Where the files stood at the first start; its own list ends with its queue. */
struct places {
    size_t n;
    struct {
        uint64_t incarnation, end, path;
        unsigned n_parts;
    } item[PLACES_MAX];
};

static struct places places_of(const struct queue_recovery *rec)
{
    struct places p = { .n = MIN(rec->n_files, (size_t)PLACES_MAX) };
    for (size_t i = 0; i < p.n; i++) {
        const struct recovered_file *f = &rec->files[i];
        p.item[i].incarnation = f->ident.incarnation;
        p.item[i].end = f->position.end;
        p.item[i].path = slice_hash(f->ident.path);
        p.item[i].n_parts = f->position.n_parts;
    }
    return p;
}

/* All files of the first start are in the second, where they were; but for one that has our own number. */
static void check_files(const struct places *first, const struct queue_recovery *second)
{
    struct places now_at = places_of(second);
    for (size_t i = 0; i < first->n && now_at.n < PLACES_MAX; i++) {
        bool is_there = first->item[i].incarnation == OUR_FILE;
        for (size_t k = 0; k < now_at.n; k++)
            is_there = is_there || (first->item[i].incarnation == now_at.item[k].incarnation &&
                                    first->item[i].end == now_at.item[k].end && first->item[i].path == now_at.item[k].path &&
                                    first->item[i].n_parts == now_at.item[k].n_parts);
        fuzz_check(is_there, "file %llx moved", (unsigned long long)first->item[i].incarnation);
    }
}

static void check_start(bool acks, int problems)
{
    struct queue *q, *again;
    struct queue_recovery first, second;
    if (open_queue(&q, &first) < 0)
        return;
    fuzz_check(problems != 0 || first.damaged_frames == 0, "verify called it clean, and %llu frames were damaged",
               (unsigned long long)first.damaged_frames);
    fuzz_check(first.next_seq > first.acked_seq, "the next seq is not above the cursor");
    struct places places = places_of(&first);
    struct delivered got = deliver(q, acks);
    /* One whose CRCs are right and whose meta makes no sense is found out by whoever reads it. */
    fuzz_check(got.n - got.n_damaged <= first.queued_frames, "%llu frames of %llu", (unsigned long long)got.n,
               (unsigned long long)first.queued_frames);
    uint64_t next_seq = first.next_seq;
    queue_recovered_free(q);
    take_parked(q);
    uint64_t seq = append(q);
    fuzz_check(seq >= next_seq && seq > got.last_seq, "a seq for the second time");
    uint64_t last_seq = 0;
    for (int i = 0; acks && i < 3; i++) { /* frames beyond the window come when the cursor has passed what is lost */
        fuzz_check(queue_cursor_sync(q) == 0 && queue_unlink_acked(q) == 0, "cursor");
        struct delivered more = deliver(q, true);
        last_seq = MAX(last_seq, more.last_seq);
    }
    fuzz_check(!acks || last_seq == seq, "the frame just written does not come");
    queue_close(q);
    fuzz_check(disk_open_fds(d) == 0, "descriptors are left open");

    fuzz_check(open_queue(&again, &second) == 0, "it started once, and not twice");
    fuzz_check(second.torn_bytes == 0 && second.damaged_bytes == 0, "torn %llu, damaged %llu at the second start",
               (unsigned long long)second.torn_bytes, (unsigned long long)second.damaged_bytes);
    fuzz_check(second.next_seq > seq, "the second start knows less");
    if (acks)
        fuzz_check(second.queued_frames == 0, "%llu frames that were acknowledged", (unsigned long long)second.queued_frames);
    check_files(&places, &second);
    queue_recovered_free(again);
    queue_close(again);
}

int fuzz_queue(const uint8_t *data, size_t size)
{
    struct slice in = slice_of(data, size);
    if (in.len > FILE_MAX)
        return -1;
    make();
    bool acks = (fuzz_take_byte(&in) & 1) != 0;
    write_files(in);
    check_start(acks, inspect());
    disk_use(NULL);
    return 0;
}
