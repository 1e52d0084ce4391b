/*
 * The file output: JSON lines into files named by a template with the day of arrival. A body is gzip on its way through
 * the queue; deliver() appends its lines. file_store.c does the writing, file_keep.c compresses and deletes.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "outputs/codec/gzip.h"
#include "outputs/file_archive.h"
#include "outputs/file_chain.h"
#include "outputs/file_store.h"
#include "outputs/ndjson.h"
#include "outputs/output.h"

#define DAY_NS (86400 * NS_PER_SEC)
/* What stays allocated between deliveries. */
#define KEPT_BYTES (1 * MIB)

struct file_settings {
    struct template *path;
    bool compress, chain;
    struct slice mode, dir_mode; /* octal */
    struct {
        int64_t days;
        uint64_t bytes;
    } retain;
};

struct file_out {
    struct output base; /* first */
    const struct file_settings *set;
    struct file_shape shape;
    /* reader */
    struct enricher *enrich;
    struct buf rendered, path; /* of the record at hand */
    bool path_is_cached;       /* it depends on nothing but what the next three say */
    bool has_cached;
    uint64_t cached_origin;
    uint32_t cached_tenant;
    int64_t cached_unit, cache_unit_ns;
    /* writer */
    struct gzip *gzip;
    /* sender */
    struct gzip *sender_gzip;
    struct buf lines;
    struct file_store *store;
};

/* ---- settings ---- */

static const struct setting retain_settings[] = {
    { .key = "days", .type = SETTING_INT, .offset = offsetof(struct file_settings, retain.days), .def = "0", .min = 0,
      .max = 36500, .help = "Files last written longer ago are deleted; 0 keeps them." },
    { .key = "bytes", .type = SETTING_SIZE, .offset = offsetof(struct file_settings, retain.bytes), .def = "0",
      .help = "The oldest files are deleted until all together are smaller; 0 means no limit." },
    SETTING_END,
};

static const struct setting settings[] = {
    { .key = "path", .type = SETTING_TEMPLATE, .offset = offsetof(struct file_settings, path), .is_required = true,
      .help = "Where lines go: a template with the UTC day of arrival, such as /var/lib/tailrace/archive/{tenant}/%Y-%m-%d.ndjson." },
    { .key = "compress", .type = SETTING_BOOL, .offset = offsetof(struct file_settings, compress), .def = "true",
      .help = "A file whose day is over becomes NAME.gz." },
    { .key = "chain", .type = SETTING_BOOL, .offset = offsetof(struct file_settings, chain), .def = "false",
      .help = "A line with a hash behind each block of lines, so that what was removed or changed shows: tailrace archive verify." },
    { .key = "mode", .type = SETTING_STRING, .offset = offsetof(struct file_settings, mode), .def = "0640",
      .help = "Permissions of files, octal." },
    { .key = "dir_mode", .type = SETTING_STRING, .offset = offsetof(struct file_settings, dir_mode), .def = "0750",
      .help = "Permissions of folders that are made, octal." },
    { .key = "retain", .type = SETTING_SECTION, .section = retain_settings, .help = "What is deleted, and when." },
    SETTING_END,
};

static int parse_mode(struct slice text, const char *key, mode_t needed, mode_t *ret_mode, struct err *err)
{
    mode_t mode = 0;
    bool is_good = text.len >= 3 && text.len <= 4;
    for (size_t i = 0; i < text.len && is_good; i++) {
        is_good = text.ptr[i] >= '0' && text.ptr[i] <= '7';
        mode = mode * 8 + (mode_t)(text.ptr[i] - '0');
    }
    if (!is_good || mode > 0777 || (mode & needed) != needed)
        return err_say(err, -EINVAL, "%s: expected octal permissions that let the owner write, such as %s", key,
                       needed == 0600 ? "0640" : "0750");
    *ret_mode = mode;
    return 0;
}

static int validate(struct output_conf *conf, void (*warn)(void *ctx, const char *text), void *ctx, struct err *err)
{
    const struct file_settings *set = conf->settings;
    struct file_shape shape;
    mode_t mode;
    int r = file_shape_parse(template_text(set->path), &shape, err);
    if (r == 0)
        r = parse_mode(set->mode, "mode", 0600, &mode, err);
    if (r == 0)
        r = parse_mode(set->dir_mode, "dir_mode", 0700, &mode, err);
    if (r < 0)
        return r;
    bool has_day = shape.period >= FILE_PERIOD_DAY;
    if ((set->retain.days > 0 || set->retain.bytes > 0) && !has_day)
        return err_say(err, -EINVAL, "retain: expected a path with a date down to the day (%%Y %%m %%d), so that files are "
                                     "known as ours");
    if (set->compress && shape.period == FILE_PERIOD_EVER)
        warn(ctx, "compress: the path has no date, so its files are never closed and never compressed");
    return 0;
}

static int own_files(const void *settings_of, struct buf *glob)
{
    const struct file_settings *set = settings_of;
    struct file_shape shape;
    int r = file_shape_parse(template_text(set->path), &shape, NULL);
    return r < 0 ? r : file_shape_glob_all(&shape, glob);
}

