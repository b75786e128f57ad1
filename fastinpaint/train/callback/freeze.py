"What stands still from which fraction of training to which"
import fnmatch
from contextlib import contextmanager
from itertools import chain

from ...core.errors import InputError
from ..groups import held, set_by_mode, set_frozen
from .fit import FitCallback


class FreezeSchedule(FitCallback):
    """Freeze parts of the model from one fraction of training to another; by default always.

    `decoder=(0, .8)` thaws it for the last fifth, None never freezes; `parts` are other modules, "." as
    "__"; `keep` names what trains all the same. Frozen: no gradients, no optimizer step, BatchNorm and
    dropout in eval mode. What `learn.freeze` holds is frozen as well, and `unfreeze` thaws nothing that the
    schedule freezes. Raises InputError for unknown modules or spans outside [0, 1]."""
    order = -5  # right after TrainEvalCallback (-10), which puts the whole model into training mode
    def __init__(self, encoder=(0, 1), decoder=(0, 1), keep=(), **parts):
        spans = dict(encoder=encoder, decoder=decoder, **parts)
        self.spans = {k.replace("__", "."): v for k, v in spans.items() if v is not None}
        self.keep = [keep] if isinstance(keep, str) else list(keep)
        for name, (start, stop) in self.spans.items():
            if not 0 <= start <= stop <= 1:
                raise InputError(f"{name} frozen from {start} to {stop}: both are in [0, 1]")

    @contextmanager
    def during_fit(self):
        names = [name for name, _ in self.model.named_modules()]
        kept = {pattern: fnmatch.filter(names, pattern) for pattern in self.keep}
        missing = [k for k in self.spans if k not in names] + [k for k, found in kept.items() if not found]
        if missing:
            raise InputError(f"the model has no module {', '.join(missing)}; its parts are "
                             f"{', '.join(k for k, _ in self.model.named_children())}")
        self.kept = [*chain(*kept.values())]
        try: yield
        finally:
            ids = held(self.opt)
            for name in self.spans:
                for p in self.model.get_submodule(name).parameters(): p.requires_grad_(id(p) not in ids)

    def before_train(self): self.frozen = None  # the whole model was just put into training mode

    def before_batch(self):
        if not self.training: return
        frozen = {k for k, (start, stop) in self.spans.items() if start <= self.pct_train < stop}
        # callbacks that look at fills amid an epoch leave the whole model in training mode
        if frozen == self.frozen and not any(m.training for m in self.still): return
        self.frozen, ids = frozen, held(self.opt)
        for name in self.spans: set_frozen(self.model.get_submodule(name), name in frozen, ids)
        for name in self.kept: set_frozen(self.model.get_submodule(name), False, ids)
        self.still = [m for m in set_by_mode(self.model) if not m.training]

