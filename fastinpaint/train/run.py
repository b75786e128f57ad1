"A run of a recipe: its data, its training, and the files that it leaves"
import json
import math
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
from fastai.callback.channelslast import ChannelsLast
from fastai.callback.training import GradientClip
from fastai.torch_core import set_seed

from ..core.device import choose_device
from ..core.errors import Diverged, InputError
from ..core.files import held, json_object, replacing
from ..core.ranks import is_main, main_speaks, restarted, world
from ..core.together import first_of_machine_first, of_main, start
from ..data.loaders import InpaintDataLoaders
from ..data.named import named_data
from ..judge.metrics import default_metrics
from ..judge.show import results_figure
from ..models.autoencoders import is_foreign
from ..models.load import save_model
from .adam import Adam
from .callback.adversarial import AdversarialTraining
from .callback.checkpoint import Checkpoint, settings_in
from .callback.compiled import Compiled
from .callback.distributed import Distributed
from .callback.ema import EMA
from .callback.history import History
from .callback.precision import BFloat16
from .callback.step_times import StepTimes
from .learner import inpaint_learner

# when a run is resumed; with anything else changed it would be another run
MAY_CHANGE = {"out", "device", "workers", "compile", "wandb", "project", "resume", "overwrite", "processes"}
SCHEDULES = dict(one_cycle="fit_one_cycle", constant="fit")  # names of methods of the Learner
FILES = {"the model": "model.safetensors", "losses and metrics": "metrics.csv",
         "a step's time by part": "step.json", "filled holes": "results.png",
         "what it was made with": "settings.json"}


@main_speaks()
def train_recipe(name, settings, model, cbs=(), loss=None, chosen=None):
    """Train a recipe, write `FILES` to the folder `name` in `settings.out`, and return the Learner.

    `model` makes a network from settings, `cbs` the method; `chosen` goes to settings.json. Ctrl-C saves
    the model; `resume` continues from the last whole epoch. Raises Diverged where a loss is not finite,
    InputError where settings do not fit, or not the run to resume, and where the folder holds a run that
    neither `resume` nor `overwrite` is for, or another process has it."""
    _check_optimisation(settings)
    folder, device = Path(settings.out)/name, choose_device(settings.device)
    start(device)
    about = dict(recipe=name) | asdict(settings) | (chosen or {})
    if world() > 1: about["processes"] = world()
    again = of_main(partial(_goes_on_by_itself, folder))
    if again: settings = replace(settings, resume=True)
    _check_folder(folder, settings, about)
    set_seed(settings.seed)
    with first_of_machine_first(): dls = _loaders(settings, device)
    net, cbs = _network(settings, model), [*cbs, *_callbacks(settings, folder, about, cbs)]
    learn = inpaint_learner(dls, net, loss, default_metrics(settings.lpips), cbs, settings.lr,
                            init=settings.init, path=folder,
                            opt_func=partial(Adam, sqr_mom=settings.beta2, eps=1e-8))
    if foreign := learn.model.config.get("autoencoder"):  # whose files may have changed
        about["autoencoder_sha256"] = foreign["sha256"]
    with held(folder) if is_main() else nullcontext():
        if is_main() and not again: _begin(folder, settings, about)
        print(f"{name}: {len(dls.train_ds)} photographs to train on, {len(dls.valid_ds)} to validate, "
              f"{settings.size} px, on {device}{_processes(settings)}")
        _fit(learn, settings, folder)
        figure = results_figure(learn, 6)
        if is_main():
            with replacing(folder/"results.png") as f: figure.savefig(f, dpi=110, format="png")
    plt.close("all")
    print("\n".join(["", *(f"{what:24} {folder/file}" for what, file in FILES.items())]))
    return learn


def _check_folder(folder, settings, about):
    "Raises InputError where `folder` holds a run that would be lost, or another than the one to resume"
    checkpoint = folder/"checkpoint.pt"
    if settings.resume:  # settings.json may be of a later run, which ended before its first epoch did
        before = settings_in(checkpoint) if checkpoint.is_file() else {}
        return _compare(folder, before, about) if before else check_settings(folder/"settings.json", about)
    found = [o.name for o in (checkpoint, folder/FILES["the model"]) if o.exists()]
    if found and not settings.overwrite:
        goes_on = "--resume goes on with it, " if checkpoint.exists() else ""
        raise InputError(f"{folder} holds a run already ({', '.join(found)}): {goes_on}--overwrite begins "
                         "anew, another --out keeps both")


def _begin(folder, settings, about):
    "What a run does to its folder before it trains: an earlier one's files would be taken for its own"
    _check_folder(folder, settings, about)  # another process may have had it since
    if not settings.resume:
        for name in ("checkpoint.pt", "wandb-run.txt", *FILES.values()): (folder/name).unlink(missing_ok=True)
    with replacing(folder/"settings.json") as f: f.write(json.dumps(about, indent=1).encode())


