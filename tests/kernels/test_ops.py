"The operations, in plain torch and as kernels: on a GPU, else through Triton's interpreter"
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastinpaint.kernels import masked_l1, nearest, ops, reference, zero_conv_merge
from fastinpaint.train.callback.freeze import FreezeSchedule
from fastinpaint.train.callback.latent import LatentLoss

zero_conv_triton = pytest.importorskip("fastinpaint.kernels.zero_conv_triton", exc_type=ImportError)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}

impls = pytest.mark.parametrize("impl", ["torch", "triton"])
dtypes = pytest.mark.parametrize("dtype", TOLERANCE)
layouts = pytest.mark.parametrize("layout", ["contiguous", "channels_last", "cropped"])
weights = pytest.mark.parametrize("known, missing",
                                  [(1., 1.), (10., 0.), (0., 1.), (.3, 2.5), (2., 2.), (0., 0.)])
l1_sizes = pytest.mark.parametrize("b, c, h, w, scale", [(2, 3, 4, 5, 1), (1, 5, 3, 2, 2),
                                                         (2, 1, 1, 7, 3), (1, 1, 1, 1, 1),
                                                         (3, 4, 2, 2, 8), (1, 67, 13, 11, 3),
                                                         (2, 3, 37, 41, 1)])


@pytest.fixture(autouse=True)
def exact_products():
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield
    torch.backends.cudnn.allow_tf32 = before


def random(*shape, layout="contiguous", dtype=torch.float32):
    "A random leaf in one of three layouts; what memory lies between its elements is NaN"
    if layout == "cropped":
        *outer, h, w = shape
        x = torch.full((*outer, h + 2, w + 3), torch.nan, dtype=dtype, device=DEVICE)
        x = x[..., 1:-1, 2:-1]
        return x.copy_(torch.randn(shape)).detach()
    x = torch.randn(shape).to(DEVICE, dtype)
    return x.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else x


def l1_tensors(b, c, h, w, scale, dtype=torch.float32, layout="contiguous", seed=0):
    torch.manual_seed(seed)
    mask = (torch.rand(b, 1, scale*h, scale*w) > .5).to(DEVICE, torch.float32)
    return *(random(b, c, h, w, dtype=dtype, layout=layout) for _ in range(2)), mask


def naive_l1(pred, target, mask, known, missing):
    "masked_l1 pixel by pixel, in float64"
    (b, _, h, w), total = pred.shape, 0.
    sy, sx = mask.shape[2]//h, mask.shape[3]//w
    error = (pred.double() - target.double()).abs().sum(1)
    for i, y, x in np.ndindex(b, h, w):
        share = mask[i, 0, y*sy:(y + 1)*sy, x*sx:(x + 1)*sx].double().mean()
        total += (missing*share + known*(1 - share))*error[i, y, x]
    return float(total/pred.numel())


def backward(f, *inputs, upstream=None):
    "Result and gradients of `f`, of memory that was full of NaN before"
    inputs = [x.detach().requires_grad_() for x in inputs]
    y = f(*inputs)
    y.backward(torch.randn_like(y) if upstream is None else upstream)
    return [y.detach(), *(x.grad for x in inputs)]


def both_l1(pred, target, mask, known, missing, upstream):
    "Loss and gradient of both implementations"
    return [backward(lambda p, i=impl: masked_l1(p, target, mask, known, missing, impl=i), pred,
                     upstream=upstream)
            for impl in ("torch", "triton")]


# masked_l1

@impls
@l1_sizes
@weights
def test_masked_l1_is_the_weighted_mean(impl, b, c, h, w, scale, known, missing):
    pred, target, mask = l1_tensors(b, c, h, w, scale)
    for m in mask, torch.zeros_like(mask), torch.ones_like(mask):
        loss = masked_l1(pred, target, m, known, missing, impl=impl)
        assert loss.item() == pytest.approx(naive_l1(pred, target, m, known, missing), rel=1e-5,
                                            abs=1e-9)


@impls
def test_without_mask_every_element_counts_once(impl):
    pred, target, _ = l1_tensors(2, 3, 4, 5, 1)
    assert torch.allclose(masked_l1(pred, target, None, 7., 8., impl=impl),
                          (pred - target).abs().mean())


