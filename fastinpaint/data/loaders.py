"Batches xb = (masked, mask), yb = (image, mask): workers crop and draw holes, the device augments"
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
from fastai.data.block import DataBlock, TransformBlock
from fastai.data.core import DataLoaders, Datasets, TfmdDL
from fastai.data.transforms import IntToFloatTensor
from fastai.torch_core import TensorImage, TensorMask, batch_to_samples, defaults, to_cpu
from fastcore.foundation import L

from ..core.errors import InputError
from ..core.ranks import local_world
from .ahead import ahead
from .augment import lama_augment
from .listing import Files, Joined, Names
from .masks import MaskFolder, mask_source
from .order import batch_draws, drawn, item_draws, shuffled
from .photos import Skipped, readable
from .remote import held_out, place
from .shard_index import find_photos, relative_name
from .shards import Shards
from .transforms import CropToSize, MaskedPair, OpenHole, OpenPhoto

SCAN_LIMIT = 10_000  # of more photographs than this, none is opened before an epoch needs it
TRIES = 100  # photographs that are tried for one place of a batch


class InpaintDL(TfmdDL):
    """A fastai `TfmdDL` of masked pairs, which alone touches private names of fastai's loaders.

    Shuffled epochs are `steps` batches (default: one pass) cut from shuffled passes without end; set `drawn`,
    the number drawn so far, to go on where another run stopped. Crop, hole and augmentation depend on `seed`
    and the position in that order alone; what cannot be read is replaced by what follows there. `share`,
    (rank, number of processes), is that of a process in a batch of `bs` times their number, and in what is
    not shuffled. An unreadable epoch raises InputError."""
    # fastai would read an item to learn these, but it may be unreadable
    n_inp, _n_inp, _types = 2, 2, {tuple: [TensorImage, TensorMask, TensorImage, TensorMask]}
    def __init__(self, dataset, bs: int = 16, *, steps: int | None = None, seed: int = 0, **kwargs):
        self.steps, self.seed, self.drawn, self.first, self.share = steps, seed, 0, 0, (0, 1)
        self._epoch = ()  # what all processes draw in it
        super().__init__(dataset, bs=bs, **kwargs)

    @property
    def order(self) -> Callable:
        "(n, seed, i) → indices of pass i: as the dataset's items want it, else `shuffled`"
        return getattr(getattr(self.dataset, "items", None), "order", shuffled)

    @property
    def _draws(self) -> bool:
        # validation photographs in any order are still each drawn once
        return bool(self.shuffle and self.n) and getattr(self.dataset, "split_idx", 0) != 1

    @property
    def _step(self) -> int: return self.bs * self.share[1]  # positions in a batch of all processes

    def _part(self) -> slice:
        rank, world = self.share
        return slice(self.n * rank // world, self.n * (rank + 1) // world)

    def __len__(self):
        if self._draws: return self.steps or max(1, self.n // self._step)
        return super().__len__() if self.share == (0, 1) else -(-len(range(self.n)[self._part()]) // self.bs)

    def get_idxs(self):
        if not self._draws: return super().get_idxs()[self._part()] if self.n else super().get_idxs()
        self.first, self.drawn = self.drawn, self.drawn + len(self) * self._step
        self._epoch = drawn(self.n, self.seed, self.first, self.drawn, self.order)
        return self._epoch.reshape(len(self), -1, self.bs)[:, self.share[0]].ravel().tolist()

    def sample(self):
        if not self._draws: yield from super().sample()
        else:
            for i, index in enumerate(super().sample()): yield self._position(i), index

    def _position(self, i: int) -> int:
        "In the order, of item `i` of a worker, which has every `num_workers`-th batch"
        batch, place = i // self.bs * self.num_workers + self.offs, i % self.bs
        return self.first + batch * self._step + self.share[0] * self.bs + place

    def do_item(self, s):
        if not isinstance(s, tuple): return super().do_item(s)
        position, index = s
        with item_draws(self.seed, position):
            item = super().do_item(index)
            # a process with fewer batches than the others would leave them waiting
            for i in range(1, min(TRIES, len(self._epoch))):
                if item is not None: break
                following = (position - self.first + i) % len(self._epoch)
                item = super().do_item(int(self._epoch[following]))
            return item

    def __iter__(self):
        batches, b = super().__iter__(), None
        for b in ahead(self._drawn_batches(batches) if self._draws else batches, self.device): yield b
        if b is None and self.n and len(self):  # a process may have no part of a small set
            raise InputError(f"none of the {self.n} photographs could be read in this epoch")

    def _drawn_batches(self, batches):
        first = self.drawn
        for i in count():
            with batch_draws(self.seed, first + i * self._step, self.device): b = next(batches, None)
            if b is None: return
            yield b

    def new(self, dataset=None, cls=None, **kwargs):
        return super().new(dataset, cls, **(dict(steps=self.steps, seed=self.seed) | kwargs))

    def decode(self, b): return to_cpu(self._retain_dl(b))
    def _decode_batch(self, b, max_n=9, full=True): return L(batch_to_samples(b, max_n=max_n))


def inpaint_block(masks="train", size: int = 256, seed: int = 0, augment: bool = True, invert: bool = False,
                  roots: tuple[Path, ...] = (), skipped: Skipped | None = None,
                  splitter: Callable | None = None, native: bool = False):
    "The `DataBlock` of pairs from a list of paths, named relative to `roots`; `masks` as in `mask_source`"
    skipped, source = skipped or Skipped([]), mask_source(masks, invert)
    own = isinstance(source, MaskFolder)  # holes that belong to places in their photographs
    min_side = None if own or native else 2 * size  # a JPEG decoded smaller would not fit
    files = OpenPhoto(skipped, min_side), OpenHole(source, roots, skipped)
    return DataBlock(
        blocks=[TransformBlock(type_tfms=o, batch_tfms=IntToFloatTensor) for o in files],
        item_tfms=CropToSize(size, source, seed, native), n_inp=2, dl_type=InpaintDL, splitter=splitter,
        batch_tfms=[*(lama_augment(moves_masks=own) if augment else []), MaskedPair()])


def _find(path, valid: float | str | Path | None, exclude: tuple[str | Path, ...]):
    "Training photographs, validation ones (None yet for a fraction), the folders both are named relative to"
    train, held = path / "train", held_out(path)
    if valid is None and held: return find_photos(train, exclude), find_photos(held, exclude), (train, held)
    if isinstance(valid, str | Path):
        folder = path / valid if "://" not in str(valid) and (path / valid).is_dir() else place(valid)
        return find_photos(path, (*exclude, folder)), find_photos(folder, exclude), (folder, path)
    return find_photos(path, exclude), None, (path,)


def _split(files: Names, share: float, seed: int) -> tuple[Names, Names]:
    "A random `share` of `files`, at least one and not all, for validation"
    if not 0 < share < 1: raise InputError(f"valid={share!r} must be a fraction between 0 and 1, or a folder")
    if len(files) < 2:
        raise InputError(f"only {files[0]} can be read; training and validation need at least 2 images")
    order = np.random.default_rng(seed).permutation(len(files))
    count = min(max(1, round(share * len(files))), len(files) - 1)
    return files[np.sort(order[count:])], files[np.sort(order[:count])]


class InpaintDataLoaders(DataLoaders):
    "Batches: xb = (masked, mask), yb = (image, mask); `skipped` names what could not be read"
    @property
    def skipped(self) -> list[str]: return self.skip_log.names

    @classmethod
    def from_folder(
            cls, path: str | Path,  # folder of photographs, at any depth, or of shards; or an address
            masks: str | Path | Callable = "train",  # see `mask_source`
            size: int = 256,  # height and width of the crops, in pixels
            bs: int = 16,  # batch size
            valid: float | str | Path | None = None,  # share or folder; None: valid/ or val/, else 0.1
            seed: int = 0,  # of split, order and validation masks
            steps: int | None = None,  # batches in a training epoch; None: one pass
            augment: bool = True,  # augment training batches
            invert: bool = False,  # mask files have 0 or black for hole
            native: bool = False,  # LaMa's crops: pixels as they are, not a part of the photograph resized
            num_workers: int | None = None,  # None: up to 8, and 0 for small epochs
            **kwargs):  # for `DataBlock.dataloaders`: device, val_bs, pin_memory ...
        """Images `[B, 3, size, size]` in [0, 1] and masks `[B, 1, size, size]`, 1 = hole.

        Raises MissingFile without images, InputError if none can be read or arguments or masks do not fit."""
        if size < 1 or bs < 1 or (steps is not None and steps < 1) or seed < 0:
            given = f"{size=}, {bs=}, {steps=}, {seed=}"
            raise InputError(f"size, bs, steps must be above 0 and seed not below: {given}")
        source = mask_source(masks, invert)
        train, held, roots = _find(place(path), valid, source.folders)
        found = [train, [] if held is None else held]
        skipped = Skipped(*found, source.files, *(o.urls for o in found if isinstance(o, Shards)))
        # files are looked at before an epoch needs them, unless they are too many; shards were when written
        scan = all(isinstance(o, Files) for o in found if len(o)) and sum(map(len, found)) <= SCAN_LIMIT
        if scan: train, held = readable(train, skipped), held and readable(held, skipped)
        if not held: train, held = _split(train, 0.1 if valid is None else valid, seed)
        items = Joined(train, held)
        source.check(((relative_name(o, roots), o) for o in items), skipped, sizes=scan)
        if num_workers is None:  # starting workers takes longer than reading a few photographs
            few = (steps * bs if steps else len(train)) <= 64
            num_workers = 0 if few else min(max(defaults.cpus // local_world(), 1), 8)
        block = inpaint_block(source, size, seed, augment, roots=roots, skipped=skipped, native=native)
        # what `DataBlock.datasets` does, but for its lists of all paths and indices
        sets = Datasets(items, tfms=block.type_tfms, splits=items.halves, n_inp=2, dl_type=InpaintDL)
        # epochs are whole batches already; the rest of a batch with unreadable files still trains
        kwargs |= dict(bs=bs, steps=steps, seed=seed, num_workers=num_workers, drop_last=False)
        base = sets.dataloaders(after_item=block.item_tfms, after_batch=block.batch_tfms, **kwargs)
        dls = cls(*base.loaders, path=base.path, device=base.device)
        dls.skip_log = skipped
        return dls
