/*
 * Programs that write log files, and logrotate. The world knows each line, which files hold it, and whether it was still
 * promised when a file went.
 *
 * What is promised. A line is in a file that the agent will find: under the name that the configuration tells, or under a
 * rotated name when the agent had the file open, or had noted its place (some line of it has arrived). When the last such
 * file goes, a line that has not arrived may be missing from then on, unless the agent has the file open: then it may be
 * missing only after the agent's death. A line that may be missing still may not come twice.
 *
 * What happens while the agent looks (sim.h: plan's is_within): the agent has a file open that it had open before this turn.
 * What it opened a moment ago may be for a look alone, and closed again when the name leads elsewhere meanwhile.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libdeflate.h>

#include "agent/base/clock.h"
#include "tests/sim/pieces.h"
#include "tests/sim/sim.h"

#define PATH_BYTES 96
#define FILES_MAX PIECES_FILES_MAX
#define ROTATED_MAX 5
#define TEXT_BYTES (300 * KIB)
#define NOTED_NS (5 * NS_PER_SEC)

struct file {
    char path[PATH_BYTES];
    uint8_t log;
    bool exists;     /* has a name */
    bool is_gz, is_copy;
    bool is_held;    /* without a name, but the agent has it open */
    bool is_strange; /* was renamed before the agent noted it: lost when it forgets */
    uint32_t *uids;
    size_t n, cap;
};

struct log {
    struct file *live;                 /* NULL: none now */
    struct file *rotated[ROTATED_MAX + 1]; /* [0]: .1 */
    bool has_half;
    uint32_t half_uid;
    char *rest;                        /* of its text */
    size_t rest_len;
    struct file *half_in;              /* CRI: where the first part lies */
    struct file *zipping;
};

/* An action that is carried out. */
struct job {
    const struct action *a;
    uint64_t rng;
    unsigned step;
    unsigned at;   /* rotated files from here on have moved */
    uint32_t late; /* the calls after which this step's rename is told */
};

static struct {
    struct file files[FILES_MAX];
    size_t n_files;
    struct log logs[SIM_LOGS];
    char *text;  /* of the line in hand */
    size_t len;
    bool may_garble;
    struct job job;
} w;

static const char *const level_names[] = { "debug", "info", "warn", "error" };
static const char *const tenant_names[] = { "t0", "t1", "t2" };

/* ---- files ---- */

static struct file *file_new(unsigned log, const char *path)
{
    if (w.n_files == FILES_MAX)
        return NULL;
    struct file *f = &w.files[w.n_files++];
    uint32_t *uids = f->uids;
    const size_t cap = f->cap;
    *f = (struct file){ .log = (uint8_t)log, .exists = true, .uids = uids, .cap = cap };
    (void)snprintf(f->path, sizeof(f->path), "%s", path);
    return f;
}

static void file_add(struct file *f, uint32_t uid)
{
    if (f->n == f->cap) {
        f->cap = MAX(f->cap * 2, (size_t)64);
        f->uids = realloc(f->uids, f->cap * sizeof(*f->uids));
        if (f->uids == NULL)
            abort();
    }
    f->uids[f->n++] = uid;
}

static void live_path(unsigned log, char to[PATH_BYTES])
{
    (void)snprintf(to, PATH_BYTES, "/logs/%u/app.log", log);
}

static struct file *live_file(unsigned log)
{
    struct log *l = &w.logs[log];
    if (l->live != NULL)
        return l->live;
    char path[PATH_BYTES];
    live_path(log, path);
    l->live = file_new(log, path);
    if (l->live != NULL)
        (void)disk_append(sim.disk, path, "", 0);
    return l->live;
}

/* Has the agent durably noted a place in this file? */
static bool is_known(const struct file *f)
{
    for (size_t i = 0; i < f->n; i++)
        if (sim.lines[f->uids[i]].got != 0)
            return true;
    return false;
}

/* Outputs that a route sends only some lines to. */
static uint8_t choosy_outputs(void)
{
    const struct shape *s = &sim.plan->shape;
    uint8_t mask = 0;
    for (unsigned i = 0; i < s->n_outputs; i++)
        if (s->tenant_of_output[i] != UINT32_MAX || s->levels[i] > 0)
            mask |= (uint8_t)(1u << i);
    return mask;
}

