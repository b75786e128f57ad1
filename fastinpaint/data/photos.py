"Photographs on disk: which files there are, why one cannot be read, and any of them as correct 8-bit RGB"
import os
import struct
import zlib
from bisect import bisect_left
from functools import cache
from pathlib import Path

import numpy as np
import torch
from fastai.data.external import URLs, fastai_path, untar_data
from PIL import Image, ImageOps

from ..core.download import unreachable

__all__ = ["NAMED_DATA", "Skipped", "UNREADABLE", "find_images", "image_size", "named_data", "open_photo",
           "readable", "to_rgb"]

# what Pillow's readers raise on a broken file: a decoder meets arbitrary bytes, so more than OSError
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, struct.error,
              zlib.error, Image.DecompressionBombError)
NAMED_DATA = dict(pets=(URLs.PETS, "images"), imagenette=(URLs.IMAGENETTE_320, ""))  # name: (archive, folder in it)


@cache
def _extensions() -> frozenset[str]:
    known = Image.registered_extensions()  # also loads Pillow's plugins, so OPEN is complete after it
    return frozenset(ext for ext, kind in known.items() if kind in Image.OPEN)


def find_images(folder: str | Path, exclude: tuple[str | Path, ...] = ()) -> list[str]:
    """Paths of the files under `folder` whose extension Pillow reads, sorted; hidden files and `exclude` are left out.

    Raises FileNotFoundError if there is no such folder or no such file in it.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"no such folder: {folder}; expected a folder of images")
    left_out, files, others = {Path(o).resolve() for o in exclude}, [], 0
    for root, dirs, names in os.walk(folder):
        dirs[:] = [o for o in dirs if not o.startswith(".") and Path(root, o).resolve() not in left_out]
        for name in names:
            if name.startswith("."): continue
            if os.path.splitext(name)[1].lower() in _extensions(): files.append(os.path.join(root, name))
            else: others += 1
    if files: return sorted(files)
    raise FileNotFoundError(f"no images in {folder} and its subfolders ({others} other files): looked for "
                            f"{', '.join(sorted(_extensions()))}")


def _reason(fn: str, error: Exception) -> str:
    if os.path.isfile(fn) and os.access(fn, os.R_OK) and not os.path.getsize(fn): return "the file is empty"
    if isinstance(error, Image.UnidentifiedImageError): return "not an image that Pillow can read"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class Skipped:
    """The files that could not be read, each reported once, whichever worker of whichever epoch meets it first.

    Workers are forked anew each epoch, so what they know must be in shared memory: one byte a file.
    """
    def __init__(self, files: list[str]):
        self.files = sorted(files)
        self.flags = torch.zeros(len(files), dtype=torch.uint8).share_memory_()

    def add(self, fn: str | Path, error: Exception):
        "Print that `fn` is skipped and why, unless that was said before"
        i = bisect_left(self.files, str(fn))
        if i < len(self.files) and self.files[i] == str(fn):
            if self.flags[i]: return
            self.flags[i] = 1
        print(f"skipped {fn}: {_reason(str(fn), error)}", flush=True)

    @property
    def names(self) -> list[str]: return [self.files[i] for i in self.flags.nonzero().flatten().tolist()]


def readable(files: list[str], skipped: Skipped) -> list[str]:
    "Those of `files` whose header can be read; the others go to `skipped`. Raises OSError if none is left."
    good = []
    for fn in files:
        try:
            with Image.open(fn): good.append(fn)
        except UNREADABLE as e: skipped.add(fn, e)
    if not good:
        raise OSError(f"none of the {len(files)} image files under {os.path.commonpath(files)} could be read; "
                      "the reasons are printed above")
    if len(good) < len(files): print(f"skipped {len(files) - len(good)} of {len(files)} files")
    return good


def image_size(fn: str | Path) -> tuple[int, int]:
    "(width, height) after the EXIF turn, from the header alone"
    with Image.open(fn) as im:
        w, h = im.size
        if im.format == "TIFF": return w, h  # Pillow turns these itself
        return (h, w) if im.getexif().get(0x0112, 1) >= 5 else (w, h)  # orientations 5-8 swap the axes


def to_rgb(im: Image.Image) -> Image.Image:
    """Any Pillow mode as 8-bit RGB.

    16-bit grey is divided by 257, 32-bit integers above 65535 by 2^31 / 255; floats are taken as [0, 1] if none exceeds
    1, else as [0, 255]. Transparency is composited over white. CMYK, Lab, palettes ... are Pillow's conversions.
    """
    if im.mode[0] in "IF":
        grey = np.nan_to_num(np.asarray(im, dtype=np.float64))
        if im.mode == "F": full = 1 if grey.max(initial=0) <= 1 else 255
        else: full = 65535 if grey.max(initial=0) <= 65535 else 2**31 - 1
        im = Image.fromarray(np.rint(grey.clip(0, full) * (255 / full)).astype(np.uint8))
    if im.has_transparency_data:
        im = im.convert("RGBA")
        im = Image.alpha_composite(Image.new("RGBA", im.size, "white"), im)
    return im.convert("RGB")


def open_photo(source, min_side: int | None = None) -> Image.Image:
    """The photograph `source` (path, file object) as 8-bit RGB, turned by its EXIF orientation; its first frame.

    With `min_side` a large JPEG may be decoded at 1/2, 1/4 or 1/8 scale, with no side below `min_side` pixels: several
    times faster. Raises what Pillow raises on a file that it cannot read (`UNREADABLE`).
    """
    with Image.open(source) as im:
        if min_side: im.draft(None, (min_side, min_side))
        return to_rgb(ImageOps.exif_transpose(im))


def named_data(name: str | Path) -> Path:
    """The folder of a named set of photographs: `sample` (bundled), `pets`, `imagenette` (downloaded once by fastai),
    or `name` itself if it is a folder.

    Raises ConnectionError within seconds if a set must be downloaded and cannot be, ValueError for anything else.
    """
    if name == "sample": return Path(__file__).parent / "sample"
    if name in NAMED_DATA:
        url, folder = NAMED_DATA[name]
        there = URLs.path(url).exists() or (fastai_path("data") / Path(url).stem).exists()
        if not there and (why := unreachable(url)):
            raise ConnectionError(f"cannot download {name} from {url} ({why}); pass a folder of photographs instead, "
                                  "for example --data path/to/photos, or --data sample")
        return untar_data(url) / folder
    if Path(name).is_dir(): return Path(name)
    raise ValueError(f"{name!r} is neither a folder nor one of sample, {', '.join(NAMED_DATA)}")
