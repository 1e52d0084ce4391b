/*
 * All numbers little-endian; a text is its length (u32) and its bytes.
 *
 *   off  size  field
 *     0     8  "TRPODS1\n"
 *     8     8  key      of node, server and used names
 *    16     4  len      bytes behind this head
 *    20     4  crc32    of them
 *    24        text resourceVersion of pods, text of namespaces, then entries up to the end:
 *              u8 flags (1: deleted) · texts namespace, name, uid, uid in paths, workload kind, workload ·
 *              three lists (labels, annotations, images): u32 count, then name and value of each
 */
#include "agent/kube/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <zlib.h>

#include "agent/base/bytes.h"
#include "agent/base/clock.h"
#include "agent/base/io.h"

#define HEAD_BYTES 24
#define FLAG_DELETED 1
static const struct slice magic = SLICE_INIT("TRPODS1\n");

/* ---- writing ---- */

static int put_u32(struct buf *b, uint32_t v)
{
    char raw[4];
    put_le32(raw, v);
    return buf_append(b, raw, sizeof(raw));
}

static int put_text(struct buf *b, struct slice s)
{
    int r = put_u32(b, (uint32_t)s.len);
    return r < 0 ? r : buf_append_slice(b, s);
}

static int put_pairs(struct buf *b, struct pairs p)
{
    int r = put_u32(b, (uint32_t)p.n);
    for (size_t i = 0; r == 0 && i < p.n; i++) {
        r = put_text(b, p.items[i].name);
        r = r < 0 ? r : put_text(b, p.items[i].value);
    }
    return r;
}

static int put_pod(void *ctx, const struct pod *p, bool is_deleted)
{
    struct buf *b = ctx;
    const struct slice texts[] = { p->namespace_, p->name, p->uid, p->path_uid, p->workload_kind, p->workload };
    int r = buf_append_byte(b, is_deleted ? FLAG_DELETED : 0);
    for (size_t i = 0; r == 0 && i < ARRAY_LEN(texts); i++)
        r = put_text(b, texts[i]);
    r = r < 0 ? r : put_pairs(b, p->labels);
    r = r < 0 ? r : put_pairs(b, p->annotations);
    return r < 0 ? r : put_pairs(b, p->images);
}

int cache_encode(const struct cache_head *head, struct podtable *t, struct buf *out)
{
    buf_reset(out);
    int r = buf_append_slice(out, magic);
    r = r < 0 ? r : buf_append_fill(out, 0, HEAD_BYTES - magic.len);
    r = r < 0 ? r : put_text(out, head->pods);
    r = r < 0 ? r : put_text(out, head->namespaces);
    r = r < 0 ? r : podtable_each(t, put_pod, out);
    if (r < 0)
        return r;
    put_le64(out->ptr + 8, head->key);
    put_le32(out->ptr + 16, (uint32_t)(out->len - HEAD_BYTES));
    put_le32(out->ptr + 20, (uint32_t)crc32(0, (const Bytef *)out->ptr + HEAD_BYTES, (uInt)(out->len - HEAD_BYTES)));
    return 0;
}

int cache_save(const char *dir, const struct cache_head *head, struct podtable *t, struct err *err)
{
    CLEANUP(buf_deinit) struct buf b;
    buf_init_in(&b, CACHE_BYTES_MAX, ACCOUNT_OF(MEMORY_FILES));
    int r = cache_encode(head, t, &b);
    if (r < 0)
        return err_set(err, r, "cannot write down what is known of pods");
    r = io_mkdirs(dir, 0700, err);
    if (r < 0)
        return r;
    CLEANUP(fd_closep) int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, -errno, "cannot open %s", dir);
    return io_replace_file(fd, "pods", buf_slice(&b), 0600, err);
}

/* ---- reading ---- */

struct cursor {
    struct slice rest;
    bool is_bad;
};

