"""Texture for a fill: patches of the photograph vote for the hole's pixels, from coarse to fine.

Expectation maximisation by overlapping patches (Wexler, Shechtman & Irani 2007), with exact nearest
neighbours. It starts from the network's fill, and stays near it in the large."""
import math
import warnings

import numpy as np
import torch
import torch.nn.functional as F

from ...kernels import nearest
from ..strategies import boxes
from .level import SIDE, Level, pyramid
from .patches import Features, vote

ITERATIONS = 3, 4, 6, 10  # at the finest size and at coarser ones
SOURCES = 6000            # patches that are compared with every target, at most
LEAST = 50                # sources below which there is no texture to take
SHARP = .3                # pixels of spread of the last vote: nearly that of the patch around a pixel alone


def textured(image, hole, fill, seed=0):
    """`image` with texture of its own in its hole, where `fill` says what colours go where.

    Both `[H, W, 3]`, uint8 or uint16, `hole` bool `[H, W]`; what `image` has in the hole, and `fill` outside,
    counts for nothing. Known pixels stay; where too little is known around a hole, `fill` does, with a
    warning. The same for a `seed` on one kind of device."""
    result, full = np.where(hole[..., None], fill, image), np.iinfo(image.dtype).max
    poor = 0
    for box in boxes(hole):
        pixels = torch.from_numpy(np.divide(result[box], full, dtype=np.float32)).permute(2, 0, 1)[None]
        found = synthesised(pixels, torch.from_numpy(hole[box])[None, None].float(), seed)
        if found is None: poor += 1
        else: result[box][hole[box]] = np.rint(found.numpy()*full)
    if poor:
        warnings.warn(f"around {poor} of the holes too little is known to take texture from: "
                      "the network's fill stays", stacklevel=2)
    return result


def synthesised(image, hole, seed):
    "Colours `[n, 3]` of the hole's pixels in [0, 1], row by row; None where there is too little to copy"
    generator, above = torch.Generator().manual_seed(seed), None
    for depth, size in reversed([*enumerate(pyramid(image, hole))]):
        if min(size[0].shape[-2:]) < SIDE: return None
        level = Level(*size)
        if above is not None: level.colours[level.pixels] = _enlarged(above, level)
        if len(level.sources) >= LEAST: _improve(level, depth, generator)
        elif depth == 0: return None
        above = level
    return level.colours[level.pixels]


def _enlarged(level, to):
    "What the hole's pixels of the level `to` are at `level`, half its size"
    image = F.interpolate(level.image(), scale_factor=2, mode="bicubic", align_corners=False).clamp(0, 1)
    return image[0, :, :to.height, :to.width].flatten(1).T[to.pixels]


def _improve(level, depth, generator):
    "Let patches find their sources and vote, in turn"
    sources = _some(level.sources, SOURCES, generator)
    features = Features(level, sources)
    of_sources, rounds = features(sources), ITERATIONS[min(depth, len(ITERATIONS) - 1)]
    for i in range(rounds):
        distance, index = nearest(features(level.targets), of_sources)
        typical = distance.kthvalue(1 + 3*len(distance)//4).values if len(distance) > 3 else distance.mean()
        weight = torch.exp(-distance/(2*typical + 1e-8)).clamp_min(1e-6)
        sharp = depth == 0 and i == rounds - 1
        level.colours[level.pixels] = vote(level, sources[index], weight, SHARP if sharp else math.inf)


def _some(of, count, generator):
    "At most `count` of the values `of`, by chance, in their order"
    if len(of) <= count: return of
    return of[torch.randperm(len(of), generator=generator)[:count].sort().values.to(of.device)]
