"A model for another runtime: an ONNX file or a torch.export program, checked before it is kept"
import hashlib
import json
import math
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.export import Dim

from ..core.device import evaluating
from ..core.errors import InputError, MissingPackage
from ..core.files import replacing
from ..kernels.prefill import LEVELS, neighbours
from ..models.context_encoder import ContextEncoder
from ..models.ffc import FourierUnit
from ..models.load import model_file, read_model
from ..models.net import composite

SMALLEST, LARGEST = 16, 8192         # sides of images in pixels
CHECKED = (75, 161), (16, 16), (264, 96)  # height and width of what an exported model is checked on
TOLERANCE = 1e-3                     # relative to the largest value of the model's own result
# autoencoders of diffusers that compute in another way by size, and how
BY_SIZE = dict(AsymmetricAutoencoderKL="its decoder looks known pixels up by their size",
               VQModel="it compares few latent pixels with its codes in another way than many",
               AutoencoderDC="it attends to few latent pixels in another way than to many")
CARD = """# {name}

An inpainting model, exported by fastinpaint {fastinpaint} with torch {torch}.

| | | |
|---|---|---|
| input `image` | float32 `[1, 3, H, W]` | RGB in [0, 1]; its hole may hold anything |
| input `mask` | float32 `[1, 1, H, W]` | exactly 0 or 1; **1 is the hole** |
| output `filled` | float32 `[1, 3, H, W]` | `image` with its hole filled; else unchanged |

H and W: any from {smallest} to {largest}. Checked against the model: {checked}.

```json
{about}
```
"""


def export_model(model, out, format="onnx"):
    """Write `model` to the file `out` for another runtime, and a card beside it; returns the path.

    `model` is as for `Inpainter`. `format` "onnx" needs `pip install fastinpaint[onnx]`, "torch"
    writes a program: `torch.export.load(out).module()(image, mask)`. Both take images of 16 pixels, or of two
    strides where that is more, to 8192. Raises InputError for a network of one size, one around what is in
    `BY_SIZE`, or an unknown `format`, MissingPackage, and RuntimeError, writing nothing, where a result
    is not within a thousandth of the model's."""
    if format not in EXPORTERS: raise InputError(f"no format {format!r}: expected {' or '.join(EXPORTERS)}")
    path, net = Path(out), read_model(model) if isinstance(model, str | Path) else model
    if net.generates:
        raise InputError(f"{type(net).__name__} fills by a seed, for which exported programs have no input: "
                         "take a model of lama()")
    if isinstance(net, ContextEncoder):
        raise InputError(f"{type(net).__name__} has one fixed size, not any: take a model of lama()")
    kind = net.config.get("autoencoder", {}).get("kind")
    if kind in BY_SIZE:
        raise InputError(f"a network around {kind} cannot be exported for any size, as {BY_SIZE[kind]}: "
                         "take one around an AutoencoderKL or AutoencoderTiny")
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), evaluating(net):
        file = Path(folder)/path.name
        run = EXPORTERS[format](PortableNet(net).cpu().eval(), file)
        sizes = (tuple(max(n, smallest(net)) for n in size) for size in CHECKED)
        errors = {f"{w}x{h}": _error(net, run, h, w) for h, w in sizes}
        if (worst := max(errors.values())) > TOLERANCE:
            raise RuntimeError(f"the exported model differs from the model by {worst:.2g} of the largest "
                               f"value; {path} was not written")
        with replacing(path) as f: f.write(file.read_bytes())
    with replacing(f"{path}.md") as f: f.write(_card(path, model, net, errors).encode())
    return path


class PortableNet(nn.Module):
    "`(image, mask) → filled` of an `InpaintNet`, at any size, in operations of every runtime"
    def __init__(self, net):
        super().__init__()
        self.net = net.folded(winograd=False)
        for name, part in list(self.net.named_modules()):
            if isinstance(part, FourierUnit): self.net.set_submodule(name, MatrixFourier(part))

    def forward(self, image, mask):
        (h, w), net = image.shape[-2:], self.net
        known, hole = (reflected(x, net.stride) for x in (image*(1 - mask), mask))
        if net.prefill: known = prefilled(known, hole)
        pred = first(net.decode(net.refine(net.conditioner(net.encoder, known, hole))), h, w)
        return torch.where(mask > .5, pred, image).clamp(0, 1)


def smallest(net):
    "Side in pixels of the smallest images that `net` takes when it is exported: two strides"
    return max(SMALLEST, 2*net.stride)


def axes(network):
    "What sizes a `PortableNet` takes, for exporters"
    limits = dict(min=smallest(network.net), max=LARGEST)
    sides = {2: Dim("height", **limits), 3: Dim("width", **limits)}
    return sides, sides


