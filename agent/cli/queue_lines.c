/*
 * `tailrace queue cat`, `export` and `dead ls`: frames and their lines, decoded by the output itself.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/cli/queue_cmd.h"
#include "agent/registry.h"
#include "outputs/output.h"

#define LINES_MAX (64 * MIB)

struct walk {
    const struct queue_cmd *cmd;
    struct output *output;   /* to decode with */
    unsigned places;
    bool with_heads, with_lines, is_json;
    uint64_t undecoded;
    struct buf text, lines;
};

static void print_head(const struct queue_frame *f, const struct frame_meta *m)
{
    struct buf when;
    buf_init(&when, 64);
    if (clock_append_rfc3339(&when, f->head.built_ns, 3) < 0)
        buf_reset(&when);
    printf("# seq %llu, %s, route '%.*s', %u lines, %u bytes, built %.*s, in %s", (unsigned long long)f->head.seq,
           queue_place_name(f->place), SLICE_ARGS(m->route), f->head.lines, f->head.body_len,
           SLICE_ARGS(buf_slice(&when)), f->file);
    if (f->place == QUEUE_PLACE_DEAD)
        printf(", letter %llu:%llu", (unsigned long long)f->head.segment_id, (unsigned long long)f->head.seq);
    if (m->orig.seq != 0)
        printf(", status %d, reason %.*s: %.*s", m->orig.status, SLICE_ARGS(m->orig.reason), SLICE_ARGS(m->orig.text));
    printf("%s\n", f->is_whole ? "" : " (damaged)");
    buf_deinit(&when);
}

/* One JSON object a line -> the members of an array. */
static int put_entries(struct buf *out, struct slice lines)
{
    int r = buf_append_lit(out, ",\"entries\":[");
    for (bool is_first = true; r == 0 && lines.len > 0; is_first = false) {
        ptrdiff_t lf = slice_find_byte(lines, '\n');
        size_t len = lf < 0 ? lines.len : (size_t)lf;
        if (!is_first)
            r = buf_append_byte(out, ',');
        if (r == 0)
            r = buf_append_slice(out, slice_first(lines, len));
        lines = slice_from(lines, MIN(len + 1, lines.len));
    }
    return r < 0 ? r : buf_append_byte(out, ']');
}

static int decode(struct walk *w, const struct queue_frame *f, const struct frame_meta *m)
{
    struct items items = { 0 };
    buf_reset(&w->lines);
    if (!f->is_whole)
        return -EBADMSG;
    int r = w->output->ops->items(w->output, f->body, m->route, &items);
    if (r == 0)
        r = w->output->ops->print(w->output, &items, &w->lines);
    items_deinit(&items);
    return r;
}

static int print_json(struct walk *w, const struct queue_frame *f, bool is_decoded)
{
    buf_reset(&w->text);
    int r = queue_frame_json(f, &w->text);
    if (r == 0 && w->with_lines && is_decoded)
        r = put_entries(&w->text, buf_slice(&w->lines));
    return r < 0 ? r : buf_append_lit(&w->text, "}\n");
}

static int each_frame(void *ctx, const struct queue_frame *f)
{
    struct walk *w = ctx;
    struct frame_meta m = { 0 };
    if ((w->places & (1u << f->place)) == 0 || (f->fate != LETTER_OPEN && !w->cmd->is_all))
        return 0;
    int r = frame_meta_parse(f->meta, NULL, 0, &m);
    r = r == -ENOBUFS ? 0 : r;
    if (r == 0 && w->cmd->reason != NULL && !slice_eq(m.orig.reason, slice_cstr(w->cmd->reason)))
        return 0;
    int decoded = r < 0 ? r : !w->with_lines ? 0 : decode(w, f, &m);
    if (r < 0 || decoded < 0)
        w->undecoded++; /* the other frames are good all the same */
    if (r < 0)
        return 0;
    struct slice out = decoded == 0 ? buf_slice(&w->lines) : SLICE("");
    if (w->is_json) {
        r = print_json(w, f, decoded == 0);
        out = buf_slice(&w->text);
    } else if (w->with_heads) {
        print_head(f, &m);
    }
    if (r < 0)
        return r;
    return fwrite(out.ptr, 1, out.len, stdout) == out.len ? 0 : -EIO;
}

static int print_frames(struct walk *w)
{
    char dir[4096];
    struct err err = { 0 };
    int i = queue_cmd_output(w->cmd);
    if (i < 0)
        return EXIT_MISUSE;
    struct output_conf *oc = &w->cmd->conf->outputs[i];
    int r = queue_cmd_dir(w->cmd->conf, oc->name, dir, sizeof(dir));
    buf_init(&w->text, 2 * LINES_MAX);
    buf_init(&w->lines, LINES_MAX);
    if (r == 0)
        r = registry_ops(oc->type)->open(oc, &w->output, &err);
    if (r == 0)
        r = queue_inspect_each_frame(dir, each_frame, w, &err);
    if (r < 0)
        fprintf(stderr, "tailrace queue: %s\n", err.text[0] != '\0' ? err.text : strerrordesc_np(-r));
    if (w->undecoded > 0)
        fprintf(stderr, "tailrace queue: %llu frames could not be read\n", (unsigned long long)w->undecoded);
    if (w->output != NULL)
        w->output->ops->close(w->output);
    buf_deinit(&w->text);
    buf_deinit(&w->lines);
    return r < 0 || w->undecoded > 0 ? EXIT_FAILED : EXIT_FINE;
}

int queue_cmd_cat(const struct queue_cmd *cmd)
{
    struct walk w = { .cmd = cmd, .places = cmd->places, .with_heads = true, .with_lines = true,
                      .is_json = cmd->is_json };
    return print_frames(&w);
}

int queue_cmd_export(const struct queue_cmd *cmd)
{
    struct walk w = { .cmd = cmd, .places = 1u << QUEUE_PLACE_QUEUED | 1u << QUEUE_PLACE_PARKED, .with_lines = true };
    return print_frames(&w);
}

int queue_cmd_dead_ls(const struct queue_cmd *cmd)
{
    struct walk w = { .cmd = cmd, .places = 1u << QUEUE_PLACE_DEAD, .with_heads = true, .is_json = cmd->is_json };
    return print_frames(&w);
}
