"The hole to fill: read from a mask, dilated, and blended into the pixels around it"
import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt

from ..core.errors import InputError
from ..data.masks import hole_of, read_mask
from ..data.pictures import check_source, reading


def read_hole(mask, invert=False):
    "Bool `[H, W]` of a path, PIL image, bool or uint8 array; white is hole, with `invert` black"
    if isinstance(mask, np.ndarray):
        if mask.ndim != 2 or mask.dtype not in (bool, np.uint8):
            raise InputError(f"a mask array is bool or uint8 [H, W], got {mask.dtype} {list(mask.shape)}")
        mask = Image.fromarray(mask)
    if isinstance(mask, Image.Image): return hole_of(mask, invert)
    check_source(mask, "a mask")
    with reading(mask): return read_mask(mask, invert)


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
