"The loss of latent diffusion"
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.torch_core import set_seed

from fastinpaint.core.errors import InputError
from fastinpaint.data.loaders import InpaintDataLoaders
from fastinpaint.models.upsampler import upsampler
from fastinpaint.train.callback.checkpoint import Checkpoint
from fastinpaint.train.callback.denoise import Denoising
from fastinpaint.train.callback.ema import EMA
from fastinpaint.train.callback.freeze import FreezeSchedule
from fastinpaint.train.callback.precision import BFloat16
from fastinpaint.train.learner import inpaint_learner

diffusers = pytest.importorskip("diffusers")


class Watch(Callback):
    "Calls `look(learn)` after the loss of every batch of training, or of validation"
    def __init__(self, look, training=True): self.look, self.when = look, training
    def after_loss(self):
        if self.training == self.when: self.look(self.learn)


@pytest.fixture
def learner(photos, tmp_path, tiny_diffusion):
    "Makes a learner of a tiny diffusion model on 32-pixel crops: three batches of two an epoch"
    def make(*cbs, seed=0, denoising=None, augment=False, **kwargs):
        set_seed(seed)
        dls = InpaintDataLoaders.from_folder(photos, "center", 32, 2, valid=.25, seed=seed, steps=3,
                                             augment=augment, num_workers=0, device="cpu")
        cbs = [FreezeSchedule(), Denoising(**denoising or {}), *cbs]
        return inpaint_learner(dls, tiny_diffusion(**kwargs), None, [], cbs, lr=1e-2, path=tmp_path)
    return make


@pytest.mark.parametrize("prediction, min_snr, known, delta", [
    ("v", 5., .1, False), ("epsilon", 5., 1., False), ("v", 0., 1., True), ("epsilon", 0., 0., True)])
def test_a_step_is_diffusers_own(learner, prediction, min_snr, known, delta):
    "Restated with diffusers alone: noise, U-Net, target, weights"
    seen = []
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=1000, beta_start=.00085, beta_end=.012, beta_schedule="scaled_linear",
        prediction_type=dict(v="v_prediction", epsilon="epsilon")[prediction])

    def look(learn):
        net, (masked, mask, *_), (image, _) = learn.model, learn.xb, learn.yb
        unet = diffusers.UNet2DConditionModel(**net.refiner.unet.config)
        unet.load_state_dict(net.refiner.unet.state_dict())
        rng = np.random.default_rng([3, True, learn.train_iter])
        t = torch.from_numpy(rng.integers(1000, size=2))
        noise = torch.from_numpy(rng.standard_normal((2, 16, 4, 4), np.float32))
        with torch.no_grad():
            latent, given = ((net.encoder(x) - net.mean)/net.std for x in (image, masked))
            hole = F.avg_pool2d(mask, 8)
            if delta: latent = (latent - given)/net.scale
            pred = unet(torch.cat([scheduler.add_noise(latent, noise, t), given, hole], 1), t, None).sample
        target = scheduler.get_velocity(latent, noise, t) if prediction == "v" else noise
        snr = diffusers.training_utils.compute_snr(scheduler, t)
        weight = torch.ones(2)
        if min_snr: weight = snr.clamp(max=min_snr)/(snr + 1 if prediction == "v" else snr)
        error = F.mse_loss(pred, target, reduction="none")*(hole + known*(1 - hole))
        seen.append((learn.loss.item(), 2*(error.mean((1, 2, 3))*weight).mean().item()))

    learn = learner(Watch(look), denoising=dict(weight=2., min_snr=min_snr, known=known, seed=3),
                    prediction=prediction, prefill=False, delta=delta)
    learn.fit(2)
    assert len(seen) == 6 and all(loss == pytest.approx(theirs, rel=1e-6) for loss, theirs in seen)


def test_the_latent_is_whitened_once_by_training_photographs(learner, state_of):
    learn, given = learner(denoising=dict(images=3)), []
    net, measure = learn.model, learn.model.measure
    net.measure = lambda *parts: given.append(parts) or measure(*parts)
    before = net.encoder.state_dict()["stages.0.bn.running_mean"].clone()
    learn.fit(1)
    learn.fit(1)
    ((latents, masked, hole),), mean = given, net.mean.flatten()
    assert latents.shape == masked.shape == (4, 16, 4, 4) and torch.allclose(mean, latents.mean((0, 2, 3)))
    assert torch.equal(hole.amax((2, 3)), torch.ones(4, 1)) and 0 < hole.mean() < .5
    difference = (latents - masked)/net.std/net.scale
    squares = (hole*difference.square()).sum((0, 2, 3))/hole.sum()
    assert torch.allclose(squares, torch.ones(16), rtol=1e-3)
    assert net.measured and torch.equal(net.encoder.state_dict()["stages.0.bn.running_mean"], before)


