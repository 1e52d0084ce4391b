/*
 * Files of frames: their names, how one begins and how it ends.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "agent/base/array.h"
#include "agent/base/bug.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/queue/core.h"

/* ---- random numbers: uuid and salts ---- */

void random_bytes(void *ptr, size_t len)
{
    if (fs_current()->random(ptr, len) == 0)
        return;
    /* Only on kernels without it. A salt must differ from its neighbours, not be secret. */
    uint64_t x = (uint64_t)clock_wall_ns() ^ (uint64_t)clock_mono_ns() << 20 ^ (uint64_t)(uintptr_t)ptr;
    for (size_t i = 0; i < len; i++) {
        x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        ((uint8_t *)ptr)[i] = (uint8_t)(x >> 56);
    }
}

uint32_t random_u32(void)
{
    uint32_t v;
    random_bytes(&v, sizeof(v));
    return v;
}

/* ---- names ---- */

void segment_name(char out[SEGMENT_NAME_BYTES], uint64_t id)
{
    snprintf(out, SEGMENT_NAME_BYTES, "%016llx.seg", (unsigned long long)id);
}

uint64_t segment_name_parse(const char *name, const char *suffix)
{
    uint64_t id = 0;
    for (int i = 0; i < 16; i++) {
        const char *digits = "0123456789abcdef", *d = name[i] == '\0' ? NULL : strchr(digits, name[i]);
        if (d == NULL)
            return 0;
        id = id << 4 | (uint64_t)(d - digits);
    }
    return strcmp(name + 16, suffix) == 0 && id <= SEQ_MAX ? id : 0;
}

int queue_unlink_id(struct queue *q, int dir_fd, name_of_id *name_of, uint64_t id)
{
    char name[SEGMENT_NAME_BYTES];
    name_of(name, id);
    return q->fs->unlink(dir_fd, name);
}

void queue_replace_unborn(struct queue *q, int dir_fd, name_of_id *name_of, uint64_t *unborn_id, uint64_t id)
{
    if (*unborn_id != 0)
        (void)!queue_unlink_id(q, dir_fd, name_of, *unborn_id);
    *unborn_id = id;
}

/* O_NONBLOCK: a FIFO must not stop us. O_NOFOLLOW: what lies behind a link is not ours. */
int queue_open_file(const struct fs_ops *fs, int dir_fd, const char *name, int flags, struct stat *ret_st)
{
    unsigned tries = 0;
    int fd, r;
    do
        fd = fs->open(dir_fd, name, flags | O_NONBLOCK | O_NOFOLLOW, 0);
    while (fs_tries_again(fd, &tries));
    if (fd < 0)
        return fd == -ELOOP || fd == -EISDIR || fd == -ENXIO ? -EBADMSG : fd;
    do
        r = fs->fstat(fd, ret_st);
    while (fs_tries_again(r, &tries));
    if (r == 0 && !S_ISREG(ret_st->st_mode))
        r = -EBADMSG;
    if (r < 0) {
        (void)fs->close(fd);
        return r;
    }
    return fd;
}

int segment_head_read(int fd, uint64_t id, struct segment_head *ret)
{
    uint8_t raw[SEGMENT_HEAD_BYTES];
    ssize_t n = fs_pread_full(fd, raw, sizeof(raw), 0);
    if (fs_is_passing(n))
        return (int)n;
    int r = n == (ssize_t)sizeof(raw) ? segment_head_decode(raw, ret) : -EBADMSG;
    return r == 0 && ret->id != id ? -EBADMSG : r;
}

/* ---- writing ---- */

