/*
 * Elasticsearch's answers to _bulk. Decided by status; the words of the server only where the status is not enough
 * (type names differ from version to version).
 */
#include "outputs/es.h"

#include <stdio.h>
#include <stdlib.h>

#include <yajl/yajl_parse.h>

#include "agent/base/bug.h"

#define TYPE_MAX 64
#define REASON_MAX 256

/* ---- reading the reply ---- */

struct words {
    char type[TYPE_MAX];
    char reason[REASON_MAX];
};

struct reply_item {
    unsigned status; /* 0: none was there */
    struct words error;
};

/* What the innermost open object or array is. */
enum place { IN_NOTHING, IN_REPLY, IN_ERROR, IN_ITEMS, IN_ITEM, IN_ACTION, IN_ITEM_ERROR };
enum key { KEY_OTHER, KEY_ERRORS, KEY_ITEMS, KEY_ERROR, KEY_STATUS, KEY_TYPE, KEY_REASON };

struct scan {
    enum place place;
    enum key key;
    size_t skip_depth; /* open objects and arrays that we do not look at */
    bool is_done, is_foreign;
    bool has_errors, errors, has_items;
    size_t n_items;
    struct reply_item item;
    struct words error; /* of the whole request */
    void (*on_item)(void *ctx, size_t i, const struct reply_item *item);
    void *ctx;
};

/* The server's words for people: one line, cut between characters. */
static void copy_words(char *to, size_t size, struct slice s)
{
    struct slice t = slice_trim(s);
    size_t len = slice_utf8_valid(slice_first(t, size - 1));
    for (size_t i = 0; i < len; i++)
        to[i] = (unsigned char)t.ptr[i] < 0x20 || t.ptr[i] == 0x7f ? ' ' : t.ptr[i];
    to[len] = '\0';
}

static int open_place(struct scan *s, enum place place)
{
    if (place == IN_NOTHING) {
        s->skip_depth++;
        return 1;
    }
    s->place = place;
    s->key = KEY_OTHER;
    return 1;
}

static int on_start_map(void *ctx)
{
    struct scan *s = ctx;
    if (s->skip_depth > 0)
        return open_place(s, IN_NOTHING);
    switch (s->place) {
    case IN_NOTHING: return open_place(s, IN_REPLY);
    case IN_REPLY: return open_place(s, s->key == KEY_ERROR ? IN_ERROR : IN_NOTHING);
    case IN_ITEMS:
        s->item = (struct reply_item){ 0 };
        return open_place(s, IN_ITEM);
    case IN_ITEM: return open_place(s, IN_ACTION);
    case IN_ACTION: return open_place(s, s->key == KEY_ERROR ? IN_ITEM_ERROR : IN_NOTHING);
    case IN_ERROR:
    case IN_ITEM_ERROR: return open_place(s, IN_NOTHING);
    }
    return 0;
}

static int on_start_array(void *ctx)
{
    struct scan *s = ctx;
    bool is_items = s->skip_depth == 0 && s->place == IN_REPLY && s->key == KEY_ITEMS;
    s->has_items |= is_items;
    s->is_foreign |= s->skip_depth == 0 && (s->place == IN_NOTHING || s->place == IN_ITEMS);
    return open_place(s, is_items ? IN_ITEMS : IN_NOTHING);
}

static int on_end(void *ctx)
{
    struct scan *s = ctx;
    if (s->skip_depth > 0) {
        s->skip_depth--;
        s->is_done |= s->skip_depth == 0 && s->place == IN_NOTHING;
        return 1;
    }
    switch (s->place) {
    case IN_NOTHING: return 0;
    case IN_REPLY:
        s->place = IN_NOTHING;
        s->is_done = true;
        break;
    case IN_ERROR:
    case IN_ITEMS: s->place = IN_REPLY; break;
    case IN_ITEM:
        if (s->on_item != NULL)
            s->on_item(s->ctx, s->n_items, &s->item);
        s->n_items++;
        s->place = IN_ITEMS;
        break;
    case IN_ACTION: s->place = IN_ITEM; break;
    case IN_ITEM_ERROR: s->place = IN_ACTION; break;
    }
    s->key = KEY_OTHER;
    return 1;
}

