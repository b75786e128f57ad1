from fastinpaint.tools.bench_shards import main, supplies
from fastinpaint.tools.settings import BenchShardsSettings


def test_each_source_is_measured_in_turn_but_the_warm_up(photos):
    rates = supplies(dict(a=photos, b=photos), 2, size=32, bs=2, steps=3, num_workers=0, device="cpu")
    assert rates.keys() == {"a", "b"} and all(len(o) == 2 and min(o) > 0 for o in rates.values())


def test_the_last_line_is_the_ratio(photos, capsys):
    main(BenchShardsSettings(data=str(photos), count=3, size=32, bs=2, steps=3, rounds=1, workers=0,
                             device="cpu"))
    head, *_, last = capsys.readouterr().out.strip().splitlines()
    assert head.startswith("8 photographs in 3 shards")
    name, ratio = last.split(": ")
    assert name == "shards / folder supply ratio" and float(ratio) > 0
