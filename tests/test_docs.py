"""What README, guides and notebooks tell users to run: Python blocks run at tiny size, commands are parsed

A block that cannot run here has a comment above it, <!-- not run: why -->: the reason of the skip."""
import re
import shlex
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path

import click
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import tomllib
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

from fastinpaint import all as fi
from fastinpaint.cli import main
from fastinpaint.core.program import Program
from fastinpaint.models.load import save_model

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(?:<!-- not run: (.+?) -->\n)?^```(\w*)\n(.*?)^```$", re.M | re.S)
INLINE = re.compile(r"(?<!`)`((?:fastinpaint|python recipes/)[^`\n]* -[^`\n]+|make \w+)`(?!`)")
# other people's commands, and the shell's
FOREIGN = "source", "torchrun", "wandb", "echo", "accelerate"
REDIRECTED = "|", ">"
# arguments that make a command too long for a test, or need what is not here
LONG = {"--workers", "--engine", "--shard"}
TINY = dict(data="photos", size=32, bs=2, steps=2, epochs=1, width=2, blocks=1, valid=".25", workers=0,
            device="cpu", autoencoder="none")


@dataclass
class Block:
    page: str
    number: int  # in its page
    language: str
    text: str
    why_not: str  # it does not run, if so

    def __str__(self): return f"{self.page}-{self.number}"


def pages():
    "Name → text of README, guides, results and the notebooks' words"
    files = [ROOT/"README.md", *sorted((ROOT/"docs").rglob("*.md"))]
    texts = {str(file.relative_to(ROOT)): file.read_text() for file in files}
    for file in sorted((ROOT/"nbs").glob("*.ipynb")):
        cells = nbformat.read(file, 4).cells
        texts[f"nbs/{file.name}"] = "\n\n".join(o.source for o in cells if o.cell_type == "markdown")
    return texts


PAGES = pages()


def blocks(text, page):
    return [Block(page, i, language, text, why or "")
            for i, (why, language, text) in enumerate(BLOCK.findall(text), 1)]


def lines(text):
    "The words of each line of a shell, without comments; continued lines are one"
    split = (shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines())
    return [words for words in split if words]


def of(language):
    return [o for page, text in PAGES.items() for o in blocks(text, page) if o.language == language]


def commands():
    "(where, words) of all lines of bash blocks, and of the commands in sentences"
    for block in of("bash"): yield from ((str(block), words) for words in lines(block.text))
    for page, text in PAGES.items():
        for found in INLINE.findall(BLOCK.sub("", text)): yield from ((page, words) for words in lines(found))


# Python

@pytest.fixture
def here(folders, photos, tmp_path, tiny_lama, tiny_diffusion, grey_film, monkeypatch):
    "A folder with what the pages name: my/photos, photo.jpg, mask.png, models; the current one"
    monkeypatch.chdir(tmp_path)
    shutil.copytree(photos, "my/photos")
    shutil.copytree("masks", "my/masks")
    photo = Image.open(photos/"0.png").convert("RGB")
    mask = np.zeros((40, 48), np.uint8)
    mask[10:20, 10:30] = 255
    for name in "photo.jpg", "photo.png": photo.save(name)
    Image.fromarray(mask).save("mask.png")
    shutil.copy("mask.png", "watermark.png")
    grey_film("film.mp4")
    table = pd.DataFrame(dict(image=["photo.jpg"], mask=["mask.png"], out=["filled.png"]))
    table.to_csv("manifest.csv", index=False)
    table.to_parquet("manifest.parquet")
    for name, model in dict(latent_control=tiny_lama(), latent_diffusion=tiny_diffusion()).items():
        Path(f"runs/{name}").mkdir(parents=True)
        save_model(model, f"runs/{name}/model.safetensors")
    weights = load_file(ROOT/"tests/fixtures/lama_ngf8.safetensors")
    torch.save({"state_dict": {f"generator.{k}": v for k, v in weights.items()}}, "big-lama.ckpt")
    return tmp_path


