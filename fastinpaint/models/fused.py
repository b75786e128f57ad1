"""A training step of an `FFC` on a CPU, forward and backward by hand; `FFC` itself is the specification.

Pixels follow one another inside the spectral transform, channels outside of it, as either is fastest there:
its 1×1 convolutions are matrix products that change the layout on the way, so nothing is copied for it."""
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from ..kernels.reference import conv_backward
from . import narrow

aten = torch.ops.aten
LAST = torch.channels_last


def fits(ffc, x):
    "Whether the step of `ffc` on `x` is one that `fused` computes; anything unusual is not"
    if torch.compiler.is_compiling() or not torch.is_grad_enabled(): return False
    if x.device.type != "cpu" or computed(x) not in (torch.float32, torch.bfloat16): return False
    if ffc.impl == "triton" or ffc.spectral.fourier.impl not in ("auto", "fft"): return False
    bns = ffc.spectral.reduce[1], ffc.spectral.fourier.bn, ffc.bn
    usual = (type(bn) is nn.BatchNorm2d and bn.training and bn.momentum is not None for bn in bns)
    if not all(usual): return False
    return unwatched(*(m for m in ffc.modules() if m is not ffc))


def unwatched(*modules):
    "Whether no hook sees what `modules` do"
    return not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in modules)


def fused(ffc, x):
    "What `ffc` gives in training, `[B, C, h, w]` to the same shape; its BatchNorms take note of `x`"
    spectral = ffc.spectral
    bns = spectral.reduce[1], spectral.fourier.bn, ffc.bn
    convs = ffc.to_local, ffc.local_to_global, spectral.reduce[0], spectral.fourier.conv, spectral.expand
    x = x.to(computed(x))
    with torch.autocast("cpu", enabled=False):
        return FusedFFC.apply(bns, isinstance(ffc.act, nn.ReLU), x, *(conv.weight for conv in convs),
                              *(p for bn in bns for p in (bn.weight, bn.bias)))


def computed(x):
    "The type of 3×3 convolutions and results: autocast's, else that of `x`. All else is float32"
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


