/*
 * docker.h - a line of Docker's json-file driver: {"log":"text\n","stream":"stdout","time":"2026-…Z"}.
 *
 * Read by a scanner of its own: in `auto` every JSON line is tried, so it has to see at the first key that it is none of
 * Docker's.
 */
#ifndef TAILRACE_PARSERS_DOCKER_H
#define TAILRACE_PARSERS_DOCKER_H

#include "agent/base/buf.h"
#include "parsers/parser.h"

/* An object of the members log, stream and time, each once and a string, and perhaps attrs; nothing else. false:
 * *ret_framed is untouched. The content is decoded into scratch, which is reset, when it holds escapes, and loses its
 * final newline; without one the line is partial: the rest follows on the same stream. */
bool docker_read(struct slice line, struct buf *scratch, struct framed *ret_framed);

#endif
