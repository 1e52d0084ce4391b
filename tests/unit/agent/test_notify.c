/*
 * Goal: the service manager hears what it is to hear, over both kinds of socket, and one that is not there costs nothing.
 * Method: a datagram socket of our own; each case in a child, for notify_init reads the environment once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/notify.h"

static char dir[64];

static int listen_at(const char *name)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    const size_t len = strlen(name);
    memcpy(a.sun_path, name, len);
    if (name[0] == '@')
        a.sun_path[0] = '\0';
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)), 0);
    return fd;
}

/* In a child with this environment; the exit code is 0 when it found all as it should be. */
static void in_child(const char *socket_name, const char *usec, const char *pid, int (*body)(void))
{
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        char own[32];
        (void)snprintf(own, sizeof(own), "%ld", (long)getpid());
        (void)unsetenv("NOTIFY_SOCKET");
        if (socket_name != NULL)
            (void)setenv("NOTIFY_SOCKET", socket_name, 1);
        if (usec != NULL)
            (void)setenv("WATCHDOG_USEC", usec, 1);
        if (pid != NULL)
            (void)setenv("WATCHDOG_PID", strcmp(pid, "own") == 0 ? own : pid, 1);
        notify_init();
        if (getenv("NOTIFY_SOCKET") != NULL || getenv("WATCHDOG_USEC") != NULL || getenv("WATCHDOG_PID") != NULL)
            _exit(100); /* children of ours must not speak for us */
        _exit(body());
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int say_all(void)
{
    notify_ready("shipping");
    notify_reloading();
    notify_ready("shipping again");
    notify_watchdog();
    notify_stopping();
    return notify_watchdog_interval_ns() == 0 ? 0 : 1;
}

static void expect(int fd, const char *begins)
{
    char text[512];
    const ssize_t n = recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT);
    assert_true(n > 0);
    text[n] = '\0';
    assert_int_equal(strncmp(text, begins, strlen(begins)), 0);
}

static void test_what_is_said(void **state)
{
    char path[96], abstract[96];
    (void)state;
    (void)snprintf(path, sizeof(path), "%s/notify", dir);
    (void)snprintf(abstract, sizeof(abstract), "@tailrace-notify-%ld", (long)getpid());
    const char *const names[] = { path, abstract };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const int fd = listen_at(names[i]);
        in_child(names[i], NULL, NULL, say_all);
        expect(fd, "READY=1\nSTATUS=shipping");
        expect(fd, "RELOADING=1\nMONOTONIC_USEC=");
        expect(fd, "READY=1\nSTATUS=shipping again");
        expect(fd, "WATCHDOG=1");
        expect(fd, "STOPPING=1");
        char byte;
        assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
        (void)close(fd);
    }
    (void)unlink(path);
}

static void test_nobody_listens(void **state)
{
    (void)state;
    char long_name[300];
    memset(long_name, 'x', sizeof(long_name) - 1);
    long_name[0] = '/';
    long_name[sizeof(long_name) - 1] = '\0';
    const char *const names[] = { NULL, "", "/", "relative", "/nowhere/at/all", "@nobody-is-here", long_name };
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        in_child(names[i], NULL, NULL, say_all);
}

static int half_of_20s(void)
{
    return notify_watchdog_interval_ns() == 10 * NS_PER_SEC ? 0 : 1;
}

static int none(void)
{
    return notify_watchdog_interval_ns() == 0 ? 0 : 1;
}

static void test_watchdog(void **state)
{
    (void)state;
    in_child(NULL, "20000000", NULL, half_of_20s);
    in_child(NULL, "20000000", "own", half_of_20s);
    in_child(NULL, "20000000", "1", none); /* somebody else's */
    in_child(NULL, "soon", NULL, none);
    in_child(NULL, "-1", NULL, none);
    in_child(NULL, "99999999999999999999", NULL, none);
    in_child(NULL, "86400000001", NULL, none);
}

static int set_up(void **state)
{
    (void)state;
    (void)strcpy(dir, "/tmp/tailrace-notify-XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_said),
        cmocka_unit_test(test_nobody_listens),
        cmocka_unit_test(test_watchdog),
    };
    return cmocka_run_group_tests_name("agent/notify", tests, set_up, tear_down);
}
