import pytest
import torch

from fastinpaint.models.ffc import FFCBlock, FourierUnit


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