static int on_key(void *ctx, const unsigned char *ptr, size_t len)
{
    static const struct {
        struct slice name;
        enum key key;
    } keys[] = {
        { SLICE_INIT("status"), KEY_STATUS }, { SLICE_INIT("error"), KEY_ERROR },   { SLICE_INIT("type"), KEY_TYPE },
        { SLICE_INIT("reason"), KEY_REASON }, { SLICE_INIT("errors"), KEY_ERRORS }, { SLICE_INIT("items"), KEY_ITEMS },
    };
    struct scan *s = ctx;
    if (s->skip_depth > 0)
        return 1;
    s->key = KEY_OTHER;
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        if (slice_eq(keys[i].name, slice_of(ptr, len)))
            s->key = keys[i].key;
    return 1;
}

/* A bare value where only objects can be: not the server we know. */
static void note_scalar(struct scan *s)
{
    s->is_foreign |= s->skip_depth == 0 && (s->place == IN_NOTHING || s->place == IN_ITEMS);
    s->is_done |= s->skip_depth == 0 && s->place == IN_NOTHING;
}

static int on_null(void *ctx)
{
    note_scalar(ctx);
    return 1;
}

static int on_boolean(void *ctx, int value)
{
    struct scan *s = ctx;
    note_scalar(s);
    if (s->skip_depth == 0 && s->place == IN_REPLY && s->key == KEY_ERRORS) {
        s->has_errors = true;
        s->errors = value != 0;
    }
    return 1;
}

static int on_number(void *ctx, const char *ptr, size_t len)
{
    struct scan *s = ctx;
    uint64_t v;
    note_scalar(s);
    if (s->skip_depth == 0 && s->place == IN_ACTION && s->key == KEY_STATUS && slice_to_u64(slice_of(ptr, len), &v) &&
        v <= 999)
        s->item.status = (unsigned)v;
    return 1;
}

static int on_string(void *ctx, const unsigned char *ptr, size_t len)
{
    struct scan *s = ctx;
    struct slice v = slice_of(ptr, len);
    note_scalar(s);
    if (s->skip_depth > 0)
        return 1;
    struct words *w = s->place == IN_ITEM_ERROR || s->place == IN_ACTION ? &s->item.error : &s->error;
    bool is_error = s->place == IN_ERROR || s->place == IN_ITEM_ERROR;
    /* 406 and some proxies say "error": "words". */
    bool is_bare = (s->place == IN_REPLY || s->place == IN_ACTION) && s->key == KEY_ERROR;
    if (is_error && s->key == KEY_TYPE)
        copy_words(w->type, sizeof(w->type), v);
    else if ((is_error && s->key == KEY_REASON) || is_bare)
        copy_words(w->reason, sizeof(w->reason), v);
    return 1;
}

enum scan_end { SCAN_WHOLE, SCAN_CUT, SCAN_BAD, SCAN_NO_MEMORY };

/* Reads body into s; on_item and ctx are set by the caller. Memory: yajl's own, bounded by the body's length. */
static enum scan_end scan_reply(struct slice body, struct scan *s)
{
    static const yajl_callbacks callbacks = { on_null, on_boolean, NULL,          NULL,           on_number, on_string,
                                              on_start_map, on_key, on_end, on_start_array, on_end };
    yajl_handle h = yajl_alloc(&callbacks, NULL, s);
    if (h == NULL)
        return SCAN_NO_MEMORY;
    (void)yajl_config(h, yajl_dont_validate_strings, 1);
    yajl_status status = yajl_parse(h, (const unsigned char *)body.ptr, body.len);
    yajl_free(h);
    if (status != yajl_status_ok)
        return SCAN_BAD;
    return s->is_done ? SCAN_WHOLE : SCAN_CUT;
}

