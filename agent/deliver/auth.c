#include "agent/deliver/auth.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "agent/base/base64.h"
#include "agent/base/clock.h"
#include "agent/base/io.h"

#define SECRET_BYTES_MAX (16 * KIB)
#define LOOK_EVERY_NS NS_PER_SEC

bool file_stamp_changed(struct file_stamp *st, const char *path)
{
    struct stat s;
    struct file_stamp now = { 0 };
    if (stat(path, &s) == 0)
        now = (struct file_stamp){ s.st_dev, s.st_ino, s.st_size,
                                   (int64_t)s.st_mtim.tv_sec * NS_PER_SEC + s.st_mtim.tv_nsec };
    const bool is_same = now.dev == st->dev && now.ino == st->ino && now.size == st->size &&
                         now.mtime_ns == st->mtime_ns;
    *st = now;
    return !is_same;
}

static struct slice secret_path(const struct http_conf *c)
{
    if (c->password_file.len > 0)
        return c->password_file;
    return c->bearer_file.len > 0 ? c->bearer_file : c->api_key_file;
}

int auth_init(struct auth *a, const struct http_conf *conf)
{
    *a = (struct auth){ .conf = conf };
    buf_init(&a->header, 2 * SECRET_BYTES_MAX);
    if (secret_path(conf).len == 0)
        return 0;
    a->path = slice_dup(secret_path(conf));
    return a->path == NULL ? -ENOMEM : 0;
}

void auth_deinit(struct auth *a)
{
    buf_deinit(&a->header);
    free(a->path);
    *a = (struct auth){ 0 };
}

void auth_distrust(struct auth *a)
{
    a->looked_mono_ns = 0;
    a->stamp = (struct file_stamp){ 0 };
}

static int append_basic(struct buf *out, struct slice username, struct slice password)
{
    struct buf pair;
    buf_init(&pair, 2 * SECRET_BYTES_MAX);
    int r = buf_append_slice(&pair, username);
    if (r == 0)
        r = buf_append_byte(&pair, ':');
    if (r == 0)
        r = buf_append_slice(&pair, password);
    if (r == 0)
        r = buf_append_lit(out, "Authorization: Basic ");
    if (r == 0)
        r = base64_encode(buf_slice(&pair), out);
    buf_deinit(&pair);
    return r;
}

/* Keys are handed out as "id:key" and, more often, already encoded; the colon tells. */
static int append_api_key(struct buf *out, struct slice key)
{
    int r = buf_append_lit(out, "Authorization: ApiKey ");
    if (r < 0)
        return r;
    return slice_find_byte(key, ':') >= 0 ? base64_encode(key, out) : buf_append_slice(out, key);
}

static int build(const struct http_conf *c, struct slice secret, struct buf *out)
{
    if (c->username.len > 0)
        return append_basic(out, c->username, c->password_file.len > 0 ? secret : c->password);
    if (c->bearer.len > 0 || c->bearer_file.len > 0) {
        int r = buf_append_lit(out, "Authorization: Bearer ");
        return r < 0 ? r : buf_append_slice(out, c->bearer_file.len > 0 ? secret : c->bearer);
    }
    if (c->api_key.len > 0 || c->api_key_file.len > 0)
        return append_api_key(out, c->api_key_file.len > 0 ? secret : c->api_key);
    return 0;
}

static int rebuild(struct auth *a, struct err *err)
{
    struct buf secret, header;
    buf_init(&secret, SECRET_BYTES_MAX);
    buf_init(&header, 2 * SECRET_BYTES_MAX);
    int r = a->path == NULL ? 0 : io_read_file(AT_FDCWD, a->path, &secret, err);
    if (r == 0)
        r = build(a->conf, slice_trim(buf_slice(&secret)), &header);
    /* A secret with a line break inside would end our header and begin another. */
    if (r == 0 && (slice_find_byte(buf_slice(&header), '\n') >= 0 || slice_find_byte(buf_slice(&header), '\r') >= 0 ||
                   slice_find_byte(buf_slice(&header), '\0') >= 0))
        r = err_say(err, -EINVAL, "the secret in %s holds more than one line", a->path != NULL ? a->path : "the config");
    if (r == 0) {
        const struct buf old = a->header;
        a->header = header;
        header = old;
    }
    buf_deinit(&secret);
    buf_deinit(&header);
    return r;
}

int auth_refresh(struct auth *a, struct err *err)
{
    const int64_t now = clock_mono_ns();
    const bool is_first = a->looked_mono_ns == 0;
    if (!is_first && (a->path == NULL || now - a->looked_mono_ns < LOOK_EVERY_NS))
        return 0;
    a->looked_mono_ns = MAX(now, 1);
    if (a->path != NULL && !file_stamp_changed(&a->stamp, a->path) && !is_first)
        return 0;
    int r = rebuild(a, err);
    if (r < 0)
        a->stamp = (struct file_stamp){ .size = -1 }; /* look again next time, even when nothing changes */
    return r;
}
