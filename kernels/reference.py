"The kernels' maths in plain torch: their specification, the CPU path and the test oracle"
import torch
import torch.nn.functional as F


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
