import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from fastinpaint.cli import main
from fastinpaint.core.errors import InputError
from fastinpaint.core.settings import flag
from fastinpaint.models.load import load_model, save_model
from fastinpaint.tools.settings import TOOLS

RECIPE = ("--size 32 --bs 2 --epochs 1 --steps 2 --width 2 --blocks 1 --workers 0 --valid .25 "
          "--device cpu --autoencoder none")


@pytest.fixture
def cli():
    "Runs the command as a shell would; the result has `exit_code`, `stdout`, `stderr`"
    return lambda *args: CliRunner().invoke(main, list(map(str, args)))


@pytest.fixture
def here(photos, tmp_path, tiny_lama, monkeypatch):
    "The current folder: photo.png, mask.png, three photographs and their masks, and a model"
    mask = np.zeros((40, 48), bool)
    mask[10:20, 10:30] = True
    for folder in "photos", "masks": (tmp_path/folder).mkdir()
    for i in range(3):
        shutil.copy(photos/f"{i}.png", tmp_path/f"photos/{i}.png")
        Image.fromarray(mask).save(tmp_path/f"masks/{i}.png")
    shutil.copy(photos/"0.png", tmp_path/"photo.png")
    Image.fromarray(mask).save(tmp_path/"mask.png")
    save_model(tiny_lama(), tmp_path/"tiny.safetensors")
    (tmp_path/"table.csv").write_text("image\nphoto.png\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pixels(path):
    with Image.open(path) as im: return np.asarray(im)


# filling

def test_one_photograph(cli, here):
    before = (here/"photo.png").read_bytes()
    result = cli("fill", "photo.png", "mask.png", "--model", "tiny.safetensors", "--device", "cpu")
    assert (result.exit_code, result.stdout) == (0, "photo-filled.png\n"), result.stderr
    changed = (pixels("photo.png") != pixels("photo-filled.png")).any(-1)
    assert changed.any() and not changed[pixels("mask.png") == 0].any()
    assert cli("fill", "photo.png", "mask.png", "-o", "to/out.tif", "--model", "tiny.safetensors",
               "--dilate", 2).exit_code == 0
    assert (pixels("to/out.tif") != pixels("photo.png")).any(-1).sum() > changed.sum()
    assert (here/"photo.png").read_bytes() == before


@pytest.mark.parametrize("out", ["od/", "od", "new/"])
def test_one_photograph_to_a_folder(cli, here, out):
    (here/"od").mkdir()
    command = "fill photo.png mask.png --model tiny.safetensors --device cpu --no-texture -o".split()
    result = cli(*command, out)
    assert (result.exit_code, result.stdout) == (0, f"{out.rstrip('/')}/photo-filled.png\n"), result.stderr
    assert pixels(here/out/"photo-filled.png").shape == (40, 48, 3)
    assert cli(*command, out, "--format", "tif").stdout.endswith("/photo-filled.tif\n")


def test_a_layers_strokes_are_filled_and_an_inverted_mask_is_warned_of(cli, here):
    layer = np.zeros((40, 48, 4), np.uint8)
    layer[10:20, 10:30] = 0, 0, 0, 255
    Image.fromarray(layer).save("layer.png")
    command = "fill photo.png", "--model tiny.safetensors --device cpu --no-texture"
    results = [cli(*command[0].split(), o, "-o", f"{o}-filled.png", *command[1].split())
               for o in ("mask.png", "layer.png")]
    assert all(o.exit_code == 0 and not o.stderr for o in results)
    assert np.array_equal(pixels("mask.png-filled.png"), pixels("layer.png-filled.png"))
    Image.fromarray(~layer[..., 3]).save("inverted.png")
    result = cli(*command[0].split(), "inverted.png", *command[1].split())
    assert result.exit_code == 0 and "Warning: over 60%" in result.stderr and "--invert" in result.stderr


def test_a_folder_goes_on_where_it_stopped_and_says_what_failed(cli, here):
    command = "fill photos --masks masks -o filled --model tiny.safetensors --device cpu".split()
    (here/"photos/1.png").write_text("text")
    result = cli(*command)
    assert (result.exit_code, result.stdout) == (1, "filled\n")
    assert "3/3 photos/2.png\n" in result.stderr
    assert "filled 2, kept 0, failed 1:\n  photos/1.png: " in result.stderr
    shutil.copy("photos/0.png", "photos/1.png")
    result = cli(*command)
    assert result.exit_code == 0 and result.stderr.endswith("filled 1, kept 2, failed 0\n")


def test_a_folder_is_written_as_shards_and_trained_on(cli, here):
    (here/"photos/text.png").write_text("no image")
    result = cli("shard", "photos", "-o", "shards", "--count", 2, "--resize", 36)
    assert (result.exit_code, result.stdout) == (0, "shards\n"), result.stderr
    assert "4/4 000001.tar\n3 photographs in 2 shards" in result.stderr
    assert "text.png: not an image" in result.stderr
    result = cli("train", "latent_control", "--data", "shards", *RECIPE.split())
    assert result.exit_code == 0 and (here/"runs/latent_control/model.safetensors").exists(), result.output
    result = cli("shard", "photos", "-o", "shards")
    assert result.exit_code == 1 and "Error: shards holds shards of other photographs" in result.stderr


@pytest.mark.parametrize("command, message", [
    ("fill photo.png", "name its mask"),
    ("fill photo.png mask.png --masks masks", "name its mask"),
    ("fill photos --masks masks", "name two more"),
    ("fill photos mask.png --masks masks -o out", "name two more"),
    ("fill photo.png mask.png -o photo.png", "would replace photo.png"),
    ("fill photo.png mask.png -o mask.png", "would replace"),
    ("fill nowhere.png mask.png", "nowhere.png"),
    ("fill photo.png mask.png -o a.png --format png", "leave out --format"),
    ("fill photo.png mask.png --shard 1/2", "for many"), ("fill photo.png mask.png --engine ray", "for many"),
    ("fill table.csv --masks masks", "names masks and results"),
    ("fill table.csv mask.png", "names masks and results"),
    ("fill photos --masks masks -o out --address a:1", "--address is for --engine ray"),
    ("train latnt", "latent_control"), ("train", "mask_control"),
    ("fil photo.png", "There are app, bench"), ("train latent --size wide", "--size"),
    ("bench --size wide", "--size")])
def test_a_wrong_command_has_exit_code_2(cli, here, command, message):
    before = sorted(here.rglob("*")), (here/"photo.png").read_bytes()
    result = cli(*command.split())
    assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.stderr
    assert (sorted(here.rglob("*")), (here/"photo.png").read_bytes()) == before


# errors

@pytest.mark.parametrize("command, message", [
    ("fill mask.png wide.png", "48x40"), ("fill photo.png text.png", "text.png"),
    ("fill photo.png mask.png --model none.safetensors", "none.safetensors"),
    ("fill photo.png mask.png --precision fp8", "fp8"),
    ("info text.png", "text.png"),
    ("train latent --data nowhere", "'nowhere' is neither a folder"),
    ("fill photos --masks there -o filled", "one called 0.png"),
    ("fill photos --masks masks -o filled --shard 3/2", "expected i/n"),
    ("fill photos --masks masks -o filled --report report.txt", "report.txt is no table"),
    ("fill table.csv", "table.csv has no column mask, out")])
def test_what_the_user_can_mend_is_one_line(cli, here, command, message):
    Image.new("1", (60, 40)).save("wide.png")
    (here/"text.png").write_text("text")
    (here/"there").mkdir()
    shutil.copy("mask.png", "there/x.png")
    result = cli(*command.split())
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    assert message in result.stderr


def test_several_fills_and_none_with_texture(cli, here):
    command = "fill photo.png mask.png --model tiny.safetensors --device cpu".split()
    result = cli(*command, "--fills", 3)
    names = [f"photo-filled-{i}.png" for i in (1, 2, 3)]
    assert (result.exit_code, result.stdout.split()) == (0, names), result.stderr
    fills = [pixels(name) for name in names]
    known = pixels("mask.png") == 0
    assert all(np.array_equal(fill[known], pixels("photo.png")[known]) for fill in fills)
    assert not any(np.array_equal(a, b) for a, b in ((fills[0], fills[1]), (fills[1], fills[2])))
    assert cli(*command, "--no-texture").exit_code == 0
    assert not any(np.array_equal(pixels("photo-filled.png"), fill) for fill in fills)
    result = cli(*command, "--no-texture", "--fills", 2)
    assert result.exit_code == 1 and "differ in texture" in result.stderr
    shutil.copy("photo.png", "out-2.png")
    result = cli("fill", "out-2.png", "mask.png", "-o", "out.png", "--fills", 2)
    assert result.exit_code == 2 and "would replace out-2.png" in result.stderr
    assert cli("fill", "photos", "--masks", "masks", "-o", "filled", "--fills", 2).exit_code == 2


def test_fills_of_a_model_that_generates_are_those_of_seeds(cli, here, tiny_diffusion):
    save_model(tiny_diffusion(), "diffusion.safetensors")
    command = "fill photo.png mask.png --model diffusion.safetensors --device cpu".split()
    assert cli(*command, "--fills", 2, "--seed", 3).exit_code == 0
    fills = [pixels(f"photo-filled-{i}.png") for i in (1, 2)]
    assert cli(*command, "--seed", 4).exit_code == 0
    assert np.array_equal(pixels("photo-filled.png"), fills[1]) and not np.array_equal(*fills)
    assert cli(*command, "--fills", 0).exit_code == 2


def test_a_manifest_in_shares_with_a_report(cli, here):
    rows = [f"photos/{i}.png,masks/{i}.png,{i}.png" for i in range(3)]
    (here/"manifest.csv").write_text("\n".join(["image,mask,out", *rows]))
    command = "fill manifest.csv -o filled --model tiny.safetensors --device cpu --no-texture".split()
    counts = 0
    for i in (1, 2):
        result = cli(*command, "--shard", f"{i}/2", "--report", f"filled/{i}.csv")
        assert (result.exit_code, result.stdout) == (0, "filled\n"), result.stderr
        counts += len((here/f"filled/{i}.csv").read_text().splitlines()) - 1
    assert counts == 3 and len([*(here/"filled").glob("*.png")]) == 3
    assert cli(*command).stderr.endswith("filled 0, kept 3, failed 0\n")


def test_ray_is_given_what_was_asked_for(cli, here, monkeypatch):
    asked = []
    def filling(*args):
        asked.append(args)
        from fastinpaint.fill.processes import in_turn
        return in_turn
    monkeypatch.setitem(sys.modules, "fastinpaint.serve.ray", SimpleNamespace(filling=filling))
    command = "fill photos --masks masks -o filled --model tiny.safetensors --device cpu --no-texture "
    result = cli(*f"{command} --engine ray --workers 3 --address a:1".split())
    assert result.exit_code == 0 and "filled 3" in result.stderr and asked == [(3, "a:1", "cpu")]


def test_input_errors_are_one_line(cli, here, monkeypatch):
    def refuse(*_, **__): raise InputError("no\n  such hole")
    monkeypatch.setattr("fastinpaint.fill.inpainter.Inpainter.fill_file", refuse)
    result = cli("fill", "photo.png", "mask.png")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "Error: no such hole\n")


