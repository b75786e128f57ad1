"Context Encoder (Pathak et al. 2016), whose bottleneck is a channel-wise fully-connected layer"
import torch
import torch.nn.functional as F
from torch import nn

from ..core.errors import InputError
from ..kernels.prefill import smooth_fill
from .folded import copied
from .net import InpaintNet

MEAN_COLOUR = 123/255, 117/255, 104/255  # of ImageNet
SMALLEST_MAP = 4  # pixels: the bottleneck of the paper, whose images have 128


class DownBlock(nn.Sequential):
    "Convolution that halves the size, BatchNorm unless it is the first, LeakyReLU"
    def __init__(self, n_in, n_out, first=False):
        norm = [] if first else [nn.BatchNorm2d(n_out)]
        conv, act = nn.Conv2d(n_in, n_out, 4, 2, 1, bias=first), nn.LeakyReLU(.2, inplace=True)
        super().__init__(conv, *norm, act)


class UpBlock(nn.Sequential):
    "Transposed convolution up to `size`, which halved is the input's, BatchNorm, ReLU"
    def __init__(self, n_in, n_out, size):
        super().__init__(up_conv(n_in, n_out, size), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True))


def up_conv(n_in, n_out, size): return nn.ConvTranspose2d(n_in, n_out, 4, 2, 1, output_padding=size % 2)


class ChannelWise(nn.Module):
    "A fully-connected layer of its own for each channel (§ 3.1), `[B, C, n, n]` to the same shape"
    def __init__(self, channels, n):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, n*n, n*n).uniform_(-1/n, 1/n))
        self.bias = nn.Parameter(torch.zeros(channels, n*n))

    def forward(self, x):
        y = torch.einsum("cij,bcj->bci", self.weight, x.flatten(2)) + self.bias
        return y.view(x.shape)


class FilledHole(nn.Module):
    """Gives the encoder the image with a hole of the mean colour, or with `smooth` a smooth fill.

    Edge pixels of a resized hole count as known up to one half, in the mean colour of their known part."""
    def __init__(self, smooth):
        super().__init__()
        self.smooth = smooth
        self.register_buffer("colour", torch.tensor(MEAN_COLOUR).view(3, 1, 1), persistent=False)

    def forward(self, encoder, masked, mask):
        image, hole = masked/(1 - mask).clamp_min(.5), mask > .5
        if self.smooth: return encoder(smooth_fill(image, hole.to(image)))
        return encoder(torch.where(hole, self.colour, image))

    def folded_with(self, encoder): return copied(self)


class Encoder(nn.Module):
    "RGB `[B, 3, H, W]` in [0, 1] to `[B, channels[-1], h, w]`, half the size after each stage"
    def __init__(self, channels):
        super().__init__()
        self.channels, self.strides, self.stride = channels, [2]*len(channels), 2**len(channels)
        self.stages = nn.Sequential(DownBlock(3, channels[0], first=True))
        self.stages.extend(DownBlock(*n) for n in zip(channels, channels[1:], strict=False))

    def forward(self, x): return self.stages(x)


class Decoder(nn.Module):
    "The mirror of `Encoder`, to RGB in [0, 1]; `sizes` are those of each stage's input there"
    def __init__(self, channels, sizes):
        super().__init__()
        stages = zip(channels[1:], channels, sizes[1:], strict=False)
        self.stages = nn.Sequential(*[UpBlock(*stage) for stage in reversed(list(stages))])
        self.head = up_conv(channels[0], 3, sizes[0])

    def forward(self, latent): return self.head(self.stages(latent)).sigmoid()


class ContextEncoder(InpaintNet):
    """An `InpaintNet` whose refiner is channel-wise fully-connected, so that pixels see the whole image.

    Such a layer has one size: other images are resized to `size` × `size` pixels, and the prediction back."""
    def __init__(self, encoder, refiner, decoder, prefill, config):
        super().__init__(encoder, refiner, decoder, FilledHole(prefill), config=config)
        self.size = config["size"], config["size"]

    def forward(self, masked, mask):
        "As `InpaintNet.forward`; the prediction is in [0, 1]"
        latent = self.refine(self.encode(masked, mask))
        if self.training and not self.decode_in_training: return latent
        return resize(self.decode(latent), masked.shape[-2:])

    def pad(self, x):
        "`x` `[B, C, H, W]` at the size of training"
        return resize(x.as_subclass(torch.Tensor), self.size)


def resize(x, size):
    "`x` `[B, C, H, W]` at `size` (height, width); means of pixels where that is smaller"
    if x.shape[-2:] == size: return x
    x = x.to(torch.promote_types(x.dtype, torch.float32))  # on a CPU torch knows no other
    return F.interpolate(x, size, mode="bilinear", antialias=True)


def context_encoder(width=8, size=128, prefill=False):
    """Context Encoder for `size` × `size` pixels; `width` channels at first (the paper: 64).

    The paper's Figure 9 (a) with the bottleneck of § 3.1: stages of 4×4 convolutions down to a map of 4 to
    7 pixels a side (128 px: five, of 1, 1, 2, 4 and 8 times `width` channels), a fully-connected layer a
    channel, a 1×1 convolution, as many stages up. The hole holds the mean colour, or with `prefill` a
    smooth fill. Raises InputError for a `width` below 1 or a `size` below 8."""
    if width < 1 or size < 2*SMALLEST_MAP:
        raise InputError(f"no Context Encoder of {width=}, {size=}: at least 1 and 8")
    sizes = [size]
    while sizes[-1] >= 2*SMALLEST_MAP: sizes.append(sizes[-1]//2)
    *sizes, n = sizes
    channels = [width*min(2**max(i - 1, 0), 8) for i in range(len(sizes))]
    last = channels[-1]
    bottleneck = nn.Sequential(ChannelWise(last, n), nn.Conv2d(last, last, 1, bias=False),
                               nn.BatchNorm2d(last), nn.ReLU(inplace=True))
    config = dict(model="context_encoder", width=width, size=size, prefill=prefill)
    return ContextEncoder(Encoder(channels), bottleneck, Decoder(channels, sizes), prefill, config)