int frame_write(struct queue *q, int fd, uint64_t off, struct frame_hdr *h, struct slice meta, struct slice body)
{
    static const char zero[FRAME_ALIGN];
    uint8_t head[FRAME_HEAD_BYTES];
    if (meta.len > FRAME_META_MAX || body.len > FRAME_BODY_MAX)
        return -EMSGSIZE;
    h->meta_len = (uint32_t)meta.len;
    h->body_len = (uint32_t)body.len;
    h->meta_crc = frame_crc(meta);
    h->body_crc = frame_crc(body);
    frame_hdr_encode(h, head);

    size_t len = (size_t)frame_bytes(h), pad = len - FRAME_HEAD_BYTES - meta.len - body.len;
    struct iovec iov[4] = { { .iov_base = head, .iov_len = sizeof(head) } };
    int n = 1;
    if (meta.len > 0)
        iov[n++] = (struct iovec){ .iov_base = (void *)(uintptr_t)meta.ptr, .iov_len = meta.len };
    if (body.len > 0)
        iov[n++] = (struct iovec){ .iov_base = (void *)(uintptr_t)body.ptr, .iov_len = body.len };
    if (pad > 0)
        iov[n++] = (struct iovec){ .iov_base = (void *)(uintptr_t)zero, .iov_len = pad };
    ssize_t done = q->fs->pwritev(fd, iov, n, off);
    if (done < 0)
        return (int)done;
    /* A short write is a disk that is full or about to say why: the caller brings the same bytes again. */
    return (size_t)done == len ? 0 : -ENOSPC;
}

int segment_list_add(struct queue *q, const struct segment *s)
{
    int r = 0;
    pthread_mutex_lock(&q->lock);
    struct segment *segs = array_room(q->segs, q->n_segs, &q->cap_segs, sizeof(*segs));
    if (segs == NULL)
        r = -ENOMEM;
    else
        q->segs = segs;
    if (r == 0)
        q->segs[q->n_segs++] = *s;
    pthread_mutex_unlock(&q->lock);
    return r;
}

/* The next segment is made and given its blocks while there is room in this one: a full disk shows a segment ahead. */
void segment_make_spare(struct queue *q)
{
    if (q->spare_fd >= 0 || q->is_spare_tried)
        return;
    q->is_spare_tried = true; /* once a segment: the roll tries again anyway */
    char name[SEGMENT_NAME_BYTES];
    segment_name(name, q->last_id + 1);
    int fd = q->fs->open(q->dir_fd, name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0)
        return;
    int r = q->fs->reserve(fd, q->segment_bytes);
    if (fs_is_full(r)) {
        log_warn("queue", "queue.blocked", "the disk has no room for the next segment", LOG_CSTR("output", q->name));
        (void)q->fs->close(fd);
        (void)q->fs->unlink(q->dir_fd, name); /* empty; open removes it too */
        return;
    }
    q->spare_fd = fd;
    q->spare_id = q->last_id + 1;
}

void segment_drop_spare(struct queue *q)
{
    if (q->spare_fd < 0)
        return;
    (void)q->fs->close(q->spare_fd);
    (void)!queue_unlink_id(q, q->dir_fd, segment_name, q->spare_id);
    q->spare_fd = -1;
}

/* ---- room for the next head ---- */

#define ROOM_NAME "next"
#define ROOM_BYTES (64 * KIB)
#define ROOM_ROWS 256 /* so many files and tenants more, so much room more: compressed each takes less than half of that */

void segment_close_room(struct queue *q)
{
    if (q->room_fd >= 0)
        (void)q->fs->close(q->room_fd);
    q->room_fd = -1;
    q->room_bytes = 0;
}

/* One that is not empty became a segment whose name a power cut took back: nothing counted on it yet. The blocks of an empty one
 * are there still: they must not be put at stake for more of them, see segment_keep_room(). */
static int room_open(struct queue *q)
{
    struct stat st;
    int r = queue_make_way(q, ROOM_NAME, S_IFREG);
    if (r < 0)
        return r;
    int fd = q->fs->open(q->dir_fd, ROOM_NAME, O_RDWR | O_CREAT, 0600);
    if (fd < 0)
        return fd;
    r = q->fs->fstat(fd, &st);
    if (r == 0 && st.st_size > 0)
        r = q->fs->truncate(fd, 0);
    if (r < 0) {
        (void)q->fs->close(fd);
        return r;
    }
    q->room_fd = fd;
    q->room_bytes = st.st_size > 0 ? 0 : (uint64_t)st.st_blocks * 512;
    return 0;
}

