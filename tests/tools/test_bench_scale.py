"What several processes cost and bring"
import pytest
import torch
from torch import nn

from fastinpaint.tools.bench_scale import LINKS, TRAINED, bytes_told, main, seconds_on_link
from fastinpaint.tools.settings import BenchScaleSettings


def test_both_numbers_of_processes_are_timed_and_every_recipe_is_counted(capsys):
    main(BenchScaleSettings(width=2, size=32, bs=1, blocks=1, rounds=1, steps=1))
    settings, one, two, ratio, *_ = lines = capsys.readouterr().out.splitlines()
    assert one.startswith("1 process:") and two.startswith("2 processes:") and "latent_control" in settings
    assert float(ratio.split()[1]) > 0
    assert len(lines) == 7 + 2*len(TRAINED) and all(len(line) == len(lines[6]) for line in lines[7:])


def test_what_is_told_are_gradients_and_running_statistics():
    assert bytes_told([nn.Linear(3, 2), nn.BatchNorm2d(5)]) == 4*(3*2 + 2 + 4*5)


@pytest.mark.parametrize("processes, share", [(2, 1), (4, 1.5), (8, 1.75)])
def test_a_ring_sends_less_than_twice_the_bytes(processes, share):
    assert seconds_on_link(10**9, processes, 8) == pytest.approx(share) and LINKS


def test_frozen_parts_are_not_told():
    with torch.device("meta"): told = {name: bytes_told(make(8)) for name, make in TRAINED.items()}
    assert told["mask_control, latent_control, delta"] < told["lama_l1"] < told["lama"]
