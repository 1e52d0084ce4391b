/*
 * agent.h - start, reload and stop of everything that a configuration describes.
 *
 * An engine is one configuration at work: queues, outputs, reader, writer, sender. A reload commits and stops the old
 * engine and starts the new one, which takes over the descriptors of live files; when the new one cannot start the old
 * configuration is started again, and nothing has changed.
 *
 * Threads: main.
 */
#ifndef TAILRACE_AGENT_AGENT_H
#define TAILRACE_AGENT_AGENT_H

#include "agent/base/err.h"
#include "conf/conf.h"

struct agent;

/* Takes conf on success. -EBUSY: another Tailrace has the state directory. */
NODISCARD int agent_start(struct conf *conf, struct agent **ret_agent, struct err *err);
/* Takes conf on success; on failure the old configuration goes on. */
NODISCARD int agent_reload(struct agent *a, struct conf *conf, struct err *err);
/* Commits everything that was read and ends within about grace_ns. NULL is fine. */
void agent_stop(struct agent *a, int64_t grace_ns);
const struct conf *agent_conf(const struct agent *a);
/* Regular small work of the main thread: free space, memory, sd_notify status. */
void agent_tick(struct agent *a);

#endif
