"""The hooks that change or refuse files, on files that need it; `make lint` runs all hooks on the project."""

import json
import shutil
import subprocess
import sys

import pytest
from conftest import REPO, build_command_environment, run_git

CONFIG = ".pre-commit-config.yaml"
NOTEBOOK = "notebooks/01_data_audit.ipynb"


@pytest.fixture
def clone(tmp_path):
    """Return a repository with nothing but the hooks."""
    run_git(tmp_path, "init", "--quiet")
    shutil.copy(REPO / CONFIG, tmp_path)
    return tmp_path


def run_hook(root, hook):
    """Run a hook on what is staged; return its exit status and output."""
    run_git(root, "add", "--all")
    command = [sys.executable, "-m", "pre_commit", "run", hook]
    environment = build_command_environment(root) | {"PRE_COMMIT_HOME": str(root / ".git" / "pre-commit")}
    done = subprocess.run(
        command,
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_notebook_that_jupyterlab_has_run_is_committed_as_it_was_before(clone):
    path = clone / NOTEBOOK
    path.parent.mkdir()
    before = (REPO / NOTEBOOK).read_text()
    notebook = json.loads(before)
    cell = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": ["10 faces\n"]}]
    cell["execution_count"] = 3
    notebook["metadata"]["language_info"] |= {
        "codemirror_mode": {"name": "ipython", "version": 3},
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3",
        "version": "3.12.1",
    }
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    status, output = run_hook(clone, "nbstripout")
    assert status == 1, output
    assert path.read_text() == before
    assert run_hook(clone, "nbstripout")[0] == 0


def test_large_file_is_refused_unless_it_is_a_released_network(clone):
    released = clone / "models" / "release" / "new" / "model.float.onnx"
    released.parent.mkdir(parents=True)
    released.write_bytes(bytes(6_000_000))
    status, output = run_hook(clone, "large-files")
    assert status == 0, output
    (clone / "faces.npy").write_bytes(bytes(6_000_000))
    status, output = run_hook(clone, "large-files")
    assert status == 1
    assert "faces.npy" in output
