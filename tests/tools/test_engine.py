"Where a tool's parts are done"
from types import SimpleNamespace

import pytest

from fastinpaint.core.errors import InputError
from fastinpaint.tools.engine import mapping


def test_here_it_is_a_map(monkeypatch):
    settings = SimpleNamespace(engine="local", address="", device="cpu")
    assert mapping(settings)(lambda a, b: a + b, [1, 2], [3, 4]) == [4, 6]


def test_ray_is_given_address_and_device(monkeypatch):
    from fastinpaint.serve import ray
    monkeypatch.setattr(ray, "spread", lambda function, *each, **more: [*map(function, *each), more])
    settings = SimpleNamespace(engine="ray", address="", device="cpu")
    assert mapping(settings)(abs, [-1]) == [1, dict(address=None, device="cpu")]


@pytest.mark.parametrize("engine, address, message", [
    ("spark", "", "local or ray, not 'spark'"), ("local", "a:1", "--address is for --engine ray")])
def test_another_engine_is_refused(engine, address, message):
    with pytest.raises(InputError, match=message):
        mapping(SimpleNamespace(engine=engine, address=address, device="cpu"))
