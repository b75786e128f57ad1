"""The Fourier unit as matrix products, for Triton: transform, product and its statistics, and back.

A spectrum is `[B, 2C, W//2 + 1, H]`: real and imaginary parts in turn, frequencies along columns last, so that
they are read by 16 bytes whatever the width. Tables of waves are padded by zeros to whole tiles."""
from functools import lru_cache

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from .fourier import waves
from .nearest_triton import precision
from .zero_conv_triton import arithmetic, block

aten = torch.ops.aten
PIXELS = 8192  # of a tile of planes: a quarter of a multiprocessor's registers with their transforms
FREQUENCIES = 16  # along rows that pass at once


@triton.jit
def turned(x, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr):
    "`[C·W, H]`, the planes `[C·H, W]` transposed"
    return x.reshape(C, H, W).permute(0, 2, 1).reshape(C*W, H)


@triton.jit
def normalised(z, channel, C, mean, var, gain, bias, eps):
    "BatchNorm of `z`, whose rows are of `channel`"
    inside = channel < C
    scale = tl.load(gain + channel, mask=inside, other=0.)*tl.rsqrt(
        tl.load(var + channel, mask=inside, other=1.) + eps)
    shift = tl.load(bias + channel, mask=inside, other=0.) - scale*tl.load(mean + channel, mask=inside, other=0.)
    return z*scale + shift


@triton.jit
def spectrum_kernel(x, parts, column_cos, column_sin, row_cos, row_sin, z, mean, var, gain, bias, eps,
                    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, x_b, x_c: tl.constexpr, x_h,
                    x_w: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr, BLOCK_C: tl.constexpr,
                    BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_V: tl.constexpr, WAVES: tl.constexpr):
    "Spectra of planes of `x`; MASKED: 0 where `relu(normalised z)` has no gradient"
    b, first = tl.program_id(1).to(tl.int64), tl.program_id(0)*BLOCK_C
    V: tl.constexpr = W//2 + 1
    h, w = tl.arange(0, BLOCK_H), tl.arange(0, BLOCK_W)
    channel = (first + tl.arange(0, BLOCK_C))[:, None, None]
    here = (channel < C) & (h < H)[None, :, None] & (w < W)[None, None, :]
    x += b*x_b + channel.to(tl.int64)*x_c + h[None, :, None]*x_h + w[None, None, :]*x_w
    planes = tl.load(x, mask=here, other=0.).to(tl.float32).reshape(BLOCK_C*BLOCK_H, BLOCK_W)
    c = tl.load(column_cos + h[:, None]*BLOCK_H + h[None, :])
    s = tl.load(column_sin + h[:, None]*BLOCK_H + h[None, :])
    row = tl.arange(0, BLOCK_C*BLOCK_V)[:, None]
    channel, h = first + row // BLOCK_V, h[None, :]
    for start in range(0, V, BLOCK_V):
        wave = w[:, None]*WAVES + start + tl.arange(0, BLOCK_V)[None, :]
        real = tl.dot(planes, tl.load(row_cos + wave), input_precision=PRECISION)
        imag = -tl.dot(planes, tl.load(row_sin + wave), input_precision=PRECISION)
        real, imag = turned(real, BLOCK_C, BLOCK_H, BLOCK_V), turned(imag, BLOCK_C, BLOCK_H, BLOCK_V)
        v = start + row % BLOCK_V
        here = (channel < C) & (v < V) & (h < H)
        at = ((b*C + channel)*2*V + v)*H + h
        y = tl.dot(imag, s, tl.dot(real, c, input_precision=PRECISION), input_precision=PRECISION)
        if MASKED:
            linear = normalised(tl.load(z + at, mask=here, other=0.), 2*channel, 2*C, mean, var, gain, bias, eps)
            y = tl.where(linear > 0, y, 0.)
        tl.store(parts + at, y, mask=here)
        at += V*H
        y = tl.dot(imag, c, tl.dot(-real, s, input_precision=PRECISION), input_precision=PRECISION)
        if MASKED:
            linear = normalised(tl.load(z + at, mask=here, other=0.), 2*channel + 1, 2*C, mean, var, gain, bias,
                                eps)
            y = tl.where(linear > 0, y, 0.)
        tl.store(parts + at, y, mask=here)


