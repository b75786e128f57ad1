import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastinpaint.fill.inpainter import Inpainter
from fastinpaint.kernels.prefill import smooth_fill
from fastinpaint.models.context_encoder import MEAN_COLOUR, context_encoder
from fastinpaint.models.load import load_model, save_model
from fastinpaint.models.weights import write_weights

sides = st.integers(1, 40)


@pytest.fixture
def tiny():
    "Makes a Context Encoder of images of 16 px, always the same"
    def make(**kwargs):
        torch.manual_seed(0)
        return context_encoder(**(dict(width=4, size=16) | kwargs))
    return make


def batch(*size, n=2):
    image = torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(n, 1, *size)
    mask[..., size[0]//3:size[0]//2 + 1, size[1]//3:size[1]//2 + 1] = 1
    return image*(1 - mask), mask


@torch.no_grad()
@settings(max_examples=20, deadline=None)
@given(sides, sides, st.integers(8, 40), st.booleans())
@example(1, 1, 8, False)
@example(1, 33, 16, True)
@example(7, 300, 31, False)
def test_any_size_goes_in_and_the_same_comes_out(h, w, size, prefill):
    model = context_encoder(2, size, prefill)
    masked, mask = batch(h, w)
    for training in True, False:
        pred = model.train(training)(masked, mask)
        assert pred.shape == masked.shape and 0 <= pred.min() and pred.max() <= 1  # false of NaN
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(model(masked, mask).float(), pred, atol=.05)


@torch.no_grad()
@pytest.mark.parametrize("size, channels, n", [(8, 1, 4), (16, 1, 4), (31, 1, 7), (64, 4, 4), (128, 8, 4),
                                               (255, 8, 7)])
def test_the_bottleneck_is_as_small_as_the_papers(size, channels, n):
    latent = context_encoder(1, size).encode(*batch(size, size))
    assert latent.shape == (2, channels, n, n)


@torch.no_grad()
def test_every_pixel_depends_on_every_known_pixel(tiny):
    def reach(model):
        "bool `[known pixels, pixels]`: does a known pixel change this one?"
        masked, mask = (x[:1].double() for x in batch(16, 16))
        known = (mask[0, 0] == 0).flatten().nonzero()[:, 0]
        changed = masked.repeat(len(known), 1, 1, 1)
        changed.flatten(2)[torch.arange(len(known)), :, known] += .5
        model = model.double().eval()
        return (model(changed, mask.expand(len(known), -1, -1, -1)) != model(masked, mask)).any(1).flatten(1)

    model = tiny(width=8)
    assert reach(model).all()
    fully_connected = model.refiner[0].weight
    fully_connected.mul_(torch.eye(16))
    assert not reach(model).all()  # without it, opposite corners do not see each other


@torch.no_grad()
def test_the_layer_connects_the_pixels_of_each_channel_alone(tiny):
    layer, x = tiny().refiner[0], torch.randn(2, 4, 4, 4)
    layer.bias.normal_()
    expected = [x[:, c].flatten(1) @ layer.weight[c].T + layer.bias[c] for c in range(4)]
    expected = torch.stack(expected, 1).view(x.shape)
    assert torch.allclose(layer(x), expected, atol=1e-6)
    assert torch.allclose(layer(x.contiguous(memory_format=torch.channels_last)), expected, atol=1e-6)


@torch.no_grad()
def test_the_encoder_sees_the_mean_colour_in_a_hole_or_a_smooth_fill(tiny):
    (masked, mask), colour = batch(16, 16), torch.tensor(MEAN_COLOUR).view(3, 1, 1)
    for prefill, seen in (False, masked + mask*colour), (True, smooth_fill(masked, mask)):
        model = tiny(prefill=prefill).eval()
        assert torch.equal(model.encode(masked, mask), model.encode(seen))


@torch.no_grad()
@pytest.mark.parametrize("side", [8, 15, 40])
def test_resizing_does_not_mix_the_black_of_the_hole_into_known_colours(tiny, side):
    model, seen = tiny().eval(), []
    model.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    mask, known = batch(side, side)[1], torch.tensor([.9, .1, .7]).view(3, 1, 1)
    model(known*(1 - mask), mask)
    colours = known, torch.tensor(MEAN_COLOUR).view(3, 1, 1)
    near = [(seen[0] - colour).abs().amax(1) < 1e-5 for colour in colours]
    assert (near[0] | near[1]).all() and near[0].any() and near[1].any()


@torch.no_grad()
@pytest.mark.parametrize("variant", [dict(), dict(size=31, width=2), dict(prefill=True)], ids=str)
def test_a_saved_model_comes_back_whole(tiny, tmp_path, variant):
    model, (masked, mask) = tiny(**variant), batch(33, 40)
    for p in model.parameters(): p.add_(.02*torch.randn_like(p))
    model(masked, mask)  # moves the BatchNorm statistics
    loaded = load_model(save_model(model, tmp_path/"model.safetensors"))
    assert loaded.config == model.config and not loaded.training
    assert torch.equal(loaded(masked, mask), model.eval()(masked, mask))


@pytest.mark.parametrize("config", [dict(), dict(blocks=9), dict(model="unknown")], ids=str)
def test_other_files_are_refused_by_name(tmp_path, config):
    path = write_weights(tmp_path/"model.safetensors", {}, dict(model="context_encoder") | config)
    with pytest.raises(ValueError, match="model.safetensors"): load_model(path)


@pytest.mark.parametrize("hw", [(16, 16), (23, 50)])
def test_filling_leaves_known_pixels_alone(tiny, hw):
    image = np.random.default_rng(0).integers(0, 256, (*hw, 3), dtype=np.uint8)
    hole = np.zeros(hw, bool)
    hole[3:9, 5:11] = True
    filled = np.asarray(Inpainter(tiny())(image, hole))
    assert (filled == image)[~hole].all() and (filled != image)[hole].any()


@pytest.mark.parametrize("wrong", [dict(width=0), dict(size=7), dict(size=-128)])
def test_impossible_architectures_are_refused(tiny, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        tiny(**wrong)


@pytest.mark.parametrize("image, mask", [((3, 16, 16), (1, 1, 16, 16)), ((1, 4, 16, 16), (1, 1, 16, 16)),
                                         ((1, 3, 16, 16), (1, 3, 16, 16)), ((1, 3, 16, 16), (1, 1, 16, 15))])
def test_wrong_shapes_are_named(tiny, image, mask):
    wrong = image if len(image) == 3 or image[1] != 3 else mask
    with pytest.raises(ValueError) as e: tiny()(torch.zeros(image), torch.zeros(mask))
    assert str(list(wrong)) in str(e.value)
