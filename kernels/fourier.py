"A Fourier unit, `x → irfft2(relu(bn(conv(rfft2(x)))))`, with FFTs or as matrix products, and the choice"
import torch
import torch.nn.functional as F

from .ops import DTYPES, HAS_TRITON, check_types, uses_triton
from .reference import waves

LARGEST = 64  # side of a map up to which products take less than the FFT's passes over memory


def spectrum(x):
    "`rfft2(x)`, orthonormal, as `[B, 2C, h, w//2 + 1]`: real and imaginary parts interleaved by channel"
    b, c, h, w = x.shape
    parts = torch.view_as_real(torch.fft.rfft2(x, norm="ortho"))
    return parts.permute(0, 1, 4, 2, 3).reshape(b, 2*c, h, w//2 + 1)


def image(parts, w):
    "`irfft2`, orthonormal, of a `spectrum` of images of width `w`"
    b, c, h, v = parts.shape
    parts = parts.view(b, c//2, 2, h, v).permute(0, 1, 3, 4, 2).contiguous()
    return torch.fft.irfft2(torch.view_as_complex(parts), s=(h, w), norm="ortho")


def product_spectrum(x, twins=False):
    "`spectrum(x)` as products; with `twins` the gradient of `product_image` instead"
    (c, s), (row_c, row_s) = both_waves(x, *x.shape[-2:], twins)
    real, imag = x @ row_c, -(x @ row_s)
    return torch.stack([c @ real + s @ imag, c @ imag - s @ real], dim=2).flatten(1, 2)


def product_image(parts, w, twins=True):
    "`image(parts, w)` as products; without `twins` the gradient of `product_spectrum` instead"
    (c, s), (row_c, row_s) = both_waves(parts, parts.shape[2], w, twins)
    real, imag = parts.unflatten(1, (-1, 2)).unbind(2)
    real, imag = c @ real - s @ imag, s @ real + c @ imag
    return real @ row_c.T - imag @ row_s.T


def both_waves(x, h, w, twins):
    "`waves` along columns and along rows, in the type and on the device of `x`"
    return waves(h, h, False, x.dtype, x.device), waves(w, w//2 + 1, twins, x.dtype, x.device)


def with_torch(x, weight, gain, bias, statistics, eps, to=product_spectrum, back=product_image):
    "`fourier_unit` by products of torch, or by `to` and `back` in their place; at least in float32"
    with torch.autocast(x.device.type, enabled=False):
        parts = F.conv2d(to(x.to(torch.promote_types(x.dtype, weight.dtype))), weight)
        found = statistics or torch.var_mean(parts.detach(), (0, 2, 3), correction=0)[::-1]
        given = statistics or (None, None)
        y = F.batch_norm(parts, *given, gain, bias, training=statistics is None, eps=eps).relu()
        return back(y, x.shape[3]).to(x.dtype), *found


def with_fft(*args): return with_torch(*args, spectrum, image)


def faster(x):
    "Whether products by kernels take less time for `x` `[B, C, h, w]` than FFTs"
    return HAS_TRITON and x.is_cuda and x.dtype in DTYPES and max(x.shape[2:]) <= LARGEST


def fourier_unit(x, weight, gain, bias, statistics=None, eps=1e-5, impl="auto"):
    """`irfft2(relu(batch_norm(conv(rfft2(x)))))`, `[B, C, h, w]` as `x`, and mean and variance, each `[2C]`.

    `weight` `[2C, 2C, 1, 1]`, `gain`, `bias` `[2C]`, of channels that are real and imaginary parts in turn;
    `statistics` mean and variance to normalise by, or None for the batch's own, which then have gradients'
    share. `impl` is fft, torch (products), triton, or auto, the fastest. Source: Chi et al. 2020, figure 2.
    Raises ValueError for other shapes, RuntimeError where "triton" cannot run."""
    channels = 2*x.shape[1] if x.ndim == 4 else None
    if weight.shape != (channels, channels, 1, 1) or not gain.shape == bias.shape == (channels,):
        raise ValueError("fourier_unit takes x [B, C, h, w], weight [2C, 2C, 1, 1], gain and bias [2C], got "
                         + ", ".join(str(list(t.shape)) for t in (x, weight, gain, bias)))
    tensors = dict(x=x, weight=weight, gain=gain, bias=bias)
    check_types("fourier_unit", tensors)
    args = x, weight, gain, bias, statistics, eps
    if impl == "fft": return with_fft(*args)
    if impl == "torch": return with_torch(*args)
    if uses_triton(impl, tensors, small=faster(x)):
        from .fourier_triton import fourier_unit as fused
        return fused(*args)
    return with_fft(*args)
