/*
 * shim: preloaded into the agent, it makes the nth matching call to libc fail, come short, wait, or be the last thing
 * that the process does. LD_PRELOAD=shim.so TAILRACE_SHIM=PAGE tailrace run …; see shim.h for the page.
 *
 * A call matches by its name and by what it works on. Calls of the admin endpoint's threads pass: the driver asks there
 * how the agent fares.
 */
#include "shim.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum place { NOWHERE, STATE, LOGS, ARCHIVE, OTHER, NET, MEM };

static const char *const place_names[] = { "", "state", "logs", "archive", "other", "net", "mem" };
static struct shim_page *page;
static _Thread_local bool is_inside; /* the shim's own work must not be counted */

__attribute__((constructor)) static void attach(void)
{
    const char *path = getenv("TAILRACE_SHIM");
    int fd = path == NULL ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (p != MAP_FAILED)
        page = p;
}

/* --- does it match? --- */

/* Is `name` one of the words of `list`? */
static bool is_listed(const char *list, const char *name)
{
    size_t len = strlen(name);
    if (list[0] == '*')
        return true;
    for (const char *p = list; (p = strstr(p, name)) != NULL; p += len)
        if ((p == list || p[-1] == ',') && (p[len] == '\0' || p[len] == ','))
            return true;
    return false;
}

static enum place place_of_path(const char *path)
{
    for (int i = 0; i < 3; i++) {
        size_t len = strlen(page->roots[i]);
        if (len > 0 && strncmp(path, page->roots[i], len) == 0 && (path[len] == '/' || path[len] == '\0'))
            return (enum place)(STATE + i);
    }
    return strncmp(path, "socket:", 7) == 0 ? NET : OTHER;
}

static void path_of_fd(int fd, char *path, size_t size)
{
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long n = syscall(SYS_readlink, link, path, size - 1);
    path[n < 0 ? 0 : n] = '\0';
}

/* Asked each time: libc closes descriptors of its own, so a number says nothing. */
static enum place place_of_fd(int fd)
{
    char path[512];
    path_of_fd(fd, path, sizeof path);
    return place_of_path(path);
}

static void join_path(int dir_fd, const char *name, char *path, size_t size)
{
    path[0] = '\0';
    if (name[0] != '/' && dir_fd != AT_FDCWD)
        path_of_fd(dir_fd, path, size);
    size_t len = strlen(path);
    snprintf(path + len, size - len, "%s%s", len > 0 ? "/" : "", name);
}

static bool is_admin_thread(char name[16])
{
    name[0] = '\0';
    prctl(PR_GET_NAME, name);
    return strncmp(name, "MHD-", 4) == 0 || strncmp(name, "admin", 5) == 0;
}

static void count(const char *call)
{
    for (int i = 0; i < SHIM_KINDS; i++) {
        if (page->counts[i].name[0] == '\0')
            snprintf(page->counts[i].name, sizeof page->counts[i].name, "%s", call);
        if (strcmp(page->counts[i].name, call) == 0) {
            page->counts[i].n++;
            return;
        }
    }
}

static void remember_hit(const char *call, const char *thread, int fd, const char *path)
{
    if (page->hits++ > 0)
        return;
    snprintf(page->hit_call, sizeof page->hit_call, "%s", call);
    snprintf(page->hit_thread, sizeof page->hit_thread, "%s", thread);
    if (path != NULL)
        snprintf(page->hit_path, sizeof page->hit_path, "%s", path);
    else if (fd >= 0)
        path_of_fd(fd, page->hit_path, sizeof page->hit_path);
}

/* Is this call to be hit? */
static bool is_due(const char *call, enum place place, int fd, const char *path)
{
    char thread[17] = "";
    if (page == NULL || is_inside)
        return false;
    is_inside = true;
    bool due = false;
    if (!is_admin_thread(thread)) {
        count(call);
        if (page->armed && is_listed(page->calls, call) && is_listed(page->where, place_names[place])) {
            uint64_t n = ++page->matched;
            due = n >= page->nth && (page->times == 0 || n < page->nth + page->times);
        }
    }
    if (due)
        remember_hit(call, thread, fd, path);
    is_inside = false;
    return due;
}

/* --- what then? --- */

static void die(void)
{
    syscall(SYS_kill, (pid_t)syscall(SYS_getpid), SIGKILL);
    for (;;)
        pause();
}

static bool is_action(const char *name)
{
    return strcmp(page->action, name) == 0;
}

enum fate { PASS, FAIL, SHORT, DIE_AFTER };

static enum fate play(void)
{
    if (is_action("entry"))
        die();
    if (is_action("delay")) {
        struct timespec t = { page->delay_ms / 1000, (long)(page->delay_ms % 1000) * 1000000 };
        syscall(SYS_nanosleep, &t, NULL);
        return PASS;
    }
    if (is_action("exit"))
        return DIE_AFTER;
    if (is_action("short"))
        return SHORT;
    errno = page->err;
    return FAIL;
}

