"How the mask reaches the encoder: as a fourth channel (LaMa) or by mask control (thesis, § 4.1.1)"
from copy import deepcopy
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from ..core.errors import InputError
from ..kernels import zero_conv_merge
from . import narrow
from .folded import FoldedAlphaChannel, FoldedMaskControl, copied, folded, frozen, offers, widened
from .levels import conv_two_levels, stage_of_levels, two_levels


class AlphaChannel(nn.Module):
    """The mask as one more channel of the encoder's first convolution and of its linear path.

    Its kernels `[C, 1, 7, 7]` and `[C, 1, 1, 1]` are zero at first; the encoder stays one of RGB."""
    def __init__(self, channels, strides, linear=False):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels[0], 1, 7, 7))
        self.linear = nn.Parameter(torch.zeros(channels[0], 1, 1, 1)) if linear else None

    def forward(self, encoder, image, mask): return encoder.stages[1:](self.first_stage(encoder, image, mask))

    def first_stage(self, encoder, image, mask):
        first = encoder.stages[0]
        x = torch.cat([image, mask], dim=1)
        padded = narrow.reflected(x, 3)
        y = first.act(first.bn(narrow.conv(padded, torch.cat([first.conv.weight, self.weight], dim=1))))
        if self.linear is None: return y
        linear = torch.cat([first.linear.weight, self.linear], dim=1)
        return narrow.pointwise(x, linear, first.linear.bias) + y  # in place, a view's gradient is copied

    @torch.no_grad()
    def begin_anew(self, encoder):
        "Give the 7×7 convolution of four channels torch's initial weights; linear path and BatchNorm stay"
        conv, rgb = nn.Conv2d(4, len(self.weight), 7, bias=False), encoder.stages[0].conv.weight
        rgb.copy_(conv.weight[:, :3])
        self.weight.copy_(conv.weight[:, 3:])

    def folded_with(self, encoder):
        "Equal to this in eval mode, for inference with `encoder.folded()`"
        return FoldedAlphaChannel(self.folded_first(encoder).to(memory_format=torch.channels_last))

    def folded_first(self, encoder):
        "The first stage, folded, of image and mask as four channels"
        first = copied(encoder.stages[0])
        first.conv = widened(first.conv, self.weight)
        if first.linear is not None: first.linear = widened(first.linear, self.linear)
        return first.folded()


class BareConv(nn.Module):
    """A 7×7 convolution of image and mask, nothing else, in place of the first stage (Table 5.1 (3)).

    As in the thesis' code, without BatchNorm and ReLU, and new: no weight is the autoencoder's. It replaces
    a linear path, too, being linear itself. The encoder keeps its own first stage for the plain latent."""
    def __init__(self, channels, strides, linear=False):
        super().__init__()
        self.conv = nn.Conv2d(4, channels[0], 7, padding=3, bias=False, padding_mode="reflect")

    def forward(self, encoder, image, mask):
        return encoder.stages[1:](self.conv(torch.cat([image, mask], dim=1)))

    def folded_with(self, encoder):
        "Equal to this, for inference with `encoder.folded()`"
        return copied(self).to(memory_format=torch.channels_last)


class AlphaKernels(nn.Module):
    """The mask's own kernels `[C, 1, k, k]`, zero at first, beside the first convolution of any encoder.

    That convolution is all of the encoder's first stage, to which this is equal to the bit at first."""
    def __init__(self, channels, strides):
        super().__init__()
        self.stride = strides[0]
        self.weight = nn.Parameter(torch.zeros(channels[0], 1, self.stride + 2, self.stride + 2))

    def forward(self, encoder, image, mask): return encoder.stages[1:](self.first_stage(encoder, image, mask))

    def first_stage(self, encoder, image, mask):
        return encoder.stages[0](image) + F.conv2d(mask, self.weight, None, self.stride, padding=1)

    def folded_with(self, encoder): return copied(self)


class ZeroConv(nn.Module):
    "1×1 convolution of a guide, added to the features; its weight `[C, C, 1, 1]` starts at zero"
    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, channels, 1, 1))

    def forward(self, x, guide): return zero_conv_merge(x, guide, self.weight)


