"The share of each loss term in the gradient, which says more of a weight than the term's share of the loss"
import torch

from ...core.errors import InputError
from .fit import FitCallback


class GradientShare(FitCallback):
    """Every `every` steps, the norm of each weighted term's gradient as a share of the sum of these norms.

    With respect to the parameters that train; written to `step_log.health` as `grad_share_<term>`. Terms that
    reach none of them are left out. It costs a backward pass a term and changes nothing. Raises InputError
    for `every` below 1."""
    order = 25  # before AdversarialTraining (30), whose own backward passes end the event
    in_lr_find = False
    def __init__(self, every=50):
        if every < 1: raise InputError(f"every={every}: expected a number of steps, at least 1")
        self.every = every

    def before_backward(self):
        if not self.in_fit or self.train_iter % self.every: return
        trained = [p for p in self.model.parameters() if p.requires_grad]
        norms = {t.name: gradient_norm(t.weight*self.objective.values[t.name], trained)
                 for t in self.objective.terms}
        norms = {name: norm for name, norm in norms.items() if norm is not None}
        total = sum(norms.values())
        self.step_log.health.write({f"grad_share_{name}": norm/total for name, norm in norms.items()})


def gradient_norm(value, parameters):
    "Norm of the gradient of a scalar over all `parameters`, None where it reaches none; its graph stays"
    if not value.requires_grad: return None
    found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    norms = [g.float().norm() for g in found if g is not None]
    return torch.stack(norms).norm() if norms else None


def weight_for_share(measured, weight, share):
    """The weight with which a term of gradient share `measured` at `weight` would have `share`.

    Its norm grows with the weight, those of the others stay. Raises InputError for shares outside (0, 1)."""
    if not (0 < measured < 1 and 0 < share < 1):
        raise InputError(f"shares lie between 0 and 1, got {measured=} and {share=}")
    return weight*share/(1 - share)*(1 - measured)/measured
