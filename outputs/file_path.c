#include "outputs/file_path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/io.h"

/* Leaves room for what is put behind: .12.gz and the like. */
#define PART_BYTES_MAX 200
#define PART_BYTES_KEPT 180

/* ---- the template as text ---- */

/* One step of the template's text: a literal byte, a {group} or a date. */
struct step {
    size_t len;    /* of the text it takes */
    char literal;  /* '\0': a group or date */
    char date;     /* the letter, or '\0' */
    bool has_slash;/* a group with a '/' in it */
};

static struct step group_step(struct slice text, size_t i)
{
    struct step s = { 0 };
    bool is_quoted = false;
    size_t end = i + 1;
    for (; end < text.len; end++) {
        char c = text.ptr[end];
        if (c == '\'')
            is_quoted = !is_quoted;
        else if (c == '}' && !is_quoted)
            break;
        else if (c == '/' && is_quoted)
            s.has_slash = true;
    }
    s.len = MIN(end + 1, text.len) - i;
    return s;
}

static struct step next_step(struct slice text, size_t i)
{
    char c = text.ptr[i];
    char d = i + 1 < text.len ? text.ptr[i + 1] : '\0';
    if ((c == '{' || c == '}' || c == '%') && d == c)
        return (struct step){ .len = 2, .literal = c };
    if (c == '{')
        return group_step(text, i);
    if (c == '%' && d != '\0')
        return (struct step){ .len = 2, .date = d };
    return (struct step){ .len = 1, .literal = c };
}

static enum file_period date_period(char date)
{
    switch (date) {
    case 'Y': return FILE_PERIOD_YEAR;
    case 'm': return FILE_PERIOD_MONTH;
    case 'd':
    case 'j': return FILE_PERIOD_DAY;
    case 'H': return FILE_PERIOD_HOUR;
    case 'M': return FILE_PERIOD_MINUTE;
    case 'S': return FILE_PERIOD_SECOND;
    default: return FILE_PERIOD_EVER;
    }
}

static size_t base_length(struct slice text)
{
    size_t base = 0;
    for (size_t i = 0; i < text.len && text.ptr[i] != '{' && text.ptr[i] != '}' && text.ptr[i] != '%'; i++)
        if (text.ptr[i] == '/')
            base = i + 1;
    return base;
}

int file_shape_parse(struct slice text, struct file_shape *ret_shape, struct err *err)
{
    struct file_shape shape = { .text = text, .base_len = base_length(text), .n_parts = 1 };
    if (text.len < 2 || text.ptr[0] != '/')
        return err_say(err, -EINVAL, "path: expected an absolute path, such as /var/log/archive/{tenant}/%%Y-%%m-%%d.ndjson");
    if (text.ptr[text.len - 1] == '/')
        return err_say(err, -EINVAL, "path: expected a file name at the end, not a /");
    for (size_t i = shape.base_len; i < text.len;) {
        struct step s = next_step(text, i);
        if (s.has_slash)
            return err_say(err, -EINVAL, "path: a constant inside braces may not hold a /");
        shape.n_parts += s.literal == '/';
        shape.period = MAX(shape.period, date_period(s.date));
        i += s.len;
    }
    if (shape.n_parts > FILE_PATH_PARTS_MAX)
        return err_say(err, -EINVAL, "path: expected at most %d folders with variables", FILE_PATH_PARTS_MAX - 1);
    *ret_shape = shape;
    return 0;
}

static int append_digits(struct buf *out, size_t n)
{
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++)
        r = buf_append_lit(out, "[0-9]");
    return r;
}

static int append_literal_glob(struct buf *out, char c)
{
    int r = strchr("*?[]\\!", c) != NULL ? buf_append_byte(out, '\\') : 0;
    return r < 0 ? r : buf_append_byte(out, c);
}

int file_shape_glob(const struct file_shape *shape, size_t part, struct buf *out)
{
    size_t at_part = 0;
    int r = 0;
    for (size_t i = shape->base_len; i < shape->text.len && r == 0;) {
        struct step s = next_step(shape->text, i);
        i += s.len;
        if (s.literal == '/')
            at_part++;
        else if (at_part != part)
            continue;
        else if (s.literal != '\0')
            r = append_literal_glob(out, s.literal);
        else if (s.date != '\0')
            r = append_digits(out, s.date == 'Y' ? 4 : s.date == 'j' ? 3 : 2);
        else
            r = buf_append_byte(out, '*');
    }
    return r;
}

