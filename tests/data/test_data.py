import os
import pickle
import random
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch
from fastai.learner import Learner
from fastai.torch_core import TensorImage, TensorMask, set_seed
from PIL import Image

from fastinpaint.data import photos
from fastinpaint.data.augment import lama_augment
from fastinpaint.data.loaders import InpaintDataLoaders, inpaint_block
from fastinpaint.data.photos import find_images, image_size, named_data, open_photo
from fastinpaint.data.transforms import PILPhoto

small = partial(InpaintDataLoaders.from_folder, size=32, bs=4, num_workers=0, device="cpu")
workers = pytest.mark.parametrize("num_workers", [0, 2])


def photo(fn, w=48, h=40, color=None, **kwargs):
    "A picture of four plain quarters, or of one colour"
    fn.parent.mkdir(parents=True, exist_ok=True)
    a = np.full((h, w, 3), color or 0, np.uint8)
    if color is None: a[: h // 2, : w // 2, 0] = a[h // 2 :, w // 2 :, 1] = a[: h // 2, w // 2 :, 2] = 200
    Image.fromarray(a).save(fn, **kwargs)
    return fn


@pytest.fixture
def folder(tmp_path):
    for i in range(10): photo(tmp_path / "photos" / f"{i}.png", color=(20 * i, 100, 250 - 20 * i))
    return tmp_path / "photos"


def truncated(fn, w=400, h=400):
    "A JPEG whose header is sound, and whose second half is missing"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (h, w, 3), dtype=np.uint8)).save(fn)
    fn.write_bytes(fn.read_bytes()[: fn.stat().st_size // 2])
    return fn


def same(a, b): return all(torch.equal(x, y) for u, v in zip(a, b, strict=True) for x, y in zip(u, v, strict=True))
def plain(o): return o.as_subclass(torch.Tensor)
def masks_of(dl): return torch.cat([b[1] for b in dl])


# files

def _modes():
    "Pictures of one colour in many modes, with the RGB that each must become"
    grey16 = np.full((9, 9), 200 * 257, np.uint16)
    rgba = Image.new("RGBA", (9, 9), (200, 100, 0, 128))
    palette = Image.new("RGB", (9, 9), (10, 200, 30)).quantize()
    return {
        "rgb.png": (Image.new("RGB", (9, 9), (10, 200, 30)), (10, 200, 30)),
        "l.png": (Image.new("L", (9, 9), 77), (77,) * 3),
        "1.png": (Image.new("1", (9, 9), 1), (255,) * 3),
        "p.png": (palette, (10, 200, 30)),
        "p.gif": (palette, (10, 200, 30)),
        "rgba.png": (rgba, (227, 177, 127)),
        "la.png": (Image.new("LA", (9, 9), (0, 0)), (255,) * 3),
        "cmyk.tif": (Image.new("CMYK", (9, 9), (255, 0, 255, 0)), (0, 255, 0)),
        "cmyk.jpg": (Image.new("CMYK", (9, 9), (255, 0, 255, 0)), (0, 255, 0)),
        "16.png": (Image.fromarray(grey16), (200,) * 3),
        "16.tif": (Image.fromarray(grey16), (200,) * 3),
        "i.tif": (Image.fromarray(grey16.astype(np.int32)), (200,) * 3),
        "i32.tif": (Image.fromarray(np.full((9, 9), 2**30, np.int32)), (127,) * 3),
        "f1.tif": (Image.fromarray(np.full((9, 9), 0.4, np.float32)), (102,) * 3),
        "f255.tif": (Image.fromarray(np.full((9, 9), 102, np.float32)), (102,) * 3),
        "x.webp": (Image.new("RGB", (9, 9), (10, 200, 30)), (10, 200, 30)),
        "x.bmp": (Image.new("RGB", (9, 9), (10, 200, 30)), (10, 200, 30)),
    }


@pytest.mark.parametrize("name", _modes())
def test_any_mode_becomes_correct_rgb(tmp_path, name):
    im, expected = _modes()[name]
    im.save(tmp_path / name)
    rgb = np.asarray(open_photo(tmp_path / name)).astype(int)
    assert rgb.shape == (9, 9, 3)
    assert abs(rgb - expected).max() <= (4 if name.endswith(("jpg", "webp")) else 1)


def test_transparent_palettes_and_colours_turn_white(tmp_path):
    im = Image.new("P", (4, 4), 1)
    im.putpalette([0, 0, 0, 250, 0, 0])
    im.save(tmp_path / "p.png", transparency=1)
    assert (np.asarray(open_photo(tmp_path / "p.png")) == 255).all()


def test_sixteen_bit_colour(tmp_path):
    import struct
    import zlib

    def chunk(kind, data): return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    row = b"\0" + struct.pack(">3H", 10 * 257, 200 * 257, 30 * 257) * 4
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", 4, 4, 16, 2, 0, 0, 0))
                                     + chunk(b"IDAT", zlib.compress(row * 4)) + chunk(b"IEND", b""))
    assert (np.asarray(open_photo(tmp_path / "x.png")) == (10, 200, 30)).all()


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (9, 9), c) for c in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert np.asarray(open_photo(tmp_path / "a.gif"))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, kind, orientation):
    upright = np.asarray(Image.open(photo(tmp_path / "upright.png"))).astype(int)
    undo = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.transpose(1, 0, 2),
            6: lambda a: np.rot90(a), 7: lambda a: np.rot90(a, 2).transpose(1, 0, 2), 8: lambda a: np.rot90(a, -1)}
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)).astype(np.uint8))
    stored.save(tmp_path / f"x.{kind}", exif=exif, **({"lossless": True} if kind == "webp" else {}))
    assert image_size(tmp_path / f"x.{kind}") == (48, 40)
    got = np.asarray(open_photo(tmp_path / f"x.{kind}")).astype(int)
    assert got.shape == upright.shape and abs(got - upright).mean() < 5


