import pytest
import torch

from fastinpaint.kernels import masked_l1, zero_conv_merge

sizes = pytest.mark.parametrize("b, c, h, w, scale", [(2, 3, 4, 5, 1), (1, 5, 3, 2, 2), (2, 1, 1, 7, 3), (3, 4, 2, 2, 8)])
weights = pytest.mark.parametrize("known, missing", [(1., 1.), (10., 0.), (0., 1.), (.3, 2.5), (2., 2.), (0., 0.)])


def tensors(b, c, h, w, scale, dtype=torch.float32):
    torch.manual_seed(b*c*h*w)
    mask = (torch.rand(b, 1, scale*h, scale*w) > .5).to(dtype)
    return torch.randn(b, c, h, w, dtype=dtype), torch.randn(b, c, h, w, dtype=dtype), mask


def naive_l1(pred, target, mask, known, missing):
    "masked_l1 element by element, in float64"
    b, c, h, w = pred.shape
    sy, sx = mask.shape[2]//h, mask.shape[3]//w
    total = 0.
    for i in range(b):
        for y in range(h):
            for x in range(w):
                share = mask[i, 0, y*sy:(y + 1)*sy, x*sx:(x + 1)*sx].double().mean()
                error = (pred[i, :, y, x].double() - target[i, :, y, x].double()).abs().sum()
                total += (missing*share + known*(1 - share))*error
    return total/pred.numel()


@sizes
@weights
def test_masked_l1_is_the_weighted_mean(b, c, h, w, scale, known, missing):
    pred, target, mask = tensors(b, c, h, w, scale)
    for m in mask, torch.zeros_like(mask), torch.ones_like(mask):
        assert masked_l1(pred, target, m, known, missing).item() == pytest.approx(
            naive_l1(pred, target, m, known, missing).item() if known or missing else 0, rel=1e-5)


def test_without_mask_every_element_counts_once():
    pred, target, _ = tensors(2, 3, 4, 5, 1)
    assert torch.allclose(masked_l1(pred, target), (pred - target).abs().mean())


@weights
def test_masked_l1_has_no_gradient_at_equality(known, missing):
    x, _, mask = tensors(2, 3, 4, 4, 2)
    pred = x.clone().requires_grad_()
    masked_l1(pred, x, mask, known, missing).backward()
    assert not pred.grad.any()


@sizes
def test_masked_l1_gradients(b, c, h, w, scale):
    pred, target, mask = tensors(b, c, h, w, scale, torch.float64)
    assert torch.autograd.gradcheck(lambda p, t: masked_l1(p, t, mask, .3, 2.5), (pred.requires_grad_(), target.requires_grad_()))


@pytest.mark.parametrize("pred, target, mask", [
    ((2, 3, 4, 4), (2, 3, 4, 5), None), ((3, 4, 4), (3, 4, 4), None), ((2, 3, 4, 4), (2, 3, 4, 4), (2, 3, 4, 4)),
    ((2, 3, 4, 4), (2, 3, 4, 4), (1, 1, 4, 4)), ((2, 3, 4, 4), (2, 3, 4, 4), (2, 1, 6, 4)),
    ((2, 3, 4, 4), (2, 3, 4, 4), (2, 1, 2, 2)), ((2, 3, 4, 4), (2, 3, 4, 4), (2, 4, 4))])
def test_masked_l1_names_shapes_that_do_not_fit(pred, target, mask):
    wrong = mask or target
    with pytest.raises(ValueError) as e:
        masked_l1(torch.zeros(pred), torch.zeros(target), None if mask is None else torch.zeros(mask))
    assert str(list(wrong)) in str(e.value)


def test_a_zero_convolution_of_zeros_changes_no_bit():
    x, m = torch.randn(2, 3, 5, 7), torch.randn(2, 4, 5, 7)
    assert torch.equal(zero_conv_merge(x, m, torch.zeros(3, 4, 1, 1)), x)


@pytest.mark.parametrize("b, c, k, h, w", [(2, 3, 4, 5, 7), (1, 1, 1, 1, 1), (2, 8, 8, 3, 4)])
def test_a_zero_convolution_adds_the_guide_weighted(b, c, k, h, w):
    x, m, weight = torch.randn(b, c, h, w), torch.randn(b, k, h, w), torch.randn(c, k, 1, 1)
    expected = x.double() + torch.einsum("ck,bkhw->bchw", weight[..., 0, 0].double(), m.double())
    assert torch.allclose(zero_conv_merge(x, m, weight).double(), expected, atol=1e-5)


def test_zero_convolution_gradients():
    inputs = [torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((2, 3, 2, 3), (2, 4, 2, 3), (3, 4, 1, 1))]
    assert torch.autograd.gradcheck(zero_conv_merge, inputs)


@pytest.mark.parametrize("m, weight", [((2, 4, 5, 6), (3, 4, 1, 1)), ((1, 4, 5, 7), (3, 4, 1, 1)), ((2, 4, 5, 7), (4, 3, 1, 1)),
                                       ((2, 4, 5, 7), (3, 4, 3, 3)), ((2, 4, 5), (3, 4, 1, 1))])
def test_zero_convolution_names_shapes_that_do_not_fit(m, weight):
    with pytest.raises(ValueError) as e: zero_conv_merge(torch.zeros(2, 3, 5, 7), torch.zeros(m), torch.zeros(weight))
    assert str(list(m)) in str(e.value) and str(list(weight)) in str(e.value)
