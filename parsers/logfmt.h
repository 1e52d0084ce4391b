/*
 * logfmt.h - ts=… level=warn msg="…" …, as Go programs write it.
 */
#ifndef TAILRACE_PARSERS_LOGFMT_H
#define TAILRACE_PARSERS_LOGFMT_H

#include "parsers/text.h"

/* Fills level, module, message and time that the pairs hold and leaves the rest of *text alone. false: the line does not
 * begin with pairs, or holds neither level nor message; *text is untouched. */
bool logfmt_read(const struct timestamp_env *env, struct slice line, struct buf *scratch, struct text *text);

#endif