def test_large_jpegs_may_be_decoded_at_reduced_scale(tmp_path):
    photo(tmp_path / "x.jpg", 1000, 800)
    assert open_photo(tmp_path / "x.jpg", min_side=150).size == (250, 200)
    assert open_photo(tmp_path / "x.jpg").size == (1000, 800)


# the scan and unreadable files

def test_hidden_and_other_files_are_left_out(tmp_path):
    photo(tmp_path / "b" / "1.JPG")
    for o in ("a.png", ".hidden.png", ".cache/x.png"): photo(tmp_path / o)
    (tmp_path / "notes.txt").write_text("no image")
    assert [os.path.relpath(o, tmp_path) for o in find_images(tmp_path)] == ["a.png", os.path.join("b", "1.JPG")]


def test_an_empty_or_missing_folder_says_what_was_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(FileNotFoundError, match=rf"no images in {tmp_path}.*1 other files.*\.jpg"): small(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder.*nowhere"): small(tmp_path / "nowhere")


def test_a_folder_of_unreadable_files_raises(tmp_path, capsys):
    for i in range(2): (tmp_path / f"{i}.jpg").write_bytes(b"no image")
    with pytest.raises(OSError, match=f"none of the 2 image files under {tmp_path}"): small(tmp_path)
    assert "0.jpg: not an image that Pillow can read" in capsys.readouterr().out


def test_bad_headers_are_named_counted_and_left_out_when_the_loaders_are_built(folder, capsys, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    (folder / "empty.jpg").touch()
    (folder / "text.png").write_text("no image")
    photo(folder / "bomb.png", 300, 300)
    dls = small(folder)
    out = capsys.readouterr().out
    assert "empty.jpg: the file is empty" in out and "decompression bomb" in out and "skipped 3 of 13 files" in out
    assert [os.path.basename(o) for o in dls.skipped] == ["bomb.png", "empty.jpg", "text.png"]
    assert len(dls.train_ds) + len(dls.valid_ds) == 10


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_files_without_permission_are_skipped(folder, capsys):
    (folder / "0.png").chmod(0)
    assert len(small(folder).skipped) == 1
    assert "0.png: Permission denied" in capsys.readouterr().out


@workers
def test_a_file_that_breaks_in_mid_epoch_is_named_once_and_training_goes_on(folder, capfd, num_workers):
    bad = truncated(folder / "00.jpg")  # sorted first: fastai reads item 0 when it builds the loaders
    dls = small(folder, valid=0.2, num_workers=num_workers, steps=6, seed=1)
    assert str(bad) in dls.train_ds.items
    for _ in range(2):
        assert sum(len(b[0]) for b in dls.train) >= 6 * 4 - 6
        list(dls.valid)
    assert dls.skipped == [str(bad)]
    assert capfd.readouterr().out.count(f"skipped {bad}: ") == 1


def test_a_whole_unreadable_batch_is_no_end_but_a_whole_epoch_is(folder):
    for i in range(6): truncated(folder / f"bad{i}.jpg")
    dls = small(folder, valid=0.5, bs=1)
    assert len(list(dls.valid)) < len(dls.valid_ds)
    for fn in folder.glob("?.png"): fn.unlink()
    dls = small(folder)
    with pytest.raises(OSError, match="none of the 5 photographs could be read in this epoch"): list(dls.train)


# batches

def test_the_batch_contract(folder):
    for dl in small(folder):
        x, m, y, m2 = dl.one_batch()
        assert isinstance(x, TensorImage) and isinstance(y, TensorImage) and isinstance(m, TensorMask)
        assert x.shape == y.shape == (len(x), 3, 32, 32) and m.shape == (len(x), 1, 32, 32)
        assert x.dtype == m.dtype == torch.float32 and torch.equal(m, m2)
        assert set(m.unique().tolist()) == {0, 1} and 0 <= y.min() and y.max() <= 1
        assert torch.equal(plain(x), plain(y) * (1 - plain(m)))
        assert dl.n_inp == 2


@pytest.mark.parametrize("size", [20, 100])
def test_images_smaller_than_the_crop_are_enlarged_and_any_size_goes(folder, size):
    for dl in small(folder, size=size): assert dl.one_batch()[0].shape[-2:] == (size, size)


def test_validation_is_the_central_square(tmp_path):
    for i in range(2): photo(tmp_path / f"{i}.png", 64, 32)
    y = small(tmp_path, valid=0.5).valid.one_batch()[2][0]
    assert np.array_equal((y * 255).round().permute(1, 2, 0).numpy(), np.asarray(Image.open(tmp_path / "0.png"))[:, 16:48])


def test_training_crops_move(tmp_path):
    for i in range(3): photo(tmp_path / f"{i}.png", 300, 200)
    dls = small(tmp_path, augment=False, steps=2)
    pictures = torch.cat([b[2] for b in dls.train])
    assert len({o.numpy().tobytes() for o in pictures}) == 8


# masks

def test_training_masks_are_new_each_epoch_and_validation_masks_stay(folder):
    dls = small(folder, augment=False, valid=0.3)
    assert not torch.equal(masks_of(dls.train), masks_of(dls.train))
    assert torch.equal(masks_of(dls.valid), masks_of(dls.valid))


def test_validation_masks_depend_on_item_and_seed_alone(folder, tmp_path):
    first = masks_of(small(folder, valid=0.3).valid)
    assert torch.equal(first, masks_of(small(folder, valid=0.3, num_workers=2, bs=2).valid))
    assert not torch.equal(first, masks_of(small(folder, valid=0.3, seed=1).valid))
    dls = small(folder, valid=0.3)
    backwards = dls.test_dl(list(dls.valid_ds.items)[::-1])
    assert torch.equal(first, masks_of(backwards).flip(0))
    folder.rename(tmp_path / "moved")
    assert torch.equal(first, masks_of(small(tmp_path / "moved", valid=0.3).valid))


@pytest.mark.parametrize("name", ["thin", "medium", "thick", "center", "outpaint"])
def test_presets(folder, name):
    assert 0 < masks_of(small(folder, masks=name).valid).mean() < 1


def left_half(height, width, rng): return np.arange(width)[None] < np.full((height, 1), width // 2)


def test_a_callable_draws_the_masks(folder):
    assert (masks_of(small(folder, masks=left_half).valid)[..., :16] == 1).all()


@pytest.fixture
def own_masks(folder):
    "A hole of 10x10 pixels over a white mark of each photograph, in a folder inside that of the photographs"
    (folder / "masks").mkdir()
    for i in range(10):
        a = np.zeros((40, 48, 3), np.uint8)
        a[15:25, 14 + i : 24 + i] = 255
        Image.fromarray(a).save(folder / f"{i}.png")
        Image.fromarray(a[..., 0]).save(folder / "masks" / f"{i}.bmp")
    return folder / "masks"


@pytest.mark.parametrize("augment", [False, True])
def test_own_masks_stay_on_their_place_in_the_photograph(folder, own_masks, augment):
    set_seed(0)
    dls = small(folder, masks=own_masks, valid=0.3, augment=augment, steps=5)
    assert len(dls.train_ds) + len(dls.valid_ds) == 10  # the masks are no photographs
    for dl in dls:
        for _, m, y, _ in dl:
            mark, hole = plain(y).mean(1) > 0.5, plain(m)[:, 0] == 1
            assert (mark ^ hole).float().mean() < 0.06
            assert hole.flatten(1).any(1).all()


@pytest.mark.filterwarnings("ignore:.*over 60 %")
def test_invert_swaps_hole_and_known(folder, own_masks):
    plain, inverted = (masks_of(small(folder, masks=str(own_masks), invert=o).valid) for o in (False, True))
    assert torch.equal(plain, 1 - inverted)


def test_masks_that_look_inverted_are_warned_about(folder, own_masks):
    Image.new("L", (48, 40), 255).save(own_masks / "0.bmp")
    with pytest.warns(UserWarning, match=r"0.bmp \(100%\).*white means hole.*invert=True"): small(folder, masks=own_masks)


def test_missing_masks_raise_and_point_to_the_pool(folder, own_masks):
    (own_masks / "3.bmp").unlink()
    with pytest.raises(ValueError, match=r"1 of 10 photographs have no mask.*3\.png.*pool:"): small(folder, masks=own_masks)
    assert small(folder, masks=f"pool:{own_masks}").train.one_batch()[1].any()


def test_a_mask_of_another_size_names_both_files(folder, own_masks, monkeypatch):
    Image.new("L", (40, 48)).save(own_masks / "3.bmp")
    with pytest.raises(ValueError, match=r"3\.bmp is 40x48.*3\.png is 48x40"): small(folder, masks=own_masks)
    monkeypatch.setattr("fastinpaint.data.loaders.SCAN_LIMIT", 0)  # too many files to look at first: found in the epoch
    dls = small(folder, masks=own_masks, valid=0.9)
    with pytest.raises(ValueError, match=r"3\.bmp is 40x48.*3\.png is 48x40"): [list(dl) for dl in dls]


def test_an_unreadable_mask_is_skipped_with_its_photograph(folder, own_masks, capsys):
    (own_masks / "3.bmp").write_bytes((own_masks / "3.bmp").read_bytes()[:600])
    dls = small(folder, masks=own_masks, valid=0.9)
    assert sum(len(b[0]) for dl in dls for b in dl) <= 12
    assert dls.skipped == [str(own_masks / "3.bmp")] and capsys.readouterr().out.count("3.bmp: ") == 1


def test_pool_masks_fit_any_photograph(folder, tmp_path):
    (tmp_path / "pool").mkdir()
    Image.fromarray(np.repeat([255, 0], 500).astype(np.uint8).reshape(50, 20)).save(tmp_path / "pool" / "upper.png")
    m = masks_of(small(folder, masks=f"pool:{tmp_path / 'pool'}").valid)
    assert (m[:, :, :16] == 1).all() and (m[:, :, 16:] == 0).all()


# epochs, repeatability, fastai

@pytest.mark.parametrize("n, bs, steps, expected", [(9, 4, None, 2), (9, 4, 7, 7), (9, 16, None, 1)])
def test_length_of_an_epoch(folder, n, bs, steps, expected):
    dls = small(folder, bs=bs, steps=steps)
    assert len(dls.train_ds) == n and len(dls.train) == expected
    assert [len(b[0]) for b in dls.train] == [bs] * expected


def test_all_photographs_come_equally_often(folder):
    dl = small(folder, steps=3, bs=3, valid=0.1).train
    count = np.bincount(sum((dl.get_idxs() for _ in range(4)), []), minlength=9)
    assert (count == 4).all()
    assert dl.get_idxs() != dl.get_idxs()


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
    assert len(learn.get_preds(ds_idx=0)[0]) == 7  # every training photograph once, whatever `steps`
    preds, _ = learn.get_preds(dl=learn.dls.test_dl(sorted(folder.glob("*.png"))[:2]))
    assert len(preds) == 2
    for dl in learn.dls:
        masked, mask, image, _ = dl.decode(dl.one_batch())
        assert isinstance(image, TensorImage) and isinstance(mask, TensorMask) and 0.2 < image.max() <= 1
        assert [len(o) for o in dl.decode_batch((masked, mask, image, mask), max_n=2)] == [4, 4]


def test_the_datablock_stands_on_its_own(folder):
    dls = inpaint_block("center", size=32).dataloaders(find_images(folder), bs=2, num_workers=0, device="cpu")
    assert dls.one_batch()[0].shape == (2, 3, 32, 32)
    assert isinstance(dls.train_ds[0][0], PILPhoto)


def test_loaders_survive_pickling(folder):
    dls = small(folder, valid=0.3)
    again = pickle.loads(pickle.dumps(dls.valid))
    assert torch.equal(masks_of(again), masks_of(dls.valid))
    pickle.dumps(dls.train)


def test_workers_may_be_spawned(folder):
    script = f"""
import torch
from fastinpaint.data.loaders import InpaintDataLoaders
if __name__ == "__main__":
    torch.multiprocessing.set_start_method("spawn")
    dls = InpaintDataLoaders.from_folder({str(folder)!r}, size=32, bs=4, num_workers=1, device="cpu", steps=1)
    print(len(list(dls.train)), "batch")
"""
    (folder / "spawn.py").write_text(script)
    done = subprocess.run([sys.executable, folder / "spawn.py"], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "1 batch", done.stderr


# splits and names

def test_validation_by_fraction_folder_or_subfolders(folder, tmp_path):
    assert len(small(folder).valid_ds) == 1 and len(small(folder, valid=0.5).valid_ds) == 5
    assert set(small(folder, valid=0.5).valid_ds.items) == set(small(folder, valid=0.5).valid_ds.items)
    for o in ("train/1.png", "train/2.png", "val/3.png"): photo(tmp_path / "set" / o)
    for valid in (None, "val", tmp_path / "set" / "val"):
        dls = small(tmp_path / "set", valid=valid)
        assert len(dls.train_ds) == 2 and [os.path.basename(o) for o in dls.valid_ds.items] == ["3.png"]
    with pytest.raises(ValueError, match="valid=1.5 must be a fraction"): small(folder, valid=1.5)
    with pytest.raises(ValueError, match="size, bs, steps must be above 0"): small(folder, bs=0)
    with pytest.raises(ValueError, match="at least 2 images"): small(tmp_path / "set" / "val")


def test_named_data(tmp_path, monkeypatch):
    assert named_data(tmp_path) == tmp_path
    assert len(find_images(named_data("sample"))) == 128
    with pytest.raises(ValueError, match="neither a folder nor one of sample, pets, imagenette"): named_data("petz")
    monkeypatch.setenv("FASTAI_HOME", str(tmp_path))
    monkeypatch.setattr(photos, "fastai_path", lambda _: tmp_path)
    monkeypatch.setattr(photos.urllib.request, "urlopen", lambda *_, **__: time.sleep(60))  # a network that never answers
    monkeypatch.setattr("fastinpaint.core.download.TIMEOUT", .2)
    start = time.monotonic()
    with pytest.raises(ConnectionError, match="cannot download pets.*no answer.*--data path/to/photos"): named_data("pets")
    assert time.monotonic() - start < 5


# augmentation

def test_augmentation_moves_image_and_mask_alike_and_keeps_the_contract():
    torch.manual_seed(0)
    mask = torch.zeros(16, 64, 64, dtype=torch.long)
    mask[:, 20:40, 20:40] = 1
    image = mask[:, None].float().repeat(1, 3, 1, 1) * 0.8 + 0.1
    space, light = lama_augment()
    y, m = space((TensorImage(image), TensorMask(mask)), split_idx=0)
    assert isinstance(y, TensorImage) and isinstance(m, TensorMask) and m.dtype == torch.long
    assert ((plain(y)[:, 0] > 0.5) ^ (plain(m) == 1)).float().mean() < 0.01
    assert (m != mask).flatten(1).any(1).float().mean() > 0.8
    z, m2 = light((y, m), split_idx=0)
    assert torch.equal(m, m2) and not torch.equal(y, z) and 0 <= z.min() and z.max() <= 1


def test_a_pair_keeps_its_hole():
    torch.manual_seed(0)
    mask = torch.zeros(64, 32, 32, dtype=torch.long)
    mask[:, 0, 0] = 1  # a corner, which most turns lose
    _, m = lama_augment()[0]((TensorImage(torch.rand(64, 3, 32, 32)), TensorMask(mask)), split_idx=0)
    assert m.flatten(1).any(1).all()


def test_validation_batches_are_not_augmented():
    b = TensorImage(torch.rand(2, 3, 8, 8)), TensorMask(torch.ones(2, 8, 8))
    state = torch.get_rng_state()
    for tfm in lama_augment(): assert tfm(b, split_idx=1) is b
    assert torch.equal(state, torch.get_rng_state())
