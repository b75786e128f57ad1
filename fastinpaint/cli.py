"The command `fastinpaint`: everything heavy is imported by the command that needs it, so that `--help` is immediate"
import ast
import hashlib
import json
import sys
import warnings
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path

import click

from . import recipes, tools
from .core.script import TOLD, expected, in_one_line, parse

# recipes that train no method of their own are commands
TOOLS = "evaluate", "compare", "demo", "bench", "bench_fill", "bench_speed"
RECIPES = {p.stem: p for p in sorted(Path(recipes.__file__).parent.glob("[!_]*.py"))}
RECIPES |= {name: Path(tools.__file__).parent/f"{name}.py" for name in TOOLS}
STRATEGIES = "auto", "whole", "crop", "tiles", "resize"
FORMATS = "png", "tif", "webp", "jpg"


class Commands(click.Group):
    "Commands whose expected errors are one line, and among which an unknown one is told what there is"
    def invoke(self, ctx):
        try: return super().invoke(ctx)
        except KeyboardInterrupt as e:
            click.echo(f"\nInterrupted{''.join(f'; {o}' for o in e.args)}", err=True)
            ctx.exit(130)
        except TOLD as e:
            if not expected(e): raise
            raise click.ClickException(in_one_line(e)) from e

    def resolve_command(self, ctx, args):
        try: return super().resolve_command(ctx, args)
        except click.UsageError as e:
            raise click.UsageError(f"{e.format_message()} There are {', '.join(self.list_commands(ctx))}.", ctx) from e


@click.group("fastinpaint", cls=Commands, context_settings=dict(help_option_names=["-h", "--help"], max_content_width=110))
@click.version_option(package_name="fastinpaint")
def main():
    """Fill holes in photographs, and train, judge and export the models that do it.

    \b
    fastinpaint fill photo.jpg mask.png                     to photo-filled.png; white is the hole
    fastinpaint fill photos --masks masks -o filled         a folder; started again, it goes on
    fastinpaint train latent_control --data photos          a model of your own, in runs/latent_control
    fastinpaint app                                         a page in the browser, with a brush

    Each command has a --help of its own. Results are named on stdout, everything else is said on stderr; the exit code is 1 if
    something failed, 2 for a wrong command, 130 after Ctrl-C. For Tab completion in bash (zsh and fish alike), once:
    echo 'eval "$(_FASTINPAINT_COMPLETE=bash_source fastinpaint)"' >> ~/.bashrc
    """


def _recipe_command(name, path):
    "The command that hands its arguments to the `main` of a recipe, whose flags and help are the recipe's"
    tree = ast.parse(path.read_text())  # importing it would take seconds
    told = tree if name in TOOLS else next(o for o in tree.body if isinstance(o, ast.FunctionDef) and o.name == "main")

    @click.command(name, short_help=ast.get_docstring(told).splitlines()[0], add_help_option=False,
                   context_settings=dict(ignore_unknown_options=True))
    @click.argument("flags", nargs=-1, type=click.UNPROCESSED)
    @click.pass_context
    def command(ctx, flags):
        recipe = import_module(f"{(tools if name in TOOLS else recipes).__name__}.{name}").main
        recipe(**parse(recipe, ctx.command_path, flags))
    return command


@main.group(cls=Commands)
def train():
    """Train a model by one of the recipes, into runs/RECIPE.

    \b
    fastinpaint train latent_control --data photos --size 256
    fastinpaint train latent_control --help                 all flags of a recipe
    """


for _name, _path in RECIPES.items(): (main if _name in TOOLS else train).add_command(_recipe_command(_name, _path))


@main.command()
@click.argument("image", type=click.Path(exists=True, path_type=Path))
@click.argument("mask", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Result: a file whose name says its format, or a folder.")
@click.option("--masks", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="For a folder: that of its masks, of the same names.")
@click.option("--model", default="sample", show_default=True, help="sample, a saved model, or a published LaMa checkpoint.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps …")
@click.option("--precision", default="fp32", show_default=True, help="fp32, or bf16: faster on a GPU, colours are rounded.")
@click.option("--strategy", default="auto", show_default=True, type=click.Choice(STRATEGIES), help="How large images are filled.")
@click.option("--refine", is_flag=True, help="From 1024 pixels on, keep the structure of a smaller fill; slow.")
@click.option("--invert", is_flag=True, help="In masks, black is the hole.")
@click.option("--dilate", default=0, metavar="PIXELS", help="Enlarge the hole on all sides.")
@click.option("--feather", default=0, metavar="PIXELS", help="Of what --dilate adds, blend the outer so many.")
@click.option("--format", type=click.Choice(FORMATS), help="Where -o names no file.  [default: png; for TIFF and CMYK tif]")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1),
              help="For a folder: processes, each with one thread and a model of its own.")