@triton.jit
def image_kernel(parts, y, column_cos, column_sin, row_cos, row_sin, mean, var, gain, bias, eps,
                 C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, y_b, y_c: tl.constexpr, y_h,
                 y_w: tl.constexpr, NORM: tl.constexpr, PRECISION: tl.constexpr, BLOCK_C: tl.constexpr,
                 BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_V: tl.constexpr, WAVES: tl.constexpr):
    "Planes of `y` from their spectra, after BatchNorm and ReLU with NORM"
    b, first = tl.program_id(1).to(tl.int64), tl.program_id(0)*BLOCK_C
    V: tl.constexpr = W//2 + 1
    h, w = tl.arange(0, BLOCK_H), tl.arange(0, BLOCK_W)
    c = tl.load(column_cos + h[:, None]*BLOCK_H + h[None, :])
    s = tl.load(column_sin + h[:, None]*BLOCK_H + h[None, :])
    row = tl.arange(0, BLOCK_C*BLOCK_V)[:, None]
    channel = first + row // BLOCK_V
    total = tl.zeros([BLOCK_C*BLOCK_H, BLOCK_W], tl.float32)
    for start in range(0, V, BLOCK_V):
        v = start + row % BLOCK_V
        here = (channel < C) & (v < V) & (h < H)[None, :]
        at = ((b*C + channel)*2*V + v)*H + h[None, :]
        real, imag = tl.load(parts + at, mask=here, other=0.), tl.load(parts + at + V*H, mask=here, other=0.)
        if NORM:  # what lies beyond the spectrum meets waves of 0
            real = tl.maximum(normalised(real, 2*channel, 2*C, mean, var, gain, bias, eps), 0.)
            imag = tl.maximum(normalised(imag, 2*channel + 1, 2*C, mean, var, gain, bias, eps), 0.)
        even = tl.dot(-imag, s, tl.dot(real, c, input_precision=PRECISION), input_precision=PRECISION)
        odd = tl.dot(imag, c, tl.dot(real, s, input_precision=PRECISION), input_precision=PRECISION)
        wave = w[None, :]*WAVES + start + tl.arange(0, BLOCK_V)[:, None]
        total = tl.dot(turned(even, BLOCK_C, BLOCK_V, BLOCK_H), tl.load(row_cos + wave), total,
                       input_precision=PRECISION)
        total = tl.dot(turned(-odd, BLOCK_C, BLOCK_V, BLOCK_H), tl.load(row_sin + wave), total,
                       input_precision=PRECISION)
    channel = (first + tl.arange(0, BLOCK_C))[:, None, None]
    here = (channel < C) & (h < H)[None, :, None] & (w < W)[None, None, :]
    y += b*y_b + channel.to(tl.int64)*y_c + h[None, :, None]*y_h + w[None, None, :]*y_w
    tl.store(y, total.reshape(BLOCK_C, BLOCK_H, BLOCK_W), mask=here)


