"Sources of holes, of one interface; a photograph's `name` is its path in the folder of photographs"
import math
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..core.errors import InputError
from .holes import PRESETS
from .photos import Skipped, central_square, find_images, image_size, to_rgb
from .shard_index import file_at, find_photos, relative_name
from .shards import source_of

MOSTLY = .6  # share of hole from which a mask looks inverted
TIPS = {False: "pass invert=True (--invert)", True: "pass invert=False (leave out --invert)"}  # by `invert`


class HoleName(str):
    "A photograph's name, in place of its hole, which is drawn later at the crop's size"


def read_mask(source, invert: bool = False) -> np.ndarray:
    """A mask file (of a shard, too) as bool `[H, W]`, upright, True = hole; raises what Pillow raises.

    Grey of 128 and more is hole, in a file of 0 and 1 alone 1; of strokes on transparency, as layers are
    exported, what is painted, in any colour. `invert` swaps hole and known."""
    with Image.open(file_at(source)) as im:
        ImageOps.exif_transpose(im, in_place=True)
        return hole_of(im, invert)


def hole_of(im: Image.Image, invert: bool = False) -> np.ndarray:
    "The hole that a mask's picture shows, as in `read_mask`"
    return (opacity_of(im) >= 128) != invert


def opacity_of(im: Image.Image, invert: bool = False) -> np.ndarray:
    "uint8 `[H, W]`: how much of a fill a mask's picture lets through, 0 none and 255 all; as in `read_mask`"
    opacity = _opacity(im)
    return 255 - opacity if invert else opacity


def _opacity(im):
    if im.has_transparency_data:
        alpha = np.asarray(im.convert("RGBA").getchannel("A"))
        if alpha.min(initial=255) < alpha.max(initial=0): return alpha
    grey = np.asarray(to_rgb(im).convert("L"))
    values = np.asarray(im) if im.mode in ("1", "L", "P") else grey
    return grey if values.max(initial=0) > 1 else np.uint8(255)*(values > 0)


def _check_shares(files: list[str], invert: bool, skipped: Skipped):
    """White is hole, yet many mask sets mean the opposite: warn where masks are mostly hole.

    Raises InputError where none has a hole, or none leaves anything of its photograph."""
    shares = {}
    for fn in files[::math.ceil(len(files) / 200)]:  # all of a large folder would take minutes
        with skipped.unreadable(fn): shares[fn] = read_mask(fn, invert).mean()
    for share, what in {0: "has a hole", 1: "leaves anything of its photograph"}.items():
        if shares and {*shares.values()} == {share}:
            raise InputError(f"none of the {len(shares)} masks looked at {what}, such as {[*shares][0]}: "
                             f"1 or white means hole; if these files mean the opposite, {TIPS[invert]}")
    mostly = [f"{fn} ({share:.0%})" for fn, share in shares.items() if share > MOSTLY]
    if mostly:
        warnings.warn(f"{len(mostly)} mask(s) are over 60 % hole, such as {mostly[0]}: 1 or white "
                      f"means hole; if these files mean the opposite, {TIPS[invert]}", stacklevel=3)


