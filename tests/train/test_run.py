import csv
import json
import os
import subprocess
import sys
from dataclasses import fields

import pytest
from fastai.callback.core import Callback

from fastinpaint.core.errors import Diverged, InputError
from fastinpaint.models.lama import lama
from fastinpaint.models.load import load_model
from fastinpaint.train import run
from fastinpaint.train.callback import tracking
from fastinpaint.train.losses import PixelMSE
from fastinpaint.train.run import check_settings, train_recipe
from fastinpaint.train.settings import Settings

TINY = dict(size=32, bs=2, epochs=1, steps=2, width=2, blocks=1, device="cpu", workers=0,
            valid=".25", autoencoder="none")


@pytest.fixture
def train(photos, tmp_path):
    "Trains a tiny LaMa under the name `mine`, in place of an earlier one; returns its Learner"
    def train(cbs=(), loss=None, chosen=None, model=lama, overwrite=True, **kwargs):
        given = dict(data=str(photos), out=str(tmp_path), overwrite=overwrite)
        settings = Settings(**(TINY | given | kwargs))
        return train_recipe("mine", settings, model, cbs, loss, chosen)
    return train


class StopAt(Callback):
    "Raises `error` in the second batch of an epoch"
    order = 5

    def __init__(self, epoch, error): self.at, self.error = (epoch, 1), error

    def after_loss(self):
        if not self.training or (self.epoch, self.iter) != self.at: return
        self.weights = {k: v.clone() for k, v in self.model.state_dict().items()}
        raise self.error


# settings

def test_settings_json_holds_the_recipe_its_settings_and_what_it_chose(train, tmp_path):
    train(chosen=dict(network="vgg"))
    found = json.loads((tmp_path/"mine/settings.json").read_text())
    expected = TINY | dict(recipe="mine", network="vgg", lr=3e-3, resume=False)
    assert found.items() >= expected.items()
    assert found.keys() == {"recipe", "network", *(f.name for f in fields(Settings))}


def other(value): return value + 1 if isinstance(value, int | float) else value + "x"


@pytest.mark.parametrize("name", [f.name for f in fields(Settings)])
def test_a_run_is_resumed_with_its_own_settings(tmp_path, name):
    settings = {f.name: f.default for f in fields(Settings)} | {"recipe": "mine"}
    (tmp_path/"settings.json").write_text(json.dumps(settings))
    check_settings(tmp_path/"settings.json", settings)
    changed = settings | {name: other(settings[name])}
    if name in {"out", "device", "workers", "compile", "wandb", "project", "resume", "overwrite"}:
        return check_settings(tmp_path/"settings.json", changed)
    with pytest.raises(InputError, match=f"{name}={settings[name]!r}, now {changed[name]!r}"):
        check_settings(tmp_path/"settings.json", changed)


def test_a_run_with_other_settings_is_not_resumed(train):
    train()
    with pytest.raises(InputError, match="size=32, now 40"): train(size=40, resume=True)


def test_settings_that_are_not_compared_do_not_count(tmp_path):
    check_settings(tmp_path/"settings.json", dict(size=32))  # no run to compare with
    (tmp_path/"settings.json").write_text(json.dumps(dict(size=32, bs=2)))
    check_settings(tmp_path/"settings.json", dict(size=32, out="elsewhere"))
    with pytest.raises(InputError, match="steps=None, now 5"):
        check_settings(tmp_path/"settings.json", dict(steps=5))


# data and model

@pytest.mark.parametrize("steps, epochs, batches", [(5, 2, 3), (4, 2, 2), (0, 1, 3)])
def test_steps_are_spread_over_epochs(train, steps, epochs, batches):
    assert len(train(steps=steps, epochs=epochs).dls.train) == batches


def test_a_run_has_an_epoch(train, tmp_path):
    with pytest.raises(InputError, match="--epochs 0"): train(epochs=0)
    assert not (tmp_path/"mine").exists()


def test_validation_is_a_fraction_a_folder_or_a_tenth(train, photos, tmp_path):
    assert len(train(valid=".5").dls.valid_ds) == 4
    assert len(train(valid="").dls.valid_ds) == 1
    (tmp_path/"held").mkdir()
    for i in range(3): (tmp_path/f"held/{i}.png").write_bytes((photos/f"{i}.png").read_bytes())
    learn = train(valid=str(tmp_path/"held"))
    assert (len(learn.dls.train_ds), len(learn.dls.valid_ds)) == (8, 3)


