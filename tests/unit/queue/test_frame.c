/*
 * Goal: what is encoded is decoded the same, and no bytes crash a decoder. Method: round trips, every truncation, every
 * bit flipped, and lengths that lie.
 */
#include "tests/unit/queue/fixture.h"

static void segment_heads(void **state)
{
    (void)state;
    struct segment_head h = { .major = 1, .id = 77, .first_seq = 1000, .fence = 900, .created_ns = -5, .salt = 9,
                              .wire_form = 3 }, got;
    uint8_t raw[SEGMENT_HEAD_BYTES];
    memset(h.uuid, 7, sizeof(h.uuid));
    segment_head_encode(&h, raw);
    assert_int_equal(segment_head_decode(raw, &got), 0);
    assert_memory_equal(got.uuid, h.uuid, UUID_BYTES);
    assert_int_equal(got.id, 77);
    assert_int_equal(got.fence, 900);
    assert_int_equal(got.created_ns, -5);
    for (size_t i = 0; i < sizeof(raw) * 8; i++) {
        raw[i / 8] ^= (uint8_t)(1u << (i % 8));
        assert_int_equal(segment_head_decode(raw, &got), -EBADMSG);
        raw[i / 8] ^= (uint8_t)(1u << (i % 8));
    }
    const struct segment_head wrong[] = {
        { .id = 0, .first_seq = 1 },           { .id = SEQ_MAX + 1, .first_seq = 1 }, { .id = 1, .first_seq = 0 },
        { .id = 1, .first_seq = SEQ_MAX + 1 }, { .id = 1, .first_seq = 5, .fence = 5 },
    };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        segment_head_encode(&wrong[i], raw);
        assert_int_equal(segment_head_decode(raw, &got), -EBADMSG);
    }
}

static void frame_heads(void **state)
{
    (void)state;
    struct frame_hdr h = { .type = FRAME_DATA, .flags = FRAME_FLAG_MORE, .seq = 10, .synced_seq = 9, .meta_len = 3,
                           .body_len = 6, .raw_len = 7, .lines = 8, .built_ns = 11, .salt = 12, .meta_crc = 13,
                           .body_crc = 14 }, got;
    uint8_t raw[FRAME_HEAD_BYTES];
    frame_hdr_encode(&h, raw);
    assert_int_equal(frame_hdr_decode(raw, &got), 0);
    uint8_t again[FRAME_HEAD_BYTES];
    frame_hdr_encode(&got, again);
    assert_memory_equal(again, raw, sizeof(raw));
    assert_int_equal(got.synced_seq, 9);
    assert_int_equal(frame_bytes(&h), 64 + 16);
    for (size_t i = 0; i < sizeof(raw) * 8; i++) {
        raw[i / 8] ^= (uint8_t)(1u << (i % 8));
        assert_int_equal(frame_hdr_decode(raw, &got), -EBADMSG);
        raw[i / 8] ^= (uint8_t)(1u << (i % 8));
    }
    const struct frame_hdr wrong[] = {
        { .type = 0, .seq = 1 },
        { .type = 1, .seq = 0 },
        { .type = 1, .seq = SEQ_MAX + 1 },
        { .type = 1, .seq = UINT64_MAX },
        { .type = 1, .seq = 3, .synced_seq = 3 },
        { .type = 1, .seq = 3, .meta_len = FRAME_META_MAX + 1 },
        { .type = 1, .seq = 3, .body_len = UINT32_MAX },
    };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        frame_hdr_encode(&wrong[i], raw);
        assert_int_equal(frame_hdr_decode(raw, &got), -EBADMSG);
    }
}

static void cursors(void **state)
{
    (void)state;
    struct cursor_slot c = { .generation = 4, .acked_seq = 99 }, got;
    uint8_t raw[CURSOR_SLOT_BYTES];
    c.bits[0] = 6;
    c.bits[QUEUE_WINDOW / 64 - 1] = UINT64_C(1) << 63;
    cursor_encode(&c, raw);
    assert_int_equal(cursor_decode(raw, &got), 0);
    assert_memory_equal(&got, &c, sizeof(c));
    for (size_t i = 0; i < sizeof(raw) * 8; i++) {
        raw[i / 8] ^= (uint8_t)(1u << (i % 8));
        assert_int_equal(cursor_decode(raw, &got), -EBADMSG);
        raw[i / 8] ^= (uint8_t)(1u << (i % 8));
    }
}

