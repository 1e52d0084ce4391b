#include "parsers/multiline.h"

#include <errno.h>
#include <regex.h>
#include <stdlib.h>

#define PATTERN_BYTES_MAX 1024 /* of a line that the pattern is matched with: starts are told by their beginnings */

/*
 * What the group so far looks like.
 *
 *   PLAIN      anything: indented lines, "Caused by:" and closing brackets follow
 *   PYTHON     "Traceback (most recent call last):" -> indented lines -> the exception's own line
 *   PY_END     that line was read -> a blank line
 *   PY_BLANK   -> "During handling of the above exception, …"
 *   PY_CHAIN   -> a blank line, "Traceback …" (PYTHON again)
 *   GO         "panic: " and "fatal error: " -> goroutines and their frames, blank lines between them
 *   RUST_AT    "thread '…' panicked at src/x.rs:1:2:" -> the message, on a line of its own
 *   RUST       -> "stack backtrace:", indented frames, "note: …"
 *   PRETTY     "{" alone -> indented lines -> "}"
 *   SINGLE     nothing follows
 */
enum mode { PLAIN, PYTHON, PY_END, PY_BLANK, PY_CHAIN, GO, RUST_AT, RUST, PRETTY, SINGLE };

struct multiline {
    bool is_auto;
    bool has_regex;
    regex_t regex;
};

int multiline_new(bool is_auto, struct slice start, struct multiline **ret_multiline, struct err *err)
{
    struct multiline *m = calloc(1, sizeof(*m));
    if (m == NULL)
        return err_set(err, -ENOMEM, "cannot make a multiline rule");
    m->is_auto = is_auto;
    if (!is_auto) {
        char *pattern = slice_find_byte(start, '\0') >= 0 ? NULL : slice_dup(start);
        int e = pattern == NULL ? REG_BADPAT : regcomp(&m->regex, pattern, REG_EXTENDED | REG_NOSUB);
        free(pattern);
        if (e != 0) {
            char reason[256] = "it holds a NUL byte";
            if (pattern != NULL)
                (void)regerror(e, &m->regex, reason, sizeof(reason)); /* cut is fine */
            free(m);
            return err_say(err, -EINVAL, "start pattern '%.*s': %s", SLICE_ARGS(start), reason);
        }
        m->has_regex = true;
    }
    *ret_multiline = m;
    return 0;
}

void multiline_free(struct multiline *m)
{
    if (m == NULL)
        return;
    if (m->has_regex)
        regfree(&m->regex);
    free(m);
}

/* ---- what a line looks like --------------------------------------------------------------------------------------- */

static bool is_blank_line(struct slice line)
{
    return slice_trim(line).len == 0;
}

static bool is_indented(struct slice line)
{
    return line.len > 0 && (line.ptr[0] == ' ' || line.ptr[0] == '\t') && !is_blank_line(line);
}

/* By its ends: whether it is valid is the parser's business, and a broken one is not continued either. */
static bool is_object(struct slice line)
{
    line = slice_trim(line);
    return line.len >= 2 && line.ptr[0] == '{' && line.ptr[line.len - 1] == '}';
}

static bool is_name_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.';
}

/* "ValueError: x", "KeyError", "app.errors.Fatal: y" */
static bool is_python_exception(struct slice line)
{
    size_t i = 0;
    while (i < line.len && is_name_byte(line.ptr[i]))
        i++;
    if (i == 0 || (line.ptr[0] >= '0' && line.ptr[0] <= '9'))
        return false;
    return i == line.len || (line.ptr[i] == ':' && (i + 1 == line.len || line.ptr[i + 1] == ' '));
}

static bool is_python_traceback(struct slice line)
{
    return slice_starts(line, SLICE("Traceback (most recent call last):"));
}

static bool is_python_chain(struct slice line)
{
    return slice_starts(line, SLICE("During handling of the above exception")) ||
           slice_starts(line, SLICE("The above exception was the direct cause"));
}

static bool is_go_panic(struct slice line)
{
    return slice_starts(line, SLICE("panic: ")) || slice_starts(line, SLICE("fatal error: ")) ||
           (slice_starts(line, SLICE("goroutine ")) && slice_ends(line, SLICE("]:")));
}

/* main.(*T).Run(0xc000, {0x1, 0x2}): no blank before the first parenthesis, which closes the line. */
static bool is_go_frame(struct slice line)
{
    ptrdiff_t open = slice_find_byte(line, '('), space = slice_find_byte(line, ' ');
    return open > 0 && line.ptr[line.len - 1] == ')' && (space < 0 || space > open);
}

/* rax    0x0 */
static bool is_go_register(struct slice line)
{
    ptrdiff_t space = slice_find_byte(line, ' ');
    return space > 0 && space <= 6 && slice_starts(slice_trim(slice_from(line, (size_t)space)), SLICE("0x"));
}

