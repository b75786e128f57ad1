"Against a stand-in of the public file, which is not ours to keep"
import re

import pytest
import torch

from fastinpaint.core.errors import InputError
from fastinpaint.tools.against import clock, in_turn, public_generator
from fastinpaint.tools.bench_speed import main
from fastinpaint.tools.settings import BenchSpeedSettings

STAND_IN = """
import torch
from saicinpainting.training.modules.base import get_activation, BaseDiscriminator
from saicinpainting.training.modules.squeeze_excitation import SELayer
from saicinpainting.utils import get_shape

class Discriminator(BaseDiscriminator): pass

class FFCResNetGenerator(torch.nn.Module):
    def __init__(self, n_in, n_out, width, halvings, blocks, add_out_act=True, **kwargs):
        super().__init__()
        assert not add_out_act and kwargs["resnet_conv_kwargs"]["ratio_gin"] == .75
        self.conv = torch.nn.Conv2d(n_in, n_out, 1)
    def forward(self, x): return self.conv(x)
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path/"ffc.py").write_text(STAND_IN)
    return tmp_path/"ffc.py"


def test_steps_and_fills_are_compared_with_the_file_of_the_user(file, capsys):
    main(BenchSpeedSettings(against=str(file), width=2, size=64, blocks=1, rounds=2, device="cpu", threads=1))
    first, *lines = capsys.readouterr().out.strip().splitlines()
    assert "1 threads, width 2, 1 blocks" in first and "fills of one of 64" in first
    assert [re.split(r"  +", line)[0] for line in lines] == [
        "step public", "step lama_l1", "step latent_control", "step lama_l1, LaMa's layers",
        "step latent_control, LaMa's layers", "fill public", "fill filled", "fill filled, LaMa's layers"]
    assert all(" 1.00 times as fast" in lines[i] for i in (0, 5))


def test_our_steps_in_bfloat16_too(file, capsys):
    main(BenchSpeedSettings(against=str(file), width=2, size=64, blocks=1, rounds=1, device="cpu", threads=1,
                            bf16=True))
    assert re.findall(r"step (\w+(?:, LaMa's layers)?, bf16) ", capsys.readouterr().out) == [
        f"{name}{layers}, bf16" for layers in ("", ", LaMa's layers")
        for name in ("lama_l1", "latent_control")]


def test_runs_take_turns_and_the_first_of_each_is_not_counted():
    order = []
    def run(name, times): return lambda: order.append(name) or times.pop(0)
    seconds = in_turn({"a": run("a", [9, 1, 2]), "b": run("b", [9, 3, 4])}, 2)
    assert order == ["a", "b"]*3 and seconds == {"a": [1, 2], "b": [3, 4]}


def test_the_generator_predicts_between_0_and_1_and_needs_nothing_else_of_its_package(file):
    image = public_generator(file, 2, 1)(torch.randn(1, 4, 8, 8)*9)
    assert image.shape == (1, 3, 8, 8) and 0 <= image.min() < image.max() <= 1


@pytest.mark.parametrize("text", [None, "x = 1"])
def test_another_file_is_refused(tmp_path, text):
    if text: (tmp_path/"ffc.py").write_text(text)
    with pytest.raises(InputError, match="ffc.py"): public_generator(tmp_path/"ffc.py", 2, 1)


def test_one_thread_is_timed_by_what_it_works():
    before = clock(False)
    torch.rand(1000, 1000).sum()
    assert 0 < clock(False) - before < 60
