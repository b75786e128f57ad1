"What a Learner's model is made of, with the shapes that a batch has on its way"
import torch

from ..core.device import evaluating

DEPTH = 3  # names in a part's path that are listed, as encoder.stages.0
COLUMNS = 34, 20, 22, 12  # characters


class Text(str):
    "Shown as it is, by a notebook too"
    def __repr__(self): return self


def summary(learn):
    """A table of the model's parts: kind, shape of the output, parameters; then optimizer, loss, callbacks.

    fastai's own counts what layers are called for, and misses those that are computed in another way."""
    model, shapes = learn.model, {}
    parts = [(name, m) for name, m in model.named_modules() if name and name.count(".") < DEPTH]
    def keep(name): return lambda m, inputs, output: shapes.update({name: list(getattr(output, "shape", []))})
    hooks = [m.register_forward_hook(keep(name)) for name, m in parts]
    batch = [x.as_subclass(torch.Tensor) for x in learn.dls.train.one_batch()[:learn.dls.n_inp]]
    try:
        with torch.no_grad(), evaluating(model): output = model(*batch)
    finally:
        for hook in hooks: hook.remove()
    rows = [("part", "kind", "output", "parameters", "trained")]
    rows += [_row(name, m, shapes.get(name)) for name, m in parts] + [_row("all", model, list(output.shape))]
    table = ["".join(text.ljust(n) for text, n in zip(row, (*COLUMNS, 0), strict=True)) for row in rows]
    opt, callbacks = getattr(learn.opt_func, "func", learn.opt_func), learn.cbs.sorted("order")
    about = [f"Optimizer: {opt.__name__}", f"Loss: {learn.loss_func}",
             f"Callbacks: {', '.join(cb.name for cb in callbacks)}"]
    if learn.opt and (held := learn.opt.frozen_idx):
        about += [f"Frozen: the first {held} of {len(learn.opt.param_lists)} parameter groups"]
    return Text("\n".join([*table, "", *about]))


def _row(name, module, shape):
    parameters = list(module.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    indented = "  "*name.count(".") + name.rpartition(".")[2]
    return (indented, type(module).__name__, "×".join(map(str, shape or [])),
            f"{sum(p.numel() for p in parameters):,}", f"{trained:,}")
