"Archives from a server on this machine, which can break off, begin anew or send another file"
import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fastinpaint.core.errors import InputError, Unreachable
from fastinpaint.data import archives
from fastinpaint.data.archives import fetch_archive, link_photos, unpack, whole_folder

CONTENT = bytes(range(256)) * 40
MD5 = hashlib.md5(CONTENT).hexdigest()


class Files(BaseHTTPRequestHandler):
    ranges, stop, asked = True, None, []  # whether it knows ranges; where it breaks off; what was asked for

    def log_message(self, *args): pass

    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()

    def do_GET(self):
        start = int(self.headers["Range"][6:-1]) if self.ranges else 0
        self.asked.append(start)
        self.send_response(416 if start >= len(CONTENT) else 206 if self.ranges else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:self.stop])


@pytest.fixture
def server(monkeypatch):
    "The URL of a file and the handler that sends it"
    monkeypatch.setattr(Files, "asked", [])
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as found:
        threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}/a.tar"
        found.shutdown()


def test_a_download_is_checked_and_happens_once(server, tmp_path):
    path = tmp_path / "sets" / "a.tar"
    for _ in range(2): fetch_archive(server, path, MD5)
    assert path.read_bytes() == CONTENT and Files.asked == [0]
    assert [*path.parent.iterdir()] == [path]


@pytest.mark.parametrize("ranges, asked", [(True, [0, 5000]), (False, [0, 0])])
def test_a_download_that_broke_off_goes_on(server, tmp_path, monkeypatch, ranges, asked):
    path = tmp_path / "a.tar"
    monkeypatch.setattr(Files, "ranges", ranges)
    monkeypatch.setattr(Files, "stop", 5000)
    with pytest.raises(Unreachable, match=r"a.tar broke off.*goes on with .*a.tar.part"):
        fetch_archive(server, path, MD5)
    assert not path.exists()
    monkeypatch.setattr(Files, "stop", None)
    fetch_archive(server, path, MD5)
    assert path.read_bytes() == CONTENT and Files.asked == asked


def test_a_whole_download_that_was_never_checked_is(server, tmp_path):
    (tmp_path / "a.tar.part").write_bytes(CONTENT)
    fetch_archive(server, tmp_path / "a.tar", MD5)
    assert (tmp_path / "a.tar").read_bytes() == CONTENT


def test_another_file_is_not_taken(server, tmp_path):
    with pytest.raises(InputError, match="a.tar.part is not the file of http.*expected 1234; remove it"):
        fetch_archive(server, tmp_path / "a.tar", "1234")
    assert not (tmp_path / "a.tar").exists()
    (tmp_path / "a.tar").write_bytes(b"the user's own")
    with pytest.raises(InputError, match="a.tar is not the file of"):
        fetch_archive(server, tmp_path / "a.tar", MD5)


def test_without_a_network_or_room_nothing_is_begun(server, tmp_path, monkeypatch):
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: type("Usage", (), dict(free=9)))
    with pytest.raises(InputError, match="need .* GB in .* 0.0 GB are free; FASTAI_HOME"):
        fetch_archive(server, tmp_path / "a.tar", MD5)
    monkeypatch.setattr(archives, "unreachable", lambda url: "no answer in 4 s")
    with pytest.raises(Unreachable, match=f"no answer in 4 s.*put the file in {tmp_path}.*--data path"):
        fetch_archive(server, tmp_path / "a.tar", MD5)
    assert not any(tmp_path.iterdir())


def tar(path, names):
    with tarfile.open(path, "w") as f:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 3
            f.addfile(info, io.BytesIO(b"jpg"))


@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_photographs_alone_are_unpacked(tmp_path, suffix):
    names = ["set/a/1.jpg", "set/a/mask.png", "set/._1.jpg", "list.txt"]
    if suffix == "tar": tar(tmp_path / "a.tar", names)
    else:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as f: [f.writestr(o, "jpg") for o in names]
    unpack(tmp_path / f"a.{suffix}", tmp_path / "out")
    files = [o for o in (tmp_path / "out").rglob("*") if o.is_file()]
    assert files == [tmp_path / "out/set/a/1.jpg"] and files[0].read_text() == "jpg"


@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_a_broken_archive_is_named(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"no archive" * 100)
    with pytest.raises(InputError, match=f"a.{suffix} cannot be unpacked.*again"):
        unpack(path, tmp_path / "out")


def test_no_archive_writes_outside_its_folder(tmp_path):
    tar(tmp_path / "a.tar", ["../outside.jpg"])
    with pytest.raises(InputError, match="outside"): unpack(tmp_path / "a.tar", tmp_path / "out")
    assert not (tmp_path / "outside.jpg").exists()


def test_a_folder_comes_whole_or_not_at_all(tmp_path):
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "photos") as unfinished:
        (unfinished / "1.jpg").touch()
        raise KeyboardInterrupt
    assert not any(tmp_path.iterdir())
    with whole_folder(tmp_path / "photos") as unfinished:
        (unfinished / "2.jpg").write_text("jpg")
        link_photos([("3.jpg", unfinished / "2.jpg")], unfinished / "part")
    assert (tmp_path / "photos/part/3.jpg").read_text() == "jpg"
