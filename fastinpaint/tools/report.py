"A report in Markdown, and in one HTML file that holds its pictures"
import base64
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from jinja2 import Environment

from fastinpaint.core.files import replacing
from fastinpaint.judge.card import markdown_table

PAGE = Environment(autoescape=True, trim_blocks=True).from_string("""\
<!doctype html><meta charset=utf-8><title>{{ title }}</title>
<style>body{font:15px sans-serif;max-width:1200px;margin:2em auto}
td,th{padding:.2em .7em;text-align:left}img{max-width:100%}</style>
<h1>{{ title }}</h1>
{% for heading, text, table, picture in parts %}
{% if heading %}<h2>{{ heading }}</h2>{% endif %}
{% if text %}<p>{{ text }}</p>{% endif %}
{% if table is not none %}
<table><tr>{% for name in table.columns %}<th>{{ name }}</th>{% endfor %}</tr>
{% for line in table.itertuples(index=False) %}
<tr>{% for cell in line %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% endif %}
{% if picture %}<img alt="{{ heading }}" src="data:image/png;base64,{{ picture }}">{% endif %}
{% endfor %}
""")


def write(folder, title, parts):
    """Write `report.md`, its pictures beside it, and `report.html` to `folder`; returns both paths.

    `parts`: pairs of a heading ("" for none) and text, a DataFrame or a matplotlib figure."""
    folder, page, site = Path(folder), [f"# {title}", ""], []
    for i, (heading, content) in enumerate(parts):
        if heading: page += [f"## {heading}", ""]
        text = table = picture = None
        if isinstance(content, str): page.append(text := content)
        elif isinstance(content, pd.DataFrame): page += markdown_table(table := content)
        else:
            name = f"figure{i}.png"
            with replacing(folder/name) as f: content.savefig(f, dpi=90, bbox_inches="tight")
            plt.close(content)
            picture = base64.b64encode((folder/name).read_bytes()).decode()
            page.append(f"![{heading}]({name})")
        page.append("")
        site.append((heading, text, table, picture))
    files = {"report.md": "\n".join(page), "report.html": PAGE.render(title=title, parts=site)}
    for name, text in files.items():
        with replacing(folder/name) as f: f.write(text.encode())
    return [folder/name for name in files]
