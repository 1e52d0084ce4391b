/* Reading: turns, first looks, ends. */
#include <assert.h>
#include <errno.h>

#include "agent/base/log.h"
#include "agent/tail/internal.h"

#define READ_MAX (LINE_BYTES_MAX + TURN_BYTES)
#define SNIFF_BYTES (1 * KIB)
#define NUL_WINDOWS_MAX 64 /* of TURN_BYTES, in one turn */
#define RETRY_NS (100 * NS_PER_MS)

void *file_new_sink(struct tail_file *f, uint64_t fed_to)
{
    struct file_ident id = f->ident;
    id.path = slice_cstr(file_origin(f)); /* its lines go by the name that the input knows */
    struct tail_file_info info = { .input_index = f->input,
                                   .ident = &id,
                                   .captures = { f->captures, f->n_captures },
                                   .fed_to = fed_to };
    return f->t->sink.file_new(f->t->sink.ctx, f, &info);
}

int file_ensure_sink(struct tail_file *f)
{
    if (f->sink_file == NULL)
        f->sink_file = file_new_sink(f, f->fed_incarnation == f->ident.incarnation ? f->fed_to : 0);
    return f->sink_file == NULL ? -ENOMEM : 0;
}

/* Of a crowd that was read whole at its first turn most are not heard of again soon. */
static bool may_rest_now(const struct tail_file *f)
{
    return f->t->now - f->read_ns >= REST_NS || (f->n_turns <= 1 && f->t->n_files > CROWD_FILES);
}

/* Ten thousand files that are quiet are to cost as little as can be: what the sink knows of one is made again when a line
 * comes. Not while another file may go on where this one stops, or the other way round. */
void file_rest(struct tail_file *f)
{
    struct tail *t = f->t;
    const struct tail_pass *p = f->passes;
    if (f->sink_file == NULL || !f->is_tracked || f->stage != STAGE_READING || f->phase != PHASE_LIVE ||
        !may_rest_now(f) || list_is_in(&f->ready) || list_is_in(&f->waking) || f->after != NULL ||
        f->successor != NULL || f->parked != NULL || p == NULL || p->next != NULL || p->mask != t->outputs ||
        f->is_sink_held || p->state != NULL || p->off < f->size || p->off < p->resume_until || p->skip_to_newline)
        return;
    f->fed_to = p->off;
    f->fed_incarnation = f->ident.incarnation;
    t->sink.file_free(t->sink.ctx, f->sink_file);
    f->sink_file = NULL;
}

static void stall(struct tail_file *f, int error)
{
    f->is_stalled = true;
    list_del(&f->ready);
    file_account(f);
    const char *event = error == -EACCES || error == -EPERM ? "file.unreadable" : "file.stalled";
    if (!f->is_warned)
        log_warn("tail", event, "a file cannot be read now; it is tried again every 10 s",
                 LOG_CSTR("path", f->path.path), LOG_CSTR("error", strerror(-error)));
    f->is_warned = true;
}

static void drop_pass(struct tail_file *f, struct pass *p)
{
    struct tail_pass **list = &f->passes;
    while (*list != &p->pub)
        list = &(*list)->next;
    *list = p->pub.next;
    pass_free(p);
}

/* Hands bytes at p's place to the sink. False: all outputs have left p, it is gone. */
static bool feed(struct pass *p, const char *ptr, size_t len, bool is_last, size_t *ret_used)
{
    struct tail_file *f = p->file;
    struct tail *t = f->t;
    struct feed fd = {
        .bytes = slice_of(ptr, len), .off = p->pub.off, .is_last = is_last, .is_full = len > LINE_BYTES_MAX
    };
    t->feeding.pass = p;
    t->feeding.feed = &fd;
    t->feeding.skip_before = p->pub.skip_to_newline;
    size_t used = t->sink.feed(t->sink.ctx, f->sink_file, &p->pub, &fd);
    t->feeding.pass = NULL;
    assert(used <= len);
    *ret_used = used;
    if (p->pub.mask == 0) {
        drop_pass(f, p);
        return false;
    }
    if (used > 0)
        pass_consume(p, ptr, used);
    file_dirty(f, p->pub.mask);
    return true;
}

/* ---- the first look ---- */

