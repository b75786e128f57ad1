"Filling photographs: one path from an image and its hole to the result, behind `Learner.inpaint`, the command line and the page"
import sys
import warnings
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from fastprogress.fastprogress import IN_NOTEBOOK
from PIL import Image
from scipy.ndimage import distance_transform_edt

from ..core.device import choose_device, memory_at_hand
from ..data.masks import hole_of, read_mask
from ..data.pictures import open_picture, reading
from ..models.load import read_model
from . import strategies

# Bytes that a forward pass takes for each pixel, and besides for each channel of the first stage. Measured as growth of the peak
# resident memory on a CPU: 225 a pixel at width 8, 392 at 16, 686 at 32 and 1411 at 64, about alike from 512² to 2048² pixels.
BYTES, BYTES_PER_CHANNEL = 120, 21
REFINED = 8           # times as many where gradients are kept
SHARE_OF_MEMORY = .7  # the rest is for photograph and result, and for what allocators lose between their pieces


class Inpainter:
    """Fills photographs with `model`, on `device`, in `precision` ("fp32" or "bf16"), by `strategy`; without any randomness.

    `model` is an `InpaintNet`, whose weights are taken as they are now, a `.safetensors` file of `save_model`, a published LaMa
    checkpoint (`.ckpt`, `.pt`, `.pth`), or "sample". `device` "auto" is that of the `InpaintNet`, else the GPU if there is one.
    `strategy` is "whole", "crop", "tiles", "resize" (see `strategies`) or "auto", which goes by the memory at hand: name one for
    the same result on every machine. Raises ValueError, and FileNotFoundError, where one of them does not fit.
    """
    def __init__(self, model="sample", device="auto", precision="fp32", strategy="auto"):
        if precision not in ("fp32", "bf16"): raise ValueError(f"no precision {precision!r}: expected fp32 or bf16")
        if isinstance(model, str | Path):
            model, self.device = read_model(model), choose_device(device)
        else: self.device = next(model.parameters()).device if device == "auto" else choose_device(device)
        self.model, self.precision, self.strategy = model, precision, strategy
        # the copy that fills; half precision is no place for Winograd's sums
        self.net = model.folded(winograd=self.device.type == "cpu" and precision == "fp32").to(self.device)

    def __call__(self, image, mask, invert=False, dilate=0, feather=0, refine=False, strategy=None):
        """`image` with the hole of `mask` filled, a `PIL.Image` of its mode and size (16-bit colours: a uint16 array).

        Both are paths, PIL images or arrays: image uint8 or uint16 `[H, W]` or `[H, W, C]`, mask `[H, W]`, bool or uint8 of
        0/1 or 0…255; 1 or white is the hole, with `invert` black. See `open_picture` for what becomes of palettes and the like.

        The hole is first grown by a disc of radius `dilate` pixels. All pixels outside are bit-identical in the result, and alpha
        is everywhere. `feather` blends original and fill in the outer so many pixels of what `dilate` added: the
        hole proper has no original to blend. `refine` lets the LaMa refiner improve large fills.

        Raises ValueError where sizes, types or options do not fit and where all is hole; warns where nothing is.
        """
        return self._fill(open_picture(image), mask, invert, dilate, feather, refine, strategy).image

    def fill_file(self, image, mask, out, **options):
        """Fill the photograph `image` as in `__call__` and write it to the file `out`, whole or not at all.

        EXIF, colour profile and resolution go along. `out` names the format by its extension; raises what `Picture.save` raises,
        of a format that does not fit before anything is filled.
        """
        picture = open_picture(image)
        picture.check_fits(Path(out).suffix.lower())
        self._fill(picture, mask, **options).save(out)

    def _fill(self, picture, mask, invert=False, dilate=0, feather=0, refine=False, strategy=None):
        "The `Picture`, filled"
        if not 0 <= feather <= dilate:
            raise ValueError(f"cannot feather {feather} of {dilate} dilated pixels: at least 0, and at most what dilate adds")
        hole = read_hole(mask, invert)
        if picture.pixels.shape[:2] != hole.shape:
            (h, w), (mh, mw) = picture.pixels.shape[:2], hole.shape
            raise ValueError(f"the image is {w}x{h} pixels, its mask {mw}x{mh}; they must be of one size")
        tip = f"White is hole; if black is, pass invert={not invert}"
        if not hole.any():
            warnings.warn(f"nothing to fill: the mask has no hole. {tip}", stacklevel=3)
            return picture
        grown = distance_transform_edt(~hole) <= dilate if dilate else hole
        if grown.all():
            raise ValueError(f"the hole is the whole image, so nothing is known to continue. {tip}")
        rgb = picture.rgb
        filled = self._predicted(rgb, grown, refine, strategy or self.strategy)
        if feather: filled = feathered(rgb, filled, hole, grown, feather)
        return picture.with_colours(filled, grown)

    def _predicted(self, rgb, hole, refine, strategy):
        "`rgb` `[H, W, 3]` with its hole filled by the network"
        def predict(image, hole):
            x = torch.from_numpy(np.divide(image, np.iinfo(image.dtype).max, dtype=np.float32)).permute(2, 0, 1)[None]
            mask = torch.from_numpy(hole)[None, None].float().to(self.device)
            return net(x.to(self.device)*(1 - mask), mask)[0].permute(1, 2, 0).float().cpu().numpy()

        net, pixels = self.net, memory_at_hand(self.device)*SHARE_OF_MEMORY/bytes_per_pixel(self.model)
        if refine:
            from .refine import refined  # seconds to import
            pixels /= REFINED
            # sizes that do not fit are its own business: tiles, each refined alone, would lose the large structure
            net = partial(refined, self.net, pixels=pixels, progress=IN_NOTEBOOK or sys.stdout.isatty())
            if strategy == "auto": strategy = "crop"
        cast = torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()
        with torch.no_grad(), cast: return strategies.fill(predict, rgb, hole, strategy, pixels)


def read_hole(mask, invert=False):
    "The hole of a path, PIL image or array, bool `[H, W]`; 1 or white is hole, with `invert` black"
    if isinstance(mask, np.ndarray):
        if mask.ndim != 2 or mask.dtype not in (bool, np.uint8):
            raise ValueError(f"a mask array is bool or uint8 [H, W], got {mask.dtype} {list(mask.shape)}")
        return (mask if mask.dtype == bool else mask > 0 if mask.max(initial=0) <= 1 else mask >= 128) != invert
    if isinstance(mask, Image.Image): return hole_of(mask, invert)
    with reading(mask): return read_mask(mask, invert)


def feathered(rgb, filled, hole, grown, feather):
    "`filled` blended into `rgb` in the outer `feather` pixels of `grown` that are not `hole`"
    weight = np.minimum(distance_transform_edt(grown)/(feather + 1), 1)
    band = grown & ~hole & (weight < 1)
    weight, result = weight[band][:, None], filled.copy()
    result[band] = np.rint(weight*filled[band] + (1 - weight)*rgb[band])
    return result


def bytes_per_pixel(model):
    "About what a forward pass takes for each pixel; a network of unknown width is taken for as wide as the published ones"
    return BYTES + BYTES_PER_CHANNEL*getattr(model, "config", {}).get("width", 64)
