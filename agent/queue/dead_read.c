/*
 * dead/, read: what a start finds in it, and which letters of a file nobody has decided about.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "agent/base/array.h"
#include "agent/base/bytes.h"
#include "agent/queue/dead.h"
#include "agent/queue/scan.h"

/* Dead letters that are newer than the cursor, looked for in the newest files at open. */
#define SEEN_MAX 65536
#define SEEN_FILES 3

typedef void (*each_frame)(struct queue *q, void *ctx, const struct frame_hdr *h, struct slice meta);

/* ret_fence: of the file before; 0: nothing is said of that one. NULL is fine. */
static int open_dead(struct queue *q, uint64_t id, int flags, struct scan *s, int *ret_fd, uint64_t *ret_fence)
{
    char name[SEGMENT_NAME_BYTES];
    struct segment_head head = { .fence = 0 };
    struct stat st;
    dead_file_name(name, id);
    int fd = queue_open_file(q->fs, q->dead.dir_fd, name, flags, &st);
    if (fd < 0)
        return fd;
    int r = segment_head_read(fd, id, &head);
    if (r == 0 && memcmp(head.uuid, q->uuid, UUID_BYTES) != 0)
        r = -EBADMSG;
    if (r == 0)
        r = scan_init(s, fd, MIN((uint64_t)st.st_size, (uint64_t)SEGMENT_READ_MAX), head.salt);
    if (r < 0)
        (void)q->fs->close(fd);
    *ret_fd = fd;
    if (ret_fence != NULL)
        *ret_fence = head.fence;
    return r;
}

static uint64_t fence_of(const struct dead_log *d, uint64_t id)
{
    for (size_t i = 0; i < d->n_files; i++)
        if (d->files[i].id == id)
            return d->files[i].fence;
    return SEQ_MAX;
}

/* Good frames of one file in order. -EBADMSG: it is not ours. */
static int walk_file(struct queue *q, uint64_t id, each_frame each, void *ctx)
{
    int fd;
    struct scan s = { 0 };
    struct buf meta;
    struct frame_hdr h;
    uint64_t fence = fence_of(&q->dead, id);
    int r = open_dead(q, id, O_RDONLY, &s, &fd, NULL);
    if (r < 0)
        return r;
    buf_init(&meta, SNAP_RAW_MAX);
    for (uint64_t off = SEGMENT_HEAD_BYTES, seq = 1; scan_find(&s, off, seq, fence, &off, &h); seq = h.seq + 1) {
        r = scan_meta(&s, off, &h, &meta);
        if (fs_is_passing(r))
            break;
        if (r == 0)
            each(q, ctx, &h, buf_slice(&meta));
        off += frame_bytes(&h);
    }
    r = s.error < 0 ? s.error : r;
    scan_deinit(&s);
    buf_deinit(&meta);
    (void)q->fs->close(fd);
    return fs_is_passing(r) ? r : 0;
}

static void take_marks(struct queue *q, void *ctx, const struct frame_hdr *h, struct slice meta)
{
    (void)q;
    if (h->type == FRAME_LOST)
        (void)!marks_take(ctx, meta);
}

static void add_rows(struct totals *rows, struct slice meta)
{
    struct meta_item item;
    while (meta_next(&meta, &item) > 0) {
        struct slice input, tenant;
        uint64_t lines;
        if (item.tag == META_COUNT && meta_get_count(item.bytes, &input, &tenant, &lines) == 0 &&
            totals_add(rows, SLICE(""), tenant, lines) < 0)
            return;
    }
}

static void count_open(struct queue *q, void *ctx, const struct frame_hdr *h, struct slice meta)
{
    struct open_letters *o = ctx;
    o->has_holes |= h->seq != o->seq && h->type != FRAME_SNAP; /* with it the numbers begin */
    o->seq = h->seq + 1;
    o->n += h->type == FRAME_LOST && rereads_have(&q->rereads, (struct letter_id){ o->file, h->seq });
    if (h->type != FRAME_DATA || marks_find(&o->marks, (struct letter_id){ o->file, h->seq }) != LETTER_OPEN)
        return;
    o->n++;
    add_rows(&o->rows, meta);
}

void open_letters_deinit(struct open_letters *o)
{
    marks_deinit(&o->marks);
    totals_deinit(&o->rows);
}

/* What became of letters stands in the same file or in later ones. */
int dead_look_at(struct queue *q, uint64_t file, struct open_letters *ret)
{
    *ret = (struct open_letters){ .file = file, .seq = 1 };
    int r = 0;
    for (size_t i = 0; i < q->dead.n_files && !fs_is_passing(r); i++)
        r = walk_file(q, q->dead.files[i].id, take_marks, &ret->marks);
    return fs_is_passing(r) ? r : walk_file(q, file, count_open, ret);
}

/* ---- open ---- */

struct replayed {
    uint64_t file;
    bool has_snap;
};

