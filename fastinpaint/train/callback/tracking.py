"Weights & Biases tracking that works offline, asks nothing and never ends a training run"
import math
import netrc
import os
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import torch
from fastai.torch_core import get_model

from ...core.errors import InputError
from ...core.files import replacing
from ...core.ranks import is_main, world
from ...judge.show import other_fills
from ...models.net import composite
from ...models.weights import write_weights
from .fit import FitCallback

RUN_ID = "wandb-run.txt"  # in a run's folder: what a resumed one goes on with
GENERATED = 4  # holes that are shown of a model that generates: each is filled several times
MODES = "online", "offline", "shared", "disabled"


def wandb():
    "The module, which takes a second to import"
    import wandb
    return wandb


def wandb_errors():
    "What W&B raises over bad settings, full disks and a dead service: it has no base class for these"
    from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError
    return (wandb().errors.Error, OSError, RuntimeError, TypeError, ValueError,
            HandleAbandonedError, MailboxClosedError)


class WandbTracking(FitCallback):
    """Logs a `fit` to W&B: settings, loss terms, learning rates, zero-conv norms, metrics, images.

    `mode` is one of `MODES`, else WANDB_MODE or the login decides. `dir` holds offline runs, `log_model`
    uploads the weights. Every `every` batches are logged, `n_images` of the validation set shown. With
    `resume` the W&B run is the one that `dir` was left by. When W&B fails, training goes on. Uses no random
    numbers. Raises InputError for an unknown mode."""
    order = 62  # after Recorder (50), Progress (60) and SaveModel (61)
    remove_on_fetch = True
    in_lr_find = False
    def __init__(self, project=None, mode=None, settings=None, name=None, dir=None, log_model=False,
                 n_images=8, every=10, resume=False):
        if mode not in (None, *MODES): raise InputError(f'mode is one of {MODES} or None, got "{mode}"')
        self.begin = partial(_begin, project, name, mode, dir, config=settings or {})
        self.log_model, self.n_images, self.every = log_model, n_images, every
        self.id_file, self.resume = dir and Path(dir)/RUN_ID, resume
        self.tracked, self.broken, self.shown = None, False, []

    @contextmanager
    def during_fit(self):
        self.broken = False
        if is_main(): self._harmless(self._start)
        try:
            yield
            # contexts of higher order have ended: EMA's average is the model by now
            if self.log_model: self._use(self._log_model)
        finally:
            if self.tracked is not None: self._harmless(self.tracked.finish)
            self.tracked = None

    def before_train(self): self.images, self.clock = 0, time.perf_counter()
    def before_validate(self): self.shown = []

    def after_batch(self):
        if self.tracked is None: return
        if not self.training: return self._keep_images()
        self.images += len(self.xb[0])*world()
        if (self.train_iter - 1) % self.every: return
        values = {"train/loss": self.loss.item(), "epoch": self.epoch + (self.iter + 1)/self.n_iter}
        for group, scalars in ("train", self.step_log.terms), ("health", self.step_log.health):
            values |= {f"{group}/{name}": float(value) for name, value in scalars.last.items()}
        values |= {f"lr/group{i}": hyper["lr"] for i, hyper in enumerate(self.opt.hypers)}
        # the clock is read after `item` waited for the device
        values["train/images_per_s"] = self.images/(time.perf_counter() - self.clock)
        self._log(values)
        self.before_train()

    def after_trained_epoch(self):
        record = zip(self.recorder.metric_names[1:-1], self.recorder.values[-1], strict=True)
        values = {f"epoch/{name}": value for name, value in record
                  if isinstance(value, int | float) and math.isfinite(value)}
        values |= {f"zero_conv/{k}": norm for k, norm in zero_conv_norms(get_model(self.model)).items()}
        if self.shown: self._harmless(lambda: values.update(samples=self._grid()))
        self._log({**values, "epoch": self.epoch + 1})

    def _start(self):
        again = self.resume and self.id_file and self.id_file.is_file()
        run = self.tracked = self.begin(**dict(id=self.id_file.read_text(), resume="allow") if again else {})
        self.resume = False  # a second fit is a run of its own
        if self.id_file:
            with replacing(self.id_file) as f: f.write(run.id.encode())
        where = run.url or f"offline; to upload this run: wandb sync {Path(run.dir).parent}"
        if not run.disabled: print(f"W&B: {where}")

    def _keep_images(self):
        "Keep the first `n_images` of the validation set, whose order is fixed; of a generator's, few"
        net = get_model(self.model)
        most = min(self.n_images, GENERATED) if getattr(net, "generates", False) else self.n_images
        n = most - sum(map(len, self.shown))
        if n <= 0: return
        masked, mask, pred, image = (x[:n] for x in (*self.xb[:2], self.pred, self.yb[0]))
        fills = [composite(fill, image, mask) for fill in (pred, *other_fills(net, masked, mask))]
        rows = torch.cat([masked, *fills, image], dim=2)
        if not self.shown or rows.shape[1:] == self.shown[0].shape[1:]: self.shown.append(rows.float().cpu())

    def _grid(self):
        "One picture [k H, n W, 3] of the kept images [n, 3, k H, W]: inputs, fills, originals"
        rows = torch.cat(self.shown).permute(2, 0, 3, 1)
        picture = (rows.flatten(1, 2).clamp(0, 1)*255).round().byte().numpy()
        return wandb().Image(picture, caption="masked, composites, original", file_type="jpg")

    def _log(self, values): self._use(lambda: self.tracked.log(values, step=self.train_iter))

    def _log_model(self):
        model = get_model(self.model)
        with TemporaryDirectory() as folder:  # the artifact takes copies
            artifact = wandb().Artifact(f"model-{self.tracked.id}", type="model")
            write_weights(Path(folder)/"model.safetensors", model.state_dict(), getattr(model, "config", {}))
            artifact.add_dir(folder)
            self.tracked.log_artifact(artifact)

    def _use(self, work):
        "Call `work`, which needs the run, while there is one and nothing has gone wrong"
        if self.tracked is not None and not self.broken: self._harmless(work)

    def _harmless(self, work):
        "Call `work`, which is for W&B alone: say once what went wrong with it, then log no more"
        try: work()
        except wandb_errors() as error:
            if not self.broken: print(f"W&B tracking stopped, training goes on: {error!r}")
            self.broken = True


