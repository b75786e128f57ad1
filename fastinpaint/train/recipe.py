"What all recipes share: flags, data, training, and the files of a run"
import json
import sys
from pathlib import Path

import fastai.callback.schedule  # noqa: F401 - gives the Learner fit_one_cycle
import matplotlib.pyplot as plt
from fastai.callback.channelslast import ChannelsLast
from fastai.torch_core import set_seed
from fastcore.meta import delegates
from fastcore.script import store_true

from ..core.device import choose_device
from ..core.files import replacing
from ..core.old_settings import setting
from ..data.loaders import InpaintDataLoaders
from ..data.photos import named_data
from ..judge.show import results_figure
from ..models.load import save_model
from ..models.perceptual import perceptual_network
from .callback.checkpoint import Checkpoint, History
from .callback.ema import EMA
from .callback.precision import BFloat16
from .callback.step_times import StepParts
from .learner import inpaint_learner
from .losses import InpaintLoss, Perceptual, PixelL1

MAY_CHANGE = {"out", "device", "workers", "wandb", "project", "resume"}  # on resuming; anything else would be another run


def train_recipe(
    recipe,  # Name of the recipe: the folder of its runs, and their W&B name
    model,   # Makes the model from `width`, `blocks`, `linear`, `prefill` and `autoencoder`
    cbs,     # Callbacks that make the method
    loss=None,    # Its terms on pixels; L1 by default
    chosen=None,  # What else it decided on, for settings.json
    *,
    data: str = setting("data", "sample"),     # Photographs: a folder, or sample, pets, imagenette
    masks: str = setting("masks", "train"),    # Holes: train, thin, medium, thick, center, outpaint, a folder, or pool:FOLDER
    invert: store_true = False,                # In mask files, 0 or black is the hole
    valid: str = setting("valid", ""),         # Validation: a folder or a fraction; by default valid/ in the data, or 0.1
    augment: bool = True,                      # Turn, warp and recolour training photographs, unless --no-augment
    size: int = setting("size", 128),          # Side of the square crops in pixels
    bs: int = setting("bs", 8),                # Batch size
    epochs: int = setting("epochs", 5),        # Epochs, each ending in a validation
    steps: int = setting("steps", 2500),       # Training steps in all; 0: an epoch is one pass through the photographs
    lr: float = setting("lr", 3e-3),           # Highest learning rate of the one-cycle schedule
    seed: int = setting("seed", 42),           # Of everything random; a CPU run repeats to the bit
    width: int = setting("width", 8),          # Channels of the first stage (published LaMa: 64)
    blocks: int = setting("blocks", 9),        # Residual blocks of the refiner
    plain: store_true = False,                 # LaMa's published layers, without linear paths
    prefill: bool = True,                      # Fill holes smoothly before the encoder sees them, unless --no-prefill
    autoencoder: str = setting("autoencoder", "sample"),  # Where encoder and decoder start: sample, a file, or none
    out: str = setting("out", "runs"),         # Folder of runs; this one goes to OUT/RECIPE
    device: str = setting("device", "auto"),   # auto, cpu, cuda, cuda:1, mps …
    bf16: store_true = False,                  # bfloat16 autocast
    ema: float = 0.,                           # Decay of a moving average of the weights, evaluated and saved instead; 0: none
    workers: int = setting("workers", -1),     # Data loading processes; -1 chooses
    wandb: str = setting("wandb", "disabled"), # W&B: disabled, offline, online, or auto (online if logged in)
    project: str = setting("project", "fastinpaint"),  # W&B project
    log_model: store_true = False,             # Upload the weights to W&B at the end
    resume: store_true = False,                # Go on with the interrupted run in OUT/RECIPE
):
    """Train `recipe`, write the model, `metrics.csv`, `results.png` and `settings.json` to `out/recipe`, and return the Learner.

    Ctrl-C ends training early, with the model as it stands saved; `resume` then continues from the last whole epoch.
    """
    settings = {k: v for k, v in locals().items() if k not in ("model", "cbs", "loss", "chosen")} | (chosen or {})
    folder, device = Path(out)/recipe, choose_device(device)
    if resume: check_settings(folder/"settings.json", settings)
    set_seed(seed)
    dls = InpaintDataLoaders.from_folder(
        named_data(data), masks, size, bs, valid=_fraction(valid), seed=seed, steps=-(-steps//epochs) if steps else None,
        augment=augment, invert=invert, num_workers=_workers(workers, device), device=device)
    autoencoder = None if autoencoder == "none" else autoencoder
    model = model(width=width, blocks=blocks, linear=not plain, prefill=prefill, autoencoder=autoencoder)
    learn = inpaint_learner(dls, model, loss, lr=lr, path=folder, cbs=[
        *cbs, ChannelsLast(), *([BFloat16()] if bf16 else []), *([EMA(ema)] if ema else []), StepParts(folder/"step.json"),
        History(folder/"metrics.csv"), Checkpoint(folder/"checkpoint.pt", resume),
        *_tracking(wandb, project, recipe, settings, folder, log_model)])
    with replacing(folder/"settings.json") as f: f.write(json.dumps(settings, indent=1).encode())
    print(f"{recipe}: {len(dls.train_ds)} photographs to train on, {len(dls.valid_ds)} to validate, {size} px, on {device}")
    interrupted = _fit(learn, epochs, lr, folder)
    save_model(learn, folder/"model.safetensors")
    if interrupted: sys.exit(130)
    results_figure(learn, 6).savefig(folder/"results.png", dpi=110)
    plt.close("all")
    print("\n".join(["", *(f"{o:24} {folder/f}" for o, f in FILES.items())]))
    return learn


recipe_flags = delegates(train_recipe, but=["loss", "chosen"])  # gives a recipe the flags of `train_recipe`


def full_loss(perceptual):
    """LaMa's losses on images besides the adversarial ones: L1 on known pixels and the perceptual term, with its weights.

    `perceptual` as for `perceptual.perceptual_network`. Returns the loss, and for settings.json what was asked for and found.
    """
    network, name = perceptual_network(perceptual)
    terms = [PixelL1(10., known=1., missing=0.), *([Perceptual(network)] if network else [])]
    print(f"perceptual term: {name}")
    return InpaintLoss(*terms), {"perceptual": perceptual, "perceptual_network": name}


FILES = {"the model": "model.safetensors", "losses and metrics": "metrics.csv", "a step's time by part": "step.json",
         "filled holes": "results.png", "what it was made with": "settings.json"}


def _fit(learn, epochs, lr, folder):
    "Whether training was interrupted by Ctrl-C; where a loss is no number any more, it ends the program"
    try: learn.fit_one_cycle(epochs, lr)
    except FloatingPointError as error:
        sys.exit(f"\n{error}. {folder/'checkpoint.pt'} is as it was after the last whole epoch; a smaller --lr may help.")
    except KeyboardInterrupt:
        for average in learn.cbs.filter(lambda cb: isinstance(cb, EMA)): average.finish()
        how = f"--resume goes on after epoch {learn.epoch - 1}" if learn.epoch else "without a whole epoch nothing to resume"
        print(f"\nInterrupted in epoch {learn.epoch}; the model as it stands is in {folder/'model.safetensors'}; {how}.")
        return True
    return False


def check_settings(file, settings):
    "Raises ValueError where the run that left `file` was made with others of these settings: its results are not this run's"
    if not file.is_file(): return
    before = json.loads(file.read_text())
    changed = [f"{k}={before.get(k)!r}, now {v!r}" for k, v in settings.items() if k not in MAY_CHANGE and before.get(k) != v]
    if changed: raise ValueError(f"{file.parent} was made with other settings: {'; '.join(changed)}. Choose another --out")


def _fraction(valid):
    "A fraction or a folder, as given on the command line; None if nothing was"
    try: return float(valid) if valid else None
    except ValueError: return valid


def _workers(workers, device):
    # beside the training itself a CPU has no cores to spare: workers only get in its way
    if workers < 0: return 0 if device.type == "cpu" else None
    return workers


def _tracking(mode, project, recipe, settings, folder, log_model):
    if mode == "disabled": return []
    from .callback.tracking import WandbTracking  # takes a second to import
    return [WandbTracking(project, None if mode == "auto" else mode, settings, recipe, folder, log_model)]


