#include "conf/yaml.h"

#include <errno.h>
#include <stdlib.h>
#include <yaml.h>

struct anchor {
    struct anchor *next;
    const char *name;
    struct node *node;
    bool is_open; /* its node is not finished: an alias to it would be a cycle */
};

struct source {
    struct report *rep;
    struct arena *arena;
    const char *file;
    struct slice text;
    yaml_env_fn *env;
    uint64_t *hash;
    yaml_parser_t parser;
    struct anchor *anchors;
    size_t weight; /* of all nodes so far */
};

struct node *node_get(const struct node *map, struct slice key)
{
    for (size_t i = 0; i < map->n && map->kind == NODE_MAP; i++)
        if (slice_eq(map->members[i].key, key))
            return map->members[i].value;
    return NULL;
}

bool node_is_null(const struct node *n)
{
    return n->kind == NODE_SCALAR && !n->is_quoted && !n->is_bad &&
           (n->text.len == 0 || slice_eq(n->text, SLICE("~")) || slice_ieq(n->text, SLICE("null")));
}

const char *node_what(const struct node *n)
{
    switch (n->kind) {
    case NODE_MAP:
        return "a map";
    case NODE_LIST:
        return "a list";
    case NODE_SCALAR:
        break;
    }
    return node_is_null(n) ? "nothing" : "text";
}

static struct mark mark_of(const struct source *s, const yaml_mark_t *m)
{
    return (struct mark){ s->file, (uint32_t)m->line + 1, (uint32_t)m->column + 1 };
}

static int no_memory(struct source *s)
{
    report_error(s->rep, (struct mark){ s->file, 0, 0 }, "out of memory");
    return -ENOMEM;
}

/* ---- syntax errors
 * ----------------------------------------------------------------------------------------------- */

/* The reader's errors have a byte offset and no mark. */
static struct mark mark_at(const struct source *s, size_t offset)
{
    struct mark m = { s->file, 1, 1 };
    for (size_t i = 0; i < offset && i < s->text.len; i++) {
        bool is_newline = s->text.ptr[i] == '\n';
        m.line += is_newline;
        m.col = is_newline ? 1 : m.col + 1;
    }
    return m;
}

static struct slice line_text(const struct source *s, size_t line)
{
    struct slice rest = s->text;
    for (; line > 0; line--) {
        ptrdiff_t lf = slice_find_byte(rest, '\n');
        rest = lf < 0 ? slice_first(rest, 0) : slice_from(rest, (size_t)lf + 1);
    }
    ptrdiff_t lf = slice_find_byte(rest, '\n');
    return lf < 0 ? rest : slice_first(rest, (size_t)lf);
}

/* What people do most often in a file full of {names}. */
static const char *syntax_hint(const struct source *s)
{
    const yaml_parser_t *p = &s->parser;
    struct slice here = line_text(s, p->problem_mark.line), from = line_text(s, p->context_mark.line);
    if (slice_find(here, SLICE(": {")) >= 0 || slice_find(from, SLICE(": {")) >= 0)
        return "; a value that begins with { must be in quotes";
    if (slice_find_byte(here, '\t') >= 0)
        return "; a tab cannot indent";
    if (slice_find(here, SLICE(": *")) >= 0 || slice_find(here, SLICE("- *")) >= 0 ||
        slice_find(here, SLICE(": %")) >= 0)
        return "; a value that begins with * or % must be in quotes";
    return "";
}

static int syntax_error(struct source *s)
{
    const yaml_parser_t *p = &s->parser;
    const char *problem = p->problem == NULL ? "unknown problem" : p->problem;
    if (p->error == YAML_MEMORY_ERROR)
        return no_memory(s);
    if (p->error == YAML_READER_ERROR) {
        report_error(s->rep, mark_at(s, p->problem_offset), "not valid YAML: %s (byte %zu)", problem,
                     p->problem_offset);
        return -EINVAL;
    }
    if (p->context != NULL && p->context_mark.line != p->problem_mark.line)
        report_error(s->rep, mark_of(s, &p->problem_mark), "not valid YAML: %s, %s that begins in line %zu%s",
                     problem, p->context, p->context_mark.line + 1, syntax_hint(s));
    else
        report_error(s->rep, mark_of(s, &p->problem_mark), "not valid YAML: %s%s%s%s", problem,
                     p->context == NULL ? "" : ", ", p->context == NULL ? "" : p->context, syntax_hint(s));
    return -EINVAL;
}

