/*
 * The model disk: bytes of files, what of them is on the platter, and what a power cut leaves.
 */
#include <assert.h>

#include "tests/sim/disk_core.h"

static struct pend *pend_add(struct node *n)
{
    n->pend = model_grow(n->pend, &n->cap_pend, n->n_pend + 1, sizeof(*n->pend));
    return &n->pend[n->n_pend++];
}

void file_write(struct disk *d, struct node *n, const void *ptr, size_t len, uint64_t off)
{
    if (len == 0)
        return;
    store_need(&n->now, (size_t)off + len);
    memcpy(n->now.p + off, ptr, len);
    n->size = MAX(n->size, off + len);
    n->mtime = n->ctime = model_time(d);
    if (!n->is_safe) {
        struct pend *p = pend_add(n);
        *p = (struct pend){ .off = off, .len = len, .at = n->redo_len };
        store_need(&n->redo, n->redo_len + len);
        memcpy(n->redo.p + n->redo_len, ptr, len);
        n->redo_len += len;
    }
    node_charge(d, n);
}

void file_resize(struct disk *d, struct node *n, uint64_t len)
{
    if (len < n->size)
        memset(n->now.p + len, 0, (size_t)(n->size - len));
    else
        store_need(&n->now, (size_t)len);
    n->size = len;
    n->mtime = n->ctime = model_time(d);
    if (!n->is_safe)
        *pend_add(n) = (struct pend){ .is_truncate = true, .len = len };
    node_charge(d, n);
}

static void old_resize(struct node *n, uint64_t len)
{
    if (len < n->old_size)
        memset(n->old.p + len, 0, (size_t)(n->old_size - len));
    else
        store_need(&n->old, (size_t)len);
    n->old_size = len;
}

static void old_copy(struct node *n, uint64_t start, uint64_t end)
{
    end = MIN(end, n->size);
    if (start >= end)
        return;
    if (end > n->old_size)
        old_resize(n, end);
    memcpy(n->old.p + start, n->now.p + start, (size_t)(end - start));
}

static void pend_forget(struct node *n)
{
    n->n_pend = 0;
    n->redo_len = 0;
}

/* Whole pages are written: bytes that a failed sync left behind go with them. */
void file_synced(struct node *n)
{
    uint64_t start = 0, end = 0; /* writes that follow each other are copied at once */
    for (size_t i = 0; i < n->n_pend; i++) {
        const struct pend *p = &n->pend[i];
        uint64_t first = p->off / DISK_PAGE * DISK_PAGE;
        uint64_t last = (p->off + p->len + DISK_PAGE - 1) / DISK_PAGE * DISK_PAGE;
        if (p->is_truncate) {
            old_copy(n, start, end);
            old_resize(n, p->len);
            start = end = 0;
        } else if (first >= start && first <= end) {
            end = MAX(end, last);
        } else {
            old_copy(n, start, end);
            start = first;
            end = last;
        }
    }
    old_copy(n, start, end);
    if (n->old_size != n->size && !n->is_safe)
        old_resize(n, n->size); /* the size is metadata: it is never lost to a failed write of data */
    pend_forget(n);
}

void file_sync_failed(struct disk *d, struct node *n)
{
    bool is_size_written = rng_below(&d->rng, 2) == 0;
    for (size_t i = 0; i < n->n_pend; i++) {
        const struct pend *p = &n->pend[i];
        if (p->is_truncate) {
            old_resize(n, p->len);
            continue;
        }
        uint64_t end = p->off + p->len;
        for (uint64_t at = p->off / DISK_SECTOR * DISK_SECTOR; at < end; at += DISK_SECTOR)
            if (rng_below(&d->rng, 3) == 0 && (is_size_written || at + DISK_SECTOR <= n->old_size))
                old_copy(n, at, at + DISK_SECTOR);
    }
    if (is_size_written)
        old_resize(n, n->size);
    n->has_lost = true;
    pend_forget(n);
}

/* ---- a power cut ---- */

/* Which of a file's n pending writes each sector has seen. */
struct choice {
    enum disk_loss loss;
    uint64_t seed;
    size_t cut;       /* LOSS_TORN: that write in part, none after it */
    uint64_t cut_len; /* so many bytes of it */
    size_t size_of;   /* the size is as after so many */
};

