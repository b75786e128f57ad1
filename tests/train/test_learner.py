from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.fp16 import to_fp16, to_fp32  # noqa: F401 - give the Learner both
from fastai.callback.progress import CSVLogger
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.callback.training import GradientAccumulation
from fastai.losses import MSELossFlat
from fastai.torch_core import params
from PIL import Image
from torch import nn

from fastinpaint.fill.inpainter import Inpainter
from fastinpaint.models.discriminator import PatchGAN
from fastinpaint.train.callback.adversarial import AdversarialTraining
from fastinpaint.train.callback.checkpoint import Checkpoint
from fastinpaint.train.callback.ema import EMA
from fastinpaint.train.callback.freeze import FreezeSchedule
from fastinpaint.train.callback.history import History
from fastinpaint.train.callback.latent import LatentLoss
from fastinpaint.train.callback.precision import BFloat16
from fastinpaint.train.callback.step_times import StepTimes
from fastinpaint.train.learner import inpaint_learner
from fastinpaint.train.losses import InpaintLoss, PixelL1, PixelMSE


def test_it_fills_what_an_inpainter_fills(tiny_learner, tmp_path):
    learn, rng = tiny_learner(control="mask"), np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8), rng.random((40, 48)) < .2
    pictures = Image.fromarray(image), Image.fromarray(mask)
    for picture, name in zip(pictures, ("photo.png", "mask.png"), strict=True): picture.save(tmp_path/name)
    expected = learn.inpaint(image, mask)
    assert np.array_equal(Inpainter(learn.model)(image, mask), expected)
    for a, b in [(tmp_path/"photo.png", tmp_path/"mask.png"), (str(tmp_path/"photo.png"), mask), pictures]:
        assert np.array_equal(learn.inpaint(a, b), expected)
    assert not np.array_equal(learn.inpaint(image, mask, dilate=2), expected)


def test_it_learns(tiny_learner):
    learn = tiny_learner(control="mask")
    before = learn.validate()[0]
    learn.fit(8, 1e-2)
    assert learn.validate()[0] < before


def test_a_term_is_enough_for_a_loss(tiny_learner, tiny_lama):
    dls = tiny_learner().dls
    for loss in PixelMSE(2.), InpaintLoss(PixelMSE(2.)):
        learn = inpaint_learner(dls, tiny_lama(), loss, [])
        assert isinstance(learn.loss_func, InpaintLoss) and learn.validate()[0] > 0


def test_default_metrics_are_those_of_the_papers(tiny_learner, tiny_lama):
    learn = inpaint_learner(tiny_learner().dls, tiny_lama())
    assert [m.name for m in learn.metrics] == ["hole_l1", "psnr", "ssim", "lpips"]


def test_the_optimizer_holds_what_a_schedule_thaws_later(tiny_learner):
    learn = tiny_learner()
    learn.model.decoder.requires_grad_(False)
    learn.create_opt()
    assert {id(p) for p, *_ in learn.opt.all_params()} == {id(p) for p in learn.model.parameters()}


# as a fastai Learner

def test_lr_find_leaves_the_learner_as_it_was(tiny_learner, tmp_path, state_of, same):
    cbs = [FreezeSchedule(), LatentLoss(1e-2, pixel=True), AdversarialTraining(PatchGAN(2, 2)), EMA(.9),
           History(tmp_path/"metrics.csv"), Checkpoint(tmp_path/"checkpoint.pt"),
           StepTimes(tmp_path/"step.json")]
    learn = tiny_learner(*cbs, control="mask")
    before = state_of(learn.model), deepcopy(learn.adversarial_training.state_dict())
    assert learn.lr_find(num_it=8, show_plot=False).minimum > 0
    assert same((state_of(learn.model), learn.adversarial_training.state_dict()), before)
    assert learn.ema.average is None and not [*tmp_path.glob("*.*")]
    assert learn.model.decode_in_training and not learn.model.refiner._forward_hooks
    learn.fit(1)
    assert (tmp_path/"checkpoint.pt").is_file() and (tmp_path/"metrics.csv").read_text().count("\n") == 2


