"Training in several processes: images a second against one alone, and what the processes tell each other"
import os
import socket
import statistics
from tempfile import TemporaryDirectory

import torch
import torch.multiprocessing as mp
from fastai.callback.channelslast import ChannelsLast

from fastinpaint import all as fi

from .bench import METHODS, RepeatBatch, StepSeconds
from .settings import BenchScaleSettings

WARM_UP = 2  # steps
LINKS = dict(NVLink=2400., InfiniBand=400., PCIe=200., Ethernet=10.)  # Gbit/s, of a common kind, one way


def of_lama(*parts, discriminator=None, **kwargs):
    "Makes the networks that train, given a width: `parts` of a LaMa, or all of it, and a discriminator"
    def make(width):
        net = fi.lama(width, autoencoder=None, **kwargs)
        networks = [getattr(net, part) for part in parts] or [net]
        return networks + ([discriminator(width)] if discriminator else [])
    return make


def latent_discriminator(width): return fi.LatentDiscriminator(8*width)


# recipes → what of them trains
TRAINED = {
    "autoencoder": of_lama(blocks=0, control=None),
    "lama_l1": of_lama(),
    "latent": of_lama("refiner", "conditioner"),
    "mask_control, latent_control, delta": of_lama("refiner", "conditioner", control="mask"),
    "lama": of_lama(discriminator=fi.PatchGAN),
    "latent_control_gan": of_lama("refiner", "conditioner", control="mask", discriminator=fi.PatchGAN),
    "latent_gan": of_lama("refiner", "conditioner", control="mask", discriminator=latent_discriminator),
}


def bytes_told(networks):
    "Bytes of a step's gradients and of BatchNorm's running statistics"
    tensors = [t for net in networks for t in (*net.parameters(), *net.buffers()) if t.is_floating_point()]
    return sum(4*t.numel() for t in tensors)


def seconds_on_link(told, processes, gigabits):
    "Least time of an all-reduce: in a ring each process sends and receives 2(N − 1)/N of the bytes"
    return 2*(processes - 1)/processes*told/(gigabits*1e9/8)


def images_per_second(processes, s):
    "Images a second of `processes` of one thread each, by the median of steps on one batch that stays"
    with TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        server.close()
        mp.start_processes(_train, (processes, port, s, folder), processes, start_method="fork")
        return processes*s.bs/torch.load(f"{folder}/seconds")


def _train(rank, processes, port, s, folder):
    launched = dict(RANK=rank, WORLD_SIZE=processes, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    os.environ |= {k: str(v) for k, v in launched.items()}
    torch.set_num_threads(1)
    image, mask = torch.rand(s.bs, 3, s.size, s.size), torch.zeros(s.bs, 1, s.size, s.size)
    mask[..., s.size//4:s.size//2, s.size//4:s.size//2] = 1
    batch = image*(1 - mask), mask, image, mask
    loaders = RepeatBatch(batch, WARM_UP + s.steps), RepeatBatch(batch, 0)
    dls = fi.DataLoaders(*loaders, device=image.device)
    model, loss, cbs = METHODS[s.method]()
    timer, net = StepSeconds(), model(width=s.width, blocks=s.blocks, autoencoder=None)
    learn = fi.inpaint_learner(dls, net, loss, metrics=[], cbs=[*cbs, ChannelsLast(), timer])
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    if not rank: torch.save(statistics.median(timer.seconds[WARM_UP:]), f"{folder}/seconds")


def main(settings: BenchScaleSettings):
    "Print images a second by the number of processes, and bytes and seconds of a step by recipe and link"
    s, counts = settings, (1, settings.processes)
    found = {n: [] for n in counts}
    for _ in range(s.rounds):
        for n in counts: found[n].append(images_per_second(n, s))
    print(f"torch {torch.__version__}, cpu, one thread a process, {s.method}, width {s.width}, {s.size} px, "
          f"batches of {s.bs}: {s.rounds}×{s.steps} steps each, in turn")
    for n, speeds in found.items():
        print(f"{n} process{'es'*(n > 1)}: {statistics.median(speeds):8.2f} images/s (min {min(speeds):.2f}, "
              f"max {max(speeds):.2f})")
    ratio = statistics.median(b/a for a, b in zip(*found.values(), strict=True))
    print(f"ratio: {ratio:.2f}\n\nall-reduce of a step among {s.reduced} processes, in ms at Gbit/s each way")
    print(f"{'trained by':38} {'width':>5} {'MB':>7}", *(f"{f'{k} {v:.0f}':>15}" for k, v in LINKS.items()))
    for name, make in TRAINED.items():
        for width in (8, 64):
            with torch.device("meta"): told = bytes_told(make(width))
            times = (f"{1e3*seconds_on_link(told, s.reduced, gigabits):15.2f}" for gigabits in LINKS.values())
            print(f"{name:38} {width:5} {told/1e6:7.1f}", *times)
