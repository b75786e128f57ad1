"""Photographs larger than a network can see at once: whole, cut out, in tiles, or made smaller.

`predict(image, hole)` is the network: `[h, w, 3]`, uint8 or uint16, and bool `[h, w]` to float32
`[h, w, 3]` in [0, 1]. It gets parts of a photograph, so that only those become floats."""
import math
import sys
from functools import partial
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import find_objects, label

from ..core.device import memory_at_hand
from ..core.errors import InputError
from ..core.limits import told

STRATEGIES = "whole", "crop", "tiles", "resize"  # from the most memory to the least
CELL = 8           # pixels: boxes lie on a grid of it, the stride of the networks
MARGIN = 128       # pixels of context around a hole, at least
WHOLE = 1024**2    # pixels up to which a photograph is not worth cutting
SIDES = 256, 1024  # smallest and largest side of a tile, in pixels
MOST_HOLE = .5     # share of hole beyond which a tile lacks context

# Bytes of a forward pass for each pixel, and more for each channel of the first stage: on a CPU
# peak memory grew by 225 a pixel at width 8, 392 at 16, 686 at 32 and 1411 at 64.
BYTES, BYTES_PER_CHANNEL, GRADIENTS = 120, 21, 8
SHARE = .7  # of the memory; the rest is for photograph, result and the allocator's fragments


def pixels_at_once(model, device, gradients=False):
    """Pixels that `model` can see at once; without known channels it counts as a published LaMa.

    Its encoder may say what factor of `memory` it takes beyond a LaMa's, and the `most_pixels` it may see."""
    encoder = getattr(model, "encoder", None)
    channels, factor = getattr(encoder, "channels", [64])[0], getattr(encoder, "memory", 1)
    needed = (BYTES + BYTES_PER_CHANNEL*channels)*factor*(GRADIENTS if gradients else 1)
    return min(memory_at_hand(device)*SHARE/needed, getattr(encoder, "most_pixels", math.inf))


def fill(predict, image, hole, strategy, pixels):
    "`image` filled by `strategy`, or by the next out of memory, and by which; 'auto' asks `choose`"
    side = int(np.clip(math.isqrt(int(pixels))//CELL*CELL, *SIDES))
    if strategy == "auto": strategy = choose(hole, pixels, side)
    if strategy not in STRATEGIES:
        raise InputError(f"no strategy {strategy!r}: expected auto, {', '.join(STRATEGIES)}")
    try: return fill_by(strategy, predict, image, hole, side), strategy
    except (RuntimeError, MemoryError) as e:  # on a CPU torch raises a plain RuntimeError
        no_memory = isinstance(e, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(e)
        if not no_memory or strategy == STRATEGIES[-1]: raise
    smaller = STRATEGIES[STRATEGIES.index(strategy) + 1]
    print(f"out of memory with strategy {strategy!r}: trying {smaller!r}", file=sys.stderr)
    if torch.cuda.is_available(): torch.cuda.empty_cache()
    return fill(predict, image, hole, smaller, pixels)


def fill_by(strategy, predict, image, hole, side):
    """`image` filled as a "whole", or each group of holes with its surroundings ("crop"), that in
    overlapping "tiles" of `side` pixels, or shrunk to `side` ("resize"); known pixels stay."""
    parts = [np.s_[:, :]] if strategy == "whole" else boxes(hole)
    if strategy == "tiles": predict = partial(tiled, predict, side=side)
    if strategy == "resize": predict = partial(shrunk, predict, side=side)
    filled = image.copy()
    for part in parts: write(filled[part], hole[part], predict(image[part], hole[part]))
    return filled


def write(image, hole, colours):
    "Into the `hole` of `image` `[h, w, 3]`, in place, `colours` float `[h, w, 3]`, meant in [0, 1]"
    image[hole] = np.rint(colours[hole].clip(0, 1)*np.iinfo(image.dtype).max)


def fits_whole(hole, pixels):
    "Whether a network that may see `pixels` at once is shown all of a photograph with `hole`"
    return hole.size <= min(pixels, WHOLE)


def choose(hole, pixels, side):
    "The strategy for `hole` where the network may see `pixels` at once, or tiles of `side`"
    if fits_whole(hole, pixels): return "whole"
    groups = [hole[box] for box in boxes(hole)]
    if max(group.size for group in groups) <= pixels: return "crop"
    shares = [group[tile].mean() for group in groups for tile in tile_boxes(group, side)]
    return "tiles" if max(shares) <= MOST_HOLE else "resize"


def boxes(hole):
    "Disjoint boxes, `(rows, columns)`, around groups of `hole`, with margins of half their side or more"
    cells = hole
    for axis, n in enumerate(hole.shape): cells = np.logical_or.reduceat(cells, range(0, n, CELL), axis)
    groups, _ = label(cells)
    found, count = find_objects(groups), 0
    for i, area in enumerate(np.bincount(groups.ravel())[1:]):
        margin = max(MARGIN//CELL, math.isqrt(area)//2)
        found[i] = tuple(slice(max(s.start - margin, 0), s.stop + margin) for s in found[i])
    while len(found) != count:  # the box around two that meet may meet another
        count, canvas = len(found), np.zeros_like(cells)
        for box in found: canvas[box] = True
        found = find_objects(label(canvas)[0])
    return [tuple(slice(s.start*CELL, s.stop*CELL) for s in box) for box in found]


def tile_boxes(hole, side):
    "Boxes of `side` pixels that touch `hole`, of a grid in which they overlap by a quarter or more"
    room = [max(n - side, 0) for n in hole.shape]
    starts = [np.linspace(0, r, math.ceil(r/(.75*side)) + 1).astype(int).tolist() for r in room]
    tiles = (np.s_[y:y + side, x:x + side] for y, x in product(*starts))
    return [tile for tile in tiles if hole[tile].any()]


def tiled(predict, image, hole, side):
    "The prediction for `image` in tiles, each weighted less towards its edges"
    total, weights = np.zeros(image.shape, np.float32), np.zeros((*hole.shape, 1), np.float32)
    for tile in told(tile_boxes(hole, side)):
        ramps = (np.minimum(np.arange(1, n + 1), np.arange(n, 0, -1)) for n in hole[tile].shape)
        weight = np.outer(*ramps).astype(np.float32)[..., None]
        total[tile] += weight*predict(image[tile], hole[tile])
        weights[tile] += weight
    return total/np.maximum(weights, 1)  # 0 where there is no tile, and so no hole


def shrunk(predict, image, hole, side):
    "The prediction for `image` at a scale at which its longer side is `side` pixels at most"
    h, w = hole.shape
    if max(h, w) <= side: return predict(image, hole)
    size = [max(round(n*side/max(h, w)), 1) for n in (h, w)]
    known, rgb = _tensor(~hole[..., None]), _tensor(image)
    share = F.interpolate(known, size, mode="area")
    means = F.interpolate(rgb*known, size, mode="area")/share.clamp_min(1e-6)  # of the known
    small, small_hole = _array(means), _array(share)[..., 0] == 0
    filled = predict(np.rint(small).astype(image.dtype), small_hole)
    filled = np.where(small_hole[..., None], filled, small/np.iinfo(image.dtype).max)
    return _array(F.interpolate(_tensor(filled), (h, w), mode="bilinear"))


def _tensor(array): return torch.from_numpy(array.astype(np.float32)).permute(2, 0, 1)[None]
def _array(tensor): return tensor[0].permute(1, 2, 0).numpy()
