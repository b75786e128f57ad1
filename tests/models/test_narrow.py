"Convolutions of few channels: the same numbers, in other operations"
import pytest
import torch
import torch.nn.functional as F

from fastinpaint.models import narrow

LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])


@LAYOUTS
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("channels, height", [(8, 16), (3, 14), (8, 15), (9, 16)])
def test_a_narrow_convolution_is_the_convolution(channels, height, bias, layout):
    x = torch.randn(2, 4, height + 6, 21).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(channels, 4, 7, 7, requires_grad=True)
    bias = torch.randn(channels, requires_grad=True) if bias else None
    learnt = [x, weight] + ([] if bias is None else [bias])
    found, expected = narrow.conv(x, weight, bias), F.conv2d(x, weight, bias)
    assert torch.allclose(found, expected, atol=1e-4)
    g = torch.randn_like(expected)
    grads = (torch.autograd.grad(y, learnt, g) for y in (found, expected))
    for a, b in zip(*grads, strict=True):
        assert torch.allclose(a, b, atol=1e-4*b.abs().max())


def test_two_rows_are_made_at_once_where_that_pays(monkeypatch):
    seen = []
    monkeypatch.setattr(narrow, "blocks_conv", lambda *_: seen.append(1))
    narrow.conv(torch.rand(1, 4, 22, 22), torch.rand(8, 4, 7, 7))
    assert seen
    for weight, stride in ((16, 4, 7, 7), 1), ((8, 4, 7, 7), (2, 2)), ((8, 4, 1, 1), 1):
        assert narrow.conv(torch.rand(1, 4, 22, 22), torch.rand(weight), None, stride) is not None
    assert len(seen) == 1


@LAYOUTS
@pytest.mark.parametrize("block", [(2, 2), (2, 1), (1, 3)])
def test_blocks_of_any_shape(block, layout):
    x, weight, bias = torch.randn(2, 5, 17, 23), torch.randn(3, 5, 6, 6), torch.randn(3)
    x = x.contiguous(memory_format=layout)
    found = narrow.blocks_conv(x, *narrow.pixel_blocks(weight, bias, block), block)
    assert torch.allclose(found, F.conv2d(x, weight, bias), atol=1e-4)


@LAYOUTS
@pytest.mark.parametrize("channels, height", [((4, 8), 6), ((1, 8), 6), ((4, 8), 5), ((9, 8), 6)])
def test_a_pointwise_convolution_is_the_convolution(channels, height, layout):
    n_in, n_out = channels
    x = torch.randn(2, n_in, height, 7).contiguous(memory_format=layout).requires_grad_()
    weight, bias = torch.randn(n_out, n_in, 1, 1, requires_grad=True), torch.randn(n_out, requires_grad=True)
    found, expected = narrow.pointwise(x, weight, bias), F.conv2d(x, weight, bias)
    assert torch.allclose(found, expected, atol=1e-5)
    g = torch.randn_like(expected)
    grads = (torch.autograd.grad(y, [x, weight, bias], g) for y in (found, expected))
    for a, b in zip(*grads, strict=True): assert torch.allclose(a, b, atol=1e-5*b.abs().max())


def test_padding_keeps_the_type_under_autocast():
    x = torch.rand(1, 2, 5, 6).bfloat16()
    with torch.autocast("cpu", torch.bfloat16): found = narrow.reflected(x, 2)
    assert torch.equal(found, F.pad(x, [2]*4, mode="reflect"))
    assert narrow.reflected(x.to("meta"), 2).shape == found.shape  # for models planned without memory
