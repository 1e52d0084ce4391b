#include "agent/kube/events.h"

#include <errno.h>
#include <stdlib.h>
#include <yajl/yajl_parse.h>

#include "agent/base/arena.h"
#include "agent/base/buf.h"

/* Keys that mean something somewhere; what they mean is decided by the keys above them. */
enum key {
    KEY_OTHER, KEY_ITEM /* an element of an array */, KEY_TYPE, KEY_OBJECT, KEY_ITEMS, KEY_METADATA, KEY_NAME,
    KEY_NAMESPACE, KEY_UID, KEY_VERSION, KEY_CONTINUE, KEY_LABELS, KEY_ANNOTATIONS, KEY_OWNERS, KEY_KIND,
    KEY_CONTROLLER, KEY_SPEC, KEY_NODE, KEY_CONTAINERS, KEY_IMAGE, KEY_STATUS, KEY_PHASE, KEY_CODE, KEY_REASON,
    KEY_MESSAGE
};

static const struct {
    struct slice name;
    enum key key;
} known[] = {
    { SLICE_INIT("type"), KEY_TYPE },
    { SLICE_INIT("object"), KEY_OBJECT },
    { SLICE_INIT("items"), KEY_ITEMS },
    { SLICE_INIT("metadata"), KEY_METADATA },
    { SLICE_INIT("name"), KEY_NAME },
    { SLICE_INIT("namespace"), KEY_NAMESPACE },
    { SLICE_INIT("uid"), KEY_UID },
    { SLICE_INIT("resourceVersion"), KEY_VERSION },
    { SLICE_INIT("continue"), KEY_CONTINUE },
    { SLICE_INIT("labels"), KEY_LABELS },
    { SLICE_INIT("annotations"), KEY_ANNOTATIONS },
    { SLICE_INIT("ownerReferences"), KEY_OWNERS },
    { SLICE_INIT("kind"), KEY_KIND },
    { SLICE_INIT("controller"), KEY_CONTROLLER },
    { SLICE_INIT("spec"), KEY_SPEC },
    { SLICE_INIT("nodeName"), KEY_NODE },
    { SLICE_INIT("containers"), KEY_CONTAINERS },
    { SLICE_INIT("initContainers"), KEY_CONTAINERS },
    { SLICE_INIT("ephemeralContainers"), KEY_CONTAINERS },
    { SLICE_INIT("image"), KEY_IMAGE },
    { SLICE_INIT("status"), KEY_STATUS },
    { SLICE_INIT("phase"), KEY_PHASE },
    { SLICE_INIT("code"), KEY_CODE },
    { SLICE_INIT("reason"), KEY_REASON },
    { SLICE_INIT("message"), KEY_MESSAGE },
};

/* An object's parts stand no deeper than spec.containers[].image below it. */
#define KEYS_DEEP 8
/* So much is given to yajl at a time: the length of one string is watched by it. */
#define PIECE_BYTES (16 * KIB)

struct events {
    struct events_conf conf;
    yajl_handle handle;
    size_t silent_bytes; /* fed since yajl last said anything: the string in work */
    size_t depth;        /* of maps and arrays that are open */
    uint8_t keys[KEYS_DEEP];
    bool is_map[EVENT_DEPTH_MAX + 1];
    int error;

    struct arena arena; /* the object's */
    struct kube_object obj;
    struct pair labels[EVENT_PAIRS_MAX], annotations[EVENT_PAIRS_MAX], images[EVENT_PAIRS_MAX];
    struct slice wanted;                   /* the label or annotation whose value comes next */
    struct slice container, image;         /* of the container in work */
    struct slice owner_kind, owner_name;   /* of the owner in work */
    bool is_controller, has_controller;
    enum event_kind kind;
    bool is_unknown; /* of a type that is not one of ours */
    struct buf list_version, list_continue;
};

/* ---- where we are ---- */

/* How many keys lie above an object's own. */
static size_t base_of(const struct events *e)
{
    static const size_t base[] = { [EVENTS_WATCH] = 1, [EVENTS_LIST] = 2, [EVENTS_OBJECT] = 0 };
    return base[e->conf.form];
}

static bool is_in_object(const struct events *e)
{
    if (e->depth <= base_of(e))
        return false;
    return e->conf.form == EVENTS_OBJECT || (e->conf.form == EVENTS_WATCH && e->keys[0] == KEY_OBJECT) ||
           (e->keys[0] == KEY_ITEMS && e->keys[1] == KEY_ITEM);
}

