/*
 * pieces.h - what a container's runtime wrote, piece by piece, and what may become of the pieces of a record when a file that has
 * some of them is gone.
 *
 * A stream's records follow each other, a record is one piece or more, the last one is marked (F). A file may go before an
 * output had what is in it: then pieces are missing, and nothing tells the reader where. What it makes of the others is
 * right when each text that arrives is pieces of one stream in their order, with
 *   - a piece left out only if its file may be gone for this output, or the file of the piece before: that one may be found late, when
 *     others have been read that came after it;
 *   - a begin in the middle of a record, or an end without F, only where this piece's file or the next one's may be gone,
 *     or where the next file begins and this piece may have gone on from a half in a third: two files make a record, not three.
 * So a half comes by itself, the other half comes by itself, or a half goes on in the stream's next record.
 */
#ifndef TAILRACE_TESTS_SIM_PIECES_H
#define TAILRACE_TESTS_SIM_PIECES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/slice.h"

void pieces_begin(void);
void pieces_free(void);
/* file: a number below PIECES_FILES_MAX. */
#define PIECES_FILES_MAX 256
void pieces_add(unsigned log, unsigned stream, unsigned file, uint32_t uid, struct slice text, bool is_final);
/* This file, or some of it, may never reach these outputs. */
void pieces_may_go(unsigned file, uint8_t outputs);
/* Is this, as it arrived, a record with pieces missing that may be missing? The lines that it has something of may be missing then. */
bool pieces_explain(unsigned slot, struct slice got);
/* A record that another one's half went on in has neither level nor tenant that could be read, so it goes by no route that asks for
 * one and nothing of it is seen: such lines may be missing at these outputs. */
void pieces_settle(uint8_t choosy);

#endif
