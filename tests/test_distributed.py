import json
import subprocess
import sys

import distributed_run
import pytest
from conftest import REPO, build_command_environment, run_fer_lib, write_tiny_params

from fer_lib.errors import ParamsError
from fer_lib.training.fit import fit

SETTINGS = {"epochs": 3, "dropout": 0.0, "lr": 0.003}
"""Eight steps an epoch. Processes draw dropout apart: only without it their losses are the same."""


def train_in_two(folder, killed_at=-1, restarts=0, **changes):
    command = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        f"--max-restarts={restarts}",
    ]
    settings = json.dumps({"killed_at": killed_at, **changes})
    environment = build_command_environment(REPO) | {"PYTHONPATH": f"{REPO}:{REPO / 'tests'}"}
    done = subprocess.run(
        [sys.executable, *command, distributed_run.__file__, str(folder), settings],
        env=environment, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "found.json").read_text())


def check_same(found, expected):
    for name, values in expected["history"].items():
        assert found["history"][name] == pytest.approx(values, abs=1e-3), name


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler": "weighted", "loss": "focal", "head_epochs": 1},
        {"loss": "weighted_cross_entropy", "ema_decay": 0.0},
    ],
)
def test_two_processes_train_as_one_does(tmp_path, changes):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one = distributed_run.run(tmp_path / "one", killed_at=-1, **SETTINGS, **changes)
    two = train_in_two(tmp_path / "two", **SETTINGS, **changes)
    assert len(one["losses"]) == 24
    assert two["losses"][:20] == pytest.approx(one["losses"][:20], abs=1e-3)
    check_same(two, one)


def test_training_goes_on_when_one_process_is_killed(tmp_path):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = train_in_two(tmp_path / "whole", **SETTINGS)
    killed = train_in_two(tmp_path / "killed", killed_at=11, restarts=1, **SETTINGS)
    assert 0 < len(killed["losses"]) < len(whole["losses"])  # it did not begin anew
    check_same(killed, whole)


def test_pipeline_trains_each_network_with_as_many_processes_as_asked(tmp_path):
    write_tiny_params(tmp_path / "params.yaml")
    for name in ("dvc.yaml", "fer_lib"):
        (tmp_path / name).symlink_to(REPO / name)
    done = run_fer_lib(tmp_path, "prepare", "--dataset", "demo")
    assert done.returncode == 0, done.stderr
    code = "from fer_lib.training import networks; networks._run_torchrun('baseline', 'demo', None, 2)"
    environment = build_command_environment(tmp_path)  # all networks, one after the other, take minutes
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    config = json.loads((tmp_path / "scratch" / "models" / "demo" / "baseline" / "config.json").read_text())
    assert config["processes"] == 2


def test_batch_that_cannot_be_shared_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("fer_lib.training.fit.get_world_size", lambda: 3)
    with pytest.raises(ParamsError, match=r"batch_size: expected a multiple of 3, the processes, found 16"):
        fit(distributed_run.Faces(), distributed_run.make_params(), tmp_path)
