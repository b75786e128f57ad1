"Parity with the public implementations on stored weights, inputs and outputs; reading checkpoints safely"
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fastinpaint.models.control import add_control
from fastinpaint.models.published import load_lama

FIXTURES = Path(__file__).parent.parent/"fixtures"
INPUTS = {"image", "mask", "output"}


def relative_error(a, b): return ((a - b).abs().max()/b.abs().max()).item()


@pytest.fixture(scope="module")
def plain(): return load_file(FIXTURES/"lama_ngf8.safetensors")


@pytest.fixture(scope="module")
def controlled(): return load_file(FIXTURES/"mask_control_ngf8.safetensors")


@torch.no_grad()
def test_lama_reproduces_the_published_network(plain):
    model = load_lama(FIXTURES/"lama_ngf8.safetensors")
    masked = plain["image"]*(1 - plain["mask"])
    latent = model.encode(masked, plain["mask"])
    assert relative_error(latent, torch.cat([plain["encoded_local"], plain["encoded_global"]], 1)) < 1e-4
    assert relative_error(model(masked, plain["mask"]), plain["output"]) < 1e-4


@torch.no_grad()
def test_mask_control_reproduces_the_thesis(controlled):
    model, t = load_lama(FIXTURES/"mask_control_ngf8.safetensors"), controlled
    masked = t["image"]*(1 - t["mask"])
    latent = model.encode(masked, t["mask"])
    assert relative_error(latent, torch.cat([t["masked_latent_local"], t["masked_latent_global"]], 1)) < 1e-4
    assert relative_error(model.refine(latent), t["refined_latent"]) < 1e-4
    assert relative_error(model(masked, t["mask"]), t["output"]) < 1e-4
    assert relative_error(model.encode(t["image"]), t["ground_truth_latent"]) < 1e-4
    damage = model.decode(model.encode(t["image"]) - model.encode(masked))
    assert relative_error(damage, t["latent_difference_decoded"]) < 1e-4


@torch.no_grad()
def test_a_published_lama_gets_mask_control_and_begins_as_it_was(plain):
    model = load_lama(FIXTURES/"lama_ngf8.safetensors")
    new = add_control(model)
    image, mask = plain["image"], plain["mask"]
    assert torch.equal(new(image*(1 - mask), mask), model(image*(1 - mask), mask))
    assert relative_error(new(image*(1 - mask), mask), plain["output"]) < 1e-4
    for zero_conv in new.conditioner.zero_convs: torch.nn.init.normal_(zero_conv.weight, std=.1)
    assert relative_error(new(image*(1 - mask), mask), plain["output"]) > 1e-3


def generator_weights(tensors): return {k: v for k, v in tensors.items() if "model" in k}


@pytest.mark.parametrize("prefix", ["", "state_dict"])
def test_checkpoint_files_load_like_safetensors(plain, tmp_path, prefix):
    state = generator_weights(plain)
    torch.save({prefix: state, "epoch": 3} if prefix else state, tmp_path/"best.ckpt")
    expected = load_lama(FIXTURES/"lama_ngf8.safetensors").state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in load_lama(tmp_path/"best.ckpt").state_dict().items())


class Harmful:
    "Stands for an object in a checkpoint: unpickling it would write a file"
    def __init__(self, path): self.path = path
    def __reduce__(self): return (os.mkdir, (str(self.path),))


class Callback: "Stands for a training callback that a checkpoint names as a dictionary key"


def test_objects_beside_the_tensors_are_left_out(plain, tmp_path):
    checkpoint = {"state_dict": generator_weights(plain), "callbacks": {Callback: {"best": 1.}}}
    torch.save(checkpoint, tmp_path/"best.ckpt")
    assert load_lama(tmp_path/"best.ckpt").config["width"] == 8


def test_nothing_in_a_checkpoint_is_run(plain, tmp_path):
    torch.save({"state_dict": generator_weights(plain), "x": Harmful(tmp_path/"made")}, tmp_path/"best.ckpt")
    with pytest.raises(ValueError, match="cannot be read"): load_lama(tmp_path/"best.ckpt")
    assert not (tmp_path/"made").exists()


@pytest.mark.parametrize("content, message", [(b"", "cannot be read"), (b"no checkpoint", "cannot be read")])
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path/"best.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match=message): load_lama(tmp_path/"best.ckpt")


def test_a_checkpoint_without_generator_is_refused(tmp_path):
    torch.save({"state_dict": {"discriminator.model0.weight": torch.zeros(1)}}, tmp_path/"d.ckpt")
    with pytest.raises(ValueError, match="no LaMa generator"): load_lama(tmp_path/"d.ckpt")


def test_a_generator_with_a_missing_tensor_is_refused(plain, tmp_path):
    state = generator_weights(plain)
    del state["generator.model.25.bias"]
    torch.save(state, tmp_path/"s.pt")
    with pytest.raises(ValueError, match="decoder.head.bias"): load_lama(tmp_path/"s.pt")


def test_a_torchscript_file_says_how_to_convert_it(tmp_path):
    torch.jit.script(torch.nn.Linear(1, 1)).save(tmp_path/"m.pt")
    with pytest.raises(ValueError, match="torch.jit.load"): load_lama(tmp_path/"m.pt")