static bool has_truncate(const struct node *n)
{
    for (size_t i = 0; i < n->n_pend; i++)
        if (n->pend[i].is_truncate)
            return true;
    return false;
}

/* Of LOSS_SECTORS: written back when so many writes were done. */
static size_t sector_time(const struct node *n, const struct choice *c, uint64_t sector)
{
    uint64_t x = mix64(c->seed ^ (sector * UINT64_C(0x9e3779b97f4a7c15)));
    if (n->has_lost) /* no earlier state of what a failed sync left is remembered */
        return (x & 1) != 0 ? n->n_pend : 0;
    switch (x & 3) {
    case 0:
        return 0;
    case 1:
        return n->n_pend;
    default:
        return (size_t)((x >> 8) % (n->n_pend + 1));
    }
}

static void replay_bytes(struct node *n, const struct pend *p, uint64_t start, uint64_t end)
{
    if (start >= end)
        return;
    store_need(&n->old, (size_t)end);
    memcpy(n->old.p + start, n->redo.p + p->at + (start - p->off), (size_t)(end - start));
}

static void replay_sectors(struct node *n, const struct choice *c, size_t i)
{
    const struct pend *p = &n->pend[i];
    assert(!p->is_truncate);
    uint64_t end = p->off + p->len;
    for (uint64_t at = p->off; at < end;) {
        uint64_t next = MIN((at / DISK_SECTOR + 1) * DISK_SECTOR, end);
        size_t time = sector_time(n, c, at / DISK_SECTOR);
        if (i < time)
            replay_bytes(n, p, at, next);
        at = next;
    }
}

/* Bytes over old ones go by whole sectors, bytes that make the file longer one by one. */
static void replay_torn(struct node *n, const struct choice *c, size_t i)
{
    const struct pend *p = &n->pend[i];
    uint64_t end = p->off + (i < c->cut ? p->len : c->cut_len);
    if (i == c->cut && end < n->old_size && end < p->off + p->len)
        end = MAX(p->off, end / DISK_SECTOR * DISK_SECTOR);
    replay_bytes(n, p, p->off, end);
    old_resize(n, MAX(n->old_size, end));
}

static uint64_t size_after(const struct node *n, uint64_t old_size, size_t n_ops)
{
    uint64_t size = old_size;
    for (size_t i = 0; i < n_ops; i++)
        size = n->pend[i].is_truncate ? n->pend[i].len : MAX(size, n->pend[i].off + n->pend[i].len);
    return size;
}

static void fill_stale(struct disk *d, struct node *n, uint64_t start, uint64_t end, uint64_t *rng)
{
    for (uint64_t at = start; at < end; at++)
        n->old.p[at] = d->has_ghost ? d->ghost[at % GHOST_BYTES] : (uint8_t)rng_next(rng);
}

/* Sectors between the durable size and the new one that no write reached. */
static void show_stale(struct disk *d, struct node *n, const struct choice *c, uint64_t durable_size, uint64_t *rng)
{
    uint64_t at = (durable_size + DISK_SECTOR - 1) / DISK_SECTOR * DISK_SECTOR;
    for (; at < n->old_size; at += DISK_SECTOR)
        if (c->loss == LOSS_STALE || sector_time(n, c, at / DISK_SECTOR) == 0)
            fill_stale(d, n, at, MIN(at + DISK_SECTOR, n->old_size), rng);
}

static void set_size(struct node *n, uint64_t old_size, uint64_t size)
{
    n->old_size = MAX(n->old_size, old_size);
    uint64_t written = n->old.cap;
    if (written > size) /* replayed beyond what the size says: not there */
        memset(n->old.p + size, 0, (size_t)(written - size));
    store_need(&n->old, (size_t)size);
    n->old_size = size;
}

static void crash_sectors(struct disk *d, struct node *n, const struct choice *c, uint64_t *rng)
{
    uint64_t durable_size = n->old_size;
    for (size_t i = 0; i < n->n_pend; i++)
        replay_sectors(n, c, i);
    set_size(n, durable_size, size_after(n, durable_size, c->size_of));
    if (d->conf.shows_stale)
        show_stale(d, n, c, durable_size, rng);
}

