#include "outputs/file_archive.h"

#include <errno.h>
#include <fts.h>
#include <limits.h>
#include <regex.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <zlib.h>

#include "agent/base/array.h"
#include "agent/base/clock.h"

#define PIECE_BYTES (256 * KIB)
#define GROUPS_MAX 64
/* A block may be found without its link while the agent writes it. */
#define FRESH_NS (60 * NS_PER_SEC)

/* ---- which files ---- */

struct finder {
    regex_t regex;
    struct file_shape_groups groups;
    const struct archive_select *select;
    struct buf tenant; /* as it stands in a path */
    struct archive_files *files;
    size_t cap;
};

static int64_t number_of(const char *path, const regmatch_t *m, size_t group)
{
    return group == 0 ? 1 : strtoll(path + m[group].rm_so, NULL, 10);
}

static int64_t day_of(const struct file_shape_groups *g, const char *path, const regmatch_t *m)
{
    if (g->year == 0)
        return 0;
    const int64_t year = number_of(path, m, g->year);
    if (g->day_of_year != 0)
        return clock_days_from_civil(year, 1, 1) + number_of(path, m, g->day_of_year) - 1;
    return clock_days_from_civil(year, (unsigned)number_of(path, m, g->month), (unsigned)number_of(path, m, g->day));
}

static unsigned part_of(const char *suffix)
{
    if (*suffix == '\0')
        return UINT_MAX; /* the file that is written to, after all that were closed */
    return suffix[1] == 'g' ? 0 : (unsigned)strtoul(suffix + 1, NULL, 10);
}

static int add_file(struct finder *f, const char *path, const regmatch_t *m)
{
    struct archive_files *files = f->files;
    struct archive_file *more = array_room(files->items, files->n, &f->cap, sizeof(*more));
    if (more == NULL)
        return -ENOMEM;
    files->items = more;
    const regoff_t suffix = m[f->groups.suffix].rm_so;
    struct archive_file file = { .path = strdup(path), .day = day_of(&f->groups, path, m) };
    if (file.path == NULL)
        return -ENOMEM;
    file.name_len = suffix < 0 ? strlen(path) : (size_t)suffix;
    file.part = part_of(path + file.name_len);
    files->items[files->n++] = file;
    return 0;
}

static bool is_chosen(const struct finder *f, const char *path, const regmatch_t *m)
{
    const int64_t day = day_of(&f->groups, path, m);
    if (day < f->select->first_day || day > f->select->last_day)
        return false;
    if (f->select->tenant.len == 0)
        return true;
    const regmatch_t *t = &m[f->groups.tenant];
    return slice_eq(slice_of(path + t->rm_so, (size_t)(t->rm_eo - t->rm_so)), buf_slice(&f->tenant));
}

static int walk(struct finder *f, char *base)
{
    char *const roots[] = { base, NULL };
    FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    if (fts == NULL)
        return -errno;
    int r = 0;
    const FTSENT *e;
    while (r == 0 && (errno = 0, e = fts_read(fts)) != NULL) {
        regmatch_t m[GROUPS_MAX];
        if (e->fts_info == FTS_F && regexec(&f->regex, e->fts_path, GROUPS_MAX, m, 0) == 0 && is_chosen(f, e->fts_path, m))
            r = add_file(f, e->fts_path, m);
        else if (e->fts_info == FTS_DNR || e->fts_info == FTS_ERR)
            r = -e->fts_errno;
    }
    if (r == 0)
        r = -errno;
    (void)fts_close(fts);
    return r;
}

static int by_time(const void *a, const void *b)
{
    const struct archive_file *x = a, *y = b;
    if (x->day != y->day)
        return x->day < y->day ? -1 : 1;
    const int names = slice_cmp(slice_of(x->path, x->name_len), slice_of(y->path, y->name_len));
    if (names != 0)
        return names;
    return x->part < y->part ? -1 : x->part > y->part;
}

