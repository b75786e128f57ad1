"LaMa (Suvorov et al. 2022) as encoder, refiner and decoder around one latent"
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ..core.errors import InputError
from . import narrow
from .autoencoders import is_foreign
from .control import AlphaChannel, AlphaMaskControl, BareConv, MaskControl
from .folded import FoldedConvBlock, PixelBlocks, copied, folded, fused, gain_and_bias, without_bn
from .latent_net import latent_net
from .net import InpaintNet
from .refiner import Refiner, check_refiner
from .weights import read_weights

CONDITIONERS = {"alpha": AlphaChannel, "mask": MaskControl, "alpha+mask": AlphaMaskControl, None: None}
FIRST = "kept", "anew", "bare"
DARKEST = -60  # before a sigmoid; further down, gradients are numbers so small that some CPUs crawl
# by whether they have linear paths
SAMPLE_AUTOENCODERS = {linear: Path(__file__).parent/f"autoencoder{kind}.safetensors"
                       for linear, kind in {True: "", False: "-plain"}.items()}


def shape(width, depth):
    "Channels and strides of the encoder's stages"
    return [width*2**i for i in range(depth + 1)], [1, *[2]*depth]


def conv_bn(padded, conv, bn):
    "`bn(conv(x))` of `x` as `conv` pads it; fixed statistics go into the convolution, a pass less"
    if bn.training: return bn(narrow.conv(padded, conv.weight, conv.bias, conv.stride))
    gain, bias = gain_and_bias(bn)
    return narrow.conv(padded, conv.weight*gain.view(-1, 1, 1, 1), bias, conv.stride)


class HeadConv(nn.Conv2d):
    "A convolution with reflection padding, by the weights of `pixel_blocks`"
    def forward(self, x):
        padded = narrow.reflected(x, self.padding[0])
        return narrow.blocks_conv(padded, *narrow.pixel_blocks(self.weight, self.bias))


class UpConv(nn.ConvTranspose2d):
    """A transposed convolution; in training on a CPU its bias has its gradient by itself.

    Asked for that too, torch's backward pass takes twice the time."""
    def forward(self, x):
        apart = x.device.type == "cpu" and self.bias.requires_grad and torch.is_grad_enabled()
        if not apart or torch.compiler.is_compiling(): return super().forward(x)
        how = self.stride, self.padding, self.output_padding
        return BiasOf.apply(F.conv_transpose2d(x, self.weight, self.bias.detach(), *how), self.bias)


class BiasOf(torch.autograd.Function):
    "Gives the gradient of `bias` `[C]`, which `y` has in it already"
    @staticmethod
    def forward(ctx, y, bias):
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx, g): return g, g.sum((0, 2, 3))


