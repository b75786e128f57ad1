"What the encoder sees in a hole: a smooth continuation of what lies around it"
import torch
import torch.nn.functional as F

from .ops import uses_triton

LEVELS = 8  # the coarsest sees holes of 2^8 pixels as one


def smooth_fill(image, mask, levels=LEVELS, impl="torch"):
    """Fill the holes of `image` `[B, C, H, W]` smoothly; `mask` `[B, 1, H, W]` is 1 in the hole.

    Each of `levels` sizes starts from the means of known pixels a size below (pull-push, Gortler et al.
    1996) and is relaxed twice towards the membrane (Pérez et al. 2003). Where nothing is known it is 0.
    `impl` is torch, triton (without gradients), or auto, triton on a GPU; raises RuntimeError where "triton"
    cannot run."""
    if impl != "torch" and uses_triton(impl, dict(image=image, mask=mask)):
        from .prefill_triton import smooth_fill as fused
        return fused(image.detach(), mask, levels).to(image.dtype)
    known = 1 - mask
    return _fill(image*known, known, levels)


def _fill(image, known, levels):
    "`smooth_fill` for an image that is 0 where `known` is 0"
    size, hole = image.shape[-2:], (known <= 0).to(image)
    def fill(x): return torch.addcmul(image, hole, x)  # one pass less than where
    if levels == 0: return fill(image.mean((2, 3), True)/known.mean((2, 3), True).clamp_min(1e-6))
    shares = halved(known)
    coarse = _fill(halved(image)/shares.clamp_min(1e-6), (shares > 0).to(image), levels - 1)
    filled = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    filled = fill(filled[..., :size[0], :size[1]])
    for _ in range(2): filled = fill(neighbours(filled))
    return filled


def halved(x):
    "The mean of each 2×2 pixels of `x` `[B, C, h, w]`; at the end of an odd side of those that there are"
    if x.shape[-2] % 2 or x.shape[-1] % 2: return F.avg_pool2d(x, 2, ceil_mode=True)
    return F.interpolate(x, scale_factor=.5, mode="bilinear", align_corners=False)  # half way between: a mean


def neighbours(image):
    "Mean of the four neighbours of every pixel"
    x = F.pad(image, (1, 1, 1, 1), mode="replicate")
    rows = x[..., 1:-1, :-2] + x[..., 1:-1, 2:]
    return rows.add_(x[..., :-2, 1:-1]).add_(x[..., 2:, 1:-1]).div_(4)