@pytest.mark.parametrize("settings, expected", [
    ({}, dict(masks="train", size=32, bs=2, seed=42, augment=True, invert=False, num_workers=0)),
    (dict(masks="thin", size=40, bs=3, seed=7, augment=False, invert=True, workers=2),
     dict(masks="thin", size=40, bs=3, seed=7, augment=False, invert=True, num_workers=2)),
    (dict(workers=-1), dict(num_workers=0))])  # a CPU trains faster without others beside it
def test_the_data_is_loaded_as_the_settings_say(train, photos, monkeypatch, settings, expected):
    given = {}
    def stop(data, masks, size, bs, **kwargs):
        given.update(kwargs, data=data, masks=masks, size=size, bs=bs)
        raise InterruptedError
    monkeypatch.setattr(run.InpaintDataLoaders, "from_folder", stop)
    with pytest.raises(InterruptedError): train(**settings)
    assert given.items() >= expected.items() and given["data"] == photos


def test_the_learning_rate_is_the_settings_own(train):
    slow, fast = (train(lr=lr).opt.hypers[0]["lr"] for lr in (1e-4, 1e-2))
    assert fast == pytest.approx(100*slow)


@pytest.mark.parametrize("settings, expected", [
    ({}, dict(linear=True, prefill=True, autoencoder=None, refiner="ffc")),
    (dict(plain=True, prefill=False), dict(linear=False, prefill=False, autoencoder=None, refiner="ffc")),
    (dict(autoencoder="a.pt", refiner="unet"),
     dict(linear=True, prefill=True, autoencoder="a.pt", refiner="unet")),
    (dict(autoencoder="a.pt", init="sample"),
     dict(linear=True, prefill=True, autoencoder=None, refiner="ffc"))])
def test_the_model_is_made_as_the_settings_say(train, settings, expected):
    def model(**given):
        assert given == dict(width=2, blocks=1) | expected
        return lama(**given | dict(autoencoder=None))
    train(model=model, **settings)


@pytest.mark.parametrize("settings, why", [
    (dict(schedule="cosine"), "cosine: it is one of one_cycle, constant"), (dict(beta2=1.), "beta2 1.0"),
    (dict(lr=-1.), "lr -1: .* 0 or more"), (dict(lr=float("inf")), "lr inf"),
    (dict(lr=float("nan")), "lr nan"), (dict(device="gpu"), "device gpu"), (dict(clip=-1.), "clip -1.0"),
    (dict(lpips="squeeze"), "alex, vgg, not 'squeeze'")])
def test_impossible_settings_are_told_before_anything_is_trained(train, tmp_path, settings, why):
    with pytest.raises(InputError, match=why): train(**settings)
    assert not (tmp_path/"mine").exists()


class Steps(Callback):
    "Gradient norms and learning rates as the optimizer meets them"
    order = 50  # after GradientClip
    def __init__(self): self.norms, self.rates = [], []

    def before_step(self):
        grads = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.norms.append(sum(g.square().sum() for g in grads).sqrt().item())
        self.rates.append(self.opt.hypers[0]["lr"])


def test_gradients_are_clipped_to_the_norm_that_is_asked_for(train):
    train([free := Steps()])
    train([clipped := Steps()], clip=.01)
    assert max(clipped.norms) == pytest.approx(.01, rel=1e-3) and max(free.norms) > .02


@pytest.mark.parametrize("schedule, count", [("constant", 1), ("one_cycle", 4)])
def test_the_learning_rate_follows_the_schedule(train, schedule, count):
    train([steps := Steps()], schedule=schedule, steps=4, lr=1e-3)
    assert len(set(steps.rates)) == count and max(steps.rates) <= 1e-3


@pytest.mark.parametrize("loss, name", [(None, "train_pixel_l1"), (PixelMSE(), "train_pixel_mse")])
def test_the_loss_is_l1_unless_another_is_given(train, tmp_path, loss, name):
    train(loss=loss)
    assert name in next(csv.DictReader((tmp_path/"mine/metrics.csv").open()))


@pytest.mark.parametrize("mode, modes", [
    ("auto", [None]), ("offline", ["offline"]), ("disabled", [])])
def test_weights_and_biases_are_given_the_run(train, tmp_path, monkeypatch, mode, modes):
    given = []
    class Tracking(Callback):
        def __init__(self, *args, resume): given.append(args)
    monkeypatch.setattr(tracking, "WandbTracking", Tracking)
    train(wandb=mode, log_model=True)
    settings = json.loads((tmp_path/"mine/settings.json").read_text())
    assert given == [("fastinpaint", m, settings, "mine", tmp_path/"mine", True) for m in modes]


# the ends of a run

@pytest.mark.parametrize("epoch, how", [
    (0, "epoch 0 is in .*mine/model.safetensors; without a whole epoch nothing to resume"),
    (1, "epoch 1 is in .*mine/model.safetensors; --resume goes on after epoch 0")])
