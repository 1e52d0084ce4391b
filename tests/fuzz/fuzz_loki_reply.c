/*
 * fuzz_loki_reply.c - any reply to a push. What its status alone decides is written down once more; whatever the body says, no
 * line is done that may not be there, and none is dead for a reason that passes by itself.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/model_reply.h"

static bool may_be(long status, enum verdict v, bool is_cut)
{
    (void)is_cut;
    switch (v) {
    case VERDICT_SENT:
        return status == 200 || status == 204;
    case VERDICT_ITEMS:
    case VERDICT_BISECT:
        return status == 400;
    case VERDICT_SPLIT:
        return status == 413 || status == 429 || status >= 500;
    case VERDICT_RETRY:
        return status < 200 || status == 408 || status == 425 || status == 429 || status == 499 || status >= 500;
    case VERDICT_HOLD:
        return status == 0 || (status >= 200 && status < 500);
    }
    return false;
}

int fuzz_loki_reply(const uint8_t *data, size_t size)
{
    static struct model_output m __attribute__((used)); /* whole: what is never read of it would look like a leak */
    struct model_reply r;
    if (m.out == NULL)
        model_output_make(&m, "type: loki, url: http://h:3100, labels: { service_name: \"{service}\", node: \"{node}\" }, metadata: { level: \"{level}\" }");
    if (!model_reply_take(slice_of(data, size), &r))
        return -1;
    model_judge(&m, &r);
    fuzz_check(may_be(r.reply.status, r.judgement.verdict, r.reply.is_cut), "status %ld is verdict %d", r.reply.status,
               (int)r.judgement.verdict);
    bool any_dead = false;
    for (uint32_t i = 0; r.judgement.verdict == VERDICT_ITEMS && i < r.n; i++) {
        fuzz_check(r.items[i] == ITEM_DONE || r.items[i] == ITEM_DEAD, "line %u: verdict %d", i, (int)r.items[i]);
        any_dead |= r.items[i] == ITEM_DEAD;
    }
    /* A 400 that names entries refused at least one of ours. */
    fuzz_check(r.judgement.verdict != VERDICT_ITEMS || any_dead, "refused, and nobody was");
    return 0;
}