static enum fate fate_fd(const char *call, int fd)
{
    if (page == NULL || is_inside)
        return PASS;
    int kept = errno;
    bool due = is_due(call, place_of_fd(fd), fd, NULL);
    errno = kept;
    return due ? play() : PASS;
}

static enum fate fate_at(const char *call, int dir_fd, const char *name)
{
    char path[512];
    if (page == NULL || is_inside || name == NULL)
        return PASS;
    int kept = errno;
    join_path(dir_fd, name, path, sizeof path);
    bool due = is_due(call, place_of_path(path), -1, path);
    errno = kept;
    return due ? play() : PASS;
}

static bool is_fatal(enum fate f)
{
    return f == DIE_AFTER;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (real == NULL) \
        real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

/* Calls the real one in between; `args` in parentheses. A short transfer of a call that has none passes. */
#define CALL(type, name, verdict, failed, args) \
    REAL(name); \
    enum fate f = verdict; \
    if (f == FAIL) \
        return failed; \
    type r = real args; \
    if (is_fatal(f)) \
        die(); \
    return r

static size_t half(enum fate f, size_t n)
{
    return f == SHORT && n > 1 ? n / 2 : n;
}

/* --- files --- */

int open(const char *path, int flags, ...)
{
    REAL(open);
    va_list ap;
    va_start(ap, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    enum fate f = fate_at("open", AT_FDCWD, path);
    if (f == FAIL)
        return -1;
    int fd = real(path, flags, mode);
    if (is_fatal(f))
        die();
    return fd;
}

int openat(int dir_fd, const char *path, int flags, ...)
{
    REAL(openat);
    va_list ap;
    va_start(ap, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    enum fate f = fate_at("openat", dir_fd, path);
    if (f == FAIL)
        return -1;
    int fd = real(dir_fd, path, flags, mode);
    if (is_fatal(f))
        die();
    return fd;
}

/* Closed in any case: that is what Linux does when close fails. */
int close(int fd)
{
    REAL(close);
    enum fate f = fate_fd("close", fd);
    int err = errno;
    int r = real(fd);
    if (is_fatal(f))
        die();
    if (f != FAIL)
        return r;
    errno = err;
    return -1;
}

ssize_t read(int fd, void *data, size_t len)
{
    CALL(ssize_t, read, fate_fd("read", fd), -1, (fd, data, half(f, len)));
}

ssize_t pread(int fd, void *data, size_t len, off_t off)
{
    CALL(ssize_t, pread, fate_fd("pread", fd), -1, (fd, data, half(f, len), off));
}

ssize_t write(int fd, const void *data, size_t len)
{
    CALL(ssize_t, write, fd == 2 ? PASS : fate_fd("write", fd), -1, (fd, data, half(f, len)));
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t off)
{
    CALL(ssize_t, pwrite, fate_fd("pwrite", fd), -1, (fd, data, half(f, len), off));
}

/* A short one ends within the second half of its buffers. */
ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
    REAL(pwritev);
    enum fate f = fate_fd("pwritev", fd);
    if (f == FAIL)
        return -1;
    struct iovec last;
    if (f == SHORT && n == 1) {
        last = (struct iovec){ iov[0].iov_base, half(f, iov[0].iov_len) };
        return real(fd, &last, 1, off);
    }
    ssize_t r = real(fd, iov, f == SHORT ? n / 2 : n, off);
    if (is_fatal(f))
        die();
    return r;
}

int fdatasync(int fd)
{
    CALL(int, fdatasync, fate_fd("fdatasync", fd), -1, (fd));
}

int fsync(int fd)
{
    CALL(int, fsync, fate_fd("fsync", fd), -1, (fd));
}

int ftruncate(int fd, off_t len)
{
    CALL(int, ftruncate, fate_fd("ftruncate", fd), -1, (fd, len));
}

int fallocate(int fd, int mode, off_t off, off_t len)
{
    CALL(int, fallocate, fate_fd("fallocate", fd), -1, (fd, mode, off, len));
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    CALL(int, renameat, fate_at("renameat", from_fd, from), -1, (from_fd, from, to_fd, to));
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    CALL(int, renameat2, fate_at("renameat2", from_fd, from), -1, (from_fd, from, to_fd, to, flags));
}

int rename(const char *from, const char *to)
{
    CALL(int, rename, fate_at("rename", AT_FDCWD, from), -1, (from, to));
}

int unlink(const char *path)
{
    CALL(int, unlink, fate_at("unlink", AT_FDCWD, path), -1, (path));
}

int unlinkat(int dir_fd, const char *path, int flags)
{
    CALL(int, unlinkat, fate_at("unlinkat", dir_fd, path), -1, (dir_fd, path, flags));
}

int mkdir(const char *path, mode_t mode)
{
    CALL(int, mkdir, fate_at("mkdir", AT_FDCWD, path), -1, (path, mode));
}

int mkdirat(int dir_fd, const char *path, mode_t mode)
{
    CALL(int, mkdirat, fate_at("mkdirat", dir_fd, path), -1, (dir_fd, path, mode));
}

int fchmod(int fd, mode_t mode)
{
    CALL(int, fchmod, fate_fd("fchmod", fd), -1, (fd, mode));
}

int flock(int fd, int operation)
{
    CALL(int, flock, fate_fd("flock", fd), -1, (fd, operation));
}

int ioctl(int fd, unsigned long request, ...)
{
    REAL(ioctl);
    va_list ap;
    va_start(ap, request);
    void *arg = va_arg(ap, void *);
    va_end(ap);
    enum fate f = fate_fd("ioctl", fd);
    if (f == FAIL)
        return -1;
    int r = real(fd, request, arg);
    if (is_fatal(f))
        die();
    return r;
}

/* --- what is there? --- */

int stat(const char *path, struct stat *st)
{
    CALL(int, stat, fate_at("stat", AT_FDCWD, path), -1, (path, st));
}

int fstat(int fd, struct stat *st)
{
    CALL(int, fstat, fate_fd("fstat", fd), -1, (fd, st));
}

int fstatat(int dir_fd, const char *path, struct stat *st, int flags)
{
    CALL(int, fstatat, fate_at("fstatat", dir_fd, path), -1, (dir_fd, path, st, flags));
}

int statx(int dir_fd, const char *path, int flags, unsigned mask, struct statx *st)
{
    CALL(int, statx, path[0] == '\0' ? fate_fd("statx", dir_fd) : fate_at("statx", dir_fd, path), -1,
         (dir_fd, path, flags, mask, st));
}

int fstatvfs(int fd, struct statvfs *st)
{
    CALL(int, fstatvfs, fate_fd("fstatvfs", fd), -1, (fd, st));
}

DIR *opendir(const char *path)
{
    CALL(DIR *, opendir, fate_at("opendir", AT_FDCWD, path), NULL, (path));
}

DIR *fdopendir(int fd)
{
    CALL(DIR *, fdopendir, fate_fd("fdopendir", fd), NULL, (fd));
}

struct dirent *readdir(DIR *d)
{
    CALL(struct dirent *, readdir, fate_fd("readdir", dirfd(d)), NULL, (d));
}

int inotify_init1(int flags)
{
    CALL(int, inotify_init1, fate_fd("inotify_init1", -1), -1, (flags));
}

int inotify_add_watch(int fd, const char *path, uint32_t mask)
{
    CALL(int, inotify_add_watch, fate_at("inotify_add_watch", AT_FDCWD, path), -1, (fd, path, mask));
}

/* --- the network --- */

int socket(int domain, int type, int protocol)
{
    REAL(socket);
    if (page != NULL && is_due("socket", NET, -1, NULL) && play() == FAIL)
        return -1;
    return real(domain, type, protocol);
}

int connect(int fd, const struct sockaddr *address, socklen_t len)
{
    CALL(int, connect, fate_fd("connect", fd), -1, (fd, address, len));
}

ssize_t send(int fd, const void *data, size_t len, int flags)
{
    CALL(ssize_t, send, fate_fd("send", fd), -1, (fd, data, half(f, len), flags));
}

ssize_t recv(int fd, void *data, size_t len, int flags)
{
    CALL(ssize_t, recv, fate_fd("recv", fd), -1, (fd, data, half(f, len), flags));
}

int epoll_wait(int fd, struct epoll_event *events, int n, int timeout)
{
    CALL(int, epoll_wait, fate_fd("epoll_wait", fd), -1, (fd, events, n, timeout));
}

int poll(struct pollfd *fds, nfds_t n, int timeout)
{
    CALL(int, poll, fate_fd("poll", -1), -1, (fds, n, timeout));
}

/* --- memory --- */

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);

/* An allocation knows no waiting and no half: all but a failure, a delay and an end passes. */
static bool is_denied(const char *call)
{
    if (page == NULL || !page->armed || is_inside || !is_due(call, MEM, -1, NULL))
        return false;
    if (play() != FAIL)
        return false;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t size)
{
    return is_denied("malloc") ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    return is_denied("calloc") ? NULL : __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
    return is_denied("realloc") ? NULL : __libc_realloc(old, size);
}

/* --- the wall clock --- */

int clock_gettime(clockid_t which, struct timespec *t)
{
    REAL(clock_gettime);
    int r = real(which, t);
    if (r < 0 || page == NULL || (which != CLOCK_REALTIME && which != CLOCK_REALTIME_COARSE))
        return r;
    int64_t ns = page->clock_frozen_ns;
    if (ns == 0)
        ns = (int64_t)t->tv_sec * 1000000000 + t->tv_nsec + page->clock_offset_ns;
    *t = (struct timespec){ ns / 1000000000, ns % 1000000000 };
    return 0;
}

time_t time(time_t *ret)
{
    struct timespec t = { 0 };
    clock_gettime(CLOCK_REALTIME, &t);
    if (ret != NULL)
        *ret = t.tv_sec;
    return t.tv_sec;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    (void)zone;
    struct timespec t = { 0 };
    clock_gettime(CLOCK_REALTIME, &t);
    *tv = (struct timeval){ t.tv_sec, t.tv_nsec / 1000 };
    return 0;
}
