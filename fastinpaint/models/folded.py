"""Blocks for inference only: the functions of those for training, in fewer passes over memory.

A block makes its own by `folded(winograd=False)` and stays as it is, a conditioner by `folded_with(encoder)`.
Sums go into the result of a convolution, never into a ReLU's, whose gradient needs it."""
from copy import copy
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..kernels.ffc import ffc_convs
from . import narrow


def folded(module, winograd=False):
    """The inference form of any module: what its `folded` gives, else a copy with folded children.

    `winograd` lets wide convolutions be computed as in `winograd.Winograd`."""
    if offers(module, "folded"): return module.folded(winograd)
    new = copied(module, lambda child: folded(child, winograd))
    if isinstance(module, nn.Sequential):
        for i, (conv, bn) in enumerate(pairwise(module)):
            if isinstance(bn, _BatchNorm) and isinstance(conv, nn.Conv2d | nn.ConvTranspose2d):
                new[i], new[i + 1] = fused(conv, bn), nn.Identity()
    return new


def offers(module, method):
    "Whether `module` has `method` for its own `forward`; a subclass that changes one, changes both"
    names = (vars(cls) for cls in type(module).__mro__)
    return method in next((own for own in names if method in own or "forward" in own), ())


def copied(module, child=None):
    "A frozen copy of `module` in eval mode without hooks, whose children are `child(m)`"
    new = copy(module)
    nn.Module.__init__(new)  # tables of hooks, parameters and children of its own, all empty
    for name, p in module._parameters.items():
        new.register_parameter(name, None if p is None else frozen(p.detach().clone()))
    for name, b in module._buffers.items():
        new.register_buffer(name, b.clone(), name not in module._non_persistent_buffers_set)
    for name, m in module._modules.items(): new.add_module(name, None if m is None else (child or copied)(m))
    return new.eval()


def fused(conv, bn):
    "The convolution equal to `bn(conv(x))` in eval mode"
    return fuse_conv_bn_eval(copied(conv), copied(bn), isinstance(conv, nn.ConvTranspose2d))


def without_bn(block):
    "A frozen copy of `block` in which `bn` is part of `conv`"
    new = copied(block)
    new.conv, new.bn = fused(block.conv, block.bn), nn.Identity()
    return new


def frozen(tensor): return nn.Parameter(tensor, requires_grad=False)


def gain_and_bias(bn):
    "`(gain, bias)` `[C]` with which BatchNorm in eval mode is `gain·x + bias`"
    gain = bn.weight*torch.rsqrt(bn.running_var + bn.eps)
    return gain, bn.bias - bn.running_mean*gain


def widened(conv, weight):
    "A frozen copy of `conv` with another input channel, of kernels `weight` `[O, 1, k, k]`"
    new = copied(conv)
    new.weight = frozen(torch.cat([conv.weight, weight], dim=1))
    new.in_channels += 1
    return new


class FoldedConvBlock(nn.Module):
    "`ConvBlock` whose two paths share one padding; `linear` may take more channels than `conv`"
    def __init__(self, conv, linear):
        super().__init__()
        self.conv, self.linear = conv, linear

    def forward(self, x):
        conv, linear = self.conv, self.linear
        padded = narrow.reflected(x[:, :conv.in_channels], conv.padding[0])
        y = narrow.conv(padded, conv.weight, conv.bias, conv.stride).relu_()
        return y if linear is None else narrow.beside(conv, linear, padded, x).add_(y)


class FoldedFFCBlock(nn.Module):
    "`FFCBlock` on channels that lie first in memory, for which Fourier transforms are fastest"
    def __init__(self, *convs):
        super().__init__()
        self.convs = nn.Sequential(*convs)

    def forward(self, x):
        x = x.contiguous()
        return x + self.convs(x)


class FoldedFFC(nn.Module):
    """`FFC`; of its BatchNorm the gain is in `convs` and `spectral`, and `bias` `[C]` remains.

    With an `impl` other than torch all of it but the spectral transform is `ffc_convs`."""
    impl = "torch"
    def __init__(self, convs, spectral, bias, act):
        super().__init__()
        self.convs, self.spectral, self.act = convs, spectral, act
        self.bias = frozen(bias.view(-1, 1, 1))

    def forward(self, x):
        if self.impl != "torch" and isinstance(self.convs, Convs):
            local, glob = self.convs.to_local, self.convs.local_to_global
            inner, expand = self.spectral.inner(x[:, len(local):]), self.spectral.expand.weight
            return ffc_convs(x, local, glob, inner, expand, self.bias.flatten(),
                             isinstance(self.act, nn.ReLU), self.impl)
        local, glob = self.convs(x)
        glob = glob.add_(self.spectral(x[:, local.shape[1]:]))
        return self.act(torch.cat([local, glob], dim=1).add_(self.bias))


class Convs(nn.Module):
    "The two 3×3 convolutions of an FFC, one of all channels and one of the local ones"
    def __init__(self, to_local, local_to_global):
        super().__init__()
        self.to_local, self.local_to_global = frozen(to_local), frozen(local_to_global)

    def forward(self, x):
        x, to_global = narrow.reflected(x, 1), self.local_to_global
        return F.conv2d(x, self.to_local), F.conv2d(x[:, :to_global.shape[1]], to_global)


class PixelBlocks(nn.Module):
    "A reflection-padded convolution, computed for blocks of 2×2 pixels at once"
    def __init__(self, conv):
        super().__init__()
        self.padding = conv.padding[0]
        self.weight, self.bias = map(frozen, narrow.pixel_blocks(conv.weight.detach(), conv.bias.detach()))

    def forward(self, x):
        return narrow.blocks_conv(narrow.reflected(x, self.padding), self.weight, self.bias)


class FoldedAlphaChannel(nn.Module):
    "`AlphaChannel`, with a first stage of four channels in place of the encoder's"
    def __init__(self, first):
        super().__init__()
        self.first = first

    def forward(self, encoder, image, mask):
        return encoder.stages[1:](self.first(torch.cat([image, mask], dim=1)))


class FoldedMaskControl(nn.Module):
    """`MaskControl`, with a first stage in place of the encoder's that takes the mask, too.

    `mask_stages`, the first of which takes mask and ones, and `zero_convs` belong to the further stages."""
    def __init__(self, first, mask_stages, zero_convs):
        super().__init__()
        self.first, self.mask_stages, self.zero_convs = first, mask_stages, zero_convs

    def forward(self, encoder, image, mask):
        latent = self.first(torch.cat([image, mask], dim=1))
        guide = torch.cat([mask, torch.ones_like(mask)], dim=1)  # zero padding has neither
        stages = zip(encoder.stages[1:], self.mask_stages, self.zero_convs, strict=True)
        for stage, mask_stage, zero_conv in stages:
            guide = mask_stage(guide)
            latent = F.conv2d(guide, zero_conv.weight).add_(stage(latent))
        return latent
