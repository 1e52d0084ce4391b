/*
 * queuegen: makes a queue as an agent would leave it, from a seed, without an agent.
 *
 * queuegen STATE FORM SEED [FRAMES [SEGMENT_BYTES]]: STATE/queue/out, wire form 1 Loki, 3 Elasticsearch, 4 and 5 ndjson.
 * Groups of several frames, tenants and inputs, files that come and go, acknowledgements out of order, parked frames, one of
 * them given up with a file that cannot be removed, dead letters of which some are sent again or dropped, a skipped frame;
 * ended by close or as by kill -9. Bodies are real. The queue's numbers follow from the seed; uuid, salts and times do not.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/queue/core.h"
#include "agent/queue/letters.h"
#include "outputs/codec/gzip.h"
#include "outputs/codec/snappy.h"

static uint64_t seed;

static uint64_t dice(uint64_t sides)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (seed >> 33) % sides;
}

static const struct slice inputs[] = { SLICE_INIT("pods"), SLICE_INIT("app"), SLICE_INIT("") };
static const struct slice tenants[] = { SLICE_INIT("acme"), SLICE_INIT("gl\xc3\xb6" "bex"), SLICE_INIT(""),
                                        SLICE_INIT("initech") };
enum { FILES = 5, ROWS = 3 };

static struct {
    uint64_t incarnation, end;
    bool is_named;
} files[FILES];

static uint64_t line_number, frame_number, lines_read;
static struct gzip *gz;

static void check(int r, const char *what)
{
    if (r >= 0)
        return;
    fprintf(stderr, "queuegen: %s: %s\n", what, strerror(-r));
    exit(1);
}

static bool is_loud(enum log_level level, const char *target)
{
    (void)target;
    return level > LOG_ERROR; /* what it loses it loses on purpose */
}

/* ---- bodies ---- */

/* A push of one stream; lengths are below 2^14: two bytes of varint. */
static void put_field(struct buf *b, int number, struct slice s)
{
    assert(s.len < 1 << 14);
    char head[3] = { (char)(number << 3 | 2), (char)(0x80 | (s.len & 0x7f)), (char)(s.len >> 7) };
    check(buf_append(b, head, sizeof(head)), "memory");
    check(buf_append_slice(b, s), "memory");
}

static void put_loki_line(struct buf *stream, struct slice line)
{
    struct buf entry;
    buf_init(&entry, MIB);
    put_field(&entry, 1, SLICE("\x08\x80\x94\xeb\xdc\x03")); /* a time in seconds */
    put_field(&entry, 2, line);
    put_field(stream, 2, buf_slice(&entry));
    buf_deinit(&entry);
}

static void put_lines(struct buf *raw, uint32_t form, uint32_t lines)
{
    if (form == 1)
        put_field(raw, 1, SLICE("{job=\"x\"}"));
    for (uint32_t i = 0; i < lines; i++) {
        char line[160];
        int n = snprintf(line, sizeof(line), "{\"n\":%" PRIu64 ",\"@timestamp\":\"2026-01-01T00:00:00Z\",\"message\":\"line %" PRIu64
                         " of frame %" PRIu64 "\"}", line_number, line_number, frame_number);
        line_number++;
        struct slice s = slice_of(line, (size_t)n);
        if (form == 1) {
            put_loki_line(raw, s);
            continue;
        }
        if (form == 3)
            check(buf_printf(raw, "{\"create\":{\"_index\":\"logs\",\"_id\":\"%019" PRIu64 "\"}}\n", line_number), "memory");
        check(buf_append_slice(raw, s), "memory");
        check(buf_append_byte(raw, '\n'), "memory");
    }
}

static void make_body(uint32_t form, uint32_t lines, struct buf *raw, struct buf *wire)
{
    buf_reset(raw);
    buf_reset(wire);
    put_lines(raw, form, lines);
    if (form == 1) {
        struct buf push;
        buf_init(&push, MIB);
        put_field(&push, 1, buf_slice(raw));
        check(snappy_block_compress(buf_slice(&push), wire), "snappy");
        buf_deinit(&push);
    } else if (form == 5) {
        check(buf_append_slice(wire, buf_slice(raw)), "memory");
    } else {
        check(gzip_compress(gz, buf_slice(raw), SLICE(""), wire), "gzip");
    }
}

