"What a folder or an address holds: files, or shards with their index"
import json
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from ..core.errors import InputError, MissingFile, Unreachable
from .listing import Names
from .photos import find_images
from .remote import INDEX, Remote, filesystem, patient, place
from .shards import Shard, Shards

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
