from functools import partial

import numpy as np
import pytest
import torch
from fastai.torch_core import set_seed
from fastai.vision.core import PILMask
from PIL import Image

from fastinpaint.data.loaders import InpaintDataLoaders
from fastinpaint.data.masks import HoleName
from fastinpaint.data.transforms import CropToSize, PILPhoto

small = partial(InpaintDataLoaders.from_folder, size=32, bs=4, num_workers=0, device="cpu")


def plain(o): return o.as_subclass(torch.Tensor)
def masks_of(dl): return torch.cat([b[1] for b in dl])


# crops

@pytest.mark.parametrize("size", [20, 100])
def test_images_smaller_than_the_crop_are_enlarged_and_any_size_goes(folder, size):
    for dl in small(folder, size=size): assert dl.one_batch()[0].shape[-2:] == (size, size)


def test_validation_is_the_central_square(tmp_path, photo):
    for i in range(2): photo(tmp_path / f"{i}.png", 64, 32)
    y = small(tmp_path, valid=0.5).valid.one_batch()[2][0]
    assert np.array_equal((y * 255).round().permute(1, 2, 0).numpy(),
                          np.asarray(Image.open(tmp_path / "0.png"))[:, 16:48])


def test_training_crops_move(tmp_path, photo):
    for i in range(3): photo(tmp_path / f"{i}.png", 300, 200)
    dls = small(tmp_path, augment=False, steps=2)
    pictures = torch.cat([b[2] for b in dls.train])
    assert len({o.numpy().tobytes() for o in pictures}) == 8


def test_a_training_crop_is_half_of_the_shorter_side_or_more_and_not_enlarged():
    photo = PILPhoto(Image.new("RGB", (300, 200)))
    for size, least in (32, 100), (150, 150), (250, 200):
        crop, sides = CropToSize(size), []
        for _ in range(200):
            crop.before_call((photo, HoleName("a")), 0)
            left, top, right, bottom = crop.box
            assert right - left == pytest.approx(bottom - top)
            assert left >= 0 and top >= 0 and right <= 300.001 and bottom <= 200.001
            sides.append(right - left)
        assert min(sides) == pytest.approx(least, abs=3) and max(sides) == pytest.approx(200, abs=3)


def test_a_training_crop_holds_a_part_of_its_own_mask():
    photo, mask = PILPhoto(Image.new("RGB", (100, 100))), np.zeros((100, 100), np.uint8)
    mask[45:55, :10] = 1
    crop, mask, hits = CropToSize(32), PILMask(Image.fromarray(mask)), 0
    for _ in range(100):
        crop.before_call((photo, mask), 0)
        hits += mask.crop(tuple(map(round, crop.box))).getbbox() is not None
    assert hits > 90  # of single crops about half miss it


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_native_crops_are_pixels_as_they_are_and_anywhere(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (16, 25, 3), np.uint8)
    for i in range(2): Image.fromarray(noise).resize((200, 130)).save(tmp_path / f"{i}.{suffix}")
    stored = np.asarray(Image.open(tmp_path / f"0.{suffix}"))
    windows = np.lib.stride_tricks.sliding_window_view(stored[..., 0], (32, 32))
    dls, corners = small(tmp_path, native=True, augment=False, steps=6), []
    for *_, images, _ in dls.train:
        for red in (images[:, 0] * 255).round().byte().numpy():
            place = np.argwhere((windows == red).all((2, 3)))
            assert len(place) == 1
            corners += place.tolist()
    top, left = np.array(corners).T
    assert np.ptp(top) > 60 and np.ptp(left) > 100
    assert dls.valid.one_batch()[2].shape[-2:] == (32, 32)


def test_native_leaves_validation_alone(folder):
    plain, native = (small(folder, native=o, valid=0.3).valid.one_batch() for o in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(plain, native, strict=True))


def test_photographs_below_the_size_of_native_crops_are_enlarged(folder):
    crop = CropToSize(100, native=True)
    crop.before_call((PILPhoto(Image.open(folder / "0.png")), HoleName("a")), 0)
    left, top, right, bottom = crop.box
    assert (top, bottom, right - left) == (0, 40, 40)
    assert small(folder, size=100, native=True).train.one_batch()[0].shape[-2:] == (100, 100)


def test_native_crops_find_a_small_mask_in_a_large_photograph():
    photo, mask = PILPhoto(Image.new("RGB", (600, 400))), np.zeros((400, 600), np.uint8)
    mask[200:220, 500:520] = 1
    crop, mask, hits = CropToSize(32, native=True), PILMask(Image.fromarray(mask)), 0
    for _ in range(50):
        crop.before_call((photo, mask), 0)
        hits += mask.crop(crop.box).getbbox() is not None
    assert hits > 25  # single crops hit it once in eighty times