@triton.jit
def mix_kernel(parts, weight, z, partial, C: tl.constexpr, N: tl.constexpr, MEASURED: tl.constexpr,
               PRECISION: tl.constexpr, OPERAND: tl.constexpr,
               BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr):
    "A tile of `z = weight·parts`, `[B, C, N]`; MEASURED: its channels' means and squared deviations"
    b = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(0)*BLOCK_C + tl.arange(0, BLOCK_C)
    n = tl.program_id(1)*BLOCK_P + tl.arange(0, BLOCK_P)
    inside = (n < N)[None, :]
    total = tl.zeros([BLOCK_C, BLOCK_P], tl.float32)
    for first in range(0, C, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        w = tl.load(weight + channel[:, None]*C + k[None, :], mask=(channel < C)[:, None] & (k < C)[None, :],
                    other=0.)
        p = tl.load(parts + (b*C + k[:, None])*N + n[None, :], mask=(k < C)[:, None] & inside, other=0.)
        total = tl.dot(w.to(OPERAND), p.to(OPERAND), total, input_precision=PRECISION)
    tl.store(z + (b*C + channel[:, None])*N + n[None, :], total, mask=(channel < C)[:, None] & inside)
    if MEASURED:
        mean = tl.sum(total, axis=1)/tl.minimum(N - tl.program_id(1)*BLOCK_P, BLOCK_P)  # 0 beyond N
        squares = tl.sum(tl.where(inside, (total - mean[:, None])*(total - mean[:, None]), 0.), axis=1)
        partial += 2*C*(tl.program_id(2)*tl.num_programs(1) + tl.program_id(1)) + channel
        tl.store(partial, mean, mask=channel < C)
        tl.store(partial + C, squares, mask=channel < C)


@triton.jit
def statistics_kernel(partial, mean, var, C, N, T, B, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
                      BLOCK_T: tl.constexpr):
    "Mean and variance `[C]` of B·N numbers from those of T tiles, in one fixed order"
    channel = (tl.program_id(0)*BLOCK_C + tl.arange(0, BLOCK_C))[None, :]
    tiles, total = tl.cdiv(N, BLOCK_P), tl.zeros([BLOCK_T, BLOCK_C], tl.float32)
    for first in range(0, T, BLOCK_T):
        t = (first + tl.arange(0, BLOCK_T))[:, None]
        count = tl.minimum(N - t % tiles*BLOCK_P, BLOCK_P)
        total += count*tl.load(partial + t*2*C + channel, mask=(t < T) & (channel < C), other=0.)
    whole, total = tl.sum(total, axis=0)/(B*N), tl.zeros([BLOCK_T, BLOCK_C], tl.float32)
    for first in range(0, T, BLOCK_T):
        t = (first + tl.arange(0, BLOCK_T))[:, None]
        here = (t < T) & (channel < C)
        count = tl.minimum(N - t % tiles*BLOCK_P, BLOCK_P)
        off = tl.load(partial + t*2*C + channel, mask=here, other=0.) - whole[None, :]
        total += tl.where(here, count*off*off, 0.) + tl.load(partial + t*2*C + C + channel, mask=here, other=0.)
    channel = tl.program_id(0)*BLOCK_C + tl.arange(0, BLOCK_C)
    tl.store(mean + channel, whole, mask=channel < C)
    tl.store(var + channel, tl.sum(total, axis=0)/(B*N), mask=channel < C)


def tiles(c, h, w, x):
    "Sides of a tile of planes, and how many warps; of channels that lie last, 16 bytes at least"
    sides = dict(BLOCK_H=block(h, 64), BLOCK_W=block(w, 64))
    channels = max(PIXELS//(sides["BLOCK_H"]*sides["BLOCK_W"]), 1)
    if x.stride(1) == 1: channels = max(channels, 16//x.itemsize)
    return dict(sides, BLOCK_C=min(triton.next_power_of_2(c), channels, 8), BLOCK_V=FREQUENCIES, num_warps=8)


@lru_cache(maxsize=64)
def tables(h, w, twins, device):
    "Waves along columns and rows, padded to tiles"
    def padded(wave, rows, columns):
        return F.pad(wave, (0, -wave.shape[1] % columns, 0, rows - wave.shape[0])).contiguous()
    along = waves(h, h, False, torch.float32, device), waves(w, w//2 + 1, twins, torch.float32, device)
    sides = (block(h, 64),)*2, (block(w, 64), FREQUENCIES)
    return [padded(wave, *side) for pair, side in zip(along, sides, strict=True) for wave in pair]


def exactness(x):
    "How to multiply waves: a TF32 product is far more exact than half types, three are for float32"
    return precision(torch.version.hip) if x.dtype == torch.float32 else "tf32"


def transform(x, parts, twins, norm=None):
    "Write the spectrum of `x` to `parts`; with `norm` `(z, mean, var, gain, bias, eps)`, where it has a gradient"
    (b, c, h, w), blocks = x.shape, tiles(x.shape[1], *x.shape[2:], x)
    around = tables(h, w, twins, x.device)
    spectrum_kernel[triton.cdiv(c, blocks["BLOCK_C"]), b](
        x, parts, *around, *(norm or (*[parts]*5, 0.)), c, h, w, *x.stride(), MASKED=norm is not None,
        PRECISION=exactness(x), WAVES=around[2].shape[1], **blocks)
    return parts


def inverse(parts, y, twins, norm=None):
    "Write the image of `parts` to `y`; with `norm` `(mean, var, gain, bias, eps)`, after BatchNorm and ReLU"
    (b, c, h, w), blocks = y.shape, tiles(y.shape[1], *y.shape[2:], y)
    around = tables(h, w, twins, y.device)
    image_kernel[triton.cdiv(c, blocks["BLOCK_C"]), b](
        parts, y, *around, *(norm or (*[parts]*4, 0.)), c, h, w, *y.stride(), NORM=norm is not None,
        PRECISION=exactness(y), WAVES=around[2].shape[1], **blocks)
    return y


def mix(parts, weight, z, measured):
    "Write `weight·parts` to `z`; returns mean and variance `[2C]` of its channels where `measured`"
    (b, c), n = z.shape[:2], z[0, 0].numel()
    blocks = dict(BLOCK_C=block(c, 64), BLOCK_K=block(c, 32), BLOCK_P=block(n, 64))
    across = triton.cdiv(n, blocks["BLOCK_P"])
    partial, mean, var = (z.new_empty(s) for s in ((b*across if measured else 0, 2, c), c, c))
    mix_kernel[triton.cdiv(c, blocks["BLOCK_C"]), across, b](
        parts, weight.to(parts.dtype).contiguous(), z, partial, c, n, MEASURED=measured,
        **arithmetic(parts), **blocks)
    if not measured: return None
    statistics_kernel[(triton.cdiv(c, 16),)](partial, mean, var, c, n, b*across, b, BLOCK_C=16,
                                             BLOCK_P=blocks["BLOCK_P"], BLOCK_T=64)
    return mean, var


@torch.library.custom_op("fastinpaint::fourier_unit", mutates_args=())
def forward(x: Tensor, weight: Tensor, gain: Tensor, bias: Tensor, mean: Tensor | None, var: Tensor | None,
            eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    "`y` `[B, C, h, w]`, its spectrum before and after the product, and mean and variance `[2C]`, new ones"
    y, parts, z, *_ = empty_results(x, weight, gain, bias, mean, var, eps)
    transform(x, parts, twins=False)
    found = mix(parts, weight, z, mean is None) or (mean.clone(), var.clone())
    inverse(z, y, True, (*found, gain, bias, eps))
    return y, parts, z, *found


@forward.register_fake
def empty_results(x, weight, gain, bias, mean, var, eps):
    b, c, h, w = x.shape
    spectrum, kept = (b, 2*c, w//2 + 1, h), torch.bfloat16 if x.dtype == torch.bfloat16 else torch.float32
    return (torch.empty_like(x), x.new_empty(spectrum, dtype=kept), x.new_empty(spectrum, dtype=torch.float32),
            *(x.new_empty(2*c, dtype=torch.float32) for _ in range(2)))


@torch.library.custom_op("fastinpaint::fourier_unit_backward", mutates_args=())
def backward(grad: Tensor, parts: Tensor, z: Tensor, mean: Tensor, var: Tensor, weight: Tensor, gain: Tensor,
             bias: Tensor, eps: float, training: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    "The gradients of `x`, weight, gain and bias; the convolution's products are torch's"
    g = transform(grad, torch.empty_like(z), True, (z, mean, var, gain, bias, eps))
    g, of_gain, of_bias = aten.native_batch_norm_backward(g, z, gain, mean, var, mean, torch.rsqrt(var + eps),
                                                          training, eps, [True]*3)
    g, of_weight, _ = aten.convolution_backward(g, parts.to(g.dtype), weight.to(g.dtype), None, [1, 1], [0, 0],
                                                [1, 1], False, [0, 0], 1, [True, True, False])
    return inverse(g, torch.empty_like(grad), False), of_weight.to(weight.dtype), of_gain, of_bias


@backward.register_fake
def _(grad, parts, z, mean, var, weight, gain, bias, eps, training):
    return tuple(torch.empty_like(t) for t in (grad, weight, gain, bias))


def setup_context(ctx, inputs, output):
    _, weight, gain, bias, mean, _, ctx.eps = inputs
    ctx.training = mean is None
    ctx.save_for_backward(*output[1:], weight, gain, bias)
    ctx.mark_non_differentiable(*output[1:])


def gradient(ctx, grad, *_):
    return *backward(grad, *ctx.saved_tensors, ctx.eps, ctx.training), None, None, None


forward.register_autograd(gradient, setup_context=setup_context)


def fourier_unit(x, weight, gain, bias, statistics, eps):
    "As `fourier.fourier_unit`, which checks the arguments"
    y, _, _, mean, var = forward(x, weight, gain, bias, *(statistics or (None, None)), eps)
    return y, mean, var