static bool is_go_line(struct slice line)
{
    static const struct slice starts[] = {
        SLICE_INIT("goroutine "), SLICE_INIT("created by "), SLICE_INIT("[signal "), SLICE_INIT("panic: "),
        SLICE_INIT("exit status "), SLICE_INIT("runtime stack:"), SLICE_INIT("..."), SLICE_INIT("[originating from "),
    };
    for (size_t i = 0; i < ARRAY_LEN(starts); i++)
        if (slice_starts(line, starts[i]))
            return true;
    return is_blank_line(line) || is_indented(line) || is_go_frame(line) || is_go_register(line);
}

/* thread 'main' panicked at, thread 'main' (123) panicked at */
static bool is_rust_panic(struct slice line)
{
    return slice_starts(line, SLICE("thread '")) && slice_find(slice_first(line, 256), SLICE(" panicked at ")) > 0;
}

static bool is_rust_line(struct slice line)
{
    return is_indented(line) || slice_starts(line, SLICE("stack backtrace:")) || slice_starts(line, SLICE("note: "));
}

/* "}", "]);", ")": what is left of an object printed over several lines. */
static bool is_closing(struct slice line)
{
    line = slice_trim(line);
    for (size_t i = 0; i < line.len; i++)
        if (memchr("}]),;", line.ptr[i], 5) == NULL)
            return false;
    return line.len > 0;
}

/* Java's and PHP's, at the left margin. */
static bool is_trace_line(struct slice line)
{
    if (line.len > 1 && line.ptr[0] == '#' && line.ptr[1] >= '0' && line.ptr[1] <= '9')
        return true;
    return slice_starts(line, SLICE("Caused by: ")) || slice_starts(line, SLICE("Suppressed: ")) ||
           slice_starts(line, SLICE("Stack trace:"));
}

/* ---- the group ---------------------------------------------------------------------------------------------------- */

static enum mode mode_of_start(struct slice line)
{
    if (is_object(line))
        return SINGLE;
    if (slice_eq(slice_trim(line), SLICE("{")))
        return PRETTY;
    if (is_python_traceback(line))
        return PYTHON;
    if (is_go_panic(line))
        return GO;
    if (is_rust_panic(line))
        return slice_ends(line, SLICE(":")) ? RUST_AT : RUST;
    return PLAIN;
}

static bool go_to(enum mode next, unsigned *mode)
{
    *mode = next;
    return true;
}

static bool continues_python(unsigned *mode, struct slice line)
{
    switch ((enum mode)*mode) {
    case PYTHON:
        if (is_indented(line))
            return true;
        return is_python_exception(line) && go_to(PY_END, mode);
    case PY_END: /* a message of several lines is indented as often as not; its other lines cannot be known */
        return is_indented(line) || (is_blank_line(line) && go_to(PY_BLANK, mode));
    case PY_BLANK:
        return is_python_chain(line) && go_to(PY_CHAIN, mode);
    case PY_CHAIN:
        return is_blank_line(line) || (is_python_traceback(line) && go_to(PYTHON, mode));
    case PLAIN: case GO: case RUST_AT: case RUST: case PRETTY: case SINGLE:
        break;
    }
    return false;
}

static bool continues_auto(unsigned *mode, struct slice line)
{
    switch ((enum mode)*mode) {
    case PYTHON: case PY_END: case PY_BLANK: case PY_CHAIN:
        return continues_python(mode, line);
    case GO:
        return is_go_line(line);
    case RUST_AT:
        return go_to(RUST, mode);
    case RUST:
        return is_rust_line(line);
    case PRETTY:
        if (slice_eq(slice_trim(line), SLICE("}")) && !is_indented(line))
            return go_to(SINGLE, mode);
        return is_indented(line);
    case SINGLE:
        return false;
    case PLAIN:
        break;
    }
    return is_indented(line) || is_trace_line(line) || is_closing(line);
}

/* On a copy with a NUL: with REG_STARTEND alone, glibc still looks one byte behind the end. */
static bool is_start_by_regex(const struct multiline *m, struct slice line)
{
    char head[PATTERN_BYTES_MAX + 1];
    line = slice_first(line, PATTERN_BYTES_MAX);
    if (line.len > 0)
        memcpy(head, line.ptr, line.len);
    head[line.len] = '\0';
    regmatch_t range = { .rm_so = 0, .rm_eo = (regoff_t)line.len }; /* the line itself may hold NULs */
    return regexec(&m->regex, head, 1, &range, REG_STARTEND) == 0;
}

bool multiline_is_single(const struct multiline *m, struct slice line)
{
    (void)m; /* the same by either rule */
    return is_object(line);
}

bool multiline_continues(const struct multiline *m, struct multiline_state *state, struct slice line)
{
    bool is_part = state->n_lines > 0 && state->n_lines < MULTILINE_LINES_MAX && state->mode != SINGLE;
    /* Inside a pretty-printed object a member may be one itself. */
    if (is_part && is_object(line))
        is_part = m->is_auto && state->mode == PRETTY && is_indented(line);
    if (is_part)
        is_part = m->is_auto ? continues_auto(&state->mode, line) : !is_start_by_regex(m, line);
    if (is_part) {
        state->n_lines++;
        return true;
    }
    state->mode = m->is_auto ? mode_of_start(line) : is_object(line) ? SINGLE : PLAIN;
    state->n_lines = 1;
    return false;
}
