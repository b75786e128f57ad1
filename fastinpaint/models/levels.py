"What control adds to a first stage at full size: two vectors, as a mask is binary"
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from ..core.ranks import world
from ..core.together import mean as mean_of_all
from . import narrow
from .folded import gain_and_bias, offers
from .fused import LAST, aten, matrix, unwatched


def two_levels(conv, bn, act, mask):
    "`known` and `step` `[C]`: `act(bn(conv(mask)))` of 1×1 `conv` and binary `mask` is `known + step·mask`"
    values = torch.stack([conv.bias, conv.bias + conv.weight.flatten()])  # for a mask of 0 and of 1
    mean, var = bn.running_mean, bn.running_var
    if bn.training:
        share, n = mask.mean(dtype=values.dtype), mask.numel()
        if isinstance(bn, nn.SyncBatchNorm): share, n = mean_of_all(share), n*world()
        mean, var = torch.lerp(*values, share), share*(1 - share)*(values[1] - values[0])**2
        with torch.no_grad():
            bn.num_batches_tracked += 1
            bn.running_mean.lerp_(mean, bn.momentum)
            bn.running_var.lerp_(var*n/max(n - 1, 1), bn.momentum)
    known, hole = act((values - mean)*torch.rsqrt(var + bn.eps)*bn.weight + bn.bias)
    return known, hole - known


def conv_two_levels(conv, mask, known, step):
    "`conv(known + step·mask)` for `known` and `step` `[C]`"
    weight = torch.stack([torch.einsum("ocij,c->oij", conv.weight, level) for level in (step, known)], dim=1)
    x = torch.cat([mask, torch.ones_like(mask)], dim=1)  # as the zero padding is neither
    if conv.weight.is_contiguous(memory_format=LAST): x = x.contiguous(memory_format=LAST)
    return F.conv2d(x, weight, conv.bias, conv.stride, conv.padding)


def raised(x, mask, known, step):
    known, step = (level.to(x).view(-1, 1, 1) for level in (known, step))
    return torch.addcmul(x, mask.to(x), step).add_(known)


def stage_of_levels(stage, x, mask, known, step):
    "`stage(x + known + step·mask)`, on a CPU without a gradient of `x`'s size where nothing else needs one"
    if fits(stage, x): return FrozenStage.apply(stage, x, mask, known, step)
    return stage(raised(x, mask, known, step))


def fits(stage, x):
    "Whether `stage` is a LaMa encoder's, as frozen as what comes before it, and `x` on a CPU"
    if torch.compiler.is_compiling() or not torch.is_grad_enabled() or x.device.type != "cpu": return False
    if x.requires_grad or not offers(stage, "curved") or stage.bn.training: return False
    if type(stage.act) is not nn.ReLU: return False
    return unwatched(*stage.modules()) and not any(p.requires_grad for p in stage.parameters())


class FrozenStage(torch.autograd.Function):
    """`stage` (a `ConvBlock`) of `x + known + step·mask`, with gradients of `known` and `step` `[C]` alone.

    Those need what the mask's windows have of the gradient, a product of a few numbers a pixel; by autograd
    they would take the gradient of a feature map of full size, the largest of a training step."""
    @staticmethod
    def forward(ctx, stage, x, mask, known, step):
        x = raised(x, mask, known, step)
        padded = narrow.reflected(x, 1)
        curved = stage.curved(padded)
        ctx.stage = stage
        ctx.save_for_backward(mask, curved)
        return curved if stage.linear is None else stage.straight(padded, x).add_(curved)

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        stage, (mask, curved) = ctx.stage, ctx.saved_tensors
        gain, _ = gain_and_bias(stage.bn)
        paths = [(stage.conv.weight*gain.view(-1, 1, 1, 1), aten.threshold_backward(g, curved, 0))]
        if stage.linear is not None: paths.append((stage.linear.weight, g))
        mask, (h, w), (s, _) = narrow.reflected(mask, 1), g.shape[2:], stage.conv.stride
        k, found = max(weight.shape[2] for weight, _ in paths), []
        windows = torch.stack([mask[:, 0, i::s, j::s][:, :h, :w].float().flatten()
                               for i in range(k) for j in range(k)])  # those of both paths begin alike
        for weight, g in paths:
            pixels, size = matrix(g.float()).flatten(0, 1), weight.shape[2]
            in_hole = (windows @ pixels).T.view(-1, k, k)[:, :size, :size]
            found.append((torch.einsum("ocij,o->c", weight, pixels.sum(0)),
                          torch.einsum("ocij,oij->c", weight, in_hole)))
        return None, None, None, *(sum(parts) for parts in zip(*found, strict=True))
