"Augmentation of training batches on the device: LaMa's (Suvorov et al. 2022), per image, but for CLAHE"
import math

import torch
import torch.nn.functional as F
from fastai.torch_core import TensorImage, TensorMask
from fasttransform import ItemTransform

from ..core.ranks import rank, world


def _rows(x: torch.Tensor, *ones: int) -> tuple[torch.Tensor, slice]:
    "`[N·B, *ones]` to be drawn for the batches of all N processes, and which rows of it are for batch `x`"
    b = len(x)
    return torch.empty(world() * b, *ones, device=x.device), slice(rank() * b, (rank() + 1) * b)


def _coin(x: torch.Tensor, *ones: int) -> torch.Tensor:
    "1 or 0 for each image of batch `x`, `[B, *ones]`: whether it is changed"
    drawn, rows = _rows(x, *ones)
    return drawn.bernoulli_(0.5)[rows]


def _uniform(x: torch.Tensor, most: float, *ones: int) -> torch.Tensor:
    "Draws `[B, *ones]` from [-most, most] for batch `x`"
    drawn, rows = _rows(x, *ones)
    return drawn.uniform_(-most, most)[rows]


def _normal(x: torch.Tensor, *ones: int) -> torch.Tensor:
    "Draws `[B, *ones]` from the standard normal distribution for batch `x`"
    drawn, rows = _rows(x, *ones)
    return drawn.normal_()[rows]


# fastai has the next two as well; the module that they are in imports torchvision, for two seconds

