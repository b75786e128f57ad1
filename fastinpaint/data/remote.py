"Folders and files from afar, by fsspec: http(s)://, s3://, hf:// … in pieces, with patience"
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable
from multiprocessing import TimeoutError as TooLate
from multiprocessing.pool import ThreadPool
from pathlib import Path

from filelock import FileLock

from ..core.cache import cache_folder, cache_limit
from ..core.errors import InputError, MissingPackage, Unreachable
from ..core.files import remove_unfinished, replacing

INDEX = "index.jsonl"  # makes a folder one of shards
PIECE = 8 << 20  # bytes that are asked for at a time
ANSWER = 5  # seconds until a server that is only asked whether there are shards counts as silent
TIMEOUT = 30  # seconds until a piece counts as lost
WAITS = 1, 4, 16  # seconds before it is asked for again
CLIENTS = {"aiohttp": "ClientError", "botocore.exceptions": "BotoCoreError", "httpx": "HTTPError",
           "httpx2": "HTTPError"}  # modules, and their errors that are no OSError


class Remote(str):
    "The address of a folder of shards, or of one with `train` and `valid`, used like a `Path`"
    def __truediv__(self, name: str): return Remote(f"{self.rstrip('/')}/{name}")

    def is_dir(self) -> bool:
        "Whether an index of shards is there. Raises Unreachable where nobody answers"
        fs, path = filesystem(self/INDEX)

        def answers():
            try: return fs.cat_file(path, start=0, end=1) is not None
            except FileNotFoundError: return False
        try: return patient(answers, min(TIMEOUT, ANSWER))
        except OSError as e: raise Unreachable(f"{self} cannot be reached ({e})") from e


def place(name: str | Path) -> Path | Remote:
    "Where `name` is: an address, or a folder on this machine"
    return Remote(str(name).rstrip("/")) if "://" in str(name) else Path(name)


def held_out(folder: Path | Remote) -> Path | Remote | None:
    "Where its validation photographs are: valid/ or val/, if there is train/ beside it"
    return next((o for o in (folder/"valid", folder/"val") if o.is_dir() and (folder/"train").is_dir()), None)


def filesystem(url: str):
    "The fsspec file system of `url`, of this process, and the path in it. Raises MissingPackage, InputError"
    from fsspec.core import url_to_fs  # with what it needs of the network, slow to import
    try: return url_to_fs(url)
    except ImportError as e:
        raise MissingPackage(f"{url} needs a package ({e}): pip install 'fastinpaint[cloud]'") from e
    except ValueError as e: raise InputError(f"{url} is no address that fsspec knows: {e}") from e


def patient(f: Callable, timeout: float | None = None):
    "What `f` returns, in one of several tries of at most `timeout` seconds. Raises OSError after the last"
    for wait in (*WAITS, None):
        try: return within(TIMEOUT if timeout is None else timeout, f)
        except OSError:
            if wait is None: raise
            time.sleep(wait)


def within(seconds: float, f: Callable):
    "What `f` returns within `seconds`; raises OSError where it cannot be had, or takes longer"
    with ThreadPool(1) as pool:  # whose threads are daemons: one that is stuck keeps no program from its end
        try: return pool.apply_async(f).get(seconds)
        except TooLate: raise OSError(f"no answer in {seconds:g} s") from None
        except FileNotFoundError as e: raise OSError("it is not there") from e
        except (OSError, *_errors_of_clients()) as e: raise OSError(str(e) or type(e).__name__) from e


def _errors_of_clients() -> list[type]:
    "What those raise, beside OSError, that file systems have imported"
    return [getattr(sys.modules[name], error) for name, error in CLIENTS.items() if name in sys.modules]


def piece(fs, path: str, start: int, end: int) -> bytes:
    "Bytes [start, end) of a file; raises OSError where it is shorter"
    data = fs.cat_file(path, start=start, end=end)
    if len(data) > end - start: data = data[start:end]  # a server that knows no ranges sends all
    if len(data) == end - start: return data
    raise OSError(f"it is cut short: {start + len(data):,} bytes")


def kept(sha256: str) -> Path | None:
    "The shard of that checksum in the cache, as the last one used"
    path = _path(sha256)
    try: os.utime(path)
    except OSError: return None
    return path


def keeping(sha256: str) -> FileLock:
    "A lock for the shard of that checksum, between all processes; one that dies leaves it"
    path = _path(sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_suffix(".lock"))


def keep(url: str, size: int, sha256: str) -> Path:
    "Download the shard at `url` into the cache; raises OSError. The caller holds its lock"
    fs, path = filesystem(url)
    target, digest = _path(sha256), hashlib.sha256()
    remove_unfinished(target.parent, target.name)
    make_room(size)
    with replacing(target) as f:
        while (start := f.tell()) < size:
            end = min(start + PIECE, size)
            data = patient(lambda: piece(fs, path, start, end))  # noqa: B023 - called at once
            digest.update(data)
            f.write(data)
        if digest.hexdigest() != sha256: raise OSError("its checksum is not the one in the index")
    make_room()  # others may have come meanwhile
    return target


def make_room(size: int = 0):
    "Remove the shards used longest ago until `size` bytes more are within the cache's limit, and on the disk"
    found = []
    for file in (cache_folder()/"shards").glob("*.tar"):
        try: found.append((file.stat(), file))
        except FileNotFoundError: pass  # another process makes room, too
    if not found: return
    held = sum(o.st_size for o, _ in found)
    total, limit = held + size, min(cache_limit(), held + shutil.disk_usage(cache_folder()).free)
    for o, file in sorted(found, key=lambda x: x[0].st_mtime_ns):
        if total <= limit: return
        file.unlink(missing_ok=True)
        total -= o.st_size


def _path(sha256: str) -> Path: return cache_folder()/"shards"/f"{sha256}.tar"
