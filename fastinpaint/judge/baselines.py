"""Fills that need no training, each called like a model: `fill(image, mask)`.

`image` `[B, 3, H, W]` in [0, 1], its hole ignored; `mask` `[B, 1, H, W]`, 1 in the hole. Only the hole of
the result counts. All but the first two raise MissingPackage without the extra `eval`."""
from functools import wraps

import numpy as np
import torch

from ..core.errors import MissingPackage
from ..kernels.prefill import smooth_fill


def mean_colour(image, mask):
    "The mean colour of what is known; black where nothing is"
    known, sides = 1 - mask, dict(dim=(2, 3), keepdim=True)
    return ((image*known).sum(**sides)/known.sum(**sides).clamp_min(1)).expand_as(image)


def each_image(fill):
    "Makes a fill of uint8 `[H, W, 3]` and bool `[H, W]`, to uint8 or [0, 1], one of batches"
    @wraps(fill)
    def batched(image, mask):
        known = ((image*(1 - mask)).permute(0, 2, 3, 1).clamp(0, 1)*255).round().byte().cpu().numpy()
        pairs = zip(known, mask[:, 0].cpu().numpy() > .5, strict=True)
        try: filled = np.stack([fill(*pair) for pair in pairs])
        except ImportError as e: raise MissingPackage(f"{e}; pip install fastinpaint[eval]") from e
        scale = 255 if filled.dtype == np.uint8 else 1
        return torch.from_numpy(filled).permute(0, 3, 1, 2).contiguous().to(image.device).float()/scale
    return batched


@each_image
def telea(image, hole):
    "Fast marching (Telea 2004), OpenCV, radius 3"
    import cv2
    return cv2.inpaint(image, hole.astype(np.uint8), 3, cv2.INPAINT_TELEA)


@each_image
def navier_stokes(image, hole):
    "Fluid dynamics (Bertalmio et al. 2001), OpenCV, radius 3"
    import cv2
    return cv2.inpaint(image, hole.astype(np.uint8), 3, cv2.INPAINT_NS)


@each_image
def biharmonic(image, hole):
    "Biharmonic functions (Damelin & Hoang 2018), scikit-image; slow for large holes"
    from skimage.restoration import inpaint_biharmonic
    return inpaint_biharmonic(image, hole, channel_axis=-1).clip(0, 1)


@each_image
def patchmatch(image, hole):
    """Patches copied from the known part (Barnes et al. 2009), patchmatch-cython (BSD), seed 0.

    At one size where many strokes leave nothing known at the smallest of its pyramid."""
    from patchmatch_cython import inpaint_pyramid, inpaint_single
    try: return inpaint_pyramid(image, hole, seed=0)
    except ValueError: return inpaint_single(image, hole, seed=0)


BASELINES = {f.__name__: f for f in (mean_colour, smooth_fill, telea, navier_stokes, biharmonic, patchmatch)}
