"Autoencoders of diffusers: where they are found, and what is refused in one line"
import json
import subprocess
import sys
import time
import urllib.error

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from fastinpaint.core import download
from fastinpaint.core.errors import InputError, MissingFile, MissingPackage, Unreachable
from fastinpaint.models.autoencoders import WEIGHTS, frozen_autoencoder, is_foreign
from fastinpaint.models.lama import lama
from fastinpaint.models.load import save_model


@pytest.fixture
def folder(tiny_vae, tmp_path):
    tiny_vae("AutoencoderKL").save_pretrained(tmp_path/"vae")
    return tmp_path/"vae"


@pytest.fixture
def offline(monkeypatch, tmp_path):
    "No network, and an empty cache"
    def no_network(*_, **__): raise urllib.error.URLError("no network")
    monkeypatch.setattr(download.urllib.request, "urlopen", no_network)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path/"cache"))


def code(source, image): return frozen_autoencoder(source).encoder(image)


def test_the_same_autoencoder_wherever_it_is_found(tiny_vae, folder, tmp_path):
    vae, image = tiny_vae("AutoencoderKL"), torch.rand(1, 3, 32, 32)
    pipeline = tmp_path/"pipeline"
    vae.save_pretrained(pipeline/"vae")
    (pipeline/"model_index.json").write_text("{}")
    found = [code(o, image) for o in (vae, folder, str(folder), f"hf:{folder}", pipeline)]
    assert all(torch.equal(found[0], o) for o in found)
    abouts = [frozen_autoencoder(o).about for o in (vae, folder, pipeline)]
    assert len({o["sha256"] for o in abouts}) == 1 and abouts[1]["name"] == str(folder)
    assert json.loads(json.dumps(abouts[1]["config"])) == abouts[0]["config"]


def test_it_is_frozen_and_the_one_given_stays_as_it_is(tiny_vae):
    vae = tiny_vae("AutoencoderKL").train()
    found = frozen_autoencoder(vae)
    for part in found.encoder, found.decoder:
        assert not any(p.requires_grad for p in part.parameters()) and not part.training
    with torch.no_grad():
        for p in found.encoder.parameters(): p.zero_()
    assert vae.training and all(p.requires_grad for p in vae.parameters())
    assert vae.encoder.conv_in.weight.any()


def test_no_random_numbers_are_drawn(tiny_vae, folder):
    states = []
    for source in None, folder, tiny_vae("VQModel"), frozen_autoencoder(folder).about:
        torch.manual_seed(0)
        if source is not None: frozen_autoencoder(source)
        states.append(torch.get_rng_state())
    assert all(torch.equal(states[0], o) for o in states)


def test_half_precision_is_read_as_full(tiny_vae, tmp_path):
    tiny_vae("AutoencoderTiny").half().save_pretrained(tmp_path)
    assert {p.dtype for p in frozen_autoencoder(tmp_path).encoder.parameters()} == {torch.float32}


def test_old_names_of_attention_layers_are_known(folder):
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    image, state = torch.rand(1, 3, 32, 32), load_file(folder/WEIGHTS)
    before = code(folder, image)
    for new, name in old.items(): state = {k.replace(f"0.{new}.", f"0.{name}."): v for k, v in state.items()}
    assert any("proj_attn" in k for k in state)
    save_file(state, folder/WEIGHTS)
    assert torch.equal(code(folder, image), before)


def spoil_weights(folder): (folder/WEIGHTS).unlink()


def spoil_pickled(folder):
    (folder/WEIGHTS).unlink()
    torch.save({}, folder/"diffusion_pytorch_model.bin")


def spoil_config(folder): (folder/"config.json").unlink()
def spoil_json(folder): (folder/"config.json").write_text("{")


def change(**changes):
    def spoil(folder):
        config = json.loads((folder/"config.json").read_text())
        (folder/"config.json").write_text(json.dumps(config | changes))
    return spoil


def spoil_one(folder):
    state = load_file(folder/WEIGHTS)
    save_file({k: v for k, v in state.items() if k != "encoder.conv_in.weight"}, folder/WEIGHTS)


def spoil_bytes(folder): (folder/WEIGHTS).write_bytes((folder/WEIGHTS).read_bytes()[:500])


