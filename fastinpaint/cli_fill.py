"`fastinpaint fill`: a photograph, many of them, or a film"
import io
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import click

from .core.imports import lasting
from .core.program import STYLE, Command, PathOrAddress, progress

STRATEGIES = "auto", "whole", "crop", "tiles", "resize"
PICTURES = "png", "tif", "webp", "jpg", "avif", "heic"
MANIFESTS = ".csv", ".parquet"
FILMS = ".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm"
ENGINES = "local", "ray"
FILE = click.Path(exists=True, dir_okay=False, path_type=Path, allow_dash=True)
OUT = click.Path(path_type=Path)
DEVICE = click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps …")
PIPE = Path("-")  # standard input or output


class Sides(click.ParamType):
    "Pixels to the left, at the top, to the right and at the bottom, with commas between"
    name = "sides"
    def convert(self, value, param, ctx):
        if isinstance(value, tuple): return value
        numbers = value.split(",")
        if len(numbers) == 4 and all(n.strip().isdecimal() for n in numbers): return tuple(map(int, numbers))
        self.fail(f"{value}: expected pixels to the left, at the top, to the right and at the bottom, as in "
                  "200,0,200,0", param, ctx)


@click.command(cls=Command, context_settings=STYLE | dict(show_default=True))
@click.argument("image", type=PathOrAddress(exists=True, path_type=Path, allow_dash=True))
@click.argument("mask", required=False, type=FILE)
@click.option("-o", "--out", type=click.Path(), help="A file, whose name says its format, or a folder.")
@click.option("--masks", type=PathOrAddress(exists=True, file_okay=False, path_type=Path),
              help="For a folder or shards: those of the masks, of the same names.")
@click.option("--model", default="sample", help="sample, a saved model, or a LaMa checkpoint.")
@DEVICE
@click.option("--precision", default="fp32", help="fp32, or bf16: faster on a GPU, less exact.")
@click.option("--strategy", default="auto", type=click.Choice(STRATEGIES), help="How large images are cut.")
@click.option("--refine", is_flag=True, help="From 1024 pixels on, keep a smaller fill's structure; slow.")
@click.option("--texture/--no-texture", default=None,
              help="Give the network's fill the photograph's own.  [default: unless the model generates]")
@click.option("--fills", "n", default=1, type=click.IntRange(1), metavar="NUMBER",
              help="For a file: so many to choose from, -1 (the most coherent, or of --seed) to -NUMBER.")
@click.option("--seed", default=0, type=click.IntRange(0), help="Of all that is random.")
@click.option("--invert", is_flag=True, help="In masks, black is the hole.")
@click.option("--dilate", default=0, metavar="PIXELS", help="Enlarge the hole on all sides.")
@click.option("--feather", default=0, metavar="PIXELS", help="Of these, blend the outer so many.")
@click.option("--soft", is_flag=True, help="In masks, grey is opacity, and black alone stays as it is.")
@click.option("--resize-masks", "resize_mask", is_flag=True, help="Masks may be of another size.")
@click.option("--extend", type=Sides(), default=(0, 0, 0, 0), show_default=False,
              metavar="LEFT,TOP,RIGHT,BOTTOM", help="Make pictures larger, and fill what is new.")
@click.option("--quality", type=click.IntRange(1, 100), show_default=False,
              help="Of a JPEG, AVIF or HEIC.  [default: that of the JPEG it was, else 95]")
@click.option("--format", type=click.Choice(PICTURES),
              help="Where -o names no file.  [default: png; for TIFF and CMYK tif]")
@click.option("--workers", type=click.IntRange(1),
              help="For many: processes, each with one thread and a model of its own.  "
                   "[default: 1; with ray as many as there are GPUs, else CPUs]")
@click.option("--overwrite", is_flag=True, help="For many: fill again what has been filled.")
@click.option("--shard", metavar="I/N", help="For many: only the Ith of N shares, by the hash of names.")
@click.option("--report", type=OUT, help="For many: a .parquet or .csv file with a row for each.")
@click.option("--engine", default="local", type=click.Choice(ENGINES),
              help="For many: this machine, or Ray, here or on a cluster.")
