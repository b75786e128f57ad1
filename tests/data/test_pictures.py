import errno
import os
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from PIL.JpegImagePlugin import get_sampling
from PIL.PngImagePlugin import PngInfo

from fastinpaint.data.pictures import WRITABLE, Picture, open_picture

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(h=20, w=30, c=3, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (h, w, c), dtype=dtype,
                                             endpoint=True)


def exif(orientation=1, endian="<"):
    tags = Image.Exif()
    tags.endian = endian
    tags.update({0x010F: "Maker", 0x0112: orientation, 0x8769: {36867: "2020:01:01 00:00:00"},
                 0x8825: {1: "N"}})
    return tags.tobytes()


def check_info(info):
    "Everything that `saved_with` says is there, and the orientation is not"
    tags = Image.Exif()
    tags.load(info["exif"])
    assert tags[0x010F] == "Maker" and tags.get(0x0112, 1) == 1
    assert tags.get_ifd(0x8769)[36867] == "2020:01:01 00:00:00" and tags.get_ifd(0x8825)[1] == "N"
    assert info["icc_profile"] == ICC and info["dpi"] == pytest.approx((300, 300), abs=.1)


saved_with = dict(exif=exif(6, ">"), icc_profile=ICC, dpi=(300, 300))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@pytest.mark.filterwarnings("error::DeprecationWarning")
def test_lossless_files_give_back_what_was_written(tmp_path, mode, dtype, suffix):
    picture = Picture(noise(c=4 if mode == "CMYK" else len(mode), dtype=dtype), mode,
                      dict(saved_with, exif=exif()))
    if mode not in WRITABLE[suffix][dtype == np.uint16].split():
        with pytest.raises(ValueError, match=rf"'\{suffix}' cannot hold.*{mode}"):
            picture.save(tmp_path/f"a{suffix}")
        assert not any(tmp_path.iterdir())
        return
    picture.save(tmp_path/f"a{suffix}")
    again = open_picture(tmp_path/f"a{suffix}")
    if suffix == ".webp":
        picture = Picture(picture.rgb if mode == "L" else picture.pixels, mode)
        again.info["dpi"] = 300, 300
    if suffix == ".webp" and mode == "LA": return  # grey with alpha becomes RGBA there
    assert np.array_equal(again.pixels, picture.pixels) and again.pixels.dtype == dtype
    check_info(again.info)


@pytest.mark.parametrize("name", ["a.jpg", "a.tif", "a.png", "16.png", "16.tif"])
def test_pictures_are_turned_upright_and_say_so(tmp_path, name):
    path, deep = tmp_path/name, name.startswith("16")
    if deep: Picture(noise(dtype=np.uint16), "RGB", saved_with).save(path)
    else: Image.fromarray(noise()).save(path, **saved_with)
    with Image.open(path) as im:
        stored = noise(dtype=np.uint16) if deep else np.asarray(im.convert("RGB"))
    picture = open_picture(path)
    turned = stored if name == "a.tif" else np.rot90(stored, -1)  # Pillow turns TIFFs itself
    assert np.array_equal(picture.pixels, turned) and picture.pixels.shape[:2] == (30, 20)
    check_info(picture.info)
    picture.save(tmp_path/"again.tif")
    assert np.array_equal(open_picture(tmp_path/"again.tif").pixels, turned)
    check_info(open_picture(tmp_path/"again.tif").info)


@pytest.mark.parametrize("options", [dict(), dict(compression="zlib", predictor=True),
                                     dict(byteorder=">"), dict(tile=(16, 16))],
                         ids=str)
@pytest.mark.parametrize("c", [3, 4])
def test_other_programs_and_we_read_all_16_bits_of_each_others_tiffs(tmp_path, c, options):
    pixels = noise(c=c, dtype=np.uint16)
    extra = dict(extrasamples=["unassalpha"]) if c == 4 else {}
    tifffile.imwrite(tmp_path/"theirs.tif", pixels, photometric="rgb", **extra, **options)
    picture = open_picture(tmp_path/"theirs.tif")
    assert np.array_equal(picture.pixels, pixels) and np.array_equal(picture.image, pixels)
    picture.save(tmp_path/"ours.tif")
    assert np.array_equal(tifffile.imread(tmp_path/"ours.tif"), pixels)


def test_16_bits_that_pillow_misreads_are_refused(tmp_path):
    tifffile.imwrite(tmp_path/"a.tif", noise(c=3, dtype=np.uint16).transpose(2, 0, 1),
                     photometric="rgb", planarconfig="separate")
    with pytest.raises(ValueError, match="a.tif.*16-bit"): open_picture(tmp_path/"a.tif")


