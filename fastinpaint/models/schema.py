"What a model file may ask for: bounds of every argument, looked at before anything is built"
from functools import partial

import torch

from ..core.errors import InputError
from .adapters import ADAPTERS
from .autoencoders import MODEL
from .context_encoder import context_encoder
from .denoiser import CONTROLS
from .fcf import BOUNDS as FCF_BOUNDS
from .fcf import MODEL as FCF
from .fcf import fcf
from .lama import CONDITIONERS, FIRST, lama
from .latent_diffusion import MODEL as DIFFUSION
from .latent_diffusion import MOST as UNETS
from .latent_diffusion import latent_diffusion
from .latent_net import latent_net
from .refiner import DELTAS, REFINERS
from .sampling import PREDICTIONS, SAMPLERS
from .upsampler import MODEL as UPSAMPLER
from .upsampler import upsampler

BUILDERS = {"lama": partial(lama, autoencoder=None), "context_encoder": context_encoder, MODEL: latent_net,
            DIFFUSION: partial(latent_diffusion, autoencoder=None), FCF: fcf,
            UPSAMPLER: upsampler}
SWITCH = False, True
MOST, LAYERS, ENTRIES = 2**16, 32, 16  # of an autoencoder's config: numbers; numbers of layers; of a list


def check_autoencoder(about):
    "Raises InputError for what is not `about` of an `Autoencoder` of a size that networks have"
    if not isinstance(about, dict) or about.keys() != {"kind", "name", "sha256", "config"}:
        raise InputError("autoencoder has kind, name, sha256 and config")
    if about["kind"] not in tuple(ADAPTERS):
        raise InputError(f"an autoencoder is one of {', '.join(ADAPTERS)}, not {short(about['kind'])}")
    if not isinstance(about["config"], dict): raise InputError("config of an autoencoder is no JSON object")
    for name, value in about["config"].items():
        most, entries = LAYERS if "layers" in name or "blocks" in name else MOST, flat(value)
        long = len(entries) > (MOST if name.startswith("latents_") else ENTRIES)
        if long or any(isinstance(o, int | float) and abs(o) > most for o in entries):
            raise InputError(f"{short(name)} of an autoencoder is out of bounds: {short(value)}")


def flat(value): return [o for part in value for o in flat(part)] if isinstance(value, list) else [value]


def check_channels(stages):
    "Raises InputError for what are not channels of the stages of a U-Net"
    widest, most = UNETS
    if not isinstance(stages, list) or len(stages) > most or any(
            type(n) is not int or not 1 <= n <= widest for n in stages):
        raise InputError(f"channels of a U-Net are up to {most} numbers, 1 to {widest}, not {short(stages)}")


def check_base(about):
    "Raises InputError for what is not `about` of a diffusion model in pixels"
    if not isinstance(about, dict) or about.get("model") != DIFFUSION or about.get("pixels") is not True:
        raise InputError(f"the base of an upsampler is a diffusion model in pixels, not {short(about)}")
    checked(about)


LAMAS = dict(width=range(1, 513), blocks=range(101), iterations=range(1, 101), control=tuple(CONDITIONERS),
             delta=DELTAS, refiner=tuple(REFINERS), linear=SWITCH, prefill=SWITCH)
UNET = dict(channels=check_channels, layers=range(1, UNETS[1] + 1), prediction=tuple(PREDICTIONS),
            sampler=tuple(SAMPLERS), steps=range(1, 1001))
# arguments are these and no others, each by what it may be or by what checks it: a file names no other
BOUNDS = {"lama": LAMAS | dict(depth=range(1, 7), first=FIRST, detail=range(101)),
          MODEL: LAMAS | dict(autoencoder=check_autoencoder),
          DIFFUSION: UNET | dict(width=range(1, 513), depth=range(1, 7), linear=SWITCH, prefill=SWITCH,
                                 delta=SWITCH, pixels=SWITCH, control=tuple(CONTROLS),
                                 autoencoder=check_autoencoder),
          UPSAMPLER: UNET | dict(base=check_base),
          "context_encoder": dict(width=range(1, 513), size=range(8, 1025), prefill=SWITCH),
          FCF: FCF_BOUNDS | dict(prefill=SWITCH)}
DTYPES = torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64


def checked(config):
    "Kind and arguments of a model's `config`. Raises InputError for any that is unknown or out of bounds"
    arguments = dict(config)
    kind = arguments.pop("model", "lama")  # a LaMa's config names no model
    if kind not in tuple(BOUNDS): raise InputError(f"model is one of {', '.join(BOUNDS)}, not {short(kind)}")
    for name, value in arguments.items():
        if name not in BOUNDS[kind]: raise InputError(f"a {kind} has no argument {short(name)}")
        allowed = BOUNDS[kind][name]
        if callable(allowed):
            allowed(value)
            continue
        # by type as well: to Python 1, 1.0 and True are equal
        if (type(value), value) in [(type(o), o) for o in allowed]: continue
        span = isinstance(allowed, range)
        expected = f"{allowed[0]} to {allowed[-1]}" if span else ", ".join(map(repr, allowed))
        raise InputError(f"{name} of a {kind} is one of {expected}, not {short(value)}")
    return kind, arguments


def build(config, state):
    """The model of `config` with the tensors `state`, name → tensor.

    It is planned without memory first. Raises InputError where either does not fit, or a value is not finite.
    """
    check_tensors(planned(config), state)
    model = _made(config)
    model.load_state_dict(state)
    return model


def planned(config):
    "The tensors of a model of `config`, without memory for their values. Raises as `checked`"
    with torch.device("meta"): return _made(config).state_dict()


def _made(config):
    kind, arguments = checked(config)
    return BUILDERS[kind](**arguments)


def check_tensors(planned, state):
    "Raises InputError where `state` has other names, shapes or kinds of numbers than `planned`, or NaN"
    others = [*(planned.keys() ^ state.keys())]
    if others: raise InputError(f"{len(others)} tensors are missing or too many: {listed(sorted(others))}")
    wrong = [k for k, v in state.items() if v.dtype not in DTYPES or v.shape != planned[k].shape
             or v.is_floating_point() != planned[k].is_floating_point()]
    if wrong: raise InputError(f"{len(wrong)} tensors have another shape or type: {listed(wrong)}")
    if wrong := [k for k, v in state.items() if not v.isfinite().all()]:
        raise InputError(f"{len(wrong)} tensors hold NaN or infinity: {listed(wrong)}")


def listed(names): return ", ".join(map(short, names[:3])) + " …"*(len(names) > 3)


def short(value):
    "What a file says, for a message"
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
