from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from fastinpaint.core.errors import InputError
from fastinpaint.data.pictures import Picture, open_picture
from fastinpaint.fill import strategies
from fastinpaint.fill.inpainter import Inpainter
from fastinpaint.fill.strategies import STRATEGIES
from fastinpaint.models.lama import lama
from fastinpaint.models.load import save_model

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def photo(h=40, w=48, c=3, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (h, w, c), dtype=dtype, endpoint=True)


def hole(h=40, w=48):
    mask = np.zeros((h, w), bool)
    mask[h//4:h//2 + 1, w//4:w//2 + 1] = True
    return mask


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return lama(2, 1, control="mask", autoencoder=None).eval()


@pytest.fixture(scope="module")
def inpainter(model): return Inpainter(model)


def check(result, image, mask):
    result = np.asarray(result)
    assert result.shape == image.shape and result.dtype == image.dtype
    assert (result[~mask] == image[~mask]).all() and (result[mask] != image[mask]).any()


def test_a_mask_that_is_mostly_hole_looks_inverted(inpainter):
    mask = np.ones((40, 48), bool)
    mask[:, :12] = False
    with pytest.warns(UserWarning, match=r"over 60% .*opposite, pass invert=True \(--invert\)"):
        inpainter(photo(), mask, texture=False)
    with pytest.warns(UserWarning, match="leave out --invert"):
        inpainter(photo(), ~mask, texture=False, invert=True)


def test_a_network_whose_fill_is_no_number_fills_nothing(tmp_path):
    model = lama(2, 1, autoencoder=None).eval()
    model.decoder.head.weight.data *= torch.inf
    with pytest.raises(ValueError, match="NaN or infinity"): Inpainter(model)(photo(), hole())


# files

def stored(path, kind):
    "A photograph file of each kind, with metadata; the pixels and the mode that it must come back with"
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6 if kind == "JPEG" else 1
    info = dict(exif=exif.tobytes(), icc_profile=ICC, dpi=(300, 300))
    if kind in ("16-bit LA", "16-bit RGB", "16-bit RGBA"):
        mode = kind.split()[1]
        Picture(photo(c=len(mode), dtype=np.uint16), mode, info).save(path)
        return photo(c=len(mode), dtype=np.uint16), mode
    grey = photo(c=1)[..., 0]
    if kind == "I;16": image = Image.fromarray(photo(c=1, dtype=np.uint16)[..., 0])
    else: image = Image.fromarray(photo()).convert("RGB" if kind == "JPEG" else kind)
    if kind in ("LA", "RGBA"): image.putalpha(Image.fromarray(grey))
    image.save(path, **({} if kind == "CMYK" else info))
    with Image.open(path) as im: image = im.copy()
    mode = {"P": "RGB", "1": "L", "JPEG": "RGB", "I;16": "L"}.get(kind, kind)
    pixels = np.asarray(image if kind == "I;16" else image.convert(mode))
    pixels = pixels.reshape(image.height, image.width, -1)
    return np.rot90(pixels, -1) if kind == "JPEG" else pixels, mode


@pytest.mark.parametrize("kind, name", [
    *((kind, "a.png") for kind in ("L", "LA", "RGB", "RGBA", "P", "1", "I;16", "16-bit LA", "16-bit RGB",
                                   "16-bit RGBA")),
    *((kind, "a.tif") for kind in ("CMYK", "16-bit RGB", "16-bit RGBA")),
    ("JPEG", "a.jpg"), ("RGBA", "a.webp")])
def test_files_of_every_kind_come_back_as_they_were_but_for_the_hole(inpainter, tmp_path, kind, name):
    pixels, mode = stored(tmp_path/name, kind)
    mask = hole(*pixels.shape[:2])
    Image.fromarray(mask).save(tmp_path/"mask.png")
    out = tmp_path/("out.png" if kind == "JPEG" else f"out{(tmp_path/name).suffix}")
    inpainter.fill_file(tmp_path/name, tmp_path/"mask.png", out)
    result = open_picture(out)
    assert result.mode == mode
    check(result.pixels, pixels, mask)
    if mode.endswith("A"): assert np.array_equal(result.pixels[..., -1], pixels[..., -1])
    if kind == "CMYK": return
    tags = Image.Exif()
    tags.load(result.info["exif"])
    assert tags[0x010F] == "Maker" and tags.get(0x0112, 1) == 1 and result.info["icc_profile"] == ICC
    assert name == "a.webp" or result.info["dpi"] == pytest.approx((300, 300), abs=.1)


def test_a_wrong_name_or_photograph_is_found_before_filling_and_writes_nothing(inpainter, tmp_path,
                                                                               monkeypatch):
    monkeypatch.delattr(Inpainter, "predict")
    Image.fromarray(photo()).save(tmp_path/"a.png")
    before = {*tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"'.gif' cannot hold.*8-bit RGB.*\.png"):
        inpainter.fill_file(tmp_path/"a.png", hole(), tmp_path/"b.gif")
    with pytest.raises(ValueError, match="48x40.*40x40"):
        inpainter.fill_file(tmp_path/"a.png", hole(40, 40), tmp_path/"b.png")
    assert {*tmp_path.iterdir()} == before


# images and holes

@settings(max_examples=15, deadline=None)
@given(st.integers(1, 50), st.integers(2, 50))
def test_photographs_of_any_size(h, w):
    torch.manual_seed(0)
    mask = hole(h, w) & (np.arange(w) < w - 1)
    if not mask.any(): mask[0, 0] = True
    result = np.asarray(Inpainter(lama(1, 0, control="mask", autoencoder=None))(photo(h, w), mask))
    assert result.shape == (h, w, 3) and (result[~mask] == photo(h, w)[~mask]).all()


@pytest.mark.parametrize("shape, mode", [((40, 48), "L"), ((40, 48, 1), "L"), ((40, 48, 4), "RGBA")])
def test_grey_and_transparent_arrays(inpainter, shape, mode):
    image = photo(c=4)[..., :shape[2]] if len(shape) == 3 else photo()[..., 0]
    result = inpainter(image, hole())
    assert result.mode == mode
    check(np.asarray(result).reshape(shape), image, hole())


@pytest.mark.parametrize("same_hole",
                         [hole().astype(np.uint8), hole().astype(np.uint8)*255, Image.fromarray(hole()),
                          Image.fromarray(hole().astype(np.uint8)),
                          Image.fromarray(hole().astype(np.uint8)*255),
                          Image.fromarray(hole().astype(np.uint8)*255).convert("RGB")], ids=repr)
def test_masks_of_0_and_1_or_0_and_255(inpainter, same_hole):
    assert np.array_equal(inpainter(photo(), same_hole), inpainter(photo(), hole()))


@pytest.mark.parametrize("inverted", [~hole(), (~hole()).astype(np.uint8)*255, Image.fromarray(~hole())],
                         ids=repr)
def test_masks_with_black_holes(inpainter, inverted):
    assert np.array_equal(inpainter(photo(), inverted, invert=True), inpainter(photo(), hole()))


@pytest.mark.parametrize("size", [(40, 48), (1, 1)])
def test_without_a_hole_the_photograph_comes_back_with_a_warning(inpainter, size):
    with pytest.warns(UserWarning, match=r"no hole.*invert=True \(--invert\)"):
        result = inpainter(photo(*size), np.zeros(size, bool))
    assert np.array_equal(result, photo(*size))


@pytest.mark.parametrize("image, mask, options, message", [
    (photo(), hole(40, 40), {}, "48x40.*40x40"), (photo().astype(np.float32), hole(), {}, "float32"),
    (photo()[..., :2], hole(), {}, "40, 48, 2"), (photo()[None], hole(), {}, "1, 40, 48, 3"),
    (photo(), hole().astype(float), {}, "float64"), (photo(), hole()[..., None], {}, "40, 48, 1"),
    (photo(), np.ones((40, 48), bool), {}, "whole image.*invert=True"),
    (photo(1, 1), np.ones((1, 1), bool), {}, "whole image"),
    (photo(), ~hole(), dict(dilate=30), "whole image"),
    (photo(), hole(), dict(feather=3, dilate=2), "feather 3 of 2"),
    (photo(), hole(), dict(dilate=-3), "^dilate=-3: a whole number of pixels, 0 or more"),
    (photo(), hole(), dict(dilate=2., feather=1), "dilate=2.0: a whole"),
    (photo(), hole(), dict(dilate=4, feather=-1), "feather=-1: a whole"),
    (photo(), None, {}, "a mask is a path, a PIL image or an array, not NoneType"),
    (None, hole(), {}, "an image is a path, a PIL image or an array, not NoneType"),
    (torch.zeros(3, 40, 48), hole(), {}, r"an image is .* not Tensor; .* numpy\(\) in \[H, W, C\]"),
    (photo(), hole(), dict(strategy="best"), "best.*auto, whole, crop")])
def test_wrong_input_is_described(inpainter, image, mask, options, message):
    with pytest.raises(ValueError, match=message): inpainter(image, mask, **options)


@pytest.mark.parametrize("model", [torch.zeros(3, 4, 4), None, torch.nn.Conv2d(3, 3, 1)], ids=repr)
def test_what_is_no_model_is_told(model):
    with pytest.raises(InputError, match=f'"sample", not {type(model).__name__}'): Inpainter(model)


def test_missing_and_broken_files_are_named(inpainter, tmp_path):
    (tmp_path/"text.png").write_text("hello")
    for a, b in ("nowhere.jpg", hole()), (photo(), "nowhere.png"):
        with pytest.raises(FileNotFoundError, match="nowhere"): inpainter(a, b)
    for a, b in (tmp_path/"text.png", hole()), (photo(), tmp_path/"text.png"):
        with pytest.raises(ValueError, match="text.png cannot be read as an image"): inpainter(a, b)


# options

def test_dilation_grows_the_hole_by_a_disc(inpainter):
    image, mask = photo(60, 60), np.zeros((60, 60), bool)
    mask[30, 30] = True
    y, x = np.mgrid[:60, :60] - 30
    disc = x*x + y*y <= 49
    assert np.array_equal(inpainter(image, mask, dilate=7), inpainter(image, disc))


def test_feathering_blends_only_in_its_band(inpainter):
    mask = hole()
    plain, soft = (np.asarray(inpainter(photo(), mask, dilate=6, feather=f)) for f in (0, 4))
    assert np.array_equal(plain[mask], soft[mask])
    grown = (plain != photo()).any(2) | mask
    assert np.array_equal(soft[~grown], photo()[~grown]) and (soft != plain).any()


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_keeps_known_pixels_and_repeats(inpainter, name):
    image, mask = photo(300, 420), np.zeros((300, 420), bool)
    mask[100:140, 100:150] = mask[250:, 400:] = True
    results = [np.asarray(inpainter(image, mask, strategy=name)) for _ in range(2)]
    check(results[0], image, mask)
    assert np.array_equal(*results)


def test_refining_changes_the_hole_alone(inpainter):
    image, mask = photo(64, 64), hole(64, 64)
    check(inpainter(image, mask, refine=True), image, mask)


def test_refining_counts_gradients_and_is_not_done_in_tiles(inpainter, monkeypatch):
    asked = []
    def fill(predict, image, hole, strategy, pixels):
        asked.append((strategy, pixels))
        return image, strategy
    monkeypatch.setattr(strategies, "pixels_at_once",
                        lambda model, device, gradients=False: 1 if gradients else 8)
    monkeypatch.setattr(strategies, "fill", fill)
    for options in dict(), dict(refine=True), dict(refine=True, strategy="tiles"):
        inpainter(photo(), hole(), **options)
    assert asked == [("auto", 8), ("crop", 1), ("tiles", 1)]


def test_a_network_that_generates_fills_by_seeds_and_without_texture(tiny_diffusion):
    image, mask = photo(), hole()
    inpainter = Inpainter(tiny_diffusion())
    first, second, third = inpainter.several(image, mask, n=3, seed=5)
    for fill in (first, second, third): check(fill, image, mask)
    assert len({fill.tobytes() for fill in (first, second, third)}) == 3
    for seed, fill in ((5, first), (6, second)):
        for texture in (None, False):
            assert inpainter(image, mask, seed=seed, texture=texture).tobytes() == fill.tobytes()
        assert inpainter(image, mask, seed=seed, texture=True).tobytes() != fill.tobytes()
    together = [*inpainter.many([(image, mask), (image[::-1].copy(), mask)], seed=6)]
    change = np.asarray(together[0]).astype(int) - np.asarray(second)
    assert np.abs(change).max() <= 1  # in a batch it is the same
    with pytest.raises(ValueError, match="no 0 fills"): inpainter.several(image, mask, n=0)
    with pytest.raises(ValueError, match="no refiner blocks"): inpainter(image, mask, refine=True)


def test_a_seed_is_that_of_the_texture_of_other_networks(inpainter):
    image, mask = photo(96, 96), hole(96, 96)
    fills = [inpainter(image, mask, seed=seed).tobytes() for seed in (0, 0, 1)]
    assert fills[0] == fills[1] != fills[2]


def test_texture_is_added_unless_said_otherwise_and_in_several_ways(inpainter):
    image, mask = photo(64, 64), hole(64, 64)
    plain, textured = (inpainter(image, mask, **options) for options in (dict(texture=False), {}))
    check(textured, image, mask)
    assert not np.array_equal(plain, textured)
    several = inpainter.several(image, mask, n=3)
    for fill in several: check(fill, image, mask)
    assert len({fill.tobytes() for fill in several}) == 3
    for options in dict(n=0), dict(n=2, texture=False):
        with pytest.raises(ValueError, match="1 or more"): inpainter.several(image, mask, **options)


def test_texture_does_without_the_networks_own_detail():
    torch.manual_seed(0)
    net = lama(2, 2, control="mask", delta=True, detail=1, autoencoder=None).eval()
    image, mask = photo(64, 64), hole(64, 64)
    def fills(): return [np.asarray(Inpainter(net)(image, mask, texture=o)) for o in (False, True)]
    before = fills()
    with torch.no_grad(): net.refiner.detail.delta.weight.normal_()
    plain, textured = map(np.array_equal, before, fills())
    assert textured and not plain


def test_many_are_filled_as_each_alone_in_their_order(inpainter):
    pairs = [(np.roll(photo(*size, dtype=dtype), i, 1), hole(*size)) for i, (size, dtype) in enumerate(
        [((40, 48), np.uint8)]*5 + [((40, 56), np.uint8)] + [((40, 48), np.uint16), ((40, 48), np.uint8)])]
    pairs.insert(3, (photo(), np.zeros((40, 48), bool)))
    seen = []
    handle = inpainter.net.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    with pytest.warns(UserWarning, match="no hole"):
        results = [np.asarray(o) for o in inpainter.many(iter(pairs), texture=False)]
    handle.remove()
    assert seen == [3, 2, 1, 2] and len(results) == len(pairs)
    for result, (image, mask) in zip(results, pairs, strict=True):
        if not mask.any(): alone = image
        else: alone = np.asarray(inpainter(image, mask, texture=False))
        assert result.shape == alone.shape and result.dtype == alone.dtype
        full = np.iinfo(image.dtype).max  # sums in another order
        assert np.abs(result.astype(int) - alone).max() <= max(1, 1e-5*full)
    assert np.array_equal([*inpainter.many(pairs[:1])][0], inpainter(*pairs[0]))
    with pytest.raises(ValueError, match="48x40"): [*inpainter.many([pairs[0], (photo(), hole(40, 40))])]


def test_many_go_together_only_where_the_network_sees_them_whole(inpainter, monkeypatch):
    pairs = [(photo(300, 420), hole(300, 420))]*2
    def seen(**options):
        sizes = []
        handle = inpainter.net.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
        results = [*inpainter.many(pairs, texture=False, **options)]
        handle.remove()
        assert np.array_equal(*results)
        return sizes
    assert seen() == seen(strategy="whole") == [2] and seen(at_once=1) == seen(strategy="crop") == [1, 1]
    monkeypatch.setattr(strategies, "pixels_at_once", lambda *_: 300*420)  # memory for one
    assert seen() == [1, 1]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("c", [1, 3, 4])
@pytest.mark.parametrize("share", [.001, .4, .9])
def test_what_the_photograph_has_in_the_hole_counts_for_nothing(inpainter, dtype, c, share):
    rng = np.random.default_rng(3)
    image, mask = photo(64, 80, c, dtype), np.zeros((64, 80), bool)
    mask[:, 80 - max(round(share*80), 1):] = True
    colours = image[..., :3] if c == 4 else image  # alpha is kept in the hole
    poisoned = image.copy()
    poisoned[..., :3][mask] = rng.integers(0, np.iinfo(dtype).max, colours[mask].shape, dtype)
    assert np.array_equal(inpainter(image, mask), inpainter(poisoned, mask))


def test_bf16_is_close(model):
    results = [np.asarray(Inpainter(model, precision=p)(photo(), hole())).astype(int)
               for p in ("fp32", "bf16")]
    assert 0 < np.abs(results[0] - results[1]).max() < 16
    with pytest.raises(ValueError, match="fp16.*fp32 or bf16"): Inpainter(model, precision="fp16")


# models

def test_filling_leaves_each_part_in_its_mode(model):
    model.train()
    model.encoder.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    first = np.asarray(Inpainter(model)(photo(), hole()))
    assert model.training and model.refiner.training and not any(m.training for m in model.encoder.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert np.array_equal(Inpainter(model.eval())(photo(), hole()), first) and not model.training


def test_models_come_from_files_too(model, tmp_path):
    save_model(model, tmp_path/"model.safetensors")
    assert np.array_equal(Inpainter(tmp_path/"model.safetensors", "cpu")(photo(), hole()),
                          Inpainter(model)(photo(), hole()))
    check(Inpainter(device="cpu")(photo(), hole()), photo(), hole())
    (tmp_path/"text.ckpt").write_text("hello")
    for name in "text.ckpt", "nowhere.pt", "nowhere.safetensors":
        with pytest.raises((ValueError, FileNotFoundError), match=name): Inpainter(tmp_path/name)


def test_known_pixels_of_a_bad_prediction_are_kept(inpainter, monkeypatch):
    monkeypatch.setattr(inpainter, "net", lambda masked, mask: 100*torch.randn_like(masked))
    check(inpainter(photo(), hole()), photo(), hole())


def test_little_memory_makes_tiles(inpainter, monkeypatch):
    seen = []
    monkeypatch.setattr(strategies, "pixels_at_once", lambda *_: 300**2)
    handle = inpainter.net.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].shape[2:].numel()))
    mask = np.zeros((600, 600), bool)
    mask[300:310] = True
    inpainter(photo(600, 600), mask)
    handle.remove()
    assert len(seen) > 1 and max(seen) <= 300**2


