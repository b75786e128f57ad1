"An interrupted run goes on where its last whole epoch ended"
import random
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from fastai.callback.core import Callback, CancelEpochException
from fastcore.foundation import L

from ...core.files import replacing


class TrainedEpoch(Callback):
    "Base of callbacks that act after epochs of training, not after a mere validation, which fastai gives the same events"
    trained = False
    def before_train(self): self.trained = True

    def after_epoch(self):
        if self.trained and not hasattr(self.learn, "lr_finder"): self.after_trained_epoch()
        self.trained = False


class Checkpoint(TrainedEpoch):
    """After every epoch, save all that the next one depends on to `path`; with `resume`, begin there instead of at the start.

    Model, optimizer, random state, the position in the schedule and the state of every callback that has `state_dict`
    are kept, so that on a CPU a resumed run ends with the very bits of an uninterrupted one. The file is replaced whole or not
    at all, and read with `weights_only=True`. Resuming raises FileNotFoundError without a checkpoint, and ValueError if it
    belongs to another model, other callbacks or another number of epochs.
    """
    order = 90  # last, so that nothing draws random numbers between the saved state and the next epoch

    def __init__(self, path, resume=False):
        self.path, self.resume = Path(path), resume
        if resume and not self.path.is_file():
            raise FileNotFoundError(f"nothing to resume: no checkpoint at {self.path.absolute()}")

    def after_create(self): self.learn._do_fit = self._remaining_epochs

    def _remaining_epochs(self):
        # fastai's own `start_epoch` walks through the epochs it skips and logs an empty row for each
        start = self._restore() if self.resume else 0
        self.resume = False
        if start: self._start_progress_bar()
        for epoch in range(start, self.n_epoch):
            self.learn.epoch = epoch
            self.learn._with_events(self.learn._do_epoch, "epoch", CancelEpochException)

    def _start_progress_bar(self):
        bar = getattr(getattr(self.learn, "progress", None), "mbar", None)
        if bar is not None: bar.update(0)  # its clock starts with epoch 0, and it fails without

    def before_fit(self):
        if self.resume and self.learn._do_fit != self._remaining_epochs:
            raise ValueError("a Checkpoint that resumes is given to the Learner, not to `fit`, which has begun by then")

    def after_trained_epoch(self):
        state = {
            "epoch": self.epoch + 1, "n_epoch": self.n_epoch, "train_iter": self.train_iter,
            "model": self.model.state_dict(), "optimizer": self.opt.state_dict(),
            "smooth_loss": (self.recorder.smooth_loss.count, self.recorder.smooth_loss.val),
            "callbacks": {cb.name: cb.state_dict() for cb in self._stateful()}, "random": self._random_state(),
        }
        buffer = BytesIO()  # written whole, so that a full disk is met by `replacing`
        torch.save(_data(state), buffer)
        with replacing(self.path) as f: f.write(buffer.getbuffer())

    def _restore(self):
        "Take over the saved state; returns the epoch to go on with"
        device = next(self.model.parameters()).device
        state = torch.load(self.path, map_location=device, weights_only=True)
        if state["n_epoch"] != self.n_epoch:
            raise ValueError(f"{self.path} belongs to a run of {state['n_epoch']} epochs, not {self.n_epoch}")
        ours = self.model.state_dict()
        if [(k, v.shape) for k, v in state["model"].items()] != [(k, v.shape) for k, v in ours.items()]:
            raise ValueError(f"{self.path} belongs to another model")
        theirs, callbacks = state["callbacks"], {cb.name: cb for cb in self._stateful()}
        if theirs.keys() != callbacks.keys():
            raise ValueError(f"{self.path} belongs to a run with the callbacks {', '.join(theirs)}, not {', '.join(callbacks)}")
        self.model.load_state_dict(state["model"])
        self.opt.load_state_dict(state["optimizer"] | {"hypers": L(state["optimizer"]["hypers"])})
        self.recorder.smooth_loss.count, self.recorder.smooth_loss.val = state["smooth_loss"]
        for name, cb in callbacks.items(): cb.load_state_dict(theirs[name])
        self.learn.train_iter = state["train_iter"]
        self._set_random_state(state["random"])
        return state["epoch"]

    def _stateful(self):
        # asked of the type: a callback without the method passes on the model's
        return [cb for cb in self.learn.cbs if hasattr(type(cb), "state_dict")]

    def _random_state(self):
        _, numpy_key, numpy_position, *_ = np.random.get_state()
        return {"python": random.getstate(), "numpy": (numpy_key.tolist(), numpy_position),
                "torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all(),
                "loaders": [(dl.rng.getstate(), getattr(dl, "drawn", 0)) for dl in self.dls.loaders]}

    def _set_random_state(self, state):
        random.setstate(state["python"])
        np.random.set_state(("MT19937", *state["numpy"]))
        torch.set_rng_state(state["torch"].cpu())
        if len(state["cuda"]) == torch.cuda.device_count(): torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
        for dl, (rng, drawn) in zip(self.dls.loaders, state["loaders"], strict=True):
            dl.rng.setstate(rng)
            dl.drawn = drawn


def _data(x):
    "`x` in the types alone that `weights_only` reads: no NumPy numbers, tensor subclasses or fastcore lists"
    if isinstance(x, torch.Tensor): return x.as_subclass(torch.Tensor)
    if isinstance(x, np.generic): return x.item()
    if isinstance(x, dict): return {k: _data(v) for k, v in x.items()}
    if isinstance(x, L): return [_data(o) for o in x]
    return type(x)(_data(o) for o in x) if isinstance(x, list | tuple) else x


class History(TrainedEpoch):
    "Writes every epoch's losses and metrics to the CSV file `path`, whole each time; rows of a resumed run stay"
    order = 80  # before Checkpoint, whose file takes the rows along

    def __init__(self, path): self.path, self.rows = Path(path), []

    def after_trained_epoch(self):
        row = dict(zip(self.recorder.metric_names, map(_plain, self.recorder.log), strict=True))
        terms = getattr(self.learn, "loss_terms", None)
        self.rows.append(row | (terms.health_means() if terms else {}))
        names = list(self.rows[0])
        lines = [",".join(names), *[",".join(str(row.get(k, "")) for k in names) for row in self.rows]]
        with replacing(self.path) as f: f.write(("\n".join(lines) + "\n").encode())

    def state_dict(self): return {"rows": self.rows}

    def load_state_dict(self, state): self.rows = state["rows"]


def _plain(value): return value if isinstance(value, int | float) else str(value)
