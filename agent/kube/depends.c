/* Which decisions of the configuration depend on what only the API says. Part of kube.h. */
#include "agent/kube/kube.h"

/* Fields may carry it on: {namespace} can be made of a label. */
#define KINDS_MAX 32
static_assert(VAR_RECORD_TENANT < KINDS_MAX, "kinds are bits");

static bool depends_on(const struct template *t, uint32_t kinds)
{
    const struct var *v;
    for (size_t i = 0; t != NULL && (v = template_var(t, i)) != NULL; i++)
        if ((kinds & 1u << v->kind) != 0)
            return true;
    return false;
}

static enum var_kind kind_of(struct slice field)
{
    struct var v = { .kind = VAR_FIELD };
    return var_parse(field, NULL, &v, NULL) < 0 ? VAR_FIELD : v.kind;
}

static bool match_depends(const struct match *m, uint32_t kinds)
{
    struct slice name;
    const struct slice *globs;
    size_t n;
    bool is_not;
    for (size_t i = 0; match_condition(m, i, &name, &globs, &n, &is_not); i++)
        if ((kinds & 1u << kind_of(name)) != 0)
            return true;
    return false;
}

bool kube_decides(const struct conf *conf, const struct conf_input *in)
{
    /* service is a label's when there is one, workload the owner's name: a path can only guess. */
    uint32_t kinds = 1u << VAR_LABEL | 1u << VAR_ANNOTATION | 1u << VAR_NAMESPACE_LABEL | 1u << VAR_SERVICE |
                     1u << VAR_WORKLOAD | 1u << VAR_WORKLOAD_KIND | 1u << VAR_IMAGE;
    for (size_t i = 0; i < in->fields.n; i++) {
        uint32_t bit = 1u << kind_of(in->fields.items[i].name);
        kinds = depends_on(in->fields.items[i].template, kinds) ? kinds | bit : kinds & ~(bit & ~(1u << VAR_FIELD));
    }
    bool is_tenant = depends_on(in->tenant, kinds) || (in->annotations & 1u << ANNOTATION_TENANT) != 0;
    bool is_route = false;
    for (size_t i = 0; i < in->n_overrides; i++)
        if (in->overrides[i].tenant != NULL)
            is_tenant |= depends_on(in->overrides[i].tenant, kinds) || match_depends(in->overrides[i].match, kinds);
    if (is_tenant)
        kinds |= 1u << VAR_TENANT;
    for (size_t i = 0; i < conf->n_routes; i++)
        is_route |= match_depends(conf->routes[i].match, kinds);
    return is_tenant || is_route;
}
