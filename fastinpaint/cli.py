"The command `fastinpaint`: heavy modules are imported by the command that needs them"
import json
import sys
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import click

from . import recipes
from .cli_fill import DEVICE, OUT, fill
from .core.imports import lasting
from .core.program import STYLE, Commands, Program, progress
from .tools.settings import TOOLS

RUNTIMES = "onnx", "torch"
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


def _tool(name):
    "The `Program` of a tool, which is imported when it runs"
    def run(settings):
        with lasting(): tool = import_module(f"{__package__}.tools.{name}")
        return tool.main(settings)
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
    fastinpaint fill film.mp4 mask.png -o out.mp4     every frame of a film
    fastinpaint train latent_control --data photos    a model of your own, in runs/latent_control
    fastinpaint app                                   a page in the browser, with a brush

    Each command has a --help of its own. Results are named on stdout, messages and progress go to stderr;
    the exit code is 1 if something failed, 2 for a wrong command, 130 after Ctrl-C.
    For Tab completion in bash (zsh and fish alike), once:
    echo 'eval "$(_FASTINPAINT_COMPLETE=bash_source fastinpaint)"' >> ~/.bashrc
    """


main.add_command(fill)


def _recipe(name): return import_module(f"{recipes.__name__}.{name}").main


@main.group(cls=Commands, programs={o.name: partial(_recipe, o.name) for o in iter_modules(recipes.__path__)})
def train():
    """Train a model by one of the recipes, into runs/RECIPE.

    \b
    fastinpaint train latent_control --data photos --size 256
    fastinpaint train latent_control --help              all flags of a recipe
    """


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
    with lasting():
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
    with lasting():
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
    with lasting():
        from .serve.app import launch
    launch(**options)


@main.command()
@click.argument("model", default="sample")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def info(model, as_json):
    """Show what a model file holds.

    Its architecture, parameters by part, SHA-256, and a settings.json beside it: those of its training."""
    with lasting():
        from .models.load import about_model
    about = about_model(model)
    if as_json: return click.echo(json.dumps(about, indent=1))
    about["parameters"] = {k: f"{v:,}" for k, v in about["parameters"].items()}
    for key, value in about.items():
        if not isinstance(value, dict): click.echo(f"{key:10} {value}")
        else: click.echo("\n".join([key, *(f"  {k:14} {v}" for k, v in value.items())]))
