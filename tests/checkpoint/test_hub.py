"""Checkpoints of a stand-in for the Hugging Face Hub on this machine."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from qdformer.checkpoint.hub import local_file
from qdformer.checkpoint.weights import read_weights
from qdformer.errors import InputError
from qdformer.predictor import AudioVisualPredictor
from tests.videos import save_described

COMMIT = "0" * 39 + "1"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Files by ``owner/name/revision/file``, and how often each was sent."""
    files, sent = {}, []

    class Hub(BaseHTTPRequestHandler):
        def answer(self):
            owner, name, resolve, revision, *file = self.path.strip("/").split("/")
            data = files.get("/".join((owner, name, revision, *file)))
            self.send_response(404 if data is None or resolve != "resolve" else 200)
            if data is None:
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return b""
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            return data

        def do_HEAD(self):
            self.answer()

        def do_GET(self):
            sent.append(self.path)
            self.wfile.write(self.answer())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        endpoint + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    yield files, sent
    server.shutdown()


@pytest.fixture
def published(composed, hub, tmp_path):
    """The weights of a model that is on the Hub."""
    path = save_described(tmp_path / "model.safetensors")
    hub[0]["somebody/avs/main/model_final.safetensors"] = path.read_bytes()
    return read_weights(str(path))["model"]


def test_a_model_of_the_hub_predicts(published):
    predictor = AudioVisualPredictor.from_pretrained("somebody/avs")
    state = predictor.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in published.items())
    assert predictor.metadata.stuff_classes[1:] == ["bell", "drum", "siren"]


def test_a_file_is_fetched_once(published, hub):
    assert local_file("hf://somebody/avs") == local_file("hf://somebody/avs")
    assert len(hub[1]) == 1


def test_files_and_revisions_can_be_named(hub):
    hub[0]["somebody/avs/v2/deeper/best.safetensors"] = b"weights"
    with open(local_file("hf://somebody/avs/deeper/best.safetensors@v2"), "rb") as file:
        assert file.read() == b"weights"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://somebody", "is no address"),
        ("hf://somebody/avs/../../etc@x y", "is no address"),
        ("hf://somebody/avs/model.pth", "only .safetensors"),
        ("hf://nobody/nothing", "cannot be fetched"),
    ],
)
def test_what_is_not_there_is_told(hub, address, message):
    with pytest.raises(InputError, match=message):
        read_weights(address)


def test_paths_stay_paths(tmp_path):
    assert local_file(str(tmp_path / "hf" / "model.safetensors")).startswith(str(tmp_path))