def homographies(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    "Matrices `[B, 3, 3]`, with 1 as last number, that take four points `before` to `after`, both `[B, 4, 2]`"
    u, v, one = *before.unbind(2), torch.ones_like(before[..., 0])
    zero = torch.zeros_like(one)
    x, y = after.unbind(2)
    of_x = torch.stack([u, v, one, zero, zero, zero, -x * u, -x * v], 2)
    of_y = torch.stack([zero, zero, zero, u, v, one, -y * u, -y * v], 2)
    equations = torch.stack([of_x, of_y], 2).flatten(1, 2)
    coeffs = torch.linalg.solve(equations, after.reshape(-1, 8, 1))
    return F.pad(coeffs.flatten(1), (0, 1), value=1.).view(-1, 3, 3)


def _affine(*rows: torch.Tensor) -> torch.Tensor:
    "Matrices `[B, 3, 3]` of the six numbers `[B]` of their upper rows; below stand 0, 0, 1"
    zero = torch.zeros_like(rows[0])
    return torch.stack([*rows, zero, zero, torch.ones_like(zero)], 1).view(-1, 3, 3)


def perspective_mat(x: torch.Tensor, most: float = 0.06) -> torch.Tensor:
    "Homographies `[B, 3, 3]`: corners go inwards by |N(0, s²)| sides, s of [0, `most`] drawn for each image"
    square = torch.tensor([[-1., -1], [-1, 1], [1, -1], [1, 1]], device=x.device)
    spread = _uniform(x, most, 1, 1).abs() * _coin(x, 1, 1)
    inwards = 2 * spread * _normal(x, 4, 2).abs()
    corners = square.expand(len(x), 4, 2)
    return homographies(corners, corners * (1 - inwards))


def affine_mat(x: torch.Tensor, max_deg: float = 40, zoom: float = 0.3) -> torch.Tensor:
    "Matrices `[B, 3, 3]` that scale each axis by a factor within 1 ± `zoom`, then turn by up to `max_deg`"
    done = _coin(x)
    angle = done * _uniform(x, math.radians(max_deg))
    across, down = (1 / (1 + done * _uniform(x, zoom)) for _ in range(2))
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return _affine(across * cos, across * sin, zero, -down * sin, down * cos, zero)


def flip_mat(x: torch.Tensor) -> torch.Tensor:
    "Matrices `[B, 3, 3]`, half of which turn left into right"
    zero, one = torch.zeros(len(x), device=x.device), torch.ones(len(x), device=x.device)
    return _affine(one - 2 * _coin(x), zero, zero, zero, one, zero)


def warp_grid(mat: torch.Tensor, bend: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Sampling coordinates `[B, H, W, 2]` of homographies `[B, 3, 3]` of the square [-1, 1]².

    Before, coordinates are stretched by 1 + bend·(r² + r⁴), `bend` `[B]`, r their distance from the centre in
    sides: OpenCV's radial distortion, as albumentations' OpticalDistortion has it."""
    sides = (torch.linspace(-1, 1, n, device=mat.device) for n in (height, width))
    y, x = torch.meshgrid(*sides, indexing="ij")
    square = (x * x + y * y).flatten() / 4
    stretch = 1 + bend[:, None] * (square + square * square)
    points = torch.stack((x, y)).flatten(1) * stretch[:, None]
    moved = mat[:, :, :2] @ points + mat[:, :, 2:]
    return (moved[:, :2] / moved[:, 2:]).view(-1, 2, height, width).permute(0, 2, 3, 1)


class SpaceAugment(ItemTransform):
    """Perspective, affine, optical distortion, flip, of image and, if `moves_masks`, mask alike; reflects.

    What is drawn at the crop's size stays: LaMa draws holes after the augmentation."""
    order, split_idx = 30, 0  # fastai's AffineCoordTfm is several times as slow on a CPU
    def __init__(self, moves_masks: bool):
        super().__init__()
        self.moves_masks = moves_masks

    def encodes(self, b):
        image, mask = (o.as_subclass(torch.Tensor) for o in b)
        mat = perspective_mat(image) @ affine_mat(image) @ flip_mat(image)
        grid = warp_grid(mat, _coin(image) * _uniform(image, 0.05), *image.shape[-2:])
        kwargs = dict(padding_mode="reflection", align_corners=True)
        moved = F.grid_sample(image, grid, **kwargs)
        if not self.moves_masks: return TensorImage(moved), TensorMask(mask)
        hole = F.grid_sample(mask[:, None].to(image.dtype), grid, mode="nearest", **kwargs)[:, 0]
        share = hole.mean((1, 2), keepdim=True)
        good = (share > 0) & (share < 1)  # else the pair stays as it was
        mask = torch.where(good, hole.to(mask.dtype), mask)
        return TensorImage(torch.where(good[:, None], moved, image)), TensorMask(mask)


def brightness_contrast(x: torch.Tensor, most: float = 0.2) -> torch.Tensor:
    "Images `[B, 3, H, W]` in [0, 1], times 1 ± `most` and plus ± `most`, clipped"
    done = _coin(x, 1, 1, 1)
    factor, summand = (done * _uniform(x, most, 1, 1, 1) for _ in range(2))
    return (x * (1 + factor) + summand).clamp(0, 1)


def _turn_hue(x: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    "Images `[B, 3, H, W]` with colours turned about grey by `angle` `[B, 1, 1]` (radians)"
    cross = torch.tensor([[0., -1, 1], [1, 0, -1], [-1, 1, 0]], device=x.device) / math.sqrt(3)
    along = angle.cos() * torch.eye(3, device=x.device)
    mat = along + angle.sin() * cross + (1 - angle.cos()) / 3  # Rodrigues' formula
    return (mat @ x.flatten(2)).view_as(x)


def hue_saturation_value(x: torch.Tensor) -> torch.Tensor:
    "Images `[B, 3, H, W]` in [0, 1], their colours by ± 10° of hue, 30/255 of saturation, 5/255 of value"
    done = _coin(x, 1, 1, 1)
    angle, saturation, value = (done * _uniform(x, o, 1, 1, 1) for o in (math.pi / 18, 30 / 255, 5 / 255))
    least = 1 / 255  # channels that differ by less are grey
    high, turned = x.amax(1, keepdim=True), _turn_hue(x, angle[:, 0])
    saturation = saturation + 1 - x.amin(1, keepdim=True) / high.clamp_min(least)
    most = turned.amax(1, keepdim=True)
    shape = (most - turned) / (most - turned.amin(1, keepdim=True)).clamp_min(least)  # of HSV's hue: 0, h, 1
    return (high + value).clamp(0, 1) * (1 - shape * saturation.clamp(0, 1))


class LightAugment(ItemTransform):
    "Changes the colours of images in training batches"
    order, split_idx = 40, 0
    def encodes(self, b):
        image = hue_saturation_value(brightness_contrast(b[0].as_subclass(torch.Tensor)))
        return TensorImage(image), b[1]


def lama_augment(moves_masks: bool = True) -> list:
    "Perspective, scale 0.7-1.3, 40°, distortion, flip; brightness, contrast, hue, saturation, value"
    return [SpaceAugment(moves_masks), LightAugment()]
