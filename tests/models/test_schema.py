"What a model file asks for is looked at before anything is built"
import json

import pytest
import torch
from safetensors.torch import save

from fastinpaint.core.errors import InputError
from fastinpaint.models import schema
from fastinpaint.models.context_encoder import context_encoder
from fastinpaint.models.fcf import fcf
from fastinpaint.models.load import about_model, load_model, save_model
from fastinpaint.models.published import load_lama
from fastinpaint.models.schema import checked
from fastinpaint.models.weights import FORMAT, write_weights


def written(path, config, state=()):
    "A file whose configuration is this text"
    path.write_bytes(save(dict(state), {"format": FORMAT, "config": config}))
    return path


DEEP = "["*100_000 + "]"*100_000
TEXTS = {"cut": ("{", "no JSON"), "deep": (DEEP, "no JSON"), "empty": ("", "no JSON"),
         "list": ("[1]", "no JSON object"),
         "long number": ('{"width": ' + "9"*5000 + "}", "no JSON"), "null": ("null", "no JSON object")}


@pytest.mark.parametrize("text", TEXTS)
def test_a_configuration_that_is_no_json_object(tmp_path, text):
    content, message = TEXTS[text]
    with pytest.raises(InputError, match=f"configuration in .*m.safetensors is {message}"):
        load_model(written(tmp_path/"m.safetensors", content))


WRONG = {"many blocks": dict(blocks=10**6), "deep": dict(depth=60), "wide": dict(width=10**9),
         "repeated": dict(iterations=10**6), "a file": dict(autoencoder="/etc/passwd"),
         "none named": dict(autoencoder=None), "a device": dict(device="cuda"), "a text": dict(width="8"),
         "a fraction": dict(width=8.), "a truth": dict(width=True), "not a number": dict(width=float("nan")),
         "a list": dict(refiner=["ffc"]), "an object": dict(control={}), "zero": dict(depth=0),
         "a number": dict(linear=1), "another kind": dict(model="gpt"), "no kind": dict(model=[]),
         "a wide fcf": dict(model="fcf", width=10**6), "a deep fcf": dict(model="fcf", depth=60),
         "a base of bases": dict(model="upsampler", base=dict(model="upsampler", base={})),
         "a large map": dict(model="context_encoder", size=10**6), "a long name": {"x"*10_000: 1}}


@pytest.mark.parametrize("name", WRONG)
def test_arguments_out_of_bounds_build_nothing(tmp_path, monkeypatch, name):
    for kind in schema.BUILDERS: monkeypatch.setitem(schema.BUILDERS, kind, lambda **_: pytest.fail("built"))
    path = write_weights(tmp_path/"m.safetensors", {}, WRONG[name])
    with pytest.raises(InputError, match="m.safetensors holds no model of this package: ") as caught:
        load_model(path)
    assert len(str(caught.value)) < len(str(path)) + 400


def test_what_fits_the_bounds_but_not_the_tensors_takes_no_memory(tmp_path):
    largest = dict(width=512, blocks=100, depth=6)  # hundreds of gigabytes
    with pytest.raises(InputError, match="tensors are missing or too many: "):
        load_model(write_weights(tmp_path/"m.safetensors", {"a": torch.zeros(1)}, largest))


@pytest.mark.parametrize("make", [lambda lama: lama(), lambda lama: context_encoder(2, 32)],
                         ids=["lama", "context encoder"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tiny_lama, tmp_path, make, value):
    model = make(tiny_lama)
    name, tensor = next((k, v) for k, v in model.state_dict().items() if v.ndim > 1)
    tensor.view(-1)[-1] = value
    with pytest.raises(InputError, match=f"NaN or infinity: {name}"):
        load_model(save_model(model, tmp_path/"m.safetensors"))


def test_tensors_of_another_shape_or_type_are_refused(tiny_lama, tmp_path):
    model = tiny_lama()
    for change in (lambda v: v.int(), lambda v: v[None], lambda v: v.to(torch.float8_e5m2)):
        state = dict(model.state_dict())
        state["decoder.head.bias"] = change(state["decoder.head.bias"])
        with pytest.raises(InputError, match="another shape or type: decoder.head.bias"):
            load_model(write_weights(tmp_path/"m.safetensors", state, model.config))


@pytest.mark.parametrize("control", [None, "alpha", "mask", "alpha+mask"])
def test_every_model_of_this_package_is_within_the_bounds(tiny_lama, control):
    assert checked(tiny_lama(control=control).config) == ("lama", tiny_lama(control=control).config)
    assert checked(context_encoder(2, 32).config)[0] == "context_encoder"
    assert checked(fcf(2, 3).config)[0] == "fcf"


FIRST, SPLIT = "model.1.ffc.convl2l.weight", "model.{}.ffc.convl2g.weight"
PUBLISHED = {"a vector": {FIRST: torch.zeros(3), SPLIT.format(4): torch.zeros(1)},
             "sixty halvings": {FIRST: torch.zeros(8, 4, 7, 7), SPLIT.format(61): torch.zeros(1)},
             "no first layer": {SPLIT.format(4): torch.zeros(1)},
             "a number": {FIRST: torch.zeros(()), SPLIT.format(2): torch.zeros(1)},
             "a long name": {"model." + "1"*5000 + ".weight": torch.zeros(1)}}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_layout_that_fits_nothing_is_refused(tmp_path, name):
    torch.save(PUBLISHED[name], tmp_path/"m.pt")
    with pytest.raises(InputError, match="m.pt"): load_lama(tmp_path/"m.pt")


def test_settings_beside_a_model_that_are_no_json_are_named(tiny_lama, tmp_path):
    path = save_model(tiny_lama(), tmp_path/"m.safetensors")
    (tmp_path/"settings.json").write_text(json.dumps({"a": 1})[:-1])
    with pytest.raises(InputError, match="settings.json is no JSON"): about_model(path)
