#include "agent/queue/view.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/array.h"
#include "agent/queue/inspect.h"

static void collect(void *ctx, const char *name)
{
    struct files *f = ctx;
    uint64_t id = segment_name_parse(name, f->suffix);
    if (id == 0)
        return;
    struct file *list = array_room(f->list, f->n, &f->cap, sizeof(*list));
    if (list == NULL) {
        f->is_out_of_memory = true;
        return;
    }
    f->list = list;
    struct file *at = &f->list[f->n++];
    *at = (struct file){ .id = id };
    snprintf(at->name, sizeof(at->name), "%s%016llx%s", f->sub, (unsigned long long)id, f->suffix);
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = ((const struct file *)a)->id, y = ((const struct file *)b)->id;
    return x < y ? -1 : x > y;
}

static int read_head(struct view *v, struct file *f)
{
    struct stat st;
    f->kind = FILE_DAMAGED;
    int fd = queue_open_file(v->fs, v->dir_fd, f->name, O_RDONLY, &st);
    if (fd < 0)
        return fs_is_passing(fd) ? fd : 0;
    f->bytes = (uint64_t)st.st_size;
    int r = segment_head_read(fd, f->id, &f->head);
    f->kind = r == 0 ? FILE_GOOD : f->bytes == 0 ? FILE_EMPTY : FILE_DAMAGED;
    (void)v->fs->close(fd);
    return fs_is_passing(r) ? r : 0;
}