/* Some of what lies in this file may never reach these outputs. */
static void may_go(const struct file *f, uint8_t outputs)
{
    pieces_may_go((unsigned)(f - w.files), outputs);
}

static void lines_may_miss(const struct file *f)
{
    may_go(f, UINT8_MAX);
    for (size_t i = 0; i < f->n; i++) {
        struct line *l = &sim.lines[f->uids[i]];
        if (l->homes == 0)
            l->may_miss |= (uint8_t)~l->got;
    }
}

static void leave_homes(const struct file *f)
{
    for (size_t i = 0; i < f->n; i++)
        if (sim.lines[f->uids[i]].homes > 0)
            sim.lines[f->uids[i]].homes--;
}

/* An output that is not configured reads nothing now, and the descriptor may go. */
static void others_may_miss(const struct file *f)
{
    may_go(f, (uint8_t)~sim.outputs);
    for (size_t i = 0; i < f->n; i++) {
        struct line *l = &sim.lines[f->uids[i]];
        if (l->homes == 0)
            l->may_miss |= (uint8_t)(~l->got & ~sim.outputs);
    }
}

/* The file has no name any more, or holds nothing any more. */
static void file_gone(struct file *f, bool is_open)
{
    f->exists = false;
    f->is_held = is_open;
    leave_homes(f);
    if (is_open)
        others_may_miss(f);
    else
        lines_may_miss(f);
}

static bool agent_has(const struct file *f)
{
    return sim.engine != NULL && peek_is_open(sim.disk, f->path, sim.turn_calls);
}

void world_unsettled(void)
{
    for (size_t i = 0; i < w.n_files; i++) {
        const struct file *f = &w.files[i];
        if (f->is_strange)
            may_go(f, UINT8_MAX);
        for (size_t k = 0; f->is_strange && k < f->n; k++)
            sim.lines[f->uids[k]].may_miss |= (uint8_t)~sim.lines[f->uids[k]].got;
    }
}

bool world_is_begin_noted(void)
{
    for (size_t i = 0; i < sim.plan->n; i++)
        if (!sim.plan->acts[i].is_out && (sim.plan->acts[i].kind == ACT_FAULT || sim.plan->acts[i].kind == ACT_SPACE ||
                                          sim.plan->acts[i].kind == ACT_CACHES))
            return false;
    return sim.mono_ns - sim.fresh_ns > NOTED_NS;
}

void world_agent_died(void)
{
    if (world_is_begin_noted())
        sim.fresh = 0;
    for (size_t k = 0; sim.fresh != 0 && k < sim.n_lines; k++) /* a new output has noted nothing yet */
        sim.lines[k].may_miss |= (uint8_t)sim.fresh;
    for (size_t i = 0; i < w.n_files; i++) {
        struct file *f = &w.files[i];
        if (f->is_held) {
            f->is_held = false;
            lines_may_miss(f);
        }
        if (f->exists && f->is_strange && !is_known(f)) {
            leave_homes(f);
            lines_may_miss(f);
        }
        w.may_garble |= f->is_strange && !is_known(f) && sim.plan->shape.kinds[f->log] == LOG_CRI;
        f->is_strange = false;
    }
}

void world_output_begins(void)
{
    for (unsigned i = 0; i < sim.plan->shape.n_logs; i++)
        w.may_garble |= sim.plan->shape.kinds[i] == LOG_CRI;
}

void world_output_gone(unsigned slot)
{
    for (size_t i = 0; i < w.n_files; i++) {
        const struct file *f = &w.files[i];
        if (f->is_held)
            may_go(f, (uint8_t)(1u << slot));
        for (size_t k = 0; f->is_held && k < f->n; k++) {
            struct line *l = &sim.lines[f->uids[k]];
            if (l->homes == 0 && !(l->got >> slot & 1))
                l->may_miss |= (uint8_t)(1u << slot);
        }
    }
}

/* ---- lines ---- */

static uint32_t text_crc(uint32_t uid, const char *p, size_t len)
{
    return libdeflate_crc32(uid * 2654435761u, p, len);
}

