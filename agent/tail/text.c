/* Whose text is it? Copies and compressed files are recognized by what stands in them. */
#include <errno.h>

#include "agent/base/clock.h"
#include "agent/queue/fs.h"
#include "agent/tail/internal.h"

#define COMPARE_MAX (32 * MIB) /* unread bytes; beyond, the same start and the same length are the same text */

struct pass *furthest(const struct tail_file *f)
{
    struct pass *best = NULL;
    for (int i = 0; i < 2; i++)
        for (struct tail_pass *p = i == 0 ? f->passes : f->parked; p != NULL; p = p->next)
            if (best == NULL || pass_end(p) > pass_end(&best->pub))
                best = pass_of(p);
    return best;
}

bool file_is_unseen(const struct tail_file *f)
{
    const struct pass *far = furthest(f);
    return f->ident.fp_len == 0 && (far == NULL || pass_end(&far->pub) == 0);
}

/* 1, 0, or the error that kept it from being seen. */
static int tail_holds(struct pass *p, const struct source *src)
{
    char raw[TAIL_CRC_BYTES];
    size_t len = p->pub.tail_len;
    uint64_t end = pass_end(&p->pub);
    if (len == 0)
        return 1;
    ssize_t n = end < len ? 0 : source_pread(src, raw, len, end - len);
    if (n != (ssize_t)len)
        return n < 0 ? (int)n : 0;
    if (!p->wants_tail)
        return memcmp(raw, p->pub.tail_bytes, len) == 0;
    if (crc_update(0, raw, len) != p->tail_crc)
        return 0;
    memcpy(p->pub.tail_bytes, raw, len);
    p->wants_tail = false;
    return 1;
}

/* As tail_holds(). */
static int crc_holds(const struct source *src, uint64_t len, uint32_t want)
{
    uint32_t crc;
    int r = source_crc(src, len, &crc);
    return r == -ENODATA ? 0 : r < 0 ? r : crc == want;
}

static int tails_hold(struct tail_pass *list, const struct source *src)
{
    int r = 1;
    for (struct tail_pass *p = list; r > 0 && p != NULL; p = p->next)
        r = tail_holds(pass_of(p), src);
    return r;
}

/* Of a .gz of which nothing was seen: is it one at all? */
static int is_gz(const struct source *src)
{
    char c;
    ssize_t n = gz_pread(src->gz, &c, 1, 0);
    return n < 0 ? (int)n : n > 0 || gz_is_whole(src->gz);
}

static int holds(struct tail_file *f, const struct pass *far, const struct source *src, bool is_full)
{
    int r = f->ident.fp_len > 0 ? crc_holds(src, f->ident.fp_len, f->ident.fp_crc) : src->gz == NULL ? 1 : is_gz(src);
    if (r <= 0 || (src->gz != NULL && !is_full))
        return r; /* of a .gz all would have to be inflated */
    if (is_full && !far->head_unknown) {
        r = crc_holds(src, pass_end(&far->pub), far->pub.head_crc);
        if (r <= 0 || src->gz != NULL)
            return r; /* reading its tails means inflating it again, and says no more */
    }
    r = tails_hold(f->passes, src);
    return r <= 0 ? r : tails_hold(f->parked, src);
}

int source_holds(struct tail_file *f, const struct source *src, bool is_full)
{
    const struct pass *far = furthest(f);
    int r = far == NULL ? 0 : holds(f, far, src, is_full);
    return r == -EBADMSG ? 0 : r; /* no gzip, or not of this text */
}

int text_open(struct tail *t, const char *path, bool is_gz, struct text *x)
{
    *x = (struct text){ .src = { -1, NULL } };
    int fd = open_regular(t, path, &x->st);
    if (fd < 0)
        return fd;
    x->src.fd = fd;
    x->len = (uint64_t)x->st.st_size;
    int r = is_gz ? gz_open(fd, &x->src.gz) : 0;
    if (r < 0) {
        text_close(x);
        return r;
    }
    uint32_t len = 0;
    x->has_trailer = is_gz && gz_trailer(fd, (uint64_t)x->st.st_size, &x->crc, &len) == 0;
    if (is_gz)
        x->len = len;
    ssize_t n = source_pread(&x->src, x->head, sizeof(x->head), 0);
    x->head_len = n > 0 ? (size_t)n : 0; /* not readable: like nobody's */
    return 0;
}

void text_close(struct text *x)
{
    gz_close(x->src.gz);
    if (x->src.fd >= 0)
        (void)fs_current()->close(x->src.fd); /* only read from */
    x->src = (struct source){ -1, NULL };
}

/* ---- of a file whose bytes can be read ---- */

static bool open_own(struct tail_file *f, struct stat *st)
{
    if (f->is_gz || f->phase == PHASE_ORPHAN || f->phase == PHASE_MISSING)
        return false;
    if (f->fd < 0 && (!f->path.link.is_in || file_open_at(f, file_real(f)) < 0))
        return false;
    return fs_current()->fstat(f->fd, st) == 0;
}

