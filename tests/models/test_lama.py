import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastinpaint.core.errors import InputError
from fastinpaint.kernels.prefill import smooth_fill
from fastinpaint.models.lama import ConvBlock, UpConv, lama
from fastinpaint.models.load import save_model

sides = st.integers(1, 40)


def batch(*size, n=1):
    image = torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(n, 1, *size)
    mask[..., size[0]//3:size[0]//2 + 1, size[1]//3:size[1]//2 + 1] = 1
    return image*(1 - mask), mask


@torch.no_grad()
@settings(max_examples=15, deadline=None)
@given(sides, sides, st.sampled_from([1, 3]), st.booleans())
@example(1, 1, 3, True)
@example(7, 300, 3, True)
@example(1, 1, 3, False)
@example(1, 33, 1, False)
def test_any_size_goes_in_and_the_same_comes_out(h, w, depth, linear):
    model = lama(2, 1, depth, control="mask", linear=linear, autoencoder=None)
    masked, mask = batch(h, w)
    for training in True, False:
        pred = model.train(training)(masked, mask)
        assert pred.shape == masked.shape and pred.isfinite().all()


@given(sides, sides)
@settings(max_examples=30, deadline=None)
def test_odd_sizes_are_padded_by_reflection(h, w):
    model = lama(1, 0, 3, autoencoder=None)
    image = torch.rand(1, 3, h, w)
    target = [max(math.ceil(n/8)*8, 16) - n for n in (h, w)]
    expected = np.pad(image.numpy(), [(0, 0), (0, 0), (0, target[0]), (0, target[1])], mode="reflect")
    assert np.array_equal(model.pad(image).numpy(), expected)


@torch.no_grad()
@pytest.mark.parametrize("depth, width", [(3, 2), (2, 3), (1, 4)])
def test_the_latent_is_one_tensor_of_known_size(depth, width):
    model, (masked, mask) = lama(width, 1, depth, autoencoder=None).eval(), batch(33, 48)
    stride = 2**depth
    shape = (1, width*stride, -(-33//stride), 48//stride)
    assert model.encode(masked, mask).shape == model.refine(model.encode(masked)).shape == shape


@torch.no_grad()
@pytest.mark.parametrize("control", ["mask", "alpha"])
def test_a_prefilled_hole_is_all_that_prefill_changes(tiny_lama, control):
    masked, mask = batch(33, 48)
    on, off = (tiny_lama(control=control, prefill=p).eval() for p in (True, False))
    filled = smooth_fill(on.pad(masked), on.pad(mask))
    assert torch.equal(on(masked, mask), off(filled, on.pad(mask))[..., :33, :])
    assert not torch.equal(on(masked, mask), off(masked, mask))
    assert torch.equal(on.encode(masked), off.encode(masked))


@torch.no_grad()
@pytest.mark.parametrize("stride", [1, 2])
def test_with_fixed_statistics_convolution_and_batchnorm_are_one(stride):
    block, x = ConvBlock(3, 4, 3, stride).eval(), torch.rand(2, 3, 9, 12)
    for p in block.bn.running_mean, block.bn.running_var, block.bn.weight, block.bn.bias:
        torch.nn.init.uniform_(p, .5, 1.5)
    assert torch.allclose(block(x), block.bn(block.conv(x)).relu(), atol=1e-6)


@pytest.mark.parametrize("kind", [dict(kernel_size=3, output_padding=1), dict(kernel_size=4)], ids=str)
def test_transposed_convolutions_are_torchs_and_so_are_their_gradients(kind):
    conv, seen = UpConv(6, 4, stride=2, padding=1, **kind).double(), []
    conv.register_forward_hook(lambda *_: seen.append(1))
    x = torch.randn(2, 6, 5, 7, dtype=torch.double, requires_grad=True)
    expected, upstream = torch.nn.ConvTranspose2d.forward(conv, x), torch.randn(2, 4, 10, 14).double()
    found = conv(x)
    assert torch.equal(found, expected) and seen
    by = x, conv.weight, conv.bias
    torch.testing.assert_close(*(torch.autograd.grad(y, by, upstream) for y in (found, expected)))
    conv.bias.requires_grad_(False)
    conv(x).sum().backward()
    assert conv.bias.grad is None and conv.weight.grad is not None


def nodes(tensor):
    "Names of all steps of the backward pass of `tensor`"
    found, left = {}, [tensor.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in found:
            found[node] = node.name()
            left += [before for before, _ in node.next_functions]
    return [*found.values()]


@pytest.mark.parametrize("control", ["alpha", "mask", None])
def test_no_gradient_is_copied_for_a_sum_in_place(control):
    net = lama(width=8, blocks=1, control=control, autoencoder=None)
    names = nodes(net(*batch(32, 32)))
    assert any("FFC" in name for name in names) and not any("CopySlices" in name for name in names)


def test_the_darkest_pixels_have_no_gradients_below_the_normal_range(tiny_lama):
    decoder = tiny_lama(linear=False).decoder
    torch.nn.init.constant_(decoder.head.bias, -88)  # of which a sigmoid makes 6e-39
    latent = torch.randn(1, len(decoder.stages[0].conv.weight), 4, 4, requires_grad=True)
    pred = decoder(latent)
    pred.sum().backward()
    assert pred.max() < 1e-20
    for numbers in pred.detach(), latent.grad, decoder.head.weight.grad:
        least = numbers.abs()[numbers != 0]
        assert not len(least) or least.min() >= torch.finfo(torch.float32).tiny


@torch.no_grad()
def test_the_plain_network_predicts_between_0_and_1(tiny_lama):
    pred = tiny_lama(linear=False)(*batch(32, 32))
    assert 0 <= pred.min() and pred.max() <= 1


@torch.no_grad()
def test_signed_blocks_start_as_the_identity_and_lamas_do_not(tiny_lama):
    latent = torch.randn(1, 16, 4, 4)
    assert torch.equal(tiny_lama(linear=True, blocks=2).refine(latent), latent)
    assert not torch.equal(tiny_lama(linear=False, blocks=2).refine(latent), latent)


@torch.no_grad()
@pytest.mark.parametrize("linear", [True, False])
def test_delta_adds_to_the_latent_at_first_nothing(tiny_lama, linear):
    latent, model = torch.randn(1, 16, 4, 4), tiny_lama(linear=linear, delta=True).eval()
    assert torch.equal(model.refine(latent), latent)
    model.refiner.delta.weight.copy_(torch.eye(16)[..., None, None])
    assert torch.allclose(model.refine(latent), latent + model.refiner.blocks(latent))


@torch.no_grad()
def test_delta_as_a_sum_adds_the_blocks_output(tiny_lama):
    latent, model = torch.randn(1, 16, 4, 4), tiny_lama(delta="sum", linear=False).eval()
    assert torch.equal(model.refine(latent), latent + model.refiner.blocks(latent))


@torch.no_grad()
@settings(max_examples=10, deadline=None)
@given(sides, sides, st.sampled_from(["dilated", "unet"]))
@example(1, 1, "unet")
@example(1, 33, "dilated")
def test_other_refiners_take_any_size_too(h, w, refiner):
    model = lama(2, 4, 3, first="bare", refiner=refiner, iterations=2, linear=False, autoencoder=None)
    masked, mask = batch(h, w)
    for training in True, False:
        pred = model.train(training)(masked, mask)
        assert pred.shape == masked.shape and pred.isfinite().all()


def test_unknown_refiners_are_told_the_names(tiny_lama):
    with pytest.raises(InputError, match="refiner='resnet'.*'ffc', 'dilated', 'unet'"):
        tiny_lama(refiner="resnet")


@torch.no_grad()
def test_an_autoencoder_does_not_look_at_the_mask(tiny_lama):
    model, (image, mask) = tiny_lama(control=None).eval(), batch(32, 32)
    assert torch.equal(model(image, mask), model(image, 1 - mask))


@torch.no_grad()
def test_training_without_pixel_losses_ends_at_the_latent(tiny_lama):
    model, (masked, mask) = tiny_lama(), batch(32, 32)
    model.decode_in_training = False
    assert model.train()(masked, mask).shape == (1, 16, 4, 4)
    assert model.eval()(masked, mask).shape == masked.shape


@pytest.mark.parametrize("image, mask", [((3, 32, 32), (1, 1, 32, 32)), ((1, 4, 32, 32), (1, 1, 32, 32)),
                                         ((1, 3, 32, 32), (1, 3, 32, 32)), ((2, 3, 32, 32), (1, 1, 32, 32)),
                                         ((1, 3, 32, 32), (1, 1, 32, 31)), ((1, 3, 32, 32), (1, 32, 32))])
def test_wrong_shapes_are_named(tiny_lama, image, mask):
    wrong = image if len(image) == 3 or image[1] != 3 else mask
    with pytest.raises(ValueError) as e:
        tiny_lama(control="mask")(torch.zeros(image), torch.zeros(mask))
    assert str(list(wrong)) in str(e.value)


@pytest.mark.parametrize("wrong", [dict(width=0), dict(blocks=-1), dict(depth=0),
                                   dict(control=True), dict(control="both"), dict(first="new"),
                                   dict(first="bare", control="mask"), dict(first="bare", control=None),
                                   dict(first="anew", control="alpha+mask"), dict(refiner="resnet"),
                                   dict(delta="mean"), dict(iterations=0)])
def test_impossible_architectures_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))!r}"):
        lama(**wrong)


# the pretrained autoencoder

@pytest.fixture
def autoencoder(tiny_lama, tmp_path):
    model = tiny_lama(seed=1, control=None, blocks=0)
    with torch.no_grad():
        for bn in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            bn.running_mean.uniform_()
    return model, save_model(model, tmp_path/"autoencoder.safetensors")


@pytest.mark.parametrize("control", ["alpha", "mask", None])
def test_encoder_and_decoder_start_from_the_autoencoder(autoencoder, tiny_lama, same, state_of, control):
    trained, path = autoencoder
    model = tiny_lama(seed=2, control=control, autoencoder=path)
    for part in "encoder", "decoder":
        assert same(state_of(getattr(model, part)), state_of(getattr(trained, part)))


@torch.no_grad()
@pytest.mark.parametrize("linear", [True, False])
def test_a_first_convolution_begins_anew_and_alone(tiny_lama, tmp_path, linear):
    trained = tiny_lama(seed=1, control=None, blocks=0, linear=linear, width=8)
    for p in trained.parameters(): p.add_(3)
    path = save_model(trained, tmp_path/"autoencoder.safetensors")
    model = tiny_lama(seed=2, autoencoder=path, linear=linear, width=8, first="anew")
    theirs, ours = (m.encoder.state_dict() for m in (trained, model))
    assert [k for k in ours if not torch.equal(ours[k], theirs[k])] == ["stages.0.conv.weight"]
    kernels = torch.cat([ours["stages.0.conv.weight"], model.conditioner.weight], dim=1)
    # uniform up to one by the root of 4·7·7 inputs, as in nn.Conv2d(4, 8, 7)
    assert kernels.abs().max() <= 1/14 and (kernels.abs().amax(dim=(2, 3)) > .8/14).all()
    assert not linear or not model.conditioner.linear.any()


@torch.no_grad()
def test_a_bare_first_convolution_leaves_the_autoencoder_whole(autoencoder, tiny_lama, same, state_of):
    trained, path = autoencoder
    model = tiny_lama(seed=2, autoencoder=path, first="bare")
    assert same(state_of(model.encoder), state_of(trained.encoder))


@pytest.mark.parametrize("other", [dict(width=3), dict(depth=2), dict(linear=False)])
def test_an_autoencoder_of_another_shape_is_refused_with_help(autoencoder, tiny_lama, other):
    (name, value), = other.items()
    ours = dict(width=2, depth=3, linear=True)[name]
    with pytest.raises(ValueError, match=f"{name}={ours}.*{name}={value}.*autoencoder=None"):
        tiny_lama(autoencoder=autoencoder[1], **other)


def test_a_missing_autoencoder_is_named(tiny_lama, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        tiny_lama(autoencoder=tmp_path/"nowhere.safetensors")