# masks of another size, soft ones, larger canvases, the quality of files

@pytest.fixture
def plain(inpainter):
    "Fills without texture"
    return partial(inpainter, texture=False)


def test_a_mask_of_another_size_is_resized_on_request(plain):
    image, mask = photo(), np.zeros((40, 48), bool)
    mask[10:20, 12:30] = True
    small = mask[::2, ::2]
    with pytest.raises(ValueError, match="24x20.*resize_mask"): plain(image, small)
    assert np.array_equal(plain(image, small, resize_mask=True), plain(image, mask))


@pytest.mark.parametrize("invert", [False, True])
def test_a_soft_mask_blends_by_its_grey_and_leaves_black_alone(plain, invert):
    image, opacity = photo(), np.zeros((40, 48), np.uint8)
    opacity[8:24, 8:32] = 100
    opacity[10:22, 10:30] = 255
    mask = 255 - opacity if invert else opacity
    found = np.asarray(plain(image, mask, soft=True, invert=invert)).astype(int)
    full = np.asarray(plain(image, opacity > 0)).astype(int)
    assert np.array_equal(found[opacity == 0], image[opacity == 0])
    assert np.array_equal(found[opacity == 255], full[opacity == 255])
    seam = opacity == 100
    expected = (100*full[seam] + 155*image[seam].astype(int))/255
    assert np.abs(found[seam] - expected).max() <= .5 and not np.array_equal(found[seam], full[seam])


