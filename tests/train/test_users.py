"What users of fastai do with a Learner, and expect to work"
import os
import subprocess
import sys

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.interpret import Interpretation
from fastai.losses import MSELossFlat
from fastai.metrics import mae, mse, rmse
from torch import nn

from fastinpaint.data.loaders import InpaintDataLoaders
from fastinpaint.models.net import composite
from fastinpaint.train.callback.freeze import FreezeSchedule
from fastinpaint.train.callback.latent import LatentLoss
from fastinpaint.train.learner import inpaint_learner
from fastinpaint.train.losses import PixelL1


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def learner(tiny_learner, tiny_lama):
    "Makes a learner of the given arguments"
    def make(*args, **kwargs): return inpaint_learner(tiny_learner().dls, tiny_lama(), *args, **kwargs)
    return make


@pytest.mark.parametrize("cbs", [[], [FreezeSchedule(), LatentLoss()]], ids=["pixels", "latents"])
def test_a_summary_lists_layers_and_parameters(tiny_learner, cbs):
    learn = tiny_learner(*cbs, control="mask")
    before = [p.requires_grad for p in learn.model.parameters()], learn.model.training
    text, total = learn.summary(), sum(p.numel() for p in learn.model.parameters())
    assert ([p.requires_grad for p in learn.model.parameters()], learn.model.training) == before
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    assert lines["all"] == ["InpaintNet", "2×3×32×32", f"{total:,}", f"{total:,}"]
    assert lines["refiner"][1] == "2×16×4×4" and "pixel_l1" in text
    assert sum(int(lines[part][-1].replace(",", "")) for part, _ in learn.model.named_children()) == total
    learn.freeze()
    assert "Frozen: the first 3 of 4" in learn.summary()


def test_losses_of_single_photographs(tiny_learner):
    learn = tiny_learner()
    preds, (images, masks), losses = learn.get_preds(with_loss=True)
    assert torch.allclose(losses, (preds - images).abs().mean((1, 2, 3)))
    assert learn.validate()[0] == pytest.approx(losses.mean().item())


def test_losses_of_single_photographs_add_up_their_terms(tiny_learner):
    learn = tiny_learner(loss=PixelL1(10., known=1., missing=0.))
    preds, (images, masks), losses = learn.get_preds(with_loss=True)
    assert torch.allclose(losses, 10*((preds - images).abs()*(1 - masks)).mean((1, 2, 3)))


def test_the_worst_fills_are_shown(tiny_learner):
    learn = tiny_learner()
    found = Interpretation.from_learner(learn)
    losses, _ = found.top_losses(2)
    found.plot_top_losses(2)
    texts = [ax.get_title() for ax in plt.gcf().axes[2::4]]
    assert len(plt.gcf().axes) == 2*4 and losses[0] >= losses[1]
    assert all(f"{loss:.4f}" in text for loss, text in zip(losses, texts, strict=True))


@pytest.mark.parametrize("metric, of", [
    (mse, lambda a, b: F.mse_loss(a, b)), (lambda pred, targ: (pred - targ).abs().max(), lambda a, b: None),
    (mae, lambda a, b: F.l1_loss(a, b)), (rmse, lambda a, b: F.mse_loss(a, b).sqrt())],
    ids=["mse", "own", "mae", "rmse"])
def test_metrics_of_prediction_and_target_see_the_composite(learner, metric, of):
    learn = learner(metrics=[metric])
    value = learn.validate()[1]
    preds, (images, masks) = learn.get_preds()
    expected = of(composite(preds, images, masks), images)
    if expected is not None: assert value == pytest.approx(expected.item(), rel=1e-5)
    learn.fit(1)


def test_a_metric_that_takes_the_mask_is_given_the_batch(learner):
    def outside(pred, image, mask): return ((pred - image).abs()*(1 - mask)).mean()
    learn = learner(metrics=outside)
    preds, (images, masks) = learn.get_preds()
    assert learn.validate()[1] == pytest.approx(outside(preds, images, masks).item(), rel=1e-5)
    learn.metrics = [mse]  # as in a notebook
    assert len(learn.validate()) == 2


LOSSES = {"module": (nn.MSELoss(), F.mse_loss), "function": (F.l1_loss, F.l1_loss),
          "fastai": (MSELossFlat(), F.mse_loss)}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_prediction_and_target_trains(learner, name):
    given, expected = LOSSES[name]
    learn = learner(loss_func=given, metrics=[])
    preds, (images, _), losses = learn.get_preds(with_loss=True)
    assert learn.validate()[0] == pytest.approx(expected(preds, images).item(), rel=1e-5)
    assert losses.mean() == pytest.approx(expected(preds, images).item(), rel=1e-5)
    learn.fit(1)
    assert learn.recorder.metric_names[-2].startswith("train_")


def test_a_loss_of_the_mask_and_one_given_later(learner):
    def hole(pred, image, mask): return ((pred - image).abs()*mask).mean()
    learn = learner(hole, metrics=[])
    preds, (images, masks) = learn.get_preds()
    assert learn.validate()[0] == pytest.approx(hole(preds, images, masks).item(), rel=1e-5)
    learn.loss_func = F.mse_loss
    assert learn.validate()[0] == pytest.approx(F.mse_loss(preds, images).item(), rel=1e-5)


