"`--thesis`: the thesis' setting to the letter"
import json
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from fastinpaint.models.pretrained import WeightsMissing
from fastinpaint.models.weights import read_weights
from fastinpaint.train.latent_distances import LatentL1

FIXTURE = Path(__file__).parent.parent/"fixtures/mask_control_ngf8.safetensors"
LATENT = dict(known=1., distance="l1")
ROWS = {"autoencoder": {}, "lama_l1": dict(first="anew"), "mask_control": {}, "context_encoder": {},
        "latent": dict(first="bare") | LATENT, "latent_control": LATENT, "iterate": LATENT,
        "latent_gan": LATENT, "delta": dict(plain_sum=True) | LATENT,
        "lama": dict(first="anew", width_d=64, lr_d=1e-4),
        "latent_control_gan": dict(latent_weight=1e-4, width_d=64)}
COMMON = dict(plain=True, prefill=False, native=True, lr=1e-3, schedule="constant", beta2=.999, clip=1.,
              lpips="vgg")
TINY = dict(size=32, bs=2, epochs=1, steps=2, width=2, blocks=1, device="cpu", workers=0, valid="0.25",
            wandb="disabled", autoencoder="none")


@pytest.fixture
def run(photos, tmp_path):
    "Runs a recipe in the thesis' setting; returns its Learner and what settings.json says"
    def run(name, **kwargs):
        main = import_module(f"fastinpaint.recipes.{name}").main
        learn = main(**TINY | dict(data=str(photos), out=str(tmp_path), thesis=True) | kwargs)
        return learn, json.loads((tmp_path/name/"settings.json").read_text())
    return run


@pytest.mark.parametrize("name", ROWS)
def test_every_recipe_runs_in_the_thesis_setting(run, name):
    given = {} if "lama" != name != "latent_control_gan" else dict(perceptual="none")
    learn, settings = run(name, **given)
    assert settings.items() >= (COMMON | ROWS[name] | dict(thesis=True)).items()
    if name in ("autoencoder", "context_encoder"): return
    config = learn.model.config
    assert not config["linear"] and not config["prefill"]
    assert config["first"] == ROWS[name].get("first", "kept")
    assert config["delta"] == {"delta": "sum", "iterate": True, "latent_gan": True}.get(name, False)
    hypers = learn.opt.hypers[0]
    assert (hypers["lr"], hypers["mom"], hypers["sqr_mom"]) == (1e-3, .9, .999)


def test_each_of_it_is_a_flag_that_wins_and_help_names_them(run):
    _, settings = run("latent_control", known=.1, prefill=True, lpips="alex")
    assert settings.items() >= (COMMON | dict(known=.1, prefill=True, lpips="alex")).items()
    for name, more in ROWS.items():
        settings = import_module(f"fastinpaint.recipes.{name}").main.settings
        help, = (f.metadata["help"] for f in fields(settings) if f.name == "thesis")
        for word in ("plain, no-prefill", "lr=0.001", "schedule=constant", "lpips=vgg"): assert word in help
        if "first" in more: assert f"first={more['first']}" in help


def test_the_published_perceptual_network_is_asked_for(run):
    with pytest.raises(WeightsMissing, match="encoder_epoch_20.pth.*http"): run("lama")


# the first step, restated on the public code's tensors

def norm(t, name, x, training):
    mean, var = (t[f"{name}.running_{k}"].clone() for k in ("mean", "var"))
    return F.batch_norm(x, mean, var, t[f"{name}.weight"], t[f"{name}.bias"], training)