def test_it_learns_and_only_the_denoiser_changes(learner, state_of, same):
    losses = []
    learn = learner(Watch(lambda learn: losses.append(learn.loss.item()), training=False),
                    denoising=dict(known=1.))
    before = state_of(learn.model)
    learn.fit(12, 1e-2)
    assert losses[-1] < .9*losses[0]
    after = state_of(learn.model)
    changed = {k.partition(".")[0] for k in before if not torch.equal(before[k], after[k])}
    assert changed == {"refiner", "mean", "std", "scale", "measured"}


def test_validation_has_the_same_noise_in_every_epoch_and_looks_at_pictures(learner):
    seen = []
    learn = learner(Watch(lambda learn: seen.append((learn.loss.item(), learn.pred.shape)), training=False))
    learn.fit(2, 0.)
    assert seen[0] == seen[1] and seen[0][1] == (2, 3, 32, 32)
    learn.validate()
    assert learn.pred.shape == (2, 3, 32, 32)  # outside of a fit pixels are judged


@pytest.mark.parametrize("control", ["concat", "controlnet", "mask", None])
def test_a_resumed_run_ends_with_the_bits_of_a_whole_one(learner, tmp_path, resumes_to_the_bit, control):
    def run(name, resume=False):
        return learner(EMA(.9), Checkpoint(tmp_path/name, resume), control=control, augment=True,
                       delta=control is not None)
    resumes_to_the_bit(run)


def test_an_upsampler_learns_from_the_image_made_smaller_and_resumes_to_the_bit(
        photos, interrupted, tiny_diffusion, tmp_path, state_of, same):
    def run(name, resume=False):
        set_seed(0)
        dls = InpaintDataLoaders.from_folder(photos, "center", 32, 2, valid=.25, seed=0, steps=3,
                                             augment=False, num_workers=0, device="cpu")
        net = upsampler(tiny_diffusion(pixels=True), (8, 16), steps=2)
        cbs = [FreezeSchedule(base=(0, 1)), Denoising(), EMA(.9), Checkpoint(tmp_path/name, resume)]
        return inpaint_learner(dls, net, None, [], cbs, lr=1e-2, path=tmp_path)
    whole, broken, seen = run("whole.pt"), run("run.pt"), []
    net, base, of = whole.model, state_of(whole.model.base), whole.model.condition_of
    net.condition_of = lambda *batch: seen.append((*batch, given := of(*batch))) or given
    whole.fit_one_cycle(3, 1e-2)
    image, masked, mask, condition = (o.as_subclass(torch.Tensor) for o in seen[-1])
    larger = F.interpolate(F.avg_pool2d(image, 4), scale_factor=4, mode="bilinear")
    assert torch.equal(condition[:, :3], net.whiten(torch.where(mask > .5, larger, masked)))
    interrupted(broken, 2, 1, lambda: broken.fit_one_cycle(3, 1e-2))
    resumed = run("run.pt", resume=True)
    resumed.fit_one_cycle(3, 1e-2)
    assert same(state_of(resumed.model), state_of(net)) and same(state_of(net.base), base)


def test_in_bfloat16(learner):
    learn = learner(BFloat16())
    learn.fit(1)
    assert learn.recorder.losses[-1].isfinite() and learn.model.refiner.unet.dtype == torch.float32


def test_each_process_has_its_rows_of_the_noise_of_all(learner, monkeypatch):
    from fastinpaint.train.callback import denoise
    def drawn(n, rank=0, world=1):
        monkeypatch.setattr(denoise, "rank", lambda: rank)
        monkeypatch.setattr(denoise, "world", lambda: world)
        cb = learn.denoising
        cb.learn.training, cb.learn.train_iter = True, 4
        return cb._drawn(torch.zeros(n, 3, 2, 2))
    learn = learner()
    learn.denoising = next(cb for cb in learn.cbs if isinstance(cb, Denoising))
    together, parts = drawn(6), [drawn(2, rank, 3) for rank in range(3)]
    for whole, part in zip(together, zip(*parts, strict=True), strict=True):
        assert torch.equal(whole, torch.cat(part))


def test_another_network_and_negative_weights_are_refused(tiny_learner):
    with pytest.raises(InputError, match="InpaintNet does not denoise"): tiny_learner(Denoising()).fit(1)
    with pytest.raises(InputError, match="known=-1"): Denoising(known=-1.)
    with pytest.raises(InputError, match="denoising is -1"): Denoising(-1.)