# holes

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


def left_half(height, width, rng):
    return np.arange(width)[None] < np.full((height, 1), width // 2)


def test_a_callable_draws_the_masks(folder):
    assert (masks_of(small(folder, masks=left_half).valid)[..., :16] == 1).all()


def test_drawn_holes_are_not_moved_with_the_photograph(folder, tmp_path):
    (tmp_path / "pool").mkdir()
    hole = Image.fromarray(left_half(32, 32, None))
    hole.save(tmp_path / "pool" / "left.png")
    for masks in left_half, f"pool:{tmp_path / 'pool'}":
        dls = small(folder, masks=masks, steps=3)
        assert all((m == torch.as_tensor(np.array(hole))).all() for _, m, *_ in dls.train)


@pytest.fixture
def own_masks(folder):
    "In a folder inside that of the photographs, holes over a white mark of 10x10 pixels in each"
    (folder / "masks").mkdir()
    for i in range(10):
        a = np.zeros((40, 48, 3), np.uint8)
        a[15:25, 14 + i : 24 + i] = 255
        Image.fromarray(a).save(folder / f"{i}.png")
        Image.fromarray(a[..., 0]).save(folder / "masks" / f"{i}.bmp")
    return folder / "masks"


@pytest.mark.parametrize("augment, native", [(False, False), (True, False), (True, True)])
def test_own_masks_stay_on_their_place_in_the_photograph(folder, own_masks, augment, native):
    set_seed(0)
    dls = small(folder, masks=own_masks, valid=0.3, augment=augment, native=native, steps=5)
    assert len(dls.train_ds) + len(dls.valid_ds) == 10  # the masks are no photographs
    for dl in dls:
        for _, m, y, _ in dl:
            mark, hole = plain(y).mean(1) > 0.5, plain(m)[:, 0] == 1
            assert (mark ^ hole).float().mean() < 0.06
            assert hole.flatten(1).any(1).all()


@pytest.mark.filterwarnings("ignore:.*over 60 %")
def test_invert_swaps_hole_and_known(folder, own_masks):
    plain, inverted = (masks_of(small(folder, masks=str(own_masks), invert=o).valid)
                       for o in (False, True))
    assert torch.equal(plain, 1 - inverted)


def test_masks_that_look_inverted_are_warned_about(folder, own_masks):
    Image.new("L", (48, 40), 255).save(own_masks / "0.bmp")
    with pytest.warns(UserWarning, match=r"0.bmp \(100%\).*white means hole.*invert=True"):
        small(folder, masks=own_masks)


def test_missing_masks_raise_and_point_to_the_pool(folder, own_masks):
    (own_masks / "3.bmp").unlink()
    with pytest.raises(ValueError, match=r"1 of 10 photographs have no mask.*3\.png.*pool:"):
        small(folder, masks=own_masks)
    assert small(folder, masks=f"pool:{own_masks}").train.one_batch()[1].any()


def test_a_mask_of_another_size_names_both_files(folder, own_masks, monkeypatch):
    Image.new("L", (40, 48)).save(own_masks / "3.bmp")
    with pytest.raises(ValueError, match=r"3\.bmp is 40x48.*3\.png is 48x40"):
        small(folder, masks=own_masks)
    # too many files to look at first: found in the epoch
    monkeypatch.setattr("fastinpaint.data.loaders.SCAN_LIMIT", 0)
    dls = small(folder, masks=own_masks, valid=0.9)
    with pytest.raises(ValueError, match=r"3\.bmp is 40x48.*3\.png is 48x40"):
        [list(dl) for dl in dls]


def test_an_unreadable_mask_is_skipped_with_its_photograph(folder, own_masks, capsys):
    (own_masks / "3.bmp").write_bytes((own_masks / "3.bmp").read_bytes()[:600])
    dls = small(folder, masks=own_masks, valid=0.9)
    assert sum(len(b[0]) for dl in dls for b in dl) <= 12
    assert dls.skipped == [str(own_masks / "3.bmp")]
    assert capsys.readouterr().out.count("3.bmp: ") == 1


def test_pool_masks_fit_any_photograph(folder, tmp_path):
    (tmp_path / "pool").mkdir()
    upper = np.repeat([255, 0], 500).astype(np.uint8).reshape(50, 20)
    Image.fromarray(upper).save(tmp_path / "pool" / "upper.png")
    m = masks_of(small(folder, masks=f"pool:{tmp_path / 'pool'}").valid)
    assert (m[:, :, :16] == 1).all() and (m[:, :, 16:] == 0).all()
