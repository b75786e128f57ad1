"Filling photographs: the path from an image and its hole to the result"
import sys
import warnings
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from fastprogress.fastprogress import IN_NOTEBOOK

from ..core.device import choose_device
from ..core.errors import InputError
from ..data.pictures import open_picture
from ..models.load import read_model
from . import strategies
from .hole import dilated, feathered, read_hole
from .texture.several import textured


class Inpainter:
    """Fills photographs with `model` on `device`, "auto" for the model's own or a GPU.

    `model` is an `InpaintNet`, of which a copy is made, or what `read_model` takes. `precision` is
    "fp32" or "bf16", `strategy` one of `STRATEGIES`, or "auto", which depends on the memory at hand: name
    one for the same result everywhere. Raises InputError where an argument does not fit."""
    def __init__(self, model="sample", device="auto", precision="fp32", strategy="auto"):
        if precision not in ("fp32", "bf16"):
            raise InputError(f"no precision {precision!r}: expected fp32 or bf16")
        if isinstance(model, str | Path): model = read_model(model)
        elif device == "auto": device = next(model.parameters()).device
        self.device = choose_device(device)
        self.model, self.precision, self.strategy = model, precision, strategy
        winograd = self.device.type == "cpu" and precision == "fp32"  # its sums need full precision
        self.net = model.folded(winograd).to(self.device)

    def __call__(self, image, mask, invert=False, dilate=0, feather=0, refine=False, strategy=None,
                 texture=True):
        """`image` with its hole filled, a `PIL.Image` of its size (16-bit colours: an array).

        Both are paths, PIL images or arrays: image uint8 or uint16 `[H, W]` or `[H, W, C]`, mask
        bool or uint8 of 0/1 or 0…255 `[H, W]`; 1 or white is the hole, with `invert` black. The hole
        is first grown by a disc of radius `dilate`, in pixels. Pixels outside, and alpha everywhere,
        are bit-identical in the result. `feather` blends original and fill in the outer pixels that
        `dilate` added; `refine` improves large fills (see `refined`); `texture` gives the network's fill the
        photograph's own (see `textured`). Raises InputError where sizes, types or options do not fit and
        where all is hole; warns where nothing is."""
        options = invert, dilate, feather, refine, strategy, texture
        return self._fills(open_picture(image), mask, 1, *options)[0].image

    def several(self, image, mask, n=4, **options):
        """`n` different results of `__call__`, which takes the same `options`; the most coherent comes first.

        Raises InputError without texture, in which they differ, too."""
        return [picture.image for picture in self._fills(open_picture(image), mask, n, **options)]

    def fill_file(self, image, mask, out, n=1, **options):
        """As `__call__`, to the file `out`, with EXIF and colour profile; returns the paths of the results.

        `n` beyond 1: as `several`, to the paths of `numbered`. Raises what `Picture.save` does."""
        picture, outs = open_picture(image), numbered(out, n)
        picture.check_fits(outs[0].suffix.lower())
        fills = self._fills(picture, mask, n, **options)
        for fill, path in zip(fills, outs, strict=True): fill.save(path)
        return outs

    def _fills(self, picture, mask, n, invert=False, dilate=0, feather=0, refine=False, strategy=None,
               texture=True):
        "The `Picture`, filled, `n` times"
        if not 0 <= feather <= dilate:
            raise InputError(f"cannot feather {feather} of {dilate} dilated pixels: 0 to what dilate adds")
        if n < 1 or n > 1 and not texture:
            raise InputError(f"no {n} fills: expected 1 or more; as they differ in texture, 1 without")
        rgb, hole = picture.rgb, read_hole(mask, invert)
        if rgb.shape[:2] != hole.shape:
            (h, w), (mh, mw) = rgb.shape[:2], hole.shape
            raise InputError(f"the image is {w}x{h} pixels, its mask {mw}x{mh}; they must be equal")
        tip = f"White is hole; if black is, pass invert={not invert}"
        if not hole.any():
            warnings.warn(f"nothing to fill: the mask has no hole. {tip}", stacklevel=3)
            return [picture]*n
        grown = dilated(hole, dilate)
        if grown.all():
            raise InputError(f"the hole is the whole image, so nothing is known to continue. {tip}")
        filled = [self._predicted(rgb, grown, refine, strategy or self.strategy)]
        where = self.device if self.device.type == "cuda" else "cpu"  # Apple's lacks what it takes
        if texture: filled = textured(rgb, grown, *filled, n, device=where)
        if feather: filled = [feathered(rgb, fill, hole, grown, feather) for fill in filled]
        return [picture.with_colours(fill, grown) for fill in filled]

    def _predicted(self, rgb, hole, refine, strategy):
        "`rgb` `[H, W, 3]` with its hole filled by the network"
        def predict(image, hole):
            x = np.divide(image, np.iinfo(image.dtype).max, dtype=np.float32)
            x = torch.from_numpy(x).permute(2, 0, 1)[None].to(self.device)
            mask = torch.from_numpy(hole)[None, None].float().to(self.device)
            return net(x*(1 - mask), mask)[0].permute(1, 2, 0).float().cpu().numpy()

        net, pixels = self.net, strategies.pixels_at_once(self.model, self.device, refine)
        if refine:
            from .refine import refined  # seconds to import
            net = partial(refined, net, pixels=pixels, progress=IN_NOTEBOOK or sys.stdout.isatty())
            if strategy == "auto": strategy = "crop"  # tiles, each refined alone, would lose structure
        cast = torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()
        with torch.no_grad(), cast: return strategies.fill(predict, rgb, hole, strategy, pixels)


def numbered(out, n):
    "The paths of `n` results: `out`, or with -1, -2 … before its suffix"
    out = Path(out)
    return [out.with_stem(f"{out.stem}-{i}") for i in range(1, n + 1)] if n > 1 else [out]
