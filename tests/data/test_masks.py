import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fastinpaint.data.masks import PRESETS, MaskFolder, MaskPool, draw_hole, mask_sampler, mask_source, read_mask

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
    small, large = (np.mean([PRESETS[name](n, n, np.random.default_rng(i)).mean() for i in range(150)]) for n in (128, 256))
    assert large == pytest.approx(small, abs=0.05)


def test_presets_differ_as_their_names_say():
    share = {k: np.mean([f(256, 256, np.random.default_rng(i)).mean() for i in range(100)]) for k, f in PRESETS.items()}
    assert share["thin"] < share["medium"] < share["thick"]
    assert share["center"] == 0.25


def test_outpaint_touches_the_border_and_keeps_the_middle():
    for i in range(20):
        hole = PRESETS["outpaint"](64, 96, np.random.default_rng(i))
        assert not hole[24:40, 34:62].any()
        assert any(side.all() for side in (hole[0], hole[-1], hole[:, 0], hole[:, -1]))


def test_train_holes_vary():
    rng = np.random.default_rng(0)
    holes = [PRESETS["train"](64, 64, rng).tobytes() for _ in range(10)]
    assert len(set(holes)) == 10


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="thck.*train, thin, medium, thick, center, outpaint"): mask_sampler("thck")
    with pytest.raises(ValueError, match="neither a preset.*nor an existing folder"): mask_source("no/such/folder")
    with pytest.raises(ValueError, match="invert"): mask_source("train", invert=True)


def test_a_callable_is_a_sampler_and_its_result_is_checked():
    rng = np.random.default_rng(0)
    upper = draw_hole(lambda h, w, rng: np.arange(h)[:, None] < np.full(w, h // 2), 4, 6, rng)
    assert upper.dtype == np.uint8 and upper.sum() == 12
    with pytest.raises(ValueError, match=r"shape \(6, 4\)"): draw_hole(lambda h, w, rng: np.zeros((w, h)), 4, 6, rng)
    with pytest.raises(ValueError, match="other than 0 and 1"): draw_hole(lambda h, w, rng: np.full((h, w), 255), 4, 6, rng)


def _half(mode, path, white=255):
    hole = np.zeros((10, 8), np.uint8)
    hole[:5] = white
    im = Image.fromarray(hole)
    if mode == "P01":
        im = Image.fromarray(hole // max(white, 1)).convert("L")
        im = Image.frombytes("P", im.size, im.tobytes())
        im.putpalette([0, 0, 0, 128, 0, 0])  # label masks: index 1 is a dark colour
    elif mode != "L": im = im.convert(mode)
    im.save(path)
    return path


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "RGBA", "P", "P01", "I;16"])
def test_white_is_hole_in_files_of_any_mode(tmp_path, mode):
    if mode == "I;16": Image.fromarray(np.repeat([65535, 0], 40).astype(np.uint16).reshape(10, 8)).save(tmp_path / "m.png")
    else: _half(mode, tmp_path / "m.png")
    for invert in (False, True):
        hole = read_mask(tmp_path / "m.png", invert)
        assert hole.dtype == bool and (hole[:5] != invert).all() and (hole[5:] == invert).all()


def test_files_of_zeros_and_ones_are_understood(tmp_path):
    assert read_mask(_half("L", tmp_path / "m.png", white=1)).sum() == 40


def test_masks_are_turned_by_exif(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: the first column is the top row
    hole = np.zeros((10, 8), np.uint8)
    hole[:, 0] = 255
    Image.fromarray(hole).save(tmp_path / "m.png", exif=exif)
    assert read_mask(tmp_path / "m.png").shape == (8, 10)
    assert read_mask(tmp_path / "m.png")[0].all()


def test_a_pool_draws_any_mask_and_fits_it(tmp_path):
    _half("L", tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    pool = mask_source(f"pool:{tmp_path}")
    assert isinstance(pool, MaskPool)
    for i in range(4): assert pool(30, 20, np.random.default_rng(i))[:15].all()


def test_a_folder_matches_by_path_then_by_stem(tmp_path):
    for o in ("a/1.png", "b/1.png", "b/2.png"):
        (tmp_path / o).parent.mkdir(exist_ok=True)
        _half("L", tmp_path / o)
    folder = MaskFolder(tmp_path)
    assert folder.mask_of("a/1.jpg") == str(tmp_path / "a/1.png")
    assert folder.mask_of("2.jpg") == folder.mask_of("elsewhere/2.webp") == str(tmp_path / "b/2.png")
    assert folder.mask_of("1.jpg") is None  # either of two: not for us to guess
