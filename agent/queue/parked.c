/*
 * parked/: frames whose route key the server refuses while it takes others. One file each, ID.parked: a segment header
 * and one DATA frame with ORIG in the meta. They are behind the cursor and sent again from here.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/array.h"
#include "agent/base/bug.h"
#include "agent/base/clock.h"
#include "agent/base/must.h"
#include "agent/base/stats.h"
#include "agent/queue/core.h"
#include "agent/queue/scan.h"

void parked_file_name(char out[SEGMENT_NAME_BYTES], uint64_t id)
{
    snprintf(out, SEGMENT_NAME_BYTES, "%016llx.parked", (unsigned long long)id);
}

static void publish_locked(struct queue *q)
{
    gauge_set(&stats.outputs[q->output_index].parked_bytes, (int64_t)q->parked_bytes);
}

/* Route keys are few (tenants); -1: none such. */
static ssize_t find_route(const struct queue *q, struct slice key)
{
    for (size_t i = 0; i < q->n_routes; i++)
        if (slice_eq(q->routes[i].key, key))
            return (ssize_t)i;
    return -1;
}

static ssize_t get_route_locked(struct queue *q, struct slice key)
{
    ssize_t at = find_route(q, key);
    if (at >= 0)
        return at;
    struct parked_route *routes = array_room(q->routes, q->n_routes, &q->cap_routes, sizeof(*routes));
    if (routes == NULL)
        return -ENOMEM;
    q->routes = routes;
    char *copy = slice_dup(key);
    if (copy == NULL)
        return -ENOMEM;
    q->routes[q->n_routes] = (struct parked_route){ .key = slice_of(copy, key.len) };
    return (ssize_t)q->n_routes++;
}

static int list_add(struct queue *q, struct slice route, const struct parked *p)
{
    int r = 0;
    pthread_mutex_lock(&q->lock);
    ssize_t at = get_route_locked(q, route);
    if (at < 0) {
        r = -ENOMEM;
    } else if (q->n_parked == q->cap_parked) {
        size_t cap = q->cap_parked == 0 ? 16 : q->cap_parked * 2;
        struct parked *list = budget_realloc(ACCOUNT_OF(MEMORY_QUEUES), q->parked, cap * sizeof(*list));
        if (list == NULL) {
            r = -ENOMEM;
        } else {
            q->parked = list;
            q->cap_parked = cap;
        }
    }
    if (r == 0) {
        q->parked[q->n_parked] = *p;
        q->parked[q->n_parked++].route = (uint32_t)at;
        q->routes[at].bytes += p->bytes;
        q->parked_bytes += p->bytes;
        publish_locked(q);
    }
    pthread_mutex_unlock(&q->lock);
    if (r == 0)
        atomic_fetch_add(&q->bytes, p->bytes);
    return r;
}

static struct frame_head head_of(uint64_t id, const struct frame_hdr *h)
{
    return (struct frame_head){ .seq = h->seq,
                                .segment_id = id,
                                .off = SEGMENT_HEAD_BYTES,
                                .meta_len = h->meta_len,
                                .body_len = h->body_len,
                                .raw_len = h->raw_len,
                                .lines = h->lines,
                                .built_ns = h->built_ns,
                                .type = h->type,
                                .flags = h->flags,
                                .is_parked = true };
}

/* ---- writer ---- */

/* All of max_bytes is there for the queue and for what is parked; one key may take its share of it. */
static bool has_room(struct queue *q, struct slice route, uint64_t bytes)
{
    pthread_mutex_lock(&q->lock);
    ssize_t at = find_route(q, route);
    uint64_t of_key = at < 0 ? 0 : q->routes[at].bytes;
    uint64_t share = (uint64_t)((double)q->conf.max_bytes * q->conf.key_share_percent / 100);
    bool has = q->parked_bytes + bytes <= q->conf.max_bytes && of_key + bytes <= share;
    pthread_mutex_unlock(&q->lock);
    return has;
}