@dtypes
@layouts
@l1_sizes
@pytest.mark.usefixtures("poisoned_memory")
def test_the_masked_l1_kernels_agree_with_the_reference(dtype, layout, b, c, h, w, scale):
    pred, target, mask = l1_tensors(b, c, h, w, scale, dtype, layout)
    for m, known, missing in (mask, .3, 2.5), (mask, 2., 2.), (None, 1., 1.):
        upstream = torch.tensor(-3., device=DEVICE)
        a, b_ = both_l1(pred, target, m, known, missing, upstream)
        assert a[0].dtype == b_[0].dtype == torch.float32 and a[1].dtype == b_[1].dtype == dtype
        for x, y in zip(a, b_, strict=True):
            torch.testing.assert_close(x, y, rtol=TOLERANCE[dtype], atol=1e-7)
        if layout != "cropped": assert b_[1].stride() == pred.stride()


@given(st.integers(1, 3), st.integers(1, 70), st.integers(1, 20), st.integers(1, 20),
       st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_masked_l1_of_any_shape(b, c, h, w, sy, sx):
    torch.manual_seed(0)
    pred, target = (random(b, c, h, w) for _ in range(2))
    mask = (torch.rand(b, 1, sy*h, sx*w) > .5).float().to(DEVICE)
    outcomes = both_l1(pred, target, mask, 1., 3., torch.tensor(2., device=DEVICE))
    for x, y in zip(*outcomes, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-8)


@impls
@weights
def test_masked_l1_has_no_gradient_at_equality(impl, known, missing):
    x, _, mask = l1_tensors(2, 3, 4, 4, 2)
    _, grad = backward(lambda p: masked_l1(p, x, mask, known, missing, impl=impl), x)
    assert not grad.any()


@impls
def test_only_the_prediction_receives_a_gradient(impl):
    pred, target, mask = (t.requires_grad_() for t in l1_tensors(2, 3, 4, 4, 2))
    masked_l1(pred, target, mask, 1., 2., impl=impl).backward()
    assert pred.grad.any() and target.grad is None and mask.grad is None


def test_the_reference_gradient_is_that_of_the_maths():
    pred, target, mask = (t.double() for t in l1_tensors(2, 3, 4, 5, 2))
    assert torch.autograd.gradcheck(lambda p: masked_l1(p, target, mask, .3, 2.5, impl="torch"),
                                    pred.requires_grad_())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_so(value):
    pred, target, mask = l1_tensors(1, 3, 4, 4, 2)
    pred[0, 1, 2, 3] = value
    a, b = both_l1(pred, target, mask, .5, 2., torch.tensor(1., device=DEVICE))
    assert not a[0].isfinite()
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, equal_nan=True, rtol=1e-5, atol=1e-7)


def test_an_empty_batch_is_left_to_torch():
    x = torch.zeros(0, 3, 4, 4, device=DEVICE)
    weight = torch.zeros(3, 3, 1, 1, device=DEVICE)
    assert masked_l1(x, x).isnan() and zero_conv_merge(x, x, weight).shape == x.shape
    with pytest.raises(RuntimeError, match="pred is empty"): masked_l1(x, x, impl="triton")


def test_two_runs_give_the_same_bits():
    pred, target, mask = l1_tensors(3, 40, 30, 31, 2)
    losses = {masked_l1(pred, target, mask, 1., 3., impl="triton").item() for _ in range(5)}
    x, m, weight = merge_tensors(3, 20, 24, 30, 31)
    upstream = torch.randn_like(x)
    grads = [backward(lambda *t: zero_conv_merge(*t, impl="triton"), x, m, weight,
                      upstream=upstream) for _ in range(3)]
    assert len(losses) == 1
    assert all(torch.equal(a, b) for g in grads[1:] for a, b in zip(grads[0], g, strict=True))