def tiny(code):
    "`code` with small photographs, batches and trainings"
    for number, small in (r"\bsize=", 64), (r"\bbs=", 2), (r"\bfit\w*\(", 1):
        code = re.sub(rf"({number})\d+", rf"\g<1>{small}", code)
    return code


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_python_runs(block, here, tiny_learner, tiny_lama):
    if block.why_not: pytest.skip(block.why_not)
    learn = tiny_learner(control="mask")
    names = vars(fi) | dict(__name__="page", learn=learn, dls=learn.dls, model=tiny_lama())
    exec(compile(tiny(block.text), str(block), "exec"), names)
    for name, value in names.items():  # what is a program runs as well
        if isinstance(value, Program) and f"def {name}(" in block.text: value(**TINY)
    plt.close("all")


# commands

def short(o): return o if isinstance(o, str) else " ".join(o)[:70]


@pytest.mark.parametrize("where, words", [*commands()], ids=short)
def test_a_command_is_one_that_there_is(where, words, monkeypatch):
    monkeypatch.setattr(click.Path, "convert", lambda self, value, *_: value)  # whether it exists or not
    check(words)


def check(words):
    "Raises where the command `words` is not known, or does not take its arguments"
    if re.match(r"\w+=", words[0]): return  # a variable of the shell
    for i, word in enumerate(words):
        rest = [o for o in takewhile(lambda o: o not in REDIRECTED, words[i + 1:])
                if not re.fullmatch(r"\$\w+|…", o)]
        if word == "fastinpaint": return parse(main, rest)
        if recipe := re.fullmatch(r"recipes/(\w+)\.py", word): return parse(main, ["train", recipe[1], *rest])
    if words[0] == "make": assert re.search(rf"^{words[1]}:", (ROOT/"Makefile").read_text(), re.M), words
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT/"pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert re.fullmatch(r"fastinpaint\[(\w+)\]", words[2])[1] in extras
    elif words[:2] == ["python", "-m"]: assert find_spec(words[2])
    elif words[0] == "python": assert (ROOT/words[1]).is_file()
    else: assert words[0] in FOREIGN, f"{words[0]} is no command that is known here"


def parse(command, words):
    "Let click read `words`, and run nothing"
    while isinstance(command, click.Group) and words:
        command, (name, *words) = command.get_command(click.Context(command), words[0]), words
        assert command is not None, f"there is no {name}"
    command.make_context(command.name, [o for o in words if o != "--help"])


@pytest.mark.parametrize("line", ["fastinpaint train latent_control --sise 3", "python recipes/latnt.py",
                                  "fastinpaint fil a b", "fastinpaint fill a b --fills many", "make tests",
                                  "pip install 'fastinpaint[apps]'", "fastinpint fill a b"])
def test_a_wrong_command_would_be_noticed(line):
    with pytest.raises((click.UsageError, AssertionError)): check(shlex.split(line))


def cheap(words):
    "Whether `words` is a fill or a description of a few small files"
    if len(words) < 3 or words[0] != "fastinpaint" or words[1] not in ("fill", "info"): return False
    return not LONG.intersection(words) and not any(o in " ".join(words) for o in ("://", "/data/", "IMAGE"))


CHEAP = [(where, words) for where, words in commands() if cheap(words) and not where.startswith("nbs")]


@pytest.mark.parametrize("where, words", CHEAP, ids=short)
def test_a_cheap_command_works(where, words, here):
    result = CliRunner().invoke(main, words[1:])
    assert result.exit_code == 0 and result.stdout, result.output


# what else is promised

def test_a_block_that_does_not_run_says_why():
    text = "<!-- not run: it needs a GPU -->\n```python\n1/0\n```\n\n```python\n1\n```\n"
    assert [(o.why_not, o.text) for o in blocks(text, "page")] == [("it needs a GPU", "1/0\n"), ("", "1\n")]


@pytest.mark.parametrize("page", [o for o in PAGES if o.startswith("docs/results/")])
def test_results_name_the_command_that_made_them(page):
    text = PAGES[page]
    assert "```bash" in text or re.search(r"`(fastinpaint|make|pytest|python) ", text)
