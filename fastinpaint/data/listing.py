"The files of a folder: in one buffer, since there may be millions of them, and listed once"
import hashlib
import os
import sys
import time
import zipfile
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import suppress
from copy import copy
from pathlib import Path

import numpy as np

from ..core.cache import cache_folder
from ..core.files import replacing

CACHED_FROM = 10_000  # files; fewer are listed in no time
PATIENCE = 2  # seconds until a listing says that it goes on
SETTLED = 2  # seconds since a folder's time: a later change may not show where clocks are coarse


class Names(Sequence):
    "Strings in one buffer: 8 bytes more than they have, or 16, where a list takes 60"
    urls = ()  # of the files that hold them, where they are no files themselves
    def __init__(self, text: bytes, ends: np.ndarray, rows: np.ndarray | None = None):
        self.text, self.ends, self.rows = text, ends, rows  # `rows`: which of them, all without

    def __len__(self) -> int: return len(self.ends if self.rows is None else self.rows)

    def __getitem__(self, i):
        "The name at an index; for a slice, array or list of indices a sequence of the same kind"
        if isinstance(i, slice | np.ndarray | list):
            chosen, rows = copy(self), np.arange(len(self)) if self.rows is None else self.rows
            chosen.rows = rows[np.array(i, np.int64) if isinstance(i, list) else i]
            return chosen
        if not -len(self) <= i < len(self): raise IndexError(i)
        i = int(i) % len(self)
        return self.at(i if self.rows is None else int(self.rows[i]))

    def at(self, row: int) -> str:
        "The name in place `row` of the buffer"
        start = self.ends[row - 1] if row else 0
        return os.fsdecode(self.text[start:self.ends[row]])

    @property
    def iloc(self):
        "Itself: fastai makes lists of all sequences but those that have this"
        return self

    def index(self, name: str) -> int:
        "The place of `name`; raises ValueError. The names are sorted"
        if (i := bisect_left(self, name)) < len(self) and self[i] == name: return i
        raise ValueError(name)


class Files(Names):
    "Sorted paths of files under `root`"
    def __init__(self, root: str, text: bytes, ends: np.ndarray):
        super().__init__(text, ends)
        self.root = root

    def at(self, row: int) -> str: return os.path.join(self.root, super().at(row))

    def outside(self, folder: str):
        "Those that are not in `folder`, a path relative to `root`"
        inside = os.path.join(self.root, folder)
        start, end = (bisect_left(self, inside + o) for o in (os.sep, chr(ord(os.sep) + 1)))
        return self if start == end else self[np.r_[:start, end:len(self)]]


class Joined(Sequence):
    "Training and validation files as one sequence, `halves` of which are they themselves"
    def __init__(self, train: Sequence, valid: Sequence): self.parts = train, valid
    def __len__(self) -> int: return sum(map(len, self.parts))

    def __getitem__(self, i):
        if isinstance(i, slice): return self.parts[self.halves.index(i)]
        n = len(self.parts[0])
        return self.parts[0][i] if i < n else self.parts[1][i - n]

    @property
    def halves(self) -> list[slice]:
        n = len(self.parts[0])
        return [slice(0, n), slice(n, None)]

    iloc = Names.iloc


def listed(folder: str | Path, suffixes: set[str]) -> tuple[Files, int]:
    """Files under `folder` with `suffixes`, and how many others there are; hidden ones count as neither.

    A long listing is kept in the user's cache, for as long as no folder of the tree has another time."""
    key = "\n".join([os.path.realpath(folder), *sorted(suffixes)])
    cache = cache_folder()/"listings"/f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.npz"
    root = os.fspath(folder)
    text, ends, others = _kept(root, cache) or _list(root, suffixes, cache)
    return Files(root, text, ends), others


def _kept(root: str, cache: Path) -> tuple[bytes, np.ndarray, int] | None:
    "What an earlier listing left in `cache`, where no folder has changed since"
    try:
        with np.load(cache) as o:
            dirs = Names(o["dirs"].tobytes(), o["dir_ends"])
            for name, then in zip(dirs, o["times"].tolist(), strict=True):
                if os.stat(os.path.join(root, name)).st_mtime_ns != then: return None
            return o["text"].tobytes(), o["ends"], int(o["others"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile): return None  # none, or a folder is gone


def _list(root: str, suffixes: set[str], cache: Path) -> tuple[bytes, np.ndarray, int]:
    start, text, ends, others, dirs = time.time(), bytearray(), array("q"), 0, []
    shown, line = start + PATIENCE, ""
    for name in _walk(root, "", dirs):
        if os.path.splitext(name)[1].lower() in suffixes:
            text += os.fsencode(name)
            ends.append(len(text))
        else: others += 1
        if (now := time.time()) > shown:
            shown, line = now + 1, f"\rlisting {root}: {len(ends):,} photographs"
            print(line, end="", file=sys.stderr, flush=True)
    if line: print(f"\rlisting {root}: {len(ends):,} photographs", file=sys.stderr)
    found = bytes(text), np.frombuffer(ends, np.int64), others
    if len(ends) + others >= CACHED_FROM and all(mtime/1e9 < start - SETTLED for _, mtime in dirs):
        with suppress(OSError): _keep(cache, found, dirs)  # a disk that is full keeps nobody from training
    return found


def _walk(root: str, folder: str, dirs: list[tuple[str, int]]) -> Iterator[str]:
    """Paths of files in `root` below `folder` ("" or with a slash at its end), in the order of whole paths.

    Appends (folder, nanoseconds of its last change) to `dirs`. Folders behind links are not entered."""
    try:
        dirs.append((folder, os.stat(os.path.join(root, folder)).st_mtime_ns))
        with os.scandir(os.path.join(root, folder)) as entries:
            found = [(o.name + os.sep, not o.is_symlink()) if o.is_dir() else (o.name, None)
                     for o in entries if o.name[0] != "."]
    except OSError: return  # as os.walk does where a folder may not be read
    for name, entered in sorted(found):
        if entered is None: yield folder + name
        elif entered: yield from _walk(root, folder + name, dirs)


def _keep(cache: Path, found: tuple[bytes, np.ndarray, int], dirs: list[tuple[str, int]]):
    (text, ends, others), names = found, [os.fsencode(name) for name, _ in dirs]
    with replacing(cache) as f:
        np.savez(f, text=np.frombuffer(text, np.uint8), ends=ends, others=others,
                 dirs=np.frombuffer(b"".join(names), np.uint8), dir_ends=np.cumsum([*map(len, names)]),
                 times=np.array([mtime for _, mtime in dirs]))