/* ---- the whole request ---- */

static void say(struct judgement *ret, enum verdict verdict, const char *reason, struct slice text)
{
    ret->verdict = verdict;
    copy_words(ret->reason, sizeof(ret->reason), slice_cstr(reason));
    copy_words(ret->text, sizeof(ret->text), text);
}

/* "type: reason" of an error, for people. */
static void say_words(struct judgement *ret, const struct words *w)
{
    char text[TYPE_MAX + REASON_MAX + 2];
    int n = snprintf(text, sizeof(text), "%s%s%s", w->type, w->type[0] != '\0' && w->reason[0] != '\0' ? ": " : "",
                     w->reason);
    copy_words(ret->text, sizeof(ret->text), slice_of(text, (size_t)n));
}

static bool begins_like_json(struct slice body)
{
    struct slice t = slice_trim(body);
    return t.len > 0 && t.ptr[0] == '{';
}

static bool says_json(const struct http_reply *reply)
{
    return slice_find(reply->content_type, SLICE("json")) >= 0;
}

static void judge_failure(const struct http_reply *reply, struct judgement *ret)
{
    struct slice failure = slice_cstr(reply->failure);
    /* A certificate does not become right by trying often. */
    enum verdict v = slice_eq(failure, SLICE("tls")) ? VERDICT_HOLD : VERDICT_RETRY;
    say(ret, v, failure.len > 0 ? reply->failure : "no_reply", reply->failure_text);
}

static const struct status_row {
    long first, last;
    enum verdict verdict;
    const char *reason;
} status_rows[] = {
    { 201, 299, VERDICT_HOLD, "unexpected_status" }, { 300, 399, VERDICT_HOLD, "redirect" },
    { 400, 400, VERDICT_BISECT, "bad_request" },     { 401, 401, VERDICT_HOLD, "unauthorized" },
    { 403, 403, VERDICT_HOLD, "forbidden" },         { 404, 404, VERDICT_HOLD, "not_found" },
    { 405, 405, VERDICT_BISECT, "method" },          { 406, 406, VERDICT_BISECT, "content_type" },
    { 408, 408, VERDICT_RETRY, "timeout" },          { 413, 413, VERDICT_SPLIT, "too_large" },
    { 425, 425, VERDICT_RETRY, "too_early" },        { 429, 429, VERDICT_RETRY, "rate_limited" },
    { 400, 499, VERDICT_HOLD, "unexpected_status" }, { 501, 501, VERDICT_HOLD, "not_implemented" },
    { 500, 599, VERDICT_RETRY, "server_error" },
};

static void judge_status(const struct http_reply *reply, struct judgement *ret)
{
    struct scan s = { 0 };
    const struct status_row *row = NULL;
    for (size_t i = 0; i < ARRAY_LEN(status_rows) && row == NULL; i++)
        if (reply->status >= status_rows[i].first && reply->status <= status_rows[i].last)
            row = &status_rows[i];
    if (row == NULL) {
        say(ret, VERDICT_RETRY, "unexpected_status", reply->body);
        return;
    }
    say(ret, row->verdict, row->reason, reply->body);
    if (begins_like_json(reply->body)) {
        (void)scan_reply(reply->body, &s); /* also of half a body the words are worth having */
        if (s.error.type[0] != '\0' || s.error.reason[0] != '\0')
            say_words(ret, &s.error);
        /* Before 7.7 a disk over its flood stage said 403; it passes by itself. */
        if (reply->status == 403 && strstr(s.error.reason, "FORBIDDEN/12") != NULL)
            ret->verdict = VERDICT_RETRY;
    } else if (row->verdict == VERDICT_BISECT && reply->body.len > 0) {
        /* Elasticsearch refuses in JSON. A web page is from something else: no line of ours is to blame. */
        say(ret, VERDICT_HOLD, "not_elasticsearch", reply->body);
    }
}

