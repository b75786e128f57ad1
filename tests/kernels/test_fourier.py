"The Fourier unit with FFTs, as products of torch, and as kernels: on a GPU, else through the interpreter"
import pytest
import torch

from fastinpaint.kernels import fourier

pytest.importorskip("triton")

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


NAMES = "y", "mean", "var", "x", "weight", "gain", "bias"


def outcome(tensors, impl, statistics=None, upstream=None):
    "Result, mean, variance, and the gradients of all, by name"
    tensors = [t.detach().requires_grad_() for t in tensors]
    y, mean, var = fourier.fourier_unit(*tensors, statistics, impl=impl)
    grads = torch.autograd.grad(y, tensors, upstream.to(y.dtype))
    return dict(zip(NAMES, (y.detach(), mean, var, *grads), strict=True))


@pytest.mark.parametrize("impl", ["torch", "triton"])
@pytest.mark.parametrize("b, c, h, w, layout", [
    (2, 3, 5, 7, "contiguous_format"), (3, 1, 16, 16, "channels_last"), (2, 5, 8, 20, "channels_last"),
    (1, 9, 32, 32, "contiguous_format")])
@pytest.mark.usefixtures("poisoned_memory")
def test_all_implementations_agree(impl, b, c, h, w, layout):
    tensors, upstream = unit_tensors(b, c, h, w, layout=getattr(torch, layout)), torch.randn(b, c, h, w)
    for statistics in None, (torch.randn(2*c, device=DEVICE)/9, torch.rand(2*c, device=DEVICE) + .5):
        expected = outcome(tensors, "fft", statistics, upstream.to(DEVICE))
        for name, found in outcome(tensors, impl, statistics, upstream.to(DEVICE)).items():
            torch.testing.assert_close(found, expected[name], rtol=1e-4, atol=1e-4,
                                       msg=lambda s, n=name: f"{n}: {s}")


def error(found, exact):
    "Root of the mean square, relative to that of `exact`"
    return ((found.double() - exact).square().mean()/exact.square().mean()).sqrt()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("impl", ["torch", "triton"])
@pytest.mark.parametrize("c, side", [(6, 32), (2, 64)])
def test_products_are_at_most_twice_as_inexact_as_ffts(impl, dtype, c, side):
    tensors, upstream = unit_tensors(2, c, side, side, dtype), torch.randn(2, c, side, side, device=DEVICE)
    exact = outcome([t.double() for t in tensors], "fft", None, upstream.to(dtype).double())
    with_fft, found = (outcome(tensors, i, None, upstream.to(dtype)) for i in ("fft", impl))
    assert found["y"].dtype == found["x"].dtype == dtype
    if impl == "triton" and DEVICE == "cpu":  # whose interpreter cuts digits off where a GPU rounds
        found = outcome([t.float() for t in tensors], impl, None, upstream.to(dtype))
        for name in "y", "x": found[name] = found[name].to(dtype)
    for name in NAMES:
        limit = 2*error(with_fft[name], exact[name])
        assert error(found[name], exact[name]) < max(limit, 1e-6), name


@pytest.mark.parametrize("x, weight, gain", [((2, 3, 4), (6, 6, 1, 1), 6), ((2, 3, 4, 4), (3, 3, 1, 1), 6),
                                             ((2, 3, 4, 4), (6, 6, 1, 1), 3)])
def test_shapes_that_do_not_fit_are_named(x, weight, gain):
    with pytest.raises(ValueError) as e:
        fourier.fourier_unit(torch.zeros(x), torch.zeros(weight), torch.zeros(gain), torch.zeros(gain))
    assert str(list(x)) in str(e.value) and str(list(weight)) in str(e.value) and str([gain]) in str(e.value)
