"Filling photographs: the path from an image and its hole to the result"
import sys
import warnings
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from fastprogress.fastprogress import IN_NOTEBOOK

from ..core.device import choose_device
from ..core.errors import InputError
from ..core.limits import go_on
from ..data.masks import MOSTLY, TIPS
from ..data.pictures import open_picture
from ..models.load import read_model
from ..models.net import InpaintNet
from ..models.pipeline import PipelineNet
from ..models.refiner import without_detail
from . import strategies
from .hole import SOLID, blended, dilated, feathered, read_opacity, resized
from .texture.several import textured
from .work import Options, Work, of_one_size

CPU_AT_ONCE, GPU_AT_ONCE = 4, 16  # photographs of one size in the network; on a CPU more leave its caches


class Inpainter:
    """Fills photographs with `model` on `device`, "auto" for the model's own or a GPU.

    `model` is an `InpaintNet`, of which a copy is made, a `PipelineNet`, or what `read_model` takes.
    `precision` is "fp32" or "bf16", `strategy` one of `STRATEGIES`, or "auto", which depends on the memory at
    hand: name one for the same result everywhere. Raises InputError where an argument does not fit."""
    def __init__(self, model="sample", device="auto", precision="fp32", strategy="auto"):
        if precision not in ("fp32", "bf16"):
            raise InputError(f"no precision {precision!r}: expected fp32 or bf16")
        if isinstance(model, str | Path): model = read_model(model)
        elif not isinstance(model, InpaintNet | PipelineNet):
            raise InputError("a model is an InpaintNet, a file's name or \"sample\", not "
                             f"{type(model).__name__}; photographs go to Inpainter(model)(image, mask)")
        elif device == "auto": device = next(model.parameters()).device
        self.device = choose_device(device)
        self.model, self.precision, self.strategy = model, precision, strategy
        self.generates = model.generates
        winograd = self.device.type == "cpu" and precision == "fp32"  # its sums need full precision
        self.net = model.folded(winograd).to(self.device)
        self.net.holes_only = True
        self.guide = without_detail(self.net)  # texture is the photograph's own

    def __call__(self, image, mask=None, invert=False, dilate=0, feather=0, refine=False, strategy=None,
                 texture=None, seed=0, resize_mask=False, soft=False, extend=(0, 0, 0, 0)):
        """`image` with its hole filled, a `PIL.Image` of its size (16-bit colours: an array).

        Both are paths, PIL images or arrays: image uint8 or uint16 `[H, W]` or `[H, W, C]`, mask
        bool or uint8 of 0/1 or 0…255 `[H, W]`; 1 or white is the hole, with `invert` black. The hole
        is first grown by a disc of radius `dilate`, in pixels. Pixels outside, and alpha everywhere,
        are bit-identical in the result. `feather` blends original and fill in the outer pixels that
        `dilate` added; `refine` improves large fills (see `refined`); `texture` gives the network's fill the
        photograph's own (see `textured`), by default unless the network generates, of which patches would
        cover what makes one fill differ from another. `seed` is of all that is random. `resize_mask` brings
        a mask to the image's size. With `soft`, grey in a mask is opacity: all but black is filled, and fill
        and original are blended by it; black stays bit-identical. `extend`, pixels to the left, at the
        top, to the right and at the bottom, makes the picture larger and fills that, too: with or without a
        mask.
        Raises InputError where sizes, types or options do not fit and where all is hole; warns where nothing
        is."""
        options = Options(invert, dilate, feather, refine, strategy, texture, seed, resize_mask, soft, extend)
        return self._fills(opened(image, mask, options), 1)[0].image

    def extend(self, image, left=0, top=0, right=0, bottom=0, mask=None, **options):
        "`__call__` with so many more pixels on each side, which are filled like a hole"
        return self(image, mask, extend=(left, top, right, bottom), **options)

    def several(self, image, mask=None, n=4, **options):
        """`n` different results of `__call__`, which takes the same `options`; the most coherent comes first.

        Of a network that generates, those of `seed` and the seeds after it, in this order; of others they
        differ in texture: InputError without."""
        return [picture.image for picture in self._fills(opened(image, mask, Options(**options)), n)]

    def fill_file(self, image, mask, out, n=1, **options):
        """As `__call__`, to the file `out`, with all that a file keeps; returns the paths of the results.

        `n` beyond 1: as `several`, to the paths of `numbered`. `quality` and errors are `Picture.save`'s."""
        outs = numbered(out, n)
        work = opened(image, mask, options := Options(**options), outs[0].suffix.lower())
        for fill, path in zip(self._fills(work, n), outs, strict=True): fill.save(path, options.quality)
        return outs

    def fill_bytes(self, image, mask, suffix, **options):
        "As `fill_file`: the bytes of a file that ends in `suffix`"
        work = opened(image, mask, options := Options(**options), suffix)
        return self._fills(work, 1)[0].encode(suffix, options.quality)

    def many(self, pairs, at_once=None, **options):
        """Yields what `__call__` gives for each (image, mask) of `pairs`, which may be endless, in order.

        Neighbours of one size pass through the network together, `at_once` of them at most (on a CPU 4, on
        a GPU 16), where it sees them whole. Its sums then go in another order: colours differ by 1e-6 of
        the range, so a pixel by one level now and then, and texture may copy another patch. Texture is
        made for each alone. `options` and errors are those of `__call__`; an error also takes the results of
        those that it was to be filled with."""
        options = Options(**options)
        works = (opened(image, mask, options) for image, mask in pairs)
        for together in of_one_size(works, at_once or self.at_once):
            self.predict(together)
            for work in together: yield self.finished(work)[0].image

    @property
    def at_once(self):
        "How many photographs of one size go through the network together in `many`"
        return GPU_AT_ONCE if self.device.type == "cuda" else CPU_AT_ONCE

    def _fills(self, work, n):
        options, generates = work.options, self.generates
        options.check_number(n, generates)
        pictures = []
        for seed in range(options.seed, options.seed + n) if generates else [options.seed]:
            work.options = replace(options, seed=seed)
            self.predict([work])
            pictures += self.finished(work, 1 if generates else n)
        return pictures

    def predict(self, works):
        "Let the network fill `works`, which are of one size and have the same options"
        works = [work for work in works if work.hole.any()]
        if not works: return
        refine, strategy = works[0].options.refine, works[0].options.strategy or self.strategy
        pixels = strategies.pixels_at_once(self.model, self.device, refine)
        if refine and strategy == "auto": strategy = "crop"  # tiles, each refined alone, would lose structure
        whole = strategy == "whole" or strategy == "auto" and strategies.fits_whole(works[0].hole, pixels)
        cast = torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()
        net = self.guide if works[0].options.textured(self.generates) else self.net
        if self.generates and not refine: net = partial(net, seed=works[0].options.seed)
        with torch.no_grad(), cast:
            if len(works) > 1 and whole and not refine and len(works)*works[0].hole.size <= pixels:
                return self._predict_together(net, works)
            if refine:
                from .refine import refined  # seconds to import
                shown = IN_NOTEBOOK or sys.stdout.isatty()
                net = partial(refined, net, pixels=pixels, progress=shown, say=_say)
            def predict(image, hole): return self._seen(net, [image], [hole])[0]
            for work in works:
                work.filled, work.strategy = strategies.fill(predict, work.rgb, work.grown, strategy, pixels)

    def _predict_together(self, net, works):
        seen = self._seen(net, [work.rgb for work in works], [work.grown for work in works])
        for work, colours in zip(works, seen, strict=True):
            work.filled, work.strategy = work.rgb.copy(), "whole"
            strategies.write(work.filled, work.grown, colours)

    def _seen(self, net, images, holes):
        "What `net` makes of parts of photographs, `[h, w, 3]` each and of one size: float32 in [0, 1]"
        go_on()
        x = np.stack([np.divide(o, np.iinfo(o.dtype).max, dtype=np.float32) for o in images])
        x = torch.from_numpy(x).permute(0, 3, 1, 2).to(self.device)
        mask = torch.from_numpy(np.stack(holes))[:, None].float().to(self.device)
        seen = net(x*(1 - mask), mask).permute(0, 2, 3, 1).float().cpu().numpy()
        if not np.isfinite(seen).all():
            raise InputError("the network's fill holds NaN or infinity: its weights are damaged, or too "
                             f"large for the precision {self.precision}")
        return seen

    def finished(self, work, n=1):
        "The `Picture`s of `work`, filled by `predict`: with texture in `n` ways, and feathered"
        picture, options = work.picture, work.options
        if work.filled is None: return [picture]*n
        filled = [work.filled]
        where = self.device if self.device.type == "cuda" else "cpu"  # Apple's lacks what it takes
        if options.textured(self.generates):
            filled = textured(work.rgb, work.grown, *filled, n, options.seed, where)
        if options.feather:
            filled = [feathered(work.rgb, fill, work.hole, work.grown, options.feather) for fill in filled]
        if options.soft: filled = [blended(work.rgb, fill, work.opacity) for fill in filled]
        return [picture.with_colours(fill, work.grown) for fill in filled]


