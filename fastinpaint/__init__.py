"Image inpainting in latent space, the fast.ai way: see `fastinpaint.all`"
import warnings

warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)  # fastai compiles two activations on import


def __getattr__(name):
    # the one name that a first script needs; imported here, it would load fastai with every part of the package
    if name == "load_model":
        from .models.load import load_model
        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; most names are in fastinpaint.all")
