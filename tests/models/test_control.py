import pytest
import torch
from torch import nn

from fastinpaint.models.lama import ConvBlock

both_kinds = pytest.mark.parametrize("linear", [True, False])


@pytest.fixture
def batch():
    mask = torch.zeros(2, 1, 33, 40)
    mask[..., 8:20, 10:30] = 1
    return torch.rand(2, 3, 33, 40)*(1 - mask), mask


def open_(model):
    "Give the mask its say, as training would"
    for p in (p for n, p in model.conditioner.named_parameters() if p.ndim == 4 and not p.any()):
        nn.init.normal_(p, std=.1)


@torch.no_grad()
@both_kinds
@pytest.mark.parametrize("control", ["mask", "alpha"])
@pytest.mark.parametrize("training", [True, False])
def test_at_first_the_encoder_equals_the_plain_one_to_the_bit(tiny_lama, batch, control, linear, training):
    model = tiny_lama(control=control, linear=linear, prefill=False).train(training)
    masked, mask = batch
    controlled, plain = model.encode(masked, mask), model.encode(masked)
    if control == "mask": assert torch.equal(controlled, plain)
    # one convolution of four channels sums in another order
    else: assert torch.allclose(controlled, plain, atol=1e-6)
    assert plain.std() > 0


@torch.no_grad()
@pytest.mark.parametrize("control", ["mask", "alpha"])
def test_once_open_the_mask_reaches_the_latent(tiny_lama, batch, control):
    # of two channels, ReLU may silence both
    model = tiny_lama(control=control, prefill=False, width=8).eval()
    masked, mask = batch
    open_(model)
    assert not torch.allclose(model.encode(masked, mask), model.encode(masked))
    assert not torch.allclose(model.encode(masked, mask), model.encode(masked, torch.zeros_like(mask)))


def test_the_zero_convolutions_learn_first_then_the_mask_encoder(tiny_lama, batch):
    model, upstream = tiny_lama(control="mask"), torch.randn(2, 16, 5, 5)
    control = model.conditioner

    def gradients():
        model.zero_grad()
        (model.encode(*batch)*upstream).sum().backward()
        parts = control.zero_convs, control.mask_stages
        return [[p.grad.abs().max().item() for p in m.parameters()] for m in parts]

    zero_convs, mask_encoder = gradients()
    assert min(zero_convs) > 0 and max(mask_encoder) == 0
    with torch.no_grad():
        for p in control.zero_convs.parameters(): p -= .1*p.grad
    assert all(max(g) > 0 for g in gradients())


def plain_control(control, encoder, image, mask):
    "Mask control as the thesis draws it, without a short cut for masks of 0 and 1"
    latent = image
    stages = zip(encoder.stages, control.mask_stages, control.zero_convs, strict=True)
    for stage, mask_stage, zero_conv in stages:
        mask = mask_stage(mask)
        latent = zero_conv(stage(latent), mask)
    return latent


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("hole", ["some", "none", "all"])
@pytest.mark.parametrize("depth", [1, 3])
def test_mask_control_is_the_thesis_whatever_way_it_is_computed(tiny_lama, batch, depth, hole, training):
    image, mask = (x[..., :32, :] for x in batch)
    mask = {"some": mask, "none": torch.zeros_like(mask), "all": torch.ones_like(mask)}[hole]
    kwargs = dict(control="mask", prefill=False, depth=depth, width=4)
    fast, plain = (tiny_lama(**kwargs).double().train(training) for _ in range(2))
    for model in fast, plain:
        torch.manual_seed(1)
        open_(model)
        for bn in (m for m in model.conditioner.modules() if isinstance(m, nn.BatchNorm2d)):
            for x in bn.running_mean, bn.running_var, bn.weight, bn.bias:
                nn.init.uniform_(x, .5, 1.5)
    outputs = [fast.encode(image.double(), mask.double()),
               plain_control(plain.conditioner, plain.encoder, image.double(), mask.double())]
    upstream = torch.randn_like(outputs[0])
    for y in outputs: (y*upstream).sum().backward()
    assert torch.allclose(*outputs)
    for (name, p), q in zip(fast.conditioner.named_parameters(), plain.conditioner.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, atol=1e-7), name
    for (name, p), q in zip(fast.named_buffers(), plain.buffers(), strict=True):
        assert torch.allclose(p, q), name


@torch.no_grad()
@both_kinds
def test_the_alpha_channel_is_one_stage_of_four_channels(tiny_lama, linear):
    model = tiny_lama(linear=linear, prefill=False).eval()
    open_(model)
    image, mask = torch.rand(2, 3, 32, 40), (torch.rand(2, 1, 32, 40) > .5).float()
    first, plain, added = ConvBlock(4, 2, 7, linear=linear).eval(), model.encoder.stages[0], model.conditioner
    first.bn = plain.bn
    first.conv.weight.copy_(torch.cat([plain.conv.weight, added.weight], 1))
    if linear:
        first.linear.weight.copy_(torch.cat([plain.linear.weight, added.linear], 1))
        first.linear.bias.copy_(plain.linear.bias)
    latent = model.encoder.stages[1:](first(torch.cat([image, mask], 1)))
    assert torch.allclose(model.encode(image, mask), latent, atol=1e-5)


@torch.no_grad()
def test_the_plain_encoder_stays_blind_to_the_mask(tiny_lama, batch):
    for control in "alpha", "mask":
        model, image = tiny_lama(control=control).eval(), batch[0]
        before = model.encode(image)
        open_(model)
        assert torch.equal(model.encode(image), before)
