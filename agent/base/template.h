/*
 * template.h - "{record.tenant|path.tenant|'platform'}-%Y.%m.%d": compiled once, evaluated per record.
 *
 * {name} and {a|b|'constant'}: the first that is not empty (missing, null, object and array count as empty). {{ is a
 * brace, %Y %m %d %H %M %S %j %% (when has_time) are taken from the record's UTC time. Names: architecture.md §6.
 */
#ifndef TAILRACE_BASE_TEMPLATE_H
#define TAILRACE_BASE_TEMPLATE_H

#include <stdbool.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/record.h"

/* All record.KEY paths of a configuration; the scanner fills record.values[] in this order. */
struct wanted_keys {
    struct slice paths[WANTED_KEYS_MAX]; /* owned: malloc'd bytes */
    size_t n;
};

/* Index of path, added when new; -ENOSPC beyond WANTED_KEYS_MAX, -ENOMEM. */
NODISCARD int wanted_keys_add(struct wanted_keys *w, struct slice path);
void wanted_keys_deinit(struct wanted_keys *w);

enum var_kind {
    VAR_INPUT, VAR_FILE, VAR_FILE_STEM, VAR_HOST, VAR_NODE, VAR_CLUSTER, VAR_POD, VAR_UID, VAR_NAMESPACE,
    VAR_CONTAINER, VAR_WORKLOAD, VAR_WORKLOAD_KIND, VAR_IMAGE, VAR_SERVICE, VAR_PATH, VAR_FIELD, VAR_LABEL, VAR_ANNOTATION, VAR_NAMESPACE_LABEL,
    /* from here on they change from record to record */
    VAR_STREAM, VAR_TENANT, VAR_LEVEL, VAR_MODULE, VAR_MESSAGE, VAR_RECORD, VAR_RECORD_TENANT
};

struct var {
    enum var_kind kind;
    struct slice key;     /* PATH FIELD LABEL …: the name after the dot (owned by the template or match) */
    uint32_t value_index; /* VAR_RECORD */
};

/* "pod", "path.tenant", "record.user.id" … -> var; key borrows from name. -EINVAL with the names that exist. */
NODISCARD int var_parse(struct slice name, struct wanted_keys *w, struct var *ret_var, struct err *err);
/* Its value in this record, empty when it has none. rec may lack what is not known yet (zeroed). */
struct slice var_get(const struct var *v, const struct record *rec);
static inline bool var_is_static(const struct var *v)
{
    return v->kind < VAR_STREAM;
}

struct template;

/* -EINVAL with a sentence that quotes the mistake or gives its byte offset. */
NODISCARD int template_parse(struct slice text, bool has_time, struct wanted_keys *w, struct template **ret_template,
                             struct err *err);
void template_free(struct template *t);
struct slice template_text(const struct template *t);
bool template_is_static(const struct template *t);   /* only origin fields, no time */
bool template_is_constant(const struct template *t); /* no variable at all */
/* True when any part can read this variable. */
bool template_uses(const struct template *t, enum var_kind kind);

/* The i-th variable that it reads, or NULL. */
const struct var *template_var(const struct template *t, size_t i);

/* The value itself, when it is one variable's or one constant and short enough: no copy is made. Else false. */
bool template_peek(const struct template *t, const struct record *rec, struct slice *ret_value);

/* Appends the value; at most TEMPLATE_OUT_MAX bytes (then cut). 0, -ENOBUFS or -ENOMEM of the buffer. */
NODISCARD int template_eval(const struct template *t, const struct record *rec, struct buf *out);

#endif