static int next_event(struct source *s, yaml_event_t *ret_event)
{
    return yaml_parser_parse(&s->parser, ret_event) ? 0 : syntax_error(s);
}

/* ---- variables
 * --------------------------------------------------------------------------------------------------- */

static bool is_name(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        if (!letter && !(i > 0 && c >= '0' && c <= '9'))
            return false;
    }
    return s.len > 0;
}

/* body: what stands between ${ and }. The value, or ptr NULL when it is reported. */
static struct slice expand_one(struct source *s, const struct node *n, struct slice body)
{
    ptrdiff_t sep = slice_find(body, SLICE(":-"));
    struct slice name = sep < 0 ? body : slice_first(body, (size_t)sep);
    char key[256];
    if (!is_name(name) || name.len >= sizeof(key)) {
        report_error(s->rep, n->mark,
                     "\"${%.*s}\" is not a variable; expected ${NAME} or ${NAME:-default} ($$ is a dollar)",
                     QUOTED(body));
        return (struct slice){ 0 };
    }
    memcpy(key, name.ptr, name.len);
    key[name.len] = '\0';
    const char *value = s->env(key);
    if ((value == NULL || value[0] == '\0') && sep >= 0)
        return slice_from(body, (size_t)sep + 2);
    if (value == NULL) {
        report_error(s->rep, n->mark, "the variable %s is not set; set it or write ${%s:-default}", key, key);
        return (struct slice){ 0 };
    }
    struct slice v = slice_cstr(value); /* the environment's strings end with NUL */
    if (slice_utf8_valid(v) != v.len) {
        report_error(s->rep, n->mark, "the variable %s is not UTF-8", key);
        return (struct slice){ 0 };
    }
    *s->hash = (*s->hash ^ slice_hash(v)) * UINT64_C(0x9e3779b97f4a7c15);
    return v;
}

static int expand_into(struct source *s, struct node *n, struct buf *out)
{
    struct slice rest = n->text;
    while (rest.len > 0) {
        ptrdiff_t at = slice_find_byte(rest, '$');
        size_t plain = at < 0 ? rest.len : (size_t)at;
        int r = buf_append(out, rest.ptr, plain);
        rest = slice_from(rest, plain);
        if (r < 0 || rest.len == 0)
            return r;

        struct slice value =
            SLICE("$"); /* a lone dollar stands for itself: regular expressions end with one */
        size_t used = 1;
        if (rest.len > 1 && rest.ptr[1] == '$') {
            used = 2;
        } else if (rest.len > 1 && rest.ptr[1] == '{') {
            ptrdiff_t close = slice_find_byte(rest, '}');
            if (close < 0) {
                report_error(s->rep, n->mark, "\"%.*s\" is not closed: a } is missing ($$ is a dollar)",
                             QUOTED(rest));
                n->is_bad = true;
                return 0;
            }
            value = expand_one(s, n, slice_of(rest.ptr + 2, (size_t)close - 2));
            used = (size_t)close + 1;
        }
        if (value.ptr == NULL)
            n->is_bad = true;
        else if ((r = buf_append_slice(out, value)) < 0)
            return r;
        rest = slice_from(rest, used);
    }
    return 0;
}

static int expand(struct source *s, struct node *n)
{
    if (s->env == NULL || slice_find_byte(n->text, '$') < 0)
        return 0;
    CLEANUP(buf_deinit) struct buf out;
    buf_init(&out, YAML_EXPANDED_MAX);
    int r = expand_into(s, n, &out);
    if (r == -ENOBUFS) {
        report_error(s->rep, n->mark, "the text is longer than %zu bytes with its variables expanded",
                     YAML_EXPANDED_MAX);
        n->is_bad = true;
        return 0;
    }
    if (r < 0)
        return no_memory(s);
    n->is_literal = false;
    n->text = arena_copy(s->arena, buf_slice(&out));
    return n->text.ptr == NULL ? no_memory(s) : 0;
}

/* ---- nodes
 * ------------------------------------------------------------------------------------------------------- */

/* Counts what the tree would weigh if aliases were copies: a few lines of aliases of aliases must not cost
 * hours. */
