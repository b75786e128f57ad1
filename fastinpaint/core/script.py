"Recipes as programs: what the user can mend is told in one line, without a traceback"
import sys
import traceback

TOLD = OSError, ImportError, RuntimeError, ValueError


def call_parse(func):
    "As fastcore's: where the file of `func` is run, calls it with the flags given; elsewhere `func` stays a function"
    if func.__module__ != "__main__": return func
    try: func(**parse(func, None, None))
    except KeyboardInterrupt:
        print("\nInterrupted", file=sys.stderr)
        sys.exit(130)
    except TOLD as error:
        if not expected(error): raise
        sys.exit(f"Error: {in_one_line(error)}")
    return func


def parse(func, prog, flags):
    "The arguments of `func` that the command line `flags` gives; ends the program where they are wrong"
    from fastcore.script import anno_parser  # with all of fastcore, which `fastinpaint --help` need not wait for
    values = vars(anno_parser(func, prog=prog).parse_args(flags))
    return {k: v for k, v in values.items() if k not in ("pdb", "xtra")}  # fastcore's own


def expected(error):
    "Whether the user can mend it: files and connections that fail, and what our own functions raise. The rest are bugs."
    if isinstance(error, OSError): return not isinstance(error, BrokenPipeError)  # `| head`, which ends quietly
    if isinstance(error, RuntimeError): return type(error).__module__.startswith("fastinpaint.")
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals["__name__"].startswith("fastinpaint.")


def in_one_line(error): return " ".join(str(error).split())
