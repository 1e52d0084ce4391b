/*
 * file_path.h - paths of the file output: rendered from a template, made harmless, opened without leaving the folder.
 *
 * The base is the constant start of the template up to its last '/': what the administrator wrote, symbolic links
 * included. Below it a name may hold what a log line said, so no part is "..", and no link is followed.
 */
#ifndef TAILRACE_OUTPUTS_FILE_PATH_H
#define TAILRACE_OUTPUTS_FILE_PATH_H

#include <sys/types.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"

/* Parts below the base; a template with more is refused. */
#define FILE_PATH_PARTS_MAX 16

/* The finest date in the template: how long a file is the one that is written. */
enum file_period { FILE_PERIOD_EVER, FILE_PERIOD_YEAR, FILE_PERIOD_MONTH, FILE_PERIOD_DAY, FILE_PERIOD_HOUR,
                   FILE_PERIOD_MINUTE, FILE_PERIOD_SECOND };

struct file_shape {
    struct slice text;     /* the template, borrowed */
    size_t base_len;       /* of text and of each path made of it, with the last '/' */
    size_t n_parts;        /* below the base */
    enum file_period period;
};

/* -EINVAL with a sentence: not absolute, ends with '/', a '/' in a {constant}, too many parts. */
NODISCARD int file_shape_parse(struct slice text, struct file_shape *ret_shape, struct err *err);

/* Makes a rendered path safe. Values that smuggle in a '/' put the file into a folder of its own, "_". */
NODISCARD int file_path_clean(const struct file_shape *shape, struct slice rendered, struct buf *out);

/* What one value becomes as a folder's or file's name. */
NODISCARD int file_path_part(struct slice part, struct buf *out);

/* The part'th name below the base as a pattern for slice_glob: variables are *, dates are digits. */
NODISCARD int file_shape_glob(const struct file_shape *shape, size_t part, struct buf *out);
/* The whole path as such a pattern, and whatever is put behind the name (.gz). */
NODISCARD int file_shape_glob_all(const struct file_shape *shape, struct buf *out);

/* Which group of file_shape_regex() has what; 0: the template does not say it. */
struct file_shape_groups {
    size_t year, month, day, day_of_year, tenant;
    size_t suffix; /* .gz or .N.gz or nothing */
    size_t n;      /* with group 0 */
};
/* The whole path, compressed or not, as a POSIX extended regular expression. */
NODISCARD int file_shape_regex(const struct file_shape *shape, struct buf *out, struct file_shape_groups *ret_groups);

/* Are two moments in different periods? */
bool file_period_is_over(enum file_period period, int64_t then_ns, int64_t now_ns);

/* An open folder and the last name of a path. */
struct file_place {
    int dir_fd;
    char name[256];
};

/* Finds the folder of a path of at least one part below base_len; follows links only inside the base. dir_mode 0:
 * folders that are missing are not made (-ENOENT). The caller closes ret->dir_fd. */
NODISCARD int file_place_open(struct slice path, size_t base_len, mode_t dir_mode, struct file_place *ret,
                              struct err *err);

#endif
