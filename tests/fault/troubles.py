"""Troubles of the machine, not of a call: the power, the disk, the clock, memory, descriptors, a stopped process."""

import os
import pathlib
import signal
import time

import scripts
from disk import Ext4, Tmpfs
from lab import PATIENCE, Ended, Violation, client
from sweeps import log_for


def _finish(case, run, **how):
    again = run.finish(**how)
    if run.world.shortened:
        case.figures["lines of shortened files, doubled in Elasticsearch"] += again.get("search", 0)
    case.figures["lines"] += len(run.world)
    case.figures["sent again"] += run.arrivals.resent


# --- power cuts ---


def _disk(case):
    """One disk for all cases of this run of the driver."""
    if not hasattr(case.lab, "disk"):
        case.lab.disk = Ext4(case.lab.base)
        case.lab.at_end(case.lab.disk.close)
    return case.lab.disk


def power(case):
    """State and archive lie on the disk whose power is cut; the logs too in each second case, and then what their
    writers did not sync may be gone with it. Cut twice in one life of the files."""
    disk, chance = _disk(case), case.random
    folder = disk.path / case.name
    on_disk = case.number % 2 == 1
    run = case.make(scripts.rotations, state=folder / "state", archive=folder / "archive",
                    logs=folder / "logs" if on_disk else None)
    world, moments = run.world, []
    tenants = ("t1", "t2") if on_disk else ("t1", "t2", "t3")
    try:
        for _ in range(2):
            for t in tenants:
                world.append(f"{t}/app", 10, sync=on_disk)
            run.start(with_shim=False)
            moments.append(chance.uniform(0.01, 0.35))
            log_for(world, chance, moments[-1], tenants, sync=on_disk)
            disk.cut()
            run.kill()
            disk.off()
            disk.on()
            if on_disk:
                world.look_what_is_left()
        case.story = f"cut after {', '.join(f'{1000 * m:.0f} ms' for m in moments)}, logs {'too' if on_disk else 'elsewhere'}"
        case.figures["power cuts"] += len(moments)
        case.figures["lines that the cut took from the logs"] += len(world.vanished)
        _finish(case, run, is_strict=case.number % 5 == 0)
    finally:
        if run.alive():
            run.kill()
        run.remove(folder)


# --- the disk is full, or read-only ---


def full(case):
    """Full of queued lines while the servers are away, or full of something else while they are there."""
    disk = Tmpfs(case.folder.parent / f"{case.name}-disk", 20)
    try:
        run = case.make(scripts.segments, state=disk.path / "state")
        run.world.width = 8000
        if case.number % 2:
            _full_of_others(case, run, disk)
        else:
            _full_of_lines(case, run)
        if case.number % 3 == 0:
            run.kill()
        run.page.lift()
        case.figures["full disks"] += 1
        _finish(case, run)
    finally:
        if case.run and case.run.alive():
            case.run.kill()
        disk.close()


def _wait_blocked(run, case):
    if not run.agent.wait_event("queue.blocked", PATIENCE):
        raise Violation("the queue was not blocked")
    case.story = f"{case.story}: blocked, {run.agent.events('queue.blocked')[0]['fields']}"


def _full_of_lines(case, run):
    case.story = "the queue fills the disk while the servers are away; then they come back"
    run.arrivals.mode = "reset"
    run.start()
    for _ in range(40):
        run.world.append("t1/app", 200)
    _wait_blocked(run, case)
    run.arrivals.mode = "answer"  # the disk is full: the cursor must move all the same


def _full_of_others(case, run, disk):
    case.story = "something else fills the disk, later it is freed"
    run.start()
    run.world.append("t1/app", 50)
    run.seen()
    free = disk.fill()
    for _ in range(8):
        run.world.append("t1/app", 200)
    _wait_blocked(run, case)
    free()


def readonly(case):
    """The disk says EIO and EROFS to everything for a while; the agent lives on until it is killed."""
    disk = _disk(case)
    folder = disk.path / case.name
    run = case.make(scripts.rotations, state=folder / "state", archive=folder / "archive")
    try:
        run.world.append("t1/app", 50)
        run.start()
        run.seen()
        admin = run.agent.admin
        disk.cut()
        log_for(run.world, case.random, 0.3)
        if not run.alive():
            raise Ended(run.note_end())
        client.request("GET", admin + "/status").expect(200)
        code = run.end() if case.number % 2 else None
        if code is None:
            run.kill()
        disk.off()
        disk.on()
        case.story = f"no disk any more; {'killed' if code is None else f'exit {code} after SIGTERM'}; restarted with it"
        case.figures["disks gone"] += 1
        _finish(case, run)
    finally:
        if run.alive():
            run.kill()
        run.remove(folder)


