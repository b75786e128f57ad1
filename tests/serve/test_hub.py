import hashlib
import json
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from huggingface_hub import HfApi, constants

from fastinpaint.models.context_encoder import context_encoder
from fastinpaint.models.net import InpaintNet
from fastinpaint.serve import hub

COMMIT = "0"*40


class StandIn(SimpleHTTPRequestHandler):
    "The two requests that a download makes of the Hub, answered from a folder"
    def translate_path(self, path): return str(Path(self.directory)/path.rsplit("/", 1)[1])

    def do_HEAD(self):
        if self.path == "/": return self.answer(200)
        if not self.path.startswith("/me/small/resolve/main/"):
            return self.answer(404, {"X-Error-Code": "RepoNotFound"})
        file = Path(self.translate_path(self.path))
        if not file.is_file():
            return self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        etag = hashlib.sha256(file.read_bytes()).hexdigest()
        self.answer(200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT,
                          "Content-Length": str(file.stat().st_size)})

    def answer(self, code, headers=()):
        self.send_response(code)
        for name, value in dict(headers).items(): self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_): pass


@pytest.fixture
def saved(tiny_lama, tmp_path):
    model = tiny_lama(control="mask").eval()
    model.save_pretrained(tmp_path/"saved")
    return model, tmp_path/"saved"


@pytest.fixture
def here(saved, tmp_path, monkeypatch):
    "A Hub on this machine that holds the saved model as me/small"
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(StandIn, directory=str(saved[1])))
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE",
                        constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}")
    yield partial(InpaintNet.from_pretrained, cache_dir=tmp_path/"cache")
    server.shutdown()


def test_a_folder_is_safetensors_a_config_and_a_card(saved, same, state_of):
    model, folder = saved
    names = sorted(p.name for p in folder.iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    assert json.loads((folder/"config.json").read_text()) == model.config
    text = (folder/"README.md").read_text()
    assert "library_name: fastinpaint" in text and '"control": "mask"' in text
    again = InpaintNet.from_pretrained(folder)
    assert same(state_of(again), state_of(model)) and not again.training


def test_other_networks_come_back_as_what_they_were(tmp_path):
    model = context_encoder(width=2, size=32)
    model.save_pretrained(tmp_path)
    assert type(InpaintNet.from_pretrained(tmp_path)) is type(model)


def test_a_model_is_downloaded_once_and_is_there_without_network(
        saved, here, monkeypatch, same, state_of):
    assert same(state_of(here("me/small")), state_of(saved[0]))
    monkeypatch.setattr(hub, "unreachable", lambda *_: "no network")
    assert same(state_of(here("me/small")), state_of(saved[0]))


def test_what_is_not_there_is_named(saved, here):
    with pytest.raises(FileNotFoundError, match="no model me/none"): here("me/none")
    # a pickle is never asked for
    (saved[1]/"model.safetensors").rename(saved[1]/"pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="me/small with a model.safetensors"):
        here("me/small")


def test_what_is_no_model_of_ours_is_refused(saved, here):
    (saved[1]/"model.safetensors").write_bytes(b"\x80\x04K\x01.")  # a pickle under another name
    with pytest.raises(ValueError, match="no complete safetensors"): here("me/small")


def test_without_a_hub_it_says_so_at_once(monkeypatch, tmp_path, tiny_lama):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match="has not been downloaded before.*save_pretrained"):
        InpaintNet.from_pretrained("me/small", cache_dir=tmp_path)
    with pytest.raises(ConnectionError, match="save_pretrained writes the same"):
        tiny_lama().push_to_hub("me/small")


def test_what_is_pushed(here, monkeypatch, tiny_lama, tmp_path):
    pushed = {}

    def upload(self, repo_id, folder_path, **kwargs):
        pushed.update({p.name: p.read_bytes() for p in Path(folder_path).iterdir()})
        return f"{repo_id}/commit"
    monkeypatch.setattr(HfApi, "create_repo",
                        lambda self, repo_id, **_: type("Repo", (), dict(repo_id=repo_id)))
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    model = tiny_lama(control="mask")
    assert model.push_to_hub("me/small", private=True) == "me/small/commit"
    for name, data in pushed.items(): (tmp_path/name).write_bytes(data)
    x, mask = torch.rand(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    assert sorted(pushed) == ["README.md", "config.json", "model.safetensors"]
    assert torch.equal(InpaintNet.from_pretrained(tmp_path)(x, mask), model.eval()(x, mask))
