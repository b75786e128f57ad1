"The maths of the kernels in plain torch: their specification, the CPU path and the test oracle"
import torch
import torch.nn.functional as F


def latent_mask(mask, size):
    "Share of hole in the block of pixels behind each latent pixel: `mask` `[B, 1, H, W]` to `[B, 1, *size]`"
    return mask if mask.shape[-2:] == size else F.adaptive_avg_pool2d(mask, size)


def masked_l1(pred, target, mask=None, known=1., missing=1.):
    """Mean of `|pred - target|`, weighted by `missing` in the hole and by `known` outside.

    `pred`, `target` `[B, C, h, w]`; `mask` `[B, 1, H, W]` at their size or larger, then averaged down to it.
    The mean runs over all B·C·h·w elements, whatever the weights (LaMa's normaliser). Returns a scalar.
    """
    if mask is None or known == missing == 1.: return F.l1_loss(pred, target)
    weight = torch.lerp(*(mask.new_tensor(w) for w in (known, missing)), latent_mask(mask, pred.shape[-2:]))
    return (weight*(pred - target).abs()).mean()


def zero_conv_merge(x, m, weight):
    "`x + W·m`: `x` `[B, C, h, w]`, `m` `[B, K, h, w]`, `weight` `[C, K, 1, 1]` (mask control, thesis appendix B.1)"
    return x + F.conv2d(m, weight)
