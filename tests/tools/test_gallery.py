"Every method's fills, of photographs that nobody chose, at their own pixels"
import numpy as np
import pytest
from PIL import Image

from fastinpaint.core.errors import InputError
from fastinpaint.models.lama import lama
from fastinpaint.models.load import save_model
from fastinpaint.tools import gallery
from fastinpaint.tools.settings import GallerySettings


@pytest.fixture
def made(photos, tmp_path):
    "Runs the tool on the eight pictures; returns its page and sheets"
    def run(**flags):
        settings = dict(methods="mean_colour,sample", data=str(photos), size=40, number=7, out=str(tmp_path))
        gallery.main(GallerySettings(**settings | flags))
        return (tmp_path/"gallery.md").read_text(), [Image.open(f) for f in sorted(tmp_path.glob("*.jpg"))]
    return run


def test_a_row_of_each_photograph_a_column_of_each_method(made):
    page, sheets = made()
    side = 4*40 + 4  # small pictures are enlarged
    assert [sheet.size for sheet in sheets] == [(4*side - 4, 24 + n*side - 4) for n in (6, 1)]
    assert page.count(".png (") == 7 and page.count("(medium)") == 4 and page.count("(thick)") == 3
    assert "![hole, mean_colour, sample, original](gallery-2.jpg)" in page


def test_models_of_two_runs_have_a_column_each(made, tmp_path):
    files = [tmp_path/run/"model.safetensors" for run in ("delta", "latent")]
    for file in files:
        file.parent.mkdir()
        save_model(lama(2, 1, autoencoder=None), file)
    page, _ = made(methods=f"{files[0]},{files[1]}+texture", number=1)
    assert "![hole, delta, latent+texture, original]" in page


def test_runs_of_one_recipe_have_a_column_each(made, tmp_path):
    files = [tmp_path/seed/"delta/model.safetensors" for seed in ("seed0", "seed1")]
    for file in files:
        file.parent.mkdir(parents=True)
        save_model(lama(2, 1, autoencoder=None), file)
    page, _ = made(methods=f"{files[0]},{files[1]}", number=1)
    assert "![hole, delta, delta, original]" in page


def test_a_network_that_generates_has_several_fills(photos, tmp_path, tiny_diffusion):
    file = tmp_path/"diffuse/model.safetensors"
    file.parent.mkdir()
    save_model(tiny_diffusion(), file)
    titles, fills = gallery.methods(("sample", str(file)), "cpu", n=2)
    assert [*titles] == ["sample", "diffuse 1", "diffuse 2"]
    item = gallery.items(photos, GallerySettings(size=32, number=1))[0]
    _, _, first, second, _ = gallery.row(item, fills, 0)
    assert (first != second)[item.hole].any() and np.array_equal(first[~item.hole], second[~item.hole])


def test_photographs_are_chosen_by_name_and_are_the_same_again(photos):
    names = gallery.chosen(photos, 3)
    assert len({*names}) == 3 and names == gallery.chosen(photos, 8)[:3]
    assert gallery.chosen(photos, 8) != sorted(gallery.chosen(photos, 8))


def test_fills_are_the_methods_and_known_pixels_the_photographs(photos):
    item = gallery.items(photos, GallerySettings(size=40, number=1))[0]
    _, fills = gallery.methods(("mean_colour", "sample"), "cpu")
    _, mean, filled, original = gallery.row(item, fills, 0)
    assert np.array_equal(original, item.image)
    for fill in mean, filled: assert np.array_equal(fill[~item.hole], item.image[~item.hole])
    assert len(np.unique(mean[item.hole], axis=0)) == 1
    colour = item.image[~item.hole].mean(0)
    assert np.abs(mean[item.hole][0] - colour).max() < 1
    assert len(np.unique(filled[item.hole], axis=0)) > 1


@pytest.mark.parametrize("centre, corner", [((20, 25), (15, 20)), ((0, 0), (0, 0)), ((39, 47), (30, 38))])
def test_a_window_lies_around_the_hole_and_inside_the_photograph(centre, corner):
    hole = np.zeros((40, 48), bool)
    hole[centre] = True
    rows, columns = gallery.window(hole, 10)
    assert (rows.start, columns.start) == corner
    assert rows.stop - rows.start == columns.stop - columns.start == 10
    assert hole[gallery.window(hole, 0)].shape == hole.shape


def test_nothing_to_show_is_said(made):
    with pytest.raises(InputError, match="at least one photograph"): made(number=0)
    with pytest.raises(InputError, match="1 or more"): made(fills=0)
    with pytest.raises(InputError, match="nothing-here"): made(methods="nothing-here")
