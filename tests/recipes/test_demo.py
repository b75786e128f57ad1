"The demo's comparison"
import pytest
import torch

from fastinpaint.baselines import mean_colour
from fastinpaint.recipes.demo import compare


@pytest.fixture
def half():
    "A dark and a bright half, with a hole inside each"
    image = torch.full((1, 3, 32, 32), .2)
    image[..., 16:] = .6
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8:12, 4:8] = mask[..., 8:12, 24:28] = 1
    return image, mask


def test_compare_measures_every_fill_on_all_batches(half):
    image, mask = half
    batch = (image*(1 - mask), mask, image, mask)
    rows, first = compare([batch, batch], {"mean": mean_colour, "right": lambda image, mask: image})
    assert rows["right"]["hole_l1"] == 0 and rows["mean"]["hole_l1"] == pytest.approx(.2, abs=1e-3)
    assert rows["right"]["ssim"] > rows["mean"]["ssim"] and first["right"].equal(image)
