import pytest
import torch
from torch import nn

from fastinpaint.core.errors import InputError
from fastinpaint.core.ranks import rank, world
from fastinpaint.core.together import start
from fastinpaint.models import levels
from fastinpaint.models.control import add_control
from fastinpaint.models.lama import ConvBlock
from fastinpaint.models.load import load_model, save_model

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
@pytest.mark.parametrize("control", ["mask", "alpha", "alpha+mask"])
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
@pytest.mark.parametrize("control", ["mask", "alpha", "alpha+mask"])
def test_once_open_the_mask_reaches_the_latent(tiny_lama, batch, control):
    # of two channels, ReLU may silence both
    model = tiny_lama(control=control, prefill=False, width=8).eval()
    masked, mask = batch
    open_(model)
    assert not torch.allclose(model.encode(masked, mask), model.encode(masked))
    assert not torch.allclose(model.encode(masked, mask), model.encode(masked, torch.zeros_like(mask)))


@both_kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_frozen_encoder_has_the_gradients_of_control_without_one_of_full_size(
        tiny_lama, batch, monkeypatch, linear, dtype):
    torch.manual_seed(0)
    model = tiny_lama(control="mask", linear=linear, width=4).train()
    open_(model)
    model.encoder.requires_grad_(False).eval()
    upstream, taken = torch.randn(2, 32, 5, 5), []

    def gradients(fits):
        monkeypatch.setattr(levels, "fits", lambda *given: taken.append(fits(*given)) or taken[-1])
        model.zero_grad()
        with torch.autocast("cpu", dtype, dtype != torch.float32): latent = model.encode(*batch)
        (latent*upstream).sum().backward()
        return [latent.detach(), *(p.grad for p in model.conditioner.parameters())]

    found, expected = gradients(levels.fits), gradients(lambda *given: False)
    assert taken == [True, False] and torch.equal(found[0], expected[0])
    # biases before a BatchNorm have nothing but rounding
    noise, share = 1e-6*max(b.abs().max() for b in expected), 1e-5 if dtype == torch.float32 else .02
    for a, b in zip(found, expected, strict=True): assert (a - b).abs().max() <= share*b.abs().max() + noise


@pytest.mark.parametrize("change", ["training", "trained", "watched", "image", "leaky"])
def test_what_is_not_frozen_has_its_gradients(tiny_lama, batch, change):
    model, (masked, mask) = tiny_lama(control="mask", prefill=False).train(), batch
    open_(model)
    model.encoder.requires_grad_(False).eval()
    stage, seen = model.encoder.stages[1], []
    if change == "training": stage.bn.train()
    if change == "trained": stage.requires_grad_(True)
    if change == "leaky": stage.act = nn.LeakyReLU(.2)
    if change == "watched": stage.conv.register_forward_pre_hook(lambda *_: seen.append(1))
    if change == "image": masked.requires_grad_()
    assert not levels.fits(stage, model.encoder.stages[0](masked))
    model.encode(masked, mask).sum().backward()
    if change == "trained": assert all(p.grad is not None for p in stage.parameters())
    if change == "image": assert masked.grad.any()


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
    for control in "alpha", "mask", "alpha+mask":
        model, image = tiny_lama(control=control).eval(), batch[0]
        before = model.encode(image)
        open_(model)
        assert torch.equal(model.encode(image), before)


# a bare first convolution

@torch.no_grad()
@both_kinds
def test_a_bare_convolution_stands_in_for_the_first_stage(tiny_lama, linear):
    model = tiny_lama(first="bare", linear=linear, prefill=False).eval()
    image, mask = torch.rand(2, 3, 32, 40), (torch.rand(2, 1, 32, 40) > .5).float()
    x = nn.functional.pad(torch.cat([image, mask], 1), (3,)*4, mode="reflect")
    latent = model.encoder.stages[1:](nn.functional.conv2d(x, model.conditioner.conv.weight))
    assert torch.allclose(model.encode(image, mask), latent, atol=1e-6)
    assert torch.equal(model.encode(image), model.encoder(image))


