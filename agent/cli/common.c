#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/base/io.h"
#include "agent/cli/cli.h"
#include "agent/registry.h"

#define ASK_TIMEOUT_MS 5000L

int cli_load(const char *path, struct conf **ret_conf)
{
    struct buf errors;
    buf_init(&errors, MIB);
    int r = conf_load(path, registry_types(), ret_conf, &errors);
    struct slice rest = slice_trim(buf_slice(&errors));
    while (r < 0 && rest.len > 0) { /* a line each, with the program's name before it */
        ptrdiff_t lf = slice_find_byte(rest, '\n');
        struct slice line = lf < 0 ? rest : slice_first(rest, (size_t)lf);
        fprintf(stderr, "tailrace: %.*s\n", SLICE_ARGS(line));
        rest = lf < 0 ? slice_first(rest, 0) : slice_from(rest, (size_t)lf + 1);
    }
    buf_deinit(&errors);
    return r < 0 ? EXIT_MISUSE : EXIT_FINE;
}

int cli_misuse(const char *command, const char *fmt, ...)
{
    va_list args;
    fprintf(stderr, "tailrace %s: ", command);
    va_start(args, fmt);
    (void)vfprintf(stderr, fmt, args);
    va_end(args);
    fprintf(stderr, "; see tailrace %s --help\n", command);
    return EXIT_MISUSE;
}

static size_t take_body(char *ptr, size_t size, size_t n, void *ctx)
{
    return buf_append(ctx, ptr, size * n) < 0 ? 0 : n;
}

/* admin.addr is there while an agent runs; admin.listen says where it would be. "[::]" and "0.0.0.0" are asked here. */
static int admin_address(const struct conf *c, struct buf *url)
{
    char dir[4096];
    struct buf text;
    buf_init(&text, 512);
    (void)snprintf(dir, sizeof(dir), "%.*s/admin.addr", SLICE_ARGS(c->state_dir));
    struct slice at = c->admin_listen;
    if (io_read_file(AT_FDCWD, dir, &text, NULL) == 0)
        at = slice_trim(buf_slice(&text));
    ptrdiff_t colon = slice_rfind_byte(at, ':');
    struct slice host = colon < 0 ? SLICE("") : slice_first(at, (size_t)colon);
    if (host.len == 0 || slice_eq(host, SLICE("0.0.0.0")))
        host = SLICE("127.0.0.1");
    else if (slice_eq(host, SLICE("[::]")))
        host = SLICE("[::1]");
    int r = colon < 0 ? -ENOTCONN
                      : buf_printf(url, "http://%.*s%.*s", SLICE_ARGS(host), SLICE_ARGS(slice_from(at, (size_t)colon)));
    buf_deinit(&text);
    return r;
}

/* socket: of a file, or NULL. */
static int ask(const char *url, const char *method, const char *socket, struct buf *body)
{
    CURL *h = curl_easy_init();
    long status = 0;
    if (h == NULL)
        return -ENOMEM;
    curl_easy_setopt(h, CURLOPT_URL, url);
    curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, method);
    if (socket != NULL)
        curl_easy_setopt(h, CURLOPT_UNIX_SOCKET_PATH, socket);
    curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http");
    curl_easy_setopt(h, CURLOPT_PROXY, ""); /* the agent is on this machine */
    curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(h, CURLOPT_TIMEOUT_MS, ASK_TIMEOUT_MS);
    curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(h, CURLOPT_WRITEDATA, body);
    CURLcode code = curl_easy_perform(h);
    if (code == CURLE_OK)
        curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_cleanup(h);
    return code == CURLE_OK ? (int)status : code == CURLE_OPERATION_TIMEDOUT ? -ETIMEDOUT : -ECONNREFUSED;
}

int cli_ask_admin(const char *config_path, const char *path, struct buf *body)
{
    struct conf *c;
    struct buf url;
    if (cli_load(config_path, &c) != EXIT_FINE)
        return -EINVAL;
    buf_init(&url, 8192);
    int r = c->admin_listen.len == 0 ? -ENOTCONN : admin_address(c, &url);
    if (r == 0)
        r = buf_append_cstr(&url, path);
    if (r == 0)
        r = buf_terminate(&url);
    if (r == 0)
        r = ask(url.ptr, "GET", NULL, body);
    buf_deinit(&url);
    conf_free(c);
    return r;
}

int cli_ask_local(const char *config_path, const char *method, const char *path, struct buf *body)
{
    struct conf *c;
    char text[4096], url[8192];
    if (cli_load(config_path, &c) != EXIT_FINE)
        return -EINVAL;
    (void)snprintf(text, sizeof(text), "%.*s", SLICE_ARGS(c->state_dir));
    conf_free(c);
    CLEANUP(fd_closep) int dir_fd = open(text, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return -ENOTCONN;
    (void)snprintf(text, sizeof(text), "/proc/self/fd/%d/admin.sock", dir_fd); /* a socket's path is short */
    if (snprintf(url, sizeof(url), "http://localhost%s", path) >= (int)sizeof(url))
        return -EINVAL;
    return access(text, R_OK | W_OK) < 0 && errno == EACCES ? -EACCES : ask(url, method, text, body);
}
