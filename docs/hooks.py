"Pages of the site that are made from elsewhere: the README, notebooks, the command's help, docstrings"
import ast
import base64
import re
from pathlib import Path

import nbformat
from click.testing import CliRunner
from mkdocs.structure.files import File

from fastinpaint.cli import main

ROOT = Path(__file__).parents[1]
# files outside of docs/ → their pages; links to them are turned
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md",
         "fastinpaint/models/sample.md": "models/sample.md"}
LINKS = {"](docs/": "](", "](../../docs/": "](../", "](../../fastinpaint/models/": "](../models/",
         "](CHANGELOG.md)": "](changelog.md)", ".ipynb)": ".md)"}
ROOMS = "core", "data", "kernels", "models", "fill", "judge", "train", "serve", "recipes"
UNSTYLED = re.compile(r"<table[^>]*>")  # the theme draws lines in tables without a class
OUTSIDE = "kernels", "recipes"  # at the top of the repository, installed inside the package


def on_files(files, config):
    for source, page in PAGES.items(): _add(files, config, page, linked((ROOT/source).read_text()))
    for path in sorted((ROOT/"nbs").glob("*.ipynb")):
        text, pictures = notebook(nbformat.read(path, 4), path.stem)
        _add(files, config, f"nbs/{path.stem}.md", text)
        for name, data in pictures.items(): _add(files, config, f"nbs/{name}", data)
    _add(files, config, "reference/index.md", names())
    _add(files, config, "reference/command.md", command())
    for room in ROOMS: _add(files, config, f"reference/{room}.md", reference(room))
    return files


def on_page_markdown(markdown, **_): return linked(markdown)


def _add(files, config, path, content): files.append(File.generated(config, path, content=content))


def linked(text):
    "`text` with links to files of the repository turned to their pages"
    for file, page in LINKS.items(): text = text.replace(file, page)
    return text


def notebook(nb, stem):
    "Markdown of a notebook, and its pictures, name → bytes"
    parts, pictures = [], {}
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            data = output.get("data", {})
            kind = next((o for o in ("image/jpeg", "image/png") if o in data), None)
            if kind:
                name = f"{stem}-{len(pictures) + 1}.{kind.rpartition('/')[2]}"
                pictures[name] = base64.b64decode(data[kind])
                parts.append(f"![]({name})")
            elif "text/html" in data: parts.append(f"<div>{UNSTYLED.sub('<table>', data['text/html'])}</div>")
            else: parts.append(f"```text\n{(output.get('text') or data['text/plain']).rstrip()}\n```")
    parts.append(f"The notebook: `nbs/{stem}.ipynb` in the repository.")
    return "\n\n".join(parts), pictures


def command():
    "What `--help` says of every command"
    def shown(*words):
        text = CliRunner().invoke(main, [*words, "--help"], prog_name="fastinpaint").output
        return f"{'#'*bool(words)}# fastinpaint {' '.join(words)}\n\n```text\n{text}```"
    names = main.list_commands(None)
    return "\n\n".join([shown(), *(shown(name) for name in names), shown("train", "latent_control")])


def names():
    "The names of `fastinpaint.all` by file, each a link to its description"
    found = {}
    for node in ast.walk(ast.parse((ROOT/"fastinpaint/all.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.level and not node.names[0].asname:
            found[node.module] = [alias.name for alias in node.names]
    lines = ["# Names", "What `from fastinpaint.all import *` gives, by file."]
    for module, defined in found.items():
        links = (f'<autoref identifier="fastinpaint.{module}.{o}" optional><code>{o}</code></autoref>'
                 for o in defined)
        lines.append(f"* `{module}`: {', '.join(links)}")
    return "\n\n".join(lines[:2]) + "\n\n" + "\n".join(lines[2:])


def reference(room):
    "A page of the docstrings of a room, file by file"
    folder = ROOT/room if room in OUTSIDE else ROOT/"fastinpaint"/room
    package = room if room in OUTSIDE else f"fastinpaint.{room}"
    lines = [f"# {room}", ast.get_docstring(ast.parse((folder/"__init__.py").read_text())) or ""]
    for path in sorted(folder.rglob("*.py")):
        if path.stem == "__init__": continue
        module = ".".join([package, *path.relative_to(folder).with_suffix("").parts])
        lines.append(f"::: {module}")
        if room == "recipes": lines[-1] += "\n    options: {show_source: true}"
    return "\n\n".join(lines)