class MaskControl(nn.Module):
    """A mask encoder beside the image encoder, added after every stage by a `ZeroConv`.

    Its stages have the `channels` and `strides` of the encoder's. At first equal to the plain encoder to the
    bit. Masks are binary, so two vectors are its first stage where that keeps the size."""
    def __init__(self, channels, strides, linear=False):
        super().__init__()
        sizes = [1 if strides[0] == 1 else 3, *[3]*(len(strides) - 1)]
        shapes = zip(pairwise([1, *channels]), sizes, strides, strict=True)
        convs = [nn.Conv2d(*n, size, stride, size//2) for n, size, stride in shapes]
        self.binary = strides[0] == 1
        self.mask_stages = nn.ModuleList(nn.Sequential(conv, nn.BatchNorm2d(n), nn.ReLU(True))
                                         for conv, n in zip(convs, channels, strict=True))
        self.zero_convs = nn.ModuleList(ZeroConv(n) for n in channels)

    def forward(self, encoder, image, mask):
        latent, guide, begun = (self.begin_binary if self.binary else self.begin)(encoder, image, mask)
        for stage, mask_stage, zero_conv in zip(encoder.stages[begun:], self.mask_stages[begun:],
                                                self.zero_convs[begun:], strict=True):
            guide = mask_stage(guide)
            latent = zero_conv(stage(latent), guide)
        return latent

    def begin(self, encoder, image, mask):
        guide = self.mask_stages[0](mask)
        return self.zero_convs[0](self.first_stage(encoder, image, mask), guide), guide, 1

    def begin_binary(self, encoder, image, mask):
        first, second = self.mask_stages[:2]
        known, step = two_levels(*first, mask)  # the first stage's output is known + step·mask
        weight = self.zero_convs[0].weight.flatten(1)
        latent = self.first_stage(encoder, image, mask)
        latent = stage_of_levels(encoder.stages[1], latent, mask, weight @ known, weight @ step)
        guide = second[1:](conv_two_levels(second[0], mask, known, step))
        return self.zero_convs[1](latent, guide), guide, 2

    def first_stage(self, encoder, image, mask): return encoder.stages[0](image)

    def folded_first(self, encoder):
        "The first stage, folded; its linear path takes the mask, too, so far with kernels of zero"
        first = encoder.stages[0].folded()
        if first.linear is not None:
            first.linear = widened(first.linear, torch.zeros_like(first.linear.weight[:, :1]))
        return first

    @torch.no_grad()
    def folded_with(self, encoder):
        "Equal to this in eval mode, for inference with `encoder.folded()`"
        if not offers(encoder.stages[0], "folded"):  # which only LaMa's does
            new = copied(self, folded)
            new.binary = False
            return new
        weight = self.zero_convs[0].weight
        known, step = two_levels(*copied(self.mask_stages[0]), None)
        first = self.folded_first(encoder)
        if first.linear is None:
            like = dict(device=weight.device, dtype=weight.dtype)
            first.linear = nn.utils.skip_init(nn.Conv2d, 4, len(weight), 1, **like).requires_grad_(False)
            for p in first.linear.parameters(): p.zero_()
        first.linear.weight[:, 3:] += F.conv2d(step.view(1, -1, 1, 1), weight).view(-1, 1, 1, 1)
        first.linear.bias += weight.flatten(1) @ known
        conv, *rest = self.mask_stages[1]
        second = copied(conv)  # of mask and ones
        second.weight = frozen(torch.einsum("ocij,lc->olij", conv.weight, torch.stack([step, known])))
        mask_stages = folded(nn.ModuleList([nn.Sequential(second, *rest), *self.mask_stages[2:]]))
        first.to(memory_format=torch.channels_last)
        return FoldedMaskControl(first, mask_stages, copied(self.zero_convs[1:]))


class AlphaMaskControl(MaskControl):
    "`MaskControl` beside an `AlphaChannel` or another `alpha`, at first equal to it: `add_control`"
    def __init__(self, channels, strides, linear=False, alpha=None):
        super().__init__(channels, strides)
        self.alpha = alpha or AlphaChannel(channels, strides, linear)

    def first_stage(self, encoder, image, mask): return self.alpha.first_stage(encoder, image, mask)
    def folded_first(self, encoder): return self.alpha.folded_first(encoder)


def add_control(net):
    """A copy of `net`, whose mask is an alpha channel, with mask control: `control="alpha+mask"`.

    It equals `net` to the bit, as the zero convolutions are zero, so training goes on from there, also of a
    published checkpoint (`add_control(load_lama(path))`). The alpha channel stays: control alone could not
    begin like that. It adds a function of the mask to what leaves a ReLU, the alpha channel adds to what
    enters it, and ReLU(a + b) is no ReLU(a) + c(b): only where no hole lies within three pixels could both
    agree. `FreezeSchedule(conditioner__alpha=(0, 1))` also freezes the alpha channel's own kernels.
    Raises InputError for any other network."""
    if type(getattr(net, "conditioner", None)) not in (AlphaChannel, AlphaKernels):
        raise InputError("mask control is added to a network whose mask is an alpha channel, which this "
                         f'{type(net).__name__} has not: take lama(control="alpha") or load_lama')
    new = deepcopy(net)
    control = AlphaMaskControl(net.encoder.channels, net.encoder.strides, alpha=new.conditioner)
    new.conditioner = control.train(net.training).to(net.conditioner.weight)
    new.config = net.config | dict(control="alpha+mask")
    if "first" in new.config: new.config["first"] = "kept"
    return new