class FusedFFC(torch.autograd.Function):
    "`fused` of the three BatchNorms, whether a ReLU follows, `x`, five weights, three gains and biases"
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(ctx, bns, act, x, to_local, to_global, reduce, spectrum, expand, *norms):
        b, _, h, w = x.shape
        local, x = len(to_local), x.contiguous(memory_format=LAST)
        to_local, to_global, expand = (weight.to(x) for weight in (to_local, to_global, expand))
        reduced = torch.bmm(every(reduce, b), matrix(x)[..., local:].float().transpose(1, 2))
        r, *of_r = normalised(bns[0], reduced)
        parts = as_parts(torch.fft.rfft2(r.unflatten(2, (h, w)), norm="ortho"))
        mixed = torch.bmm(every(spectrum, b), parts)
        m, *of_m = normalised(bns[1], mixed)
        y = torch.fft.irfft2(as_complex(m, h), s=(h, w), norm="ortho").flatten(2).add_(r).to(x)
        padded = narrow.reflected(x, 1)
        loc = padded[:, :local].contiguous(memory_format=LAST)
        glob = F.conv2d(loc, to_global).contiguous(memory_format=LAST)
        matrix(glob).baddbmm_(y.transpose(1, 2), every(expand, b).transpose(1, 2))
        z = torch.cat([F.conv2d(padded, to_local), glob], dim=1).contiguous(memory_format=LAST)
        out, *of_z = aten.native_batch_norm(z, *norms[4:], bns[2].running_mean, bns[2].running_var, True,
                                            bns[2].momentum, bns[2].eps)
        for bn in bns: bn.num_batches_tracked += 1
        if act: out.relu_()
        ctx.bns, ctx.act = bns, act
        ctx.save_for_backward(x, to_local, to_global, reduce, spectrum, expand, *norms[::2],
                              reduced, r, *of_r, parts, mixed, m, *of_m, y,
                              padded, loc, z, *of_z, *([out] if act else []))
        return out

    @staticmethod
    @once_differentiable
    @torch.amp.custom_bwd(device_type="cpu")  # autocast is off in it as in `forward`
    def backward(ctx, g):
        saved = ctx.saved_tensors
        (x, to_local, to_global, reduce, spectrum, expand, *gains, reduced, r, r_mean, r_std, parts, mixed, m,
         m_mean, m_std, y, padded, loc, z, z_mean, z_std) = saved[:len(saved) - ctx.act]
        b, _, h, w = x.shape
        local, g = len(to_local), g.contiguous(memory_format=LAST)
        if ctx.act: g = aten.threshold_backward(g, saved[-1], 0)
        g, *d_norm3 = norm_backward(ctx.bns[2], g, z, gains[2], z_mean, z_std)
        g_local, g_global = (o.contiguous(memory_format=LAST) for o in (g[:, :local], g[:, local:]))
        d_padded, d_to_local = conv_backward(g_local, padded, to_local)
        d_loc, d_to_global = conv_backward(g_global, loc, to_global)
        d_padded = added(d_padded, d_loc)
        dx = aten.reflection_pad2d_backward(d_padded, x, [1]*4)

        g = matrix(g_global)
        d_expand = torch.bmm(g.transpose(1, 2), y.transpose(1, 2)).sum(0)
        dy = torch.bmm(every(expand, b).transpose(1, 2), g.transpose(1, 2)).float()
        # of a column that has a conjugate twin which the half spectrum leaves out, the gradient counts twice
        twins = slice(1, (w + 1)//2)
        spectral = torch.fft.rfft2(dy.unflatten(2, (h, w)), norm="ortho")
        spectral[..., twins].mul_(2)
        g = aten.threshold_backward(as_parts(spectral), m, 0)
        g, *d_norm2 = norm_backward(ctx.bns[1], g, mixed, gains[1], m_mean, m_std)
        d_spectrum = torch.bmm(g, parts.transpose(1, 2)).sum(0)
        spectral = as_complex(torch.bmm(every(spectrum, b).transpose(1, 2), g), h)
        spectral[..., twins].mul_(.5)
        g = torch.fft.irfft2(spectral, s=(h, w), norm="ortho").flatten(2).add_(dy)
        g = aten.threshold_backward(g, r, 0)
        g, *d_norm1 = norm_backward(ctx.bns[0], g, reduced, gains[0], r_mean, r_std)
        d_reduce = torch.bmm(g, matrix(x)[..., local:].float()).sum(0)
        dx = dx.contiguous(memory_format=LAST)
        matrix(dx)[..., local:].baddbmm_(g.to(dx).transpose(1, 2), every(reduce.to(dx), b))
        products = zip((d_reduce, d_spectrum, d_expand), (reduce, spectrum, expand), strict=True)
        return (None, None, dx, d_to_local.float(), d_to_global.float(),
                *(d.view_as(weight).float() for d, weight in products),
                *d_norm1, *d_norm2, *d_norm3)


def every(weight, b): return weight.flatten(1).expand(b, -1, -1)


def matrix(x):
    "`[B, h·w, C]`, the memory of `x` `[B, C, h, w]` whose channels lie last"
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def added(x, first):
    "`x` `[B, C, h, w]` with `first` added to its first channels; sums into slices of bfloat16 are slow"
    if x.dtype == torch.float32: x[:, :first.shape[1]].add_(first)
    else: x.permute(0, 2, 3, 1).add_(F.pad(first.permute(0, 2, 3, 1), [0, x.shape[1] - first.shape[1]]))
    return x


def as_parts(spectrum):
    "`[B, 2C, h·v]`, real and imaginary parts interleaved by channel, of complex `[B, C, h, v]`"
    return torch.view_as_real(spectrum).permute(0, 1, 4, 2, 3).flatten(1, 2).flatten(2)


def as_complex(parts, h):
    "The inverse of `as_parts`"
    real, imag = parts.unflatten(1, (-1, 2)).unflatten(3, (h, -1)).unbind(2)
    return torch.complex(real, imag)


def normalised(bn, x):
    "`relu(bn(x))` for `x` `[B, C, n]` in training, the mean `[C]` and the inverse deviation `[C]`"
    n = x.shape[0]*x.shape[2]
    mean = x.sum(2).sum(0)/n
    var = (x - mean[:, None]).square_().sum(2).sum(0)/n
    bn.running_mean.lerp_(mean, bn.momentum)
    bn.running_var.lerp_(var*(n/(n - 1)), bn.momentum)
    y = torch.batch_norm(x, bn.weight, bn.bias, mean, var, False, 0., bn.eps, False)
    return y.relu_(), mean, torch.rsqrt(var + bn.eps)


def norm_backward(bn, g, x, weight, mean, inverse):
    return aten.native_batch_norm_backward(g, x, weight, None, None, mean, inverse, True, bn.eps, [True]*3)
