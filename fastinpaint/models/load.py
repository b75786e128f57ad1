"Models on disk: saved, loaded, read from whatever file holds one, and what is known of it"
import hashlib
import json
from functools import partial
from pathlib import Path

from ..core.errors import InputError, MissingPackage
from .context_encoder import context_encoder
from .control import add_control
from .lama import lama
from .latent_diffusion import MODEL as DIFFUSION
from .latent_diffusion import add_latent_control, latent_diffusion
from .published import load_lama
from .weights import read_weights, write_weights

SAMPLE_MODEL = Path(__file__).parent/"sample.safetensors"
BUILDERS = {"lama": partial(lama, autoencoder=None), "context_encoder": context_encoder,
            DIFFUSION: partial(latent_diffusion, autoencoder=None)}


def save_model(model, path):
    "Write an `InpaintNet`, or a Learner's, to a `.safetensors` file with its config, and that to a `.json`"
    model = getattr(model, "model", model)
    return write_weights(path, model.state_dict(), model.config)


def model_file(name): return SAMPLE_MODEL if name == "sample" else Path(name)


def load_model(path):
    """The `InpaintNet` that `save_model` wrote, in eval mode; "sample" comes with the package.

    Raises MissingFile, or InputError for any other file."""
    path = model_file(path)
    state, config = read_weights(path)
    try:
        model = BUILDERS[config.pop("model", "lama")](**config)  # a LaMa's config names no model
        model.load_state_dict(state)
    except MissingPackage: raise
    except (KeyError, TypeError, RuntimeError, ValueError) as e:
        raise InputError(f"{path} holds no model of this package: {e}") from e
    return model.eval()


def read_model(path):
    "A network of `save_model` or a published LaMa (`.ckpt`, `.pt`, `.pth`). Raises as `load_model`."
    path = model_file(path)
    return (load_lama if path.suffix in (".ckpt", ".pt", ".pth") else load_model)(path)


def starting_model(path, like=None):
    """The model of a file, in training mode, to go on from; "sample" comes with the package.

    Where `like` has mask control and the file's model an alpha channel, control is added (`add_control`).
    Raises what `read_model` raises, and InputError where the two are different kinds of network."""
    net = read_model(path)
    kind, theirs = (m and m.config.get("model", "lama") for m in (like, net))
    if like is not None and kind != theirs:
        raise InputError(f"{path} holds a {theirs}, and this trains a {kind}")
    wanted = like is not None and like.config.get("control")
    if wanted == "mask" and net.config["control"] == "alpha": net = add_control(net)
    if kind == DIFFUSION and wanted and net.config["control"] is None: net = add_latent_control(net, wanted)
    return net.train()


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
    if settings.is_file(): about["settings"] = json.loads(settings.read_text())
    return about