int segment_keep_room(struct queue *q)
{
    uint64_t rows = (uint64_t)q->positions.n + q->totals.n;
    uint64_t need = (1 + rows / ROOM_ROWS) * ROOM_BYTES;
    if (q->room_fd >= 0 && q->room_bytes >= need)
        return 0;
    int r = q->room_fd >= 0 ? 0 : room_open(q);
    if (r < 0)
        return fs_is_full(r) ? r : 0;
    struct fs_space space;
    if (q->room_bytes > 0 && q->fs->space(q->dir_fd, &space) == 0 && space.free_bytes < need - q->room_bytes)
        return -ENOSPC; /* not tried: some disks take back what a failed fallocate found there */
    r = q->fs->reserve(q->room_fd, need);
    if (r == 0 || r == -EOPNOTSUPP) /* without fallocate: an empty file, and an inode */
        q->room_bytes = need;
    return fs_is_full(r) ? r : 0;
}

/* Its blocks are there, and its inode: no more than a name changes. */
static int room_take(struct queue *q, uint64_t *ret_id)
{
    char name[SEGMENT_NAME_BYTES];
    struct stat st;
    *ret_id = q->last_id;
    int r;
    do { /* a rename would write over what stands there */
        segment_name(name, ++*ret_id);
        r = q->fs->stat(q->dir_fd, name, &st, false);
    } while (r == 0 && *ret_id < q->last_id + 1000);
    if (r != -ENOENT || q->fs->rename(q->dir_fd, ROOM_NAME, q->dir_fd, name) < 0)
        return -ENOSPC;
    int fd = q->room_fd;
    q->room_fd = -1;
    q->room_bytes = 0;
    return fd;
}

static int open_next(struct queue *q, uint64_t *ret_id)
{
    char name[SEGMENT_NAME_BYTES];
    if (q->spare_fd >= 0) {
        int fd = q->spare_fd;
        *ret_id = q->spare_id;
        q->spare_fd = -1;
        return fd;
    }
    /* A name that is taken (a file that could not be removed) is passed over; ids only grow. */
    int fd = -EEXIST;
    for (uint64_t id = q->last_id + 1; fd == -EEXIST && id < q->last_id + 1000; id++) {
        segment_name(name, id);
        fd = q->fs->open(q->dir_fd, name, O_RDWR | O_CREAT | O_EXCL, 0600);
        *ret_id = id;
    }
    if (fd >= 0)
        (void)q->fs->reserve(fd, q->segment_bytes); /* the write says it if there is no room */
    return fd;
}

static int build_snap(struct queue *q)
{
    buf_reset(&q->snap);
    buf_reset(&q->meta);
    int r = positions_put(&q->positions, false, &q->snap);
    for (size_t i = 0; r == 0 && i < q->rereads.done.n; i++) /* dead/ does not know of them yet */
        r = marks_put(&q->snap, q->rereads.done.list[i].id, LETTER_RESENT);
    if (r == 0)
        r = totals_put(&q->totals, &q->snap, true);
    if (r == 0)
        r = meta_pack(buf_slice(&q->snap), &q->meta);
    return r;
}

/* Header and SNAP, synced, then the name: only then does the segment exist. ret_end: 0 when they were not written, whatever is
 * returned. */
static int write_head(struct queue *q, int fd, const struct segment_head *head, uint64_t *ret_end)
{
    uint8_t raw[SEGMENT_HEAD_BYTES];
    struct frame_hdr h = { .type = FRAME_SNAP,
                           .seq = head->first_seq,
                           .synced_seq = q->synced_seq,
                           .built_ns = MAX(head->created_ns, q->newest_ns),
                           .salt = head->salt };
    q->newest_ns = h.built_ns;
    int r = build_snap(q);
    if (r == 0) {
        segment_head_encode(head, raw);
        r = fs_pwrite_full(fd, raw, sizeof(raw), 0);
    }
    if (r == 0)
        r = frame_write(q, fd, SEGMENT_HEAD_BYTES, &h, buf_slice(&q->meta), SLICE(""));
    *ret_end = r == 0 ? SEGMENT_HEAD_BYTES + frame_bytes(&h) : 0;
    if (r == 0)
        r = q->fs->fdatasync(fd);
    if (r == 0 && !BUG(6))
        r = q->fs->sync_dir(q->dir_fd);
    /* Large with ten thousand files, and seldom needed. */
    buf_shrink(&q->snap, 0);
    buf_reset(&q->meta);
    buf_shrink(&q->meta, 64 * KIB);
    return r;
}

