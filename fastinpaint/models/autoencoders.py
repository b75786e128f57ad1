"Any pretrained autoencoder of diffusers: found, checked, and rebuilt from what a model's file says of it"
import hashlib
import inspect
import json
import logging
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..core.download import hub_folder
from ..core.errors import InputError, MissingFile, MissingPackage
from .adapters import ADAPTERS, adapted
from .weights import read_config, read_weights

PREFIX = "hf:"
MODEL = "latent_net"  # what the config of a model says whose autoencoder is one of these
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
PARTS = "", "vae", "vqvae", "movq"  # where a pipeline's repository or folder keeps its autoencoder
FILES = [f"{part}/{file}".lstrip("/") for part in PARTS for file in (CONFIG, WEIGHTS)]
KNOWN = f"known are {', '.join(ADAPTERS)}"


@dataclass
class Autoencoder:
    "`encoder` and `decoder` as of `adapted`, without gradients; `about` rebuilds them, but for the weights"
    encoder: nn.Module
    decoder: nn.Module
    about: dict  # kind (the class), name, sha256 (of the weights), config (diffusers')


def frozen_autoencoder(source):
    """The `Autoencoder` of `source`, frozen, in eval mode, for `latent_net` or an `InpaintNet` of your own.

    `source`: "org/name" on the Hugging Face Hub, also "hf:org/name"; a folder of `save_pretrained`, or of a
    pipeline; a file that holds a `latent_net`; an object of diffusers, which is copied; or the `about` of
    another, which gives random weights. Only safetensors are read, nothing is executed. Raises MissingPackage
    without diffusers, MissingFile, Unreachable within seconds, InputError for what is no such autoencoder."""
    if isinstance(source, dict): return _ready(*_built(source)[1:], source)
    if not isinstance(source, str | Path): return _of_object(deepcopy(source), type(source).__name__)
    name = str(source).removeprefix(PREFIX)
    path = Path(name)
    if path.is_file(): return _of_model(path)
    return _of_folder(path if path.is_dir() else hub_folder(name, FILES), name)


def is_foreign(source):
    "Whether `source`, as in `--autoencoder`, is for `frozen_autoencoder` and no file of LaMa's"
    if source is None or source in ("sample", "none"): return False
    if not isinstance(source, str | Path) or str(source).startswith(PREFIX): return True
    path = Path(source)
    return path.is_dir() or path.is_file() and read_config(path).get("model") == MODEL


def refuse_foreign(source, why):
    "Raises InputError for a `source` that `is_foreign`"
    if is_foreign(source): raise InputError(f"--autoencoder {source}: {why}")


def diffusers_class(kind):
    "diffusers' class called `kind`. Raises InputError for one without adapter, MissingPackage"
    if kind not in ADAPTERS: raise InputError(f"no autoencoder of class {kind}: {KNOWN}")
    try:
        import diffusers  # seconds
    except ImportError as e:
        raise MissingPackage(f'a {kind} needs {e.name}: pip install "fastinpaint[diffusers]"') from e
    return getattr(diffusers, kind)


def diffusers_model(about, encoder, decoder):
    "The object of diffusers that `about` and the weights of these parts make, which it shares nothing with"
    vae, *parts = _built(about)
    for part, ours in zip(parts, (encoder, decoder), strict=True): part.load_state_dict(ours.state_dict())
    return vae


def _built(about):
    "A `vae` with random weights, its encoder and decoder"
    cls = diffusers_class(about["kind"])
    with torch.random.fork_rng(devices=[]), _quiet(): vae = cls.from_config(about["config"])
    return vae, *adapted(vae.eval())


def _ready(encoder, decoder, about):
    for part in encoder, decoder: part.requires_grad_(False).eval()
    return Autoencoder(encoder, decoder, about)


def _of_object(vae, name):
    kind = type(vae).__name__
    if kind not in ADAPTERS: raise InputError(f"{name} is a {kind}, and no autoencoder for this: {KNOWN}")
    for what in "in_channels", "out_channels":
        if vae.config.get(what, 3) != 3:
            raise InputError(f"{name} has {vae.config[what]} {what}; photographs have 3")
    vae = vae.float().eval()
    known = inspect.signature(type(vae).__init__).parameters
    config = json.loads(json.dumps({k: v for k, v in vae.config.items() if k in known}))
    about = dict(kind=kind, name=name, sha256=weights_hash(vae.state_dict()), config=config)
    return _ready(*adapted(vae), about)


def _of_model(path):
    "Of a file of a `latent_net`, whose autoencoder it holds"
    state, config = read_weights(path)
    if config.get("model") != MODEL:
        raise InputError(f"{path} holds no autoencoder of diffusers, but a {config.get('model', 'lama')}")
    vae, *parts = _built(config["autoencoder"])
    for name, part in zip(("encoder", "decoder"), parts, strict=True):
        part.load_state_dict({k: state[f"{name}.{k}"] for k in part.state_dict()})
    return _ready(*parts, config["autoencoder"] | dict(name=str(path), sha256=weights_hash(vae.state_dict())))


def _of_folder(folder, name):
    "Of a folder of diffusers' files"
    place = next((folder/part for part in PARTS if (folder/part/CONFIG).is_file()), None)
    if place is None: raise MissingFile(f"{name} has no {CONFIG}: give a folder that save_pretrained wrote")
    try: kind = json.loads((place/CONFIG).read_text()).get("_class_name")
    except (ValueError, AttributeError) as e: raise InputError(f"{place/CONFIG} is no config: {e}") from e
    if kind not in ADAPTERS: raise InputError(f"{name} holds a {kind}, and no autoencoder for this: {KNOWN}")
    cls = diffusers_class(kind)
    if not (place/WEIGHTS).is_file():
        pickled = [file.name for o in ("*.bin", "*.ckpt", "*.pt", "*.pth") for file in place.glob(o)]
        if pickled:
            raise InputError(f"{name} has pickled weights alone ({', '.join(pickled)}), which may run code: "
                             "where you trust them, save them anew by save_pretrained, as safetensors")
        raise MissingFile(f"{name} has no weights: {WEIGHTS} belongs beside its {CONFIG}")
    return _of_object(_loaded(cls, place, name), name)


def _loaded(cls, place, name):
    "By diffusers, which also knows the names that layers once had"
    try:
        with torch.random.fork_rng(devices=[]), _quiet():
            vae, found = cls.from_pretrained(place, local_files_only=True, use_safetensors=True,
                                             low_cpu_mem_usage=False, output_loading_info=True,
                                             ignore_mismatched_sizes=True)
    except (OSError, ValueError, RuntimeError, TypeError) as e:
        why = " ".join(str(e).split())[:200]
        raise InputError(f"{name} cannot be read as {cls.__name__}: {why}") from e
    missing = [*found["missing_keys"], *(o[0] for o in found["mismatched_keys"])]
    if missing:
        raise InputError(f"the weights of {name} are not those of its {CONFIG}: {', '.join(missing[:3])} "
                         "missing or of another shape")
    return vae


@contextmanager
def _quiet():
    "Without diffusers' remarks, of which those that matter are errors here"
    logger = logging.getLogger("diffusers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try: yield
    finally: logger.setLevel(before)


def weights_hash(state):
    "SHA-256 of the tensors of `state` by name, whatever file they are in"
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