class DrawnHoles:
    "Holes that `sampler` draws, at any size"
    folders, files = (), []  # of mask files
    def __init__(self, sampler: Callable): self.sampler = sampler

    def check(self, photos: Iterable[tuple[str, str]], skipped: Skipped, sizes: bool):
        "Look at mask files before training starts; `photos` are (name, file)"

    def open(self, name: str, photo: str | Path, skipped: Skipped):
        "What a dataset holds for the hole; None, and logged, where it cannot be read"
        return HoleName(name)

    def draw(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        "A hole, uint8 `[H, W]` of 0 and 1; raises InputError where the sampler gives another"
        hole = np.asarray(self.sampler(height, width, rng))
        if hole.shape != (height, width):
            raise InputError(f"the sampler returned shape {hole.shape}, expected {(height, width)}")
        if hole.dtype != bool and not np.isin(hole, (0, 1)).all():
            raise InputError("the sampler returned values other than 0 and 1; compare with a threshold")
        return hole.astype(np.uint8)

    def central(self, name: str, photo: str | Path, size: int, rng: np.random.Generator):
        "The hole in the photograph's `central_square`, bool `[size, size]`"
        return self.draw(size, size, rng).astype(bool)


class MaskPool(DrawnHoles):
    "Holes drawn from the mask files in a folder, resized (nearest) to the image"
    def __init__(self, folder: str | Path, invert: bool = False):
        self.folders, self.invert, self.files = (folder,), invert, find_images(folder)
        self.skipped = Skipped([])

    def check(self, photos: Iterable[tuple[str, str]], skipped: Skipped, sizes: bool):
        "Log unreadable files in `skipped` from now on; raises and warns as `_check_shares`"
        self.skipped = skipped
        _check_shares(self.files, self.invert, skipped)

    def sampler(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        "One of the masks, bool `[H, W]`. Raises InputError if none can be read."
        for i in rng.permutation(len(self.files)):
            with self.skipped.unreadable(self.files[i]):
                hole = Image.fromarray(read_mask(self.files[i], self.invert))
                return np.asarray(hole.resize((width, height), Image.Resampling.NEAREST))
        raise InputError(f"none of the {len(self.files)} mask files in {self.folders[0]} could be read")


class MaskFolder:
    "A mask for each photograph: same path within the folder or same file stem, any format"
    def __init__(self, folder: str | Path, invert: bool = False):
        self.folders, self.invert, self.files = (folder,), invert, find_photos(folder)
        stems = Counter(Path(o).stem for o in self.files)  # of two with one stem, either is a guess
        self.by_name = {Path(o).stem: o for o in self.files if stems[Path(o).stem] == 1}
        self.by_name |= {os.path.splitext(relative_name(o, (folder,)))[0]: o for o in self.files}

    def mask_of(self, name: str) -> str | None:
        "The mask file for the photograph `name`, None without one"
        return self.by_name.get(os.path.splitext(name)[0], self.by_name.get(Path(name).stem))

    def _masks_of(self, names: list[str]) -> list[str]:
        missing, folder = [o for o in names if self.mask_of(o) is None], self.folders[0]
        if not missing: return [self.mask_of(o) for o in names]
        raise InputError(f"{len(missing)} of {len(names)} photographs have no mask of the same file stem "
                         f"in {folder}: {', '.join(missing[:3])} ...; to draw any mask for any "
                         f"photograph pass masks='pool:{folder}'")

    def check(self, photos: Iterable[tuple[str, str]], skipped: Skipped, sizes: bool):
        "Raises InputError unless all have masks (and `sizes` fit); warns as `MaskPool`"
        names, photos = zip(*photos, strict=True)
        masks = self._masks_of(names)
        _check_shares(sorted(set(masks)), self.invert, skipped)
        for photo, mask in zip(photos, masks, strict=True) if sizes else (): _fits(photo, mask, skipped)

    def open(self, name: str, photo: str | Path, skipped: Skipped):
        "As in `DrawnHoles`, `PILMask` of 0 and 1; raises InputError without one of the photograph's size"
        from fastai.vision.core import PILMask  # slow to import, and not needed to fill
        mask, = self._masks_of([name])
        if _fits(photo, mask, skipped):
            with skipped.unreadable(mask):
                return PILMask(Image.fromarray(read_mask(mask, self.invert).astype(np.uint8)))

    def central(self, name: str, photo: str | Path, size: int, rng: np.random.Generator):
        "As in `DrawnHoles`; raises what `open` raises, and InputError where that gives None"
        mask = self.open(name, photo, Skipped([]))
        if mask is None: raise InputError(f"the mask of {photo} or itself cannot be read")
        return np.asarray(central_square(mask, size, Image.Resampling.NEAREST)).astype(bool)


def _fits(photo: str | Path, mask: str, skipped: Skipped) -> bool:
    "Whether both headers can be read; raises InputError if the sizes differ"
    sizes = []
    for o in (photo, mask):
        if (source := source_of(o, skipped)) is None: return False
        with skipped.unreadable(o): sizes.append("{}x{}".format(*image_size(source)))
    if len(set(sizes)) == 2:
        raise InputError(f"the mask {mask} is {sizes[1]} pixels, but its photograph {photo} is "
                         f"{sizes[0]}; a mask must have its photograph's size")
    return len(sizes) == 2


def mask_source(masks: str | Path | Callable, invert: bool = False):
    """`DrawnHoles` of a preset's name or a sampler, `MaskPool` of `"pool:FOLDER"`, `MaskFolder` of a folder.

    A source is returned as it is. Raises InputError for anything else, MissingFile if there are no masks."""
    if isinstance(masks, DrawnHoles | MaskFolder): return masks
    text = masks if isinstance(masks, str) else ""
    masks = PRESETS.get(text, masks)
    if callable(masks):
        if invert: raise InputError("invert=True is for mask files; drawn masks already have 1 = hole")
        return DrawnHoles(masks)
    if text.startswith("pool:"): return MaskPool(text.removeprefix("pool:"), invert)
    if isinstance(masks, Path) or os.path.isdir(text): return MaskFolder(masks, invert)
    raise InputError(f"masks={masks!r} is neither a preset ({', '.join(PRESETS)}) nor an existing "
                     "folder; 'pool:FOLDER' draws from a folder of masks")
