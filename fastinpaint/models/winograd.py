"Both 3×3 convolutions of a wide FFC at once, by Winograd's minimal filtering, for CPUs"
import torch
import torch.nn.functional as F
from torch import nn

from .folded import frozen
from .narrow import reflected

# F(4×4, 3×3): data, kernel and output transforms (Lavin & Gray 2016, § 4.3)
DATA = torch.tensor([[4., 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
                     [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]])
KERNEL = torch.tensor([[6., 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]])/24
OUTPUT = torch.tensor([[1., 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0],
                       [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
WIDE = 256  # channels; for fewer, transforms cost more than they spare
STRIP = 128  # rows of a map at a time, which bounds memory


class Winograd(nn.Module):
    """`folded.Convs` in a quarter of the multiplications, for four times the memory of its weights.

    Blocks of 6×6 pixels, transformed once for both convolutions, give 4×4 each. Not for half precision."""
    def __init__(self, to_local, local_to_global):
        super().__init__()
        kernel, weights = KERNEL.to(to_local), (to_local, local_to_global)
        weights = (torch.einsum("ui,vj,ocij->uvoc", kernel, kernel, w) for w in weights)
        self.weights = nn.ParameterList(frozen(w.flatten(0, 1).contiguous()) for w in weights)
        self.register_buffer("data", torch.kron(DATA, DATA).view(36, 1, 6, 6), persistent=False)
        self.register_buffer("output", torch.kron(OUTPUT, OUTPUT), persistent=False)

    def forward(self, x):
        h, w = x.shape[2:]
        x = F.pad(reflected(x, 1), (0, -w % 4, 0, -h % 4))
        strips = [self.strip(x[:, :, y:y + STRIP + 2]) for y in range(0, h, STRIP)]
        whole = (torch.cat(o, dim=2) if h > STRIP else o[0] for o in zip(*strips, strict=True))
        return [y[..., :h, :w] for y in whole]

    def strip(self, x):
        b, c = x.shape[:2]
        blocks = F.conv2d(x.reshape(b*c, 1, *x.shape[2:]), self.data, stride=4)
        rows, columns = blocks.shape[2:]
        blocks = blocks.view(b, c, 36, -1).permute(2, 1, 0, 3).reshape(36, c, -1)
        for weight in self.weights:
            y = self.output @ torch.bmm(weight, blocks[:, :weight.shape[2]]).flatten(1)
            y = y.view(4, 4, -1, b, rows, columns).permute(3, 2, 4, 0, 5, 1)
            yield y.reshape(b, -1, 4*rows, 4*columns)
