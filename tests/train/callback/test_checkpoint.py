import csv
import errno
import os
import random

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.torch_core import params

from fastinpaint.train.callback.centre import Centre
from fastinpaint.train.callback.checkpoint import Checkpoint
from fastinpaint.train.callback.freeze import FreezeSchedule
from fastinpaint.train.callback.history import History
from fastinpaint.train.callback.latent import LatentLoss
from fastinpaint.train.callback.reconstruct import Reconstruct
from fastinpaint.train.losses import PixelMSE

FIRST = "encoder.stages.0.conv"
METHODS = {"pixel": (lambda: [], dict(augment=True)),
           "latent": (lambda: [FreezeSchedule(decoder=(0, .8), keep=FIRST), LatentLoss()],
                      dict(augment=True, linear=False)),
           "workers": (lambda: [FreezeSchedule(), LatentLoss()],
                       dict(augment=True, control="mask", num_workers=2)),
           "autoencoder": (lambda: [Reconstruct()], dict(loss=PixelMSE(), control=None, blocks=0)),
           "plain autoencoder": (lambda: [Reconstruct(), Centre()],
                                 dict(loss=PixelMSE(), control=None, blocks=0, width=4, linear=False))}


def draw(learn):
    "The next numbers of every source of randomness"
    loaders = [dl.rng.random() for dl in learn.dls.loaders]
    return random.random(), np.random.rand(), torch.rand(1).item(), loaders


def rows(path):
    "What a run's table says, except how long it took"
    return [{k: v for k, v in row.items() if k not in ("time", "seconds")}
            for row in csv.DictReader(path.open())]


@pytest.fixture
def run(tiny_learner, tmp_path):
    "A learner whose run is kept in the folder `name`"
    def make(name="run", resume=False, cbs=(), **kwargs):
        folder = tmp_path/name
        cbs = *cbs, History(folder/"metrics.csv"), Checkpoint(folder/"checkpoint.pt", resume)
        return tiny_learner(*cbs, **kwargs)
    return make


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_ends_with_the_bits_of_a_whole_one(run, interrupted, tmp_path, state_of, same, method):
    make, kwargs = METHODS[method]
    whole = run("whole", cbs=make(), **kwargs)
    whole.fit_one_cycle(3, 1e-2)
    drawn = draw(whole)
    broken = run("run", cbs=make(), **kwargs)
    interrupted(broken, 2, 1, lambda: broken.fit_one_cycle(3, 1e-2))
    resumed = run("run", resume=True, cbs=make(), **kwargs, seed=0)
    draw(resumed)  # whatever was drawn since does not matter
    resumed.fit_one_cycle(3, 1e-2)
    assert draw(resumed) == drawn and resumed.train_iter == whole.train_iter
    assert same(state_of(resumed.model), state_of(whole.model))
    assert same(resumed.opt.state_dict(), whole.opt.state_dict())
    assert rows(tmp_path/"run/metrics.csv") == rows(tmp_path/"whole/metrics.csv")
    assert [row["epoch"] for row in rows(tmp_path/"run/metrics.csv")] == ["0", "1", "2"]
    assert same(resumed.recorder.losses, whole.recorder.losses[6:])


@pytest.mark.parametrize("cbs", [(), (FreezeSchedule(decoder=(0, .8)), LatentLoss())])
def test_a_run_of_a_single_parameter_group_is_resumed(run, interrupted, tmp_path, state_of, same, cbs):
    whole = run("whole", cbs=cbs, control="mask")
    whole.fit_one_cycle(3, 1e-2)
    old = run("run", cbs=cbs, control="mask", splitter=params)
    interrupted(old, 2, 1, lambda: old.fit_one_cycle(3, 1e-2))
    path = tmp_path/"run/checkpoint.pt"
    state = torch.load(path)
    del state["groups"]
    torch.save(state, path)
    resumed = run("run", resume=True, cbs=cbs, control="mask")
    resumed.fit_one_cycle(3, 1e-2)
    assert len(resumed.opt.param_lists) == 4 and same(state_of(resumed.model), state_of(whole.model))
    assert same(resumed.opt.state_dict(), whole.opt.state_dict())


def test_rates_of_groups_and_what_is_frozen_go_on(run, interrupted, state_of, same):
    def begin(name="run", resume=False):
        learn = run(name, resume=resume, control="mask")
        learn.freeze_to(-2)
        return learn, lambda: learn.fit_one_cycle(2, slice(1e-3, 1e-2))
    whole, fit = begin("whole")
    fit()
    broken, fit = begin()
    interrupted(broken, 1, 1, fit)
    resumed, fit = begin(resume=True)
    fit()
    assert same(state_of(resumed.model), state_of(whole.model))


