/* model_reply.h - an output and lines of ours that a reply can speak of; what must hold of any judgement. */
#ifndef TAILRACE_TESTS_FUZZ_MODEL_REPLY_H
#define TAILRACE_TESTS_FUZZ_MODEL_REPLY_H

#include "agent/registry.h"
#include "conf/conf.h"
#include "tests/fuzz/fuzz.h"

#define REPLY_LINES_MAX 5
#define REPLY_NOW INT64_C(1767323045678901234)

struct model_output {
    struct conf *conf;
    struct output *out;
    struct buf wire[REPLY_LINES_MAX + 1]; /* bodies of 1..5 lines */
    struct items items[REPLY_LINES_MAX + 1];
};

/* Two services take turns, so that Loki has two streams; the third line is JSON that is no object of ours to change. */
static inline void model_output_make(struct model_output *m, const char *section)
{
    static const char *const lines[] = { "plain text", "{\"level\":\"info\",\"msg\":\"a\"}", "{\"a\":1}", "x", "{\"level\":30}" };
    static struct origin origins[2];
    struct buf yaml, errors;
    struct err err = { 0 };
    buf_init(&yaml, 64 * KIB);
    buf_init(&errors, 64 * KIB);
    fuzz_check(buf_printf(&yaml, "inputs: { i: { type: file, include: /x } }\noutputs: { o: { %s } }\n", section) == 0, "memory");
    if (conf_load_text("fuzz", buf_slice(&yaml), registry_types(), &m->conf, &errors) < 0)
        fuzz_fail("%.*s", SLICE_ARGS(buf_slice(&errors)));
    const struct output_ops *ops = registry_ops(m->conf->outputs[0].type);
    fuzz_check(ops->open(&m->conf->outputs[0], &m->out, &err) == 0, "%s", err.text);
    for (uint32_t n = 1; n <= REPLY_LINES_MAX; n++) {
        for (uint32_t i = 0; i < n; i++) {
            struct origin *o = &origins[i % 2];
            *o = (struct origin){ .id = 1 + i % 2, .service = i % 2 == 0 ? SLICE("web") : SLICE("api"), .node = SLICE("n") };
            struct record rec = { .origin = o, .incarnation = 7, .offset = 100 * i, .read_ns = REPLY_NOW, .line = slice_cstr(lines[i]),
                                  .kind = lines[i][0] == '{' ? RECORD_JSON : RECORD_TEXT, .level = LEVEL_INFO,
                                  .message = slice_cstr(lines[i]), .time_ns = REPLY_NOW + i * NS_PER_SEC, .tenant = SLICE("acme"),
                                  .tenant_id = 1, .flags = RECORD_HAS_TIME };
            struct append_result res = { 0 };
            fuzz_check(ops->append(m->out, &rec, &res) == 0 && res.body != NULL, "append");
        }
        struct body *b = m->out->open.first;
        bodies_take(&m->out->open, b);
        buf_init(&m->wire[n], MIB);
        fuzz_check(ops->seal(m->out, b, &m->wire[n]) == 0, "seal");
        fuzz_check(ops->items(m->out, buf_slice(&m->wire[n]), buf_slice(&b->route), &m->items[n]) == 0 && m->items[n].n == n, "items");
        ops->discard(m->out, b);
        body_free(b);
    }
    buf_deinit(&yaml);
    buf_deinit(&errors);
}

struct model_reply {
    struct http_reply reply;
    uint32_t n; /* lines that were sent */
    enum item_verdict items[REPLY_LINES_MAX];
    char reasons[REPLY_LINES_MAX][64];
    struct judgement judgement;
};

/* Lines, status (2 bytes), flags; the rest is the body. */
static inline bool model_reply_take(struct slice in, struct model_reply *ret)
{
    static const char *const failures[] = { NULL, "timeout", "tls", "reset" };
    if (in.len < 4)
        return false;
    *ret = (struct model_reply){ .n = 1 + fuzz_take_byte(&in) % REPLY_LINES_MAX };
    unsigned status = fuzz_take_byte(&in), flags;
    status = (status | fuzz_take_byte(&in) << 8) % 700;
    flags = fuzz_take_byte(&in);
    ret->reply = (struct http_reply){ .status = status, .is_cut = (flags & 1) != 0, .retry_after_ns = -1,
                                      .lines_sent = (flags & 2) != 0 ? ret->n : 0, .body = in };
    ret->reply.content_type = (flags & 4) != 0 ? SLICE("application/json") : (flags & 8) != 0 ? SLICE("text/html") : SLICE("");
    ret->reply.failure = status == 0 ? failures[flags >> 4 & 3] : NULL;
    ret->reply.failure_text = status == 0 ? in : SLICE("");
    return true;
}

static inline void model_check_words(const char *words, size_t size, bool must_be_there)
{
    size_t len = strnlen(words, size);
    fuzz_check(len < size && slice_utf8_valid(slice_of(words, len)) == len, "words without an end, or no UTF-8");
    for (size_t i = 0; i < len; i++)
        fuzz_check((unsigned char)words[i] >= 0x20 && words[i] != 0x7f, "a control byte");
    fuzz_check(len > 0 || !must_be_there, "no reason");
}

/* Judges as the sender does. */
static inline void model_judge(const struct model_output *m, struct model_reply *r)
{
    struct output *out = m->out;
    for (uint32_t i = 0; i < r->n; i++)
        r->items[i] = (enum item_verdict)99;
    r->judgement = (struct judgement){ .items = r->items, .item_reasons = r->reasons };
    out->ops->judge(out, &r->reply, buf_slice(&m->wire[r->n]), &r->judgement);
    bool asks = r->judgement.verdict == VERDICT_ITEMS;
    if (asks)
        out->ops->judge_items(out, &r->reply, &m->items[r->n], &r->judgement);
    fuzz_check(r->judgement.verdict <= VERDICT_HOLD, "verdict %d", (int)r->judgement.verdict);
    fuzz_check(asks == (r->judgement.verdict == VERDICT_ITEMS), "asked for lines, and then not");
    model_check_words(r->judgement.reason, sizeof(r->judgement.reason), false);
    model_check_words(r->judgement.text, sizeof(r->judgement.text), false);
    for (uint32_t i = 0; asks && i < r->n; i++) {
        fuzz_check(r->items[i] <= ITEM_DEAD, "line %u was not judged", i);
        model_check_words(r->reasons[i], sizeof(r->reasons[i]), r->items[i] == ITEM_DEAD);
    }
}

#endif