@pytest.mark.parametrize("loss", [3, "l1", lambda: 0., lambda pred: 0.])
def test_what_is_no_loss_is_refused(learner, loss):
    with pytest.raises(ValueError, match="a loss is"): learner(loss)


def test_two_losses_are_refused(learner):
    with pytest.raises(ValueError, match="loss_func"): learner(PixelL1(), loss_func=F.mse_loss)


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


def test_a_log_has_one_line_an_epoch(tiny_learner, capsys):
    learn = tiny_learner()
    capsys.readouterr()
    learn.fit(2)
    learn.validate()
    learn.get_preds()
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["epoch", "train_loss"] and [line.split()[0] for line in lines] == ["0", "1"]
    assert not any(c in header + "".join(lines) for c in "\r█|")


def test_a_terminal_has_bars(tiny_learner, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    tiny_learner().fit(1)
    assert "█" in capsys.readouterr().out


ORDER = """
{first}
{last}
import sys
from pathlib import Path
dls = InpaintDataLoaders.from_folder(sys.argv[1], "center", 32, 2, valid=.25, num_workers=0, device="cpu")
learn = inpaint_learner(dls, lama(width=2, blocks=1, autoencoder=None), metrics=[mse, HoleL1()])
learn.fit(1)
import fastai.vision.all as theirs, fastinpaint.all as ours
public = [k for k in vars(ours) if not k.startswith("_")]
print(sorted(k for k in public if globals()[k] is not getattr(ours, k)))
"""


@pytest.mark.parametrize("ours_last, other", [(True, []), (False, ["Code", "load_model", "save_model"])])
def test_either_order_of_imports_works(photos, tmp_path, ours_last, other):
    lines = ["from fastinpaint.all import *", "from fastai.vision.all import *"]
    first, last = reversed(lines) if ours_last else lines
    run = subprocess.run([sys.executable, "-c", ORDER.format(first=first, last=last), photos], cwd=tmp_path,
                         env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == str(other)


# parameter groups

def test_groups_go_from_the_encoder_to_control(tiny_learner):
    learn = tiny_learner(control="mask")
    learn.create_opt()
    parts = ["encoder", "decoder", "refiner", "conditioner"]
    assert [{id(p) for p in group} for group in learn.opt.param_lists] == [
        {id(p) for p in getattr(learn.model, part).parameters()} for part in parts]
    learn.fit(1, slice(1e-5, 1e-2))
    assert [h["lr"] for h in learn.opt.hypers] == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2])


@pytest.mark.parametrize("n, trained", [(-1, ["conditioner"]), (-2, ["refiner", "conditioner"]),
                                        (1, ["decoder", "refiner", "conditioner"])])
def test_what_is_frozen_stays_to_the_bit(tiny_learner, state_of, same, n, trained):
    learn = tiny_learner(control="mask", wd=.1)
    learn.fit(1)  # leaves momentum
    before = {name: state_of(part) for name, part in learn.model.named_children()}
    learn.freeze_to(n)
    learn.fit(1)
    changed = [k for k, part in learn.model.named_children() if not same(state_of(part), before[k])]
    assert sorted(changed) == sorted(trained)
    learn.unfreeze()
    learn.fit(1)
    assert not any(same(state_of(part), before[k]) for k, part in learn.model.named_children())


def test_without_control_the_refiner_is_the_last_group(tiny_learner):
    learn = tiny_learner(control=None)
    learn.freeze()
    trained = {k.partition(".")[0] for k, p in learn.model.named_parameters() if p.requires_grad}
    assert trained == {"refiner"}


def test_frozen_by_either_is_frozen(tiny_learner, state_of, same):
    "The schedule thaws the decoder half-way, freeze holds it; unfreeze leaves the encoder to the schedule"
    learn = tiny_learner(FreezeSchedule(decoder=(0, .5)), control="mask")
    before = {name: state_of(part) for name, part in learn.model.named_children()}
    def changed(): return {k for k, old in before.items() if not same(state_of(getattr(learn.model, k)), old)}
    learn.freeze()
    learn.fit(2)
    assert changed() == {"conditioner"}
    trained = {k.partition(".")[0] for k, p in learn.model.named_parameters() if p.requires_grad}
    assert trained == {"conditioner"}
    learn.unfreeze()
    learn.fit(2)
    assert changed() == {"conditioner", "refiner", "decoder"}


def test_fine_tune_trains_control_first_and_then_all_by_smaller_rates(tiny_learner, state_of, same):
    seen = []

    class Watch(Callback):
        def after_epoch(self): seen.append(state_of(self.model.encoder))

    learn = tiny_learner(Watch(), control="mask")
    before = state_of(learn.model.encoder)
    learn.fine_tune(1, 1e-2)
    assert same(seen[0], before) and not same(seen[1], before)


# the learning rate finder

def test_lr_find_suggests_a_rate_that_trains_zero_initialised_control(tiny_learner, photos):
    found = []
    for seed in range(2):
        learn = tiny_learner(FreezeSchedule(refiner=(0, 1)), LatentLoss(), control="mask", seed=seed,
                             prefill=False)
        loader = learn.dls.train
        found.append(learn.lr_find(num_it=40, show_plot=False).minimum)
        assert learn.dls.train is loader
    assert all(1e-4 < lr < 1 for lr in found) and max(found) < 10*min(found)
    before = learn.validate()[0]
    learn.fit(4, min(found))
    assert learn.validate()[0] < before
