"Recipes around autoencoders of diffusers, in place of LaMa's"
import json
from importlib import import_module

import numpy as np
import pytest
import torch

from fastinpaint.core.errors import InputError
from fastinpaint.fill.inpainter import Inpainter
from fastinpaint.models.autoencoders import frozen_autoencoder
from fastinpaint.models.load import load_model
from fastinpaint.models.weights import read_weights

TINY = dict(size=32, bs=2, epochs=1, steps=2, width=2, blocks=1, device="cpu", workers=0, valid="0.25",
            augment=False)
FROZEN = "latent_control", "mask_control", "delta", "iterate", "latent_gan", "latent_control_gan"


@pytest.fixture
def train(photos, tmp_path):
    "Runs a recipe on the tiny photographs; returns its folder"
    def run(name, **kwargs):
        settings = TINY | dict(data=str(photos), out=str(tmp_path)) | kwargs
        import_module(f"fastinpaint.recipes.{name}").main(**settings)
        return tmp_path/name
    return run


@pytest.fixture
def folder(vae, tmp_path):
    "Of an autoencoder of each class, as diffusers saves it"
    vae.save_pretrained(tmp_path/"vae")
    return tmp_path/"vae"


def changed(file, start):
    "Names of the autoencoder's weights in a model's file that are others than those of `start`"
    (after, _), found = read_weights(file), frozen_autoencoder(start)
    before = {f"{part}.{k}": v for part in ("encoder", "decoder")
              for k, v in getattr(found, part).state_dict().items()}
    return {k for k, v in before.items() if not torch.equal(v, after[k])}


def check_fills(file, photos):
    mask = np.eye(40, 48, dtype=bool)
    assert Inpainter(file)(photos/"0.png", mask, texture=False).size == (48, 40)


def test_latent_control_trains_around_each_class_and_leaves_it_as_it_is(train, folder, photos):
    run = train("latent_control", autoencoder=str(folder))
    assert not changed(run/"model.safetensors", folder)
    state, config = read_weights(run/"model.safetensors")
    assert any(v.any() for k, v in state.items() if "zero_convs" in k)
    assert state["refiner.blocks.0.narrow.weight"].any()
    about = json.loads((run/"settings.json").read_text())
    assert about["autoencoder_sha256"] == config["autoencoder"]["sha256"]
    check_fills(run/"model.safetensors", photos)


def test_of_the_latent_recipes_autoencoder_the_first_convolution_alone_trains(train, folder, photos):
    run = train("latent", autoencoder=str(folder), distance="l1")
    names = changed(run/"model.safetensors", folder)
    assert names and all(name.startswith("encoder.stages.0.conv.") for name in names)
    check_fills(run/"model.safetensors", photos)


@pytest.mark.parametrize("distance", ["decoder", "cosine", "edges"])
def test_distances_between_latents_of_each_class(train, folder, distance, capsys):
    train("latent_control", autoencoder=str(folder), distance=distance)
    said = "this decoder is far from linear" in capsys.readouterr().out
    assert said == (distance == "edges")


@pytest.mark.parametrize("name", FROZEN)
def test_every_recipe_that_freezes_takes_one(train, tiny_vae, tmp_path, name):
    tiny_vae("AutoencoderTiny").save_pretrained(tmp_path/"vae")
    more = dict(perceptual="none") if name == "latent_control_gan" else {}
    run = train(name, autoencoder=f"hf:{tmp_path/'vae'}", **more)
    assert not changed(run/"model.safetensors", tmp_path/"vae")


@pytest.mark.parametrize("name", ["lama_l1", "lama"])
def test_recipes_that_train_everything_train_it(train, tiny_vae, tmp_path, name):
    tiny_vae("AutoencoderKL").save_pretrained(tmp_path/"vae")
    run = train(name, autoencoder=str(tmp_path/"vae"), **dict(perceptual="none") if name == "lama" else {})
    parts = {k.partition(".")[0] for k in changed(run/"model.safetensors", tmp_path/"vae")}
    assert parts == {"encoder", "decoder"}


def test_training_goes_on_from_a_model_around_one(train, tiny_vae, tmp_path):
    tiny_vae("AutoencoderTiny").save_pretrained(tmp_path/"vae")
    first = train("latent_control", autoencoder=str(tmp_path/"vae"))/"model.safetensors"
    again = train("mask_control", init=str(first))/"model.safetensors"
    assert not changed(again, tmp_path/"vae")
    before, after = (read_weights(o)[0] for o in (first, again))
    assert not torch.equal(*(o["refiner.blocks.0.narrow.weight"] for o in (before, after)))
    tiny_vae("AutoencoderTiny", seed=1).save_pretrained(tmp_path/"other")
    with pytest.raises(InputError, match="of other weights"):
        train("delta", init=str(first), autoencoder=str(tmp_path/"other"))


def test_a_changed_autoencoder_is_told_when_a_run_is_resumed(train, tiny_vae, tmp_path):
    tiny_vae("AutoencoderTiny").save_pretrained(tmp_path/"vae")
    train("latent_control", autoencoder=str(tmp_path/"vae"))
    tiny_vae("AutoencoderTiny", seed=1).save_pretrained(tmp_path/"vae")
    with pytest.raises(InputError, match="other settings: autoencoder_sha256="):
        train("latent_control", autoencoder=str(tmp_path/"vae"), resume=True)


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_one_is_trained_by_recipe_and_taken_by_the_others(train, tmp_path, photos, kind):
    own = train("autoencoder", kind=kind, stride=4, codes=8, width=4, steps=4, epochs=2)/"model.safetensors"
    about = read_weights(own)[1]["autoencoder"]
    assert about["config"]["scaling_factor"] != 1 and len(about["sha256"]) == 64
    run = train("latent_control", autoencoder=str(own), distance="l1")
    assert not changed(run/"model.safetensors", own)
    assert read_weights(run/"model.safetensors")[1]["autoencoder"]["sha256"] == about["sha256"]
    check_fills(run/"model.safetensors", photos)
    train("autoencoder", kind=kind, stride=4, codes=8, width=4, init=str(own), out=str(tmp_path/"on"))


def test_bfloat16(train, tiny_vae, tmp_path):
    tiny_vae("VQModel").save_pretrained(tmp_path/"vae")
    assert train("latent_control", autoencoder=str(tmp_path/"vae"), bf16=True, distance="decoder")


@pytest.mark.parametrize("name, message", [
    ("context_encoder", "the Context Encoder has no other encoder"),
    ("autoencoder", "trains an autoencoder of its own")])
def test_where_one_makes_no_sense_a_line_says_so(train, tiny_vae, tmp_path, name, message):
    tiny_vae("AutoencoderTiny").save_pretrained(tmp_path/"vae")
    with pytest.raises(InputError, match=message): train(name, autoencoder=str(tmp_path/"vae"))


def test_a_run_loads_without_the_folder_it_started_from(train, tiny_vae, tmp_path):
    tiny_vae("AutoencoderKL").save_pretrained(tmp_path/"vae")
    run = train("latent_control", autoencoder=str(tmp_path/"vae"))
    for file in (tmp_path/"vae").iterdir(): file.unlink()
    assert load_model(run/"model.safetensors").config["autoencoder"]["name"] == str(tmp_path/"vae")