int archive_conf_of(const struct output_conf *conf, struct archive_conf *ret, struct err *err)
{
    if (strcmp(conf->type->name, "file") != 0) /* the registry has rows of its own */
        return err_say(err, -EINVAL, "output %.*s is of type %s, not file", SLICE_ARGS(conf->name), conf->type->name);
    const struct file_settings *set = conf->settings;
    *ret = (struct archive_conf){ .chain = set->chain, .retain_ns = set->retain.days * DAY_NS,
                                  .retain_bytes = set->retain.bytes };
    return file_shape_parse(template_text(set->path), &ret->shape, err);
}

const struct output_type file_type = {
    .name = "file",
    .settings = settings,
    .settings_size = sizeof(struct file_settings),
    .validate = validate,
    .own_files = own_files,
};

/* ---- open and close ---- */

static void close_output(struct output *out)
{
    struct file_out *f = (struct file_out *)out;
    if (f == NULL)
        return;
    file_store_close(f->store);
    bodies_deinit(&f->base.open);
    enricher_free(f->enrich);
    gzip_free(f->gzip);
    gzip_free(f->sender_gzip);
    buf_deinit(&f->rendered);
    buf_deinit(&f->path);
    buf_deinit(&f->lines);
    free(f);
}

static bool uses_record(const struct template *t)
{
    static const enum var_kind kinds[] = { VAR_STREAM, VAR_LEVEL, VAR_MODULE, VAR_MESSAGE, VAR_RECORD,
                                           VAR_RECORD_TENANT };
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (template_uses(t, kinds[i]))
            return true;
    return false;
}

static int open_parts(struct file_out *f, const struct output_conf *conf)
{
    buf_init(&f->rendered, 2 * TEMPLATE_OUT_MAX);
    buf_init(&f->path, PATH_MAX);
    buf_init(&f->lines, NDJSON_DECODED_MAX + CHAIN_LINK_MAX);
    int r = bodies_init(&f->base.open, (size_t)conf->queue.batch_bytes + NDJSON_LINE_MAX);
    if (r == 0)
        r = enricher_new(ENRICH_PLAIN, ndjson_extra_names, ARRAY_LEN(ndjson_extra_names), &f->enrich);
    if (r == 0)
        r = gzip_new(GZIP_LEVEL_FAST, &f->gzip);
    return r < 0 ? r : gzip_new(GZIP_LEVEL_FAST, &f->sender_gzip);
}

static int open_store(struct file_out *f, const struct output_conf *conf, struct err *err)
{
    struct file_store_conf sc = { .shape = &f->shape, .compress = f->set->compress, .chain = f->set->chain,
                                  .retain_ns = f->set->retain.days * DAY_NS, .retain_bytes = f->set->retain.bytes };
    struct buf folder;
    buf_init(&folder, PATH_MAX);
    int r = file_shape_parse(template_text(f->set->path), &f->shape, err);
    if (r == 0)
        r = parse_mode(f->set->mode, "mode", 0600, &sc.mode, err);
    if (r == 0)
        r = parse_mode(f->set->dir_mode, "dir_mode", 0700, &sc.dir_mode, err);
    if (r == 0)
        r = buf_printf(&folder, "%.*s/queue/%.*s", SLICE_ARGS(conf->state_dir), SLICE_ARGS(conf->name));
    sc.state_dir = buf_slice(&folder);
    if (r == 0)
        r = file_store_open(&sc, &f->store, err);
    buf_deinit(&folder);
    return r;
}

static int open_output(const struct output_conf *conf, struct output **ret_out, struct err *err)
{
    struct file_out *f = calloc(1, sizeof(*f));
    if (f == NULL)
        return err_set(err, -ENOMEM, "cannot open output %.*s", SLICE_ARGS(conf->name));
    f->base.ops = &file_ops;
    f->base.conf = conf;
    f->set = conf->settings;
    int r = open_parts(f, conf);
    if (r < 0)
        (void)err_set(err, r, "cannot open output %.*s", SLICE_ARGS(conf->name));
    else
        r = open_store(f, conf, err);
    if (r < 0) {
        close_output(&f->base);
        return r;
    }
    f->path_is_cached = !uses_record(f->set->path);
    f->cache_unit_ns = f->shape.period > FILE_PERIOD_DAY ? NS_PER_SEC : DAY_NS;
    *ret_out = &f->base;
    return 0;
}

static const struct slice *trusted(const struct output *out, size_t *n)
{
    return enricher_names(((const struct file_out *)out)->enrich, n);
}

/* ---- reader ---- */

