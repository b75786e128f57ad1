"What becomes of photographs, and the report of it"
import os
import sys

import pandas as pd
import pytest

from fastinpaint.core.errors import InputError
from fastinpaint.fill.inpainter import Inpainter
from fastinpaint.fill.jobs import folder_jobs
from fastinpaint.fill.outcomes import Outcome, filled, read_report, write_report

OUTCOMES = [Outcome("a.jpg", "a.png", seconds=.5, strategy="whole"), Outcome("b.jpg", "b.png", "kept", None),
            Outcome("c.jpg", "c.png").failed("it is 3x2, \"not\" 4x4")]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_report_has_a_row_for_each_and_can_be_read_back(tmp_path, suffix):
    path = write_report(tmp_path/f"deep/report.{suffix}", OUTCOMES)
    rows = (pd.read_csv if suffix == "csv" else pd.read_parquet)(path)
    assert [*rows] == ["image", "out", "status", "seconds", "strategy", "error"]
    assert [*rows["status"]] == ["filled", "kept", "failed"] and rows["error"][2] == OUTCOMES[2].error
    assert read_report(path) == {"a.png": (.5, "whole"), "b.png": (None, ""), "c.png": (0., "")}
    write_report(path, [])
    assert read_report(path) == {}


def test_without_pyarrow_a_report_is_csv(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.warns(UserWarning, match="the report is CSV: Parquet needs pyarrow"):
        assert write_report(tmp_path/"report.parquet", OUTCOMES) == tmp_path/"report.csv"
    assert len((tmp_path/"report.csv").read_text().splitlines()) == 4


def test_a_report_of_another_kind_is_refused_before_anything_is_filled(tmp_path):
    with pytest.raises(InputError, match="report.txt is no table"): read_report(tmp_path/"report.txt")
    (tmp_path/"report.csv").write_text("image,out\n")
    with pytest.raises(InputError, match="csv has no column status"): read_report(tmp_path/"report.csv")


def test_photographs_of_one_size_go_together_and_a_bad_one_takes_no_other_along(folders):
    (folders["images"]/"0.png").write_text("text")
    jobs = folder_jobs(folders["images"], folders["masks"], folders["out"])
    jobs[5] = jobs[5]._replace(out=str(folders["out"]/"out.txt"))
    inpainter, seen = Inpainter(folders["model"], "cpu"), []
    handle = inpainter.net.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    found = filled(inpainter, jobs, dict(texture=False))
    handle.remove()
    assert [i for i, o in enumerate(found) if o.status == "failed"] == [0, 5] and seen == [6]
    assert "'.txt' cannot hold" in found[5].error and found[1].strategy == "whole" and found[1].seconds > 0

    assert len([*folders["out"].rglob("*.png")]) == 6


def test_a_full_disk_is_why_a_photograph_has_failed(folders, monkeypatch):
    def full(fd): raise OSError(28, "No space left on device")
    jobs = folder_jobs(folders["images"], folders["masks"], folders["out"])
    monkeypatch.setattr(os, "fsync", full)
    found, = filled(Inpainter(folders["model"], "cpu"), jobs[:1], dict(texture=False))
    assert found.status == "failed" and "No space left on device; nothing was written" in found.error
    assert not [o for o in folders["out"].rglob("*") if o.is_file()]
