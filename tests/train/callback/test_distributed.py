import copy
import os
import signal

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.torch_core import set_seed
from torch import nn

from fastinpaint.core.errors import InputError
from fastinpaint.core.ranks import rank
from fastinpaint.data.loaders import InpaintDataLoaders
from fastinpaint.judge.metrics import HoleL1
from fastinpaint.models.discriminator import PatchGAN
from fastinpaint.models.lama import lama
from fastinpaint.train.callback.adversarial import AdversarialTraining
from fastinpaint.train.callback.centre import Centre
from fastinpaint.train.callback.checkpoint import Checkpoint
from fastinpaint.train.callback.distributed import Distributed, set_batchnorm
from fastinpaint.train.callback.ema import EMA
from fastinpaint.train.callback.freeze import FreezeSchedule
from fastinpaint.train.callback.latent import LatentLoss
from fastinpaint.train.callback.latent_adversarial import LatentAdversarial
from fastinpaint.train.callback.precision import BFloat16
from fastinpaint.train.callback.reconstruct import Reconstruct
from fastinpaint.train.learner import inpaint_learner
from fastinpaint.train.losses import PixelMSE

BATCH = 6  # of all processes


class FrozenBatchNorm(Callback):
    "BatchNorm by its running statistics, as only then it is the same function of each photograph"
    def before_batch(self): set_training(self.model, False)


class FrozenPatchGAN(PatchGAN):
    def train(self, mode=True): return set_training(super().train(mode), False)


def set_training(net, training):
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d): m.train(training)
    return net


class Losses(Callback):
    "The loss of every training step"
    order = 45
    def __init__(self): self.seen = []

    def after_loss(self):
        if self.training: self.seen.append(self.learn.loss.item())


def learner(photos, bs, cbs=(), steps=20, masks="train", valid=.5, metrics=None, loss=None, **kwargs):
    set_seed(0)
    dls = InpaintDataLoaders.from_folder(photos, masks, 32, bs, valid=valid, seed=1, steps=steps,
                                         num_workers=0, device="cpu")
    net = lama(**(dict(width=2, blocks=1, autoencoder=None) | kwargs))
    return inpaint_learner(dls, net, loss, metrics or [HoleL1()], [*cbs, Losses()], lr=1e-3, wd=0.)


def trained(make, bs, epochs=1, **kwargs):
    "Losses by step, the last row of the table, and all that has been learnt"
    learn = make(bs, **kwargs)
    with learn.no_bar(), learn.no_logging(): learn.fit(epochs)
    state = {"model": learn.model.state_dict(), "optimizer": learn.opt.state_dict()["state"]}
    for cb in learn.cbs:
        if hasattr(type(cb), "state_dict") and not isinstance(cb, EMA): state[cb.name] = cb.state_dict()
    return next(cb.seen for cb in learn.cbs if isinstance(cb, Losses)), [*learn.recorder.values[-1]], state


def discriminator():
    torch.manual_seed(7)
    return FrozenPatchGAN(2, 2)


# name → callbacks, given the batch of a process, and what else makes the learner
METHODS = {
    "thawing, clipped, averaged": (lambda bs: [FreezeSchedule((0, .3), (0, .6)), GradientClip(.1), EMA(.9)],
                                   dict(control="mask")),
    "a trained decoder that rests": (lambda bs: [LatentLoss(distance="huber")], dict(control="mask")),
    "distance of a measured decoder": (lambda bs: [FreezeSchedule(), LatentLoss(distance="decoder")],
                                       dict(control="mask")),
    "gradients accumulated": (lambda bs: [GradientAccumulation(2*bs)], {}),
    "discriminator of images": (lambda bs: [AdversarialTraining(discriminator(), r1=.1)], {}),
    "discriminator of latents": (lambda bs: [FreezeSchedule(), LatentLoss(), LatentAdversarial(r1_every=2)],
                                 dict(control="mask", delta=True)),
    "autoencoder": (lambda bs: [Reconstruct(12), Centre()],
                    dict(loss=PixelMSE(), control=None, blocks=0, linear=False)),
}


