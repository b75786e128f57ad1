"Tables of a comparison"
import io

import pandas as pd
import pytest

from fastinpaint.tools.rows import Row, read_history
from fastinpaint.tools.tables import (
    chosen_images,
    distances_table,
    equal_time_table,
    groups_table,
    joined_table,
    lpips_of,
    rates_table,
    relative,
    results_table,
    sets_table,
    spread,
    step_table,
)
from fastinpaint.train.callback.step_times import PARTS


def card(lpips, images=(), sets=("all",)):
    metrics = dict(hole_l1=.1, psnr=20., ssim=.8, lpips=lpips)
    return dict(metrics={name: {k: dict(value=v) for k, v in metrics.items()} for name in sets},
                images=list(images))


def history(*epochs):
    lines = [f"{i},{v},{v},{time}" for i, (time, v) in enumerate(epochs)]
    return read_history(io.StringIO("\n".join(["epoch,lpips,hole_l1,time", *lines])))


def lines(table): return table.to_numpy().tolist()


def test_changes_are_from_the_first_row_and_the_thesis_own():
    rows = [Row("telea", [card(.33)], []), Row("lama_l1", [card(.2), card(.4)], [history(("01:00", .3))]*2),
            Row("latent_control", [card(.27)], [history(("00:30", .3))])]
    telea, base, ours = results_table(rows, "all").to_dict("records")
    assert base["LPIPS"] == "0.3000 ± 0.1414" and ours["LPIPS"] == "0.2700"
    assert telea["minutes"] == "–" and base["minutes"] == "1.0"
    changes = {title: change for title, change in ours.items() if "from (1)" in title}
    assert changes == {"LPIPS from (1)": "-10.0 %", "SSIM from (1)": "+0.0 %", "time from (1)": "-50.0 %"}
    assert ours["thesis, LPIPS"] == relative(.149, .155) == "-3.9 %"
    assert telea["LPIPS from (1)"] == "+10.0 %" and telea["time from (1)"] == telea["thesis, time"] == "–"


def with_distances(fid, fd, vgg=None):
    found, more = card(.2), dict(fid=fid, fd_efflite0=fd, kid_efflite0=-.001, lpips_vgg=vgg)
    found["metrics"]["all"] |= {name: dict(value=v) for name, v in more.items()}
    return found


def test_distances_stand_beside_the_thesis_fid():
    before = card(.3)  # a card from when there were no distances
    rows = [Row("telea", [before], []), Row("lama_l1", [with_distances(20., 10.)], []),
            Row("latent_control", [with_distances(10., 12.), with_distances(20., 12.)], [])]
    telea, base, ours = distances_table(rows, "all").to_dict("records")
    assert [telea[k] for k in ("FID", "FD", "KID", "FID from (1)", "thesis, FID")] == ["n/a"]*3 + ["–"]*2
    assert ours["FID"] == "15.0000 ± 7.0711" and ours["KID"] == "-0.0010 ± 0.0000"
    assert ours["FID from (1)"] == "-25.0 %" and ours["thesis, FID"] == "-25.3 %"
    assert ours["FD from (1)"] == "+20.0 %" and base["FD"] == "10.0000"


def test_the_thesis_lpips_stands_beside_the_same_network_where_it_was_measured():
    rows = [Row("lama_l1", [with_distances(1., 1., .5)], []), Row("latent", [with_distances(1., 1., .4)], [])]
    assert lpips_of(rows, "all") == "lpips_vgg"
    line = results_table(rows, "all").to_dict("records")[1]
    assert line["LPIPS-VGG"] == "0.4000" and line["LPIPS-VGG from (1)"] == "-20.0 %"
    assert line["LPIPS"] == "0.2000" and "LPIPS from (1)" not in line and line["thesis, LPIPS"] == "+5.2 %"


def test_groups_are_columns_under_their_number_of_fills():
    area = {"0%–10%": dict(n=dict(value=7), lpips=dict(value=.1)), "10%–20%": dict(n=dict(value=1))}
    table = groups_table([Row("a", [card(.1) | dict(by_area=area)], [])], ["lpips", "fd_efflite0"], "by_area")
    assert [*table.columns] == ["method", "metric", "0%–10%", "10%–20%"]
    assert lines(table) == [["fills", "", "7", "1"], ["a", "LPIPS", "0.1000", "n/a"],
                            ["a", "FD", "n/a", "n/a"]]


def test_ladders_side_by_side_are_read_by_their_own_baselines():
    first = [Row("lama_l1", [with_distances(10., 10.)], [history(("01:00", 1))]),
             Row("latent", [with_distances(9., 8.)], [history(("00:30", 1))])]
    second = [Row("lama_l1", [with_distances(None, 100.)], []), Row("delta", [with_distances(None, 50.)], [])]
    table = joined_table(dict(a=first, b=second)).set_index(["from (1)", "method"])
    assert [*table.columns] == ["thesis", "a", "b"]
    assert [*table.loc["FID", "latent"]] == ["+10.2 %", "-10.0 %", "–"]
    assert [*table.loc["FD", "delta"]] == ["–", "–", "-50.0 %"]
    assert [*table.loc["time", "latent"]] == ["-33.3 %", "-50.0 %", "–"]


def judged(mean, *values):
    images = [dict(set=s, name=n, lpips=v)
              for s in ("thin", "thick") for n, v in zip("abc", values, strict=True)]
    return card(mean, images, ("thin", "thick", "all"))