static void crash_torn(struct node *n, const struct choice *c)
{
    for (size_t i = 0; i <= c->cut && i < n->n_pend; i++) {
        if (!n->pend[i].is_truncate)
            replay_torn(n, c, i);
        else if (i < c->cut)
            old_resize(n, n->pend[i].len);
    }
}

static void crash_empty(struct disk *d, struct node *n, const struct choice *c, uint64_t *rng)
{
    uint64_t durable_size = n->old_size;
    set_size(n, durable_size, MAX(n->size, durable_size));
    if (c->loss == LOSS_STALE)
        show_stale(d, n, c, durable_size, rng);
}

static struct choice choose(const struct disk *d, const struct node *n, enum disk_loss loss, uint64_t *rng)
{
    static const enum disk_loss any[] = { LOSS_NOTHING, LOSS_ALL,     LOSS_ZEROS,   LOSS_TORN,
                                          LOSS_TORN,    LOSS_SECTORS, LOSS_SECTORS, LOSS_STALE };
    struct choice c = { .loss = loss, .seed = rng_next(rng) };
    if (loss == LOSS_RANDOM)
        c.loss = any[rng_below(rng, ARRAY_LEN(any) - !d->conf.shows_stale)];
    if (c.loss == LOSS_SECTORS && has_truncate(n))
        c.loss = LOSS_TORN; /* the journal orders sizes: bytes before and after a cut do not mix */
    if (c.loss == LOSS_TORN && n->has_lost)
        c.loss = rng_below(rng, 2) == 0 ? LOSS_ALL : has_truncate(n) ? LOSS_NOTHING : LOSS_SECTORS;
    if (n->n_pend > 0) {
        c.cut = (size_t)rng_below(rng, n->n_pend);
        c.cut_len = rng_below(rng, n->pend[c.cut].len + 1);
    }
    c.size_of = rng_below(rng, 2) != 0 ? n->n_pend : (size_t)rng_below(rng, n->n_pend + 1);
    return c;
}

void file_after_crash(struct disk *d, struct node *n, enum disk_loss loss, uint64_t *rng)
{
    if (n->is_safe)
        return;
    if (n->n_pend > 0 || n->old_size != n->size) {
        struct choice c = choose(d, n, loss, rng);
        switch (c.loss) {
        case LOSS_NOTHING:
        case LOSS_NAMES:
            file_synced(n);
            break;
        case LOSS_ALL:
        case LOSS_DATA:
            break;
        case LOSS_ZEROS:
        case LOSS_STALE:
            crash_empty(d, n, &c, rng);
            break;
        case LOSS_TORN:
            crash_torn(n, &c);
            break;
        case LOSS_SECTORS:
            crash_sectors(d, n, &c, rng);
            break;
        case LOSS_RANDOM:
        case LOSS_N:
            assert(false);
        }
    }
    pend_forget(n);
    n->has_lost = false;
    if (n->size > n->old_size)
        memset(n->now.p + n->old_size, 0, (size_t)(n->size - n->old_size));
    store_need(&n->now, (size_t)n->old_size);
    if (n->old_size > 0)
        memcpy(n->now.p, n->old.p, (size_t)n->old_size);
    n->size = n->old_size;
    node_charge(d, n);
}

/* Pages that nothing pending touches are as the platter has them. */
void file_drop_cache(struct node *n)
{
    if (n->is_safe || !n->has_lost)
        return;
    store_need(&n->old, (size_t)n->size);
    for (uint64_t page = 0; page < n->size; page += DISK_PAGE) {
        bool is_dirty = false;
        for (size_t i = 0; i < n->n_pend && !is_dirty; i++)
            is_dirty = !n->pend[i].is_truncate && n->pend[i].off < page + DISK_PAGE &&
                       n->pend[i].off + n->pend[i].len > page;
        if (!is_dirty)
            memcpy(n->now.p + page, n->old.p + page, (size_t)MIN((uint64_t)DISK_PAGE, n->size - page));
    }
    n->has_lost = n->n_pend > 0;
}