static bool take(struct slice *s, struct slice word)
{
    if (!slice_starts(*s, word))
        return false;
    *s = slice_from(*s, word.len);
    return true;
}

/*
 * The items of a reply without a refusal, as servers write it when asked with our filter_path:
 * {"errors":false,"items":[{"create":{"status":201}},…]}. 0: it looks otherwise, and is to be read as JSON.
 * Nearly every reply is this one, and reading it by yajl took a twentieth of the CPU of this output.
 */
static size_t count_created(struct slice body)
{
    size_t n = 0;
    if (!take(&body, SLICE("{\"errors\":false,\"items\":[")))
        return 0;
    do {
        if (!take(&body, SLICE("{\"create\":{\"status\":201}}")))
            return 0;
        n++;
    } while (take(&body, SLICE(",")));
    return slice_eq(body, SLICE("]}")) ? n : 0;
}

/* Status 200: the items decide. */
static void judge_bulk(const struct http_reply *reply, struct judgement *ret)
{
    struct scan s = { 0 };
    if (reply->lines_sent > 0 && count_created(reply->body) == reply->lines_sent) {
        say(ret, VERDICT_SENT, "ok", SLICE(""));
        return;
    }
    if (!begins_like_json(reply->body)) {
        bool is_lost = slice_trim(reply->body).len == 0 && says_json(reply);
        say(ret, is_lost ? VERDICT_RETRY : VERDICT_HOLD, is_lost ? "cut_reply" : "not_elasticsearch", reply->body);
        return;
    }
    enum scan_end end = scan_reply(reply->body, &s);
    if (end == SCAN_NO_MEMORY)
        say(ret, VERDICT_RETRY, "no_memory", SLICE("no memory to read the reply"));
    else if (end == SCAN_BAD)
        say(ret, says_json(reply) ? VERDICT_RETRY : VERDICT_HOLD, "garbage_reply", reply->body);
    else if (end == SCAN_CUT && reply->is_cut && s.has_errors && s.n_items > 0)
        /* More refusals than we keep of a reply: those that we can read are settled, the rest is sent again. */
        say(ret, VERDICT_ITEMS, "cut_reply", reply->body);
    else if (end == SCAN_CUT && BUG(26))
        say(ret, VERDICT_SENT, "ok", SLICE(""));
    else if (end == SCAN_CUT)
        say(ret, VERDICT_RETRY, "cut_reply", reply->body);
    else if (s.is_foreign || !s.has_errors || !s.has_items)
        say(ret, VERDICT_HOLD, "not_elasticsearch", reply->body);
    else if (reply->lines_sent > 0 && s.n_items != reply->lines_sent)
        /* Elasticsearch 9 answers a cut gzip body with 200 and fewer items. */
        say(ret, VERDICT_RETRY, "item_count", SLICE("the reply has not as many items as lines were sent"));
    else if (s.errors || reply->lines_sent == 0)
        say(ret, VERDICT_ITEMS, "items", SLICE(""));
    else
        say(ret, VERDICT_SENT, "ok", SLICE(""));
}

void es_judge(struct output *out, const struct http_reply *reply, struct slice wire, struct judgement *ret)
{
    (void)out;
    (void)wire;
    ret->partly_stored = false;
    if (reply->status == 0)
        judge_failure(reply, ret);
    else if (reply->status == 200)
        judge_bulk(reply, ret);
    else
        judge_status(reply, ret);
}

/* ---- item by item ---- */

struct items_ctx {
    const struct es_settings *set;
    const struct items *items;
    struct judgement *ret;
    enum item_verdict worst;
};

/* Refusals with status 400 that an operator can lift; no document is to blame. */
static bool is_operators(const struct words *w)
{
    static const char *const reasons[] = { "this action would add", "maximum normal shards open",
                                           "maximum shards open", "no write index is defined" };
    if (strcmp(w->type, "index_closed_exception") == 0 || strcmp(w->type, "invalid_index_name_exception") == 0)
        return true;
    for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
        if (strstr(w->reason, reasons[i]) != NULL)
            return true;
    /* "pipeline with id [x] does not exist" */
    return strstr(w->reason, "pipeline with id") != NULL && strstr(w->reason, "does not exist") != NULL;
}

