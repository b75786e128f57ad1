"Photographs in shards: tar files in the WebDataset convention, and an index that says where each one lies"
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from ..core.errors import InputError, MissingFile, Unreachable
from .listing import Names
from .order import WINDOW, shuffled_shards
from .photos import Skipped, find_images
from .remote import INDEX, Remote, filesystem, keep, keeping, kept, patient, place

FORMAT = "fastinpaint shards 1"
INDEX_TIMEOUT = 600  # seconds; the index of 10 million photographs is half a gigabyte
AGAIN = 600  # seconds until a shard that could not be had is asked for once more


class Member(str):
    "Where a photograph in a shard is (`s3://bucket/photos/000012.tar/a/b.jpg`), and what opens it"
    shards, row, name = None, 0, ""  # `name`: its path in the folder that was sharded

    def open(self, skipped: Skipped) -> BytesIO | None:
        "Its bytes; None, with the shard logged, where they cannot be had"
        data = self.shards.read(self.row, skipped)
        return None if data is None else BytesIO(data)


@dataclass
class Shard:
    "A line of the index: file, bytes, checksum; name, first byte and length of each photograph in it"
    shard: str
    bytes: int
    sha256: str
    names: list[str]
    starts: list[int]
    lengths: list[int]
    skipped: dict[str, str]  # name → why a file is not in it


class Shards(Names):
    "Photographs in the shards of the folder or address `root`, a sequence of `Member`"
    def __init__(self, root: Path | Remote, index: Iterable[Shard]):
        self.root, self.shards, text, counts = root, [], bytearray(), []
        ends, starts, lengths = [], [], []
        for o in index:
            encoded = [os.fsencode(name) for name in o.names]
            ends.append(len(text) + np.cumsum([*map(len, encoded)], dtype=np.int64))
            text += b"".join(encoded)
            starts.append(np.array(o.starts, np.int64))
            lengths.append(np.array(o.lengths, np.int32))
            counts.append(len(encoded))
            self.shards.append((o.shard, o.bytes, o.sha256))
        super().__init__(bytes(text), np.concatenate(ends))
        self.starts, self.lengths = np.concatenate(starts), np.concatenate(lengths)
        self.firsts = np.cumsum([0, *counts])  # places of each shard's first photograph, and the end
        # shared by workers: when a shard could not be had, and whether any could
        self.failed = torch.zeros(len(counts), dtype=torch.float64).share_memory_()
        self.worked = torch.zeros(1).share_memory_()

    @property
    def urls(self) -> list[str]: return [f"{self.root}/{name}" for name, *_ in self.shards]

    def at(self, row: int) -> Member:
        name = super().at(row)
        member = Member(f"{self.root}/{self.shards[self._shard(row)][0]}/{name}")
        member.shards, member.row, member.name = self, row, name
        return member

    def index(self, name: str) -> int:
        for k, url in enumerate(self.urls):
            if not name.startswith(f"{url}/"): continue
            rows = range(self.firsts[k], self.firsts[k + 1])
            row = next((i for i in rows if self.at(i) == name), -1)
            places = np.arange(row, row + 1) if self.rows is None else np.flatnonzero(self.rows == row)
            if row >= 0 and len(places): return int(places[0])
        raise ValueError(name)

    def order(self, n: int, seed: int, i: int) -> np.ndarray:
        "Indices of pass `i`, as `shuffled_shards` has them"
        rows = np.arange(n) if self.rows is None else self.rows
        counts = np.diff(np.searchsorted(rows, self.firsts))
        return shuffled_shards(counts[counts > 0], seed, i)

    def read(self, row: int, skipped: Skipped) -> bytes | None:
        """The photograph's file; None, with its shard logged in `skipped`, where that cannot be had.

        Raises InputError once no shard at all could be had."""
        k = self._shard(row)
        if self._lately_failed(k): return None
        try: data = self._read(k, int(self.starts[row]), int(self.lengths[row]))
        except OSError as e:
            self.failed[k] = time.time()
            skipped.log(self.urls[k], f"{e}; so are its {self.firsts[k + 1] - self.firsts[k]} photographs")
            self._check_any()
            return None
        self.worked[0] = 1
        return data

    def _shard(self, row: int) -> int: return int(np.searchsorted(self.firsts, row, "right")) - 1
    def _lately_failed(self, k: int) -> bool: return time.time() - float(self.failed[k]) < AGAIN

    def _read(self, k: int, start: int, length: int) -> bytes | None:
        name, size, sha256 = self.shards[k]
        if not isinstance(self.root, Remote):
            try: return _part(self.root/name, start, length)
            except OSError: return patient(lambda: _part(self.root/name, start, length))
        while True:
            path = kept(sha256)
            if not path:
                with keeping(sha256):
                    if self._lately_failed(k): return None  # for another process, which had the lock before
                    path = kept(sha256) or keep(f"{self.root}/{name}", size, sha256)
            try: return _part(path, start, length)
            except FileNotFoundError: pass  # another process has just made room

    def _check_any(self):
        count = int((self.failed > 0).sum())
        if self.worked[0] or count < min(len(self.shards), WINDOW): return
        raise InputError(f"none of the {count} shards of {self.root} that were tried could be read; "
                         "the reasons are printed above")


def _part(path: Path, start: int, length: int) -> bytes:
    with open(path, "rb") as f:
        f.seek(start)
        data = f.read(length)
    if len(data) == length: return data
    raise OSError(f"it is cut short: {path.stat().st_size:,} bytes")


def read_shards(root: Path | Remote) -> Shards:
    "The shards of `root` by their index. Raises MissingFile without one, Unreachable, InputError"
    with _index(root) as lines:
        try:
            if json.loads(next(lines, b""))["format"] != FORMAT: raise ValueError("another format")
            return Shards(root, (Shard(**json.loads(o)) for o in lines))
        except (ValueError, KeyError, TypeError) as e:
            raise InputError(f"{root}/{INDEX} is no index as `fastinpaint shard` writes it ({e})") from e


def _index(root: Path | Remote) -> BinaryIO:
    if not root.is_dir() or not isinstance(root, Remote) and not (root/INDEX).is_file():
        raise MissingFile(f"no shards at {root}: expected a file {INDEX} there, or in train/ and valid/; "
                          "`fastinpaint shard` writes it beside the .tar files")
    if not isinstance(root, Remote): return open(root/INDEX, "rb")
    fs, path = filesystem(root/INDEX)
    try: return BytesIO(patient(lambda: fs.cat_file(path), INDEX_TIMEOUT))
    except OSError as e: raise Unreachable(f"{root}/{INDEX} cannot be read ({e})") from e


def find_photos(folder: str | Path, exclude: tuple[str | Path, ...] = ()) -> Names:
    "`read_shards` where `folder` is an address or holds an index, else `find_images`; raises what they raise"
    root = place(folder)
    if isinstance(root, Remote) or (root/INDEX).is_file(): return read_shards(root)
    return find_images(root, exclude)


def source_of(photo: str | Path, skipped: Skipped):
    "What Pillow opens for `photo`: a file of bytes for a `Member`, or None as that gives it; else itself"
    return photo.open(skipped) if isinstance(photo, Member) else photo
