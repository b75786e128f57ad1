"Archives of photographs: downloaded in as many goes as it takes, checked, unpacked whole or not at all"
import hashlib
import http.client
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

from ..core.download import unreachable
from ..core.errors import InputError, Unreachable

STALLED = 60  # seconds without a byte until a download counts as broken off


def fetch_archive(url: str, path: Path, md5: str):
    """Download `url` to `path` unless it is there, going on with what an earlier try left in `path`.part.

    Raises Unreachable where it cannot be had, InputError for another MD5 and where the disk is too small."""
    there = path if path.exists() else _downloaded(url, path.with_name(f"{path.name}.part"))
    print(f"checking {there}", flush=True)
    if (found := _md5(there)) != md5:
        raise InputError(f"{there} is not the file of {url}: its MD5 is {found}, expected {md5}; remove it")
    there.replace(path)


def _md5(path: Path) -> str:
    found = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as f:
        while piece := f.read(1 << 20): found.update(piece)
    return found.hexdigest()


def _downloaded(url: str, part: Path) -> Path:
    "`part`, complete"
    if why := unreachable(url):
        raise Unreachable(f"cannot download {url} ({why}); put the file in {part.parent}, or pass a folder "
                          "of photographs instead, for example --data path/to/photos")
    part.parent.mkdir(parents=True, exist_ok=True)
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"})
    try:
        with urllib.request.urlopen(request, timeout=STALLED) as response:
            start = start if response.status == 206 else 0  # else the server begins anew
            size = start + int(response.headers.get("Content-Length", 0))
            _has_room(part.parent, 2 * size - start, url)
            print(f"downloading {url}, {size / 1e9:.2f} GB, to {part}", flush=True)
            with open(part, "ab" if start else "wb") as f: shutil.copyfileobj(response, f, 1 << 20)
    except urllib.error.HTTPError as e:
        if e.code != 416: raise Unreachable(f"{url} cannot be downloaded ({e})") from e
        return part  # nothing is left to ask for
    except (OSError, http.client.HTTPException) as e: raise Unreachable(_broken_off(url, part, e)) from e
    if part.stat().st_size < size: raise Unreachable(_broken_off(url, part, "the connection was closed"))
    return part


def _broken_off(url: str, part: Path, why) -> str:
    return f"the download of {url} broke off ({why}); the same command goes on with {part}"


def _has_room(folder: Path, needed: int, url: str):
    "Raises InputError unless archive and photographs fit"
    if (free := shutil.disk_usage(folder).free) < needed:
        raise InputError(f"{url} and its photographs need {needed / 1e9:.1f} GB in {folder}, where "
                         f"{free / 1e9:.1f} GB are free; FASTAI_HOME in the environment names another place")


def unpack(archive: Path, folder: Path):
    "The photographs (.jpg) of a .tar or .zip file to `folder`; raises InputError for a broken file"
    print(f"unpacking {archive}", flush=True)
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as f: f.extractall(folder, filter(_is_photo, f.namelist()))
        else:
            with tarfile.open(archive, "r:") as f:
                f.extractall(folder, (o for o in f if o.isfile() and _is_photo(o.name)), filter="data")
    except (tarfile.TarError, zipfile.BadZipFile) as e:
        raise InputError(f"{archive} cannot be unpacked ({e}); remove it and get it again") from e


def _is_photo(name: str) -> bool: return name.endswith(".jpg") and not Path(name).name.startswith(".")


@contextmanager
def whole_folder(folder: Path):
    "A hidden folder beside `folder`, in whose place it comes when the block ends without an exception"
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        unfinished.rename(folder)
    finally: shutil.rmtree(unfinished, ignore_errors=True)


def link_photos(files: Iterable[tuple[str, Path]], folder: Path):
    "Hard links, which take no room, of (name, file) in `folder`"
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in files: os.link(file, folder / name)
