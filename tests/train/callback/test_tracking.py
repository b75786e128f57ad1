import json
import os

import numpy as np
import pytest
import torch
import wandb
from fastai.callback import schedule  # noqa: F401  learn.lr_find
from fastai.data.core import DataLoaders
from fastai.torch_core import set_seed
from torch import nn
from wandb.sdk.mailbox import MailboxClosedError

from fastinpaint.judge.metrics import NA, PSNR, HoleL1
from fastinpaint.models.weights import read_weights
from fastinpaint.train.callback.fit import FitCallback
from fastinpaint.train.callback.tracking import WandbTracking, decide_mode, log_table, zero_conv_norms
from fastinpaint.train.learner import inpaint_learner
from fastinpaint.train.losses import PixelL1

RUN = wandb.sdk.wandb_run.Run


class Control(nn.Module):
    def __init__(self):
        super().__init__()
        self.zero_convs = nn.ModuleList([nn.Conv2d(1, 3, 1, bias=False)])
        self.mask_conv = nn.Conv2d(1, 1, 1)

    def forward(self, mask): return self.zero_convs[0](self.mask_conv(mask))


class Fill(nn.Module):
    config = {"width": 3}

    def __init__(self):
        super().__init__()
        self.encoder, self.conditioner = nn.Conv2d(3, 3, 1), Control()

    def forward(self, masked, mask): return (self.encoder(masked) + self.conditioner(mask)).sigmoid()


class NoValue(PSNR):
    name, value = "lpips", NA


def learner(path, *cbs):
    set_seed(1)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(6, 3, 16, 16, generator=generator)
    masks = torch.zeros(6, 1, 16, 16)
    masks[..., 4:9, 5:12] = 1
    whole = [(i * (1 - m), m, i, m) for i, m in zip(images.split(2), masks.split(2), strict=True)]
    dls = DataLoaders(whole, whole[:2], path=path)
    dls.n_inp = 2
    return inpaint_learner(dls, Fill(), PixelL1(), [HoleL1(), NoValue()], list(cbs), lr=.1)


@pytest.fixture
def logged(monkeypatch):
    "What is handed to the log of a run, of which W&B still makes its offline files"
    rows, log = [], RUN.log

    def keep(self, data, *args, **kwargs):
        rows.append({**data, "step": kwargs["step"]})
        return log(self, data, *args, **kwargs)

    monkeypatch.setattr(RUN, "log", keep)
    return rows


@pytest.fixture(autouse=True)
def logged_out(monkeypatch, tmp_path):
    for key in "WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE":
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on the terminal"))


def test_an_offline_run_holds_everything(tmp_path, logged, capsys):
    tracking = WandbTracking("test", settings={"size": 16}, name="first", dir=tmp_path, n_images=3, every=2)
    learn = learner(tmp_path, tracking)
    learn.fit(2)
    batches, epochs = ([r for r in logged if key in r] for key in ("train/loss", "samples"))
    assert [r["step"] for r in batches] == [1, 3, 5] and [r["step"] for r in epochs] == [3, 6]
    assert all(r["train/images_per_s"] > 0 and r["lr/group0"] == .1 for r in batches)
    assert [r["epoch"] for r in epochs] == [1, 2]
    record = dict(zip(learn.recorder.metric_names[1:], learn.recorder.values[-1], strict=False))
    for name in "train_loss", "valid_loss", "hole_l1": assert epochs[-1][f"epoch/{name}"] == record[name]
    assert "epoch/lpips" not in epochs[-1]
    assert epochs[-1]["zero_conv/zero_convs.0"] == zero_conv_norms(learn.model)["zero_convs.0"] > 0
    (run,) = tmp_path.glob("wandb/offline-run-*")
    assert list(run.glob("*.wandb")) and f"wandb sync {run}" in capsys.readouterr().out
    assert wandb.run is None and tracking.tracked is None


