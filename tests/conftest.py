"""Small projects for the tests that run whole commands. Nothing here needs the network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).resolve().parent.parent

TINY = {
    # The smallest numbers that leave every emotion in every split and train for more than one step.
    "prepare": {"size": 48, "n_faces": 160, "seed": 2},  # other seeds need several hundred faces
    "data_audit": {"n_resamples": 20},
    "training": {
        "architecture": "test_efficientnet",  # timm's own miniature, 0.4 million parameters
        "weights": "none",
        "image_size": 32,
        "batch_size": 16,
        "epochs": 4,
        "patience": 4,
        "warmup_steps": 2,
    },
    "evaluation": {"n_resamples": 20},
}


def write_tiny_params(path):
    """Write the project's parameters with `TINY` over those of demo."""
    params = yaml.safe_load((REPO / "params.yaml").read_text())
    for section, values in TINY.items():
        params["datasets"]["demo"][section] = {**params["datasets"]["demo"][section], **values}
        params["smoke"].pop(section, None)
    path.write_text(yaml.safe_dump(params, sort_keys=False))


def build_command_environment(root):
    """Return the environment in which this checkout's code works on the project in `root`."""
    return {
        **{name: value for name, value in os.environ.items() if name != "FER_DATA_ROOT"},
        "FER_ROOT": str(root),
        "OMP_NUM_THREADS": "1",  # threads that wait for each other starve on a shared machine
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(REPO),
    }


def run_fer_lib(root, *arguments, **environment):
    """Run `python -m fer_lib` on the project in `root` and return the finished process."""
    return subprocess.run(
        [sys.executable, "-m", "fer_lib", *map(str, arguments)],
        cwd=root,
        env={**build_command_environment(root), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def tiny_project(tmp_path_factory):
    """Return a project folder with the real notebooks, tiny parameters and a packed demo set."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(REPO / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".ipynb*"))
    write_tiny_params(root / "params.yaml")
    done = run_fer_lib(root, "prepare", "--dataset", "demo")
    assert done.returncode == 0, done.stderr
    return root
