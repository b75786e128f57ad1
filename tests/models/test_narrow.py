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
def test_a_pointwise_convolution_is_the_convolution(layout):
    x = torch.randn(2, 4, 6, 7).contiguous(memory_format=layout)
    weight, bias = torch.randn(8, 4, 1, 1), torch.randn(8)
    assert torch.allclose(narrow.pointwise(x, weight, bias), F.conv2d(x, weight, bias), atol=1e-5)