static uint8_t expects(const struct line *l)
{
    uint8_t mask = 0;
    for (unsigned i = 0; i < sim.plan->shape.n_outputs; i++) {
        const uint32_t tenant = sim.plan->shape.tenant_of_output[i];
        const bool level_fits = l->level == UINT8_MAX || l->level >= sim.plan->shape.levels[i];
        if (level_fits && (tenant == UINT32_MAX || tenant == l->tenant))
            mask |= (uint8_t)(1u << i);
    }
    return mask;
}

static uint8_t pick_poison(uint64_t *rng, const struct shape *s)
{
    if (s->is_real_size || !chance(rng, 3))
        return POISON_NONE;
    return (uint8_t)(1 + rnd(rng, 3));
}

/* Letters that no escaping touches. */
static size_t put_padding(char *to, uint64_t *rng, const struct shape *s, uint8_t poison)
{
    size_t n = 12 + rnd(rng, s->line_bytes);
    if (poison == POISON_ITEM)
        n = 2000 + rnd(rng, 200);
    for (size_t i = 0; i < n; i++)
        to[i] = (char)('a' + rnd(rng, 26));
    if (poison == POISON_ITEM)
        memcpy(to, "POISON2", 7);
    if (poison == POISON_WHOLE)
        memcpy(to, "POISON3", 7);
    return n;
}

static int64_t line_time(uint64_t *rng)
{
    const int64_t now = clock_wall_ns();
    switch (rnd(rng, 24)) {
    case 0:
        return now - rnd_ns(rng, 0, 3 * 3600 * NS_PER_SEC);
    case 1:
        return now + rnd_ns(rng, 0, 3600 * NS_PER_SEC);
    case 2:
        return now - rnd_ns(rng, 0, 60 * NS_PER_SEC);
    default:
        return now;
    }
}

/* The next line of a log, its text without newline in w.text. */
static uint32_t line_new(unsigned log, uint64_t *rng)
{
    const struct shape *s = &sim.plan->shape;
    if (sim.n_lines == sim.cap_lines) {
        sim.cap_lines = MAX(sim.cap_lines * 2, (size_t)1024);
        sim.lines = realloc(sim.lines, sim.cap_lines * sizeof(*sim.lines));
        if (sim.lines == NULL)
            abort();
    }
    const uint32_t uid = (uint32_t)sim.n_lines++;
    struct line *l = &sim.lines[uid];
    *l = (struct line){ .log = (uint8_t)log, .tenant = (uint8_t)rnd(rng, s->n_tenants), .level = (uint8_t)rnd(rng, 4),
                        .poison = pick_poison(rng, s) };
    const bool is_text = s->kinds[log] == LOG_TEXT || chance(rng, 5);
    char stamp[48];
    struct buf t = { .ptr = stamp, .cap = sizeof(stamp), .max = sizeof(stamp) };
    (void)!clock_append_rfc3339(&t, line_time(rng), 3 * rnd(rng, 4));
    size_t n = 0;
    if (is_text) {
        l->level = UINT8_MAX;
        l->tenant = UINT8_MAX;
        if (l->poison == POISON_MAPPING)
            l->poison = POISON_NONE;
        n = (size_t)sprintf(w.text, "plain words <u=%u c=", uid);
    } else {
        n = (size_t)sprintf(w.text, "{\"level\":\"%s\",\"tenant\":\"%s\",%s\"time\":\"%.*s\",\"msg\":\"<u=%u c=",
                            level_names[l->level], tenant_names[l->tenant],
                            l->poison == POISON_MAPPING ? "\"bad\":{\"x\":1}," : "", (int)t.len, t.ptr, uid);
    }
    char *crc_at = w.text + n;
    n += (size_t)sprintf(w.text + n, "00000000 p=");
    const size_t pad = put_padding(w.text + n, rng, s, l->poison);
    l->text_crc = text_crc(uid, w.text + n, pad);
    char hex[9];
    (void)snprintf(hex, sizeof(hex), "%08x", l->text_crc);
    memcpy(crc_at, hex, 8);
    n += pad;
    n += (size_t)sprintf(w.text + n, is_text ? ">" : ">\"}");
    w.len = n;
    l->expects = expects(l);
    return uid;
}