def test_an_interrupted_run_saves_the_model_and_can_go_on(train, tmp_path, same, epoch, how):
    stop = StopAt(epoch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt, match=how): train([stop], epochs=2, steps=4)
    assert same(load_model(tmp_path/"mine/model.safetensors").state_dict(), stop.weights)
    assert not (tmp_path/"mine/results.png").exists()


def test_an_interrupted_run_saves_the_averaged_weights(train, tmp_path, same):
    stop = StopAt(1, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt): train([stop], epochs=2, steps=8, lr=1e-2, ema=.999)
    assert not same(load_model(tmp_path/"mine/model.safetensors").state_dict(), stop.weights)


def test_a_diverged_run_saves_no_model_and_names_the_checkpoint(train, tmp_path):
    stop = StopAt(1, FloatingPointError("pixel_l1 is nan"))
    with pytest.raises(Diverged, match="pixel_l1 is nan. .*mine/checkpoint.pt is .* smaller --lr"):
        train([stop], epochs=2, steps=4)
    assert (tmp_path/"mine/checkpoint.pt").is_file()
    assert not (tmp_path/"mine/model.safetensors").exists()


# what is in the folder already

def test_a_finished_run_is_not_overwritten_unless_that_is_asked_for(train, tmp_path):
    train()
    before = {p.name: p.read_bytes() for p in (tmp_path/"mine").iterdir()}
    with pytest.raises(InputError, match="checkpoint.pt, model.safetensors.*--resume.*--overwrite.*--out"):
        train(overwrite=False, lr=1e-2)
    assert {p.name: p.read_bytes() for p in (tmp_path/"mine").iterdir()} == before
    train(overwrite=True, lr=1e-2)
    assert json.loads((tmp_path/"mine/settings.json").read_text())["lr"] == 1e-2


def test_a_run_is_not_resumed_from_the_checkpoint_of_another(train, tmp_path, same):
    with pytest.raises(KeyboardInterrupt): train([StopAt(1, KeyboardInterrupt())], epochs=2, steps=4, lr=1e-2)
    # as if another run had been begun there, and killed before its first epoch ended
    settings = tmp_path/"mine/settings.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | dict(lr=1e-3)))
    with pytest.raises(InputError, match="lr=0.01, now 0.001"): train(epochs=2, steps=4, lr=1e-3, resume=True)
    resumed = train(epochs=2, steps=4, lr=1e-2, resume=True)
    whole = train(epochs=2, steps=4, lr=1e-2, out=str(tmp_path/"whole"))
    assert same(resumed.model.state_dict(), whole.model.state_dict())


def test_a_run_that_begins_anew_leaves_nothing_of_the_one_before(train, tmp_path):
    train()
    with pytest.raises(KeyboardInterrupt): train([StopAt(0, KeyboardInterrupt())], lr=1e-2)
    assert {p.name for p in (tmp_path/"mine").iterdir()} == {
        "settings.json", "model.safetensors", "model.json", ".lock"}
    with pytest.raises(InputError, match="nothing to resume"): train(lr=1e-2, resume=True)


HOLD = """
import sys
from fastinpaint.core.files import held
with held(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_runs_do_not_share_a_folder_and_a_dead_one_holds_none(train, tmp_path):
    other = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path/"mine"], text=True, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
    assert other.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=f"mine is in use by process {other.pid} on .*: wait"): train()
    assert not (tmp_path/"mine/settings.json").exists()
    other.kill()
    other.wait()
    train()
    assert f"process {os.getpid()} " in (tmp_path/"mine/.lock").read_text()


def test_a_full_disk_names_the_file_and_what_was_kept(train, tmp_path, monkeypatch):
    class Full(Callback):
        order = 95  # after the checkpoint
        def before_epoch(self):
            def full(*_): raise OSError(28, "No space left on device")
            if self.epoch == 1: monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="what was there before is as it was.*metrics.csv"):
        train([Full()], epochs=2, steps=4)
    monkeypatch.undo()
    assert len(list(csv.DictReader((tmp_path/"mine/metrics.csv").open()))) == 1
    train(epochs=2, steps=4, resume=True)


@pytest.mark.parametrize("content", [b"", b"PK", b"text"], ids=["empty", "cut", "text"])
def test_a_damaged_checkpoint_is_named(train, tmp_path, content):
    train()
    (tmp_path/"mine/checkpoint.pt").write_bytes(content)
    with pytest.raises(InputError, match="checkpoint.pt cannot be read.*--overwrite"): train(resume=True)
