"What is to be filled: folders, manifests and shares of them"
import sys

import pandas as pd
import pytest
from PIL import Image

from fastinpaint.core.errors import InputError, MissingPackage
from fastinpaint.fill.jobs import Job, folder_jobs, lossless_suffix, manifest_jobs, share


def test_results_are_lossless_unless_said_otherwise(tmp_path):
    for name, mode in {"a.jpg": "RGB", "b.jpg": "CMYK", "c.tif": "L"}.items():
        Image.new(mode, (8, 8)).save(tmp_path/name)
    (tmp_path/"d.jpg").write_text("text")
    for name, suffix in {"a.jpg": ".png", "b.jpg": ".tif", "c.tif": ".tif", "d.jpg": ".png"}.items():
        assert lossless_suffix(tmp_path/name) == suffix


def written(path, rows, columns=("image", "mask", "out")):
    table = pd.DataFrame(rows, columns=columns)
    if path.suffix == ".csv": table.to_csv(path, index=False)
    else: table.to_parquet(path)
    return path


ROWS = [("a.jpg", "masks/1.png", "a.png"), ("a.jpg", "masks/2.png", "deep/a.png"),
        ("/far/b.jpg", "masks/NA", "/else/b.png")]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_manifest_names_what_lies_beside_it_and_results_there_or_in_another_folder(tmp_path, suffix):
    manifest = written(tmp_path/f"manifest.{suffix}", ROWS)
    def jobs(out): return [Job(f"{tmp_path}/a.jpg", f"{tmp_path}/masks/1.png", f"{out}/a.png"),
                           Job(f"{tmp_path}/a.jpg", f"{tmp_path}/masks/2.png", f"{out}/deep/a.png"),
                           Job("/far/b.jpg", f"{tmp_path}/masks/NA", "/else/b.png")]
    assert manifest_jobs(manifest) == jobs(tmp_path)
    assert manifest_jobs(manifest, "filled") == jobs("filled")


@pytest.mark.parametrize("rows, message", [
    ([ROWS[0], ROWS[1], ("b.jpg", "b.png", "./a.png")], "rows 1 and 3 have one result, .*a.png"),
    ([ROWS[0], ("b.jpg", "b.png", "a.jpg")], "result of row 2 would replace .*a.jpg.* row 1"),
    ([("a.jpg", "b.png", "b.png")], "would replace .*b.png"),
    ([ROWS[0], ("b.jpg", " ", "b.png")], "row 2 has no mask")])
def test_rows_that_do_not_go_together_are_named(tmp_path, rows, message):
    with pytest.raises(InputError, match=message): manifest_jobs(written(tmp_path/"manifest.csv", rows))


def test_a_table_that_is_none_is_described(tmp_path, monkeypatch):
    manifest = written(tmp_path/"m.csv", ROWS, ("image", "hole", "out"))
    with pytest.raises(InputError, match="m.csv has no column mask, but image, hole, out; expected im"):
        manifest_jobs(manifest)
    with pytest.raises(FileNotFoundError, match="no such file: .*nil.csv"): manifest_jobs(tmp_path/"nil.csv")
    with pytest.raises(InputError, match="ends in .csv or .parquet"): manifest_jobs(tmp_path/"m.txt")
    for name in "text.parquet", "empty.csv", "bytes.csv":
        (tmp_path/name).write_bytes({"e": b"", "t": b"text", "b": b"\xff\x00,"}[name[0]])
        with pytest.raises(InputError, match=f"{name} (cannot be read|has no column)"):
            manifest_jobs(tmp_path/name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackage, match=r"pip install 'fastinpaint\[parquet\]'"):
        manifest_jobs(tmp_path/"text.parquet")


def test_shares_are_the_same_everywhere_and_together_everything(folders, tmp_path):
    names = [f"deep/{i}.png" for i in range(1000)]
    shares = [[*filter(share(f"{i}/3"), names)] for i in (1, 2, 3)]
    assert sorted(sum(shares, [])) == sorted(names) and min(map(len, shares)) > 280
    assert shares[0][:4] == ["deep/1.png", "deep/2.png", "deep/3.png", "deep/6.png"]
    given = [folders[name] for name in ("images", "masks", "out")]
    whole, parts = folder_jobs(*given), [folder_jobs(*given, shard=f"{i}/2") for i in (1, 2)]
    assert all(parts) and sorted(sum(parts, [])) == sorted(whole)
    manifest = written(tmp_path/"manifest.csv", [("a", "b", f"{i}.png") for i in range(9)])
    parts = [manifest_jobs(manifest, shard=f"{i}/2") for i in (1, 2)]
    assert all(parts) and sorted(sum(parts, [])) == sorted(manifest_jobs(manifest))
    for wrong in "0/3", "4/3", "3", "a/b", "1/0", "-1/3":
        with pytest.raises(InputError, match=f"--shard {wrong}: expected i/n"): share(wrong)