# --- time ---


def clock(case):
    """The wall clock jumps, at any moment, several times; monotonic time is what everything waits by."""
    run = case.make(scripts.rotations)
    chance, day = case.random, 86400 * 10**9
    jumps = {"a day back": {"offset_ns": -day}, "ten years on": {"offset_ns": 3652 * day}, "right": {},
             "stopped": {"frozen_ns": time.time_ns()}, "an hour back": {"offset_ns": -day // 24}}
    story = []
    run.start()
    for _ in range(4):
        jump = chance.choice(list(jumps))
        story.append(jump)
        run.page.set_clock(**jumps[jump])
        log_for(run.world, chance, chance.uniform(0.02, 0.15))
        if chance.random() < 0.3:
            run.kill()
            run.start()
    case.story = "the clock was " + ", ".join(story)
    case.figures["clock jumps"] += len(story)
    _finish(case, run)


def stopped(case):
    """SIGSTOP in the middle of work; while it stands still files grow and are rotated; SIGCONT."""
    run = case.make(scripts.rotations)
    chance = case.random
    run.start()
    for _ in range(3):
        log_for(run.world, chance, chance.uniform(0.01, 0.1))
        run.agent.signal(signal.SIGSTOP)
        for t in ("t1", "t2"):
            run.world.append(f"{t}/app", 20)
        if run.knows("t1/app"):
            run.world.rotate("t1/app")
            run.world.append("t1/app", 5)
        time.sleep(chance.uniform(0.01, 0.2))  # nothing can be waited for: it stands still
        run.agent.signal(signal.SIGCONT)
    case.story = "stopped three times"
    case.figures["stops"] += 3
    _finish(case, run)


# --- memory, descriptors ---


class _Cgroup:
    """A memory limit by cgroup v1, for one process."""

    def __init__(self, name, limit):
        self.path = pathlib.Path("/sys/fs/cgroup/memory") / name
        self.path.mkdir(exist_ok=True)
        (self.path / "memory.limit_in_bytes").write_text(str(limit))

    def wrap(self):
        return ["sh", "-c", f'echo $$ > {self.path}/tasks && exec "$0" "$@"']

    def kills(self):
        text = (self.path / "memory.oom_control").read_text()
        return int(dict(line.split() for line in text.splitlines()).get("oom_kill", 0))

    def peak(self):
        return int((self.path / "memory.max_usage_in_bytes").read_text())

    def close(self):
        os.rmdir(self.path)


def memory(case):
    """32 MiB for all that the agent has, page cache included: 30 MB of lines to three outputs."""
    group = _Cgroup(f"tailrace-{case.name}", 32 << 20)
    try:
        run = case.make(scripts.segments, wrap=group.wrap())
        run.world.width = 16000
        for i in range(20):
            run.world.append(f"t{1 + i % 3}/app", 190)
        run.start(with_shim=False)
        run.seen(3 * PATIENCE)
        peak = run.agent.memory()["VmHWM"]
        if group.kills():
            raise Violation("the kernel killed it for memory")
        case.story = f"32 MiB by cgroup: peak RSS {peak / 2**20:.1f} MiB, killed for memory: {group.kills()}"
        case.figures["runs in 32 MiB"] += 1
        _finish(case, run)
    finally:
        if case.run and case.run.alive():
            case.run.kill()
        group.close()


def descriptors(case):
    """More files than it may have descriptors."""
    run = case.make(scripts.rotations, nofile=96)
    for i in range(200):
        run.world.append(f"t{1 + i % 3}/f{i}", 3)
    run.start()
    run.seen()
    for i in range(0, 200, 2):
        run.world.append(f"t{1 + i % 3}/f{i}", 3)
    case.story = "200 files, 96 descriptors"
    case.figures["runs with 96 descriptors"] += 1
    _finish(case, run)
