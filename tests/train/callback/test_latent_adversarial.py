from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback

from fastinpaint.core.errors import InputError
from fastinpaint.models.discriminator import LatentDiscriminator, r1_penalty
from fastinpaint.train.callback.checkpoint import Checkpoint
from fastinpaint.train.callback.ema import EMA
from fastinpaint.train.callback.freeze import FreezeSchedule
from fastinpaint.train.callback.latent import LatentLoss
from fastinpaint.train.callback.latent_adversarial import LatentAdversarial
from fastinpaint.train.callback.precision import BFloat16

CHANNELS = 16  # of the tiny model's latent


def gan(**kwargs):
    "Adversarial training with a discriminator that is always the same"
    torch.manual_seed(7)
    return LatentAdversarial(LatentDiscriminator(CHANNELS, 4), **kwargs)


@pytest.fixture
def learner(tiny_learner):
    "A tiny learner with a latent loss and an adversary"
    def make(*cbs, adversary=None, **kwargs):
        method = FreezeSchedule(), LatentLoss(), adversary or gan()
        return tiny_learner(*method, *cbs, control="mask", **kwargs)
    return make


class Spy(Callback):
    "Calls `look(learn)` at an event of training"
    def __init__(self, **looks): self.looks = looks

    def __call__(self, event):
        if event in self.looks and self.learn.model.training: self.looks[event](self.learn)


def test_the_losses_are_those_of_whitened_latents_with_the_hole_alone_replaced(learner):
    seen = []

    def look(learn):
        step, net = learn.step, deepcopy(learn.latent_adversarial.discriminator)
        net.zero_grad()
        real = net.whiten(step.target).requires_grad_()
        hole = F.max_pool2d(learn.model.pad(step.mask), 8)
        assert 0 < hole.mean() < 1
        fake = torch.where(hole > 0, net.whiten(step.latent.detach()), real.detach()).requires_grad_()
        (real_logits, features), (fake_logits, ours) = net(real), net(fake)
        inside = hole > 0
        losses = {"real": F.softplus(-real_logits).mean(), "fake": F.softplus(fake_logits)[inside].mean()}
        if len(seen) % 2 == 0: losses["r1"] = 2*1.5*r1_penalty(real_logits, real)/hole[0].numel()
        expected = torch.autograd.grad(sum(losses.values()), list(net.parameters()), retain_graph=True)
        got = [p.grad for p in learn.latent_adversarial.discriminator.parameters()]
        for a, b in zip(expected, got, strict=True): torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
        model = .3*F.softplus(-fake_logits)[inside].mean() + .6*sum(
            F.l1_loss(a, b.detach()) for a, b in zip(ours, features, strict=True))/3
        l1 = (step.latent - step.target).abs().mean()
        assert learn.loss.item() == pytest.approx((l1 + model).item(), rel=1e-4)
        upstream, = torch.autograd.grad(model, fake)
        assert upstream[hole.expand_as(upstream) > 0].any()
        seen.append(learn.loss.item())

    learner(Spy(after_backward=look), adversary=gan(r1_every=2)).fit(1)
    assert len(seen) == 3


def test_nothing_is_decoded_in_training(learner):
    learn, calls = learner(), []
    learn.model.decoder.register_forward_hook(lambda *_: calls.append(learn.model.training))
    learn.fit(1)
    assert calls and not any(calls)


def test_channels_are_whitened_by_the_first_batch_and_by_no_other():
    torch.manual_seed(0)
    latents = torch.randn(4, 3, 8, 8)*torch.tensor([1., 10., 1e-4]).view(1, 3, 1, 1) + 5
    net = LatentDiscriminator(3, 2)
    net.measure(latents)
    net.measure(latents*2)
    white = net.whiten(latents)
    std, mean = torch.std_mean(white, (0, 2, 3), correction=0)
    assert mean.abs().max() < 1e-3
    torch.testing.assert_close(std[:2], torch.ones(2))
    assert std[2] < .01  # a channel that hardly changes is not blown up
    logits, features = net(white)
    assert logits.shape == (4, 1, 8, 8) and [f.shape[1] for f in features] == [2, 2, 2]


def test_a_logit_sees_nine_latent_pixels_a_side():
    x = torch.randn(1, 3, 21, 21, requires_grad=True)
    LatentDiscriminator(3, 4)(x)[0][0, 0, 10, 10].backward()
    seen = x.grad.abs().sum((0, 1)) > 0
    assert seen.any(0).nonzero().flatten().tolist() == [*range(6, 15)]


def test_without_a_latent_loss_there_is_nothing_to_judge(tiny_learner):
    with pytest.raises(InputError, match="add LatentLoss"): tiny_learner(gan(), control="mask").fit(1)


def test_a_resumed_run_ends_with_the_bits_of_a_whole_one(learner, interrupted, state_of, same, tmp_path):
    def make(resume=False):
        return learner(EMA(.9), Checkpoint(tmp_path/f"{resume}.pt"), adversary=gan())

    whole = make()
    whole.fit(2)
    interrupted(make(), epoch=1)
    resumed = learner(EMA(.9), Checkpoint(tmp_path/"False.pt", resume=True), adversary=gan())
    resumed.fit(2)
    assert same(state_of(whole.model), state_of(resumed.model))
    discriminators = [state_of(o.latent_adversarial.discriminator) for o in (whole, resumed)]
    assert same(*discriminators)


def test_it_trains_in_bfloat16(learner):
    learn = learner(BFloat16(), adversary=gan(r1_every=1))
    learn.fit(1)
    health = learn.step_log.health.means()
    assert health["d_r1"] > 0 and all(torch.isfinite(p).all() for p in learn.model.parameters())