def reflected(x, stride):
    "`InpaintNet.pad`, for sizes from two strides"
    for dim in -2, -1:
        i = torch.arange((x.shape[dim] + stride - 1)//stride*stride)
        x = x.index_select(dim, torch.minimum(i, 2*last(x.shape[dim]) - i))
    return x


def first(x, h, w):
    "`x[..., :h, :w]`, for which a slice would ask whether that is all of it"
    return x.index_select(-2, torch.arange(h)).index_select(-1, torch.arange(w))


def last(n):
    "`n - 1` as a tensor: exporters do not take sizes for numbers"
    return torch.ones(n, dtype=torch.int64).sum() - 1


def prefilled(image, mask):
    "`smooth_fill` on a canvas that can be halved `LEVELS` times and still has two pixels"
    size, step = image.shape[-2:], 2**(LEVELS + 1)
    below, right = ((n + step - 1)//step*step - n for n in size)
    image, known = (F.pad(x, (0, right, 0, below)) for x in (image, 1 - mask))
    return first(_filled(image*known, known, size, LEVELS), *size)


def _filled(image, known, size, levels):
    hole = (known <= 0).to(image)
    (h, w), (bottom, right) = image.shape[-2:], size
    # beyond the image, each level repeats the pixels at its edge, as happens without a canvas
    rows, columns = torch.arange(h).clamp(max=bottom - 1), torch.arange(w).clamp(max=right - 1)
    def fill(x): return torch.addcmul(image, hole, x).index_select(-2, rows).index_select(-1, columns)
    if levels == 0: return fill(image.sum((2, 3), True)/known.sum((2, 3), True).clamp_min(1e-6))
    means = F.avg_pool2d(image, 2)/F.avg_pool2d(known, 2).clamp_min(1e-6)
    coarse = _filled(means, F.max_pool2d(known, 2), [(n + 1)//2 for n in size], levels - 1)
    filled = fill(F.interpolate(coarse, scale_factor=2, mode="bilinear"))
    for _ in range(2): filled = fill(neighbours(filled))
    return filled


class MatrixFourier(nn.Module):
    "`FourierUnit` as real matrix products, for runtimes without (fast, correct) transforms"
    def __init__(self, unit):
        super().__init__()
        self.spectrum = nn.Sequential(unit.conv, unit.bn, unit.act)

    def forward(self, x):
        b, c, h, w = x.shape
        (cos_h, sin_h), (cos, sin) = waves(h, h), waves(w, w//2 + 1)
        real, imaginary = x @ cos, -x @ sin
        real, imaginary = cos_h @ real + sin_h @ imaginary, cos_h @ imaginary - sin_h @ real
        parts = self.spectrum(torch.stack([real, imaginary], dim=2).flatten(1, 2))
        real, imaginary = parts.unflatten(1, (c, 2)).unbind(2)
        real, imaginary = cos_h @ real - sin_h @ imaginary, cos_h @ imaginary + sin_h @ real
        # all frequencies but the first and, of an even width, the last stand for a pair
        twice = 1. + (sin.abs().amax(0) > 1e-4)
        return (real*twice) @ cos.T - (imaginary*twice) @ sin.T


def waves(n, m):
    "The first `m` cosines and sines `[n, m]` of an orthonormal Fourier transform"
    length = last(n) + 1
    # the remainder first, as fp32 keeps more digits of small numbers
    angle = torch.arange(n)[:, None]*torch.arange(m) % length*(2*math.pi)/length
    return angle.cos()/length.sqrt(), angle.sin()/length.sqrt()


def _example(h, w):
    "An image with a hole, drawn from a seed"
    mask = torch.zeros(1, 1, h, w)
    mask[..., h//4:h//2, w//3:-w//4] = 1
    return torch.rand(1, 3, h, w, generator=torch.Generator().manual_seed(h*w)), mask


def _error(net, run, h, w):
    image, mask = _example(h, w)
    device = next(net.parameters()).device
    expected = composite(net((image*(1 - mask)).to(device), mask.to(device)).cpu(), image, mask)
    return ((run(image, mask) - expected).abs().max()/expected.abs().max()).item()


def export_program(network, path):
    "Write `network` as a `torch.export` program; returns what runs it"
    program = torch.export.export(network, _example(*CHECKED[0]), dynamic_shapes=axes(network),
                                  prefer_deferred_runtime_asserts_over_guards=True)
    torch.export.save(program, path)
    return torch.export.load(path).module()


def export_onnx(network, path):
    "Write `network` as ONNX; returns what runs it in onnxruntime"
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as e:
        raise MissingPackage(f"ONNX needs {e.name}: pip install 'fastinpaint[onnx]'") from e
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*axis name.*", UserWarning)  # which both inputs share
        program = torch.onnx.export(
            network, _example(*CHECKED[0]), dynamic_shapes=axes(network), verbose=False,
            input_names=["image", "mask"], output_names=["filled"])
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda image, mask: torch.from_numpy(
        session.run(None, dict(image=image.numpy(), mask=mask.numpy()))[0])


EXPORTERS = dict(onnx=export_onnx, torch=export_program)


def _card(path, model, net, errors):
    file = model_file(model) if isinstance(model, str | Path) else None
    about = dict(source=str(model) if file else type(net).__name__, config=net.config,
                 parameters=sum(p.numel() for p in net.parameters()),
                 source_sha256=hashlib.sha256(file.read_bytes()).hexdigest() if file else None)
    checked = ", ".join(f"{k} pixels, largest relative difference {v:.1g}" for k, v in errors.items())
    return CARD.format(name=path.name, fastinpaint=version("fastinpaint"), torch=torch.__version__,
                       smallest=smallest(net), largest=LARGEST, checked=checked,
                       about=json.dumps(about, indent=1))
