#include "parsers/parser.h"

#include <errno.h>
#include <stdlib.h>

#include "parsers/cri.h"
#include "parsers/docker.h"
#include "parsers/json_record.h"
#include "parsers/text.h"
#include "parsers/zone.h"

#define SCRATCH_KEEP (64 * KIB)

struct parser {
    enum frame_format frame;
    bool text_only;
    size_t n_wanted;
    struct zone *zone;
    struct json_record *json;  /* NULL when text_only */
    struct buf frame_scratch;  /* decoded content of a Docker line, until the next parser_frame */
    struct buf text_scratch;   /* decoded strings of a logfmt line, until the next parser_record */
};

int parser_new(const struct parser_conf *conf, struct parser **ret_parser, struct err *err)
{
    struct parser *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return err_set(err, -ENOMEM, "cannot make a parser");
    p->frame = conf->frame;
    p->text_only = conf->text_only;
    p->n_wanted = conf->wanted == NULL ? 0 : conf->wanted->n;
    /* What is decoded is never longer than its line, and lines are bounded by their reader. */
    buf_init(&p->frame_scratch, SIZE_MAX / 4);
    buf_init(&p->text_scratch, SIZE_MAX / 4);
    int r = zone_load(conf->timezone, &p->zone, err);
    if (r < 0) {
        parser_free(p);
        return r;
    }
    if (!conf->text_only)
        r = json_record_new(conf, &p->json);
    if (r == 0)
        r = buf_reserve(&p->frame_scratch, SCRATCH_KEEP);
    if (r == 0)
        r = buf_reserve(&p->text_scratch, SCRATCH_KEEP);
    if (r < 0) {
        parser_free(p);
        return err_set(err, r, "cannot make a parser");
    }
    *ret_parser = p;
    return 0;
}

void parser_free(struct parser *p)
{
    if (p == NULL)
        return;
    json_record_free(p->json);
    zone_free(p->zone);
    buf_deinit(&p->frame_scratch);
    buf_deinit(&p->text_scratch);
    free(p);
}

/* ---- frame -------------------------------------------------------------------------------------------------------- */

/* One huge line must not cost its memory for ever. */
static void give_back(struct buf *scratch)
{
    buf_reset(scratch);
    if (scratch->cap > 4 * SCRATCH_KEEP)
        buf_shrink(scratch, SCRATCH_KEEP);
}

/* The line as it is, without a trailing CR, and without the byte order mark that some editors begin a file with. */
static struct slice plain_content(struct slice line)
{
    if (slice_starts(line, SLICE("\xEF\xBB\xBF")))
        line = slice_from(line, 3);
    if (line.len > 0 && line.ptr[line.len - 1] == '\r')
        line.len--;
    return line;
}

static bool read_frame(struct parser *p, struct slice line, struct framed *ret_framed)
{
    bool is_object = line.len > 0 && line.ptr[0] == '{';
    switch (p->frame) {
    case FRAME_PLAIN:
        return false;
    case FRAME_CRI:
        return cri_read(line, ret_framed);
    case FRAME_DOCKER:
        return docker_read(line, &p->frame_scratch, ret_framed);
    case FRAME_AUTO:
        return is_object ? docker_read(line, &p->frame_scratch, ret_framed) : cri_read(line, ret_framed);
    }
    return false;
}

void parser_frame(struct parser *p, struct slice line, int64_t now_ns, struct framed *ret_framed)
{
    (void)now_ns; /* the times of both frames have a year and an offset */
    give_back(&p->frame_scratch);
    if (!read_frame(p, line, ret_framed))
        *ret_framed = (struct framed){ .content = plain_content(line), .stream = STREAM_NONE };
}

/* ---- record ------------------------------------------------------------------------------------------------------- */

static enum parse_result read_text(struct parser *p, const struct timestamp_env *env, struct record *rec,
                                   parser_is_out_fn *is_out, void *ctx)
{
    struct text text;
    rec->kind = RECORD_TEXT;
    text_read(env, rec->line, &p->text_scratch, &text);
    rec->level = text.level;
    rec->module = text.module;
    rec->message = text.message;
    if (text.has_time) {
        rec->time_ns = text.time_ns;
        rec->flags |= RECORD_HAS_TIME;
    }
    return is_out != NULL && is_out(ctx, rec) ? PARSE_OUT : PARSE_OK;
}

/* Broken JSON: the whole line is the message, and nothing in it is believed. */
static enum parse_result read_broken(struct record *rec, parser_is_out_fn *is_out, void *ctx)
{
    rec->kind = RECORD_TEXT;
    rec->flags |= RECORD_BAD_JSON;
    return is_out != NULL && is_out(ctx, rec) ? PARSE_OUT : PARSE_OK;
}

enum parse_result parser_record(struct parser *p, struct record *rec, parser_is_out_fn *is_out, void *ctx)
{
    const struct timestamp_env env = { .zone = p->zone, .now_ns = rec->read_ns };
    give_back(&p->text_scratch);
    record_clear(rec, p->n_wanted);

    enum parse_result result;
    if (p->json == NULL || !json_is_likely(rec->line)) {
        result = read_text(p, &env, rec, is_out, ctx);
    } else {
        rec->kind = RECORD_JSON;
        enum json_result json = json_record_read(p->json, &env, rec, is_out, ctx);
        if (json == JSON_STOPPED)
            return PARSE_OUT;
        result = PARSE_OK;
        if (json == JSON_BAD) {
            record_clear(rec, p->n_wanted);
            result = read_broken(rec, is_out, ctx);
        }
    }
    if ((rec->flags & RECORD_HAS_TIME) == 0)
        rec->time_ns = rec->read_ns;
    return result;
}
