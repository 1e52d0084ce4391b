#include "conf/conf.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/io.h"
#include "conf/apply.h"

/* The tree, all texts and all errors of one configuration: 1 MiB of YAML needs less than half of it. */
#define CONF_ARENA_BYTES (64 * MIB)
#define FILES_MAX 1000
/* A secret or a certificate bundle. */
#define SECRET_BYTES_MAX (1 * MIB)

/* ---- what the parts of conf/ share
 * --------------------------------------------------------------------------------- */

void *loader_alloc(struct loader *ld, size_t size)
{
    void *p = arena_alloc(ld->arena, size);
    if (p == NULL)
        ld->failed = -ENOMEM;
    return p;
}

struct slice loader_copy(struct loader *ld, struct slice s)
{
    struct slice copy = arena_copy(ld->arena, s);
    if (copy.ptr == NULL) {
        ld->failed = -ENOMEM;
        return SLICE("");
    }
    return copy;
}

static uint64_t fold(uint64_t hash, struct slice s)
{
    return (hash ^ slice_hash(s)) * UINT64_C(0x9e3779b97f4a7c15) + s.len;
}

static void watch_path(struct loader *ld, struct slice path)
{
    struct slices *w = &ld->conf->watched_files;
    struct slice *items = (struct slice *)(uintptr_t)w->items;
    if (ld->n_watched == ld->cap_watched) {
        items = loader_alloc(ld, (ld->cap_watched * 2 + 8) * sizeof(*items));
        if (items == NULL)
            return;
        if (ld->n_watched > 0)
            memcpy(items, w->items, ld->n_watched * sizeof(*items));
        ld->cap_watched = ld->cap_watched * 2 + 8;
    }
    items[ld->n_watched++] = loader_copy(ld, path);
    *w = (struct slices){ items, ld->n_watched };
}

void loader_watch(struct loader *ld, struct slice path, struct slice content)
{
    ld->conf->fingerprint = fold(fold(ld->conf->fingerprint, path), content);
    watch_path(ld, path);
}

void loader_watch_secret(struct loader *ld, struct slice path, struct mark mark)
{
    CLEANUP(buf_deinit) struct buf content;
    buf_init(&content, SECRET_BYTES_MAX);
    struct err err = { 0 };
    char *name = arena_strdup(ld->arena, path);
    if (name == NULL) {
        ld->failed = -ENOMEM;
        return;
    }
    /* Not an error: a secret may be mounted later, and one output without its secret must not stop the
     * others. */
    if (io_read_file(AT_FDCWD, name, &content, &err) < 0)
        report_warning(&ld->rep, mark, "%s", err.text);
    loader_watch(ld, path, buf_slice(&content));
    if (content.len > 0)
        explicit_bzero(content.ptr, content.len);
}

static struct owned *own_new(struct loader *ld)
{
    struct owned *o = loader_alloc(ld, sizeof(*o));
    if (o != NULL) {
        o->next = ld->own->owned;
        ld->own->owned = o;
    }
    return o;
}

struct template *loader_template(struct loader *ld, const struct node *n, bool has_time)
{
    struct slice text;
    struct err err = { 0 };
    struct owned *o = own_new(ld);
    if (o == NULL || !apply_text(ld, n, &text))
        return NULL;
    int r = template_parse(text, has_time, &ld->conf->wanted, &o->template, &err);
    if (r < 0) {
        report_error(&ld->rep, n->mark, "%s", err.text);
        return NULL;
    }
    return o->template;
}

/* Where a byte of a scalar stands in the file, when that can be told. */
static struct mark mark_inside(const struct node *n, size_t off)
{
    struct mark m = n->mark;
    if (n->is_literal)
        m.col += (uint32_t)off + n->is_quoted;
    return m;
}

