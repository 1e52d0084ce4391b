/*
 * fuzz_kube.c - any bytes as what the Kubernetes API says. The first byte chooses the form and the size of the pieces. All
 * pieces give what the whole gives; of a single object, what jansson finds in the same text is what was kept.
 */
#include <errno.h>
#include <jansson.h>

#include "agent/base/buf.h"
#include "agent/kube/events.h"
#include "agent/kube/podtable.h"
#include "tests/fuzz/fuzz.h"

struct taken {
    struct buf text; /* all that was kept, one after the other */
    unsigned n;
    json_t *second; /* the same text by another reader, or NULL */
};

static bool keeps(void *ctx, bool is_annotation, struct slice name)
{
    (void)ctx;
    return is_annotation ? slice_starts(name, SLICE("tailrace.io/")) : name.len > 0;
}

static void add(struct buf *b, struct slice s)
{
    fuzz_check(buf_append_slice(b, s) == 0 && buf_append_byte(b, '\n') == 0, "out of memory");
}

static void add_pairs(struct buf *b, struct pairs p)
{
    fuzz_check(p.n <= EVENT_PAIRS_MAX, "%zu pairs", p.n);
    for (size_t i = 0; i < p.n; i++) {
        add(b, p.items[i].name);
        add(b, p.items[i].value);
    }
}

static void compare(struct slice ours, const json_t *map, const char *key)
{
    const json_t *theirs = json_object_get(map, key);
    size_t len = json_is_string(theirs) ? json_string_length(theirs) : 0;
    if (len <= EVENT_VALUE_MAX)
        fuzz_check(slice_eq(ours, slice_of(len == 0 ? "" : json_string_value(theirs), len)), "%s is \"%.*s\"", key,
                   SLICE_ARGS(ours));
}

static void compare_object(const struct kube_object *o, const json_t *root)
{
    const json_t *meta = json_object_get(root, "metadata"), *spec = json_object_get(root, "spec");
    const json_t *labels = json_object_get(meta, "labels");
    compare(o->name, meta, "name");
    compare(o->namespace_, meta, "namespace");
    compare(o->uid, meta, "uid");
    compare(o->version, meta, "resourceVersion");
    compare(o->node, spec, "nodeName");
    for (size_t i = 0; i < o->labels.n; i++) {
        char *name = slice_dup(o->labels.items[i].name);
        fuzz_check(name != NULL, "out of memory");
        compare(o->labels.items[i].value, labels, name);
        free(name);
    }
}

static int on_event(void *ctx, enum event_kind kind, const struct kube_object *o)
{
    struct taken *t = ctx;
    const struct slice texts[] = { o->namespace_, o->name, o->uid, o->version, o->node, o->phase, o->owner_kind,
                                   o->owner_name, o->reason, o->message };
    fuzz_check(buf_printf(&t->text, "%d %lld\n", (int)kind, (long long)o->code) == 0, "out of memory");
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        add(&t->text, texts[i]);
    add_pairs(&t->text, o->labels);
    add_pairs(&t->text, o->annotations);
    add_pairs(&t->text, o->images);
    if (t->second != NULL)
        compare_object(o, t->second);
    struct pod *p = pod_new(o);
    fuzz_check(p != NULL && p->labels.n == o->labels.n, "the pod is another");
    pod_unref(p);
    t->n++;
    return 0;
}

static int take(enum event_form form, struct slice in, size_t piece, struct taken *t)
{
    const struct events_conf conf = { .form = form, .ctx = t, .keeps = keeps, .on_event = on_event };
    struct events *e;
    int r = 0;
    buf_init(&t->text, 64 * MIB);
    fuzz_check(events_new(&conf, &e) == 0, "out of memory");
    for (size_t at = 0; r == 0 && at < in.len; at += piece)
        r = events_feed(e, slice_first(slice_from(in, at), piece));
    r = r < 0 ? r : events_end(e);
    events_free(e);
    return r;
}

int fuzz_kube(const uint8_t *data, size_t size)
{
    struct slice in = slice_of(data, size);
    unsigned choice = fuzz_take_byte(&in);
    enum event_form form = (enum event_form)(choice % 3);
    struct taken whole = { 0 }, pieces = { 0 };
    json_error_t why;
    if (form == EVENTS_OBJECT)
        whole.second = json_loadb(in.ptr == NULL ? "" : in.ptr, in.len, JSON_REJECT_DUPLICATES, &why);
    int r = take(form, in, in.len + 1, &whole), again = take(form, in, 1 + choice / 3, &pieces);
    fuzz_check(r == 0 || r == -EBADMSG, "it says %d", r);
    fuzz_check(r == again && whole.n == pieces.n && slice_eq(buf_slice(&whole.text), buf_slice(&pieces.text)),
               "%u objects (%d), in pieces %u (%d)", whole.n, r, pieces.n, again);
    buf_deinit(&whole.text);
    buf_deinit(&pieces.text);
    json_decref(whole.second);
    return 0;
}
