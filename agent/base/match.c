#include "agent/base/match.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/base/suggest.h"

struct condition {
    struct slice name;
    struct var var;
    bool is_not;
    size_t n_globs;
    struct slice *globs; /* this array, the name and the globs' bytes are one block */
};

struct match {
    struct condition *items;
    size_t n;
    bool is_static;
};

struct match *match_new(void)
{
    struct match *m = calloc(1, sizeof(*m));
    if (m != NULL)
        m->is_static = true;
    return m;
}

void match_free(struct match *m)
{
    if (m == NULL)
        return;
    for (size_t i = 0; i < m->n; i++)
        free(m->items[i].globs);
    free(m->items);
    free(m);
}

bool match_condition(const struct match *m, size_t i, struct slice *ret_name, const struct slice **ret_globs,
                     size_t *ret_n_globs, bool *ret_is_not)
{
    if (m == NULL || i >= m->n)
        return false;
    *ret_name = m->items[i].name;
    *ret_globs = m->items[i].globs;
    *ret_n_globs = m->items[i].n_globs;
    *ret_is_not = m->items[i].is_not;
    return true;
}

bool match_is_static(const struct match *m)
{
    return m == NULL || m->is_static;
}

static int check_name(struct slice name, struct err *err)
{
    static const struct slice known[] = { SLICE_INIT("tenant"),  SLICE_INIT("namespace"),
                                          SLICE_INIT("pod"),     SLICE_INIT("container"),
                                          SLICE_INIT("service"), SLICE_INIT("input"),
                                          SLICE_INIT("level"),   SLICE_INIT("module"),
                                          SLICE_INIT("message") };
    if (slice_starts(name, SLICE("record.")))
        return 0;
    struct suggestion s;
    suggest_init(&s, name);
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (slice_eq(name, known[i]))
            return 0;
        suggest_offer(&s, known[i]);
    }
    if (s.best.len > 0)
        return err_say(err, -EINVAL, "\"%.*s\" cannot be matched; did you mean \"%.*s\"?", SLICE_ARGS(name),
                       SLICE_ARGS(s.best));
    return err_say(
        err, -EINVAL,
        "\"%.*s\" cannot be matched; expected tenant, namespace, pod, container, service, input, level, "
        "module, message or record.KEY",
        SLICE_ARGS(name));
}

/* "ERROR", "warning" and "crit" mean the level, not the letters. */
static struct slice canonical_glob(enum var_kind kind, struct slice glob)
{
    if (kind != VAR_LEVEL)
        return glob;
    enum level level = level_from_name(glob);
    return level == LEVEL_UNKNOWN ? glob : level_name(level);
}

static struct slice put(char **at, struct slice s)
{
    struct slice copy = { *at, s.len };
    if (s.len > 0)
        memcpy(*at, s.ptr, s.len);
    *at += s.len;
    return copy;
}

/* The array of globs with everything it points to behind it. */
static int condition_init(struct condition *c, struct slice name, const struct slice *globs, size_t n)
{
    size_t bytes = name.len + 1;
    for (size_t i = 0; i < n; i++)
        bytes += canonical_glob(c->var.kind, globs[i]).len;
    c->globs = malloc(n * sizeof(*globs) + bytes);
    if (c->globs == NULL)
        return -ENOMEM;
    char *at = (char *)(c->globs + n);
    struct slice own = put(&at, name);
    c->name = own;
    if (c->var.key.len > 0) /* the key borrows from the caller's name: let it borrow from ours */
        c->var.key = slice_from(own, own.len - c->var.key.len);
    for (size_t i = 0; i < n; i++)
        c->globs[i] = put(&at, canonical_glob(c->var.kind, globs[i]));
    c->n_globs = n;
    return 0;
}

int match_add(struct match *m, struct slice name, const struct slice *globs, size_t n_globs, bool is_not,
              struct wanted_keys *w, struct err *err)
{
    int r = check_name(name, err);
    if (r < 0)
        return r;
    struct condition c = { .is_not = is_not };
    r = var_parse(name, w, &c.var, err);
    if (r < 0)
        return r;

    struct condition *items = realloc(m->items, (m->n + 1) * sizeof(*items));
    if (items == NULL)
        return err_set(err, -ENOMEM, "cannot keep a match");
    m->items = items;
    r = condition_init(&c, name, globs, n_globs);
    if (r < 0)
        return err_set(err, r, "cannot keep a match");
    m->items[m->n++] = c;
    m->is_static = m->is_static && var_is_static(&c.var);
    return 0;
}

/* A value that is not there matches only the empty glob: "*" asks for something to be there. */
static bool condition_holds(const struct condition *c, const struct record *rec)
{
    struct slice value = var_get(&c->var, rec);
    for (size_t i = 0; i < c->n_globs; i++) {
        bool hit = value.len == 0 ? c->globs[i].len == 0 : slice_glob(c->globs[i], value);
        if (hit)
            return !c->is_not;
    }
    return c->is_not;
}

bool match_eval(const struct match *m, const struct record *rec)
{
    if (m == NULL)
        return true;
    for (size_t i = 0; i < m->n; i++)
        if (!condition_holds(&m->items[i], rec))
            return false;
    return true;
}
