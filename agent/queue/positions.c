#include "agent/queue/positions.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/bytes.h"
#include "agent/base/shared.h"
#include "agent/queue/frame.h"

/* Unfinished records, of few files: one block for both places of an entry, from the first one on. */
struct parts {
    struct position_part written[STREAMS_MAX], durable[STREAMS_MAX];
};

/* Where a file stands. `is_set` is false for a file that was only named. */
struct place {
    uint64_t end;
    uint32_t head_crc, tail_crc, flags;
    uint16_t tail_len;
    uint8_t n_parts;
    bool is_set : 1, is_gone : 1;
};

/* What is known of the inode, in no more than it takes; strings are apart. */
struct position_entry {
    uint64_t incarnation, dev, ino, generation;
    int64_t btime_ns, first_seen_ns;
    struct place written, durable;
    uint64_t noted_end; /* with is_news: where it stood when it was noted, or where it began since */
    const char *path;   /* shared_drop(), path_len bytes */
    struct name *input;
    struct parts *parts; /* NULL = no place of it ever had any */
    struct position_entry *next_dirty;
    uint32_t fp_len, fp_crc;
    uint32_t next; /* in its hash chain: entry number + 1 */
    uint16_t path_len;
    bool is_dirty, is_news;
};

/* Of an input; there are few. */
struct name {
    struct name *next;
    size_t len;
    char text[];
};

