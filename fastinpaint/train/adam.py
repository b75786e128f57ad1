"fastai's Adam in a few operations on all parameters together"
from itertools import groupby

import torch
from fastai.optimizer import Optimizer, debias


class Adam(Optimizer):
    """fastai's own `Adam` with decoupled weight decay: its state, its hyperparameters, its result.

    Instead of some ten operations a parameter a step takes as many for each parameter group, to the same
    bits, and on a GPU a single one, equal up to rounding."""
    def __init__(self, params, lr, mom=.9, sqr_mom=.99, eps=1e-5, wd=.01):
        super().__init__(params, [], lr=lr, mom=mom, sqr_mom=sqr_mom, eps=eps, wd=wd)

    @torch.no_grad()
    def step(self, closure=None):
        for group, hypers in zip(self.param_lists, self.hypers, strict=True):
            trained = [p for p in group if p.grad is not None]
            if trained: self._step(trained, **hypers)

    def _step(self, trained, lr, mom, sqr_mom, eps, wd, **_):
        states = [self.state[p] for p in trained]
        for p, state in zip(trained, states, strict=True):
            for name in "grad_avg", "sqr_avg":
                if state.get(name) is None: state[name] = torch.zeros_like(p.grad)
            state["step"] = state.get("step", 0) + 1
        (one_kernel if fits(trained) else together)(trained, states, lr, mom, sqr_mom, eps, wd)


def fits(trained): return trained[0].device.type == "cuda"


def together(trained, states, lr, mom, sqr_mom, eps, wd):
    "The step in operations on lists of tensors, to the bits of fastai's"
    grads = [p.grad for p in trained]
    averages, squares = ([state[name] for state in states] for name in ("grad_avg", "sqr_avg"))
    decayed = [p for p, state in zip(trained, states, strict=True) if state.get("do_wd", True)]
    if wd and decayed: torch._foreach_mul_(decayed, 1 - lr*wd)
    torch._foreach_mul_(averages, mom)
    torch._foreach_add_(averages, grads, alpha=1 - mom)
    torch._foreach_mul_(squares, sqr_mom)
    torch._foreach_addcmul_(squares, grads, grads, 1 - sqr_mom)
    roots = torch._foreach_div(squares, [debias(sqr_mom, 1 - sqr_mom, s["step"]) for s in states])
    torch._foreach_sqrt_(roots)
    torch._foreach_add_(roots, eps)
    rates = [-lr/debias(mom, 1 - mom, s["step"]) for s in states]
    torch._foreach_addcdiv_(trained, averages, roots, rates)


def one_kernel(trained, states, lr, mom, sqr_mom, eps, wd):
    "The step by torch's fused kernel, which wants all tensors of a parameter in one layout"
    for p, state in zip(trained, states, strict=True):
        for name in "grad_avg", "sqr_avg": state[name] = laid_out_as(p, state[name])
    def kind(pair): return pair[1].get("do_wd", True), pair[1]["step"]
    pairs = sorted(zip(trained, states, strict=True), key=kind)
    for (decays, step), alike in groupby(pairs, kind):
        ps, of = zip(*alike, strict=True)
        count = torch.full((), float(step), device=ps[0].device)
        torch._fused_adamw_(ps, [laid_out_as(p, p.grad) for p in ps], [s["grad_avg"] for s in of],
                            [s["sqr_avg"] for s in of], [], [count]*len(ps), lr=lr, beta1=mom, beta2=sqr_mom,
                            weight_decay=wd if decays else 0., eps=eps, amsgrad=False, maximize=False)


def laid_out_as(p, x): return x if x.stride() == p.stride() else torch.empty_like(p).copy_(x)
