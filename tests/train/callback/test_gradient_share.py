import csv

import pytest
import torch
from fastai.callback.core import Callback

from fastinpaint.models.discriminator import PatchGAN
from fastinpaint.train.callback.adversarial import AdversarialTraining
from fastinpaint.train.callback.freeze import FreezeSchedule
from fastinpaint.train.callback.gradient_share import GradientShare, weight_for_share
from fastinpaint.train.callback.history import History
from fastinpaint.train.callback.latent import LatentLoss
from fastinpaint.train.losses import InpaintLoss, PixelL1, PixelMSE, Term

TERMS = ["pixel_l1", "latent_l1", "adversarial", "feature_matching"]


def gan():
    "LaMa's way to train on a frozen autoencoder, with a discriminator that is always the same"
    torch.manual_seed(7)
    return [FreezeSchedule(), LatentLoss(.1, pixel=True), AdversarialTraining(PatchGAN(2, 2))]


class Keep(Callback):
    "Keeps what was last written of shares after each training batch, and the gradients' norms"
    def __init__(self): self.rows, self.norms = [], []

    def after_batch(self):
        if not self.training: return
        self.rows.append({k: float(v) for k, v in self.step_log.health.last.items() if "grad_share" in k})

    def after_backward(self):
        grads = [p.grad.flatten() for p in self.model.parameters() if p.grad is not None]
        self.norms.append(torch.cat(grads).norm().item())


def shares(learner, *cbs, **kwargs):
    learn = learner(*cbs, Keep(), control="mask", **kwargs)
    learn.fit(1)
    return learn.keep


def test_shares_are_those_of_each_terms_own_gradient(tiny_learner):
    "Which, alone, is all of the gradient: trained apart from the same start, with the same batch"
    loss = InpaintLoss(PixelL1(.5), PixelMSE(3.))
    found = shares(tiny_learner, GradientShare(1), loss=loss).rows[0]
    alone = {t.name: shares(tiny_learner, loss=InpaintLoss(t)).norms[0] for t in loss.terms}
    assert len(found) == 2
    for name, norm in alone.items():
        assert found[f"grad_share_{name}"] == pytest.approx(norm/sum(alone.values()), rel=1e-4)


def test_adversarial_terms_are_among_them(tiny_learner):
    rows = shares(tiny_learner, *gan(), GradientShare(1)).rows
    for row in rows:
        assert list(row) == [f"grad_share_{name}" for name in TERMS]
        assert sum(row.values()) == pytest.approx(1) and min(row.values()) > 0
    assert rows[0] != rows[1]


@pytest.mark.parametrize("method", [lambda: [], gan])
def test_training_goes_the_same_way_to_the_bit(tiny_learner, state_of, same, method):
    def trained(*cbs):
        learn = tiny_learner(*method(), *cbs, loss=InpaintLoss(PixelL1(), PixelMSE()), control="mask")
        learn.fit(2)
        adversary = learn.adversarial_training.state_dict() if method is gan else {}
        return state_of(learn.model), adversary, learn.opt.state_dict()["state"]
    assert same(trained(GradientShare(1)), trained())


def test_they_are_measured_every_so_many_steps_and_stand_in_the_table(tiny_learner, tmp_path):
    learn = tiny_learner(GradientShare(4), Keep(), History(tmp_path/"metrics.csv"),
                         loss=InpaintLoss(PixelL1(), PixelMSE()))
    learn.fit(3)  # of three steps each: measured in steps 0, 4 and 8
    rows = learn.keep.rows
    assert rows[0] == rows[1] == rows[2] and rows[4] == rows[5] != rows[0] and rows[8] != rows[4]
    table = list(csv.DictReader((tmp_path/"metrics.csv").open()))
    for row, step in zip(table, (0, 4, 8), strict=True):
        assert float(row["grad_share_pixel_l1"]) == pytest.approx(rows[step]["grad_share_pixel_l1"])


class Constant(Term):
    name = "constant"
    def forward(self, step): return step.image.mean()


class Elsewhere(Term):
    "Has a gradient, but not one of the model's parameters"
    name = "elsewhere"
    def __init__(self):
        super().__init__()
        self.other = torch.nn.Parameter(torch.ones(()))

    def forward(self, step): return self.other*step.image.mean()


def test_terms_that_do_not_reach_the_model_are_left_out(tiny_learner):
    rows = shares(tiny_learner, GradientShare(1), loss=InpaintLoss(Constant(), PixelL1(), Elsewhere())).rows
    assert rows == [{"grad_share_pixel_l1": 1.}]*3


def test_it_works_in_a_search_for_the_rate_and_keeps_silent_there(tiny_learner):
    learn = tiny_learner(GradientShare(1), Keep())
    learn.lr_find(num_it=3, show_plot=False)
    assert learn.keep.rows and not any(learn.keep.rows)


def test_a_weight_is_found_for_a_share(tiny_learner):
    "Measured again with that weight, the term has it"
    def share(weight):
        loss = InpaintLoss(PixelL1(weight), PixelMSE(3.))
        return shares(tiny_learner, GradientShare(1), loss=loss).rows[0]["grad_share_pixel_l1"]
    weight = weight_for_share(share(1e-2), 1e-2, .25)
    assert share(weight) == pytest.approx(.25, rel=1e-3)
    assert weight_for_share(.5, 2., .5) == 2 and weight_for_share(.2, 1., .5) == pytest.approx(4)


@pytest.mark.parametrize("make, message", [
    (lambda: GradientShare(0), "every=0"), (lambda: weight_for_share(0., 1., .1), "measured=0.0"),
    (lambda: weight_for_share(.1, 1., 1.), "share=1.0")])
def test_impossible_numbers_are_refused(make, message):
    with pytest.raises(ValueError, match=message): make()
