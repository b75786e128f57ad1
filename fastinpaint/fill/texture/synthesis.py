"""Texture for one fill: patches of the photograph vote for the hole's pixels, from coarse to fine.

Expectation maximisation by overlapping patches (Wexler, Shechtman & Irani 2007), with exact nearest
neighbours. It starts from the network's fill, and stays near it in the large."""
import math

import torch
from scipy.ndimage import gaussian_filter

from ...core.limits import go_on
from ...kernels import nearest
from ...kernels.prefill import smooth_fill
from .level import SIDE, Level, blindness, depth, pyramid
from .patches import Features, vote

ROUNDS = 3, 3, 5, 8     # of finding sources and voting, at the finest size and at coarser ones
SOURCES = 6000          # patches that are compared with every target, at most
LEAST = 50              # sources below which there is no texture to take
AT_ONCE = 2**15         # patches that look for their sources at a time
SPREAD, SHARP = .7, .3  # pixels within which patches vote: close, so that texture is not averaged away
LARGE = 4.              # σ in pixels, where a network sees into the hole, beyond which its colours stand
COHERENCE = 2.          # times as far as the nearest source may be one that goes on with a neighbour's
SLIGHT = .05            # differences of colour that are nothing but a patch of another tone
FLAT = .004, .012       # contrasts of a patch: up to the first it has no texture, from the second on it has
OPACITY = .25           # of texture that fits badly at the edge, above the fill of a network that sees a hole


class Synthesis:
    """A way to texture a fill, by the chance of `seed`, from a random `share` of the photograph's patches.

    `guide` is the guide's weight, 1: as much as all pixels of a patch. `tick()` is called `ticks` times."""
    def __init__(self, seed=0, guide=1., share=1., device="cpu", tick=lambda: None):
        self.seed, self.guide, self.share, self.device, self.tick = seed, guide, share, device, tick

    def __call__(self, start, hole):
        """`start` float32 `[h, w, 3]`, a fill, with texture in its `hole`, and how incoherent that is.

        None, None where too little is known to be copied."""
        if min(hole.shape) < SIDE: return None, None
        self.generator, above, match = torch.Generator().manual_seed(self.seed), None, None
        image = torch.from_numpy(start).permute(2, 0, 1)[None].to(self.device)
        mask, blind = torch.from_numpy(hole)[None, None].to(image), blindness(hole)
        for i, size in reversed([*enumerate(pyramid(image, mask, blind))]):
            level = Level(*size)
            if above: level.colours[level.pixels] = above.enlarged(level)
            found = level.targets.new_full((), -1).expand_as(level.targets)
            if match is not None: found = above.doubled(match, level)
            if len(level.sources) < LEAST: match = None
            else: match = self.improved(level, found, i, parts(hole, i))
            above = level
        if match is None: return None, None
        image = toned(level.colours.view(start.shape).cpu().numpy(), start, LARGE*2**blind)
        image = without_borders(image, roughness(level, match))
        opaque = 1 - (1 - OPACITY)/2**blind*(1 - certainty(level, match))
        return start + opaque[..., None]*(image - start), incoherence(level, match)

    def improved(self, level, found, i, count):
        """Let patches of `level`, halved `i` times, find their sources and vote, in turn, in `count` parts.

        They start from the sources `found` `[targets]`, -1 for none; returns better ones."""
        vote(level, found.clamp_min(0), (found >= 0).float(), SPREAD)
        sources, turns = self.some(level.sources), rounds(i)
        features = Features(level, sources, self.guide)
        known = features(sources)
        for turn in range(turns):
            before = level.everywhere(found)
            pairs = [self.nearest(sources, known, features, part, before)
                     for part in level.targets.tensor_split(count)]
            distance, found = map(torch.cat, zip(*pairs, strict=True))
            weight = torch.exp(-distance/(2*distance.kthvalue(math.ceil(.75*len(distance))).values + 1e-8))
            last = i == 0 and turn == turns - 1
            vote(level, found, weight.clamp_min(1e-6), SHARP if last else SPREAD)
        return found

    def nearest(self, sources, known, features, targets, before):
        """Squared distances and sources of `targets`: the nearest of `sources`, of features `known`.

        Or what goes on with the sources `before` of a patch or of its neighbours, if nearly as near."""
        go_on()
        wanted = features(targets)
        distance, index = nearest(wanted, known)
        self.tick()
        best, match = torch.full_like(distance, math.inf), sources[index]
        for source in features.level.continued(before, targets):
            apart = (features(torch.where(source >= 0, source, targets)) - wanted).square().sum(1)
            closer = (source >= 0) & (apart < best) & (apart <= COHERENCE*distance)
            best, match = torch.where(closer, apart, best), torch.where(closer, source, match)
        return torch.where(best.isinf(), distance, best), match

    def some(self, sources):
        "A random `share` of `sources`, and `SOURCES` at most, in their order"
        count = min(max(round(len(sources)*self.share), LEAST), SOURCES)
        chosen = torch.randperm(len(sources), generator=self.generator)[:count].sort().values
        return sources[chosen.to(sources.device)]


