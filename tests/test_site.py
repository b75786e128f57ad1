"The documentation site: it builds without a warning, and its pages are made of what is elsewhere"
import base64
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from nbformat import v4

ROOT = Path(__file__).parents[1]
pytest.importorskip("mkdocs", reason="the site: pip install 'fastinpaint[docs]'")


@pytest.fixture(scope="module")
def hooks():
    "The module docs/hooks.py, which no package holds"
    spec = importlib.util.spec_from_file_location("hooks", ROOT/"docs/hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "The folder of the built site"
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    run = subprocess.run(command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


@pytest.mark.parametrize("page, words", [
    ("", "Install and see it work"), ("fill", "Filling photographs"),
    ("reference/command", "--feather PIXELS"), ("reference/data", "InpaintDataLoaders"),
    ("reference/kernels", "masked_l1"),
    ("reference/recipes", "Table 5.1 (4)"), ("nbs/03_thesis_in_ten_pictures", "The thesis in ten pictures"),
    ("models/sample", "sample, the model that comes with the package"), ("changelog", "Changelog")])
def test_the_site_has(site, page, words): assert words in (site/page/"index.html").read_text()


def test_names_lead_to_their_descriptions(site):
    assert 'href="models/#fastinpaint.models.lama.lama"' in (site/"reference/index.html").read_text()
    assert 'id="fastinpaint.models.lama.lama"' in (site/"reference/models/index.html").read_text()


def test_pictures_of_notebooks_are_there(site):
    pictures = [*(site/"nbs").glob("03_*.jpeg")]
    assert len(pictures) >= 10 and all(o.read_bytes()[:2] == b"\xff\xd8" for o in pictures)


def test_links_of_the_repository_lead_to_pages(hooks):
    assert hooks.linked("[a](docs/fill.md#x) [b](CHANGELOG.md)") == "[a](fill.md#x) [b](changelog.md)"
    assert hooks.linked("[c](../../docs/results/fills.md)") == "[c](../results/fills.md)"
    assert hooks.linked("[d](nbs/01_first_fill.ipynb)") == "[d](nbs/01_first_fill.md)"


def test_a_notebook_becomes_markdown_and_pictures(hooks):
    def output(**data): return v4.new_output("display_data", data=data)
    picture = {"image/jpeg": base64.b64encode(b"bytes").decode(), "text/plain": "<Figure>"}
    table = {"text/html": '<table border="1" class="dataframe"></table>'}
    cells = [v4.new_markdown_cell("# Title"),
             v4.new_code_cell("1 + 1", outputs=[v4.new_output("execute_result", data={"text/plain": "2"})]),
             v4.new_code_cell("draw()", outputs=[output(**picture), output(**table),
                                                 v4.new_output("stream", text="said\n")])]
    text, pictures = hooks.notebook(v4.new_notebook(cells=cells), "a")
    assert pictures == {"a-1.jpeg": b"bytes"}
    assert text.startswith("# Title\n\n```python\n1 + 1\n```\n\n```text\n2\n```\n\n```python\ndraw()\n```\n\n"
                           "![](a-1.jpeg)\n\n<div><table></table></div>\n\n```text\nsaid\n```\n")