@pytest.mark.parametrize("method, world", [*((name, 2) for name in METHODS),
                                           *((name, 3) for name in [*METHODS][:2])])
def test_they_train_on_the_batches_of_one_and_end_with_equal_weights(photos, processes, same, method, world):
    cbs, kwargs = METHODS[method]
    def make(bs): return learner(photos, bs, [FrozenBatchNorm(), *cbs(bs)], **kwargs)
    losses, row, state = trained(make, BATCH)
    found = processes(world, trained, make, BATCH//world)
    for theirs, their_row, their_state in found:
        assert theirs == pytest.approx(losses, abs=1e-5) and len(losses) == 20
        assert their_row == pytest.approx(row, abs=1e-3)
        assert same(their_state, found[0][2])
    weights = found[0][2]["model"]
    assert all(torch.allclose(v, weights[k], atol=1e-3) for k, v in state["model"].items())
    assert not same(state["model"], make(BATCH).model.state_dict())


@pytest.mark.parametrize("cbs", [[], [EMA(.5), BFloat16()]], ids=["plain", "EMA of bfloat16"])
def test_with_batchnorm_of_each_process_all_have_one_model(photos, processes, same, cbs):
    found = processes(2, trained, lambda bs: learner(photos, bs, cbs, steps=3, control="mask"), 2)
    assert same(found[0][2], found[1][2]) and same(found[0][:2], found[1][:2])
    means = [v for k, v in found[0][2]["model"].items() if "running_mean" in k]
    assert len(means) > 3 and all(v.any() for v in means)


# validation and metrics

def holes(pred, image, mask): return mask.mean()


@pytest.mark.parametrize("valid", [.65, .15])  # five photographs, and one alone: a process has nothing to do
def test_metrics_are_over_all_validation_photographs_once(photos, processes, valid):
    def make(bs):
        return learner(photos, bs, [FrozenBatchNorm()], steps=1, valid=valid, metrics=[HoleL1(), holes])
    (_, row, _), found = trained(make, 4), processes(2, trained, make, 2)
    for _, theirs, _ in found: assert theirs == pytest.approx(row, rel=1e-4)


# resuming

def checkpointed(photos, path, bs, resume=False, steps=3, stop=None):
    cbs = [FrozenBatchNorm(), Checkpoint(path, resume), *([StopAfter(stop)] if stop else [])]
    learn = learner(photos, bs, cbs, steps=steps, control="mask")
    try:
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(2, 1e-3)
    except InterruptedError: pass
    return learn.model.state_dict()


class StopAfter(Callback):
    order = 95  # after Checkpoint
    def __init__(self, epochs): self.epochs = epochs

    def before_epoch(self):
        if self.epoch == self.epochs: raise InterruptedError("after the checkpoint")


@pytest.mark.parametrize("before, after", [(2, 1), (1, 2), (2, 3)])
def test_a_run_is_resumed_by_another_number_of_processes(photos, processes, tmp_path, before, after):
    def run(world, path, **kwargs):
        return processes(world, lambda: checkpointed(photos, path, BATCH//world, **kwargs))[0]
    whole = run(1, tmp_path/"whole.pt")
    run(before, tmp_path/"run.pt", stop=1)
    state, half = (torch.load(tmp_path/f"{o}.pt", weights_only=True) for o in ("whole", "run"))
    assert state.keys() == half.keys() and half["epoch"] == 1
    assert [drawn for _, drawn in half["random"]["loaders"]] == [3*BATCH, 0]
    resumed = run(after, tmp_path/"run.pt", resume=True)
    assert all(torch.allclose(v, whole[k], atol=1e-5) for k, v in resumed.items())


# one process is not left alone

class Signal(Callback):
    "Ctrl-C in one of the processes"
    def after_pred(self):
        if self.training and self.train_iter == 1 and rank() == 1: os.kill(os.getpid(), signal.SIGINT)


class Infinite(Callback):
    order = -9  # before Distributed
    def after_loss(self):
        if self.training and self.train_iter == 1 and rank() == 1: self.learn.loss = self.learn.loss/0


def how_it_ended(photos, cb):
    learn = learner(photos, 2, [cb])
    try:
        with learn.no_bar(), learn.no_logging(): learn.fit(1)
    except (KeyboardInterrupt, InputError) as e: error = type(e).__name__
    return error, learn.train_iter, state_is_plain(learn)


def state_is_plain(learn):
    shares = {dl.share for dl in learn.dls.loaders}
    return shares == {(0, 1)} and signal.getsignal(signal.SIGINT) == signal.default_int_handler \
        and learn.wrapped(learn.model) is learn.model


@pytest.mark.parametrize("cb, error", [(Signal(), "KeyboardInterrupt"), (Infinite(), "Diverged")])
def test_what_stops_one_process_stops_all_after_the_same_step(photos, processes, cb, error):
    assert processes(2, how_it_ended, photos, cb) == [(error, 1, True)]*2


# what it refuses, what it leaves alone

def test_alone_it_changes_nothing(tiny_learner, state_of, same):
    alone, plain = tiny_learner(Distributed(sync_bn=True)), tiny_learner()
    for learn in alone, plain: learn.fit(1)
    assert same(state_of(alone.model), state_of(plain.model))


def refusal(work):
    try: work()
    except InputError as e: return str(e)


def test_what_several_processes_cannot_do_is_said_in_one_line(photos, processes):
    def refusals():
        learn = learner(photos, 2)
        synchronised = learner(photos, 2, [Distributed(sync_bn=True)])
        added = len(learn.cbs.filter(is_distributed))
        return refusal(learn.lr_find), refusal(lambda: synchronised.fit(1)), added
    for found in processes(2, refusals):
        assert "lr_find runs in one process, not in 2" in found[0]
        assert "--sync-bn (sync_bn=True) on a cpu" in found[1] and found[2] == 1


def is_distributed(cb): return isinstance(cb, Distributed)


def test_fastais_own_context_is_a_working_path(photos, processes, same):
    from fastai import distributed  # noqa: F401 - gives the Learner distrib_ctx

    def train():
        learn = learner(photos, 2, steps=2)
        with learn.distrib_ctx(): learn.fit(1)
        return learn.model.state_dict(), [type(cb).__name__ for cb in learn.cbs]
    found = processes(2, train)
    assert same(found[0][0], found[1][0])
    assert "ProgressCallback" in found[0][1] and "ProgressCallback" not in found[1][1]
    assert not any("DistributedTrainer" in names for _, names in found)


def test_batchnorm_changes_its_class_and_back_in_place():
    net = lama(2, 1, control="mask", autoencoder=None)
    layers, state = [m for m in net.modules() if type(m) is nn.BatchNorm2d], copy.deepcopy(net.state_dict())
    set_batchnorm(net, nn.BatchNorm2d, nn.SyncBatchNorm)
    assert layers and all(type(m) is nn.SyncBatchNorm for m in layers)
    x, mask = torch.rand(2, 3, 32, 32), torch.zeros(2, 1, 32, 32)
    mask[..., 8:20, 8:20] = 1
    eager = net.eval()(x*(1 - mask), mask)
    assert torch.allclose(net.folded()(x*(1 - mask), mask), eager, atol=1e-4)
    set_batchnorm(net, nn.SyncBatchNorm, nn.BatchNorm2d)
    assert [m for m in net.modules() if type(m) is nn.BatchNorm2d] == layers
    assert all(np.array_equal(v, net.state_dict()[k]) for k, v in state.items())