int file_shape_glob_all(const struct file_shape *shape, struct buf *out)
{
    int r = 0;
    for (size_t i = 0; i < shape->base_len && r == 0; i++)
        r = append_literal_glob(out, shape->text.ptr[i]);
    for (size_t part = 0; part < shape->n_parts && r == 0; part++) {
        r = part == 0 ? 0 : buf_append_byte(out, '/');
        if (r == 0)
            r = file_shape_glob(shape, part, out);
    }
    return r < 0 ? r : buf_append_byte(out, '*');
}

static int append_literal_regex(struct buf *out, char c)
{
    int r = strchr(".[]()*+?{}|^$\\", c) != NULL ? buf_append_byte(out, '\\') : 0;
    return r < 0 ? r : buf_append_byte(out, c);
}

/* A name that stands twice is taken from its first place. */
static void note_group(size_t *group, size_t n)
{
    if (*group == 0)
        *group = n;
}

static int append_step_regex(struct buf *out, struct slice text, const struct step *s, struct file_shape_groups *g)
{
    if (s->literal != '\0')
        return append_literal_regex(out, s->literal);
    size_t n = g->n++;
    if (s->date == '\0' && slice_eq(text, SLICE("{tenant}")))
        note_group(&g->tenant, n);
    if (s->date == '\0')
        return buf_append_lit(out, "([^/]*)");
    if (s->date == 'Y' || s->date == 'm' || s->date == 'd' || s->date == 'j')
        note_group(s->date == 'Y' ? &g->year : s->date == 'm' ? &g->month : s->date == 'd' ? &g->day : &g->day_of_year, n);
    return buf_printf(out, "([0-9]{%d})", s->date == 'Y' ? 4 : s->date == 'j' ? 3 : 2);
}

int file_shape_regex(const struct file_shape *shape, struct buf *out, struct file_shape_groups *ret_groups)
{
    *ret_groups = (struct file_shape_groups){ .n = 1 };
    int r = buf_append_byte(out, '^');
    for (size_t i = 0; i < shape->text.len && r == 0;) {
        const struct step s = i < shape->base_len ? (struct step){ .len = 1, .literal = shape->text.ptr[i] }
                                                  : next_step(shape->text, i);
        r = append_step_regex(out, slice_first(slice_from(shape->text, i), s.len), &s, ret_groups);
        i += s.len;
    }
    ret_groups->suffix = ret_groups->n;
    ret_groups->n += 2;
    return r < 0 ? r : buf_append_lit(out, "((\\.[0-9]+)?\\.gz)?$");
}

/* ---- a rendered path ---- */

static uint64_t name_hash(struct slice s)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a: the same in every process */
    for (size_t i = 0; i < s.len; i++)
        h = (h ^ (unsigned char)s.ptr[i]) * UINT64_C(0x100000001b3);
    return h;
}

int file_path_part(struct slice part, struct buf *out)
{
    bool is_dots = slice_eq(part, SLICE(".")) || slice_eq(part, SLICE(".."));
    bool is_long = part.len > PART_BYTES_MAX;
    struct slice kept = is_long ? slice_first(part, PART_BYTES_KEPT) : part;
    int r = part.len == 0 ? buf_append_byte(out, '_') : 0;
    for (size_t i = 0; i < kept.len && r == 0; i++) {
        unsigned char c = (unsigned char)kept.ptr[i];
        r = buf_append_byte(out, c < 0x20 || c == 0x7f || c == '/' || is_dots ? '_' : (char)c);
    }
    if (r == 0 && is_long) /* two long names that begin alike stay two files */
        r = buf_printf(out, "~%016llx", (unsigned long long)name_hash(part));
    return r;
}

static int append_parts(struct slice rel, struct buf *out)
{
    for (;;) {
        ptrdiff_t slash = slice_find_byte(rel, '/');
        int r = file_path_part(slash < 0 ? rel : slice_first(rel, (size_t)slash), out);
        if (r < 0 || slash < 0)
            return r;
        r = buf_append_byte(out, '/');
        if (r < 0)
            return r;
        rel = slice_from(rel, (size_t)slash + 1);
    }
}

/* A value held a '/': which one cannot be told from the result. All of it becomes one name, in folders called _, so that
 * it cannot reach another tenant's folder. */
static int append_flat(const struct file_shape *shape, struct slice rel, struct buf *out)
{
    int r = 0;
    for (size_t i = 1; i < shape->n_parts && r == 0; i++)
        r = buf_append_lit(out, "_/");
    return r < 0 ? r : file_path_part(rel, out);
}

