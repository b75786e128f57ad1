import pytest
import torch

from fastinpaint.models.ffc import FFC, FFCBlock, FourierUnit


@torch.no_grad()
@pytest.mark.parametrize("h, w", [(4, 4), (5, 7), (2, 9)])
def test_the_fourier_unit_is_a_convolution_of_the_spectrum(h, w):
    unit = FourierUnit(3).eval()
    unit.bn.running_mean.normal_()
    x = torch.randn(2, 3, h, w)
    spectrum = torch.fft.rfft2(x, norm="ortho")
    parts = torch.stack([spectrum.real, spectrum.imag], dim=2).flatten(1, 2)
    real, imag = unit.bn(unit.conv(parts)).relu().unflatten(1, (3, 2)).unbind(2)
    expected = torch.fft.irfft2(torch.complex(real, imag), s=(h, w), norm="ortho")
    assert torch.allclose(unit(x), expected, atol=1e-6)


@torch.no_grad()
def test_one_block_sees_the_whole_image():
    block = FFCBlock(8, 2).eval()
    x = torch.rand(1, 8, 16, 16)
    changed = x.clone()
    changed[..., 0, 0] += 1
    assert (block(x) != block(changed))[..., -1, -1].any()


@torch.no_grad()
def test_lamas_blocks_only_raise_features_and_signed_ones_lower_them_too():
    x = torch.randn(1, 8, 8, 8)
    signed = FFCBlock(8, 2, signed=True)
    signed.conv2.bn.weight.fill_(1)
    assert (FFCBlock(8, 2)(x) >= x).all()
    assert (signed(x) < x).any() and (signed(x) > x).any()


def trained_alike(made, impl, x):
    "Two that `made` gives, of one state, after two backward passes that agree; the second's is of `impl`"
    torch.manual_seed(0)
    both = made(), made()
    both[1].load_state_dict(both[0].state_dict())
    both[1].impl = impl
    for _ in range(2):
        for module in both: module(x).square().mean().backward()
    for a, b in zip(*(m.state_dict().values() for m in both), strict=True): torch.testing.assert_close(a, b)
    for a, b in zip(*(m.parameters() for m in both), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)
    return both


@pytest.mark.parametrize("impl", ["torch", "triton"])
def test_products_train_and_judge_as_ffts_do(impl):
    x = torch.randn(2, 3, 8, 6)
    torch.testing.assert_close(*(unit.eval()(x) for unit in trained_alike(lambda: FourierUnit(3), impl, x)))


@pytest.mark.parametrize("impl", ["auto", "triton"])
def test_convolutions_in_one_launch_train_and_judge_as_three_do(impl):
    x, seen = torch.randn(2, 16, 6, 8), []
    three, one = (ffc.eval() for ffc in trained_alike(lambda: FFC(16, 4), impl, x))
    torch.testing.assert_close(one(x), three(x), rtol=1e-4, atol=1e-5)
    one.to_local.register_forward_hook(lambda *_: seen.append(True))
    torch.testing.assert_close(one(x), three(x))
    assert seen


def test_folded_and_watched_units_use_ffts_whatever_is_wished():
    unit, x, seen = FourierUnit(3).eval(), torch.randn(1, 3, 8, 8), []
    unit.impl = "torch"
    expected = unit(x)
    torch.testing.assert_close(unit.folded()(x), expected)
    unit.conv.register_forward_hook(lambda *_: seen.append(True))
    torch.testing.assert_close(unit(x), expected)
    assert seen
