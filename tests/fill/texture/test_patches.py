"Features stand for patches, and votes copy them"
import pytest
import torch

from fastinpaint.fill.texture.level import Level
from fastinpaint.fill.texture.patches import Features, vote


@pytest.fixture
def level():
    "Smooth colours with a hole of 9×9 pixels, in which they are 0"
    y, x = torch.meshgrid(torch.arange(30.), torch.arange(40.), indexing="ij")
    image = torch.stack([(x/5).sin(), (y/7).cos(), (x*y/60).sin()])[None]/2 + .5
    hole = torch.zeros(1, 1, 30, 40)
    hole[..., 15:24, 20:29] = 1
    return Level(image*(1 - hole), hole, image)


def test_distances_of_features_are_those_of_patches_and_of_their_guides(level):
    features = Features(level, level.sources, 1.5)
    a, b = level.sources[:200], level.sources[-200:]
    found = (features(a) - features(b)).square().sum(1)
    expected = 1.5**2*49*(level.guide[a] - level.guide[b]).square().sum(1)
    for o, *_ in level.offsets(): expected += (level.colours[a + o] - level.colours[b + o]).square().sum(1)
    assert torch.allclose(found, expected, rtol=.02, atol=.01)


@pytest.mark.parametrize("spread", [.3, .7, 100.])
def test_patches_of_one_shift_copy_what_lies_there(level, spread):
    shift = -11*40 - 10
    expected = level.colours[level.pixels + shift].clone()
    vote(level, level.targets + shift, torch.rand(len(level.targets)) + .1, spread)
    assert torch.allclose(level.colours[level.pixels], expected, atol=1e-5)


def test_what_does_not_count_says_nothing(level):
    before = level.colours.clone()
    vote(level, level.targets - 11*40, torch.zeros(len(level.targets)), 1.)
    assert level.colours.equal(before)
    weight = torch.zeros(len(level.targets))
    weight[0] = 1  # the patch that covers the hole's first corner with its last pixel
    vote(level, level.targets - 11*40, weight, 100.)
    changed = (level.colours != before).any(1).nonzero()[:, 0].tolist()
    assert changed == level.pixels[:1].tolist()
