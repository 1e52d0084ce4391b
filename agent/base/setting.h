/*
 * setting.h - tables that say which keys a section of the configuration may hold, and where their values go.
 *
 * conf/ reads YAML by these tables; the module that owns the section owns the table. Values live as long as the
 * configuration does (its arena); an absent key gets `def`, written as it would stand in YAML (NULL: zero value).
 */
#ifndef TAILRACE_BASE_SETTING_H
#define TAILRACE_BASE_SETTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/record.h"
#include "agent/base/template.h"

enum setting_type {
    SETTING_STRING,    /* struct slice */
    SETTING_BOOL,      /* bool */
    SETTING_INT,       /* int64_t, within min..max */
    SETTING_SIZE,      /* uint64_t bytes: 1MiB, 512KiB, 10MB, 4096; within min..max */
    SETTING_DURATION,  /* int64_t ns: 200ms 1s 10m 24h 7d, "0"; within min..max (ns) */
    SETTING_ENUM,      /* int: index in choices */
    SETTING_TEMPLATE,  /* struct template *; dates allowed */
    SETTING_TEMPLATES, /* struct template_map: a map of name -> template; `off` = empty map with is_off */
    SETTING_STRINGS,   /* struct slices: a list, or one string */
    SETTING_STRING_MAP,/* struct pairs */
    SETTING_SECTION    /* a nested map: `section` is its table, offsets relative to the same struct */
};

struct slices {
    const struct slice *items;
    size_t n;
};

struct named_template {
    struct slice name;
    struct template *template;
};

struct template_map {
    struct named_template *items; /* in the order of the file */
    size_t n;
    bool is_off;
};

struct setting {
    const char *key; /* NULL ends the table */
    enum setting_type type;
    size_t offset;
    const char *def;
    bool is_required;
    bool is_secret;                /* masked by `check` */
    int64_t min, max;              /* max 0 = no upper bound */
    const char *const *choices;    /* NULL-terminated */
    const struct setting *section;
    const char *help;              /* one sentence; shown by `check --explain` and the docs */
};

#define SETTING_END { .key = NULL }

#endif
