"Commands that only a GPU runs are right before one is there"
import pytest

from fastinpaint.cli import main
from fastinpaint.kernels import bench
from fastinpaint.tools.campaign import PAGES
from fastinpaint.tools.pieces import PIECES, TESTS, placed

PLACES = dict(HERE="here", ALL="all", DATA="sample")


def parsed(words):
    "The flags of a command line, which is not run"
    if words[0] == "fastinpaint.kernels.bench": return bench.main.command().make_context("bench", words[1:])
    context = command = None
    for i, word in enumerate(words[1:], 2):
        command = (command or main).get_command(context, word)
        if not hasattr(command, "get_command"): return command.make_context(word, words[i:])


@pytest.mark.parametrize("rehearsed", [False, True], ids=["gpu", "rehearsal"])
@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: piece.name)
def test_every_command_takes_its_flags(piece, rehearsed):
    if piece.command == TESTS or rehearsed and not piece.rehearsal: return
    _, _, *words = piece.argv(rehearsed, PLACES)
    flags = parsed(words).params
    if piece.checkpoint: assert placed(piece.checkpoint, PLACES) == f"{flags['out']}/delta/checkpoint.pt"
    if rehearsed: assert flags.get("device", "cpu") == "cpu" or flags.get("join")
    assert piece.page in PAGES


def test_names_are_different_and_places_are_not_replaced_twice(tmp_path):
    assert len({piece.name for piece in PIECES}) == len(PIECES)
    assert placed("HERE/a DATA", dict(HERE="/ALL", ALL="/x", DATA="d HERE")) == "/ALL/a d HERE"


def test_a_checkpoint_is_resumed(tmp_path):
    (piece,) = (piece for piece in PIECES if piece.checkpoint)
    here = PLACES | dict(HERE=tmp_path)
    assert "--resume" not in piece.argv(False, here)
    (tmp_path/"delta").mkdir()
    (tmp_path/"delta/checkpoint.pt").touch()
    assert piece.argv(False, here)[-1] == "--resume"