/* What was to be read again, and what was. */
static void replay_rereads(struct queue *q, struct letter_id id, bool is_snap, struct slice meta)
{
    struct meta_item item;
    struct mark m;
    if (is_snap)
        rereads_clear(&q->rereads);
    q->dead.is_out_of_memory |= rereads_take(&q->rereads, id, meta) == -ENOMEM;
    while (meta_next(&meta, &item) > 0)
        if (item.tag == META_LETTER && marks_get(item.bytes, &m) == 0)
            rereads_remove(&q->rereads, m.id);
}

static void replay(struct queue *q, void *ctx, const struct frame_hdr *h, struct slice meta)
{
    struct dead_log *d = &q->dead;
    struct replayed *rp = ctx;
    struct meta_item item;
    bool is_snap = h->type == FRAME_SNAP;
    struct slice rest = meta;
    if (is_snap) {
        rp->has_snap = true;
        tally_deinit(&d->tally);
        missed_clear(q);
        q->given.n = 0;
    }
    given_take(&q->given, meta);
    d->is_out_of_memory |= missed_take_locked(q, meta, false) == -ENOMEM;
    if (is_snap || h->type == FRAME_LOST)
        replay_rereads(q, (struct letter_id){ is_snap ? 0 : rp->file, h->seq }, is_snap, meta);
    while (meta_next(&rest, &item) > 0) {
        struct slice s = item.bytes, input, tenant;
        uint64_t lines;
        if (item.tag == META_TALLY && is_snap) {
            d->is_out_of_memory |= tally_take(&d->tally, s) == -ENOMEM;
        } else if (item.tag == META_LOSS && s.len >= LOSS_BYTES && get_le32(s.ptr) < LOST_REASONS) {
            d->is_out_of_memory |= dead_add_loss(d, slice_from(s, LOSS_BYTES), get_le32(s.ptr), get_le64(s.ptr + 8),
                                                 get_le64(s.ptr + 16)) == -ENOMEM;
        } else if (item.tag == META_SPAN && s.len >= 16 && get_le64(s.ptr) <= get_le64(s.ptr + 8) &&
                   get_le64(s.ptr + 8) <= SEQ_MAX) {
            spans_add_locked(q, get_le64(s.ptr), get_le64(s.ptr + 8));
            spans_set_logged_locked(q, get_le64(s.ptr), get_le64(s.ptr + 8));
        } else if (item.tag == META_DROPPED && s.len >= 8) {
            d->dropped_id = MAX(d->dropped_id, get_le64(s.ptr));
        } else if (item.tag == META_COUNT && h->type == FRAME_DATA &&
                   meta_get_count(s, &input, &tenant, &lines) == 0) {
            struct tally_row *t = tally_get(&d->tally, tenant);
            if (t != NULL)
                t->dead += lines;
            d->is_out_of_memory |= t == NULL;
        }
    }
}

/* A dead letter whose frame the cursor has not passed: the frame comes again, and with it the letter. */
static void see(struct queue *q, void *ctx, const struct frame_hdr *h, struct slice meta)
{
    struct dead_log *d = &q->dead;
    struct frame_meta m;
    struct slice all = meta;
    (void)ctx;
    if (h->type != FRAME_DATA || d->n_seen >= SEEN_MAX)
        return;
    int r = frame_meta_parse(meta, NULL, 0, &m);
    if ((r < 0 && r != -ENOBUFS) || m.orig.seq == 0 || ack_is_done_locked(q, m.orig.seq))
        return;
    struct seen *seen = array_room(d->seen, d->n_seen, &d->cap_seen, sizeof(*seen));
    if (seen == NULL) {
        d->is_out_of_memory = true;
        return;
    }
    d->seen = seen;
    d->seen[d->n_seen++] = (struct seen){ m.orig.seq, m.orig.item };
    add_rows(&d->unsettled, all);
}

static void collect(void *ctx, const char *name)
{
    struct dead_log *d = ctx;
    uint64_t id = segment_name_parse(name, ".dead");
    if (id != 0)
        (void)!dead_files_add(d, id, 0);
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = ((const struct dead_file *)a)->id, y = ((const struct dead_file *)b)->id;
    return x < y ? -1 : x > y;
}

/* What is not ours, or has no good header, is not trusted and not removed either. */
static void weed(struct queue *q)
{
    struct dead_log *d = &q->dead;
    size_t kept = 0;
    for (size_t i = 0; i < d->n_files; i++) {
        char name[SEGMENT_NAME_BYTES];
        struct scan s = { 0 };
        int fd = -1;
        uint64_t fence = 0;
        int r = open_dead(q, d->files[i].id, O_RDONLY, &s, &fd, &fence);
        scan_deinit(&s);
        if (r == 0)
            (void)q->fs->close(fd);
        dead_file_name(name, d->files[i].id);
        if (r == -EBADMSG)
            quarantine_rename(q, d->dir_fd, name);
        else if (r != -ENOENT)
            d->files[kept++] = d->files[i];
        if (r == 0 && fence > 0 && kept > 1)
            d->files[kept - 2].fence = fence;
        d->left_at = r == 0 ? fence : d->left_at;
    }
    d->n_files = kept;
}

