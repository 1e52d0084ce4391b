/* What the tail says of its files, to people. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/base/buf.h"
#include "agent/queue/fs.h"
#include "agent/tail/internal.h"

static const char *state_name(const struct tail_file *f)
{
    if (f->is_tracked && f->stage != STAGE_READING)
        return "finished";
    if (f->is_tracked && f->is_stalled)
        return "stalled";
    switch (f->phase) {
    case PHASE_MISSING:
        return "missing";
    case PHASE_WAITING:
        return "waiting";
    case PHASE_SKIPPED:
        return "skipped";
    case PHASE_UNREADABLE:
        return "unreadable";
    case PHASE_LIVE:
        return "followed";
    case PHASE_ROTATED:
        return f->is_deleted ? "deleted" : "rotated";
    case PHASE_ORPHAN:
        return "truncated";
    }
    return "";
}

static int add_output(const struct tail *t, size_t o, uint64_t position, uint64_t committed, bool is_blocked,
                      struct buf *out)
{
    int r = o > 0 ? buf_append_byte(out, ',') : 0;
    if (r == 0 && o < t->conf->n_outputs)
        r = buf_append_json_string(out, t->conf->outputs[o].name);
    else if (r == 0)
        r = buf_printf(out, "\"%zu\"", o);
    if (r == 0)
        r = buf_append_lit(out, ":{\"position\":");
    if (r == 0)
        r = buf_append_u64(out, position);
    if (r == 0)
        r = buf_append_lit(out, ",\"committed\":");
    if (r == 0)
        r = buf_append_u64(out, committed);
    if (r == 0 && is_blocked)
        r = buf_append_lit(out, ",\"blocked\":true");
    return r < 0 ? r : buf_append_byte(out, '}');
}

static int add_name(const char *path, struct slice input, const char *state, uint64_t size, struct buf *out)
{
    int r = buf_append_lit(out, "{\"path\":");
    if (r == 0)
        r = buf_append_json_string(out, slice_cstr(path));
    if (r == 0)
        r = buf_append_lit(out, ",\"input\":");
    if (r == 0)
        r = buf_append_json_string(out, input);
    return r < 0 ? r : buf_printf(out, ",\"state\":\"%s\",\"size\":%llu", state, (unsigned long long)size);
}

static int add_who(uint64_t ino, uint64_t incarnation, struct buf *out)
{
    return buf_printf(out, ",\"inode\":%llu,\"incarnation\":\"%016llx\",\"outputs\":{", (unsigned long long)ino,
                      (unsigned long long)incarnation);
}

static int add_outputs(const struct tail_file *f, struct buf *out)
{
    int r = 0;
    for (size_t o = 0; r == 0 && o < f->t->n_outputs; o++) {
        const struct pass *p = f->slots[o].pass;
        r = add_output(f->t, o, p == NULL ? f->size : pass_end(&p->pub), durable_off(f->t, (uint32_t)o, &f->slots[o]),
                       p != NULL && p->is_parked, out);
    }
    return r;
}

static int add_file(const struct tail_file *f, struct buf *out)
{
    struct slice input = f->ident.input.ptr == NULL ? SLICE("") : f->ident.input;
    int r = add_name(f->path.path, input, state_name(f), f->size, out);
    if (r == 0 && f->reason != NULL) {
        r = buf_append_lit(out, ",\"reason\":");
        r = r < 0 ? r : buf_append_json_string(out, slice_cstr(f->reason));
    }
    if (r == 0 && file_held_bytes(f) > 0)
        r = buf_printf(out, ",\"held\":%llu", (unsigned long long)file_held_bytes(f));
    if (r == 0 && f->is_tracked) {
        r = add_who(f->ident.ino, f->ident.incarnation, out);
        r = r < 0 ? r : add_outputs(f, out);
        r = r < 0 ? r : buf_append_byte(out, '}');
    }
    return r < 0 ? r : buf_append_byte(out, '}');
}

static int add_sleeper(const struct tail *t, const struct sleeper *s, struct buf *out)
{
    int r = add_name(s->path, t->conf->inputs[s->input].name, "followed", s->off, out);
    r = r < 0 ? r : add_who(s->ino, s->incarnation, out);
    for (size_t o = 0; r == 0 && o < t->n_outputs; o++)
        r = add_output(t, o, s->off, s->off, false, out);
    return r < 0 ? r : buf_append_lit(out, "}}");
}

static int add_comma(struct buf *out)
{
    return out->ptr[out->len - 1] == '[' ? 0 : buf_append_byte(out, ',');
}

int tail_status(struct tail *t, struct buf *out)
{
    const struct list *asleep[] = { &t->asleep_open, &t->asleep };
    int r = buf_append_byte(out, '[');
    for (struct list *l = t->files.next; r == 0 && l != &t->files; l = l->next) {
        r = add_comma(out);
        r = r < 0 ? r : add_file(CONTAINER_OF(l, struct tail_file, all), out);
    }
    for (size_t i = 0; i < ARRAY_LEN(asleep); i++)
        for (struct list *l = asleep[i]->next; r == 0 && l != asleep[i]; l = l->next) {
            r = add_comma(out);
            r = r < 0 ? r : add_sleeper(t, CONTAINER_OF(l, struct sleeper, all), out);
        }
    return r < 0 ? r : buf_append_byte(out, ']');
}

/* ---- explain ---- */