static int list_files(struct view *v, struct files *f, const char *sub, const char *suffix)
{
    f->sub = sub;
    f->suffix = suffix;
    int fd = sub[0] == '\0' ? v->dir_fd : v->fs->open(v->dir_fd, sub, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fd == -ENOENT || fd == -ENOTDIR ? 0 : fd;
    int r = v->fs->list(fd, collect, f);
    if (fd != v->dir_fd)
        (void)v->fs->close(fd);
    if (f->is_out_of_memory)
        r = -ENOMEM;
    if (f->n > 0)
        qsort(f->list, f->n, sizeof(*f->list), by_id);
    for (size_t i = 0; r == 0 && i < f->n; i++)
        r = read_head(v, &f->list[i]);
    return r;
}

static void set_fences(struct files *f)
{
    uint64_t fence = SEQ_MAX;
    for (size_t i = f->n; i-- > 0;) {
        f->list[i].fence = fence;
        if (f->list[i].kind == FILE_GOOD)
            fence = MIN(fence, f->list[i].head.fence);
    }
}

/* Parked files stand alone; a file of dead/ speaks of the good one before it. */
static void set_other_fences(struct files *f)
{
    uint64_t fence = SEQ_MAX;
    for (size_t i = f->n; i-- > 0;) {
        f->list[i].fence = fence;
        if (f->list[i].kind == FILE_GOOD)
            fence = f->list[i].head.fence > 0 ? f->list[i].head.fence : SEQ_MAX;
    }
}

static bool has_uuid(const struct file *f, const uint8_t uuid[UUID_BYTES])
{
    return f->kind == FILE_GOOD && memcmp(f->head.uuid, uuid, UUID_BYTES) == 0;
}

/* As recovery chooses: the cursor's if a segment has it, else that of most of the newest segments, the later of two. */
static void choose_uuid(struct view *v)
{
    const struct files *f = &v->segments;
    size_t best = 0, voters = 0, from = f->n;
    memcpy(v->uuid, v->cursor.uuid, UUID_BYTES);
    for (size_t i = 0; v->has_cursor && i < f->n; i++)
        if (has_uuid(&f->list[i], v->cursor.uuid))
            return;
    while (from > 0 && voters < UUID_VOTERS)
        voters += f->list[--from].kind == FILE_GOOD;
    for (size_t i = from; i < f->n; i++) {
        size_t same = 0;
        if (f->list[i].kind != FILE_GOOD)
            continue;
        for (size_t k = from; k < f->n; k++)
            same += has_uuid(&f->list[k], f->list[i].head.uuid);
        if (same >= best) {
            best = same;
            memcpy(v->uuid, f->list[i].head.uuid, UUID_BYTES);
        }
        if (same == voters)
            return;
    }
}

static void mark_foreign(const struct view *v, struct files *f)
{
    for (size_t i = 0; i < f->n; i++)
        if (f->list[i].kind == FILE_GOOD && memcmp(f->list[i].head.uuid, v->uuid, UUID_BYTES) != 0)
            f->list[i].kind = FILE_FOREIGN;
}

void view_close(struct view *v)
{
    if (v->dir_fd >= 0)
        (void)v->fs->close(v->dir_fd);
    free(v->segments.list);
    free(v->parked.list);
    free(v->dead.list);
}

static int take_cursor(struct view *v)
{
    struct stat st;
    int r, fd = r = queue_open_file(v->fs, v->dir_fd, "cursor", O_RDONLY, &st);
    if (fd >= 0) {
        r = cursor_read(fd, &v->cursor);
        v->cursor_bytes = (uint64_t)st.st_size;
        (void)v->fs->close(fd);
    }
    v->has_cursor = r > 0;
    return fs_is_passing(r) ? r : 0;
}

/* The cursor is read first: what is acknowledged later still shows as queued, never the other way round. */
int view_open_at(struct view *v, int dir_fd)
{
    *v = (struct view){ .fs = fs_current() };
    v->dir_fd = v->fs->open(dir_fd, ".", O_RDONLY | O_DIRECTORY, 0);
    if (v->dir_fd < 0)
        return v->dir_fd;
    int r = take_cursor(v);
    if (r == 0)
        r = list_files(v, &v->segments, "", ".seg");
    if (r == 0)
        r = list_files(v, &v->parked, "parked/", ".parked");
    if (r == 0)
        r = list_files(v, &v->dead, "dead/", ".dead");
    if (r < 0) {
        view_close(v);
        return r;
    }
    choose_uuid(v);
    v->has_cursor = v->has_cursor && memcmp(v->uuid, v->cursor.uuid, UUID_BYTES) == 0;
    mark_foreign(v, &v->segments);
    mark_foreign(v, &v->parked);
    mark_foreign(v, &v->dead);
    set_fences(&v->segments);
    set_other_fences(&v->parked);
    set_other_fences(&v->dead);
    return 0;
}

int view_open(struct view *v, const char *dir, struct err *err)
{
    const struct fs_ops *fs = fs_current();
    int fd = fs->open(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return err_set(err, fd, "cannot open the queue %s", dir);
    int r = view_open_at(v, fd);
    (void)fs->close(fd);
    return r < 0 ? err_set(err, r, "cannot read the queue %s", dir) : 0;
}

static int take_log(struct view *v, const struct file *f, struct marks *m, struct buf *meta)
{
    struct reading rd;
    struct frame_hdr h;
    uint64_t off;
    int r = f->kind == FILE_GOOD ? reading_open(v, f, &rd) : -ENOENT;
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    while (r == 0 && reading_next(&rd, f->fence, &off, &h)) {
        if (h.type != FRAME_LOST && h.type != FRAME_SNAP)
            continue;
        r = scan_meta(&rd.scan, off, &h, meta);
        if (r == 0 && h.type == FRAME_SNAP)
            v->given.n = 0; /* it names all that are left */
        if (r == 0)
            given_take(&v->given, buf_slice(meta));
        if (r == 0 && m != NULL && h.type == FRAME_LOST)
            r = marks_take(m, buf_slice(meta));
        r = r == -EBADMSG ? 0 : r;
    }
    return reading_close(v, &rd, r);
}

/* As the next open will see it. */
static bool is_given(struct view *v, const struct file *f)
{
    return given_has(&v->given, f->id) &&
           (f->kind != FILE_GOOD || !given_is_another(&v->given, f->id, f->head.first_seq));
}

int view_log(struct view *v, struct marks *m)
{
    struct buf meta;
    int r = 0;
    buf_init(&meta, SNAP_RAW_MAX);
    for (size_t i = 0; r == 0 && i < v->dead.n; i++)
        r = take_log(v, &v->dead.list[i], m, &meta);
    buf_deinit(&meta);
    for (size_t i = 0; r == 0 && i < v->parked.n; i++)
        v->parked.list[i].is_given = is_given(v, &v->parked.list[i]);
    return r;
}

bool view_is_acked(const struct view *v, uint64_t seq)
{
    if (!v->has_cursor)
        return false;
    if (seq <= v->cursor.acked_seq)
        return true;
    uint64_t i = seq - v->cursor.acked_seq - 1;
    return i < QUEUE_WINDOW && (v->cursor.bits[i / 64] >> (i % 64) & 1) != 0;
}

/* ---- frames of one file ---- */

int reading_open(struct view *v, const struct file *f, struct reading *r)
{
    *r = (struct reading){ .off = SEGMENT_HEAD_BYTES, .seq = f->head.first_seq };
    struct stat st;
    r->fd = queue_open_file(v->fs, v->dir_fd, f->name, O_RDONLY, &st);
    if (r->fd < 0)
        return r->fd;
    int e = scan_init(&r->scan, r->fd, MIN((uint64_t)st.st_size, (uint64_t)SEGMENT_READ_MAX), f->head.salt);
    if (e < 0)
        (void)v->fs->close(r->fd);
    return e;
}

int reading_close(struct view *v, struct reading *rd, int r)
{
    r = rd->scan.error < 0 ? rd->scan.error : r;
    scan_deinit(&rd->scan);
    (void)v->fs->close(rd->fd);
    return r;
}

bool reading_next(struct reading *r, uint64_t fence, uint64_t *ret_off, struct frame_hdr *h)
{
    if (r->seq > fence || !scan_find(&r->scan, r->off, r->seq, fence, ret_off, h))
        return false;
    r->off = *ret_off + frame_bytes(h);
    r->seq = h->seq + 1;
    return true;
}

int reading_body(struct reading *r, uint64_t off, const struct frame_hdr *h, struct buf *body)
{
    buf_reset(body);
    int e = buf_reserve(body, h->body_len);
    if (e < 0)
        return e;
    ssize_t n = fs_pread_full(r->fd, body->ptr, h->body_len, off + FRAME_HEAD_BYTES + h->meta_len);
    if (fs_is_passing(n))
        return (int)n;
    body->len = n < 0 ? 0 : (size_t)n;
    return body->len == h->body_len && frame_crc(buf_slice(body)) == h->body_crc ? 0 : -EBADMSG;
}

int report_begin(const struct queue_report *to)
{
    if (!to->is_json)
        return buf_printf(to->text, "%s%.*s: %s\n", to->is_orphan ? "(orphan: no output of this name is configured)\n" : "",
                          SLICE_ARGS(to->output), to->dir);
    int r = buf_append_lit(to->text, "{\"output\":");
    if (r == 0)
        r = buf_append_json_string(to->text, to->output);
    if (r == 0)
        r = buf_append_lit(to->text, ",\"dir\":");
    if (r == 0)
        r = buf_append_json_string(to->text, slice_cstr(to->dir));
    return r < 0 ? r : buf_printf(to->text, ",\"orphan\":%s", to->is_orphan ? "true" : "false");
}
