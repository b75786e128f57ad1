"Fills that need no training"
import pytest
import torch

from fastinpaint.judge.baselines import BASELINES, mean_colour


def test_mean_colour_is_that_of_the_known_pixels(half):
    image, mask = half
    image = image*(1 - mask)  # what lies in the hole must not matter
    torch.testing.assert_close(mean_colour(image, mask), torch.full_like(image, .4))


LOCAL = set(BASELINES) - {"mean_colour"}
LIBRARY = dict(telea="cv2", navier_stokes="cv2", biharmonic="skimage", patchmatch="patchmatch_cython")


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_a_fill_looks_at_known_pixels_alone_and_repeats(half, name):
    pytest.importorskip(LIBRARY.get(name, "torch"))
    image, mask = half
    two, masks = torch.cat([image, image.flip(3)]), torch.cat([mask, mask])
    filled = BASELINES[name](two, masks)
    assert filled.shape == two.shape and filled.dtype == torch.float32
    assert 0 <= filled.min() and filled.max() <= 1
    torch.testing.assert_close(BASELINES[name](two*(1 - masks) + masks*.9, masks)*masks, filled*masks)


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_strokes_all_over_the_image_are_filled(half, name):
    pytest.importorskip(LIBRARY.get(name, "torch"))
    image, mask = half
    mask = torch.zeros_like(mask)
    mask[..., ::4] = mask[..., ::4, :] = 1
    assert BASELINES[name](image*(1 - mask), mask).shape == image.shape


@pytest.mark.parametrize("name", sorted(LOCAL))
def test_a_local_fill_continues_what_surrounds_each_hole(half, name):
    pytest.importorskip(LIBRARY.get(name, "torch"))
    image, mask = half
    filled = BASELINES[name](image*(1 - mask), mask)
    assert ((filled - image)*mask).abs().max() < .05