static size_t slot_of(const struct positions *p, uint64_t incarnation)
{
    return (size_t)((incarnation * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (p->n_heads - 1);
}

static struct position_entry *find(const struct positions *p, uint64_t incarnation)
{
    if (p->n_heads == 0)
        return NULL;
    for (uint32_t i = p->heads[slot_of(p, incarnation)]; i != 0; i = p->entries[i - 1]->next)
        if (p->entries[i - 1]->incarnation == incarnation)
            return p->entries[i - 1];
    return NULL;
}

static void chain(struct positions *p, size_t i)
{
    uint32_t *head = &p->heads[slot_of(p, p->entries[i]->incarnation)];
    p->entries[i]->next = *head;
    *head = (uint32_t)(i + 1);
}

static void rechain(struct positions *p)
{
    memset(p->heads, 0, p->n_heads * sizeof(*p->heads));
    for (size_t i = 0; i < p->n; i++)
        chain(p, i);
}

static int grow(struct positions *p)
{
    if (p->n < p->cap)
        return 0;
    size_t cap = p->cap == 0 ? 64 : p->cap * 2;
    struct position_entry **entries = realloc(p->entries, cap * sizeof(struct position_entry *));
    if (entries == NULL)
        return -ENOMEM;
    p->entries = entries;
    uint32_t *heads = calloc(cap, sizeof(*heads));
    if (heads == NULL)
        return -ENOMEM;
    free(p->heads);
    p->heads = heads;
    p->n_heads = cap;
    p->cap = cap;
    rechain(p);
    return 0;
}

static struct position_entry *get(struct positions *p, uint64_t incarnation)
{
    struct position_entry *e = find(p, incarnation);
    if (e != NULL)
        return e;
    if (grow(p) < 0)
        return NULL;
    e = calloc(1, sizeof(*e));
    if (e == NULL)
        return NULL;
    budget_took(ACCOUNT_OF(MEMORY_QUEUES), e);
    e->incarnation = incarnation;
    p->entries[p->n] = e;
    chain(p, p->n++);
    return e;
}

static void entry_free(struct position_entry *e)
{
    shared_drop(e->path);
    budget_free(ACCOUNT_OF(MEMORY_QUEUES), e->parts);
    budget_free(ACCOUNT_OF(MEMORY_QUEUES), e);
}

/* Only when it changed: most idents come with a longer fingerprint and the same path. */
static int set_path(struct position_entry *e, struct slice to)
{
    if (to.len > UINT16_MAX)
        return -ENOMEM;
    if (slice_eq(slice_of(e->path, e->path_len), to))
        return 0;
    const char *path = shared_text(to);
    if (path == NULL)
        return -ENOMEM;
    shared_drop(e->path);
    e->path = path;
    e->path_len = (uint16_t)to.len;
    return 0;
}

static int set_input(struct positions *p, struct position_entry *e, struct slice to)
{
    struct name *n = p->names;
    while (n != NULL && !slice_eq(slice_of(n->text, n->len), to))
        n = n->next;
    if (n == NULL) {
        n = malloc(sizeof(*n) + to.len);
        if (n == NULL)
            return -ENOMEM;
        n->len = to.len;
        memcpy(n->text, to.ptr, to.len);
        n->next = p->names;
        p->names = n;
    }
    e->input = n;
    return 0;
}

static int set_ident(struct positions *p, const struct file_ident *f)
{
    struct position_entry *e = get(p, f->incarnation);
    if (e == NULL || set_path(e, f->path) < 0 || (f->input.len > 0 && set_input(p, e, f->input) < 0))
        return -ENOMEM;
    e->dev = f->dev;
    e->ino = f->ino;
    e->generation = f->generation;
    e->btime_ns = f->btime_ns;
    e->fp_len = f->fp_len;
    e->fp_crc = f->fp_crc;
    e->first_seen_ns = f->first_seen_ns;
    return 0;
}

static struct file_ident ident_of(const struct position_entry *e)
{
    return (struct file_ident){ .incarnation = e->incarnation,
                                .dev = e->dev,
                                .ino = e->ino,
                                .generation = e->generation,
                                .btime_ns = e->btime_ns,
                                .fp_len = e->fp_len,
                                .fp_crc = e->fp_crc,
                                .first_seen_ns = e->first_seen_ns,
                                .path = e->path_len > 0 ? slice_of(e->path, e->path_len) : SLICE(""),
                                .input = e->input != NULL ? slice_of(e->input->text, e->input->len) : SLICE("") };
}

static int need_parts(struct position_entry *e)
{
    if (e->parts != NULL)
        return 0;
    e->parts = calloc(1, sizeof(*e->parts));
    if (e->parts == NULL)
        return -ENOMEM;
    budget_took(ACCOUNT_OF(MEMORY_QUEUES), e->parts);
    return 0;
}

static void mark_dirty(struct positions *p, struct position_entry *e)
{
    e->is_news = true;
    if (e->is_dirty)
        return;
    e->is_dirty = true;
    e->next_dirty = p->dirty;
    p->dirty = e;
}

/* Removes what is gone for good. Numbers in the chains change, so all are made again. */
static void sweep(struct positions *p)
{
    size_t kept = 0;
    for (size_t i = 0; i < p->n; i++) {
        struct position_entry *e = p->entries[i];
        if (e->durable.is_gone && !e->is_dirty)
            entry_free(e);
        else
            p->entries[kept++] = e;
    }
    p->n = kept;
    rechain(p);
}

void positions_clear(struct positions *p)
{
    for (size_t i = 0; i < p->n; i++)
        entry_free(p->entries[i]);
    p->n = 0;
    p->dirty = NULL;
    if (p->n_heads > 0)
        memset(p->heads, 0, p->n_heads * sizeof(*p->heads));
    positions_export_free(p);
}

void positions_deinit(struct positions *p)
{
    positions_clear(p);
    positions_forget_marks(p);
    for (struct name *n = p->names, *next; n != NULL; n = next) {
        next = n->next;
        free(n);
    }
    free(p->entries);
    free(p->heads);
    *p = (struct positions){ 0 };
}

int positions_prepare(struct positions *p, const struct group_end *end)
{
    for (size_t i = 0; i < end->n_files; i++)
        if (set_ident(p, &end->files[i]) < 0)
            return -ENOMEM;
    for (size_t i = 0; i < end->n_positions; i++) {
        struct position_entry *e = get(p, end->positions[i].incarnation);
        if (e == NULL || (end->positions[i].n_parts > 0 && need_parts(e) < 0))
            return -ENOMEM;
    }
    return 0;
}

static void set_written(struct position_entry *e, const struct file_position *pos)
{
    assert(pos->n_parts <= STREAMS_MAX && (pos->n_parts == 0 || e->parts != NULL));
    e->written = (struct place){ .end = pos->end,
                                 .head_crc = pos->head_crc,
                                 .tail_crc = pos->tail_crc,
                                 .flags = pos->flags,
                                 .tail_len = pos->tail_len,
                                 .n_parts = pos->n_parts,
                                 .is_set = true };
    for (size_t i = 0; i < pos->n_parts; i++)
        e->parts->written[i] = pos->parts[i];
}

static void advance(struct positions *p, struct position_entry *e, const struct file_position *pos)
{
    if (!e->is_news)
        e->noted_end = e->written.is_set ? e->written.end : pos->start;
    if (!e->durable.is_set) /* nobody told the CRC of what is before */
        e->durable = (struct place){ .end = pos->start, .flags = pos->start > 0 ? POSITION_HEAD_UNKNOWN : 0, .is_set = true };
    set_written(e, pos);
    mark_dirty(p, e);
}

void positions_apply(struct positions *p, const struct group_end *end)
{
    for (size_t i = 0; i < end->n_positions; i++) {
        struct position_entry *e = find(p, end->positions[i].incarnation);
        assert(e != NULL); /* positions_prepare() made it */
        advance(p, e, &end->positions[i]);
    }
    for (size_t i = 0; i < end->n_gone; i++) {
        struct position_entry *e = find(p, end->gone[i]);
        if (e != NULL) {
            e->written.is_gone = true;
            mark_dirty(p, e);
        }
    }
}

void positions_commit(struct positions *p)
{
    bool has_gone = false;
    struct position_entry *next;
    for (struct position_entry *e = p->dirty; e != NULL; e = next) {
        next = e->next_dirty;
        e->is_dirty = false;
        e->durable = e->written;
        if (e->durable.n_parts > 0)
            memcpy(e->parts->durable, e->parts->written, sizeof(e->parts->durable));
        has_gone |= e->durable.is_gone;
    }
    p->dirty = NULL;
    if (has_gone)
        sweep(p);
}

void positions_rollback(struct positions *p)
{
    struct position_entry *next;
    for (struct position_entry *e = p->dirty; e != NULL; e = next) {
        next = e->next_dirty;
        e->is_dirty = false;
        e->written = e->durable;
        if (e->written.n_parts > 0)
            memcpy(e->parts->written, e->parts->durable, sizeof(e->parts->written));
    }
    p->dirty = NULL;
}

static void export_place(const struct position_entry *e, const struct place *w, struct file_position *ret)
{
    *ret = (struct file_position){ .incarnation = e->incarnation,
                                   .flags = w->flags,
                                   .start = w->end,
                                   .end = w->end,
                                   .head_crc = w->head_crc,
                                   .tail_crc = w->tail_crc,
                                   .tail_len = w->tail_len,
                                   .n_parts = w->n_parts };
    for (size_t i = 0; i < w->n_parts; i++)
        ret->parts[i] = w == &e->durable ? e->parts->durable[i] : e->parts->written[i];
}

void positions_noted(struct positions *p)
{
    for (size_t i = 0; i < p->n; i++)
        p->entries[i]->is_news = false;
}

int positions_put(const struct positions *p, bool only_news, struct buf *meta)
{
    for (size_t i = 0; i < p->n; i++) {
        const struct position_entry *e = p->entries[i];
        if (e->written.is_gone || (only_news && !e->is_news))
            continue;
        const struct file_ident ident = ident_of(e);
        int r = meta_put_file(meta, &ident);
        if (r == 0 && e->written.is_set) {
            struct file_position pos;
            export_place(e, &e->written, &pos);
            pos.start = e->is_news ? MIN(e->noted_end, pos.end) : pos.end;
            r = meta_put_position(meta, &pos);
        }
        if (r < 0)
            return r;
    }
    return 0;
}

/* Without memory there are fewer: they only save lines from being sent twice. */
static void add_mark(struct positions *p, const struct file_position *pos)
{
    if (pos->flags != 0 || pos->end == 0)
        return;
    if (p->n_marks == MARKS_MAX) {
        p->n_marks /= 2;
        memmove(p->marks, p->marks + p->n_marks, p->n_marks * sizeof(p->marks[0]));
    }
    if (p->n_marks == p->cap_marks) {
        size_t cap = p->cap_marks == 0 ? 64 : p->cap_marks * 2;
        struct recovered_mark *more = realloc(p->marks, cap * sizeof(more[0]));
        if (more == NULL)
            return;
        p->marks = more;
        p->cap_marks = cap;
    }
    p->marks[p->n_marks++] = (struct recovered_mark){ pos->incarnation, pos->end, pos->head_crc };
}

/* A record is unfinished there: it is no place to go on from. */
static void drop_mark(struct positions *p, uint64_t incarnation)
{
    if (p->n_marks > 0 && p->marks[p->n_marks - 1].incarnation == incarnation)
        p->n_marks--;
}

void positions_trim_marks(struct positions *p)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n_marks; i++) {
        const struct position_entry *e = find(p, p->marks[i].incarnation);
        if (e != NULL && e->durable.is_set && p->marks[i].end <= e->durable.end)
            p->marks[n++] = p->marks[i];
    }
    p->n_marks = n;
}