def log_table(title, header, lines, project, mode, folder):
    """A W&B run of its own that holds one table, in the group of WANDB_RUN_GROUP.

    `mode` as for `WandbTracking`, and "auto" for None. When W&B fails, this says so and returns."""
    if mode == "disabled": return
    mode, group = None if mode == "auto" else mode, os.environ.get("WANDB_RUN_GROUP")
    try:
        with _begin(project, title, mode, folder, group=group, job_type="summary") as run:
            run.log({"summary": wandb().Table(columns=header, data=lines)})
    except wandb_errors() as error: print(f"W&B: no summary table: {error!r}")


def _begin(project, name, mode, folder, **kwargs):
    "A new W&B run, which asks nothing and leaves a run of the user's own alone"
    settings = wandb().Settings(silent=True, console="off", init_timeout=30)
    return wandb().init(project=project, name=name, mode=decide_mode(mode), settings=settings,
                      dir=None if folder is None else str(folder), reinit="create_new", **kwargs)


def decide_mode(mode):
    "The mode to ask W&B for: `mode`, else the user's own; offline where W&B would ask for a key"
    settings = wandb().setup().settings
    mode = mode or os.environ.get("WANDB_MODE") or settings.mode
    return "offline" if mode in ("online", "shared") and not _is_logged_in(settings) else mode


def zero_conv_norms(model):
    "Weight norm of each zero-initialised layer of `model.conditioner`, name → norm"
    modules = (getattr(model, "conditioner", None) or torch.nn.Identity()).named_modules()
    return {name: module.weight.norm().item() for name, module in modules
            if "zero" in name and isinstance(getattr(module, "weight", None), torch.Tensor)}


def _is_logged_in(settings):
    "Whether W&B will find a key without asking"
    if os.environ.get("WANDB_API_KEY") or settings.api_key or settings.identity_token_file: return True
    try: logins = netrc.netrc(os.environ.get("NETRC") or None)
    except (OSError, netrc.NetrcParseError): return False
    hosts = urlsplit(settings.base_url).netloc, "api.wandb.ai"
    return any(logins.authenticators(host) for host in hosts)