static bool has_nul(const char *ptr, size_t len)
{
    return memchr(ptr, '\0', len) != NULL;
}

bool file_sniff(struct tail_file *f)
{
    char head[SNIFF_BYTES];
    struct source src;
    if (f->is_sniffed || source_of(f, &src) < 0)
        return true; /* the turn finds out why it cannot be opened */
    ssize_t n = source_pread(&src, head, sizeof(head), 0);
    size_t k = 0;
    while (n > 0 && k < (size_t)n && head[k] == '\0')
        k++;
    if (n <= 0 || k == (size_t)n)
        return true; /* empty, or a hole so far: later */
    if (has_nul(head + k, (size_t)n - k)) {
        file_untrack(f);
        file_skip(f, PHASE_SKIPPED, "file.skipped", "not text: a NUL byte in the first KiB");
        return false;
    }
    if (is_copy_in_the_making(f)) {
        file_untrack(f);
        file_set_phase(f, PHASE_WAITING);
        return false;
    }
    f->is_sniffed = true;
    if (f->ident.fp_len == 0) /* else it was read since it was empty here: only its next turn can say that this is the same text */
        file_see(f, 0, head, (size_t)n);
    return true;
}

/* A writer that does not append goes on at its old place after a truncation: what is before it reads as NULs.
 * They are passed over once something follows. False: nothing follows yet. */
static bool skip_nuls(struct tail_file *f, struct pass *p, const struct source *src)
{
    char *raw = f->t->raw;
    uint64_t at = f->nul_end;
    ssize_t n = 0, k = 0;
    for (int i = 0; i < NUL_WINDOWS_MAX; i++, at += (uint64_t)n) {
        n = source_pread(src, raw, TURN_BYTES, at);
        for (k = 0; k < n && raw[k] == '\0'; k++)
            ;
        if (n <= 0 || k < n)
            break;
    }
    if (n <= 0 || k == n) {
        f->nul_end = at;
        p->is_hungry = n > 0;
        return false;
    }
    f->nul_end = at + (uint64_t)k;
    if (!f->is_sniffed && has_nul(raw + k, MIN((size_t)(n - k), SNIFF_BYTES))) {
        file_untrack(f);
        file_skip(f, PHASE_SKIPPED, "file.skipped", "not text: a NUL byte in the first KiB");
        return false;
    }
    f->is_sniffed = true;
    log_info("tail", "file.truncated", "NUL bytes at the start of a file are skipped",
             LOG_CSTR("path", f->path.path), LOG_NUM("bytes", f->nul_end));
    memset(raw, 0, TURN_BYTES);
    while (p->pub.off < f->nul_end)
        pass_consume(p, raw, (size_t)MIN(f->nul_end - p->pub.off, TURN_BYTES));
    file_dirty(f, p->pub.mask);
    return true;
}

/* ---- a turn ---- */

/* The bytes before the place are what they were when it was reached? */
static bool is_tail_right(struct pass *p, const char *raw, size_t len)
{
    if (len == 0)
        return true;
    if (!p->wants_tail)
        return memcmp(raw, p->pub.tail_bytes, len) == 0;
    if (crc_update(0, raw, len) != p->tail_crc)
        return false;
    memcpy(p->pub.tail_bytes, raw, len);
    p->wants_tail = false;
    return true;
}

/* At the start, where there is no tail: is it what was seen there before? */
static bool is_head_right(const struct pass *p, const char *ptr, size_t len)
{
    const struct file_ident *id = &p->file->ident;
    if (p->pub.off > 0 || id->fp_len == 0 || p->file->is_gz)
        return true;
    return len >= id->fp_len && crc_update(0, ptr, id->fp_len) == id->fp_crc;
}

/* Not beyond the next pass, so that the two can go on as one. */
static size_t land(const struct pass *p, size_t len)
{
    for (const struct tail_pass *o = p->file->passes; o != NULL; o = o->next)
        if (o->off > p->pub.off && o->off - p->pub.off < len && !o->skip_to_newline &&
            o->off >= o->resume_until)
            len = (size_t)(o->off - p->pub.off);
    return len;
}

