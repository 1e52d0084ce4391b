/*
 * tenants.h - names made dense: the same name has the same id as long as the process lives.
 *
 * Threads: intern from any (a lock inside); names are never freed, so slices stay valid.
 */
#ifndef TAILRACE_BASE_TENANTS_H
#define TAILRACE_BASE_TENANTS_H

#include <stdint.h>

#include "agent/base/slice.h"

/* The id of a name, new ones from 1 on; 0 beyond a million. Waits for memory (must.h). */
uint32_t tenant_intern(struct slice name);
struct slice tenant_name(uint32_t id); /* empty for unknown ids */
uint32_t tenant_count(void);           /* ids are 1..count */

#endif
