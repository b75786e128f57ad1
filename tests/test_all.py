import os
import subprocess
import sys

import pytest

import fastinpaint
import fastinpaint.all

ALONE = """
import socket, sys
sys.modules["triton"] = None  # importing it fails
def offline(*args, **kwargs): raise OSError("no network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = offline

from fastinpaint.all import *
import torch

assert not torch.cuda.is_available()
for name in sys.argv[1:]: assert callable(globals()[name]) or name == "PRESETS", name
seconds = "timm", "torchmetrics", "lpips", "torchvision", "torch._dynamo", "huggingface_hub.hf_api", "wandb"
for name in seconds: assert name not in sys.modules, name
model = lama(width=2, blocks=1, control="mask", autoencoder=None).eval()
assert model(torch.rand(1, 3, 32, 32), torch.ones(1, 1, 32, 32)).isfinite().all()
model.encode(torch.rand(1, 3, 32, 32), torch.ones(1, 1, 32, 32)).sum().backward()
assert "diffusers" not in sys.modules  # which takes seconds
"""
NAMES = """
    AdversarialSettings BFloat16 Checkpoint composite FID flag FreezeSchedule full_loss
    History HoleL1 inpaint_learner InpaintDataLoaders Inpainter InpaintLoss InpaintNet lama
    latent_damage LatentLoss load_lama load_model LPIPS named_data partial PixelL1 PixelMSE
    PRESETS program PSNR Reconstruct save_model Settings SSIM train_recipe WandbTracking
""".split()


def test_the_package_works_without_gpu_triton_or_network(tmp_path):
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", ALONE, *NAMES], cwd=tmp_path, env=env,
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_every_name_is_found_in_the_package_as_well():
    names = [name for name in vars(fastinpaint.all) if not name.startswith("_")]
    assert {"lama", "train_recipe", "Inpainter"} < set(names)
    for name in names: assert getattr(fastinpaint, name) is getattr(fastinpaint.all, name)


@pytest.mark.parametrize("name", ["_repr_html_", "__wrapped__", "recipe", "Lama"])
def test_other_names_are_refused(name):
    with pytest.raises(AttributeError, match=name): getattr(fastinpaint, name)


LIGHT = """
import sys
import fastinpaint
from fastinpaint import kernels, recipes
assert not hasattr(fastinpaint, "models") and not hasattr(fastinpaint, "_repr_html_")
assert "fastinpaint.all" not in sys.modules
assert callable(fastinpaint.lama) and "fastinpaint.all" in sys.modules
"""


def test_nothing_is_loaded_for_submodules_and_private_names(tmp_path):
    command = [sys.executable, "-c", LIGHT]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


ORDER = """
{first}
{last}
import sys
from pathlib import Path
dls = InpaintDataLoaders.from_folder(sys.argv[1], "center", 32, 2, valid=.25, num_workers=0, device="cpu")
learn = inpaint_learner(dls, lama(width=2, blocks=1, autoencoder=None), metrics=[mse, HoleL1()])
learn.fit(1)
import fastai.vision.all as theirs, fastinpaint.all as ours
public = [k for k in vars(ours) if not k.startswith("_")]
print(sorted(k for k in public if globals()[k] is not getattr(ours, k)))
"""


@pytest.mark.parametrize("ours_last, other", [(True, []), (False, ["Code", "load_model", "save_model"])])
def test_either_order_of_imports_works(photos, tmp_path, ours_last, other):
    lines = ["from fastinpaint.all import *", "from fastai.vision.all import *"]
    first, last = reversed(lines) if ours_last else lines
    run = subprocess.run([sys.executable, "-c", ORDER.format(first=first, last=last), photos], cwd=tmp_path,
                         env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == str(other)