static void note_size(struct tail_file *f, uint64_t end, bool is_end)
{
    struct tail *t = f->t;
    if (end > f->size) {
        f->quiet_ns = f->read_ns = t->now;
        if (list_is_in(&f->ending))
            t->next_ending_ns = MIN(t->next_ending_ns, t->now + HELD_POLL_NS);
    }
    const bool is_longer = end > f->size;
    f->size = is_end ? end : MAX(end, f->size);
    if (is_longer)
        passes_unend(f);
    const bool was_at_end = f->gz_at_end;
    f->gz_at_end = is_end && f->is_gz && gz_is_whole(f->gz);
    if (f->gz_at_end && !was_at_end) /* once: it stays among the ending ones for as long as its half is lent */
        t->next_ending_ns = MIN(t->next_ending_ns, t->now); /* nobody will add to it */
}

/* What a pass wants next, after `used` of len bytes; the read was short: the file ends there. */
static void plan_next(struct pass *p, const char *ptr, size_t len, size_t used, bool is_short)
{
    bool has_line = used < len && memchr(ptr + used, '\n', len - used) != NULL;
    if (used > 0)
        p->want = TURN_BYTES;
    p->is_hungry = !is_short || has_line;
    if (used > 0 || !p->is_hungry)
        return;
    if (!is_short && len <= LINE_BYTES_MAX && !has_line) {
        p->want = len < LINE_BYTES_MAX / 2 ? p->want * 2 : READ_MAX;
        return;
    }
    p->is_hungry = false; /* the sink did not want them: not before long */
    tail_wake_at(p->file, p->file->t->now + RETRY_NS);
}

/* Once is enough where the end is known to be: a second call only to hear so would double what quiet files cost. Less
 * than is known to be there was cut off, or the call came short. */
static ssize_t read_raw(const struct tail_file *f, const struct pass *p, const struct source *src, size_t lead)
{
    char *raw = f->t->raw;
    uint64_t off = p->pub.off - lead, known = MAX(f->size, p->pub.off);
    size_t len = lead + p->want;
    ssize_t n = source_pread_some(src, raw, len, off);
    if (n < 0 || (size_t)n == len || off + (uint64_t)n >= known)
        return n;
    ssize_t more = source_pread(src, raw + n, len - (size_t)n, off + (uint64_t)n);
    return more < 0 ? more : n + more;
}

/* Not yet: what the lines are is not known. It is asked again by time, nothing else tells. */
static bool is_held(struct tail_file *f, struct pass *p)
{
    struct tail *t = f->t;
    int64_t wait_ns = t->sink.holds == NULL ? 0 : t->sink.holds(t->sink.ctx, f->sink_file);
    f->is_sink_held = wait_ns > 0;
    if (!f->is_sink_held)
        return false;
    p->is_hungry = false;
    tail_wake_at(f, t->now + wait_ns);
    return true;
}

static void read_pass(struct tail_file *f, struct pass *p)
{
    struct tail *t = f->t;
    struct source src;
    int r = passes_reserve(t);
    r = r < 0 ? r : source_of(f, &src);
    r = r < 0 ? r : file_ensure_sink(f);
    if (r == -ENOENT) {
        name_touch(t, file_real(f), NULL); /* whoever is there now is not this one */
        if (!f->is_deleted)
            file_lose_names(f);
        table_del(&t->by_ino, &f->by_ino);
        file_give_up(f, LOST_TRUNCATED);
        return;
    }
    if (r < 0) {
        stall(f, r);
        return;
    }
    if (f->is_sink_held && is_held(f, p)) /* it was looked at before: not read in vain again */
        return;
    size_t lead = f->is_gz || p->pub.off < p->pub.resume_until ? 0 : p->pub.tail_len;
    ssize_t n = read_raw(f, p, &src, lead);
    if (n == -EBADMSG) { /* a damaged .gz: what came before it is what there is */
        f->gz_at_end = true;
        f->size = p->pub.off;
        p->is_hungry = false;
        f->quiet_ns = t->now - GRACE_NS;
        log_warn("tail", "file.unreadable", "a compressed file is damaged; it is read up to there",
                 LOG_CSTR("path", f->path.path), LOG_NUM("offset", p->pub.off));
        return;
    }
    if (n < 0) {
        stall(f, (int)n);
        return;
    }
    bool is_empty = (size_t)n == lead; /* perhaps there is another text of the same length, with the same end */
    if ((size_t)n < lead || !is_tail_right(p, t->raw, lead) || !is_head_right(p, t->raw, (size_t)n) ||
        (n == 0 && p->pub.off < p->pub.resume_until) || f->is_cut || (is_empty && file_is_cut(f))) {
        rotate_truncated(f);
        return;
    }
    if (f->is_stalled) {
        f->is_stalled = f->is_warned = false;
        file_account(f);
    }
    if (f->is_blank && n > 0) {
        file_renew(f);
        return;
    }
    const char *ptr = t->raw + lead;
    size_t len = (size_t)n - lead;
    bool is_short = len < p->want;
    note_size(f, p->pub.off + len, is_short);
    if (len == 0) {
        p->is_hungry = false;
        return;
    }
    if (p->pub.off == 0 && ptr[0] == '\0') {
        (void)skip_nuls(f, p, &src); /* the lines behind come with the next turn */
        return;
    }
    file_see(f, p->pub.off, ptr, len);
    size_t landed = land(p, len), used;
    is_short = is_short && landed == len;
    if (is_held(f, p) || !feed(p, ptr, landed, false, &used))
        return;
    plan_next(p, ptr, landed, used, is_short);
}

