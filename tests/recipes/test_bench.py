"The benchmark measures what it says it measures"
import torch

from fastinpaint.recipes.bench import METHODS, images_per_second, main, step_times


def test_every_step_of_every_method_is_timed_but_the_warm_up():
    mask = (torch.rand(2, 1, 32, 32) > .5).float()
    image = torch.rand(2, 3, 32, 32)
    times = step_times((image*(1 - mask), mask, image, mask), rounds=2, steps=3, width=2, blocks=1)
    assert times.keys() == METHODS.keys() and all(len(t) == 6 and min(t) > 0 for t in times.values())


def test_the_last_line_is_the_ratio(capsys, photos):
    main(width=2, size=32, bs=2, blocks=1, rounds=1, steps=1, workers=0, data=str(photos), device="cpu")
    *_, data, last = capsys.readouterr().out.strip().splitlines()
    assert last.startswith("latent_control / lama_l1 step ratio: ") and float(last.split()[-1]) > 0
    assert data.startswith("data alone")


def test_the_supply_counts_images_after_the_first_batch():
    batch = (torch.zeros(4, 3, 8, 8),)
    assert images_per_second(type("Loaders", (), {"train": [batch]*3})) > 0
