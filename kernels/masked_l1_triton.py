"The masked L1 in one pass, and its gradient in one more from one byte an element, for Triton"
import torch
import triton
import triton.language as tl
from torch import Tensor

from .layout import flat, pixel_offset

PROGRAMS = 1024    # about what fills the largest GPUs several times over
ELEMENTS = 2048    # of a tile


@triton.jit
def hole_share(mask, pixel, inside, b, width, m_b, m_h, m_w,
               SY: tl.constexpr, SX: tl.constexpr, SX2: tl.constexpr):
    "Mean of the SY×SX mask pixels behind each latent pixel; SX2: power of two from SX on"
    column = tl.arange(0, SX2)
    across = (pixel % width)[:, None]*SX + column[None, :]
    down = (pixel // width).to(tl.int64)[:, None]*SY
    left = mask + b*m_b + down*m_h + across.to(tl.int64)*m_w
    total = tl.zeros_like(pixel).to(tl.float32)
    for row in range(SY):
        block = tl.load(left + row*m_h, mask=inside[:, None] & (column < SX)[None, :], other=0.)
        total += tl.sum(block.to(tl.float32), axis=1)
    return total/(SY*SX)


@triton.jit
def forward_kernel(pred, target, mask, partial, sign, weight, C, P, width, known, missing,
                   p_b, p_c, p_h, p_w, t_b, t_c, t_h, t_w, s_b, s_c, s_h, s_w, m_b, m_h, m_w,
                   SY: tl.constexpr, SX: tl.constexpr, SX2: tl.constexpr, MASKED: tl.constexpr,
                   SAVE: tl.constexpr, FLAT: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr):
    "The weighted sum of a tile's differences to `partial`; with SAVE also signs and weights"
    b = tl.program_id(2).to(tl.int64)
    pixel = tl.program_id(0)*BLOCK_P + tl.arange(0, BLOCK_P)
    inside = pixel < P
    share = tl.zeros([BLOCK_P], tl.float32)
    if MASKED: share = hole_share(mask, pixel, inside, b, width, m_b, m_h, m_w, SY, SX, SX2)
    pixel_weight = known + (missing - known)*share
    if SAVE and MASKED:
        if tl.program_id(1) == 0: tl.store(weight + b*P + pixel, pixel_weight, mask=inside)
    pred += b*p_b + pixel_offset(pixel, width, p_h, p_w, FLAT)[None, :]
    target += b*t_b + pixel_offset(pixel, width, t_h, t_w, FLAT)[None, :]
    sign += b*s_b + pixel_offset(pixel, width, s_h, s_w, FLAT)[None, :]
    total = tl.zeros([BLOCK_C, BLOCK_P], tl.float32)
    for first in range(tl.program_id(1)*BLOCK_C, C, tl.num_programs(1)*BLOCK_C):
        channel = (first + tl.arange(0, BLOCK_C)).to(tl.int64)[:, None]
        here = (channel < C) & inside[None, :]
        x = tl.load(pred + channel*p_c, mask=here, other=0.).to(tl.float32)
        y = tl.load(target + channel*t_c, mask=here, other=0.).to(tl.float32)
        difference = x - y
        total += tl.abs(difference)
        if SAVE:
            slope = (difference > 0).to(tl.int8) - (difference < 0).to(tl.int8)
            tl.store(sign + channel*s_c, slope, mask=here)
    here = tl.where(inside, tl.sum(total, axis=0)*pixel_weight, 0.)
    row = tl.program_id(2)*tl.num_programs(1) + tl.program_id(1)
    tl.store(partial + row*tl.num_programs(0) + tl.program_id(0), tl.sum(here, axis=0))


@triton.jit
def finish_kernel(partial, loss, n, scale, BLOCK: tl.constexpr):
    "Sum in one fixed order, so that two runs give the same bits"
    total = tl.zeros([BLOCK], tl.float32)
    for first in range(0, n, BLOCK):
        i = first + tl.arange(0, BLOCK)
        total += tl.load(partial + i, mask=i < n, other=0.)
    tl.store(loss, tl.sum(total, axis=0)*scale)


@triton.jit
def backward_kernel(upstream, sign, weight, grad, C, P, width, known, scale,
                    s_b, s_c, s_h, s_w, g_b, g_c, g_h, g_w,
                    MASKED: tl.constexpr, FLAT: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr):
    "A tile of `grad = sign·weight·upstream·scale`, where `upstream` stays on the device"
    b = tl.program_id(2).to(tl.int64)
    pixel = tl.program_id(0)*BLOCK_P + tl.arange(0, BLOCK_P)
    inside = pixel < P
    factor = tl.load(upstream).to(tl.float32)*scale
    pixel_weight = tl.full([BLOCK_P], 1., tl.float32)*known
    if MASKED: pixel_weight = tl.load(weight + b*P + pixel, mask=inside, other=0.)
    sign += b*s_b + pixel_offset(pixel, width, s_h, s_w, FLAT)[None, :]
    grad += b*g_b + pixel_offset(pixel, width, g_h, g_w, FLAT)[None, :]
    for first in range(tl.program_id(1)*BLOCK_C, C, tl.num_programs(1)*BLOCK_C):
        channel = (first + tl.arange(0, BLOCK_C)).to(tl.int64)[:, None]
        here = (channel < C) & inside[None, :]
        slope = tl.load(sign + channel*s_c, mask=here, other=0).to(tl.float32)
        tl.store(grad + channel*g_c, slope*(pixel_weight*factor)[None, :], mask=here)


def tiles(b, c, pixels, channels_last):
    "Sides of a tile, longer where memory is contiguous, and a grid (pixels, channels, batch)"
    side = min(triton.next_power_of_2(c), 64 if channels_last else 8)
    block_p = max(min(ELEMENTS//side, triton.next_power_of_2(pixels)), 16)
    across = triton.cdiv(pixels, block_p)
    down = min(triton.cdiv(c, side), triton.cdiv(PROGRAMS, across*b))
    return dict(BLOCK_C=side, BLOCK_P=block_p), (across, down, b)


@torch.library.custom_op("fastinpaint::masked_l1", mutates_args=())
def masked_l1(pred: Tensor, target: Tensor, mask: Tensor | None, known: float, missing: float,
              save: bool) -> tuple[Tensor, Tensor, Tensor]:
    "The loss, float32; with `save`, for its gradient, sign `[B, C, h, w]` and weight `[B, h, w]`"
    (b, c, h, w), masked = pred.shape, mask is not None and known != missing
    loss, sign, weight = empty_outputs(pred, target, mask, known, missing, save)
    blocks, grid = tiles(b, c, h*w, pred.stride(1) == 1)
    partial = pred.new_empty(grid[0]*grid[1]*b, dtype=torch.float32)
    signs = sign if save else pred  # not written to, but it must have strides
    scale = (mask.shape[2]//h, mask.shape[3]//w) if masked else (1, 1)
    m_b, _, m_h, m_w = mask.stride() if masked else (0, 0, 0, 0)
    forward_kernel[grid](
        pred, target, mask if masked else pred, partial, sign, weight, c, h*w, w, known, missing,
        *pred.stride(), *target.stride(), *signs.stride(), m_b, m_h, m_w,
        SY=scale[0], SX=scale[1], SX2=triton.next_power_of_2(scale[1]),
        MASKED=masked, SAVE=save, FLAT=flat(pred, target, signs), **blocks)
    finish_kernel[(1,)](partial, loss, partial.numel(), 1/pred.numel(), BLOCK=1024)
    return loss, sign, weight


@masked_l1.register_fake
def empty_outputs(pred, target, mask, known, missing, save):
    "Loss, signs and weights, uninitialised; of no elements what is not kept"
    (b, _, h, w), masked = pred.shape, mask is not None and known != missing
    sign = torch.empty_like(pred, dtype=torch.int8) if save else pred.new_empty(0, dtype=torch.int8)
    return (pred.new_empty((), dtype=torch.float32), sign,
            pred.new_empty((b, h, w) if save and masked else 0, dtype=torch.float32))


@torch.library.custom_op("fastinpaint::masked_l1_backward", mutates_args=())
def masked_l1_backward(upstream: Tensor, sign: Tensor, weight: Tensor, known: float,
                       dtype: torch.dtype) -> Tensor:
    "The gradient `[B, C, h, w]` of the prediction, of `dtype`, from what the forward pass kept"
    (b, c, h, w), grad = sign.shape, torch.empty_like(sign, dtype=dtype)
    blocks, grid = tiles(b, c, h*w, sign.stride(1) == 1)
    backward_kernel[grid](upstream, sign, weight, grad, c, h*w, w, known, 1/sign.numel(), *sign.stride(),
                          *grad.stride(), MASKED=weight.numel() > 0, FLAT=flat(sign, grad), **blocks)
    return grad


@masked_l1_backward.register_fake
def _(upstream, sign, weight, known, dtype): return torch.empty_like(sign, dtype=dtype)


def setup_context(ctx, inputs, output):
    ctx.dtype, ctx.known = inputs[0].dtype, inputs[3]
    ctx.save_for_backward(*output[1:])
    ctx.mark_non_differentiable(*output[1:])


def gradient(ctx, upstream, *_):
    return masked_l1_backward(upstream, *ctx.saved_tensors, ctx.known, ctx.dtype), *[None]*5


masked_l1.register_autograd(gradient, setup_context=setup_context)
