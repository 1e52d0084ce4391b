"""The cases of each kind by number. A number always means the same fault; which thread does its nth call when is chance."""

import collections
import errno
import math
import random
import time

import scripts
from lab import PATIENCE, Ended, Run, Violation
from page import NEVER

DISK = ("state", "logs", "archive")
# Every call that reads or changes something outside of the process; sleeping and allocating are not among them.
IO = ("open", "openat", "close", "read", "pread", "write", "pwrite", "pwritev", "fdatasync", "fsync", "ftruncate", "fallocate",
      "renameat", "renameat2", "rename", "unlink", "unlinkat", "mkdir", "mkdirat", "fchmod", "flock", "ioctl", "stat", "fstat",
      "fstatat", "statx", "fstatvfs", "opendir", "fdopendir", "readdir", "inotify_init1", "inotify_add_watch", "socket",
      "connect", "send", "recv")
ALL_PLACES = ("*",)
GOLDEN = 0.6180339887498949

_counts = {}  # (script, calls, where) -> how many calls a run without faults makes


class Case:
    """One case: its run, and what it has to say."""

    def __init__(self, the_lab, name, number):
        self.lab, self.name, self.number = the_lab, name, number
        self.random = random.Random(number)
        self.folder = the_lab.base / name
        self.figures = collections.Counter()
        self.story = "nothing yet"
        self.run = None

    def make(self, script, **more):
        self.run = Run(self.lab, self.name, seed=self.number, queue=getattr(script, "queue", None), **more)
        return self.run

    def close(self, keep=False):
        if self.run:
            self.run.close(keep)


def count(case, script, calls, where):
    """How many such calls the script makes: counted once, in a run of its own."""
    key = (script, calls, where)
    if key not in _counts:
        run = Run(case.lab, f"count-{script.__name__}", queue=getattr(script, "queue", None))
        run.page.arm(calls, where, "errno", NEVER)
        script(run, PATIENCE)
        run.stop()
        _counts[key] = run.page.matched
        run.close()
    return _counts[key]


def spread(k, n):
    """The kth of a sequence that takes each of 1..n once, far apart from the ones before; then it begins again."""
    step = max(1, int(n * GOLDEN))
    while math.gcd(step, n) > 1:
        step += 1
    return 1 + k * step % n


# --- SIGKILL at the entry or the exit of the nth call ---