int file_path_clean(const struct file_shape *shape, struct slice rendered, struct buf *out)
{
    size_t before = out->len, n_slashes = 0;
    struct slice rel = slice_from(rendered, shape->base_len);
    for (size_t i = 0; i < rel.len; i++)
        n_slashes += rel.ptr[i] == '/';
    int r = buf_append_slice(out, slice_first(shape->text, shape->base_len));
    if (r == 0)
        r = n_slashes + 1 == shape->n_parts ? append_parts(rel, out) : append_flat(shape, rel, out);
    if (r < 0)
        out->len = before;
    return r;
}

/* ---- periods ---- */

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

static int64_t period_number(enum file_period period, int64_t ns)
{
    int64_t s = floor_div(ns, NS_PER_SEC), year;
    unsigned month, day;
    clock_civil_from_days(floor_div(s, 86400), &year, &month, &day);
    switch (period) {
    case FILE_PERIOD_EVER: return 0;
    case FILE_PERIOD_YEAR: return year;
    case FILE_PERIOD_MONTH: return year * 12 + month;
    case FILE_PERIOD_DAY: return floor_div(s, 86400);
    case FILE_PERIOD_HOUR: return floor_div(s, 3600);
    case FILE_PERIOD_MINUTE: return floor_div(s, 60);
    case FILE_PERIOD_SECOND: return s;
    }
    return 0;
}

bool file_period_is_over(enum file_period period, int64_t then_ns, int64_t now_ns)
{
    return period_number(period, then_ns) != period_number(period, now_ns);
}

/* ---- opening ---- */

/* Replaces *dir_fd by its folder name; makes it when dir_mode says so. */
static int enter(int *dir_fd, const char *name, mode_t dir_mode, struct err *err)
{
    int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int fd = openat(*dir_fd, name, flags);
    if (fd < 0 && errno == ENOENT && dir_mode != 0) {
        if (mkdirat(*dir_fd, name, dir_mode) < 0 && errno != EEXIST)
            return err_set(err, -errno, "cannot create folder %s", name);
        if (fsync(*dir_fd) < 0) /* the name must last as long as the lines below it */
            return err_set(err, -errno, "cannot sync the folder of %s", name);
        fd = openat(*dir_fd, name, flags);
    }
    if (fd < 0)
        return err_set(err, -errno, "cannot enter folder %s (links are not followed)", name);
    (void)close(*dir_fd); /* read-only */
    *dir_fd = fd;
    return 0;
}

static int open_base(struct slice base, mode_t dir_mode, struct err *err)
{
    char path[PATH_MAX];
    if (base.len >= sizeof(path))
        return err_set(err, -ENAMETOOLONG, "cannot open folder");
    memcpy(path, base.ptr, base.len);
    path[base.len] = '\0';
    if (base.len > 1 && path[base.len - 1] == '/')
        path[base.len - 1] = '\0';
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT && dir_mode != 0) {
        int r = io_mkdirs(path, dir_mode, err);
        if (r < 0)
            return r;
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    return fd < 0 ? err_set(err, -errno, "cannot open folder %s", path) : fd;
}

static int set_name(struct slice part, char name[256], struct err *err)
{
    if (part.len == 0 || part.len > NAME_MAX || slice_find_byte(part, '\0') >= 0 || slice_eq(part, SLICE(".")) ||
        slice_eq(part, SLICE("..")))
        return err_say(err, -EINVAL, "the path is not one of ours");
    memcpy(name, part.ptr, part.len);
    name[part.len] = '\0';
    return 0;
}

int file_place_open(struct slice path, size_t base_len, mode_t dir_mode, struct file_place *ret, struct err *err)
{
    CLEANUP(fd_closep) int fd = open_base(slice_first(path, base_len), dir_mode, err);
    if (fd < 0)
        return fd;
    struct slice rest = slice_from(path, base_len);
    char name[256];
    ptrdiff_t slash;
    while ((slash = slice_find_byte(rest, '/')) >= 0) {
        int r = set_name(slice_first(rest, (size_t)slash), name, err);
        if (r == 0)
            r = enter(&fd, name, dir_mode, err);
        if (r < 0)
            return r;
        rest = slice_from(rest, (size_t)slash + 1);
    }
    int r = set_name(rest, ret->name, err);
    if (r < 0)
        return r;
    ret->dir_fd = fd;
    fd = -1;
    return 0;
}
