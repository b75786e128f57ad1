"The campaign: rehearsed from end to end; turns, limits, what is kept"
import json
import shutil
import sys
from pathlib import Path

import pytest

from fastinpaint.core.errors import InputError
from fastinpaint.tools import campaign
from fastinpaint.tools.pieces import PIECES, Piece
from fastinpaint.tools.settings import CampaignSettings

ROOT = Path(__file__).parents[2]


def documented(): return {file: file.read_bytes() for file in (ROOT/"docs/results").iterdir()}


def test_an_interrupted_rehearsal_goes_on_and_leaves_every_page(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    docs, data = documented(), tmp_path/"data"
    for part in "train", "valid": shutil.copytree(photos, data/part)
    # speed-8 is much like step-8
    names = [piece.name for piece in PIECES if piece.rehearsal and piece.name != "speed-8"]
    flags = dict(rehearse=True, out=str(tmp_path), data=str(data), piece=",".join(names))
    run = campaign.run
    def interrupted_in_the_second(argv, folder, seconds):
        if folder.name != "kernel-tests": raise KeyboardInterrupt
        return run(argv, folder, seconds)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(campaign, "run", interrupted_in_the_second)
        campaign.main(CampaignSettings(**flags))
    assert [*json.loads((tmp_path/"cpu/campaign.json").read_text())] == ["kernel-tests"]

    campaign.main(CampaignSettings(**flags))
    states = json.loads((tmp_path/"cpu/campaign.json").read_text())
    assert [*states] == names
    assert {state["state"] for state in states.values()} == {"done"}
    assert states["kernel-tests"]["turns"] == 1
    pages = {file.name: file.read_text() for file in (tmp_path/"cpu/results").iterdir()}
    assert pages.keys() == {f"{page}-cpu.md" for page in campaign.PAGES}
    assert all("Measured on cpu by `fastinpaint campaign --rehearse`" in text for text in pages.values())
    assert "latent_control / lama_l1 step ratio: " in pages["steps-cpu.md"]
    assert "best " in pages["kernels-cpu.md"] and "| thick | 2 | 0." in pages["sample-cpu.md"]
    assert "| from (1) | method | thesis | ladder-thesis | ladder-ours |" in pages["ladder-cpu.md"]
    assert "![" not in pages["ladder-cpu.md"]

    before, _ = (tmp_path/"cpu/campaign.json").read_bytes(), capsys.readouterr()
    campaign.main(CampaignSettings(**flags))
    assert (tmp_path/"cpu/campaign.json").read_bytes() == before
    assert capsys.readouterr().out == f"pages: {tmp_path}/cpu/results\n"
    assert documented() == docs


# turns

PROGRAM = """
import sys, time
from pathlib import Path
turns, told = Path(sys.argv[1]), sys.argv[2:]
before = turns.read_text().split("|") if turns.exists() else []
turns.write_text("|".join([*before, " ".join(told)]))
print("turn")
if len(before) < int(told[0]):
    try: time.sleep(600)
    except KeyboardInterrupt: turns.with_name("checkpoint").touch()
    sys.exit(130)
"""


@pytest.fixture
def counting(tmp_path, monkeypatch):
    "Runs a campaign of pieces that are done after so many turns, and gives what each turn was told"
    (tmp_path/"counting.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def run(*pieces, **flags):
        monkeypatch.setattr(campaign, "PIECES", [
            Piece(name, "steps", "counting", "", f"HERE/turns {after} DATA", resumes=resumes,
                  checkpoint="HERE/checkpoint" if resumes else "") for name, after, resumes in pieces])
        given = dict(rehearse=True, out="out", minutes=.08)
        campaign.main(CampaignSettings(**given | flags))
        return {name: path.read_text().split("|") for name, *_ in pieces
                if (path := tmp_path/f"out/cpu/{name}/turns").is_file()}
    return run


def test_what_can_be_resumed_takes_turns_until_it_is_done(counting, tmp_path):
    assert counting(("long", 2, True)) == dict(long=["2 sample", "2 sample --resume", "2 sample --resume"])
    assert "## long: done, 3 turns" in (tmp_path/"out/cpu/results/steps-cpu.md").read_text()
    assert len(counting(("long", 2, True))["long"]) == 3  # it is done
    assert len(counting(("long", 2, True), data="other")["long"]) == 4  # another command is not


def test_what_takes_too_long_has_failed_and_the_others_go_on(counting, tmp_path):
    with pytest.raises(InputError, match="failed: endless; out/cpu/PIECE has"):
        counting(("endless", 9, False), ("short", 0, False))
    page = (tmp_path/"out/cpu/results/steps-cpu.md").read_text()
    assert "## endless: failed, 1 turn" in page and "## short: done, 1 turn" in page
    assert page.count("```text\nturn\n```") == 1


def test_nothing_begins_after_the_budget(counting, capsys, tmp_path):
    counting(("cut", 1, False), ("never", 0, False), budget=.01)
    states = json.loads((tmp_path/"out/cpu/campaign.json").read_text())
    assert states.keys() == {"cut"} and states["cut"]["state"] == "unfinished"
    assert "the same command goes on" in capsys.readouterr().out
    assert counting(("cut", 0, False), ("never", 0, False)).keys() == {"cut", "never"}


def test_only_the_pieces_asked_for(counting, capsys):
    pieces = ("a", 0, False), ("b", 0, False)
    assert counting(*pieces, piece="b").keys() == {"b"}
    capsys.readouterr()
    counting(*pieces, list=True)
    a, b = capsys.readouterr().out.splitlines()
    assert a == "a: waiting" and b.startswith("b: done, 1 turn")
    with pytest.raises(InputError, match="no pieces c; there are a, b"): counting(*pieces, piece="a,c")


def test_what_does_not_end_when_asked_to_is_ended(tmp_path):
    stubborn = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"
    assert campaign.run([sys.executable, "-c", stubborn], tmp_path, 2) is None


# devices

@pytest.mark.parametrize("device, name", [
    ("NVIDIA H200", "h200"), ("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA GeForce RTX 4090", "rtx-4090"),
    ("Tesla V100-SXM2-32GB", "v100"), ("AMD Instinct MI300X", "mi300x"), ("cpu", "cpu")])
def test_pages_are_called_by_the_device(device, name): assert campaign.slug(device) == name


def test_without_a_gpu_there_is_nothing_to_measure(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="no GPU to measure.*--rehearse"):
        campaign.main(CampaignSettings(out=str(tmp_path)))


def test_on_a_gpu_pages_go_to_the_documentation(monkeypatch, tmp_path):
    made = campaign.Campaign(CampaignSettings(out=str(tmp_path)), "NVIDIA H200")
    assert (made.pages, made.folder) == (Path("docs/results"), tmp_path/"h200")
