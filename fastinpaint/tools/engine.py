"Where independent parts of a tool's work are done"
from functools import partial

from fastinpaint.core.errors import InputError


def mapping(settings):
    "A function like `map` that gives a list: here in turn, or by tasks of the Ray cluster of `settings`"
    s = settings
    if s.engine not in ("local", "ray"): raise InputError(f"--engine is local or ray, not {s.engine!r}")
    if s.address and s.engine != "ray": raise InputError("--address is for --engine ray")
    if s.engine == "local": return lambda function, *each: [*map(function, *each)]
    from fastinpaint.serve.ray import spread
    return partial(spread, address=s.address or None, device=s.device)