def test_differences_are_paired_by_photograph():
    rows = [Row("telea", [judged(None, None, None, None)], []), Row("lama_l1", [judged(.2, .1, .5, .9)], []),
            Row("latent", [judged(.3, .2, .6, 1.), judged(.5, .4, .8, 1.2)], [])]
    table = sets_table(rows)
    telea, base, latent = lines(table)
    assert [*table.columns] == ["method", "thin", "thick", "all, from (1)"]
    assert telea[1:] == ["n/a", "n/a", "–"] and base[1:] == ["0.2000", "0.2000", "–"]
    # photographs differ by .8, the rows by .2 on each of them: paired, nothing is left of the former
    assert latent[1:] == ["0.4000 ± 0.1414", "0.4000 ± 0.1414", "+0.2000 [+0.2000, +0.2000]"]


def test_photographs_are_paired_by_name_not_by_order():
    base, ours = judged(.5, .1, .5, .9), judged(.6, .2, .6, 1.)
    ours["images"].reverse()
    table = sets_table([Row("lama_l1", [base], []), Row("latent", [ours], [])])
    assert lines(table)[1][-1] == "+0.1000 [+0.1000, +0.1000]"


def test_the_best_rate_is_marked():
    table = rates_table({"latent": {.001: .3, .01: float("inf")}, "delta": {.001: .4, .01: .2}})
    assert lines(table) == [["latent", "0.3000 ✓", "inf"], ["delta", "0.4000", "0.2000 ✓"]]
    assert [*table.columns] == ["method", "0.001", "0.01"]


def test_parts_of_a_step_are_means_over_seeds():
    parts = [dict.fromkeys(PARTS, s) for s in (.001, .003)]
    table = step_table([Row("telea", [], []), Row("latent", [], [], parts)])
    assert lines(table) == [["latent", *["2"]*len(PARTS), str(2*len(PARTS))]]
    assert [*table.columns] == ["method", *PARTS, "step"]


def test_what_is_not_available_is_not_invented():
    assert spread([]) == "n/a"
    (line,) = results_table([Row("latent", [card(None)], [])], "all").to_dict("records")
    assert line["LPIPS"] == "n/a" and "–" in line.values()


def test_at_equal_time_the_slow_row_is_read_where_the_fast_one_ends():
    fast, slow = history(("00:10", .5), ("00:10", .4)), history(("00:15", .45), ("00:15", .3))
    rows = [Row("a", [], [fast]), Row("b", [], [slow]), Row("telea", [], [])]
    seconds, table = equal_time_table(rows)
    assert seconds == 20 and lines(table) == [["a", "0.4000", "0.4000"], ["b", "0.4500", "0.4500"]]
    assert [*table.columns] == ["method", "hole L1", "LPIPS"]


def test_at_equal_time_a_row_without_an_epoch_or_a_value_has_none():
    fast, slow = history(("00:10", "n/a")), history(("00:15", .45))
    _, table = equal_time_table([Row("a", [], [fast]), Row("b", [], [slow])])
    assert [line[1:] for line in lines(table)] == [["n/a"]*2]*2


def test_pictures_are_chosen_by_lpips_of_trained_rows():
    images = [dict(set="thick", name=n, lpips=v, hole_l1=0) for n, v in (("a", .1), ("b", .3), ("c", .2))]
    images.append(dict(set="thin", name="c", lpips=9., hole_l1=0))
    rows = [Row("x", [card(.1, images)], [history(("00:07", 1))]),
            Row("telea", [card(.1, [dict(images[0], lpips=9.)])], [])]
    assert chosen_images(rows, "thick") == dict(worst="b", median="c", best="a")


def test_without_lpips_pictures_are_chosen_by_hole_l1():
    images = [dict(set="thick", name=n, lpips=None, hole_l1=v) for n, v in (("a", .2), ("b", .3), ("c", .1))]
    assert chosen_images([Row("x", [card(None, images)], [history(("00:07", 1))])], "thick") == dict(
        worst="b", median="a", best="c")


def test_equally_bad_pictures_are_chosen_by_name():
    images = [dict(set="thick", name=n, lpips=.1, hole_l1=0) for n in "cab"]
    assert chosen_images([Row("x", [card(.1, images)], [history(("00:07", 1))])], "thick") == dict(
        worst="a", median="b", best="c")


@pytest.mark.parametrize("clock, seconds", [("00:07", 7), ("02:05", 125), ("1:00:01", 3601)])
def test_clocks(clock, seconds): assert Row("x", [], [history((clock, 1))]).seconds() == [seconds]


def test_times_have_the_fractions_that_the_history_has():
    def run(*seconds):
        text = "\n".join(["epoch,lpips,time,seconds", *(f"{i},.1,00:01,{s}" for i, s in enumerate(seconds))])
        return Row("x", [card(.2)], [read_history(io.StringIO(text))])
    base, other = run(1.49, 1.49), run(1.2, 1.21)
    base.name = "lama_l1"
    assert other.seconds() == [pytest.approx(2.41)]
    assert results_table([base, other], "all")["time from (1)"][1] == "-19.1 %"


def test_a_history_adds_up_the_time_of_its_epochs():
    read = history(("00:10", .5), ("01:00", "n/a"))
    assert [*read["seconds"]] == [10, 70] and pd.isna(read["lpips"][1])


def test_mean_minutes_of_runs_that_differ_by_a_second_are_not_truncated():
    runs = [history(("00:26", 1)), history(("00:29", 1))]  # 27.5 seconds, .458 minutes
    base = Row("lama_l1", [card(.2)], [history(("00:25", 1))])
    assert results_table([base, Row("x", [card(.2)], runs)], "all")["time from (1)"][1] == "+10.0 %"