/* Each directive by itself, so that all wrong ones are told, each with its column. */
static bool check_directives(struct loader *ld, const struct node *n, struct slice spec)
{
    bool good = true;
    for (size_t off = 0; off <= spec.len;) {
        struct slice rest = slice_from(spec, off);
        ptrdiff_t comma = slice_find_byte(rest, ',');
        struct slice part = comma < 0 ? rest : slice_first(rest, (size_t)comma);
        struct mark mark = mark_inside(n, off);
        struct levels *l = NULL;
        struct err err = { 0 };
        if (levels_parse(part, &l, &err) < 0) {
            report_error(&ld->rep, mark, "%s", err.text);
            good = false;
        } else if (part.len != slice_trim(part).len) {
            report_warning(&ld->rep, mark,
                           "\"%.*s\" names a module with a blank in it, as in RUST_LOG; remove the blank",
                           QUOTED(part));
        }
        levels_free(l);
        off += part.len + 1;
    }
    return good;
}

struct levels *loader_levels(struct loader *ld, const struct node *n)
{
    struct slice spec;
    struct err err = { 0 };
    struct owned *o = own_new(ld);
    if (o == NULL || !apply_text(ld, n, &spec) || !check_directives(ld, n, spec))
        return NULL;
    if (levels_parse(spec, &o->levels, &err) < 0) {
        report_error(&ld->rep, n->mark, "%s", err.text);
        return NULL;
    }
    if (spec.len > 0 && !levels_has_bare(o->levels))
        report_warning(&ld->rep, n->mark,
                       "\"%.*s\" has no level of its own: modules it does not name are kept whole; "
                       "begin with a level, such as \"info,%.*s\"",
                       QUOTED(spec), QUOTED(spec));
    return o->levels;
}

static void add_conditions(struct loader *ld, struct match *m, const struct node *map, bool is_not)
{
    for (size_t i = 0; i < map->n; i++) {
        const struct member *k = &map->members[i];
        struct slices globs = { 0 };
        struct err err = { 0 };
        size_t at = report_enter(&ld->rep, k->key);
        if (!is_not && slice_eq(k->key, SLICE("not"))) {
            if (k->value->kind == NODE_MAP)
                add_conditions(ld, m, k->value, true);
            else if (!k->value->is_bad)
                report_error(&ld->rep, k->value->mark, "expected a map of keys that must not match, found %s",
                             node_what(k->value));
        } else if (!slice_starts(k->key, SLICE("x-")) && apply_strings(ld, k->value, &globs)) {
            if (globs.n == 0)
                report_error(&ld->rep, k->value->mark, "the list is empty: nothing would match");
            else if (match_add(m, k->key, globs.items, globs.n, is_not, &ld->conf->wanted, &err) < 0)
                report_error(&ld->rep, k->mark, "%s", err.text);
        }
        report_leave(&ld->rep, at);
    }
}

struct match *loader_match(struct loader *ld, const struct node *n)
{
    struct owned *o = own_new(ld);
    if (o == NULL || !apply_is_map(ld, n) || n->kind != NODE_MAP || n->n == 0)
        return NULL;
    o->match = match_new();
    if (o->match == NULL)
        ld->failed = -ENOMEM;
    else
        add_conditions(ld, o->match, n, false);
    return o->match;
}

bool loader_check_name(struct loader *ld, struct slice name, struct mark mark)
{
    bool good =
        name.len > 0 && name.len <= 100 && !slice_eq(name, SLICE(".")) && !slice_eq(name, SLICE(".."));
    for (size_t i = 0; i < name.len && good; i++) {
        char c = name.ptr[i];
        good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
               c == '.' || c == '-';
    }
    if (!good)
        report_error(&ld->rep, mark, "\"%.*s\" is not a name; expected at most 100 of A-Z a-z 0-9 _ . -",
                     QUOTED(name));
    return good;
}

/* ---- files
 * ---------------------------------------------------------------------------------------------------------
 */

/* One file's tree put under what the files before it said: maps merge, lists follow one another, the same
 * name twice is an error. Nodes may be shared by aliases, so merged ones are new. */
static void twice(struct loader *ld, const struct member *m, struct mark first)
{
    size_t at = report_enter(&ld->rep, m->key);
    report_error(&ld->rep, m->mark, "stands in two files; first in %s:%u", first.file, first.line);
    report_leave(&ld->rep, at);
}