static int add_weight(struct source *s, size_t weight, struct mark mark)
{
    s->weight += weight;
    if (s->weight <= YAML_NODES_MAX)
        return 0;
    report_error(s->rep, mark, "more than %d values, aliases counted: this is not a configuration",
                 YAML_NODES_MAX);
    return -EINVAL;
}

static int check_depth(struct source *s, unsigned depth, struct mark mark)
{
    if (depth <= YAML_DEPTH_MAX)
        return 0;
    report_error(s->rep, mark, "nested deeper than %d levels", YAML_DEPTH_MAX);
    return -EINVAL;
}

static int node_new(struct source *s, const yaml_event_t *event, enum node_kind kind, struct node **ret_node)
{
    struct mark mark = mark_of(s, &event->start_mark);
    int r = add_weight(s, 1, mark);
    if (r < 0)
        return r;
    struct node *n = arena_alloc(s->arena, sizeof(*n));
    if (n == NULL)
        return no_memory(s);
    *n = (struct node){ .kind = kind, .mark = mark, .weight = 1, .height = 1 };
    *ret_node = n;
    return 0;
}

static int anchor_add(struct source *s, const yaml_char_t *name, struct node *n, struct anchor **ret_anchor)
{
    *ret_anchor = NULL;
    if (name == NULL)
        return 0;
    struct anchor *a = arena_alloc(s->arena, sizeof(*a));
    if (a == NULL)
        return no_memory(s);
    a->name = arena_strdup(s->arena, slice_cstr((const char *)name));
    if (a->name == NULL)
        return no_memory(s);
    a->node = n;
    a->is_open = true;
    a->next = s->anchors; /* the same name again: the nearest one before the alias counts */
    s->anchors = a;
    *ret_anchor = a;
    return 0;
}

static int parse_alias(struct source *s, const yaml_event_t *event, unsigned depth, struct node **ret_node)
{
    const char *name = (const char *)event->data.alias.anchor;
    struct mark mark = mark_of(s, &event->start_mark);
    const struct anchor *a = s->anchors;
    while (a != NULL && strcmp(a->name, name) != 0)
        a = a->next;
    if (a == NULL)
        report_error(s->rep, mark,
                     "the alias *%.100s names no anchor above it; text that begins with * must be in quotes",
                     name);
    else if (a->is_open)
        report_error(s->rep, mark, "the alias *%.100s stands inside of what it names", name);
    if (a == NULL || a->is_open)
        return -EINVAL;
    int r = add_weight(s, a->node->weight, mark);
    if (r == 0)
        r = check_depth(s, depth + a->node->height - 1, mark);
    *ret_node = a->node;
    return r;
}

static int parse_scalar(struct source *s, const yaml_event_t *event, struct node **ret_node)
{
    struct node *n = NULL;
    int r = node_new(s, event, NODE_SCALAR, &n);
    if (r < 0)
        return r;
    size_t quotes = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE ? 0 : 2;
    n->is_quoted = quotes > 0;
    n->text = arena_copy(s->arena, slice_of(event->data.scalar.value, event->data.scalar.length));
    if (n->text.ptr == NULL)
        return no_memory(s);
    /* Marks count characters; only text of as many characters as bytes can be pointed into. */
    n->is_literal = event->start_mark.line == event->end_mark.line &&
                    event->end_mark.column - event->start_mark.column == n->text.len + quotes;
    if (slice_find_byte(n->text, '\0') >= 0) {
        report_error(s->rep, n->mark, "the text holds a NUL byte");
        n->is_bad = true;
    }
    *ret_node = n;
    return 0;
}

static int parse_node(struct source *s, const yaml_event_t *event, unsigned depth, bool is_key,
                      struct node **ret_node);

/* Growing arrays in the arena: doubled, so at most twice the memory stays behind. */
static void *grow(struct source *s, void *old, size_t n, size_t size)
{
    if (n != 0 && (n & (n - 1)) != 0)
        return old;
    void *items = arena_alloc(s->arena, MAX(2 * n, (size_t)1) * size);
    if (items != NULL && n > 0)
        memcpy(items, old, n * size);
    return items;
}

static int list_add(struct source *s, struct node *list, struct node *item)
{
    struct node **items = grow(s, list->items, list->n, sizeof(struct node *));
    if (items == NULL)
        return no_memory(s);
    list->items = items;
    list->items[list->n++] = item;
    list->weight += item->weight;
    list->height = MAX(list->height, item->height + 1);
    return 0;
}

