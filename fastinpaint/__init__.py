"""Image inpainting in latent space, the fast.ai way.

Every name of `fastinpaint.all` is here too, loaded when used: a recipe answers `--help` without torch."""
import warnings
from importlib import import_module
from importlib.util import find_spec

from .core.program import program
from .core.settings import flag, group, setting
from .train.settings import AdversarialSettings, DiffusionSettings, LatentSettings, Settings, thesis_setting

__all__ = ["AdversarialSettings", "DiffusionSettings", "LatentSettings", "Settings", "flag", "group",
           "program", "setting", "thesis_setting"]

# fastai compiles two activations on import
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)


def __getattr__(name):
    # `from fastinpaint import recipes` asks here before it imports the submodule
    if not name.startswith("_") and not find_spec(f"{__name__}.{name}"):
        everything = import_module(f"{__name__}.all")
        if hasattr(everything, name): return getattr(everything, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
