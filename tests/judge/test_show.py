import matplotlib.pyplot as plt
import pytest
import torch
from fastai.interpret import Interpretation

from fastinpaint.data.loaders import InpaintDataLoaders
from fastinpaint.judge.show import latent_damage, outlined, results_figure, show_latent_damage, show_rows
from fastinpaint.kernels.prefill import smooth_fill
from fastinpaint.train.callback.freeze import FreezeSchedule
from fastinpaint.train.callback.latent import LatentLoss
from fastinpaint.train.learner import inpaint_learner


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
    dls.valid.show_batch(batch)
    fig = plt.gcf()
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


def test_results_of_a_generator_are_several(tiny_learner, figures, monkeypatch):
    learn = tiny_learner()
    model, forward = learn.model, learn.model.forward
    monkeypatch.setattr(model, "generates", True, raising=False)
    model.forward = lambda masked, mask, seed=0: forward(masked, mask)*0 + seed/8
    model.train()
    learn.show_results()
    fig = results_figure(learn, max_n=1)
    assert [len(f.axes) for f in figures()] == [2*7, 7] and model.encoder.stages[0].bn.weight.requires_grad
    assert titles(fig) == ["masked input", "hole", "result", "seed 1", "seed 2", "seed 3", "original"]
    hole = learn.dls.valid.one_batch()[1][0, 0].bool()
    *_, original = (torch.tensor(p) for p in panels(fig))
    for i, panel in enumerate(panels(fig)[2:6]):
        fill = torch.tensor(panel)
        assert torch.equal(fill[~hole], original[~hole]) and (fill[hole] == i/8).all()


def test_the_outline_runs_around_the_hole():
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., 3:6, 3:6] = 1
    edge = (outlined(torch.zeros(1, 3, 9, 9), mask) != 0).any(1)[0]
    expected = torch.zeros(9, 9, dtype=torch.bool)
    expected[2:7, 2:7] = True
    expected[3:6, 3:6] = False
    assert torch.equal(edge, expected)


@torch.no_grad()
def expected_latents(model, image, masked, mask):
    "Of the whole image; and before control, after it and after the refiner"
    given = smooth_fill(model.pad(masked), model.pad(mask)) if model.prefill else model.pad(masked)
    encoded = model.encode(masked, mask)
    return model.encode(image), (model.encoder(given), encoded, model.refine(encoded))


@pytest.fixture
def trained(tiny_learner):
    "A learner whose control and refiner have left their start, where they change nothing"
    def make(**kwargs):
        learn = tiny_learner(FreezeSchedule(), LatentLoss(), control="mask", **kwargs)
        learn.fit(2)
        return learn
    return make


@pytest.mark.parametrize("prefill", [True, False])
def test_latent_damage_is_the_decoded_difference_at_each_stage(trained, prefill):
    model, image = trained(prefill=prefill).model.eval(), torch.rand(2, 3, 21, 30)
    mask = (torch.rand(2, 1, 21, 30) > .7).float()
    whole, latents = expected_latents(model, image, image*(1 - mask), mask)
    damage = latent_damage(model, image, image*(1 - mask), mask)
    assert list(damage) == ["before control", "after control", "after refiner"]
    for picture, latent in zip(damage.values(), latents, strict=True):
        assert torch.equal(picture, model.decode(whole - latent)[..., :21, :30])
    first, *later = damage.values()
    assert not any(torch.equal(first, picture) for picture in later)


def test_before_training_control_changes_nothing_even_of_a_prefilled_image(tiny_lama):
    model, image = tiny_lama(control="mask").eval(), torch.rand(1, 3, 32, 32)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8:20, 8:20] = 1
    before, after, _ = latent_damage(model, image, image*(1 - mask), mask).values()
    assert torch.allclose(before, after, atol=1e-6)


def test_no_hole_does_no_damage_before_the_refiner(tiny_lama):
    "What is left is what the decoder makes of zeros: a published LaMa's sigmoid too"
    model, image = tiny_lama(control="mask", linear=False).eval(), torch.rand(1, 3, 32, 32)
    none = torch.zeros(1, 1, 32, 32)
    before, after, _ = latent_damage(model, image, image, none).values()
    grey = model.decode(torch.zeros_like(model.encode(image)))
    assert torch.equal(before, grey) and torch.allclose(after, grey, atol=1e-6)


def test_the_figure_says_how_large_the_damage_is_in_the_hole_and_elsewhere(trained):
    learn = trained()
    learn.model.train()
    show_latent_damage(learn, max_n=1)
    fig = plt.gcf()
    assert all(m.training for m in learn.model.modules()) and len(fig.axes) == 5
    plain, numbers = titles(fig)[:2], [title.split("\n") for title in titles(fig)[2:]]
    assert plain == ["masked input", "original"]
    masked, mask, image, _ = (x[:1].as_subclass(torch.Tensor) for x in learn.dls.valid.one_batch())
    whole, latents = expected_latents(learn.model.eval(), image, masked, mask)
    share = torch.nn.functional.avg_pool2d(mask, 8)
    for (title, hole, rest), latent in zip(numbers, latents, strict=True):
        size = (whole - latent).abs().mean(1, keepdim=True)
        assert title in ("before control", "after control", "after refiner")
        assert hole == f"hole {(size*share).sum()/share.sum():.4f}"
        assert rest == f"elsewhere {(size*(1 - share)).sum()/(1 - share).sum():.4f}"


def test_the_worst_fills_are_shown(tiny_learner):
    learn = tiny_learner()
    found = Interpretation.from_learner(learn)
    losses, _ = found.top_losses(2)
    found.plot_top_losses(2)
    texts = [ax.get_title() for ax in plt.gcf().axes[2::4]]
    assert len(plt.gcf().axes) == 2*4 and losses[0] >= losses[1]
    assert all(f"{loss:.4f}" in text for loss, text in zip(losses, texts, strict=True))


@pytest.mark.parametrize("bs", [2, 16])
def test_results_of_few_photographs_are_each_shown_once(photos, tiny_lama, bs):
    dls = InpaintDataLoaders.from_folder(photos, "center", 32, bs, valid=.25, num_workers=0, device="cpu")
    inpaint_learner(dls, tiny_lama(), metrics=[]).show_results()
    originals = {ax.images[0].get_array().data.tobytes() for ax in plt.gcf().axes[3::4]}
    assert len(plt.gcf().axes) == 2*4 and len(originals) == 2


def test_pictures_are_shown_once(tiny_learner):
    "A notebook shows a figure when it is drawn, and again where it is what a cell ends with"
    learn = tiny_learner(control="mask")
    shown = [learn.dls.show_batch(), learn.show_results(), learn.show_latent_damage()]
    assert shown == [None]*3 and len(plt.get_fignums()) == 3
