/*
 * file_keep.h - the slow work of the file output on a thread of its own, one job at a time: compressing closed files,
 * deleting old ones.
 *
 * The owner (the sender thread) posts a job when file_keep_is_idle() and collects its result later. Neither call
 * waits. A compression is safe against a crash at any point: the owner notes it in its journal first; NAME goes only
 * after the whole of NAME.gz is synced under its name.
 */
#ifndef TAILRACE_OUTPUTS_FILE_KEEP_H
#define TAILRACE_OUTPUTS_FILE_KEEP_H

#include <stdbool.h>
#include <sys/types.h>

#include "agent/base/err.h"
#include "outputs/file_path.h"

enum file_job_kind { FILE_JOB_COMPRESS, FILE_JOB_RETAIN };

struct file_job {
    enum file_job_kind kind;
    /* compress */
    struct buf path;      /* of the plain file */
    size_t base_len;
    char gz_name[256];    /* beside it; was free when the job was made */
    uint64_t bytes;       /* the plain file's length: another one is not touched */
    mode_t mode;
    /* retain */
    const struct file_shape *shape;
    struct buf live;      /* paths that must stay, each ended by NUL */
    int64_t older_than_ns;/* wall clock; files last written before it go. 0 = any age stays */
    uint64_t bytes_max;   /* of all files together; 0 = no limit */
    int64_t young_ns;     /* files written after it never go for bytes_max */
    /* result */
    int result;
    struct err err;
    uint64_t n_deleted, bytes_deleted;
};

void file_job_deinit(struct file_job *job);

struct file_keep;

/* The thread starts with the first job. */
NODISCARD int file_keep_new(struct file_keep **ret_keep);
/* Stops a job half-way (it is safe to do again) and ends the thread. NULL is fine. */
void file_keep_free(struct file_keep *k);

bool file_keep_is_idle(const struct file_keep *k);
/* The job belongs to the thread until file_keep_take() hands it back. -errno when no thread can be had. */
NODISCARD int file_keep_post(struct file_keep *k, struct file_job *job);
/* The finished job, or NULL. */
struct file_job *file_keep_take(struct file_keep *k);

/* The temporary name while gz_name is written. false = too long. */
bool file_keep_temp_name(const char *gz_name, char temp[256]);

#endif
