import csv
import json
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastinpaint import recipes
from fastinpaint.core.errors import Diverged, InputError, MissingFile
from fastinpaint.fill.inpainter import Inpainter
from fastinpaint.models import perceptual
from fastinpaint.models.load import load_model
from fastinpaint.models.pretrained import WeightsMissing
from fastinpaint.models.weights import read_weights
from fastinpaint.train.callback.checkpoint import read_checkpoint
from fastinpaint.train.losses import Adversarial

FROZEN = {"autoencoder": [], "lama_l1": [], "mask_control": ["encoder", "decoder"],
          "latent": ["decoder"], "latent_control": ["encoder", "decoder"],
          "delta": ["encoder", "decoder"], "latent_gan": ["encoder", "decoder"],
          "lama": [], "latent_control_gan": ["encoder", "decoder"], "context_encoder": [],
          "latent_diffusion": ["encoder", "decoder"], "pixel_diffusion": [], "fcf": []}
TRAINED = {"autoencoder": ["encoder", "decoder"],
           "lama_l1": ["encoder", "decoder", "refiner", "conditioner"],
           "lama": ["encoder", "decoder", "refiner", "conditioner"],
           "latent": ["refiner", "conditioner", "encoder.stages.0.linear"]}
ADVERSARIAL = "lama", "latent_control_gan", "fcf"
TINY = dict(size=32, bs=2, epochs=2, steps=4, width=2, blocks=1, device="cpu", workers=0,
            valid="0.25", wandb="disabled")
FILES = ["metrics.csv", "model.json", "model.safetensors", "results.png", "settings.json"]


@pytest.fixture(scope="module")
def train(photos):
    "Runs a recipe on the tiny photographs, as `python recipes/NAME.py` would"
    def run(name, out, **kwargs):
        settings = TINY | dict(data=str(photos), out=str(out)) | kwargs
        import_module(f"fastinpaint.recipes.{name}").main(**settings)
        return out/name
    return run


@pytest.fixture(scope="module")
def autoencoder(train, tmp_path_factory):
    return train("autoencoder", tmp_path_factory.mktemp("runs"))/"model.safetensors"


def weights(path, part):
    return {k: v for k, v in read_weights(path)[0].items() if k.startswith(f"{part}.")}