@pytest.mark.parametrize("pred, target, mask", [
    ((2, 3, 4, 4), (2, 3, 4, 5), None), ((3, 4, 4), (3, 4, 4), None),
    ((2, 3, 4, 4), (2, 3, 4, 4), (2, 3, 4, 4)),
    ((2, 3, 4, 4), (2, 3, 4, 4), (1, 1, 4, 4)), ((2, 3, 4, 4), (2, 3, 4, 4), (2, 1, 6, 4)),
    ((2, 3, 4, 4), (2, 3, 4, 4), (2, 1, 2, 2)), ((2, 3, 4, 4), (2, 3, 4, 4), (2, 4, 4))])
def test_masked_l1_names_shapes_that_do_not_fit(pred, target, mask):
    wrong = mask or target
    with pytest.raises(ValueError) as e:
        masked_l1(torch.zeros(pred), torch.zeros(target),
                  None if mask is None else torch.zeros(mask))
    assert str(list(wrong)) in str(e.value)


# zero_conv_merge

merge_sizes = pytest.mark.parametrize("b, c, k, h, w", [(2, 3, 4, 5, 7), (1, 1, 1, 1, 1),
                                                        (2, 8, 8, 3, 4), (1, 17, 31, 9, 13),
                                                        (2, 64, 64, 8, 8), (1, 70, 130, 5, 5),
                                                        (1, 130, 70, 5, 5)])


def merge_tensors(b, c, k, h, w, dtype=torch.float32, layout="contiguous"):
    torch.manual_seed(0)
    weight = (torch.randn(c, k, 1, 1)/k**.5).to(DEVICE, dtype)
    x, m = (random(b, n, h, w, dtype=dtype, layout=layout) for n in (c, k))
    return x, m, weight


@impls
@layouts
@merge_sizes
def test_a_zero_convolution_adds_the_guide_weighted(impl, layout, b, c, k, h, w):
    x, m, weight = merge_tensors(b, c, k, h, w, layout=layout)
    expected = x.double() + torch.einsum("ck,bkhw->bchw", weight[..., 0, 0].double(), m.double())
    torch.testing.assert_close(zero_conv_merge(x, m, weight, impl=impl).double(), expected,
                               rtol=1e-5, atol=1e-5)


@dtypes
@layouts
@merge_sizes
@pytest.mark.usefixtures("poisoned_memory")
def test_the_merge_kernels_agree_with_float64(dtype, layout, b, c, k, h, w):
    x, m, weight = merge_tensors(b, c, k, h, w, dtype, layout)
    upstream = random(b, c, h, w, dtype=dtype, layout=layout)
    found = backward(lambda *t: zero_conv_merge(*t, impl="triton"), x, m, weight, upstream=upstream)
    exact = backward(reference.zero_conv_merge, x.double(), m.double(), weight.double(),
                     upstream=upstream.double())
    for name, a, e in zip(("y", "x", "m", "weight"), found, exact, strict=True):
        assert a.dtype == dtype
        close = dict(rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]*e.abs().max().item())
        torch.testing.assert_close(a.double(), e, **close, msg=lambda s, n=name: f"{n}: {s}")
    assert torch.equal(found[1], upstream)  # to the bit
    if layout != "cropped":
        assert found[0].stride() == x.stride() and found[2].stride() == m.stride()


@impls
@dtypes
def test_a_zero_convolution_of_zeros_changes_no_bit_and_learns(impl, dtype):
    x, m, weight = merge_tensors(2, 3, 4, 5, 7, dtype)
    y, _, grad_m, grad_weight = backward(lambda *t: zero_conv_merge(*t, impl=impl), x, m,
                                         torch.zeros_like(weight))
    assert torch.equal(y, x) and not grad_m.any() and grad_weight.all()


def test_the_gradient_of_x_is_the_upstream_one_itself():
    x, m, weight = merge_tensors(2, 3, 4, 5, 7)
    upstream = torch.randn_like(x)
    y = zero_conv_merge(x.requires_grad_(), m, weight, impl="triton")
    grad, = torch.autograd.grad(y, x, upstream)
    assert grad.data_ptr() == upstream.data_ptr()


