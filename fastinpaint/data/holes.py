"Samplers `(height, width, rng) -> bool [H, W]`, True = hole, as LaMa's (Suvorov et al. 2022, supplement)"
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ..core.errors import InputError


@dataclass(frozen=True)
class Strokes:
    "Brush strokes of up to five segments with round ends, in four directions; every other stroke mirrored"
    count: tuple[int, int]  # least and most strokes in an image
    length: tuple[int, int]  # of a segment, in pixels at 256
    width: tuple[int, int]  # of the brush, in pixels at 256

    def paint(self, draw: ImageDraw.ImageDraw, unit: float, rng: np.random.Generator):
        w, h = draw.im.size
        for k in range(rng.integers(*self.count, endpoint=True)):
            n = rng.integers(1, 5, endpoint=True)
            angles = (0.01 + rng.integers(4, size=n)) * (1 if k % 2 else -1)
            lengths, widths = (rng.integers(*o, n, endpoint=True) for o in (self.length, self.width))
            # of width 2k - 1 or 2k, lines of OpenCV, which LaMa draws with, cover 2k + 1 pixels
            brushes = np.rint((widths + widths % 2 + 1) * unit).clip(1)
            x, y = int(rng.integers(w)), int(rng.integers(h))
            for angle, step, brush in np.stack((angles, lengths * unit, brushes), 1).tolist():
                x1 = min(max(int(x + step * math.sin(angle)), 0), w)
                y1 = min(max(int(y + step * math.cos(angle)), 0), h)
                draw.line((x, y, x1, y1), fill=1, width=int(brush))
                for end in ((x, y), (x1, y1)): draw.circle(end, (brush - 1) / 2, fill=1)
                x, y = x1, y1


@dataclass(frozen=True)
class Boxes:
    "Upright rectangles, at least `margin` away from the border"
    count: tuple[int, int]  # least and most rectangles in an image
    side: tuple[int, int]  # in pixels at 256
    margin: int = 0  # in pixels at 256

    def paint(self, draw: ImageDraw.ImageDraw, unit: float, rng: np.random.Generator):
        margin = round(self.margin * unit)
        for _ in range(rng.integers(*self.count, endpoint=True)):
            spans = []
            for size in draw.im.size:
                room = max(1, size - 2 * margin)
                length = min(max(1, round(rng.integers(*self.side, endpoint=True) * unit)), room)
                start = margin + int(rng.integers(room - length, endpoint=True))
                spans.append((start, start + length - 1))
            draw.rectangle([*zip(*spans, strict=True)], fill=1)


@dataclass(frozen=True)
class Mixture:
    "A sampler that chooses shapes by relative weight, until the hole keeps to `limit`, else the central one"
    kinds: tuple[tuple[Strokes | Boxes, float], ...]  # (shape, weight)
    limit: float = 1.0  # largest share of the image that may be hole

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        shapes, weights = zip(*self.kinds, strict=True)
        for _ in range(50):
            canvas = Image.new("L", (width, height))
            shape = shapes[rng.choice(len(shapes), p=np.asarray(weights) / sum(weights))]
            shape.paint(ImageDraw.Draw(canvas), min(height, width) / 256, rng)
            hole = np.array(canvas, dtype=bool)
            if hole.any() and not hole.all() and hole.mean() <= self.limit: return hole
        return center(height, width)


def center(height: int, width: int, rng: np.random.Generator | None = None) -> np.ndarray:
    "The central half of height and width is hole; raises InputError for an image of a single pixel"
    h, w = max(1, height // 2), max(1, width // 2)
    if height == width == 1: raise InputError("an image of 1x1 pixels has no room for a hole")
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


PRESETS: dict[str, Callable] = dict(
    train=Mixture(((Strokes((1, 6), (10, 209), (5, 104)), 1), (Boxes((1, 4), (30, 150), 10), 1))),
    thin=Mixture(((Strokes((4, 51), (10, 49), (5, 14)), 1),), 0.5),
    medium=Mixture(((Strokes((4, 6), (10, 109), (5, 54)), 1), (Boxes((1, 5), (10, 50)), 0.3)), 0.5),
    thick=Mixture(((Strokes((1, 6), (10, 209), (5, 104)), 1), (Boxes((1, 3), (30, 150), 10), 0.3)), 0.5),
    center=center, outpaint=outpaint)


def hole_rng(seed: int, name: str) -> np.random.Generator:
    "The generator of a hole that depends on its photograph's `name` and `seed` alone"
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
