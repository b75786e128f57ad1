"The demo's classical fills and its comparison"
import pytest
import torch

from fastinpaint.recipes.demo import compare, mean_colour, telea


@pytest.fixture
def half():
    "A dark and a bright half, with a hole inside each"
    image = torch.full((1, 3, 32, 32), .2)
    image[..., 16:] = .6
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8:12, 4:8] = mask[..., 8:12, 24:28] = 1
    return image, mask


def test_mean_colour_is_that_of_the_known_pixels(half):
    image, mask = half
    image = image*(1 - mask)  # what lies in the hole must not matter
    torch.testing.assert_close(mean_colour(image, mask), torch.full_like(image, .4))


def test_telea_continues_what_surrounds_each_hole(half):
    pytest.importorskip("cv2")
    image, mask = half
    filled = telea(image*(1 - mask), mask)
    assert (filled - image).abs().max() < .01  # 8 bits


def test_compare_measures_every_fill_on_all_batches(half):
    image, mask = half
    batch = (image*(1 - mask), mask, image, mask)
    rows, first = compare([batch, batch], {"mean": mean_colour, "right": lambda image, mask: image})
    assert rows["right"]["hole_l1"] == 0 and rows["mean"]["hole_l1"] == pytest.approx(.2, abs=1e-3)
    assert rows["right"]["ssim"] > rows["mean"]["ssim"] and first["right"].equal(image)