static int write_file(struct queue *q, int fd, const struct segment_head *head, struct frame_hdr *h, struct slice meta,
                      struct slice body)
{
    uint8_t raw[SEGMENT_HEAD_BYTES];
    segment_head_encode(head, raw);
    int r = fs_pwrite_full(fd, raw, sizeof(raw), 0);
    if (r == 0)
        r = frame_write(q, fd, SEGMENT_HEAD_BYTES, h, meta, body);
    if (r == 0 && !BUG(16))
        r = q->fs->fdatasync(fd);
    if (r == 0 && !BUG(16))
        r = q->fs->sync_dir(q->parked_fd);
    return r;
}

static int park(struct queue *q, const struct frame_in *frame, struct frame_hdr *h, struct slice meta, uint64_t *ret_id)
{
    uint64_t bytes = SEGMENT_HEAD_BYTES + FRAME_HEAD_BYTES + FRAME_ALIGN + meta.len + frame->wire.len;
    if (!has_room(q, frame->route, bytes))
        return BUG(35) ? -ENOSPC : -EXFULL; /* -ENOSPC is the disk's, and passes without anything given up */
    char name[SEGMENT_NAME_BYTES];
    uint64_t id = q->next_parked_id++;
    struct segment_head head = { .id = id, .first_seq = h->seq, .salt = h->salt, .wire_form = q->wire_form,
                                 .created_ns = clock_wall_ns() };
    memcpy(head.uuid, q->uuid, UUID_BYTES);
    parked_file_name(name, id);
    int fd = q->fs->open(q->parked_fd, name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0)
        return fd;
    int r = write_file(q, fd, &head, h, meta, frame->wire);
    if (r == 0) {
        struct parked p = { .id = id, .bytes = SEGMENT_HEAD_BYTES + frame_bytes(h), .head = head_of(id, h) };
        r = list_add(q, frame->route, &p);
    }
    /* A name that cannot be removed: emptied, or the next open would send it, or count it, beside what is parked instead. */
    if (r < 0 && q->fs->unlink(q->parked_fd, name) < 0)
        (void)q->fs->truncate(fd, 0);
    (void)q->fs->close(fd); /* synced, or of no use */
    if (r < 0)
        return r;
    *ret_id = id;
    return 0;
}

int queue_park(struct queue *q, const struct frame_in *frame, const struct frame_orig *orig, uint64_t *ret_id)
{
    assert(orig->seq > 0);
    struct frame_hdr h = { .type = FRAME_DATA, .flags = frame->is_alone ? FRAME_FLAG_ALONE : 0, .seq = orig->seq,
                           .built_ns = frame->built_ns,
                           .raw_len = frame->raw_len, .lines = frame->lines, .salt = random_u32() };
    struct buf meta;
    buf_init(&meta, FRAME_META_MAX);
    int r = queue_meta_frame(&meta, frame, orig);
    if (r == 0)
        r = park(q, frame, &h, buf_slice(&meta), ret_id);
    buf_deinit(&meta);
    return r;
}

static bool find(struct queue *q, uint64_t id, struct parked *ret)
{
    bool has = false;
    pthread_mutex_lock(&q->lock);
    for (size_t i = 0; i < q->n_parked && !has; i++) {
        has = q->parked[i].id == id;
        if (has)
            *ret = q->parked[i];
    }
    pthread_mutex_unlock(&q->lock);
    return has;
}

static void forget(struct queue *q, uint64_t id)
{
    pthread_mutex_lock(&q->lock);
    for (size_t i = 0; i < q->n_parked; i++) {
        if (q->parked[i].id != id)
            continue;
        uint64_t bytes = q->parked[i].bytes;
        q->routes[q->parked[i].route].bytes -= bytes;
        q->parked_bytes -= bytes;
        q->n_parked--;
        memmove(q->parked + i, q->parked + i + 1, (q->n_parked - i) * sizeof(*q->parked));
        atomic_fetch_sub(&q->bytes, bytes);
        publish_locked(q);
        break;
    }
    pthread_mutex_unlock(&q->lock);
}