/* The i-th key below the object, when there are n of them in all; KEY_OTHER else. */
static enum key key_at(const struct events *e, size_t n, size_t i)
{
    size_t base = base_of(e);
    return e->depth == base + n && base + i < KEYS_DEEP && is_in_object(e) ? (enum key)e->keys[base + i] : KEY_OTHER;
}

static bool is_at(const struct events *e, enum key a, enum key b)
{
    return key_at(e, 2, 0) == a && key_at(e, 2, 1) == b;
}

static bool is_at_item(const struct events *e, enum key a, enum key b, enum key c)
{
    return key_at(e, 4, 0) == a && key_at(e, 4, 1) == b && key_at(e, 4, 2) == KEY_ITEM && key_at(e, 4, 3) == c;
}

/* ---- keeping ---- */

/* Empty when the object has no more room. */
static struct slice keep(struct events *e, struct slice s)
{
    if (s.len > EVENT_VALUE_MAX)
        return SLICE("");
    struct slice copy = arena_copy(&e->arena, s);
    return copy.ptr == NULL ? SLICE("") : copy;
}

static void add_pair(struct pairs *to, struct pair *items, struct slice name, struct slice value)
{
    if (to->n == EVENT_PAIRS_MAX || name.len == 0)
        return;
    items[to->n++] = (struct pair){ name, value };
    to->items = items;
}

static void begin_object(struct events *e)
{
    arena_reset(&e->arena);
    e->obj = (struct kube_object){ 0 };
    e->has_controller = false;
    e->wanted = SLICE("");
}

static void take_owner(struct events *e)
{
    if (e->obj.owner_kind.len > 0 && (e->has_controller || !e->is_controller))
        return;
    e->obj.owner_kind = e->owner_kind;
    e->obj.owner_name = e->owner_name;
    e->has_controller = e->is_controller;
}

static void begin_item(struct events *e)
{
    e->container = e->image = e->owner_kind = e->owner_name = SLICE("");
    e->is_controller = false;
}

static void end_item(struct events *e)
{
    if (key_at(e, 3, 0) == KEY_METADATA && key_at(e, 3, 1) == KEY_OWNERS)
        take_owner(e);
    else if (key_at(e, 3, 0) == KEY_SPEC && key_at(e, 3, 1) == KEY_CONTAINERS)
        add_pair(&e->obj.images, e->images, e->container, e->image);
}

/* ---- values ---- */

static void take_type(struct events *e, struct slice s)
{
    e->is_unknown = false;
    if (slice_eq(s, SLICE("ADDED")) || slice_eq(s, SLICE("MODIFIED")))
        e->kind = EVENT_PUT;
    else if (slice_eq(s, SLICE("DELETED")))
        e->kind = EVENT_DELETED;
    else if (slice_eq(s, SLICE("BOOKMARK")))
        e->kind = EVENT_BOOKMARK;
    else if (slice_eq(s, SLICE("ERROR")))
        e->kind = EVENT_STATUS;
    else
        e->is_unknown = true;
}

static void take_labelled(struct events *e, struct slice s)
{
    bool is_annotation = e->keys[base_of(e) + 1] == KEY_ANNOTATIONS;
    if (is_annotation && slice_eq(e->wanted, SLICE("k8s.io/initial-events-end")))
        e->obj.is_initial_end = slice_eq(s, SLICE("true"));
    else if (s.len <= EVENT_VALUE_MAX && is_annotation)
        add_pair(&e->obj.annotations, e->annotations, e->wanted, keep(e, s));
    else if (s.len <= EVENT_VALUE_MAX)
        add_pair(&e->obj.labels, e->labels, e->wanted, keep(e, s));
    e->wanted = SLICE("");
}

static void take_metadata(struct events *e, struct slice s)
{
    struct kube_object *o = &e->obj;
    struct slice *to = is_at(e, KEY_METADATA, KEY_NAME)        ? &o->name
                       : is_at(e, KEY_METADATA, KEY_NAMESPACE) ? &o->namespace_
                       : is_at(e, KEY_METADATA, KEY_UID)       ? &o->uid
                       : is_at(e, KEY_METADATA, KEY_VERSION)   ? &o->version
                       : is_at(e, KEY_SPEC, KEY_NODE)          ? &o->node
                       : is_at(e, KEY_STATUS, KEY_PHASE)       ? &o->phase
                                                               : NULL;
    if (to != NULL)
        *to = keep(e, s);
}

