"From a fill at a quarter of the size to the whole"
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastinpaint.core.errors import InputError
from fastinpaint.fill.inpainter import Inpainter
from fastinpaint.models.load import load_model, save_model
from fastinpaint.models.net import composite
from fastinpaint.models.upsampler import smaller, upsampler
from fastinpaint.models.weights import read_weights, write_weights


@pytest.fixture
def tiny_upsampler(tiny_diffusion):
    "Makes an upsampler of a tiny base, always the same; a fill takes three steps each"
    def make(**kwargs):
        base = tiny_diffusion(pixels=True)
        return upsampler(base, **dict(channels=(8, 16), steps=3) | kwargs).eval()
    return make


def batch(h=64, w=64):
    rng = torch.Generator().manual_seed(1)
    image, mask = torch.rand(2, 3, h, w, generator=rng), torch.zeros(2, 1, h, w)
    mask[..., 11:h//2, 12:w//2] = 1
    return image, mask


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (45, 70)])
def test_it_fills_images_of_any_size_by_seeds_and_known_pixels_stay(tiny_upsampler, size):
    image, mask = batch(*size)
    net, known = tiny_upsampler(), (mask == 0).expand_as(image)
    pred = net(image*(1 - mask), mask)
    assert pred.shape == image.shape and torch.equal(pred, net(image*(1 - mask), mask, seed=0))
    assert not torch.equal(pred, net(image*(1 - mask), mask, seed=1))
    assert torch.allclose(pred[known], image[known], atol=1e-5)  # they are imposed, not only composited
    assert torch.equal(composite(pred, image, mask)[known], image[known])


@torch.no_grad()
def test_the_base_is_shown_means_of_known_pixels():
    image, mask = batch()
    small, hole = smaller(image*(1 - mask), mask)
    means, shares = F.avg_pool2d(image, 4), F.avg_pool2d(mask, 4)
    assert small.shape == means.shape and torch.equal(hole, (shares > .5).float())
    whole = (shares == 0).expand_as(means)
    assert torch.allclose(small[whole], means[whole]) and not small[(hole == 1).expand_as(small)].any()
    i = next(tuple(o) for o in shares[:, 0].nonzero().tolist() if shares[o[0], 0, o[1], o[2]] < .5)
    patch = np.s_[i[0], :, 4*i[1]:4*i[1] + 4, 4*i[2]:4*i[2] + 4]
    expected = (image*(1 - mask))[patch].sum((1, 2))/(1 - mask)[patch].sum()
    assert torch.allclose(small[i[0], :, i[1], i[2]], expected)


@torch.no_grad()
def test_its_hole_is_what_the_base_finds_in_it(tiny_upsampler):
    image, mask = batch()
    net, seen = tiny_upsampler(), []
    def found(masked, hole, seed=None):
        seen.append((masked, hole, seed))
        return torch.full_like(masked, .25)
    net.base.forward = found
    condition = net.condition(image*(1 - mask), mask, seed=9)
    hole = (mask == 1).expand_as(image)
    assert seen[0][0].shape == (2, 3, 16, 16) and seen[0][2] == 9
    assert torch.equal(condition[:, :3][~hole], image[~hole]) and torch.equal(condition[:, 3:], mask)
    inside = condition[..., 14:26, 18:26]
    assert torch.allclose(inside[:, :3], torch.full_like(inside[:, :3], .25))
    taught = net.condition_of(image, image*(1 - mask), mask)
    larger = F.interpolate(F.avg_pool2d(image, 4), scale_factor=4, mode="bilinear")
    assert torch.equal(taught[:, :3], torch.where(mask > .5, larger, image))


@torch.no_grad()
def test_both_come_back_from_one_file_and_fill_a_photograph(tiny_upsampler, tmp_path):
    image, mask = batch()
    net = tiny_upsampler()
    net.measure(*torch.rand(2, 2, 3, 64, 64), torch.rand(2, 1, 64, 64))
    expected = net(image*(1 - mask), mask, seed=2)
    path = save_model(net, tmp_path/"model.safetensors")
    found = load_model(path)
    assert found.config == net.config and torch.equal(found(image*(1 - mask), mask, seed=2), expected)
    photo, hole = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8), np.zeros((50, 70), bool)
    hole[10:30, 20:44] = True
    first, second = (np.asarray(o) for o in Inpainter(path).several(photo, hole, n=2))
    assert (first[~hole] == photo[~hole]).all() and (first[hole] != second[hole]).any()


def test_another_base_is_refused_in_a_line(tiny_upsampler, tiny_diffusion, tiny_lama, tmp_path):
    for net, words in ((tiny_lama(), "InpaintNet"), (tiny_upsampler(), "upsampler"), (None, "NoneType"),
                       (tiny_diffusion(), "latent_diffusion")):
        with pytest.raises(InputError, match=f"is a model of pixel_diffusion, not {words}") as e:
            upsampler(net)
        assert "\n" not in str(e.value)
    with pytest.raises(InputError, match="channels"): tiny_upsampler(channels=(0, 8))
    with pytest.raises(InputError, match="0 steps"): tiny_upsampler(steps=0)
    state, config = read_weights(save_model(tiny_upsampler(), tmp_path/"m.safetensors"))
    for base in (None, config, config["base"] | dict(pixels=False), config["base"] | dict(layers=10**6)):
        with pytest.raises(InputError, match="holds no model of this package"):
            load_model(write_weights(tmp_path/"m.safetensors", state, config | dict(base=base)))
    del config["base"]
    with pytest.raises(InputError, match="holds no model.*not NoneType"):
        load_model(write_weights(tmp_path/"m.safetensors", state, config))
