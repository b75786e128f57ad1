"The convolutions of a fast Fourier convolution: by torch, or in one launch, and the choice"
import torch

from . import reference
from .ops import check_types, uses_triton


def ffc_convs(x, to_local, to_global, y, expand, bias=None, act=False, impl="auto"):
    """`cat([to_local∗x, to_global∗x[:, :L] + expand∗y])`, `[B, C, h, w]` as `x`, of reflection-padded `x`.

    `to_local` `[L, C, 3, 3]`, `to_global` `[C-L, L, 3, 3]`, `y` `[B, K, h, w]`, `expand` `[C-L, K, 1, 1]`; a
    `bias` `[C]` and with `act` a ReLU, without gradients. `impl` is torch, triton, or auto, triton on a GPU.
    Source: Chi et al. 2020, figure 1. Raises ValueError for other shapes, RuntimeError where "triton" cannot
    run."""
    c = x.shape[1] if x.ndim == 4 else 0
    local = to_global.shape[1] if to_global.ndim == 4 else 0
    fits = (to_local.shape == (local, c, 3, 3) and to_global.shape == (c - local, local, 3, 3)
            and y.ndim == 4 and y.shape[::2] == x.shape[::2] and y.shape[3] == x.shape[3]
            and expand.shape == (c - local, y.shape[1], 1, 1) and min(x.shape[2:]) > 1
            and (bias is None or bias.shape == (c,)))
    tensors = dict(x=x, to_local=to_local, to_global=to_global, y=y, expand=expand)
    if not fits:
        raise ValueError("ffc_convs takes x [B, C, h, w], sides at least 2, to_local [L, C, 3, 3], to_global "
                         "[C-L, L, 3, 3], y [B, K, h, w], expand [C-L, K, 1, 1] and a bias [C], got "
                         + ", ".join(f"{k} {list(t.shape)}" for k, t in tensors.items()))
    check_types("ffc_convs", tensors)
    if uses_triton(impl, tensors):
        from .ffc_triton import ffc_convs as fused
        from .ffc_triton import packed
        kind, dtype = x.device.type, x.dtype
        if torch.is_autocast_enabled(kind): dtype = torch.get_autocast_dtype(kind)
        weights = (packed(weight.to(dtype)) for weight in (to_local, to_global, expand))
        return fused(x.to(dtype), y.to(dtype), *weights, bias, act)
    return reference.ffc_convs(x, to_local, to_global, y, expand, bias, act)
