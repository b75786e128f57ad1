import errno
import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from fastinpaint.models.load import load_model, save_model
from fastinpaint.models.weights import write_weights

VARIANTS = [dict(), dict(control="mask"), dict(control=None, blocks=0), dict(control="mask", delta=True),
            dict(linear=False), dict(depth=2, width=3, blocks=2),
            dict(control="mask", depth=1, width=4, linear=False),
            dict(first="anew"), dict(first="bare"), dict(control="alpha+mask"),
            dict(delta="sum", iterations=2), dict(refiner="dilated"), dict(refiner="unet")]


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_saved_model_comes_back_whole(tiny_lama, tmp_path, variant):
    model, (image, mask) = tiny_lama(**variant), (torch.rand(2, 3, 33, 40), torch.ones(2, 1, 33, 40))
    for p in model.parameters(): p.add_(.02*torch.randn_like(p))
    model(image, mask)  # moves the BatchNorm statistics
    loaded = load_model(save_model(model, tmp_path/"sub/model.safetensors"))
    assert loaded.config == model.config and not loaded.training
    assert torch.equal(loaded(image, mask), model.eval()(image, mask))


@torch.no_grad()
def test_a_file_of_before_these_arguments_takes_their_defaults(tiny_lama, tmp_path, same, state_of):
    model = tiny_lama(control="mask", delta=True)
    old = {k: v for k, v in model.config.items() if k not in ("first", "refiner", "iterations")}
    loaded = load_model(write_weights(tmp_path/"old.safetensors", model.state_dict(), old))
    assert loaded.config == model.config and same(state_of(loaded), state_of(model))


def test_the_config_stands_in_a_readable_file_beside_the_weights(tiny_lama, tmp_path):
    model = tiny_lama(control="mask")
    save_model(model, tmp_path/"model.safetensors")
    assert json.loads((tmp_path/"model.json").read_text()) == model.config


def test_a_learner_on_channels_last_saves_its_model(tiny_learner, tmp_path, same, state_of):
    learn = tiny_learner()
    learn.model.to(memory_format=torch.channels_last)
    assert same(state_of(load_model(save_model(learn, tmp_path/"m.safetensors"))), state_of(learn.model))


def test_equal_models_make_equal_files(tiny_lama, tmp_path):
    files = [save_model(tiny_lama(), tmp_path/f"{i}.safetensors").read_bytes() for i in range(8)]
    assert len({*files}) == 1
    other = save_model(tiny_lama(seed=1), tmp_path/"other.safetensors").read_bytes()
    assert other != files[0] and len(other) == len(files[0])


# files that are no models

class Harmful:
    "Unpickling it would make a folder"
    def __init__(self, path): self.path = str(path)
    def __reduce__(self): return os.mkdir, (self.path,)


def spoil(path, how, good):
    if how == "empty": path.write_bytes(b"")
    if how == "truncated": path.write_bytes(good[:len(good)//2])
    if how == "header cut": path.write_bytes(good[:20])
    if how == "text": path.write_text("no weights here, but a text that is long enough")
    if how == "torch pickle": torch.save({"x": Harmful(path.parent/"made")}, path)
    if how == "pickle": path.write_bytes(pickle.dumps(Harmful(path.parent/"made")))
    if how == "foreign": save_file({"model.1.weight": torch.zeros(2)}, path)
    if how == "missing tensor":
        write_weights(path, {"a": torch.zeros(1)}, {"width": 2, "blocks": 1})
    if how == "unknown argument": write_weights(path, {}, {"width": 2, "blocks": 1, "later": True})
    if how == "impossible": write_weights(path, {}, {"width": -2})


@pytest.mark.parametrize("how", ["empty", "truncated", "header cut", "text", "torch pickle", "pickle",
                                 "foreign", "missing tensor", "unknown argument", "impossible"])
def test_other_files_are_refused_by_name_and_never_unpickled(tiny_lama, tmp_path, how):
    path = save_model(tiny_lama(), tmp_path/"model.safetensors")
    spoil(path, how, path.read_bytes())
    with pytest.raises(ValueError, match="model.safetensors"): load_model(path)
    assert not (tmp_path/"made").exists()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_model(tmp_path/"nowhere.safetensors")


# files are replaced whole or not at all

def full(*args): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def files(folder): return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_model(tiny_lama, tmp_path, monkeypatch, step):
    save_model(tiny_lama(seed=0), tmp_path/"model.safetensors")
    before = files(tmp_path)
    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left"):
        save_model(tiny_lama(seed=1), tmp_path/"model.safetensors")
    assert files(tmp_path) == before