int queue_unpark(struct queue *q, uint64_t id)
{
    char name[SEGMENT_NAME_BYTES];
    struct parked p;
    if (!find(q, id, &p))
        return -ENOENT;
    parked_file_name(name, id);
    int r = q->fs->unlink(q->parked_fd, name);
    if (r < 0 && r != -ENOENT)
        return r;
    forget(q, id);
    return q->fs->sync_dir(q->parked_fd);
}

static int open_file(struct queue *q, uint64_t id, int *ret_fd, struct stat *ret_st)
{
    char name[SEGMENT_NAME_BYTES];
    parked_file_name(name, id);
    *ret_fd = queue_open_file(q->fs, q->parked_fd, name, O_RDONLY, ret_st);
    return MIN(*ret_fd, 0);
}

/* It is forgotten: there is no other time to count it. */
static void count_lost(struct queue *q, enum lost_reason reason, const struct totals *rows, uint64_t bytes)
{
    const struct loss l = { .reason = reason, .rows = rows, .bytes = bytes, .was_parked = true };
    struct must must = { 0 };
    while (loss_count(q, &l) < 0)
        must_wait(&must);
}

/* Whose its lines are; as its head says when the file does not. */
static int read_rows(struct queue *q, const struct parked *p, struct totals *rows)
{
    struct scan s = { 0 };
    struct buf meta;
    struct frame_hdr h;
    struct stat st;
    int fd;
    buf_init(&meta, FRAME_META_MAX);
    int r = open_file(q, p->id, &fd, &st);
    if (r == 0)
        r = scan_init(&s, fd, p->bytes, 0);
    s.any_salt = true;
    if (r == 0)
        r = scan_head(&s, SEGMENT_HEAD_BYTES, &h);
    if (r == 0)
        r = scan_meta(&s, SEGMENT_HEAD_BYTES, &h, &meta);
    if (r == 0)
        r = totals_add_meta(rows, buf_slice(&meta));
    scan_deinit(&s);
    buf_deinit(&meta);
    if (fd >= 0)
        (void)q->fs->close(fd);
    if (r != -EBADMSG && r != -ENOENT)
        return r;
    (void)!totals_add(rows, SLICE(""), SLICE(TENANT_UNKNOWN), p->head.lines);
    return 0;
}

int queue_park_drop(struct queue *q, uint64_t id, enum lost_reason reason)
{
    struct parked p;
    struct totals rows = { 0 };
    if (!find(q, id, &p))
        return -ENOENT;
    int r = q->given.n < GIVEN_MAX ? 0 : queue_cursor_sync(q);
    if (q->given.n == GIVEN_MAX)
        return r < 0 ? r : -EBUSY;
    r = read_rows(q, &p, &rows);
    if (r == 0) {
        (void)given_add(&q->given, id, p.head.seq); /* there is room */
        forget(q, id);
        count_lost(q, reason, &rows, p.bytes);
        (void)!queue_cursor_sync(q); /* the file goes when its lines are in the log; what fails stays for the next time */
    }
    totals_deinit(&rows);
    return r;
}

/* ---- sender ---- */

int queue_parked_next(struct queue *q, uint64_t *iter, struct frame_head *ret_head)
{
    int r = 0;
    pthread_mutex_lock(&q->lock);
    size_t lo = 0, hi = q->n_parked; /* ids grow */
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (q->parked[mid].id > *iter)
            hi = mid;
        else
            lo = mid + 1;
    }
    if (lo < q->n_parked) {
        *iter = q->parked[lo].id;
        *ret_head = q->parked[lo].head;
        r = 1;
    }
    pthread_mutex_unlock(&q->lock);
    return r;
}