@click.option("--address", metavar="ADDRESS", help="Of a Ray cluster.  [default: RAY_ADDRESS, else none]")
def fill(image, mask, out, masks, **options):
    """Fill the hole in a photograph, in each of a folder, in each row of a table, or in a film's frames.

    IMAGE is a photograph and MASK its hole, white on black; or a folder or shards, also at an address, and
    --masks those of its masks, or MASK the one of all; or a .csv or .parquet file with columns image, mask
    and out: paths from where it lies, of out from -o; or a film. IMAGE, MASK or -o may be -, for a pipe.

    \b
    fastinpaint fill photo.jpg mask.png -o filled.png
    fastinpaint fill photos --masks masks -o filled --workers 4
    fastinpaint fill photos watermark.png -o filled
    fastinpaint fill manifest.csv -o filled --shard 3/16 --report filled/report-3.parquet
    fastinpaint fill photo.jpg --extend 200,0,200,0
    fastinpaint fill film.mp4 mask.png -o out.mp4

    All other pixels stay as they are, and results are lossless unless a JPEG is asked for, or a film. In a
    folder, masks belong to the photographs of the same name. Of many, results that exist are kept, and
    one bad file does not stop the rest."""
    # stdout has the result's name alone, or its bytes, so what libraries print goes to stderr
    pipe = click.get_binary_stream("stdout")
    with redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: click.echo(f"Warning: {message}", err=True)
        many = isinstance(image, str) or image.is_dir() or image.suffix.lower() in MANIFESTS
        if many: outs, failed = _fill_many(image, mask, masks, out, **options)
        else: outs, failed = _fill_file(image, mask, masks, out, **options), False
    for out in outs: pipe.write(out) if isinstance(out, bytes) else click.echo(out)
    if failed: sys.exit(1)


def _fill_file(image, mask, masks, out, model, device, precision, format, n, workers, overwrite, shard,
               report, engine, address, **options):
    if masks or not (mask or any(options["extend"])):
        raise click.UsageError(f"{image} is a file, so name its mask: fastinpaint fill IMAGE MASK")
    if shard or report or engine != "local":
        raise click.UsageError("--shard, --report and --engine are for many photographs")
    if image == mask == PIPE: raise click.UsageError("standard input holds one file: IMAGE or MASK, not both")
    film, piped = image.suffix.lower() in FILMS, out == "-" or not out and image == PIPE
    if (film or piped) and n > 1: raise click.UsageError("--fills is for one photograph and its files")
    if film and (piped or format or options["quality"]):
        raise click.UsageError("a film is written to a file of H.264: leave out -o -, --format and --quality")
    folder = Path(out) if out and (out.endswith("/") or Path(out).is_dir()) else None
    if out and not folder and not piped and format:
        raise click.UsageError("the name given with -o says the format: leave out --format")
    with lasting():
        from .fill.inpainter import Inpainter, numbered
        from .fill.jobs import lossless_suffix
    if film:
        from .fill.video import CONTAINERS
        suffix = image.suffix if image.suffix.lower() in CONTAINERS else ".mp4"
    else: suffix = f".{format}" if format else ".png" if image == PIPE else lossless_suffix(image)
    if not out or folder: out = (folder or image.parent)/f"{image.stem}-filled{suffix}"
    for path in [] if piped else numbered(out, n):
        if path.exists() and any(o and o != PIPE and path.samefile(o) for o in (image, mask)):
            raise click.UsageError(f"a result would replace {path}, from which it is made: choose another -o")
    inpainter = Inpainter(model, device, precision)
    image, mask = map(_read, (image, mask))
    if film: return [_fill_film(inpainter, image, mask, out, options)]
    if piped: return [inpainter.fill_bytes(image, mask, suffix, **options)]
    return inpainter.fill_file(image, mask, out, n, **options)


def _read(path): return io.BytesIO(click.get_binary_stream("stdin").read()) if path == PIPE else path


def _fill_film(inpainter, film, mask, out, options):
    from .fill.video import fill_video
    def bar(frames, total): return progress(frames, total, "Filling", str) if sys.stderr.isatty() else frames
    return fill_video(inpainter, film, mask, out, bar, **options)


def _fill_many(images, mask, masks, out, format, n, workers, engine, address, **options):
    "The folder of the results in a list, and what failed"
    if n > 1: raise click.UsageError("--fills is for one photograph")
    if address and engine != "ray": raise click.UsageError("--address is for --engine ray")
    if table := isinstance(images, Path) and images.is_file():
        if mask or masks or format:
            raise click.UsageError(f"{images} names masks and results: leave out MASK, --masks and --format")
    elif bool(mask) + bool(masks) + any(options["extend"]) < 1 or mask and masks or not out:
        raise click.UsageError(f"{images} is a folder, so name two more: "
                               f"fastinpaint fill {images} --masks FOLDER -o FOLDER, or one MASK for all")
    out = out and Path(out)
    options |= dict(progress=_progress, workers=workers or 1)
    if engine == "ray":
        from .serve.ray import filling
        options |= dict(engine=filling(workers, address, options["device"]))
    with lasting():
        from .fill.folder import fill_folder, fill_manifest
    try:
        if table: result = fill_manifest(images, out, **options)
        else: result = fill_folder(images, masks or mask, out, format=format, **options)
    except KeyboardInterrupt: raise KeyboardInterrupt("the same command goes on where it stopped") from None
    click.echo(result, err=True)
    return [out or images.parent], result.failed


def _progress(outcomes, total):
    def line(o): return f"{o.image}{' failed: '*bool(o.error)}{o.error}"
    return progress(outcomes, total, "Filling", line)
