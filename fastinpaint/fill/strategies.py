"""Photographs larger than a network sees at once: whole, cut out around the holes, in tiles, or made smaller.

`predict(image, hole)` is the network: `[h, w, 3]`, uint8 or uint16, and bool `[h, w]` to float32 `[h, w, 3]` in [0, 1]. A
strategy calls it for parts, so that only those ever become floats, and returns `image` with its hole filled in.
"""
import math
import sys
from functools import partial
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import find_objects, label

CELL = 8              # pixels: boxes lie on a grid of it, the stride of the networks
MARGIN = 128          # pixels of context around a hole, at least
WHOLE = 1024**2       # pixels of a photograph that nothing is gained by cutting
SIDES = 256, 1024     # smallest and largest side of a tile, in pixels
SEEN = .5             # share of hole beyond which a tile no longer sees around it


def whole(predict, image, hole, side=None):
    "The network sees all of `image`"
    return _filled(predict, image, hole, [(slice(None), slice(None))])


def crop(predict, image, hole, side=None):
    "The network sees each group of holes with what surrounds it"
    return _filled(predict, image, hole, boxes(hole))


def tiles(predict, image, hole, side):
    "As `crop`, in overlapping tiles of `side` pixels where a group is larger"
    return crop(partial(tiled, predict, side=side), image, hole)


def resize(predict, image, hole, side):
    "As `crop`, at a smaller scale where a group is larger than `side` pixels: the fill is as coarse as that"
    return crop(partial(shrunk, predict, side=side), image, hole)


STRATEGIES = dict(whole=whole, crop=crop, tiles=tiles, resize=resize)  # from the most memory to the least


def fill(predict, image, hole, strategy, pixels):
    """`image` with its hole filled by `strategy`, or by the next in `STRATEGIES` that does not run out of memory.

    `pixels` is how many the network should see at once. "auto" goes by that and by how large image and holes are, see `choose`.
    """
    side = int(min(max(math.isqrt(int(pixels))//CELL*CELL, SIDES[0]), SIDES[1]))
    if strategy == "auto": strategy = choose(hole, pixels, side)
    if strategy not in STRATEGIES: raise ValueError(f"no strategy {strategy!r}: expected auto, {', '.join(STRATEGIES)}")
    names = [*STRATEGIES]
    for name in names[names.index(strategy):]:
        try: return STRATEGIES[name](predict, image, hole, side)
        except (RuntimeError, MemoryError) as e:
            if not _out_of_memory(e) or name == names[-1]: raise
        print(f"out of memory with strategy {name!r}: trying {names[names.index(name) + 1]!r}", file=sys.stderr, flush=True)
        if torch.cuda.is_available(): torch.cuda.empty_cache()


def _out_of_memory(error):
    "On a CPU torch says so in words only"
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def choose(hole, pixels, side):
    """The strategy for `hole` `[H, W]` where the network may see so many `pixels` at once, or tiles of `side` pixels.

    Small photographs are filled whole, large ones cut out around the holes; cut-outs that do not fit go in tiles, unless a
    hole is so large that a tile would hold little else.
    """
    if hole.size <= min(pixels, WHOLE): return "whole"
    groups = [hole[box] for box in boxes(hole)]
    if max(group.size for group in groups) <= pixels: return "crop"
    seen = all(group[tile].mean() <= SEEN for group in groups for tile in tile_boxes(group, side))
    return "tiles" if seen else "resize"


def boxes(hole):
    """Disjoint boxes, `(rows, columns)` slices, around the groups of connected pixels of `hole` `[H, W]`.

    Each has a margin of half the side of a square as large as its hole, `MARGIN` pixels at least; where boxes meet they are one.
    """
    h, w = hole.shape
    cells = np.pad(hole, ((0, -h % CELL), (0, -w % CELL))).reshape(-(-h//CELL), CELL, -(-w//CELL), CELL).any((1, 3))
    groups, _ = label(cells)
    areas = np.bincount(groups.ravel())[1:]
    found = [_grown(box, max(MARGIN//CELL, math.isqrt(area)//2)) for box, area in zip(find_objects(groups), areas, strict=True)]
    while True:  # boxes that meet leave a box around both, which may meet another
        canvas = np.zeros_like(cells)
        for box in found: canvas[box] = True
        merged = find_objects(label(canvas)[0])
        if len(merged) == len(found): return [tuple(slice(s.start*CELL, s.stop*CELL) for s in box) for box in merged]
        found = merged


def _grown(box, margin): return tuple(slice(max(s.start - margin, 0), s.stop + margin) for s in box)


def _filled(predict, image, hole, boxes):
    "`image` with what `predict` says in the hole of each of `boxes`; all else as it was, to the bit"
    filled, full = image.copy(), np.iinfo(image.dtype).max
    for box in boxes:
        inside = hole[box]
        filled[box][inside] = np.rint(predict(image[box], inside)[inside].clip(0, 1)*full)
    return filled


def tile_boxes(hole, side):
    "Boxes of `side` pixels, overlapping by a quarter at least, of those that cover `hole` `[H, W]` evenly and touch it"
    room = [max(n - side, 0) for n in hole.shape]
    starts = [np.linspace(0, r, math.ceil(r/(.75*side)) + 1).astype(int).tolist() for r in room]
    tiles = [(slice(y, y + side), slice(x, x + side)) for y, x in product(*starts)]
    return [tile for tile in tiles if hole[tile].any()]


def tiled(predict, image, hole, side):
    "The prediction for `image` in tiles, each weighted less towards its edges"
    total, weights = np.zeros(image.shape, np.float32), np.zeros((*hole.shape, 1), np.float32)
    for tile in tile_boxes(hole, side):
        rows, columns = (np.minimum(np.arange(1, n + 1), np.arange(n, 0, -1)) for n in hole[tile].shape)
        weight = np.outer(rows, columns).astype(np.float32)[..., None]
        total[tile] += weight*predict(image[tile], hole[tile])
        weights[tile] += weight
    return total/np.maximum(weights, 1)  # a weight of 0 is outside of all tiles, and of the hole


def shrunk(predict, image, hole, side):
    "The prediction for `image` at a scale at which its longer side is `side` pixels at most"
    h, w = hole.shape
    if max(h, w) <= side: return predict(image, hole)
    size = max(round(h*side/max(h, w)), 1), max(round(w*side/max(h, w)), 1)
    known = torch.from_numpy(~hole)[None, None].float()
    share = F.interpolate(known, size, mode="area")
    means = F.interpolate(torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]*known, size, mode="area")
    small = (means/share.clamp_min(1e-6))[0].permute(1, 2, 0).numpy()  # of known pixels alone
    small_hole = share[0, 0].numpy() == 0
    filled = np.where(small_hole[..., None], predict(np.rint(small).astype(image.dtype), small_hole),
                      small/np.iinfo(image.dtype).max)
    large = F.interpolate(torch.from_numpy(filled).permute(2, 0, 1)[None], (h, w), mode="bilinear")
    return large[0].permute(1, 2, 0).numpy()
