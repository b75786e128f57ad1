import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastinpaint.kernels import masked_l1
from fastinpaint.train.latent_distances import DISTANCES, EDGES, latent_distance
from fastinpaint.train.step import Step

KERNEL = torch.randn(4, 3, 10, 10, generator=torch.Generator().manual_seed(3))/10
ROOT = torch.diag(torch.tensor([1., 2., 0., .5]))


@pytest.fixture
def step():
    "Latents of four channels of different strength; the hole covers latent pixels wholly, partly or not"
    torch.manual_seed(0)
    strength = torch.tensor([1., .1, 3., .5]).view(1, 4, 1, 1)
    mask = torch.zeros(2, 1, 40, 48)
    mask[..., 5:30, 11:37] = 1
    return Step(torch.rand(2, 3, 40, 48), mask, latent=torch.randn(2, 4, 5, 6)*strength,
                target=torch.randn(2, 4, 5, 6)*strength, latent_mask=mask)


def term(name, *args, **kwargs):
    made = latent_distance(name, *args, **kwargs)
    made.metric = dict(decoder=ROOT, edges=KERNEL).get(name)
    return made


def smooth(error, beta): return torch.where(error < beta, error**2/(2*beta), error - beta/2)


def spread(target): return target.transpose(0, 1).flatten(1).std(1, correction=0).view(1, -1, 1, 1)


ERRORS = {
    "l1": lambda z, t: (z - t).abs(),
    "l2": lambda z, t: (z - t)**2,
    "huber": lambda z, t: smooth((z - t).abs(), spread(t)),
    "cosine": lambda z, t: 1 - (z*t).sum(1, keepdim=True)/(z.norm(dim=1) * t.norm(dim=1)).unsqueeze(1),
    "normalised": lambda z, t: (z - t).abs()/spread(t),
    "decoder": lambda z, t: ((z - t)*ROOT.diag().view(1, 4, 1, 1)).square().sum(1, keepdim=True).sqrt()}


@pytest.mark.parametrize("known, missing", [(1., 1.), (2., .5), (0., 1.), (.1, 1.)])
@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_weighted_by_the_hole_behind_each_latent_pixel(step, name, known, missing):
    share = F.avg_pool2d(step.mask, 8)
    errors = ERRORS[name](step.latent, step.target)
    expected = ((missing*share + known*(1 - share))*errors).mean()
    assert expected > .01
    torch.testing.assert_close(term(name, 1., known, missing)(step), expected)


def test_l1_is_the_kernels_to_the_bit(step):
    latent = step.latent.requires_grad_()
    losses = term("l1", 1., .1)(step), masked_l1(latent, step.target, step.mask, .1, 1.)
    gradients = [torch.autograd.grad(loss, latent)[0] for loss in losses]
    assert torch.equal(*losses) and torch.equal(*gradients)


@pytest.mark.parametrize("name", DISTANCES)
def test_a_step_down_its_gradient_lessens_it_and_nothing_is_left_at_the_target(step, name):
    made = term(name)
    step.latent.requires_grad_()
    before = made(step)
    gradient, = torch.autograd.grad(before, step.latent)
    step.latent = (step.latent - .01*gradient/gradient.abs().max()).detach()
    assert made(step) < before
    step.latent = step.target.clone().requires_grad_()
    there = made(step)
    gradient, = torch.autograd.grad(there, step.latent)
    assert there < 1e-6 and gradient.abs().max() < 1e-6


@pytest.mark.parametrize("name", DISTANCES)
def test_a_channel_that_never_changes_does_not_break_it(step, name):
    step.target[:, 1] = 0
    step.latent.requires_grad_()
    value = term(name)(step)
    gradient, = torch.autograd.grad(value, step.latent)
    assert value.isfinite() and gradient.isfinite().all() and gradient.abs().max() < 10


def test_a_term_has_its_own_name_and_weight():
    names = {name: latent_distance(name).name for name in DISTANCES}
    assert names == {name: f"latent_{name}" for name in ("l1", "l2", "huber", "cosine", "normalised",
                                                         "decoder", "edges")}
    assert latent_distance("huber", .5).weight == .5


# what the decoder makes of it

class Model(nn.Module):
    "A decoder of 2×2 blocks, whose block of each latent pixel has no part in the others"
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.decoder = nn.Sequential(nn.ConvTranspose2d(4, 3, 2, stride=2), nn.Dropout())

    def decode(self, latent): return self.decoder(latent)