/* ---- groups ---- */

struct made {
    struct frame_row rows[ROWS];
    struct frame_in in;
    char runs[ROWS * 2];
    struct buf raw, wire;
};

static struct frame_in *make_frame(struct made *m, uint32_t form)
{
    size_t first = (size_t)dice(ARRAY_LEN(tenants)), n = 1 + (size_t)dice(ROWS);
    uint32_t lines = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t k = 1 + (uint32_t)dice(6);
        m->rows[i] = (struct frame_row){ inputs[i], tenants[first], k };
        m->runs[2 * i] = (char)i;
        m->runs[2 * i + 1] = (char)k;
        lines += k;
    }
    make_body(form, lines, &m->raw, &m->wire);
    frame_number++;
    m->in = (struct frame_in){ .route = tenants[first], .wire = buf_slice(&m->wire), .raw_len = (uint32_t)m->raw.len,
                               .lines = lines, .rows = m->rows, .n_rows = n,
                               .runs = n > 1 ? slice_of(m->runs, 2 * n) : SLICE(""),
                               .built_ns = INT64_C(1767225600000000000) + (int64_t)frame_number };
    return &m->in;
}

static void append_group(struct queue *q, uint32_t form)
{
    struct made m = { 0 };
    struct file_ident idents[FILES];
    struct file_position positions[FILES];
    struct ledger_row ledger = { .input = inputs[0], .tenant = tenants[0], .filtered = { 1, 2, 3, 4 } };
    struct group_end end = { .files = idents, .positions = positions, .ledger = &ledger, .n_ledger = 1 };
    uint64_t seq, gone[1];
    buf_init(&m.raw, MIB);
    buf_init(&m.wire, MIB);
    for (uint64_t more = dice(3); more > 0; more--)
        check(queue_append(q, make_frame(&m, form), NULL, &seq), "append");
    for (size_t i = 0; i < FILES; i++) {
        if (dice(2) == 0)
            continue;
        if (!files[i].is_named)
            idents[end.n_files++] = (struct file_ident){ .incarnation = files[i].incarnation, .dev = 8, .ino = 100 + i,
                                                         .fp_len = 64, .fp_crc = 7, .first_seen_ns = 5,
                                                         .path = SLICE("/var/log/app.log"), .input = inputs[0] };
        files[i].is_named = true;
        uint64_t start = files[i].end;
        files[i].end += 1 + dice(5000);
        positions[end.n_positions++] = (struct file_position){
            .incarnation = files[i].incarnation, .start = start, .end = files[i].end, .flags = (uint32_t)dice(4),
            .head_crc = (uint32_t)dice(1u << 31), .tail_len = 64, .n_parts = dice(4) == 0,
            .parts = { { .stream = 1, .start = files[i].end - 1 } } };
    }
    size_t leaver = (size_t)dice(FILES);
    if (dice(6) == 0 && files[leaver].is_named) {
        gone[0] = files[leaver].incarnation;
        end.gone = gone;
        end.n_gone = 1;
        files[leaver].incarnation += 1000;
        files[leaver].end = 0;
        files[leaver].is_named = false;
    }
    lines_read += 10;
    ledger.read_lines = ledger.read_bytes = ledger.kept_lines = lines_read;
    check(queue_append(q, dice(8) == 0 ? NULL : make_frame(&m, form), &end, &seq), "append");
    buf_deinit(&m.raw);
    buf_deinit(&m.wire);
}

/* ---- what the sender does ---- */

static char stuck[SEGMENT_NAME_BYTES]; /* of parked/: cannot be removed; "" none yet */
static struct fs_ops ops;

static int unlink_others(int dir_fd, const char *name)
{
    return strcmp(name, stuck) == 0 ? -EIO : fs_real.unlink(dir_fd, name);
}

static void settle_parked(struct queue *q, uint64_t id)
{
    if (stuck[0] == '\0') {
        parked_file_name(stuck, id);
        check(queue_park_drop(q, id, LOST_DROPPED), "give up");
    } else if (dice(3) == 0) {
        check(queue_unpark(q, id), "unpark");
    }
}

