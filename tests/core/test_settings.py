from dataclasses import dataclass, fields

import pytest

from fastinpaint.core.errors import InputError
from fastinpaint.core.settings import flag, group, read, setting


@dataclass(kw_only=True)
class Settings:
    size: int = setting(128, "Pixels")
    width: int = setting(8, "Channels")
    lr: float = setting(3e-3, "Learning rate")
    data: str = setting("sample", "Photographs")
    bs: int = setting(16, "Batch size")


@dataclass(kw_only=True)
class OwnRate(Settings):
    lr: float = flag(1e-3, "Learning rate")


@dataclass(kw_only=True)
class Grouped(Settings):
    published: bool = group("As published", lr=.1, data="places", wide=True)
    wide: bool = flag(False, "More channels")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    "A current folder, below one with a settings.ini"
    text = "[DEFAULT]\nsize = 96\nlr = 1e-4\ndata = 7\n[other]\nwidth = 9\n"
    (tmp_path/"settings.ini").write_text(text)
    (tmp_path/"below").mkdir()
    monkeypatch.chdir(tmp_path/"below")
    return tmp_path


def test_a_keyword_beats_the_environment_which_beats_the_file_which_beats_the_code(monkeypatch):
    assert read(Settings).width == 8
    assert read(Settings).size == 96
    monkeypatch.setenv("FASTINPAINT_SIZE", "64")
    assert read(Settings).size == 64
    assert read(Settings, size=32) == Settings(size=32, lr=1e-4, data="7")


def test_a_recipes_own_default_beats_environment_and_file(monkeypatch):
    monkeypatch.setenv("FASTINPAINT_LR", "1")
    assert (read(Settings).lr, read(OwnRate).lr, read(OwnRate, lr=2.).lr) == (1., 1e-3, 2.)


def test_a_group_beats_environment_and_file_and_a_field_beside_it_beats_the_group(monkeypatch):
    monkeypatch.setenv("FASTINPAINT_LR", "7")
    plain, published = read(Grouped), read(Grouped, published=True)
    assert (plain.lr, plain.data, plain.wide, plain.published) == (7., "7", False, False)
    assert (published.lr, published.data, published.wide, published.published) == (.1, "places", True, True)
    assert read(Grouped, published=True, data="mine", wide=False) == Grouped(
        published=True, data="mine", wide=False, lr=.1, size=96)
    assert read(Grouped, published=False) == plain


def test_help_names_what_a_group_stands_for():
    field = next(f for f in fields(Grouped) if f.name == "published")
    assert field.metadata["help"] == "As published: lr=0.1, data=places, wide; a flag beside it wins"


def test_the_nearest_file_decides(folder):
    (folder/"below/settings.ini").write_text("[DEFAULT]\nsize = 48\n")
    assert read(Settings) == Settings(size=48)


def test_values_have_the_type_of_the_default(monkeypatch):
    assert (read(Settings).lr, read(Settings).data) == (1e-4, "7")
    monkeypatch.setenv("FASTINPAINT_SIZE", "")  # as good as unset
    assert read(Settings).size == 96


def test_a_wrong_value_names_its_source(folder, monkeypatch):
    (folder/"settings.ini").write_text("[DEFAULT]\nbs = many\n")
    with pytest.raises(InputError, match=r"bs = many \(settings.ini\) is no int"): read(Settings)
    assert read(Settings, bs=2).bs == 2
    monkeypatch.setenv("FASTINPAINT_BS", "1.5")
    with pytest.raises(InputError, match=r"1.5 \(FASTINPAINT_BS in the environment\) is no int"):
        read(Settings)


@pytest.mark.parametrize("text", [
    b"size = 5\n", b"[DEFAULT]\nsize\n", b"[DEFAULT]\nsize = 5\nsize = 6\n", b"\xff\xfe"])
def test_a_file_that_cannot_be_parsed_is_named(folder, text):
    (folder/"settings.ini").write_bytes(text)
    with pytest.raises(InputError, match=r"settings.ini cannot be read: .*"): read(Settings)


def test_no_file_is_needed(folder):
    (folder/"settings.ini").unlink()
    assert read(Settings) == Settings()
