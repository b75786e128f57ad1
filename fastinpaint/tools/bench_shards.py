"Images per second from shards, against those from the folder that they were made of"
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

from fastai.torch_core import set_seed

from fastinpaint import all as fi
from fastinpaint.core.device import choose_device

from .bench import images_per_second
from .settings import BenchShardsSettings


def supplies(sources, rounds, **kwargs):
    "Images per second of each of `sources` (name → folder), in turn, `rounds` times after one to warm up"
    found = {name: [] for name in sources}
    for r in range(rounds + 1):
        for name, folder in sources.items():
            set_seed(r)  # the same crops and holes from each
            rate = images_per_second(fi.InpaintDataLoaders.from_folder(folder, **kwargs))
            if r: found[name].append(rate)
    return found


def main(settings: BenchShardsSettings):
    "Print images per second of both, and their ratio"
    s, folder = settings, fi.named_data(settings.data)
    with TemporaryDirectory() as shards:
        print(fi.write_shards(folder, shards, count=s.count))
        rates = supplies(dict(folder=folder, shards=Path(shards)), s.rounds, size=s.size, bs=s.bs,
                         steps=s.steps, num_workers=s.workers, device=choose_device(s.device))
    medians = {name: statistics.median(o) for name, o in rates.items()}
    for name, o in rates.items():
        print(f"{name:10} {medians[name]:8.1f} images/s (min {min(o):.1f}, max {max(o):.1f}), "
              f"{s.size} px, batch {s.bs}, {s.workers} workers")
    # turn by turn, since what else the machine does changes in the meantime
    ratios = [a/b for a, b in zip(rates["shards"], rates["folder"], strict=True)]
    print(f"shards / folder supply ratio: {statistics.median(ratios):.3f}")