@click.option("--overwrite", is_flag=True, help="For a folder: fill again what has been filled.")
def fill(image, mask, out, masks, **options):
    """Fill the hole in a photograph, or in each of a folder.

    IMAGE is a photograph and MASK its hole, white on black; or IMAGE is a folder, and --masks that of its masks.

    \b
    fastinpaint fill photo.jpg mask.png -o filled.png
    fastinpaint fill photos --masks masks -o filled --workers 4

    All other pixels stay as they are, and results are lossless unless a JPEG is asked for. In a folder, masks belong to the
    photographs of the same name; results that exist are kept, and one bad file does not stop the rest.
    """
    with redirect_stdout(sys.stderr), warnings.catch_warnings():  # whatever a library prints, stdout is the result's name
        warnings.showwarning = lambda message, *_: click.echo(f"Warning: {message}", err=True)
        if image.is_dir(): failed = _fill_folder(image, mask, masks, out, options)
        else: out, failed = _fill_file(image, mask, masks, out, **options), False
    click.echo(out)
    if failed: sys.exit(1)


def _fill_file(image, mask, masks, out, model, device, precision, format, workers, overwrite, **options):
    if masks or not mask: raise click.UsageError(f"{image} is a file, so name its mask: fastinpaint fill IMAGE MASK")
    if out and format: raise click.UsageError("the name given with -o says the format: leave out --format")
    from .fill.folder import lossless_suffix
    from .fill.inpainter import Inpainter
    out = out or image.with_name(f"{image.stem}-filled{f'.{format}' if format else lossless_suffix(image)}")
    if out.exists() and (out.samefile(image) or out.samefile(mask)):
        raise click.UsageError(f"the result would replace {out}, from which it is made: choose another -o")
    Inpainter(model, device, precision).fill_file(image, mask, out, **options)
    return out


def _fill_folder(images, mask, masks, out, options):
    if mask or not masks or not out:
        raise click.UsageError(f"{images} is a folder, so name two more: fastinpaint fill {images} --masks FOLDER -o FOLDER")
    from .fill.folder import fill_folder
    try: result = fill_folder(images, masks, out, progress=_progress, **options)
    except KeyboardInterrupt: raise KeyboardInterrupt("the same command goes on where it stopped") from None
    click.echo(result, err=True)
    return result.failed


def _progress(results, total):
    "`results` with a bar on a terminal; elsewhere a line for each, for a log"
    if sys.stderr.isatty():
        with click.progressbar(results, total, "Filling", show_pos=True, file=sys.stderr) as bar: yield from bar
        return
    for i, (fn, reason) in enumerate(results, 1):
        click.echo(f"{i}/{total} {fn}{'' if reason is None else ' failed: ' + reason}", err=True)
        yield fn, reason


@main.command()
@click.argument("model")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The exported file.")
@click.option("--format", default="onnx", show_default=True, type=click.Choice(["onnx", "torch"]),
              help="ONNX, or a torch.export program.")
def export(model, out, format):
    """Export a model for another runtime.

    MODEL is as for fill; what is written is checked against it: fastinpaint export sample -o model.onnx
    """
    from .serve.export import export_model
    with redirect_stdout(sys.stderr): export_model(model, out, format)
    click.echo(out)


@main.command()
@click.option("--model", "models", multiple=True, default=["sample"], show_default=True,
              help="As for fill; given several times, visitors choose.")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 lets everybody in who reaches this computer.")
@click.option("--port", default=7860, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps …")
def app(**options):
    """Serve a page for the browser, with a brush.

    It needs gradio: pip install 'fastinpaint[app]'. Ctrl-C stops it.
    """
    from .serve.app import launch
    launch(**options)


@main.command()
@click.argument("model", default="sample")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def info(model, as_json):
    """Say what a model file holds.

    Its architecture, parameters by part, SHA-256, and what it was trained with where a settings.json is beside it.
    """
    about = _about(model)
    if as_json: return click.echo(json.dumps(about, indent=1))
    about["parameters"] = {k: f"{v:,}" for k, v in about["parameters"].items()}
    for key, value in about.items():
        if not isinstance(value, dict): click.echo(f"{key:10} {value}")
        else: click.echo("\n".join([key, *(f"  {k:14} {v}" for k, v in value.items())]))


def _about(model):
    "What is known of a model file, as a dict"
    from .models.load import model_file, read_model
    path = model_file(model)
    net = read_model(path)
    settings = path.with_name("settings.json")
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in net.named_children()}
    return dict(file=str(path), bytes=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
                model=net.config, parameters=dict(all=sum(parts.values()), **parts),
                **({"settings": json.loads(settings.read_text())} if settings.is_file() else {}))
