/*
 * stepper.h - the agent without threads, for a simulation: reader, writer and sender are made with a stepper, make no
 * thread, and are called a turn at a time (reader_step(), writer_step(), sender_step()). The code of a turn is the same.
 */
#ifndef TAILRACE_BASE_STEPPER_H
#define TAILRACE_BASE_STEPPER_H

#include <stdint.h>

struct stepper {
    /* Where a thread would sleep in the middle of its work, until another has done its part or this time (monotonic)
     * has come: gives the others turns and lets time pass. */
    void (*wait)(void *ctx, int64_t until_ns);
    void *ctx;
};

#endif
