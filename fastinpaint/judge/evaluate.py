"One protocol for models, baselines and other systems: fills are measured as saved, 8 bits, composited"
import hashlib
import platform
import time
from collections import defaultdict
from functools import partial
from importlib.metadata import distributions
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.learner import Learner

from ..core.device import evaluating
from ..core.errors import InputError
from ..data.holes import hole_rng
from ..models.load import model_file, read_model
from ..models.net import composite
from .baselines import BASELINES
from .bootstrap import bootstrap
from .card import Card
from .distances import SetDistances
from .metrics import LPIPS, PSNR, SSIM, Grid, HoleL1
from .protocol import SETS, holes, read_items, to_tensor

FILES = "8 bits, composited"
AREAS = [0., .1, .2, .3, .4, .5, 1.]  # bounds of the groups by share of hole
PACKAGES = "fastinpaint", "torch", "torchvision", "torchmetrics", "lpips", "pillow", "numpy"


def evaluate(model, photos, masks=SETS, size=256, seed=42, device="cpu", limit=None, frechet=True, name=None,
             lpips=("alex",), fills=1):
    """Judge `model` on the folder `photos` with every mask set in `masks`; returns a `Card`.

    `model`: a Learner, an `InpaintNet`, the file of one, the name of a baseline, or any
    `fill(image, mask)` of `[B, 3, H, W]` in [0, 1], 0 in the hole, and `[B, 1, H, W]`, 1 = hole.
    `masks`: presets, folders of masks matched by stem, or "pool:FOLDER". `limit`: photographs to take.
    `frechet`: distances between sets, too. `lpips`: its networks, "alex" and, twenty times as slow, "vgg".
    `fills` beyond 1: of a network that generates, so many of each hole, whose seeds depend on the names as
    holes do; metrics are means over them, `lpips_best` is that of the best, `diversity` the mean LPIPS
    between two of them; distances between sets are those of the first.
    Raises InputError for no model and for fills of another shape, out of range or not finite."""
    fill, about = _fill_of(model, device)
    if fills < 1 or fills > 1 and not getattr(fill, "generates", False):
        raise InputError(f"no {fills} fills of {about['name']}: expected 1 or more, "
                         "and 1 where it does not generate")
    if name: about["name"] = name
    items = holes(photos, masks, size, seed, limit)
    rules = dict(size=f"central square resized to {size} px, bicubic", seed=seed, files=FILES,
                 holes="a function of photograph name, mask set and seed")
    if fills > 1: rules["fills"] = fills
    return make_card(items, about, rules, device, fill, frechet, lpips, fills)


def evaluate_files(images, masks, filled, invert=False, frechet=True, name=None, lpips=("alex",)):
    "A `Card` of what a system has `filled`. Raises InputError where file stems or sizes do not match"
    items = read_items(images, masks, filled, invert)
    rules = dict(size="as in the files", seed=None, files=FILES, holes=str(masks))
    return make_card(items, dict(name=name or str(filled)), rules, "cpu", None, frechet, lpips)


def make_card(items, about, rules, device, fill=None, frechet=True, lpips=("alex",), fills=1):
    "Measure every item, filled by `fill`, in `fills` ways, unless it comes filled; returns a `Card`"
    rows, sets, pixels, clock = [], defaultdict(hashlib.sha256), hashlib.sha256(), _Clock()
    distances = SetDistances() if frechet else None
    metrics = [HoleL1(), PSNR(), SSIM(), *map(LPIPS, lpips), Grid()]
    for item in items:
        image, mask = item.tensors()
        clock.end("reading")
        if item.filled is not None: preds = [to_tensor(item.filled)]
        else: preds = [_checked(way, image, mask, device, item.name)
                       for way in _ways(fill, fills, rules["seed"], item)]
        # metrics run where the fill is: on a GPU they are many times as fast
        image, mask = image.to(preds[0].device), mask.to(preds[0].device)
        clock.end("filling")
        preds, known = [(pred.clamp(0, 1)*255).round()/255 for pred in preds], 1 - mask
        drifts = [float(((pred - image).abs()*known).sum()/(3*known.sum()).clamp_min(1)) for pred in preds]
        row = dict(set=item.set, name=item.name, share=float(mask.mean()), drift=float(np.mean(drifts)))
        found = [_measured(metrics, pred, image, mask, clock) for pred in preds]
        several = _of_several(found, preds, metrics, image, mask, clock) if fills > 1 else found[0]
        rows.append(row | several)
        if distances:
            distances.update(item.name, composite(preds[0], image, mask), image)
            clock.end("distances")
        pixels.update(item.image.tobytes())
        sets[item.set].update(np.packbits(item.hole).tobytes())
    if not rows: raise InputError("nothing to evaluate: no photograph")
    images = pd.DataFrame(rows)
    data = dict(images=images["name"].nunique(), pixels_sha256=pixels.hexdigest(),
                masks={name: h.hexdigest() for name, h in sets.items()})
    notes = ["No published table uses this protocol (photographs, size, holes), so none is set beside it."]
    if distances: notes += distances.notes()
    seconds = {part: total/len(rows) for part, total in clock.totals.items()}
    by_set, by_area = _summaries(images, [*images.columns[4:]], distances)
    drift = float(np.mean(images["drift"].to_numpy()))
    return Card(about, data, rules, by_set, by_area, drift, seconds, _environment(device), notes, rows)