static int prepare(struct finder *f, const struct file_shape *shape, struct err *err)
{
    const struct archive_select *select = f->select;
    struct buf regex;
    buf_init(&regex, 64 * KIB);
    int r = file_shape_regex(shape, &regex, &f->groups);
    if (r == 0)
        r = buf_terminate(&regex);
    if (r == 0 && (f->groups.n > GROUPS_MAX || regcomp(&f->regex, regex.ptr, REG_EXTENDED) != 0))
        r = -E2BIG;
    buf_deinit(&regex);
    if (r < 0)
        return err_set(err, r, "cannot read the template of the path");
    const bool has_day = f->groups.year != 0 && ((f->groups.month != 0 && f->groups.day != 0) || f->groups.day_of_year != 0);
    if (select->tenant.len > 0 && f->groups.tenant == 0)
        r = err_say(err, -EINVAL, "the archive is not by tenant: there is no {tenant} in its path");
    else if (!has_day && (select->first_day != INT64_MIN || select->last_day != INT64_MAX))
        r = err_say(err, -EINVAL, "the archive is not by day: there is no date down to the day in its path");
    else if (select->tenant.len > 0 && file_path_part(select->tenant, &f->tenant) < 0)
        r = err_set(err, -ENOMEM, "cannot list the archive");
    if (r < 0)
        regfree(&f->regex);
    return r;
}

int archive_list(const struct file_shape *shape, const struct archive_select *select, struct archive_files *ret_files,
                 struct err *err)
{
    struct finder f = { .select = select, .files = ret_files };
    char base[PATH_MAX];
    *ret_files = (struct archive_files){ 0 };
    buf_init(&f.tenant, KIB);
    if (shape->base_len >= sizeof(base))
        return err_set(err, -ENAMETOOLONG, "cannot list the archive");
    memcpy(base, shape->text.ptr, shape->base_len);
    base[MAX(shape->base_len, (size_t)2) - 1] = '\0'; /* without the '/', unless it is the root */
    int r = prepare(&f, shape, err);
    if (r == 0) {
        r = walk(&f, base);
        regfree(&f.regex);
        if (r < 0 && r != -ENOENT)
            (void)err_set(err, r, "cannot list %s", base);
        r = r == -ENOENT ? 0 : r;
    }
    buf_deinit(&f.tenant);
    if (r < 0)
        archive_free(ret_files);
    else if (ret_files->n > 0)
        qsort(ret_files->items, ret_files->n, sizeof(ret_files->items[0]), by_time);
    return r;
}

void archive_free(struct archive_files *files)
{
    for (size_t i = 0; i < files->n; i++)
        free(files->items[i].path);
    free(files->items);
    *files = (struct archive_files){ 0 };
}

/* ---- one file ---- */

struct reading {
    struct archive_file *f;
    const struct archive_reader *to;
    struct chain_block *block;
    uint64_t block_lines, block_bytes;
};

static void PRINTF_LIKE(2, 3) complain(struct reading *r, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (r->to->problem != NULL)
        r->to->problem(r->to->ctx, r->f, text);
}

static int on_link(struct reading *r, const struct chain_link *l)
{
    struct archive_file *f = r->f;
    struct chain_hash is;
    int e = chain_block_end(r->block, &l->prev, &is);
    if (e < 0)
        return e;
    const unsigned long long first = f->lines - r->block_lines + 1, last = f->lines;
    if (!chain_hash_eq(&is, &l->hash) || l->lines != r->block_lines || l->bytes != r->block_bytes)
        complain(r, "lines %llu to %llu are not those that were written: %llu lines and %llu bytes, the link says %llu and %llu",
                 first, last, (unsigned long long)r->block_lines, (unsigned long long)r->block_bytes,
                 (unsigned long long)l->lines, (unsigned long long)l->bytes);
    if (!f->is_chained)
        f->first_prev = l->prev;
    else if (chain_hash_is_zero(&l->prev))
        complain(r, "the chain begins anew before line %llu: the file had been changed, or chain was off for a while", first);
    else if (!chain_hash_eq(&l->prev, &f->last))
        complain(r, "before line %llu something is missing or was put in: the link does not follow the one before", first);
    f->is_chained = true;
    f->last = l->hash;
    f->links++;
    r->block_lines = r->block_bytes = 0;
    return r->to->link == NULL ? 0 : r->to->link(r->to->ctx, &l->hash);
}

