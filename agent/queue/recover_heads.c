/*
 * Recovery: files whose header is damaged and whose frames are good. The frames have their own CRCs and know their numbers, so
 * the header is made anew from them, but only where that is proved: they must end where the next file's fence says, and
 * begin behind the SEAL of the file before, when there is one. The newest has its SNAP directly behind that SEAL; when it is the
 * only one, the cursor stands in it.
 */
#include <errno.h>
#include <fcntl.h>

#include "agent/base/log.h"
#include "agent/queue/recover.h"
#include "agent/queue/scan.h"

/* The valid frames of a file, of one salt, whatever its header is. */
struct run {
    struct frame_hdr first, last;
    uint64_t off; /* of the first */
    bool has_any;
};

/* Those up to last_seq. -ENOMEM, a passing error. */
static int read_run(struct queue *q, const struct found *f, uint64_t last_seq, struct run *ret)
{
    struct scan s;
    struct frame_hdr h;
    int fd;
    uint64_t size, off = SEGMENT_HEAD_BYTES;
    *ret = (struct run){ 0 };
    int r = segment_open(q, f->id, &fd, &size);
    if (r < 0)
        return fs_is_passing(r) ? r : 0;
    r = scan_init(&s, fd, size, 0);
    s.any_salt = true;
    for (uint64_t seq = 1; r == 0 && scan_find(&s, off, seq, last_seq, &off, &h); seq = h.seq + 1) {
        if (!ret->has_any) {
            ret->first = h;
            ret->off = off;
        }
        ret->has_any = true;
        ret->last = h;
        off += frame_bytes(&h);
    }
    r = r == 0 ? s.error : r;
    scan_deinit(&s);
    (void)q->fs->close(fd);
    return r;
}

static bool is_of_queue(const struct recovery *rc, const struct found *f)
{
    return f->verdict == FILE_GOOD && memcmp(f->head.uuid, rc->q->uuid, UUID_BYTES) == 0;
}

static bool has_snap(const struct run *own)
{
    return own->has_any && own->off == SEGMENT_HEAD_BYTES && own->first.type == FRAME_SNAP;
}

/* Where its numbers begin. Without its SNAP it is the number after the SEAL before, or, in the oldest, the one before its
 * first good frame. False: nobody can say. */
static bool find_beginning(const struct run *own, const struct run *before, struct segment_head *head)
{
    if (before != NULL && (!before->has_any || before->last.type != FRAME_SEAL))
        return false; /* its last frames may be void */
    if (has_snap(own))
        head->first_seq = own->first.seq;
    else
        head->first_seq = before != NULL ? before->last.seq + 1 : own->first.seq - 1;
    head->fence = before != NULL ? before->last.seq : head->first_seq - 1;
    return head->first_seq > 0;
}

/* What cannot be written now is found again by the next open. */
static void write_again(struct queue *q, const struct found *f)
{
    char name[SEGMENT_NAME_BYTES];
    uint8_t raw[SEGMENT_HEAD_BYTES];
    struct stat st;
    segment_name(name, f->id);
    log_error("queue", "queue.damaged", "the header of a file of the queue was damaged: it is made anew from its frames",
              LOG_CSTR("output", q->name), LOG_CSTR("file", name));
    int fd = queue_open_file(q->fs, q->dir_fd, name, O_RDWR, &st);
    if (fd < 0)
        return;
    quarantine_copy(q, fd, f->id, 0, SEGMENT_HEAD_BYTES);
    segment_head_encode(&f->head, raw);
    if (fs_pwrite_full(fd, raw, sizeof(raw), 0) == 0)
        (void)!q->fs->fdatasync(fd);
    (void)q->fs->close(fd);
}

static void take_head(struct recovery *rc, struct found *f, struct segment_head *head, const struct run *own)
{
    head->id = f->id;
    head->created_ns = own->first.built_ns;
    head->salt = own->first.salt;
    f->head = *head;
    f->verdict = FILE_GOOD;
    rc->rec->damaged_bytes += SEGMENT_HEAD_BYTES;
    write_again(rc->q, f);
}

/* -ENOMEM, a passing error. */
static int mend(struct recovery *rc, struct found *f, const struct found *older, const struct found *newer)
{
    struct queue *q = rc->q;
    struct run own, before;
    struct segment_head head = newer->head; /* uuid, wire form: what is queued has one */
    int r = read_run(q, f, newer->head.fence, &own);
    if (r < 0 || !own.has_any || own.last.seq != newer->head.fence)
        return r;
    if (older != NULL && older->id + 1 != f->id)
        return 0;
    r = older == NULL ? 0 : read_run(q, older, own.first.seq - 1, &before);
    if (r == 0 && find_beginning(&own, older == NULL ? NULL : &before, &head))
        take_head(rc, f, &head, &own);
    return r;
}

/* The only file: the newest is never removed, so what the cursor stands in, or directly before, is this one. Its wire form is
 * taken to be the output's. */
static void mend_only(struct recovery *rc, struct found *f, const struct run *own)
{
    struct segment_head head = { .wire_form = rc->q->wire_form };
    memcpy(head.uuid, rc->q->uuid, UUID_BYTES);
    uint64_t acked = rc->has_cursor ? rc->cursor.acked_seq : 0;
    if (acked > 0 && own->first.seq <= acked + 1 && acked <= own->last.seq && find_beginning(own, NULL, &head))
        take_head(rc, f, &head, own);
}

/* No number means two frames, so the SNAP that follows a SEAL begins the next file. That SEAL was durable before, or this one might
 * have another fence. -ENOMEM, a passing error. */
static int mend_newest(struct recovery *rc, struct found *f, const struct found *older)
{
    struct run own, before;
    int r = read_run(rc->q, f, SEQ_MAX, &own);
    if (r < 0 || !has_snap(&own))
        return r;
    if (older == NULL) {
        mend_only(rc, f, &own);
        return 0;
    }
    if (!is_of_queue(rc, older) || older->id + 1 != f->id)
        return 0;
    struct segment_head head = older->head; /* uuid, wire form */
    r = read_run(rc->q, older, own.first.seq - 1, &before);
    bool is_next = r == 0 && before.has_any && before.last.seq + 1 == own.first.seq && own.first.synced_seq == before.last.seq;
    if (is_next && find_beginning(&own, &before, &head))
        take_head(rc, f, &head, &own);
    return r;
}

int recover_heads(struct recovery *rc)
{
    int r = 0;
    bool is_newest = true;
    for (size_t i = rc->n; r == 0 && i-- > 0;) {
        struct found *f = &rc->files[i];
        const struct found *newer = i + 1 < rc->n ? f + 1 : NULL, *older = i > 0 ? f - 1 : NULL;
        /* A good header under another name is another file's. */
        bool is_lost = f->verdict == FILE_BAD && f->size > SEGMENT_HEAD_BYTES && f->head.id == 0;
        if (is_lost && is_newest)
            r = mend_newest(rc, f, older);
        else if (is_lost && is_of_queue(rc, newer) && newer->id == f->id + 1)
            r = mend(rc, f, older, newer);
        is_newest = is_newest && f->verdict == FILE_EMPTY; /* made early: no file yet */
    }
    return r;
}