def opened(image, mask, options, suffix=None):
    """The `Work` of a photograph and its mask; raises and warns as `Inpainter.__call__` does.

    With `suffix`, also InputError where a file of that kind cannot hold the result."""
    picture = open_picture(image)
    if suffix is not None: picture.check_fits(suffix, options.quality)
    opacity = _opacity(picture.pixels.shape[:2], mask, options)
    share = (opacity >= SOLID).mean()
    if any(options.extend):
        left, top, right, bottom = options.extend
        picture = picture.extended(*options.extend)
        opacity = np.pad(opacity, ((top, bottom), (left, right)), constant_values=255)
    hole = opacity > 0 if options.soft else opacity >= SOLID
    tip = f"1, white or painted means hole; if this mask means the opposite, {TIPS[options.invert]}"
    if not hole.any(): warnings.warn(f"nothing to fill: the mask has no hole. {tip}", stacklevel=3)
    grown = dilated(hole, options.dilate) if hole.any() else hole
    if grown.any() and grown.all():
        raise InputError(f"the hole is the whole image, so nothing is known to continue. {tip}")
    if share > MOSTLY: warnings.warn(f"over {MOSTLY:.0%} of the image is hole. {tip}", stacklevel=3)
    return Work(picture, picture.rgb, hole, grown, options, opacity if options.soft else None)


def _opacity(size, mask, options):
    "uint8 `[H, W]` of `mask` for a photograph of `size`; raises InputError as `opened`"
    if mask is None and any(options.extend): return np.zeros(size, np.uint8)
    opacity = read_opacity(mask, options.invert)
    if opacity.shape == size: return opacity
    if options.resize_mask: return resized(opacity, size, options.soft)
    (h, w), (mh, mw) = size, opacity.shape
    raise InputError(f"the image is {w}x{h} pixels, its mask {mw}x{mh}; they must be equal, or ask for the "
                     "mask to be resized by resize_mask=True (--resize-masks)")


def _say(text): print(f"refined: {text}", file=sys.stderr)


def numbered(out, n):
    "The paths of `n` results: `out`, or with -1, -2 … before its suffix"
    out = Path(out)
    return [out.with_stem(f"{out.stem}-{i}") for i in range(1, n + 1)] if n > 1 else [out]
