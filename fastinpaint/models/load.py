"Models on disk: saved, loaded, read from whatever file holds one, and what is known of it"
import hashlib
from pathlib import Path

from ..core.errors import InputError, MissingPackage
from ..core.files import json_object
from .autoencoders import MODEL
from .control import add_control
from .latent_diffusion import MODEL as DIFFUSION
from .latent_diffusion import add_latent_control
from .published import load_lama
from .refiner import with_detail
from .schema import build
from .weights import read_weights, write_weights

SAMPLE_MODEL = Path(__file__).parent/"sample.safetensors"


def save_model(model, path):
    "Write an `InpaintNet`, or a Learner's, to a `.safetensors` file with its config, and that to a `.json`"
    model = getattr(model, "model", model)
    return write_weights(path, model.state_dict(), model.config)


def model_file(name): return SAMPLE_MODEL if name == "sample" else Path(name)


def load_model(path):
    """The `InpaintNet` that `save_model` wrote, in eval mode; "sample" comes with the package.

    Raises MissingFile, or InputError for any other file: nothing is built before its configuration and its
    tensors have been looked at (`schema`)."""
    path = model_file(path)
    state, config = read_weights(path)
    try: return build(config, state).eval()
    except MissingPackage: raise
    except InputError as e: raise InputError(f"{path} holds no model of this package: {e}") from e


def read_model(path):
    "A network of `save_model` or a published LaMa (`.ckpt`, `.pt`, `.pth`). Raises as `load_model`."
    path = model_file(path)
    return (load_lama if path.suffix in (".ckpt", ".pt", ".pth") else load_model)(path)


def starting_model(path, like=None):
    """The model of a file, in training mode, to go on from; "sample" comes with the package.

    Where `like` has mask control and the file's model an alpha channel, control is added (`add_control`). As
    many blocks have a `Detail` as in `like`, else none: what trains them would leave the others behind.
    Raises what `read_model` raises, and InputError where the two are different kinds of network, or `like` is
    around another autoencoder. A LaMa untrained as yet stands for a network around any."""
    net = read_model(path)
    if like is not None: _check_kind(path, net.config, like.config)
    wanted, has = like is not None and like.config.get("control"), net.config.get("control")
    if wanted == "mask" and has == "alpha": net = add_control(net)
    detail = like.config.get("detail", 0) if like is not None else 0
    if detail != net.config.get("detail", 0): net = with_detail(net, detail)
    if wanted and has is None and net.config.get("model") == DIFFUSION: net = add_latent_control(net, wanted)
    return net.train()


def _check_kind(path, theirs, ours):
    "Raises InputError where training of a network of the config `ours` cannot go on from one of `theirs`"
    kind, found = (config.get("model", "lama") for config in (ours, theirs))
    if kind == found == MODEL:
        a, b = ours["autoencoder"], theirs["autoencoder"]
        if a["sha256"] and a["sha256"] != b["sha256"]:
            raise InputError(f"{path} was made around the autoencoder {b['kind']} {b['name']}, and this is "
                             f"{a['kind']} {a['name']}, of other weights: leave --autoencoder out to go on")
    if found not in (kind, MODEL) or (kind, found) == ("context_encoder", MODEL):
        raise InputError(f"{path} holds a {found}, and this trains a {kind}")


def about_model(model):
    """The file of `model`, its bytes and SHA-256, the model's arguments, and parameters by part.

    And the settings of its training where a settings.json is beside it. Errors are those of `read_model`."""
    path = model_file(model)
    net = read_model(path)
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in net.named_children()}
    about = dict(file=str(path), bytes=path.stat().st_size,
                 sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
                 model=net.config, parameters=dict(all=sum(parts.values()), **parts))
    settings = path.with_name("settings.json")
    if settings.is_file(): about["settings"] = json_object(settings.read_text(), settings)
    return about
