"What files of each format can hold, and what Pillow is told to write into them"
import warnings

from PIL import Image
from PIL.JpegImagePlugin import get_sampling
from PIL.PngImagePlugin import PngInfo

from ..core.errors import InputError

# extension → modes with 8 bits, with 16
WRITABLE = {".png": ("L LA RGB RGBA", "L LA RGB RGBA"), ".tif": ("L LA RGB RGBA CMYK", "L RGB RGBA"),
            ".webp": ("L LA RGB RGBA", ""), ".jpg": ("L RGB CMYK", ""), ".avif": ("RGB RGBA", ""),
            ".heic": ("RGB RGBA", "")}
WRITABLE |= {".tiff": WRITABLE[".tif"], ".jpeg": WRITABLE[".jpg"], ".heif": WRITABLE[".heic"]}
LOSSY = ".jpg", ".jpeg", ".avif", ".heic", ".heif"
QUALITY = 95  # of these, where nothing else is known; colours have the resolution of brightness
NEEDED = {".avif": "Pillow 11.3: pip install 'pillow>=11.3'",
          ".heic": "pillow-heif: pip install 'fastinpaint[heif]'"}
NEEDED[".heif"] = NEEDED[".heic"]
MARKER = 65_504  # bytes of XMP that a JPEG can hold
XMP = "XML:com.adobe.xmp"  # its name among a PNG's texts


def check_quality(suffix, quality):
    "Raises InputError where files with `suffix` cannot be written, or not with `quality`, 1 to 100 or None"
    if quality is not None and suffix not in LOSSY:
        raise InputError(f"a file that ends in {suffix!r} is lossless and has no quality; for one that has, "
                         f"name one that ends in {', '.join(LOSSY)}")
    if quality is not None and not 1 <= quality <= 100:
        raise InputError(f"quality={quality}: from 1 to 100, which is best")
    if suffix in NEEDED and Image.registered_extensions().get(suffix) not in Image.SAVE:
        raise InputError(f"to write {suffix} files takes {NEEDED[suffix]}")


def found_in(im, kind):
    "What a `Picture` of the image `im`, of a file of format `kind`, keeps of it beside its pixels and EXIF"
    info = {k: im.info[k] for k in ("icc_profile", "dpi") if im.info.get(k)}
    if isinstance(xmp := im.info.get("xmp"), bytes): info["xmp"] = xmp
    if kind in ("JPEG", "MPO") and hasattr(im, "quantization"):
        info["jpeg"] = dict(qtables=im.quantization, subsampling=max(get_sampling(im), 0))
    texts = getattr(im, "text", None) if kind == "PNG" else None  # EXIF and XMP are among them in old files
    texts = {k: v for k, v in (texts or {}).items() if k != XMP and not k.startswith("Raw profile type ")}
    return info | ({"text": texts} if texts else {})


def writing(suffix, info, quality=None):
    """Keywords of Pillow's writer for a file with `suffix`, given a `Picture`'s `info`.

    A JPEG is written as the one it was read from, unless a `quality` is asked for."""
    how = {k: info[k] for k in ("icc_profile", "dpi", "exif") if k in info}
    if suffix == ".png": return how | {"pnginfo": png_texts(info)}
    if xmp := info.get("xmp"): how["xmp"] = xmp
    if suffix == ".webp": return how | dict(lossless=True, exact=True)  # exact: where alpha is 0, too
    if suffix in (".avif", ".heic", ".heif"):
        chroma = dict(subsampling="4:4:4") if suffix == ".avif" else dict(chroma=444)
        return how | chroma | dict(quality=quality or QUALITY)
    if len(how.get("xmp", b"")) > MARKER:
        warnings.warn("its XMP is too long for a JPEG and left out", stacklevel=2)
        del how["xmp"]
    if quality is None and "jpeg" in info: return how | info["jpeg"]
    return how | dict(quality=quality or QUALITY, subsampling=0)


def png_texts(info):
    "Texts and XMP of a `Picture`'s `info`, for a PNG"
    texts = PngInfo()
    for name, text in info.get("text", {}).items(): texts.add_text(name, text)
    if xmp := info.get("xmp"): texts.add_itxt(XMP, xmp.decode(errors="replace"))
    return texts
