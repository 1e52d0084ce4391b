#include "conf/report.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

int report_init(struct report *rep, struct arena *arena)
{
    *rep = (struct report){ .arena = arena };
    rep->errors = arena_alloc(arena, REPORT_ERRORS_MAX * sizeof(*rep->errors));
    rep->warnings = arena_alloc(arena, REPORT_ERRORS_MAX * sizeof(*rep->warnings));
    return rep->errors == NULL || rep->warnings == NULL ? -ENOMEM : 0;
}

void report_file(struct report *rep, const char *file)
{
    if (rep->n_files < ARRAY_LEN(rep->files))
        rep->files[rep->n_files++] = file;
}

/* ---- path
 * -------------------------------------------------------------------------------------------------------- */

static size_t enter(struct report *rep, const char *fmt, int len, const char *ptr, size_t index)
{
    size_t at = rep->path_len;
    char *to = rep->path + at;
    size_t room = sizeof(rep->path) - at;
    int n = ptr != NULL ? snprintf(to, room, fmt, len, ptr) : snprintf(to, room, "[%zu]", index);
    rep->path_len = at + MIN((size_t)MAX(n, 0), room - 1); /* too long a path is cut */
    return at;
}

size_t report_enter(struct report *rep, struct slice key)
{
    return enter(rep, rep->path_len == 0 ? "%.*s" : ".%.*s", (int)MIN(key.len, (size_t)100),
                 key.len == 0 ? "" : key.ptr, 0);
}

size_t report_enter_index(struct report *rep, size_t index)
{
    return enter(rep, NULL, 0, NULL, index);
}

void report_leave(struct report *rep, size_t at)
{
    rep->path_len = at;
    rep->path[at] = '\0';
}

/* ---- lines
 * ------------------------------------------------------------------------------------------------------- */

/* One line must stay one line and be UTF-8, whatever was quoted, and wherever inside a character it was cut.
 */
static void tame(char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
            s[i] = '?';
    for (size_t i = slice_utf8_valid(slice_of(s, len)); i < len;
         i += slice_utf8_valid(slice_of(s + i, len - i)))
        s[i] = '?';
}

static struct slice sentence(struct report *rep, struct mark mark, const char *fmt, va_list args)
{
    char text[2048];
    size_t n = 0;
    if (mark.file != NULL && mark.line > 0)
        n = (size_t)snprintf(text, sizeof(text), "%.900s:%u:%u: ", mark.file, mark.line, mark.col);
    else if (mark.file != NULL)
        n = (size_t)snprintf(text, sizeof(text), "%.900s: ", mark.file);
    if (rep->path_len > 0)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s: ", rep->path);
    int more = vsnprintf(text + n, sizeof(text) - n, fmt, args);
    n = MIN(n + (size_t)MAX(more, 0), sizeof(text) - 1);
    tame(text, n);
    return arena_copy(rep->arena, slice_of(text, n));
}

static unsigned file_index(const struct report *rep, const char *file)
{
    for (unsigned i = 0; file != NULL && i < rep->n_files; i++)
        if (strcmp(rep->files[i], file) == 0)
            return i;
    return rep->n_files;
}

static bool add_line(struct report *rep, struct report_line *lines, size_t n, struct mark mark,
                     struct slice text)
{
    if (n == REPORT_ERRORS_MAX || text.ptr == NULL)
        return false;
    lines[n] = (struct report_line){ mark, file_index(rep, mark.file), text };
    return true;
}

static void keep_error(struct report *rep, struct mark mark, struct slice text)
{
    if (add_line(rep, rep->errors, rep->n_errors, mark, text))
        rep->n_errors++;
    else
        rep->n_more++;
}

static void keep_warning(struct report *rep, struct mark mark, struct slice text)
{
    rep->n_warnings += add_line(rep, rep->warnings, rep->n_warnings, mark, text);
}

void report_error(struct report *rep, struct mark mark, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    keep_error(rep, mark, sentence(rep, mark, fmt, args));
    va_end(args);
}

void report_warning(struct report *rep, struct mark mark, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    keep_warning(rep, mark, sentence(rep, mark, fmt, args));
    va_end(args);
}

void report_error_at(struct report *rep, struct mark mark, const char *key, const char *fmt, ...)
{
    va_list args;
    size_t at = report_enter(rep, slice_cstr(key));
    va_start(args, fmt);
    keep_error(rep, mark, sentence(rep, mark, fmt, args));
    va_end(args);
    report_leave(rep, at);
}

void report_warning_at(struct report *rep, struct mark mark, const char *key, const char *fmt, ...)
{
    va_list args;
    size_t at = report_enter(rep, slice_cstr(key));
    va_start(args, fmt);
    keep_warning(rep, mark, sentence(rep, mark, fmt, args));
    va_end(args);
    report_leave(rep, at);
}

/* ---- output
 * ------------------------------------------------------------------------------------------------------ */

static bool is_before(const struct report_line *a, const struct report_line *b)
{
    if (a->file_index != b->file_index)
        return a->file_index < b->file_index;
    if (a->mark.line != b->mark.line)
        return a->mark.line < b->mark.line;
    return a->mark.col < b->mark.col;
}

/* Stable, and there are few. */
static void sort_lines(struct report_line *lines, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        struct report_line line = lines[i];
        size_t j = i;
        for (; j > 0 && is_before(&line, &lines[j - 1]); j--)
            lines[j] = lines[j - 1];
        lines[j] = line;
    }
}

void report_write(struct report *rep, struct buf *out)
{
    sort_lines(rep->errors, rep->n_errors);
    for (size_t i = 0; i < rep->n_errors; i++) {
        struct slice text = rep->errors[i].text;
        size_t start = out->len;
        if (buf_append_slice(out, text) < 0 || buf_append_byte(out, '\n') < 0) {
            out->len = start; /* whole lines only */
            return;
        }
    }
    if (rep->n_more > 0 && buf_printf(out, "… and %zu more\n", rep->n_more) < 0)
        return; /* then the count is what did not fit */
}

int report_warnings(struct report *rep, struct slices *ret_warnings)
{
    sort_lines(rep->warnings, rep->n_warnings);
    struct slice *items = arena_alloc(rep->arena, MAX(rep->n_warnings, 1) * sizeof(*items));
    if (items == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < rep->n_warnings; i++)
        items[i] = rep->warnings[i].text;
    *ret_warnings = (struct slices){ items, rep->n_warnings };
    return 0;
}