static int on_line(struct reading *r, struct slice line)
{
    struct chain_link l;
    if (chain_parse_link(line, &l))
        return on_link(r, &l);
    int e = chain_block_add(r->block, slice_of(line.ptr, line.len + 1)); /* with its newline */
    if (e < 0)
        return e;
    r->f->lines++;
    r->block_lines++;
    r->block_bytes += line.len + 1;
    return r->to->line == NULL ? 0 : r->to->line(r->to->ctx, line);
}

/* The whole lines of b; the rest stays in it. */
static int take_lines(struct reading *r, struct buf *b)
{
    struct slice rest = buf_slice(b);
    int e = 0;
    for (ptrdiff_t lf; e == 0 && (lf = slice_find_byte(rest, '\n')) >= 0;) {
        e = on_line(r, slice_first(rest, (size_t)lf));
        rest = slice_from(rest, (size_t)lf + 1);
    }
    memmove(b->ptr, rest.ptr, rest.len);
    b->len = rest.len;
    return e;
}

static int read_all(struct reading *r, gzFile gz, struct buf *b, struct err *err)
{
    for (;;) {
        int e = buf_reserve(b, PIECE_BYTES);
        if (e < 0)
            return err_set(err, e, "%s: a line is too long", r->f->path);
        const int n = gzread(gz, b->ptr + b->len, PIECE_BYTES);
        int code = Z_OK;
        const char *why = n <= 0 ? gzerror(gz, &code) : "";
        if (code != Z_OK && code != Z_STREAM_END)
            return err_say(err, -EIO, "%s: cannot be read: %s", r->f->path, code == Z_ERRNO ? strerror(errno) : why);
        if (n == 0)
            return 0;
        b->len += (size_t)n;
        e = take_lines(r, b);
        if (e < 0)
            return err_set(err, e, "%s", r->f->path);
    }
}

static bool is_fresh(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && clock_wall_ns() - (int64_t)st.st_mtim.tv_sec * NS_PER_SEC < FRESH_NS;
}

static void judge_end(struct reading *r, size_t rest)
{
    struct archive_file *f = r->f;
    f->loose_lines = r->block_lines + (rest > 0);
    if (rest > 0)
        complain(r, "the last line has no end");
    if (f->lines > 0 && !f->is_chained)
        complain(r, "there is no chain in it: the output has chain off, or the links were taken away");
    else if (f->loose_lines > 0 && !f->is_fresh)
        complain(r, "the last %llu lines have no link: lines or their link are missing, or were put in",
                 (unsigned long long)f->loose_lines);
}

int archive_read(struct archive_file *f, const struct archive_reader *to, struct err *err)
{
    struct reading r = { .f = f, .to = to };
    struct buf b;
    f->is_fresh = is_fresh(f->path);
    gzFile gz = gzopen(f->path, "rbe"); /* plain files too */
    if (gz == NULL)
        return err_set(err, errno == 0 ? -ENOMEM : -errno, "%s", f->path);
    buf_init(&b, ARCHIVE_LINE_MAX);
    int e = gzbuffer(gz, PIECE_BYTES) < 0 ? -ENOMEM : chain_block_new(&r.block);
    if (e < 0)
        (void)err_set(err, e, "%s", f->path);
    else
        e = read_all(&r, gz, &b, err);
    if (e == 0)
        judge_end(&r, b.len);
    chain_block_free(r.block);
    (void)gzclose(gz);
    buf_deinit(&b);
    return e;
}
