"The operations that mask control and the latent loss add to a training step, with their arguments checked"
from . import reference


def masked_l1(pred, target, mask=None, known=1., missing=1.):
    """Mean of `|pred - target|`, weighted by `missing` in the hole (mask 1) and by `known` outside; a scalar.

    `pred`, `target` `[B, C, h, w]`; `mask` `[B, 1, H, W]` at their size or a whole multiple of it, or None.
    Raises ValueError naming shapes that do not fit.
    """
    if pred.ndim != 4 or pred.shape != target.shape:
        raise ValueError("masked_l1 takes two tensors [B, C, h, w] of one shape, "
                         f"got {list(pred.shape)} and {list(target.shape)}")
    if mask is not None:
        b, _, h, w = pred.shape
        fits = mask.ndim == 4 and mask.shape[:2] == (b, 1) and all(
            m >= n and m % n == 0 for m, n in zip(mask.shape[2:], (h, w), strict=True))
        if not fits: raise ValueError(f"a mask for {list(pred.shape)} is [{b}, 1, s·{h}, s·{w}], got {list(mask.shape)}")
    return reference.masked_l1(pred, target, mask, known, missing)


def zero_conv_merge(x, m, weight):
    """`x + W·m` with `x` `[B, C, h, w]`, guide `m` `[B, K, h, w]` and `weight` `[C, K, 1, 1]`.

    Raises ValueError naming shapes that do not fit.
    """
    if x.ndim != 4 or m.ndim != 4 or x.shape[::2] != m.shape[::2] or x.shape[3] != m.shape[3] \
       or weight.shape != (x.shape[1], m.shape[1], 1, 1):
        raise ValueError("zero_conv_merge takes x [B, C, h, w], m [B, K, h, w] and weight [C, K, 1, 1], "
                         f"got {list(x.shape)}, {list(m.shape)} and {list(weight.shape)}")
    return reference.zero_conv_merge(x, m, weight)
