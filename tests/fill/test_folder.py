import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fastinpaint.core.errors import InputError
from fastinpaint.data import remote
from fastinpaint.data.shard_index import read_shards
from fastinpaint.data.shard_writer import write_shards
from fastinpaint.fill.folder import FolderResult, fill_folder, fill_manifest
from fastinpaint.fill.inpainter import Inpainter


def files(folder):
    return {str(o.relative_to(folder)): o.read_bytes() for o in Path(folder).rglob("*") if o.is_file()}


def test_every_photograph_is_filled_once(folders):
    assert fill_folder(**folders) == FolderResult(filled=8)
    inpainter, out = Inpainter(folders["model"], "cpu"), files(folders["out"])
    assert out.keys() == {f"deep/{i}.png" if i % 2 else f"{i}.png" for i in range(8)}
    for name in "0.png", "deep/7.png":
        with Image.open(folders["out"]/name) as got:
            alone = inpainter(folders["images"]/name, folders["masks"]/f"{Path(name).stem}.gif")
            assert np.array_equal(np.asarray(got), np.asarray(alone))

    (folders["out"]/"0.png").write_bytes(b"as it was left")
    (folders["out"]/"2.png").unlink()
    assert fill_folder(**folders) == FolderResult(filled=1, kept=7)
    assert files(folders["out"]) == out | {"0.png": b"as it was left"}
    assert fill_folder(**folders, overwrite=True) == FolderResult(filled=8) and files(folders["out"]) == out


def test_one_bad_file_does_not_stop_the_rest(folders, capsys):
    (folders["images"]/"0.png").write_text("text")
    (folders["masks"]/"2.gif").unlink()
    Image.new("1", (9, 9), 1).save(folders["masks"]/"4.gif")
    for name in "6", "7": Image.new("1", (48, 40)).save(folders["masks"]/f"{name}.gif")
    result = fill_folder(**folders)
    said = capsys.readouterr().err
    for name in "6.png", "deep/7.png": assert f"{folders['images']/name}: nothing to fill" in said
    head, *lines = str(result).splitlines()
    assert head == "filled 5, kept 0, failed 3:"
    for name, reason in {"0.png": "image", "2.png": "no mask of the same name", "4.png": "9x9"}.items():
        start = f"  {folders['images']/name}: "
        assert any(line.startswith(start) and reason in line for line in lines), (name, lines)
    assert len(files(folders["out"])) == 5


def test_photographs_of_one_name_have_results_of_their_own(folders):
    shutil.copy(folders["images"]/"0.png", folders["images"]/"0.bmp")
    assert fill_folder(**folders, format="webp").filled == 9
    assert {"0.png.webp", "0.bmp.webp", "2.webp"} <= files(folders["out"]).keys()


@pytest.mark.parametrize("wrong, error, message", [
    (dict(out="photos"), InputError, "a folder of their own"),
    (dict(masks="others"), InputError, "one called 0.png"),
    (dict(images="nowhere"), FileNotFoundError, "nowhere"), (dict(workers=0), InputError, "workers=0"),
    (dict(model="none.safetensors"), FileNotFoundError, "none.safetensors")])
def test_what_does_not_fit_is_said_before_anything_is_filled(folders, tmp_path, wrong, error, message):
    (tmp_path/"others").mkdir()
    Image.new("1", (8, 8)).save(tmp_path/"others/x.png")
    with pytest.raises(error, match=message):
        fill_folder(**(folders | {k: v if k == "workers" else tmp_path/v for k, v in wrong.items()}))
    assert not (tmp_path/"filled").exists()


# manifests and reports

@pytest.fixture
def manifest(folders, tmp_path):
    "A table of two holes in one photograph, one in another, and a photograph that is none"
    (tmp_path/"photos/text.png").write_text("text")
    rows = [("photos/0.png", "masks/0.gif", "a.png"), ("photos/0.png", "masks/1.gif", "deep/b.png"),
            ("photos/deep/1.png", "masks/1.gif", "c.tif"), ("photos/text.png", "masks/1.gif", "d.png"),
            ("photos/text.png", "masks/1.gif", "e.png")]
    pd.DataFrame(rows, columns=["image", "mask", "out"]).to_csv(tmp_path/"manifest.csv", index=False)
    return dict(manifest=tmp_path/"manifest.csv", model=folders["model"], device="cpu", out=folders["out"])


