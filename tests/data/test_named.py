import csv
import hashlib
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastinpaint.core.errors import InputError, Unreachable
from fastinpaint.data import named
from fastinpaint.data.loaders import InpaintDataLoaders
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


# LaMa's sets, small

@pytest.fixture
def home(tmp_path, monkeypatch, photo):
    "fastai's folder of data, for sets of few photographs, and a function that makes an archive; no network"
    monkeypatch.setattr(named, "fastai_path", lambda _: tmp_path / "data")
    monkeypatch.setattr("fastinpaint.data.archives.unreachable", lambda url: "no answer in 4 s")
    for name, count in dict(VALID=2, PLACES_TEST=5, CELEBA_TEST=3, CELEBA=10).items():
        monkeypatch.setattr(named, name, count)

    def archive(path, names):
        path.parent.mkdir(parents=True, exist_ok=True)
        files = [(photo(tmp_path / "made" / o, color=(i, 9, 9)), o) for i, o in enumerate(names)]
        if path.suffix == ".zip":
            with zipfile.ZipFile(path, "w") as f: [f.write(*o) for o in files]
        else:
            with tarfile.open(path, "w") as f: [f.add(*o) for o in files]
        monkeypatch.setitem(named.PLACES, path.name, hashlib.md5(path.read_bytes()).hexdigest())
    return tmp_path / "data", archive


def names_in(photos):
    return {o: {Path(f).name for f in find_images(photos / o)} for o in ("train", "valid", "test")}


HELD = [f"val_large/Places365_val_{i:08}.jpg" for i in range(9)]


@pytest.mark.parametrize("name, train", [("places2", "train_large_places365standard.tar"),
                                         ("places2-challenge", "train_large_places365challenge.tar")])
def test_places_is_checked_unpacked_and_divided_once(home, name, train):
    data, archive = home
    archive(data / name / train, ["data_large/a/abbey/1.jpg", "data_large/z/zoo/1.jpg"])
    archive(data / name / "val_large.tar", HELD)
    photos = named_data(name)
    found, held = names_in(photos), {Path(o).name for o in HELD}
    assert len(find_images(photos / "train")) == 2
    assert (len(found["valid"]), len(found["test"])) == (2, 5) and not found["valid"] & found["test"]
    assert found["valid"] | found["test"] < held
    for o in (data / name).glob("*.tar"): o.unlink()  # no longer needed
    assert named_data(f"{name}/test") == photos / "test"
    dls = InpaintDataLoaders.from_folder(photos, size=32, bs=2, num_workers=0, device="cpu")
    assert (len(dls.train_ds), len(dls.valid_ds)) == (2, 2)


def test_the_test_photographs_of_a_list_are_taken(home):
    data, archive = home
    archive(data / "places2-small" / "train_256_places365standard.tar", ["data_256/1.jpg"])
    archive(data / "places2-small" / "val_256.tar", HELD)
    listed = data / "places2-small" / "eval_random_files.txt"
    listed.write_text("/its/val/Places365_val_00000003.jpg\n/its/val/none.jpg\n")
    with pytest.raises(InputError, match="eval_random_files.txt names 1 photographs.*none.jpg"):
        named_data("places2-small")
    listed.write_text("/its/val/Places365_val_00000003.jpg\n")
    assert names_in(named_data("places2-small"))["test"] == {"Places365_val_00000003.jpg"}


def test_places_is_fetched_from_its_authors(home):
    with pytest.raises(Unreachable, match="csail.mit.edu.*train_large_places365standard.tar.*no answer"):
        named_data("places2")
    with pytest.raises(InputError, match="neither a folder nor one of .*places2, places2-small"):
        named_data("places2/tset")


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("listed", [True, False])
def test_celeba_is_divided_as_lama_counts(home, first, listed):
    data, archive = home
    archive(data / "celeba-hq" / "data.zip", [f"data256x256/{i + first:05}.jpg" for i in range(10)])
    if listed: (data / "celeba-hq" / "val_shuffled.flist").write_text("9.jpg\n0.jpg\n4.jpg\n")
    photos = named_data("celeba-hq")
    parts = names_in(photos)
    assert {k: len(v) for k, v in parts.items()} == dict(train=5, valid=2, test=3)
    assert set().union(*parts.values()) == {f"{i}.jpg" for i in range(10)}
    if listed: assert parts["test"] == {"0.jpg", "4.jpg", "9.jpg"}
    with Image.open(next(photos.rglob("7.jpg"))) as im: assert im.getpixel((0, 0))[0] == 7


def test_celeba_says_how_to_get_it_and_where_to_put_it(home, photo):
    data, _ = home
    with pytest.raises(InputError, match=f"holds 0 of the 10 .*lama#celeba.*put the .* in {data}/celeba-hq"):
        named_data("celeba-hq")
    for i in range(10):
        with pytest.raises(InputError, match=f"holds {i} of the 10"): named_data("celeba-hq")
        photo(data / "celeba-hq" / "CelebA-HQ-img" / f"{i}.jpg")
    assert len(find_images(named_data("celeba-hq"))) == 10
    assert len(find_images(data / "celeba-hq" / "CelebA-HQ-img")) == 10  # the user's files stay
