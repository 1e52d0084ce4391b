#include "agent/join.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/base/bug.h"
#include "agent/base/limits.h"

#define PENDING_BYTES_KEEP (4 * KIB)

struct join *join_new(struct tail_file *file, struct tail_pass *pass, struct join **list)
{
    struct join *j = calloc(1, sizeof(*j));
    if (j == NULL)
        return NULL;
    for (size_t i = 0; i < STREAMS_MAX; i++) {
        buf_init_in(&j->streams[i].part.text, LINE_BYTES_MAX, ACCOUNT_OF(MEMORY_JOINS));
        buf_init_in(&j->streams[i].group.text, LINE_BYTES_MAX, ACCOUNT_OF(MEMORY_JOINS));
    }
    budget_took(ACCOUNT_OF(MEMORY_JOINS), j);
    j->file = file;
    j->pass = pass;
    j->list = list;
    j->next = *list;
    *list = j;
    return j;
}

void join_free(struct join *j)
{
    if (j == NULL)
        return;
    for (size_t i = 0; i < STREAMS_MAX; i++) {
        struct join_stream *s = &j->streams[i];
        if (s->lender != NULL)
            s->lender->streams[i].borrower = NULL;
        if (s->borrower != NULL)
            s->borrower->streams[i].lender = NULL;
        buf_deinit(&s->part.text);
        buf_deinit(&s->group.text);
    }
    struct join **link = j->list;
    while (*link != j)
        link = &(*link)->next;
    *link = j->next;
    budget_free(ACCOUNT_OF(MEMORY_JOINS), j);
}

struct join *join_find_part(struct join *list, enum record_stream stream, uint32_t outputs)
{
    for (struct join *j = list; j != NULL; j = j->next)
        if (j->streams[stream].part.is_active && !j->streams[stream].group.is_active &&
            j->streams[stream].borrower == NULL && j->streams[stream].lender == NULL &&
            (outputs & ~j->pass->mask) == 0 && j->pass->off >= j->pass->resume_until)
            return j;
    return NULL;
}

int join_borrow(struct join *j, struct join *lender, enum record_stream stream, uint64_t start)
{
    if (BUG(18))
        return -ENOENT;
    const struct pending *from = &lender->streams[stream].part;
    struct pending *to = &j->streams[stream].part;
    int r = pending_add(to, buf_slice(&from->text), start, start);
    if (r < 0)
        return r;
    to->is_cut = from->is_cut;
    to->has_time = from->has_time;
    to->time_ns = from->time_ns;
    to->raw_bytes = from->raw_bytes;
    j->streams[stream].lender = lender;
    lender->streams[stream].borrower = j;
    return 0;
}

void join_leave(struct join *lender, uint32_t output)
{
    struct position_part parts[STREAMS_MAX];
    uint8_t n = join_parts(lender, -1, parts);
    if (n > 0 && (lender->pass->mask & (1u << output)) != 0)
        tail_block_before(lender->file, lender->pass, output, parts, n);
}

/* j has placed the record of this stream, though it is not settled yet. */
static bool is_placed(const struct join *j, int stream)
{
    return !j->streams[stream].part.is_active;
}

void join_release(struct join *j, uint32_t output, bool is_before)
{
    for (int i = 0; j != NULL && i < STREAMS_MAX; i++) {
        struct join *lender = j->streams[i].lender;
        if (lender == NULL || (!is_before && is_placed(j, i)))
            continue;
        /* Another stream's record may just have been placed: of that one nothing is to be read again. */
        bool hidden[STREAMS_MAX] = { false };
        for (int k = 0; k < STREAMS_MAX; k++) {
            struct join_stream *s = &lender->streams[k];
            hidden[k] = !is_before && s->part.is_active && s->borrower == j && is_placed(j, k);
            s->part.is_active &= !hidden[k];
        }
        join_leave(lender, output);
        for (int k = 0; k < STREAMS_MAX; k++)
            lender->streams[k].part.is_active |= hidden[k];
    }
}

void join_settle(struct join *j, enum record_stream stream)
{
    struct join *lender = j->streams[stream].lender;
    if (lender == NULL)
        return;
    j->streams[stream].lender = NULL;
    lender->streams[stream].borrower = NULL;
    pending_end(&lender->streams[stream].part);
    tail_touch(lender->file, lender->pass->mask);
}

int pending_add(struct pending *p, struct slice text, uint64_t start, uint64_t end)
{
    size_t room = LINE_BYTES_MAX - p->text.len;
    if (p->text.cap - p->text.len < MIN(text.len, room) && budget_joins_are_full())
        return -ENOMEM;
    int r = buf_append_slice(&p->text, slice_first(text, room));
    if (r < 0)
        return r;
    if (!p->is_active) {
        p->is_active = true;
        p->start = start;
    }
    p->is_cut |= text.len > room;
    p->end = end;
    p->raw_bytes += end - start;
    return 0;
}

void pending_end(struct pending *p)
{
    struct buf text = p->text;
    buf_reset(&text);
    buf_shrink(&text, PENDING_BYTES_KEEP);
    *p = (struct pending){ .text = text };
}

bool join_is_idle(const struct join *j)
{
    for (size_t i = 0; i < STREAMS_MAX; i++)
        if (j->streams[i].part.is_active || j->streams[i].group.is_active)
            return false;
    return true;
}

bool join_is_bound(const struct join *j)
{
    for (size_t i = 0; i < STREAMS_MAX; i++)
        if (j->streams[i].lender != NULL || j->streams[i].borrower != NULL)
            return true;
    return false;
}

uint8_t join_parts(const struct join *j, int except, struct position_part *parts)
{
    uint8_t n = 0;
    for (int i = 0; j != NULL && i < STREAMS_MAX; i++) {
        const struct join_stream *s = &j->streams[i];
        if (i == except || (!s->part.is_active && !s->group.is_active))
            continue;
        uint64_t start = s->group.is_active ? s->group.start : s->part.start; /* the group is the older one */
        parts[n++] = (struct position_part){ .stream = (uint8_t)i, .start = start };
    }
    return n;
}

int64_t join_flush_at(const struct join *j)
{
    int64_t at = INT64_MAX;
    for (size_t i = 0; j != NULL && i < STREAMS_MAX; i++)
        if (j->streams[i].group.is_active)
            at = MIN(at, j->streams[i].flush_at_ns);
    return at;
}