def test_every_row_of_a_manifest_is_filled_once(manifest):
    result = fill_manifest(**manifest)
    assert (result.filled, result.kept, len(result.failed)) == (3, 0, 2), result
    assert {name: reason.endswith("image file") for name, reason in result.failed.items()}
    assert files(manifest["out"]).keys() == {"a.png", "deep/b.png", "c.tif"}
    result = fill_manifest(**manifest)
    assert (result.filled, result.kept, len(result.failed)) == (0, 3, 2)


def test_a_report_of_a_resumed_run_has_every_photograph(manifest, tmp_path):
    def interrupting(outcomes, total):
        yield next(outcomes)
        raise KeyboardInterrupt

    report = tmp_path/"report.parquet"
    with pytest.raises(KeyboardInterrupt):
        fill_manifest(**manifest, report=report, workers=2, progress=interrupting)
    first = pd.read_parquet(report)
    assert len(first) == 1
    fill_manifest(**manifest, report=report)
    rows = pd.read_parquet(report)
    assert sorted(rows["out"]) == [str(manifest["out"]/o) for o in ("a.png", "c.tif", "d.png", "deep/b.png",
                                                                    "e.png")]
    kept = rows[rows["status"] == "kept"]
    assert {*first["out"]} <= {*kept["out"]} and (rows["status"] == "failed").sum() == 2
    again = kept.set_index("out").loc[first["out"]]
    assert [*again["seconds"]] == [*first["seconds"]] and [*again["strategy"]] == ["whole"]


def test_a_report_that_cannot_be_written_hides_nothing(manifest, tmp_path):
    (tmp_path/"file").write_text("no folder")
    with pytest.raises(OSError, match="the report was not written, the results were: filled 3, kept 0"):
        fill_manifest(**manifest, report=tmp_path/"file/report.csv")
    assert len(files(manifest["out"])) == 3


def test_shards_share_a_folder(folders):
    parts = [fill_folder(**folders, shard=f"{i}/2") for i in (1, 2)]
    assert sum(part.filled for part in parts) == 8 and all(part.filled and not part.kept for part in parts)
    assert fill_folder(**folders) == FolderResult(kept=8)


# shards

@pytest.fixture
def sharded(folders, tmp_path):
    "The same as `folders`, photographs and masks in shards of three"
    for name in "images", "masks": write_shards(folders[name], tmp_path/f"{name}-shards", count=3)
    return folders | {name: tmp_path/f"{name}-shards" for name in ("images", "masks")}


def test_photographs_and_masks_in_shards_are_filled_like_their_files(folders, sharded, tmp_path):
    fill_folder(**folders)
    assert fill_folder(**sharded | dict(out=tmp_path/"again"), workers=2) == FolderResult(filled=8)
    assert files(tmp_path/"again") == files(folders["out"])
    assert fill_folder(**sharded) == FolderResult(kept=8)


def test_a_missing_shard_fails_its_photographs_and_no_others(sharded, monkeypatch, capsys):
    monkeypatch.setattr(remote, "WAITS", (.01,))
    (sharded["images"]/"000001.tar").unlink()
    result = fill_folder(**sharded)
    assert result.filled == 5 and len(result.failed) == 3, result
    assert all("000001.tar" in name for name in result.failed)
    assert any("000001.tar: " in reason and "it is not there" in reason for reason in result.failed.values())
    assert capsys.readouterr().out.count("skipped") == 1


def test_a_manifest_names_photographs_in_shards(sharded, tmp_path):
    shard = read_shards(sharded["images"])[0]
    rows = [(str(shard), f"masks/{Path(shard.name).stem}.gif", "a.png"),
            (f"{shard}x", "masks/0.gif", "b.png")]
    pd.DataFrame(rows, columns=["image", "mask", "out"]).to_csv(tmp_path/"manifest.csv", index=False)
    result = fill_manifest(tmp_path/"manifest.csv", sharded["out"], sharded["model"], device="cpu")
    assert result.filled == 1 and list(files(sharded["out"])) == ["a.png"]
    assert [*result.failed] == [f"{shard}x"] and "no such file" in result.failed[f"{shard}x"]


def test_no_name_in_an_index_leads_out_of_the_results(sharded):
    index = sharded["images"]/"index.jsonl"
    index.write_text(index.read_text().replace('"0.png"', '"../0.png"'))
    with pytest.raises(InputError, match="outside of"): fill_folder(**sharded)
    assert not sharded["out"].exists()
