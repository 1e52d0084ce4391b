/*
 * yaml.h - one YAML document -> a tree of nodes that know their line and column. The only file that knows
 * libyaml.
 *
 * ${VAR}, ${VAR:-default} and $$ are expanded in scalar values, after parsing, so a variable cannot change
 * the shape of the document. Aliases share the node they name; merge keys (<<) are resolved here. Everything
 * is bounded: bytes, depth, nodes with aliases counted as often as they stand, keys of one map.
 *
 * Errors: reported with their place; duplicate keys, undefined variables and odd keys do not stop the
 * reading.
 */
#ifndef TAILRACE_CONF_YAML_H
#define TAILRACE_CONF_YAML_H

#include "conf/report.h"

#define YAML_BYTES_MAX (1 * MIB)
#define YAML_DEPTH_MAX 32
#define YAML_NODES_MAX 100000
#define YAML_KEYS_MAX 1000
#define YAML_KEY_BYTES_MAX 256
#define YAML_EXPANDED_MAX (64 * KIB) /* one scalar, variables expanded */

enum node_kind { NODE_SCALAR, NODE_MAP, NODE_LIST };

struct node;
struct member {
    struct slice key;
    struct mark mark; /* of the key */
    struct node *value;
};

struct node {
    enum node_kind kind;
    struct mark mark;
    bool is_quoted;         /* NODE_SCALAR in quotes or a block: never null */
    bool is_bad;            /* its error is reported already: say no more about it */
    bool is_literal;        /* text stands in the file byte for byte: a column inside it can be told */
    struct slice text;      /* NODE_SCALAR, expanded; NUL-terminated */
    struct member *members; /* NODE_MAP, in the order of the file */
    struct node **items;    /* NODE_LIST */
    size_t n;
    size_t weight; /* nodes below and itself, aliases counted each time */
    unsigned height;
};

/* Where the variables come from: getenv-like. */
typedef const char *yaml_env_fn(const char *name);

/* 0 with the root (an empty document is an empty map); -EINVAL when something was reported that stops the
 * reading; -ENOMEM. file must live as long as the arena. hash is folded with the values of all variables that
 * were expanded. env NULL: nothing is expanded. */
NODISCARD int yaml_parse(struct report *rep, const char *file, struct slice text, yaml_env_fn *env,
                         uint64_t *hash, struct node **ret_root);

/* The member's value, or NULL. */
struct node *node_get(const struct node *map, struct slice key);
/* An empty plain scalar, ~ or null. */
bool node_is_null(const struct node *n);
/* "text", "a list", "a map", "nothing". */
const char *node_what(const struct node *n);

#endif