def test_lr_find_does_not_use_up_a_resume(tiny_learner, interrupted, tmp_path, state_of, same):
    def learner(resume=False): return tiny_learner(Checkpoint(tmp_path/"checkpoint.pt", resume))
    whole = tiny_learner()
    whole.fit(2)
    interrupted(learner(), 1, 1)
    resumed = learner(resume=True)
    resumed.lr_find(num_it=8, show_plot=False)
    resumed.fit(2)
    assert len(resumed.recorder.values) == 1 and same(state_of(resumed.model), state_of(whole.model))


@pytest.mark.parametrize("callback", [
    Checkpoint, History, EMA, LatentLoss, FreezeSchedule, BFloat16, StepTimes])
def test_any_callback_can_be_removed_between_fits(tiny_learner, tmp_path, callback):
    learn = tiny_learner(FreezeSchedule(), LatentLoss(), EMA(.9), BFloat16(), StepTimes(tmp_path/"step.json"),
                         History(tmp_path/"metrics.csv"), Checkpoint(tmp_path/"checkpoint.pt"))
    learn.fit(1)
    learn.remove_cb(callback)
    learn.fit(1)
    assert learn.loss is None and len(learn.recorder.values) == 1
    learn.add_cb(EMA(.5))
    learn.fit(1)


def test_freeze_unfreeze_and_fine_tune(tiny_learner, state_of, same):
    learn = tiny_learner(splitter=lambda model: [params(model.encoder), params(model.decoder),
                                                 [*params(model.refiner), *params(model.conditioner)]])
    before = state_of(learn.model.encoder.stages[1].conv)
    learn.freeze()
    learn.fit(1)
    assert same(state_of(learn.model.encoder.stages[1].conv), before)
    learn.fine_tune(1, 1e-2)
    assert not same(state_of(learn.model.encoder.stages[1].conv), before)


def test_half_precision_of_fastai(tiny_learner):
    learn = tiny_learner(FreezeSchedule(), LatentLoss()).to_fp16()
    learn.fit(1)
    assert all(v.isfinite().all() for v in learn.model.state_dict().values())
    learn.to_fp32().fit(1)


def test_callbacks_of_fastai(tiny_learner, tmp_path):
    stop = EarlyStoppingCallback("valid_loss", min_delta=1e9, patience=1)
    learn = tiny_learner(FreezeSchedule(), LatentLoss(), CSVLogger("log.csv"),
                         SaveModelCallback("train_latent_l1"), stop, GradientAccumulation(4))
    learn.fit(9)
    assert (tmp_path/"models/model.pth").is_file() and learn.epoch == 1  # without a gain of 1e9 it stops
    header, *rows = (tmp_path/"log.csv").read_text().splitlines()
    assert "train_latent_l1" in header and len(rows) == 2
    assert learn.model.decode_in_training and not learn.fit_callbacks


def test_predictions_are_those_of_the_model(tiny_learner):
    learn = tiny_learner(LatentLoss(), EMA(.9))
    learn.fit(1)
    inputs, preds, (images, masks) = learn.get_preds(with_input=True)
    with torch.no_grad(): assert torch.equal(learn.model.eval()(*inputs), preds)
    assert torch.equal(inputs[0], images*(1 - masks))
    loss, hole_l1 = learn.validate()
    assert loss == pytest.approx((preds - images).abs().mean().item(), rel=1e-4)


# losses as fast.ai has them, and its learning rate finder

@pytest.fixture
def learner(tiny_learner, tiny_lama):
    "Makes a learner of the given arguments"
    def make(*args, **kwargs): return inpaint_learner(tiny_learner().dls, tiny_lama(), *args, **kwargs)
    return make


def test_losses_of_single_photographs(tiny_learner):
    learn = tiny_learner()
    preds, (images, masks), losses = learn.get_preds(with_loss=True)
    assert torch.allclose(losses, (preds - images).abs().mean((1, 2, 3)))
    assert learn.validate()[0] == pytest.approx(losses.mean().item())


def test_losses_of_single_photographs_add_up_their_terms(tiny_learner):
    learn = tiny_learner(loss=PixelL1(10., known=1., missing=0.))
    preds, (images, masks), losses = learn.get_preds(with_loss=True)
    assert torch.allclose(losses, 10*((preds - images).abs()*(1 - masks)).mean((1, 2, 3)))


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
