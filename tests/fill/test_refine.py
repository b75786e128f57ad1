import warnings

import pytest
import torch

from fastinpaint.fill.refine import doubled, eroded, half, halved, refined
from fastinpaint.models.context_encoder import context_encoder
from fastinpaint.models.load import load_model
from fastinpaint.models.net import composite
from fastinpaint.models.refiner import without_detail

QUIET = dict(shortest=32, progress=False)


@pytest.fixture
def picture():
    "Coarse blobs, 120 x 128 pixels, with a hole of which erosion leaves something two scales below"
    coarse = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.interpolate(coarse, (128, 120), mode="bicubic").clamp(0, 1)
    mask = torch.zeros(1, 1, 128, 120)
    mask[..., 16:112, 12:108] = 1
    return image*(1 - mask), mask


def guide_error(net, pred, image, mask, scales=1):
    "How far `pred`, halved `scales` times, is from the fill of the image at that size, well inside the hole"
    for _ in range(scales): pred, (image, mask) = halved(pred), half(image, mask)
    with torch.no_grad(): guide = composite(net(image, mask), image, mask)
    inside = eroded(mask)
    return float(((pred - guide).abs()*inside).sum()/(3*inside.sum()))


@pytest.mark.parametrize("shortest, scales", [(64, 1), (32, 2)])
def test_refining_approaches_the_smaller_fill(picture, shortest, scales):
    net = without_detail(load_model("sample"))
    with torch.no_grad(): plain = net(*picture)
    pred = refined(net, *picture, shortest=shortest, progress=False)
    before, after = (guide_error(net, x, *picture, scales) for x in (plain, pred))
    assert after < .6*before


def test_what_was_done_is_said(tiny_lama, picture):
    said = []
    refined(tiny_lama(), *picture, iterations=2, **QUIET, say=said.append)
    text, = said
    h, w = picture[0].shape[-2:]
    assert text.startswith("filled at ") and f"; {w}x{h} 2 steps, loss " in text


def test_steps_that_lead_astray_are_not_taken(tiny_lama, picture):
    net = tiny_lama().eval()
    wild = refined(net, *picture, lr=1e3, **QUIET)
    assert torch.equal(wild, refined(net, *picture, iterations=0, **QUIET))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_callers_need_no_gradients_and_the_net_is_left_as_it_was(tiny_lama, picture, state_of, same, mode):
    net = tiny_lama(control="mask").train()
    net.encoder.eval().requires_grad_(False)
    state, modes = state_of(net), {n: m.training for n, m in net.named_modules()}
    wanted = {n: p.requires_grad for n, p in net.named_parameters()}
    expected = refined(net, *picture, iterations=3, **QUIET)
    with mode(): found = refined(net, *(x.clone() for x in picture), iterations=3, **QUIET)
    assert torch.equal(found, expected) and not found.requires_grad
    assert same(state, state_of(net)) and modes == {n: m.training for n, m in net.named_modules()}
    assert wanted == {n: p.requires_grad for n, p in net.named_parameters()}
    assert all(p.grad is None for p in net.parameters())


def test_pictures_that_are_small_enough_are_filled_as_they_are(tiny_lama, picture):
    net = tiny_lama().eval()
    with torch.no_grad():
        assert torch.equal(refined(net, *picture, shortest=120, progress=False), net(*picture))


@pytest.mark.parametrize("size", [(131, 67), (33, 90)])
@pytest.mark.parametrize("share", ["none", "thin", "all"])
def test_any_size_and_any_hole(tiny_lama, size, share):
    image, mask = torch.rand(1, 3, *size), torch.zeros(1, 1, *size)
    if share == "all": mask[:] = 1
    if share == "thin": mask[..., 20:22, :] = 1
    pred = refined(tiny_lama(), image*(1 - mask), mask, iterations=2, **QUIET)
    assert pred.shape == image.shape and pred.isfinite().all()


def test_beyond_the_budget_the_fill_below_is_enlarged(tiny_lama, picture):
    net = tiny_lama().eval()
    with pytest.warns(UserWarning,
                      match="120x128 is more than the 4000 pixels allowed for refining: filled at 60x64"):
        large = refined(net, *picture, pixels=4000, **QUIET)
    assert large.shape == picture[0].shape
    small, hole = half(*picture)
    assert torch.equal(large, doubled(composite(refined(net, small, hole, **QUIET), small, hole)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refined(net, *picture, iterations=1, pixels=120*128, **QUIET)


def test_models_without_refiner_blocks_are_turned_away(tiny_lama, picture):
    nets = {"InpaintNet": tiny_lama(blocks=0), "ContextEncoder": context_encoder(width=2, size=32)}
    for name, net in nets.items():
        with pytest.raises(ValueError, match=f"{name} has no refiner blocks.*take a model of lama"):
            refined(net, *picture)
    with pytest.raises(ValueError, match="shortest=0"): refined(tiny_lama(), *picture, shortest=0)


def test_halving_takes_nothing_from_the_hole():
    mask = torch.zeros(1, 1, 31, 40)
    mask[..., 10:20, 11:30] = 1
    image, hole = half(torch.full((1, 3, 31, 40), .3)*(1 - mask), mask)
    assert image.shape == (1, 3, 16, 20)
    assert torch.equal(hole[0, 0, :, 10], (torch.arange(16) >= 5).float()*(torch.arange(16) < 10))
    assert torch.allclose(image, .3*(1 - hole)) and not image[hole.expand_as(image) > 0].any()


def test_erosion_keeps_what_is_more_than_seven_pixels_from_known_ones():
    mask = torch.ones(1, 1, 40, 40)
    mask[..., 20, 20] = 0
    y, x = torch.meshgrid(torch.arange(40), torch.arange(40), indexing="ij")
    distance = ((y - 20)**2 + (x - 20)**2).sqrt()
    kept = eroded(mask)[0, 0] == 1
    assert kept[distance >= 7.5].all() and not kept[distance < 7.5].any()


def test_refining_does_not_leave_the_known_pixels(picture):
    net, (image, mask) = load_model("sample"), picture
    with torch.no_grad(): plain = net(image, mask)
    pred = refined(net, image, mask, iterations=30, lr=.01, shortest=64, progress=False)
    before, after = (((x - image).abs()*(1 - mask)).sum() for x in (plain, pred))
    assert after < before
