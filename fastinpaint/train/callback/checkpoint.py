"An interrupted run goes on where its last whole epoch ended"
import random
from io import BytesIO
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from fastcore.foundation import L

from ...core.errors import InputError, MissingFile
from ...core.files import replacing
from ...core.ranks import is_main
from ...models.published import UNREADABLE
from .fit import FitCallback


class Checkpoint(FitCallback):
    """After every epoch, save all that the next one depends on to `path`; `resume` begins the next fit there.

    `settings`, of plain types, travel in it. A resumed CPU run ends with the bits of a whole one. The file is
    replaced whole. Raises MissingFile without one, InputError where it cannot be read, and for another
    model, other callbacks or another number of epochs."""
    order = 90  # last: nothing draws random numbers between the saved state and the next epoch
    in_lr_find = False
    def __init__(self, path, resume=False, settings=None):
        self.path, self.resume, self.settings = Path(path), resume, settings
        if resume and not self.path.is_file():
            raise MissingFile(f"nothing to resume: no checkpoint at {self.path.absolute()}")

    def before_fit(self):
        # fastai's own `start_epoch` walks through skipped epochs and logs an empty row for each
        if not (self.resume and self.in_fit): return
        self.learn.first_epoch, self.resume = self._restore(), False
        bar = getattr(getattr(self.learn, "progress", None), "mbar", None)
        if bar is not None: bar.update(0)  # its clock starts with epoch 0, and it fails without

    def after_trained_epoch(self):
        if not is_main(): return
        state = {
            "epoch": self.epoch + 1, "n_epoch": self.n_epoch, "train_iter": self.train_iter,
            "model": self.model.state_dict(), "optimizer": self.opt.state_dict(), "groups": self._groups(),
            "smooth_loss": (self.recorder.smooth_loss.count, self.recorder.smooth_loss.val),
            "callbacks": {name: cb.state_dict() for name, cb in self._stateful().items()},
            "random": self._random_state(), "settings": self.settings,
        }
        buffer = BytesIO()  # written whole, so that a full disk is met by `replacing`
        torch.save(_data(state), buffer)
        with replacing(self.path) as f: f.write(buffer.getbuffer())

    def _restore(self):
        "Take over the saved state; returns the epoch to go on with"
        device = next(self.model.parameters()).device
        state = read_checkpoint(self.path, map_location=device)
        self._check(state)
        self.model.load_state_dict(state["model"])
        self.opt.load_state_dict(state["optimizer"])
        self.recorder.smooth_loss.count, self.recorder.smooth_loss.val = state["smooth_loss"]
        for name, cb in self._stateful().items(): cb.load_state_dict(state["callbacks"][name])
        self.learn.train_iter = state["train_iter"]
        self._set_random_state(state["random"])
        return state["epoch"]

    def _check(self, state):
        if state["n_epoch"] != self.n_epoch:
            raise InputError(f"{self.path} belongs to a run of {state['n_epoch']} epochs, not {self.n_epoch}")
        theirs, ours = ([(k, v.shape) for k, v in weights.items()]
                        for weights in (state["model"], self.model.state_dict()))
        if theirs != ours: raise InputError(f"{self.path} belongs to another model")
        theirs, ours = state["callbacks"], self._stateful()
        if theirs.keys() != ours.keys():
            raise InputError(f"{self.path} belongs to a run with the callbacks "
                             f"{', '.join(theirs)}, not {', '.join(ours)}")
        state["optimizer"] = self._regrouped(state["optimizer"], state.get("groups"))

    def _groups(self):
        "Names of the parameters of each of the optimizer's groups"
        names = {id(p): name for name, p in self.model.named_parameters()}
        return [[names.get(id(p)) for p in group] for group in self.opt.param_lists]

    def _regrouped(self, optimizer, groups):
        "The optimizer's state in the order of our groups; one without `groups` is of a single one"
        ours, hypers = self._groups(), optimizer["hypers"]
        groups = groups or [[name for name, _ in self.model.named_parameters()]]
        if groups != ours:
            known = dict(zip(chain(*groups), optimizer["state"], strict=True))
            if len(groups) > 1 or known.keys() != set(chain(*ours)):
                raise InputError(f"{self.path} belongs to a run with other parameter groups: its splitter "
                                 "makes others")
            hypers = [dict(hypers[0]) for _ in ours]
            optimizer = optimizer | {"state": [known[name] for name in chain(*ours)]}
        return optimizer | {"hypers": L(hypers)}

    def _stateful(self):
        # asked of the type: a callback without the method passes on the model's
        return {cb.name: cb for cb in self.learn.cbs if hasattr(type(cb), "state_dict")}

    def _random_state(self):
        gpu = self._gpu()
        return {"python": random.getstate(), "numpy": np.random.get_state()[1:],
                "torch": torch.get_rng_state(), "cuda": gpu and torch.cuda.get_rng_state(gpu),
                "loaders": [(o.rng.getstate(), getattr(o, "drawn", 0)) for o in self.dls.loaders]}

    def _gpu(self):
        "The model's GPU, None without one: another process may use the other GPUs"
        device = next(self.model.parameters()).device
        return device if device.type == "cuda" else None

    def _set_random_state(self, state):
        random.setstate(state["python"])
        np.random.set_state(("MT19937", *state["numpy"]))
        torch.set_rng_state(state["torch"].cpu())
        if self._gpu() and torch.is_tensor(state["cuda"]):
            torch.cuda.set_rng_state(state["cuda"].cpu(), self._gpu())
        for dl, (rng, drawn) in zip(self.dls.loaders, state["loaders"], strict=True):
            dl.rng.setstate(rng)
            dl.drawn = drawn


def read_checkpoint(path, **kwargs):
    "The dict in a file of `Checkpoint`; `kwargs` go to `torch.load`. Raises InputError for another file"
    try: return torch.load(path, weights_only=True, **kwargs)
    except UNREADABLE as e:
        raise InputError(f"the checkpoint {path} cannot be read ({e}); without it, a run begins anew by "
                         "--overwrite") from e


def settings_in(path):
    "The settings that travel in the checkpoint `path`, {} where none do. Raises as `read_checkpoint`"
    return read_checkpoint(path, mmap=True).get("settings") or {}  # its tensors are not read


def _data(x):
    "`x` without NumPy's types, tensor subclasses and fastcore's lists, which `weights_only` does not read"
    if isinstance(x, torch.Tensor): return x.as_subclass(torch.Tensor)
    if isinstance(x, np.generic | np.ndarray): return x.tolist()
    if isinstance(x, dict): return {k: _data(v) for k, v in x.items()}
    if isinstance(x, L): return [_data(o) for o in x]
    return type(x)(_data(o) for o in x) if isinstance(x, list | tuple) else x
