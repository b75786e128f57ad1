import pytest

from fastinpaint.train.callback.freeze import FreezeSchedule
from fastinpaint.train.callback.latent import LatentLoss


@pytest.mark.parametrize("cbs", [[], [FreezeSchedule(), LatentLoss()]], ids=["pixels", "latents"])
def test_a_summary_lists_layers_and_parameters(tiny_learner, cbs):
    learn = tiny_learner(*cbs, control="mask")
    before = [p.requires_grad for p in learn.model.parameters()], learn.model.training
    text, total = learn.summary(), sum(p.numel() for p in learn.model.parameters())
    assert ([p.requires_grad for p in learn.model.parameters()], learn.model.training) == before
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    assert lines["all"] == ["InpaintNet", "2×3×32×32", f"{total:,}", f"{total:,}"]
    assert lines["refiner"][1] == "2×16×4×4" and "pixel_l1" in text
    assert sum(int(lines[part][-1].replace(",", "")) for part, _ in learn.model.named_children()) == total
    learn.freeze()
    assert "Frozen: the first 3 of 4" in learn.summary()