/* Afterwards f->path is the record's. Dates are those of its arrival: a file is over when its day is. */
static int find_path(struct file_out *f, const struct record *rec)
{
    int64_t unit = rec->read_ns / f->cache_unit_ns;
    if (f->has_cached && f->cached_origin == rec->origin->id && f->cached_tenant == rec->tenant_id &&
        f->cached_unit == unit)
        return 0;
    struct record arrived = *rec;
    arrived.time_ns = rec->read_ns;
    f->has_cached = false;
    buf_reset(&f->rendered);
    buf_reset(&f->path);
    int r = template_eval(f->set->path, &arrived, &f->rendered);
    if (r == 0)
        r = file_path_clean(&f->shape, buf_slice(&f->rendered), &f->path);
    if (r < 0)
        return r;
    f->has_cached = f->path_is_cached;
    f->cached_origin = rec->origin->id;
    f->cached_tenant = rec->tenant_id;
    f->cached_unit = unit;
    return 0;
}

static int append(struct output *out, const struct record *rec, struct append_result *ret)
{
    struct file_out *f = (struct file_out *)out;
    int r = find_path(f, rec);
    if (r < 0)
        return r;
    if (bodies_hold(&out->open, buf_slice(&f->path), rec)) {
        *ret = (struct append_result){ .is_filtered = true };
        return 0;
    }
    struct body *b = bodies_get(&out->open, buf_slice(&f->path));
    if (b == NULL)
        return -ENOMEM;
    size_t before = b->raw.len;
    uint32_t altered = 0;
    r = ndjson_append(f->enrich, rec, b->lines == 0, &b->raw, &altered);
    if (r == 0)
        r = body_count(b, rec);
    if (r < 0) {
        b->raw.len = before;
        return r;
    }
    b->raw_bytes += b->raw.len - before;
    out->open.raw_bytes += b->raw.len - before;
    *ret = (struct append_result){ .body = b, .altered = altered };
    return 0;
}

static void discard(struct output *out, struct body *b)
{
    (void)out;
    (void)b; /* no parts: all is in raw */
}

static int explain(struct output *out, const struct record *rec, struct buf *text)
{
    struct file_out *f = (struct file_out *)out;
    uint32_t altered = 0;
    int r = find_path(f, rec);
    if (r == 0)
        r = buf_printf(text, "file %.*s\n", SLICE_ARGS(buf_slice(&f->path)));
    return r < 0 ? r : ndjson_append(f->enrich, rec, true, text, &altered);
}

/* ---- writer ---- */

static int seal(struct output *out, struct body *b, struct buf *wire)
{
    int r = body_end_runs(b);
    return r < 0 ? r : gzip_compress(((struct file_out *)out)->gzip, buf_slice(&b->raw), SLICE(""), wire);
}

static void file_rest(struct output *out)
{
    gzip_rest(((struct file_out *)out)->gzip);
}

/* ---- sender ---- */

static int items(const struct output *out, struct slice wire, struct slice route, struct items *ret)
{
    (void)out;
    struct items it = { 0 };
    buf_init(&it.raw, NDJSON_DECODED_MAX);
    int r = gzip_decompress(wire, &it.raw);
    if (r == 0)
        r = ndjson_split(route, &it);
    if (r < 0) {
        items_deinit(&it);
        return r;
    }
    *ret = it;
    return 0;
}

static int build(struct output *out, const struct items *items_, const uint8_t *choose, bool as_text, struct buf *wire)
{
    (void)as_text; /* a file refuses nothing */
    struct buf raw;
    buf_init(&raw, NDJSON_DECODED_MAX);
    int r = ndjson_join(items_, choose, &raw);
    if (r == 0)
        r = gzip_compress(((struct file_out *)out)->sender_gzip, buf_slice(&raw), SLICE(""), wire);
    buf_deinit(&raw);
    return r;
}

static int print(const struct output *out, const struct items *items_, struct buf *ndjson)
{
    (void)out;
    return ndjson_join(items_, NULL, ndjson);
}

static int deliver(struct output *out, const struct frame_ref *frame, struct err *err)
{
    struct file_out *f = (struct file_out *)out;
    buf_reset(&f->lines);
    int r = gzip_decompress(frame->wire, &f->lines);
    if (r < 0)
        return err_set(err, r, "cannot decode a body for %.*s", SLICE_ARGS(frame->route));
    r = file_store_write(f->store, frame->seq, frame->route, &f->lines, err);
    buf_reset(&f->lines);
    buf_shrink(&f->lines, KEPT_BYTES);
    return r;
}

static int checkpoint(struct output *out, uint64_t seq, struct err *err)
{
    return file_store_sync(((struct file_out *)out)->store, seq, err);
}

static uint64_t delivered(const struct output *out)
{
    return file_store_seq(((const struct file_out *)out)->store);
}

const struct output_ops file_ops = {
    .type = &file_type,
    .wire_form = WIRE_NDJSON_GZIP,
    .is_local = true,
    .open = open_output,
    .close = close_output,
    .trusted = trusted,
    .append = append,
    .discard = discard,
    .explain = explain,
    .seal = seal,
    .rest = file_rest,
    .items = items,
    .build = build,
    .deliver = deliver,
    .checkpoint = checkpoint,
    .delivered = delivered,
    .print = print,
};
