import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastinpaint.core.errors import InputError
from fastinpaint.fill import strategies
from fastinpaint.fill.strategies import (
    MARGIN,
    STRATEGIES,
    WHOLE,
    boxes,
    choose,
    fill,
    fill_by,
    pixels_at_once,
    tile_boxes,
    tiled,
)
from fastinpaint.models.latent_net import latent_net

SIDE = 256


def photo(h=700, w=900, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (h, w, 3), dtype=dtype)


def holes(h=700, w=900, *parts):
    mask = np.zeros((h, w), bool)
    for rows, columns in parts or [((40, 90), (30, 80)), ((400, 690), (300, 810)), ((0, 5), (890, 900))]:
        mask[slice(*rows), slice(*columns)] = True
    return mask


def constant(image, hole): return np.full(image.shape, .5, np.float32)


def means(image, hole):
    "Each row's mean of what is known in it: what a neighbourhood looks like, and finite without any"
    known = (image*~hole[..., None]).sum(1, keepdims=True)/np.maximum((~hole).sum(1), 1)[:, None, None]
    return np.broadcast_to(known/np.iinfo(image.dtype).max, image.shape).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("name", STRATEGIES)
def test_known_pixels_stay_and_a_constant_shows_no_seams(name, dtype):
    image, hole = photo(dtype=dtype), holes()
    for predict in constant, means:
        filled = fill_by(name, predict, image, hole, SIDE)
        assert filled.dtype == dtype and np.array_equal(filled[~hole], image[~hole])
        assert (filled[hole] != image[hole]).any(1).mean() > .9
    filled = fill_by(name, constant, image, hole, SIDE)
    if name != "resize": assert (filled[hole] == np.rint(.5*np.iinfo(dtype).max)).all()


def test_resize_continues_a_constant_photograph():
    image, hole = np.full((700, 900, 3), 90, np.uint8), holes()
    # 1 is not to be seen
    def predict(image, hole): return np.where(hole[..., None], 90/255, 1).astype(np.float32)
    assert (fill_by("resize", predict, image, hole, SIDE) == 90).all()


@pytest.mark.parametrize("name", ["crop", "tiles"])
def test_parts_equal_the_whole_for_a_fill_that_looks_no_further_than_their_margin(name):
    def brightest(image, hole):
        "The brightest pixel a step of 40 pixels away in each direction, where there is one"
        x, padded = image/np.float32(255), np.pad(image/np.float32(255), ((40, 40), (40, 40), (0, 0)))
        return np.maximum.reduce([x*0, padded[80:, 40:-40], padded[:-80, 40:-40], padded[40:-40, 80:],
                                  padded[40:-40, :-80]])
    image, hole = photo(), holes(700, 900, ((100, 150), (120, 200)), ((500, 520), (600, 640)))
    whole, part = (fill_by(o, brightest, image, hole, 512) for o in ("whole", name))
    assert np.array_equal(whole, part)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 795), st.integers(0, 995), *[st.integers(1, 300)]*2), min_size=1,
                max_size=6))
def test_boxes_are_disjoint_and_surround_every_hole(parts):
    hole = holes(800, 1000, *(((y, y + h), (x, x + w)) for y, x, h, w in parts))
    seen = np.zeros(hole.shape, int)
    for box in boxes(hole):
        seen[box] += 1
        for s, n, inside in zip(box, hole.shape, np.nonzero(hole[box]), strict=True):
            assert inside.min() >= MARGIN or s.start == 0
            assert s.start + inside.max() < s.stop - MARGIN or s.stop >= n
    assert seen.max() == 1 and (seen[hole] == 1).all()


def test_many_specks_are_no_more_work_than_the_photograph():
    hole = np.random.default_rng(0).random((2000, 2000)) < .001
    assert sum((hole[box]).size for box in boxes(hole)) <= hole.size


def test_only_tiles_that_touch_the_hole_are_run_and_overlap():
    hole = holes(1000, 1000, ((0, 10), (0, 1000)))
    tiles = tile_boxes(hole, SIDE)
    assert len(tiles) == 5 and all(hole[tile].shape == (SIDE, SIDE) for tile in tiles)
    assert all(a[1].stop - b[1].start >= SIDE//4 for a, b in zip(tiles, tiles[1:], strict=False))


@pytest.mark.parametrize("pixels, hole, strategy", [
    (WHOLE, holes(1000, 1000), "whole"), (WHOLE*4, holes(2000, 2000), "crop"),
    (600*800, holes(1000, 1000, ((0, 99), (0, 99))), "crop"),
    (300*300, holes(1000, 1000, ((400, 410), (0, 1000))), "tiles"),
    (300*300, holes(1000, 1000, ((100, 900), (100, 900))), "resize")])
def test_auto_goes_by_photograph_hole_and_memory(pixels, hole, strategy):
    assert choose(hole, pixels, SIDE) == strategy


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory: you …")],
                         ids=repr)
