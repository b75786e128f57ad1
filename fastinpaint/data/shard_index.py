"What a folder or an address holds: files, or shards with their index; and what a path is of"
import json
import os
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from ..core.errors import InputError, MissingFile, Unreachable
from .listing import Names
from .photos import Skipped, find_images
from .remote import INDEX, Remote, filesystem, patient, place
from .shards import Member, Shard, Shards

FORMAT = "fastinpaint shards 1"
INDEX_TIMEOUT = 600  # seconds; the index of 10 million photographs is half a gigabyte


def read_shards(root: Path | Remote) -> Shards:
    "The shards of `root` by their index. Raises MissingFile without one, Unreachable, InputError"
    with _index(root) as lines:
        try:
            if json.loads(next(lines, b""))["format"] != FORMAT: raise ValueError("another format")
            found = Shards(root, (Shard(**json.loads(o)) for o in lines))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as e:
            raise InputError(f"{root}/{INDEX} is no index as `fastinpaint shard` writes it ({e})") from e
    if not len(found): raise MissingFile(f"no photographs in the shards of {root}")
    if isinstance(root, Remote): found.warn_of_small_cache()
    return found


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


def relative_name(fn: str | Path, roots: tuple[str | Path, ...]) -> str:
    "`fn` relative to the folder of photographs that holds it, or held it before it went into a shard"
    if isinstance(fn, Member): return fn.name
    fn = Path(fn)
    return next((fn.relative_to(o).as_posix() for o in roots if fn.is_relative_to(o)), fn.name)


def file_at(path: str | Path) -> str | Path | BytesIO:
    """What Pillow opens for `path`: itself, or the bytes of what it names in a shard.

    Such a path is a `Member` as text, `shards/000012.tar/a/b.jpg`. Raises OSError where its shard cannot be
    had, FileNotFoundError where that has no such photograph, and what `read_shards` raises."""
    shard, tar, name = str(path).partition(".tar/")
    if not tar or os.path.isdir(shard + ".tar"): return path
    shards, said = _shards(os.path.dirname(shard)), _Said()
    try: member = shards[shards.index(str(path))]
    except ValueError: raise FileNotFoundError(f"{shard}.tar has no {name}") from None
    if data := member.open(said): return data
    raise OSError(said.reason)


_shards = cache(lambda root: read_shards(place(root)))


class _Said(Skipped):
    "Prints why a shard cannot be had, which it is asked once, and keeps it"
    reason = "its shard could not be had"

    def log(self, fn, reason):
        super().log(fn, reason)
        self.reason = f"{fn}: {reason}"
