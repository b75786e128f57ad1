"""One evaluation protocol, and the card that it ends in.

Fills are rounded to 8 bits and composited, the way a saved PNG would be, before anything is measured. Sets that were exported to
PNG, or filled by another system, are measured by the same code; what is judged is in `protocol`.
"""
import hashlib
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from fastai.learner import Learner

from ..core.device import evaluating
from ..core.files import replacing
from ..models.load import model_file, read_model
from ..models.net import InpaintNet
from .baselines import BASELINES
from .metrics import FID, LPIPS, PSNR, SSIM, FDEffLite0, HoleL1, KIDEffLite0
from .protocol import SETS, holes, read_items, to_tensor

AREAS = (0., .1, .2, .3, .4, .5, 1.)  # bounds of the groups by share of hole
RESAMPLES = 1000  # of the bootstrap
SMALL = 2048      # images below which a Fréchet distance says more about their number than about the fills
PACKAGES = "fastinpaint", "torch", "torchvision", "torchmetrics", "lpips", "pillow", "numpy"


@dataclass
class Card:
    "The result of `evaluate`: what was judged, on what, by which rules, and how it did"
    model: dict
    data: dict
    rules: dict
    metrics: dict      # mask set (and "all") → metric → value, low and high
    by_area: dict      # share of hole → the same
    drift: float
    seconds: dict      # part of the evaluation → mean seconds an image: reading, filling, each metric
    environment: dict
    notes: list = field(default_factory=list)
    images: list = field(default_factory=list)  # each image's set, name, share of hole, drift and paired metrics

    def save(self, folder):
        "Write `card.json` and `card.md` to `folder`, each replaced whole or not at all"
        folder = Path(folder)
        with replacing(folder/"card.json") as f: f.write(json.dumps(asdict(self), indent=1, default=str).encode())
        with replacing(folder/"card.md") as f: f.write(self.markdown().encode())
        return folder/"card.json", folder/"card.md"

    def markdown(self):
        "The card as a page"
        lines = [f"# {self.model['name']}", "", f"{self.data['images']} photographs, {self.rules['size']}; holes: "
                 f"{', '.join(self.data['masks'])}, seed {self.rules['seed']}. Brackets are bootstrap 95 % intervals.", ""]
        for title, groups in ("mask set", self.metrics), ("share of hole", self.by_area):
            names = list(next(iter(groups.values()))) if groups else []
            lines += [f"| {title} | " + " | ".join(names) + " |", "|---"*(len(names) + 1) + "|"]
            for group, found in groups.items():
                cells = [_cell(found.get(n, {})) for n in names]
                lines.append(f"| {group} | {' | '.join(cells)} |")
            lines.append("")
        lines += [f"Known pixels moved by {self.drift:.5f} on average (of 1) before compositing.", ""]
        spent = ", ".join(f"{part} {1000*s:.1f}" for part, s in self.seconds.items())
        lines += [f"Milliseconds an image on {self.environment['device']}: {spent}.", ""]
        about = dict(model=self.model, data=self.data, rules=self.rules, environment=self.environment)
        return "\n".join([*lines, *(f"* {note}" for note in self.notes), "", "```json",
                          json.dumps(about, indent=1, default=str), "```", ""])


def _cell(found):
    value = found.get("value")
    if value is None: return "n/a" if found else ""
    if isinstance(value, int): return str(value)
    return f"{value:.4f}" + (f" [{found['low']:.4f}, {found['high']:.4f}]" if "low" in found else "")


def evaluate(model, photos, masks=SETS, size=256, seed=42, device="cpu", limit=None, frechet=True, name=None):
    """Judge `model` on the folder `photos` with every mask set in `masks`; returns a `Card`.

    `model`: a Learner, an `InpaintNet`, the file of one, the name of a baseline, or any `fill(image, mask)` of `[B, 3, H, W]`
    in [0, 1] and `[B, 1, H, W]` (1 = hole, where the image is 0). `masks`: presets, folders of masks matched by stem, or
    "pool:FOLDER". `limit` takes the first so many photographs only. Raises ValueError for fills of another shape, or not finite.
    """
    fill, about = _fill_of(model, device)
    if name: about["name"] = name
    items = holes(photos, masks, size, seed, limit)
    rules = dict(size=f"central square resized to {size} px, bicubic", seed=seed, files="8 bits, composited",
                 holes="a function of photograph name, mask set and seed")
    return judge(items, about, rules, device, fill, frechet)