def test_the_decoders_distance_is_in_pixels(step):
    model, made = Model(), latent_distance("decoder")
    made.prepare(model, torch.randn(64, 4, 16, 16))
    assert all(m.training for m in model.modules()) and all(p.requires_grad for p in model.parameters())
    model.eval()
    pixels = (model.decode(step.latent) - model.decode(step.target)).square().mean(1, keepdim=True)
    torch.testing.assert_close(made(step), F.avg_pool2d(pixels, 2).sqrt().mean(), rtol=.02, atol=0)


def test_edges_are_errors_of_the_image_and_their_steps_inside_and_across_blocks(step):
    made, image = term("edges", 1., .1), torch.zeros(2, 3, 40, 48)
    step.latent.requires_grad_()
    for y in range(5):
        for x in range(6):
            block = torch.einsum("bc,cnhw->bnhw", (step.latent - step.target)[:, :, y, x], KERNEL)
            padded = F.pad(block, [8*x, 40 - 8*x + 2, 8*y, 32 - 8*y + 2])  # one pixel beyond each border
            image = image + padded[..., 1:-1, 1:-1][..., :40, :48]
    share, m = F.avg_pool2d(step.mask, 8), step.mask
    blocks = F.avg_pool2d(image.square().mean(1, keepdim=True), 8).sqrt()
    expected = ((.1 + .9*share)*blocks).mean()
    for steps, known in [(image[..., 1:] - image[..., :-1], (1 - m[..., 1:])*(1 - m[..., :-1])),
                         (image[..., 1:, :] - image[..., :-1, :], (1 - m[..., 1:, :])*(1 - m[..., :-1, :]))]:
        expected = expected + EDGES*((1 - .9*known)*steps.abs()).mean()
    found = made(step)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(o, step.latent)[0] for o in (found, expected)))


def test_edges_tell_latents_that_agree_from_those_that_do_not():
    "The same error of every block: alike in all of them, then of another sign in every second one"
    made, target = latent_distance("edges"), torch.zeros(1, 1, 4, 8)
    made.metric = torch.ones(1, 3, 4, 4)
    mask, signs = torch.ones(1, 1, 16, 32), torch.tensor([1., -1.]).repeat(4)
    def value(latent): return made(Step(None, mask, latent=latent, target=target, latent_mask=mask)).item()
    assert value(target + 1) == pytest.approx(1)
    assert value(target + signs) == pytest.approx(1 + EDGES*2*7/31)


class Wave(nn.Module):
    "A decoder whose pixels go up and down with the latent, the `faster` the further from linear"
    stride = 8
    def __init__(self, faster):
        super().__init__()
        self.decoder, self.faster = nn.Identity(), faster

    def decode(self, latent): return (self.faster*F.interpolate(latent, scale_factor=8)[:, :3]).sin()


@pytest.mark.parametrize("faster, l1", [(.1, False), (50., True)])
def test_edges_of_a_decoder_that_is_far_from_linear_are_l1_and_say_so(step, faster, l1, capsys):
    made, plain = (latent_distance(name, 1., .1) for name in ("edges", "l1"))
    made.prepare(Wave(faster), step.target)
    assert (made(step).item() == plain(step).item()) == l1
    assert ("far from linear" in capsys.readouterr().out) == l1


def test_what_it_found_out_first_stays(step):
    model, made = Model(), latent_distance("decoder")
    made.prepare(model, step.target)
    first = made.metric
    nn.init.zeros_(model.decoder[0].weight)
    made.prepare(model, step.target)
    assert made.metric is first


# a refiner's iterates

def test_earlier_iterates_count_less(step):
    step.iterates = [torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6), step.latent]
    first, second, last = (masked_l1(z, step.target, step.mask, .1, 1.) for z in step.iterates)
    value = term("l1", 1., .1, iterates=.8)(step)
    torch.testing.assert_close(value, .64*first + .8*second + last)


# what is refused

@pytest.mark.parametrize("make, message", [
    (lambda: latent_distance("ssim"), "'ssim': expected l1, l2, huber, cosine, normalised, decoder, edges"),
    (lambda: latent_distance("l2", -1.), "latent_l2 is -1"),
    (lambda: latent_distance("cosine", 1., -.1), "latent_cosine: negative known=-0.1"),
    (lambda: latent_distance("l1", iterates=1.5), r"iterates=1.5.*\[0, 1\]")])
def test_impossible_choices_are_refused(make, message):
    with pytest.raises(ValueError, match=message): make()
