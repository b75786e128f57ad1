"Texture comes from the known part of the photograph alone, and goes where the network's fill says"
import numpy as np
import pytest

from fastinpaint.fill.strategies import boxes
from fastinpaint.fill.texture import several
from fastinpaint.fill.texture.several import textured
from fastinpaint.fill.texture.synthesis import Synthesis


def checks(h=96, w=112, dtype=np.uint8):
    "Two textures: a fine chequered pattern on the left, stripes on the right, with a little noise"
    y, x = np.mgrid[:h, :w]
    pattern = np.where(x < w//2, (y//3 + x//3) % 2, .3*(y//4 % 2))[..., None]*[200, 160, 90]
    noise = np.random.default_rng(0).integers(0, 20, (h, w, 1))
    return ((pattern + 20 + noise)*np.iinfo(dtype).max/255).astype(dtype)


def hole(h=96, w=112):
    mask = np.zeros((h, w), bool)
    mask[30:60, 20:50] = mask[70:, 100:] = True  # one inside, one in a corner
    return mask


def fog(image, mask):
    "What a network makes of it: each hole's mean colour"
    result = image.copy()
    for part in np.s_[30:60, 20:50], np.s_[70:, 100:]:
        result[part][mask[part]] = image[part][mask[part]].mean(0)
    return result


def error(a, b, mask): return np.abs(a[mask].astype(float) - b[mask]).mean()


def spread(image, mask): return image[mask].astype(float).std()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_texture_replaces_fog_and_known_pixels_stay(dtype):
    image, mask = checks(dtype=dtype), hole()
    fill = fog(image, mask)
    result = textured(image, mask, fill)[0]
    assert result.dtype == dtype and (result[~mask] == image[~mask]).all()
    inside = np.s_[30:60, 20:50]
    assert spread(result[inside], mask[inside]) > .8*spread(image[inside], mask[inside])
    assert error(result, image, mask) < .6*error(fill, image, mask)


def test_one_seed_one_result():
    image, mask = checks(), hole()
    results = [textured(image, mask, fog(image, mask))[0] for _ in range(2)]
    assert np.array_equal(*results)


def test_the_fill_says_what_colour_goes_where():
    image, mask = checks(), hole()
    for shade in 60, 140:
        fill = np.where(mask[..., None], np.uint8(shade), image)
        result = textured(image, mask, fill)[0]
        assert abs(result[35:55, 25:45].mean() - shade) < 12 and result[30:60, 20:50].std() > 10


def test_nothing_comes_from_the_hole_nor_from_the_fill_elsewhere():
    image, mask = checks(), hole()
    fill, rng = fog(image, mask), np.random.default_rng(1)
    poisoned, strange = (np.where(where[..., None], rng.integers(0, 256, image.shape, np.uint8), of)
                         for of, where in ((image, mask), (fill, ~mask)))
    assert np.array_equal(textured(poisoned, mask, strange)[0], textured(image, mask, fill)[0])


@pytest.mark.parametrize("h, w, known", [(5, 40, 20), (40, 5, 2), (1, 2, 1), (64, 64, 6)])
def test_where_too_little_is_known_the_fill_stays_and_that_is_said(h, w, known):
    image, mask = strip(h, w, known)
    with pytest.warns(UserWarning, match="too little is known"): result = textured(image, mask, image//2)[0]
    assert np.array_equal(result, np.where(mask[..., None], image//2, image))


@pytest.mark.filterwarnings("error")
def test_a_strip_of_known_pixels_is_enough():
    image, mask = strip(64, 64, 12)
    result = textured(image, mask, np.full_like(image, 120))[0]
    assert (result[~mask] == image[~mask]).all() and spread(result, mask) > .5*spread(image, ~mask)


def strip(h, w, known):
    "An image of which but `known` columns are hole"
    mask = np.ones((h, w), bool)
    mask[:, :known] = False
    return checks(h, w), mask


@pytest.mark.parametrize("at", [(0, 0), (0, 50), (95, 111), (40, 40)])
def test_a_hole_of_one_pixel_gets_a_colour_of_the_photograph(at):
    image, mask = checks(), np.zeros((96, 112), bool)
    mask[at] = True
    result = textured(image, mask, np.where(mask[..., None], np.uint8(255), image))[0]
    assert (result[~mask] == image[~mask]).all() and result[at].max() < 245


def test_several_fills_differ_and_the_most_coherent_comes_first(monkeypatch):
    image, mask, scores = checks(), hole(), []

    class Recorded(Synthesis):
        def __call__(self, start, hole):
            found = super().__call__(start, hole)
            scores.append((found[1], np.rint(found[0][hole].clip(0, 1)*255)))
            return found

    monkeypatch.setattr(several, "Synthesis", Recorded)
    results = textured(image, mask, fog(image, mask), 3)
    assert len(results) == 3 and all((result[~mask] == image[~mask]).all() for result in results)
    assert len({result.tobytes() for result in results}) == 3
    expected = [pixels for _, pixels in sorted(scores[:3], key=lambda o: o[0])]  # those of the first box
    box = boxes(mask)[0]
    for result, pixels in zip(results, expected, strict=True):
        assert np.array_equal(result[box][mask[box]], pixels)
