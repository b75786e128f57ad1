import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastinpaint.data.holes import PRESETS, Boxes, Mixture, hole_rng
from fastinpaint.data.masks import DrawnHoles

quick = settings(max_examples=25, deadline=None)
presets, sides, seeds = st.sampled_from(list(PRESETS)), st.integers(8, 160), st.integers(0, 2**32)


@quick
@given(presets, sides, sides, seeds)
def test_a_hole_is_neither_empty_nor_the_whole_image(name, height, width, seed):
    hole = PRESETS[name](height, width, np.random.default_rng(seed))
    assert hole.shape == (height, width) and hole.dtype == bool
    assert hole.any() and not hole.all()
    if name in ("thin", "medium", "thick"): assert hole.mean() <= 0.5


@quick
@given(presets, st.integers(1, 3), st.integers(2, 3), seeds)
def test_even_tiny_images_get_a_hole(name, height, width, seed):
    hole = PRESETS[name](height, width, np.random.default_rng(seed))
    assert hole.any() and not hole.all()


@quick
@given(presets, sides, sides, seeds)
def test_a_hole_depends_on_size_and_generator_alone(name, height, width, seed):
    first, again = (PRESETS[name](height, width, np.random.default_rng(seed)) for _ in range(2))
    assert (first == again).all()


@pytest.mark.parametrize("name", PRESETS)
def test_holes_scale_with_the_image(name):
    small, large = (np.mean([PRESETS[name](n, n, np.random.default_rng(i)).mean()
                             for i in range(150)]) for n in (128, 256))
    assert large == pytest.approx(small, abs=0.05)


def test_presets_differ_as_their_names_say():
    share = {k: np.mean([f(256, 256, np.random.default_rng(i)).mean() for i in range(100)])
             for k, f in PRESETS.items()}
    assert share["thin"] < share["medium"] < share["thick"]
    assert share["center"] == 0.25


def test_outpaint_touches_the_border_and_keeps_the_middle():
    for i in range(20):
        hole = PRESETS["outpaint"](64, 96, np.random.default_rng(i))
        assert not hole[24:40, 34:62].any()
        assert any(side.all() for side in (hole[0], hole[-1], hole[:, 0], hole[:, -1]))


def test_a_mixture_chooses_by_weight_and_keeps_to_its_limit():
    small, large = (Boxes((1, 1), (side, side)) for side in (32, 192))
    sampler, rng = Mixture(((small, 3), (large, 1))), np.random.default_rng(0)
    shares = np.array([sampler(64, 64, rng).mean() for _ in range(400)])
    assert set(shares) == {1 / 64, 9 / 16} and 0.68 < (shares == 1 / 64).mean() < 0.82
    limited = Mixture(((small, 3), (large, 1)), limit=0.5)
    assert {limited(64, 64, rng).mean() for _ in range(50)} == {1 / 64}
    assert Mixture(((large, 1),), limit=0.5)(64, 64, rng).mean() == 0.25  # the central hole


def test_boxes_keep_away_from_the_border():
    rng, sampler = np.random.default_rng(0), Mixture(((Boxes((1, 4), (30, 150), 10), 1),))
    for _ in range(20):
        hole = sampler(256, 256, rng)
        assert hole.sum() == hole[10:-10, 10:-10].sum()


def test_train_holes_vary():
    rng = np.random.default_rng(0)
    holes = [PRESETS["train"](64, 64, rng).tobytes() for _ in range(10)]
    assert len(set(holes)) == 10


def test_a_callable_is_a_sampler_and_its_result_is_checked():
    rng = np.random.default_rng(0)
    upper = DrawnHoles(lambda h, w, rng: np.arange(h)[:, None] < np.full(w, h // 2)).draw(4, 6, rng)
    assert upper.dtype == np.uint8 and upper.sum() == 12
    with pytest.raises(ValueError, match=r"shape \(6, 4\)"):
        DrawnHoles(lambda h, w, rng: np.zeros((w, h))).draw(4, 6, rng)
    with pytest.raises(ValueError, match="other than 0 and 1"):
        DrawnHoles(lambda h, w, rng: np.full((h, w), 255)).draw(4, 6, rng)


def test_the_generator_of_a_hole_depends_on_seed_and_name():
    def drawn(seed, name): return hole_rng(seed, name).integers(0, 2**32)
    assert drawn(1, "a.jpg") == drawn(1, "a.jpg")
    assert len({drawn(seed, name) for seed in (0, 1) for name in ("a.jpg", "b.jpg")}) == 4
