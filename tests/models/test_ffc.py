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


@pytest.mark.parametrize("impl", ["torch", "triton"])
def test_products_train_and_judge_as_ffts_do(impl):
    torch.manual_seed(0)
    units, x = [FourierUnit(3) for _ in range(2)], torch.randn(2, 3, 8, 6)
    units[1].load_state_dict(units[0].state_dict())
    units[1].impl = impl
    for _ in range(2):
        for unit in units: unit(x).square().mean().backward()
    for a, b in zip(*(u.state_dict().values() for u in units), strict=True): torch.testing.assert_close(a, b)
    for a, b in zip(*(u.parameters() for u in units), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(*(unit.eval()(x) for unit in units))


@pytest.mark.parametrize("impl", ["auto", "triton"])
def test_convolutions_in_one_launch_train_and_judge_as_three_do(impl):
    torch.manual_seed(0)
    ffcs, x, seen = [FFC(16, 4) for _ in range(2)], torch.randn(2, 16, 6, 8), []
    ffcs[1].load_state_dict(ffcs[0].state_dict())
    ffcs[1].impl = impl
    for _ in range(2):
        for ffc in ffcs: ffc(x).square().mean().backward()
    for a, b in zip(*(m.state_dict().values() for m in ffcs), strict=True): torch.testing.assert_close(a, b)
    for a, b in zip(*(m.parameters() for m in ffcs), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-6)
    expected, found = (ffc.eval()(x) for ffc in ffcs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    ffcs[1].to_local.register_forward_hook(lambda *_: seen.append(True))
    torch.testing.assert_close(ffcs[1](x), expected)
    assert seen


def test_folded_and_watched_units_use_ffts_whatever_is_wished():
    unit, x, seen = FourierUnit(3).eval(), torch.randn(1, 3, 8, 8), []
    unit.impl = "torch"
    expected = unit(x)
    torch.testing.assert_close(unit.folded()(x), expected)
    unit.conv.register_forward_hook(lambda *_: seen.append(True))
    torch.testing.assert_close(unit(x), expected)
    assert seen
