/*
 * Recovery: which files there are, which queue they are of, and where each ends. Costs a header of each; where ids are
 * missing between two, a pass over the older one.
 */
#include <errno.h>
#include <stdlib.h>

#include "agent/base/array.h"
#include "agent/base/bug.h"
#include "agent/queue/recover.h"

static void collect(void *ctx, const char *name)
{
    struct recovery *r = ctx;
    uint64_t id = segment_name_parse(name, ".seg");
    if (id == 0 || r->is_out_of_memory)
        return;
    struct found *files = array_room(r->files, r->n, &r->cap, sizeof(*files));
    if (files == NULL) {
        r->is_out_of_memory = true;
        return;
    }
    r->files = files;
    r->files[r->n++] = (struct found){ .id = id };
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = ((const struct found *)a)->id, y = ((const struct found *)b)->id;
    return x < y ? -1 : x > y;
}

/* A file is set aside for what is in it, not for a moment in which it could not be read. */
static int read_head(struct recovery *rc, struct found *f)
{
    struct queue *q = rc->q;
    int fd;
    f->verdict = FILE_BAD;
    int r = segment_open(q, f->id, &fd, &f->size);
    if (r == 0) {
        if (f->size == 0)
            f->verdict = FILE_EMPTY;
        else if ((r = segment_head_read(fd, f->id, &f->head)) == 0)
            f->verdict = FILE_GOOD;
        (void)q->fs->close(fd);
    }
    if (fs_is_passing(r))
        return err_set(rc->err, r, "queue of output '%s': cannot read segment %016llx now", q->name,
                       (unsigned long long)f->id);
    if (r == -EPROTO)
        return err_say(rc->err, r,
                       "queue of output '%s': segment %016llx was written by a newer version; it is left as it is",
                       q->name, (unsigned long long)f->id);
    return 0;
}

int recover_list(struct recovery *rc)
{
    int r = rc->q->fs->list(rc->q->dir_fd, collect, rc);
    if (rc->is_out_of_memory)
        r = -ENOMEM;
    if (r < 0)
        return err_set(rc->err, r, "queue of output '%s': cannot list the directory", rc->q->name);
    if (rc->n > 0)
        qsort(rc->files, rc->n, sizeof(*rc->files), by_id);
    for (size_t i = 0; i < rc->n && r == 0; i++)
        r = read_head(rc, &rc->files[i]);
    return r;
}

static bool has_uuid(const struct found *f, const uint8_t uuid[UUID_BYTES])
{
    return f->verdict == FILE_GOOD && memcmp(f->head.uuid, uuid, UUID_BYTES) == 0;
}

/* That of most of the newest good files; the newest of them when there are as many. NULL: there is none. */
static const uint8_t *elect_uuid(const struct recovery *rc)
{
    const uint8_t *chosen = NULL;
    size_t best = 0, voters = 0, from = rc->n;
    while (from > 0 && voters < UUID_VOTERS)
        voters += rc->files[--from].verdict == FILE_GOOD;
    for (size_t i = from; i < rc->n; i++) {
        size_t same = 0;
        if (rc->files[i].verdict != FILE_GOOD)
            continue;
        for (size_t k = from; k < rc->n; k++)
            same += has_uuid(&rc->files[k], rc->files[i].head.uuid);
        if (same >= best) {
            best = same;
            chosen = rc->files[i].head.uuid;
        }
        if (same == voters)
            break;
    }
    return chosen;
}

/* The cursor's uuid if a segment has it, else that of most segments: a foreign file must not take the queue over. */
static void choose_uuid(struct recovery *rc)
{
    bool is_known = false;
    for (size_t i = 0; rc->has_cursor && i < rc->n && !is_known; i++)
        is_known = has_uuid(&rc->files[i], rc->cursor.uuid);
    const uint8_t *elected = is_known ? rc->cursor.uuid : elect_uuid(rc);
    if (elected != NULL)
        memcpy(rc->q->uuid, elected, UUID_BYTES);
    else if (rc->has_cursor)
        memcpy(rc->q->uuid, rc->cursor.uuid, UUID_BYTES);
    else
        random_bytes(rc->q->uuid, UUID_BYTES);
    if (rc->has_cursor && memcmp(rc->q->uuid, rc->cursor.uuid, UUID_BYTES) != 0)
        rc->has_cursor = false;
}

/* Strangers, and files whose numbers do not grow with their ids: the newer one is right. */
static void weed(struct recovery *rc)
{
    uint64_t first_above = UINT64_MAX;
    for (size_t i = rc->n; i-- > 0;) {
        struct found *f = &rc->files[i];
        if (f->verdict != FILE_GOOD)
            continue;
        f->is_strange = memcmp(f->head.uuid, rc->q->uuid, UUID_BYTES) != 0;
        if (f->is_strange || f->head.first_seq >= first_above)
            f->verdict = FILE_BAD;
        else
            first_above = f->head.first_seq;
    }
}

static int list_segments(struct recovery *rc)
{
    struct queue *q = rc->q;
    for (size_t i = 0; i < rc->n; i++) {
        const struct found *f = &rc->files[i];
        q->last_id = MAX(q->last_id, f->id);
        if (f->verdict != FILE_GOOD)
            continue;
        struct segment s = { .id = f->id, .first_seq = f->head.first_seq, .fence = f->head.fence,
                             .last_data_seq = UINT64_MAX, .bytes = f->size, .salt = f->head.salt,
                             .wire_form = f->head.wire_form };
        rc->top_seq = MAX(rc->top_seq, s.first_seq);
        int r = segment_list_add(q, &s);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Where each ends: the next one's fence, and no later fence below it. When ids are missing between two, a file may be
 * gone, and only the frames themselves say where the older one ends. The newest is not known yet. */
static int find_ends(struct recovery *rc)
{
    struct queue *q = rc->q;
    uint64_t fence = SEQ_MAX;
    for (size_t i = q->n_segs; i-- > 0;) {
        struct segment *s = &q->segs[i];
        s->last_seq = fence;
        if (i + 1 < q->n_segs && q->segs[i + 1].id != s->id + 1 && fence >= s->first_seq) {
            uint64_t seq;
            int r = segment_last_seq(q, s, &seq);
            if (fs_is_passing(r))
                return r;
            if (r == 0 && seq < fence)
                s->last_seq = MAX(seq, s->first_seq - 1);
        }
        fence = BUG(2) ? SEQ_MAX : MIN(fence, s->fence);
    }
    return 0;
}

int recover_segments(struct recovery *rc)
{
    choose_uuid(rc);
    int r = recover_heads(rc);
    if (r < 0)
        return r;
    weed(rc);
    r = list_segments(rc);
    return r < 0 ? r : find_ends(rc);
}
