"The kernels' maths in plain torch: their specification, the CPU path and the test oracle"
from functools import lru_cache
from math import pi

import torch
import torch.nn.functional as F

QUERIES, SOURCES = 4096, 512  # of a block of scores: 8 MB, which a CPU's cache holds


def masked_l1(pred, target, mask=None, known=1., missing=1.):
    "Weighted mean absolute difference, at least in float32; arguments as in `ops.masked_l1`"
    difference = (pred.to(torch.promote_types(pred.dtype, torch.float32)) - target).abs()
    if mask is None or known == missing: return known*difference.mean()
    share = mask.to(difference.dtype)
    if mask.shape[-2:] != pred.shape[-2:]: share = F.adaptive_avg_pool2d(share, pred.shape[-2:])
    weight = torch.lerp(*(difference.new_tensor(w) for w in (known, missing)), share)
    return (weight*difference).mean()


def zero_conv_merge(x, m, weight):
    "`x + W·m` (mask control, thesis appendix B.1); arguments as in `ops.zero_conv_merge`"
    return x + F.conv2d(m, weight)


def ffc_convs(x, to_local, to_global, y, expand, bias=None, act=False):
    "Both 3×3 convolutions of an FFC, and the 1×1 one into the global part; arguments as in `ffc.ffc_convs`"
    padded = F.pad(x, [1]*4, mode="reflect")
    glob = F.conv2d(padded[:, :to_global.shape[1]], to_global) + F.conv2d(y, expand)
    out = torch.cat([F.conv2d(padded, to_local), glob], dim=1)
    if bias is not None: out = out + bias.view(-1, 1, 1)
    return out.relu() if act else out


def conv_backward(grad, x, weight):
    "Gradients of `x` and `weight` of a convolution without bias and padding, from that of its result"
    valid = dict(stride=[1, 1], padding=[0, 0], dilation=[1, 1], transposed=False, output_padding=[0, 0],
                 groups=1)
    return torch.ops.aten.convolution_backward(grad, x, weight, None, **valid,
                                               output_mask=[True, True, False])[:2]


def best_match(queries, sources):
    "Index of the least `|s|²/2 − q·s`, half the squared distance but for what the query alone decides"
    half = sources.square().sum(1)/2
    return torch.cat([best_of_block(block, sources, half) for block in queries.split(QUERIES)])


def best_of_block(queries, sources, half):
    "The same for few queries, and sources whose half squares are known"
    best = queries.new_full((len(queries),), torch.inf)
    index = torch.zeros_like(best, dtype=torch.int64)
    for first in range(0, len(sources), SOURCES):
        here = slice(first, first + SOURCES)
        score = torch.addmm(half[here], queries, sources[here].T, alpha=-1)
        least = score.amin(1)  # costs a tenth of argmin, which few queries need after some blocks
        closer = (least < best).nonzero()[:, 0]  # strictly: of equal ones the first stays
        best[closer], index[closer] = least[closer], score[closer].argmin(1) + first
    return index


@torch.no_grad()
def nearest(queries, sources, search=best_match):
    "Squared distance and index of the source nearest to each query, by `search`; as `ops.nearest`, unmasked"
    dtype = torch.promote_types(torch.promote_types(queries.dtype, sources.dtype), torch.float32)
    queries, sources = queries.to(dtype), sources.to(dtype)
    # far from the origin |s|²/2 − q·s would lose its digits; a source as origin keeps whole numbers whole
    origin = sources[0]
    with torch.autocast(queries.device.type, enabled=False):  # it would round the products to half
        index = search(queries - origin, sources - origin)
    return (queries - sources[index]).square().sum(1).float(), index


@lru_cache(maxsize=64)
def waves(n, m, twins, dtype, device):
    """Cosines and sines `[n, m]` of an orthonormal Fourier transform of `n` pixels, `m` frequencies of it.

    With `twins`, a frequency counts twice where half a spectrum leaves out its conjugate."""
    pixel, frequency = torch.arange(n)[:, None], torch.arange(m)
    angle = 2*pi/n*(pixel*frequency % n).double()
    scale = n**-.5*(1 + (twins & (frequency > 0) & (2*frequency != n)))
    return tuple((wave*scale).to(device, dtype) for wave in (angle.cos(), angle.sin()))
