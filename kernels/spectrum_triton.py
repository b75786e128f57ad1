"""Fourier transforms of small maps as matrix products, there and back, for Triton.

A spectrum is `[B, 2C, W//2 + 1, H]`: real and imaginary parts in turn, frequencies along columns last, which
are read by 16 bytes whatever the width. Tables of waves are padded by zeros to whole tiles."""
from functools import lru_cache

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from .nearest_triton import precision
from .reference import waves

PIXELS = 2048  # of a tile of planes, at least one: what registers of sm_80 hold with the tables
FREQUENCIES = 16  # along rows that pass at once


@triton.jit
def turned(x, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr):
    "`[C·W, H]`, the planes `[C·H, W]` transposed"
    return x.reshape(C, H, W).permute(0, 2, 1).reshape(C*W, H)


@triton.jit
def line(channel, C, mean, var, gain, bias, eps):
    "Slope and intercept, each `[C, 1, 1]`, of BatchNorm of `channel`"
    inside = channel < C
    slope = tl.load(gain + channel, mask=inside, other=0.)*tl.rsqrt(
        tl.load(var + channel, mask=inside, other=1.) + eps)
    shift = tl.load(mean + channel, mask=inside, other=0.)*slope
    return slope[:, None, None], (tl.load(bias + channel, mask=inside, other=0.) - shift)[:, None, None]


@triton.jit
def on_line(x, slope, shift, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr):
    "`slope·x + shift` of the planes `[C·H, W]`"
    return (x.reshape(C, H, W)*slope + shift).reshape(C*H, W)