def evaluate_files(images, masks, filled, invert=False, frechet=True, name=None):
    """Judge a folder of photographs that some system has `filled`, matched by file stem; returns a `Card`.

    Raises ValueError where the three folders hold other names or sizes than each other, naming both sides.
    """
    items = [*read_items(images, masks, filled, invert)]
    rules = dict(size="as in the files", seed=None, files="8 bits, composited", holes=str(masks))
    return judge(items, dict(name=name or str(filled)), rules, "cpu", None, frechet)


def judge(items, about, rules, device, fill=None, frechet=True):
    "Measure every item, filled by `fill` or beforehand; returns a `Card`"
    rows, sets, pixels, clock = [], {}, hashlib.sha256(), _Clock()
    distances = _Distances() if frechet else None
    for item in items:
        image, mask = item.tensors()
        clock.end("reading")
        if item.filled is not None: pred = to_tensor(item.filled)
        else: pred = _checked(fill, image, mask, device, item.name)
        clock.end("filling")
        pred = (pred.clamp(0, 1)*255).round()/255
        known = 1 - mask
        row = dict(set=item.set, name=item.name, share=float(mask.mean()),
                   drift=float(((pred - image).abs()*known).sum()/(3*known.sum()).clamp_min(1)))
        rows.append(row | _measured(pred, image, mask, clock))
        if distances:
            distances.update(item.set, pred, image, mask)
            clock.end("distances")
        pixels.update(item.image.tobytes())
        sets.setdefault(item.set, hashlib.sha256()).update(np.packbits(item.hole).tobytes())
    if not rows: raise ValueError("nothing to evaluate: no photograph")
    groups = {name: [r for r in rows if r["set"] == name] for name in sets}
    if len(sets) > 1: groups["all"] = rows
    metrics = {name: _summary(found) for name, found in groups.items()}
    notes = ["No published table uses this protocol (photographs, size, holes), so none is set beside it."]
    if distances: notes += distances.into(metrics)
    areas = {f"{a:.0%}–{b:.0%}": [r for r in rows if a < r["share"] <= b] for a, b in zip(AREAS, AREAS[1:], strict=False)}
    return Card(about, dict(images=len({r["name"] for r in rows}), pixels_sha256=pixels.hexdigest(),
                            masks={k: h.hexdigest() for k, h in sets.items()}), rules, metrics,
                {k: dict(n=dict(value=len(v))) | _summary(v) for k, v in areas.items() if v},
                float(np.mean([r["drift"] for r in rows])),
                {part: total/len(rows) for part, total in clock.totals.items()}, _environment(device), notes, rows)


class _Clock:
    "Seconds by part, each from the end of the part before"
    def __init__(self): self.totals, self.last = {}, time.perf_counter()

    def end(self, part):
        now = time.perf_counter()
        self.totals[part], self.last = self.totals.get(part, 0.) + now - self.last, now


PAIRED = HoleL1, PSNR, SSIM, LPIPS


def _measured(pred, image, mask, clock):
    "Each paired metric of one image, None where it cannot be had"
    found = {}
    for make in PAIRED:
        metric = make()
        if min(image.shape[-2:]) >= metric.min_size: metric.update(pred, image, mask)
        value = metric.value
        found[metric.name] = None if np.isnan(value) else float(value)
        clock.end(metric.name)
    return found


def _summary(rows):
    "Means over images, with bootstrap 95 % intervals; hole L1 weighs images by their hole, as everywhere"
    found = {}
    for make in PAIRED:
        name = make.name
        kept = [(r[name], r["share"] if name == "hole_l1" else 1.) for r in rows if r[name] is not None]
        found[name] = bootstrap(*np.array(kept).T) if kept else dict(value=None)
    return found


