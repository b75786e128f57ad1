"""Where holes come from: drawn by a sampler, or read from the user's own mask files.

A sampler is a pure function `(height, width, rng) -> bool [H, W]`, True = hole. Lengths are given in pixels at 256 and
scale with the image's shorter side. Shapes and numbers are LaMa's (Suvorov et al. 2022, supplement, mask generation).
"""
import math
import os
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from .photos import UNREADABLE, Skipped, find_images, to_rgb

__all__ = ["Boxes", "MaskFolder", "MaskPool", "Mixture", "PRESETS", "Strokes", "draw_hole", "mask_sampler",
           "mask_source", "read_mask"]

_REDRAWS = 50  # a preset that still breaks its limit after so many draws falls back to the central hole
_LOOKED_AT = 200  # reading every mask of a large folder at each start would take minutes


@dataclass(frozen=True)
class Strokes:
    "Brush strokes of up to five straight segments with round ends"
    count: tuple[int, int]  # strokes in an image
    length: tuple[float, float]  # of a segment, in pixels at 256
    width: tuple[float, float]  # of the brush, in pixels at 256

    def paint(self, draw: ImageDraw.ImageDraw, unit: float, rng: np.random.Generator):
        w, h = draw.im.size
        for k in range(rng.integers(*self.count, endpoint=True)):
            n = rng.integers(1, 5, endpoint=True)
            angles = rng.uniform(0, 4, n) * (-1) ** k  # 4 radians at most, mirrored on every other stroke
            steps, brushes = rng.uniform(*self.length, n) * unit, rng.uniform(*self.width, n) * unit
            x, y = rng.uniform(0, w), rng.uniform(0, h)
            for angle, step, brush in zip(angles.tolist(), steps.tolist(), brushes.tolist(), strict=True):
                x1 = min(max(x + step * math.sin(angle), 0), w)
                y1 = min(max(y + step * math.cos(angle), 0), h)
                draw.line((x, y, x1, y1), fill=1, width=max(1, round(brush)))
                for cx, cy in ((x, y), (x1, y1)):
                    draw.ellipse((cx - brush / 2, cy - brush / 2, cx + brush / 2, cy + brush / 2), fill=1)
                x, y = x1, y1


@dataclass(frozen=True)
class Boxes:
    "Upright rectangles, at least `margin` away from the border"
    count: tuple[int, int]  # rectangles in an image
    side: tuple[float, float]  # in pixels at 256
    margin: float = 0  # in pixels at 256

    def paint(self, draw: ImageDraw.ImageDraw, unit: float, rng: np.random.Generator):
        margin = round(self.margin * unit)
        for _ in range(rng.integers(*self.count, endpoint=True)):
            (x0, x1), (y0, y1) = (self._span(n, margin, unit, rng) for n in draw.im.size)
            draw.rectangle((x0, y0, x1, y1), fill=1)

    def _span(self, size: int, margin: int, unit: float, rng: np.random.Generator) -> tuple[int, int]:
        room = max(1, size - 2 * margin)
        length = min(max(1, round(rng.uniform(*self.side) * unit)), room)
        start = margin + int(rng.integers(room - length, endpoint=True))
        return start, start + length - 1


@dataclass(frozen=True)
class Mixture:
    "A sampler that chooses one kind of shape by relative weight, and draws again while the hole breaks `limit`"
    kinds: tuple[tuple[Strokes | Boxes, float], ...]  # (shape, weight)
    limit: float = 1.0  # largest share of the image that may be hole

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        shapes, weights = zip(*self.kinds, strict=True)
        p = np.asarray(weights) / sum(weights)
        for _ in range(_REDRAWS):
            canvas = Image.new("L", (width, height))
            shape = shapes[rng.choice(len(shapes), p=p)]
            shape.paint(ImageDraw.Draw(canvas), min(height, width) / 256, rng)
            hole = np.array(canvas, dtype=bool)
            if hole.any() and not hole.all() and hole.mean() <= self.limit: return hole
        return center(height, width)


