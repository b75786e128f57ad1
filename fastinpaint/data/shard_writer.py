"A folder of photographs written as shards, in as many goes as it takes, with the same bytes in the end"
import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ..core.errors import InputError, with_reasons
from ..core.files import remove_unfinished, replacing
from .listing import Files
from .photos import UNREADABLE, find_images, open_photo, unreadable_because
from .remote import INDEX, held_out
from .shard_index import FORMAT
from .shards import Shard

SHARD_BYTES, MOST = 128e6, 10_000  # what a shard is meant to hold: bytes, and photographs at most
BLOCK = tarfile.BLOCKSIZE
# how formats are written after resizing, the others as PNG; names stay as they are
SAVED = dict(JPEG=dict(quality=95, subsampling=0), WEBP=dict(quality=95), TIFF={}, BMP={}, PNG={})


@dataclass
class ShardResult:
    "What `write_shards` has made, and which files it left out"
    photographs: int = 0
    shards: int = 0
    bytes: int = 0
    skipped: dict[str, str] = field(default_factory=dict)  # path → reason

    def __str__(self):
        return with_reasons(f"{self.photographs:,} photographs in {self.shards:,} shards, "
                            f"{self.bytes/1e9:.2f} GB, {len(self.skipped)} files left out", self.skipped)


def write_shards(
    folder: str | Path,  # of photographs, at any depth; train/ and valid/ stay apart
    out: str | Path,  # folder of the shards, or of train/ and valid/ with those of each
    side: int = 0,  # shorter side in pixels that larger photographs are resized to; 0: files as they are
    count: int = 0,  # photographs in a shard; 0: so many that it has some 128 MB
    progress: Callable = lambda shards, total: shards,  # wraps an iterable of `Shard`s of `total` photographs
) -> ShardResult:
    """Write every photograph that can be read to tar files in `out`, and the index; returns a `ShardResult`.

    They are dealt to shards at random, always alike. Started again, it goes on after the last whole shard.
    Raises MissingFile without photographs, InputError where `out` holds others."""
    if side < 0 or count < 0: raise InputError(f"{side=}, {count=}: expected numbers above 0")
    folder, out, result = Path(folder), Path(out), ShardResult()
    if out.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{out} is in {folder}: give the shards a folder of their own")
    held = held_out(folder)
    parts = {"train": folder/"train", "valid": held} if held else {".": folder}
    found = {part: find_images(o) for part, o in parts.items()}
    shards = (o for part, files in found.items() for o in _write(files, parts[part], out/part, side, count))
    for o in progress(shards, sum(map(len, found.values()))):
        result.shards += 1
        result.photographs += len(o.names)
        result.bytes += o.bytes
        result.skipped |= o.skipped
    return result


def _write(files: Files, folder: Path, out: Path, side: int, count: int) -> Iterator[Shard]:
    "The shards of `files` under `folder`, those that an earlier start has written among them"
    order = np.random.default_rng(0).permutation(len(files))
    count = count or _count(files[order[:1000]], side)
    listed = hashlib.sha256()
    for o in files: listed.update(os.fsencode(os.path.relpath(o, folder)) + b"\0")
    head = dict(format=FORMAT, photographs=len(files), names=listed.hexdigest(), side=side, count=count)
    total, unfinished = -(-len(files)//count), out/f".{INDEX}"
    out.mkdir(parents=True, exist_ok=True)
    index = next((o for o in (out/INDEX, unfinished) if o.exists()), None)
    lines = index.read_bytes().splitlines(keepends=True) if index else []
    lines = [o for o in lines if o.endswith(b"\n")]  # the last one may be cut short
    if lines and json.loads(lines[0]) != head:
        raise InputError(f"{out} holds shards of other photographs, or of another --resize or --count: "
                         "remove them, or choose another -o")
    for line in lines[1:]: yield Shard(**json.loads(line))
    if index == out/INDEX: return
    remove_unfinished(out, "*.tar")
    with open(unfinished, "ab") as f:
        f.truncate(sum(map(len, lines)))
        if not lines: f.write(_line(head))
        for k in range(len(lines[1:]), total):
            shard = _write_shard(files[order[k*count:(k + 1)*count]], folder, out/f"{k:06}.tar", side)
            f.write(_line(asdict(shard)))
            f.flush()
            os.fsync(f.fileno())
            yield shard
    os.replace(unfinished, out/INDEX)


def _line(o: dict) -> bytes: return json.dumps(o, separators=(",", ":")).encode() + b"\n"


def _count(files: Files, side: int) -> int:
    "Photographs in a shard, by the size of some of them; resized ones have about 4 bits a pixel"
    size = sum(map(os.path.getsize, files))/len(files)
    if side: size = min(size, .7*side*side)
    return int(np.clip(SHARD_BYTES/max(size, 1), 1, MOST))


def _write_shard(files: Files, folder: Path, path: Path, side: int) -> Shard:
    shard = Shard(path.name, 0, "", [], [], [], {})
    with replacing(path) as f, ThreadPoolExecutor(os.cpu_count()) as pool:
        out = _Hashed(f)
        for fn, (data, reason) in zip(files, pool.map(partial(_packed, side=side), files), strict=True):
            name = Path(fn).relative_to(folder).as_posix()
            if data is None:
                shard.skipped[name] = reason
                continue
            info = tarfile.TarInfo(name)  # of time 0 and no owner: equal photographs are equal bytes
            info.size = len(data)
            out.write(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
            shard.names.append(name)
            shard.starts.append(out.size)
            shard.lengths.append(len(data))
            out.write(data + bytes(-len(data) % BLOCK))
        out.write(bytes(2*BLOCK))
    shard.bytes, shard.sha256 = out.size, out.digest.hexdigest()
    return shard


class _Hashed:
    "Counts and hashes what is written to the file `f`"
    def __init__(self, f): self.f, self.size, self.digest = f, 0, hashlib.sha256()

    def write(self, data: bytes):
        self.f.write(data)
        self.digest.update(data)
        self.size += len(data)


def _packed(fn: str, side: int) -> tuple[bytes | None, str]:
    "The bytes for the photograph `fn`, or None and why it cannot be read to its end"
    try:
        data = Path(fn).read_bytes()
        with Image.open(BytesIO(data)) as im:
            size, kind = im.size, "JPEG" if im.format == "MPO" else im.format
            if not side or min(size) <= side:
                im.draft(None, (1, 1))  # a JPEG is read at an eighth, which takes a third of the time
                im.load()
                return data, ""
        return _resized(open_photo(BytesIO(data), 2*side), side, kind), ""
    except UNREADABLE as e: return None, unreadable_because(fn, e)


def _resized(im: Image.Image, side: int, kind: str) -> bytes:
    factor, out = side/min(im.size), BytesIO()
    im = im.resize([max(side, round(factor*o)) for o in im.size], Image.Resampling.LANCZOS)
    im.save(out, kind if kind in SAVED else "PNG", **SAVED.get(kind, {}))
    return out.getvalue()