def bootstrap(values, weights, resamples=RESAMPLES, seed=0):
    "Weighted mean of `values` `[n]`, and the 95 % interval of that of as many drawn with replacement"
    def mean(i): return (values[i]*weights[i]).sum(-1)/weights[i].sum(-1)
    n = len(values)
    means = mean(np.random.default_rng(seed).integers(0, n, (resamples, n)))
    low, high = np.percentile(means, [2.5, 97.5])
    return dict(value=float(mean(np.arange(n))), low=float(low), high=float(high))


def _checked(fill, image, mask, device, name):
    "What `fill` makes of one image, on the CPU"
    image, mask = image.to(device), mask.to(device)
    with torch.no_grad(): pred = fill(image*(1 - mask), mask)
    if isinstance(pred, torch.Tensor): pred = pred.cpu()
    if not isinstance(pred, torch.Tensor) or pred.shape != image.shape:
        got = list(pred.shape) if hasattr(pred, "shape") else type(pred).__name__
        raise ValueError(f"the fill of {name} must be a tensor {list(image.shape)}, got {got}")
    if not pred.isfinite().all(): raise ValueError(f"the fill of {name} holds NaN or infinity")
    if pred.max() > 2 or pred.min() < -1:
        raise ValueError(f"the fill of {name} goes from {pred.min():.3g} to {pred.max():.3g}; images are in [0, 1]")
    return pred.float()


class _Distances:
    "Distances between the fills of a mask set and their photographs: FID where its weights are, and two on EfficientNet-Lite0"
    def __init__(self): self.sets, self.floor, self.odd = {}, FDEffLite0(), None

    def update(self, name, pred, image, mask):
        if not self.sets or name == next(iter(self.sets)): self._update_floor(image)
        for metric in self.sets.setdefault(name, [FID(), FDEffLite0(), KIDEffLite0()]): metric.update(pred, image, mask)

    def _update_floor(self, image):
        "Every second photograph against the one before it"
        if self.odd is None or self.odd.shape != image.shape: self.odd = image
        else:
            self.floor.update(self.odd, image, torch.ones_like(image[:, :1]))
            self.odd = None

    def into(self, metrics):
        "Add each set's distances to `metrics`; returns what has to be said of them"
        for name, found in self.sets.items():
            for metric in found:
                value = metric.value
                metrics[name][metric.name] = dict(value=None if np.isnan(value) else float(value))
        count = int(self.floor.count)
        notes = [f"Two halves of the photographs themselves, {count} against {count}, have a fd_efflite0 of "
                 f"{self.floor.value:.4f}."]
        if max(found[1].count for found in self.sets.values()) < SMALL:
            notes.append(f"Below {SMALL} images prefer KID, which does not depend on their number, to Fréchet distances.")
        return notes


def _fill_of(model, device):
    "A fill of whatever may be judged, and what to say of it"
    if isinstance(model, str) and model in BASELINES: return BASELINES[model], dict(name=model)
    if isinstance(model, str | Path):
        path = model_file(model)
        return (_fill_of(read_model(path), device)[0],
                dict(name=str(model), sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
    if isinstance(model, Learner): model = model.model
    if isinstance(model, torch.nn.Module):
        about = dict(name=type(model).__name__.lower(), config=getattr(model, "config", {}),
                     parameters=sum(p.numel() for p in model.parameters()))
        return _evaluated(model.to(device)), about
    if not isinstance(model, Callable): raise ValueError(f"no model, file, baseline or function: {model!r}; baselines are "
                                                         f"{', '.join(BASELINES)}")
    return model, dict(name=getattr(model, "__name__", type(model).__name__))


def _evaluated(model: InpaintNet):
    def fill(image, mask):
        with evaluating(model): return model(image, mask)
    return fill


def _environment(device):
    def found(package):
        try: return version(package)
        except PackageNotFoundError: return None
    gpu = torch.device(device).type == "cuda"
    machine = torch.cuda.get_device_name(device) if gpu else f"CPU, {torch.get_num_threads()} threads"
    return dict(device=machine, python=platform.python_version(), **{p: found(p) for p in PACKAGES})
