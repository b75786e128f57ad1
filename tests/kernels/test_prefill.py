"The smooth fill by kernels: on a GPU, else through the interpreter"
import pytest
import torch

from fastinpaint.kernels.prefill import smooth_fill

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def photo_and_mask(h, w, share, dtype=torch.float32):
    "Random pixels, of which `share` are missing, and a half of the first image"
    torch.manual_seed(0)
    mask = (torch.rand(2, 1, h, w, device=DEVICE) < share).to(dtype)
    mask[0, :, :h//2] = 1
    return torch.rand(2, 3, h, w, device=DEVICE).to(dtype), mask


@pytest.mark.parametrize("share", [0., .5, .98, 1.])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (40, 50), (33, 20), (64, 64), (70, 3)])
def test_kernels_fill_as_torch_does(poisoned_memory, size, share):
    given = photo_and_mask(*size, share)
    torch.testing.assert_close(smooth_fill(*given, impl="triton"), smooth_fill(*given), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("levels", [0, 1, 3])
def test_fewer_levels_and_any_layout(levels):
    image, mask = photo_and_mask(24, 30, .9)
    expected = smooth_fill(image, mask, levels)
    found = smooth_fill(image.contiguous(memory_format=torch.channels_last), mask, levels, impl="triton")
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_filled_in_float32(dtype):
    image, mask = photo_and_mask(24, 30, .8, dtype)
    found = smooth_fill(image, mask, impl="triton")
    assert found.dtype == dtype
    expected = smooth_fill(image.float(), mask.float())
    torch.testing.assert_close(found.float(), expected, atol=torch.finfo(dtype).eps, rtol=0)


def test_the_kernels_are_asked_for_and_say_where_they_cannot_run():
    image, mask = photo_and_mask(8, 8, .5)
    assert torch.equal(smooth_fill(image, mask, impl="auto"), smooth_fill(image, mask)) or DEVICE == "cuda"
    with pytest.raises(RuntimeError, match="cannot run: image is torch.float64"):
        smooth_fill(image.double(), mask, impl="triton")
    with pytest.raises(ValueError, match="impl is auto"): smooth_fill(image, mask, impl="gpu")