static bool parse_number(struct slice *s, unsigned base, uint32_t *ret)
{
    uint64_t v = 0;
    size_t i = 0;
    for (; i < s->len && i < 10; i++) {
        const char c = s->ptr[i];
        unsigned d = c >= '0' && c <= '9' ? (unsigned)(c - '0') : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10 : 99;
        if (d >= base)
            break;
        v = v * base + d;
    }
    *s = slice_from(*s, i);
    *ret = (uint32_t)v;
    return i > 0 && v <= UINT32_MAX;
}

/* As slice_find(s, "<u="): padding has no '<', so memchr() is as good as there. */
static ptrdiff_t find_mark(struct slice s)
{
    for (size_t at = 0; at < s.len; at++) {
        const ptrdiff_t next = slice_find_byte(slice_from(s, at), '<');
        if (next < 0)
            return -1;
        at += (size_t)next;
        if (slice_starts(slice_from(s, at), SLICE("<u=")))
            return (ptrdiff_t)at;
    }
    return -1;
}

struct line *world_line_of(struct slice text, uint32_t *ret_uid)
{
    uint32_t uid, crc;
    const ptrdiff_t at = find_mark(text);
    if (at < 0)
        return NULL;
    struct slice s = slice_from(text, (size_t)at + 3);
    if (!parse_number(&s, 10, &uid) || !slice_starts(s, SLICE(" c=")))
        return NULL;
    s = slice_from(s, 3);
    if (!parse_number(&s, 16, &crc) || !slice_starts(s, SLICE(" p=")) || uid >= sim.n_lines)
        return NULL;
    s = slice_from(s, 3);
    const ptrdiff_t end = slice_find_byte(s, '>');
    if (end < 0 || text_crc(uid, s.ptr, (size_t)end) != crc || sim.lines[uid].text_crc != crc)
        return NULL;
    if (find_mark(slice_from(s, (size_t)end)) >= 0)
        return NULL; /* two lines in one */
    *ret_uid = uid;
    return &sim.lines[uid];
}

bool world_may_garble(void)
{
    return w.may_garble;
}

/* ---- writing ---- */

static void put(struct file *f, const char *p, size_t n)
{
    (void)disk_append(sim.disk, f->path, p, n);
}

/* "2026-01-02T03:04:05.123456789Z stdout F text" */
static void put_cri(struct file *f, uint32_t uid, struct slice text, bool is_whole, unsigned stream)
{
    char head[80];
    struct buf t = { .ptr = head, .cap = sizeof(head), .max = sizeof(head) };
    (void)!clock_append_rfc3339(&t, clock_wall_ns(), 9);
    (void)!buf_append_cstr(&t, stream == 0 ? " stdout " : " stderr ");
    (void)!buf_append_cstr(&t, is_whole ? "F " : "P ");
    static char *line;
    if (line == NULL && (line = malloc(TEXT_BYTES + 128)) == NULL)
        abort();
    memcpy(line, t.ptr, t.len);
    memcpy(line + t.len, text.ptr, text.len);
    line[t.len + text.len] = '\n';
    put(f, line, t.len + text.len + 1);
    pieces_add(f->log, stream, (unsigned)(f - w.files), uid, text, is_whole);
}

/* A rotated file that the agent neither has open nor knows is not promised to be found. */
static void line_in(struct file *f, uint32_t uid)
{
    struct line *l = &sim.lines[uid];
    l->homes = 1;
    file_add(f, uid);
    if (f != w.logs[f->log].live && !agent_has(f) && !is_known(f))
        l->may_miss |= (uint8_t)~l->got;
}

static void put_whole(unsigned log, struct file *f, uint32_t uid, uint64_t *rng)
{
    const unsigned stream = rnd(rng, 2);
    if (sim.plan->shape.kinds[log] == LOG_CRI) {
        size_t at = 0;
        while (chance(rng, 15) && at + 2 < w.len) { /* partial lines of one record */
            const size_t n = 1 + rnd(rng, (uint32_t)(w.len - at - 1));
            put_cri(f, uid, slice_of(w.text + at, n), false, stream);
            at += n;
        }
        put_cri(f, uid, slice_of(w.text + at, w.len - at), true, stream);
    } else {
        w.text[w.len] = '\n';
        put(f, w.text, w.len + 1);
    }
    line_in(f, uid);
}

