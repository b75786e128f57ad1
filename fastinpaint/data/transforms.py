"""From a folder of photographs to batches of (masked image, mask) and (image, mask): `InpaintDataLoaders.from_folder`.

Items are paths. On the CPU workers a photograph becomes a crop and its hole is drawn; on the device the batch is
augmented and becomes xb = (masked, mask), yb = (image, mask).
"""
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from fastai.data.load import SkipItemException
from fastai.torch_core import TensorImage, TensorMask
from fastai.vision.augment import RandTransform
from fastai.vision.core import PILImage, PILMask
from fasttransform import ItemTransform, Transform
from PIL import Image

from .masks import MaskFolder, draw_hole, read_mask
from .photos import UNREADABLE, Skipped, image_size, open_photo

SCAN_LIMIT = 10_000  # of more photographs than this, none is opened before its turn in an epoch


class PILPhoto(PILImage):
    "A photograph as correct RGB, whatever the file holds (see `open_photo`)"
    @classmethod
    def create(cls, fn, min_side: int | None = None, **kwargs): return cls(open_photo(fn, min_side))


class Unreadable:
    "Stands in the dataset for an image or mask that could not be read; the epoch skips the item"


class HoleName(str):
    "Stands in the dataset for a hole that is drawn later, at the crop's size; names the item"


def relative_name(fn: str | Path, roots: tuple[Path, ...]) -> str:
    "`fn` relative to the folder of photographs that holds it: what seeds a validation mask, wherever the folder lies"
    fn = Path(fn)
    return next((fn.relative_to(o).as_posix() for o in roots if fn.is_relative_to(o)), fn.name)


class OpenPhoto(Transform):
    "A path to a `PILPhoto`, or to `Unreadable` after telling `skipped`"
    input_types = (str, Path)
    def __init__(self, skipped: Skipped, min_side: int | None):
        super().__init__()
        self.skipped, self.min_side = skipped, min_side

    def encodes(self, fn: str | Path):
        try: return PILPhoto.create(fn, self.min_side)
        except UNREADABLE as e: self.skipped.add(fn, e)
        return Unreadable()


class NameHole(Transform):
    "A path to its `HoleName`"
    input_types = (str, Path)
    def __init__(self, roots: tuple[Path, ...]):
        super().__init__()
        self.roots = roots

    def encodes(self, fn: str | Path): return HoleName(relative_name(fn, self.roots))


class OpenMask(Transform):
    "A photograph's path to its own mask, `PILMask` of 0 and 1, or to `Unreadable` after telling `skipped`"
    input_types = (str, Path)
    def __init__(self, folder: MaskFolder, roots: tuple[Path, ...], skipped: Skipped):
        super().__init__()
        self.folder, self.roots, self.skipped = folder, roots, skipped

    def encodes(self, fn: str | Path):
        name = relative_name(fn, self.roots)
        if not (mask := self.folder.mask_of(name)): self.folder.check([name], self.skipped)
        if not check_size(fn, mask, self.skipped): return Unreadable()
        try: return PILMask(Image.fromarray(read_mask(mask, self.folder.invert).astype(np.uint8)))
        except UNREADABLE as e: self.skipped.add(mask, e)
        return Unreadable()


def check_size(fn: str | Path, mask: str, skipped: Skipped) -> bool:
    "Whether both headers can be read; raises ValueError, naming both files and sizes, if the sizes differ"
    sizes = []
    for o in (fn, mask):
        try: sizes.append(image_size(o))
        except UNREADABLE as e: skipped.add(o, e)
    if len(sizes) < 2: return False
    (w, h), (mw, mh) = sizes
    if (w, h) == (mw, mh): return True
    raise ValueError(f"the mask {mask} is {mw}x{mh} pixels, but its photograph {fn} is {w}x{h}; "
                     "a mask must have its photograph's size")


def square_box(size: tuple[int, int], side: float, x: float, y: float) -> tuple[float, float, float, float]:
    "Left, top, right and bottom of a square of `side` in an image of `size`; `x` and `y` from 0 (left, top) to 1"
    left, top = x * (size[0] - side), y * (size[1] - side)
    return left, top, left + side, top + side


class CropToSize(RandTransform):
    """A square of photograph and mask, resized to `size`.

    Validation: the central square of the shorter side. Training: a random square of 50-100 % of that side, with no
    less than `size` pixels where the photograph has them.
    """
    order, split_idx = 1, None
    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def before_call(self, b, split_idx: int | None):
        image, mask = b
        if isinstance(image, Unreadable) or isinstance(mask, Unreadable): raise SkipItemException
        short = min(image.size)
        self.box = square_box(image.size, short, 0.5, 0.5)
        if split_idx: return
        for _ in range(10):  # a crop of the user's mask that misses the hole teaches nothing
            side = random.uniform(max(short / 2, min(short, self.size)), short)
            self.box = square_box(image.size, side, random.random(), random.random())
            if isinstance(mask, HoleName) or mask.crop(tuple(map(round, self.box))).getbbox(): break

    def _resize(self, o, resample): return o.resize((self.size, self.size), resample, box=self.box)
    def encodes(self, o: PILPhoto): return self._resize(o, Image.Resampling.BICUBIC)
    def encodes(self, o: PILMask): return self._resize(o, Image.Resampling.NEAREST)  # noqa: F811 - fastai dispatch


class DrawHole(RandTransform):
    "Draws the hole that a `HoleName` stands for: new each time in training, a function of name and seed in validation"
    order, split_idx = 2, None
    def __init__(self, sampler: Callable, size: int, seed: int):
        super().__init__()
        self.sampler, self.size, self.seed = sampler, size, seed

    def before_call(self, b, split_idx: int | None): self.valid = bool(split_idx)

    def encodes(self, name: HoleName):
        # Python's generator is seeded by fastai in every worker and epoch, and stored and restored with a run
        rng = hole_rng(self.seed, name) if self.valid else np.random.default_rng(random.getrandbits(64))
        return PILMask(Image.fromarray(draw_hole(self.sampler, self.size, self.size, rng)))


def hole_rng(seed: int, name: str) -> np.random.Generator:
    "The generator of a hole that depends on its photograph's `name` and `seed` alone"
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def central_square(image: Image.Image, size: int, resample: Image.Resampling) -> Image.Image:
    "The central square of the shorter side, resized to `size`: what validation and evaluation look at"
    return image.resize((size, size), resample, box=square_box(image.size, min(image.size), 0.5, 0.5))


class MaskedPair(ItemTransform):
    "Last on the device: (image, mask) to (masked, mask, image, mask), image `[B, 3, H, W]`, mask float `[B, 1, H, W]`"
    order, _retain = 100, False

    def encodes(self, b):
        image, mask = (o.as_subclass(torch.Tensor) for o in b)
        mask = mask[:, None].to(image.dtype)
        image, mask, masked = TensorImage(image), TensorMask(mask), TensorImage(image * (1 - mask))
        return masked, mask, image, mask