def test_other_groups_are_another_run(run, interrupted):
    interrupted(run(), 1, 1)
    with pytest.raises(ValueError, match="other parameter groups"): run(resume=True, splitter=params).fit(2)


def test_what_is_frozen_stays_frozen_through_resuming(run, interrupted, state_of, same):
    def learner(resume=False):
        return run(cbs=[FreezeSchedule(), LatentLoss()], resume=resume, control="mask", wd=.1)
    broken = learner()
    before = {part: state_of(getattr(broken.model, part)) for part in ("encoder", "decoder")}
    interrupted(broken, 1, 1)
    resumed = learner(resume=True)
    resumed.fit(2)
    assert all(same(state_of(getattr(resumed.model, part)), before[part]) for part in before)


def test_a_resumed_learner_can_validate_first_and_fit_again_afterwards(run, interrupted, tmp_path):
    interrupted(run(), 1, 1)
    learn = run(resume=True)
    learn.validate()
    learn.fit(2)
    learn.fit(2)
    assert [row["epoch"] for row in rows(tmp_path/"run/metrics.csv")] == ["0", "1", "0", "1"]
    assert learn.train_iter == 6


def test_validating_and_predicting_write_nothing(run, tmp_path):
    learn = run()
    learn.validate()
    learn.get_preds()
    assert not (tmp_path/"run").exists()


def test_the_checkpoint_holds_nothing_but_data(run, tmp_path):
    run(cbs=[FreezeSchedule(), LatentLoss()]).fit(1)
    state = torch.load(tmp_path/"run/checkpoint.pt", weights_only=True)
    assert state["epoch"] == state["n_epoch"] == 1 and state["train_iter"] == 3


def test_metrics_are_numbers_under_their_names(run, tmp_path):
    learn = run()
    learn.fit(2)
    table = rows(tmp_path/"run/metrics.csv")
    assert list(table[0]) == ["epoch", "train_loss", "valid_loss", "hole_l1", "train_pixel_l1"]
    found = [[float(v) for v in list(row.values())[1:]] for row in table]
    assert found == [list(v) for v in learn.recorder.values]


def test_the_seconds_of_an_epoch_have_fractions(run, tmp_path):
    run().fit(2)
    table = [*csv.DictReader((tmp_path/"run/metrics.csv").open())]
    assert all(0 < float(row["seconds"]) < 60 and float(row["seconds"]) % 1 for row in table)


# what cannot be resumed

@pytest.mark.parametrize("n_epoch, kwargs, message", [
    (3, {}, "2 epochs, not 3"), (2, dict(width=3), "another model"), (2, dict(blocks=2), "another model"),
    (2, dict(cbs=[LatentLoss()]), "callbacks history, not latent_loss, history")])
def test_another_run_is_not_resumed(run, n_epoch, kwargs, message):
    run().fit(2)
    with pytest.raises(ValueError, match=message): run(resume=True, **kwargs).fit(n_epoch)


def test_without_a_checkpoint_there_is_nothing_to_resume(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pt"): Checkpoint(tmp_path/"nowhere.pt", resume=True)


def test_a_checkpoint_given_to_fit_resumes_too(run, interrupted, tiny_learner, tmp_path, state_of, same):
    whole = tiny_learner()
    whole.fit(2)
    broken = tiny_learner()
    interrupted(broken, 1, 1, lambda: broken.fit(2, cbs=Checkpoint(tmp_path/"checkpoint.pt")))
    resumed = tiny_learner()
    resumed.fit(2, cbs=Checkpoint(tmp_path/"checkpoint.pt", resume=True))
    assert same(state_of(resumed.model), state_of(whole.model))


# files are replaced whole or not at all

class FullDisk(Callback):
    "Lets the disk be full from the second epoch on"
    def __init__(self, monkeypatch, step): self.monkeypatch, self.step = monkeypatch, step

    def before_epoch(self):
        def full(*args): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.epoch == 1: self.monkeypatch.setattr(os, self.step, full)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_last_checkpoint_and_table(run, tmp_path, monkeypatch, step):
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        run(cbs=[FullDisk(patch, step)]).fit(3)
    assert {p.name for p in (tmp_path/"run").iterdir()} == {"checkpoint.pt", "metrics.csv"}
    resumed = run(resume=True)
    resumed.fit(3)
    assert [row["epoch"] for row in rows(tmp_path/"run/metrics.csv")] == ["0", "1", "2"]
