"Models on disk: saved, loaded, and read from whatever file holds one"
from functools import partial
from pathlib import Path

from ..core.errors import InputError
from .context_encoder import context_encoder
from .lama import lama
from .published import load_lama
from .weights import read_weights, write_weights

SAMPLE_MODEL = Path(__file__).parent/"sample.safetensors"
BUILDERS = {"lama": partial(lama, autoencoder=None), "context_encoder": context_encoder}


def save_model(model, path):
    """Write an `InpaintNet`, or a Learner's, to the `.safetensors` file `path`, with its config.

    A `.json` beside it repeats the config for readers. Files are replaced whole or not at all; never a
    pickle.
    """
    model = getattr(model, "model", model)
    return write_weights(path, model.state_dict(), model.config)


def model_file(name): return SAMPLE_MODEL if name == "sample" else Path(name)


def load_model(path):
    """The `InpaintNet` that `save_model` wrote, in eval mode; "sample" comes with the package.

    Raises MissingFile, or InputError for any other file.
    """
    path = model_file(path)
    state, config = read_weights(path)
    try:
        model = BUILDERS[config.pop("model", "lama")](**config)  # a LaMa's config names no model
        model.load_state_dict(state)
    except (KeyError, TypeError, RuntimeError, ValueError) as e:
        raise InputError(f"{path} holds no model of this package: {e}") from e
    return model.eval()


def read_model(path):
    """The network of `save_model`, of a published LaMa (`.ckpt`, `.pt`, `.pth`), or "sample".

    Raises MissingFile, or InputError for any other file.
    """
    path = model_file(path)
    return (load_lama if path.suffix in (".ckpt", ".pt", ".pth") else load_model)(path)
