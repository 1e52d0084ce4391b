/* The names that templates and matches can read, and where their values come from. Part of template.h. */
#include "agent/base/template.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/base/suggest.h"

/* ---- wanted keys
 * ------------------------------------------------------------------------------------------------- */

int wanted_keys_add(struct wanted_keys *w, struct slice path)
{
    for (size_t i = 0; i < w->n; i++)
        if (slice_eq(w->paths[i], path))
            return (int)i;
    if (w->n == WANTED_KEYS_MAX)
        return -ENOSPC;
    char *copy = slice_dup(path);
    if (copy == NULL)
        return -ENOMEM;
    w->paths[w->n] = slice_of(copy, path.len);
    return (int)w->n++;
}

void wanted_keys_deinit(struct wanted_keys *w)
{
    for (size_t i = 0; i < w->n; i++)
        free((void *)(uintptr_t)w->paths[i].ptr);
    w->n = 0;
}

/* ---- names
 * ------------------------------------------------------------------------------------------------------- */

static const struct {
    struct slice name;
    enum var_kind kind;
} plain_names[] = {
    { SLICE_INIT("input"), VAR_INPUT },
    { SLICE_INIT("file"), VAR_FILE },
    { SLICE_INIT("file_stem"), VAR_FILE_STEM },
    { SLICE_INIT("host"), VAR_HOST },
    { SLICE_INIT("node"), VAR_NODE },
    { SLICE_INIT("cluster"), VAR_CLUSTER },
    { SLICE_INIT("pod"), VAR_POD },
    { SLICE_INIT("uid"), VAR_UID },
    { SLICE_INIT("namespace"), VAR_NAMESPACE },
    { SLICE_INIT("container"), VAR_CONTAINER },
    { SLICE_INIT("workload"), VAR_WORKLOAD },
    { SLICE_INIT("workload_kind"), VAR_WORKLOAD_KIND },
    { SLICE_INIT("image"), VAR_IMAGE },
    { SLICE_INIT("service"), VAR_SERVICE },
    { SLICE_INIT("stream"), VAR_STREAM },
    { SLICE_INIT("tenant"), VAR_TENANT },
    { SLICE_INIT("level"), VAR_LEVEL },
    { SLICE_INIT("module"), VAR_MODULE },
    { SLICE_INIT("message"), VAR_MESSAGE },
};

/* These take a name behind a dot. */
static const struct {
    struct slice name;
    enum var_kind kind;
} prefixes[] = {
    { SLICE_INIT("path"), VAR_PATH },
    { SLICE_INIT("record"), VAR_RECORD },
    { SLICE_INIT("field"), VAR_FIELD },
    { SLICE_INIT("label"), VAR_LABEL },
    { SLICE_INIT("annotation"), VAR_ANNOTATION },
    { SLICE_INIT("namespace_label"), VAR_NAMESPACE_LABEL },
};

#define ALL_NAMES                                                                                            \
    "input, file, file_stem, host, node, cluster, pod, uid, namespace, container, workload, "                \
    "workload_kind, image, service, stream, "                                                                                               \
    "tenant, level, module, message, path.NAME, record.KEY, field.KEY, label.KEY, annotation.KEY, "          \
    "namespace_label.KEY"

static int unknown_name(struct slice name, struct err *err)
{
    struct suggestion s;
    ptrdiff_t dot = slice_find_byte(name, '.');
    suggest_init(&s, dot < 0 ? name : slice_first(name, (size_t)dot));
    if (dot < 0)
        for (size_t i = 0; i < ARRAY_LEN(plain_names); i++)
            suggest_offer(&s, plain_names[i].name);
    for (size_t i = 0; i < ARRAY_LEN(prefixes); i++)
        suggest_offer(&s, prefixes[i].name);
    if (s.best.len == 0)
        return err_say(err, -EINVAL, "unknown name \"%.*s\"; expected one of " ALL_NAMES, SLICE_ARGS(name));

    struct slice rest = dot < 0 ? slice_cstr("") : slice_from(name, (size_t)dot);
    return err_say(err, -EINVAL, "unknown name \"%.*s\"; did you mean \"%.*s%.*s\"?", SLICE_ARGS(name),
                   SLICE_ARGS(s.best), SLICE_ARGS(rest));
}

static int record_key(struct slice key, struct wanted_keys *w, struct var *ret_var, struct err *err)
{
    if (slice_eq(key, SLICE("tenant"))) { /* by the input's tenant keys, whatever the logger calls it */
        *ret_var = (struct var){ .kind = VAR_RECORD_TENANT, .key = key };
        return 0;
    }
    if (w == NULL)
        return err_say(err, -EINVAL, "\"record.%.*s\" changes from record to record and cannot be used here",
                       SLICE_ARGS(key));
    int r = wanted_keys_add(w, key);
    if (r == -ENOSPC)
        return err_say(err, -EINVAL,
                       "\"record.%.*s\" is one key too many: at most %d different ones in a configuration",
                       SLICE_ARGS(key), WANTED_KEYS_MAX);
    if (r < 0)
        return err_set(err, r, "cannot keep the name \"record.%.*s\"", SLICE_ARGS(key));
    *ret_var = (struct var){ .kind = VAR_RECORD, .key = key, .value_index = (uint32_t)r };
    return 0;
}

