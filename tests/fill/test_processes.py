import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from fastinpaint.fill.folder import fill_folder


def files(folder):
    return {str(o.relative_to(folder)): o.read_bytes() for o in Path(folder).rglob("*") if o.is_file()}


def test_workers_write_what_one_process_would(folders, tmp_path):
    (folders["images"]/"0.png").write_text("text")
    one = fill_folder(**folders)
    assert fill_folder(**(folders | dict(out=tmp_path/"two")), workers=2) == one
    assert files(tmp_path/"two") == files(folders["out"])
    with pytest.raises(FileNotFoundError, match="none.safetensors"):
        fill_folder(**(folders | dict(model="none.safetensors", out=tmp_path/"three")), workers=2)


def test_a_killed_worker_costs_one_photograph_and_ctrl_c_leaves_no_worker(folders):
    def killing(results, total):
        for i, result in enumerate(results):
            if i == 0: os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
            yield result

    def interrupting(results, total):
        yield next(results)
        raise KeyboardInterrupt

    result = fill_folder(**folders, workers=2, progress=killing)
    assert result.filled >= 7 and result.filled + len(result.failed) == 8
    assert all("killed" in reason for reason in result.failed.values())
    # what is killed in mid-write cannot tidy up; what is interrupted must
    for half in folders["out"].rglob(".*"): half.unlink()
    with pytest.raises(KeyboardInterrupt):
        fill_folder(**folders, workers=2, overwrite=True, progress=interrupting)
    assert not multiprocessing.active_children()
    assert not [name for name in files(folders["out"]) if Path(name).name.startswith(".")]


@pytest.mark.parametrize("workers, error, message",
                         [(1, TypeError, "argument 'blend'"), (2, RuntimeError, "the error above")])
def test_a_bug_is_no_failure_of_one_photograph_but_ends_the_run(folders, workers, error, message):
    with pytest.raises(error, match=message): fill_folder(**folders, workers=workers, blend=True)
    assert not multiprocessing.active_children() and not files(folders["out"])


def test_every_killed_worker_is_replaced(folders):
    def killing(results, total):
        for i, result in enumerate(results):
            if i < 2:  # as many as there are
                process = multiprocessing.active_children()[0]
                process.kill()
                process.join()
            yield result

    result = fill_folder(**folders, workers=2, progress=killing)
    assert result.filled + len(result.failed) == 8