def conv(t, name, x, stride=1):
    weight = t[f"{name}.weight"]
    return F.conv2d(F.pad(x, [weight.shape[-1]//2]*4, mode="reflect"), weight, stride=stride)


def spectral(t, name, x):
    x = F.conv2d(x, t[f"{name}.conv1.0.weight"])
    x = norm(t, f"{name}.conv1.1", x, True).relu()
    b, c, h, w = x.shape
    parts = torch.view_as_real(torch.fft.rfftn(x, dim=(-2, -1), norm="ortho"))
    parts = parts.permute(0, 1, 4, 2, 3).reshape(b, 2*c, h, -1)
    parts = norm(t, f"{name}.fu.bn", F.conv2d(parts, t[f"{name}.fu.conv_layer.weight"]), True).relu()
    parts = parts.reshape(b, c, 2, h, -1).permute(0, 1, 3, 4, 2)
    spectrum = torch.complex(parts[..., 0], parts[..., 1])
    x = x + torch.fft.irfftn(spectrum, s=(h, w), dim=(-2, -1), norm="ortho")
    return F.conv2d(x, t[f"{name}.conv2.weight"])


def ffc(t, name, local, glob):
    to_local = conv(t, f"{name}.ffc.convl2l", local) + conv(t, f"{name}.ffc.convg2l", glob)
    to_global = conv(t, f"{name}.ffc.convl2g", local) + spectral(t, f"{name}.ffc.convg2g", glob)
    return norm(t, f"{name}.bn_l", to_local, True).relu(), norm(t, f"{name}.bn_g", to_global, True).relu()


def thesis_encoder(t, x, mask=None):
    "Local and global latent of a frozen encoder; with `mask`, controlled"
    guide = mask
    for i in range(1, 5):
        y = conv(t, f"model.{i}.ffc.convl2l", x, 1 + (i > 1))
        local = norm(t, f"model.{i}.bn_l", y, False).relu()
        if i == 4:
            y = conv(t, "model.4.ffc.convl2g", x, 2)
            x = local, norm(t, "model.4.bn_g", y, False).relu()
        else: x = local
        if mask is None: continue
        layer = 3*(i - 1)
        guide = F.conv2d(guide, t[f"mask_encoder.{layer}.weight"], t[f"mask_encoder.{layer}.bias"],
                         stride=1 + (i > 1), padding=int(i > 1))
        guide = norm(t, f"mask_encoder.{layer + 1}", guide, True).relu()
        added = F.conv2d(guide, t[f"zero_conv{i + 1}.weight"])
        if i == 4: x = x[0] + added[:, :len(x[0][0])], x[1] + added[:, len(x[0][0]):]
        else: x = x + added
    return x


def thesis_loss(t, image, mask):
    local, glob = thesis_encoder(t, image*(1 - mask), mask)
    for i in range(5, 14):
        before = local, glob
        for half in "conv1", "conv2": local, glob = ffc(t, f"model.{i}.{half}", local, glob)
        local, glob = before[0] + local, before[1] + glob
    with torch.no_grad(): target = torch.cat(thesis_encoder(t, image), 1)
    return F.l1_loss(torch.cat([local, glob], 1), target)


def trained(name):
    return name.startswith(("mask_encoder", "zero_conv")) or (
        name.startswith("model.") and 5 <= int(name.split(".")[1]) <= 13)


def test_the_first_step_is_that_of_the_thesis(run, tmp_path, monkeypatch):
    tensors = {k.removeprefix("generator."): v for k, v in load_file(FIXTURE).items()}
    torch.save(load_file(FIXTURE), tmp_path/"thesis.ckpt")
    seen, forward = [], LatentL1.forward
    def record(self, step):
        seen.append((step, value := forward(self, step)))
        return value
    monkeypatch.setattr(LatentL1, "forward", record)
    run("latent_control", steps=1, init=str(tmp_path/"thesis.ckpt"))
    step, loss = seen[0]

    parameters = {k: v.requires_grad_() for k, v in tensors.items()
                  if trained(k) and v.is_floating_point() and "running" not in k}
    expected = thesis_loss(tensors, step.image, step.mask)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)

    optimizer = torch.optim.Adam(parameters.values(), 1e-3)
    expected.backward()
    torch.nn.utils.clip_grad_norm_(parameters.values(), 1.)
    optimizer.step()
    after, _ = read_weights(tmp_path/"latent_control/model.safetensors")
    for i in range(4):
        wanted = tensors[f"zero_conv{i + 2}.weight"]
        # Adam's first step is the rate in the direction of a gradient, of which one near 0 is only rounding
        felt = wanted.grad.abs() > wanted.grad.abs().median()/1000
        found = after[f"conditioner.zero_convs.{i}.weight"]
        assert felt.float().mean() > .99 and torch.allclose(found[felt], wanted[felt], atol=1e-5)