/* A damaged one is for the caller to give up by queue_park_drop(id, LOST_DAMAGE). */
int parked_load(struct queue *q, const struct frame_head *head, struct buf *meta, struct buf *body)
{
    struct stat st;
    int fd;
    int r = open_file(q, head->segment_id, &fd, &st);
    if (r < 0)
        return r == -ENOENT ? -EBADMSG : r;
    r = frame_load(fd, head, meta, body);
    (void)q->fs->close(fd);
    return r;
}

/* ---- open ---- */

struct found {
    uint64_t *ids;
    size_t n, cap;
};

static void collect(void *ctx, const char *name)
{
    struct found *f = ctx;
    uint64_t id = segment_name_parse(name, ".parked");
    if (id == 0)
        return;
    uint64_t *ids = array_room(f->ids, f->n, &f->cap, sizeof(*ids));
    if (ids == NULL)
        return;
    f->ids = ids;
    f->ids[f->n++] = id;
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int read_file(struct queue *q, uint64_t id, struct frame_hdr *h, struct buf *meta)
{
    struct segment_head head;
    struct stat st;
    struct scan s = { 0 };
    int fd;
    int r = open_file(q, id, &fd, &st);
    if (r < 0)
        return r;
    r = segment_head_read(fd, id, &head);
    if (r == 0 && memcmp(head.uuid, q->uuid, UUID_BYTES) != 0)
        r = -EBADMSG;
    if (r == 0)
        r = scan_init(&s, fd, (uint64_t)st.st_size, head.salt);
    if (r == 0)
        r = scan_head(&s, SEGMENT_HEAD_BYTES, h);
    if (r == 0)
        r = scan_meta(&s, SEGMENT_HEAD_BYTES, h, meta);
    scan_deinit(&s);
    (void)q->fs->close(fd);
    return r;
}

static void tally_add(struct tally *t, struct slice meta)
{
    struct totals rows = { 0 };
    (void)!totals_add_meta(&rows, meta);
    for (size_t i = 0; i < rows.n; i++) {
        struct tally_row *row = tally_get(t, rows.rows[i].tenant);
        if (row != NULL)
            row->dead += rows.rows[i].lines; /* the field is borrowed: lines that are parked */
    }
    totals_deinit(&rows);
}

/* The cursor has not passed the frame and it is still in the queue: it comes again, this file is not needed. */
static bool comes_again(const struct queue *q, uint64_t seq)
{
    const struct segment *seg = segment_of_locked(q, seq);
    return !ack_is_done_locked(q, seq) && seg != NULL && seg->first_seq <= seq;
}

/* Items as far as they can be told apart, whatever the CRC of their frame's header: rows, and whose frame it was. */
static void guess_rows(struct slice meta, struct totals *rows, uint64_t *seq)
{
    struct meta_item item;
    while (meta_next(&meta, &item) > 0) {
        struct slice input, tenant;
        struct frame_orig orig;
        uint64_t lines;
        if (item.tag == META_COUNT && meta_get_count(item.bytes, &input, &tenant, &lines) == 0)
            (void)!totals_add(rows, input, tenant, lines);
        else if (item.tag == META_ORIG && meta_get_orig(item.bytes, &orig) == 0)
            *seq = *seq == 0 ? orig.seq : *seq;
    }
}

/* What a file that cannot be sent held: by its meta, by its header's lines, or by what looks like a meta. */
static void count_damaged(struct queue *q, struct slice raw, const struct stat *st)
{
    struct segment_head head;
    struct frame_hdr h;
    struct totals rows = { 0 };
    uint64_t seq = 0;
    if (raw.len < SEGMENT_HEAD_BYTES + FRAME_HEAD_BYTES)
        return; /* torn */
    const uint8_t *p = (const uint8_t *)raw.ptr;
    struct slice meta = slice_from(raw, SEGMENT_HEAD_BYTES + FRAME_HEAD_BYTES);
    bool has_header = frame_hdr_decode(p + SEGMENT_HEAD_BYTES, &h) == 0;
    if (segment_head_decode(p, &head) == 0)
        seq = head.first_seq;
    else if (has_header)
        seq = h.seq;
    if (has_header)
        meta.len = MIN(meta.len, (size_t)h.meta_len);
    if (!has_header || frame_crc(meta) == h.meta_crc)
        guess_rows(meta, &rows, &seq);
    else
        (void)!totals_add(&rows, SLICE(""), SLICE(TENANT_UNKNOWN), h.lines);
    if (seq != 0 && !comes_again(q, seq) && rows.lines > 0)
        count_lost(q, LOST_DAMAGE, &rows, (uint64_t)st->st_size);
    totals_deinit(&rows);
}

/* Torn while it was written: its frame is still in the queue. Or damaged: counted, and kept for people. */
static void set_aside(struct queue *q, uint64_t id, const char *name)
{
    struct buf raw;
    struct stat st = { 0 };
    int fd;
    buf_init(&raw, MIB);
    int r = open_file(q, id, &fd, &st);
    if (r == 0)
        r = buf_reserve(&raw, MIB);
    ssize_t n = r == 0 ? fs_pread_full(fd, raw.ptr, MIB, 0) : 0;
    if (fd >= 0)
        (void)q->fs->close(fd); /* only read from */
    quarantine_rename(q, q->parked_fd, name);
    /* Before it is counted: counted twice would be worse than not at all. */
    if (q->fs->sync_dir(q->quarantine_fd) == 0 && q->fs->sync_dir(q->parked_fd) == 0 && n > 0)
        count_damaged(q, slice_of(raw.ptr, (size_t)n), &st);
    buf_deinit(&raw);
}

static int open_one(struct queue *q, uint64_t id, struct buf *meta, struct tally *lines)
{
    char name[SEGMENT_NAME_BYTES];
    struct frame_hdr h;
    struct frame_meta m;
    parked_file_name(name, id);
    int r = read_file(q, id, &h, meta);
    if (r == 0) {
        r = frame_meta_parse(buf_slice(meta), NULL, 0, &m);
        r = r == -ENOBUFS ? 0 : r;
    }
    if (fs_is_passing(r))
        return r; /* it says nothing of the file */
    if (given_has(&q->given, id) && (r < 0 || !given_is_another(&q->given, id, m.orig.seq)))
        return 0; /* counted as lost before a crash */
    if (r < 0) {
        set_aside(q, id, name);
        return 0;
    }
    if (comes_again(q, m.orig.seq)) {
        (void)q->fs->unlink(q->parked_fd, name);
        return 0;
    }
    tally_add(lines, buf_slice(meta));
    struct parked p = { .id = id, .bytes = SEGMENT_HEAD_BYTES + frame_bytes(&h), .head = head_of(id, &h) };
    return list_add(q, m.route, &p);
}

int parked_open(struct queue *q, struct tally *ret_lines)
{
    struct found f = { 0 };
    struct buf meta;
    buf_init(&meta, SNAP_RAW_MAX);
    q->next_parked_id = 1;
    for (size_t i = 0; i < q->given.n; i++)
        q->next_parked_id = MAX(q->next_parked_id, q->given.list[i].id + 1);
    int r = q->fs->list(q->parked_fd, collect, &f);
    if (f.n > 0)
        qsort(f.ids, f.n, sizeof(*f.ids), by_id);
    for (size_t i = 0; r == 0 && i < f.n; i++) {
        r = open_one(q, f.ids[i], &meta, ret_lines);
        q->next_parked_id = MAX(q->next_parked_id, f.ids[i] + 1);
    }
    if (r == 0)
        given_remove(q);
    free(f.ids);
    buf_deinit(&meta);
    return r;
}

void parked_close(struct queue *q)
{
    if (q->parked_fd >= 0)
        (void)q->fs->close(q->parked_fd);
    for (size_t i = 0; i < q->n_routes; i++)
        free((void *)(uintptr_t)q->routes[i].key.ptr);
    free(q->routes);
    budget_free(ACCOUNT_OF(MEMORY_QUEUES), q->parked);
}