@triton.jit
def spectrum_kernel(x, parts, column_cos, column_sin, row_cos, row_sin, z, mean, var, gain, bias, eps,
                    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, MASKED: tl.constexpr,
                    PRECISION: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_H: tl.constexpr,
                    BLOCK_W: tl.constexpr, BLOCK_V: tl.constexpr, WAVES: tl.constexpr):
    "Spectra of planes `x` `[B, C, H, W]`; MASKED: 0 where `relu(normalised z)` has no gradient"
    b, first = tl.program_id(1).to(tl.int64), tl.program_id(0)*BLOCK_C
    V: tl.constexpr = W//2 + 1
    h, w, row = tl.arange(0, BLOCK_H), tl.arange(0, BLOCK_W), tl.arange(0, BLOCK_C*BLOCK_H)[:, None]
    inside = (first + row//BLOCK_H < C) & (row % BLOCK_H < H) & (w < W)[None, :]
    x += ((b*C + first + row//BLOCK_H)*H + row % BLOCK_H)*W + w[None, :]
    planes = tl.load(x, mask=inside, other=0.).to(tl.float32)
    c = tl.load(column_cos + h[:, None]*BLOCK_H + h[None, :])
    s = tl.load(column_sin + h[:, None]*BLOCK_H + h[None, :])
    row = tl.arange(0, BLOCK_C*BLOCK_V)[:, None]
    channel = 2*(first + tl.arange(0, BLOCK_C))
    if MASKED:
        real_slope, real_shift = line(channel, 2*C, mean, var, gain, bias, eps)
        imag_slope, imag_shift = line(channel + 1, 2*C, mean, var, gain, bias, eps)
    for start in range(0, V, BLOCK_V):
        wave = w[:, None]*WAVES + start + tl.arange(0, BLOCK_V)[None, :]
        real = tl.dot(planes, tl.load(row_cos + wave), input_precision=PRECISION)
        imag = -tl.dot(planes, tl.load(row_sin + wave), input_precision=PRECISION)
        real, imag = turned(real, BLOCK_C, BLOCK_H, BLOCK_V), turned(imag, BLOCK_C, BLOCK_H, BLOCK_V)
        v = start + row % BLOCK_V
        here = (first + row//BLOCK_V < C) & (v < V) & (h < H)[None, :]
        at = ((b*C + first + row//BLOCK_V)*2*V + v)*H + h[None, :]
        y = tl.dot(imag, s, tl.dot(real, c, input_precision=PRECISION), input_precision=PRECISION)
        if MASKED:
            linear = tl.load(z + at, mask=here, other=0.)
            linear = on_line(linear, real_slope, real_shift, BLOCK_C, BLOCK_V, BLOCK_H)
            y = tl.where(linear > 0, y, 0.)
        tl.store(parts + at, y, mask=here)
        at += V*H
        y = tl.dot(imag, c, tl.dot(-real, s, input_precision=PRECISION), input_precision=PRECISION)
        if MASKED:
            linear = tl.load(z + at, mask=here, other=0.)
            linear = on_line(linear, imag_slope, imag_shift, BLOCK_C, BLOCK_V, BLOCK_H)
            y = tl.where(linear > 0, y, 0.)
        tl.store(parts + at, y, mask=here)


@triton.jit
def image_kernel(parts, y, column_cos, column_sin, row_cos, row_sin, mean, var, gain, bias, eps,
                 C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, NORM: tl.constexpr,
                 PRECISION: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_H: tl.constexpr,
                 BLOCK_W: tl.constexpr, BLOCK_V: tl.constexpr, WAVES: tl.constexpr):
    "Planes `y` `[B, C, H, W]` from their spectra, after BatchNorm and ReLU with NORM"
    b, first = tl.program_id(1).to(tl.int64), tl.program_id(0)*BLOCK_C
    V: tl.constexpr = W//2 + 1
    h, w, row = tl.arange(0, BLOCK_H), tl.arange(0, BLOCK_W), tl.arange(0, BLOCK_C*BLOCK_V)[:, None]
    c = tl.load(column_cos + h[:, None]*BLOCK_H + h[None, :])
    s = tl.load(column_sin + h[:, None]*BLOCK_H + h[None, :])
    channel = 2*(first + tl.arange(0, BLOCK_C))
    if NORM:
        real_slope, real_shift = line(channel, 2*C, mean, var, gain, bias, eps)
        imag_slope, imag_shift = line(channel + 1, 2*C, mean, var, gain, bias, eps)
    total = tl.zeros([BLOCK_C*BLOCK_H, BLOCK_W], tl.float32)
    for start in range(0, V, BLOCK_V):
        v = start + row % BLOCK_V
        here = (first + row//BLOCK_V < C) & (v < V) & (h < H)[None, :]
        at = ((b*C + first + row//BLOCK_V)*2*V + v)*H + h[None, :]
        real, imag = tl.load(parts + at, mask=here, other=0.), tl.load(parts + at + V*H, mask=here, other=0.)
        if NORM:  # what lies beyond the spectrum meets waves of 0
            real = tl.maximum(on_line(real, real_slope, real_shift, BLOCK_C, BLOCK_V, BLOCK_H), 0.)
            imag = tl.maximum(on_line(imag, imag_slope, imag_shift, BLOCK_C, BLOCK_V, BLOCK_H), 0.)
        wave = w[None, :]*WAVES + start + tl.arange(0, BLOCK_V)[:, None]
        even = tl.dot(-imag, s, tl.dot(real, c, input_precision=PRECISION), input_precision=PRECISION)
        total = tl.dot(turned(even, BLOCK_C, BLOCK_V, BLOCK_H), tl.load(row_cos + wave), total,
                       input_precision=PRECISION)
        odd = tl.dot(imag, c, tl.dot(real, s, input_precision=PRECISION), input_precision=PRECISION)
        total = tl.dot(turned(-odd, BLOCK_C, BLOCK_V, BLOCK_H), tl.load(row_sin + wave), total,
                       input_precision=PRECISION)
    row = tl.arange(0, BLOCK_C*BLOCK_H)[:, None]
    inside = (first + row//BLOCK_H < C) & (row % BLOCK_H < H) & (w < W)[None, :]
    tl.store(y + ((b*C + first + row//BLOCK_H)*H + row % BLOCK_H)*W + w[None, :], total, mask=inside)


def tiles(c, h, w):
    "Sides of a tile of whole planes"
    sides = dict(BLOCK_H=side(h), BLOCK_W=side(w), BLOCK_V=FREQUENCIES)
    planes = max(PIXELS//(sides["BLOCK_H"]*sides["BLOCK_W"]), 1)
    # tables of 64 waves fill the registers of four warps
    return dict(sides, BLOCK_C=min(triton.next_power_of_2(c), planes), num_warps=8 if planes == 1 else 4,
                num_stages=1)


def side(n): return max(16, triton.next_power_of_2(n))  # tensor cores' least: 16


@lru_cache(maxsize=64)
def tables(h, w, twins, device):
    "Waves along columns and rows, padded to tiles"
    def padded(wave, rows, columns):
        return F.pad(wave, (0, -wave.shape[1] % columns, 0, rows - wave.shape[0])).contiguous()
    along = waves(h, h, False, torch.float32, device), waves(w, w//2 + 1, twins, torch.float32, device)
    sides = (side(h),)*2, (side(w), FREQUENCIES)
    return [padded(wave, *to) for pair, to in zip(along, sides, strict=True) for wave in pair]


def exactness(x):
    "How to multiply waves: a TF32 product is far more exact than half types, three are for float32"
    return precision(torch.version.hip) if x.dtype == torch.float32 else "tf32"


def transform(x, parts, twins, norm=None):
    "Write the spectrum of `x` to `parts`; with `norm` `(z, mean, var, gain, bias, eps)` 0 where ReLU cuts"
    (b, c, h, w), blocks = x.shape, tiles(*x.shape[1:])
    around = tables(h, w, twins, x.device)
    spectrum_kernel[triton.cdiv(c, blocks["BLOCK_C"]), b](
        x, parts, *around, *(norm or (*[parts]*5, 0.)), c, h, w, MASKED=norm is not None,
        PRECISION=exactness(x), WAVES=around[2].shape[1], **blocks)
    return parts


def inverse(parts, y, twins, norm=None):
    "Write the image of `parts` to `y`; with `norm` `(mean, var, gain, bias, eps)`, after BatchNorm and ReLU"
    (b, c, h, w), blocks = y.shape, tiles(*y.shape[1:])
    around = tables(h, w, twins, y.device)
    image_kernel[triton.cdiv(c, blocks["BLOCK_C"]), b](
        parts, y, *around, *(norm or (*[parts]*4, 0.)), c, h, w, NORM=norm is not None,
        PRECISION=exactness(y), WAVES=around[2].shape[1], **blocks)
    return y