static void settle(struct queue *q, const struct frame_head *h, struct slice wire, struct frame_meta *fields,
                   struct frame_row *rows)
{
    struct frame_in in = { .route = fields->route, .wire = wire, .raw_len = h->raw_len, .lines = h->lines, .rows = rows,
                           .n_rows = fields->n_rows, .runs = fields->runs, .built_ns = h->built_ns };
    struct frame_orig orig = { .seq = h->seq, .item = UINT32_MAX, .status = 429, .reason = SLICE("too_many"),
                               .text = SLICE("rate \"limit\"\n") };
    uint64_t id;
    switch (dice(6)) {
    case 0:
        check(queue_park(q, &in, &orig, &id), "park");
        settle_parked(q, id);
        break;
    case 1:
        orig.item = 0;
        orig.status = 400;
        orig.reason = SLICE("mapping");
        check(queue_dead_append(q, &in, &orig), "dead letter");
        break;
    default:
        break;
    }
    (void)queue_ack(q, h->seq);
}

static void send_some(struct queue *q)
{
    struct frame_head h;
    struct frame_row rows[ROWS];
    struct frame_meta fields;
    struct buf meta, body;
    buf_init(&meta, MIB);
    buf_init(&body, MIB);
    for (uint64_t n = dice(6); n > 0 && queue_next(q, &h) == 1; n--) {
        check(queue_load(q, &h, &meta, &body), "load");
        check(frame_meta_parse(buf_slice(&meta), rows, ROWS, &fields), "meta");
        if (dice(4) > 0)
            settle(q, &h, buf_slice(&body), &fields, rows);
    }
    buf_deinit(&meta);
    buf_deinit(&body);
}

static bool some(void *ctx, const struct letter *l)
{
    (void)ctx;
    (void)l;
    return dice(2) == 0;
}

static void decide(struct queue *q)
{
    struct letters_result res;
    uint32_t lines;
    check(queue_letters_settle(q, LETTER_RESENT, some, NULL, &res), "resend");
    check(queue_letters_settle(q, LETTER_DROPPED, some, NULL, &res), "drop");
    (void)!queue_skip(q, queue_acked_seq(q) + 1, &lines);
}

static struct queue *open_queue(const char *state, uint32_t form)
{
    struct output_conf output = { .name = SLICE("out"), .state_dir = slice_cstr(state),
                                  .queue = { .max_bytes = 64 * MIB, .key_share_percent = 25, .dead_max_bytes = MIB } };
    struct queue_open_conf conf = { .output = &output, .wire_form = form, .allow_network_fs = true };
    struct queue_recovery rec;
    struct err err = { 0 };
    struct queue *q;
    int r = queue_open(&conf, &q, &rec, &err);
    if (r < 0)
        fprintf(stderr, "queuegen: %s\n", err.text);
    check(r, "open");
    queue_recovered_free(q);
    return q;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fputs("usage: queuegen STATE FORM SEED [FRAMES [SEGMENT_BYTES]]\n", stderr);
        return 2;
    }
    uint32_t form = (uint32_t)atoi(argv[2]);
    seed = (uint64_t)atoll(argv[3]) * 7919 + form;
    uint64_t groups = argc > 4 ? (uint64_t)atoll(argv[4]) : 60;
    queue_tuning.segment_bytes = argc > 5 ? (uint64_t)atoll(argv[5]) : 12 * KIB;
    queue_tuning.dead_file_bytes = 3 * KIB;
    log_set_filter(is_loud);
    check(gzip_new(6, &gz), "gzip");
    for (size_t i = 0; i < FILES; i++)
        files[i].incarnation = 1 + i;
    ops = fs_real;
    ops.unlink = unlink_others;
    fs_set_ops(&ops);
    struct queue *q = open_queue(argv[1], form);
    for (uint64_t i = 0; i < groups; i++) {
        append_group(q, form);
        if (dice(3) == 0 || i + 1 == groups)
            check(queue_sync(q), "sync");
        if (dice(3) == 0)
            send_some(q);
        if (dice(5) == 0) {
            check(queue_cursor_sync(q), "cursor");
            if (dice(4) == 0)
                check(queue_unlink_acked(q), "unlink");
        }
        if (dice(40) == 0) {
            decide(q);
            queue_close(q);
            q = open_queue(argv[1], form);
        }
    }
    if (dice(2) == 0)
        _exit(0); /* as kill -9 leaves it */
    queue_close(q);
    gzip_free(gz);
    return 0;
}