static struct pass *hungry_pass(const struct tail_file *f)
{
    struct tail_pass *p = f->passes;
    while (p != NULL && !pass_of(p)->is_hungry)
        p = p->next;
    return p == NULL ? NULL : pass_of(p);
}

/* The pass that had its turn goes behind the others. */
static void rotate_passes(struct tail_file *f)
{
    struct tail_pass *first = f->passes;
    if (first == NULL || first->next == NULL)
        return;
    f->passes = first->next;
    struct tail_pass **end = &f->passes;
    while (*end != NULL)
        end = &(*end)->next;
    first->next = NULL;
    *end = first;
}

bool file_turn(struct tail_file *f)
{
    assert(f->is_tracked);
    if (!file_sniff(f))
        return false;
    struct pass *p = hungry_pass(f);
    if (p == NULL)
        return false;
    uint64_t incarnation = f->ident.incarnation;
    struct tail *t = f->t;
    read_pass(f, p);
    if (file_by_incarnation(t, incarnation) != f || !f->is_tracked || f->is_stalled)
        return false; /* given up, skipped, or to be tried later */
    f->n_turns += f->parked == NULL; /* what a blocked output brought to nothing is no stall */
    rotate_passes(f);
    passes_merge(f);
    file_account(f);
    file_rest(f);
    return (f->phase == PHASE_LIVE || f->phase == PHASE_ROTATED) && hungry_pass(f) != NULL;
}

/* ---- ends ---- */

/* What is left, the unterminated last line too. */
static void end_pass(struct tail_file *f, struct pass *p)
{
    struct tail *t = f->t;
    struct source src;
    if (passes_reserve(t) < 0 || source_of(f, &src) < 0 || file_ensure_sink(f) < 0)
        return; /* next time */
    if (is_held(f, p)) {
        p->is_hungry = true; /* what is left is read when it may be */
        return;
    }
    for (;;) {
        ssize_t n = source_pread(&src, t->raw, READ_MAX, p->pub.off);
        if (n == -EBADMSG && f->gz_at_end)
            n = 0;
        if (n < 0)
            return;
        if ((size_t)n == READ_MAX) {
            p->is_hungry = true; /* it goes on after all */
            file_ready(f);
            return;
        }
        size_t used;
        uint64_t end = p->pub.off + (uint64_t)n;
        if (!f->is_sniffed && n > 0 && t->raw[0] == '\0')
            pass_consume(p, t->raw, (size_t)n), n = 0; /* a hole that nothing followed */
        if (!feed(p, t->raw, (size_t)n, true, &used))
            return;
        if (used == 0 && n > 0)
            pass_consume(p, t->raw, used = (size_t)n);
        note_size(f, end, true);
        if (used == (size_t)n)
            break;
    }
    struct position_part parts[STREAMS_MAX];
    if (t->sink.parts(t->sink.ctx, &p->pub, parts) > 0)
        return; /* a record that goes on in the next file: looked at again */
    p->is_ended = true;
    p->is_hungry = false;
    p->pub.skip_to_newline = false;
    file_dirty(f, p->pub.mask);
}

