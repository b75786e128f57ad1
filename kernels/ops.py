"Checks, and choice of a kernel by `impl`: torch, triton, or auto, the faster of the two on a GPU"
import os
from importlib.util import find_spec

import torch

from . import reference

HAS_TRITON = find_spec("triton") is not None
DTYPES = torch.float16, torch.bfloat16, torch.float32
MEMORY_BOUND = 128  # channels; merges of more are bound by arithmetic, which cuBLAS does best


def masked_l1(pred, target, mask=None, known=1., missing=1., impl="auto"):
    """Mean of `|pred - target|`, weighted by `missing` in the hole (mask 1), by `known` outside.

    `pred` (which alone has a gradient), `target` `[B, C, h, w]`; `mask` `[B, 1, H, W]`, of a whole multiple
    of h and w, or None for the plain mean. Raises ValueError, RuntimeError where "triton" cannot run."""
    if pred.ndim != 4 or pred.shape != target.shape:
        raise ValueError("masked_l1 takes two tensors [B, C, h, w] of one shape, "
                         f"got {list(pred.shape)} and {list(target.shape)}")
    target = target.detach()
    tensors = dict(pred=pred, target=target)
    if mask is not None:
        b, _, h, w = pred.shape
        fits = mask.ndim == 4 and mask.shape[:2] == (b, 1) and all(
            m >= n and (n == 0 or m % n == 0) for m, n in zip(mask.shape[2:], (h, w), strict=True))
        if not fits:
            raise ValueError(f"a mask is [{b}, 1, s·{h}, s·{w}] for this pred, got {list(mask.shape)}")
        tensors["mask"] = mask = mask.detach()
    else: known = missing = 1.
    check_types("masked_l1", tensors)
    if uses_triton(impl, tensors):
        from .masked_l1_triton import masked_l1 as fused
        save = pred.requires_grad and torch.is_grad_enabled()
        return fused(pred, target, mask, float(known), float(missing), save)[0]
    return reference.masked_l1(pred, target, mask, known, missing)


def zero_conv_merge(x, m, weight, impl="auto"):
    "`x + W·m` of `[B, C, h, w]`, `[B, K, h, w]`, weight `[C, K, 1, 1]`; raises as `masked_l1`"
    if x.ndim != 4 or m.ndim != 4 or x.shape[::2] != m.shape[::2] or x.shape[3] != m.shape[3] \
       or weight.shape != (x.shape[1], m.shape[1], 1, 1):
        raise ValueError("zero_conv_merge takes x [B, C, h, w], m [B, K, h, w] and weight [C, K, 1, 1], "
                         f"got {list(x.shape)}, {list(m.shape)} and {list(weight.shape)}")
    if torch.is_autocast_enabled(x.device.type):  # the product is of its type, the sum of the wider
        m, weight = (t.to(torch.get_autocast_dtype(x.device.type)) for t in (m, weight))
    tensors = dict(x=x, m=m, weight=weight)
    check_types("zero_conv_merge", tensors)
    if m.dtype != weight.dtype:
        raise ValueError(f"m and weight must be of one type, got {m.dtype} and {weight.dtype}")
    if uses_triton(impl, tensors, small=max(weight.shape) <= MEMORY_BOUND):
        from .zero_conv_triton import zero_conv_merge as fused
        return fused(x, m, weight)
    return reference.zero_conv_merge(x, m, weight)


def nearest(queries, sources, allowed=None, impl="auto"):
    """Squared distance, float32 `[N]`, never negative, and index, int64 `[N]`, of the nearest source.

    `queries` `[N, D]`, `sources` `[M, D]`, finite; `allowed` `[M]`, bool: those that may be found, or None.
    Euclidean, to float32's rounding; of equals the first; no matrix N×M in memory, no gradients.
    Raises ValueError, also where no source may be found, RuntimeError where "triton" cannot run."""
    if queries.ndim != 2 or sources.ndim != 2 or queries.shape[1] != sources.shape[1]:
        raise ValueError("nearest takes queries [N, D] and sources [M, D], "
                         f"got {list(queries.shape)} and {list(sources.shape)}")
    tensors = dict(queries=queries, sources=sources)
    check_types("nearest", tensors)
    if allowed is not None:
        given = allowed.dtype, allowed.shape, allowed.device
        if given != (torch.bool, sources.shape[:1], sources.device):
            raise ValueError(f"allowed is torch.bool [{len(sources)}] on {sources.device} for these sources, "
                             f"got {allowed.dtype} {list(allowed.shape)} on {allowed.device}")
        kept = allowed.nonzero()[:, 0]
        tensors["sources"] = sources = sources[kept]
    if not len(sources): raise ValueError("nearest needs a source: none was given, or none is allowed")
    search = reference.best_match
    if uses_triton(impl, tensors):
        from .nearest_triton import best_match as search
    distances, indices = reference.nearest(queries, sources, search)
    return distances, indices if allowed is None else kept[indices]


def check_types(name, tensors):
    "All floating point, all on one device"
    values = tensors.values()
    if not all(t.is_floating_point() for t in values) or len({t.device for t in values}) > 1:
        found = ", ".join(f"{k} {t.dtype} on {t.device}" for k, t in tensors.items())
        raise ValueError(f"{name} takes floating-point tensors on one device, got {found}")


def uses_triton(impl, tensors, small=True):
    "Whether `impl` means the kernels here; `small` is where they are faster than torch"
    if impl == "torch": return False
    if impl not in ("auto", "triton"): raise ValueError(f"impl is auto, triton or torch, not {impl!r}")
    reason = why_not_triton(tensors)
    if impl == "triton" and reason: raise RuntimeError(f"impl='triton' cannot run: {reason}")
    return impl == "triton" or not reason and small and all(t.is_cuda for t in tensors.values())


def why_not_triton(tensors):
    "The reason why the kernels cannot take `tensors` (name → tensor), or None"
    if not HAS_TRITON: return "triton is not installed (for Linux: pip install triton)"
    for name, t in tensors.items():
        if not t.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
            return f"{name} is on {t.device}, kernels run on a GPU (or set TRITON_INTERPRET=1 from the start)"
        if t.dtype not in DTYPES: return f"{name} is {t.dtype}, kernels take float32, float16 and bfloat16"
        if not t.numel(): return f"{name} is empty"