@pytest.mark.parametrize("spoil, message", [
    (spoil_weights, "has no weights: diffusion_pytorch_model.safetensors belongs beside its config.json"),
    (spoil_pickled, r"pickled weights alone \(diffusion_pytorch_model.bin\).*save_pretrained, as safe"),
    (spoil_config, "has no config.json: give a folder that save_pretrained wrote"),
    (spoil_json, "config.json is no config"),
    (change(_class_name="UNet2DModel"), "holds a UNet2DModel, and no autoencoder.*known are AutoencoderKL"),
    (change(latent_channels=5), "the weights of .* are not those of its config.json: .*another shape"),
    (change(block_out_channels=[4, 8, 9]), "cannot be read as AutoencoderKL"),
    (spoil_one, "encoder.conv_in.weight missing"),
    (spoil_bytes, "cannot be read as AutoencoderKL")],
    ids=lambda x: getattr(x, "__name__", None))
def test_a_folder_that_does_not_fit_is_refused_in_one_line(folder, spoil, message):
    spoil(folder)
    with pytest.raises(InputError, match=message) as error: frozen_autoencoder(folder)
    assert "\n" not in str(error.value)


def test_photographs_have_three_channels(tiny_vae):
    with pytest.raises(InputError, match="4 in_channels; photographs have 3"):
        frozen_autoencoder(tiny_vae("AutoencoderKL", in_channels=4))


def test_what_is_no_autoencoder_is_refused(tmp_path, tiny_lama):
    with pytest.raises(InputError, match="is a Linear, and no autoencoder"):
        frozen_autoencoder(torch.nn.Linear(1, 1))
    with pytest.raises(InputError, match="holds no autoencoder of diffusers, but a lama"):
        frozen_autoencoder(save_model(tiny_lama(), tmp_path/"lama.safetensors"))


def test_without_network_there_is_an_answer_within_seconds(offline):
    began = time.monotonic()
    with pytest.raises(Unreachable, match="org/name has not been downloaded.*no network.*a folder of its"):
        frozen_autoencoder("hf:org/name")
    assert time.monotonic() - began < 2*download.TIMEOUT
    with pytest.raises(MissingFile, match="no folder or file no/such/folder, and no name on the Hub"):
        frozen_autoencoder("no/such/folder")


def test_what_was_downloaded_before_needs_no_network(offline, folder, tmp_path, monkeypatch):
    snapshot = tmp_path/"cache/models--org--name/snapshots/abc"
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    (tmp_path/"cache/models--org--name/refs").mkdir()
    (tmp_path/"cache/models--org--name/refs/main").write_text("abc")
    found = frozen_autoencoder("org/name")
    assert found.about["name"] == "org/name" and found.encoder.stride == 4


def test_only_safetensors_are_asked_of_the_hub(folder, monkeypatch):
    asked = {}
    def given(name, **kwargs): return asked.update(kwargs, name=name) or str(folder)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", given)
    monkeypatch.setattr(download, "unreachable", lambda url: None)
    assert lama(2, 1, autoencoder="hf:org/name").config["autoencoder"]["name"] == "org/name"
    assert asked["name"] == "org/name" and not asked["local_files_only"]
    assert {o.rpartition("/")[2] for o in asked["allow_patterns"]} == {"config.json", WEIGHTS}


def test_which_autoencoders_are_not_lamas(folder, tmp_path, tiny_lama, monkeypatch):
    ours = save_model(tiny_lama(), tmp_path/"lama.safetensors")
    theirs = save_model(lama(2, 1, autoencoder=folder), tmp_path/"net.safetensors")
    foreign = "hf:org/name", folder, theirs, torch.nn.Linear(1, 1)
    lamas = None, "sample", "none", ours, tmp_path/"missing"
    assert [is_foreign(o) for o in (*lamas, *foreign)] == [False]*5 + [True]*4
    monkeypatch.chdir(tmp_path)
    (tmp_path/"sample").mkdir()
    assert not is_foreign("sample")


def test_without_the_package_a_line_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    install = r'pip install "fastinpaint\[diffusers\]"'
    with pytest.raises(MissingPackage, match=install): frozen_autoencoder(folder)


def test_it_is_imported_where_it_is_used_alone():
    code = "import sys, fastinpaint.all; assert not {'diffusers', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