bool file_is_cut(struct tail_file *f)
{
    struct stat st;
    struct pass *far = furthest(f);
    if (far == NULL || !open_own(f, &st))
        return false;
    struct source own = { f->fd, NULL };
    uint32_t crc = f->ident.fp_crc;
    if ((uint64_t)st.st_size < pass_end(&far->pub) || tail_holds(far, &own) == 0)
        return true;
    int r = f->ident.fp_len == 0 ? 0 : source_crc(&own, f->ident.fp_len, &crc);
    return r == -ENODATA || (r == 0 && crc != f->ident.fp_crc);
}

/* CRC of f's [0, len), from where it is known on. */
static int own_crc(struct tail_file *f, uint64_t len, uint32_t *ret_crc)
{
    const struct pass *far = furthest(f);
    struct source own = { f->fd, NULL };
    if (far == NULL || far->head_unknown || pass_end(&far->pub) > len)
        return source_crc(&own, len, ret_crc);
    *ret_crc = far->pub.head_crc;
    return source_crc_on(&own, pass_end(&far->pub), len, ret_crc);
}

/* A copy of the first bytes of what f holds, or of all. */
static bool is_part_of_own(struct text *x, struct tail_file *f, uint64_t size)
{
    char head[FINGERPRINT_BYTES];
    const struct pass *far = furthest(f);
    uint32_t mine, its;
    uint64_t len = x->len;
    if (x->src.gz == NULL && f->phase != PHASE_LIVE && len != size)
        return false; /* whose copy may be in the making, is live; a few bytes are the start of many */
    if (x->src.gz != NULL && size > len)
        len += (size - len) >> 32 << 32; /* of its length only the lower half is known */
    if (x->head_len > size || fs_pread_full(f->fd, head, x->head_len, 0) != (ssize_t)x->head_len ||
        memcmp(head, x->head, x->head_len) != 0)
        return false;
    if (len == size && far != NULL && size - MIN(size, pass_end(&far->pub)) > COMPARE_MAX)
        return true;
    if (len <= size && len >= x->head_len) {
        if (own_crc(f, len, &mine) < 0)
            return false;
        if (x->has_trailer && mine == x->crc)
            return true;
        if (x->src.gz == NULL)
            return source_crc(&x->src, len, &its) == 0 && mine == its;
    }
    /* A .gz of several members: its text has to be read. */
    return x->src.gz != NULL && own_crc(f, size, &mine) == 0 && source_crc(&x->src, size, &its) == 0 && mine == its;
}

/* ---- of a file whose bytes are gone ---- */

int64_t file_seen_since(const struct tail_file *f)
{
    return MIN(f->ident.first_seen_ns, clock_wall_ns() - (f->t->now - f->born_ns));
}

static bool holds_known(struct text *x, struct tail_file *f)
{
    const struct pass *far = furthest(f);
    uint32_t fp_len = f->ident.fp_len;
    if (far == NULL || fp_len == 0 || x->head_len < fp_len || crc_update(0, x->head, fp_len) != f->ident.fp_crc)
        return false;
    uint64_t end = pass_end(&far->pub);
    if (x->src.gz == NULL && x->len < end)
        return false;
    if (x->has_trailer && !far->head_unknown && (uint32_t)end == x->len && far->pub.head_crc == x->crc)
        return true;
    /* So little could be the beginning of many: then it is all, or has grown since f was first seen. */
    if (fp_len < ADOPT_BYTES_MIN && x->len != fp_len && timespec_ns(x->st.st_mtim) < file_seen_since(f) - MTIME_SLACK_NS)
        return false;
    return source_holds(f, &x->src, true) > 0;
}

static bool has_own(struct tail_file *f, struct stat *st)
{
    return (f->phase == PHASE_LIVE || f->fd >= 0) && open_own(f, st);
}

/* g was cut and nobody has noted it, so this may be its copy; or it is g's for sure, by what g holds or by enough that is known. */
static bool may_be_of(struct text *x, struct tail_file *g)
{
    struct stat st;
    if (g->stage == STAGE_READING && file_is_cut(g))
        return true;
    if (x->head_len < ADOPT_BYTES_MIN)
        return false;
    if (has_own(g, &st))
        return is_part_of_own(x, g, (uint64_t)st.st_size);
    return g->ident.fp_len >= ADOPT_BYTES_MIN && holds_known(x, g);
}

/* The few bytes that are known of f are the start of many: is another one of the chain more likely to have this copy? */
static bool may_be_others(struct text *x, const struct tail_file *f)
{
    const char *base = file_base(f);
    const struct tail_file *holder = file_by_ino(f->t, &x->st); /* knows no more of it than what stands there */
    struct tail_file *live = file_by_path(f->t, base);
    if (holder == f)
        return false;
    if (live != NULL && live != f && live != holder && live->is_tracked && may_be_of(x, live))
        return true;
    for (struct tail_file *g = chain_first(f->t, base); g != NULL; g = chain_next(g))
        if (g != f && g != live && g != holder && g->is_tracked && may_be_of(x, g))
            return true;
    return false;
}

bool text_is_of(struct text *x, struct tail_file *f)
{
    struct stat st;
    if (x->head_len == 0)
        return false;
    if (has_own(f, &st))
        return is_part_of_own(x, f, (uint64_t)st.st_size);
    if (f->fd >= 0 || !holds_known(x, f))
        return false;
    return f->ident.fp_len >= ADOPT_BYTES_MIN || !may_be_others(x, f);
}
