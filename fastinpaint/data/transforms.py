"From a path to what a model trains on: files opened, a crop, its hole, the masked pair"
import random
from pathlib import Path

import numpy as np
import torch
from fastai.data.load import SkipItemException
from fastai.torch_core import TensorImage, TensorMask
from fastai.vision.core import PILImage, PILMask
from fasttransform import ItemTransform, Transform
from PIL import Image

from .holes import hole_rng
from .masks import HoleName
from .photos import Skipped, open_photo, square_box
from .shard_index import relative_name
from .shards import source_of


class PILPhoto(PILImage):
    "A photograph as correct RGB, whatever the file holds (see `open_photo`)"
    @classmethod
    def create(cls, fn, min_side: int | None = None, **kwargs): return cls(open_photo(fn, min_side))


class Unreadable:
    "In place of an image or mask that could not be read; the epoch skips the item"


class OpenPhoto(Transform):
    "A path to a `PILPhoto`, or to `Unreadable`, logged in `skipped`"
    input_types = (str, Path)
    def __init__(self, skipped: Skipped, min_side: int | None):
        super().__init__()
        self.skipped, self.min_side = skipped, min_side

    def encodes(self, fn: str | Path):
        if (source := source_of(fn, self.skipped)) is None: return Unreadable()
        with self.skipped.unreadable(fn): return PILPhoto.create(source, self.min_side)
        return Unreadable()


class OpenHole(Transform):
    "A photograph's path to what the source of holes has for it, or to `Unreadable`"
    input_types = (str, Path)
    def __init__(self, source, roots: tuple[Path, ...], skipped: Skipped):
        super().__init__()
        self.source, self.roots, self.skipped = source, roots, skipped

    def encodes(self, fn: str | Path):
        return self.source.open(relative_name(fn, self.roots), fn, self.skipped) or Unreadable()


class CropToSize(Transform):
    """A square of photograph and mask, resized to `size`; a `HoleName` becomes a hole that `source` draws.

    Training: a random square of 50-100 % of the shorter side, with no less than `size` pixels where the
    photograph has them; `native`: of `size` pixels as they are, or the shorter side; a new hole.
    Validation: the central square; a hole of its name and `seed` alone."""
    order = 1
    def __init__(self, size: int, source=None, seed: int = 0, native: bool = False):
        super().__init__()
        self.size, self.source, self.seed, self.native = size, source, seed, native

    def _random_box(self, size: tuple[int, int]) -> tuple[float, ...]:
        short = min(size)
        side = min(short, self.size)
        if not self.native: side = random.uniform(max(short / 2, side), short)
        box = square_box(size, side, random.random(), random.random())
        if not self.native: return box
        left, top = map(int, box[:2])  # between pixels there would be nothing native
        return left, top, left + side, top + side

    def __call__(self, b, split_idx: int | None = None, **kwargs):
        self.before_call(b, split_idx)
        return super().__call__(b, split_idx=split_idx, **kwargs)

    def before_call(self, b, split_idx: int | None):
        (image, mask), self.valid = b, bool(split_idx)
        if isinstance(image, Unreadable) or isinstance(mask, Unreadable): raise SkipItemException
        self.box = square_box(image.size, min(image.size), 0.5, 0.5)
        tries = 100 if self.native else 10  # a crop without the user's hole teaches nothing
        for _ in range(0 if self.valid else tries):
            self.box = self._random_box(image.size)
            if isinstance(mask, HoleName) or mask.crop(tuple(map(round, self.box))).getbbox(): break

    def _resize(self, o, resample): return o.resize((self.size, self.size), resample, box=self.box)
    def encodes(self, o: PILPhoto): return self._resize(o, Image.Resampling.BICUBIC)
    def encodes(self, o: PILMask): return self._resize(o, Image.Resampling.NEAREST)  # noqa: F811

    def encodes(self, name: HoleName):  # noqa: F811
        # fastai seeds Python's generator in every worker and epoch, and runs restore it
        rng = hole_rng(self.seed, name) if self.valid else np.random.default_rng(random.getrandbits(64))
        return PILMask(Image.fromarray(self.source.draw(self.size, self.size, rng)))


class MaskedPair(ItemTransform):
    "Last on the device: image `[B, 3, H, W]`, mask `[B, H, W]` to (masked, mask `[B, 1, H, W]`, image, mask)"
    order, _retain = 100, False
    def encodes(self, b):
        image, mask = (o.as_subclass(torch.Tensor) for o in b)
        mask = mask[:, None].to(image.dtype)
        image, mask, masked = TensorImage(image), TensorMask(mask), TensorImage(image * (1 - mask))
        return masked, mask, image, mask
