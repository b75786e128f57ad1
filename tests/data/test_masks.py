import warnings

import numpy as np
import pytest
from PIL import Image

from fastinpaint.core.errors import InputError
from fastinpaint.data.masks import MaskFolder, MaskPool, mask_source, read_mask
from fastinpaint.data.photos import Skipped


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(InputError, match="thck.*train, thin, medium, thick, center, outpaint"):
        mask_source("thck")
    with pytest.raises(InputError, match="neither a preset.*nor an existing folder"):
        mask_source("no/such/folder")
    with pytest.raises(InputError, match="invert"): mask_source("train", invert=True)


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
    if mode == "I;16":
        hole = np.repeat([65535, 0], 40).astype(np.uint16).reshape(10, 8)
        Image.fromarray(hole).save(tmp_path / "m.png")
    else: _half(mode, tmp_path / "m.png")
    for invert in (False, True):
        hole = read_mask(tmp_path / "m.png", invert)
        assert hole.dtype == bool and (hole[:5] != invert).all() and (hole[5:] == invert).all()


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (200, 30, 30)], ids=str)
@pytest.mark.parametrize("kind", ["RGBA", "LA", "P"])
def test_strokes_on_transparency_are_hole_in_any_colour(tmp_path, colour, kind):
    layer = np.zeros((10, 8, 4), np.uint8)
    layer[:5] = *colour, 255
    layer[4] = *colour, 100  # a soft edge
    Image.fromarray(layer).convert(kind).save(tmp_path / "m.png")
    for invert in (False, True):
        hole = read_mask(tmp_path / "m.png", invert)
        assert (hole[:4] != invert).all() and (hole[5:] == invert).all()


@pytest.mark.parametrize("alpha", [0, 120, 255])
def test_an_even_alpha_says_nothing(tmp_path, alpha):
    im = Image.open(_half("L", tmp_path / "m.png")).convert("RGBA")
    im.putalpha(alpha)
    im.save(tmp_path / "m.png")
    hole = read_mask(tmp_path / "m.png")
    assert hole[:5].all() and (alpha < 255 or not hole[5:].any())


def test_files_of_zeros_and_ones_are_understood(tmp_path):
    assert read_mask(_half("L", tmp_path / "m.png", white=1)).sum() == 40


def test_grey_of_128_and_more_is_hole(tmp_path):
    Image.fromarray(np.array([[0, 2, 127, 128, 255]], np.uint8)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png")[0].tolist() == [False, False, False, True, True]


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
    for i in range(4): assert pool.draw(30, 20, np.random.default_rng(i))[:15].all()


def test_a_pool_draws_each_of_its_masks(tmp_path):
    for i in range(3): Image.fromarray(np.eye(3, dtype=np.uint8)[[i]]).save(tmp_path / f"{i}.png")
    pool, rng = mask_source(f"pool:{tmp_path}"), np.random.default_rng(0)
    drawn = {tuple(pool.draw(1, 3, rng)[0].tolist()) for _ in range(30)}
    assert drawn == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}


def _pair(folder, mask_size):
    "A photograph of 60x40 and its mask, whose left half is hole"
    for sub in "photos", "masks": (folder / sub).mkdir()
    Image.new("RGB", (60, 40)).save(folder / "photos/a.jpg")
    hole = np.arange(mask_size[0]) < np.full((mask_size[1], 1), mask_size[0] // 2)
    Image.fromarray(hole).save(folder / "masks/a.png")
    return folder / "photos/a.jpg", mask_source(folder / "masks")


def test_a_mask_in_the_central_square_is_cut_as_its_photograph(tmp_path):
    photo, source = _pair(tmp_path, (60, 40))
    hole = source.central("a.jpg", photo, 20, None)
    assert hole.dtype == bool and hole.shape == (20, 20)
    assert hole[:, :10].all() and not hole[:, 10:].any()


def test_a_mask_that_does_not_fit_or_cannot_be_read_is_no_hole_to_judge(tmp_path):
    photo, source = _pair(tmp_path, (60, 41))
    with pytest.raises(InputError, match="a.png is 60x41.*a.jpg is 60x40"):
        source.central("a.jpg", photo, 20, None)
    with pytest.raises(InputError, match="1 of 1 photographs have no mask"):
        source.central("b.jpg", photo, 20, None)
    (tmp_path / "masks/a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="cannot be read"): source.central("a.jpg", photo, 20, None)


def test_drawn_holes_in_the_central_square_depend_on_the_generator_alone():
    source = mask_source("thick")
    first, again, other = (source.central("a", "a", 32, np.random.default_rng(i))
                           for i in (0, 0, 1))
    assert first.dtype == bool and (first == again).all() and (first != other).any()


def test_a_folder_matches_by_path_then_by_stem(tmp_path):
    for o in ("a/1.png", "b/1.png", "b/2.png"):
        (tmp_path / o).parent.mkdir(exist_ok=True)
        _half("L", tmp_path / o)
    folder = MaskFolder(tmp_path)
    assert folder.mask_of("a/1.jpg") == str(tmp_path / "a/1.png")
    for name in "2.jpg", "elsewhere/2.webp":
        assert folder.mask_of(name) == str(tmp_path / "b/2.png")
    assert folder.mask_of("1.jpg") is None  # either of two: not for us to guess


@pytest.mark.parametrize("rows, warned", [(5, False), (7, True)])
def test_masks_over_60_per_cent_hole_look_inverted(tmp_path, rows, warned):
    hole = np.arange(10)[:, None] < np.full((1, 8), rows)
    Image.fromarray(hole).save(tmp_path / "m.png")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mask_source(f"pool:{tmp_path}").check([], Skipped([]), sizes=False)
    assert bool(caught) == warned and all("over 60 %" in str(o.message) for o in caught)


@pytest.mark.parametrize("value, invert, message", [
    (0, False, r"2 masks looked at has a hole, such as .*a.png.*--invert"),
    (255, True, "has a hole.*leave out"),
    (255, False, "leaves anything of its photograph"), (0, True, "leaves anything")])
def test_masks_that_are_all_of_one_colour_stop_a_training(tmp_path, value, invert, message):
    for name in "ab": Image.new("L", (8, 10), value).save(tmp_path / f"{name}.png")
    for source in mask_source(f"pool:{tmp_path}", invert), mask_source(tmp_path, invert):
        with pytest.raises(InputError, match=message):
            source.check([(name, name) for name in ("a.jpg", "b.jpg")], Skipped([]), sizes=False)
    Image.fromarray(np.eye(8, dtype=bool)).save(tmp_path / "b.png")  # one that is as it should be
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mask_source(tmp_path, invert).check([("a.jpg", "a"), ("b.jpg", "b")], Skipped([]), sizes=False)
