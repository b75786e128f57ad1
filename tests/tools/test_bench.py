"The benchmark measures what it says it measures"
import pytest
import torch

from fastinpaint.core.errors import InputError
from fastinpaint.models.ffc import FourierUnit
from fastinpaint.tools.bench import METHODS, adversarial_methods, images_per_second, main, step_times
from fastinpaint.tools.settings import BenchSettings

TINY = dict(width=2, size=32, bs=2, blocks=1, rounds=1, steps=1, workers=0, device="cpu")


@pytest.mark.parametrize("methods", [METHODS, adversarial_methods("none")])
def test_every_step_of_every_method_is_timed_but_the_warm_up(methods):
    mask = (torch.rand(2, 1, 32, 32) > .5).float()
    image = torch.rand(2, 3, 32, 32)
    times = step_times(methods, (image*(1 - mask), mask, image, mask), rounds=2, steps=3, width=2, blocks=1)
    assert times.keys() == methods.keys() and all(len(t) == 6 and min(t) > 0 for t in times.values())


def test_fourier_units_compute_as_told(monkeypatch):
    seen, real = set(), FourierUnit.forward
    monkeypatch.setattr(FourierUnit, "forward", lambda self, x: seen.add(self.impl) or real(self, x))
    image, mask = torch.rand(2, 3, 32, 32), torch.zeros(2, 1, 32, 32)
    methods = {"lama_l1": METHODS["lama_l1"]}
    step_times(methods, (image, mask, image, mask), 1, 1, fourier="torch", width=2, blocks=1)
    assert seen == {"torch"}


def test_another_way_to_compute_fourier_units_is_refused():
    with pytest.raises(InputError, match="--fourier is one of fft, torch"): main(BenchSettings(fourier="dft"))


def test_the_last_line_is_the_ratio(capsys, photos):
    main(BenchSettings(data=str(photos), **TINY))
    *_, data, last = capsys.readouterr().out.strip().splitlines()
    assert last.startswith("latent_control / lama_l1 step ratio: ") and float(last.split()[-1]) > 0
    assert data.startswith("data alone")


def test_with_gan_the_adversarial_recipes_are_compared(capsys, photos):
    main(BenchSettings(data=str(photos), gan=True, perceptual="none", **TINY))
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line.split(" step ratio: ")[0] for line in lines[-3:]] == [
        "latent_control_gan / lama", "latent_gan / latent_control", "latent_gan / latent_control_gan"]
    parts = [line[2:].split("  ")[0] for line in lines if line.startswith("  without")]
    assert parts == ["without R1", "without discriminator"]


def test_the_supply_counts_images_after_the_first_batch():
    batch = (torch.zeros(4, 3, 8, 8),)
    assert images_per_second(type("Loaders", (), {"train": [batch]*3})) > 0