BUGS = {"JSON": lambda: json.loads("no JSON"), "key": lambda: {}["key"],
        "number": lambda: int("three"), "lengths": lambda: list(zip([1], [], strict=True))}


@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.parametrize("command, function", [
    ("fill photo.png mask.png", "fastinpaint.fill.inpainter.Inpainter.fill_file"),
    ("train lama_l1", "fastinpaint.train.run.named_data")])
def test_a_bug_keeps_its_traceback(cli, here, monkeypatch, command, function, bug):
    monkeypatch.setattr(function, lambda *_, **__: BUGS[bug]())
    result = cli(*command.split())
    assert type(result.exception) in (json.JSONDecodeError, KeyError, ValueError)
    assert "Error:" not in result.stderr


def test_a_wrong_settings_ini_is_named_by_the_commands_that_need_it(cli, here):
    (here/"settings.ini").write_text("[DEFAULT]\nsteps = many\n")
    result = cli("train", "lama_l1")
    assert result.exit_code == 1
    assert result.stderr == "Error: steps = many (settings.ini) is no int\n"
    (here/"settings.ini").write_text("steps = many\n")
    result = cli("train", "lama_l1")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert f"{here/'settings.ini'} cannot be read" in result.stderr
    assert "steps = many" in result.stderr
    for command in "train lama_l1 --help", "train --help", "info tiny.safetensors":
        assert cli(*command.split()).exit_code == 0


