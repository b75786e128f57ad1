"Seconds per training step of recipes in turn, the cost of each loss, and the supply of data"
import statistics
import time
from functools import partial

import torch
from fastai.callback.channelslast import ChannelsLast
from fastai.callback.progress import ProgressCallback
from fastai.torch_core import set_seed

from fastinpaint import all as fi
from fastinpaint.core.device import choose_device
from fastinpaint.core.errors import InputError
from fastinpaint.models.ffc import FFC, FourierUnit

from .settings import BenchSettings

FOURIER = "fft", "torch", "triton", "auto"  # ways to compute Fourier units

mask_control = partial(fi.lama, control="mask")

def in_latent(*cbs):
    "The latent loss of the recipes, of a frozen autoencoder"
    return mask_control, fi.PixelL1(), [fi.FreezeSchedule(), fi.LatentLoss(distance="edges"), *cbs]


# name → model, loss, callbacks
METHODS = {"lama_l1": lambda: (fi.lama, fi.PixelL1(), []), "latent_control": in_latent}
RATIOS = [("latent_control", "lama_l1"), ("latent_control_gan", "lama"), ("latent_gan", "latent_control"),
          ("latent_gan", "latent_control_gan")]


def adversarial_methods(perceptual):
    "The recipes of Table 5.2, the first of them without one of its losses at a time, and those in the latent"
    network, name = fi.perceptual_network(perceptual)
    pixel, terms = fi.PixelL1(10., missing=0.), [fi.Perceptual(network)] if network else []
    def full(model=fi.lama, cbs=(), terms=terms, **gan):
        return model, fi.InpaintLoss(pixel, *terms), [*cbs, fi.AdversarialTraining(**gan)]
    found = {"lama": full}
    if terms: found[f"  without perceptual ({name})"] = lambda: full(terms=[])
    found["  without R1"] = lambda: full(r1=0.)
    found["  without discriminator"] = lambda: (fi.lama, fi.InpaintLoss(pixel, *terms), [])
    latent = lambda: [fi.FreezeSchedule(), fi.LatentLoss(1e-4, pixel=True)]
    return found | {"latent_control_gan": lambda: full(mask_control, latent()), "latent_control": in_latent,
                    "latent_gan": lambda: in_latent(fi.LatentAdversarial())}


def bundled(width):
    "The autoencoder of the package where it has this width; a random decoder reaches further, at more cost"
    return "sample" if width == 8 else None


def now(cuda):
    "Seconds on a clock, read when a GPU has done what it was given"
    if cuda: torch.cuda.synchronize()
    return time.perf_counter()


class RepeatBatch:
    "A loader that gives one batch `n` times, so that nothing but the training step is timed"
    n_inp = 2
    def __init__(self, batch, n): self.batch, self.n, self.device = batch, n, batch[0].device
    def __len__(self): return self.n
    def __iter__(self): return iter([self.batch]*self.n)


class StepSeconds(fi.Callback):
    "Seconds of each training step, from its batch to the end of the optimizer's step"
    order = -20  # before any other callback
    def __init__(self, clock=now): self.seconds, self.clock = [], clock
    def before_batch(self): self.start = self.clock(self.xb[0].is_cuda)
    def after_step(self): self.seconds.append(self.clock(self.xb[0].is_cuda) - self.start)


def step_times(methods, batch, rounds, steps, bf16=False, fourier="fft", convs="torch",
               **sizes):
    "Seconds of `rounds`×`steps` steps of each of `methods` (name → list), in turn, on one `batch`"
    dls = fi.DataLoaders(RepeatBatch(batch, steps), RepeatBatch(batch, 0), device=batch[0].device)
    timers, learners = {name: StepSeconds() for name in methods}, {}
    for name, method in methods.items():
        model, loss, cbs = method()
        cbs += [ChannelsLast(), timers[name], *([fi.BFloat16()] if bf16 else [])]
        net = model(**sizes, autoencoder=bundled(sizes["width"]))
        learn = fi.inpaint_learner(dls, net, loss, metrics=[], cbs=cbs)
        for part in learn.model.modules():
            if isinstance(part, FourierUnit): part.impl = fourier
            if isinstance(part, FFC): part.impl = convs
        learners[name] = learn.remove_cb(ProgressCallback)
    for r in range(rounds + 1):
        for name, learn in learners.items():
            with learn.no_logging(): learn.fit(1)
            if not r: timers[name].seconds.clear()  # the first round warms up
    return {name: timer.seconds for name, timer in timers.items()}


def images_per_second(dls):
    "Images that the training data alone delivers, augmented and on its device, per second"
    start = None
    for image, *_ in dls.train:
        if start is None: start, n = time.perf_counter(), 0  # after the workers have started
        else: n += len(image)
    return n/(now(image.is_cuda) - start)


def main(settings: BenchSettings):
    "Print the step of each method, the supply of data, and the ratios of steps"
    s, device = settings, choose_device(settings.device)
    if s.fourier not in FOURIER:
        raise InputError(f"--fourier is one of {', '.join(FOURIER)}, not {s.fourier!r}")
    methods = adversarial_methods(s.perceptual) if s.gan else METHODS
    set_seed(0)
    dls = fi.InpaintDataLoaders.from_folder(fi.named_data(s.data), size=s.size, bs=s.bs, steps=41,
                                            num_workers=s.workers, device=device)
    supply, batch = images_per_second(dls), dls.train.one_batch()
    times = step_times(methods, batch, s.rounds, s.steps, s.bf16, s.fourier, s.convs, width=s.width,
                       blocks=s.blocks)
    medians = {name: statistics.median(t) for name, t in times.items()}
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, width {s.width}, "
          f"{s.size} px, batch {s.bs}{', bf16'*s.bf16}, Fourier units by {s.fourier}, FFCs by {s.convs}: "
          f"{s.rounds}×{s.steps} steps each, in turn")
    for name, t in times.items():
        print(f"{name:30} {medians[name]:8.4f} s/step (min {min(t):.4f}, max {max(t):.4f}), "
              f"{s.bs/medians[name]:.1f} images/s")
    fastest = min(medians, key=medians.get)
    print(f"{'data alone':30} {supply:8.1f} images/s with {s.workers} workers, "
          f"{supply*medians[fastest]/s.bs:.1f} times what {fastest} takes")
    for a, b in RATIOS:
        if {a, b} <= medians.keys(): print(f"{a} / {b} step ratio: {medians[a]/medians[b]:.3f}")
