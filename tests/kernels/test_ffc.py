"An FFC's convolutions in one launch: on a GPU, else through the interpreter"
import pytest
import torch

from fastinpaint.kernels.ffc import ffc_convs

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAMES = "x", "to_local", "to_global", "y", "expand"


def tensors(b=2, c=16, local=4, half=6, h=5, w=7, dtype=torch.float32, layout=torch.channels_last):
    torch.manual_seed(0)
    glob = c - local
    shapes = (b, c, h, w), (local, c, 3, 3), (glob, local, 3, 3), (b, half, h, w), (glob, half, 1, 1)
    found = [torch.randn(shape, device=DEVICE).to(dtype) for shape in shapes]
    found[0] = found[0].contiguous(memory_format=layout)
    return found


def exact(given, **more): return ffc_convs(*(t.double() for t in given), impl="torch", **more)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("sizes", [dict(), dict(h=2, w=2), dict(b=1, h=9, w=3), dict(c=24, local=6, half=9),
                                   dict(c=40, local=8, h=16, w=12), dict(c=80, local=20, half=30)])
def test_one_launch_is_the_three_convolutions(poisoned_memory, sizes, layout):
    given = tensors(layout=layout, **sizes)
    found = ffc_convs(*given, impl="triton")
    torch.testing.assert_close(found, exact(given).float(), atol=1e-3, rtol=1e-3)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("act", [False, True])
def test_bias_and_activation_belong_to_it(act):
    given, bias = tensors(), torch.randn(16, device=DEVICE)
    found = ffc_convs(*given, bias, act, impl="triton")
    torch.testing.assert_close(found, exact(given, bias=bias.double(), act=act).float(), atol=1e-3, rtol=1e-3)
    assert (found.min() == 0) == act
    with pytest.raises(ValueError, match="no gradient"):
        ffc_convs(given[0].requires_grad_(), *given[1:], bias, act, impl="triton")


def test_gradients_of_all_are_autograds():
    given = [t.requires_grad_() for t in tensors(c=20, local=4)]
    upstream = torch.randn(2, 20, 5, 7, device=DEVICE)
    found = torch.autograd.grad(ffc_convs(*given, impl="triton"), given, upstream)
    expected = torch.autograd.grad(exact(given), given, upstream.double())
    for name, a, b in zip(NAMES, found, expected, strict=True):
        assert a.shape == b.shape and (a - b).abs().max() < 1e-3*b.abs().max(), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_sums_in_float32(dtype):
    given = tensors(c=32, local=8, dtype=dtype)
    expected, found = exact(given), ffc_convs(*given, impl="triton")
    assert found.dtype == dtype
    assert (found - expected).abs().max() < 2*torch.finfo(dtype).eps*expected.abs().max()


def test_under_autocast_the_result_is_of_its_type():
    with torch.autocast(DEVICE, torch.bfloat16):
        assert {ffc_convs(*tensors(), impl=impl).dtype for impl in ("torch", "triton")} == {torch.bfloat16}


def test_it_repeats_to_the_bit():
    given = tensors(c=40, local=8, h=16)
    assert torch.equal(*(ffc_convs(*given, impl="triton") for _ in range(2)))


@pytest.mark.parametrize("wrong", [
    dict(x=(2, 15, 5, 7)), dict(x=(2, 16, 1, 7), y=(2, 6, 1, 7)), dict(y=(2, 6, 5, 6)),
    dict(to_global=(12, 5, 3, 3)), dict(expand=(12, 5, 1, 1)), dict(x=(16, 5, 7))])
def test_other_shapes_are_refused(wrong):
    given = dict(zip(NAMES, tensors(), strict=True))
    given |= {k: torch.rand(v, device=DEVICE) for k, v in wrong.items()}
    with pytest.raises(ValueError, match="ffc_convs takes"): ffc_convs(**given)
    with pytest.raises(ValueError, match="one device"): ffc_convs(*(t.long() for t in tensors()))
