"Settings: a dataclass whose fields say what they mean, read from keywords, the environment and settings.ini"
import os
from configparser import ConfigParser
from dataclasses import field, fields
from pathlib import Path

from .errors import InputError

FILE = "settings.ini"


def flag(default, help):
    "A field of a settings dataclass, given as a keyword or as a flag"
    return field(default=default, metadata=dict(help=help))


def setting(default, help):
    "A `flag` that, where it is not given, FASTINPAINT_<NAME> in the environment or else settings.ini decides"
    return field(default=default, metadata=dict(help=help, shared=True))


def read(cls, **given):
    """An instance of the settings dataclass `cls`: `given` beats the environment, which beats settings.ini, which beats the code.

    Raises InputError, naming the source, where the environment or the file has a value of the wrong type.
    """
    found = {f.name: shared(f) for f in fields(cls) if f.metadata.get("shared") and f.name not in given}
    return cls(**found | given)


def shared(f):
    "The value of the dataclass field `f` in the environment, else in settings.ini, else its default"
    name, kind = f"FASTINPAINT_{f.name.upper()}", type(f.default)
    sources = {f"{name} in the environment": os.environ.get(name), FILE: _file().get(f.name)}
    for source, value in sources.items():
        if not value: continue
        try: return kind(value)
        except ValueError as e:
            raise InputError(f"{f.name} = {value} ({source}) is no {kind.__name__}") from e
    return f.default


def _file():
    "What the settings.ini of the current folder, or of the nearest one above it, says"
    here = Path.cwd()
    file = next((p for o in (here, *here.parents) if (p := o/FILE).is_file()), None)
    config = ConfigParser()
    if file: config.read(file, encoding="utf-8")
    return config.defaults()