/* Through every getter: what a hostile item would be asked. */
static void poke(struct slice meta)
{
    struct meta_item item;
    struct positions p = { 0 };
    struct totals t = { 0 };
    struct tally y = { 0 };
    for (int budget = 1000; budget > 0 && meta_next(&meta, &item) > 0; budget--) {
        struct frame_orig o;
        struct lost_range l;
        (void)!meta_get_orig(item.bytes, &o);
        (void)!meta_get_lost(item.bytes, &l);
        for (uint8_t tag = 1; tag < META_TAGS; tag++) {
            (void)!positions_take(&p, tag, item.bytes);
            (void)!totals_take(&t, tag, item.bytes);
        }
        (void)!tally_take(&y, item.bytes);
    }
    positions_deinit(&p);
    totals_deinit(&t);
    tally_deinit(&y);
}

static void put_everything(struct buf *b)
{
    struct sample s;
    struct sample_end e;
    struct frame_orig o = { .seq = 5, .item = 6, .status = -7, .reason = SLICE("r\0r"), .text = SLICE("text") };
    struct lost_range lost = { .incarnation = 1, .start = 2, .end = 3, .reason = LOST_TRUNCATED };
    sample_frame(&s, 1, 2, "tenant");
    sample_end(&e, 1, 2, 3);
    s.in.runs = SLICE("runs");
    e.pos.n_parts = 1;
    e.pos.parts[0] = (struct position_part){ 2, 1 };
    assert_int_equal(queue_meta_frame(b, &s.in, &o), 0);
    assert_int_equal(meta_put_file(b, &e.ident), 0);
    assert_int_equal(meta_put_position(b, &e.pos), 0);
    assert_int_equal(meta_put_ledger(b, &e.ledger), 0);
    assert_int_equal(meta_put_lost(b, &lost), 0);
}

static void metas(void **state)
{
    (void)state;
    struct buf b;
    struct frame_row rows[2];
    struct frame_meta m;
    buf_init(&b, MIB);
    put_everything(&b);
    assert_int_equal(frame_meta_parse(buf_slice(&b), rows, 2, &m), 0);
    assert_int_equal(m.n_rows, 1);
    assert_true(slice_eq(rows[0].tenant, SLICE("tenant")));
    assert_int_equal(rows[0].lines, 2);
    assert_true(slice_eq(m.route, SLICE("tenant")));
    assert_true(slice_eq(m.runs, SLICE("runs")));
    assert_int_equal(m.orig.status, -7);
    assert_true(slice_eq(m.orig.reason, SLICE("r\0r")));
    assert_int_equal(frame_meta_parse(buf_slice(&b), rows, 0, &m), -ENOBUFS);
    assert_int_equal(m.n_rows, 1);
    for (size_t n = 0; n < b.len; n++) {
        /* Exactly n bytes on the heap: one too far is seen. */
        char *cut = malloc(n + (n == 0));
        memcpy(cut, b.ptr, n);
        int r = frame_meta_parse(slice_of(cut, n), rows, 2, &m);
        assert_true(r == 0 || r == -EBADMSG);
        poke(slice_of(cut, n));
        free(cut);
    }
    for (size_t i = 0; i < b.len * 8; i++) {
        b.ptr[i / 8] = (char)(b.ptr[i / 8] ^ 1 << (i % 8));
        poke(buf_slice(&b));
        b.ptr[i / 8] = (char)(b.ptr[i / 8] ^ 1 << (i % 8));
    }
    buf_deinit(&b);
}

