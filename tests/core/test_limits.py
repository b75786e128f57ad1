import math
import threading

import pytest
import torch

from fastinpaint.core import limits
from fastinpaint.core.device import memory_at_hand
from fastinpaint.core.errors import InputError
from fastinpaint.core.limits import Limits, Stopped, go_on, memory_limit, told


def test_work_without_limits_goes_on():
    go_on()
    assert memory_limit() == math.inf


def test_work_ends_when_it_is_told_to_or_its_seconds_are_over(monkeypatch):
    with Limits(10).hold() as limited:
        go_on()
        threading.Thread(target=limited.stop).start()
        limited.stopped.wait()
        with pytest.raises(Stopped, match="stopped"): go_on()
    with Limits(10).hold():
        now = limits.time.monotonic()
        monkeypatch.setattr(limits.time, "monotonic", lambda: now + 11)
        with pytest.raises(InputError, match="more than 10 seconds"): go_on()
    go_on()


def test_the_memory_at_hand_is_no_more_than_the_limit():
    with Limits(memory=12345).hold(): assert memory_at_hand(torch.device("cpu")) == 12345
    assert memory_at_hand(torch.device("cpu")) > 12345


def test_limits_are_those_of_a_thread():
    found = []
    with Limits(memory=1).hold():
        other = threading.Thread(target=lambda: found.append(memory_limit()))
        other.start()
        other.join()
    assert found == [math.inf]


def test_who_gave_limits_hears_of_steps():
    assert [*told("ab")] == ["a", "b"]
    heard = []
    with Limits(tell=lambda *o: heard.append(o)).hold(): assert [*told("abc")] == ["a", "b", "c"]
    assert heard == [(0, 3), (1, 3), (2, 3)]
