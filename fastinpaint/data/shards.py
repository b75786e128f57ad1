"Photographs in shards: tar files in the WebDataset convention, and an index that says where each one lies"
import os
import threading
import time
import warnings
from collections.abc import Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from ..core.cache import cache_limit
from ..core.errors import InputError
from .listing import Names
from .order import WINDOW, shuffled_shards
from .photos import Skipped
from .remote import Remote, keep, keeping, kept, patient

AGAIN = 1800  # seconds until a shard that could not be had is asked for once more


class Failed(OSError):
    "A shard that could not be had lately"


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
        self.after, self.begun = {}, set()  # shard → the next one's; those that this process has read of
        self.listed = None  # a shard and its photographs' rows

    @property
    def urls(self) -> list[str]: return [f"{self.root}/{name}" for name, *_ in self.shards]

    def warn_of_small_cache(self):
        "Where it cannot hold the shards that are read at a time, they are fetched again and again"
        sizes, limit = sorted(size for _, size, _ in self.shards)[-WINDOW - 2:], cache_limit()
        if sum(sizes) > limit:
            warnings.warn(f"{len(sizes)} shards of {self.root}, {sum(sizes)/1e9:.1f} GB, are read at a time; "
                          f"the cache is of {limit/1e9:.1f}: raise FASTINPAINT_CACHE_GB", stacklevel=3)

    def at(self, row: int) -> Member:
        name = super().at(row)
        k = np.searchsorted(self.firsts, row, "right") - 1
        member = Member(f"{self.root}/{self.shards[k][0]}/{name}")
        member.shards, member.row, member.name = self, row, name
        return member

    def index(self, name: str) -> int:
        for k, url in enumerate(self.urls):
            if not name.startswith(f"{url}/"): continue
            row = self._rows(k).get(name.removeprefix(f"{url}/"), -1)
            places = np.arange(row, row + 1) if self.rows is None else np.flatnonzero(self.rows == row)
            if row >= 0 and len(places): return int(places[0])
        raise ValueError(name)

    def _rows(self, k: int) -> dict[str, int]:
        "Name → row of the photographs in shard `k`, which is kept until another one is asked for"
        if self.listed is None or self.listed[0] != k:
            rows = range(self.firsts[k], self.firsts[k + 1])
            self.listed = k, {Names.at(self, row): row for row in rows}
        return self.listed[1]

    def order(self, n: int, seed: int, i: int) -> np.ndarray:
        "Indices of pass `i`, as `shuffled_shards` has them"
        rows = np.arange(n) if self.rows is None else self.rows
        counts = np.diff(np.searchsorted(rows, self.firsts))
        found, turns = shuffled_shards(counts, seed, i)
        turns = turns.tolist()
        self.after, self.begun = dict(zip(turns, turns[1:], strict=False)), set()
        return found

    def read(self, row: int, skipped: Skipped) -> bytes | None:
        """The photograph's file; None, with its shard logged in `skipped`, where that cannot be had.

        Raises InputError once no shard at all could be had."""
        k = int(np.searchsorted(self.firsts, row, "right")) - 1
        if k not in self.begun: self._look_ahead(k, skipped)
        with self._failing(k, skipped):
            data = self._part(k, int(self.starts[row]), int(self.lengths[row]))
            self.worked[0] = 1
            return data
        self._check_any()

    def _look_ahead(self, k: int, skipped: Skipped):
        "With shard `k` begun, fetch the next one, from afar or the disk: when its turn comes, nobody waits"
        self.begun.add(k)
        if k not in self.after: return

        def fetch(k):
            if isinstance(self.root, Remote):
                with self._failing(k, skipped): self._local(k)
            else: _expect(self.root/self.shards[k][0])
        threading.Thread(target=fetch, args=(self.after[k],), daemon=True).start()

    @contextmanager
    def _failing(self, k: int, skipped: Skipped):
        "Leaves the block where shard `k` cannot be had, and logs why"
        try: yield
        except Failed: pass
        except OSError as e:
            self.failed[k] = time.time()
            skipped.log(self.urls[k], f"{e}; so are its {self.firsts[k + 1] - self.firsts[k]} photographs")

    def _part(self, k: int, start: int, length: int) -> bytes:
        if isinstance(self.root, Remote):
            while True:
                try: return _part(self._local(k), start, length)
                except FileNotFoundError: pass  # another process has just made room in the cache
        path = self.root/self.shards[k][0]
        self._check(k)
        try: return _part(path, start, length)
        except OSError: return patient(lambda: _part(path, start, length))

    def _local(self, k: int) -> Path:
        "Shard `k` in the cache, fetched by one process at a time. Raises OSError"
        name, size, sha256 = self.shards[k]
        if path := kept(sha256): return path
        self._check(k)
        with keeping(sha256):
            self._check(k)  # another process may have had the lock before
            try: return kept(sha256) or keep(f"{self.root}/{name}", size, sha256)
            except OSError:
                self.failed[k] = time.time()  # before a process that waits for the lock has it
                raise

    def _check(self, k: int):
        if time.time() - float(self.failed[k]) < AGAIN: raise Failed

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


def _expect(path: Path):
    "Have the system read a file in one go, where it can be told to"
    if not hasattr(os, "posix_fadvise"): return
    with suppress(OSError), open(path, "rb") as f: os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def source_of(photo: str | Path, skipped: Skipped):
    "What Pillow opens for `photo`: a file of bytes for a `Member`, or None as that gives it; else itself"
    return photo.open(skipped) if isinstance(photo, Member) else photo
