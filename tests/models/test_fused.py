"By hand as by autograd: the fused step of an `FFC` against the `FFC` as it is written"
from copy import deepcopy

import pytest
import torch
from torch import nn

from fastinpaint.models import ffc
from fastinpaint.models.ffc import FFC
from fastinpaint.models.fused import fits

SIZES = [(8, 8), (5, 7), (2, 9), (4, 6), (2, 2)]


def learnt(module, x, g):
    "Output, gradients of everything, and statistics after two steps"
    for _ in range(2): y = module(x)
    return y, torch.autograd.grad(y, [x, *module.parameters()], g), [*module.buffers()]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("act", [True, False])
@pytest.mark.parametrize("h, w", SIZES)
def test_outputs_gradients_and_statistics_are_those_of_the_plain_one(monkeypatch, h, w, act, layout):
    torch.manual_seed(0)
    fast = FFC(16, 4, act).to(memory_format=layout)
    with torch.no_grad():
        for p in fast.parameters(): p.add_(.1*torch.randn_like(p))
    plain = deepcopy(fast)
    x = torch.randn(3, 16, h, w).contiguous(memory_format=layout).requires_grad_()
    g = torch.randn(3, 16, h, w)
    assert fits(fast, x)
    found = learnt(fast, x, g)
    monkeypatch.setattr(ffc, "fits", lambda *_: False)
    expected = learnt(plain, x, g)
    assert torch.allclose(found[0], expected[0], atol=1e-5)
    for a, b in zip(found[1], expected[1], strict=True): assert (a - b).abs().max() <= 1e-4*b.abs().max()
    for a, b in zip(found[2], expected[2], strict=True): assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
def test_under_autocast_it_is_as_exact_as_the_plain_one(monkeypatch, given):
    torch.manual_seed(0)
    module = FFC(16, 4)
    plain, exact = deepcopy(module), deepcopy(module)
    x = torch.randn(3, 16, 8, 8).to(given).requires_grad_()
    g = torch.randn(3, 16, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert fits(module, x)
        found = learnt(module, x, g.bfloat16())
    monkeypatch.setattr(ffc, "fits", lambda *_: False)
    with torch.autocast("cpu", torch.bfloat16): other = learnt(plain, x, g.bfloat16())
    expected = learnt(exact, x.detach().float().requires_grad_(), g)
    assert found[0].dtype == torch.bfloat16 and found[1][0].dtype == given
    assert {o.dtype for o in found[1][1:]} == {torch.float32}

    def errors(of): return [(a - b).norm()/b.norm() for a, b in zip(of, everything(expected), strict=True)]
    for ours, theirs in zip(errors(everything(found)), errors(everything(other)), strict=True):
        assert ours < max(2*theirs, .01)


def everything(found): return [found[0], *found[1], *(o for o in found[2] if o.is_floating_point())]


def test_a_second_backward_pass_gives_the_same_gradients():
    module, x = FFC(8, 2), torch.randn(2, 8, 6, 6, requires_grad=True)
    y = module(x)
    first, second = (torch.autograd.grad(y.square().sum(), [x, *module.parameters()], retain_graph=True)
                     for _ in range(2))
    assert all(map(torch.equal, first, second))


def usual(module): pass
def frozen_statistics(module): module.bn.eval()
def average_of_all(module): module.bn.momentum = None
def hooked(module): module.to_local.register_forward_hook(lambda *_: None)
def hooked_deep(module): module.spectral.fourier.conv.register_forward_hook(lambda *_: None)
def synchronised(module): module.bn.__class__ = nn.SyncBatchNorm


@pytest.mark.parametrize("change", [frozen_statistics, average_of_all, hooked, hooked_deep, synchronised])
def test_what_is_unusual_is_left_to_autograd(change):
    module, x = FFC(8, 2), torch.randn(2, 8, 6, 6)
    assert fits(module, x) and not fits(module, x.double())
    with torch.autocast("cpu", torch.float16): assert not fits(module, x)
    with torch.no_grad(): assert not fits(module, x)
    change(module)
    assert not fits(module, x)
