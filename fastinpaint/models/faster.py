"A copy of a network that only fills photographs, and does so faster: the same function in fewer passes over memory"
from copy import deepcopy
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .control import AlphaChannel, MaskControl, two_levels
from .ffc import FFC, FFCBlock
from .lama import ConvBlock, Decoder, Encoder, UpBlock
from .winograd import WIDE, Winograd


@torch.no_grad()
def faster(net, winograd=None):
    """A copy of the `InpaintNet` `net` for inference, equal to it up to rounding.

    BatchNorm is folded into the convolutions; what mask control does with a mask is worked out as far as it does not depend on
    that mask; encoder and decoder keep their channels last in memory; the decoder's last convolution computes 2×2 pixels at a
    time. `winograd` (by default for a model on a CPU) halves the time of wide refiners' 3×3 convolutions, for four times the
    memory of their weights; not for half precision. The copy encodes, refines and decodes like `net`, for gradients with respect
    to latents too. Its weights are no longer those of a model file: `config` is empty.
    """
    hooks = [h for m in net.modules() for h in (m._forward_hooks, m._forward_pre_hooks)]
    net = deepcopy(net, {id(h): type(h)() for h in hooks})  # a hook would bring its callback along, and all of training
    net.eval().requires_grad_(False)
    if winograd is None: winograd = next(net.parameters()).device.type == "cpu"
    net.config = {}
    if type(net.conditioner) in CONDITIONERS: net.conditioner = CONDITIONERS[type(net.conditioner)](net)
    for module in list(net.modules()): fold(module)
    for module in list(net.modules())[::-1]:  # what lies inside first
        for name, child in module.named_children():
            if type(child) in FASTER: setattr(module, name, FASTER[type(child)](child))
            if isinstance(child, FFC) and winograd and sum(child.split) >= WIDE: getattr(module, name).convs = Winograd(child)
    if isinstance(net.encoder, Encoder): net.encoder.to(memory_format=torch.channels_last)
    if isinstance(net.decoder, Decoder):
        net.decoder.head = PixelBlocks(net.decoder.head)
        net.decoder.to(memory_format=torch.channels_last)
    return net


def fold(module):
    "Fold every BatchNorm among the children of `module` into the convolution it follows"
    for (name, conv), (after, bn) in pairwise(list(module.named_children())):
        if isinstance(bn, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d | nn.ConvTranspose2d):
            setattr(module, name, fuse_conv_bn_eval(conv, bn, transpose=isinstance(conv, nn.ConvTranspose2d)))
            setattr(module, after, nn.Identity())


# In what follows sums go into the result of a convolution, never into that of a ReLU, which its gradient needs.

class Stage(nn.Module):
    "`ConvBlock` whose two paths share one padding"
    def __init__(self, block):
        super().__init__()
        self.conv, self.linear = block.conv, block.linear

    def forward(self, x):
        conv, linear = self.conv, self.linear
        padded = F.pad(x[:, :conv.in_channels], [conv.padding[0]]*4, mode="reflect")
        y = F.conv2d(padded, conv.weight, conv.bias, conv.stride).relu_()
        if linear is None: return y
        return F.conv2d(padded if linear.padding == conv.padding else x, linear.weight, linear.bias, linear.stride).add_(y)


class Up(nn.Module):
    "`UpBlock`"
    def __init__(self, block):
        super().__init__()
        self.conv, self.linear = block.conv, block.linear

    def forward(self, x):
        y = self.conv(x).relu_()
        return y if self.linear is None else self.linear(x).add_(y)


class Block(nn.Module):
    "`FFCBlock` on channels that lie first, as Fourier transforms like them best"
    def __init__(self, block):
        super().__init__()
        self.conv1, self.conv2 = block.conv1, block.conv2

    def forward(self, x):
        x = x.contiguous()
        return x + self.conv2(self.conv1(x))