static struct node *copy_of(struct loader *ld, const struct node *n, size_t more)
{
    struct node *copy = loader_alloc(ld, sizeof(*copy));
    size_t size = n->kind == NODE_MAP ? sizeof(struct member) : sizeof(struct node *);
    void *items = loader_alloc(ld, MAX(n->n + more, 1) * size);
    if (copy == NULL || items == NULL)
        return NULL;
    *copy = *n;
    if (n->n > 0)
        memcpy(items, n->kind == NODE_MAP ? (const void *)n->members : (const void *)n->items, n->n * size);
    if (n->kind == NODE_MAP)
        copy->members = items;
    else
        copy->items = items;
    return copy;
}

static const struct member *member_named(const struct node *map, struct slice key)
{
    for (size_t i = 0; i < map->n; i++)
        if (slice_eq(map->members[i].key, key))
            return &map->members[i];
    return NULL;
}

static struct node *merge_maps(struct loader *ld, const struct node *first, const struct node *second)
{
    struct node *merged = copy_of(ld, first, second->n);
    for (size_t i = 0; merged != NULL && i < second->n; i++) {
        const struct member *before = member_named(first, second->members[i].key);
        if (before != NULL)
            twice(ld, &second->members[i], before->mark);
        else
            merged->members[merged->n++] = second->members[i];
    }
    return merged;
}

static struct node *append_lists(struct loader *ld, const struct node *first, const struct node *second)
{
    struct node *merged = copy_of(ld, first, second->n);
    for (size_t i = 0; merged != NULL && i < second->n; i++)
        merged->items[merged->n++] = second->items[i];
    return merged;
}

static void merge_member(struct loader *ld, struct node *root, const struct member *m)
{
    struct member *before = (struct member *)(uintptr_t)member_named(root, m->key);
    if (before == NULL) {
        root->members[root->n++] = *m;
        return;
    }
    if (slice_starts(m->key, SLICE("x-")) ||
        node_is_null(m->value)) /* each file may have helpers of the same name */
        return;
    struct node *merged = NULL;
    if (node_is_null(before->value))
        merged = m->value;
    else if (before->value->kind == NODE_MAP && m->value->kind == NODE_MAP) {
        size_t at = report_enter(&ld->rep, m->key);
        merged = merge_maps(ld, before->value, m->value);
        report_leave(&ld->rep, at);
    } else if (before->value->kind == NODE_LIST && m->value->kind == NODE_LIST)
        merged = append_lists(ld, before->value, m->value);
    else
        twice(ld, m, before->mark);
    if (merged != NULL)
        before->value = merged;
}

static void merge_root(struct loader *ld, struct node **root, const struct node *next)
{
    if (next->kind != NODE_MAP && !node_is_null(next)) {
        if (!next->is_bad)
            report_error(&ld->rep, next->mark, "expected keys such as inputs: and outputs:, found %s",
                         node_what(next));
        return;
    }
    struct node *merged = copy_of(ld, *root, next->n);
    if (merged == NULL)
        return;
    if (merged->n == 0)
        merged->mark = next->mark;
    for (size_t i = 0; i < next->n; i++)
        merge_member(ld, merged, &next->members[i]);
    *root = merged;
}

static const char *from_environment(const char *name)
{
    return getenv(name);
}

static void read_text(struct loader *ld, const char *file, struct slice text, struct node **root)
{
    struct node *tree = NULL;
    report_file(&ld->rep, file);
    ld->conf->fingerprint = fold(ld->conf->fingerprint, text);
    int r = yaml_parse(&ld->rep, file, text, from_environment, &ld->conf->fingerprint, &tree);
    if (r == -ENOMEM)
        ld->failed = r;
    else if (r < 0)
        ld->is_incomplete = true;
    else
        merge_root(ld, root, tree);
}