def test_a_hard_mask_that_is_called_soft_is_filled_alike(plain):
    assert np.array_equal(plain(photo(), hole(), soft=True), plain(photo(), hole()))


@pytest.mark.parametrize("mode, c", [("RGB", 3), ("L", 1), ("RGBA", 4)])
def test_a_picture_is_extended_and_its_own_pixels_stay(inpainter, mode, c):
    image = photo()[..., :1].repeat(c, 2) if c != 3 else photo()
    image = image[..., 0] if c == 1 else image
    found = np.asarray(inpainter.extend(image, left=8, top=3, bottom=5, texture=False))
    assert found.shape[:2] == (48, 56) and np.array_equal(found[3:43, 8:], image)
    assert np.array_equal(found, inpainter(image, extend=(8, 3, 0, 5), texture=False))
    if c == 4: assert (found[:3, :, 3] == 255).all()
    both = np.asarray(inpainter.extend(image, right=8, mask=hole(), texture=False))
    known = np.pad(~hole(), ((0, 0), (0, 8)))
    assert np.array_equal(both[known], image[~hole()]) and not np.array_equal(both[:, :48], image)


@pytest.mark.parametrize("options, message", [
    (dict(extend=(1, 2, 3)), "four whole numbers"), (dict(extend=(1, -2, 3, 4)), "four whole numbers"),
    (dict(extend=5), "four whole numbers"), (dict(soft=True, dilate=2), "soft or dilate")])
def test_options_that_do_not_fit(inpainter, options, message):
    with pytest.raises(ValueError, match=message): inpainter(photo(), np.eye(40, 48, dtype=bool), **options)


def test_a_file_is_extended_with_all_that_it_keeps_and_of_the_quality_asked_for(inpainter, tmp_path):
    Image.fromarray(photo()).save(tmp_path/"a.jpg", quality=70, xmp=b"<x/>")
    inpainter.fill_file(tmp_path/"a.jpg", None, tmp_path/"b.jpg", extend=(0, 0, 8, 0), quality=90)
    with Image.open(tmp_path/"b.jpg") as im:
        assert im.size == (56, 40) and im.info["xmp"] == b"<x/>"
    with pytest.raises(ValueError, match="lossless"):
        inpainter.fill_file(tmp_path/"a.jpg", None, tmp_path/"b.png", extend=(0, 0, 8, 0), quality=90)


def test_refining_says_what_it_did(inpainter, capsys):
    inpainter(photo(), hole(), refine=True)
    assert "refined: filled at 48x40; nothing to refine" in capsys.readouterr().err
