"Patches as features, and the picture that patches vote for"
import math

import torch

from .level import SIDE

PARTS = 32        # principal components that stand for a patch
GATHERED = 2**15  # patches at a time


class Features:
    """What makes patches of `level` alike: their colours, as principal components of the patches around
    the pixels `at`, and the level's guide, which counts `guide` times as much as the pixels of a patch.

    Squared differences of features are about those of patches."""
    def __init__(self, level, at, guide):
        self.level, self.guide = level, guide*SIDE*level.guide
        self.offsets = torch.tensor([o for o, *_ in level.offsets()], device=at.device)
        patches = self._patches(at[:GATHERED])
        self.mean = patches.mean(0)
        _, axes = torch.linalg.eigh((patches - self.mean).T @ (patches - self.mean))
        self.axes = axes[:, -PARTS:]

    def __call__(self, at):
        "Features `[n, d]` of the patches around the pixels `at` `[n]`"
        colours = torch.cat([(self._patches(part) - self.mean) @ self.axes for part in at.split(GATHERED)])
        return torch.cat([colours, self.guide[at]], 1)

    def _patches(self, at): return self.level.colours[at[:, None] + self.offsets].flatten(1)


def vote(level, match, weight, spread):
    """Let patches write what they stand for into the hole: each is a copy of its source.

    A pixel becomes the mean of what the patches that cover it say. `match`, `weight` `[targets]`: their
    sources, and what their votes count, less by a Gaussian of `spread` pixels around a patch's centre."""
    none = len(match)
    slots = torch.full((len(level.colours),), none, device=match.device)
    slots[level.targets] = torch.arange(none, device=match.device)
    match, weight = torch.cat([match, match[:1]]), torch.cat([weight, weight.new_zeros(1)])
    total = level.colours.new_zeros(len(level.pixels), 3)
    count = level.colours.new_zeros(len(level.pixels), 1)
    for offset, dy, dx in level.offsets():
        of = slots[(level.pixels - offset) % len(slots)]  # rows beyond the edges belong to no target
        share = weight[of, None]*math.exp(-(dy*dy + dx*dx)/(2*spread**2))
        total += share*level.colours[(match[of] + offset) % len(slots)]
        count += share
    said = count[:, 0] > 0
    level.colours[level.pixels[said]] = total[said]/count[said]
