import matplotlib.pyplot as plt
import pytest
import torch

from fastinpaint.judge.show import latent_damage, outlined, results_figure, show_latent_damage, show_rows
from fastinpaint.train.callback.freeze import FreezeSchedule
from fastinpaint.train.callback.latent import LatentLoss


@pytest.fixture(autouse=True)
def figures():
    "All figures drawn in a test, closed after it"
    yield lambda: [plt.figure(n) for n in plt.get_fignums()]
    plt.close("all")


def panels(fig): return [ax.images[0].get_array() for ax in fig.axes]
def titles(fig): return [ax.get_title() for ax in fig.axes if ax.get_title()]


@pytest.mark.parametrize("h, w", [(20, 60), (60, 20), (32, 32)])
def test_rows_keep_the_pictures_aspect(h, w):
    fig = show_rows({"a": torch.rand(3, 3, h, w), "b": torch.rand(3, 3, h, w)}, max_n=2)
    assert [p.shape for p in panels(fig)] == [(h, w, 3)]*4 and titles(fig) == ["a", "b"]
    assert all(ax.get_aspect() == 1 for ax in fig.axes)
    fig.canvas.draw()
    box = fig.axes[0].get_window_extent()
    assert box.width/box.height == pytest.approx(w/h, rel=.02)


def test_there_are_no_more_rows_than_images():
    assert len(show_rows({"a": torch.rand(2, 3, 8, 8)}, max_n=4).axes) == 2


def test_a_batch_shows_input_hole_and_original(tiny_learner):
    dls = tiny_learner().dls
    batch = dls.valid.one_batch()
    fig = dls.valid.show_batch(batch)
    assert titles(fig) == ["masked input", "hole", "original"] and len(fig.axes) == 2*3
    image = batch[2][0].permute(1, 2, 0).as_subclass(torch.Tensor)
    assert torch.allclose(torch.tensor(panels(fig)[2]), image)


def test_the_loaders_show_a_batch_of_their_own(tiny_learner, figures):
    tiny_learner().dls.show_batch(max_n=1)
    assert [len(fig.axes) for fig in figures()] == [3]


def test_results_show_the_composite(tiny_learner, figures):
    learn = tiny_learner(control="mask")
    learn.show_results()
    fig = results_figure(learn, max_n=1)
    assert [len(f.axes) for f in figures()] == [2*4, 4]
    assert titles(fig) == ["masked input", "hole", "result", "original"]
    masked, _, result, original = (torch.tensor(p) for p in panels(fig))
    hole = learn.dls.valid.one_batch()[1][0, 0].bool()
    assert torch.equal(result[~hole], original[~hole]) and not torch.equal(result[hole], original[hole])
    assert not masked[hole].any()


def test_the_outline_runs_around_the_hole():
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., 3:6, 3:6] = 1
    edge = (outlined(torch.zeros(1, 3, 9, 9), mask) != 0).any(1)[0]
    expected = torch.zeros(9, 9, dtype=torch.bool)
    expected[2:7, 2:7] = True
    expected[3:6, 3:6] = False
    assert torch.equal(edge, expected)


def test_latent_damage_is_the_decoded_difference(tiny_learner):
    learn = tiny_learner(FreezeSchedule(), LatentLoss(), control="mask")
    learn.fit(1)
    learn.model.train()
    fig = show_latent_damage(learn, max_n=2)
    assert titles(fig) == ["masked input", "original", "decoded difference"] and len(fig.axes) == 2*3
    assert all(m.training for m in learn.model.modules())
    model, image = learn.model.eval(), torch.rand(1, 3, 21, 30)
    with torch.no_grad():
        masked = image*(torch.rand(1, 1, 21, 30) > .3)
        expected = model.decode(model.encode(image) - model.encode(masked))[..., :21, :30]
        assert torch.equal(latent_damage(model, image, masked), expected)
