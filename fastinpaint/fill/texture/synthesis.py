"""Texture for a fill: patches of the photograph vote for the hole's pixels, from coarse to fine.

Expectation maximisation by overlapping patches (Wexler, Shechtman & Irani 2007), with exact nearest
neighbours. It starts from the network's fill, and stays near it in the large."""
import warnings

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from ...kernels import nearest
from ..strategies import boxes
from .level import SIDE, Level, beyond, pyramid
from .patches import Features, vote

ROUNDS = 2, 2, 3, 4     # of finding sources and voting, at the finest size and at coarser ones
SOURCES = 6000          # patches that are compared with every target, at most
LEAST = 50              # sources below which there is no texture to take
SPREAD, SHARP = .7, .3  # pixels within which patches vote: close, so that texture is not averaged away
LARGE = 4.              # σ in pixels, at the size that a network sees, beyond which its colours stand


def textured(image, hole, fill, seed=0):
    """`image` with texture of its own in its hole, where `fill` says what colours go where.

    Both `[H, W, 3]`, uint8 or uint16, `hole` bool `[H, W]`; what `image` has in the hole, and `fill` outside,
    counts for nothing. Known pixels stay; where too little is known around a hole, `fill` does, with a
    warning. The same for a `seed` on one kind of device."""
    result, full = np.where(hole[..., None], fill, image), np.iinfo(image.dtype).max
    poor = 0
    for box in boxes(hole):
        start = np.divide(result[box], full, dtype=np.float32)
        found = synthesised(start, hole[box], seed)
        if found is None: poor += 1
        else: result[box][hole[box]] = np.rint(found[hole[box]].clip(0, 1)*full)
    if poor:
        warnings.warn(f"around {poor} of the holes too little is known to take texture from: "
                      "the network's fill stays", stacklevel=2)
    return result


def toned(image, fill, sigma):
    "`image` `[h, w, 3]` with the colours of `fill` beyond `sigma` pixels"
    return image + gaussian_filter(fill - image, (sigma, sigma, 0), mode="nearest")


def synthesised(start, hole, seed):
    "`start` float32 `[h, w, 3]`, a fill, with texture in its `hole`; None where there is too little to copy"
    generator, above, match = torch.Generator().manual_seed(seed), None, None
    mask = torch.from_numpy(hole)[None, None].float()
    sizes = pyramid(torch.from_numpy(start).permute(2, 0, 1)[None], mask)
    if min(hole.shape) < SIDE: return None
    for i, size in reversed([*enumerate(sizes)]):
        level = Level(*size)
        if above: level.colours[level.pixels] = above.enlarged(level)
        found = None if match is None else above.doubled(match, level)
        if len(level.sources) < LEAST: match = None
        else: match = improved(level, found, ROUNDS[min(i, len(ROUNDS) - 1)], i == 0, generator)
        above = level
    if match is None: return None
    large = LARGE*2**beyond(sizes[0][0])
    return toned(level.colours.view(start.shape).numpy(), start, large)


def improved(level, found, rounds, last, generator):
    "Let patches find their sources and vote, in turn; starts from the sources `found`, returns better ones"
    if found is not None: vote(level, found.clamp_min(0), (found >= 0).float(), SPREAD)
    some = torch.randperm(len(level.sources), generator=generator)[:SOURCES].sort().values
    sources = level.sources[some]
    features = Features(level, sources)
    known = features(sources)
    for i in range(rounds):
        wanted = features(level.targets)
        distance, index = nearest(wanted, known)
        match = sources[index]
        if found is not None: distance, match = _nearer(distance, match, found, wanted, features)
        typical = distance.kthvalue(1 + 3*len(distance)//4).values if len(distance) > 3 else distance.mean()
        weight = torch.exp(-distance/(2*typical + 1e-8)).clamp_min(1e-6)
        vote(level, match, weight, SHARP if last and i == rounds - 1 else SPREAD)
        found = match
    return match


def _nearer(distance, match, found, wanted, features):
    "The better of two sources for each target: `match`, at `distance`, and those `found` before, -1 for none"
    there = found >= 0
    before = (features(torch.where(there, found, match)) - wanted).square().sum(1)
    closer = there & (before <= distance)
    return torch.where(closer, before, distance), torch.where(closer, found, match)
