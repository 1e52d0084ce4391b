/*
 * Logs that lost their end: a power cut takes what their writers did not sync, and the queue has those lines. What is left
 * was read; behind it others will stand, at the places of those that vanished.
 *
 * So the file goes on as another incarnation, for lines at the same place would have the ids of others. It begins at the
 * last place where an output stood before, and of which the CRC of all bytes before it is known and right: what is between
 * that and the cut comes a second time, for nobody can tell it from what was written after. Without such a place it is a
 * file like any other that was cut.
 */
#include "agent/base/log.h"
#include "agent/base/must.h"
#include "agent/queue/queue.h"
#include "agent/tail/internal.h"

struct walk {
    struct source src;
    uint64_t off; /* crc is that of [0, off) */
    uint32_t crc;
    bool is_broken;
};

/* Is the CRC of [0, m->end) what it was? Marks come in ascending order. */
static bool is_right(struct walk *w, const struct recovered_mark *m)
{
    if (w->is_broken || m->end < w->off)
        return false;
    w->is_broken = source_crc_on(&w->src, w->off, m->end, &w->crc) < 0;
    w->off = m->end;
    return !w->is_broken && w->crc == m->head_crc;
}

/* The last place of this output that the file still reaches, and reached then with the same bytes. */
static struct recovered_mark last_right(const struct queue_recovery *rec, const struct tail_file *f, int fd, uint64_t size)
{
    struct recovered_mark best = { 0 };
    struct walk w = { .src = { fd, NULL } };
    for (size_t i = 0; rec != NULL && i < rec->n_marks; i++) {
        const struct recovered_mark *m = &rec->marks[i];
        if (m->incarnation == f->ident.incarnation && m->end <= size && m->end > best.end && is_right(&w, m))
            best = *m;
    }
    return best;
}

/* All outputs go on at one place: the one that is furthest behind says where. */
static struct recovered_mark common_place(const struct tail_file *f, int fd, uint64_t size)
{
    struct recovered_mark least = { .end = UINT64_MAX };
    for (size_t o = 0; o < f->t->n_outputs; o++) {
        struct recovered_mark m = last_right(f->t->recovered[o], f, fd, size);
        if (m.end < least.end)
            least = m;
    }
    return least;
}

static void begin_again(struct tail_file *f, const struct source *src, const struct recovered_mark *at)
{
    char raw[TAIL_CRC_BYTES];
    const size_t len = (size_t)MIN(at->end, TAIL_CRC_BYTES);
    file_untrack(f);
    f->stage = STAGE_READING;
    f->size = at->end;
    f->ident.first_seen_ns = 0;
    f->ident.fp_len = (uint32_t)MIN(at->end, FINGERPRINT_BYTES);
    if (source_crc(src, f->ident.fp_len, &f->ident.fp_crc) < 0)
        f->ident.fp_len = 0;
    struct must must = { 0 };
    while (file_track(f, at->end) < 0)
        must_wait(&must);
    struct pass *p = pass_of(f->passes);
    p->pub.head_crc = at->head_crc;
    if (source_pread(src, raw, len, at->end - len) == (ssize_t)len) {
        memcpy(p->pub.tail_bytes, raw, len);
        p->pub.tail_len = (uint16_t)len;
    }
    f->t->has_new_names = true; /* durable soon: a second start could not find this place again */
}

bool cut_back(struct tail_file *f, int fd, const struct stat *st)
{
    const struct source src = { fd, NULL };
    struct file_ident id = { 0 };
    const uint64_t was = f->size;
    ident_of_fd(fd, st, &id);
    const bool is_same_life = id.generation != 0 || (id.btime_ns != 0 && f->ident.btime_ns != 0);
    if (f->t->recovered == NULL || f->is_gz || f->stage >= STAGE_PASSED || !is_same_life)
        return false;
    const struct recovered_mark at = common_place(f, fd, (uint64_t)st->st_size);
    if (at.end < ADOPT_BYTES_MIN || at.end == UINT64_MAX)
        return false;
    begin_again(f, &src, &at);
    log_warn("tail", "file.truncated", "a file lost its end, as by a power cut: it is read on from where it is what it was",
             LOG_CSTR("path", f->path.path), LOG_NUM("offset", was), LOG_NUM("size", st->st_size), LOG_NUM("from", at.end));
    return true;
}
