/*
 * registry.h - the only place that names the concrete outputs.
 */
#ifndef TAILRACE_AGENT_REGISTRY_H
#define TAILRACE_AGENT_REGISTRY_H

#include "outputs/output.h"

/* For conf_load: ends with a row whose name is NULL. */
const struct output_type *registry_types(void);
/* The operations of a type; NULL for a type that is not ours. */
const struct output_ops *registry_ops(const struct output_type *type);

#endif
