"The merge `x + W·m` in one pass, as it is bound by memory, and its gradients in one more, for Triton"
import torch
import triton
import triton.language as tl
from torch import Tensor

from .layout import flat, pixel_offset

PROGRAMS = 256  # that share the pixels of a weight gradient
# Channels, and the stride from pixel to pixel, are constants: triton takes note of multiples of 16 alone, and
# 8 channels that lie last in memory would be read one by one


@triton.jit
def merge_kernel(x, m, weight, y, C: tl.constexpr, K: tl.constexpr, P, width,
                 x_b, x_c, x_h, x_w: tl.constexpr, m_b, m_k, m_h, m_w: tl.constexpr, w_c, w_k,
                 y_b, y_c, y_h, y_w: tl.constexpr,
                 ADD: tl.constexpr, FLAT: tl.constexpr, PRECISION: tl.constexpr, OPERAND: tl.constexpr,
                 BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr):
    "A tile of `y = x + W·m`, or of `W·m` without ADD"
    b = tl.program_id(2).to(tl.int64)
    # channels first: neighbouring programs share m, through the L2 cache
    channel = (tl.program_id(0)*BLOCK_C + tl.arange(0, BLOCK_C)).to(tl.int64)
    pixel = tl.program_id(1)*BLOCK_P + tl.arange(0, BLOCK_P)
    inside = (pixel < P)[None, :]
    m += b*m_b + pixel_offset(pixel, width, m_h, m_w, FLAT)[None, :]
    total = tl.zeros([BLOCK_C, BLOCK_P], tl.float32)
    for first in range(0, K, BLOCK_K):
        k = (first + tl.arange(0, BLOCK_K)).to(tl.int64)
        w = tl.load(weight + channel[:, None]*w_c + k[None, :]*w_k,
                    mask=(channel < C)[:, None] & (k < K)[None, :], other=0.)
        guide = tl.load(m + k[:, None]*m_k, mask=(k < K)[:, None] & inside, other=0.)
        total = tl.dot(w.to(OPERAND), guide.to(OPERAND), total, input_precision=PRECISION)
    here = (channel < C)[:, None] & inside
    if ADD:
        offset = b*x_b + channel[:, None]*x_c + pixel_offset(pixel, width, x_h, x_w, FLAT)[None, :]
        total += tl.load(x + offset, mask=here, other=0.).to(tl.float32)
    y += b*y_b + channel[:, None]*y_c
    tl.store(y + pixel_offset(pixel, width, y_h, y_w, FLAT)[None, :], total, mask=here)