/* What is unfinished here may go on in the next file, which is about to be read: an output that was stopped in both comes back to
 * both at once, and the grace of this one may be over for long. */
static bool is_next_due(const struct tail_file *f, const struct pass *p)
{
    struct position_part parts[STREAMS_MAX];
    if (f->successor == NULL || !list_is_in(&f->successor->ready) || pass_parts(p, parts) == 0)
        return false;
    for (const struct tail_pass *o = f->successor->passes; o != NULL; o = o->next)
        if ((o->mask & p->pub.mask) != 0 && o->off == 0)
            return true;
    return false;
}

/* What has the live name now may have come without an event, and the next rescan be far. So for what is unfinished here that name is
 * looked at once more, and this file ends after that look. */
static bool look_for_next(struct tail_file *f)
{
    struct position_part parts[STREAMS_MAX];
    bool has_parts = false;
    for (const struct tail_pass *p = f->passes; p != NULL; p = p->next)
        has_parts = has_parts || pass_parts((const struct pass *)(const void *)p, parts) > 0;
    if (!has_parts || f->is_next_sought || f->successor != NULL || file_by_path(f->t, file_base(f)) != NULL)
        return false;
    f->is_next_sought = true;
    name_touch(f->t, file_base(f), NULL);
    return true;
}

void file_check_end(struct tail_file *f)
{
    if (f->phase != PHASE_ROTATED || f->stage != STAGE_READING || !f->is_tracked || f->is_stalled)
        return;
    if ((f->t->now - f->quiet_ns < GRACE_NS && !f->gz_at_end) || look_for_next(f))
        return;
    for (struct tail_pass *p = f->passes, *next; p != NULL; p = next) {
        next = p->next;
        if (!pass_of(p)->is_hungry && !pass_of(p)->is_ended && !is_next_due(f, pass_of(p)))
            end_pass(f, pass_of(p));
    }
    passes_merge(f);
    file_account(f);
    stage_check(f);
}

/* Unfinished records of the passes are asked to look at the clock. */
void file_wake(struct tail_file *f)
{
    struct tail *t = f->t;
    f->wake_ns = 0;
    list_del(&f->waking);
    if (!f->is_tracked || f->sink_file == NULL)
        return;
    if (passes_reserve(t) < 0) {
        tail_wake_at(f, t->now + RETRY_NS); /* nobody else would flush what is unfinished */
        return;
    }
    for (struct tail_pass *p = f->passes, *next; p != NULL; p = next) {
        next = p->next;
        size_t used;
        if (p->state != NULL && !pass_of(p)->is_ended)
            (void)feed(pass_of(p), t->raw, 0, false, &used);
    }
    passes_merge(f);
    file_ready(f); /* lines that the sink did not want may be waiting, too */
}

static void give_up_pass(struct tail_file *f, struct pass *p, enum lost_reason reason)
{
    struct tail *t = f->t;
    if (p->pub.off < f->size && file_ensure_sink(f) == 0)
        t->sink.lost(t->sink.ctx, f->sink_file, p->pub.mask, p->pub.off, f->size, reason);
    p->pub.off = MAX(pass_end(&p->pub), f->size);
    p->pub.resume_until = 0;
    p->pub.n_parts = 0;
    p->pub.skip_to_newline = false;
    p->pub.tail_len = 0;
    p->head_unknown = p->is_ended = true;
    p->is_hungry = false;
    file_dirty(f, p->pub.mask);
}

void file_give_up(struct tail_file *f, enum lost_reason reason)
{
    struct tail *t = f->t;
    assert(f->is_tracked);
    if (f->is_let_go)
        reason = LOST_HELD_LIMIT;
    list_del(&f->ready);
    for (struct tail_pass *p = f->passes, *next; p != NULL; p = next) {
        next = p->next;
        size_t used;
        if (pass_of(p)->is_ended)
            continue;
        if (p->state != NULL && passes_reserve(t) == 0 && !feed(pass_of(p), t->raw, 0, true, &used))
            continue; /* its outputs are among the parked now */
        give_up_pass(f, pass_of(p), reason);
    }
    for (struct tail_pass *p = f->parked; p != NULL; p = p->next)
        give_up_pass(f, pass_of(p), reason);
    file_is_gone(f);
    file_account(f);
    stage_check(f);
}
