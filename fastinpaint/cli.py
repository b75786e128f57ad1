"The command `fastinpaint`: heavy modules are imported by the command that needs them"
import json
import sys
import warnings
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import click

from . import recipes
from .core.program import STYLE, Commands, PathOrAddress, Program, progress
from .tools.settings import TOOLS

STRATEGIES = "auto", "whole", "crop", "tiles", "resize"
PICTURES = "png", "tif", "webp", "jpg"
MANIFESTS = ".csv", ".parquet"
ENGINES = "local", "ray"
RUNTIMES = "onnx", "torch"
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
OUT = click.Path(path_type=Path)
DEVICE = click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps …")


def _tool(name):
    "The `Program` of a tool, which is imported when it runs"
    def run(settings): return import_module(f"{__package__}.tools.{name}").main(settings)
    run.__doc__ = TOOLS[name].__doc__
    return Program(run, TOOLS[name])


@click.group("fastinpaint", cls=Commands, programs={name: partial(_tool, name) for name in TOOLS},
             context_settings=STYLE | dict(show_default=True))
@click.version_option(package_name="fastinpaint")
def main():
    """Fill holes in photographs, and train, judge and export the models that do it.

    \b
    fastinpaint fill photo.jpg mask.png               to photo-filled.png; white is the hole
    fastinpaint fill photos --masks masks -o filled   a folder; started again, it goes on
    fastinpaint fill manifest.csv -o filled           a table of photographs, masks and results
    fastinpaint train latent_control --data photos    a model of your own, in runs/latent_control
    fastinpaint app                                   a page in the browser, with a brush

    Each command has a --help of its own. Results are named on stdout, messages and progress go to stderr;
    the exit code is 1 if something failed, 2 for a wrong command, 130 after Ctrl-C.
    For Tab completion in bash (zsh and fish alike), once:
    echo 'eval "$(_FASTINPAINT_COMPLETE=bash_source fastinpaint)"' >> ~/.bashrc
    """


def _recipe(name): return import_module(f"{recipes.__name__}.{name}").main


@main.group(cls=Commands, programs={o.name: partial(_recipe, o.name) for o in iter_modules(recipes.__path__)})
def train():
    """Train a model by one of the recipes, into runs/RECIPE.

    \b
    fastinpaint train latent_control --data photos --size 256
    fastinpaint train latent_control --help              all flags of a recipe
    """


@main.command()
@click.argument("image", type=PathOrAddress(exists=True, path_type=Path))
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
    """Fill the hole in a photograph, in each of a folder, or in each row of a table.

    IMAGE is a photograph and MASK its hole, white on black; or a folder or shards, also at an address, and
    --masks those of its masks; or a .csv or .parquet file with columns image, mask and out: paths from where
    it lies, of out from -o.

    \b
    fastinpaint fill photo.jpg mask.png -o filled.png
    fastinpaint fill photos --masks masks -o filled --workers 4
    fastinpaint fill manifest.csv -o filled --shard 3/16 --report filled/report-3.parquet

    All other pixels stay as they are, and results are lossless unless a JPEG is asked for. In a
    folder, masks belong to the photographs of the same name. Of many, results that exist are kept, and
    one bad file does not stop the rest."""
    # stdout has the result's name alone, so what libraries print goes to stderr
    with redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: click.echo(f"Warning: {message}", err=True)
        many = isinstance(image, str) or image.is_dir() or image.suffix.lower() in MANIFESTS
        if many: outs, failed = _fill_many(image, mask, masks, out, **options)
        else: outs, failed = _fill_file(image, mask, masks, out, **options), False
    for out in outs: click.echo(out)
    if failed: sys.exit(1)


def _fill_file(image, mask, masks, out, model, device, precision, format, n, workers, overwrite, shard,
               report, engine, address, **options):
    if masks or not mask:
        raise click.UsageError(f"{image} is a file, so name its mask: fastinpaint fill IMAGE MASK")
    if shard or report or engine != "local":
        raise click.UsageError("--shard, --report and --engine are for many photographs")
    folder = Path(out) if out and (out.endswith("/") or Path(out).is_dir()) else None
    if out and not folder and format:
        raise click.UsageError("the name given with -o says the format: leave out --format")
    from .fill.inpainter import Inpainter, numbered
    from .fill.jobs import lossless_suffix
    if out and not folder: out = Path(out)
    else:
        suffix = f".{format}" if format else lossless_suffix(image)
        out = (folder or image.parent)/f"{image.stem}-filled{suffix}"
    for path in numbered(out, n):
        if path.exists() and (path.samefile(image) or path.samefile(mask)):
            raise click.UsageError(f"a result would replace {path}, from which it is made: choose another -o")
    return Inpainter(model, device, precision).fill_file(image, mask, out, n, **options)


