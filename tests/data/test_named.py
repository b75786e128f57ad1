import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastinpaint.core.errors import InputError, Unreachable
from fastinpaint.data import named
from fastinpaint.data.named import named_data
from fastinpaint.data.photos import find_images

SAMPLE = named_data("sample")


@pytest.fixture(scope="module")
def credits():
    with open(SAMPLE / "CREDITS.csv", newline="") as f: return list(csv.DictReader(f))


def test_every_photograph_is_credited_and_free(credits):
    files = {o.relative_to(SAMPLE).as_posix() for o in SAMPLE.rglob("*.jpg")}
    assert {o["file"] for o in credits} == files and len(credits) == len(files)
    assert {o["licence"] for o in credits} <= {"CC0-1.0", "public-domain"}
    assert all(o["source"] and o["author"] and o["package"] for o in credits)


def test_no_source_is_in_both_sets_nor_twice(credits):
    sources = [(o["package"], o["source"]) for o in credits]
    assert len(set(sources)) == len(sources)
    train, valid = ({o.name for o in (SAMPLE / sub).iterdir()} for sub in ("train", "valid"))
    assert not train & valid


def test_it_is_small_and_complete():
    for sub, count in ("train", 96), ("valid", 32):
        assert len(list((SAMPLE / sub).iterdir())) == count
    assert sum(o.stat().st_size for o in SAMPLE.rglob("*") if o.is_file()) <= 4e6


def test_photographs_are_256_pixels_of_colour_and_neither_black_nor_blank():
    for fn in sorted(Path(SAMPLE).rglob("*.jpg")):
        with Image.open(fn) as im:
            assert im.size == (256, 256) and im.mode == "RGB"
            assert 20 < np.asarray(im).mean() < 240 and np.asarray(im).std() > 8, fn


def test_named_data(tmp_path, monkeypatch):
    assert named_data(tmp_path) == tmp_path
    assert len(find_images(named_data("sample"))) == 128
    with pytest.raises(InputError, match="neither a folder nor one of sample, pets, imagenette"):
        named_data("petz")
    monkeypatch.setenv("FASTAI_HOME", str(tmp_path))
    monkeypatch.setattr(named, "fastai_path", lambda _: tmp_path)
    monkeypatch.setattr(named, "unreachable", lambda url: "no answer in 4 s")
    with pytest.raises(Unreachable, match="cannot download pets.*no answer.*--data path/to/photos"):
        named_data("pets")