def test_a_png_of_16_bits_is_read_by_others(tmp_path):
    cv2 = pytest.importorskip("cv2")
    pixels = noise(c=4, dtype=np.uint16)
    Picture(pixels, "RGBA").save(tmp_path/"a.png")
    found = cv2.imread(str(tmp_path/"a.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(found[..., [2, 1, 0, 3]], pixels)


@pytest.mark.parametrize("stored, mode", [("P", "RGB"), ("1", "L"), ("I;16", "L"),
                                          ("PA", "RGBA"), ("HSV", "RGB"), ("I", "L")])
def test_what_becomes_of_other_modes(stored, mode):
    grey = noise(c=1)[..., 0]
    deep = {"I;16": np.uint16, "I": np.int32}
    picture = open_picture(Image.fromarray(grey.astype(deep[stored])) if stored in deep
                           else Image.fromarray(grey).convert("RGB").convert(stored))
    assert picture.mode == mode
    assert picture.pixels.dtype == (np.uint16 if stored[0] == "I" else np.uint8)


def test_a_transparent_colour_becomes_alpha(tmp_path):
    Image.fromarray(noise()).save(tmp_path/"a.png", transparency=tuple(noise()[0, 0].tolist()))
    picture = open_picture(tmp_path/"a.png")
    assert picture.mode == "RGBA" and picture.pixels[0, 0, 3] == 0
    assert np.array_equal(picture.rgb, noise())


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "CMYK"])
def test_new_colours_go_where_they_are_asked_for_and_leave_alpha(mode):
    before = Picture(noise(c=4 if mode == "CMYK" else len(mode)), mode)
    where, grey = np.zeros((20, 30), bool), np.full((20, 30, 3), 77, np.uint8)
    where[3:9, 4:11] = True
    after = before.with_colours(grey, where)
    assert (after.rgb[where] == 77).all()
    assert np.array_equal(after.pixels[~where], before.pixels[~where])
    if mode.endswith("A"): assert np.array_equal(after.pixels[..., -1], before.pixels[..., -1])


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_new_colours_become_the_nearest_grey_of_their_brightness(mode):
    colours = noise()
    after = Picture(noise(c=len(mode)), mode).with_colours(colours, np.ones((20, 30), bool))
    exact = colours @ np.array([.299, .587, .114])
    assert np.abs(after.pixels[..., 0] - exact).max() <= .501


def test_new_colours_leave_the_picture_that_they_are_given_to():
    before = Picture(noise(), "RGB")
    before.with_colours(np.zeros_like(noise()), np.ones((20, 30), bool))
    assert np.array_equal(before.pixels, noise())


def test_other_programs_are_told_that_alpha_is_not_premultiplied(tmp_path):
    Picture(noise(c=4), "RGBA").save(tmp_path/"a.tif")
    with tifffile.TiffFile(tmp_path/"a.tif") as f:
        assert f.pages[0].extrasamples == (tifffile.EXTRASAMPLE.UNASSALPHA,)


def test_a_jpeg_is_close_and_a_phones_second_image_no_second_frame(tmp_path):
    smooth = Image.fromarray(noise(4, 5)).resize((50, 40), Image.Resampling.BICUBIC)
    Picture(np.asarray(smooth), "RGB").save(tmp_path/"a.jpg")
    assert np.abs(open_picture(tmp_path/"a.jpg").pixels.astype(int) - np.asarray(smooth)).max() < 12
    smooth.save(tmp_path/"b.mpo", save_all=True, append_images=[smooth])
    assert open_picture(tmp_path/"b.mpo").mode == "RGB"


def test_a_gif_of_one_frame_is_a_photograph(tmp_path):
    image = Image.fromarray(noise()).quantize(16)
    image.save(tmp_path/"a.gif")
    assert np.array_equal(open_picture(tmp_path/"a.gif").pixels, np.asarray(image.convert("RGB")))


def separated(rgb, share):
    "CMYK of `rgb` with a `share` of the black that would do"
    black = np.rint(share*(255 - rgb.max(-1, keepdims=True).astype(float)))
    return np.concatenate([np.rint(255 - 255.*rgb/(255 - black)), black], -1).astype(np.uint8)


@pytest.mark.parametrize("share", [0, .5, .9])
def test_new_colours_are_printed_with_as_much_black_as_the_others(share):
    dark = noise()//2
    picture, where = Picture(separated(dark, share), "CMYK"), np.zeros((20, 30), bool)
    where[3:9, 4:11] = True
    after = picture.with_colours(picture.rgb, where)  # as if the fill were perfect
    assert np.abs(after.pixels.astype(int) - picture.pixels)[where].max() <= 3
    assert np.abs(after.rgb.astype(int) - picture.rgb).max() <= 1
    assert np.array_equal(after.pixels[~where], picture.pixels[~where])


