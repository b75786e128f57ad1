"Functions of settings as programs: called with keywords in Python, with flags in a shell"
from contextlib import contextmanager
from dataclasses import fields
from functools import update_wrapper

import click
from click.core import ParameterSource

from .errors import InputError
from .settings import read, shared

CONTEXT = dict(help_option_names=["-h", "--help"], max_content_width=110,
               token_normalize_func=lambda name: name.replace("_", "-"))


class Program:
    "`run(settings)` with `settings` made from keywords; `command()` is the same with flags"
    def __init__(self, run, settings):
        self.run, self.settings = run, settings
        update_wrapper(self, run)

    def __call__(self, **given): return self.run(read(self.settings, **given))

    def command(self, name=None):
        "The `click.Command` whose options are the settings' fields"
        @click.pass_context
        def run(ctx, **flags):
            self(**{k: v for k, v in flags.items()
                    if ctx.get_parameter_source(k) == ParameterSource.COMMANDLINE})
        return Command(name, context_settings=CONTEXT, callback=run, help=self.run.__doc__,
                       params=[option(f) for f in fields(self.settings)])


def program(run):
    """Decorates `run(settings: S)` with a dataclass `S` of settings: a `Program`, which runs at once where its file is run.

    Put it above the last definition of a file, as nothing behind it is there yet when the file is run.
    """
    made = Program(run, run.__annotations__["settings"])
    if run.__module__ == "__main__": made.command()()
    return made


class Command(click.Command):
    "A command that tells what the user can mend in one line"
    def invoke(self, ctx):
        with told(ctx): return super().invoke(ctx)


@contextmanager
def told(ctx):
    """What the user can mend becomes one line and exit code 1, Ctrl-C exit code 130; a bug keeps its traceback.

    Besides `InputError` that is what the operating system refuses: full disks, missing rights.
    """
    try: yield
    except KeyboardInterrupt as e:
        click.echo(f"\nInterrupted{''.join(f'; {o}' for o in e.args)}", err=True)
        ctx.exit(130)
    except InputError as e: raise click.ClickException(one_line(e)) from e
    except OSError as e:
        if e.errno is None or isinstance(e, BrokenPipeError): raise  # `| head` ends quietly
        raise click.ClickException(one_line(e)) from e


def one_line(error): return " ".join(str(error).split())


def option(f):
    "The `click.Option` of the dataclass field `f`"
    name, switch = f"--{f.name.replace('_', '-')}", isinstance(f.default, bool)
    if switch and f.default: name += f"/--no-{f.name.replace('_', '-')}"
    return click.Option([name, f.name], type=type(f.default), is_flag=switch, default=None,
                        help=f.metadata["help"] + ("" if switch else shown_default(f)))


def shown_default(f):
    "What holds without the flag"
    try: value = shared(f) if f.metadata.get("shared") else f.default
    except InputError: value = f.default  # told when it is needed
    return "" if value == "" else f"  [default: {value}]"