def incoherence(level, match):
    """Mean squared distance, guide included, of the patches that touch the hole from their sources `match`.

    Those around known pixels count again: there, seams show."""
    distance = SIDE**2*(level.guide[level.targets] - level.guide[match]).square().sum(1)
    distance += colour_distance(level, level.targets, match)
    return (distance.mean() + distance[level.at_edge].mean()).item()


def ticks(hole):
    "In how many steps a `Synthesis` of `hole` goes"
    return sum(parts(hole, i)*rounds(i) for i in range(depth(hole.shape)))


def rounds(i): return ROUNDS[min(i, len(ROUNDS) - 1)]  # halved `i` times


def parts(hole, i):
    "In how many parts the patches of `hole`, halved `i` times, look for their sources"
    return math.ceil(hole.sum()/4**i/AT_ONCE)


def toned(image, fill, sigma):
    """`image` `[h, w, 3]` with the colours of `fill` beyond `sigma` pixels.

    And beyond `LARGE` as far as they differ slightly: smooth gradients then show no borders of patches."""
    large = gaussian_filter(fill - image, (sigma, sigma, 0), mode="nearest")
    if sigma == LARGE: return image + large
    small = gaussian_filter(fill - image, (LARGE, LARGE, 0), mode="nearest")
    return image + large + (small - large).clip(-SLIGHT, SLIGHT)


def roughness(level, match):
    "`[h, w]` from 0 to 1: how much texture the sources `match` have that the hole's pixels are copied from"
    rough = level.colours.new_ones(len(level.colours))
    rough[level.targets] = ((variance(level, match).sqrt() - FLAT[0])/(FLAT[1] - FLAT[0])).clamp(0, 1)
    return gaussian_filter(rough.view(level.height, level.width).cpu().numpy(), LARGE/2)


def certainty(level, match):
    """`[h, w]` from 0 to 1: how nearly patches at the hole's edge are what their sources `match` are.

    Inside, where sources go on, all fit; so the edge speaks for what lies behind it."""
    edge, match = level.targets[level.at_edge], match[level.at_edge]
    misfit = colour_distance(level, edge, match)/(3*SIDE**2*variance(level, match) + 1e-6)
    fits, known = level.colours.new_zeros(2, 1, 1, len(level.colours))
    fits[..., edge], known[..., edge] = torch.exp(-misfit), 1
    size = 1, 1, level.height, level.width
    return smooth_fill(fits.view(size), 1 - known.view(size))[0, 0].cpu().numpy()


def variance(level, at):
    "Of the patches around the pixels `at` `[n]`, the mean of their three colours' `[n]`"
    total, squares = 0., 0.
    for offset, *_ in level.offsets():
        colours = level.colours[at + offset]
        total, squares = total + colours, squares + colours.square()
    return (squares/SIDE**2 - (total/SIDE**2).square()).mean(1).clamp_min(0)


def colour_distance(level, at, match):
    "Squared distances `[n]` of the patches around the pixels `at` `[n]` from those around `match` `[n]`"
    return sum((level.colours[at + o] - level.colours[match + o]).square().sum(1)
               for o, *_ in level.offsets())


def without_borders(image, rough):
    "`image` `[h, w, 3]`; where `rough` `[h, w]` is 0 only what is large, so that borders of flat patches go"
    large = gaussian_filter(image, (LARGE, LARGE, 0), mode="nearest")
    return large + rough[..., None]*(image - large)
