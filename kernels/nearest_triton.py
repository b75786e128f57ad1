"The nearest source of each query: products and their running minimum in one pass, for Triton"
import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

WHOLE = 64  # numbers of a point that are held at once; longer points pass in parts of 16


@triton.jit
def nearest_kernel(queries, sources, half, index, N, M, D: tl.constexpr, PRECISION: tl.constexpr,
                   BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr):
    "`index` `[N]` of the least `half − q·s`; queries `[N, D]`, sources `[M, D]`, half `[M]`, contiguous"
    row = (tl.program_id(0)*BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)[:, None]
    lane = tl.arange(0, BLOCK_M)[None, :]
    best = tl.full([BLOCK_N, BLOCK_M], float("inf"), tl.float32)
    found = tl.zeros([BLOCK_N, BLOCK_M], tl.int32)
    for first in range(0, M, BLOCK_M):
        source = first + lane
        product = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
        for start in range(0, D, BLOCK_D):  # once up to WHOLE: queries then stay in registers
            d = start + tl.arange(0, BLOCK_D)
            q = tl.load(queries + row*D + d[None, :], mask=(row < N) & (d < D)[None, :], other=0.)
            s = tl.load(sources + source.to(tl.int64)*D + d[:, None],
                        mask=(source < M) & (d < D)[:, None], other=0.)
            product = tl.dot(q, s, product, input_precision=PRECISION)
        score = tl.load(half + source, mask=source < M, other=float("inf")) - product
        closer = score < best  # strictly: each lane keeps the first of its equal ones
        best, found = tl.where(closer, score, best), tl.where(closer, first, found)
    least = tl.min(best, axis=1)[:, None]
    winner = tl.min(tl.where(best == least, found + lane, M), axis=1)
    tl.store(index + row, winner[:, None].to(tl.int64), mask=row < N)


def tiles(d):
    "Sides of a tile, for points of `d` numbers: small enough for registers to hold all lanes' minima"
    return dict(BLOCK_N=64, BLOCK_M=32, BLOCK_D=max(triton.next_power_of_2(d), 16) if d <= WHOLE else 16)


def precision(hip):
    "How to multiply: one TF32 product, of three digits, finds other sources; three are almost float32"
    return "ieee" if hip else "tf32x3"  # AMD's matrix cores multiply float32 itself


@torch.library.custom_op("fastinpaint::nearest", mutates_args=())
def best_match(queries: Tensor, sources: Tensor) -> Tensor:
    "As `reference.best_match`, of float32; a query that is not finite finds any source"
    half = sources.square().sum(1)/2
    # rows of whole 16 bytes load as such
    queries, sources = (F.pad(t, (0, -t.shape[1] % 4)).contiguous() for t in (queries, sources))
    (n, d), blocks, index = queries.shape, tiles(queries.shape[1]), empty_index(queries, sources)
    nearest_kernel[(triton.cdiv(n, blocks["BLOCK_N"]),)](
        queries, sources, half, index, n, len(sources), D=d, PRECISION=precision(torch.version.hip),
        **blocks)
    return index


@best_match.register_fake
def empty_index(queries, sources): return queries.new_empty(len(queries), dtype=torch.int64)
