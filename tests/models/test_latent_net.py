"A network around any autoencoder: the mask's way in, parts that stand still, files that need nothing else"
import socket
import sys

import numpy as np
import pytest
import torch
from torch import nn

from fastinpaint.core.errors import InputError
from fastinpaint.fill.inpainter import Inpainter
from fastinpaint.models.control import add_control
from fastinpaint.models.lama import lama
from fastinpaint.models.latent_net import latent_net, save_autoencoder
from fastinpaint.models.load import load_model, read_model, save_model, starting_model
from fastinpaint.models.weights import read_weights, write_weights

CONTROLS = "mask", "alpha", "alpha+mask"


@pytest.fixture
def batch():
    mask = torch.zeros(2, 1, 33, 40)
    mask[..., 8:20, 10:30] = 1
    return torch.rand(2, 3, 33, 40)*(1 - mask), mask


def net_of(vae, seed=0, **kwargs):
    torch.manual_seed(seed)
    return latent_net(vae, **dict(width=2, blocks=1, control="mask") | kwargs)


@torch.no_grad()
def open_(net):
    "Give the mask and the refiner their say, as training would"
    for part in net.conditioner, net.refiner:
        for p in part.parameters():
            if not p.any(): nn.init.normal_(p, std=.1)
    return net


@torch.no_grad()
@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("training", [True, False])
def test_at_first_the_encoder_equals_the_plain_one_to_the_bit(vae, batch, control, training):
    net = net_of(vae, control=control, prefill=False).train(training)
    masked, mask = batch
    assert torch.equal(net.encode(masked, mask), net.encode(masked)) and net.encode(masked).std() > 0
    open_(net)
    assert not torch.allclose(net.encode(masked, mask), net.encode(masked))


@torch.no_grad()
def test_at_first_the_refiner_changes_nothing(vae, batch):
    net = net_of(vae).eval()
    latent = net.encode(*batch)
    assert torch.equal(net.refine(latent), latent)
    assert not torch.equal(open_(net).refine(latent), latent)


@torch.no_grad()
@pytest.mark.parametrize("size", [(33, 40), (1, 70), (8, 8), (100, 64)], ids=str)
def test_any_size_goes_in_and_the_same_comes_out(vae, size):
    net = net_of(vae).eval()
    mask = torch.zeros(1, 1, *size)
    mask[..., :size[0]//2 + 1, :size[1]//2] = 1
    filled = net(torch.rand(1, 3, *size)*(1 - mask), mask)
    assert filled.shape == (1, 3, *size) and filled.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("control", CONTROLS)
def test_a_folded_net_is_the_same(vae, batch, control):
    net = open_(net_of(vae, control=control)).eval()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d): m.running_mean.uniform_(-.1, .1)
    if type(vae).__name__ == "VQModel": net.decoder.quantize.embedding.weight.normal_()
    fast, expected = net.folded()(*batch), net(*batch)
    assert (fast - expected).abs().max() < 1e-4*(expected.max() - expected.min())


@torch.no_grad()
def test_a_saved_net_needs_nothing_else(vae, batch, tmp_path, monkeypatch, same, state_of):
    net = open_(net_of(vae)).eval()
    path = save_model(net, tmp_path/"model.safetensors")
    monkeypatch.setattr(socket, "socket", None)  # no network either
    loaded = load_model(path)
    assert same(state_of(loaded), state_of(net)) and torch.equal(loaded(*batch), net(*batch))
    about = loaded.config["autoencoder"]
    assert about["kind"] == type(vae).__name__ and len(about["sha256"]) == 64
    assert loaded.config == net.config


@torch.no_grad()
def test_an_autoencoder_is_written_for_diffusers_and_read_again(vae, batch, tmp_path):
    import diffusers
    net = net_of(vae).eval()
    folder = save_autoencoder(net, tmp_path/"vae")
    theirs = getattr(diffusers, type(vae).__name__).from_pretrained(folder)
    assert all(torch.equal(v, theirs.state_dict()[k]) for k, v in vae.state_dict().items())
    again = lama(2, 1, control="mask", autoencoder=str(folder)).eval()
    assert again.config["autoencoder"]["sha256"] == net.config["autoencoder"]["sha256"]
    from_file = lama(2, 1, autoencoder=save_model(net, tmp_path/"model.safetensors")).eval()
    for other in again, from_file: assert torch.equal(other.encode(batch[0]), net.encode(batch[0]))


