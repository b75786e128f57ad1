"The contract with fastai: what the package overrides is there, as expected, in every version promised"
import inspect
import os
import subprocess
import sys
from contextlib import contextmanager
from importlib.metadata import requires, version
from pathlib import Path

import fastai
import pytest
from fastai.callback.core import Callback
from fastai.data.core import TfmdDL
from fastai.learner import Learner
from fastai.torch_core import set_seed, trainable_params

from fastinpaint.data.loaders import InpaintDataLoaders
from fastinpaint.train.callback.fit import FitCallback
from fastinpaint.train.learner import InpaintLearner, inpaint_learner

OLDEST = Path(__file__).parents[2]/".venv/oldest"  # made by `make test`
SIGNATURES = {Learner: dict(_with_events="self, f, event_type, ex, final", _do_fit="self", _do_epoch="self",
                            _split="self, b", _do_one_batch="self", _do_grad_opt="self"),
              TfmdDL: dict(_one_pass="self", _retain_dl="self, b", _decode_batch="self, b, max_n, full")}


class Events(Callback):
    "Notes what happens, with the position in training"
    def __init__(self): self.seen = []

    def __call__(self, event):
        if event != "after_create": self.seen.append((event, getattr(self.learn, "train_iter", 0)))


@pytest.mark.parametrize("cls, name, signature",
                         [(cls, *o) for cls, names in SIGNATURES.items() for o in names.items()])
def test_what_is_overridden_or_called_is_there(cls, name, signature):
    assert ", ".join(inspect.signature(getattr(cls, name)).parameters) == signature


def learners(photos, tiny_lama):
    "fastai's own Learner and ours, from the same start, and the events of each"
    for make in Learner, inpaint_learner:
        set_seed(0)
        dls = InpaintDataLoaders.from_folder(photos, "center", 32, 2, valid=.25, steps=3, num_workers=0,
                                             device="cpu")
        events, kwargs = Events(), dict(metrics=[], lr=1e-2, wd=0.)
        if make is not Learner: kwargs |= dict(splitter=trainable_params, train_bn=True)  # fastai's own
        else:
            kwargs["opt_func"] = inpaint_learner(dls, tiny_lama(), metrics=[]).opt_func
            kwargs["loss_func"] = lambda pred, image, mask: (pred - image).abs().mean()
        yield make(dls, tiny_lama(), cbs=[events], **kwargs), events


def test_it_trains_to_the_bits_of_fastais_own_learner_by_the_same_events(photos, tiny_lama, state_of, same):
    runs = []
    for learn, events in learners(photos, tiny_lama):
        learn.fit_one_cycle(2, 1e-2)
        learn.validate()
        preds, _ = learn.get_preds()
        runs.append((state_of(learn.model), preds, learn.opt.state_dict(), learn.recorder.losses,
                     events.seen))
    assert type(learn) is InpaintLearner and same(*runs)


def test_contexts_are_entered_before_any_event_and_left_after_all(tiny_learner):
    seen = []

    class Watch(FitCallback):
        @contextmanager
        def during_fit(self):
            seen.append("in")
            yield
            seen.append("out")

        def before_fit(self): seen.append("before_fit")
        def after_trained_epoch(self): seen.append(len(self.recorder.values))
        def after_fit(self): seen.append("after_fit")

    tiny_learner(Watch()).fit(2)
    assert seen == ["in", "before_fit", 1, 2, "after_fit", "out"]


def test_the_oldest_version_promised_keeps_the_contract():
    lower = next(r for r in requires("fastinpaint") if r.startswith("fastai")).split(">=")[1].split(",")[0]
    if not OLDEST.is_dir(): pytest.skip("run by `make test`, which puts the oldest fastai there")
    code = "import fastai, sys, pytest; print(fastai.__version__); sys.exit(pytest.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "-q", "-k", "not oldest", __file__, "-p", "no:cacheprovider"]
    run = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(OLDEST)}, capture_output=True,
                         text=True, cwd=Path(__file__).parents[2])
    assert run.returncode == 0 and run.stdout.startswith(lower), run.stdout + run.stderr
    assert fastai.__version__ == version("fastai")