/* {field.pod} is {pod}: a field of that name sets the trusted one. Other fields are the user's own. */
static enum var_kind field_kind(struct slice key)
{
    for (size_t i = 0; i < ARRAY_LEN(plain_names); i++)
        if (plain_names[i].kind >= VAR_HOST && plain_names[i].kind <= VAR_SERVICE &&
            slice_eq(key, plain_names[i].name))
            return plain_names[i].kind;
    return VAR_FIELD;
}

int var_parse(struct slice name, struct wanted_keys *w, struct var *ret_var, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(plain_names); i++) {
        if (slice_eq(name, plain_names[i].name)) {
            *ret_var = (struct var){ .kind = plain_names[i].kind };
            return 0;
        }
    }
    ptrdiff_t dot = slice_find_byte(name, '.');
    struct slice prefix = dot < 0 ? name : slice_first(name, (size_t)dot);
    for (size_t i = 0; i < ARRAY_LEN(prefixes); i++) {
        if (!slice_eq(prefix, prefixes[i].name))
            continue;
        struct slice key = slice_from(name, prefix.len + 1);
        if (key.len == 0)
            return err_say(err, -EINVAL, "\"%.*s\" needs a name behind a dot, such as \"%.*s.name\"",
                           SLICE_ARGS(name), SLICE_ARGS(prefix));
        if (prefixes[i].kind == VAR_RECORD)
            return record_key(key, w, ret_var, err);
        enum var_kind kind = prefixes[i].kind == VAR_FIELD ? field_kind(key) : prefixes[i].kind;
        *ret_var = (struct var){ .kind = kind, .key = key };
        return 0;
    }
    return unknown_name(name, err);
}

/* ---- values
 * ------------------------------------------------------------------------------------------------------ */

static struct slice stream_name(enum record_stream stream)
{
    switch (stream) {
    case STREAM_STDOUT:
        return SLICE("stdout");
    case STREAM_STDERR:
        return SLICE("stderr");
    case STREAM_NONE:
        break;
    }
    return SLICE("");
}

static struct slice origin_get(const struct var *v, const struct origin *o)
{
    switch (v->kind) {
    case VAR_INPUT:
        return o->input;
    case VAR_FILE:
        return o->file;
    case VAR_FILE_STEM:
        return o->file_stem;
    case VAR_HOST:
        return o->host;
    case VAR_NODE:
        return o->node;
    case VAR_CLUSTER:
        return o->cluster;
    case VAR_POD:
        return o->pod;
    case VAR_UID:
        return o->uid;
    case VAR_NAMESPACE:
        return o->namespace_;
    case VAR_CONTAINER:
        return o->container;
    case VAR_WORKLOAD:
        return o->workload;
    case VAR_WORKLOAD_KIND:
        return o->workload_kind;
    case VAR_IMAGE:
        return o->image;
    case VAR_SERVICE:
        return o->service;
    case VAR_PATH:
        return pairs_get(o->path, v->key);
    case VAR_FIELD:
        return pairs_get(o->fields, v->key);
    case VAR_LABEL:
        return pairs_get(o->labels, v->key);
    case VAR_ANNOTATION:
        return pairs_get(o->annotations, v->key);
    case VAR_NAMESPACE_LABEL:
        return pairs_get(o->namespace_labels, v->key);
    case VAR_STREAM:
    case VAR_TENANT:
    case VAR_LEVEL:
    case VAR_MODULE:
    case VAR_MESSAGE:
    case VAR_RECORD:
    case VAR_RECORD_TENANT:
        break;
    }
    return SLICE("");
}

struct slice var_get(const struct var *v, const struct record *rec)
{
    switch (v->kind) {
    case VAR_STREAM:
        return stream_name(rec->stream);
    case VAR_TENANT:
        return rec->tenant;
    case VAR_LEVEL:
        return level_name(rec->level);
    case VAR_MODULE:
        return rec->module;
    case VAR_MESSAGE:
        return rec->message;
    case VAR_RECORD:
        return rec->values[v->value_index].text;
    case VAR_RECORD_TENANT:
        return rec->tenant_key.text;
    case VAR_INPUT:
    case VAR_FILE:
    case VAR_FILE_STEM:
    case VAR_HOST:
    case VAR_NODE:
    case VAR_CLUSTER:
    case VAR_POD:
    case VAR_UID:
    case VAR_NAMESPACE:
    case VAR_CONTAINER:
    case VAR_WORKLOAD:
    case VAR_WORKLOAD_KIND:
    case VAR_IMAGE:
    case VAR_SERVICE:
    case VAR_PATH:
    case VAR_FIELD:
    case VAR_LABEL:
    case VAR_ANNOTATION:
    case VAR_NAMESPACE_LABEL:
        break;
    }
    return rec->origin == NULL ? SLICE("") : origin_get(v, rec->origin);
}
