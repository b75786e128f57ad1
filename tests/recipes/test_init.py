"`--init`: fine-tuning the sample model, one's own, or a published LaMa on a folder, end to end"
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fastinpaint.data.loaders import InpaintDataLoaders
from fastinpaint.fill.inpainter import Inpainter
from fastinpaint.models.load import load_model, read_model, save_model
from fastinpaint.train.learner import inpaint_learner

TINY = dict(size=32, bs=2, epochs=1, steps=2, device="cpu", workers=0, valid="0.25")
FIXTURE = Path(__file__).parent.parent/"fixtures/lama_ngf8.safetensors"


@pytest.fixture(params=["sample", "own", "published"])
def start(request, tmp_path, tiny_lama):
    "A model to go on from, as a user names it"
    if request.param == "sample": return "sample"
    if request.param == "own": return str(save_model(tiny_lama(), tmp_path/"own.safetensors"))
    torch.save({"state_dict": load_file(FIXTURE)}, tmp_path/"best.ckpt")
    return str(tmp_path/"best.ckpt")


@pytest.mark.parametrize("name", ["lama_l1", "latent_control"])
def test_a_recipe_fine_tunes_it_on_a_folder(start, photos, tmp_path, name, same):
    def weights_after(lr):
        main = import_module(f"fastinpaint.recipes.{name}").main
        main(**TINY, data=str(photos), out=str(tmp_path), init=start, lr=lr, overwrite=True)
        return load_model(tmp_path/name/"model.safetensors")
    before, still, moved = read_model(start), weights_after(0.), weights_after(1e-3)
    def parameters(model):  # a detail that a model has is not gone on with
        return {k: v for k, v in model.refiner.named_parameters() if not k.startswith("detail.")}
    assert same(parameters(before), parameters(still)) and not same(parameters(before), parameters(moved))
    if name == "latent_control":
        assert same(before.encoder.state_dict(), moved.encoder.state_dict())
        assert "mask" in moved.config["control"]
    filled = Inpainter(moved)(photos/"0.png", np.eye(40, 48, dtype=bool))
    assert filled.size == (48, 40)


def test_a_learner_takes_it_too(start, photos, tmp_path):
    dls = InpaintDataLoaders.from_folder(photos, size=32, bs=2, valid=.25, num_workers=0, device="cpu")
    learn = inpaint_learner(dls, init=start, path=tmp_path)
    assert learn.model.config == read_model(start).config | dict(detail=0)
    learn.fit(1, 1e-4)
    assert learn.inpaint(photos/"0.png", np.eye(40, 48, dtype=bool)).size == (48, 40)


def test_an_autoencoder_goes_on_from_where_it_stood(photos, tmp_path, same):
    main = import_module("fastinpaint.recipes.autoencoder").main
    flags = TINY | dict(data=str(photos), out=str(tmp_path), width=4, plain=True)
    main(**flags)
    saved = tmp_path/"autoencoder/model.safetensors"
    first = load_model(saved).state_dict()
    main(**flags | dict(init=str(saved), out=str(tmp_path/"more"), lr=0.))
    assert same(load_model(tmp_path/"more/autoencoder/model.safetensors").state_dict(), first)


def test_a_learner_without_a_model_is_refused(photos):
    dls = InpaintDataLoaders.from_folder(photos, size=32, bs=2, valid=.25, num_workers=0, device="cpu")
    with pytest.raises(ValueError, match="a model, or init"): inpaint_learner(dls)