/* One block: the pairs, then their text. */
static int copy_pairs(const struct pair *caps, size_t n, struct pairs *ret)
{
    size_t bytes = MAX(n, (size_t)1) * sizeof(*caps);
    for (size_t i = 0; i < n; i++)
        bytes += caps[i].name.len + caps[i].value.len;
    struct pair *block = malloc(bytes);
    if (block == NULL)
        return -ENOMEM;
    char *text = (char *)(block + n);
    for (size_t i = 0; i < n; i++) {
        const struct slice from[2] = { caps[i].name, caps[i].value };
        struct slice *to[2] = { &block[i].name, &block[i].value };
        for (int k = 0; k < 2; k++) {
            memcpy(text, from[k].ptr, from[k].len);
            *to[k] = slice_of(text, from[k].len);
            text += from[k].len;
        }
    }
    *ret = (struct pairs){ block, n };
    return 0;
}

/* Inputs whose include names the path, and what keeps it from being theirs. */
static int say_near(const struct conf *conf, const struct input_side *inputs, struct slice path,
                    struct buf *text)
{
    bool is_any = false;
    for (size_t i = 0; i < conf->n_inputs; i++) {
        for (size_t k = 0; k < inputs[i].n_include; k++) {
            if (!pattern_match(inputs[i].include[k], path, NULL, NULL))
                continue;
            for (size_t x = 0; x < inputs[i].n_exclude; x++) {
                if (!pattern_covers(inputs[i].exclude[x], path))
                    continue;
                int r = buf_printf(text, "input %.*s includes it by %.*s and excludes it by %.*s\n",
                                   SLICE_ARGS(conf->inputs[i].name),
                                   SLICE_ARGS(pattern_text(inputs[i].include[k])),
                                   SLICE_ARGS(pattern_text(inputs[i].exclude[x])));
                if (r < 0)
                    return r;
                is_any = true;
                break;
            }
        }
    }
    return is_any ? 0 : buf_append_cstr(text, "no include pattern of any input names it\n");
}

/* Why a file that an input takes is nevertheless not read; NULL: it is. */
static const char *obstacle(const struct conf *conf, const char *path)
{
    struct stat st;
    char real[PATH_MAX], head[KIB], state[PATH_MAX], state_real[PATH_MAX];
    if (is_compressed_name(slice_cstr(path)))
        return "it is compressed: such files are read only as the rotated rest of a file that was followed";
    if (fs_current()->stat(AT_FDCWD, path, &st, true) < 0 || fs_current()->realpath(path, real) < 0)
        return NULL; /* not there yet: taken when it comes */
    if (!S_ISREG(st.st_mode))
        return "it is not a regular file";
    struct tail t = { 0 };
    if (conf->state_dir.len > 0 && conf->state_dir.len < sizeof(state)) {
        (void)snprintf(state, sizeof(state), "%.*s", SLICE_ARGS(conf->state_dir));
        t.state_dir = fs_current()->realpath(state, state_real) == 0 ? state_real : NULL;
    }
    bool is_own = path_is_own(&t, real);
    if (is_own)
        return "it lies in our own state_dir";
    int fd = fs_current()->open(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0)
        return "it cannot be opened by this user";
    ssize_t n = fs_current()->pread(fd, head, sizeof(head), 0);
    (void)fs_current()->close(fd); /* only read from */
    ssize_t k = 0;
    while (k < n && head[k] == '\0')
        k++;
    if (k < n && memchr(head + k, '\0', (size_t)(n - k)) != NULL)
        return "it is not text: there is a NUL byte in its first KiB";
    return NULL;
}

int tail_explain(const struct conf *conf, const char *path, struct buf *text, uint32_t *ret_input,
                 struct pairs *ret_captures)
{
    struct input_side *inputs = NULL;
    struct pair caps[PATTERN_CAPTURES_MAX];
    size_t n_caps = 0;
    int r = inputs_compile(conf, &inputs, NULL);
    if (r < 0)
        return r;
    int input = inputs_match(conf, inputs, slice_cstr(path), caps, &n_caps);
    const char *why = input < 0 ? NULL : obstacle(conf, path);
    if (input < 0)
        r = say_near(conf, inputs, slice_cstr(path), text);
    else if (why != NULL)
        r = buf_printf(text, "input %.*s includes it, but %s\n", SLICE_ARGS(conf->inputs[input].name), why);
    else
        r = buf_printf(text, "input %.*s takes it\n", SLICE_ARGS(conf->inputs[input].name));
    if (r == 0 && (input < 0 || why != NULL))
        r = -ENOENT;
    if (r == 0)
        r = copy_pairs(caps, n_caps, ret_captures);
    if (r == 0)
        *ret_input = (uint32_t)input;
    inputs_free(inputs, conf->n_inputs);
    return r;
}