static struct slice take(struct cursor *c, size_t n)
{
    if (c->is_bad || n > c->rest.len) {
        c->is_bad = true;
        return SLICE("");
    }
    struct slice s = slice_first(c->rest, n);
    c->rest = slice_from(c->rest, n);
    return s;
}

static uint32_t take_u32(struct cursor *c)
{
    struct slice s = take(c, 4);
    return s.len == 4 ? get_le32(s.ptr) : 0;
}

static struct slice take_text(struct cursor *c)
{
    return take(c, take_u32(c));
}

static struct pairs take_pairs(struct cursor *c, struct pair items[EVENT_PAIRS_MAX])
{
    uint32_t n = take_u32(c);
    c->is_bad |= n > EVENT_PAIRS_MAX;
    for (uint32_t i = 0; !c->is_bad && i < n; i++) {
        items[i].name = take_text(c);
        items[i].value = take_text(c);
    }
    return (struct pairs){ items, c->is_bad ? 0 : n };
}

static int take_pod(struct cursor *c, struct podtable *t)
{
    struct pair labels[EVENT_PAIRS_MAX], annotations[EVENT_PAIRS_MAX], images[EVENT_PAIRS_MAX];
    struct slice flags = take(c, 1);
    struct pod p = { 0 };
    p.namespace_ = take_text(c);
    p.name = take_text(c);
    p.uid = take_text(c);
    p.path_uid = take_text(c);
    p.workload_kind = take_text(c);
    p.workload = take_text(c);
    p.labels = take_pairs(c, labels);
    p.annotations = take_pairs(c, annotations);
    p.images = take_pairs(c, images);
    if (c->is_bad)
        return -EBADMSG;
    struct pod *pod = pod_pack(&p);
    int r = pod == NULL ? -ENOMEM : podtable_put(t, pod, NULL);
    if (r == 0 && (flags.ptr[0] & FLAG_DELETED) != 0)
        podtable_delete(t, p.namespace_, p.name, p.uid, clock_mono_ns());
    return r;
}

/* key NULL: any. */
static int decode(struct slice bytes, const uint64_t *key, struct podtable *t, struct cache_head *ret_head)
{
    if (bytes.len < HEAD_BYTES || !slice_starts(bytes, magic))
        return -EBADMSG;
    struct cursor c = { .rest = slice_from(bytes, HEAD_BYTES) };
    if (get_le32(bytes.ptr + 16) != c.rest.len ||
        get_le32(bytes.ptr + 20) != (uint32_t)crc32(0, (const Bytef *)c.rest.ptr, (uInt)c.rest.len))
        return -EBADMSG;
    struct cache_head head = { .key = get_le64(bytes.ptr + 8) };
    if (key != NULL && head.key != *key)
        return -ESTALE;
    head.pods = take_text(&c);
    head.namespaces = take_text(&c);
    int r = c.is_bad ? -EBADMSG : 0;
    while (r == 0 && c.rest.len > 0)
        r = take_pod(&c, t);
    if (r == 0)
        *ret_head = head;
    return r;
}

int cache_decode(struct slice bytes, uint64_t key, struct podtable *t, struct cache_head *ret_head)
{
    return decode(bytes, &key, t, ret_head);
}

static int load(const char *dir, const uint64_t *key, struct podtable *t, struct cache_head *ret_head, struct buf *text)
{
    char path[4200];
    struct err err = { 0 };
    (void)snprintf(path, sizeof(path), "%s/pods", dir);
    int r = io_read_file(AT_FDCWD, path, text, &err);
    return r < 0 ? r : decode(buf_slice(text), key, t, ret_head);
}

int cache_load(const char *dir, uint64_t key, struct podtable *t, struct cache_head *ret_head, struct buf *text)
{
    return load(dir, &key, t, ret_head, text);
}

int cache_peek(const char *dir, struct podtable *t)
{
    CLEANUP(buf_deinit) struct buf text;
    struct cache_head head;
    buf_init(&text, CACHE_BYTES_MAX);
    return load(dir, NULL, t, &head, &text);
}
