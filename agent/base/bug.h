/*
 * bug.h - the bug bank: mistakes that someone really made, kept beside the code that does it right. A build with -DBUG_7=1
 * makes the seventh of them, to prove that the tests would see it (docs/SIMULATOR.md, `make bugbank`). In every other
 * build BUG(7) is the constant 0 and nothing is left of it.
 */
#ifndef TAILRACE_BASE_BUG_H
#define TAILRACE_BASE_BUG_H

#define BUG(n) BUG_TRY_(BUG_##n)
#define BUG_TRY_(value) BUG_TRY_2_(BUG_PLACE_, value)
#define BUG_TRY_2_(place, value) BUG_TRY_3_(place##value)
#define BUG_TRY_3_(arg) BUG_SECOND_(arg 1, 0, 0)
#define BUG_PLACE_1 0,
#define BUG_SECOND_(first, second, ...) second

#endif
