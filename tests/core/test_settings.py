import pytest
from fastcore.script import anno_parser

from fastinpaint.core import old_settings as settings
from fastinpaint.core.old_settings import setting


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    "A current folder, below one with a settings.ini"
    (tmp_path/"settings.ini").write_text("[DEFAULT]\nsize = 96\nlr = 1e-4\nbs = many\n")
    (tmp_path/"below").mkdir()
    monkeypatch.chdir(tmp_path/"below")
    settings._file.cache_clear()
    yield tmp_path
    settings._file.cache_clear()


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_code(monkeypatch):
    def run(*args):
        def main(size: int = setting("size", 128)): pass
        return anno_parser(main).parse_args(args).size

    assert setting("width", 8) == 8
    assert run() == 96
    monkeypatch.setenv("FASTINPAINT_SIZE", "64")
    assert run() == 64
    assert run("--size", "32") == 32


def test_values_have_the_type_of_the_default(monkeypatch):
    assert setting("lr", 1.) == 1e-4 and setting("size", "") == "96"
    monkeypatch.setenv("FASTINPAINT_SIZE", "")  # as good as unset
    assert setting("size", 1) == 96


def test_a_wrong_value_names_its_source(monkeypatch):
    with pytest.raises(ValueError, match=r"bs = many \(settings.ini\) is no int"): setting("bs", 16)
    monkeypatch.setenv("FASTINPAINT_BS", "1.5")
    with pytest.raises(ValueError, match=r"bs = 1.5 \(FASTINPAINT_BS in the environment\) is no int"): setting("bs", 16)


def test_no_file_is_needed(folder):
    (folder/"settings.ini").unlink()
    assert setting("size", 128) == 128
