#include "agent/registry.h"

static const struct output_ops *const ops[] = { &loki_ops, &elasticsearch_ops, &file_ops, &stdout_ops };

const struct output_type *registry_types(void)
{
    static struct output_type types[ARRAY_LEN(ops) + 1]; /* zeroed: the last row ends it */
    /* Once, before there are threads: a reload asks again while others read the types that configurations point to. */
    for (size_t i = 0; i < ARRAY_LEN(ops); i++)
        if (types[i].name == NULL)
            types[i] = *ops[i]->type;
    return types;
}

const struct output_ops *registry_ops(const struct output_type *type)
{
    for (size_t i = 0; i < ARRAY_LEN(ops); i++)
        if (slice_eq(slice_cstr(type->name), slice_cstr(ops[i]->type->name)))
            return ops[i];
    return NULL;
}
