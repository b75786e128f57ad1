"Settings: dataclasses that are read from keywords, the environment and settings.ini"
from configparser import ConfigParser, Error
from dataclasses import field, fields
from os import environ
from pathlib import Path

from .errors import InputError

FILE = "settings.ini"


def flag(default, help):
    "A field of a settings dataclass, given as a keyword in Python or as a flag in a shell"
    return field(default=default, metadata=dict(help=help))


def setting(default, help):
    "A `flag`, text or a number, that FASTINPAINT_<NAME> in the environment or settings.ini may give as well"
    return field(default=default, metadata=dict(help=help, shared=True))


def group(help, **values):
    "A switch, off by default, that stands for `values` of other fields; what is given beside it wins"
    texts = (f"{'no_'*(v is False)}{k}{f'={v}'*(not isinstance(v, bool))}" for k, v in values.items())
    text = f"{help}: {', '.join(texts)}; a flag beside it wins".replace("_", "-")
    return field(default=False, metadata=dict(help=text, group=values))


def read(cls, **given):
    """The settings `cls`: `given` beats groups, then the environment, settings.ini, and at last the code.

    Raises InputError for a value of the wrong type in the environment or the file, or a file that is none."""
    groups = [f.metadata["group"] for f in fields(cls) if given.get(f.name) and "group" in f.metadata]
    given = {k: v for values in groups for k, v in values.items()} | given
    return cls(**{f.name: default(f) for f in fields(cls) if f.name not in given} | given)


def default(f):
    "The value of the dataclass field `f` where none is given. Raises as `read` does."
    if not f.metadata.get("shared"): return f.default
    name, kind = f"FASTINPAINT_{f.name.upper()}", type(f.default)
    sources = {f"{name} in the environment": environ.get(name), FILE: _file().get(f.name)}
    for source, value in sources.items():
        if not value: continue
        try: return kind(value)
        except ValueError as e:
            raise InputError(f"{f.name} = {value} ({source}) is no {kind.__name__}") from e
    return f.default


def _file():
    "What settings.ini in the current folder, or the nearest one above it, says under [DEFAULT]"
    here, config = Path.cwd(), ConfigParser()
    file = next((p for o in (here, *here.parents) if (p := o/FILE).is_file()), None)
    try:
        if file: config.read_string(file.read_text(encoding="utf-8"), FILE)
    except (Error, UnicodeDecodeError) as e: raise InputError(f"{file} cannot be read: {e}") from e
    return config.defaults()
