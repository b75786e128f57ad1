import os
import pickle
import random
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from fastai.learner import Learner
from fastai.torch_core import TensorImage, TensorMask, set_seed
from PIL import Image

from fastinpaint.core.errors import InputError
from fastinpaint.data.loaders import InpaintDataLoaders, inpaint_block
from fastinpaint.data.photos import find_images
from fastinpaint.data.transforms import PILPhoto

small = partial(InpaintDataLoaders.from_folder, size=32, bs=4, num_workers=0, device="cpu")
workers = pytest.mark.parametrize("num_workers", [0, 2])


def same(a, b):
    return all(torch.equal(x, y) for u, v in zip(a, b, strict=True)
               for x, y in zip(u, v, strict=True))


def plain(o): return o.as_subclass(torch.Tensor)
def masks_of(dl): return torch.cat([b[1] for b in dl])


# unreadable files

def test_an_empty_or_missing_folder_says_what_was_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(FileNotFoundError, match=rf"no images in {tmp_path}.*1 other files.*\.jpg"):
        small(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder.*nowhere"):
        small(tmp_path / "nowhere")


def test_a_folder_of_unreadable_files_raises(tmp_path, capsys):
    for i in range(2): (tmp_path / f"{i}.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=f"none of the 2 image files under {tmp_path}"):
        small(tmp_path)
    assert "0.jpg: not an image that Pillow can read" in capsys.readouterr().out


def test_bad_headers_are_named_counted_and_left_out(folder, capsys, monkeypatch, photo):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    (folder / "empty.jpg").touch()
    (folder / "text.png").write_text("no image")
    photo(folder / "bomb.png", 300, 300)
    dls = small(folder)
    out = capsys.readouterr().out
    for o in "empty.jpg: the file is empty", "decompression bomb", "skipped 3 of 13 files":
        assert o in out
    assert [os.path.basename(o) for o in dls.skipped] == ["bomb.png", "empty.jpg", "text.png"]
    assert len(dls.train_ds) + len(dls.valid_ds) == 10


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0,
                    reason="root may read every file")
def test_files_without_permission_are_skipped(folder, capsys):
    (folder / "0.png").chmod(0)
    assert len(small(folder).skipped) == 1
    assert "0.png: Permission denied" in capsys.readouterr().out


@workers
def test_a_file_that_breaks_in_mid_epoch_is_named_once(folder, capfd, num_workers, truncated):
    # sorted first: fastai reads item 0 when it builds the loaders
    bad = truncated(folder / "00.jpg")
    dls = small(folder, valid=0.2, num_workers=num_workers, steps=6, seed=1)
    assert str(bad) in dls.train_ds.items
    for _ in range(2):
        assert sum(len(b[0]) for b in dls.train) >= 6 * 4 - 6
        list(dls.valid)
    assert dls.skipped == [str(bad)]
    assert capfd.readouterr().out.count(f"skipped {bad}: ") == 1


def test_a_whole_unreadable_batch_is_no_end_but_a_whole_epoch_is(folder, truncated):
    for i in range(6): truncated(folder / f"bad{i}.jpg")
    dls = small(folder, valid=0.5, bs=1)
    assert len(list(dls.valid)) < len(dls.valid_ds)
    for fn in folder.glob("?.png"): fn.unlink()
    dls = small(folder)
    with pytest.raises(InputError, match="none of the 5 photographs could be read in this epoch"):
        list(dls.train)


# batches

def test_the_batch_contract(folder):
    for dl in small(folder):
        x, m, y, m2 = dl.one_batch()
        assert (type(x), type(y), type(m)) == (TensorImage, TensorImage, TensorMask)
        assert x.shape == y.shape == (len(x), 3, 32, 32) and m.shape == (len(x), 1, 32, 32)
        assert x.dtype == m.dtype == torch.float32 and torch.equal(m, m2)
        assert set(m.unique().tolist()) == {0, 1} and 0 <= y.min() and y.max() <= 1
        assert torch.equal(plain(x), plain(y) * (1 - plain(m)))
        assert dl.n_inp == 2


# epochs, repeatability, fastai

@pytest.mark.parametrize("n, bs, steps, expected",
                         [(9, 4, None, 2), (9, 4, 7, 7), (9, 16, None, 1)])
def test_length_of_an_epoch(folder, n, bs, steps, expected):
    dls = small(folder, bs=bs, steps=steps)
    assert len(dls.train_ds) == n and len(dls.train) == expected
    assert [len(b[0]) for b in dls.train] == [bs] * expected


def test_all_photographs_come_equally_often(folder):
    dl = small(folder, steps=3, bs=3, valid=0.1).train
    count = np.bincount(sum((dl.get_idxs() for _ in range(4)), []), minlength=9)
    assert (count == 4).all()
    assert dl.get_idxs() != dl.get_idxs()


def test_order_and_split_depend_on_the_seed(folder):
    first, again, other = (small(folder, seed=s, valid=0.3) for s in (0, 0, 1))
    assert first.train.get_idxs() == again.train.get_idxs() != other.train.get_idxs()
    splits = [[os.path.basename(o) for o in d.valid_ds.items] for d in (first, again, other)]
    assert splits[0] == splits[1] != splits[2]
    assert not set(first.train_ds.items) & set(first.valid_ds.items)


@workers
def test_a_seed_repeats_a_run_and_stored_states_resume_it(folder, num_workers):
    def build():
        set_seed(3)
        return small(folder, seed=3, num_workers=num_workers, steps=2)

    dls = build()
    first = list(dls.train)
    state = random.getstate(), np.random.get_state(), torch.get_rng_state(), dls.train.drawn
    second = list(dls.train)
    assert not same(first, second)
    assert same(first, list(build().train))

    dls = small(folder, seed=3, num_workers=num_workers, steps=2)
    random.setstate(state[0]), np.random.set_state(state[1]), torch.set_rng_state(state[2])
    dls.train.drawn = state[3]
    assert same(second, list(dls.train))


class Fill(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(4, 3, 1)

    def forward(self, masked, mask): return self.conv(torch.cat((masked, mask), 1))


def l1(pred, image, mask): return (pred - image).abs().mean()


def test_fastai_learner_trains_validates_predicts_and_decodes(folder):
    learn = Learner(small(folder, steps=2, valid=0.3), Fill(), loss_func=l1)
    with learn.no_logging(): learn.fit(1)
    assert np.isfinite(learn.validate()[0])
    preds, (image, mask) = learn.get_preds()
    assert preds.shape == image.shape == (3, 3, 32, 32) and mask.shape == (3, 1, 32, 32)
    # every training photograph once, whatever `steps`
    assert len(learn.get_preds(ds_idx=0)[0]) == 7
    assert len(learn.get_preds(dl=learn.dls.train)[0]) == len(learn.dls.train)*learn.dls.train.bs
    preds, _ = learn.get_preds(dl=learn.dls.test_dl(sorted(folder.glob("*.png"))[:2]))
    assert len(preds) == 2
    for dl in learn.dls:
        masked, mask, image, _ = dl.decode(dl.one_batch())
        assert isinstance(image, TensorImage) and isinstance(mask, TensorMask)
        assert 0.2 < image.max() <= 1
        assert [len(o) for o in dl.decode_batch((masked, mask, image, mask), max_n=2)] == [4, 4]


def test_the_datablock_stands_on_its_own(folder):
    block = inpaint_block("center", size=32)
    dls = block.dataloaders(find_images(folder), bs=2, num_workers=0, device="cpu")
    assert dls.one_batch()[0].shape == (2, 3, 32, 32)
    assert isinstance(dls.train_ds[0][0], PILPhoto)


def test_loaders_survive_pickling(folder):
    dls = small(folder, valid=0.3)
    again = pickle.loads(pickle.dumps(dls.valid))
    assert torch.equal(masks_of(again), masks_of(dls.valid))
    pickle.dumps(dls.train)


def test_workers_may_be_spawned(folder):
    script = f"""
from functools import partial
import torch
from fastinpaint.data.loaders import InpaintDataLoaders
if __name__ == "__main__":
    torch.multiprocessing.set_start_method("spawn")
    build = partial(InpaintDataLoaders.from_folder, {str(folder)!r}, size=32, bs=4, steps=1)
    dls = build(num_workers=1, device="cpu")
    print(len(list(dls.train)), "batch")
"""
    (folder / "spawn.py").write_text(script)
    done = subprocess.run([sys.executable, folder / "spawn.py"], capture_output=True, text=True,
                          timeout=300)
    assert done.stdout.strip() == "1 batch", done.stderr


# several processes

def part_of(dls, rank, world, monkeypatch):
    "What the loaders give one of `world` processes"
    values = dict(RANK=rank, WORLD_SIZE=world, MASTER_ADDR="", MASTER_PORT="")
    for k, v in values.items(): monkeypatch.setenv(k, str(v))
    for dl in dls.loaders: dl.share = rank, world
    return [list(dl) for dl in dls.loaders]


@pytest.mark.parametrize("world, num_workers", [(2, 0), (3, 0), (2, 2)])
def test_the_rows_of_all_processes_are_the_batches_of_one(folder, monkeypatch, world, num_workers):
    "Crops, holes and augmentation included"
    whole, validation = map(list, small(folder, bs=6, steps=3, seed=1, valid=0.5).loaders)
    kwargs = dict(bs=6 // world, steps=3, seed=1, valid=0.5, num_workers=num_workers)
    parts = [part_of(small(folder, **kwargs), rank, world, monkeypatch) for rank in range(world)]
    for i, batch in enumerate(whole):
        rows = [torch.cat([part[0][i][k] for part in parts]) for k in range(4)]
        assert all(torch.allclose(plain(a), plain(b), atol=1e-6) for a, b in zip(rows, batch, strict=True))
    images = torch.cat([batch[2] for _, valid in parts for batch in valid])
    assert torch.equal(plain(images), plain(torch.cat([b[2] for b in validation])))


def test_an_epoch_of_several_processes_is_one_pass_together(folder):
    dl = small(folder, bs=2, valid=0.1).train
    assert len(dl.dataset) == 9 and len(dl) == 4
    dl.share = 1, 2
    assert len(dl) == 2 and len(dl.get_idxs()) == 4 and dl.drawn == 8


def test_a_process_without_a_part_of_the_validation_set_has_no_batch(folder):
    dl = small(folder, valid=0.2).valid
    dl.share = 0, 3
    assert len(dl.dataset) == 2 and len(dl) == 0 and list(dl) == []


@workers
def test_the_next_photograph_takes_the_place_of_an_unreadable_one(folder, num_workers, truncated):
    "So that every process has as many batches as the others"
    truncated(folder / "00.jpg")
    dl = small(folder, bs=3, valid=0.2, num_workers=num_workers, seed=1).train
    bad = [os.path.basename(o) for o in dl.dataset.items].index("00.jpg")
    assert bad in dl.get_idxs() and [len(b[0]) for b in dl] == [3] * len(dl)


# splits

def test_validation_by_fraction_folder_or_subfolders(folder, tmp_path, photo):
    assert len(small(folder).valid_ds) == 1 and len(small(folder, valid=0.5).valid_ds) == 5
    first, again = (small(folder, valid=0.5).valid_ds.items for _ in range(2))
    assert set(first) == set(again)
    for o in ("train/1.png", "train/2.png", "val/3.png"): photo(tmp_path / "set" / o)
    for valid in (None, "val", tmp_path / "set" / "val"):
        dls = small(tmp_path / "set", valid=valid)
        assert len(dls.train_ds) == 2
        assert [os.path.basename(o) for o in dls.valid_ds.items] == ["3.png"]
    with pytest.raises(ValueError, match="valid=1.5 must be a fraction"): small(folder, valid=1.5)
    with pytest.raises(ValueError, match="size, bs, steps must be above 0"): small(folder, bs=0)
    with pytest.raises(ValueError, match="at least 2 images"): small(tmp_path / "set" / "val")
