"One way to texture a fill"
import numpy as np
import pytest
import torch

from fastinpaint.fill.texture import synthesis
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


def test_what_is_copied_whole_is_certain_and_what_is_only_alike_is_not():
    image, hole, _ = stripes()
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    level = Level(pixels, torch.from_numpy(hole)[None, None].float(), pixels*0)
    inside = torch.isin(level.targets, level.pixels)  # elsewhere the smooth map rises to 1
    certain = synthesis.certainty(level, level.targets - 26*90).reshape(-1)[level.targets[inside]]
    assert certain.min() > .99
    unlike = synthesis.certainty(level, level.targets - 26*90 + 3).reshape(-1)[level.targets[inside]]
    assert unlike.mean() < .2


def test_unknown_texture_is_fainter_where_the_network_sees_the_hole():
    "Noise: no patch is like another, so the fill shows through; in a hole too deep to see into, less"
    noise = np.random.default_rng(0).random((200, 200, 3), dtype=np.float32)
    spread = {}
    for side in 20, 140:
        hole = np.zeros((200, 200), bool)
        hole[30:30 + side, 30:30 + side] = True
        result, _ = Synthesis()(np.where(hole[..., None], np.float32(.5), noise), hole)
        spread[side] = result[35:25 + side, 35:25 + side].std()/noise.std()
    assert .1 < spread[20] < .45 < spread[140] < .9


@pytest.mark.parametrize("step, left", [(.04, 0.), (.3, .2)])
def test_slight_differences_of_tone_go_and_large_ones_stay(step, left):
    fill = np.full((64, 96, 3), .5, np.float32)
    image = fill.copy()
    image[:, :48] += step
    result = toned(image, fill, 1000.)
    assert result[:, 16].mean() - result[:, 80].mean() == pytest.approx(left, abs=.01)


def test_borders_of_flat_patches_go_and_those_of_textured_ones_stay():
    "The left half of the photograph is flat, the right one has stripes"
    image, hole, _ = stripes()
    image = image.copy()
    image[:, :45] = .5
    pixels, mask = torch.from_numpy(image).permute(2, 0, 1)[None], torch.from_numpy(hole)[None, None].float()
    level = Level(pixels, mask, pixels)
    left, right = (level.sources[(level.sources % level.width == x).nonzero()[0, 0]] for x in (15, 75))
    for source, expected in (left, 0.), (right, 1.):
        rough = synthesis.roughness(level, source.expand(len(level.targets)))
        assert rough[40, 50] == pytest.approx(expected, abs=.01) and rough[5, 5] == pytest.approx(1, abs=.01)
    lines = np.zeros((40, 40, 3), np.float32)
    lines[:, 20] = .2
    assert np.ptp(synthesis.without_borders(lines, np.zeros((40, 40)))) < .03
    np.testing.assert_allclose(synthesis.without_borders(lines, np.ones((40, 40))), lines, atol=1e-6)
