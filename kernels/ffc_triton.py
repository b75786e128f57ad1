"The convolutions of an FFC in one launch for Triton, reflection padding and sums included"
import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from .reference import conv_backward
from .zero_conv_triton import arithmetic, block


@triton.jit
def reflected(i, n):
    "The index that a reflection has in the place of `i`, one beyond 0 to `n` - 1 at most"
    i = tl.where(i < 0, -i, i)
    return tl.where(i >= n, 2*n - 2 - i, i)


@triton.jit
def taps(total, x, weight, b, i, j, n, H, W, inside, C: tl.constexpr, K: tl.constexpr, N: tl.constexpr,
         PRECISION: tl.constexpr, OPERAND: tl.constexpr, BLOCK_K: tl.constexpr):
    "`total` and a 3×3 convolution of the first K channels of pixels `b`, `i`, `j` to the channels `n` of N"
    for tap in range(9):
        pixel = (b*H + reflected(i + tap // 3 - 1, H))*W + reflected(j + tap % 3 - 1, W)
        for first in range(0, K, BLOCK_K):
            k = first + tl.arange(0, BLOCK_K)
            a = tl.load(x + pixel[:, None]*C + k[None, :], mask=inside[:, None] & (k < K)[None, :], other=0.)
            w = tl.load(weight + (tap*K + k)[:, None]*N + n[None, :],
                        mask=(k < K)[:, None] & (n < N)[None, :], other=0.)
            total = tl.dot(a.to(OPERAND), w.to(OPERAND), total, input_precision=PRECISION)
    return total


@triton.jit
def convs_kernel(x, y, to_local, to_global, expand, bias, out, H, W, ROWS,
                 C: tl.constexpr, L: tl.constexpr, HALF: tl.constexpr, BIASED: tl.constexpr,
                 ACT: tl.constexpr, PRECISION: tl.constexpr, OPERAND: tl.constexpr,
                 BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    "A tile of pixels and of channels, all of which are local or global; `x` and `out` have channels last"
    G: tl.constexpr = C - L
    row = (tl.program_id(0)*BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    inside = row < ROWS
    b, pixel = row // (H*W), row % (H*W)
    i, j = pixel // W, pixel % W
    tiles = tl.cdiv(L, BLOCK_N)
    local = tl.program_id(1) < tiles
    n = tl.where(local, tl.program_id(1), tl.program_id(1) - tiles)*BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    if local:
        total = taps(total, x, to_local, b, i, j, n, H, W, inside, C, C, L, PRECISION, OPERAND, BLOCK_K)
    else:
        total = taps(total, x, to_global, b, i, j, n, H, W, inside, C, L, G, PRECISION, OPERAND, BLOCK_K)
        for first in range(0, HALF, BLOCK_K):
            k = first + tl.arange(0, BLOCK_K)
            a = tl.load(y + (b*HALF)[:, None]*(H*W) + k[None, :]*(H*W) + pixel[:, None],
                        mask=inside[:, None] & (k < HALF)[None, :], other=0.)
            w = tl.load(expand + k[:, None]*G + n[None, :],
                        mask=(k < HALF)[:, None] & (n < G)[None, :], other=0.)
            total = tl.dot(a.to(OPERAND), w.to(OPERAND), total, input_precision=PRECISION)
    here = n < tl.where(local, L, G)
    n += tl.where(local, 0, L)
    if BIASED: total += tl.load(bias + n, mask=here, other=0.)[None, :]
    if ACT: total = tl.maximum(total, 0.)
    tl.store(out + row[:, None]*C + n[None, :], total, mask=inside[:, None] & here[None, :])


def tile(local, glob, dtype):
    "Its sides, for so many channels: local and global ones share none, so the fewer of them decide"
    n = block(min(local, glob), 64)
    sides = dict(BLOCK_M=128 if n <= 32 else 64, BLOCK_N=n, BLOCK_K=block(local, 32))
    # where loops are pipelined, copies of float32, which is transposed for TF32, are of 4 bytes
    return dict(sides, num_stages=1 if dtype == torch.float32 else 3)


@torch.library.custom_op("fastinpaint::ffc_convs", mutates_args=())
def ffc_convs(x: Tensor, y: Tensor, to_local: Tensor, to_global: Tensor, expand: Tensor,
              bias: Tensor | None, act: bool) -> Tensor:
    "`ffc.ffc_convs` of `packed` weights, all of one type"
    out = empty_result(x, y, to_local, to_global, expand, bias, act)
    x, y = x.contiguous(memory_format=torch.channels_last), y.contiguous()
    b, c, h, w = x.shape
    local, glob, half = to_local.shape[1], to_global.shape[1], expand.shape[0]
    sides = tile(local, glob, x.dtype)
    columns = triton.cdiv(local, sides["BLOCK_N"]) + triton.cdiv(glob, sides["BLOCK_N"])
    convs_kernel[triton.cdiv(b*h*w, sides["BLOCK_M"]), columns](
        x, y, to_local.contiguous(), to_global.contiguous(), expand.contiguous(), x if bias is None else bias,
        out, h, w, b*h*w, c, local, half, BIASED=bias is not None, ACT=act, **arithmetic(x), **sides)
    return out


@ffc_convs.register_fake
def empty_result(x, y, to_local, to_global, expand, bias, act):
    return torch.empty_like(x, memory_format=torch.channels_last)


def setup_context(ctx, inputs, output):
    "Keeps what `gradient` needs. Raises ValueError for what has none"
    *tensors, bias, act = inputs
    if bias is not None or act: raise ValueError("ffc_convs has no gradient with a bias or an activation")
    ctx.save_for_backward(*tensors)


def gradient(ctx, grad):
    "Of `x`, `y` and the three weights, by torch's convolutions of what is padded again"
    x, y, to_local, to_global, expand = ctx.saved_tensors
    local = to_local.shape[1]
    padded = F.pad(x, [1]*4, mode="reflect")
    g_local, g_global = grad[:, :local], grad[:, local:]
    d_padded, d_local = conv_backward(g_local, padded, unpacked(to_local))
    d_first, d_global = conv_backward(g_global, padded[:, :local], unpacked(to_global))
    d_padded[:, :local] += d_first
    dx = torch.ops.aten.reflection_pad2d_backward(d_padded, x, [1]*4)
    dy = torch.einsum("bghw,kg->bkhw", g_global, expand)
    d_expand = torch.einsum("bghw,bkhw->kg", g_global, y)
    return dx, dy, packed(d_local), packed(d_global), d_expand, None, None


def packed(weight):
    "`[k·k·I, O]` of a convolution's weight `[O, I, k, k]`: a row for each input of each of its pixels"
    return weight.permute(2, 3, 1, 0).flatten(0, 2)


def unpacked(weight):
    "The inverse of `packed` for 3×3 kernels"
    return weight.unflatten(0, (3, 3, -1)).permute(3, 2, 0, 1)


ffc_convs.register_autograd(gradient, setup_context=setup_context)
