"Latent diffusion as a network like any other"
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastinpaint.core.errors import InputError
from fastinpaint.fill.inpainter import Inpainter
from fastinpaint.models.lama import lama
from fastinpaint.models.latent_diffusion import add_latent_control
from fastinpaint.models.load import load_model, save_model, starting_model
from fastinpaint.models.net import composite
from fastinpaint.models.sampling import Sampling, noising


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 32), (35, 50)])
def test_it_fills_images_of_any_size_and_known_pixels_stay(tiny_diffusion, size):
    torch.manual_seed(1)
    image, mask = torch.rand(2, 3, *size), torch.zeros(2, 1, *size)
    mask[..., 5:20, 8:22] = 1
    net = tiny_diffusion().eval()
    pred = net(image*(1 - mask), mask)
    assert pred.shape == image.shape and pred.isfinite().all()
    assert torch.equal(pred, net(image*(1 - mask), mask))
    assert not torch.equal(pred, net(image*(1 - mask), mask, seed=1))
    filled, known = composite(pred, image, mask), (mask == 0).expand_as(image)
    assert torch.equal(filled[known], image[known]) and not torch.equal(filled, image)


@torch.no_grad()
@pytest.mark.parametrize("prefill", [True, False])
def test_the_condition_is_the_whitened_latent_and_the_share_of_hole(tiny_diffusion, half, prefill):
    image, mask = half
    mask[..., 8:12, 4:6] = 0
    net = tiny_diffusion(prefill=prefill).eval()
    latents = 3*torch.randn(4, 16, 8, 8) + 1
    net.measure(latents, latents, torch.zeros(4, 1, 8, 8))
    assert torch.equal(net.scale, torch.ones(1, 16, 1, 1))  # without a hole there is no difference
    assert net.whiten(latents).mean((0, 2, 3)).abs().max() < 1e-5
    assert net.whiten(latents).std((0, 2, 3)).sub(1).abs().max() < .01
    condition = net.condition(image*(1 - mask), mask)
    assert torch.equal(condition[:, -1:], F.avg_pool2d(mask, 8))
    unfilled = net.whiten(net.encode(image*(1 - mask)))
    assert torch.equal(condition[:, :-1], unfilled) != prefill


@torch.no_grad()
def test_encoder_and_decoder_are_those_of_the_bundled_autoencoder(tiny_diffusion, same):
    ours, theirs = tiny_diffusion(width=8, autoencoder="sample"), lama(blocks=0)
    for part in "encoder", "decoder":
        assert same(getattr(ours, part).state_dict(), getattr(theirs, part).state_dict())
    assert sum(p.numel()*4 for p in tiny_diffusion(width=8, channels=(64, 96)).parameters()) < 8e6


@torch.no_grad()
def test_it_comes_back_from_a_file(tiny_diffusion, tmp_path, half):
    image, mask = half
    net = tiny_diffusion(control="mask", prediction="epsilon", sampler="ddim").eval()
    net.measure(*torch.randn(2, 2, 16, 8, 8), torch.rand(2, 1, 8, 8))
    expected = net(image*(1 - mask), mask)
    found = load_model(save_model(net, tmp_path/"model.safetensors"))
    assert torch.equal(found(image*(1 - mask), mask), expected) and found.config == net.config
    assert Inpainter(found)(np.zeros((40, 48, 3), np.uint8), np.eye(40, 48, dtype=bool)).size == (48, 40)


@torch.no_grad()
def test_folded_it_fills_alike(tiny_diffusion, half):
    image, mask = half
    net = tiny_diffusion().eval()
    net.sampling = Sampling("ddpm", 4, seed=3)
    assert torch.allclose(net.folded()(image*(1 - mask), mask), net(image*(1 - mask), mask), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("control", ["controlnet", "mask"])
def test_control_is_added_to_a_trained_model_and_changes_nothing_at_first(
        tiny_diffusion, tmp_path, half, control):
    image, mask = half
    free = tiny_diffusion(control=None, delta=False).eval()
    free.measure(*torch.randn(2, 2, 16, 8, 8), torch.rand(2, 1, 8, 8))
    noisy, t, inputs = torch.randn(1, 16, 4, 4), torch.tensor([400]), (image*(1 - mask), mask)
    expected = free(*inputs, noisy, t), free(*inputs)
    path = save_model(free, tmp_path/"free.safetensors")
    for found in (add_latent_control(free, control),
                  starting_model(path, tiny_diffusion(control=control)).eval()):
        assert found.config["control"] == control and found.measured
        assert torch.equal(found(*inputs, noisy, t), expected[0]) and torch.equal(found(*inputs), expected[1])
    assert starting_model(path).config["control"] is None
    with pytest.raises(InputError, match="concat.*controlnet"): add_latent_control(free, "concat")


@pytest.mark.parametrize("wrong, words", [
    (dict(channels=()), r"channels=\[\]"), (dict(channels=(0, 8)), "channels"), (dict(layers=0), "layers=0"),
    (dict(control=None), "delta=False"), (dict(channels=(8, 10**6)), "4096"),
    (dict(control="alpha"), "control="), (dict(steps=0), "0 st"),
    (dict(prediction="x"), "prediction='x'"), (dict(sampler="x"), "'x'"), (dict(width=0), "width=0")])
def test_impossible_models_are_refused_in_a_line(tiny_diffusion, wrong, words):
    with pytest.raises(InputError, match=words) as e: tiny_diffusion(**wrong)
    assert "\n" not in str(e.value)


@torch.no_grad()
def test_in_pixels_the_image_is_the_latent(tiny_diffusion, tmp_path):
    image, mask = torch.rand(1, 3, 18, 21), torch.zeros(1, 1, 18, 21)
    mask[..., 4:9, 4:9] = 1
    net = tiny_diffusion(pixels=True, prefill=False).eval()
    condition = net.condition(image*(1 - mask), mask)
    assert condition.shape == (1, 4, 18, 22)
    assert torch.equal(condition[..., :21], torch.cat([image*(1 - mask), mask], dim=1))
    pred = net(image*(1 - mask), mask)
    assert pred.shape == image.shape
    found = load_model(save_model(net, tmp_path/"pixels.safetensors"))
    assert torch.equal(found(image*(1 - mask), mask), pred)


@torch.no_grad()
def test_a_difference_of_nothing_is_the_smooth_fill(tiny_diffusion, half):
    image, mask = half
    net = tiny_diffusion(prediction="epsilon", sampler="ddim").eval()
    signal = noising("epsilon").alphas_cumprod
    net.refiner.forward = lambda x, t, condition: x/(1 - signal[t]).sqrt()  # all of it is noise
    for sampling in Sampling("ddim", 3, repaint=1), Sampling("ddpm", 3):
        net.sampling = sampling
        given = net.condition(image*(1 - mask), mask)[:, :-1]
        expected = net.decode(given*net.std + net.mean)
        assert torch.allclose(net(image*(1 - mask), mask), expected, atol=1e-4)


def test_it_refines_no_latent(tiny_diffusion):
    with pytest.raises(InputError, match="sampling"): tiny_diffusion().refine(torch.zeros(1, 16, 4, 4))
