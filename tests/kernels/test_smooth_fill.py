import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastinpaint.kernels.prefill import halved, smooth_fill

sides = st.integers(1, 70)


def hole(h, w, rows, columns):
    mask = torch.zeros(1, 1, h, w)
    mask[..., slice(*rows), slice(*columns)] = 1
    return mask


@given(sides, sides, st.floats(0, 1))
@example(1, 1, 1.)
@example(1, 300, .9)
@example(600, 3, .99)
@settings(max_examples=30, deadline=None)
def test_a_fill_lies_between_what_is_known_and_leaves_it_alone(h, w, share):
    g = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, h, w, generator=g) + .1
    mask = (torch.rand(2, 1, h, w, generator=g) < share).float()
    filled = smooth_fill(image, mask)
    assert torch.equal(filled*(1 - mask), image*(1 - mask))
    for x, y, m in zip(image, filled, mask, strict=True):
        known = x[:, m[0] == 0]
        if not known.numel(): assert not y.any()
        else:
            least, most = (bound.view(3, 1, 1) for bound in (known.amin(1), known.amax(1)))
            assert (y >= least - 1e-5).all() and (y <= most + 1e-5).all()


def test_what_stands_in_the_hole_does_not_matter():
    image, mask = torch.rand(1, 3, 40, 50), hole(40, 50, (5, 30), (9, 41))
    assert torch.equal(smooth_fill(image, mask), smooth_fill(image*(1 - mask), mask))


def test_a_fill_is_close_to_the_membrane():
    "To the solution of Laplace's equation, far closer than the mean colour is, which is as smooth"
    h, w, g = 24, 30, torch.Generator().manual_seed(0)
    image = F.interpolate(torch.rand(16, 1, 4, 5, generator=g), (h, w), mode="bicubic")
    mask = hole(h, w, (6, 18), (8, 22))
    known = 1 - mask
    membrane = image.double()*known
    for _ in range(3000):
        neighbours = sum(membrane.roll(shift, dim) for shift in (-1, 1) for dim in (2, 3))/4
        membrane = torch.where(mask == 1, neighbours, membrane)
    mean_colour = (image*known).sum((2, 3), keepdim=True)/known.sum()
    fills = smooth_fill(image, mask), mean_colour
    error, of_mean = (((fill - membrane).abs()*mask).sum().item() for fill in fills)
    assert error < of_mean/4


def test_without_a_hole_nothing_changes():
    image = torch.rand(2, 3, 33, 20)
    assert torch.equal(smooth_fill(image, torch.zeros(2, 1, 33, 20)), image)


@pytest.mark.parametrize("size", [(8, 12), (7, 12), (5, 3), (1, 1), (1, 8)])
def test_a_halved_picture_holds_means(size):
    x = torch.rand(2, 3, *size)
    assert torch.allclose(halved(x), F.avg_pool2d(x, 2, ceil_mode=True), atol=1e-7)
