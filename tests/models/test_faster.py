import pytest
import torch
from torch import nn

from fastinpaint.models.context_encoder import context_encoder
from fastinpaint.models.faster import faster

VARIANTS = [dict(), dict(control=True), dict(control=None), dict(linear=False, prefill=False), dict(control=True, linear=False),
            dict(control=True, delta=True, depth=1, width=4), dict(width=32), dict(blocks=0)]


def lively(net):
    "`net` with random weights, biases and BatchNorm statistics everywhere, also where training starts from zero"
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters(): p.add_(.05*torch.randn(p.shape, generator=g))
        for m in net.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.copy_(.1*torch.randn(m.num_features, generator=g))
                m.running_var.copy_(.5 + torch.rand(m.num_features, generator=g))
                m.bias.copy_(.1*torch.randn(m.num_features, generator=g))
                m.weight.fill_(1.)
    return net.eval()


def batch(*size, n=1):
    image, mask = torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(0)), torch.zeros(n, 1, *size)
    mask[..., size[0]//3:size[0]//2 + 1, size[1]//3:size[1]//2 + 1] = 1
    return image*(1 - mask), mask


def close(a, b): return (a - b).abs().max() <= 1e-5*(b.max() - b.min())


@torch.no_grad()
@pytest.mark.parametrize("winograd", [False, True])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_same_network_at_any_size(tiny_lama, variant, winograd, monkeypatch):
    monkeypatch.setattr("fastinpaint.models.faster.WIDE", 0)
    net = lively(tiny_lama(**variant))
    fast = faster(net, winograd)
    for masked, mask in batch(32, 48), batch(1, 70), batch(33, 20, n=2):
        assert close(fast(masked, mask), net(masked, mask))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fast.modules())


@torch.no_grad()
def test_winograd_in_strips(tiny_lama, monkeypatch):
    monkeypatch.setattr("fastinpaint.models.faster.WIDE", 0)
    monkeypatch.setattr("fastinpaint.models.winograd.STRIP", 8)
    net = lively(tiny_lama())
    masked, mask = batch(150, 90, n=2)
    assert close(faster(net)(masked, mask), net(masked, mask))


@torch.no_grad()
def test_a_context_encoder_is_folded_too():
    net = lively(context_encoder(width=2, size=32))
    masked, mask = batch(40, 50)
    fast = faster(net)
    assert close(fast(masked, mask), net(masked, mask)) and not any(isinstance(m, nn.BatchNorm2d) for m in fast.modules())


def test_gradients_reach_latents(tiny_lama):
    net = lively(tiny_lama(control=True))
    latent = net.encode(*batch(16, 24)).detach()
    grads = []
    for model in net, faster(net, winograd=True):
        x = latent.clone().requires_grad_()
        model.decode(model.refine(x)).square().sum().backward()
        grads.append(x.grad)
    assert (grads[0] - grads[1]).abs().max() <= 1e-4*grads[0].abs().max() and grads[0].abs().max() > 0


def test_the_model_itself_is_left_as_it_was(tiny_lama, state_of, same):
    net = tiny_lama().train()
    before = state_of(net)
    fast = faster(net)
    assert same(state_of(net), before) and net.training and all(p.requires_grad for p in net.parameters())
    assert not fast.training and not any(p.requires_grad for p in fast.parameters()) and fast.config == {} != net.config


def test_hooks_stay_with_the_model(tiny_lama):
    net, seen = tiny_lama(), []
    net.refiner.register_forward_hook(lambda *args: seen.append(1))
    x, mask = torch.rand(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    faster(net)(x, mask)
    assert not seen
    net(x, mask)
    assert seen == [1]
