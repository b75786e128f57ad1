"The layout that pyproject.toml promises: floors in order, no circle, files that are not too long"
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [p for folder in ("fastinpaint", "kernels", "recipes") for p in sorted((ROOT/folder).rglob("*.py"))]


@pytest.fixture
def package(tmp_path):
    "The package as it is installed, with kernels/ and recipes/ inside it"
    ignore = shutil.ignore_patterns("__pycache__", "*.jpg", "*.safetensors")
    shutil.copytree(ROOT/"fastinpaint", tmp_path/"fastinpaint", ignore=ignore)
    for name in "kernels", "recipes": shutil.copytree(ROOT/name, tmp_path/"fastinpaint"/name, ignore=ignore)
    return tmp_path


def lint(package):
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()",
               "--config", str(ROOT/"pyproject.toml"), "--no-cache"]
    env = os.environ | {"PYTHONPATH": str(package), "COLUMNS": "200"}
    run = subprocess.run(command, cwd=package, env=env, capture_output=True, text=True)
    return run.returncode, run.stdout + run.stderr


def test_imports_run_downwards_and_in_no_circle(package):
    code, output = lint(package)
    assert code == 0 and "2 kept, 0 broken" in output, output


@pytest.mark.parametrize("file, line, message", [
    ("core/files.py", "from ..data import photos", "A room uses only"),
    ("judge/metrics.py", "from ..fill import refine", "A room uses only"),
    ("kernels/reference.py", "from ..train import losses", "A room uses only"),
    ("models/narrow.py", "from . import lama", "No circle")])
def test_an_import_that_does_not_is_told(package, file, line, message):
    with (package/"fastinpaint"/file).open("a") as f: f.write(f"\n{line}\n")
    code, output = lint(package)
    assert code == 1 and f"{message}" in output.split("Broken contracts")[1], output


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_holds_one_idea(path): assert len(path.read_text().splitlines()) <= 250
