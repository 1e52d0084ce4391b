/*
 * fuzz_frame.c - a raw line as CRI, Docker json-file or neither, beside a regular expression and jansson.
 *
 * Where the models may differ, and why:
 *   - Docker's own writer escapes no key and writes no blank but the space, so we take neither \u006cog nor a CR between
 *     members: then the line is plain;
 *   - what is no UTF-8 inside `log` is passed on as it is; jansson refuses it. A lone surrogate likewise.
 */
#include <jansson.h>

#include "parsers/parser.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/model_time.h"

static struct parser *parsers[4]; /* by enum frame_format */
static regex_t cri, rfc3339;

static void make_parsers(void)
{
    if (parsers[0] != NULL)
        return;
    for (unsigned f = FRAME_AUTO; f <= FRAME_DOCKER; f++) {
        struct parser_conf conf = { .frame = (enum frame_format)f, .text_only = true, .timezone = SLICE("UTC") };
        struct err err;
        fuzz_check(parser_new(&conf, &parsers[f], &err) == 0, "parser: %s", err.text);
    }
#define TIME "([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})([.,]([0-9]+))?(Z|z|[+-][0-9]{2}:?[0-9]{2})"
    model_regex(&cri, "^" TIME " (stdout|stderr) ([PF])(:[^ ]*)?( |$)");
    model_regex(&rfc3339, "^" TIME "$");
}

static bool time_of(struct slice s, const regmatch_t *g, int64_t *ret_ns)
{
    int64_t seconds, offset;
    if (!model_utc(s, g + 1, &seconds) || !model_offset(model_group(s, g[9]), &offset))
        return false;
    *ret_ns = (seconds - offset) * NS_PER_SEC + model_nanos(model_group(s, g[8]));
    return true;
}

static struct slice without_cr(struct slice s)
{
    return slice_ends(s, SLICE("\r")) ? slice_first(s, s.len - 1) : s;
}

static bool model_cri(struct slice line, struct framed *f)
{
    regmatch_t g[MODEL_GROUPS];
    *f = (struct framed){ .is_framed = true, .has_time = true };
    if (!model_matches(&cri, line, g) || !time_of(line, g, &f->time_ns))
        return false;
    f->stream = slice_eq(model_group(line, g[10]), SLICE("stdout")) ? STREAM_STDOUT : STREAM_STDERR;
    f->is_partial = slice_eq(model_group(line, g[11]), SLICE("P"));
    f->content = slice_from(line, (size_t)g[0].rm_eo);
    if (!f->is_partial)
        f->content = without_cr(f->content);
    return true;
}

static struct slice string_of(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return json_is_string(v) ? slice_of(json_string_value(v), json_string_length(v)) : slice_of(NULL, 0);
}

static bool is_docker(json_t *o)
{
    json_t *attrs = json_object_get(o, "attrs"), *v;
    const char *key;
    struct slice stream = string_of(o, "stream");
    if (!json_is_object(o) || string_of(o, "log").ptr == NULL || string_of(o, "time").ptr == NULL ||
        json_object_size(o) != 3u + (attrs != NULL) || (attrs != NULL && !json_is_object(attrs)))
        return false;
    json_object_foreach(attrs, key, v) {
        if (!json_is_string(v))
            return false;
    }
    return slice_eq(stream, SLICE("stdout")) || slice_eq(stream, SLICE("stderr"));
}

static void check_docker(struct slice line, const struct framed *f)
{
    json_error_t error;
    json_t *o = json_loadb(line.ptr, line.len, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &error);
    bool is_usual = slice_find(line, SLICE("\"log\"")) >= 0 && slice_find(line, SLICE("\"stream\"")) >= 0 &&
                    slice_find(line, SLICE("\"time\"")) >= 0 && slice_find_byte(line, '\r') < 0 &&
                    (json_object_get(o, "attrs") == NULL || slice_find(line, SLICE("\"attrs\"")) >= 0) &&
                    slice_find(slice_first(line, 12), SLICE("\\")) < 0;
    if (o != NULL && is_docker(o) && is_usual)
        fuzz_check(f->is_framed, "a line of Docker's was taken for plain");
    if (!f->is_framed || o == NULL) {
        json_decref(o);
        return; /* refused for its bytes or surrogates, or for attrs that hold a key twice */
    }
    fuzz_check(is_docker(o), "a line was taken for Docker's");
    struct slice log = string_of(o, "log"), time = string_of(o, "time");
    bool is_partial = !slice_ends(log, SLICE("\n"));
    fuzz_check(f->is_partial == is_partial, "partial");
    log = is_partial ? log : without_cr(slice_first(log, log.len - 1));
    fuzz_check(slice_eq(f->content, log), "'%.*s' instead of '%.*s'", SLICE_ARGS(f->content), SLICE_ARGS(log));
    fuzz_check((f->stream == STREAM_STDOUT) == slice_eq(string_of(o, "stream"), SLICE("stdout")), "stream");
    regmatch_t g[MODEL_GROUPS];
    int64_t ns = 0;
    bool has_time = slice_find_byte(time, '\\') < 0 && model_matches(&rfc3339, time, g) && time_of(time, g, &ns);
    if (slice_find(line, SLICE("\\u")) < 0) /* the time is not unescaped: Docker's never needs it */
        fuzz_check(f->has_time == has_time && (!has_time || f->time_ns == ns), "time");
    json_decref(o);
}

static bool same(const struct framed *a, const struct framed *b)
{
    return slice_eq(a->content, b->content) && a->stream == b->stream && a->is_framed == b->is_framed &&
           a->is_partial == b->is_partial && a->has_time == b->has_time && (!a->has_time || a->time_ns == b->time_ns);
}

static struct slice plain(struct slice line)
{
    return without_cr(slice_starts(line, SLICE("\xEF\xBB\xBF")) ? slice_from(line, 3) : line);
}

int fuzz_frame(const uint8_t *data, size_t size)
{
    make_parsers();
    struct slice in = slice_of(data, size), line = fuzz_take_until(&in, '\n');
    struct framed got[4], want;
    for (unsigned f = FRAME_AUTO; f <= FRAME_DOCKER; f++)
        parser_frame(parsers[f], line, 0, &got[f]);

    want = (struct framed){ .content = plain(line), .stream = STREAM_NONE };
    fuzz_check(same(&got[FRAME_PLAIN], &want), "plain");
    if (!got[FRAME_DOCKER].is_framed)
        fuzz_check(same(&got[FRAME_DOCKER], &want), "not Docker's, and not plain");
    if (!model_cri(line, &want))
        want = (struct framed){ .content = plain(line), .stream = STREAM_NONE };
    fuzz_check(same(&got[FRAME_CRI], &want), "CRI: framed %d, '%.*s' instead of %d, '%.*s'", got[FRAME_CRI].is_framed,
               SLICE_ARGS(got[FRAME_CRI].content), want.is_framed, SLICE_ARGS(want.content));
    check_docker(line, &got[FRAME_DOCKER]);
    fuzz_check(same(&got[FRAME_AUTO], slice_starts(line, SLICE("{")) ? &got[FRAME_DOCKER] : &got[FRAME_CRI]), "auto");
    return 0;
}