@triton.jit
def backward_kernel(grad, m, weight, grad_m, partial, B, C: tl.constexpr, K: tl.constexpr, P, width,
                    g_b, g_c, g_h, g_w: tl.constexpr, m_b, m_k, m_h, m_w: tl.constexpr, w_c, w_k,
                    d_b, d_k, d_h, d_w: tl.constexpr,
                    OF_M: tl.constexpr, OF_WEIGHT: tl.constexpr, FLAT: tl.constexpr,
                    PRECISION: tl.constexpr, OPERAND: tl.constexpr,
                    BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr):
    "`Wᵀ·grad` of some pixels, which needs all channels in one block, and a sum of `grad·mᵀ`"
    # axes of programs: tiles of pixels (every num_programs(0)-th), blocks of channels, blocks of guides
    channel = (tl.program_id(1)*BLOCK_C + tl.arange(0, BLOCK_C)).to(tl.int64)
    k = (tl.program_id(2)*BLOCK_K + tl.arange(0, BLOCK_K)).to(tl.int64)
    corner = (channel < C)[:, None] & (k < K)[None, :]
    w = tl.load(weight + channel[:, None]*w_c + k[None, :]*w_k, mask=corner, other=0.).to(OPERAND)
    total = tl.zeros([BLOCK_C, BLOCK_K], tl.float32)
    across = tl.cdiv(P, BLOCK_P)
    for tile in range(tl.program_id(0), B*across, tl.num_programs(0)):
        b = (tile // across).to(tl.int64)
        pixel = (tile % across)*BLOCK_P + tl.arange(0, BLOCK_P)
        inside = (pixel < P)[None, :]
        offset = b*g_b + channel[:, None]*g_c + pixel_offset(pixel, width, g_h, g_w, FLAT)[None, :]
        g = tl.load(grad + offset, mask=(channel < C)[:, None] & inside, other=0.).to(OPERAND)
        here = (k < K)[:, None] & inside
        if OF_M:
            offset = b*d_b + k[:, None]*d_k + pixel_offset(pixel, width, d_h, d_w, FLAT)[None, :]
            tl.store(grad_m + offset, tl.dot(tl.trans(w), g, input_precision=PRECISION), mask=here)
        if OF_WEIGHT:
            offset = b*m_b + k[:, None]*m_k + pixel_offset(pixel, width, m_h, m_w, FLAT)[None, :]
            guide = tl.load(m + offset, mask=here, other=0.).to(OPERAND)
            total = tl.dot(g, tl.trans(guide), total, input_precision=PRECISION)
    if OF_WEIGHT:
        row = partial + tl.program_id(0).to(tl.int64)*C*K
        tl.store(row + channel[:, None]*K + k[None, :], total, mask=corner)


def block(n, most): return max(16, min(triton.next_power_of_2(n), most))  # tensor cores' least: 16


def tile(c, k, p, guides, pixels):
    "Sides, at most so many `guides` and `pixels`; of few channels more pixels, for 16 bytes a thread"
    sides = dict(BLOCK_C=block(c, 64), BLOCK_K=block(k, guides), BLOCK_P=block(p, pixels if c > 16 else 128))
    # loops take a turn or two: little to pipeline, and its copies are of 4 bytes where fp32 is transposed
    return dict(sides, num_stages=1)


def merge_blocks(c, k, p): return tile(c, k, p, 32, 64)
def backward_blocks(c, k, p): return tile(c, k, p, 64, 32)


def uses_tf32():
    "Whether torch's own convolutions may round float32 to TF32"
    # since torch 2.9 operators have settings of their own, and `allow_tf32` raises where they differ
    cudnn = torch.backends.cudnn
    return cudnn.conv.fp32_precision == "tf32" if hasattr(cudnn, "conv") else cudnn.allow_tf32


def rounding(): return "tf32" if uses_tf32() else "ieee"


def arithmetic(weight):
    "The type to multiply in (the interpreter has no bfloat16 product), and how exactly: as torch does"
    name = str(weight.dtype).removeprefix("torch.") if weight.is_cuda else "float32"
    return dict(OPERAND=getattr(tl, name), PRECISION=rounding())


@torch.library.custom_op("fastinpaint::zero_conv_merge", mutates_args=())
def zero_conv_merge(x: Tensor, m: Tensor, weight: Tensor) -> Tensor:
    "`x + W·m` for `weight` of `m`'s type; `ops.zero_conv_merge` checks the arguments"
    return matrix_product(m, weight, empty_result(x, m, weight), x)


@zero_conv_merge.register_fake
def empty_result(x, m, weight): return torch.empty_like(x, dtype=torch.promote_types(x.dtype, m.dtype))


def matrix_product(m, weight, y, x=None):
    "Write `W·m`, plus `x` if given, to `y`, and return it"
    (b, c, h, w), k = y.shape, m.shape[1]
    blocks = merge_blocks(c, k, h*w)
    grid = triton.cdiv(c, blocks["BLOCK_C"]), triton.cdiv(h*w, blocks["BLOCK_P"]), b
    base = y if x is None else x
    merge_kernel[grid](base, m, weight, y, c, k, h*w, w,
                       *base.stride(), *m.stride(), *weight.stride()[:2], *y.stride(),
                       ADD=x is not None, FLAT=flat(base, m, y), **arithmetic(weight), **blocks)
    return y


@torch.library.custom_op("fastinpaint::zero_conv_merge_backward", mutates_args=())
def zero_conv_merge_backward(grad: Tensor, m: Tensor, weight: Tensor, of_m: bool,
                             of_weight: bool) -> tuple[Tensor, Tensor]:
    "The gradients of `m` and `weight`, those that are wanted; the others are empty"
    (b, k, h, w), c = m.shape, weight.shape[0]
    grad_m, grad_weight = empty_gradients(grad, m, weight, of_m, of_weight)
    blocks = backward_blocks(c, k, h*w)
    fused = c <= blocks["BLOCK_C"]
    if of_m and not fused: matrix_product(grad, weight.transpose(0, 1), grad_m)
    if of_weight or fused:
        programs = min(PROGRAMS, b*triton.cdiv(h*w, blocks["BLOCK_P"]))
        partial = grad.new_empty((programs if of_weight else 0, c, k), dtype=torch.float32)
        target = grad_m if of_m and fused else m
        grid = programs, triton.cdiv(c, blocks["BLOCK_C"]), triton.cdiv(k, blocks["BLOCK_K"])
        backward_kernel[grid](
            grad, m, weight, target, partial, b, c, k, h*w, w,
            *grad.stride(), *m.stride(), *weight.stride()[:2], *target.stride(), OF_M=of_m and fused,
            OF_WEIGHT=of_weight, FLAT=flat(grad, m, target), **arithmetic(weight), **blocks)
        if of_weight: grad_weight = partial.sum(0).to(weight.dtype).view_as(weight)
    return grad_m, grad_weight


@zero_conv_merge_backward.register_fake
def empty_gradients(grad, m, weight, of_m, of_weight):
    return tuple(torch.empty_like(x) if of else x.new_empty(0) for x, of in ((m, of_m), (weight, of_weight)))


def setup_context(ctx, inputs, output):
    ctx.dtype = inputs[0].dtype
    ctx.save_for_backward(*inputs[1:])


def gradient(ctx, grad):
    "Of `x`, guide and weight, as far as they are wanted, from `grad` of the merge"
    of_x, *wanted = ctx.needs_input_grad
    found = zero_conv_merge_backward(grad, *ctx.saved_tensors, *wanted) if any(wanted) else (None, None)
    parts = (g if of else None for g, of in zip(found, wanted, strict=True))
    return grad.to(ctx.dtype) if of_x else None, *parts


zero_conv_merge.register_autograd(gradient, setup_context=setup_context)
