"Fast Fourier convolution (Chi et al. 2020) in LaMa: a branch for neighbourhoods, one for the whole"
import torch
from torch import nn

from fastinpaint.kernels.ffc import ffc_convs
from fastinpaint.kernels.fourier import faster, fourier_unit, image, spectrum

from .folded import Convs, FoldedFFC, FoldedFFCBlock, folded, frozen, gain_and_bias, without_bn
from .fused import fits, fused, unwatched
from .winograd import WIDE, Winograd


class FourierUnit(nn.Module):
    """A 1×1 convolution of the spectrum `[B, C, h, w]`: each pixel depends on every other.

    Real and imaginary parts are interleaved by channel; fp32 inside autocast, as FFTs want. `impl` is fft,
    torch or triton (matrix products), or auto, by device and size: fft until a GPU has run the kernels."""
    impl = "fft"
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(2*channels, 2*channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(2*channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        if self.impl != "fft" and (self.impl != "auto" or faster(x)) and self.usual(): return self.products(x)
        with torch.autocast(x.device.type, enabled=False):
            parts = self.act(self.bn(self.conv(spectrum(x.float()))))
            return image(parts, x.shape[3]).to(x.dtype)

    def usual(self):
        "Whether `products` computes what the parts do; what is folded or watched by hooks is left to them"
        parts, bn = (self.conv, self.bn, self.act), self.bn
        if type(bn) is not nn.BatchNorm2d or bn.momentum is None: return False
        return unwatched(*parts)

    def products(self, x):
        "`forward` by matrix products; BatchNorm takes note of `x` in training"
        bn = self.bn
        given = None if bn.training else (bn.running_mean, bn.running_var)
        y, mean, var = fourier_unit(x, self.conv.weight, bn.weight, bn.bias, given, bn.eps, self.impl)
        if bn.training:
            n = x.shape[0]*x.shape[2]*(x.shape[3]//2 + 1)
            with torch.no_grad():
                bn.running_mean.lerp_(mean, bn.momentum)
                bn.running_var.lerp_(var*(n/(n - 1)), bn.momentum)
                bn.num_batches_tracked += 1
        return y

    def folded(self, winograd=False): return without_bn(self)


class SpectralTransform(nn.Module):
    "1×1 convolution to half the channels, plus its `FourierUnit`, 1×1 back. Keeps the shape."
    def __init__(self, channels):
        super().__init__()
        half = channels//2
        conv = nn.Conv2d(channels, half, 1, bias=False)
        self.reduce = nn.Sequential(conv, nn.BatchNorm2d(half), nn.ReLU(inplace=True))
        self.fourier = FourierUnit(half)
        self.expand = nn.Conv2d(half, channels, 1, bias=False)

    def forward(self, x): return self.expand(self.inner(x))

    def inner(self, x):
        "What `expand` gets, of half the channels"
        x = self.reduce(x)
        return x + self.fourier(x)


class FFC(nn.Module):
    """Fast Fourier convolution with BatchNorm, `[B, C, h, w]` to the same shape.

    The first `local` channels are LaMa's local part, made of both; the global part is made of a convolution
    of the local one and a spectral transform of itself. `impl` of its convolutions is as `ffc_convs` has it:
    torch until a GPU has run the kernel."""
    impl = "torch"
    def __init__(self, channels, local, act=True):
        super().__init__()
        self.split = (local, channels - local)
        conv = dict(kernel_size=3, padding=1, padding_mode="reflect", bias=False)
        self.to_local = nn.Conv2d(channels, local, **conv)
        self.local_to_global = nn.Conv2d(local, channels - local, **conv)
        self.spectral = SpectralTransform(channels - local)
        self.bn = nn.BatchNorm2d(channels)
        self.act = nn.ReLU(inplace=True) if act else nn.Identity()

    def forward(self, x):
        if fits(self, x): return fused(self, x)
        loc, glob = x.split(self.split, dim=1)
        if self.impl != "torch" and unwatched(self.to_local, self.local_to_global, self.spectral.expand):
            y = ffc_convs(x, self.to_local.weight, self.local_to_global.weight, self.spectral.inner(glob),
                          self.spectral.expand.weight, impl=self.impl)
            return self.act(self.bn(y))
        y = torch.cat([self.to_local(x), self.local_to_global(loc) + self.spectral(glob)], dim=1)
        return self.act(self.bn(y))

    @torch.no_grad()
    def folded(self, winograd=False):
        "Equal to this in eval mode, for inference only; `winograd` speeds up wide ones on a CPU"
        gain, bias = gain_and_bias(self.bn)
        local, glob = gain.view(-1, 1, 1, 1).split(self.split)
        kind = Winograd if winograd and sum(self.split) >= WIDE else Convs
        convs = kind(self.to_local.weight*local, self.local_to_global.weight*glob)
        spectral = folded(self.spectral)
        spectral.expand.weight = frozen(self.spectral.expand.weight*glob)
        return FoldedFFC(convs, spectral, bias, folded(self.act))


class FFCBlock(nn.Module):
    """Residual block of two FFCs; LaMa's second ends in a ReLU, which `signed` leaves out.

    A signed block starts as the identity: the gain of its last BatchNorm is zero."""
    def __init__(self, channels, local, signed=False):
        super().__init__()
        self.conv1, self.conv2 = FFC(channels, local), FFC(channels, local, act=not signed)
        if signed: nn.init.zeros_(self.conv2.bn.weight)

    def forward(self, x): return x + self.conv2(self.conv1(x))

    def folded(self, winograd=False):
        return FoldedFFCBlock(folded(self.conv1, winograd), folded(self.conv2, winograd))
