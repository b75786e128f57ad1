import matplotlib.pyplot as plt
import pytest

from fastinpaint.tools.report import (
    Row,
    chosen_images,
    equal_time_table,
    rates_table,
    relative,
    results_table,
    sets_table,
    spread,
    step_table,
    write,
)
from fastinpaint.train.callback.step_times import PARTS


def card(lpips, images=(), sets=("all",)):
    metrics = dict(hole_l1=.1, psnr=20., ssim=.8, lpips=lpips)
    return dict(metrics={name: {k: dict(value=v) for k, v in metrics.items()} for name in sets}, images=list(images))


def history(*epochs): return [dict(epoch=i, time=t, lpips=str(v), hole_l1=str(v)) for i, (t, v) in enumerate(epochs)]


def test_changes_are_from_the_first_row_and_the_thesis_own():
    rows = [Row("telea", [card(.3)], []), Row("lama_l1", [card(.2), card(.4)], [history(("01:00", .3))]*2),
            Row("latent_control", [card(.27)], [history(("00:30", .3))])]
    header, (telea, base, ours) = results_table(rows, "all")
    assert base[4] == "0.3000 ± 0.1414" and ours[4] == "0.2700" and telea[5] == "–" and base[5] == "1.0"
    changes = {h: c for h, c in zip(header, ours, strict=True) if "from (1)" in h}
    assert changes == {"LPIPS from (1)": "-10.0 %", "SSIM from (1)": "+0.0 %", "time from (1)": "-50.0 %"}
    assert ours[header.index("LPIPS from (1)") + 1] == relative(.149, .155) == "-3.9 %"


def test_differences_are_paired_by_photograph():
    def judged(mean, *values):
        images = [dict(set=s, name=n, lpips=v) for s in ("thin", "thick") for n, v in zip("abc", values, strict=True)]
        return card(mean, images, ("thin", "thick", "all"))
    rows = [Row("telea", [judged(None, None, None, None)], []), Row("lama_l1", [judged(.2, .1, .5, .9)], []),
            Row("latent", [judged(.3, .2, .6, 1.), judged(.5, .4, .8, 1.2)], [])]
    header, lines = sets_table(rows)
    assert header == ["method", "thin", "thick", "all, from (1)"]
    assert lines[0][1:] == ["n/a", "n/a", "–"] and lines[1][1:] == ["0.2000", "0.2000", "–"]
    # photographs differ by .8, the rows by .2 on each of them: paired, nothing is left of the former
    assert lines[2][1:] == ["0.4000 ± 0.1414", "0.4000 ± 0.1414", "+0.2000 [+0.2000, +0.2000]"]


def test_the_best_rate_is_marked():
    _, lines = rates_table({"latent": {.001: .3, .01: float("inf")}, "delta": {.001: .4, .01: .2}})
    assert lines == [["latent", "0.3000 ✓", "inf"], ["delta", "0.4000", "0.2000 ✓"]]


def test_parts_of_a_step_are_means_over_seeds():
    parts = [dict.fromkeys(PARTS, s) for s in (.001, .003)]
    header, lines = step_table([Row("telea", [], []), Row("latent", [], [], parts)])
    assert lines == [["latent", *["2"]*len(PARTS), str(2*len(PARTS))]] and len(header) == len(lines[0])


def test_what_is_not_available_is_not_invented():
    assert spread([]) == "n/a"
    _, (line,) = results_table([Row("latent", [card(None)], [])], "all")
    assert line[4] == "n/a" and "–" in line


def test_at_equal_time_the_slow_row_is_read_where_the_fast_one_ends():
    fast, slow = history(("00:10", .5), ("00:10", .4)), history(("00:15", .45), ("00:15", .3))
    seconds, (_, lines) = equal_time_table([Row("a", [], [fast]), Row("b", [], [slow]), Row("telea", [], [])])
    assert seconds == 20 and lines == [["a", "0.4000", "0.4000"], ["b", "0.4500", "0.4500"]]


def test_pictures_are_chosen_by_lpips_of_trained_rows():
    images = [dict(set="thick", name=n, lpips=v, hole_l1=0) for n, v in (("a", .1), ("b", .3), ("c", .2))]
    rows = [Row("x", [card(.1, images)], [history()]), Row("telea", [card(.1, [dict(images[0], lpips=9.)])], [])]
    assert chosen_images(rows, "thick") == dict(worst="b", median="c", best="a")


def test_a_report_is_one_file_and_a_page(tmp_path):
    figure = plt.figure()
    parts = [("Results", "Some <text>."), ("", (["x", "y"], [["1", "2"]])), ("Curve", figure)]
    page, site = write(tmp_path/"report", "A & B", parts)
    assert "| 1 | 2 |" in page.read_text() and "![Curve](figure2.png)" in page.read_text()
    text = site.read_text()
    assert "A &amp; B" in text and "&lt;text&gt;" in text and "data:image/png;base64," in text and "<td>2</td>" in text
    assert "http" not in text and (tmp_path/"report/figure2.png").is_file()


@pytest.mark.parametrize("clock, seconds", [("00:07", 7), ("02:05", 125), ("1:00:01", 3601)])
def test_clocks(clock, seconds): assert Row("x", [], [history((clock, 1))]).seconds() == [seconds]
