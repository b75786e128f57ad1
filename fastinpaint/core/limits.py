"Work with a budget of seconds and of memory, which may be told to stop"
import math
import threading
import time
from contextlib import contextmanager
from contextvars import ContextVar

from .errors import InputError


class Stopped(InputError):
    "Work was told to stop, or its seconds are over"


class Limits:
    """Of one piece of work: `seconds` from now on, `memory` in bytes that a forward pass may take at most.

    `tell(done, of)` is told how many steps of how many are done (see `told`)."""
    def __init__(self, seconds=math.inf, memory=math.inf, tell=lambda done, of: None):
        self.seconds, self.memory, self.tell = seconds, memory, tell
        self.end, self.stopped = time.monotonic() + seconds, threading.Event()

    def stop(self): self.stopped.set()  # from any thread

    @contextmanager
    def hold(self):
        "A block of code, in this thread, that has these limits"
        before = CURRENT.set(self)
        try: yield self
        finally: CURRENT.reset(before)


CURRENT = ContextVar("limits", default=None)


def go_on():
    "Raises Stopped where the work at hand is to stop: loops that take long ask once a round"
    limits = CURRENT.get()
    if limits is None: return
    if limits.stopped.is_set(): raise Stopped("stopped")
    if time.monotonic() > limits.end: raise Stopped(f"it took more than {limits.seconds:g} seconds")


def memory_limit():
    "Bytes that the work at hand may take, infinite where nothing limits them"
    limits = CURRENT.get()
    return math.inf if limits is None else limits.memory


def told(steps):
    "Passes through `steps`, which have a length; whoever gave limits to the work at hand is told of each"
    limits = CURRENT.get()
    for i, step in enumerate(steps):
        if limits: limits.tell(i, len(steps))
        yield step
