"What the benchmark times: operations at the shapes of training, and the time that arithmetic suggests"
from dataclasses import dataclass
from itertools import product

import torch

BANDWIDTH, TF32 = 3.35e12, 495e12  # bytes and operations a second, H100 SXM data sheet (dense)
LAUNCH = 3.8e-6  # seconds of a kernel beyond its work; A. Gray, Getting Started with CUDA Graphs, NVIDIA 2019
# of kernels, ours and torch's around them, forward and backward
LAUNCHES = dict(masked_l1=(2, 1), zero_conv_merge=(1, 2), nearest=(10, 0), fourier_unit=(4, 8),
                ffc_convs=(4, 14), smooth_fill=(24, 0))
# the gradient of a product is two: that of its input, and that of its weight
PASSES = dict(forward=1, backward=2, both=3)


@dataclass
class Case:
    "An operation at one shape `[B, C, h, w]`, with a mask `scale` times as large for the loss; or N, M, D"
    op: str
    shape: tuple
    dtype: torch.dtype
    scale: int = 1

    def __str__(self): return f"{self.op} {'×'.join(map(str, self.shape))} {self.dtype}"

    def inputs(self, device):
        "The operation's tensors; prediction, guide and weight want gradients"
        kind = dict(device=device, dtype=self.dtype)
        if self.op == "nearest": return [torch.rand(n, self.shape[2], **kind) for n in self.shape[:2]]
        b, c, h, w = self.shape
        if self.op == "smooth_fill":
            mask = torch.zeros(b, 1, h, w, device=device)
            mask[..., h//4:h//2, w//4:3*w//4] = 1
            return torch.rand(self.shape, **kind)*(1 - mask), mask
        first, second = torch.randn(2, b, h, w, c, **kind).movedim(-1, 2)  # channels_last
        if self.op == "masked_l1":
            mask = (torch.rand(b, 1, h*self.scale, w*self.scale, device=device) < .3).float()
            return first.requires_grad_(), second, mask
        if self.op == "fourier_unit":
            weight, gain, bias = (torch.randn(2*c, *rest, device=device)
                                  for rest in ((2*c, 1, 1), (), ()))
            return [t.requires_grad_() for t in (first, weight/(2*c)**.5, 1 + gain/9, bias/9)]
        if self.op == "ffc_convs":
            local, half = c//4, 3*c//8
            shapes = (local, c, 3, 3), (c - local, local, 3, 3), (b, half, h, w), (c - local, half, 1, 1)
            rest = [torch.randn(shape, **kind)/shape[1:].numel()**.5 for shape in map(torch.Size, shapes)]
            return [t.requires_grad_() for t in (first, *rest)]
        weight = torch.randn(c, c, 1, 1, **kind)/c**.5
        return first, second.requires_grad_(), weight.requires_grad_()

    def bytes(self, direction):
        "What must cross memory at least: every input and output, and what is kept for backward, once"
        size = self.dtype.itemsize
        if self.op == "nearest":
            n, m, d = self.shape
            return (n + m)*d*size + n*12  # a distance and an index of 8 bytes
        (b, c, h, w), n = self.shape, torch.Size(self.shape).numel()
        if self.op == "smooth_fill":  # of each size image and known pixels, twice, and the result
            return 4*4*b*h*w*(2*(c + 1) + c)//3
        if self.op == "fourier_unit":  # each direction: two tensors, and two spectra that are kept
            return (2*n*size + 2*b*2*c*h*(w//2 + 1)*4)*(2 if direction == "both" else 1)
        if self.op == "ffc_convs":  # 11/8 of a tensor read, one written; backward as much of both, and again
            return int(n*size*19/8)*PASSES[direction]
        if self.op == "zero_conv_merge": return n*size*(6 if direction == "both" else 3)
        saved = n + b*h*w*4  # signs and weights, written forward and read backward
        forward, backward = 2*n*size + b*h*w*self.scale**2*4, n*size + saved
        return dict(forward=forward, backward=backward, both=forward + backward + saved)[direction]

    def operations(self):
        "Of tensor cores in the kernels' forward pass, as far as they may take longer than memory"
        times = 3 if self.dtype == torch.float32 else 1  # products of numbers that are split in two
        if self.op == "nearest": return 2*3*torch.Size(self.shape).numel()
        if self.op not in ("fourier_unit", "ffc_convs"): return 0
        b, c, h, w = self.shape
        if self.op == "ffc_convs": return 2*b*h*w*(9*(c//4)*(c + 3*c//4) + 3*c//4*3*c//8)
        transform = times*4*b*c*h*(w//2 + 1)*(w + 2*h)
        return 2*transform + 2*b*(2*c)**2*h*(w//2 + 1)

    def expected(self, direction):
        "Seconds that the kernels take on an H100 by their bytes, products and launches"
        forward, backward = LAUNCHES[self.op]
        launches = dict(forward=forward, backward=backward, both=forward + backward)[direction]
        products = self.operations()*PASSES[direction]
        return launches*LAUNCH + max(self.bytes(direction)/BANDWIDTH, products/TF32)


def training_cases(quick, width=0, size=0):
    "What LaMa training meets: four stages, two widths and sizes or these, batch 8 to 64; large ones, patches"
    if quick: axes = (8,), (256,), (8,), (torch.float32,)
    else: axes = (8, 64), (256, 512), (8, 32, 64), (torch.float32, torch.bfloat16)
    chosen = [(given,) if given else axis for given, axis in zip((width, size), axes, strict=False)]
    for width, size, b, dtype in product(*chosen, *axes[2:]):
        yield Case("masked_l1", (b, width*8, size//8, size//8), dtype, 8)
        for stage in range(4):
            c, side = width*2**stage, size >> stage
            if b*c*side**2 < 2**29: yield Case("zero_conv_merge", (b, c, side, side), dtype)
        yield Case("ffc_convs", (b, width*8, size//8, size//8), dtype)
        if (width, dtype) == (8, torch.float32): yield Case("smooth_fill", (b, 3, size, size), dtype)
        if size//8 <= 64: yield Case("fourier_unit", (b, width*3, size//8, size//8), dtype)
    if quick: yield Case("nearest", (4096, 2000, 35), torch.float32)
    elif (width, size) == (64, 512):  # the last of all
        yield Case("masked_l1", (64, 512, 128, 128), torch.bfloat16, 8)
        yield Case("zero_conv_merge", (64, 64, 256, 256), torch.bfloat16)
        for m in 6000, 30000: yield Case("nearest", (30000, m, 35), torch.float32)