/* The line that was begun is ended, in this file. */
static void end_half(unsigned log, struct file *f)
{
    struct log *l = &w.logs[log];
    if (!l->has_half || f == NULL)
        return;
    l->has_half = false;
    if (sim.plan->shape.kinds[log] == LOG_CRI)
        put_cri(f, l->half_uid, slice_of(l->rest, l->rest_len), true, 0);
    else
        put(f, l->rest, l->rest_len);
    line_in(f, l->half_uid);
    if (l->half_in != f && l->half_in != NULL) { /* it went on in the next file */
        file_add(l->half_in, l->half_uid);
        if (sim.n_rots > 0) {
            may_go(l->half_in, UINT8_MAX);
            may_go(f, UINT8_MAX);
        }
        if (!agent_has(l->half_in) && !is_known(l->half_in))
            sim.lines[l->half_uid].may_miss |= (uint8_t)~sim.lines[l->half_uid].got;
    }
}

static void begin_half(unsigned log, uint64_t *rng)
{
    struct log *l = &w.logs[log];
    struct file *f = live_file(log);
    if (l->has_half || f == NULL)
        return;
    l->half_uid = line_new(log, rng);
    l->half_in = f;
    const size_t n = 1 + rnd(rng, (uint32_t)w.len - 1);
    if (l->rest == NULL && (l->rest = malloc(TEXT_BYTES)) == NULL)
        abort();
    l->rest_len = w.len - n;
    memcpy(l->rest, w.text + n, w.len - n);
    if (sim.plan->shape.kinds[log] == LOG_CRI) {
        put_cri(f, l->half_uid, slice_of(w.text, n), false, 0);
    } else {
        put(f, w.text, n);
        l->rest[l->rest_len++] = '\n';
    }
    l->has_half = true;
}

static void append(unsigned log, struct file *f, uint32_t n, uint64_t *rng)
{
    for (uint32_t i = 0; i < n && f != NULL && sim.n_lines < 100000; i++) {
        const uint32_t uid = line_new(log, rng);
        put_whole(log, f, uid, rng);
    }
}

static bool append_step(struct job *j)
{
    struct file *f = live_file(j->a->a);
    end_half(j->a->a, f);
    append(j->a->a, f, j->a->n, &j->rng);
    return false;
}

static bool half_step(struct job *j)
{
    end_half(j->a->a, live_file(j->a->a));
    begin_half(j->a->a, &j->rng);
    return false;
}

/* ---- rotating ---- */

static void rename_file(struct file *f, const char *path, uint32_t late)
{
    const bool is_unseen = !agent_has(f) && !is_known(f); /* nobody will look for it */
    w.may_garble |= is_unseen && w.logs[f->log].has_half;
    if (is_unseen && f->n > 0) {
        leave_homes(f);
        lines_may_miss(f);
        for (size_t i = 0; i < f->n; i++)
            sim.lines[f->uids[i]].homes++; /* it may be found all the same */
    }
    f->is_strange |= !is_known(f);
    if (sim.turn_calls != UINT64_MAX)
        sim_say("    (%s becomes %s%s)", f->path, path, late > 0 ? ", and this is told later" : "");
    disk_events_delay(sim.disk, late);
    (void)disk_rename(sim.disk, f->path, path);
    (void)snprintf(f->path, sizeof(f->path), "%s", path);
}

static void delete_file(struct file *f)
{
    const bool is_open = agent_has(f);
    (void)disk_unlink(sim.disk, f->path);
    file_gone(f, is_open);
}

/* .1 becomes .2 and so on, the oldest first; what falls off the end is deleted. */
static void begin_shift(struct job *j)
{
    struct log *l = &w.logs[j->a->a];
    if (l->rotated[ROTATED_MAX] != NULL)
        delete_file(l->rotated[ROTATED_MAX]);
    l->rotated[ROTATED_MAX] = NULL;
    j->at = ROTATED_MAX;
}