@pytest.mark.parametrize("limit, used", [(700*900, []), (500*800, ["crop"]), (256*256, ["crop", "tiles"])])
def test_out_of_memory_falls_to_the_next_strategy_and_says_so(limit, used, error, capsys):
    hole = holes(700, 900, ((300, 500), (300, 500))) if limit != 256*256 else holes()
    def predict(image, hole):
        if hole.size > limit: raise error
        return constant(image, hole)
    filled, by = fill(predict, photo(), hole, "whole", SIDE**2)
    said = capsys.readouterr().err.splitlines()
    assert np.array_equal(filled[~hole], photo()[~hole]) and [line.split("'")[-2] for line in said] == used
    assert by == ["whole", *used][-1]


def test_other_errors_and_the_last_strategys_are_not_hidden():
    def fails(error):
        def predict(image, hole): raise error
        return predict
    with pytest.raises(RuntimeError, match="shape"):
        fill(fails(RuntimeError("shape")), photo(), holes(), "whole", 1e6)
    with pytest.raises(torch.OutOfMemoryError):
        fill(fails(torch.OutOfMemoryError("x")), photo(), holes(), "whole", 1e6)
    with pytest.raises(InputError, match="'best'.*auto, whole, crop"):
        fill(constant, photo(), holes(), "best", 1e6)


def test_the_memory_at_hand_says_how_many_pixels(tiny_lama, monkeypatch):
    monkeypatch.setattr(strategies, "memory_at_hand", lambda device: 10**9)
    nets = tiny_lama(width=8), tiny_lama(width=16), torch.nn.ReLU()
    narrow, wide, other = (pixels_at_once(net, "cpu") for net in nets)
    # bytes a pixel as they were measured
    assert 10**9 > 225*narrow > .5*10**9 and 10**9 > 392*wide > .5*10**9
    assert 10**9 > 1411*other > .5*10**9  # as wide as published networks
    assert pixels_at_once(tiny_lama(width=8), "cpu", gradients=True) == narrow/8


PARTS = "encoder", "decoder"


def test_other_autoencoders_take_more_memory_and_attention_has_an_end(tiny_vae, monkeypatch):
    monkeypatch.setattr(strategies, "memory_at_hand", lambda device: 10**9)
    pairs = dict(down_block_types=["DownEncoderBlock2D"]*4, up_block_types=["UpDecoderBlock2D"]*4)
    # bytes a pixel of networks of width 8 at 512 pixels, as they were measured
    for kind, bytes_, more in [
            ("AutoencoderKL", 860, dict(block_out_channels=[16, 32, 64, 64]) | pairs),
            ("AutoencoderTiny", 753, {f"{part}_block_out_channels": [32]*4 for part in PARTS})]:
        net = latent_net(tiny_vae(kind, **more), width=8)
        assert 10**9 > bytes_*pixels_at_once(net, "cpu") > .3*10**9
    monkeypatch.setattr(strategies, "memory_at_hand", lambda device: 10**12)
    attends, not_ = (latent_net(tiny_vae(kind)) for kind in ("AutoencoderKL", "AutoencoderTiny"))
    assert pixels_at_once(attends, "cpu") == (128*4)**2 < pixels_at_once(not_, "cpu")


def test_tiles_blend_from_one_to_the_next():
    hole, values = holes(SIDE, 700, ((100, 110), (0, 700))), [.2]
    def one_more(image, hole):
        values.append(values[-1] + .1)
        return np.full(image.shape, values[-1], np.float32)
    row = tiled(one_more, photo(SIDE, 700), hole, SIDE)[105, :, 0]
    assert len(values) > 2 and row[[0, -1]] == pytest.approx([values[1], values[-1]])
    assert np.diff(row).min() > -1e-6 and np.diff(row).max() < .01


def test_resize_shows_the_network_a_small_photograph_whose_hole_has_not_grown():
    hole, seen = holes(), []
    def predict(image, hole):
        seen.append(hole)
        return constant(image, hole)
    for name in "crop", "resize": fill_by(name, predict, photo(), hole, SIDE)
    count = len(boxes(hole))
    full, small = (max(part, key=np.size) for part in (seen[:count], seen[count:]))
    assert max(small.shape) == SIDE and 0 < small.mean() < full.mean()


def test_a_large_hole_has_a_margin_of_half_its_side():
    hole = holes(2400, 2400, ((800, 1600), (800, 1600)))
    (rows, columns), = boxes(hole)
    assert rows == columns == slice(400, 2000)


def test_tiles_have_a_smallest_side_however_little_memory_there_is():
    seen = []
    def predict(image, hole):
        seen.append(max(hole.shape))
        return constant(image, hole)
    fill(predict, photo(), holes(), "tiles", 64**2)
    assert max(seen) == SIDE
