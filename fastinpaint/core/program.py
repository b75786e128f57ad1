"Functions of settings as programs: called with keywords in Python, with flags in a shell"
import errno
import signal
import sys
from contextlib import contextmanager
from dataclasses import fields
from functools import update_wrapper
from inspect import getdoc, signature
from threading import current_thread, main_thread
from typing import get_type_hints

import click
from click.core import ParameterSource

from .errors import InputError
from .ranks import is_main, let_main_fail_first, main_speaks
from .settings import default, read

STYLE = dict(help_option_names=["-h", "--help"], max_content_width=110)


class Program:
    "Calls `run(settings)` with a dataclass of settings made from keywords; raises what `read` raises"
    def __init__(self, run, settings):
        self.run, self.settings = run, settings
        update_wrapper(self, run)
        self.__signature__ = signature(settings)  # what help() and notebooks show

    def __call__(self, **given):
        with main_speaks(): return self.run(read(self.settings, **given))

    def command(self, name=None):
        "The `click.Command` whose options are the settings' fields"
        @click.pass_context
        def run(ctx, **flags):
            given = ParameterSource.COMMANDLINE
            self(**{k: v for k, v in flags.items() if ctx.get_parameter_source(k) == given})
        doc = getdoc(self.run) or ""
        grouped = {name for f in fields(self.settings) for name in f.metadata.get("group", ())}
        return Command(name, callback=run, help=doc, short_help=doc.partition("\n\n")[0],
                       params=[option(f, f.name in grouped) for f in fields(self.settings)],
                       context_settings=STYLE | dict(token_normalize_func=dashed))


def program(run):
    """Decorator: makes a `Program` of `run(settings: S)` for a dataclass `S` of settings.

    Where the file of `run` is run, so is the program, at once: it is the file's last definition."""
    made = Program(run, get_type_hints(run)["settings"])
    # a notebook's cells are __main__ too, but no file
    if run.__module__ == "__main__" and "__file__" in run.__globals__: made.command()()
    return made


class Command(click.Command):
    "A command with the exit codes of `exit_codes`"
    def invoke(self, ctx):
        with exit_codes(ctx): return super().invoke(ctx)


class PathOrAddress(click.Path):
    "A path, or text with `://` in it, which click does not check"
    def convert(self, value, param, ctx):
        return value if "://" in str(value) else super().convert(value, param, ctx)


class Commands(click.Group):
    "Commands, of which `programs` (name → function that gives a `Program`) are made when needed"
    command_class = Command
    def __init__(self, *args, programs, **kwargs):
        super().__init__(*args, **kwargs)
        self.programs = programs

    def list_commands(self, ctx): return sorted([*self.commands, *self.programs])

    def get_command(self, ctx, name):
        if name in self.programs: return self.programs[name]().command(name)
        return super().get_command(ctx, name)

    def resolve_command(self, ctx, args):
        try: return super().resolve_command(ctx, args)
        except click.UsageError as e:
            known = ", ".join(self.list_commands(ctx))
            raise click.UsageError(f"{e.format_message()} There are {known}.", ctx) from e


@contextmanager
def exit_codes(ctx):
    "What the user can mend becomes one line and exit code 1, Ctrl-C exit code 130; bugs keep their trace"
    with noticing_ctrl_c() as came:
        try: yield
        except (Exception, KeyboardInterrupt) as e:
            if came or isinstance(e, KeyboardInterrupt):
                how = e.args if isinstance(e, KeyboardInterrupt) else ()
                if is_main(): click.echo(f"\nInterrupted{''.join(f'; {o}' for o in how)}", err=True)
                ctx.exit(130)
            if not mendable(e): raise
            let_main_fail_first()
            raise click.ClickException(" ".join(str(e).split())) from e


@contextmanager
def noticing_ctrl_c():
    """Yields a list that Ctrl-C fills.

    While libraries are imported, their C code swallows it now and then and fails with an error of its own."""
    came, before = [], signal.getsignal(signal.SIGINT)
    def note(*args):
        came.append(args)
        before(*args)
    ours = before is signal.default_int_handler and current_thread() is main_thread()
    if not ours: yield came  # it is somebody else's, or ignored
    else:
        signal.signal(signal.SIGINT, note)
        try: yield came
        finally: signal.signal(signal.SIGINT, before)


def mendable(error):
    "`InputError`, and what the operating system refuses: a full disk, missing rights"
    if isinstance(error, InputError): return True
    # click itself ends `| head` quietly
    return isinstance(error, OSError) and error.errno not in (None, errno.EPIPE)


def option(f, grouped=False):
    "The `click.Option` of a field; a switch that is on by default, or by a group, has a --no-… too"
    name, switch = dashed(f.name), isinstance(f.default, bool)
    names = f"--{name}/--no-{name}" if switch and (f.default or grouped) else f"--{name}"
    return click.Option([names, f.name], type=type(f.default), is_flag=switch, default=None,
                        help=f.metadata["help"] + shown_default(f))


def shown_default(f):
    "The end of a flag's help: what holds without it"
    try: value = default(f)
    except InputError: value = f.default  # its help works; the command itself raises
    if value is True: value = dashed(f.name)
    return "" if value == "" or value is False else f"  [default: {value}]"


def dashed(name): return name.replace("_", "-")


def progress(items, total, label, line, count=lambda item: 1):
    "`items`, of which each counts `count`, with a bar on a terminal; elsewhere a `line` for each, for a log"
    done, tty = 0, sys.stderr.isatty()
    with click.progressbar(None, total, label, show_pos=True, file=sys.stderr, hidden=not tty) as bar:
        for item in items:
            done += count(item)
            bar.update(count(item))
            if not tty: click.echo(f"{done}/{total} {line(item)}", err=True)
            yield item
