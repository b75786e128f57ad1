from copy import deepcopy
from types import SimpleNamespace

import torch
from fastai.optimizer import Adam as PerTensor

from fastinpaint.train import adam
from fastinpaint.train.adam import Adam


def parameters(): return [torch.full((n, 3), float(n), requires_grad=True) for n in range(1, 6)]


def gradients(step):
    "Of five parameters, one of which has none in every step, and another first has one in the third"
    g = torch.Generator().manual_seed(step)
    found = [torch.randn(n, 3, generator=g) for n in range(1, 6)]
    return [None if i == step % 4 or (i == 4 and step < 2) else grad for i, grad in enumerate(found)]


def train(make, steps, state=None):
    ps = parameters()
    optimizer = make([ps[:2], ps[2:]], lr=1e-2, wd=.1, sqr_mom=.99, eps=1e-8)
    optimizer.set_hyper("lr", slice(1e-3, 1e-2))
    optimizer.state[ps[0]]["do_wd"] = False
    for step in range(steps):
        for p, grad in zip(ps, gradients(step), strict=True): p.grad = grad
        optimizer.set_hyper("mom", .8 + step/100)
        optimizer.step()
    return ps, optimizer


def test_it_takes_fastais_steps_to_the_bit(same):
    (theirs, expected), (ours, found) = (train(make, 7) for make in (PerTensor, Adam))
    assert same(ours, theirs) and same(found.state_dict(), expected.state_dict())
    assert not same(ours, parameters())


def test_it_goes_on_from_fastais_state(same):
    (theirs, expected), (ours, _) = train(PerTensor, 4), train(Adam, 4)
    other = Adam([ours[:2], ours[2:]], lr=9.)
    other.load_state_dict(deepcopy(expected.state_dict()))
    for ps, optimizer in (theirs, expected), (ours, other):
        for p in ps: p.grad = torch.ones_like(p)
        optimizer.step()
    assert same(ours, theirs)


def test_the_fused_kernel_takes_them_up_to_rounding(same, monkeypatch):
    theirs, expected = train(PerTensor, 7)
    used, kernel = [], torch._fused_adamw_
    monkeypatch.setattr(torch, "_fused_adamw_", lambda *args, **kwargs: used.append(kernel(*args, **kwargs)))
    monkeypatch.setattr(adam, "fits", lambda trained: True)
    ours, found = train(Adam, 7)
    assert used
    for a, b in zip(ours, theirs, strict=True): torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    for a, b in zip(found.state.values(), expected.state.values(), strict=True):
        assert a["step"] == b["step"]
        for name in "grad_avg", "sqr_avg": torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-6)


def test_the_fused_kernel_takes_gradients_of_another_layout(monkeypatch):
    def trained(fused):
        monkeypatch.setattr(adam, "fits", lambda trained: fused)
        p = torch.ones(4, 3, 2, 2).contiguous(memory_format=torch.channels_last).requires_grad_()
        optimizer = Adam([[p]], lr=1e-2)
        for _ in range(3):
            p.grad = torch.arange(48.).view(4, 3, 2, 2)
            optimizer.step()
        return p
    torch.testing.assert_close(trained(True), trained(False), rtol=1e-6, atol=1e-6)


def test_it_is_for_parameters_on_a_gpu():
    def on(kind): return SimpleNamespace(device=torch.device(kind))
    assert adam.fits([on("cuda")]) and not adam.fits([on("cpu")]) and not adam.fits([on("mps")])