class ConvBlock(nn.Module):
    """Reflection-padded convolution, BatchNorm, ReLU; with `linear` plus a path without them.

    The linear path is a convolution of two output pixels' width, so that neighbouring windows overlap."""
    def __init__(self, n_in, n_out, size, stride=1, linear=False):
        super().__init__()
        reflect = dict(padding_mode="reflect")
        self.conv = nn.Conv2d(n_in, n_out, size, stride, size//2, bias=False, **reflect)
        self.bn = nn.BatchNorm2d(n_out)
        self.act = nn.ReLU(inplace=True)
        width, padding = (2*stride, stride//2) if stride > 1 else (1, 0)
        self.linear = nn.Conv2d(n_in, n_out, width, stride, padding, **reflect) if linear else None

    def forward(self, x):
        padded = narrow.reflected(x, self.conv.padding[0])
        y = self.curved(padded)
        # not in place: it may be a view, whose gradient autograd would copy to and fro
        return y if self.linear is None else self.straight(padded, x) + y

    def curved(self, padded): return self.act(conv_bn(padded, self.conv, self.bn))
    def straight(self, padded, x): return narrow.beside(self.conv, self.linear, padded, x)

    def folded(self, winograd=False):
        return FoldedConvBlock(fused(self.conv, self.bn), self.linear and copied(self.linear))


class UpBlock(nn.Module):
    "Transposed convolution to twice the size, BatchNorm, ReLU; with `linear` as in `ConvBlock`"
    def __init__(self, n_in, n_out, linear=False):
        super().__init__()
        self.conv = UpConv(n_in, n_out, 3, stride=2, padding=1, output_padding=1)
        self.bn = nn.BatchNorm2d(n_out)
        self.act = nn.ReLU(inplace=True)
        self.linear = UpConv(n_in, n_out, 4, stride=2, padding=1) if linear else None

    def forward(self, x):
        y = self.act(self.bn(self.conv(x)))
        return y if self.linear is None else self.linear(x).add_(y)

    def folded(self, winograd=False): return without_bn(self)


class Encoder(nn.Module):
    """RGB image `[B, 3, H, W]` in [0, 1] to a latent `[B, width·2^depth, H/2^depth, W/2^depth]`.

    `stages`, of `channels` and `strides`, are LaMa's layers 1 to 4; `linear` adds a path beside each ReLU, so
    features are signed. `stride` is that of them all."""
    def __init__(self, width, depth=3, linear=False):
        super().__init__()
        self.channels, self.strides, self.stride = *shape(width, depth), 2**depth
        self.stages = nn.Sequential(ConvBlock(3, width, 7, linear=linear))
        self.stages.extend(ConvBlock(*n, 3, 2, linear) for n in pairwise(self.channels))

    def forward(self, x): return self.stages(x)

    def folded(self, winograd=False):
        "Equal to this in eval mode, for inference; its channels lie last in memory"
        return copied(self, folded).to(memory_format=torch.channels_last)


class Decoder(nn.Module):
    """Latent to RGB image, the mirror of `Encoder`; LaMa's ends in a sigmoid.

    With `linear` paths the output is the sum of both and may leave [0, 1] a little; composites are clamped.
    A pixel depends on latents at most `reach` away."""
    reach = 2
    def __init__(self, width, depth=3, linear=False):
        super().__init__()
        channels, _ = shape(width, depth)
        self.stages = nn.Sequential(*[UpBlock(*n, linear) for n in pairwise(channels[::-1])])
        self.head = HeadConv(width, 3, 7, padding=3, padding_mode="reflect")
        self.linear = linear

    def forward(self, latent):
        image = self.head(self.stages(latent))
        return image if self.linear else image.clamp(min=DARKEST).sigmoid()

    def folded(self, winograd=False):
        "Equal to this in eval mode, for inference only; its channels lie last in memory"
        new = copied(self, folded)
        new.head = PixelBlocks(self.head)
        return new.to(memory_format=torch.channels_last)


def lama(width=8, blocks=9, depth=3, control="alpha", delta=False, linear=True, prefill=True,
         autoencoder="sample", first="kept", refiner="ffc", iterations=1, detail=0):
    """LaMa of `width` channels at first, `blocks` residual blocks and `depth` halvings of the size.

    `control`: the mask reaches the encoder as a fourth channel, "alpha" (once False), by mask control,
    "mask" (once True), by both, "alpha+mask", or not at all, None. `linear` adds linear paths and signed
    blocks, `prefill` a smooth fill of the hole; published checkpoints have neither, and width 64.
    `autoencoder` gives encoder and decoder: "sample" (bundled, width 8), a file of that recipe, or None;
    one of diffusers ("hf:org/name", a folder …, as for `frozen_autoencoder`) makes a `latent_net` of it all.

    `first` is what an alpha channel's first convolution starts from: "kept", the autoencoder's kernels and
    zeros for the mask; "anew", torch's initial weights (Table 5.1 (1) in the thesis' code); "bare", a
    `BareConv` (Table 5.1 (3)). `refiner` "ffc", "dilated" or "unet", its `iterations`, `detail` and `delta`,
    False, True or "sum", are those of `Refiner`. Raises InputError for other arguments or a file of another
    architecture."""
    if is_foreign(autoencoder):
        if first != "kept":
            raise InputError(f"{first=} is of LaMa's encoder, which {autoencoder} replaces: keep it")
        if detail: raise InputError(f"{detail=} is of LaMa's refiner: networks around others have none")
        return latent_net(autoencoder, width, blocks, control, delta, linear, prefill, refiner, iterations)
    config = dict(width=width, blocks=blocks, depth=depth, control=control, delta=delta, linear=linear,
                  prefill=prefill, first=first, refiner=refiner, iterations=iterations, detail=detail)
    if width < 1 or depth < 1: raise InputError(f"no LaMa of {width=}, {depth=}")
    check_refiner("LaMa", blocks, delta, refiner, iterations, detail)
    if control not in CONDITIONERS:
        raise InputError(f'no LaMa of {control=}: expected "alpha" (once False), "mask" (once True), '
                         '"alpha+mask" or None')
    if first not in FIRST: raise InputError(f"no LaMa of {first=}: expected {', '.join(map(repr, FIRST))}")
    if first != "kept" and control != "alpha":
        raise InputError(f'no LaMa of {first=} with {control=}: it belongs to control="alpha"')
    conditioner = BareConv if first == "bare" else CONDITIONERS[control]
    conditioner = conditioner and conditioner(*shape(width, depth), linear)
    model = InpaintNet(Encoder(width, depth, linear),
                       Refiner(width*2**depth, blocks, delta, linear, refiner, iterations, detail=detail),
                       Decoder(width, depth, linear), conditioner, prefill, config)
    if autoencoder is not None: load_autoencoder(model, autoencoder)
    if first == "anew": model.conditioner.begin_anew(model.encoder)
    return model


def load_autoencoder(model, path):
    """Copy encoder and decoder of the file `path` ("sample": the bundled one of its kind) into `model`.

    Raises InputError where the file holds another width, depth or kind than the model."""
    if path == "sample": path = SAMPLE_AUTOENCODERS[model.config["linear"]]
    state, config = read_weights(path)
    shape = "width", "depth", "linear"
    theirs, ours = ([f"{k}={c.get(k)}" for k in shape] for c in (config, model.config))
    if theirs != ours:
        raise InputError(f"the autoencoder {path} was made with {', '.join(theirs)}, "
                         f"this model with {', '.join(ours)}: build the model to match, "
                         "or pass autoencoder=None to start from random weights")
    for part in "encoder", "decoder":
        module = getattr(model, part)
        found = {k: state.get(f"{part}.{k}") for k in module.state_dict()}
        wrong = [k for k, v in module.state_dict().items() if found[k] is None or found[k].shape != v.shape]
        if wrong: raise InputError(f"the autoencoder {path} has no {part}.{wrong[0]} of the model's shape")
        module.load_state_dict(found)