@pytest.mark.parametrize("name", FROZEN)
def test_every_recipe_runs_and_writes_its_files(train, autoencoder, tmp_path, photos, same, name):
    start = {} if name == "autoencoder" else dict(autoencoder=str(autoencoder))
    if name in ADVERSARIAL: start |= dict(perceptual="none", ema=.5)
    folder = train(name, tmp_path, **start)
    assert set(FILES) <= {p.name for p in folder.iterdir()}

    rows = list(csv.DictReader((folder/"metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    numbers = [v for row in rows for k, v in row.items() if k not in ("time", "lpips")]
    assert np.isfinite(np.array(numbers, float)).all()
    latent = any(column.startswith(("train_latent_", "train_denoising")) for column in rows[0])
    assert latent == ("latent" in name or name in ("delta", "pixel_diffusion"))
    with Image.open(folder/"results.png") as picture:
        assert picture.convert("RGB").getextrema() != ((255, 255),)*3
    assert json.loads((folder/"settings.json").read_text()).items() >= (TINY | start).items()

    model = load_model(folder/"model.safetensors")
    assert Inpainter(model)(photos/"0.png", np.eye(40, 48, dtype=bool)).size == (48, 40)
    def unchanged(part):
        return same(weights(folder/"model.safetensors", part), weights(autoencoder, part))
    for part in FROZEN[name]: assert unchanged(part), part
    if start:
        for part in set(TRAINED.get(name, [])) & {"encoder", "decoder", "encoder.stages.0.linear"}:
            assert not unchanged(part), part


def test_of_the_latent_recipes_encoder_only_first_convolutions_train(train, autoencoder, tmp_path):
    folder = train("latent", tmp_path, autoencoder=str(autoencoder))
    after = weights(folder/"model.safetensors", "encoder")
    before = weights(autoencoder, "encoder")
    changed = {k for k, v in before.items() if not torch.equal(v, after[k])}
    linear = {"encoder.stages.0.linear.weight", "encoder.stages.0.linear.bias"}
    # where two ReLUs are silent, so is their convolution's gradient
    assert linear <= changed <= linear | {"encoder.stages.0.conv.weight"}


def test_an_adversary_teaches_detail_alone(train, autoencoder, tmp_path, same):
    smooth = train("delta", tmp_path, autoencoder=str(autoencoder), blocks=3)/"model.safetensors"
    found = train("latent_gan", tmp_path, init=str(smooth), detail=2)/"model.safetensors"
    before, after = read_weights(smooth)[0], read_weights(found)[0]
    detail = {k for k in after if k.startswith("refiner.detail.")}
    assert same({k: v for k, v in after.items() if k not in detail}, before)
    assert load_model(found).config["detail"] == 2
    assert any(after[k].ne(before[k.replace("detail.", "")]).any() for k in detail)


@pytest.mark.parametrize("control", ["controlnet", "mask"])
def test_control_is_trained_beside_the_frozen_unet_of_a_model_without(
        train, autoencoder, tmp_path, same, control):
    free = train("latent_diffusion", tmp_path, autoencoder=str(autoencoder), control="none", width_u=8)
    free = free.rename(tmp_path/"free")/"model.safetensors"
    folder = train("latent_diffusion", tmp_path, control=control, width_u=8, init=str(free))
    found = folder/"model.safetensors"
    for part in "encoder", "decoder", "refiner.unet":
        assert same(weights(found, part), weights(free, part)), part
    assert load_model(found).config["control"] == control
    trained = weights(found, "refiner.control")
    assert trained and any(v.any() for k, v in trained.items() if "zero_convs" in k or "down_blocks.0.w" in k)


def test_an_upsampler_is_trained_around_its_frozen_base(train, tmp_path, photos, same):
    base = train("pixel_diffusion", tmp_path, width_u=8, sampling=2)/"model.safetensors"
    found = train("pixel_upsample", tmp_path, base=str(base), width_u=8, sampling=2)/"model.safetensors"
    before = read_weights(base)[0]
    assert same(weights(found, "base"), {f"base.{k}": v for k, v in before.items()})
    first, second = Inpainter(found).several(photos/"0.png", np.eye(40, 48, dtype=bool), n=2)
    assert first.size == (48, 40) and first.tobytes() != second.tobytes()
    with pytest.raises(InputError, match="of pixel_diffusion, not upsampler"):
        train("pixel_upsample", tmp_path/"again", base=str(found))
    with pytest.raises(MissingFile, match="no weights file at .*pixel_diffusion/model.safetensors"):
        train("pixel_upsample", tmp_path/"again")


@pytest.mark.parametrize("name", ["autoencoder", "lama_l1", "latent_control"])
def test_a_seed_makes_a_run_repeat_to_the_bit(train, tmp_path, same, name):
    def run(out, seed):
        folder = train(name, tmp_path/out, autoencoder="none", seed=seed)
        return read_weights(folder/"model.safetensors")[0]
    first = run("a", 1)
    assert same(run("b", 1), first) and not same(run("c", 2), first)


def test_bfloat16_and_wide_photographs(train, tmp_path):
    folder = train("latent_control", tmp_path, autoencoder="none", bf16=True, size=40)
    assert load_model(folder/"model.safetensors")


def test_resuming_with_other_settings_is_refused(train, tmp_path):
    train("lama_l1", tmp_path, autoencoder="none")
    with pytest.raises(InputError, match="size=32, now 64"):
        train("lama_l1", tmp_path, autoencoder="none", size=64, resume=True)


def test_there_must_be_something_to_resume(train, tmp_path):
    with pytest.raises(FileNotFoundError, match="checkpoint"):
        train("lama_l1", tmp_path, autoencoder="none", resume=True)


def test_an_autoencoder_of_another_width_is_refused(train, autoencoder, tmp_path):
    with pytest.raises(ValueError, match="width=2.*width=3"):
        train("latent_control", tmp_path, autoencoder=str(autoencoder), width=3)


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_a_perceptual_network_is_never_random(train, tmp_path, monkeypatch, name, capsys):
    def missing(*args): raise WeightsMissing("run `make weights`")
    for maker in "_imagenet_resnet", "_UnitStages": monkeypatch.setattr(perceptual, maker, missing)
    with pytest.raises(WeightsMissing, match="make weights"):
        train(name, tmp_path, autoencoder="none", perceptual="vgg")
    folder = train(name, tmp_path, autoencoder="none", perceptual="auto")
    assert json.loads((folder/"settings.json").read_text())["perceptual_network"] == "none"
    assert "No perceptual term" in capsys.readouterr().out
    assert "train_perceptual" not in (folder/"metrics.csv").read_text()


def test_a_loss_that_is_not_finite_ends_the_run_with_its_name(train, tmp_path, monkeypatch):
    checkpoint = tmp_path/"lama/checkpoint.pt"
    monkeypatch.setattr(Adversarial, "forward", lambda self, step: step.prediction.sum()*(
        float("nan") if checkpoint.exists() else 0.))
    with pytest.raises(Diverged, match="epoch 1, batch 0: adversarial is nan.*checkpoint.pt is as it was"):
        train("lama", tmp_path, autoencoder="none", perceptual="none", epochs=2)
    assert read_checkpoint(checkpoint)["epoch"] == 1  # the next
    monkeypatch.setattr(Adversarial, "forward", lambda self, step: step.prediction.sum()*float("nan"))
    with pytest.raises(Diverged, match="epoch 0, batch 0: adversarial is nan. A smaller --lr"):
        train("lama", tmp_path, autoencoder="none", perceptual="none", overwrite=True)


# on the command line

def command(name, *flags, **kwargs):
    script = Path(recipes.__file__).parent/f"{name}.py"
    return subprocess.Popen([sys.executable, str(script), *flags], text=True, **kwargs,
                            env=os.environ | {"OMP_NUM_THREADS": "1"},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_help_explains_every_flag(tmp_path):
    output, errors = (process := command("latent_control", "--help", cwd=tmp_path)).communicate()
    assert process.returncode == 0, errors
    for words in "Table 5.1 (4)", "--data", "--size", "--resume", "Photographs":
        assert words in output


def test_ctrl_c_saves_the_model_and_resuming_finishes_the_run(train, tmp_path, photos):
    settings = TINY | dict(epochs=3, steps=150, autoencoder="none", augment=False)
    given = settings | dict(data=photos, out=tmp_path)
    flags = ["--no-augment", *(f"--{k}={v}" for k, v in given.items() if k != "augment")]
    # a shell that starts tests in the background has them ignore Ctrl-C
    process = command("latent_control", *flags, cwd=tmp_path,
                      preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    folder = tmp_path/"latent_control"
    while process.poll() is None and not (folder/"checkpoint.pt").is_file(): time.sleep(.01)
    time.sleep(.2)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "\nInterrupted; the model as it stands" in errors and "--resume goes on after" in errors
    assert "Traceback" not in errors and not (folder/"results.png").exists()
    assert load_model(folder/"model.safetensors").config["control"]
    train("latent_control", tmp_path, **settings, resume=True)
    rows = csv.DictReader((folder/"metrics.csv").open())
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert (folder/"results.png").is_file()