void positions_forget_marks(struct positions *p)
{
    free(p->marks);
    p->marks = NULL;
    p->n_marks = p->cap_marks = 0;
}

static int take_part(struct positions *p, struct slice bytes)
{
    uint64_t incarnation;
    struct position_part part;
    int r = meta_get_part(bytes, &incarnation, &part);
    if (r < 0)
        return r;
    struct position_entry *e = find(p, incarnation);
    if (e == NULL || !e->is_dirty || e->written.n_parts >= STREAMS_MAX)
        return -EBADMSG; /* not of a position of this group: a rollback would not know of it */
    if (need_parts(e) < 0)
        return -ENOMEM;
    e->parts->written[e->written.n_parts++] = part;
    drop_mark(p, incarnation);
    return 0;
}

int positions_take(struct positions *p, uint8_t tag, struct slice bytes)
{
    int r = 0;
    if (tag == META_FILE) {
        struct file_ident f;
        r = meta_get_file(bytes, &f);
        return r < 0 ? r : set_ident(p, &f);
    }
    if (tag == META_POS) {
        struct file_position pos;
        r = meta_get_position(bytes, &pos);
        if (r < 0)
            return r;
        struct position_entry *e = get(p, pos.incarnation);
        if (e == NULL)
            return -ENOMEM;
        advance(p, e, &pos);
        add_mark(p, &pos);
    } else if (tag == META_PART) {
        return take_part(p, bytes);
    } else if (tag == META_GONE) {
        for (; bytes.len >= 8; bytes = slice_from(bytes, 8)) {
            uint64_t gone = get_le64(bytes.ptr);
            positions_apply(p, &(struct group_end){ .gone = &gone, .n_gone = 1 });
        }
    }
    return 0;
}

int positions_export(struct positions *p, const struct recovered_file **ret_files, size_t *ret_n)
{
    positions_export_free(p);
    struct recovered_file *files = calloc(p->n + 1, sizeof(*files));
    if (files == NULL)
        return -ENOMEM;
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++) {
        const struct position_entry *e = p->entries[i];
        if (e->durable.is_gone)
            continue;
        files[n].ident = ident_of(e);
        export_place(e, &e->durable, &files[n].position);
        n++;
    }
    p->exported = files;
    *ret_files = files;
    *ret_n = n;
    return 0;
}

void positions_export_free(struct positions *p)
{
    free(p->exported);
    p->exported = NULL;
}
