#include "agent/notify.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/io.h"

static struct sockaddr_un address;
static socklen_t address_len; /* 0 = no service manager */
static int64_t watchdog_ns;

static void read_watchdog(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    uint64_t us;
    if (usec == NULL || !slice_to_u64(slice_cstr(usec), &us) || us > UINT64_C(86400000000))
        return;
    if (pid == NULL || strtol(pid, NULL, 10) == (long)getpid())
        watchdog_ns = (int64_t)us * 1000 / 2;
}

void notify_init(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    size_t len = path == NULL ? 0 : strlen(path);
    if (len >= 2 && len < sizeof(address.sun_path) && (path[0] == '/' || path[0] == '@')) {
        address.sun_family = AF_UNIX;
        memcpy(address.sun_path, path, len);
        if (path[0] == '@')
            address.sun_path[0] = '\0'; /* the abstract namespace */
        address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    }
    read_watchdog();
    (void)unsetenv("NOTIFY_SOCKET");
    (void)unsetenv("WATCHDOG_USEC");
    (void)unsetenv("WATCHDOG_PID");
}

static void send_text(const char *text)
{
    if (address_len == 0)
        return;
    CLEANUP(fd_closep) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) /* a manager that is gone changes nothing for us */
        (void)!sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&address, address_len);
}

void notify_ready(const char *status)
{
    char text[256];
    (void)snprintf(text, sizeof(text), "READY=1\nSTATUS=%s", status);
    send_text(text);
}

void notify_reloading(void)
{
    char text[96];
    (void)snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)(clock_mono_ns() / 1000));
    send_text(text);
}

void notify_stopping(void)
{
    send_text("STOPPING=1\nSTATUS=committing what was read");
}

void notify_watchdog(void)
{
    send_text("WATCHDOG=1");
}

int64_t notify_watchdog_interval_ns(void)
{
    return watchdog_ns;
}
