/*
 * gzip.h - whole batches as one gzip member (ISA-L, libdeflate), and members back into bytes (zlib).
 *
 * Members may stand one behind the other in one file or request body: together they are valid gzip again.
 *
 * Threads: a struct gzip belongs to one thread; reading has no state.
 * Errors:  -ENOMEM, -ENOBUFS when out's max would be passed (the bound against bombs), -EBADMSG for what is
 * not gzip, is damaged or is cut. out is then as it was.
 */
#ifndef TAILRACE_OUTPUTS_CODEC_GZIP_H
#define TAILRACE_OUTPUTS_CODEC_GZIP_H

#include <sys/types.h>

#include "agent/base/buf.h"

/* ISA-L's: on bodies of documents 2.4 times as fast as libdeflate's first, for 3.5 % more bytes. */
#define GZIP_LEVEL_FAST 1
#define GZIP_CONTENT_MAX ((size_t)1 << 30)
#define GZIP_EXTRA_MAX 65535

struct gzip;

/* GZIP_LEVEL_FAST, or 2..12 as libdeflate has them: smaller and slower. */
NODISCARD int gzip_new(int level, struct gzip **ret_gzip);
void gzip_free(struct gzip *g); /* NULL is fine */

/* Gives the compressor's 200 KiB back until the next call of gzip_compress. */
void gzip_rest(struct gzip *g);

/* Appends one member holding in. extra: the header's extra field with its subfield head (SI1 SI2 LEN), or
 * empty. in: at most GZIP_CONTENT_MAX. On one machine the same input gives the same bytes: there is no time and no name
 * in the header. */
NODISCARD int gzip_compress(struct gzip *g, struct slice in, struct slice extra, struct buf *out);

/* Appends the content of all members of in, which must hold nothing else and at least one. */
NODISCARD int gzip_decompress(struct slice in, struct buf *out);

/* Appends the content of the first member; the bytes it took of in (> 0). *ret_extra (may be NULL) points
 * into in, empty when it has no extra field. */
NODISCARD ssize_t gzip_read_member(struct slice in, struct slice *ret_extra, struct buf *out);

#endif
