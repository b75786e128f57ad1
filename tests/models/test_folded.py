import pytest
import torch
from torch import nn

from fastinpaint.models.context_encoder import context_encoder
from fastinpaint.models.control import MaskControl
from fastinpaint.models.folded import folded
from fastinpaint.models.net import InpaintNet

VARIANTS = [dict(), dict(control="mask"), dict(control=None), dict(linear=False, prefill=False),
            dict(control="mask", linear=False), dict(control="mask", delta=True, depth=1, width=4),
            dict(width=32), dict(blocks=0), dict(first="anew"), dict(first="bare"),
            dict(first="bare", linear=False, depth=1), dict(control="alpha+mask"),
            dict(control="alpha+mask", linear=False), dict(delta="sum", iterations=3),
            dict(refiner="dilated", blocks=5), dict(refiner="dilated", linear=False, delta=True),
            dict(refiner="unet", iterations=2), dict(refiner="unet", linear=False)]


def lively(net):
    "`net` with random weights, biases and BatchNorm statistics also where they start from zero"
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
    image = torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(n, 1, *size)
    mask[..., size[0]//3:size[0]//2 + 1, size[1]//3:size[1]//2 + 1] = 1
    return image*(1 - mask), mask


def close(a, b): return (a - b).abs().max() <= 1e-5*(b.max() - b.min())


@torch.no_grad()
@pytest.mark.parametrize("winograd", [False, True])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_same_network_at_any_size(tiny_lama, variant, winograd, monkeypatch):
    monkeypatch.setattr("fastinpaint.models.ffc.WIDE", 0)
    net = lively(tiny_lama(**variant))
    fast = net.folded(winograd)
    for masked, mask in batch(32, 48), batch(1, 70), batch(33, 20, n=2):
        assert close(fast(masked, mask), net(masked, mask))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fast.modules())


@torch.no_grad()
def test_winograd_in_strips(tiny_lama, monkeypatch):
    monkeypatch.setattr("fastinpaint.models.ffc.WIDE", 0)
    monkeypatch.setattr("fastinpaint.models.winograd.STRIP", 8)
    net = lively(tiny_lama())
    masked, mask = batch(150, 90, n=2)
    assert close(net.folded()(masked, mask), net(masked, mask))


@torch.no_grad()
@pytest.mark.parametrize("prefill", [False, True])
def test_a_context_encoder_is_folded_too(prefill):
    net = lively(context_encoder(width=2, size=32, prefill=prefill))
    masked, mask = batch(40, 50)
    fast = net.folded()
    assert close(fast(masked, mask), net(masked, mask))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fast.modules())


def test_gradients_reach_latents(tiny_lama):
    net = lively(tiny_lama(control="mask"))
    latent = net.encode(*batch(16, 24)).detach()
    grads = []
    for model in net, net.folded(winograd=True):
        x = latent.clone().requires_grad_()
        model.decode(model.refine(x)).square().sum().backward()
        grads.append(x.grad)
    largest = grads[0].abs().max()
    assert (grads[0] - grads[1]).abs().max() <= 1e-4*largest and largest > 0


class Doubled(InpaintNet):
    "A user's own network: another forward, and a part that `InpaintNet` does not know of"
    def __init__(self, net):
        parts = net.encoder, net.refiner, net.decoder, net.conditioner
        super().__init__(*parts, net.prefill, net.config)
        self.after = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))

    def forward(self, masked, mask): return 2*self.after(super().forward(masked, mask))


class HalfControl(MaskControl):
    "A user's own conditioner, which `folded_with` of its base would compute wrongly"
    def forward(self, encoder, image, mask): return super().forward(encoder, image, mask/2)


def plain(net): return net
def subclass(net): return Doubled(net)


def other_control(net):
    net.conditioner.__class__ = HalfControl
    return net


def other_conditioner(net):
    "A conditioner that needs what the stages of the plain encoder hold"
    class Own(nn.Module):
        def forward(self, encoder, image, mask):
            first, rest = encoder.stages[0], encoder.stages[1:]
            return rest(first.act(first.bn(first.conv(image))) + mask)
    net.conditioner = Own()
    return net


KINDS = pytest.mark.parametrize("kind", [plain, subclass, other_control, other_conditioner])


@KINDS
@pytest.mark.parametrize("control", ["alpha", "mask"])
def test_the_model_itself_is_left_as_it_was(tiny_lama, state_of, same, kind, control):
    if kind is other_control: control = "mask"
    net = kind(tiny_lama(control=control)).train()
    net.encoder.requires_grad_(False)
    wanted = [p.requires_grad for p in net.parameters()]
    before, drawn = state_of(net), torch.get_rng_state()
    fast = net.folded()
    assert same(state_of(net), before) and [p.requires_grad for p in net.parameters()] == wanted
    assert all(m.training for m in net.modules()) and torch.equal(torch.get_rng_state(), drawn)
    assert not fast.training and not any(p.requires_grad for p in fast.parameters())
    assert fast.config == {} != net.config
    for p in fast.parameters(): p.zero_()  # no weight is shared
    assert same(state_of(net), before)


@torch.no_grad()
@KINDS
def test_what_users_add_is_computed_as_they_wrote_it(tiny_lama, kind):
    net = lively(kind(tiny_lama(control="mask")))
    masked, mask = batch(32, 48)
    fast = net.folded()
    assert close(fast(masked, mask), net(masked, mask)) and type(fast) is type(net)


@torch.no_grad()
@pytest.mark.parametrize("refiner", ["ffc", "dilated", "unet"])
def test_a_loss_that_asks_for_iterates_does_not_get_those_of_a_copy(tiny_lama, refiner):
    net = tiny_lama(refiner=refiner, iterations=2)
    net.refiner.iterates = []
    net.folded()(*batch(16, 24))
    assert net.refiner.iterates == []


@torch.no_grad()
def test_a_part_can_be_folded_alone(tiny_lama):
    net, image = lively(tiny_lama()), batch(32, 48)[0]
    latent = net.encoder(image)
    assert close(folded(net.encoder)(image), latent)
    assert close(folded(net.refiner)(latent), net.refiner(latent))


def test_hooks_stay_with_the_model(tiny_lama):
    net, seen = tiny_lama(control="mask"), []
    for m in net.modules(): m.register_forward_hook(lambda *args: seen.append(1))
    x, mask = torch.rand(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    net.folded()(x, mask)
    assert not seen
    net(x, mask)
    assert seen
