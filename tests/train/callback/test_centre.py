import pytest
import torch

from fastinpaint.train.callback.centre import Centre
from fastinpaint.train.callback.reconstruct import Reconstruct
from fastinpaint.train.losses import PixelMSE

PLAIN = dict(loss=PixelMSE(), control=None, blocks=0, width=4, linear=False)


def psnr(learn):
    _, mask, image, _ = (x.as_subclass(torch.Tensor) for x in learn.dls.valid.one_batch())
    with torch.no_grad(): found = learn.model.eval()(image, torch.zeros_like(mask))
    return -10*(found - image).square().mean().log10().item()


def test_a_plain_autoencoder_starts_as_a_code_and_gets_better(tiny_learner):
    learn = tiny_learner(Reconstruct(), Centre(), **PLAIN)
    fresh = psnr(learn)
    learn.fit(1, 0.)
    start = psnr(learn)
    learn.fit(6, 1e-3)
    assert fresh + 8 < start < psnr(learn)


def test_without_it_the_first_steps_destroy_the_start(tiny_learner):
    centred, other = (tiny_learner(Reconstruct(), *cbs, **PLAIN) for cbs in ([Centre()], []))
    for learn in centred, other: learn.fit(1, 1e-3)
    assert psnr(centred) > psnr(other) + 6


def test_steps_leave_the_constants_alone(tiny_learner):
    "A photograph of the mean colour passes as it did, whatever the weights have learned of deviations"
    learn = tiny_learner(Reconstruct(), Centre(), **PLAIN)
    learn.fit(1, 0.)
    encoder = learn.model.encoder.eval()
    grey = torch.full((1, 3, 16, 16), .5)
    before, weight = encoder.stages[0].conv(grey) - mean_of(encoder), encoder.stages[0].conv.weight.clone()
    learn.fit(2, 1e-2)
    encoder.eval()
    assert not torch.allclose(encoder.stages[0].conv.weight, weight, atol=1e-3)
    assert torch.allclose(encoder.stages[0].conv(grey) - mean_of(encoder), before, atol=1e-5)


def mean_of(encoder): return encoder.stages[0].bn.running_mean.view(1, -1, 1, 1)


def test_constant_channels_stay_constant(tiny_learner):
    learn = tiny_learner(Reconstruct(), Centre(), **PLAIN)
    learn.fit(2, 1e-2)
    model, image = learn.model.eval(), torch.rand(1, 3, 32, 32)
    x = model.encoder.stages[0](image)
    for stage in (*model.encoder.stages[1:], *model.decoder.stages[:-1]):
        x = stage(x)
        assert torch.equal(x[:, -1], torch.ones_like(x[:, -1]))


def test_batchnorm_keeps_its_statistics_but_for_what_steps_did_to_its_mean(tiny_learner):
    learn = tiny_learner(Reconstruct(), Centre(), **PLAIN)
    learn.fit(1, 0.)
    variance = [s.bn.running_var.clone() for s in learn.model.encoder.stages]
    learn.fit(1, 1e-2)
    assert all(torch.equal(s.bn.running_var, v)
               for s, v in zip(learn.model.encoder.stages, variance, strict=True))


@pytest.mark.parametrize("options", [dict(linear=True), dict(linear=False, start=False)])
def test_other_models_train_as_ever(tiny_learner, state_of, same, options):
    start = options.pop("start", True)
    def trained(*cbs):
        learn = tiny_learner(Reconstruct(start=start), *cbs, **PLAIN | options)
        learn.fit(1, 1e-3)
        return state_of(learn.model)
    assert same(trained(Centre()), trained())