static void adopt(struct queue *q, int fd, const struct segment *s)
{
    if (q->fd >= 0)
        (void)q->fs->close(q->fd);
    q->fd = fd;
    q->salt = s->salt;
    q->last_id = s->id;
    q->end = q->synced_end = q->group_end = s->bytes;
    q->group_seq = q->top_seq = q->synced_seq = s->last_seq;
    q->group_data_seq = 0;
    q->next_seq = s->last_seq + 1;
    q->in_group = q->must_roll = q->is_failed = q->is_spare_tried = false;
    atomic_fetch_add(&q->bytes, s->bytes);
}

static int begin_in(struct queue *q, int (*open_file)(struct queue *q, uint64_t *ret_id))
{
    struct segment s = { .fence = q->group_seq, .first_seq = q->top_seq + 1, .salt = random_u32(),
                         .wire_form = q->wire_form };
    assert(s.first_seq > s.fence && s.first_seq > atomic_load(&q->acked_seq));
    s.last_seq = s.first_seq;
    int fd = open_file(q, &s.id);
    if (fd < 0)
        return fd;
    struct segment_head head = { .id = s.id, .first_seq = s.first_seq, .fence = s.fence, .salt = s.salt,
                                 .created_ns = clock_wall_ns(), .wire_form = q->wire_form };
    memcpy(head.uuid, q->uuid, UUID_BYTES);
    int r = write_head(q, fd, &head, &s.bytes);
    if (r == 0)
        r = segment_list_add(q, &s);
    if (r < 0) {
        /* It may have reached the disk: the next try has another id and takes the seqs after its SNAP's. With the power it may come
         * back, whatever becomes of its name: that stays until another is begun, so that a later start goes on from it, too. */
        if (s.bytes > 0)
            (void)q->fs->truncate(fd, s.bytes); /* blocks beyond it */
        (void)q->fs->close(fd);
        if (s.bytes > 0)
            queue_replace_unborn(q, q->dir_fd, segment_name, &q->unborn_id, s.id);
        else
            (void)!queue_unlink_id(q, q->dir_fd, segment_name, s.id);
        q->last_id = s.id;
        q->top_seq = s.first_seq;
        return r;
    }
    queue_replace_unborn(q, q->dir_fd, segment_name, &q->unborn_id, 0);
    positions_noted(&q->positions);
    adopt(q, fd, &s);
    atomic_store(&q->durable_seq, s.last_seq);
    return 0;
}

int segment_begin(struct queue *q)
{
    assert(!q->in_group);
    int r = begin_in(q, open_next);
    return fs_is_full(r) && q->room_fd >= 0 ? begin_in(q, room_take) : r;
}

/*
 * The counts at its end, the file cut to its length, everything synced. When nothing follows, the places stand nowhere but at the
 * ends of their groups: were one of these damaged, the file would be read from where it stood before, beside what the group's other
 * frames hold. So they stand here once more.
 */
int segment_seal(struct queue *q, bool with_places)
{
    assert(q->fd >= 0 && !q->in_group && q->end == q->group_end);
    /* First what is before it: else its last group, if it is damaged, looks like one that was torn. */
    int r = queue_sync(q);
    if (r < 0)
        return -ESTALE;
    struct frame_hdr h = { .type = FRAME_SEAL, .seq = q->group_seq + 1, .synced_seq = q->synced_seq,
                           .built_ns = clock_wall_ns(), .salt = q->salt };
    buf_reset(&q->meta);
    r = totals_put(&q->totals, &q->meta, false);
    if (r == 0)
        r = with_places ? positions_put(&q->positions, true, &q->meta) : 0;
    if (r == 0)
        r = frame_write(q, q->fd, q->end, &h, buf_slice(&q->meta), SLICE(""));
    if (r < 0)
        return r;
    uint64_t end = q->end + frame_bytes(&h);
    (void)q->fs->truncate(q->fd, end); /* blocks beyond it; what stays there is void by the SEAL */
    r = q->fs->fdatasync(q->fd);
    if (r < 0) {
        q->top_seq = MAX(q->top_seq, h.seq);
        queue_fence(q);
        return -ESTALE;
    }
    q->end = q->group_end = q->synced_end = end;
    q->group_seq = q->synced_seq = h.seq;
    q->top_seq = MAX(q->top_seq, h.seq);
    q->next_seq = h.seq + 1;
    queue_publish(q);
    dead_settle_rereads(q);
    q->must_roll = true;
    return 0;
}
