"What many tests share: tiny photographs, and models and learners that train in a moment"
import os
import shutil
import signal
import socket

import torch

# before anything imports triton
if not torch.cuda.is_available(): os.environ.setdefault("TRITON_INTERPRET", "1")

# ruff: noqa: E402
import matplotlib
import numpy as np
import pytest
import torch.multiprocessing as mp
from fastai.callback import schedule  # noqa: F401 - gives the Learner fit_one_cycle
from fastai.callback.core import Callback
from fastai.torch_core import set_seed
from fastcore.foundation import L
from PIL import Image

from fastinpaint.data.loaders import InpaintDataLoaders
from fastinpaint.judge.metrics import HoleL1
from fastinpaint.models.lama import lama
from fastinpaint.models.latent_diffusion import latent_diffusion
from fastinpaint.models.load import save_model
from fastinpaint.train.groups import parameter_groups
from fastinpaint.train.learner import inpaint_learner

torch.set_num_threads(1)
matplotlib.use("Agg")
# a shell's background jobs ignore it, and some tests send it
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    "A folder of eight smooth pictures, 48 x 40 pixels"
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(8):
        small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        small.resize((48, 40), Image.Resampling.BICUBIC).save(folder/f"{i}.png")
    return folder


@pytest.fixture
def half():
    "A dark and a bright half, with a hole inside each"
    image = torch.full((1, 3, 32, 32), .2)
    image[..., 16:] = .6
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8:12, 4:8] = mask[..., 8:12, 24:28] = 1
    return image, mask


@pytest.fixture
def tiny_lama():
    "Makes a LaMa of width 2 with one block, always the same"
    def make(seed=0, **kwargs):
        torch.manual_seed(seed)
        return lama(**(dict(width=2, blocks=1, autoencoder=None) | kwargs))
    return make


def _pairs(n): return dict(down_block_types=["DownEncoderBlock2D"]*n, up_block_types=["UpDecoderBlock2D"]*n)


# diffusers' classes by name, each with a configuration of a few channels; strides 4, 8, 4, 2, 8
TINY_VAES = {
    "AutoencoderKL": _pairs(3) | dict(block_out_channels=[4, 8, 8], norm_num_groups=2, scaling_factor=.3,
                                      shift_factor=.1),
    "AutoencoderTiny": dict(encoder_block_out_channels=[4]*4, decoder_block_out_channels=[4]*4),
    "VQModel": _pairs(3) | dict(block_out_channels=[4, 4, 8], norm_num_groups=2, num_vq_embeddings=16),
    "AutoencoderDC": {f"{part}_{what}": value for part in ("encoder", "decoder") for what, value in dict(
        block_types=["ResBlock", "EfficientViTBlock"], block_out_channels=[8, 8], layers_per_block=[1, 1],
        qkv_multiscales=[[], [5]]).items()} | dict(latent_channels=4, attention_head_dim=2),
    "AsymmetricAutoencoderKL": _pairs(4) | dict(down_block_out_channels=[4, 4, 8, 8], norm_num_groups=2,
                                                up_block_out_channels=[4, 8, 16, 16]),
}


@pytest.fixture(scope="session")
def tiny_vae():
    "Makes an autoencoder of diffusers, by the name of its class, with random weights, always the same"
    diffusers = pytest.importorskip("diffusers")
    def make(kind, seed=0, **kwargs):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return getattr(diffusers, kind)(**TINY_VAES[kind] | kwargs).eval()
    return make


@pytest.fixture(params=TINY_VAES)
def vae(request, tiny_vae):
    "An autoencoder of each class"
    return tiny_vae(request.param)


@pytest.fixture
def tiny_diffusion():
    "Makes a latent diffusion model of 16 latent channels, always the same; a fill takes three steps"
    def make(seed=0, **kwargs):
        pytest.importorskip("diffusers")
        torch.manual_seed(seed)
        return latent_diffusion(**(dict(width=2, channels=(8, 16), autoencoder=None, steps=3) | kwargs))
    return make


@pytest.fixture
def tiny_learner(photos, tmp_path, tiny_lama):
    "Makes a learner on 32-pixel crops: three batches of two an epoch, one to validate"
    def make(*cbs, loss=None, wd=0., seed=0, size=32, augment=False, num_workers=0, steps=3,
             splitter=parameter_groups, **kwargs):
        set_seed(seed)
        dls = InpaintDataLoaders.from_folder(photos, "center", size, 2, valid=.25, seed=seed, steps=steps,
                                             augment=augment, num_workers=num_workers, device="cpu")
        return inpaint_learner(dls, tiny_lama(**kwargs), loss, [HoleL1()], cbs, lr=1e-2, wd=wd,
                               path=tmp_path, splitter=splitter)
    return make