def _fill_many(images, mask, masks, out, format, n, workers, engine, address, **options):
    "The folder of the results in a list, and what failed"
    if n > 1: raise click.UsageError("--fills is for one photograph")
    if address and engine != "ray": raise click.UsageError("--address is for --engine ray")
    if table := isinstance(images, Path) and images.is_file():
        if mask or masks or format:
            raise click.UsageError(f"{images} names masks and results: leave out MASK, --masks and --format")
    elif mask or not masks or not out:
        raise click.UsageError(f"{images} is a folder, so name two more: "
                               f"fastinpaint fill {images} --masks FOLDER -o FOLDER")
    out = out and Path(out)
    options |= dict(progress=_progress, workers=workers or 1)
    if engine == "ray":
        from .serve.ray import filling
        options |= dict(engine=filling(workers, address, options["device"]))
    from .fill.folder import fill_folder, fill_manifest
    try:
        if table: result = fill_manifest(images, out, **options)
        else: result = fill_folder(images, masks, out, format=format, **options)
    except KeyboardInterrupt: raise KeyboardInterrupt("the same command goes on where it stopped") from None
    click.echo(result, err=True)
    return [out or images.parent], result.failed


def _progress(outcomes, total):
    def line(o): return f"{o.image}{' failed: '*bool(o.error)}{o.error}"
    return progress(outcomes, total, "Filling", line)


@main.command()
@click.argument("folder", type=FOLDER)
@click.option("-o", "--out", required=True, type=OUT, help="Folder of the shards.")
@click.option("--resize", "side", default=0, type=click.IntRange(0), metavar="SIDE",
              help="Shorter side that larger photographs get; 0: files as they are.")
@click.option("--count", default=0, type=click.IntRange(0), help="Photographs in a shard; 0: some 128 MB.")
def shard(folder, out, side, count):
    """Write a folder of photographs as shards: tar files and their index.

    \b
    fastinpaint shard photos -o shards
    fastinpaint train latent_control --data shards        or https://, s3://, hf://, wherever they are

    train/ and valid/ stay apart. Files that cannot be read are named and left out. Killed and started
    again, it goes on where it stopped, and ends with the same bytes."""
    from .data.shard_writer import write_shards
    try: result = write_shards(folder, out, side, count, _shard_progress)
    except KeyboardInterrupt: raise KeyboardInterrupt("the same command goes on where it stopped") from None
    click.echo(result, err=True)
    click.echo(out)


def _shard_progress(shards, total):
    return progress(shards, total, "Writing", lambda o: o.shard, lambda o: len(o.names) + len(o.skipped))


@main.command()
@click.argument("model")
@click.option("-o", "--out", required=True, type=OUT, help="The exported file.")
@click.option("--format", default="onnx", type=click.Choice(RUNTIMES), help="ONNX, or torch.export.")
def export(model, out, format):
    """Export a model for another runtime.

    MODEL is as for fill; the file is checked against it: fastinpaint export sample -o model.onnx"""
    from .serve.export import export_model
    with redirect_stdout(sys.stderr): export_model(model, out, format)
    click.echo(out)


@main.command()
@click.option("--model", "models", multiple=True, default=["sample"],
              help="As for fill; given several times, visitors choose.")
@click.option("--host", default="127.0.0.1", help="0.0.0.0 lets everybody in who reaches this computer.")
@click.option("--port", default=7860)
@DEVICE
def app(**options):
    """Serve a page for the browser, with a brush.

    It needs gradio: pip install 'fastinpaint[app]'. Ctrl-C stops it."""
    from .serve.app import launch
    launch(**options)


@main.command()
@click.argument("model", default="sample")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def info(model, as_json):
    """Show what a model file holds.

    Its architecture, parameters by part, SHA-256, and a settings.json beside it: those of its training."""
    from .models.load import about_model
    about = about_model(model)
    if as_json: return click.echo(json.dumps(about, indent=1))
    about["parameters"] = {k: f"{v:,}" for k, v in about["parameters"].items()}
    for key, value in about.items():
        if not isinstance(value, dict): click.echo(f"{key:10} {value}")
        else: click.echo("\n".join([key, *(f"  {k:14} {v}" for k, v in value.items())]))
