"""Free loopback ports."""

import random
import socket

_given = set()


def _ephemeral_low():
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as f:
            return int(f.read().split()[0])
    except OSError:
        return 32768


def free_port():
    """A TCP port of 127.0.0.1 that nobody listens on and that this process has not given out before.

    It lies below the range from which the kernel takes ports for outgoing connections, so a server that
    is stopped for a while finds it free again.
    """
    high = max(_ephemeral_low(), 12000)
    for _ in range(2000):
        port = random.SystemRandom().randrange(10240, high)
        if port in _given:
            continue
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise AssertionError("no free port on 127.0.0.1")
