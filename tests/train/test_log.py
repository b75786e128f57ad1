import sys


def test_a_log_has_one_line_an_epoch(tiny_learner, capsys):
    learn = tiny_learner()
    capsys.readouterr()
    learn.fit(2)
    learn.validate()
    learn.get_preds()
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["epoch", "train_loss"] and [line.split()[0] for line in lines] == ["0", "1"]
    assert not any(c in header + "".join(lines) for c in "\r█|")


def test_a_terminal_has_bars(tiny_learner, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    tiny_learner().fit(1)
    assert "█" in capsys.readouterr().out
