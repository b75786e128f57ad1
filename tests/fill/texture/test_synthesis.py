"One way to texture a fill"
import numpy as np
import pytest
import torch

from fastinpaint.fill.texture.level import Level
from fastinpaint.fill.texture.synthesis import Synthesis, incoherence, ticks, toned


def stripes(h=80, w=90):
    "Stripes, float32 in [0, 1], a hole, and grey in it"
    image = np.broadcast_to((np.arange(w)//3 % 2)[None, :, None], (h, w, 3)).astype(np.float32)
    hole = np.zeros((h, w), bool)
    hole[30:50, 40:60] = True
    return image, hole, np.where(hole[..., None], np.float32(.5), image)


def test_stripes_go_on():
    image, hole, start = stripes()
    result, score = Synthesis()(start, hole)
    assert np.abs(result - image)[hole].mean() < .1 and 0 <= score < 2
    assert (start[hole] == .5).all()  # is not written to


def test_steps_are_announced():
    _, hole, start = stripes()
    steps = []
    Synthesis(tick=lambda: steps.append(1))(start, hole)
    assert len(steps) == ticks(hole)


@pytest.mark.parametrize("h, w", [(6, 90), (7, 7), (16, 12)])
def test_where_too_little_is_known_there_is_none(h, w):
    _, _, start = stripes(h, w)
    hole = np.zeros((h, w), bool)
    hole[2:5, 2:5] = True
    assert Synthesis()(start, hole) == (None, None)


def test_other_ways_differ_and_the_same_way_does_not():
    rng = np.random.default_rng(0)
    _, hole, start = stripes()
    start = np.where(hole[..., None], start, rng.random(start.shape, dtype=np.float32))
    ways = [dict(), dict(), dict(seed=1, share=.5), dict(guide=.3)]
    first, *others = [Synthesis(**way)(start, hole)[0] for way in ways]
    assert [np.array_equal(first, o) for o in others] == [True, False, False]


def test_what_is_copied_whole_is_coherent_and_noise_is_not():
    image, hole, _ = stripes()
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    level = Level(pixels, torch.from_numpy(hole)[None, None].float(), pixels*0)
    match = level.targets - 26*90  # stripes are the same everywhere in a column
    assert incoherence(level, match) == 0
    level.colours[level.pixels] += .1*torch.randn(len(level.pixels), 3)
    assert incoherence(level, match) > .1


@pytest.mark.parametrize("step, left", [(.04, 0.), (.3, .2)])
def test_slight_differences_of_tone_go_and_large_ones_stay(step, left):
    fill = np.full((64, 96, 3), .5, np.float32)
    image = fill.copy()
    image[:, :48] += step
    result = toned(image, fill, 1000.)
    assert result[:, 16].mean() - result[:, 80].mean() == pytest.approx(left, abs=.01)
