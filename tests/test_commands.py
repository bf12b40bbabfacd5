"""Every line of every `sh` block of README and docs/ runs in a fresh clone, or an entry below says why not.

`make newcomer` (the variable NEWCOMER) also runs what takes long, in an environment that it installs.
"""

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import av
import pandas as pd
import pillow_heif
import pytest
from conftest import REPO
from PIL import Image

from demo_faces.clips import draw_clip, draw_scene

NEWCOMER = bool(os.environ.get("NEWCOMER"))

NEEDS = {
    r"docker ": "Docker; tests/test_dockerfile.py reads the file",
    r"PIP_NO_DEPS=1 conda |conda |pip install --no-deps": "conda",
    r"make (results|repro) DATASET|fer (?!.*--hub-folder).*fer2013( |$)(?!-labels)": "licensed photographs",
    r"fer pipeline my_faces": "an entry in params.yaml, which it asks for",
    r"fer score s3:": "a cluster and a bucket; tests/scale runs it on one machine",
    r"fer webcam": "a camera",
    r"hf upload": "an account",
    r"uv pip install --torch-backend": "PyTorch's own package index",
    r"(uv venv )?\.venv-phone|VIRTUAL_ENV=\.venv-phone": "gigabytes of converters; tests/phone runs it",
    r"dvc queue start": "workers that outlive the test; tests/test_sharing.py waits for them",
    r".*from_pretrained": "a model on the Hub",
}
"""What a line or a block of Python needs that is not here, by how it begins. Never run."""

SLOW = {
    r"make (env|repro|results)": "installs an environment, or trains the networks of demo",
    r"python3 -m venv|\.venv-(use|study)/|\. try-fer|pip install \.$|uv pip install": "installs packages",
    r"fer train ": "trains a network",
    r"fer (prepare|notebook|bench|audit) ?": "draws 2,000 faces, runs a notebook or measures times",
    r"dvc (exp run|push|pull|plots diff)": "trains, or handles what was trained",
    r"fer score ": "the extra `scale`",
    r"curl ": "the extra `serve`",
}
"""What takes long or installs packages, by how a line begins. `make newcomer` runs it."""


@dataclass(frozen=True)
class Server:
    """A line that runs until it is stopped: where it is asked, and the variable that sets another port."""

    port: int
    path: str
    variable: str = ""
    is_slow: bool = False


SERVERS = {
    r"make app": Server(8501, "/_stcore/health", "STREAMLIT_SERVER_PORT"),
    r"make lab": Server(8888, "/api", "JUPYTER_PORT"),
    r"tensorboard ": Server(6006, "/"),
    r"make web": Server(8502, "/", is_slow=True),
    r"(FER_SERVER_TOKEN=\S+ )?fer serve": Server(8000, "/health", is_slow=True),
}

CLONE = r"git clone .*<repository>"
"""README's first line, which makes the folder that all others run in."""

BLOCK = r"(?ms)^```{}\n(.*?)^```$"

DOCUMENTS = [
    path
    for path in (REPO / "README.md", *sorted(REPO.glob("docs/**/*.md")))
    if re.search(BLOCK.format("(?:sh|python)"), path.read_text())
]


def read_blocks(document, language):
    return re.findall(BLOCK.format(language), document.read_text())


def list_lines(document):
    return [line for block in read_blocks(document, "sh") for line in block.splitlines() if line.strip()]


def find(table, text):
    """Return what a table has for a line, or None."""
    return next((entry for pattern, entry in table.items() if re.match(pattern, text)), None)


