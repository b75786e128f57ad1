"Figures of a comparison"
import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from fastinpaint.judge.protocol import Item
from fastinpaint.tools.figures import curves, grid, latent_damage
from fastinpaint.tools.rows import Row, read_history


@pytest.fixture(autouse=True)
def closed():
    "Figures of a test are closed after it"
    yield
    plt.close("all")


def test_the_grid_shows_composites_of_the_same_holes():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    hole = np.zeros((16, 16), bool)
    hole[4:8, 4:8] = True
    seen = []

    def black(masked, mask):
        seen.append(masked)
        return torch.zeros_like(masked)
    fig = grid([Item("thick", "a", image, hole)], {"black": black})
    _, filled, original = (ax.images[0].get_array() for ax in fig.axes)
    assert [ax.get_title() for ax in fig.axes] == ["hole", "black", "original"]
    assert np.array_equal(filled[~hole], original[~hole]) and not filled[hole].any()
    assert not seen[0][..., torch.from_numpy(hole)].any()


def test_latent_damage_is_shown_of_every_item_at_every_stage(tiny_lama):
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    hole = np.zeros((16, 16), bool)
    hole[4:8, 4:8] = True
    items = [Item("thick", name, image, hole) for name in "abc"]
    fig = latent_damage(tiny_lama(control="mask").eval(), items)
    titles = [ax.get_title().split("\n")[0] for ax in fig.axes if ax.get_title()]
    assert titles == ["masked input", "original", "before control", "after control", "after refiner"]
    assert len(fig.axes) == 3*5 and not fig.axes[0].images[0].get_array()[hole].any()


def test_curves_end_where_runs_end_and_are_cut_at_twice_the_best():
    text = "epoch,lpips,hole_l1,time\n0,n/a,.9,00:30\n1,.3,.1,01:30\n"
    fig = curves([Row("telea", [], []), Row("latent", [], [read_history(io.StringIO(text))])])
    (epochs,), (minutes,) = (ax.lines for ax in fig.axes[2:])
    assert [*epochs.get_xdata()] == [1, 2] and [*minutes.get_xdata()] == [.5, 2]
    assert [*epochs.get_ydata()] == [.9, .1] and fig.axes[2].get_ylim() == pytest.approx((.09, .2))
    assert np.isnan(fig.axes[0].lines[0].get_ydata()[0])
