"Augmentation of training batches on the device: LaMa's ranges (Suvorov et al. 2022), per image"
import math
from functools import partial

import torch
import torch.nn.functional as F
from fastai.torch_core import TensorImage, TensorMask
from fastai.vision import augment


def _uniform(x: torch.Tensor, most: float, p: float, *shape: int) -> torch.Tensor:
    "Draws `[B, *shape]` from [-most, most] for batch `x`; all 0 with probability 1 - `p`"
    draw = torch.empty(len(x), *shape, device=x.device).uniform_(-most, most)
    drawn = augment.mask_tensor(torch.ones(len(x), device=x.device), p)
    return draw * drawn.view(-1, *(1 for _ in shape))


def shear_mat(x: torch.Tensor, most: float = 0.1, p: float = 0.5) -> torch.Tensor:
    "Matrices `[B, 3, 3]` that shear along both axes by up to `most` (a ratio)"
    sx, sy = _uniform(x, most, p, 2).unbind(1)
    one, zero = torch.ones_like(sx), torch.zeros_like(sx)
    return augment.affine_mat(one, sx, zero, sy, one, zero)


def perspective_mat(x: torch.Tensor, most: float = 0.06, p: float = 0.5) -> torch.Tensor:
    "Homographies `[B, 3, 3]` that move each corner by up to `most` of the image's side"
    square = torch.tensor([[-1., -1], [-1, 1], [1, -1], [1, 1]], device=x.device)
    corners = square.expand(len(x), 4, 2)
    coeffs = augment.find_coeffs(corners, corners + _uniform(x, 2 * most, p, 4, 2)).flatten(1)
    return F.pad(coeffs, (0, 1), value=1.).view(-1, 3, 3)


def warp_grid(mat: torch.Tensor, height: int, width: int) -> torch.Tensor:
    "Sampling coordinates `[B, H, W, 2]` of homographies `[B, 3, 3]` of the square [-1, 1]²"
    sides = (torch.linspace(-1, 1, n, device=mat.device) for n in (height, width))
    y, x = torch.meshgrid(*sides, indexing="ij")
    homogeneous = mat @ torch.stack((x, y, torch.ones_like(x))).flatten(1)
    return (homogeneous[:, :2] / homogeneous[:, 2:]).view(-1, 2, height, width).permute(0, 2, 3, 1)


class SpaceAugment(augment.RandTransform):
    "Moves image and mask alike by the product of `mats(batch)` `[B, 3, 3]`; reflects what comes in"
    order = 30  # fastai's AffineCoordTfm is several times as slow on a CPU
    def __init__(self, mats: list):
        super().__init__()
        self.mats = mats

    def __call__(self, b, split_idx: int | None = None, **kwargs):
        if split_idx: return b
        image, mask = (o.as_subclass(torch.Tensor) for o in b)
        mat = torch.eye(3, device=image.device)
        for draw in self.mats: mat = mat @ draw(image).as_subclass(torch.Tensor)
        grid = warp_grid(mat, *image.shape[-2:])
        kwargs = dict(padding_mode="reflection", align_corners=True)
        moved = F.grid_sample(image, grid, **kwargs)
        hole = F.grid_sample(mask[:, None].to(image.dtype), grid, mode="nearest", **kwargs)[:, 0]
        share = hole.mean((1, 2), keepdim=True)
        good = (share > 0) & (share < 1)  # else the pair stays as it was
        mask = torch.where(good, hole.to(mask.dtype), mask)
        return TensorImage(torch.where(good[:, None], moved, image)), TensorMask(mask)


class HueLogit:
    "Turns colours about grey by up to `most` of the circle; fastai's `Hue`, by way of HSV, is far slower"
    def __init__(self, most: float, p: float = 0.75): self.most, self.p = most, p

    def before_call(self, x: torch.Tensor):
        angle = _uniform(x, 2 * math.pi * self.most, self.p, 1, 1)
        cross = torch.tensor([[0., -1, 1], [1, 0, -1], [-1, 1, 0]], device=x.device) / math.sqrt(3)
        along = angle.cos() * torch.eye(3, device=x.device)
        self.mat = along + angle.sin() * cross + (1 - angle.cos()) / 3  # Rodrigues' formula

    def __call__(self, x: torch.Tensor): return (self.mat @ x.flatten(2)).view_as(x)


def in_logit_space(x: TensorImage, f) -> TensorImage:
    "`f` on the logits of `x`, so that values stay in [0, 1]; faster than fastai's `lighting`"
    return TensorImage(torch.sigmoid(f(torch.logit(x.as_subclass(torch.Tensor), eps=1e-6))))


class LightAugment(augment.SpaceTfm):
    "fastai's changes of an image's colours, of training batches alone"
    def __call__(self, b, split_idx: int | None = None, **kwargs):
        return b if split_idx else super().__call__(b, split_idx=split_idx, **kwargs)


def lama_augment() -> list:
    "Flip, 40°, shear, perspective, scale 0.7-1.3; brightness, contrast, saturation, hue"
    space = [partial(augment.flip_mat, p=0.5), partial(augment.rotate_mat, max_deg=40, p=0.5),
             shear_mat, perspective_mat, partial(augment.zoom_mat, min_zoom=0.7, max_zoom=1.3, p=0.5)]
    light = augment.Brightness(0.2), augment.Contrast(0.2), augment.Saturation(30 / 255)
    fs = [f for o in light for f in o.fs]
    return [SpaceAugment(space), LightAugment([*fs, HueLogit(5 / 180)], in_logit_space)]
