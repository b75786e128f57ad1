import sys

import pytest

from fastinpaint.core.script import call_parse
from fastinpaint.data.named import named_data


@pytest.fixture
def run(monkeypatch):
    "Runs `main` with flags as if its file were run"
    def run(main, *flags):
        monkeypatch.setattr(sys, "argv", ["recipe.py", *flags])
        main.__module__ = "__main__"
        return call_parse(main)
    return run


def test_a_recipe_is_a_function_where_its_file_is_not_run():
    def main(size: int = 3): return size
    assert call_parse(main) is main


def test_a_recipe_is_a_program_where_its_file_is_run(run):
    given = []
    def main(size: int = 3, prefill: bool = True, data: str = "sample"): given.append((size, prefill, data))
    run(main, "--size", "5", "--no-prefill")
    assert given == [(5, False, "sample")]


def test_what_the_user_can_mend_is_one_line(run, capsys):
    def main(data: str = "sample"): named_data(data)
    with pytest.raises(SystemExit) as stop: run(main, "--data", "nowhere")
    assert stop.value.code == "Error: 'nowhere' is neither a folder nor one of sample, pets, imagenette"


def test_a_wrong_flag_has_exit_code_2(run, capsys):
    def main(size: int = 3): raise AssertionError
    with pytest.raises(SystemExit, match="2"): run(main, "--size", "wide")
    assert "recipe.py: error: argument --size" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(run):
    def main(): return int("three")
    with pytest.raises(ValueError, match="three"): run(main)


def test_ctrl_c_has_exit_code_130(run, capsys):
    def main(): raise KeyboardInterrupt
    with pytest.raises(SystemExit, match="130"): run(main)
    assert capsys.readouterr().err == "\nInterrupted\n"
