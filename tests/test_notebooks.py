"The notebooks run at tiny size; what is kept of their outputs is whole, small, and tells of no machine"
import ast
import json
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1]/"nbs").glob("*.ipynb"))
TINY = dict(size=64, bs=2, epochs=1, steps=2, rounds=1, processes=1)  # in place of the notebook's
HERE = re.compile(r"/(work|tmp|home|root|Users|usr|opt|mnt)/|site-packages")
notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    "One for all notebooks, as importing takes longer than what they do"
    folder = tmp_path_factory.mktemp("notebooks")
    client = NotebookClient(nbformat.v4.new_notebook(), timeout=300, kernel_name="python3",
                            resources={"metadata": {"path": str(folder)}})
    with client.setup_kernel(env=os.environ | {"OMP_NUM_THREADS": "1"}): yield client


def shrink(cell):
    "Put tiny values behind those of a cell of parameters"
    names = {o.id for o in ast.walk(ast.parse(cell.source)) if isinstance(o, ast.Name)}
    assert names <= TINY.keys(), f"no tiny value for {names - TINY.keys()}"
    cell.source += "".join(f"\n{name} = {TINY[name]}" for name in sorted(names))


@notebooks
def test_a_notebook_runs(path, kernel):
    nb = nbformat.read(path, 4)
    marked = [cell for cell in nb.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(marked) == 1
    shrink(marked[0])
    nb.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))  # the one before leaves nothing but imports
    kernel.nb = nb
    kernel.reset_execution_trackers()
    for i, cell in enumerate(nb.cells): kernel.execute_cell(cell, i)


@notebooks
def test_what_is_kept_is_from_one_run_and_small(path):
    assert path.stat().st_size < 1e6
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs and not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    told = json.dumps([[o.get("text"), {k: v for k, v in o.get("data", {}).items() if "image" not in k}]
                       for o in outputs])
    assert not HERE.search(told), HERE.search(told)


def test_they_show_pictures():
    pictures = {path.stem: path.read_text().count('"image/') for path in NOTEBOOKS}
    assert len(pictures) == 5 and pictures["03_thesis_in_ten_pictures"] >= 10
