import errno
import inspect
import runpy
import signal
import sys

import pytest

from fastinpaint.core.errors import Diverged, InputError, MissingFile

RECIPE = """
from dataclasses import dataclass
import fastinpaint as fi

@dataclass(kw_only=True)
class Settings:
    size: int = fi.setting(3, "Pixels")
    lr: float = fi.flag(.1, "Learning rate")
    data: str = fi.flag("sample", "Photographs")
    prefill: bool = fi.flag(True, "Fill smoothly")
    log_model: bool = fi.flag(False, "Upload")
    wide: bool = fi.flag(False, "More channels")
    published: bool = fi.group("As published", wide=True, lr=7.)

given = []

@fi.program
def main(settings: Settings):
    "What it does"
    given.append(settings)
    BODY
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    "Writes a recipe and runs its file with flags, or imports it: its `main`, and its settings"
    def run(*flags, body="pass", imported=False):
        (tmp_path/"recipe.py").write_text(RECIPE.replace("BODY", body))
        monkeypatch.setattr(sys, "argv", ["recipe.py", *flags])
        monkeypatch.chdir(tmp_path)
        names = runpy.run_path("recipe.py", run_name="recipe" if imported else "__main__")
        return names["main"], names["given"]
    return run


@pytest.fixture
def failing(recipe, monkeypatch, capsys):
    "The exit code and stderr of a recipe that raises `error`"
    def run(error):
        monkeypatch.setattr(sys, "error", error, raising=False)
        with pytest.raises(SystemExit) as stop: recipe(body="import sys; raise sys.error")
        return stop.value.code, capsys.readouterr().err
    return run


def test_an_imported_recipe_takes_keywords(recipe):
    main, given = recipe("--size", "7", imported=True)
    assert not given
    assert main(size=5) is None and (given[0].size, given[0].prefill) == (5, True)
    assert str(inspect.signature(main)).startswith("(*, size: int = 3, ")
    assert main.__doc__ == "What it does"
    with pytest.raises(TypeError, match="sise"): main(sise=5)


@pytest.mark.parametrize("flags, expected", [
    ([], (3, .1, "sample", True, False, False, False)),
    (["--size", "5", "--lr=1e-3"], (5, 1e-3, "sample", True, False, False, False)),
    (["--no-prefill", "--data", "my_photos"], (3, .1, "my_photos", False, False, False, False)),
    (["--prefill", "--log-model"], (3, .1, "sample", True, True, False, False)),
    (["--log_model"], (3, .1, "sample", True, True, False, False)),
    (["--published"], (3, 7., "sample", True, False, True, True)),
    (["--no-wide", "--published"], (3, 7., "sample", True, False, False, True))])
def test_a_recipe_whose_file_is_run_takes_flags(monkeypatch, recipe, flags, expected):
    given = []
    monkeypatch.setattr(sys, "given", given, raising=False)
    with pytest.raises(SystemExit) as stop:
        recipe(*flags, body="import sys; sys.given.append(settings)")
    assert stop.value.code == 0
    assert tuple(vars(given[0]).values()) == expected


def test_annotations_may_be_strings():
    names = dict(__name__="__main__")
    exec("from __future__ import annotations\n" + RECIPE.replace("BODY", "return settings"), names)
    assert names["main"](size=5).size == 5


def test_a_notebook_does_not_run_a_recipe_that_it_defines():
    cell = dict(__name__="__main__")
    exec(RECIPE.replace("BODY", "raise AssertionError"), cell)
    assert not cell["given"]


def test_help_names_every_flag_and_default(recipe, capsys, monkeypatch):
    monkeypatch.setenv("FASTINPAINT_SIZE", "96")
    with pytest.raises(SystemExit, match="0"): recipe("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "What it does" in text and "--size INTEGER Pixels [default: 96]" in text
    assert "--prefill / --no-prefill Fill smoothly [default: prefill]" in text
    assert "--log-model Upload --wide / --no-wide More channels" in text
    assert "--published As published: wide, lr=7.0; a flag beside it wins -h" in text


@pytest.mark.parametrize("flags", [["--size", "wide"], ["--siz=1"], ["--no-log-model"], ["extra"]])
def test_a_wrong_flag_has_exit_code_2(recipe, capsys, flags):
    with pytest.raises(SystemExit, match="2"): recipe(*flags, body="raise AssertionError")
    errors = capsys.readouterr().err
    assert "Usage: recipe.py" in errors and flags[0].split("=")[0] in errors


@pytest.mark.parametrize("error, line", [
    (InputError("no such\n  thing"), "no such thing"), (MissingFile("no model.pt"), "no model.pt"),
    (Diverged("loss is nan"), "loss is nan"),
    (OSError(errno.ENOSPC, "No space left"), f"[Errno {errno.ENOSPC}] No space left")])
def test_what_the_user_can_mend_is_one_line(failing, error, line):
    assert failing(error) == (1, f"Error: {line}\n")


@pytest.mark.parametrize("body", ["list(zip([1], [], strict=True))", "int('three')",
                                  "raise RuntimeError('CUDA out of memory')",
                                  "raise OSError('a codec')", "raise ImportError('a name')",
                                  "raise FloatingPointError('a division')", "{}['key']"])
def test_a_bug_keeps_its_traceback(recipe, body):
    with pytest.raises(Exception) as bug: recipe(body=body)
    assert not isinstance(bug.value, InputError)


def test_a_closed_pipe_ends_quietly(failing):
    assert failing(BrokenPipeError(errno.EPIPE, "Broken pipe")) == (1, "")


@pytest.mark.parametrize("args, text", [
    ((), "\nInterrupted\n"), (("--resume goes on",), "\nInterrupted; --resume goes on\n")])
def test_ctrl_c_has_exit_code_130(failing, args, text):
    assert failing(KeyboardInterrupt(*args)) == (130, text)


SWALLOWED = """
import os, signal
    try: os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt: pass
    raise RecursionError("maximum recursion depth exceeded")"""


def test_ctrl_c_that_an_import_made_another_error_of_is_ctrl_c(recipe, capsys):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as stop: recipe(body=SWALLOWED.strip())
    assert (stop.value.code, capsys.readouterr().err) == (130, "\nInterrupted\n")
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(RecursionError): recipe(body="raise RecursionError")


def test_a_wrong_settings_ini_fails_where_a_value_is_needed(recipe, tmp_path, capsys):
    (tmp_path/"settings.ini").write_text("[DEFAULT]\nsize = many\n")
    with pytest.raises(SystemExit, match="0"): recipe("--help")
    assert "--size INTEGER Pixels [default: 3]" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit, match="1"): recipe()
    assert capsys.readouterr().err == "Error: size = many (settings.ini) is no int\n"
    with pytest.raises(SystemExit, match="0"): recipe("--size", "5")
    (tmp_path/"settings.ini").write_text("size = 5\n")
    with pytest.raises(SystemExit, match="1"): recipe()
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and error.count("\n") == 1
    assert "settings.ini" in error and "size = 5" in error
    with pytest.raises(SystemExit, match="0"): recipe("--help")