/* A file that cannot be read at this moment is not a damaged one: the sums in it must not be forgotten. */
static int walk_or_pass(struct queue *q, uint64_t id, each_frame each, void *ctx)
{
    int r = walk_file(q, id, each, ctx);
    return fs_is_passing(r) ? r : 0;
}

/* The newest file that begins with a SNAP, and what was written after it. */
static int replay_newest(struct queue *q)
{
    struct dead_log *d = &q->dead;
    int r = 0;
    for (size_t i = d->n_files; r == 0 && i-- > 0;) {
        struct replayed rp = { .file = d->files[i].id };
        r = walk_or_pass(q, rp.file, replay, &rp);
        if (!rp.has_snap)
            continue;
        for (size_t k = i + 1; r == 0 && k < d->n_files; k++) {
            rp.file = d->files[k].id;
            r = walk_or_pass(q, rp.file, replay, &rp);
        }
        return r;
    }
    return r;
}

/* The process may have died, or failed, before the sync of its last frame: what is in it is believed from here on, and the cursor
 * passes what it names. All others were synced before the next was written. */
static int make_last_durable(struct queue *q, uint64_t id)
{
    struct scan s = { 0 };
    struct frame_hdr h;
    uint64_t off, last = 0, end = 0;
    int fd;
    int r = open_dead(q, id, O_RDWR, &s, &fd, NULL);
    if (r < 0)
        return fs_is_passing(r) ? r : 0; /* nothing of it is believed */
    for (uint64_t at = SEGMENT_HEAD_BYTES, seq = 1; scan_find(&s, at, seq, fence_of(&q->dead, id), &off, &h);
         seq = h.seq + 1) {
        last = off == SEGMENT_HEAD_BYTES ? 0 : off; /* with the header, which was synced with the first */
        at = end = off + frame_bytes(&h);
    }
    r = s.error;
    if (r == 0 && end > 0)
        r = fs_make_durable(fd, last, end);
    scan_deinit(&s);
    (void)q->fs->close(fd);
    return r;
}

static void find_snap_end(struct queue *q, void *ctx, const struct frame_hdr *h, struct slice meta)
{
    (void)q;
    (void)meta;
    if (h->type == FRAME_SNAP)
        *(uint64_t *)ctx = SEGMENT_HEAD_BYTES + frame_bytes(h);
}

/* The newest may have nothing in it but its SNAP, see begin_file(). What that says holds; what the header says of the file before,
 * the next one says again. */
static int find_unborn(struct queue *q)
{
    struct dead_log *d = &q->dead;
    char name[SEGMENT_NAME_BYTES];
    struct stat st;
    uint64_t end = 0;
    if (d->n_files == 0)
        return 0;
    const uint64_t id = d->files[d->n_files - 1].id;
    int r = walk_or_pass(q, id, find_snap_end, &end);
    dead_file_name(name, id);
    if (r == 0 && q->fs->stat(d->dir_fd, name, &st, false) == 0 && (uint64_t)st.st_size == end) {
        d->unborn_id = id;
        d->n_files--;
    } else {
        d->left_at = 0;
    }
    return r;
}

static void stat_files(struct queue *q)
{
    struct dead_log *d = &q->dead;
    size_t kept = 0;
    for (size_t i = 0; i < d->n_files; i++) {
        char name[SEGMENT_NAME_BYTES];
        struct stat st;
        dead_file_name(name, d->files[i].id);
        if (d->files[i].id <= d->dropped_id) {
            (void)q->fs->unlink(d->dir_fd, name); /* counted as lost before a crash */
            continue;
        }
        if (q->fs->stat(d->dir_fd, name, &st, false) < 0)
            continue;
        d->files[kept] = d->files[i];
        d->files[kept].bytes = (uint64_t)st.st_size;
        d->bytes += d->files[kept++].bytes;
    }
    d->n_files = kept;
}

int dead_open(struct queue *q)
{
    struct dead_log *d = &q->dead;
    int r = q->fs->list(d->dir_fd, collect, d);
    if (r < 0)
        return r;
    if (d->n_files > 0) {
        qsort(d->files, d->n_files, sizeof(*d->files), by_id);
        d->id = d->files[d->n_files - 1].id;
    }
    weed(q);
    for (size_t i = d->n_files; r == 0 && i-- > 0 && i + SEEN_FILES >= d->n_files;)
        r = make_last_durable(q, d->files[i].id);
    if (r == 0)
        r = replay_newest(q);
    if (r == 0)
        r = find_unborn(q);
    if (r == 0)
        stat_files(q);
    for (size_t i = d->n_files; r == 0 && i-- > 0 && i + SEEN_FILES >= d->n_files;)
        r = walk_or_pass(q, d->files[i].id, see, NULL);
    dead_publish_bytes(q);
    return r == 0 && d->is_out_of_memory ? -ENOMEM : r;
}
