"Parameter groups, for `freeze` and discriminative learning rates, and what stands still with them"
from fastai.callback.core import Callback
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd


def parameter_groups(model):
    """Lists of parameters of encoder, decoder, refiner and control, in this order; empty ones are left out.

    The last is thawed first: `freeze()` trains control alone, `freeze_to(-2)` the refiner, too, as the thesis
    does, and `slice(1e-5, 1e-3)` gives the encoder the smallest rate. What belongs to none goes with the
    refiner."""
    parts = dict(encoder=[], decoder=[], refiner=[], conditioner=[])
    for name, p in model.named_parameters():  # gives one that is shared once
        parts.get(name.partition(".")[0], parts["refiner"]).append(p)
    return [group for group in parts.values() if group]


def held(opt):
    "Ids of the parameters that `freeze` holds"
    return {id(p) for group in opt.param_lists[:opt.frozen_idx] for p in group}


def set_frozen(module, frozen, held=()):
    "Let `module` train, but for the parameters `held`, or stand still, BatchNorm and dropout too"
    for p in module.parameters():
        p.requires_grad_(not frozen and id(p) not in held)
        # a gradient of zeros would still move the weights: by momentum and by weight decay
        if not p.requires_grad: p.grad = None
    for m in set_by_mode(module): m.train(not frozen and not any(id(p) in held for p in m.parameters()))


def set_by_mode(module): return [m for m in module.modules() if isinstance(m, _BatchNorm | _DropoutNd)]


class HeldGroups(Callback):
    "What `learn.freeze` holds keeps its BatchNorm in eval mode"
    order = -9  # right after TrainEvalCallback (-10), which puts the whole model into training mode
    def before_batch(self):  # of each, as callbacks may put the model into another mode and back
        if self.training and (ids := held(self.opt)):
            for m in self.model.modules():
                if isinstance(m, _BatchNorm) and any(id(p) in ids for p in m.parameters()): m.eval()