@pytest.mark.parametrize("wanted", [(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1)])
@pytest.mark.parametrize("c", [5, 70])
def test_only_wanted_gradients_are_computed(wanted, c, monkeypatch):
    tensors = merge_tensors(2, c, 6, 4, 4)
    for t, on in zip(tensors, wanted, strict=True): t.requires_grad_(bool(on))
    calls = []
    real = zero_conv_triton.zero_conv_merge_backward
    monkeypatch.setattr(zero_conv_triton, "zero_conv_merge_backward",
                        lambda *a: calls.append(a[3:]) or real(*a))
    upstream = torch.randn_like(tensors[0])
    zero_conv_merge(*tensors, impl="triton").backward(upstream)
    assert calls == ([(bool(wanted[1]), bool(wanted[2]))] if any(wanted[1:]) else [])
    exact = backward(reference.zero_conv_merge, *(t.double() for t in tensors),
                     upstream=upstream.double())[1:]
    for t, on, e in zip(tensors, wanted, exact, strict=True):
        assert (t.grad is not None) == bool(on)
        if on: torch.testing.assert_close(t.grad.double(), e, rtol=1e-4, atol=1e-5)


@given(st.integers(1, 3), st.integers(1, 90), st.integers(1, 90), st.integers(1, 15),
       st.integers(1, 15))
@settings(max_examples=25, deadline=None)
def test_a_merge_of_any_shape(b, c, k, h, w):
    tensors = merge_tensors(b, c, k, h, w)
    upstream = torch.randn_like(tensors[0])
    found = backward(lambda *t: zero_conv_merge(*t, impl="triton"), *tensors, upstream=upstream)
    for a, e in zip(found, backward(reference.zero_conv_merge, *tensors, upstream=upstream),
                    strict=True):
        torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-4)


def test_zero_convolution_gradients():
    inputs = [torch.randn(*s, dtype=torch.float64, requires_grad=True)
              for s in ((2, 3, 2, 3), (2, 4, 2, 3), (3, 4, 1, 1))]
    assert torch.autograd.gradcheck(zero_conv_merge, inputs)


@pytest.mark.parametrize("m, weight", [((2, 4, 5, 6), (3, 4, 1, 1)),
                                       ((1, 4, 5, 7), (3, 4, 1, 1)), ((2, 4, 5, 7), (4, 3, 1, 1)),
                                       ((2, 4, 5, 7), (3, 4, 3, 3)), ((2, 4, 5), (3, 4, 1, 1))])
def test_zero_convolution_names_shapes_that_do_not_fit(m, weight):
    with pytest.raises(ValueError) as e:
        zero_conv_merge(torch.zeros(2, 3, 5, 7), torch.zeros(m), torch.zeros(weight))
    assert str(list(m)) in str(e.value) and str(list(weight)) in str(e.value)


@impls
def test_inside_autocast_the_product_is_half_and_the_sum_is_not(impl):
    x, m, weight = merge_tensors(2, 3, 4, 5, 7)
    with torch.autocast(DEVICE, torch.bfloat16):
        found = backward(lambda *t: zero_conv_merge(*t, impl=impl), x, m, weight)
        y, grad_x, grad_m, grad_weight = found
        assert masked_l1(x.bfloat16(), y, impl=impl).dtype == torch.float32
    assert {t.dtype for t in (y, grad_x, grad_m, grad_weight)} == {torch.float32}
    torch.testing.assert_close(y, reference.zero_conv_merge(x, m, weight), rtol=2e-2, atol=2e-2)
    with torch.autocast(DEVICE, torch.bfloat16):
        assert torch.equal(zero_conv_merge(x, m, torch.zeros_like(weight), impl=impl), x)


@pytest.fixture
def precision():
    "Sets `fp32_precision` of cudnn's convolutions, of cudnn, of all backends, and restores them"
    if not hasattr(torch.backends.cudnn, "conv"): pytest.skip("torch before 2.9")
    places = torch.backends.cudnn.conv, torch.backends.cudnn, torch.backends
    before = [p.fp32_precision for p in places]

    def assign(*values):
        for place, value in zip(places, values, strict=True): place.fp32_precision = value
    yield assign
    assign(*before)


