/*
 * loader.h - what the parts of conf/ share while a configuration is loaded. Included by conf/ only.
 *
 * root.c, input.c, output.c and route.c each read one kind of section; apply.c fills structs by setting
 * tables; print.c writes the result back by the same tables.
 */
#ifndef TAILRACE_CONF_LOADER_H
#define TAILRACE_CONF_LOADER_H

#include "conf/conf.h"
#include "conf/yaml.h"

/* What is compiled on the heap, to be freed with the configuration. */
struct owned {
    struct owned *next;
    struct template *template;
    struct levels *levels;
    struct match *match;
};

/* Keys of the configuration that need work after their table was applied. */
struct root_raw {
    struct slice min_free, cpu;
    int64_t tenants_max, metrics_max_tenants, metrics_max_series;
};

struct queue_raw {
    struct queue_conf queue;
    struct slice sync, key_share;
};

struct conf_private {
    struct arena arena;
    struct owned *owned;
    struct root_raw root;
    struct queue_raw *queues; /* by output index */
};

struct loader {
    struct report rep;
    struct arena *arena;
    struct conf *conf;
    struct conf_private *own;
    const struct output_type *types; /* ends with a NULL name */
    size_t n_watched, cap_watched;
    bool is_incomplete; /* a file could not be read to its end */
    int failed;         /* -ENOMEM once the arena or the heap gave nothing */
};

/* Zeroed memory that lives as long as the configuration; NULL sets failed. */
void *loader_alloc(struct loader *ld, size_t size);
struct slice loader_copy(struct loader *ld, struct slice s);
/* Every file that a change of should be noticed; content is folded into the fingerprint. */
void loader_watch(struct loader *ld, struct slice path, struct slice content);
/* A file named in the configuration (secret, certificate): watched; a warning when it cannot be read now. */
void loader_watch_secret(struct loader *ld, struct slice path, struct mark mark);

/* Compiled things, owned by the configuration. NULL when there is an error, which is then reported. */
struct template *loader_template(struct loader *ld, const struct node *n, bool has_time);
struct levels *loader_levels(struct loader *ld, const struct node *n);
struct match *loader_match(struct loader *ld, const struct node *n);

/* Names of inputs, outputs, fields: 1..100 of [A-Za-z0-9_.-]. False: reported. */
bool loader_check_name(struct loader *ld, struct slice name, struct mark mark);

/* Sections of the root, in this order. Each reports its own errors. */
void root_apply(struct loader *ld, const struct node *root);
void inputs_apply(struct loader *ld, const struct node *root);
void outputs_apply(struct loader *ld, const struct node *root);
void routes_apply(struct loader *ld, const struct node *root);
void counters_apply(struct loader *ld, const struct node *root);

/* Setting tables, for print.c. */
extern const struct setting root_settings[], root_raw_settings[], input_settings[], pods_settings[], queue_settings[],
    http_settings[], counter_settings[];
extern const struct slice input_types[]; /* by enum input_type */

/* Names that a field sets in a file's origin; others are the user's own, {field.NAME}. */
bool field_is_settable(struct slice name);
/* Names that a field cannot have, because they mean something else: tenant, level, … */
bool field_is_reserved(struct slice name);

#endif
