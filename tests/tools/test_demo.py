"The demo's comparison"
import pytest

from fastinpaint.judge.baselines import mean_colour
from fastinpaint.tools.demo import compare


def test_compare_measures_every_fill_on_all_batches(half):
    image, mask = half
    batch = (image*(1 - mask), mask, image, mask)
    rows, first = compare([batch, batch], {"mean": mean_colour, "right": lambda image, mask: image})
    assert rows["right"]["hole_l1"] == 0 and rows["mean"]["hole_l1"] == pytest.approx(.2, abs=1e-3)
    assert rows["right"]["ssim"] > rows["mean"]["ssim"] and first["right"].equal(image)
