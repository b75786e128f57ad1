import matplotlib.pyplot as plt
import pandas as pd

from fastinpaint.tools.report import write


def test_a_report_is_one_file_and_a_page(tmp_path):
    table = pd.DataFrame({"x": ["1"], "y": ["2"]})
    parts = [("Results", "Some <text>."), ("", table), ("Curve", plt.figure())]
    page, site = write(tmp_path/"report", "A & B", parts)
    assert "| x | y |\n|---|---|\n| 1 | 2 |\n" in page.read_text()
    assert "![Curve](figure2.png)" in page.read_text()
    text = site.read_text()
    assert "A &amp; B" in text and "&lt;text&gt;" in text
    assert "data:image/png;base64," in text and "<td>2</td>" in text
    assert "http" not in text and (tmp_path/"report/figure2.png").is_file()


def test_long_cells_are_not_cut_and_are_escaped(tmp_path):
    long = "<b>" + "x"*200
    page, site = write(tmp_path, "T", [("", pd.DataFrame({"flag": [long], "value": [.123456789]}))])
    assert f"| {long} | 0.123456789 |" in page.read_text()
    assert f"<td>&lt;b&gt;{'x'*200}</td><td>0.123456789</td>" in site.read_text()
