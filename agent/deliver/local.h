/*
 * local.h - outputs on this machine (file, stdout): frames in order, a checkpoint a second, then the cursor.
 *
 * deliver() runs on the sender thread and checkpoint() on the writer's, never both at once for one output: while a
 * checkpoint is out, no frame is delivered.
 */
#ifndef TAILRACE_DELIVER_LOCAL_H
#define TAILRACE_DELIVER_LOCAL_H

#include "agent/deliver/deliver.h"

NODISCARD int local_init(struct delivery *d);
void local_deinit(struct delivery *d); /* NULL local is fine */
enum output_waits local_waits(const struct delivery *d, int64_t now);
int64_t local_turn(struct delivery *d, int64_t now);
/* The last checkpoint before the end; true when there is none to wait for. */
bool local_stop(struct delivery *d, int64_t now);
int64_t local_oldest(const struct delivery *d); /* built time of the oldest frame that is not acknowledged, 0 = none */

#endif