def kill(case):
    """Each second one is killed once more, during its recovery."""
    script = scripts.ALL[case.number % len(scripts.ALL)]
    k = case.number // len(scripts.ALL)
    total = count(case, script, IO, ALL_PLACES)
    nth, action = spread(k // 2, total), ("entry", "exit")[k % 2]
    run = case.make(script)
    run.page.arm(IO, ALL_PLACES, action, nth)
    script(run, PATIENCE)
    _end_of_script(case, run)
    case.story = f"{script.__name__}: killed at the {action} of call {nth} of {total}: {run.page.hit}"
    case.figures["kills"] += run.page.hits
    case.figures["not reached"] += run.page.hits == 0
    if case.number % 2:
        _kill_recovery(case, run)
    _judge(case, run, is_strict=case.number % 10 == 0)


def _end_of_script(case, run, allowed=(0, -9)):
    """The script is over: stopped in order, unless it is dead. The exit code."""
    if run.alive():
        code = run.end()
    else:
        code = run.agent.process.code
    if code not in allowed:
        raise Violation(f"the agent ended with {code}")
    if code != 0:
        run.died += 1
    return code


def _kill_recovery(case, run):
    nth, action = case.random.randrange(1, 400), case.random.choice(("entry", "exit"))
    run.page.arm(IO, ALL_PLACES, action, nth)
    before = run.page.hits
    run.start()
    run.seen(1)
    killed = run.page.hits > before
    run.kill()
    case.figures["kills"] += 1
    case.story += f"; again at the {action} of call {nth}" if killed else "; again when all had arrived"


def _judge(case, run, is_strict=False):
    run.finish(is_strict)
    case.figures["lines"] += len(run.world)
    case.figures["sent again"] += run.arrivals.resent


# --- SIGKILL at any moment, several times in one life of the files ---


def random_kill(case):
    """Lines are written while the agent is killed five times; rotated in between."""
    run = case.make(scripts.rotations)
    world, chance = run.world, case.random
    for t in ("t1", "t2", "t3"):
        world.append(f"{t}/app", 10)
    moments = []
    for i in range(5):
        run.start()
        moments.append(chance.choice((chance.uniform(0, 0.05), chance.uniform(0.02, 0.25))))
        log_for(world, chance, moments[-1])
        run.kill()
        if i % 2 and run.knows("t1/app"):
            world.rotate("t1/app")
            world.append("t1/app", 5)
    case.figures["kills"] += len(moments)
    case.story = "killed after " + ", ".join(f"{1000 * m:.0f} ms" for m in moments)
    if run.agent.exits != [-9] * len(moments):
        raise Violation(f"ends of the agent: {run.agent.exits}")
    _judge(case, run, is_strict=case.number % 10 == 0)


def log_for(world, chance, seconds, tenants=("t1", "t2", "t3"), sync=False):
    """Writes at a random pace. No event is waited for: the end is to be any moment. sync: each third time."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        world.append(f"{chance.choice(tenants)}/app", chance.randrange(1, 12), sync=sync and chance.random() < 0.3)
        time.sleep(min(left, chance.uniform(0.001, 0.02)))


# --- the nth call fails ---

FAILURES = [  # (calls, where, errors); "short" is half of what was asked
    (("open", "openat"), DISK, ("EMFILE", "ENOMEM", "EIO", "EACCES", "ENOSPC")),
    (("read", "pread"), DISK, ("EIO", "EINTR", "EAGAIN", "ENOMEM", "short")),
    (("write", "pwrite", "pwritev"), DISK, ("ENOSPC", "EIO", "EINTR", "EAGAIN", "EDQUOT", "EROFS", "short")),
    (("fdatasync", "fsync"), DISK, ("EIO", "ENOSPC", "EINTR", "ENOMEM")),
    (("ftruncate", "fallocate"), DISK, ("ENOSPC", "EIO", "EINTR")),
    (("renameat", "renameat2", "rename", "unlink", "unlinkat", "mkdirat", "mkdir"), DISK, ("ENOSPC", "EIO", "EACCES", "ENOMEM")),
    (("stat", "fstat", "fstatat", "statx", "fstatvfs", "ioctl"), DISK, ("EIO", "ENOMEM", "EACCES")),
    (("opendir", "fdopendir", "readdir"), DISK, ("EMFILE", "ENOMEM", "EIO")),
    (("close",), DISK, ("EINTR", "EIO", "ENOSPC")),
    (("inotify_add_watch", "inotify_init1"), (*DISK, "other"), ("ENOSPC", "ENOMEM", "EMFILE")),
    (("socket", "connect", "send", "recv"), ("net",), ("EMFILE", "ENOMEM", "EINTR", "EAGAIN", "ECONNRESET", "short")),
    (("read",), ("other",), ("EINTR", "EAGAIN")),
    (("epoll_wait", "poll"), ("other",), ("EINTR",)),
]
KINDS_OF_ERROR = [(calls, where, e) for calls, where, errors in FAILURES for e in errors]
PASSING = ("EINTR", "EAGAIN", "short")  # what no call says for ever


def error(case):
    """Once, and the agent must get over it alone; or from then on until it is lifted, and then it must."""
    script = scripts.ALL[case.number % 3]
    k = case.number // 3
    calls, where, what = KINDS_OF_ERROR[k % len(KINDS_OF_ERROR)]
    k //= len(KINDS_OF_ERROR)
    times = 1 if k % 2 == 0 else 2 if what in PASSING else 0
    if times == 0 and what in ("EIO", "EACCES") and ("pread" in calls or "fstat" in calls):
        where = ("logs",)  # in the queue that is damage, set aside: what it costs is for other tests
    total = count(case, script, calls, where)
    nth = spread(k // 2, total)
    run = case.make(script)
    run.page.arm(calls, where, "short" if what == "short" else "errno", nth, times=times, err=getattr(errno, what, 0))
    script(run, 0.15 if times == 0 else PATIENCE)
    case.story = (f"{script.__name__}: {what} {'once' if times == 1 else 'twice' if times else 'for ever'} from call {nth} of "
                  f"{total} of {'/'.join(calls)}: {run.page.hit}")
    run.page.lift()
    case.figures["failing calls"] += min(run.page.hits, 1)
    case.figures["not reached"] += run.page.hits == 0
    try:
        if not run.alive():
            raise Ended(run.note_end())
        _judge(case, run)
    except Ended as e:  # of a start or reload that began under the fault and was still on its way when that was lifted, too
        _refused_to_start(case, run, e.code)
        _judge(case, run)
    if case.number % 4 == 0:
        run.again()


def _refused_to_start(case, run, code):
    """It may refuse to start, with a sentence, also in a reload; nothing else may end it."""
    log = run.agent.log()
    said = [e["raw"] for e in log if "raw" in e]
    if run.agent.events("agent.started"):
        said = [e["message"] for e in log if e.get("event") == "config.rejected" and e["message"].endswith("stopping")]
    if code not in (1, 2) or not said:
        raise Ended(code)
    case.figures["refused to start"] += 1
    case.story += f"; refused: {said[-1]}"


# --- the nth allocation fails ---


def malloc(case):
    """One, or a run of them. It may stop there and begin again from its queues (SIGABRT), or refuse to start."""
    script = scripts.ALL[case.number % 3]
    k = case.number // 3
    calls = ("malloc", "calloc", "realloc")
    total = count(case, script, calls, ("mem",))
    nth, times = spread(k, total), (1, 1, 3, 30)[k % 4]
    run = case.make(script)
    run.page.arm(calls, ("mem",), "errno", nth, times=times)
    script(run, PATIENCE if times == 1 else 2)
    case.story = f"{script.__name__}: {times} allocations from {nth} of {total}: {run.page.hit}"
    run.page.lift()
    case.figures["failing allocations"] += run.page.hits
    case.figures["not reached"] += run.page.hits == 0
    if not run.alive():
        code = run.note_end()
        in_library = code in (-8, -11) and run.crash_is_in(("libyajl", "libcurl"))
        if code not in (-6, 1, 2, 127) and not in_library:  # 127: the dynamic linker had none
            raise Ended(code)
        case.figures["refused to start" if code > 0 else "aborted" if code == -6 else "crashed within yajl or curl"] += 1
        case.story += f"; exit {code}"
    _judge(case, run)
