"""A model goes to the Hugging Face Hub as a folder, and comes back from it. Here the Hub is the loopback."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from conftest import REPO

from fer_lib.cli import main as cli
from fer_lib.errors import ModelError
from fer_lib.inference import hub

COMMIT = "0" * 40
PHOTO = REPO / "app" / "examples" / "astronaut.jpg"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder that would be uploaded."""
    folder = tmp_path_factory.mktemp("hub") / "photographs"
    assert cli.main(["release", "fer2013", "photographs", "--hub-folder", str(folder)]) == 0
    return folder


@pytest.fixture
def endpoint(folder):
    """Serve `folder` as the Hub serves the repository `someone/faces`."""
    (folder / "code.py").write_text("raise SystemExit")
    names = sorted(path.name for path in folder.iterdir())

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(is_head=True)

        def do_GET(self):
            self.answer(is_head=False)

        def answer(self, is_head):
            if self.path.startswith("/api/models/someone/faces/tree/"):
                files = [
                    {"type": "file", "path": name, "size": (folder / name).stat().st_size, "oid": COMMIT}
                    for name in names
                ]
                content = json.dumps(files).encode()
            elif self.path.startswith("/api/models/someone/faces"):
                listed = {"id": "someone/faces", "sha": COMMIT, "siblings": [{"rfilename": n} for n in names]}
                content = json.dumps(listed).encode()
            elif (name := self.path.rpartition("/")[2]) in names and "someone/faces" in self.path:
                content = (folder / name).read_bytes()
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{len(content)}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if not is_head:
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def load(endpoint, cache, repository="someone/faces", settings="variant='tiny'"):
    """Return what a process of its own prints: the Hub's client reads its endpoint when it is imported."""
    code = (
        "from fer_lib import Recognizer\n"
        f"recognizer = Recognizer.from_pretrained({repository!r}, {settings})\n"
        f"print(recognizer.folder, [face.label for face in recognizer({str(PHOTO)!r})])"
    )
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=REPO, capture_output=True, text=True, check=False
    )


def test_model_comes_back_from_the_hub_and_then_from_the_cache(endpoint, tmp_path):
    done = load(endpoint, tmp_path)
    assert done.stdout.endswith("['happy']\n"), done.stderr
    found = {path.name for path in tmp_path.rglob("snapshots/*/*")}
    assert {"config.json", "model.tiny.onnx", "model.float.onnx"} <= found
    assert "code.py" not in found  # nothing but models and their config is taken
    assert load("http://127.0.0.1:9", tmp_path).stdout == done.stdout


def test_model_that_is_not_there_gives_one_line(endpoint, tmp_path):
    for where, name in (
        (endpoint, "someone/else"),
        ("http://127.0.0.1:9", "someone/faces"),
        (endpoint, "a/b/c"),
    ):
        done = load(where, tmp_path, name)
        last = done.stderr.splitlines()[-1]
        assert last.startswith(f"fer_lib.errors.ModelError: {name}: expected a model on the Hugging Face Hub")


def test_hub_without_its_client_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match=r"expected what the extra `hub` installs, found none"):
        hub.download_model("someone/faces")


def test_folder_holds_card_licence_and_networks(folder, capsys, tmp_path):
    names = {path.name for path in folder.iterdir()}
    assert {"README.md", "LICENSE", "config.json", "model.balanced.onnx"} <= names
    metadata = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    assert metadata["library_name"] == "fer-lib"
    assert cli.main(["release", "fer2013", "photographs", "--hub-folder", str(folder)]) == 1
    assert "expected an empty folder" in capsys.readouterr().err
    for dataset, name, message in (
        ("fer2013", "none", "expected a release with its card"),
        ("demo", "photographs", "expected a release of demo, found one of fer2013"),
    ):
        assert cli.main(["release", dataset, name, "--hub-folder", str(tmp_path / "a")]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