/* False: all have moved. */
static bool shift_one(struct job *j)
{
    struct log *l = &w.logs[j->a->a];
    char path[PATH_BYTES];
    while (j->at > 0 && l->rotated[j->at - 1] == NULL)
        j->at--;
    if (j->at == 0)
        return false;
    struct file *f = l->rotated[j->at] = l->rotated[j->at - 1];
    l->rotated[--j->at] = NULL;
    (void)snprintf(path, sizeof(path), "/logs/%u/app.log.%u%s", j->a->a, j->at + 2, f->is_gz ? ".gz" : "");
    rename_file(f, path, j->late);
    return true;
}

static void end_zip(struct log *l)
{
    struct file *f = l->zipping;
    l->zipping = NULL;
    if (f == NULL || !f->exists || f->is_gz)
        return;
    const bool is_open = agent_has(f);
    if (disk_gzip(sim.disk, f->path, 1000) < 0)
        return;
    /* The agent may have it open, or find the .gz; that is promised only while it is open. */
    struct file *zipped = file_new(f->log, f->path);
    if (zipped == NULL)
        return;
    (void)snprintf(zipped->path, sizeof(zipped->path), "%.80s.gz", f->path);
    zipped->is_gz = true;
    for (size_t i = 0; i < f->n; i++)
        file_add(zipped, f->uids[i]);
    for (unsigned i = 0; i <= ROTATED_MAX; i++)
        if (l->rotated[i] == f)
            l->rotated[i] = zipped;
    file_gone(f, is_open);
}

enum { STEP_BEGIN, STEP_SHIFT, STEP_AFTER, STEP_LAST };

static void first_path(unsigned log, char to[PATH_BYTES])
{
    (void)snprintf(to, PATH_BYTES, "/logs/%u/app.log.1", log);
}

static void rotate_live(struct job *j)
{
    struct log *l = &w.logs[j->a->a];
    char path[PATH_BYTES];
    first_path(j->a->a, path);
    rename_file(l->live, path, j->late);
    l->rotated[0] = l->live;
    l->live = NULL;
}

static void after_rotation(struct job *j)
{
    const unsigned log = j->a->a;
    struct log *l = &w.logs[log];
    struct file *f = l->rotated[0];
    const bool is_runtime = sim.plan->shape.kinds[log] == LOG_CRI;
    if (!is_runtime) /* the program ends its line where it began it */
        end_half(log, f);
    else if (l->has_half) /* the runtime opens the new file and goes on there */
        end_half(log, live_file(log));
    if ((j->a->b & 1) && !is_runtime) /* and goes on there until it is told */
        append(log, f, rnd(&j->rng, 4), &j->rng);
    if (j->a->b & 2)
        (void)live_file(log);
}

static bool rotate_step(struct job *j)
{
    struct log *l = &w.logs[j->a->a];
    switch (j->step) {
    case STEP_BEGIN:
        if (l->live == NULL)
            return false;
        end_zip(l);
        begin_shift(j);
        j->step = STEP_SHIFT;
        return true;
    case STEP_SHIFT:
        if (shift_one(j))
            return true;
        rotate_live(j);
        j->step = STEP_LAST;
        return true;
    default:
        after_rotation(j);
        return false;
    }
}

static bool copy_live(struct job *j)
{
    struct log *l = &w.logs[j->a->a];
    char path[PATH_BYTES];
    first_path(j->a->a, path);
    struct file *copy = file_new(j->a->a, path);
    if (copy == NULL || disk_copy(sim.disk, l->live->path, path, UINT64_MAX) < 0)
        return false;
    copy->is_copy = true; /* lines that are only in a copy are not promised */
    for (size_t i = 0; i < l->live->n; i++)
        file_add(copy, l->live->uids[i]);
    l->rotated[0] = copy;
    return true;
}

static void truncate_live(struct job *j)
{
    struct file *f = w.logs[j->a->a].live;
    leave_homes(f);
    lines_may_miss(f);
    f->n = 0;
    (void)disk_truncate(sim.disk, f->path, 0);
}