def test_without_gradio_the_page_says_what_to_install(cli, monkeypatch):
    monkeypatch.delitem(sys.modules, "fastinpaint.serve.app", raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    result = cli("app")
    assert result.exit_code == 1 and "pip install 'fastinpaint[app]'" in result.stderr


# the other commands

def test_export_and_page_are_given_what_was_asked_for(cli, monkeypatch):
    calls = []
    export = SimpleNamespace(export_model=lambda *o: calls.append(o))
    page = SimpleNamespace(launch=lambda **o: calls.append(o))
    monkeypatch.setitem(sys.modules, "fastinpaint.serve.export", export)
    monkeypatch.setitem(sys.modules, "fastinpaint.serve.app", page)
    assert cli("export", "sample", "-o", "a.onnx").stdout == "a.onnx\n"
    cli("app", "--model", "sample", "--model", "b.safetensors", "--port", 80)
    assert calls == [("sample", Path("a.onnx"), "onnx"),
                     dict(models=("sample", "b.safetensors"), host="127.0.0.1", port=80,
                          device="auto")]


def test_a_trained_model_and_what_is_said_of_it(cli, here, photos):
    result = cli("train", "lama_l1", "--data", photos, *RECIPE.split())
    assert result.exit_code == 0, result.output
    about = json.loads(cli("info", "runs/lama_l1/model.safetensors", "--json").stdout)
    model = load_model("runs/lama_l1/model.safetensors")
    assert about["model"] == model.config
    assert about["settings"]["recipe"] == "lama_l1" and about["settings"]["steps"] == 2
    assert about["parameters"]["all"] == sum(p.numel() for p in model.parameters())
    assert about["parameters"]["all"] > about["parameters"]["encoder"] > 0
    text = cli("info", "runs/lama_l1/model.safetensors").stdout
    assert about["sha256"] in text and f"{about['parameters']['all']:,}" in text


def test_a_tool_is_given_its_settings(cli, monkeypatch):
    @dataclass(kw_only=True)
    class Settings:
        """Count photographs

        One by one."""
        data: str = flag("sample", "Photographs")
        limit: int = flag(0, "At most so many")

    def count(settings):
        if settings.limit < 0: raise InputError(f"--limit {settings.limit} is negative")
        print(settings)

    monkeypatch.setitem(TOOLS, "bench", Settings)
    monkeypatch.setitem(sys.modules, "fastinpaint.tools.bench", SimpleNamespace(main=count))
    assert cli("bench", "--limit", 3).stdout == f"{Settings(limit=3)}\n"
    result = cli("bench", "--limit", -1)
    assert (result.exit_code, result.stderr) == (1, "Error: --limit -1 is negative\n")
    assert "One by one." in cli("bench", "--help").stdout
    listed = cli("--help").stdout
    assert "Count photographs\n" in listed and "One by one" not in listed


@pytest.mark.parametrize("command", [
    "train latent_control", "evaluate", "compare", "demo", "bench"])
def test_a_programs_help_is_its_own(cli, command):
    result = cli(*command.split(), "--help")
    assert result.exit_code == 0 and f"Usage: fastinpaint {command} [OPTIONS]" in result.stdout
    assert "--data" in result.stdout


# as a process

def process(*args, **kwargs):
    # a shell that starts tests in the background has them ignore Ctrl-C
    return subprocess.Popen([sys.executable, *args], env=os.environ | {"OMP_NUM_THREADS": "1"},
                            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


LIGHT = """
import sys
from importlib import import_module
from pkgutil import iter_modules

import fastinpaint
from fastinpaint import recipes
from fastinpaint.cli import main

for recipe in [*iter_modules(recipes.__path__)]: import_module(f"fastinpaint.recipes.{recipe.name}")
for command in "", "train ", "train lama ", "bench ", "fill ":
    main(f"{command}--help".split(), standalone_mode=False)
try: main(["train", "latent", "--size", "wide"], standalone_mode=False)
except Exception as error: print(error)
print(*sys.modules)
"""


def test_imports_help_and_wrong_flags_need_nothing_heavy():
    output, errors = process("-c", LIGHT).communicate()
    assert "Table 5.1 (4)" in output and "'wide' is not a valid integer" in output, errors
    loaded = {name.partition(".")[0] for name in output.splitlines()[-1].split()}
    assert "click" in loaded
    assert not loaded & {"torch", "fastai", "fastcore", "numpy", "PIL", "matplotlib", "pandas"}
    version = process("-m", "fastinpaint", "--version")
    assert version.communicate()[0].startswith("fastinpaint") and version.returncode == 0


def test_ctrl_c_leaves_whole_files_and_exit_code_130(here):
    for i in range(3, 2000):
        for folder in "photos", "masks": os.link(f"{folder}/0.png", f"{folder}/{i}.png")
    command = "fill photos --masks masks -o filled --model tiny.safetensors --device cpu"
    running = process("-m", "fastinpaint", *command.split())
    started = running.stderr.readline()
    assert started.startswith("1/2000 "), started + running.stderr.read()
    time.sleep(.2)
    running.send_signal(signal.SIGINT)
    output, errors = running.communicate()
    assert running.returncode == 130 and output == ""
    assert errors.endswith("\nInterrupted; the same command goes on where it stopped\n")
    assert "Traceback" not in errors
    filled = [*(here/"filled").iterdir()]
    assert 0 < len(filled) < 2000 and not [fn for fn in filled if fn.name.startswith(".")]
    for fn in filled: assert pixels(fn).shape == (40, 48, 3)


# one mask for all, pipes, larger canvases, films

TINY = "--model", "tiny.safetensors", "--device", "cpu", "--no-texture"


def test_one_mask_for_a_folder(cli, here):
    result = cli("fill", "photos", "mask.png", "-o", "filled", *TINY)
    assert (result.exit_code, result.stdout) == (0, "filled\n"), result.stderr
    for i in range(3):
        changed = (pixels(f"photos/{i}.png") != pixels(f"filled/{i}.png")).any(-1)
        assert changed.any() and not changed[~pixels("mask.png")].any()


def test_pipes(cli, here):
    expected = cli("fill", "photo.png", "mask.png", "-o", "filled.png", *TINY)
    assert expected.exit_code == 0, expected.stderr
    command = ["fill", "-", "mask.png", *TINY]
    result = CliRunner().invoke(main, command, input=(here/"photo.png").read_bytes())
    assert result.exit_code == 0 and result.stdout_bytes == (here/"filled.png").read_bytes(), result.stderr
    command = ["fill", "photo.png", "-", "-o", "-", "--format", "jpg", "--quality", "50", *TINY]
    result = CliRunner().invoke(main, command, input=(here/"mask.png").read_bytes())
    assert result.exit_code == 0 and result.stdout_bytes[:2] == b"\xff\xd8", result.stderr


def test_a_larger_canvas_needs_no_mask(cli, here):
    result = cli("fill", "photo.png", "--extend", "8,0,4,2", *TINY)
    assert (result.exit_code, result.stdout) == (0, "photo-filled.png\n"), result.stderr
    assert np.array_equal(pixels("photo-filled.png")[:40, 8:56], pixels("photo.png"))
    assert cli("fill", "photos", "-o", "filled", "--extend", "8,0,0,0", *TINY).exit_code == 0
    assert pixels("filled/1.png").shape == (40, 56, 3)


def test_masks_of_another_size_and_soft_ones(cli, here):
    Image.fromarray(pixels("mask.png")).resize((24, 20)).save("small.png")
    assert "--resize-masks" in cli("fill", "photo.png", "small.png", *TINY).stderr
    assert cli("fill", "photo.png", "small.png", "--resize-masks", *TINY).exit_code == 0
    soft = np.where(pixels("mask.png"), 255, 0).astype(np.uint8)
    soft[20:24] = 90
    Image.fromarray(soft).save("soft.png")
    for name, *options in (["soft-filled.png", "--soft"], ["hard-filled.png"]):
        assert cli("fill", "photo.png", "soft.png", "-o", name, *options, *TINY).exit_code == 0
    changed = [(pixels(f"{o}-filled.png") != pixels("photo.png")).any(-1) for o in ("soft", "hard")]
    assert changed[0][20:24].any() and not changed[1][20:24].any() and not changed[0][soft == 0].any()


def test_a_film(cli, here, grey_film):
    av = pytest.importorskip("av")
    grey_film("film.mp4")
    result = cli("fill", "film.mp4", "mask.png", *TINY)
    assert (result.exit_code, result.stdout) == (0, "film-filled.mp4\n"), result.stderr
    with av.open("film-filled.mp4") as film: assert len([*film.decode(video=0)]) == 3
    assert cli("fill", "film.mp4", "mask.png", "-o", "film.mp4", *TINY).exit_code == 2
    Path("film.mp4").rename("old.avi")  # what cannot be written becomes MP4
    assert cli("fill", "old.avi", "mask.png", *TINY).stdout == "old-filled.mp4\n"


@pytest.mark.parametrize("command, message", [
    ("photo.png", "name its mask"), ("- -", "not both"), ("photo.png --extend 1,2", "200,0,200,0"),
    ("photo.png mask.png -o - --fills 2", "--fills"), ("photo.png mask.png --quality 0", "quality"),
    ("photos -o out", "one MASK for all"), ("photos mask.png --masks masks -o out", "one MASK for all")])
def test_what_cannot_go_together(cli, here, command, message):
    result = cli("fill", *command.split())
    assert result.exit_code == 2 and message in result.stderr