static void take_item(struct events *e, struct slice s)
{
    struct slice *to = is_at_item(e, KEY_METADATA, KEY_OWNERS, KEY_KIND)     ? &e->owner_kind
                       : is_at_item(e, KEY_METADATA, KEY_OWNERS, KEY_NAME)   ? &e->owner_name
                       : is_at_item(e, KEY_SPEC, KEY_CONTAINERS, KEY_NAME)   ? &e->container
                       : is_at_item(e, KEY_SPEC, KEY_CONTAINERS, KEY_IMAGE)  ? &e->image
                                                                             : NULL;
    if (to != NULL)
        *to = keep(e, s);
}

static void take_status(struct events *e, struct slice s)
{
    if (key_at(e, 1, 0) == KEY_KIND && slice_eq(s, SLICE("Status")))
        e->kind = EVENT_STATUS;
    else if (key_at(e, 1, 0) == KEY_REASON)
        e->obj.reason = keep(e, s);
    else if (key_at(e, 1, 0) == KEY_MESSAGE)
        e->obj.message = keep(e, slice_first(s, EVENT_VALUE_MAX));
}

static void take_list(struct events *e, struct slice s)
{
    if (e->conf.form != EVENTS_LIST || e->depth != 2 || e->keys[0] != KEY_METADATA)
        return;
    struct buf *to = e->keys[1] == KEY_VERSION ? &e->list_version : e->keys[1] == KEY_CONTINUE ? &e->list_continue : NULL;
    if (to == NULL)
        return;
    buf_reset(to);
    if (buf_append_slice(to, s) < 0)
        e->error = s.len > to->max ? -EBADMSG : -ENOMEM;
}

static int on_string(void *ctx, const unsigned char *ptr, size_t len)
{
    struct events *e = ctx;
    struct slice s = slice_of(ptr, len);
    e->silent_bytes = 0;
    if (e->conf.form == EVENTS_WATCH && e->depth == 1 && e->keys[0] == KEY_TYPE) {
        take_type(e, s);
    } else if (!is_in_object(e)) {
        take_list(e, s);
    } else if (e->wanted.len > 0) {
        take_labelled(e, s);
    } else {
        take_metadata(e, s);
        take_item(e, s);
        take_status(e, s);
    }
    return e->error == 0;
}

static int on_number(void *ctx, const char *ptr, size_t len)
{
    struct events *e = ctx;
    int64_t n;
    e->silent_bytes = 0;
    if (key_at(e, 1, 0) == KEY_CODE && slice_to_i64(slice_of(ptr, len), &n))
        e->obj.code = n;
    return 1;
}

static int on_boolean(void *ctx, int value)
{
    struct events *e = ctx;
    e->silent_bytes = 0;
    if (is_at_item(e, KEY_METADATA, KEY_OWNERS, KEY_CONTROLLER))
        e->is_controller = value != 0;
    return 1;
}

static int on_null(void *ctx)
{
    struct events *e = ctx;
    e->silent_bytes = 0;
    e->wanted = SLICE("");
    return 1;
}

/* ---- structure ---- */

static int open_level(struct events *e, bool is_map)
{
    e->silent_bytes = 0;
    if (e->depth == EVENT_DEPTH_MAX) {
        e->error = -EBADMSG;
        return 0;
    }
    e->wanted = SLICE("");
    if (e->depth < KEYS_DEEP)
        e->keys[e->depth] = is_map ? KEY_OTHER : KEY_ITEM;
    e->is_map[e->depth++] = is_map;
    return 1;
}

static int on_map(void *ctx)
{
    struct events *e = ctx;
    bool is_first = e->depth == 0;
    if (!open_level(e, true))
        return 0;
    if (is_first && e->conf.form != EVENTS_LIST) {
        begin_object(e);
        e->kind = EVENT_PUT;
        e->is_unknown = e->conf.form == EVENTS_WATCH; /* until its type is read */
    } else if (e->conf.form == EVENTS_LIST && e->depth == 3) {
        begin_object(e);
    } else if (key_at(e, 4, 2) == KEY_ITEM) {
        begin_item(e);
    }
    return 1;
}

static int on_array(void *ctx)
{
    return open_level(ctx, false);
}