def test_black_of_full_strength_has_no_other_ink():
    picture, where = Picture(np.full((4, 4, 4), (0, 0, 0, 255), np.uint8), "CMYK"), np.eye(4, dtype=bool)
    after = picture.with_colours(np.zeros((4, 4, 3), np.uint8), where)
    assert (after.pixels[where][:, 3] == 255).all() and (after.rgb == 0).all()


def test_a_lab_photograph_becomes_rgb_without_its_profile(tmp_path):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    image = Image.new("LAB", (30, 20), (150, 140, 120))
    image.save(tmp_path/"a.tif", icc_profile=lab)
    picture = open_picture(tmp_path/"a.tif")
    assert picture.mode == "RGB" and "icc_profile" not in picture.info
    picture.save(tmp_path/"b.png")
    with Image.open(tmp_path/"b.png") as im: assert np.array_equal(np.asarray(im), picture.pixels)


# bad files

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge(path):
    header = struct.pack(">2I5B", 30000, 30000, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def animated(path):
    frames = [Image.fromarray(noise() + i) for i in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def truncated(path):
    Image.fromarray(noise(200, 200)).save(path)
    path.write_bytes(path.read_bytes()[:5000])


BAD = {"huge.png": (huge, "huge.png is too large.*900000000 pixels"),
       "moving.gif": (animated, "moving.gif has 3 frames"),
       "moving.webp": (animated, "moving.webp has 3 frames"),
       "moving.png": (animated, "moving.png has 3 frames"),
       "pages.tif": (animated, "pages.tif has 3 frames"),
       "cut.png": (truncated, "cut.png.*truncated"),
       "cut.jpg": (truncated, "cut.jpg.*truncated"),
       "text.png": (lambda f: f.write_text("hello"), "text.png.*cannot identify"),
       "empty.jpg": (lambda f: f.write_text(""), "empty.jpg.*cannot identify"),
       "folder.png": (lambda f: f.mkdir(), "folder.png"),
       "float.tif": (lambda f: Image.fromarray(noise()[..., 0].astype(np.float32)).save(f),
                     "float.tif.*32-bit")}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_described_by_name(tmp_path, name):
    make, message = BAD[name]
    make(tmp_path/name)
    with pytest.raises(ValueError, match=message): open_picture(tmp_path/name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.jpg"):
        open_picture(tmp_path/"nowhere.jpg")


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    def full(*_): raise OSError(errno.ENOSPC, "No space left on device")
    picture, path = Picture(noise(), "RGB"), tmp_path/"a.png"
    picture.save(path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    message = "No space left on device; what was there before is as it was.*a.png"
    with pytest.raises(OSError, match=message) as caught: picture.save(path)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == before and [*tmp_path.iterdir()] == [path]


# XMP, texts, quality; AVIF and HEIC

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><dc:creator>\xc3\x85sa</dc:creator></x:xmpmeta>'


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg", ".avif", ".heic"])
def test_xmp_is_kept(tmp_path, suffix, dtype):
    if dtype == np.uint16 and suffix not in (".png", ".tif"): return
    picture = Picture(noise(dtype=dtype), "RGB", dict(xmp=XMP))
    picture.save(tmp_path/f"a{suffix}")
    assert open_picture(tmp_path/f"a{suffix}").info["xmp"] == XMP


def test_xmp_goes_along_from_a_jpeg_to_a_png_that_others_read(tmp_path):
    Image.fromarray(noise()).save(tmp_path/"a.jpg", xmp=XMP)
    open_picture(tmp_path/"a.jpg").save(tmp_path/"a.png")
    with Image.open(tmp_path/"a.png") as im: assert im.info["xmp"] == XMP


def test_xmp_too_long_for_a_jpeg_is_left_out_and_said(tmp_path):
    picture = Picture(noise(), "RGB", dict(xmp=XMP + b" "*70_000))
    with pytest.warns(UserWarning, match="XMP is too long"): picture.save(tmp_path/"a.jpg")
    assert "xmp" not in open_picture(tmp_path/"a.jpg").info


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_pngs_texts_are_kept(tmp_path, dtype):
    texts = PngInfo()
    texts.add_text("parameters", "a cat, seed 3")
    texts.add_itxt("Title", "Överblick", "sv", "Rubrik")
    Image.fromarray(noise()).save(tmp_path/"a.png", pnginfo=texts)
    info = open_picture(tmp_path/"a.png").info
    Picture(noise(dtype=dtype), "RGB", info).save(tmp_path/"b.png")
    with Image.open(tmp_path/"b.png") as im:
        assert im.text == {"parameters": "a cat, seed 3", "Title": "Överblick"}
        assert im.text["Title"].lang == "sv"
    assert open_picture(tmp_path/"b.png").info == info


def written(path):
    with Image.open(path) as im: return im.quantization, get_sampling(im)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("quality, subsampling", [(60, 2), (88, 1), (97, 0)])
def test_a_jpeg_keeps_its_quality_unless_another_is_asked_for(tmp_path, mode, quality, subsampling):
    Image.fromarray(noise()).convert(mode).save(tmp_path/"a.jpg", quality=quality, subsampling=subsampling)
    picture = open_picture(tmp_path/"a.jpg")
    picture.save(tmp_path/"b.jpg")
    tables, sampling = written(tmp_path/"a.jpg")
    again, sampled = written(tmp_path/"b.jpg")
    assert again == tables and (mode != "RGB" or sampled == sampling)
    picture.save(tmp_path/"c.jpg", 75)
    Image.fromarray(noise()).convert(mode).save(tmp_path/"75.jpg", quality=75)
    assert written(tmp_path/"c.jpg")[0] == written(tmp_path/"75.jpg")[0]


def test_a_photograph_from_elsewhere_becomes_a_jpeg_of_quality_95(tmp_path):
    Picture(noise(), "RGB").save(tmp_path/"a.jpg")
    Image.fromarray(noise()).save(tmp_path/"95.jpg", quality=95, subsampling=0)
    assert written(tmp_path/"a.jpg") == written(tmp_path/"95.jpg")


@pytest.mark.parametrize("suffix, quality, message", [
    (".png", 90, "lossless"), (".jpg", 0, "from 1 to 100"), (".jpg", 101, "from 1 to 100")])
def test_qualities_that_are_none(tmp_path, suffix, quality, message):
    picture = Picture(noise(), "RGB")
    with pytest.raises(ValueError, match=message): picture.save(tmp_path/f"a{suffix}", quality)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".avif", ".heic"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_phones_formats_are_read_and_written_with_all_that_belongs_to_them(tmp_path, suffix, mode):
    smooth = np.asarray(Image.fromarray(noise(5, 6, len(mode))).resize((48, 40), Image.Resampling.BICUBIC))
    picture, path = Picture(smooth, mode, dict(saved_with, exif=exif())), tmp_path/f"a{suffix}"
    picture.save(path)
    again = open_picture(path)
    assert again.mode == mode and np.abs(again.pixels.astype(int) - smooth).mean() < 4
    again.info["dpi"] = 300, 300  # which these do not hold
    check_info(again.info)
    picture.save(tmp_path/f"b{suffix}", 30)
    assert (tmp_path/f"b{suffix}").stat().st_size < path.stat().st_size


@pytest.mark.parametrize("suffix", [".avif", ".heic"])
def test_a_phones_turned_photograph_is_upright(tmp_path, suffix):
    Image.fromarray(noise(40, 64)).save(path := tmp_path/f"a{suffix}", exif=exif(6))
    picture = open_picture(path)
    assert picture.pixels.shape == (64, 40, 3)
    check_info(picture.info | dict(icc_profile=ICC, dpi=(300, 300)))


def test_without_the_package_it_is_named(tmp_path, monkeypatch):
    picture = Picture(noise(), "RGB")
    picture.save(path := tmp_path/"a.heic")
    monkeypatch.setattr(Image, "ID", [kind for kind in Image.ID if kind != "HEIF"])
    monkeypatch.delitem(Image.SAVE, "HEIF")
    with pytest.raises(ValueError, match=r"a.heic.*fastinpaint\[heif\]"): open_picture(path)
    with pytest.raises(ValueError, match=r"fastinpaint\[heif\]"): picture.save(tmp_path/"b.heic")


@pytest.mark.parametrize("suffix", [".avif", ".heic"])
def test_a_cut_off_file_is_told(tmp_path, suffix):
    Picture(noise(64, 64), "RGB").save(path := tmp_path/f"a{suffix}")
    data = path.read_bytes()
    for n in range(1, len(data), len(data)//40):
        path.write_bytes(data[:n])
        with pytest.raises(ValueError, match=f"a{suffix}"): open_picture(path)


@pytest.mark.parametrize("mode, c", [("L", 1), ("RGB", 3), ("LA", 2), ("RGBA", 4), ("CMYK", 4)])
def test_a_picture_grows_on_each_side(mode, c):
    pixels = noise(c=c, dtype=np.uint8)
    larger = Picture(pixels, mode).extended(1, 2, 3, 4)
    assert larger.pixels.shape == (26, 34, c) and np.array_equal(larger.pixels[2:22, 1:31], pixels)
    if mode in ("LA", "RGBA"): assert (larger.pixels[:2, :, -1] == 255).all()
