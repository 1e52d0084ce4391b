/*
 * notify.h - the service manager's protocol (sd_notify): a datagram to $NOTIFY_SOCKET; nothing when it is not set.
 */
#ifndef TAILRACE_AGENT_NOTIFY_H
#define TAILRACE_AGENT_NOTIFY_H

#include <stdint.h>

void notify_init(void);                 /* reads and removes the environment variables */
void notify_ready(const char *status);
void notify_reloading(void);            /* notify_ready follows */
void notify_stopping(void);
void notify_watchdog(void);
int64_t notify_watchdog_interval_ns(void); /* half of what systemd waits; 0 = no watchdog */

#endif