@pytest.mark.parametrize("conv, cudnn, all_backends, expected", [
    ("tf32", "ieee", "ieee", True), ("ieee", "tf32", "tf32", False), ("none", "tf32", "ieee", True),
    ("none", "ieee", "tf32", False), ("none", "none", "tf32", True),
    ("none", "none", "none", False)])
def test_products_are_as_exact_as_convolutions(conv, cudnn, all_backends, expected, precision):
    precision(conv, cudnn, all_backends)  # `allow_tf32` raises for some of these
    exactness = zero_conv_triton.arithmetic(torch.ones(1))["PRECISION"]
    assert exactness == ("tf32" if expected else "ieee")
    x, m, weight = merge_tensors(1, 3, 4, 5, 7)
    merged = zero_conv_merge(x, m, weight, impl="triton")
    tolerance = dict(rtol=2e-3, atol=2e-3) if expected else dict(rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(merged, reference.zero_conv_merge(x, m, weight), **tolerance)


@pytest.mark.parametrize("allowed", [False, True])
def test_torch_before_2_9_knows_only_allow_tf32(allowed, monkeypatch):
    monkeypatch.setattr(torch.backends, "cudnn", SimpleNamespace(allow_tf32=allowed))
    assert zero_conv_triton.uses_tf32() is allowed


# nearest

nearest_sizes = pytest.mark.parametrize("n, m, d", [(1, 1, 1), (5, 1, 3), (3, 9, 1), (70, 130, 35),
                                                    (64, 64, 16), (129, 65, 64), (20, 30, 147)])


def points(n, m, d, dtype=torch.float32):
    torch.manual_seed(0)
    return [torch.rand(rows, d).to(DEVICE, dtype) for rows in (n, m)]


def naive_nearest(queries, sources):
    "Squared distances `[N, M]` in float64 make the answer; argmin takes the first of equal ones"
    distance = (queries.cpu().double()[:, None] - sources.cpu().double()).square().sum(-1)
    index = distance.argmin(1)
    return distance.gather(1, index[:, None])[:, 0].to(DEVICE), index.to(DEVICE)


def check_nearest(queries, sources, allowed=None, impl="torch"):
    distance, index = nearest(queries, sources, allowed, impl=impl)
    kept = torch.arange(len(sources), device=DEVICE) if allowed is None else allowed.nonzero()[:, 0]
    exact, first = naive_nearest(queries, sources[kept])
    assert distance.dtype == torch.float32 and index.dtype == torch.int64
    assert torch.equal(index, kept[first])
    torch.testing.assert_close(distance.double(), exact, rtol=1e-5, atol=0)


@impls
@dtypes
@nearest_sizes
def test_nearest_is_that_of_all_distances(impl, dtype, n, m, d):
    check_nearest(*points(n, m, d, dtype), impl=impl)


def test_blocks_that_do_not_divide_the_rows_find_the_same(monkeypatch):
    monkeypatch.setattr(reference, "QUERIES", 4)
    monkeypatch.setattr(reference, "SOURCES", 8)
    for n, m in (1, 8), (4, 9), (7, 50), (8, 7):
        check_nearest(*points(n, m, 5))
        check_nearest(*(x.round() for x in points(n, m, 2)))  # equally near ones in several blocks


@given(st.integers(1, 80), st.integers(1, 150), st.integers(1, 90), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_the_first_of_equally_near_sources_is_found(n, m, d, seed):
    torch.manual_seed(seed)
    whole = [torch.randint(-1, 2, (rows, d)).float().to(DEVICE) for rows in (n, m)]
    for impl in "torch", "triton": check_nearest(*whole, impl=impl)


@impls
def test_of_repeated_sources_the_first_is_found(impl):
    # of whole numbers every sum is exact, in whatever order a processor adds
    queries, sources = ((9*o).round() for o in points(150, 11, 35))
    sources[0] = 99.  # so far that none is next to it
    _, index = nearest(queries, sources.repeat(30, 1), impl=impl)
    assert torch.equal(index, nearest(queries, sources, impl="torch")[1]) and index.min() > 0


@impls
def test_a_source_finds_itself_at_no_distance_even_far_from_the_origin(impl):
    _, sources = points(1, 200, 35)
    distance, index = nearest(sources + 1000, sources + 1000, impl=impl)
    assert not distance.any() and torch.equal(index, torch.arange(200, device=DEVICE))


@impls
@pytest.mark.usefixtures("poisoned_memory")
def test_only_allowed_sources_are_found_whatever_the_others_are(impl):
    queries, sources = points(70, 130, 35)
    allowed = torch.rand(130, device=DEVICE) < .3
    sources[~allowed] = torch.nan
    check_nearest(queries, sources, allowed, impl)
    one = torch.arange(130, device=DEVICE) == allowed.nonzero()[-1]
    check_nearest(queries, sources, one, impl)


@impls
def test_nearest_takes_any_layout_and_two_types(impl):
    queries, sources = points(41, 60, 20)
    check_nearest(queries.T.contiguous().T, sources[::2, ::3].repeat(1, 3)[:, :20], impl=impl)
    check_nearest(queries.half(), sources, impl=impl)


@impls
def test_nearest_is_as_exact_inside_autocast_and_has_no_gradient(impl):
    queries, sources = (t.requires_grad_() for t in points(70, 130, 35))
    with torch.autocast(DEVICE, torch.bfloat16):
        check_nearest(queries, sources, impl=impl)
        assert not nearest(queries, sources, impl=impl)[0].requires_grad


@impls
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_query_that_is_not_finite_harms_no_other(impl, value):
    queries, sources = points(70, 130, 35)
    _, expected = nearest(queries, sources, impl=impl)
    queries[7, 3] = value
    distance, index = nearest(queries, sources, impl=impl)
    assert not distance[7].isfinite() and 0 <= index[7] < 130
    index[7] = expected[7]
    assert torch.equal(index, expected)


def test_no_queries_find_nothing():
    distance, index = nearest(torch.zeros(0, 3), torch.zeros(2, 3))
    assert distance.shape == index.shape == (0,) and index.dtype == torch.int64


@pytest.mark.parametrize("queries, sources, allowed, message", [
    ((4, 3), (5, 2), None, r"\[4, 3\] and \[5, 2\]"), ((4,), (5, 4), None, r"\[4\] and \[5, 4\]"),
    ((4, 3), (0, 3), None, "needs a source"), ((4, 3), (5, 3), torch.zeros(5).bool(), "needs a source"),
    ((4, 3), (5, 3), torch.ones(4).bool(), r"bool \[5\] on cpu.*got torch.bool \[4\]"),
    ((4, 3), (5, 3), torch.ones(5), r"got torch.float32 \[5\]")])
def test_nearest_names_what_does_not_fit(queries, sources, allowed, message):
    with pytest.raises(ValueError, match=message):
        nearest(torch.zeros(queries), torch.zeros(sources), allowed)
    with pytest.raises(ValueError, match="sources torch.int64"):
        nearest(torch.zeros(4, 3), torch.zeros(5, 3).long())


# which implementation runs, and what torch knows of it

def test_auto_is_torch_on_the_cpu():
    tensors = {"x": torch.zeros(1, 1, 1, 1)}
    assert not ops.uses_triton("auto", tensors) and not ops.uses_triton("torch", tensors)
    with pytest.raises(ValueError, match="auto, triton or torch, not 'cuda'"):
        ops.uses_triton("cuda", tensors)


@pytest.mark.parametrize("reason, tensor, patch", [
    ("x is torch.float64", torch.zeros(1, 1, 1, 1, dtype=torch.float64), None),
    ("x is on cpu, kernels run on a GPU", torch.zeros(1, 1, 1, 1),
     lambda m: m.delenv("TRITON_INTERPRET", raising=False)),
    ("triton is not installed", torch.zeros(1, 1, 1, 1),
     lambda m: m.setattr(ops, "HAS_TRITON", False))])
def test_triton_that_cannot_run_says_why(reason, tensor, patch, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    if patch: patch(monkeypatch)
    with pytest.raises(RuntimeError, match=f"cannot run: {reason}"):
        zero_conv_merge(tensor, tensor, tensor, impl="triton")
    assert torch.equal(zero_conv_merge(tensor, tensor, tensor), tensor)


def test_types_and_devices_that_do_not_fit_are_named():
    x, weight = torch.zeros(1, 2, 3, 3), torch.zeros(2, 2, 1, 1)
    with pytest.raises(ValueError, match="m torch.int64 on cpu"):
        zero_conv_merge(x, x.long(), weight)
    with pytest.raises(ValueError, match="of one type, got torch.float32 and torch.float16"):
        zero_conv_merge(x, x, weight.half())
    with pytest.raises(ValueError, match="target torch.float32 on meta"):
        masked_l1(x, x.to("meta"))
    with pytest.raises(ValueError, match="mask torch.bool"):
        masked_l1(x, x, torch.zeros(1, 1, 3, 3, dtype=torch.bool))


def test_torch_knows_the_operators():
    pred, target, mask = l1_tensors(2, 3, 4, 5, 2)
    masked_l1(pred, target, impl="triton")  # registers it
    x, m, weight = (t.requires_grad_() for t in merge_tensors(2, 3, 4, 5, 7))
    zero_conv_merge(x, m, weight, impl="triton")
    for args in ((pred.requires_grad_(), target, mask, .3, 2.5, True),
                 (pred.detach(), target, None, 1., 1., False)):
        torch.library.opcheck(torch.ops.fastinpaint.masked_l1.default, args)
    torch.library.opcheck(torch.ops.fastinpaint.zero_conv_merge.default, (x, m, weight))
    torch.library.opcheck(torch.ops.fastinpaint.zero_conv_merge_backward.default,
                          (x.detach(), m.detach(), weight.detach(), True, False))
    queries, sources = points(5, 70, 3)
    nearest(queries, sources, impl="triton")
    torch.library.opcheck(torch.ops.fastinpaint.nearest.default, (queries, sources))


@impls
def test_they_compile_in_one_graph(impl):
    def step(x, m, weight, target, mask):
        return masked_l1(zero_conv_merge(x, m, weight, impl=impl), target, mask, 1., 3., impl=impl)
    tensors, (_, target, mask) = merge_tensors(2, 3, 4, 4, 5), l1_tensors(2, 3, 4, 5, 2)
    compiled = torch.compile(step, fullgraph=True,
                             backend="inductor" if DEVICE == "cuda" else "aot_eager")
    one = torch.tensor(1., device=DEVICE)
    outcomes = [backward(lambda *t, f=f: f(*t, target, mask), *tensors, upstream=one)
                for f in (step, compiled)]
    for a, b in zip(*outcomes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(DEVICE == "cpu", reason="CUDA graphs need a GPU")
def test_they_run_in_a_cuda_graph():
    x, m, weight = merge_tensors(2, 8, 8, 16, 16)
    _, target, mask = l1_tensors(2, 8, 16, 16, 2)
    x.requires_grad_()

    def step():
        merged = zero_conv_merge(x, m, weight, impl="triton")
        return torch.autograd.grad(masked_l1(merged, target, mask, impl="triton"), x)[0]

    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream): expected = step()  # warm up
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph): grad = step()
    graph.replay()
    torch.testing.assert_close(grad, expected)


@pytest.mark.skipif(DEVICE == "cuda", reason="tiny_learner trains on the CPU, kernels then run on the GPU")
def test_training_through_the_kernels_loses_as_through_torch(tiny_learner, monkeypatch):
    "Twenty steps of latent control"
    def losses(impl):
        monkeypatch.setattr(ops, "uses_triton", lambda _, tensors, small=True: impl == "triton")
        learn = tiny_learner(FreezeSchedule(), LatentLoss(known=.1), control="mask", width=8,
                             steps=20)
        # larger steps of Adam turn the last bits of a gradient into different runs
        with learn.no_logging(): learn.fit(1, 1e-3)
        return torch.stack(learn.recorder.losses)
    found, expected = losses("triton"), losses("torch")
    assert len(expected) == 20
    # which last bits differ depends on the processor; they double with each step
    torch.testing.assert_close(found[:7], expected[:7], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)
