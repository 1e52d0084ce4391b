/*
 * gz.h - the bytes inside a .gz file, read forward like a plain one. Members one after the other count as one
 * text.
 *
 * Owns:   an inflate state (about 40 KiB) and an input buffer; the descriptor is borrowed.
 * Errors: -EBADMSG damaged; a file that ends inside a member reads as if it ended there, and gz_is_whole says
 * no.
 */
#ifndef TAILRACE_TAIL_GZ_H
#define TAILRACE_TAIL_GZ_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/base/macros.h"

struct gz;

NODISCARD int gz_open(int fd, struct gz **ret_gz);
void gz_close(struct gz *gz); /* NULL is fine */
/* Up to len bytes at off of the text. Forward is cheap, backward begins again from the start. 0 at the end.
 */
NODISCARD ssize_t gz_pread(struct gz *gz, void *ptr, size_t len, uint64_t off);
/* After a read that came to the end: did the last member end as it should? */
bool gz_is_whole(const struct gz *gz);
/* What the last bytes of a .gz of this size say: CRC-32 and length (modulo 2^32) of the text of its last member, which
 * nearly always is the only one. Nothing is inflated. -EBADMSG: too short. */
NODISCARD int gz_trailer(int fd, uint64_t size, uint32_t *ret_crc, uint32_t *ret_len);

#endif
