"Photographs on disk: which files there are, why one cannot be read, any of them as 8-bit RGB"
import os
import struct
import zlib
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from ..core.errors import InputError, MissingFile
from .listing import Files, listed
from .remote import INDEX

with suppress(ImportError):  # HEIC, where the package is there
    from pillow_heif import register_heif_opener
    register_heif_opener()

# what Pillow's readers raise on a broken file; its decoders meet arbitrary bytes
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError,
              OverflowError, struct.error, zlib.error, Image.DecompressionBombError)


def find_images(folder: str | Path, exclude: tuple[str | Path, ...] = ()) -> Files:
    "Files under `folder` of Pillow's extensions, not hidden nor in `exclude`, sorted; raises MissingFile"
    if not Path(folder).is_dir(): raise MissingFile(f"no such folder: {folder}; expected a folder of images")
    known = {o for o, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    files, others = listed(folder, known)
    for o in exclude: files = files.outside(os.path.relpath(os.path.realpath(o), os.path.realpath(folder)))
    if files: return files
    if (Path(folder)/INDEX).is_file():
        raise InputError(f"{folder} holds shards; expected a folder of image files here")
    raise MissingFile(f"no images in {folder} and its subfolders ({others} other files): "
                      f"looked for {', '.join(sorted(known))}")


def unreadable_because(fn: str, error: Exception) -> str:
    "Why a reader raised `error` over the file `fn`"
    if os.access(fn, os.R_OK) and not os.path.getsize(fn): return "the file is empty"
    if isinstance(error, Image.UnidentifiedImageError): return "not an image that Pillow can read"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class Skipped:
    "Prints each of `files` that cannot be read once; in shared memory, as workers are forked anew each epoch"
    def __init__(self, *files: Sequence[str]):
        self.files = files
        self.flags = [torch.zeros(len(o), dtype=torch.uint8).share_memory_() for o in files]

    def log(self, fn: str, reason: str):
        "Print that `fn` is skipped, and why, unless that is printed already"
        for files, flags in zip(self.files, self.flags, strict=True):
            with suppress(ValueError):
                if flags[i := files.index(fn)]: return
                flags[i] = 1
                break
        print(f"skipped {fn}: {reason}", flush=True)

    @contextmanager
    def unreadable(self, fn: str | Path):
        "Leaves the block, and logs why, where Pillow cannot read the file `fn`"
        try: yield
        except UNREADABLE as e: self.log(str(fn), unreadable_because(str(fn), e))

    @property
    def names(self) -> list[str]:
        found = (files[i] for files, flags in zip(self.files, self.flags, strict=True)
                 for i in flags.nonzero().flatten().tolist())
        return sorted(set(found))


def readable(files: Files, skipped: Skipped) -> Files:
    "`files` whose header can be read; logs the others. Raises InputError if it is none of them."
    good = []
    for i, fn in enumerate(files):
        with skipped.unreadable(fn), Image.open(fn): good.append(i)
    if files and not good:
        raise InputError(f"none of the {len(files)} image files under {files.root} "
                         "could be read; the reasons are printed above")
    if len(good) < len(files): print(f"skipped {len(files) - len(good)} of {len(files)} files")
    return files[np.array(good, np.int64)]


def image_size(fn: str | Path) -> tuple[int, int]:
    "(width, height) after the EXIF turn, from the header alone"
    with Image.open(fn) as im:  # orientations 5 to 8 swap the axes; Pillow turns TIFFs itself
        turned = im.format != "TIFF" and im.getexif().get(0x0112, 1) >= 5
        return im.size[::-1] if turned else im.size


def to_rgb(im: Image.Image) -> Image.Image:
    """Any Pillow mode as 8-bit RGB, composited over white.

    Integers are taken as [0, 65535] or, if one exceeds it, [0, 2^31), floats as [0, 1] or [0, 255]."""
    if im.mode[0] in "IF": im = _eight_bits(im)
    if im.has_transparency_data:
        im = im.convert("RGBA")
        im = Image.alpha_composite(Image.new("RGBA", im.size, "white"), im)
    return im.convert("RGB")


def _eight_bits(im: Image.Image) -> Image.Image:
    "Grey of integers or floats as L, see `to_rgb`; in place, as a large one is eight times as large by now"
    grey = np.array(im, dtype=np.float64)
    np.nan_to_num(grey, copy=False)
    if im.mode == "F": full = 1 if grey.max(initial=0) <= 1 else 255
    else: full = 65535 if grey.max(initial=0) <= 65535 else 2**31 - 1
    np.clip(grey, 0, full, out=grey)
    grey *= 255 / full
    return Image.fromarray(np.rint(grey, out=grey).astype(np.uint8))


def open_photo(source, min_side: int | None = None) -> Image.Image:
    """First frame of the photograph `source` (path, file): 8-bit RGB, upright; raises `UNREADABLE`.

    With `min_side` a large JPEG may be decoded, faster, at 1/2 to 1/8, no side below `min_side`."""
    with Image.open(source) as im:
        if min_side: im.draft(None, (min_side, min_side))
        ImageOps.exif_transpose(im, in_place=True)
        return to_rgb(im)


def square_box(size: tuple[int, int], side: float, x: float, y: float) -> tuple[float, ...]:
    "Left, top, right, bottom of a square in `size`; `x` and `y` from 0 (left, top) to 1"
    left, top = x * (size[0] - side), y * (size[1] - side)
    return left, top, left + side, top + side


def central_square(image: Image.Image, size: int, resample: Image.Resampling) -> Image.Image:
    "The central square of the shorter side, resized to `size`: what validation looks at"
    return image.resize((size, size), resample, square_box(image.size, min(image.size), 0.5, 0.5))