static int map_add(struct source *s, struct node *map, struct member m)
{
    if (map->n == YAML_KEYS_MAX) {
        report_error(s->rep, m.mark, "more than %d keys in one map", YAML_KEYS_MAX);
        return -EINVAL;
    }
    struct member *members = grow(s, map->members, map->n, sizeof(*members));
    if (members == NULL)
        return no_memory(s);
    map->members = members;
    map->members[map->n++] = m;
    map->weight += m.value->weight;
    map->height = MAX(map->height, m.value->height + 1);
    return 0;
}

static const struct member *find_member(const struct node *map, struct slice key)
{
    for (size_t i = 0; i < map->n; i++)
        if (slice_eq(map->members[i].key, key))
            return &map->members[i];
    return NULL;
}

/* "<<: *base" or "<<: [*a, *b]": keys that the map says itself win, then those of the earlier base. */
static int merge_bases(struct source *s, struct node *map, const struct node *bases, struct mark mark)
{
    bool is_list = bases->kind == NODE_LIST;
    for (size_t i = 0; i < (is_list ? bases->n : 1); i++) {
        const struct node *base = is_list ? bases->items[i] : bases;
        if (base->kind != NODE_MAP) {
            report_error(s->rep, mark, "<< takes a map or a list of maps, and finds %s", node_what(base));
            continue;
        }
        for (size_t j = 0; j < base->n; j++) {
            if (find_member(map, base->members[j].key) != NULL)
                continue;
            int r = map_add(s, map, base->members[j]);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

/* False: not a key that can be used; reported. */
static bool check_key(struct source *s, const struct node *map, const struct node *key)
{
    if (key->kind != NODE_SCALAR) {
        report_error(s->rep, key->mark,
                     "a key must be text, not %s; text that begins with { or [ must be in quotes",
                     node_what(key));
        return false;
    }
    if (key->text.len > YAML_KEY_BYTES_MAX) {
        report_error(s->rep, key->mark, "the key is longer than %d bytes", YAML_KEY_BYTES_MAX);
        return false;
    }
    const struct member *twin = find_member(map, key->text);
    if (twin != NULL) {
        report_error(s->rep, key->mark, "the key \"%.*s\" stands here a second time, first in line %u",
                     QUOTED(key->text), twin->mark.line);
        return false;
    }
    return !key->is_bad;
}

static int parse_member(struct source *s, struct node *map, const yaml_event_t *key_event, unsigned depth,
                        struct member *ret_bases)
{
    struct node *key = NULL, *value = NULL;
    int r = parse_node(s, key_event, depth + 1, true, &key);
    if (r < 0)
        return r;
    yaml_event_t event;
    r = next_event(s, &event);
    if (r < 0)
        return r;
    r = parse_node(s, &event, depth + 1, false, &value);
    yaml_event_delete(&event);
    if (r < 0)
        return r;

    bool is_merge = key->kind == NODE_SCALAR && !key->is_quoted && slice_eq(key->text, SLICE("<<"));
    struct member m = { key->text, key->mark, value };
    if (is_merge && ret_bases->value == NULL) {
        *ret_bases = m;
        return 0;
    }
    return check_key(s, map, key) ? map_add(s, map, m) : 0;
}

static int parse_map(struct source *s, struct node *map, unsigned depth)
{
    struct member bases = { 0 };
    for (;;) {
        yaml_event_t event;
        int r = next_event(s, &event);
        if (r < 0)
            return r;
        bool is_end = event.type == YAML_MAPPING_END_EVENT;
        if (!is_end)
            r = parse_member(s, map, &event, depth, &bases);
        yaml_event_delete(&event);
        if (r < 0)
            return r;
        if (is_end)
            return bases.value == NULL ? 0 : merge_bases(s, map, bases.value, bases.mark);
    }
}

static int parse_list(struct source *s, struct node *list, unsigned depth)
{
    for (;;) {
        yaml_event_t event;
        int r = next_event(s, &event);
        if (r < 0)
            return r;
        struct node *item = NULL;
        bool is_end = event.type == YAML_SEQUENCE_END_EVENT;
        if (!is_end)
            r = parse_node(s, &event, depth + 1, false, &item);
        yaml_event_delete(&event);
        if (r == 0 && !is_end)
            r = list_add(s, list, item);
        if (r < 0 || is_end)
            return r;
    }
}

static int parse_collection(struct source *s, const yaml_event_t *event, unsigned depth,
                            struct node **ret_node)
{
    bool is_map = event->type == YAML_MAPPING_START_EVENT;
    struct node *n = NULL;
    struct anchor *a = NULL;
    int r = node_new(s, event, is_map ? NODE_MAP : NODE_LIST, &n);
    if (r == 0)
        r = check_depth(s, depth, n->mark);
    if (r == 0)
        r = anchor_add(s, is_map ? event->data.mapping_start.anchor : event->data.sequence_start.anchor, n,
                       &a);
    if (r == 0)
        r = is_map ? parse_map(s, n, depth) : parse_list(s, n, depth);
    if (r == 0 && a != NULL)
        a->is_open = false;
    *ret_node = n;
    return r;
}

/* Recursion is bounded by YAML_DEPTH_MAX. */
static int parse_node(struct source *s, const yaml_event_t *event, unsigned depth, bool is_key,
                      struct node **ret_node)
{
    if (event->type == YAML_ALIAS_EVENT)
        return parse_alias(s, event, depth, ret_node);
    if (event->type != YAML_SCALAR_EVENT)
        return parse_collection(s, event, depth, ret_node);

    struct anchor *a = NULL;
    int r = parse_scalar(s, event, ret_node);
    if (r == 0 && !is_key)
        r = expand(s, *ret_node);
    if (r == 0)
        r = anchor_add(s, event->data.scalar.anchor, *ret_node, &a);
    if (r == 0 && a != NULL)
        a->is_open = false;
    return r;
}

/* ---- documents
 * --------------------------------------------------------------------------------------------------- */

/* Events before and between documents. At the end of the stream *ret_event is a stream end. */
static int next_document(struct source *s, yaml_event_t *ret_event)
{
    for (;;) {
        int r = next_event(s, ret_event);
        if (r < 0 || ret_event->type == YAML_STREAM_END_EVENT)
            return r;
        bool is_node = ret_event->type != YAML_STREAM_START_EVENT &&
                       ret_event->type != YAML_DOCUMENT_START_EVENT &&
                       ret_event->type != YAML_DOCUMENT_END_EVENT;
        if (is_node)
            return 0;
        yaml_event_delete(ret_event);
    }
}

static int parse_stream(struct source *s, struct node **ret_root)
{
    yaml_event_t event;
    int r = next_document(s, &event);
    if (r < 0)
        return r;
    if (event.type != YAML_STREAM_END_EVENT)
        r = parse_node(s, &event, 1, false, ret_root);
    bool is_over = event.type == YAML_STREAM_END_EVENT;
    yaml_event_delete(&event);
    if (r < 0 || is_over)
        return r;

    r = next_document(s, &event);
    if (r < 0)
        return r;
    if (event.type != YAML_STREAM_END_EVENT) {
        report_error(s->rep, mark_of(s, &event.start_mark),
                     "a second document begins; expected one in a file");
        r = -EINVAL;
    }
    yaml_event_delete(&event);
    return r;
}

int yaml_parse(struct report *rep, const char *file, struct slice text, yaml_env_fn *env, uint64_t *hash,
               struct node **ret_root)
{
    struct source s = {
        .rep = rep, .arena = rep->arena, .file = file, .text = text, .env = env, .hash = hash
    };
    if (text.len > YAML_BYTES_MAX) {
        report_error(rep, (struct mark){ file, 0, 0 }, "larger than %zu bytes: this is not a configuration",
                     YAML_BYTES_MAX);
        return -EINVAL;
    }
    struct node *root = arena_alloc(s.arena, sizeof(*root));
    if (root == NULL || !yaml_parser_initialize(&s.parser))
        return no_memory(&s);
    *root = (struct node){ .kind = NODE_MAP, .mark = { file, 1, 1 }, .weight = 1, .height = 1 };
    yaml_parser_set_input_string(&s.parser, (const unsigned char *)(text.len == 0 ? "" : text.ptr), text.len);
    int r = parse_stream(&s, &root);
    yaml_parser_delete(&s.parser);
    if (r == 0)
        *ret_root = root;
    return r;
}
