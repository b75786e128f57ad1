"An evaluation on disk"
import json

import pytest

from fastinpaint.judge.baselines import mean_colour
from fastinpaint.judge.evaluate import evaluate

QUICK = dict(size=32, frechet=False)


def test_a_card_on_disk(photos, tmp_path):
    card = evaluate("mean_colour", photos, "thick", **QUICK)
    json_file, page = card.save(tmp_path/"card")
    saved = json.loads(json_file.read_text())
    assert saved["metrics"]["thick"]["hole_l1"]["value"] == card.metrics["thick"]["hole_l1"]["value"]
    assert "# mean_colour" in page.read_text() and "| thick | 8 | 0." in page.read_text()


def test_what_is_interrupted_leaves_no_card(photos, tmp_path):
    def fill(image, mask): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): evaluate(fill, photos, "thick", **QUICK).save(tmp_path/"card")
    assert not (tmp_path/"card").exists()


def test_a_full_disk_keeps_the_card_of_before(photos, tmp_path, monkeypatch):
    card = evaluate(mean_colour, photos, "thick", **QUICK)
    before = [p.read_bytes() for p in card.save(tmp_path)]
    card.drift = 9.

    def full(fd): raise OSError(28, "No space left on device")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"): card.save(tmp_path)
    assert [(tmp_path/n).read_bytes() for n in ("card.json", "card.md")] == before
    assert len([*tmp_path.iterdir()]) == 2
