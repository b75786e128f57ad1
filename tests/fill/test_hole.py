import numpy as np
import pytest
from PIL import Image

from fastinpaint.core.errors import InputError
from fastinpaint.fill.hole import dilated, feathered, read_hole


def hole():
    mask = np.zeros((12, 20), bool)
    mask[4:8, 5:15] = True
    return mask


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("kind", [bool, "0 and 1", "grey", "image", "file"], ids=str)
def test_a_hole_is_white_or_1_however_it_is_given(tmp_path, kind, invert):
    mask, grey = hole(), np.where(hole(), 128, 127).astype(np.uint8)
    if kind == "0 and 1": mask = mask.astype(np.uint8)
    if kind == "grey": mask = grey
    if kind == "image": mask = Image.fromarray(grey)
    if kind == "file":
        Image.fromarray(grey).save(tmp_path/"mask.png")
        mask = tmp_path/"mask.png"
    found = read_hole(mask, invert)
    assert found.dtype == bool and np.array_equal(found, hole() != invert)


@pytest.mark.parametrize("mask", [hole().astype(np.int64), hole().astype(np.float32), hole()[..., None]],
                         ids=["int64", "float32", "three axes"])
def test_other_arrays_are_refused(mask):
    with pytest.raises(InputError, match=r"bool or uint8 \[H, W\]"): read_hole(mask)


def test_a_hole_grows_by_a_disc():
    point = np.zeros((21, 21), bool)
    point[10, 10] = True
    y, x = np.mgrid[:21, :21] - 10
    assert np.array_equal(dilated(point, 5), x*x + y*y <= 25) and np.array_equal(dilated(point, 0), point)


def test_the_outer_pixels_blend_but_not_the_hole_proper():
    black, white = np.zeros((40, 48, 3), np.uint8), np.full((40, 48, 3), 255, np.uint8)
    grown, proper = np.zeros((40, 48), bool), np.zeros((40, 48), bool)
    grown[:, 10:] = True
    filled = np.where(grown[..., None], white, black)
    row = feathered(black, filled, proper, grown, 4)[20, :, 0]
    assert row[:10].max() == 0 and row[10:15].tolist() == [51, 102, 153, 204, 255] and row[15:].min() == 255
    proper[:, 11:] = True
    assert feathered(black, filled, proper, grown, 4)[20, 9:15, 0].tolist() == [0, 51, 255, 255, 255, 255]
    assert filled[20, 10, 0] == 255  # what was given stays
