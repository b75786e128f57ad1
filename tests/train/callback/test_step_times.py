import json

import pytest
import torch

from fastinpaint.models.lama import Decoder, Encoder
from fastinpaint.train.callback.freeze import FreezeSchedule
from fastinpaint.train.callback.latent import LatentLoss
from fastinpaint.train.callback.step_times import PARTS, StepTimes


@pytest.fixture
def parts_of(tiny_learner, tmp_path):
    "Median seconds by part of a learner's four epochs of three steps"
    def run(*cbs, **kwargs):
        learn = tiny_learner(*cbs, StepTimes(tmp_path/"step.json", every=2), **kwargs)
        with learn.no_bar(): learn.fit(4)
        return learn, json.loads((tmp_path/"step.json").read_text())
    return run


def test_every_part_of_a_step_is_timed(parts_of):
    learn, found = parts_of()
    assert list(found) == [*PARTS] and all(v > 0 for v in found.values())
    assert not learn.model._forward_pre_hooks and not learn.model.refiner._forward_hooks
    assert len(learn.step_times.seconds) == 4  # 1, 5, 7 and 11; 3 and 9 begin an epoch


@pytest.mark.parametrize("latent, part", [(False, "decode"), (True, "targets")])
def test_parts_end_where_they_say(parts_of, monkeypatch, latent, part):
    "With a clock that ticks once for each last layer of a decoder, or each encoder of targets, that ran"
    ticks = []
    monkeypatch.setattr(StepTimes, "_now", lambda self: len(ticks))
    forward = Encoder.forward if latent else Decoder.forward

    def ticking(self, x):
        if not latent or not torch.is_grad_enabled(): ticks.append(1)
        return forward(self, x)
    monkeypatch.setattr(Encoder if latent else Decoder, "forward", ticking)
    cbs = [FreezeSchedule(), LatentLoss()] if latent else []
    _, found = parts_of(*cbs, control="mask" if latent else "alpha")
    assert found == {p: float(p == part) for p in PARTS}


def test_an_interrupted_fit_leaves_no_hooks_behind(parts_of, tiny_learner, interrupted, tmp_path):
    learn = interrupted(tiny_learner(StepTimes(tmp_path/"step.json", every=2)))
    with learn.no_bar(): learn.fit(1)
    assert not learn.model.refiner._forward_hooks and (tmp_path/"step.json").is_file()
