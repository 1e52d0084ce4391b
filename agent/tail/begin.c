/* Files that are begun: from where, and what is not read at all. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "agent/base/clock.h"
#include "agent/queue/fs.h"
#include "agent/tail/internal.h"

int file_set_captures(struct tail_file *f, const struct pair *caps, size_t n)
{
    size_t bytes = n * sizeof(*caps);
    for (size_t i = 0; i < n; i++)
        bytes += caps[i].name.len + caps[i].value.len;
    if (n == 0)
        return 0;
    struct pair *block = malloc(bytes);
    if (block == NULL)
        return -ENOMEM;
    char *text = (char *)(block + n);
    for (size_t i = 0; i < n; i++) {
        memcpy(text, caps[i].name.ptr, caps[i].name.len);
        block[i].name = slice_of(text, caps[i].name.len);
        text += caps[i].name.len;
        memcpy(text, caps[i].value.ptr, caps[i].value.len);
        block[i].value = slice_of(text, caps[i].value.len);
        text += caps[i].value.len;
    }
    free(f->captures);
    f->captures = block;
    f->n_captures = (uint32_t)n;
    return 0;
}

/* Where a file that was there when its input first started begins. */
static uint64_t first_offset(const struct tail *t, const struct tail_file *f)
{
    const struct conf_input *in = &t->conf->inputs[f->input];
    if (!t->is_first_scan || !t->inputs[f->input].is_first)
        return 0;
    switch (in->read_from) {
    case READ_FROM_BEGINNING:
        return 0;
    case READ_FROM_END:
        return f->size;
    case READ_FROM_AGE:
        return f->mtime_ns < clock_wall_ns() - in->read_from_ns ? f->size : 0;
    case READ_FROM_TIME:
        return f->mtime_ns < in->read_from_ns ? f->size : 0;
    }
    return 0;
}

/* A place in the middle: its fingerprint, the bytes before it, and whether it is inside a line. */
static int begin_inside(struct tail_file *f)
{
    struct pass *p = pass_of(f->passes);
    struct source src;
    char head[FINGERPRINT_BYTES];
    int r = source_of(f, &src);
    if (r < 0)
        return r;
    uint64_t off = p->pub.off;
    uint16_t len = (uint16_t)MIN(off, TAIL_CRC_BYTES);
    ssize_t n = source_pread(&src, head, (size_t)MIN(off, sizeof(head)), 0);
    ssize_t m = source_pread(&src, p->pub.tail_bytes, len, off - len);
    if (n < 0 || m != len)
        return n < 0 ? (int)n : -EIO;
    f->ident.fp_len = (uint32_t)n;
    f->ident.fp_crc = crc_update(0, head, (size_t)n);
    p->pub.tail_len = len;
    p->pub.skip_to_newline = p->pub.tail_bytes[len - 1] != '\n';
    for (size_t o = 0; o < f->t->n_outputs; o++)
        f->slots[o].first_skip = p->pub.skip_to_newline;
    p->head_unknown = true;
    return 0;
}

void file_start(struct tail_file *f, uint64_t off)
{
    enum phase phase = f->phase;
    if (f->size > 0 && !file_sniff(f))
        return;
    if (f->phase != PHASE_LIVE && f->phase != PHASE_ROTATED)
        phase = PHASE_LIVE;
    f->is_warned = false;
    f->reason = NULL;
    if (file_track(f, off) < 0 || (off > 0 && begin_inside(f) < 0)) {
        file_untrack(f);
        file_skip(f, PHASE_UNREADABLE, "file.unreadable",
                  "a file cannot be read; it is tried again every 10 s");
        return;
    }
    file_set_phase(f, phase);
    file_ready(f);
}

static void set_stat(struct tail_file *f, const struct stat *st)
{
    f->size = (uint64_t)st->st_size;
    f->mtime_ns = timespec_ns(st->st_mtim);
}

struct tail_file *file_begin(struct tail *t, const struct new_file *nf)
{
    struct tail_file *f = file_new(t, nf->input, nf->path);
    if (f == NULL || file_set_captures(f, nf->caps, nf->n_caps) < 0) {
        if (f != NULL)
            file_free(f);
        (void)fs_current()->close(nf->fd); /* only read from */
        discover_again(t, nf->path);
        return NULL;
    }
    file_set_path(f, nf->path, nf->real);
    if (nf->base != NULL)
        file_set_base(f, nf->base, nf->origin);
    set_stat(f, nf->st);
    f->born_mtime_ns = f->mtime_ns;
    f->is_gz = nf->is_gz;
    f->phase = nf->phase;
    file_take_fd(f, nf->fd);
    struct file_ident id = { 0 };
    ident_of_fd(nf->fd, nf->st, &id);
    file_set_ino(f, &id);
    f->left_ns = nf->left_ns;
    f->ident.first_seen_ns = nf->first_seen_ns > 0 ? nf->first_seen_ns : ident_seen_now(&t->seen_ns);
    int64_t older = t->conf->inputs[f->input].ignore_older_ns;
    if (nf->phase == PHASE_LIVE && older > 0 && f->mtime_ns < clock_wall_ns() - older) {
        f->start_off = first_offset(t, f);
        file_skip(f, PHASE_SKIPPED, "file.skipped", "older than ignore_older; read when it changes");
        return f;
    }
    t->has_new_names |= nf->phase == PHASE_LIVE && !chain_is_known(t, nf->path);
    file_start(f, nf->phase == PHASE_LIVE ? first_offset(t, f) : 0);
    return f;
}

void file_begin_unread(struct tail *t, uint32_t input, const char *path, const struct stat *st, enum phase phase,
                       const char *event, const char *reason)
{
    struct tail_file *f = file_new(t, input, path);
    if (f == NULL) {
        discover_again(t, path);
        return;
    }
    struct file_ident id = { .dev = st->st_dev, .ino = st->st_ino };
    file_set_ino(f, &id);
    set_stat(f, st);
    file_skip(f, phase, event, reason);
}

void file_retry(struct tail_file *f)
{
    struct tail *t = f->t;
    struct stat st;
    if (f->is_tracked)
        return;
    if (f->phase == PHASE_UNREADABLE) {
        int fd = open_regular(t, file_real(f), &st);
        if (fd < 0)
            return;
        (void)fs_current()->close(fd); /* it is opened again as a new file */
        name_touch(t, f->path.path, NULL);
        file_free(f);
        return;
    }
    if (f->phase != PHASE_SKIPPED || fs_current()->stat(AT_FDCWD, file_real(f), &st, true) < 0)
        return;
    bool is_shorter = (uint64_t)st.st_size < f->size, is_newer = timespec_ns(st.st_mtim) != f->mtime_ns;
    int64_t older = t->conf->inputs[f->input].ignore_older_ns;
    bool was_old = older > 0 && f->mtime_ns < clock_wall_ns() - older;
    set_stat(f, &st);
    if (is_shorter) {
        name_touch(t, f->path.path, NULL);
        file_free(f);
    } else if (is_newer && was_old && S_ISREG(st.st_mode)) {
        f->phase = PHASE_LIVE;
        file_start(f, f->start_off);
    }
}