def test_the_grid_shows_the_same_images_every_epoch(tmp_path, monkeypatch):
    pictures = []
    monkeypatch.setattr(wandb, "Image", lambda data, **_: pictures.append(data))
    learn = learner(tmp_path, WandbTracking(dir=tmp_path, mode="disabled", n_images=3))
    learn.fit(2)
    first, last = pictures
    assert first.shape == (3 * 16, 3 * 16, 3) and first.dtype == np.uint8
    masked, filled, original = np.split(last, 3)
    images = torch.cat([b[2] for b in learn.dls.valid])[:3]
    expected = np.concatenate(list((images * 255).round().byte().permute(0, 2, 3, 1).numpy()), axis=1)
    assert np.array_equal(original, expected) and np.array_equal(original, first[32:])
    hole = masked.max(-1) == 0
    assert np.array_equal(filled[~hole], original[~hole]) and not np.array_equal(last[16:32], first[16:32])


class Chooses(Fill):
    "Fills each hole with a grey of its own for every seed"
    generates = True

    def forward(self, masked, mask, seed=0): return super().forward(masked, mask)*0 + (seed + 1)/8


def test_several_fills_of_a_generator_are_shown_over_the_steps(tmp_path, monkeypatch):
    pictures = []
    monkeypatch.setattr(wandb, "Image", lambda data, **_: pictures.append(data))
    learn = learner(tmp_path, WandbTracking(dir=tmp_path, mode="disabled", n_images=3))
    learn.model = Chooses()
    learn.fit(2)
    assert len(pictures) == 2
    masked, *fills, original = np.split(pictures[-1], 6)
    hole = masked.max(-1) == 0
    for i, fill in enumerate(fills, 1):
        assert (fill[hole] == round(255*i/8)).all() and np.array_equal(fill[~hole], original[~hole])
    many = learner(tmp_path, WandbTracking(dir=tmp_path, mode="disabled"))
    many.model, many.dls.valid = Chooses(), many.dls.train
    many.fit(1)
    assert pictures[-1].shape == (6*16, 4*16, 3)  # not all six


def test_terms_are_logged_by_name(tmp_path):
    class Watch(FitCallback):
        def after_batch(self): self.step_log.health.write({"watched": torch.tensor(.25)})

    learn = learner(tmp_path, Watch(), WandbTracking(dir=tmp_path, mode="disabled"))
    rows = []
    learn.wandb_tracking._log = rows.append
    learn.fit(1)
    assert rows[0]["train/pixel_l1"] == pytest.approx(rows[0]["train/loss"])
    assert rows[0]["health/watched"] == .25


def test_tracking_changes_no_bit_of_the_training(tmp_path):
    plain = learner(tmp_path)
    plain.fit(2)
    after = torch.rand(3)
    tracked = learner(tmp_path, WandbTracking(dir=tmp_path, log_model=True))
    tracked.fit(2)
    assert torch.equal(after, torch.rand(3))
    for a, b in zip(plain.model.parameters(), tracked.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_final_weights_become_an_artifact(tmp_path, monkeypatch):
    kept = []

    def keep(self, artifact):
        files = {name: entry.local_path for name, entry in artifact.manifest.entries.items()}
        kept.append((read_weights(files["model.safetensors"]), json.loads(open(files["model.json"]).read())))

    monkeypatch.setattr(RUN, "log_artifact", keep)
    learn = learner(tmp_path, WandbTracking(dir=tmp_path, log_model=True))
    learn.fit(1)
    [((state, config), beside)] = kept
    assert config == beside == Fill.config
    assert all(torch.equal(state[k], v) for k, v in learn.model.state_dict().items())


class BrokenRun:
    "A run of which one method fails"
    url, id, disabled = "https://wandb.example/run", "1", False

    def __init__(self, where, error): self.where, self.error, self.called = where, error, []

    def _call(self, name):
        self.called.append(name)
        if name == self.where: raise self.error

    def log(self, *_, **__): self._call("log")
    def log_artifact(self, _): self._call("log_artifact")
    def finish(self): self._call("finish")


@pytest.mark.parametrize("error", [
    wandb.errors.CommError("gone"), OSError("disk full"), MailboxClosedError()],
    ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where, called", [("init", []), ("log", ["log", "finish"]),
                                           ("log_artifact", None), ("finish", None)])
def test_a_failing_service_ends_no_training(tmp_path, monkeypatch, capsys, where, called, error):
    run = BrokenRun(where, error)

    def init(**_):
        if where == "init": raise error
        return run

    monkeypatch.setattr(wandb, "init", init)
    learn = learner(tmp_path, WandbTracking(dir=tmp_path, log_model=True))
    learn.fit(2)
    assert len(learn.recorder.values) == 2
    assert capsys.readouterr().out.count("W&B tracking stopped, training goes on") == 1
    assert run.called == (["log"] * 3 + ["log_artifact", "finish"] if called is None else called)


