"A model to go on from"
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fastinpaint.core.errors import InputError, MissingFile
from fastinpaint.models.context_encoder import context_encoder
from fastinpaint.models.load import load_model, save_model, starting_model

FIXTURE = Path(__file__).parent.parent/"fixtures/lama_ngf8.safetensors"


@pytest.fixture
def published(tmp_path):
    "A checkpoint as LaMa publishes them"
    torch.save({"state_dict": load_file(FIXTURE)}, tmp_path/"best.ckpt")
    return tmp_path/"best.ckpt"


def test_training_goes_on_from_a_saved_model(tiny_lama, tmp_path, state_of, same):
    model = tiny_lama(control="mask", delta=True)
    save_model(model, tmp_path/"mine.safetensors")
    found = starting_model(tmp_path/"mine.safetensors", tiny_lama(seed=1, control="mask"))
    assert found.training and found.config == model.config
    assert same(state_of(found), state_of(model))


def test_the_sample_model_is_one():
    assert starting_model("sample").config == load_model("sample").config | dict(detail=0)


@torch.no_grad()
def test_mask_control_is_added_where_it_is_wanted(published, tiny_lama, half):
    image, mask = half
    plain = starting_model(published, tiny_lama()).eval()
    controlled = starting_model(published, tiny_lama(control="mask")).eval()
    assert (plain.config["control"], controlled.config["control"]) == ("alpha", "alpha+mask")
    assert torch.equal(plain(image*(1 - mask), mask), controlled(image*(1 - mask), mask))
    assert starting_model(published).config["control"] == "alpha"


def test_another_kind_of_network_is_refused(tiny_lama, tmp_path):
    save_model(context_encoder(2, 32), tmp_path/"context.safetensors")
    with pytest.raises(InputError, match="holds a context_encoder, and this trains a lama"):
        starting_model(tmp_path/"context.safetensors", tiny_lama())
    with pytest.raises(MissingFile, match="nowhere"): starting_model(tmp_path/"nowhere.safetensors")