static int on_key(void *ctx, const unsigned char *ptr, size_t len)
{
    struct events *e = ctx;
    struct slice s = slice_of(ptr, len);
    e->silent_bytes = 0;
    e->wanted = SLICE("");
    if (e->depth > KEYS_DEEP)
        return 1;
    bool is_labels = key_at(e, 3, 0) == KEY_METADATA &&
                     (key_at(e, 3, 1) == KEY_LABELS || key_at(e, 3, 1) == KEY_ANNOTATIONS);
    e->keys[e->depth - 1] = KEY_OTHER;
    if (is_labels) {
        bool is_annotation = e->keys[base_of(e) + 1] == KEY_ANNOTATIONS;
        if (s.len <= EVENT_VALUE_MAX && (e->conf.keeps(e->conf.ctx, is_annotation, s) ||
                                         (is_annotation && slice_eq(s, SLICE("k8s.io/initial-events-end")))))
            e->wanted = keep(e, s);
        return 1;
    }
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (slice_eq(known[i].name, s))
            e->keys[e->depth - 1] = (uint8_t)known[i].key;
    return 1;
}

static void emit(struct events *e)
{
    if (!e->is_unknown && e->error == 0)
        e->error = e->conf.on_event(e->conf.ctx, e->kind, &e->obj);
}

static int close_level(struct events *e)
{
    e->silent_bytes = 0;
    e->depth--;
    if (e->depth > 0 && e->depth <= KEYS_DEEP && e->is_map[e->depth - 1])
        e->keys[e->depth - 1] = KEY_OTHER; /* that key's value is over */
    return e->error == 0;
}

static int on_map_end(void *ctx)
{
    struct events *e = ctx;
    bool is_list = e->conf.form == EVENTS_LIST;
    if (key_at(e, 4, 2) == KEY_ITEM) {
        e->depth--;
        end_item(e);
        e->depth++;
    }
    if (is_list && e->depth == 3 && is_in_object(e)) {
        e->kind = EVENT_PUT;
        emit(e);
    } else if (!is_list && e->depth == 1) {
        emit(e);
    }
    return close_level(e);
}

static int on_array_end(void *ctx)
{
    return close_level(ctx);
}

/* ---- life ---- */

int events_new(const struct events_conf *conf, struct events **ret_events)
{
    static const yajl_callbacks callbacks = { .yajl_null = on_null,
                                              .yajl_boolean = on_boolean,
                                              .yajl_number = on_number,
                                              .yajl_string = on_string,
                                              .yajl_start_map = on_map,
                                              .yajl_map_key = on_key,
                                              .yajl_end_map = on_map_end,
                                              .yajl_start_array = on_array,
                                              .yajl_end_array = on_array_end };
    struct events *e = calloc(1, sizeof(*e));
    if (e == NULL)
        return -ENOMEM;
    e->conf = *conf;
    arena_init(&e->arena, EVENT_KEPT_MAX);
    buf_init(&e->list_version, 256);
    buf_init(&e->list_continue, 64 * KIB);
    e->handle = yajl_alloc(&callbacks, NULL, e);
    if (e->handle == NULL) {
        events_free(e);
        return -ENOMEM;
    }
    (void)yajl_config(e->handle, yajl_allow_multiple_values, conf->form == EVENTS_WATCH);
    *ret_events = e;
    return 0;
}

void events_free(struct events *e)
{
    if (e == NULL)
        return;
    if (e->handle != NULL)
        yajl_free(e->handle);
    arena_deinit(&e->arena);
    buf_deinit(&e->list_version);
    buf_deinit(&e->list_continue);
    free(e);
}

int events_feed(struct events *e, struct slice bytes)
{
    while (e->error == 0 && bytes.len > 0) {
        struct slice piece = slice_first(bytes, PIECE_BYTES);
        bytes = slice_from(bytes, piece.len);
        e->silent_bytes += piece.len;
        if (e->silent_bytes > EVENT_STRING_MAX) /* yajl would keep it all */
            e->error = -EBADMSG;
        else if (yajl_parse(e->handle, (const unsigned char *)piece.ptr, piece.len) != yajl_status_ok && e->error == 0)
            e->error = -EBADMSG;
    }
    return e->error;
}

int events_end(struct events *e)
{
    if (e->error == 0 && (e->depth > 0 || yajl_complete_parse(e->handle) != yajl_status_ok) && e->error == 0)
        e->error = -EBADMSG;
    return e->error;
}

struct slice events_list_version(const struct events *e)
{
    return buf_slice(&e->list_version);
}

struct slice events_list_continue(const struct events *e)
{
    return buf_slice(&e->list_continue);
}