static bool copytruncate_step(struct job *j)
{
    const unsigned log = j->a->a;
    struct log *l = &w.logs[log];
    switch (j->step) {
    case STEP_BEGIN:
        if (l->live == NULL || l->live->n == 0)
            return false;
        end_half(log, l->live);
        end_zip(l);
        begin_shift(j);
        j->step = STEP_SHIFT;
        return true;
    case STEP_SHIFT:
        j->step = shift_one(j) ? STEP_SHIFT : STEP_AFTER;
        return j->step == STEP_SHIFT || copy_live(j);
    case STEP_AFTER:
        if (j->a->b & 1)
            append(log, l->live, rnd(&j->rng, 3), &j->rng); /* nobody will ever have these */
        truncate_live(j);
        j->step = STEP_LAST;
        return true;
    default:
        if (j->a->b & 2)
            append(log, l->live, 1 + rnd(&j->rng, 3), &j->rng);
        return false;
    }
}

static bool delete_step(struct job *j)
{
    struct log *l = &w.logs[j->a->a];
    if (j->a->b == 0) {
        for (unsigned i = ROTATED_MAX + 1; i > 0; i--)
            if (l->rotated[i - 1] != NULL && l->rotated[i - 1] != l->zipping) {
                delete_file(l->rotated[i - 1]);
                l->rotated[i - 1] = NULL;
                return false;
            }
        return false;
    }
    if (l->live == NULL)
        return false;
    end_half(j->a->a, l->live);
    delete_file(l->live);
    l->live = NULL;
    return false;
}

static bool gzip_step(struct job *j)
{
    struct log *l = &w.logs[j->a->a];
    end_zip(l);
    for (unsigned i = 0; i <= ROTATED_MAX; i++) {
        struct file *f = l->rotated[i];
        if (f == NULL || f->is_gz)
            continue;
        l->zipping = f;
        if (l->half_in == f && l->has_half) /* CRI: it goes on in the next file; leave it alone */
            l->zipping = NULL;
        else if (j->a->b)
            (void)disk_gzip(sim.disk, f->path, 1 + (unsigned)(j->a->rng % 999));
        else
            end_zip(l);
        return false;
    }
    return false;
}

/* ---- actions ---- */

static bool (*const steps[ACT_KINDS])(struct job *j) = {
    [ACT_APPEND] = append_step, [ACT_HALF] = half_step,     [ACT_ROTATE] = rotate_step, [ACT_COPYTRUNCATE] = copytruncate_step,
    [ACT_DELETE] = delete_step, [ACT_GZIP] = gzip_step,
};

void world_act(const struct action *a)
{
    w.job = (struct job){ .a = a, .rng = a->rng };
}

bool world_step(uint32_t late)
{
    w.job.late = late;
    return steps[w.job.a->kind](&w.job);
}

void world_heal(void)
{
    for (unsigned i = 0; i < sim.plan->shape.n_logs; i++) {
        if (w.logs[i].has_half)
            end_half(i, live_file(i));
        end_zip(&w.logs[i]);
    }
}

void world_settle(void)
{
    pieces_settle(choosy_outputs());
}

void world_begin(void)
{
    w.n_files = 0;
    w.may_garble = false;
    pieces_begin();
    sim.n_lines = 0;
    if (w.text == NULL && (w.text = malloc(TEXT_BYTES)) == NULL)
        abort();
    (void)disk_mkdir(sim.disk, "/state", DISK_STATE);
    for (unsigned i = 0; i < sim.plan->shape.n_logs; i++) {
        char path[PATH_BYTES];
        char *rest = w.logs[i].rest;
        w.logs[i] = (struct log){ .rest = rest };
        (void)snprintf(path, sizeof(path), "/logs/%u", i);
        (void)disk_mkdir(sim.disk, path, DISK_LOGS);
    }
}

void world_free(void)
{
    for (size_t i = 0; i < FILES_MAX; i++)
        free(w.files[i].uids);
    pieces_free();
    for (unsigned i = 0; i < SIM_LOGS; i++) {
        free(w.logs[i].rest);
    }
    free(w.text);
}
