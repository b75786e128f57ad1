"A photograph and its hole on the way to the result, and which of them a network sees together"
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ..core.errors import InputError
from ..data.pictures import Picture


@dataclass(frozen=True)
class Options:
    "How holes are filled; what each means says `Inpainter.__call__`. Raises InputError where they do not fit"
    invert: bool = False
    dilate: int = 0
    feather: int = 0
    refine: bool = False
    strategy: str | None = None
    texture: bool | None = None
    seed: int = 0
    resize_mask: bool = False
    soft: bool = False
    extend: tuple[int, int, int, int] = (0, 0, 0, 0)  # pixels to the left, top, right, bottom
    quality: int | None = None  # of the result's file

    def __post_init__(self):
        sides = self.extend if isinstance(self.extend, tuple | list) else ()
        if len(sides) != 4 or not all(isinstance(n, int | np.integer) and n >= 0 for n in sides):
            raise InputError(f"extend={self.extend}: four whole numbers of pixels, to the left, at the top, "
                             "to the right and at the bottom, each 0 or more")
        for name in "dilate", "feather":
            pixels = getattr(self, name)
            if not isinstance(pixels, int | np.integer) or pixels < 0:
                raise InputError(f"{name}={pixels!r}: a whole number of pixels, 0 or more")
        if self.feather > self.dilate:
            raise InputError(f"cannot feather {self.feather} of {self.dilate} dilated pixels: "
                             "0 to what dilate adds")
        if self.soft and self.dilate:
            raise InputError("a soft mask blends at its own grey edge: give soft or dilate, not both")

    def textured(self, generates):
        "Whether texture is added to the fills of a network that makes its own, or does not"
        return not generates if self.texture is None else self.texture

    def check_number(self, n, generates=False):
        "Raises InputError where there are no `n` different fills"
        if n < 1 or n > 1 and not (generates or self.textured(generates)):
            raise InputError(f"no {n} fills: expected 1 or more; as they differ in texture, 1 without")


@dataclass
class Work:
    "A photograph that is being filled"
    picture: Picture
    rgb: np.ndarray    # its colours, uint8 or uint16 `[H, W, 3]`
    hole: np.ndarray   # bool `[H, W]`, as the mask has it
    grown: np.ndarray  # the same, dilated: what is filled
    options: Options
    opacity: np.ndarray | None = None  # of a soft mask, uint8 `[H, W]`
    filled: np.ndarray | None = None  # by the network, like `rgb`
    strategy: str = ""  # by which it was filled, "" without a hole

    @property
    def size(self): return self.hole.shape


def of_one_size(works: Iterable[Work], most: int) -> Iterator[list[Work]]:
    "Neighbours among `works` that are of one size, `most` at a time; no more than these are held at once"
    together = []
    for work in works:
        if together and (len(together) == most or work.size != together[0].size):
            yield together
            together = []
        together.append(work)
    if together: yield together


def batched(items: Iterable, most: int) -> Iterator[list]:
    "`items` in lists of `most`, the last one of what is left"
    items = iter(items)
    while some := list(islice(items, most)): yield some