/* 0, or why the file could not be read, which is reported. */
static int read_file(struct loader *ld, const char *file, struct node **root)
{
    CLEANUP(buf_deinit) struct buf text;
    buf_init(&text, YAML_BYTES_MAX + 1);
    struct err err = { 0 };
    int r = io_read_file(AT_FDCWD, file, &text, &err);
    if (r == -EFBIG || r == -ENOBUFS)
        report_error(&ld->rep, (struct mark){ file, 0, 0 },
                     "larger than %zu bytes: this is not a configuration", YAML_BYTES_MAX);
    else if (r < 0)
        report_error(&ld->rep, (struct mark){ file, 0, 0 }, "%s", err.text);
    else
        read_text(ld, file, buf_slice(&text), root);
    if (r < 0)
        ld->is_incomplete = true;
    watch_path(ld, slice_cstr(file));
    return r;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void take_name(struct loader *ld, const char *folder, const char *name, char **paths, size_t *n)
{
    struct slice s = slice_cstr(name);
    if (s.ptr[0] == '.')
        return;
    CLEANUP(buf_deinit) struct buf path;
    buf_init(&path, 8 * KIB);
    if (buf_printf(&path, "%s%s%s", folder, slice_ends(slice_cstr(folder), SLICE("/")) ? "" : "/", name) < 0)
        return;
    struct slice full = loader_copy(ld, buf_slice(&path));
    if (slice_ends(s, SLICE(".yml")))
        report_warning(&ld->rep, (struct mark){ full.ptr, 0, 0 },
                       "not read: only names that end with .yaml are");
    if (!slice_ends(s, SLICE(".yaml")))
        return;
    if (*n == FILES_MAX)
        report_error(&ld->rep, (struct mark){ full.ptr, 0, 0 }, "more than %d files", FILES_MAX);
    if (*n < FILES_MAX)
        paths[*n] = (char *)(uintptr_t)full.ptr;
    *n += 1;
}

/* All *.yaml in a folder, in the order of their names. 0, or -errno when the folder cannot be listed. */
static int read_folder(struct loader *ld, const char *folder, struct node **root)
{
    watch_path(ld, slice_cstr(folder)); /* a new file in it is a change as well, and so is the folder itself */
    char **paths = loader_alloc(ld, FILES_MAX * sizeof(*paths));
    DIR *dir = opendir(folder);
    if (dir == NULL || paths == NULL) {
        int r = dir == NULL ? -errno : -ENOMEM;
        if (dir != NULL)
            (void)closedir(dir); /* nothing was written */
        return r;
    }
    size_t n = 0;
    for (struct dirent *e = readdir(dir); e != NULL && n <= FILES_MAX && ld->failed == 0; e = readdir(dir))
        take_name(ld, folder, e->d_name, paths, &n);
    (void)closedir(dir); /* nothing was written */
    n = MIN(n, (size_t)FILES_MAX);
    qsort(paths, n, sizeof(*paths), by_name);
    for (size_t i = 0; i < n && ld->failed == 0; i++)
        (void)read_file(ld, paths[i], root); /* reported: the others are read to report their errors too */
    return 0;
}

static int read_conf_d(struct loader *ld, struct slice folder, struct node **root)
{
    CLEANUP(buf_deinit) struct buf path;
    buf_init(&path, 8 * KIB);
    int r = buf_append_slice(&path, folder);
    if (r == 0)
        r = buf_append_lit(&path, "conf.d");
    if (r < 0)
        return r;
    const char *name = loader_copy(ld, buf_slice(&path)).ptr;
    r = read_folder(ld, name, root);
    if (r == -ENOENT || r == -ENOTDIR)
        return 0;
    if (r < 0)
        report_error(&ld->rep, (struct mark){ name, 0, 0 }, "cannot be listed: %s", strerror(-r));
    return r;
}

/* A folder: its files, then its conf.d/. A file: itself, then conf.d/ beside it. */
static int read_all(struct loader *ld, const char *path, struct node **root)
{
    struct stat st;
    if (stat(path, &st) < 0) {
        int r = -errno;
        report_error(&ld->rep, (struct mark){ path, 0, 0 }, "cannot be read: %s", strerror(-r));
        return r;
    }
    struct slice folder = slice_cstr(path);
    int r;
    if (S_ISDIR(st.st_mode)) {
        r = read_folder(ld, path, root);
        if (r < 0)
            report_error(&ld->rep, (struct mark){ path, 0, 0 }, "cannot be listed: %s", strerror(-r));
        else if (ld->rep.n_files == 0 && ld->rep.n_errors == 0)
            report_error(&ld->rep, (struct mark){ path, 0, 0 },
                         "no file whose name ends with .yaml is in this folder");
        if (!slice_ends(folder, SLICE("/"))) {
            CLEANUP(buf_deinit) struct buf slashed;
            buf_init(&slashed, 8 * KIB);
            if (buf_append_slice(&slashed, folder) == 0 && buf_append_lit(&slashed, "/") == 0)
                folder = loader_copy(ld, buf_slice(&slashed));
        }
    } else {
        r = read_file(ld, path, root);
        folder = slice_first(folder, (size_t)(slice_rfind_byte(folder, '/') + 1));
    }
    return r < 0 ? r : read_conf_d(ld, folder, root);
}

/* ---- loading
 * ------------------------------------------------------------------------------------------------------- */

static int loader_init(struct loader *ld, const char *path, const struct output_type *types)
{
    *ld = (struct loader){ .types = types };
    struct conf *c = calloc(1, sizeof(*c));
    struct conf_private *own = calloc(1, sizeof(*own));
    if (c == NULL || own == NULL) {
        free(c);
        free(own);
        return -ENOMEM;
    }
    arena_init(&own->arena, CONF_ARENA_BYTES);
    c->private_ = own;
    ld->conf = c;
    ld->own = own;
    ld->arena = &own->arena;
    c->path = loader_copy(ld, slice_cstr(path));
    return report_init(&ld->rep, ld->arena) < 0 ? -ENOMEM : ld->failed;
}

static void check_root_keys(struct loader *ld, const struct node *root)
{
    static const struct slice sections[] = { SLICE_INIT("fields"), SLICE_INIT("inputs"),
                                             SLICE_INIT("outputs"), SLICE_INIT("routes"),
                                             SLICE_INIT("counters") };
    apply_check_keys(ld, root,
                     &(struct keyset){ .tables = { root_settings, root_raw_settings },
                                       .more = sections,
                                       .n_more = ARRAY_LEN(sections) });
}

static void build(struct loader *ld, const struct node *root)
{
    check_root_keys(ld, root);
    root_apply(ld, root);
    counters_apply(ld, root);
    inputs_apply(ld, root);
    outputs_apply(ld, root);
    if (ld->failed == 0)
        routes_apply(ld, root);
}

/* read: the errno of a first file that could not be read, or 0. */
static int loader_finish(struct loader *ld, int read, const struct node *root, struct conf **ret_conf,
                         struct buf *errors)
{
    /* After a syntax error half of the tree is missing: what it would be accused of is not the mistake. */
    if (read == 0 && ld->failed == 0 && !ld->is_incomplete)
        build(ld, root);
    if (ld->failed == 0)
        ld->failed = report_warnings(&ld->rep, &ld->conf->warnings);
    bool is_bad = ld->rep.n_errors > 0 || ld->failed != 0 || read < 0;
    int r = ld->failed != 0 ? ld->failed : read < 0 ? read : is_bad ? -EINVAL : 0;
    if (r < 0) {
        report_write(&ld->rep, errors);
        conf_free(ld->conf);
        return r;
    }
    *ret_conf = ld->conf;
    return 0;
}

static struct node empty_root(const char *name)
{
    return (struct node){ .kind = NODE_MAP, .mark = { name, 1, 1 }, .weight = 1, .height = 1 };
}

int conf_load(const char *path, const struct output_type *types, struct conf **ret_conf, struct buf *errors)
{
    struct loader ld;
    int r = loader_init(&ld, path, types);
    if (r < 0) {
        conf_free(ld.conf);
        return r;
    }
    struct node empty = empty_root(ld.conf->path.ptr), *root = &empty;
    r = read_all(&ld, ld.conf->path.ptr, &root);
    return loader_finish(&ld, r, root, ret_conf, errors);
}

int conf_load_text(const char *name, struct slice yaml, const struct output_type *types,
                   struct conf **ret_conf, struct buf *errors)
{
    struct loader ld;
    int r = loader_init(&ld, name, types);
    if (r < 0) {
        conf_free(ld.conf);
        return r;
    }
    struct node empty = empty_root(ld.conf->path.ptr), *root = &empty;
    read_text(&ld, ld.conf->path.ptr, yaml, &root);
    return loader_finish(&ld, 0, root, ret_conf, errors);
}

bool conf_reads(const struct conf *c, enum var_kind kind, struct slice key)
{
    const struct conf_private *own = c->private_;
    const struct var *v;
    for (const struct owned *o = own->owned; o != NULL; o = o->next)
        for (size_t i = 0; o->template != NULL && (v = template_var(o->template, i)) != NULL; i++)
            if (v->kind == kind && (key.ptr == NULL || slice_eq(v->key, key)))
                return true;
    return false;
}

static bool is_of_pod(const struct var *v)
{
    return v->kind == VAR_LABEL || v->kind == VAR_ANNOTATION || v->kind == VAR_NAMESPACE_LABEL;
}

/* Was it there before, in the order of the walk? */
static bool is_repeated(const struct conf_private *own, const struct var *var)
{
    const struct var *v;
    for (const struct owned *o = own->owned; o != NULL; o = o->next)
        for (size_t i = 0; o->template != NULL && (v = template_var(o->template, i)) != NULL; i++) {
            if (v == var)
                return false;
            if (v->kind == var->kind && slice_eq(v->key, var->key))
                return true;
        }
    return false;
}

uint64_t conf_reads_hash(const struct conf *c)
{
    const struct conf_private *own = c->private_;
    const struct var *v;
    uint64_t sum = 0; /* of a set: the order does not count */
    for (const struct owned *o = own->owned; o != NULL; o = o->next)
        for (size_t i = 0; o->template != NULL && (v = template_var(o->template, i)) != NULL; i++) {
            uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ v->kind; /* FNV-1a: it outlives the process */
            if (!is_of_pod(v) || is_repeated(own, v))
                continue;
            for (size_t k = 0; k < v->key.len; k++)
                hash = (hash ^ (unsigned char)v->key.ptr[k]) * UINT64_C(0x100000001b3);
            sum += hash * UINT64_C(0x9e3779b97f4a7c15);
        }
    return sum;
}

void conf_free(struct conf *c)
{
    if (c == NULL)
        return;
    struct conf_private *own = c->private_;
    for (struct owned *o = own->owned; o != NULL; o = o->next) {
        template_free(o->template);
        levels_free(o->levels);
        match_free(o->match);
    }
    wanted_keys_deinit(&c->wanted);
    arena_deinit(&own->arena);
    free(own);
    free(c);
}

/* ---- reload
 * -------------------------------------------------------------------------------------------------------- */

const char *conf_reload_obstacle(const struct conf *old_conf, const struct conf *new_conf)
{
    if (!slice_eq(old_conf->state_dir, new_conf->state_dir))
        return "state_dir cannot change while the agent runs: queues and positions live there; restart it";
    if (!slice_eq(old_conf->admin_listen, new_conf->admin_listen))
        return "admin.listen cannot change while the agent runs; restart it";
    for (size_t i = 0; i < old_conf->n_outputs; i++)
        for (size_t j = 0; j < new_conf->n_outputs; j++)
            if (slice_eq(old_conf->outputs[i].name, new_conf->outputs[j].name) &&
                strcmp(old_conf->outputs[i].type->name, new_conf->outputs[j].type->name) != 0)
                return "an output keeps its name and changes its type: its queue holds requests of the old "
                       "type; "
                       "give the new one another name";
    return NULL;
}
