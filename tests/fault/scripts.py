"""What happens in a run while the fault strikes. A script goes on whether or not the agent is alive, and waits for the
servers only as long as `wait` says. What is left to be done when it ends is the run's."""

import signal


def rotations(run, wait):
    """Small lines; renamed, copied and truncated, deleted while held, a line in two halves, a stop in order."""
    w = run.world
    for t in ("t1", "t2", "t3"):
        w.append(f"{t}/app", 25)
    run.start()
    run.seen(wait)
    w.append("t1/app", 20)
    if run.knows("t1/app"):
        w.rotate("t1/app")
    w.append("t1/app", 15)
    w.append("t2/app", 20)
    w.append("t3/gone", 10)
    run.seen(wait)
    if run.knows("t2/app"):
        w.copytruncate("t2/app")
    w.append("t2/app", 10)
    half = w.append("t3/app", 10, torn=True)
    half_line = len(w) - 1
    w.append("t3/gone", 5)
    if run.holds("t3/gone"):
        w.delete("t3/gone")
    run.seen(wait, but={half_line})
    w.finish("t3/app", half)
    w.append("t1/app", 5)
    run.seen(wait)


def segments(run, wait):
    """Six megabytes that compress badly: segments end, begin and are removed."""
    w = run.world
    w.append("t1/app", 20)
    run.start()
    run.seen(wait)
    w.width = 16000
    for i in range(4):
        w.append("t1/app", 150)
        run.seen(wait)
        if i % 2 and run.knows("t1/app"):
            w.rotate("t1/app")


segments.queue = {"batch_bytes": "128KiB"}


def backlog(run, wait):
    """A queue from a run before with the server away, refused documents, a reload: recovery, dead letters, draining."""
    w = run.world
    run.arrivals.mode = "reset"
    run.start(with_shim=False)
    for t in ("t1", "t2"):
        w.append(f"{t}/app", 60)
    run.accepted(len(w))
    run.kill()
    run.arrivals.mode = "answer"
    w.append("t1/app", 40)
    run.refuse(lambda seq: seq % 23 == 5)
    run.start()
    run.seen(wait)
    w.append("t2/app", 30)
    if run.is_started():
        run.agent.signal(signal.SIGHUP)
    w.append("t1/app", 30)
    run.seen(wait)


ALL = (rotations, segments, backlog)