class _Clock:
    "Seconds by part, each from the end of the part before"
    def __init__(self): self.totals, self.last = defaultdict(float), time.perf_counter()

    def end(self, part):
        before, self.last = self.last, time.perf_counter()
        self.totals[part] += self.last - before


def _measured(metrics, pred, image, mask, clock):
    "Each metric of one image; None without hole or weights, and for too small an image"
    found = {}
    for metric in metrics:
        metric.reset()
        if min(image.shape[-2:]) >= metric.min_size: metric.update(pred, image, mask)
        found[metric.name] = None if np.isnan(metric.value) else float(metric.value)
        clock.end(metric.name)
    return found


def _ways(fill, n, seed, item):
    "`fill` with each of `n` seeds, which depend on the item's names and `seed`; as it is, if it takes none"
    if not getattr(fill, "generates", False): return [fill]
    seeds = hole_rng(seed, f"{item.set}/{item.name}").integers(2**31, size=n)
    return [partial(fill, seed=int(o)) for o in seeds]


def _of_several(found, preds, metrics, image, mask, clock):
    "Means of the metrics `found` of each of an image's `preds`, the best LPIPS, and how the fills differ"
    lpips = next(metric for metric in metrics if isinstance(metric, LPIPS))
    row = {k: None if found[0][k] is None else float(np.mean([o[k] for o in found])) for k in found[0]}
    if row[lpips.name] is None: return row | dict(lpips_best=None, diversity=None)
    between = [_measured([lpips], a, composite(b, image, mask), mask, clock)[lpips.name]
               for a, b in combinations(preds, 2)]
    return row | dict(lpips_best=min(o[lpips.name] for o in found), diversity=float(np.mean(between)))


def _summaries(images, names, distances):
    "A dict of groups by mask set, and all of them, and one by share of hole: group → metric → value"
    by_set = dict(iter(images.groupby("set", sort=False)))
    if len(by_set) > 1: by_set["all"] = images
    by_area = images.groupby(pd.cut(images["share"], AREAS), observed=True)
    by_area = {f"{area.left:.0%}–{area.right:.0%}": of for area, of in by_area}
    return ({name: _summary(of, names, distances) for name, of in groups.items()}
            for groups in (by_set, by_area))


def _summary(images, names, distances):
    """Number of images with a hole, means with bootstrap 95 % intervals, distances between sets.

    Hole L1 weighs images by their hole."""
    holed = images[images["share"] > 0]
    found = dict(n=dict(value=len(holed)))
    for name in names:
        kept = images.assign(one=1.).dropna(subset=name).astype({name: float})
        weights = kept["share" if name == "hole_l1" else "one"]
        found[name] = bootstrap(kept[name].to_numpy(), weights.to_numpy()) if len(kept) else dict(value=None)
    return found | (distances.values(holed.index) if distances else {})


def _checked(fill, image, mask, device, name):
    "The fill of one image, on its GPU or on the CPU"
    image, mask = image.to(device), mask.to(device)
    with torch.no_grad(): pred = fill(image*(1 - mask), mask)
    if not isinstance(pred, torch.Tensor) or pred.shape != image.shape:
        got = list(pred.shape) if hasattr(pred, "shape") else type(pred).__name__
        raise InputError(f"the fill of {name} must be a tensor {list(image.shape)}, got {got}")
    if not pred.isfinite().all(): raise InputError(f"the fill of {name} holds NaN or infinity")
    if pred.abs().max() > 10:  # a network overshoots, where pictures have edges; bytes go to 255
        raise InputError(f"the fill of {name} goes from {pred.min():.3g} to {pred.max():.3g}; "
                         "images are in [0, 1]")
    return (pred if pred.is_cuda else pred.cpu()).float()


def _fill_of(model, device):
    "A fill by anything that `evaluate` takes, and the card's description of it"
    if isinstance(model, str) and model in BASELINES: return BASELINES[model], dict(name=model)
    if isinstance(model, str | Path):
        path = model_file(model)
        fill, _ = _fill_of(read_model(path), device)
        return fill, dict(name=str(model), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    if isinstance(model, Learner): model = model.model
    if isinstance(model, torch.nn.Module):
        net = model.to(device)
        def fill(image, mask, **seed):
            with evaluating(net): return net(image, mask, **seed)
        fill.generates = getattr(net, "generates", False)
        return fill, dict(name=type(net).__name__.lower(), config=getattr(net, "config", {}),
                          parameters=sum(p.numel() for p in net.parameters()))
    if callable(model): return model, dict(name=getattr(model, "__name__", type(model).__name__))
    raise InputError(f"no model, file, baseline or function: {model!r}; baselines are {', '.join(BASELINES)}")


def _environment(device):
    gpu = torch.device(device).type == "cuda"
    machine = torch.cuda.get_device_name(device) if gpu else f"CPU, {torch.get_num_threads()} threads"
    packages = {p: next((d.version for d in distributions(name=p)), None) for p in PACKAGES}
    return dict(device=machine, python=platform.python_version(), **packages)