static void unknown_items(void **state)
{
    (void)state;
    static const struct {
        struct slice meta;
        int want;
    } cases[] = {
        { SLICE_INIT(""), 0 },
        { SLICE_INIT("\x63\0\0\0\2\0\0\0ab"), 0 },          /* not critical: passed by */
        { SLICE_INIT("\x63\1\0\0\2\0\0\0ab"), -EPROTO },    /* critical: a newer version's */
        { SLICE_INIT("\x63\0\0\0\3\0\0\0ab"), -EBADMSG },   /* longer than what is there */
        { SLICE_INIT("\1\0\0\0\xff\xff\xff\xff"), -EBADMSG },
        { SLICE_INIT("\1\0\0"), -EBADMSG },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct frame_meta m;
        assert_int_equal(frame_meta_parse(cases[i].meta, NULL, 0, &m), cases[i].want);
    }
}

static void packed(void **state)
{
    (void)state;
    struct buf raw, out, back;
    buf_init(&raw, MIB);
    buf_init(&out, MIB);
    buf_init(&back, MIB);
    for (unsigned i = 0; i < 3000; i++)
        assert_int_equal(buf_printf(&raw, "/var/log/%u.log", i), 0);
    assert_int_equal(meta_pack(buf_slice(&raw), &out), 0);
    assert_true(out.len < raw.len / 2);
    assert_int_equal(meta_unpack(buf_slice(&out), &back), 0);
    assert_true(slice_eq(buf_slice(&raw), buf_slice(&back)));
    for (size_t n = 0; n < out.len; n++) {
        buf_reset(&back);
        assert_int_equal(meta_unpack(slice_first(buf_slice(&out), n), &back), -EBADMSG);
    }
    buf_reset(&back);
    memset(out.ptr, 0xff, 4); /* inflates to 4 GiB, it says */
    assert_int_equal(meta_unpack(buf_slice(&out), &back), -EBADMSG);
    buf_deinit(&raw);
    buf_deinit(&out);
    buf_deinit(&back);
}

static void names(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t id;
    } cases[] = {
        { "0000000000000001.seg", 1 },  { "00000000000000ff.seg", 255 }, { "00000000000000FF.seg", 0 },
        { "0000000000000000.seg", 0 },  { "1.seg", 0 },                  { "", 0 },
        { "ffffffffffffffff.seg", 0 },  { "0000000000000001.sex", 0 },   { "0000000000000001.seg~", 0 },
        { "00000000000000001.seg", 0 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(segment_name_parse(cases[i].name, ".seg"), cases[i].id);
}

static void positions_go_back(void **state)
{
    (void)state;
    struct positions p = { 0 };
    struct sample_end a, b;
    const struct recovered_file *files;
    size_t n;
    uint64_t gone = 1;
    sample_end(&a, 1, 10, 20);
    assert_int_equal(positions_prepare(&p, &a.end), 0);
    positions_apply(&p, &a.end);
    assert_int_equal(positions_export(&p, &files, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(files[0].position.end, 10); /* where its first range began */
    positions_commit(&p);
    sample_end(&a, 1, 20, 30);
    a.end.gone = &gone;
    a.end.n_gone = 1;
    sample_end(&b, 2, 0, 5);
    assert_int_equal(positions_prepare(&p, &a.end), 0);
    assert_int_equal(positions_prepare(&p, &b.end), 0);
    positions_apply(&p, &a.end);
    positions_apply(&p, &b.end);
    positions_rollback(&p);
    assert_int_equal(positions_export(&p, &files, &n), 0);
    assert_int_equal(n, 2);
    assert_int_equal(files[0].position.end, 20);
    assert_int_equal(files[1].position.end, 0);
    positions_apply(&p, &a.end);
    positions_commit(&p);
    assert_int_equal(positions_export(&p, &files, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(files[0].ident.incarnation, 2);
    positions_deinit(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(segment_heads), cmocka_unit_test(frame_heads),   cmocka_unit_test(cursors),
        cmocka_unit_test(metas),         cmocka_unit_test(unknown_items), cmocka_unit_test(packed),
        cmocka_unit_test(names),         cmocka_unit_test(positions_go_back),
    };
    return cmocka_run_group_tests_name("queue/frame", tests, NULL, NULL);
}