@dataclass
class Shell:
    """A shell in a folder that keeps its state from line to line, and the servers that were started in it."""

    folder: Path
    environment: dict[str, str]
    servers: dict[int, subprocess.Popen] = field(default_factory=dict)

    def __enter__(self):
        self.bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return self

    def __exit__(self, *_):
        for port in list(self.servers):
            self.stop(port)
        self.bash.communicate()

    def run(self, line):
        """Run one line to its end without an error."""
        # Braces keep what the line sets; nothing may read the lines that follow.
        self.bash.stdin.write(f"{{ {line}\n}} </dev/null; echo; echo ended: $?\n")
        self.bash.stdin.flush()
        printed = []
        for answer in self.bash.stdout:
            if answer.startswith("ended: "):
                assert answer == "ended: 0\n", f"{line}\n{''.join(printed)}"
                return
            printed.append(answer)
        pytest.fail(f"the shell ended in {line}\n{''.join(printed)}")

    def serve(self, line, server, folder):
        """Start a server and wait until it answers; it runs until the document, or its port, is taken up."""
        self.stop(server.port)
        port = find_free_port() if server.variable else server.port
        variables = {server.variable: str(port)} if server.variable else {}
        log = folder / "server.log"
        self.servers[server.port] = process = subprocess.Popen(
            ["bash", "-c", line],
            cwd=folder,
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        while process.poll() is None:
            try:
                with urlopen(f"http://127.0.0.1:{port}{server.path}", timeout=30) as answer:
                    assert answer.status == 200
                    return
            except (URLError, ConnectionError):
                time.sleep(0.2)
        pytest.fail(f"{line}\n{log.read_text()}")

    def stop(self, port):
        process = self.servers.pop(port, None)
        if process and process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def find_free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@dataclass(frozen=True)
class Newcomer:
    """Where a newcomer is before and after the clone, and the environment there."""

    home: Path
    project: Path
    environment: dict[str, str]


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    """Clone the project as it is now, with README's own command, and give it this environment."""
    home, source = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("source") / "repository"
    (home / ".gitconfig").write_text(
        "[user]\nname = test\nemail = test@example.com\n"
        "[uploadpack]\nallowFilter = true\nallowAnySHA1InWant = true\n"
        "[pack]\nwindow = 0\n"  # Git need not look for what files have in common
        '[protocol "file"]\nallow = always\n'
    )
    (home / "jupyter_server_config.py").write_text(
        "c.ServerApp.allow_root = True\nc.ServerApp.open_browser = False\n"
    )
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("FER_", "PYTEST"))
    }
    environment |= {"GIT_CONFIG_GLOBAL": str(home / ".gitconfig"), "JUPYTER_CONFIG_DIR": str(home)}

    def run(folder, *command):
        options = {"capture_output": True, "text": True, "env": environment}
        done = subprocess.run(command, cwd=folder, check=False, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    changed = run(REPO, "git", "stash", "create") or "HEAD"  # a commit of what is not committed, in no branch
    # Without history, which is not all there in a checkout that README's command has cloned.
    commit = run(REPO, "git", "commit-tree", "-m", "the project as it is", f"{changed}^{{tree}}")
    run(home, "git", "init", "--quiet", str(source))
    run(source, "git", "fetch", "--quiet", f"file://{REPO}", commit)
    run(source, "git", "checkout", "--quiet", "-B", "main", "FETCH_HEAD")
    clone = next(line for line in list_lines(REPO / "README.md") if re.match(CLONE, line))
    run(home, "bash", "-c", clone.replace("<repository>", f"file://{source}"))
    (project,) = (path.parent for path in home.glob("*/.git"))
    run(project, "bash", "-c", "git tag --list '*@*' | xargs --no-run-if-empty git tag --delete")
    if NEWCOMER:
        run(project, "make", "env")
        environment.pop("PYTHONPATH", None)
        environment["VIRTUAL_ENV"] = str(project / ".venv")
    else:
        link_environment(project / ".venv")
        environment |= {"PYTHONPATH": str(project)}
    environment["PATH"] = os.pathsep.join([str(project / ".venv/bin"), environment["PATH"]])
    make_inputs(project)
    return Newcomer(home, project, environment)


def link_environment(folder):
    """Give a clone this environment, as one that is up to date for `make`."""
    folder.mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name != ".stamp":
            (folder / path.name).symlink_to(path)
    (folder / ".stamp").touch()


def make_inputs(project):
    """Make what the documents call photo.jpg, holiday/ and so on."""
    for name in ("holiday", "photos"):
        (project / name).mkdir()
        shutil.copy(REPO / "app/examples/grace_hopper.jpg", project / name)
        Image.fromarray(draw_scene(2)[0]).save(project / name / "two.png")
    for name in ("photo.jpg", "at_rest.jpg"):
        shutil.copy(REPO / "app/examples/astronaut.jpg", project / name)
    pillow_heif.from_pillow(Image.open(project / "photo.jpg")).save(project / "photo.heic")
    content = io.BytesIO()
    Image.fromarray(draw_scene()[0]).save(content, format="png")
    pd.DataFrame({"image": [content.getvalue()]}).to_parquet(project / "faces.parquet")
    with av.open(project / "clip.mp4", "w") as video:
        stream = video.add_stream("h264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for frame in draw_clip(12):
            video.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        video.mux(stream.encode())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_commands_run_as_they_stand(newcomer, document):
    shutil.rmtree(newcomer.project / "my_faces", ignore_errors=True)  # which another document has made
    folder = newcomer.home if document.parent == REPO else newcomer.project
    with Shell(folder, newcomer.environment) as shell:
        for line in list_lines(document):
            server = find(SERVERS, line)
            slow = server.is_slow if server else find(SLOW, line)
            if re.match(CLONE, line) or find(NEEDS, line) or (slow and not NEWCOMER):
                continue
            if server:
                shell.serve(line, server, newcomer.project)
            else:
                line = line.replace("<repository>", str(newcomer.project))
                shell.run(line.replace("/mnt/models", str(newcomer.home / "models")))


@pytest.mark.parametrize(
    "document", [path for path in DOCUMENTS if read_blocks(path, "python")], ids=lambda path: path.stem
)
def test_python_runs_as_it_stands(newcomer, document):
    for block in read_blocks(document, "python"):
        if not re.search("|".join(NEEDS), block):
            done = subprocess.run(
                ["python", "-c", block],
                cwd=newcomer.project,
                env=newcomer.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{block}\n{done.stderr}"


def test_every_exception_is_of_a_line_that_is_there():
    texts = [line for document in DOCUMENTS for line in list_lines(document)]
    texts += [block.replace("\n", " ") for document in DOCUMENTS for block in read_blocks(document, "python")]
    for pattern in (*NEEDS, *SLOW, *SERVERS, CLONE):
        assert any(re.match(pattern, text) for text in texts), pattern
