"The published LaMa checkpoints, and those of the thesis' code, read into our modules"
import pickle
import re
import struct
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from ..core.errors import InputError, MissingFile
from .schema import build, planned

# Ours → public, inside one layer. Of several public tensors, ours is the concatenation along `dim`: two
# convolutions of one input, or of the two parts of one input, are one convolution.
STAGE = [
    (r"conv\.weight", ("ffc.convl2l.weight", "ffc.convl2g.weight"), 0),
    (r"bn\.(\w+)", (r"bn_l.\1", r"bn_g.\1"), 0),
]
BLOCK = [
    (r"(conv.)\.to_local\.weight", (r"\1.ffc.convl2l.weight", r"\1.ffc.convg2l.weight"), 1),
    (r"(conv.)\.local_to_global\.weight", (r"\1.ffc.convl2g.weight",), 0),
    (r"(conv.)\.spectral\.reduce\.(.*)", (r"\1.ffc.convg2g.conv1.\2",), 0),
    (r"(conv.)\.spectral\.fourier\.conv\.weight", (r"\1.ffc.convg2g.fu.conv_layer.weight",), 0),
    (r"(conv.)\.spectral\.fourier\.bn\.(\w+)", (r"\1.ffc.convg2g.fu.bn.\2",), 0),
    (r"(conv.)\.spectral\.expand\.weight", (r"\1.ffc.convg2g.conv2.weight",), 0),
    (r"(conv.)\.bn\.(\w+)", (r"\1.bn_l.\2", r"\1.bn_g.\2"), 0),
]


def load_lama(path):
    """A published LaMa, or a checkpoint of the thesis' code, as an `InpaintNet` in eval mode.

    `path`: a `.ckpt`, a saved state dict, or safetensors; nothing in it is executed. The architecture is
    read off the weights. Raises MissingFile, and InputError where there is no generator."""
    public = generator_state(read_public(path))
    try: return _model_of(public, path).eval()
    except InputError: raise
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as e:  # of shapes that fit nothing
        raise InputError(f"{path} is no LaMa of the published layout: {e}") from e


def _model_of(public, path):
    layers = {int(m[1]) for k in public if (m := re.match(r"model\.(\d+)\.", k))}
    split = [i for i in sorted(layers) if f"model.{i}.ffc.convl2g.weight" in public]
    if not split:
        raise InputError(f"{path} holds no LaMa generator (no key like generator.model.4.ffc.convl2g.weight)")
    depth = split[0] - 1
    blocks = sum(f"model.{i}.conv1.ffc.convl2l.weight" in public for i in layers)
    width, channels, *_ = public["model.1.ffc.convl2l.weight"].shape
    control = "alpha" if channels == 4 else "mask" if "mask_encoder.0.weight" in public else None
    config = dict(width=width, blocks=blocks, depth=depth, control=control, linear=False, prefill=False)
    try: expected = planned(config)
    except InputError as e: raise InputError(f"{path} is no LaMa of the published layout: {e}") from e
    state = {name: public_tensor(public, name, depth, blocks) for name in expected}
    wrong = [k for k, v in expected.items() if state[k] is None or state[k].shape != v.shape]
    if wrong:
        raise InputError(f"{path} is no LaMa of the published layout: {', '.join(wrong[:5])} "
                         "missing or of another shape")
    try: return build(config, state)
    except InputError as e: raise InputError(f"{path}: {e}") from e


# what torch's readers raise on a broken file, whose pickles are arbitrary programs
UNREADABLE = (SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError, TypeError,
              LookupError, AttributeError, OverflowError, AssertionError, ImportError, struct.error)


class Placeholder:
    "In place of a checkpoint's Python objects (Lightning's name their callbacks)"
    def __init__(self, *args): pass


def read_public(path):
    "All tensors of a checkpoint file by name, nothing in it executed. Raises MissingFile, InputError."
    path = Path(path)
    if not path.is_file(): raise MissingFile(f"no checkpoint at {path.absolute()}")
    try:
        if path.suffix == ".safetensors": return load_file(path)
        with safe_globals([(Placeholder, name) for name in get_unsafe_globals_in_checkpoint(path)]):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as e:
        raise InputError(f"{path} cannot be read as tensors: it is damaged, or made of other "
                         "things. Of a TorchScript file, save the state first: "
                         "torch.save(torch.jit.load(file).state_dict(), 'state.pt')") from e
    if not isinstance(state, dict):
        raise InputError(f"{path} holds a {type(state).__name__}, not a state dict")
    return state.get("state_dict", state)


def generator_state(state):
    "The tensors of generator and mask control, without prefixes of training code or TorchScript"
    part = re.compile(r"(?:.*\.)?((?:model|mask_encoder)\.\d+\..*|zero_conv\d\.weight)")
    return {m[1]: v for k, v in state.items()
            if (m := part.fullmatch(k)) and "discriminator" not in k and torch.is_tensor(v)}


def public_tensor(public, name, depth, blocks):
    "The public tensor that belongs under our `name`, or None"
    part, *rest = name.split(".")
    if name == "conditioner.weight": return public["model.1.ffc.convl2l.weight"][:, 3:]
    if part == "conditioner": return _control_tensor(public, rest)
    if part == "decoder": return public.get(_decoder_name(rest, depth, blocks))
    _, i, *inner = rest
    layer, rules = (int(i) + 1, STAGE) if part == "encoder" else (int(i) + depth + 2, BLOCK)
    match, theirs, dim = next((m, theirs, dim) for ours, theirs, dim in rules
                              if (m := re.fullmatch(ours, ".".join(inner))))
    found = [public[k] for t in theirs if (k := f"model.{layer}.{match.expand(t)}") in public]
    if not found: return None
    tensor = torch.cat(found, dim) if found[0].ndim else found[0]
    return tensor[:, :3] if name == "encoder.stages.0.conv.weight" else tensor


def _control_tensor(public, rest):
    kind, i, *inner = rest
    if kind == "zero_convs": return public.get(f"zero_conv{int(i) + 2}.weight")
    return public.get(f"mask_encoder.{3*int(i) + int(inner[0])}.{inner[1]}")


def _decoder_name(rest, depth, blocks):
    first = depth + 3 + blocks  # the encoder, the blocks, and one that joins local and global
    if rest[0] == "head": return f"model.{first + 3*depth + 1}.{rest[1]}"
    _, i, kind, name = rest
    return f"model.{first + 3*int(i) + (kind == 'bn')}.{name}"