def test_what_a_file_says_of_an_autoencoder_opens_nothing(tiny_vae, tmp_path, monkeypatch):
    net = net_of(tiny_vae("AutoencoderTiny"))
    path = save_model(net, tmp_path/"model.safetensors")
    state, config = read_weights(path)
    config["autoencoder"]["name"] = "/etc/passwd"
    write_weights(path, state, config)
    load_model(path)
    for changes in dict(kind="DiffusionPipeline"), dict(config={"latent_channels": 5}):
        write_weights(path, state, config | {"autoencoder": config["autoencoder"] | changes})
        with pytest.raises(InputError): load_model(path)


def test_control_is_added_to_an_alpha_channel(vae, batch):
    net = open_(net_of(vae, control="alpha")).eval()
    new = add_control(net)
    with torch.no_grad(): assert torch.equal(new(*batch), net(*batch))
    assert new.config["control"] == "alpha+mask"


def test_a_photograph_is_filled_in_its_hole(vae, tmp_path):
    net = net_of(vae)
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    mask = np.zeros((50, 70), bool)
    mask[10:30, 20:60] = True
    filled = np.asarray(Inpainter(save_model(net, tmp_path/"m.safetensors"))(image, mask, texture=False))
    assert (filled[~mask] == image[~mask]).all() and (filled[mask] != image[mask]).any()


@torch.no_grad()
def test_a_mask_aware_decoder_sees_what_is_known(tiny_vae, batch):
    net = net_of(tiny_vae("AsymmetricAutoencoderKL")).eval()
    latent = net.refine(net.encode(*batch))
    assert not torch.equal(net(*batch), net.decode(latent)[..., :33, :40])
    assert torch.equal(net(*batch), net.decode(latent, *batch)[..., :33, :40])


def test_training_goes_on_around_the_same_autoencoder_alone(tiny_vae, tmp_path):
    path = save_model(net_of(tiny_vae("AutoencoderKL")), tmp_path/"mine.safetensors")
    assert starting_model(path, lama(2, 1, control="mask", autoencoder=None)).training
    starting_model(path, net_of(tiny_vae("AutoencoderKL")))
    with pytest.raises(InputError, match="made around the autoencoder AutoencoderKL .*, and this is .*Tiny"):
        starting_model(path, net_of(tiny_vae("AutoencoderTiny")))
    with pytest.raises(InputError, match="of other weights"):
        starting_model(path, net_of(tiny_vae("AutoencoderKL", seed=1)))


@pytest.mark.parametrize("kwargs, message", [
    (dict(control="smoke"), "control='smoke'"), (dict(blocks=-1), "blocks=-1"), (dict(width=0), "width=0"),
    (dict(refiner="none"), "refiner='none'"), (dict(delta=3), "delta=3"),
    (dict(iterations=0), "iterations=0")],
    ids=str)
def test_no_network_of_these_arguments(tiny_vae, kwargs, message):
    with pytest.raises(InputError, match=message): net_of(tiny_vae("AutoencoderTiny"), **kwargs)


def test_the_first_stage_of_lama_is_lamas(tiny_vae):
    with pytest.raises(InputError, match="first='bare' is of LaMa's encoder"):
        lama(autoencoder=tiny_vae("AutoencoderTiny"), first="bare")


def test_without_the_package_a_line_says_what_to_install(tiny_vae, tmp_path, monkeypatch):
    path = save_model(net_of(tiny_vae("AutoencoderTiny")), tmp_path/"model.safetensors")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    install = r'^a AutoencoderTiny needs diffusers: pip install "fastinpaint\[diffusers\]"'
    with pytest.raises(InputError, match=install): read_model(path)
