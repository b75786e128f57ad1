"The report of `fastinpaint doctor` and its self-test"
import re
import socket
import subprocess
import sys

import pytest
import torch
from packaging.requirements import Requirement

from fastinpaint.models import pretrained
from fastinpaint.tools import doctor, selftest
from fastinpaint.tools.settings import DoctorSettings

WORKING = [sys.executable, "-c", "print('works; 1 s')"]
BROKEN = {"error": ([sys.executable, "-c", "print('so far'); raise ValueError('the decoder')"],
                    "ValueError: the decoder"),
          "crash": ([sys.executable, "-c", "import os; print('so far', flush=True); os.abort()"],
                    "exit code -6"),
          "hang": ([sys.executable, "-c", "import time; print('so far', flush=True); time.sleep(99)"],
                   "no end within")}


@pytest.fixture
def parts(monkeypatch):
    "Commands that stand for the parts, by name"
    commands, pipe = dict.fromkeys(doctor.PARTS, WORKING), subprocess.PIPE
    monkeypatch.setattr(doctor, "started", lambda part, _: subprocess.Popen(
        commands[part], text=True, stdout=pipe, stderr=pipe))
    return commands


def test_a_report_is_one_block_that_names_what_is_installed(parts, capsys):
    doctor.main(DoctorSettings())
    out, err = capsys.readouterr()
    assert out.startswith("```\nfastinpaint ") and out.endswith("\nall works\n```\n")
    assert out.count("```") == 2
    assert f"torch {torch.__version__.partition('+')[0]}" in out and "  app        gradio" in out
    assert all(f"\n{what}\n  works; 1 s\n" in out for what in doctor.PARTS.values())
    assert "Into a bug report" in err


@pytest.mark.parametrize("how", BROKEN)
def test_a_part_that_fails_is_told_with_its_error_and_exit_code_1(parts, capsys, monkeypatch, how):
    monkeypatch.setattr(doctor, "TIMEOUT", 5)
    parts["fill"], error = BROKEN[how]
    with pytest.raises(SystemExit) as ended: doctor.main(DoctorSettings())
    out = capsys.readouterr().out
    assert ended.value.code == 1 and error in out and "\n  so far\n" in out
    assert out.endswith("\nfailed: self-test: fill\n```\n")
    assert out.count("works; 1 s") == 3


def test_homes_are_not_told(parts, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    parts["found"] = [sys.executable, "-c", f"print('{tmp_path}/weights.pth')"]
    doctor.main(DoctorSettings())
    assert "  ~/weights.pth\n" in capsys.readouterr().out


@pytest.mark.parametrize("requirement, told", [
    ("torch>=2", r"^torch [\d.+a-z]+$"), ("torch>=99", "^torch .*, but >=99 is needed$"),
    ("no-such-package", "^no-such-package is missing$")])
def test_packages_that_are_missing_or_too_old(requirement, told):
    line = doctor.found(Requirement(requirement))
    assert re.search(told, line), line


@pytest.mark.parametrize("part", [selftest.fill, selftest.train, selftest.kernel])
def test_the_self_test_works_here(part): part("cpu")


def test_a_part_is_a_process_of_its_own(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    ok, lines = doctor.ended(doctor.started("kernel", "cpu"))
    assert ok and lines[-1].startswith("works; "), lines


def test_a_self_test_notices_a_fill_of_known_pixels(monkeypatch):
    from fastinpaint.fill.inpainter import Inpainter
    monkeypatch.setattr(Inpainter, "__call__", lambda self, image, mask: 255 - image)
    with pytest.raises(RuntimeError, match="known pixels"): selftest.fill("cpu")
    monkeypatch.setattr(Inpainter, "__call__", lambda self, image, mask: image)
    with pytest.raises(RuntimeError, match="left pixels of the hole"): selftest.fill("cpu")


def test_what_is_found_needs_no_network(monkeypatch, tmp_path, capsys):
    def no_network(*_, **__): raise AssertionError("a server was asked")
    for name in "getaddrinfo", "create_connection": monkeypatch.setattr(socket, name, no_network)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(pretrained, "package_file", lambda *_: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (tmp_path/"checkpoints").mkdir()
    (tmp_path/"checkpoints/vgg16-397923af.pth").touch()
    (tmp_path/"models--org--name").mkdir()
    found = selftest.weights()
    assert found["sample"].name == "sample.safetensors" and found["autoencoder-plain"]
    assert found["LPIPS, vgg"] and found["Hub, org/name"]
    assert found["LPIPS, alex"] is found["EfficientNet-Lite0"] is found["Inception (FID)"] is None
    selftest.found("cpu")
    out = capsys.readouterr().out
    assert "used: cpu, " in out and "LPIPS, alex                  not here" in out and "W&B: " in out