def center(height: int, width: int, rng: np.random.Generator | None = None) -> np.ndarray:
    "The central half of height and width (a quarter of the image) is hole; nothing is random"
    h, w = max(1, height // 2), max(1, width // 2)
    if h * w == height * width: raise ValueError(f"an image of {width}x{height} pixels has no room for a hole")
    hole = np.zeros((height, width), dtype=bool)
    hole[(height - h) // 2:][:h, (width - w) // 2:][:, :w] = True
    return hole


def outpaint(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    "Bands of 10-30 % of the image along one to four of its sides are hole"
    hole = np.zeros((height, width), dtype=bool)
    for side in rng.permutation(4)[:rng.integers(1, 4, endpoint=True)]:
        turned = np.rot90(hole, side)  # a view: each side in its turn is on top
        turned[:max(1, round(rng.uniform(0.1, 0.3) * len(turned)))] = True
    return center(height, width) if hole.all() else hole


_TRAIN_STROKES = Strokes((1, 5), (10, 210), (5, 105))
PRESETS: dict[str, Callable] = dict(
    train=Mixture(((_TRAIN_STROKES, 1), (Boxes((1, 4), (30, 150), 10), 1))),
    thin=Mixture(((Strokes((4, 50), (1, 40), (1, 10)), 1),), limit=0.5),
    medium=Mixture(((Strokes((4, 5), (10, 100), (5, 50)), 1), (Boxes((1, 5), (10, 50)), 0.3)), limit=0.5),
    thick=Mixture(((Strokes((1, 5), (10, 200), (5, 100)), 1), (Boxes((1, 3), (30, 150), 10), 0.3)), limit=0.5),
    center=center,
    outpaint=outpaint,
)


def mask_sampler(masks: str | Callable) -> Callable:
    """The sampler of a preset's name; a callable `(height, width, rng) -> [H, W]` is returned as it is.

    Raises ValueError for a name that is no preset, naming those that are.
    """
    if callable(masks): return masks
    if masks in PRESETS: return PRESETS[masks]
    raise ValueError(f"unknown masks {masks!r}: expected one of {', '.join(PRESETS)}, or a callable "
                     "(height, width, rng) -> bool array [H, W], True = hole")


def draw_hole(sampler: Callable, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """`sampler`'s hole as uint8 `[H, W]` of 0 and 1 (1 = hole).

    Raises ValueError if what the sampler returns is not of that size, or holds anything but 0 and 1.
    """
    hole = np.asarray(sampler(height, width, rng))
    if hole.shape != (height, width):
        raise ValueError(f"the mask sampler returned shape {hole.shape}, expected (height, width) = {(height, width)}")
    if hole.dtype != bool and not np.isin(hole, (0, 1)).all():
        raise ValueError("the mask sampler returned values other than 0 and 1 (1 = hole); compare with a threshold")
    return hole.astype(np.uint8)


def read_mask(source, invert: bool = False) -> np.ndarray:
    """A mask file as bool `[H, W]`, True = hole, turned by its EXIF orientation.

    Grey of 128 and more is hole; in a file that holds only 0 and 1 (grey or palette indices) 1 is hole.
    `invert` swaps hole and known. Raises what Pillow raises for a file that it cannot read.
    """
    with Image.open(source) as im: return hole_of(ImageOps.exif_transpose(im), invert)


def hole_of(im: Image.Image, invert: bool = False) -> np.ndarray:
    "The hole that a mask's picture shows, as in `read_mask`"
    values = np.asarray(im) if im.mode in ("1", "L", "P") else np.asarray(to_rgb(im).convert("L"))
    if values.max(initial=0) <= 1: hole = values > 0
    else: hole = np.asarray(to_rgb(im).convert("L")) >= 128
    return hole != invert


def _warn_if_inverted(files: list[str], invert: bool, skipped: Skipped):
    "White is hole, yet many mask sets mean the opposite: say so when a mask is mostly hole"
    mostly = []
    for fn in files[::math.ceil(len(files) / _LOOKED_AT)]:
        try: share = read_mask(fn, invert).mean()
        except UNREADABLE as e: skipped.add(fn, e)
        else:
            if share > 0.6: mostly.append(f"{fn} ({share:.0%})")
    if mostly:
        warnings.warn(f"{len(mostly)} mask(s) are over 60 % hole, such as {mostly[0]}: 1 or white means hole; "
                             "pass invert=True if these files mean the opposite", stacklevel=2)


class MaskFolder:
    "The user's own masks, one for each photograph: same path within the folder or same file stem, any format"
    def __init__(self, folder: str | Path, invert: bool = False):
        self.folder, self.invert, self.files = str(folder), invert, find_images(folder)
        stems = Counter(Path(o).stem for o in self.files)
        self.by_name = {Path(o).stem: o for o in self.files if stems[Path(o).stem] == 1}  # one of two would be a guess
        self.by_name |= {os.path.splitext(os.path.relpath(o, folder))[0]: o for o in self.files}

    def mask_of(self, name: str) -> str | None:
        "The mask file for the photograph `name` (a path relative to the photographs' folder), None without one"
        return self.by_name.get(os.path.splitext(name)[0], self.by_name.get(Path(name).stem))

    def check(self, names: list[str], skipped: Skipped):
        "Raises ValueError unless every photograph in `names` has its mask; warns of masks that look inverted"
        missing = [o for o in names if self.mask_of(o) is None]
        if missing:
            raise ValueError(f"{len(missing)} of {len(names)} photographs have no mask of the same file stem in "
                             f"{self.folder}: {', '.join(missing[:3])} ...; to draw any mask for any photograph "
                             f"pass masks='pool:{self.folder}'")
        _warn_if_inverted(sorted({self.mask_of(o) for o in names}), self.invert, skipped)


class MaskPool:
    "A sampler that draws one of the user's mask files and resizes it (nearest) to the image"
    def __init__(self, folder: str | Path, invert: bool = False):
        self.folder, self.invert, self.files, self.skipped = str(folder), invert, find_images(folder), Skipped([])

    def check(self, names: list[str], skipped: Skipped):
        "Report unreadable files to `skipped` from now on; warns of masks that look inverted"
        self.skipped = skipped
        _warn_if_inverted(self.files, self.invert, skipped)

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        for i in rng.permutation(len(self.files)):
            try: hole = Image.fromarray(read_mask(self.files[i], self.invert))
            except UNREADABLE as e: self.skipped.add(self.files[i], e)
            else: return np.asarray(hole.resize((width, height), Image.Resampling.NEAREST))
        raise OSError(f"none of the {len(self.files)} mask files in {self.folder} could be read")


def mask_source(masks: str | Path | Callable, invert: bool = False) -> Callable | MaskFolder:
    """What `masks` asks for: a preset's name or a callable (a sampler), `"pool:FOLDER"` (a `MaskPool`, also a sampler),
    or a folder of masks matched to the photographs by file stem (a `MaskFolder`).

    Raises ValueError for a string that is neither a preset nor a folder, and FileNotFoundError for an empty folder.
    """
    if isinstance(masks, str) and masks.startswith("pool:"):
        return MaskPool(masks.removeprefix("pool:"), invert)
    if isinstance(masks, Path) or (isinstance(masks, str) and masks not in PRESETS and Path(masks).is_dir()):
        return MaskFolder(masks, invert)
    if isinstance(masks, str) and masks not in PRESETS:
        raise ValueError(f"masks={masks!r} is neither a preset ({', '.join(PRESETS)}) nor an existing folder; "
                         "'pool:FOLDER' draws from a folder of masks")
    if invert: raise ValueError("invert=True is for mask files; masks that are drawn already have 1 = hole")
    return mask_sampler(masks)
