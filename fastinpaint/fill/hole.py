"The hole to fill: read from a mask, dilated, and blended into the pixels around it"
import numpy as np
from PIL import Image, ImageOps
from scipy.ndimage import distance_transform_edt

from ..core.errors import InputError
from ..data.masks import opacity_of
from ..data.pictures import check_source, reading
from ..data.shard_index import file_at

SOLID = 128  # opacity from which a pixel is hole, where a mask is not soft


def read_hole(mask, invert=False):
    "Bool `[H, W]` of a path, PIL image, bool or uint8 array; white is hole, with `invert` black"
    return read_opacity(mask, invert) >= SOLID


def read_opacity(mask, invert=False):
    "As `read_hole`, uint8 `[H, W]`: how much of the fill each pixel takes, from 0 to 255"
    if isinstance(mask, np.ndarray):
        if mask.ndim != 2 or mask.dtype not in (bool, np.uint8):
            raise InputError(f"a mask array is bool or uint8 [H, W], got {mask.dtype} {list(mask.shape)}")
        mask = Image.fromarray(mask)
    if isinstance(mask, Image.Image): return opacity_of(mask, invert)
    check_source(mask, "a mask")
    with reading(mask), Image.open(file_at(mask)) as im:
        ImageOps.exif_transpose(im, in_place=True)
        return opacity_of(im, invert)


def resized(opacity, size, soft=False):
    "`opacity` at the `size` (height, width): the nearest pixel of each, or with `soft` a mixture of them"
    how = Image.Resampling.BILINEAR if soft else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(opacity).resize(size[::-1], how))


def dilated(hole, radius):
    "`hole` grown by a disc of `radius` pixels"
    return distance_transform_edt(~hole) <= radius if radius else hole


def feathered(rgb, filled, hole, grown, feather):
    "`filled` blended into `rgb` in the outer `feather` pixels of `grown` that are not `hole`"
    weight = np.minimum(distance_transform_edt(grown)/(feather + 1), 1)
    band = grown & ~hole & (weight < 1)
    weight, result = weight[band][:, None], filled.copy()
    result[band] = np.rint(weight*filled[band] + (1 - weight)*rgb[band])
    return result


def blended(rgb, filled, opacity):
    "`filled` over `rgb` where `opacity` `[H, W]`, 0 to 255, is in between; all else is as in `filled`"
    seam, result = (opacity > 0) & (opacity < 255), filled.copy()
    weight = opacity[seam][:, None]/255
    result[seam] = np.rint(weight*filled[seam] + (1 - weight)*rgb[seam])
    return result
