"The smooth fill of a hole for Triton, two launches a size: a pull to half of it, and a push back"
import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 128  # pixels of a program


@triton.jit
def pull_kernel(image, known, coarse, some, C, H, W, h, w, BLOCK: tl.constexpr):
    "`coarse`: mean of the known ones of 2×2 pixels of `image`, 0 elsewhere; `some`: if there are any"
    pixel = tl.program_id(0)*BLOCK + tl.arange(0, BLOCK)
    plane, inside = tl.program_id(1).to(tl.int64), pixel < h*w
    b = plane // C
    total, share = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for i in tl.static_range(4):
        row, column = 2*(pixel // w) + i // 2, 2*(pixel % w) + i % 2
        here = inside & (row < H) & (column < W)
        total += tl.load(image + plane*H*W + row*W + column, mask=here, other=0.)
        share += tl.load(known + b*H*W + row*W + column, mask=here, other=0.)
    tl.store(coarse + plane*h*w + pixel, total/tl.maximum(share, 4e-6), mask=inside)
    tl.store(some + b*h*w + pixel, (share > 0).to(tl.float32), mask=inside & (plane % C == 0))


@triton.jit
def enlarged(coarse, row, column, h, w, where):
    "`coarse` `[h, w]` at a pixel of twice the size, between its four neighbours"
    y, x = tl.maximum(row*.5 - .25, 0.), tl.maximum(column*.5 - .25, 0.)
    top, left = y.to(tl.int32), x.to(tl.int32)
    down, right = y - top, x - left
    bottom, end = tl.minimum(top + 1, h - 1), tl.minimum(left + 1, w - 1)
    upper = (1 - right)*tl.load(coarse + top*w + left, mask=where, other=0.) \
        + right*tl.load(coarse + top*w + end, mask=where, other=0.)
    lower = (1 - right)*tl.load(coarse + bottom*w + left, mask=where, other=0.) \
        + right*tl.load(coarse + bottom*w + end, mask=where, other=0.)
    return (1 - down)*upper + down*lower


@triton.jit
def begun(image, known, coarse, row, column, H, W, h, w, where):
    "What a pixel starts from: its own colour, or in the hole that of `coarse`"
    value = tl.load(image + row*W + column, mask=where, other=0.)
    hole = where & (tl.load(known + row*W + column, mask=where, other=1.) <= 0)
    return value + enlarged(coarse, row, column, h, w, hole)


@triton.jit
def relaxed(image, known, coarse, row, column, H, W, h, w, where):
    "`begun`, in the hole replaced by the mean of the four neighbours'"
    value = tl.load(image + row*W + column, mask=where, other=0.)
    hole = where & (tl.load(known + row*W + column, mask=where, other=1.) <= 0)
    total = begun(image, known, coarse, row, tl.maximum(column - 1, 0), H, W, h, w, hole)
    total += begun(image, known, coarse, row, tl.minimum(column + 1, W - 1), H, W, h, w, hole)
    total += begun(image, known, coarse, tl.maximum(row - 1, 0), column, H, W, h, w, hole)
    total += begun(image, known, coarse, tl.minimum(row + 1, H - 1), column, H, W, h, w, hole)
    return value + total/4


@triton.jit
def push_kernel(image, known, coarse, filled, C, H, W, h, w, BLOCK: tl.constexpr):
    "`image` with its hole filled from `coarse` and relaxed twice; neighbours compute anew what they share"
    pixel = tl.program_id(0)*BLOCK + tl.arange(0, BLOCK)
    plane, inside = tl.program_id(1).to(tl.int64), pixel < H*W
    image += plane*H*W
    known += plane // C*H*W
    coarse += plane*h*w
    row, column = pixel // W, pixel % W
    value = tl.load(image + pixel, mask=inside, other=0.)
    hole = inside & (tl.load(known + pixel, mask=inside, other=1.) <= 0)
    total = relaxed(image, known, coarse, row, tl.maximum(column - 1, 0), H, W, h, w, hole)
    total += relaxed(image, known, coarse, row, tl.minimum(column + 1, W - 1), H, W, h, w, hole)
    total += relaxed(image, known, coarse, tl.maximum(row - 1, 0), column, H, W, h, w, hole)
    total += relaxed(image, known, coarse, tl.minimum(row + 1, H - 1), column, H, W, h, w, hole)
    tl.store(filled + plane*H*W + pixel, value + total/4, mask=inside)


@torch.library.custom_op("fastinpaint::smooth_fill", mutates_args=())
def smooth_fill(image: Tensor, mask: Tensor, levels: int) -> Tensor:
    "As `kernels.prefill.smooth_fill`, in float32 and contiguous; without gradients"
    known = (1 - mask).float().contiguous()
    return filled(image.float().contiguous()*known, known, levels)


@smooth_fill.register_fake
def empty_fill(image, mask, levels): return torch.empty(image.shape, device=image.device)


def filled(image, known, levels):
    "`image` `[B, C, H, W]`, which is 0 where `known` `[B, 1, H, W]` is, filled there"
    if levels == 0:
        mean = image.mean((2, 3), True)/known.mean((2, 3), True).clamp_min(1e-6)
        return torch.where(known > 0, image, mean)
    b, c, height, width = image.shape
    h, w = (height + 1)//2, (width + 1)//2
    coarse, some = image.new_empty(b, c, h, w), image.new_empty(b, 1, h, w)
    sizes = c, height, width, h, w
    pull_kernel[triton.cdiv(h*w, BLOCK), b*c](image, known, coarse, some, *sizes, BLOCK=BLOCK)
    coarse, new = filled(coarse, some, levels - 1), torch.empty_like(image)
    push_kernel[triton.cdiv(height*width, BLOCK), b*c](image, known, coarse, new, *sizes, BLOCK=BLOCK)
    return new
