import os
import subprocess
import sys

ALONE = """
import socket, sys
sys.modules["triton"] = None  # importing it fails
def offline(*args, **kwargs): raise OSError("no network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = offline

from fastinpaint.all import *
import torch

assert not torch.cuda.is_available()
for name in sys.argv[1:]: assert callable(globals()[name]) or isinstance(globals()[name], dict), name
model = lama(width=2, blocks=1, control="mask", autoencoder=None).eval()
assert model(torch.rand(1, 3, 32, 32), torch.ones(1, 1, 32, 32)).isfinite().all()
model.encode(torch.rand(1, 3, 32, 32), torch.ones(1, 1, 32, 32)).sum().backward()
"""
NAMES = """BFloat16 Checkpoint FreezeSchedule History InpaintDataLoaders InpaintLoss InpaintNet Inpainter LatentLoss
    PRESETS PixelL1 PixelMSE PSNR SSIM LPIPS FID HoleL1 Reconstruct WandbTracking call_parse composite recipe_flags
    inpaint_learner lama latent_damage load_lama load_model named_data partial save_model train_recipe""".split()


def test_the_package_works_without_gpu_triton_or_network(tmp_path):
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", ALONE, *NAMES], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
