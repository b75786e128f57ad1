"Seconds per training step of recipes, interleaved in one run; what each loss costs; and whether the data keeps up"
import statistics
import time

import torch
from fastai.callback.channelslast import ChannelsLast
from fastai.callback.progress import ProgressCallback
from fastai.torch_core import set_seed

from fastinpaint.all import *
from fastinpaint.core.device import choose_device

# name → model, loss, callbacks
METHODS = {"lama_l1": lambda: (lama, PixelL1(), []),
           "latent_control": lambda: (partial(lama, control="mask"), PixelL1(), [FreezeSchedule(), LatentLoss()])}


def adversarial_methods(perceptual):
    "The recipes of Table 5.2, and the first of them without one of its losses at a time"
    network, name = perceptual_network(perceptual)
    pixel, terms = PixelL1(10., missing=0.), [Perceptual(network)] if network else []
    found = {"lama": lambda: (lama, InpaintLoss(pixel, *terms), [AdversarialTraining()])}
    if terms: found[f"  without perceptual ({name})"] = lambda: (lama, InpaintLoss(pixel), [AdversarialTraining()])
    found["  without R1"] = lambda: (lama, InpaintLoss(pixel, *terms), [AdversarialTraining(r1=0.)])
    found["  without discriminator"] = lambda: (lama, InpaintLoss(pixel, *terms), [])
    control = [FreezeSchedule(), LatentLoss(1e-4, pixel=True)]
    found["latent_control_gan"] = lambda: (
        partial(lama, control="mask"), InpaintLoss(pixel, *terms), [*control, AdversarialTraining()])
    return found


class RepeatBatch:
    "A loader that gives one batch `n` times, so that nothing but the training step is timed"
    n_inp = 2
    def __init__(self, batch, n): self.batch, self.n, self.device = batch, n, batch[0].device
    def __len__(self): return self.n
    def __iter__(self): return iter([self.batch]*self.n)


class StepTimes(Callback):
    "Seconds of each training step, from its batch to the end of the optimizer's step, appended to `seconds`"
    order = -20  # before whatever else a batch brings

    def __init__(self): self.seconds = []

    def before_batch(self): self.start = self._now()

    def after_step(self): self.seconds.append(self._now() - self.start)

    def _now(self):
        if self.dls.device.type == "cuda": torch.cuda.synchronize()
        return time.perf_counter()


def step_times(methods, batch, rounds, steps, bf16=False, **sizes):
    "Seconds of `rounds`×`steps` training steps of each of `methods` (name → list), in turn, on one `batch`"
    dls = DataLoaders(RepeatBatch(batch, steps), RepeatBatch(batch, 0), device=batch[0].device)
    timers, learners = {name: StepTimes() for name in methods}, {}
    for name, method in methods.items():
        model, loss, cbs = method()
        learners[name] = inpaint_learner(dls, model(**sizes, autoencoder=None), loss, metrics=[],
                                         cbs=[*cbs, ChannelsLast(), timers[name], *([BFloat16()] if bf16 else [])])
        learners[name].remove_cb(ProgressCallback)
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
    if image.is_cuda: torch.cuda.synchronize()
    return n/(time.perf_counter() - start)


@call_parse
def main(
    width: int = 8,        # Channels of the first stage
    size: int = 256,       # Side of the images in pixels
    bs: int = 8,           # Batch size
    blocks: int = 9,       # Residual blocks of the refiner
    rounds: int = 5,       # Times that each recipe has its turn, after one to warm up
    steps: int = 4,        # Training steps in a turn
    workers: int = 2,      # Data loading processes
    data: str = "sample",  # Photographs, as for the recipes
    device: str = "auto",  # auto, cpu, cuda …
    bf16: store_true = False,  # bfloat16 autocast
    gan: store_true = False,   # Compare `latent_control_gan` with `lama` instead, and say what each loss costs
    perceptual: str = "auto",  # With --gan: perceptual network, as for the recipes
):
    "Compare the training step of `latent_control` with that of `lama_l1`: same size, width and batch"
    methods = adversarial_methods(perceptual) if gan else METHODS
    baseline, ours = ("lama", "latent_control_gan") if gan else ("lama_l1", "latent_control")
    set_seed(0)
    device = choose_device(device)
    dls = InpaintDataLoaders.from_folder(named_data(data), size=size, bs=bs, steps=41, num_workers=workers, device=device)
    supply = images_per_second(dls)
    times = step_times(methods, dls.train.one_batch(), rounds, steps, bf16, width=width, blocks=blocks)
    medians = {name: statistics.median(t) for name, t in times.items()}
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, width {width}, {size} px, batch {bs}"
          f"{', bf16' if bf16 else ''}: {rounds}×{steps} steps each, in turn")
    for name, t in times.items():
        print(f"{name:30} {medians[name]:8.4f} s/step (min {min(t):.4f}, max {max(t):.4f}), {bs/medians[name]:.1f} images/s")
    demand = bs/medians[ours]
    print(f"{'data alone':30} {supply:8.1f} images/s with {workers} workers, {supply/demand:.1f} times what {ours} takes")
    print(f"{ours} / {baseline} step ratio: {medians[ours]/medians[baseline]:.3f}")
