import errno
import os
import signal
import stat

import pytest

from fastinpaint.core.files import replacing


def full(*args): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def files(folder): return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, step):
    (tmp_path/"f").write_bytes(b"old")
    monkeypatch.setattr(os, step, full)
    with (pytest.raises(OSError, match="No space left.*what was there before is as it was.*/f'") as caught,
          replacing(tmp_path/"f") as f): f.write(b"new")
    assert files(tmp_path) == {"f": b"old"} and caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="nothing was written.*/new'"), replacing(tmp_path/"new") as f: pass


def test_what_a_server_says_stays_as_it_is(tmp_path):
    with pytest.raises(OSError, match="^it is not there$"), replacing(tmp_path/"f"):
        raise OSError("it is not there")


def test_what_another_file_lacks_is_not_said_of_the_one_that_is_written(tmp_path):
    with pytest.raises(FileNotFoundError, match="directory: .*nowhere"), replacing(tmp_path/"f"):
        (tmp_path/"nowhere").read_bytes()
    assert files(tmp_path) == {}


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path):
    (tmp_path/"f").write_bytes(b"old")
    with replacing(tmp_path/"f") as f:
        f.write(b"new")
        assert (tmp_path/"f").read_bytes() == b"old"
    assert files(tmp_path) == {"f": b"new"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_while_writing_leaves_the_old_file(tmp_path, error):
    (tmp_path/"f").write_bytes(b"old")
    with pytest.raises(error), replacing(tmp_path/"f") as f:
        f.write(b"new")
        raise error
    assert files(tmp_path) == {"f": b"old"}


def test_a_kill_while_writing_leaves_the_old_file(tmp_path):
    (tmp_path/"f").write_bytes(b"old")
    if not (child := os.fork()):
        try:
            with replacing(tmp_path/"f") as f:
                f.write(b"half of the new file")
                f.flush()
                os.kill(os.getpid(), signal.SIGKILL)
        finally: os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert (tmp_path/"f").read_bytes() == b"old"


def test_replaced_files_follow_the_users_umask(tmp_path):
    before = os.umask(0o027)
    try:
        with replacing(tmp_path/"deep/f") as f: f.write(b"new")
    finally: os.umask(before)
    written = tmp_path/"deep/f"
    assert stat.S_IMODE(written.stat().st_mode) == 0o640 and written.read_bytes() == b"new"
