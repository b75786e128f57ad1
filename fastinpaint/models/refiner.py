"What fills the hole at latent size: blocks of one kind, applied once or several times"
from copy import deepcopy
from math import sqrt

import torch
from torch import nn

from ..core.errors import InputError
from .ffc import FFCBlock
from .folded import copied, folded

LOCAL_SHARE = 4  # one channel in four is local, as in every published LaMa
DILATIONS = 1, 2, 4, 8  # of one block after the other, and again
DELTAS = False, True, "sum"


class Refiner(nn.Module):
    """`[B, C, h, w]` to the same shape by `blocks` of a kind in `REFINERS`; `iterations` repeats them.

    `delta` (thesis, appendix A) adds their output to the input: True by a zero-initialised 1×1 convolution,
    "sum" as it is. Repeated blocks share all weights, BatchNorm's statistics too (as RAFT, Teed & Deng 2020).
    Blocks of another `width` than the latent's together make one, `Widened`. Of the last `detail` blocks
    there is a second set then, a `Detail`, which is applied in their place.
    `iterates`: None, or a list that takes the latent after every repetition while a loss asks for it."""
    def __init__(self, channels, blocks, delta=False, signed=False, kind="ffc", iterations=1, width=None,
                 detail=0):
        super().__init__()
        made = REFINERS[kind](width or channels, blocks, signed)
        if made and width not in (None, channels): made = [Widened(channels, width, made)]
        self.blocks = nn.Sequential(*made)
        self.delta, self.iterations, self.iterates = None, iterations, None
        if delta == "sum": self.delta = nn.Identity()
        elif delta:
            self.delta = nn.Conv2d(channels, channels, 1, bias=False)
            nn.init.zeros_(self.delta.weight)
        self.detail = Detail(self, detail) if detail else None

    def forward(self, latent):
        if self.detail is not None:
            shared = self.blocks[:len(self.blocks) - len(self.detail.blocks)]
            return self.detail(latent, shared(latent))
        for _ in range(self.iterations):
            refined = self.blocks(latent)
            latent = refined if self.delta is None else latent + self.delta(refined)
            if self.iterates is not None: self.iterates.append(latent)
        return latent

    def folded(self, winograd=False):
        "Equal to this in eval mode, for inference; no loss asks it for iterates"
        new = copied(self, lambda part: folded(part, winograd))
        new.iterates = None
        return new


class Detail(nn.Module):
    """A second set of a refiner's last `n` blocks, and of its `delta`: at first the same.

    What one loss has taught the refiner then stays as it is while another teaches these."""
    def __init__(self, refiner, n):
        super().__init__()
        self.blocks, self.delta = deepcopy(refiner.blocks[-n:]), deepcopy(refiner.delta)

    def forward(self, latent, shared):
        refined = self.blocks(shared)
        return refined if self.delta is None else latent + self.delta(refined)


class Widened(nn.Module):
    "Residual `blocks` of `width` channels for a latent of fewer. Starts as the identity; keeps any shape."
    def __init__(self, channels, width, blocks):
        super().__init__()
        self.widen = nn.Conv2d(channels, width, 1)
        self.blocks = nn.Sequential(*blocks)
        self.narrow = nn.Conv2d(width, channels, 1)
        for p in self.narrow.parameters(): nn.init.zeros_(p)

    def forward(self, x): return x + self.narrow(self.blocks(self.widen(x)))


def layers(n_in, n_out, size=3, stride=1, dilation=1, act=True):
    """Convolution, BatchNorm and, with `act`, ReLU, as a list.

    Padding repeats the edge: a latent may be smaller than what a reflection needs."""
    conv = nn.Conv2d(n_in, n_out, size, stride, size//2*dilation + stride - 1, dilation, bias=False,
                     padding_mode="replicate")
    return [conv, nn.BatchNorm2d(n_out), *([nn.ReLU(inplace=True)] if act else [])]


class DilatedBlock(nn.Module):
    "Residual block of two dilated 3×3 convolutions; `signed` as in `FFCBlock`. Keeps any shape."
    def __init__(self, channels, dilation=1, signed=False):
        super().__init__()
        shape = dict(n_in=channels, n_out=channels, dilation=dilation)
        self.convs = nn.Sequential(*layers(**shape), *layers(**shape, act=not signed))
        if signed: nn.init.zeros_(self.convs[4].weight)

    def forward(self, x): return x + self.convs(x)


