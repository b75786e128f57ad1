import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastinpaint.models.lama import lama
from fastinpaint.models.pca import start_at_pca


@pytest.fixture
def images():
    torch.manual_seed(0)
    small = torch.rand(6, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    smooth = F.interpolate(small, (48, 40), mode="bicubic")
    return (smooth + .05*torch.rand_like(smooth)).clamp(0, 1)


def code(x, block, n):
    "The best linear code of `n` numbers for blocks of `x` `[B, C, H, W]`, about zero, and its squared error"
    blocks = F.pixel_unshuffle(x.double(), block)
    rows = blocks.permute(0, 2, 3, 1).flatten(0, 2)
    _, strengths, components = torch.linalg.svd(rows, full_matrices=False)
    return F.conv2d(blocks, components[:n, :, None, None]), strengths[n:].square().sum().item()


def error(model, images):
    return (model(images, torch.zeros_like(images[:, :1])) - images).square().mean().item()


def silence(model):
    "Leave the linear paths alone"
    for m in (*model.encoder.stages, *model.decoder.stages): nn.init.zeros_(m.bn.weight)


@torch.no_grad()
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("width, depth, control, blocks", [
    (4, 3, None, 0), (3, 3, "mask", 1), (3, 1, "alpha", 2), (8, 2, None, 0)])
def test_every_stage_starts_as_the_best_linear_code_of_the_one_before(images, width, depth, control, blocks,
                                                                      training):
    model = lama(width, blocks, depth, control, autoencoder=None).train(training)
    start_at_pca(model, images)
    silence(model)
    x, lost = images - images.mean((0, 2, 3), keepdim=True), 0.
    for i in range(depth):
        x, left = code(x, 2, width*2**(i + 1))
        lost += left
    assert error(model, images) == pytest.approx(lost/images.numel(), rel=1e-3, abs=1e-10)


@torch.no_grad()
# a batch's statistics scale the ReLU paths up
@pytest.mark.parametrize("training, close", [(False, 1.5), (True, 10)])
def test_the_whole_starts_close_to_the_best_linear_code(images, training, close):
    model = lama(8, 1, autoencoder=None).train(training)
    before = error(model, images)
    start_at_pca(model, images)
    _, best = code(images - images.mean((0, 2, 3), keepdim=True), 8, 64)
    best /= images.numel()
    assert best <= error(model, images) < close*best < before/10


@torch.no_grad()
def test_a_model_that_was_trained_before_starts_over(images):
    model = lama(8, 0, autoencoder=None)
    for p in model.parameters(): p.add_(torch.rand_like(p))
    before = error(model, images)
    start_at_pca(model, images)
    assert error(model, images) < before/100


@torch.no_grad()
def test_a_narrow_model_keeps_the_colours_it_has_room_for(images):
    model = lama(1, 0, 1, None, autoencoder=None).eval()
    start_at_pca(model, images)
    assert error(model, images) < images.var((0, 2, 3)).mean()


# without linear paths

def plain(width=8, depth=3): return lama(width, 0, depth, None, linear=False, autoencoder=None)


@torch.no_grad()
def test_plain_stages_start_close_to_the_same_code(images):
    "But for a component a stage, and for what eight ReLUs make of the sigmoid"
    model = plain().eval()
    before = error(model, images)
    start_at_pca(model, images)
    assert error(model, images) < 1e-3 < before/20


@torch.no_grad()
def test_a_constant_channel_takes_the_pattern_off_that_shifts_leave(images):
    model = plain().eval()
    start_at_pca(model, images)
    x = model.encoder(images)
    for stage in model.decoder.stages:
        assert x.min() >= 0 and torch.equal(x[:, -1], torch.ones_like(x[:, -1]))
        y = stage.conv(x)
        means = torch.stack([y[..., i::2, j::2].mean((0, 2, 3)) for i in (0, 1) for j in (0, 1)])
        assert (means.max(0).values - means.min(0).values).max() < .2*y.std((0, 2, 3)).max()
        if stage is not model.decoder.stages[-1]: x = stage(x)


@torch.no_grad()
@pytest.mark.parametrize("width, depth", [(1, 1), (2, 3), (3, 2), (20, 1)])
def test_plain_models_of_any_width_start_finite_and_better(images, width, depth):
    model = plain(width, depth).eval()
    start_at_pca(model, images)
    assert error(model, images) < images.var((0, 2, 3)).mean()
