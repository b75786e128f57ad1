"Co-modulated generation with fast Fourier convolutions on the skips (FcF, Jain et al. 2022)"
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from ..core.errors import InputError
from ..kernels.prefill import smooth_fill
from .ffc import FFCBlock
from .lama import ConvBlock
from .net import InpaintNet
from .refiner import LOCAL_SHARE

MODEL = "fcf"
WIDEST = 8         # times the width, of channels
MAPPING = 4        # layers from noise to style
SLOPE = .2         # of leaky ReLUs
BOUNDS = dict(width=range(2, 513), depth=range(2, 7))  # narrower skips have no local channel


class ModulatedConv(nn.Module):
    """A convolution `[B, n_in, h, w]` → `[B, n_out, h, w]` of which a style `[B, n_style]` scales the inputs.

    `demodulate` divides every output by the norm of its scaled weights (Karras et al. 2020, Eq. 1 to 3). Both
    are factors of whole channels, so all images share one convolution."""
    def __init__(self, n_in, n_out, n_style, size=3, demodulate=True):
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, size, padding=size//2, bias=False, padding_mode="replicate")
        self.bias = nn.Parameter(torch.zeros(n_out, 1, 1))
        self.affine, self.demodulate = nn.Linear(n_style, n_in), demodulate
        nn.init.normal_(self.affine.weight, std=n_style**-.5)
        nn.init.ones_(self.affine.bias)

    def forward(self, x, style):
        scale = self.affine(style)
        y = self.conv(x*scale[..., None, None])
        if self.demodulate:
            squares = scale.square() @ self.conv.weight.square().sum((2, 3)).T
            y = y*torch.rsqrt(squares + 1e-8)[..., None, None]
        return y + self.bias


class Encoder(nn.Module):
    """Image `[B, 3, H, W]` and hole `[B, 1, H, W]`, default none, to the features of every stage.

    Those of stage i are `[B, channels[i], H/2^i, W/2^i]`."""
    def __init__(self, channels):
        super().__init__()
        self.channels, self.strides = channels, [1, *[2]*(len(channels) - 1)]
        self.stride = 2**(len(channels) - 1)
        self.stages = nn.ModuleList([ConvBlock(4, channels[0], 3)])
        self.stages.extend(ConvBlock(*n, 3, 2) for n in pairwise(channels))

    def forward(self, image, mask=None):
        if mask is None: mask = torch.zeros_like(image[:, :1])
        features = [torch.cat([image, mask], dim=1)]
        for stage in self.stages: features.append(stage(features[-1]))
        return features[1:]


class SynthesisBlock(nn.Module):
    "A convolution, twice the size, the encoder's skip, another convolution"
    def __init__(self, n_in, n_out, n_style):
        super().__init__()
        self.before = ModulatedConv(n_in, n_out, n_style)
        self.after = ModulatedConv(n_out, n_out, n_style)

    def forward(self, x, skip, style):
        x = F.leaky_relu(self.before(x, style), SLOPE)
        x = F.interpolate(x, scale_factor=2, mode="bilinear") + skip
        return F.leaky_relu(self.after(x, style), SLOPE)


class Synthesis(nn.Module):
    "Features of every stage, the largest first, and a style `[B, n_style]` to `[B, 3, H, W]`, at first zeros"
    def __init__(self, channels, n_style):
        super().__init__()
        self.first = ModulatedConv(channels[-1], channels[-1], n_style)
        self.blocks = nn.ModuleList(SynthesisBlock(*n, n_style) for n in pairwise(channels[::-1]))
        self.colours = ModulatedConv(channels[0], 3, n_style, 1, demodulate=False)
        nn.init.zeros_(self.colours.conv.weight)

    def forward(self, features, style):
        *skips, x = features
        x = F.leaky_relu(self.first(x, style), SLOPE)
        for block, skip in zip(self.blocks, reversed(skips), strict=True): x = block(x, skip, style)
        return self.colours(x, style)


class FcF(InpaintNet):
    """An `InpaintNet` that fills as its noise says: encoder, FFC blocks on its skips, modulated synthesis.

    The style of all its convolutions is a global code of the image, from the means of the last features,
    beside mapped noise (Zhao et al. 2021). With `prefill` the encoder sees a smooth fill in the hole, and
    the prediction is the difference from it. The largest skip, most of the pixels, has no block."""
    generates = True
    def __init__(self, channels, n_noise, prefill, config):
        blocks = [FFCBlock(n, n//LOCAL_SHARE, signed=True) for n in channels[1:]]
        super().__init__(Encoder(channels), nn.ModuleList([nn.Identity(), *blocks]),
                         Synthesis(channels, 2*n_noise), None, prefill, config)
        self.n_noise, n = n_noise, channels[-1]
        self.code = dense(n, n_noise)
        self.mapping = nn.Sequential(*[dense(n_noise, n_noise) for _ in range(MAPPING)])

    def refine(self, latent):
        raise InputError("an fcf refines no latent, which its skips pass by: it fills as model(masked, mask)")

    def noise(self, n, seed=None):
        "That of `seed`, default 0, `[n, n_noise]`: the same for each of `n` images"
        generator = torch.Generator().manual_seed(seed or 0)
        return torch.randn(self.n_noise, generator=generator).expand(n, -1)

    def forward(self, masked, mask, noise=None, seed=None):
        """Prediction `[B, 3, H, W]`, not composited, of `masked` `[B, 3, H, W]`, 0 in the hole, and `mask`.

        By `noise` `[B, n_noise]`, standard normal, or that of `seed`."""
        (h, w), image, hole = masked.shape[-2:], self.pad(masked), self.pad(mask)
        if self.prefill: image = smooth_fill(image, hole)
        if noise is None: noise = self.noise(len(image), seed).to(image)
        features = self.encoder(image, hole)
        features = [skip(x) for skip, x in zip(self.refiner, features, strict=True)]
        mapped = self.mapping(noise*torch.rsqrt(noise.square().mean(1, keepdim=True) + 1e-8))
        pred = self.decoder(features, torch.cat([self.code(features[-1].mean((2, 3))), mapped], dim=1))
        return (pred + image if self.prefill else pred)[..., :h, :w]


def dense(n_in, n_out):
    "A fully-connected layer and leaky ReLU that leave a variance as it is"
    layer = nn.Linear(n_in, n_out)
    nn.init.kaiming_normal_(layer.weight, SLOPE)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(layer, nn.LeakyReLU(SLOPE))


def fcf(width=8, depth=4, prefill=True):
    """An `FcF` of `width` channels at first and of `depth` halvings of the size, each with twice as many.

    Up to `WIDEST` times the width, which is also how many numbers its noise has. Of what Jain et al. take
    from StyleGAN2 there is modulation alone: no noise at pixels, no pyramid of colours, and a code of means,
    so that images may have any size. Raises InputError for other arguments."""
    for name, value in dict(width=width, depth=depth).items():
        if value not in BOUNDS[name]:
            raise InputError(f"no fcf of {name}={value}: expected {BOUNDS[name][0]} to {BOUNDS[name][-1]}")
    channels = [width*min(2**i, WIDEST) for i in range(depth + 1)]
    return FcF(channels, width*WIDEST, prefill, dict(model=MODEL, width=width, depth=depth, prefill=prefill))
