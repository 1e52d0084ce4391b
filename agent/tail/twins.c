/*
 * One file that two queues know as two.
 *
 * While an output is out of the configuration its queue is not looked into. When the others have nothing durable of a file
 * yet and the agent is started, the file is begun anew, under another incarnation. When the output comes back its queue
 * speaks of the first one: of which no file is found, for its inode is the second's. What each queue says of its own output
 * is true of the one file there is: so each goes on from there, and the incarnation that found no file is forgotten.
 * A queue whose disk took nothing for a while may know both, the first as the empty file that it was: then the further place
 * counts.
 */
#include "agent/tail/internal.h"

/* g found no file; is that of f the one that it speaks of, or a copy of it? */
static bool is_twin(struct tail_file *f, struct tail_file *g)
{
    struct source src;
    bool is_settled = !f->is_tracked || f->phase == PHASE_MISSING || f->stage >= STAGE_PASSED;
    if (is_settled || g->stage >= STAGE_PASSED || g->input >= g->t->conf->n_inputs)
        return false;
    uint32_t least = ident_same_inode(&g->ident, &f->ident) ? 1 : ADOPT_BYTES_MIN;
    if (g->ident.fp_len < least)
        return false; /* so little is the start of many */
    return source_of(f, &src) == 0 && source_holds(g, &src, true) > 0;
}

/* Does what this output's queue says of g count? When it speaks of f, too, it did not hear that f went on as g: both are places in
 * one text. But a live file may be another life of the inode, which only begins alike. */
static bool is_further(const struct tail_file *f, const struct tail_file *g, uint32_t output)
{
    const struct slot *mine = &f->slots[output], *its = &g->slots[output];
    if (!its->is_own || !mine->is_own)
        return its->is_own;
    return f->phase != PHASE_LIVE && pass_end(&its->pass->pub) > pass_end(&mine->pass->pub);
}

static void take_own(struct tail_file *f, struct tail_file *g)
{
    for (uint32_t o = 0; o < f->t->n_outputs; o++) {
        struct slot *s = &f->slots[o];
        if (!is_further(f, g, o))
            continue;
        struct file_position pos;
        position_of(g, o, &pos);
        const uint64_t told = s->is_own ? s->collected : pos.end;
        slot_place(f, o, &pos);
        slot_settle(s, told); /* the next place is to begin where its queue has f */
        s->first_off = pos.end;
        s->first_skip = g->slots[o].first_skip;
        s->is_own = true;
        f->is_blank = false; /* that text is known now */
        file_dirty(f, BIT(o));
        if (f->stage == STAGE_FINISHED && !s->pass->is_ended)
            file_reopen(f);
    }
}

static void join(struct tail_file *f, struct tail_file *g)
{
    take_own(f, g);
    resume_found(g);
    file_forget(g);
    file_ready(f);
    if (f->stage == STAGE_READING)
        stage_check(f); /* every output may have ended it, each by one of the two */
}

static void join_by_inode(struct tail_file *f)
{
    struct link *l = table_first(&f->t->missing, f->ident.ino);
    while (l != NULL) {
        struct tail_file *g = CONTAINER_OF(l, struct tail_file, by_ino);
        l = table_next(l);
        if (ident_same_inode(&g->ident, &f->ident) && is_twin(f, g))
            join(f, g);
    }
}

/* Its file was copied and cut since, or compressed, and others follow the copy. */
static void join_by_text(struct tail_file *g)
{
    for (struct tail_file *f = chain_first(g->t, g->base); f != NULL; f = chain_next(f)) {
        if (f == g || !is_twin(f, g))
            continue;
        join(f, g);
        return;
    }
}

void twins_join(struct tail *t)
{
    for (struct list *l = t->files.next; t->missing.n > 0 && l != &t->files; l = l->next) {
        struct tail_file *f = CONTAINER_OF(l, struct tail_file, all);
        if (f->is_tracked && f->phase != PHASE_MISSING)
            join_by_inode(f);
    }
    for (struct list *l = t->files.next; t->missing.n > 0 && l != &t->files; l = l->next) {
        struct tail_file *g = CONTAINER_OF(l, struct tail_file, all);
        if (g->phase == PHASE_MISSING && g->stage < STAGE_PASSED && g->is_tracked && g->base != NULL)
            join_by_text(g);
    }
}