def test_a_bare_convolution_learns_beside_a_frozen_encoder(tiny_lama, batch):
    model = tiny_lama(first="bare", width=8)
    model.encoder.requires_grad_(False)
    model.encode(*batch).square().sum().backward()
    assert model.conditioner.conv.weight.grad.abs().amax(dim=(0, 2, 3)).min() > 0


# control on top of an alpha channel

@torch.no_grad()
@both_kinds
@pytest.mark.parametrize("training", [True, False])
def test_added_control_changes_nothing_at_first_the_net_never(tiny_lama, batch, same, state_of, linear,
                                                              training):
    net = tiny_lama(linear=linear, width=4, first="anew").train(training)
    if linear: nn.init.normal_(net.conditioner.linear)
    before = state_of(net)
    new = add_control(net)
    assert new.training == new.conditioner.training == training and same(state_of(net), before)
    assert torch.equal(new(*batch), net(*batch))
    for p in new.parameters(): p.zero_()
    assert same(state_of(net.conditioner), {k[12:]: v for k, v in before.items() if "conditioner" in k})


def test_control_is_added_to_what_trains_on(tiny_lama, batch):
    net = tiny_lama()
    nn.init.normal_(net.conditioner.weight)
    net.requires_grad_(False)
    new = add_control(net)
    new.encode(*batch).square().sum().backward()
    assert all(z.weight.grad.abs().sum() > 0 for z in new.conditioner.zero_convs)
    assert new.conditioner.alpha.weight.grad is None


@torch.no_grad()
def test_added_control_is_that_of_the_thesis_on_top_of_the_alpha_channel(tiny_lama, batch):
    net = tiny_lama(prefill=False).eval()
    for p in net.conditioner.parameters(): nn.init.normal_(p, std=.1)
    new, (image, mask) = add_control(net), batch
    open_(new)
    image, mask = new.pad(image), new.pad(mask)
    first = net.conditioner.first_stage(net.encoder, image, mask)
    guide = new.conditioner.mask_stages[0](mask)
    latent = new.conditioner.zero_convs[0](first, guide)
    for i in 1, 2, 3:
        guide = new.conditioner.mask_stages[i](guide)
        latent = new.conditioner.zero_convs[i](new.encoder.stages[i](latent), guide)
    assert torch.allclose(new.encode(image, mask), latent, atol=1e-5)


@torch.no_grad()
def test_a_model_with_added_control_is_saved_like_any_other(tiny_lama, tmp_path, batch):
    for first in "kept", "anew":
        new = add_control(tiny_lama(first=first)).eval()
        open_(new)
        loaded = load_model(save_model(new, tmp_path/"m.safetensors"))
        assert torch.equal(loaded(*batch), new(*batch)) and loaded.config["control"] == "alpha+mask"


@pytest.mark.parametrize("kwargs", [dict(control="mask"), dict(control=None), dict(control="alpha+mask"),
                                    dict(first="bare")], ids=str)
def test_control_is_added_to_alpha_channels_alone(tiny_lama, kwargs):
    with pytest.raises(InputError, match="alpha channel, which this InpaintNet has not.*load_lama"):
        add_control(tiny_lama(**kwargs))


# BatchNorm over several processes

def of_masks(masks, bn=nn.BatchNorm2d):
    "What `two_levels` of one convolution makes of this process's masks, and what that leaves"
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4)
    if bn is nn.SyncBatchNorm:
        start(torch.device("cpu"))
        norm.__class__ = bn
        masks = masks.chunk(world())[rank()]
    known, step = levels.two_levels(conv, norm, nn.ReLU(), masks)
    (known.square() + 2*step).sum().backward()
    return known, step, norm.running_mean, norm.running_var, conv.weight.grad, norm.weight.grad


def test_synchronised_batchnorm_of_masks_sees_those_of_all_processes(processes):
    masks = torch.zeros(4, 1, 8, 8)
    for i, mask in enumerate(masks): mask[..., :2*i + 1] = 1
    for found in processes(2, of_masks, masks, nn.SyncBatchNorm):
        assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(found, of_masks(masks), strict=True))
