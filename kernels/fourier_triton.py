"The Fourier unit for Triton: transform, product and its statistics, and back, and its gradient"
import torch
import triton
import triton.language as tl
from torch import Tensor

from .spectrum_triton import inverse, transform
from .zero_conv_triton import block, rounding

aten = torch.ops.aten


@triton.jit
def mix_kernel(parts, weight, z, partial, C: tl.constexpr, N: tl.constexpr, MEASURED: tl.constexpr,
               PRECISION: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr):
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
        total = tl.dot(w, p, total, input_precision=PRECISION)
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
    whole, total = tl.sum(total, axis=0)/(B*N), tl.zeros_like(total)
    for first in range(0, T, BLOCK_T):
        t = (first + tl.arange(0, BLOCK_T))[:, None]
        here = (t < T) & (channel < C)
        count = tl.minimum(N - t % tiles*BLOCK_P, BLOCK_P)
        off = tl.load(partial + t*2*C + channel, mask=here, other=0.) - whole[None, :]
        squares = tl.load(partial + t*2*C + C + channel, mask=here, other=0.)
        total += tl.where(here, squares + count*off*off, 0.)
    channel = tl.program_id(0)*BLOCK_C + tl.arange(0, BLOCK_C)
    tl.store(mean + channel, whole, mask=channel < C)
    tl.store(var + channel, tl.sum(total, axis=0)/(B*N), mask=channel < C)


def contiguous_like(x): return torch.empty_like(x, memory_format=torch.contiguous_format)


def mix(parts, weight, z, measured):
    "Write `weight·parts` to `z`; returns mean and variance `[2C]` of its channels where `measured`"
    (b, c), n = z.shape[:2], z[0, 0].numel()
    blocks = dict(BLOCK_C=block(c, 64), BLOCK_K=block(c, 32), BLOCK_P=block(n, 64))
    across = triton.cdiv(n, blocks["BLOCK_P"])
    partial, mean, var = (z.new_empty(s) for s in ((b*across if measured else 0, 2, c), c, c))
    mix_kernel[triton.cdiv(c, blocks["BLOCK_C"]), across, b](
        parts, weight.float().contiguous(), z, partial, c, n, MEASURED=measured, PRECISION=rounding(),
        **blocks, num_stages=1)  # a pipeline would copy what it transposes by 4 bytes
    if not measured: return None
    statistics_kernel[(triton.cdiv(c, 16),)](partial, mean, var, c, n, b*across, b, BLOCK_C=16,
                                             BLOCK_P=blocks["BLOCK_P"], BLOCK_T=64)
    return mean, var


@torch.library.custom_op("fastinpaint::fourier_unit", mutates_args=())
def forward(x: Tensor, weight: Tensor, gain: Tensor, bias: Tensor, mean: Tensor | None, var: Tensor | None,
            eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    "`y` `[B, C, h, w]`, its spectrum before and after the product, and mean and variance `[2C]`, new ones"
    y, parts, z, *_ = empty_results(x, weight, gain, bias, mean, var, eps)
    transform(x.contiguous(), parts, twins=False)
    found = mix(parts, weight, z, mean is None) or (mean.clone(), var.clone())
    inverse(z, y, True, (*found, gain, bias, eps))
    return y, parts, z, *found


@forward.register_fake
def empty_results(x, weight, gain, bias, mean, var, eps):
    b, c, h, w = x.shape
    z = x.new_empty((b, 2*c, w//2 + 1, h), dtype=torch.float32)
    return contiguous_like(x), torch.empty_like(z), z, z.new_empty(2*c), z.new_empty(2*c)


@torch.library.custom_op("fastinpaint::fourier_unit_backward", mutates_args=())
def backward(grad: Tensor, parts: Tensor, z: Tensor, mean: Tensor, var: Tensor, weight: Tensor, gain: Tensor,
             bias: Tensor, eps: float, training: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    "The gradients of `x`, weight, gain and bias; the convolution's products are torch's"
    g = transform(grad.contiguous(), torch.empty_like(z), True, (z, mean, var, gain, bias, eps))
    g, of_gain, of_bias = aten.native_batch_norm_backward(
        g, z, gain, mean, var, mean, torch.rsqrt(var + eps), training, eps, [True]*3)
    plain = [1, 1], [0, 0], [1, 1], False, [0, 0], 1  # stride, padding, dilation
    g, of_weight, _ = aten.convolution_backward(
        g, parts, weight.float(), None, *plain, [True, True, False])
    return inverse(g, contiguous_like(grad), False), of_weight.to(weight.dtype), of_gain, of_bias


@backward.register_fake
def _(grad, parts, z, mean, var, weight, gain, bias, eps, training):
    return contiguous_like(grad), *(torch.empty_like(t) for t in (weight, gain, bias))


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
