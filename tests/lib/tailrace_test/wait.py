"""Waiting for an event, with a bound and a text that says what did not happen."""

import time


def wait_until(predicate, timeout, what, interval=0.02):
    """Returns predicate()'s first true value.

    Fails with an AssertionError after timeout seconds. `what` says what is waited for; it may be a
    callable, asked only on failure, so that the text can show the last state. An exception from the
    predicate ends the wait at once: a predicate that may fail meanwhile has to catch it itself.
    """
    end = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= end:
            text = what() if callable(what) else what
            raise AssertionError(f"not within {timeout:g} s: {text} (last value: {value!r})")
        time.sleep(interval)
