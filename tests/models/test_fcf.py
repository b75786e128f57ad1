"Co-modulated generation with FFC blocks on the skips"
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastinpaint.core.errors import InputError
from fastinpaint.fill.inpainter import Inpainter
from fastinpaint.judge.evaluate import evaluate
from fastinpaint.kernels.prefill import smooth_fill
from fastinpaint.models.fcf import ModulatedConv, fcf
from fastinpaint.models.load import load_model, save_model, starting_model
from fastinpaint.models.net import composite


@pytest.fixture
def tiny_fcf():
    "Makes a model of width 2 that has left its start, always the same"
    def make(seed=0, lively=True, **kwargs):
        torch.manual_seed(seed)
        net = fcf(**dict(width=2, depth=3) | kwargs)
        if lively:
            torch.nn.init.normal_(net.decoder.colours.conv.weight)
            for block in net.refiner[1:]: torch.nn.init.normal_(block.conv2.bn.weight)
        return net.eval()
    return make


def batch(h=32, w=32):
    rng = torch.Generator().manual_seed(1)
    image, mask = torch.rand(2, 3, h, w, generator=rng), torch.zeros(2, 1, h, w)
    mask[..., 5:h//2, 8:w//2] = 1
    return image, mask


@torch.no_grad()
@pytest.mark.parametrize("demodulate", [True, False])
def test_a_modulated_convolution_is_the_papers(demodulate):
    "Weights scaled and normalised for each image (Karras et al. 2020, Eq. 1 to 3)"
    torch.manual_seed(0)
    conv = ModulatedConv(5, 4, 6, demodulate=demodulate)
    conv.bias.normal_()
    x, style = torch.randn(3, 5, 8, 9), torch.randn(3, 6)
    scales = F.linear(style, conv.affine.weight, conv.affine.bias)
    for found, image, scale in zip(conv(x, style), x, scales, strict=True):
        weight = conv.conv.weight*scale.view(1, -1, 1, 1)
        if demodulate: weight = weight/(weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        padded = F.pad(image[None], (1, 1, 1, 1), mode="replicate")
        assert torch.allclose(found, F.conv2d(padded, weight)[0] + conv.bias, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 32), (35, 50), (16, 90)])
def test_it_fills_images_of_any_size_by_seeds_and_known_pixels_stay(tiny_fcf, size):
    image, mask = batch(*size)
    net, known = tiny_fcf(), (mask == 0).expand_as(image)
    fills = [net(image*(1 - mask), mask, seed=seed) for seed in (0, 1, 2)]
    assert torch.equal(fills[0], net(image*(1 - mask), mask))
    for fill in fills:
        assert fill.shape == image.shape and fill.isfinite().all()
        assert torch.equal(composite(fill, image, mask)[known], image[known])
    assert all((a - b).abs()[~known].mean() > 1e-3 for a, b in zip(fills, fills[1:], strict=False))
    alone = net(image[1:]*(1 - mask[1:]), mask[1:], seed=1)
    assert torch.allclose(alone, fills[1][1:], atol=1e-5)  # not of the place in a batch


@torch.no_grad()
def test_noise_is_of_each_image(tiny_fcf):
    image, mask = batch()
    net = tiny_fcf()
    noise = torch.cat([net.noise(1, seed=3), net.noise(1, seed=4)])
    together = net(image*(1 - mask), mask, noise)
    for i, seed in enumerate((3, 4)):
        assert torch.allclose(together[i], net(image*(1 - mask), mask, seed=seed)[i], atol=1e-5)


@torch.no_grad()
def test_every_pixel_of_a_fill_knows_the_whole_image(tiny_fcf):
    image, mask = batch(64, 64)
    far = image.clone()
    far[..., -4:, -4:] = 0
    net = tiny_fcf()
    difference = net(image*(1 - mask), mask) - net(far*(1 - mask), mask)
    assert (difference[..., 5:32, 8:32] != 0).float().mean() > .9


@torch.no_grad()
def test_it_begins_at_the_smooth_fill(tiny_fcf):
    image, mask = batch()
    masked = image*(1 - mask)
    assert torch.equal(tiny_fcf(lively=False)(masked, mask), smooth_fill(masked, mask))
    assert not tiny_fcf(lively=False, prefill=False)(masked, mask).any()


@torch.no_grad()
def test_it_comes_back_from_a_file_and_folded_it_is_the_same(tiny_fcf, tmp_path):
    image, mask = batch()
    net = tiny_fcf()
    for m in net.modules():  # statistics that are not those of the start
        if isinstance(m, torch.nn.BatchNorm2d): m.running_mean.normal_(std=.1), m.running_var.uniform_(.5, 2)
    expected = net(image*(1 - mask), mask, seed=5)
    path = save_model(net, tmp_path/"model.safetensors")
    found = load_model(path)
    assert torch.equal(found(image*(1 - mask), mask, seed=5), expected) and found.config == net.config
    assert torch.allclose(net.folded()(image*(1 - mask), mask, seed=5), expected, atol=1e-4)
    assert starting_model(path, tiny_fcf(1)).config == net.config
    photo, hole = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8), np.zeros((40, 48), bool)
    hole[10:20, 10:30] = True
    first, second = (np.asarray(o) for o in Inpainter(found).several(photo, hole, n=2, seed=7))
    assert (first[~hole] == photo[~hole]).all() and (first[hole] != second[hole]).any()
    assert (np.asarray(Inpainter(path)(photo, hole, seed=8)) == second).all()


def test_it_is_judged_by_several_fills(tiny_fcf, photos):
    card = evaluate(tiny_fcf(), photos, ["center"], 64, limit=2, frechet=False, fills=3)
    assert card.rules["fills"] == 3 and len(card.images) == 2
    for row in card.images:
        if row["lpips"] is not None: assert row["lpips_best"] < row["lpips"] and row["diversity"] > 0


@pytest.mark.parametrize("wrong, words", [(dict(width=1), "width=1: expected 2 to 512"),
                                          (dict(depth=0), "depth=0: expected 2 to 6")])
def test_what_cannot_be_built_is_refused_in_a_line(wrong, words):
    with pytest.raises(InputError, match=words) as e: fcf(**wrong)
    assert "\n" not in str(e.value)


def test_it_refines_no_latent(tiny_fcf):
    with pytest.raises(InputError, match="an fcf refines no latent"): tiny_fcf().refine(None)
    with pytest.raises(InputError, match="no refiner blocks"):
        Inpainter(tiny_fcf())(np.zeros((40, 48, 3), np.uint8), np.eye(40, 48, dtype=bool), refine=True)
