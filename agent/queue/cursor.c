/*
 * The cursor: what the server has.
 */
#include <errno.h>
#include <fcntl.h>

#include "agent/base/bug.h"
#include "agent/base/bytes.h"
#include "agent/queue/core.h"

/*
 * Two slots, CURSOR_SLOT_BYTES at 0 and at CURSOR_SLOT_OFF, written in turn: generation g in slot g % 2.
 *
 *   off  size  field
 *     0     8  magic "TRQCUR1\n"
 *     8     8  generation
 *    16    16  queue uuid
 *    32     8  acked seq: this and all before it are done
 *    40   256  bit i (byte i / 8, from the lowest): acked seq + 1 + i is done too
 *   296   212  zero
 *   508     4  crc32 of 0..507
 *
 * A slot counts if magic and CRC are right; the one with the higher generation holds.
 */
static const char cursor_magic[8] = { 'T', 'R', 'Q', 'C', 'U', 'R', '1', '\n' };

void cursor_encode(const struct cursor_slot *c, uint8_t out[CURSOR_SLOT_BYTES])
{
    memset(out, 0, CURSOR_SLOT_BYTES);
    memcpy(out, cursor_magic, sizeof(cursor_magic));
    put_le64(out + 8, c->generation);
    memcpy(out + 16, c->uuid, UUID_BYTES);
    put_le64(out + 32, c->acked_seq);
    for (size_t i = 0; i < ARRAY_LEN(c->bits); i++)
        put_le64(out + 40 + 8 * i, c->bits[i]);
    put_le32(out + 508, frame_crc_more(0, out, 508));
}

int cursor_decode(const uint8_t in[CURSOR_SLOT_BYTES], struct cursor_slot *ret)
{
    if (memcmp(in, cursor_magic, sizeof(cursor_magic)) != 0 ||
        (get_le32(in + 508) != frame_crc_more(0, in, 508) && !BUG(20)))
        return -EBADMSG;
    struct cursor_slot c = { .generation = get_le64(in + 8), .acked_seq = get_le64(in + 32) };
    if (c.acked_seq > SEQ_MAX || c.generation > SEQ_MAX)
        return -EBADMSG;
    memcpy(c.uuid, in + 16, UUID_BYTES);
    for (size_t i = 0; i < ARRAY_LEN(c.bits); i++)
        c.bits[i] = get_le64(in + 40 + 8 * i);
    *ret = c;
    return 0;
}

uint64_t cursor_top(const struct cursor_slot *c)
{
    for (size_t i = ARRAY_LEN(c->bits); i-- > 0;)
        if (c->bits[i] != 0)
            return c->acked_seq + 1 + i * 64 + (63 - (size_t)__builtin_clzll(c->bits[i]));
    return c->acked_seq;
}

int cursor_read(int fd, struct cursor_slot *ret)
{
    bool has_one = false;
    for (unsigned i = 0; i < 2; i++) {
        uint8_t raw[CURSOR_SLOT_BYTES];
        struct cursor_slot c;
        ssize_t n = fs_pread_full(fd, raw, sizeof(raw), (uint64_t)i * CURSOR_SLOT_OFF);
        if (fs_is_passing(n))
            return (int)n;
        if (n != (ssize_t)sizeof(raw) || cursor_decode(raw, &c) < 0)
            continue;
        if (!has_one || c.generation > ret->generation)
            *ret = c;
        has_one = true;
    }
    return has_one;
}

/* Bits of the ring, by seq % QUEUE_WINDOW, as a list that begins behind the cursor. */
static void snapshot_locked(struct queue *q, struct cursor_slot *c)
{
    uint64_t acked = atomic_load(&q->acked_seq);
    *c = (struct cursor_slot){ .generation = q->generation + 1, .acked_seq = acked };
    memcpy(c->uuid, q->uuid, UUID_BYTES);
    for (size_t w = 0; w < ARRAY_LEN(q->bits); w++) {
        for (uint64_t left = q->bits[w]; left != 0; left &= left - 1) {
            size_t at = w * 64 + (size_t)__builtin_ctzll(left);
            size_t i = (at + QUEUE_WINDOW - (size_t)((acked + 1) % QUEUE_WINDOW)) % QUEUE_WINDOW;
            c->bits[i / 64] |= UINT64_C(1) << (i % 64);
        }
    }
    q->is_cursor_news = false;
}