def test_an_interrupted_fit_is_closed_by_the_next_one(tmp_path, monkeypatch):
    runs = []
    monkeypatch.setattr(wandb, "init", lambda **_: runs.append(BrokenRun(None, None)) or runs[-1])
    learn = learner(tmp_path, WandbTracking(dir=tmp_path, log_model=True))
    learn.metrics[0].accumulate = lambda _: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt): learn.fit(1)
    learn.metrics = []
    learn.fit(1)
    assert [run.called for run in runs] == [["log", "finish"], ["log", "log", "log_artifact", "finish"]]


def test_a_resumed_run_is_the_same_run_of_wandb(tmp_path, monkeypatch):
    begun, init = [], wandb.init
    monkeypatch.setattr(wandb, "init", lambda **kwargs: begun.append(init(**kwargs)) or begun[-1])
    for resume in False, True, True, False:
        learner(tmp_path, WandbTracking(mode="offline", dir=tmp_path, resume=resume)).fit(1)
    ids = [run.id for run in begun]
    assert ids[0] == ids[1] == ids[2] != ids[3]


def test_without_an_earlier_run_a_resumed_one_begins_its_own(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(wandb, "init", lambda **kwargs: asked.append(kwargs) or BrokenRun(None, None))
    learner(tmp_path, WandbTracking(dir=tmp_path, resume=True)).fit(1)
    assert "id" not in asked[0] and "resume" not in asked[0]


def test_other_uses_of_the_learner_start_no_run(tmp_path, monkeypatch):
    monkeypatch.setattr(wandb, "init", lambda **_: pytest.fail("a run was started"))
    learn = learner(tmp_path, WandbTracking(dir=tmp_path))
    learn.validate()
    learn.lr_find(num_it=3, show_plot=False)


@pytest.mark.parametrize("mode, env, key, expected", [
    (None, None, None, "offline"), (None, None, "netrc", "online"), (None, None, "env", "online"),
    (None, "disabled", "env", "disabled"), (None, "offline", "env", "offline"),
    ("offline", None, "env", "offline"), ("online", None, None, "offline"), (None, "online", None, "offline"),
    ("online", "offline", "env", "online"),
])
def test_the_mode_is_decided_without_asking(monkeypatch, mode, env, key, expected):
    if env: monkeypatch.setenv("WANDB_MODE", env)
    if key == "env": monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    if key == "netrc":
        with open(os.environ["NETRC"], "w") as f: f.write("machine api.wandb.ai login user password secret\n")
    assert decide_mode(mode) == expected


def test_a_mode_that_does_not_exist():
    with pytest.raises(ValueError, match="ofline"): WandbTracking(mode="ofline")


def test_zero_conv_norms():
    model = Fill()
    nn.init.constant_(model.conditioner.zero_convs[0].weight, 2)
    assert zero_conv_norms(model) == {"zero_convs.0": pytest.approx(12 ** .5)}
    assert zero_conv_norms(nn.Linear(1, 1)) == {}
    model.conditioner = None  # an autoencoder's
    assert zero_conv_norms(model) == {}


def test_a_summary_table_is_a_run_of_the_group(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_RUN_GROUP", "ladder")
    log_table("The ladder", ["method", "LPIPS"], [["lama_l1", "0.1"]], "p", "disabled", tmp_path)
    assert not list(tmp_path.iterdir())
    begun, init = [], wandb.init
    monkeypatch.setattr(wandb, "init", lambda **kwargs: begun.append(init(**kwargs)) or begun[0])
    log_table("The ladder", ["method", "LPIPS"], [["lama_l1", "0.1"]], "p", "offline", tmp_path)
    assert begun[0].group == "ladder" and begun[0].name == "The ladder"
    run, = (tmp_path/"wandb").glob("offline-run-*")
    table, = run.rglob("*.table.json")
    assert json.loads(table.read_text())["data"] == [["lama_l1", "0.1"]]

    def broken(**kwargs): raise OSError("disk full")
    monkeypatch.setattr(wandb, "init", broken)
    log_table("The ladder", [], [], "p", "offline", tmp_path)
    assert "disk full" in capsys.readouterr().out
