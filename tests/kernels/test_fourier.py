"The Fourier unit with FFTs, as products of torch, and as kernels: on a GPU, else through the interpreter"
import pytest
import torch

from fastinpaint.kernels import fourier

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
sizes = pytest.mark.parametrize("h, w", [(1, 1), (2, 2), (5, 7), (8, 6), (16, 16), (3, 20), (32, 32)])


@sizes
@pytest.mark.parametrize("twins", [False, True])
def test_products_are_the_transforms_and_their_gradients(h, w, twins):
    x = torch.randn(2, 3, h, w, dtype=torch.float64, requires_grad=True)
    parts = fourier.spectrum(x).detach().requires_grad_()
    torch.testing.assert_close(fourier.product_spectrum(x), parts)
    y = fourier.image(parts, w)
    torch.testing.assert_close(fourier.product_image(parts, w), y)
    back, = torch.autograd.grad(fourier.spectrum(x), x, parts)
    torch.testing.assert_close(fourier.product_image(parts, w, twins=False), back)
    back, = torch.autograd.grad(y, parts, y.detach())
    torch.testing.assert_close(fourier.product_spectrum(y, twins=True), back)


def unit_tensors(b, c, h, w, dtype=torch.float32, layout=torch.contiguous_format):
    "x, weight, gain, bias"
    torch.manual_seed(0)
    x = torch.randn(b, c, h, w).to(DEVICE, dtype, memory_format=layout)
    weight = torch.randn(2*c, 2*c, 1, 1, device=DEVICE)/(2*c)**.5
    return x, weight, torch.rand(2*c, device=DEVICE) + .5, torch.randn(2*c, device=DEVICE)/3


def outcome(tensors, impl, statistics=None, upstream=None):
    "Result, mean, variance, and the gradients of all"
    tensors = [t.detach().requires_grad_() for t in tensors]
    y, mean, var = fourier.fourier_unit(*tensors, statistics, impl=impl)
    grads = torch.autograd.grad(y, tensors, upstream.to(y.dtype))
    return dict(zip(("y", "mean", "var", "x", "weight", "gain", "bias"), (y.detach(), mean, var, *grads), strict=True))


@pytest.mark.parametrize("impl", ["torch", "triton"])
@pytest.mark.parametrize("b, c, h, w", [(2, 3, 5, 7), (3, 1, 16, 16), (2, 5, 8, 20), (1, 9, 32, 32)])
def test_all_implementations_agree(impl, b, c, h, w):
    tensors = unit_tensors(b, c, h, w)
    upstream = torch.randn(b, c, h, w, device=DEVICE)
    for statistics in None, (torch.randn(2*c, device=DEVICE)/9, torch.rand(2*c, device=DEVICE) + .5):
        expected = outcome(tensors, "fft", statistics, upstream)
        for name, found in outcome(tensors, impl, statistics, upstream).items():
            torch.testing.assert_close(found, expected[name], rtol=1e-4, atol=1e-4, msg=lambda s, n=name: f"{n}: {s}")
