"How the mask reaches the encoder: as a fourth channel (LaMa) or by mask control (thesis, § 4.1.1)"
import torch
import torch.nn.functional as F
from torch import nn

from ..kernels import zero_conv_merge
from .folded import FoldedAlphaChannel, FoldedMaskControl, copied, folded, frozen, widened


class AlphaChannel(nn.Module):
    """The mask as one more channel of the encoder's first convolution and of its linear path.

    Its kernels `[width, 1, 7, 7]` and `[width, 1, 1, 1]` are zero at first; the encoder stays one of RGB."""
    def __init__(self, width, depth=3, linear=False):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, 1, 7, 7))
        self.linear = nn.Parameter(torch.zeros(width, 1, 1, 1)) if linear else None

    def forward(self, encoder, image, mask):
        first, rest = encoder.stages[0], encoder.stages[1:]
        x = F.pad(torch.cat([image, mask], dim=1), (3, 3, 3, 3), mode="reflect")
        y = first.act(first.bn(F.conv2d(x, torch.cat([first.conv.weight, self.weight], dim=1))))
        y = first.add_linear(y, image)
        return rest(y if self.linear is None else y + F.conv2d(mask, self.linear))

    def folded_with(self, encoder):
        "Equal to this in eval mode, for inference with `encoder.folded()`"
        first = copied(encoder.stages[0])
        first.conv = widened(first.conv, self.weight)
        if first.linear is not None: first.linear = widened(first.linear, self.linear)
        return FoldedAlphaChannel(first.folded().to(memory_format=torch.channels_last))


class ZeroConv(nn.Module):
    "1×1 convolution of a guide, added to the features; its weight `[C, C, 1, 1]` starts at zero"
    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, channels, 1, 1))

    def forward(self, x, guide): return zero_conv_merge(x, guide, self.weight)


class MaskControl(nn.Module):
    """A mask encoder beside the image encoder, added after every stage by a `ZeroConv`.

    At first equal to the plain encoder to the bit. Masks are binary, so two vectors are its first stage."""
    def __init__(self, width, depth=3, linear=False):
        super().__init__()
        channels = [width*2**i for i in range(depth + 1)]
        convs = [nn.Conv2d(1, width, 1)]
        convs += [nn.Conv2d(n, 2*n, 3, stride=2, padding=1) for n in channels[:-1]]
        self.mask_stages = nn.ModuleList(nn.Sequential(conv, nn.BatchNorm2d(n), nn.ReLU(True))
                                         for conv, n in zip(convs, channels, strict=True))
        self.zero_convs = nn.ModuleList(ZeroConv(n) for n in channels)

    def forward(self, encoder, image, mask):
        first, second, *rest = self.mask_stages
        known, step = two_levels(*first, mask)  # the first stage's output is known + step·mask
        weight = self.zero_convs[0].weight.flatten(1)
        added = weight @ known + (weight @ step)*mask.permute(0, 2, 3, 1)
        latent = encoder.stages[0](image) + added.permute(0, 3, 1, 2)
        guide = second[1:](conv_two_levels(second[0], mask, known, step))
        latent = self.zero_convs[1](encoder.stages[1](latent), guide)
        for stage, mask_stage, zero_conv in zip(encoder.stages[2:], rest, self.zero_convs[2:], strict=True):
            guide = mask_stage(guide)
            latent = zero_conv(stage(latent), guide)
        return latent

    @torch.no_grad()
    def folded_with(self, encoder):
        "Equal to this in eval mode, for inference with `encoder.folded()`"
        weight = self.zero_convs[0].weight
        known, step = two_levels(*copied(self.mask_stages[0]), None)
        first = encoder.stages[0].folded()
        if first.linear is None:
            like = dict(device=weight.device, dtype=weight.dtype)
            linear = nn.utils.skip_init(nn.Conv2d, 3, len(weight), 1, **like)
            for p in linear.parameters(): p.zero_()
            first.linear = linear
        first.linear = widened(first.linear, F.conv2d(step.view(1, -1, 1, 1), weight).view(-1, 1, 1, 1))
        first.linear.bias += weight.flatten(1) @ known
        conv, *rest = self.mask_stages[1]
        second = copied(conv)  # of mask and ones
        second.weight = frozen(torch.einsum("ocij,lc->olij", conv.weight, torch.stack([step, known])))
        mask_stages = folded(nn.ModuleList([nn.Sequential(second, *rest), *self.mask_stages[2:]]))
        first.to(memory_format=torch.channels_last)
        return FoldedMaskControl(first, mask_stages, copied(self.zero_convs[1:]))


def two_levels(conv, bn, act, mask):
    "`known` and `step` `[C]`: `act(bn(conv(mask)))` of 1×1 `conv` and binary `mask` is `known + step·mask`"
    values = torch.stack([conv.bias, conv.bias + conv.weight.flatten()])  # for a mask of 0 and of 1
    mean, var = bn.running_mean, bn.running_var
    if bn.training:
        share = mask.mean(dtype=values.dtype)
        mean, var = torch.lerp(*values, share), share*(1 - share)*(values[1] - values[0])**2
        with torch.no_grad():
            bn.num_batches_tracked += 1
            bn.running_mean.lerp_(mean, bn.momentum)
            bn.running_var.lerp_(var*mask.numel()/max(mask.numel() - 1, 1), bn.momentum)
    known, hole = act((values - mean)*torch.rsqrt(var + bn.eps)*bn.weight + bn.bias)
    return known, hole - known


def conv_two_levels(conv, mask, known, step):
    "`conv(known + step·mask)` for `known` and `step` `[C]`"
    weight = torch.stack([torch.einsum("ocij,c->oij", conv.weight, level) for level in (step, known)], dim=1)
    x = torch.cat([mask, torch.ones_like(mask)], dim=1)  # as the zero padding is neither
    return F.conv2d(x, weight, conv.bias, conv.stride, conv.padding)
