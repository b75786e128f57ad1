import os
import shutil
import signal
import tarfile
from multiprocessing import get_context

import numpy as np
import pytest
from PIL import Image

from fastinpaint.core.errors import InputError, MissingFile
from fastinpaint.data import shard_writer
from fastinpaint.data.shard_index import read_shards
from fastinpaint.data.shard_writer import write_shards


def contents(folder): return {o.relative_to(folder): o.read_bytes() for o in folder.rglob("*") if o.is_file()}


def test_a_shard_is_a_tar_file_of_the_photographs_as_they_are(folder, tmp_path):
    result = write_shards(folder, tmp_path/"out", count=4)
    assert (result.photographs, result.shards, result.skipped) == (10, 3, {})
    assert result.bytes == sum(o.stat().st_size for o in (tmp_path/"out").glob("*.tar"))
    found = {}
    for path in sorted((tmp_path/"out").glob("*.tar")):
        with tarfile.open(path) as f:
            assert all(o.mtime == 0 and o.uname == "" for o in f)
            found |= {o.name: f.extractfile(o).read() for o in f}
    assert found == {o.name: o.read_bytes() for o in folder.iterdir()}
    assert list(found) != sorted(found)  # dealt at random


def test_any_name_of_a_file_will_do(folder, tmp_path):
    for name in "é ü.png", "x"*120 + ".png", "a.b.png": shutil.copy(folder/"1.png", folder/name)
    write_shards(folder, tmp_path/"out")
    assert {o.name for o in read_shards(tmp_path/"out")} == {o.name for o in folder.iterdir()}
    with tarfile.open(tmp_path/"out/000000.tar") as f:
        assert {o.name for o in f} == {o.name for o in folder.iterdir()}


def test_shards_of_webdatasets_own_reader(folder, tmp_path):
    wds = pytest.importorskip("webdataset")
    write_shards(folder, tmp_path/"out", count=4)
    samples = list(wds.WebDataset([str(o) for o in (tmp_path/"out").glob("*.tar")], shardshuffle=False))
    assert {o["__key__"]: o["png"] for o in samples} == {o.stem: o.read_bytes() for o in folder.iterdir()}


def test_equal_photographs_make_equal_bytes(folder, tmp_path):
    write_shards(folder, tmp_path/"a", count=4)
    os.utime(folder/"0.png", (5, 5))
    write_shards(folder, tmp_path/"b", count=4)
    assert contents(tmp_path/"a") == contents(tmp_path/"b")


def test_unreadable_files_are_named_and_left_out(folder, tmp_path, truncated):
    (folder/"empty.jpg").touch()
    (folder/"text.png").write_text("no image")
    truncated(folder/"half.jpg")
    result = write_shards(folder, tmp_path/"out", count=4)
    assert result.photographs == 10 and result.skipped.keys() == {"empty.jpg", "text.png", "half.jpg"}
    assert "3 files left out:" in str(result) and "empty.jpg: the file is empty" in str(result)
    assert {o.name for o in read_shards(tmp_path/"out")} == {f"{i}.png" for i in range(10)}
    assert write_shards(folder, tmp_path/"out", count=4) == result


def test_larger_photographs_are_resized_and_keep_names_and_kinds(tmp_path, photo):
    for name in "a.jpg", "b.png", "c.tif", "d.gif", "e.webp": photo(tmp_path/"in"/name, 200, 100)
    photo(tmp_path/"in/small.jpg", 30, 20)
    write_shards(tmp_path/"in", tmp_path/"out", side=40)
    for o in read_shards(tmp_path/"out"):
        im = Image.open(o.open(None))
        assert im.size == ((30, 20) if o.name == "small.jpg" else (80, 40))
        assert im.format == dict(a="JPEG", b="PNG", c="TIFF", d="PNG", e="WEBP", s="JPEG")[o.name[0]]
        if o.name != "small.jpg":
            assert abs(np.asarray(im.convert("RGB"), int)[5, 5] - (200, 0, 0)).max() < 12


@pytest.mark.parametrize("when", ["between", "amid"])
def test_killed_it_goes_on_and_ends_with_the_same_bytes(folder, tmp_path, monkeypatch, when):
    (folder/"text.png").write_text("no image")
    write_shards(folder, tmp_path/"whole", count=3)
    packed = shard_writer._packed

    def killing(shards, total):
        for i, o in enumerate(shards):
            yield o
            if i == 1: os.kill(os.getpid(), signal.SIGKILL)

    def killing_amid(fn, side):
        if any((tmp_path/"out").glob("000001.tar")): os.kill(os.getpid(), signal.SIGKILL)
        return packed(fn, side)

    if when == "amid": monkeypatch.setattr(shard_writer, "_packed", killing_amid)
    args = (folder, tmp_path/"out", 0, 3, *([killing] if when == "between" else []))
    process = get_context("fork").Process(target=write_shards, args=args)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL and not (tmp_path/"out/index.jsonl").exists()
    with pytest.raises(MissingFile): read_shards(tmp_path/"out")
    with open(tmp_path/"out/.index.jsonl", "ab") as f: f.write(b'{"shard": "0000')  # cut short
    written = []
    monkeypatch.setattr(shard_writer, "_packed", lambda fn, side: written.append(fn) or packed(fn, side))
    assert write_shards(folder, tmp_path/"out", count=3).photographs == 10
    assert contents(tmp_path/"out") == contents(tmp_path/"whole") and len(written) == 5


def test_other_photographs_or_settings_need_another_folder(folder, tmp_path, photo):
    write_shards(folder, tmp_path/"out", count=4)
    with pytest.raises(InputError, match="of other photographs, or of another --resize or --count"):
        write_shards(folder, tmp_path/"out", count=5)
    photo(folder/"new.png")
    with pytest.raises(InputError, match="holds shards of other photographs"):
        write_shards(folder, tmp_path/"out", count=4)
    with pytest.raises(InputError, match="give the shards a folder of their own"):
        write_shards(folder, folder/"shards")
    (tmp_path/"empty").mkdir()
    with pytest.raises(MissingFile, match="no images in"): write_shards(tmp_path/"empty", tmp_path/"again")


def test_shards_are_of_some_128_megabytes(folder, monkeypatch, tmp_path):
    size = sum(o.stat().st_size for o in folder.iterdir())/10
    monkeypatch.setattr(shard_writer, "SHARD_BYTES", 3*size)
    assert write_shards(folder, tmp_path/"out").shards == 4
