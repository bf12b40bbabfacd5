import pandas as pd
import pytest

from fer_lib.deployment import variants
from fer_lib.deployment.latency import name_run
from fer_lib.intervals import Interval
from fer_lib.metrics_file import Metrics, read_metrics, write_metrics
from fer_lib.params import load_params
from fer_lib.paths import OutputDirs
from fer_lib.study_sections import DeviceLimits

SETTINGS = load_params("demo").compression
REFERENCES = ("float_reference", "baseline")


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "network": ["a", "a", "b", "b"],
            "variant": ["float32", "int8", "float32", "int8"],
            "bytes": [8e6, 2e6, 4e6, 1e6],
            "ms": [4.0, 2.0, 1.0, 0.5],
            "val_accuracy": [0.700, 0.697, 0.650, 0.640],
        },
        index=["a.float32", "a.int8", "b.float32", "b.int8"],
    )


def test_front_leaves_out_what_another_beats_in_both(table):
    table.loc["b.float32", "val_accuracy"] = 0.63  # slower than b.int8 and worse
    assert list(variants.find_front(table, "ms", "val_accuracy")) == ["b.int8", "a.int8", "a.float32"]


def test_front_takes_the_better_of_two_as_fast(table):
    table["ms"] = 1.0
    assert list(variants.find_front(table, "ms", "val_accuracy")) == ["a.float32"]


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
def test_variant_for_a_device(table, limits, tolerance, chosen):
    assert variants.choose_variant(table, DeviceLimits(**limits), tolerance) == chosen


@pytest.fixture
def metrics():
    found = Metrics("compression")
    for name in ("a.int8", "b.int8"):
        for reference in REFERENCES:
            found.add(f"{reference}.gain", Interval(-0.004, -0.01, 0.002), model=name)
            found.add(f"{reference}.p_value", 0.3, model=name)
    return found


def build_latency(speedups):
    """Return metrics with these speed-ups, by variant: for one face and for 32, over either reference."""
    found = Metrics("latency")
    for name, values in speedups.items():
        for reference in REFERENCES:
            for batch, value in zip((1, 32), values, strict=True):
                speedup = Interval(value, value - 0.1, value + 0.1)
                found.add(f"time.speedup.{reference}", speedup, model=name, split=name_run(2, batch))
    return found


def test_int8_holds_when_loss_size_and_both_speeds_do(table, metrics):
    latency = build_latency({"a.int8": (2.0, 2.5), "b.int8": (2.0, 2.0)})
    found = variants.check_int8(table, metrics, latency, SETTINGS, "float_reference")
    assert found.loc["a.int8", "points lost"].split() == ["+0.4", "[-0.2,", "+1.0]"]
    assert found.loc["a.int8", "times as fast"].split() == ["2.00", "[1.90,", "2.10]"]
    assert found.loc["a.int8", "size"] == 0.25
    assert found["holds"].to_dict() == {"a.int8": True, "b.int8": False}  # b is too slow for 32 faces


@pytest.mark.parametrize(
    ("column", "value", "speedups"),
    [
        ("val_accuracy", 0.694, (2.0, 2.5)),
        ("bytes", 3e6, (2.0, 2.5)),
        ("bytes", 2e6, (1.7, 2.5)),
        ("bytes", 2e6, (2.0, 2.1)),
    ],
)
def test_int8_does_not_hold_when_one_criterion_is_missed(table, metrics, column, value, speedups):
    table.loc["a.int8", column] = value
    latency = build_latency({"a.int8": speedups, "b.int8": speedups})
    found = variants.check_int8(table, metrics, latency, SETTINGS, "float_reference")
    assert not found.loc["a.int8", "holds"]


def test_int8_against_the_baseline_is_against_its_float_variant(table, metrics):
    settings = SETTINGS.model_copy(update={"baseline": "b"})
    latency = build_latency({"a.int8": (3.0, 3.0), "b.int8": (3.0, 3.0)})
    found = variants.check_int8(table, metrics, latency, settings, "baseline")
    assert found["size"].to_dict() == {"a.int8": 0.5, "b.int8": 0.25}


def test_int8_to_take_is_the_best_on_validation_of_those_that_hold(table):
    holds = pd.DataFrame({"holds": [False, True]}, index=["a.int8", "b.int8"])
    assert variants.choose_int8(table, holds) == "b.int8"
    assert variants.choose_int8(table, holds.assign(holds=False)) == "a.int8"


def test_times_alone_do_not_change_the_metrics(tmp_path):
    dirs, params = OutputDirs(tmp_path / "reports" / "demo", tmp_path), load_params("demo")
    meta = {"data_hash": "a", "dataset": "demo"}
    for milliseconds, machine in ((1.0, "one"), (2.0, "one"), (3.0, "another")):
        metrics = Metrics("latency")
        metrics.add("time.ms", milliseconds, model="a", split=name_run(1, 1))
        metrics.describe("machine", machine)
        write_metrics(dirs, metrics, meta, params, 0, 1.0)
        found = read_metrics(dirs, "latency")["a.threads_1.batch_1.time.ms"]
        assert found == (3.0 if machine == "another" else 1.0)
