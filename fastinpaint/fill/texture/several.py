"Texture for a photograph's holes, in one way or several"
import sys
import warnings

import numpy as np
from fastprogress import progress_bar
from fastprogress.fastprogress import IN_NOTEBOOK

from ...core.limits import told
from ..strategies import boxes
from .synthesis import Synthesis, ticks

GUIDES = 1., .7, 1.4, .5  # weights of the guide, from one way to the next
SHARE = .8                # of the patches that may be copied, from the second way on
LONG = 40                 # steps from which there is a bar


def textured(image, hole, fill, n=1, seed=0, device="cpu"):
    """`n` times `image` with texture of its own in its hole, where `fill` says what colours go where.

    All `[H, W, 3]`, uint8 or uint16, `hole` bool `[H, W]`; what `image` has in the hole, and `fill` outside,
    counts for nothing. Known pixels stay. The most coherent comes first. Where too little is known around
    a hole, `fill` stays, with a warning. The same for a `seed` on one kind of device."""
    start, full, poor = np.where(hole[..., None], fill, image), np.iinfo(image.dtype).max, 0
    results, parts = [start.copy() for _ in range(n)], boxes(hole)
    steps = range(n*sum(ticks(hole[part]) for part in parts))
    shown = len(steps) >= LONG and (IN_NOTEBOOK or sys.stdout.isatty())
    bar = iter(progress_bar(steps) if shown else told(steps))
    ways = [Synthesis(seed + i, GUIDES[i % len(GUIDES)], SHARE if i else 1., device, lambda: next(bar, None))
            for i in range(n)]
    for part in parts:
        pixels, inside = np.divide(start[part], full, dtype=np.float32), hole[part]
        found = [way(pixels, inside) for way in ways]
        if found[0][0] is None: poor += 1
        else:
            for result, (picture, _) in zip(results, sorted(found, key=lambda o: o[1]), strict=True):
                result[part][inside] = np.rint(picture[inside].clip(0, 1)*full)
    for _ in bar: pass  # a bar ends where it ends, also without patches to copy
    if poor:
        warnings.warn(f"around {poor} of the holes too little is known to take texture from: "
                      "the network's fill stays", stacklevel=2)
    return results
