/*
 * fuzz_es_reply.c - any reply to _bulk, beside jansson's reading of it.
 *
 * Where jansson may differ: it refuses what is no UTF-8, lone surrogates, numbers beyond a double and anything behind the object;
 * then only what holds of any judgement is checked. So is a reply that has a key twice.
 */
#include <jansson.h>

#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/model_reply.h"

static bool is_text(const struct item *item)
{
    return slice_starts(item->head, SLICE("{\"create\":{\"_id\""));
}

static bool says(const json_t *v, const char *words)
{
    return json_is_string(v) && strstr(json_string_value(v), words) != NULL;
}

/* By the table of the design; words only where a status has two meanings. */
static bool may_be(const struct item *item, json_t *action, enum item_verdict got)
{
    json_t *error = json_object_get(action, "error"), *type = json_object_get(error, "type"), *s = json_object_get(action, "status");
    double status = json_is_number(s) ? json_number_value(s) : 0;
    if (json_is_string(error) || status < 0 || status > 999 || status != (double)(unsigned)status)
        return true;
    if (status >= 200 && status <= 299)
        return got == ITEM_DONE;
    if (status == 409)
        return got == (type == NULL || says(type, "version_conflict") ? ITEM_DONE : ITEM_RETRY) || json_string_length(type) == 0 ||
               json_string_length(type) > 60;
    if (status == 401 || status == 404 || status == 501)
        return got == ITEM_HOLD;
    if (status == 403)
        return got == ITEM_HOLD || says(json_object_get(error, "reason"), "FORBIDDEN/12");
    if (status < 400 || status == 408 || status == 425 || status == 429 || status >= 500)
        return got == ITEM_RETRY;
    return got == ITEM_HOLD || got == (is_text(item) ? ITEM_DEAD : ITEM_TEXT);
}

static void check_items(const struct model_output *m, const struct model_reply *r, const json_t *items)
{
    for (uint32_t i = 0; i < r->n; i++) {
        json_t *item = json_array_get(items, i);
        void *it = json_object_iter(item);
        json_t *action = it == NULL ? NULL : json_object_iter_value(it);
        if (json_object_size(item) != 1 || !json_is_object(action))
            continue;
        fuzz_check(may_be(&m->items[r->n].item[i], action, r->items[i]), "item %u: verdict %d", i, (int)r->items[i]);
    }
}

static bool only_objects(const json_t *items)
{
    for (size_t i = 0; i < json_array_size(items); i++)
        if (!json_is_object(json_array_get(items, i)))
            return false;
    return true;
}

static void check_bulk(const struct model_output *m, const struct model_reply *r)
{
    enum verdict v = r->judgement.verdict;
    json_error_t error;
    json_t *reply = json_loadb(r->reply.body.ptr, r->reply.body.len, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &error);
    json_t *items = json_object_get(reply, "items"), *errors = json_object_get(reply, "errors");
    fuzz_check(v == VERDICT_SENT || v == VERDICT_ITEMS || v == VERDICT_RETRY || v == VERDICT_HOLD, "200 is verdict %d", (int)v);
    if (json_is_object(reply) && slice_find_byte(r->reply.body, '\0') < 0) { /* jansson loses a NUL behind a number */
        bool is_known = json_is_boolean(errors) && json_is_array(items) && only_objects(items);
        bool is_all = is_known && (r->reply.lines_sent == 0 || json_array_size(items) == r->reply.lines_sent);
        if (!is_known)
            fuzz_check(v == VERDICT_HOLD, "200 from something else is verdict %d", (int)v);
        else if (!is_all)
            fuzz_check(v == VERDICT_RETRY, "another number of items is verdict %d", (int)v);
        else if (json_is_false(errors) && r->reply.lines_sent > 0)
            fuzz_check(v == VERDICT_SENT, "all is well, and it is verdict %d", (int)v);
        else
            fuzz_check(v == VERDICT_ITEMS, "errors, and it is verdict %d", (int)v);
        if (v == VERDICT_ITEMS && json_array_size(items) == r->n)
            check_items(m, r, items);
    }
    json_decref(reply);
}

static bool may_be_status(long status, enum verdict v)
{
    switch (v) {
    case VERDICT_SENT:
    case VERDICT_ITEMS:
        return false; /* 200 alone */
    case VERDICT_BISECT:
        return status == 400 || status == 405 || status == 406;
    case VERDICT_SPLIT:
        return status == 413;
    case VERDICT_RETRY:
        return status < 200 || status == 403 || status == 408 || status == 425 || status == 429 || (status >= 500 && status != 501);
    case VERDICT_HOLD:
        return status == 0 || (status >= 200 && status <= 501);
    }
    return false;
}

int fuzz_es_reply(const uint8_t *data, size_t size)
{
    static struct model_output m __attribute__((used)); /* whole: what is never read of it would look like a leak */
    struct model_reply r;
    if (m.out == NULL)
        model_output_make(&m, "type: elasticsearch, url: http://h:9200");
    if (!model_reply_take(slice_of(data, size), &r))
        return -1;
    model_judge(&m, &r);
    if (r.reply.status == 200)
        check_bulk(&m, &r);
    else
        fuzz_check(may_be_status(r.reply.status, r.judgement.verdict), "status %ld is verdict %d", r.reply.status,
                   (int)r.judgement.verdict);
    for (uint32_t i = 0; r.judgement.verdict == VERDICT_ITEMS && i < r.n; i++)
        fuzz_check(r.items[i] != ITEM_TEXT || !is_text(&m.items[r.n].item[i]), "a text as text once more");
    return 0;
}