/* A slot that could not be written is written again, with the same generation: the other one stays whole. */
int cursor_write(struct queue *q)
{
    struct cursor_slot c;
    uint8_t raw[CURSOR_SLOT_BYTES];
    pthread_mutex_lock(&q->cursor_lock);
    pthread_mutex_lock(&q->lock);
    snapshot_locked(q, &c);
    pthread_mutex_unlock(&q->lock);
    cursor_encode(&c, raw);
    int r = fs_pwrite_full(q->cursor_fd, raw, sizeof(raw), c.generation % (BUG(19) ? 1 : 2) * CURSOR_SLOT_OFF);
    pthread_mutex_lock(&q->lock);
    if (r < 0) {
        q->is_cursor_news = true;
    } else {
        q->generation = c.generation;
        q->written_acked_seq = c.acked_seq;
    }
    pthread_mutex_unlock(&q->lock);
    pthread_mutex_unlock(&q->cursor_lock);
    return r;
}

/* Both slots are written at birth, so that moving the cursor never needs space. */
int cursor_create(struct queue *q)
{
    static const uint8_t zero[CURSOR_SLOT_OFF + CURSOR_SLOT_BYTES];
    int fd = queue_make_way(q, "cursor", S_IFREG);
    if (fd == 0)
        fd = q->fs->open(q->dir_fd, "cursor", O_RDWR | O_CREAT, 0600);
    if (fd < 0)
        return fd;
    struct stat st;
    int r = q->fs->fstat(fd, &st);
    if (r == 0 && (uint64_t)st.st_size < sizeof(zero)) {
        r = fs_pwrite_full(fd, zero + st.st_size, sizeof(zero) - (size_t)st.st_size, (uint64_t)st.st_size);
        if (r == 0)
            r = q->fs->fdatasync(fd);
        if (r == 0)
            r = q->fs->sync_dir(q->dir_fd);
    }
    if (r < 0) {
        (void)q->fs->close(fd);
        return r;
    }
    q->cursor_fd = fd;
    return 0;
}

/* What is written by now is what the sync covers; the sender may write more meanwhile. */
static int sync_file(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    uint64_t generation = q->generation, acked = q->written_acked_seq;
    bool is_synced = generation == q->synced_generation;
    pthread_mutex_unlock(&q->lock);
    if (is_synced)
        return 0;

    int r = q->conf.sync == QUEUE_SYNC_NEVER ? 0 : q->fs->fdatasync(q->cursor_fd);
    if (r < 0) {
        /* The kernel calls the page clean now: only a slot that is written again can become durable. */
        q->is_cursor_unsafe = true;
        return r;
    }
    pthread_mutex_lock(&q->lock);
    q->synced_generation = generation;
    q->synced_acked_seq = acked;
    pthread_mutex_unlock(&q->lock);
    return 0;
}

int queue_cursor_sync(struct queue *q)
{
    /* Losses are in the ledger before the cursor passes their frames; those that came meanwhile wait for the next time.
     * When the disk has no room for them the frames go all the same, a full disk must drain: they stay in memory and
     * are tried again. */
    int lost = loss_flush(q);
    if (q->given.n > 0)
        given_remove(q);

    pthread_mutex_lock(&q->lock);
    if (!q->has_losses || fs_is_full(lost))
        ack_damaged_locked(q);
    bool is_news = q->is_cursor_news || q->is_cursor_unsafe;
    pthread_mutex_unlock(&q->lock);
    if (is_news) {
        int r = cursor_write(q);
        if (r < 0)
            return r;
        q->is_cursor_unsafe = false;
    }
    int r = sync_file(q);
    return r < 0 ? r : lost;
}