def _goes_on_by_itself(folder):
    "Whether the launcher has started this run again and its checkpoint is younger than its beginning"
    written = [folder/name for name in ("checkpoint.pt", "settings.json")]
    if not (restarted() and all(o.is_file() for o in written)): return False
    checkpoint, begun = (o.stat().st_mtime_ns for o in written)
    return checkpoint >= begun


def _processes(settings):
    "What is printed of them: the batch of all"
    if world() == 1: return ""
    return f"; {world()} processes with batches of {settings.bs}: {world()*settings.bs} photographs a step"


def _check_optimisation(s):
    "Raises InputError for settings that no optimizer takes"
    if s.schedule not in SCHEDULES:
        raise InputError(f"--schedule {s.schedule}: it is one of {', '.join(SCHEDULES)}")
    if s.epochs < 1: raise InputError(f"--epochs {s.epochs}: a run has at least one")
    if not 0 <= s.lr < math.inf: raise InputError(f"--lr {s.lr:g}: a learning rate is 0 or more: 1e-3")
    if not 0 <= s.beta2 < 1: raise InputError(f"--beta2 {s.beta2}: a decay is in [0, 1)")
    if s.clip < 0: raise InputError(f"--clip {s.clip}: a norm is not negative; 0 clips nothing")


def _network(settings, model):
    "What `model` makes of `settings`; with `init` an untrained one, whose weights are not needed"
    autoencoder = "none" if settings.init and not is_foreign(settings.autoencoder) else settings.autoencoder
    # of the file's blocks there are as many as there are
    blocks = max(settings.blocks, getattr(settings, "detail", 0)) if settings.init else settings.blocks
    return model(width=settings.width, blocks=blocks, linear=not settings.plain,
                 refiner=settings.refiner, prefill=settings.prefill,
                 autoencoder=None if autoencoder == "none" else autoencoder)


def check_settings(file, settings):
    "Raises InputError where the run that left `file` was made with others of these settings"
    if file.is_file(): _compare(file.parent, json_object(file.read_text(), file), settings)


def _compare(folder, before, settings):
    # with another number of processes, batches of each may differ or those of all
    may_change = MAY_CHANGE | ({"bs"} if _batch(before) == _batch(settings) else set())
    changed = [f"{k}={before.get(k)!r}, now {v!r}" for k, v in settings.items()
               if k not in may_change and before.get(k) != v]
    if changed:
        raise InputError(f"{folder} was made with other settings: {'; '.join(changed)}. "
                         "Choose another --out")


def _batch(settings): return settings.get("bs", 0)*settings.get("processes", 1)


def _loaders(settings, device):
    epochs, workers = settings.epochs, settings.workers
    # beside the training itself a CPU has no cores to spare: workers only get in its way
    if workers < 0: workers = 0 if device.type == "cpu" else None
    return InpaintDataLoaders.from_folder(
        named_data(settings.data), settings.masks, settings.size, settings.bs, native=settings.native,
        valid=_fraction(settings.valid), seed=settings.seed, augment=settings.augment, invert=settings.invert,
        steps=-(-settings.steps//epochs) or None, num_workers=workers, device=device)


def _fraction(valid):
    "A fraction or a folder, as it is written in a flag; None where nothing is"
    try: return float(valid) if valid else None
    except ValueError: return valid


def _callbacks(settings, folder, about, method):
    "What every run has besides its method, which may clip gradients itself"
    cbs = [ChannelsLast(), StepTimes(folder/"step.json"), History(folder/"metrics.csv"),
           Checkpoint(folder/"checkpoint.pt", settings.resume, about)]
    if settings.clip and not any(isinstance(cb, AdversarialTraining) for cb in method):
        cbs.append(GradientClip(settings.clip))
    if settings.bf16: cbs.append(BFloat16())
    if settings.compile: cbs.append(Compiled())
    if settings.ema: cbs.append(EMA(settings.ema))
    if world() > 1: cbs.append(Distributed(settings.sync_bn))
    if settings.wandb != "disabled":
        from .callback.tracking import WandbTracking  # takes a second to import
        mode = None if settings.wandb == "auto" else settings.wandb
        cbs.append(WandbTracking(settings.project, mode, about, about["recipe"], folder, settings.log_model,
                                 resume=settings.resume))
    return cbs


def _fit(learn, settings, folder):
    "Train by the schedule and save the model; after Ctrl-C as well"
    weights = folder/"model.safetensors"
    try: getattr(learn, SCHEDULES[settings.schedule])(settings.epochs, settings.lr)
    except FloatingPointError as error:
        checkpoint = folder/"checkpoint.pt"
        kept = f"{checkpoint} is as it was after the last whole epoch. " if checkpoint.exists() else ""
        raise Diverged(f"{error}. {kept}A smaller --lr may help.") from error
    except KeyboardInterrupt:
        if is_main(): save_model(learn, weights)
        epoch = getattr(learn, "epoch", 0)  # before the first one begins, there is none
        how = (f"--resume goes on after epoch {epoch - 1}" if epoch else
               "without a whole epoch nothing to resume")
        raise KeyboardInterrupt(f"the model as it stands in epoch {epoch} is in {weights}; {how}") from None
    if is_main(): save_model(learn, weights)
