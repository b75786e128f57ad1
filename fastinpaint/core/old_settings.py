"Defaults of the recipes: a flag beats `FASTINPAINT_<NAME>` in the environment, which beats `settings.ini`, which beats the code"
import os
from functools import cache

from fastcore.xtras import Config


@cache
def _file():
    "The settings.ini of the current folder or the nearest one above it"
    config = Config.find("settings.ini")
    return dict(config.d) if config else {}


def setting(name, default):
    "The value of `name`, of the type of `default`. Raises ValueError, naming the source, for a value of another type."
    sources = {f"FASTINPAINT_{name.upper()} in the environment": os.environ.get(f"FASTINPAINT_{name.upper()}"),
               "settings.ini": _file().get(name)}
    for source, value in sources.items():
        if not value: continue
        try: return type(default)(value)
        except ValueError as e: raise ValueError(f"{name} = {value} ({source}) is no {type(default).__name__}") from e
    return default
