import json

import numpy as np
import pytest

from fer_lib import metrics_file
from fer_lib.errors import FerError
from fer_lib.metrics_file import format_interval, read_metrics, write_metrics
from fer_lib.params import load_params
from fer_lib.paths import get_output_dirs

META = {"dataset": "demo", "data_hash": "da7a" * 16}
PARAMS = load_params("demo")
VALUES = {"a": 0.1, "arm.seconds": 3.5}


@pytest.fixture
def dirs(tmp_path, monkeypatch):
    """Return the output folders of a run whose code is at a known commit."""
    monkeypatch.setattr(metrics_file, "get_code_commit", lambda: "c0ffee" * 6)
    return get_output_dirs("demo", tmp_path)


def write(dirs, values, meta=META, params=PARAMS, seed=0, wall_seconds=10.0):
    """Write `metrics/training.json` and return what then stands in it."""
    write_metrics(dirs, "training", values, meta, params, seed, wall_seconds)
    return json.loads((dirs.metrics / "training.json").read_text())


def test_file_holds_the_values_and_where_they_come_from(dirs):
    written = write(dirs, {"test.accuracy": np.float32(0.5), "n": np.int64(3), "source": "package"}, seed=7)
    assert list(written) == sorted(written)
    assert written.pop("device")
    assert len(written.pop("params_hash")) == 64  # sha256, in hex
    assert written == {
        "test.accuracy": 0.5,
        "n": 3,
        "source": "package",
        "seed": 7,
        "dataset": "demo",
        "data_hash": "da7a" * 16,
        "git_commit": "c0ffee" * 6,
        "wall_seconds": 10.0,
    }


def test_floats_keep_six_significant_digits(dirs):
    assert write(dirs, {"small": 0.00123456789, "large": 1234567.8})["small"] == 0.00123457
    assert write(dirs, {"large": 1234567.8})["large"] == 1234570.0


@pytest.mark.parametrize("value", [float("nan"), np.inf, [0.5], {"a": 1}, None, True, np.array([1.0])])
def test_value_that_dvc_cannot_compare_is_an_error_naming_its_key(dirs, value):
    with pytest.raises(FerError, match=r"test\.recall\.fear"):
        write(dirs, {"test.recall.fear": value})
    assert not (dirs.metrics / "training.json").exists()


@pytest.mark.parametrize("key", metrics_file.PROVENANCE_KEYS)
def test_value_may_not_replace_its_own_provenance(dirs, key):
    with pytest.raises(FerError, match=key):
        write(dirs, {key: "mine"})


def identify(dirs):
    """Return what changes when the file is written, even with the same content."""
    path = dirs.metrics / "training.json"
    return path.read_bytes(), path.stat().st_ino, path.stat().st_mtime_ns


def test_rerun_that_differs_in_times_alone_leaves_the_file_untouched(dirs):
    write(dirs, VALUES)
    before = identify(dirs)
    write(dirs, VALUES, wall_seconds=99.0)
    write(dirs, VALUES | {"arm.seconds": 88.8})
    assert identify(dirs) == before


@pytest.mark.parametrize(
    "change",
    [
        {"values": VALUES | {"a": 0.2}},
        {"values": {"b" if key == "a" else key: value for key, value in VALUES.items()}},
        {"values": VALUES | {"b": 1}},
        {"values": {"arm.seconds": 3.5}},
        {"values": VALUES | {"arm.seconds_per_face": 1}},
        {"meta": META | {"data_hash": "0" * 64}},
        {"params": PARAMS.model_copy(update={"recipes": {}})},
        {"seed": 1},
    ],
)
def test_any_other_difference_rewrites_it_with_its_time(dirs, change):
    before = write(dirs, VALUES)
    after = write(dirs, **({"values": VALUES} | change), wall_seconds=99.0)
    assert after.pop("wall_seconds") == 99.0
    assert after != {key: value for key, value in before.items() if key != "wall_seconds"}
    values = change.get("values", VALUES)
    assert {key: value for key, value in after.items() if key not in metrics_file.PROVENANCE_KEYS} == values


def test_other_code_rewrites_it(dirs, monkeypatch):
    write(dirs, VALUES)
    monkeypatch.setattr(metrics_file, "get_code_commit", lambda: "decaf" * 8)
    assert write(dirs, VALUES)["git_commit"] == "decaf" * 8


def test_damaged_file_is_replaced(dirs):
    write(dirs, {"a": 1})
    (dirs.metrics / "training.json").write_text('{"a": ')
    assert write(dirs, {"a": 1})["a"] == 1


def test_name_may_lead_into_a_folder(dirs):
    write_metrics(dirs, "recipes/b0", {"a": 1}, META, PARAMS, 0, 1.0)
    assert read_metrics(dirs, "recipes/b0") == json.loads((dirs.metrics / "recipes" / "b0.json").read_text())


def test_interval_reads_as_the_field_writes_it():
    metrics = {"test.accuracy": 0.65249, "test.accuracy_lo": 0.637, "test.accuracy_hi": 0.668}
    assert format_interval(metrics, "test.accuracy") == "0.652 [0.637, 0.668]"
    assert format_interval(metrics, "test.accuracy", ".1%") == "65.2% [63.7%, 66.8%]"


def test_metrics_of_a_stage_that_has_not_run_say_what_to_do(dirs):
    with pytest.raises(FerError, match=r"training\.json: not found; run the notebook of stage 'training'"):
        read_metrics(dirs, "training")
