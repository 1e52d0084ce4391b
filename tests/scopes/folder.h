/*
 * folder.h - one queue folder with every kind of frame and file, and a map of its bytes.
 */
#ifndef TAILRACE_TESTS_SCOPES_FOLDER_H
#define TAILRACE_TESTS_SCOPES_FOLDER_H

#include "tests/scopes/scope.h"

/*
 * Segment 1: [1 2] [3+ 4+ 5] POS [6] [7]   2: [8] [9+ 10+ 11] [12]   3: [13] [14+ 15] [16] [17] [18]
 * 1 2 3 5 are acknowledged, 4 is a dead letter, 7 is parked; 18 is not synced.
 */
enum { FOLDER_LINES = 18 };

static inline bool folder_is_done(unsigned n)
{
    return n <= 3 || n == 5;
}

static inline void folder_refuse(struct scope *s, uint64_t seq, unsigned line, bool parks)
{
    struct scope_frame f;
    uint64_t id;
    struct frame_orig o = { .seq = seq, .item = parks ? UINT32_MAX : 0, .status = 400, .reason = SLICE("refused"),
                            .text = SLICE("for the test") };
    int r = parks ? queue_park(s->q, scope_frame(&f, line, line, "u"), &o, &id)
                  : queue_dead_append(s->q, scope_frame(&f, line, line, "u"), &o);
    assert_int_equal(r, 0);
    assert_true(queue_ack(s->q, seq));
    queue_cursor_write(s->q);
}

static inline void folder_make(struct scope *s)
{
    scope_open(s);
    uint64_t first = scope_put_one(s, 1, 2);
    scope_sync(s);
    uint64_t third = scope_put(s, 3, 3, "t", true, 0, 0);
    uint64_t fourth = scope_put(s, 4, 4, "u", true, 0, 0);
    uint64_t fifth = scope_put(s, 5, 5, "t", false, 20, 50);
    scope_sync(s);
    (void)scope_put(s, 1, 0, "", false, 50, 55);
    scope_sync(s);
    (void)scope_put(s, 6, 6, "t", false, 55, 60);
    uint64_t seventh = scope_put(s, 7, 7, "u", false, 60, 70);
    scope_sync(s);
    scope_roll(s);
    (void)scope_put_one(s, 8, 8);
    (void)scope_put(s, 9, 9, "t", true, 0, 0);
    (void)scope_put(s, 10, 10, "u", true, 0, 0);
    (void)scope_put(s, 11, 11, "t", false, 80, 110);
    (void)scope_put_one(s, 12, 12);
    scope_sync(s);
    scope_roll(s);
    struct frame_head h;
    while (queue_next(s->q, &h) == 1)
        ; /* what is not handed out cannot be acknowledged */
    assert_true(queue_ack(s->q, first) && queue_ack(s->q, third) && queue_ack(s->q, fifth));
    folder_refuse(s, fourth, 4, false);
    folder_refuse(s, seventh, 7, true);
    assert_int_equal(queue_cursor_sync(s->q), 0);
    (void)scope_put_one(s, 13, 13);
    scope_sync(s);
    (void)scope_put(s, 14, 14, "t", true, 0, 0);
    (void)scope_put(s, 15, 15, "t", false, 130, 150);
    scope_sync(s);
    (void)scope_put_one(s, 16, 16);
    (void)scope_put_one(s, 17, 17);
    scope_sync(s);
    (void)scope_put_one(s, 18, 18);
    scope_crash(s, LOSS_NOTHING, 0);
}

/* A stretch of bytes of one file and the lines that stand in it. */
struct piece {
    char path[96];
    uint64_t off, len; /* off 0: a segment's header, len FRAME…: see is_frame */
    bool is_frame;
    struct frame_hdr h;
    unsigned first, last; /* lines; 0: none. Of a segment's header: of all its frames */
};

enum { PIECES_MAX = 64 };

struct map {
    struct piece piece[PIECES_MAX];
    size_t n;
    struct disk *d;
    char sub[16];
};

static inline void map_lines(struct piece *p, const uint8_t *body)
{
    char text[512];
    unsigned n;
    int used;
    assert_true(p->h.body_len < sizeof(text));
    memcpy(text, body, p->h.body_len);
    text[p->h.body_len] = '\0';
    for (const char *t = text; sscanf(t, "%u %n", &n, &used) == 1; t += used) {
        p->first = p->first == 0 ? n : p->first;
        p->last = n;
    }
}

static inline void map_file(void *ctx, const char *name)
{
    struct map *m = ctx;
    static uint8_t raw[64 * 1024];
    char path[96];
    (void)snprintf(path, sizeof(path), "%s%s/%s", DIR, m->sub, name);
    if (strstr(name, ".seg") == NULL && strstr(name, ".dead") == NULL && strstr(name, ".parked") == NULL)
        return;
    ssize_t size = disk_read(m->d, path, raw, sizeof(raw), 0);
    assert_true(size >= SEGMENT_HEAD_BYTES && (size_t)size < sizeof(raw));
    struct piece *head = &m->piece[m->n++];
    *head = (struct piece){ .len = SEGMENT_HEAD_BYTES };
    (void)snprintf(head->path, sizeof(head->path), "%s", path);
    for (uint64_t off = SEGMENT_HEAD_BYTES; off < (uint64_t)size;) {
        assert_true(m->n < PIECES_MAX);
        struct piece *p = &m->piece[m->n++];
        *p = (struct piece){ .off = off, .is_frame = true };
        (void)snprintf(p->path, sizeof(p->path), "%s", path);
        assert_int_equal(frame_hdr_decode(raw + off, &p->h), 0);
        p->len = frame_bytes(&p->h);
        if (p->h.type == FRAME_DATA)
            map_lines(p, raw + off + FRAME_HEAD_BYTES + p->h.meta_len);
        if (p->first != 0) {
            head->first = head->first == 0 ? p->first : head->first;
            head->last = p->last;
        }
        off += p->len;
    }
}

static inline void map_make(struct map *m, struct disk *d)
{
    static const char *const subs[] = { "", "/dead", "/parked" };
    *m = (struct map){ .d = d };
    for (size_t i = 0; i < ARRAY_LEN(subs); i++) {
        (void)snprintf(m->sub, sizeof(m->sub), "%s", subs[i]);
        assert_int_equal(disk_each(d, i == 0 ? DIR : i == 1 ? DIR "/dead" : DIR "/parked", map_file, m), 0);
    }
}

static inline const struct piece *map_at(const struct map *m, const char *path, uint64_t off)
{
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->piece[i].path, path) == 0 && off >= m->piece[i].off && off - m->piece[i].off < m->piece[i].len)
            return &m->piece[i];
    return NULL;
}

static inline bool path_is(const char *path, const char *part)
{
    return strstr(path, part) != NULL;
}

#endif
