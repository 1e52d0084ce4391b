#include "agent/base/record.h"

struct slice pairs_get(struct pairs p, struct slice name)
{
    for (size_t i = 0; i < p.n; i++)
        if (slice_eq(p.items[i].name, name))
            return p.items[i].value;
    return (struct slice){ "", 0 };
}
