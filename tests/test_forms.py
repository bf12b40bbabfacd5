import json

import pandas as pd
import pytest

from fer_lib.deployment import forms
from fer_lib.params import DeviceLimits, load_params


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "network": ["a", "a", "b", "b"],
            "form": ["float32", "int8", "float32", "int8"],
            "bytes": [8e6, 2e6, 4e6, 1e6],
            "ms_1_1": [4.0, 2.0, 1.0, 0.5],
            "val_accuracy": [0.700, 0.697, 0.650, 0.640],
        },
        index=["a.float32", "a.int8", "b.float32", "b.int8"],
    )


def test_front_leaves_out_what_another_beats_in_both(table):
    table.loc["b.float32", "val_accuracy"] = 0.63  # slower than b.int8 and worse
    assert list(forms.find_front(table, "ms_1_1", "val_accuracy")) == ["b.int8", "a.int8", "a.float32"]


def test_front_takes_the_better_of_two_as_fast(table):
    table["ms_1_1"] = 1.0
    assert list(forms.find_front(table, "ms_1_1", "val_accuracy")) == ["a.float32"]


@pytest.mark.parametrize(
    ("limits", "tolerance", "chosen"),
    [
        ({}, 0.0, "a.float32"),
        ({}, 0.005, "a.int8"),  # within half a point, and faster
        ({"megabytes": 5}, 0.005, "a.int8"),
        ({"megabytes": 1}, 0.005, "b.int8"),
        ({"milliseconds": 1.5}, 0.0, "b.float32"),
        ({"megabytes": 0.5}, 0.005, None),
    ],
)
def test_form_for_a_device(table, limits, tolerance, chosen):
    assert forms.choose_form(table, DeviceLimits(**limits), tolerance) == chosen


SETTINGS = load_params("demo").compression
GAIN = {"gain": -0.004, "gain_lo": -0.01, "gain_hi": 0.002, "p_value": 0.3}
METRICS = {
    f"{name}.{other}.{key}": value
    for name in ("a.int8", "b.int8")
    for other in ("twin", "parent")
    for key, value in GAIN.items()
}


@pytest.fixture
def timed(table):
    """The table with speed-ups: a's int8 2.0 and 2.5 times as fast as its twin, b's 2.0 and 2.0 times."""
    speedups = {"twin_2_1": [1, 2.0, 1, 2.0], "twin_2_32": [1, 2.5, 1, 2.0]}
    for column, values in speedups.items():
        for end in ("", "_lo", "_hi"):
            table[f"{column}{end}"] = values
    return table


def test_int8_holds_when_loss_size_and_both_speeds_do(timed):
    found = forms.check_int8(timed, METRICS, SETTINGS, "twin")
    assert found.loc["a.int8", "points lost"] == "+0.4 [-0.2, +1.0]"
    assert found.loc["a.int8", "times as fast"] == "2.00 [2.00, 2.00]"
    assert found.loc["a.int8", "size"] == 0.25
    assert found["holds"].to_dict() == {"a.int8": True, "b.int8": False}  # b is too slow for 32 faces


@pytest.mark.parametrize(
    ("column", "value"), [("val_accuracy", 0.694), ("bytes", 3e6), ("twin_2_1", 1.7), ("twin_2_32", 2.1)]
)
def test_int8_does_not_hold_when_one_bar_is_missed(timed, column, value):
    timed.loc["a.int8", column] = value
    assert not forms.check_int8(timed, METRICS, SETTINGS, "twin").loc["a.int8", "holds"]


def test_int8_against_the_parent_is_against_its_float_form(timed):
    settings = SETTINGS.model_copy(update={"parent": "b"})
    for column in ("parent_2_1", "parent_2_32"):
        for end in ("", "_lo", "_hi"):
            timed[f"{column}{end}"] = 3.0
    found = forms.check_int8(timed, METRICS, settings, "parent")
    assert found["size"].to_dict() == {"a.int8": 0.5, "b.int8": 0.25}


def test_int8_to_take_is_the_best_on_validation_of_those_that_hold(timed):
    holds = pd.DataFrame({"holds": [False, True]}, index=["a.int8", "b.int8"])
    assert forms.choose_int8(timed, holds) == "b.int8"
    assert forms.choose_int8(timed, holds.assign(holds=False)) == "a.int8"


def test_times_alone_do_not_change_a_metrics_file(tmp_path):
    from fer_lib.metrics_file import write_metrics
    from fer_lib.paths import OutputDirs

    dirs, params = OutputDirs(tmp_path, tmp_path), load_params("demo")
    meta = {"data_hash": "a", "dataset": "demo"}
    for milliseconds, machine in ((1.0, "one"), (2.0, "one"), (3.0, "another")):
        write_metrics(dirs, "latency", {"time.a.ms": milliseconds, "machine": machine}, meta, params, 0, 1.0)
        found = json.loads((tmp_path / "metrics" / "latency.json").read_text())["time.a.ms"]
        assert found == (3.0 if machine == "another" else 1.0)