class FoldedFFC(nn.Module):
    "`FFC` whose BatchNorm went into the convolutions before it, but for its bias"
    def __init__(self, ffc):
        super().__init__()
        self.convs, self.spectral, self.act = Convs(ffc), ffc.spectral, ffc.act
        self.local = ffc.split[0]
        scale = ffc.bn.weight*torch.rsqrt(ffc.bn.running_var + ffc.bn.eps)
        local, glob = scale.view(-1, 1, 1, 1).split(ffc.split)
        for conv, gain in (ffc.to_local, local), (ffc.local_to_global, glob), (ffc.spectral.expand, glob): conv.weight *= gain
        self.bias = nn.Parameter((ffc.bn.bias - ffc.bn.running_mean*scale).view(-1, 1, 1), requires_grad=False)

    def forward(self, x):
        local, glob = self.convs(x)
        return self.act(torch.cat([local, glob.add_(self.spectral(x[:, self.local:]))], dim=1).add_(self.bias))


class Convs(nn.Module):
    "The two 3×3 convolutions of an FFC, one of all channels and one of the local ones"
    def __init__(self, ffc):
        super().__init__()
        self.to_local, self.local_to_global = ffc.to_local, ffc.local_to_global

    def forward(self, x):
        x = F.pad(x, [1]*4, mode="reflect")
        to_global = self.local_to_global.weight
        return F.conv2d(x, self.to_local.weight), F.conv2d(x[:, :to_global.shape[1]], to_global)


class PixelBlocks(nn.Module):
    """A reflection-padded convolution, computed for blocks of 2×2 pixels at once.

    Three output channels leave most of a vector unit idle; the twelve of such blocks are worth their slightly larger kernel.
    """
    def __init__(self, conv):
        super().__init__()
        (o, i, *_, k), self.padding = conv.weight.shape, conv.padding[0]
        weight = conv.weight.new_zeros(o, 2, 2, i, k + 1, k + 1)
        for y in range(2):
            for x in range(2): weight[:, y, x, :, y:y + k, x:x + k] = conv.weight
        self.weight = nn.Parameter(weight.flatten(0, 2), requires_grad=False)
        self.bias = nn.Parameter(conv.bias.repeat_interleave(4), requires_grad=False)

    def forward(self, x):
        return F.pixel_shuffle(F.conv2d(F.pad(x, [self.padding]*4, mode="reflect"), self.weight, self.bias, 2), 2)


class FourChannels(nn.Module):
    "`AlphaChannel`, its kernels now part of the encoder's"
    def __init__(self, net):
        super().__init__()
        first, control = net.encoder.stages[0], net.conditioner
        widen(first.conv, control.weight)
        if control.linear is not None: widen(first.linear, control.linear)

    def forward(self, encoder, image, mask): return encoder(torch.cat([image, mask], dim=1))


class FoldedControl(nn.Module):
    "`MaskControl`, the first of its mask's stages now part of the encoder's linear path"
    def __init__(self, net):
        super().__init__()
        first, control = net.encoder.stages[0], net.conditioner
        known, step = two_levels(*control.mask_stages[0], None)  # that stage gives known + step·mask
        weight = control.zero_convs[0].weight
        if first.linear is None:
            first.linear = nn.Conv2d(3, len(weight), 1, device=weight.device, dtype=weight.dtype).requires_grad_(False)
            for p in first.linear.parameters(): p.zero_()
        widen(first.linear, F.conv2d(step.view(1, -1, 1, 1), weight).view(-1, 1, 1, 1))
        first.linear.bias += weight.flatten(1) @ known
        second = control.mask_stages[1][0]
        second.weight = nn.Parameter(torch.einsum("ocij,lc->olij", second.weight, torch.stack([step, known])), False)
        self.mask_stages = control.mask_stages[1:]
        self.weights = nn.ParameterList(z.weight for z in control.zero_convs[1:])

    def forward(self, encoder, image, mask):
        latent = encoder.stages[0](torch.cat([image, mask], dim=1))
        guide = torch.cat([mask, torch.ones_like(mask)], dim=1)  # ones, since outside of the image there is neither
        for stage, mask_stage, weight in zip(encoder.stages[1:], self.mask_stages, self.weights, strict=True):
            guide = mask_stage(guide)
            latent = F.conv2d(guide, weight).add_(stage(latent))
        return latent


def widen(conv, weight):
    "Give `conv` another input channel, with kernels `weight` `[O, 1, k, k]`"
    conv.weight = nn.Parameter(torch.cat([conv.weight, weight], dim=1), requires_grad=False)
    conv.in_channels += 1


CONDITIONERS = {AlphaChannel: FourChannels, MaskControl: FoldedControl}
FASTER = {ConvBlock: Stage, UpBlock: Up, FFCBlock: Block, FFC: FoldedFFC}