class UNet(nn.Module):
    """Residual U-Net (Ronneberger et al. 2015) of two halvings; `signed` as in `FFCBlock`. Keeps any shape.

    `width` channels at first. Of n pixels in a row, halving makes ⌈n/2⌉ + 1, the first beyond the edge, so
    that BatchNorm has something to average on the smallest of maps."""
    def __init__(self, channels, width, signed=False):
        super().__init__()
        def pair(n_in, n_out, stride=1):
            return nn.Sequential(*layers(n_in, n_out, stride=stride), *layers(n_out, n_out))
        n = width
        self.down = nn.ModuleList([pair(channels, n), pair(n, 2*n, 2), pair(2*n, 4*n, 2)])
        self.up = nn.ModuleList([pair(6*n, 2*n), pair(3*n, n)])
        self.last = nn.Sequential(*layers(n, channels, 1, act=not signed))
        if signed: nn.init.zeros_(self.last[1].weight)

    def forward(self, x):
        skips, y = [], x
        for stage in self.down: skips.append(y := stage(y))
        skips.pop()
        for stage in self.up:
            skip = skips.pop()
            y = stage(torch.cat([doubled(y, *skip.shape[-2:]), skip], dim=1))
        return x + self.last(y)


def doubled(x, h, w):
    "Each of the halved pixels twice, without what lies beyond the edges of `h`×`w`"
    rows, columns = ((torch.arange(n, device=x.device) + 1)//2 for n in (h, w))
    return x.index_select(-2, rows).index_select(-1, columns)


def ffc(channels, blocks, signed):
    "LaMa's: residual blocks of fast Fourier convolutions, about 10.1·channels² weights each"
    return [FFCBlock(channels, channels//LOCAL_SHARE, signed) for _ in range(blocks)]


def dilated(channels, blocks, signed):
    "Residual blocks of dilated convolutions, 18·channels² weights each"
    return [DilatedBlock(channels, DILATIONS[i % len(DILATIONS)], signed) for i in range(blocks)]


def unet(channels, blocks, signed):
    "One U-Net of about as many weights as `blocks` FFC blocks; none for none"
    # those of width n have 459·n² + 10·n·channels, FFC blocks 10.125·channels² each
    width = max(round(channels*(sqrt(25 + 459*10.125*blocks) - 5)/459), 1)
    return [UNet(channels, width, signed)] if blocks else []


REFINERS = dict(ffc=ffc, dilated=dilated, unet=unet)


def check_refiner(net, blocks, delta, refiner, iterations, detail=0):
    "Raises InputError where a `net`, such as LaMa, has no refiner of these arguments"
    if blocks < 0: raise InputError(f"no {net} of {blocks=}")
    for name, value, known in ("refiner", refiner, REFINERS), ("delta", delta, DELTAS):
        if value not in known:
            raise InputError(f"no {net} of {name}={value!r}: expected {', '.join(map(repr, known))}")
    if detail and not (0 < detail <= blocks and iterations == 1 and refiner != "unet"):
        raise InputError(f"no {net} of {detail=}: so many of its {blocks} blocks, applied once, are to have "
                         "a second set")
    if iterations < 1: raise InputError(f"no {net} of {iterations=}: the refiner is applied at least once")


def with_detail(net, n):
    """A copy of the LaMa `net` in which the last `n` blocks have a `Detail`: a new one, or none for 0.

    Raises InputError where it has no such blocks."""
    config, new = net.config, deepcopy(net)
    check_refiner("LaMa", config["blocks"], config["delta"], config["refiner"], config["iterations"], n)
    new.refiner.detail = Detail(new.refiner, n) if n else None
    new.config = config | dict(detail=n)
    return new


def without_detail(net):
    "`net` without the `Detail` of its refiner, for inference: itself, or a network that shares its weights"
    if getattr(getattr(net, "refiner", None), "detail", None) is None: return net
    new = copied(net, lambda part: part)
    new.refiner = copied(net.refiner, lambda part: part)
    new.refiner.detail = None
    return new
