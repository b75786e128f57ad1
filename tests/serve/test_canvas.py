import numpy as np
import pytest

from fastinpaint.data.pictures import Picture
from fastinpaint.serve.canvas import extended


@pytest.mark.parametrize("mode, dtype", [("L", np.uint8), ("RGBA", np.uint8), ("RGB", np.uint16)])
def test_new_canvas_is_hole_and_known_pixels_stay(mode, dtype):
    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, len(mode)), dtype)
    hole = np.zeros((5, 7), bool)
    hole[1, 2] = True
    picture = Picture(pixels, mode, dict(dpi=(72, 72)))
    larger, grown = extended(picture, hole, (3, 0, 1, 2))
    assert larger.pixels.shape == (7, 11, len(mode)) and larger.mode == mode and larger.info == picture.info
    assert np.array_equal(larger.pixels[:5, 3:10], pixels) and larger.pixels.dtype == dtype
    assert np.array_equal(grown[:5, 3:10], hole)
    grown[:5, 3:10] = True
    assert grown.all()
