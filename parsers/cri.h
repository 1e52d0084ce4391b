/*
 * cri.h - a line as containerd and CRI-O write it: "2026-01-02T03:04:05.678901234Z stdout F content".
 */
#ifndef TAILRACE_PARSERS_CRI_H
#define TAILRACE_PARSERS_CRI_H

#include "parsers/parser.h"

/* Strict: one blank each, RFC 3339 with an offset, stdout or stderr, P or F with optional :tags. false: *ret_framed is
 * untouched. The CR that a writer left before the newline is removed, but not from a part that goes on. */
bool cri_read(struct slice line, struct framed *ret_framed);

#endif