@pytest.fixture
def folders(photos, tmp_path, tiny_lama):
    "Photographs in two folders and their masks; a model"
    def paths(name): return tmp_path/"photos"/f"{'deep/' if int(name) % 2 else ''}{name}.png"
    mask = np.zeros((40, 48), bool)
    mask[10:20, 10:30] = True
    (tmp_path/"masks").mkdir()
    for fn in photos.iterdir():
        paths(fn.stem).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(fn, paths(fn.stem))
        Image.fromarray(mask).save(tmp_path/"masks"/f"{fn.stem}.gif")
    return dict(images=tmp_path/"photos", masks=tmp_path/"masks", out=tmp_path/"filled", device="cpu",
                model=str(save_model(tiny_lama(), tmp_path/"model.safetensors")))


class InterruptAt(Callback):
    "Ctrl-C in the middle of a training batch: after its loss, before its backward pass"
    order = 5

    def __init__(self, epoch=0, batch=1): self.at = epoch, batch

    def after_loss(self):
        if self.training and (self.epoch, self.iter) == self.at: raise KeyboardInterrupt


@pytest.fixture
def interrupted():
    "Runs `fit` of a learner, or what is given instead, into a Ctrl-C"
    def run(learn, epoch=0, batch=1, fit=None):
        learn.add_cb(InterruptAt(epoch, batch))
        with pytest.raises(KeyboardInterrupt): (fit or (lambda: learn.fit(2)))()
        learn.remove_cb(InterruptAt)
        return learn
    return run


@pytest.fixture
def state_of():
    "A copy of all weights and buffers of a module, or of a part of it"
    def copy(module): return {k: v.detach().clone() for k, v in module.state_dict().items()}
    return copy


@pytest.fixture
def same():
    "Whether two states, or values nested in lists, tuples and dicts, are equal to the bit"
    def equal(a, b):
        if torch.is_tensor(a): return torch.is_tensor(b) and torch.equal(a, b)
        if isinstance(a, dict): return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
        if isinstance(a, list | tuple | L): return len(a) == len(b) and all(map(equal, a, b))
        return a == b
    return equal


@pytest.fixture
def resumes_to_the_bit(interrupted, state_of, same):
    "Checks that learners `run(name, resume)`, with checkpoints in files `name`, end alike, stopped or not"
    def check(run):
        whole, broken = run("whole.pt"), run("run.pt")
        whole.fit_one_cycle(3, 1e-2)
        interrupted(broken, 2, 1, lambda: broken.fit_one_cycle(3, 1e-2))
        resumed = run("run.pt", resume=True)
        torch.rand(3)  # whatever was drawn since does not matter
        resumed.fit_one_cycle(3, 1e-2)
        assert same(state_of(resumed.model), state_of(whole.model))
        assert same(resumed.opt.state_dict(), whole.opt.state_dict())
    return check


@pytest.fixture
def grey_film():
    "Writes three grey frames of 48 x 40 pixels to the film of a name, by PyAV"
    av = pytest.importorskip("av")
    def write(name):
        with av.open(name, "w") as film:
            video = film.add_stream("libx264", rate=25)
            video.width, video.height, video.pix_fmt = 48, 40, "yuv420p"
            grey = av.VideoFrame.from_ndarray(np.full((40, 48, 3), 128, np.uint8), format="rgb24")
            for _ in range(3): film.mux(video.encode(grey))
            film.mux(video.encode())
    return write


def run_as(rank, world, port, work, folder, args):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
                   "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.save(work(*args), folder/f"{rank}.pt")


@pytest.fixture
def processes(tmp_path_factory):
    "What `work(*args)` gives in each of `world` processes, started as by torchrun; forked, to save imports"
    def run(world, work, *args):
        folder = tmp_path_factory.mktemp("processes")
        with socket.create_server(("127.0.0.1", 0)) as server: port = server.getsockname()[1]
        mp.start_processes(run_as, (world, port, work, folder, args), world, start_method="fork")
        return [torch.load(folder/f"{rank}.pt", weights_only=False) for rank in range(world)]
    return run