static enum item_verdict judge_item(const struct es_settings *set, const struct item *item, const struct reply_item *r)
{
    const char *type = r->error.type;
    unsigned st = r->status;
    if (st >= 200 && st <= 299)
        return ITEM_DONE;
    if (st == 409) /* our own _id is there already */
        return type[0] == '\0' || strstr(type, "version_conflict") != NULL ? ITEM_DONE : ITEM_RETRY;
    if (st == 401 || st == 404)
        return ITEM_HOLD;
    if (st == 403)
        return strstr(r->error.reason, "FORBIDDEN/12") != NULL ? ITEM_RETRY : ITEM_HOLD;
    if (BUG(27) && st == 429)
        return ITEM_DONE;
    if (st < 400 || st == 408 || st == 425 || st == 429)
        return ITEM_RETRY;
    if (st >= 500)
        return st == 501 ? ITEM_HOLD : ITEM_RETRY;
    if (is_operators(&r->error))
        return ITEM_HOLD;
    bool may_text = set->document.on_refused == ES_REFUSED_TEXT && !es_item_is_text(item);
    return may_text ? ITEM_TEXT : ITEM_DEAD;
}

/* A word for metrics from the server's type; the status when it gave none that is a word. */
static void reason_word(const struct reply_item *r, char to[64])
{
    size_t n = 0;
    for (; r->error.type[n] != '\0' && n < TYPE_MAX - 1; n++) {
        char c = r->error.type[n];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'))
            break;
        to[n] = c;
    }
    to[n] = '\0';
    if (n == 0 || r->error.type[n] != '\0')
        (void)snprintf(to, 64, "status_%u", r->status);
}

static void note_item(void *ctx, size_t i, const struct reply_item *r)
{
    struct items_ctx *c = ctx;
    if (i >= c->items->n)
        return;
    enum item_verdict v = judge_item(c->set, &c->items->item[i], r);
    c->ret->items[i] = v;
    char word[64] = "";
    if (v != ITEM_DONE)
        reason_word(r, word);
    if (c->ret->item_reasons != NULL)
        copy_words(c->ret->item_reasons[i], sizeof(c->ret->item_reasons[i]), slice_cstr(word));
    if (v > c->worst) { /* the enum goes from harmless to final */
        c->worst = v;
        copy_words(c->ret->reason, sizeof(c->ret->reason), slice_cstr(word));
        say_words(c->ret, &r->error);
    }
}

static void retry_all(const struct items *items, struct judgement *ret)
{
    for (size_t i = 0; i < items->n; i++) {
        ret->items[i] = ITEM_RETRY;
        if (ret->item_reasons != NULL)
            copy_words(ret->item_reasons[i], sizeof(ret->item_reasons[i]), SLICE("no_answer"));
    }
}

void es_judge_items(struct output *out, const struct http_reply *reply, const struct items *items,
                    struct judgement *ret)
{
    struct items_ctx c = { ((struct es *)out)->set, items, ret, ITEM_DONE };
    struct scan s = { .on_item = note_item, .ctx = &c };
    ret->verdict = VERDICT_ITEMS;
    ret->partly_stored = false;
    ret->reason[0] = ret->text[0] = '\0';
    retry_all(items, ret);
    enum scan_end end = scan_reply(reply->body, &s);
    bool is_complete = end == SCAN_WHOLE && s.n_items == items->n;
    bool is_prefix = end == SCAN_CUT && reply->is_cut && s.n_items <= items->n;
    if (!is_complete && !is_prefix) {
        retry_all(items, ret); /* which line an item is of cannot be told */
        say(ret, VERDICT_ITEMS, "item_count", SLICE("the reply has not as many items as lines were sent"));
    }
}
